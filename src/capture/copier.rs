//! A worker of the copy: reads a piece, waits until it may be applied, applies it, asks for the next.
//!
//! One piece at a time, so that a crash costs one piece a worker at the most. Several workers keep source and target busy
//! at the same time.

use std::sync::Arc;

use slackwater_connectors::error::Error;
use slackwater_connectors::kafka::Ticket;
use slackwater_connectors::mongodb::Mongo;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::progress::ChunkDone;
use slackwater_connectors::retry::Pauses;
use slackwater_connectors::secret::Secret;
use slackwater_connectors::source::ChunkRead;
use slackwater_topics::{Bound, Event, Op, Position, Stamp};
use tokio::sync::{mpsc, oneshot};

use super::outgoing::{Outgoing, Pen, random};
use super::router::{Assignment, Release, Word};
use crate::apply::batch::Batch;
use crate::apply::lane::{Lane, Stopped, Way};
use crate::mapping::Plan;
use crate::ops::gauges::Gauges;
use crate::ops::policy::{Action, action};
use crate::ops::stop::Stop;

/// What a copier works with.
pub(crate) struct Copier {
    pub(crate) mongo: Mongo,
    pub(crate) plan: Arc<Plan>,
    pub(crate) outlet: Outlet,
    pub(crate) router: mpsc::UnboundedSender<Word>,
    /// A piece is read no further than this many bytes.
    pub(crate) most_bytes: usize,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stop: Stop,
}

/// Where pieces go.
pub(crate) enum Outlet {
    /// Straight into the target.
    Lane(Box<Lane>),
    /// Into the log.
    Log(Box<Logging>),
}

/// What sending pieces into the log takes.
pub(crate) struct Logging {
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) pen: Pen,
    pub(crate) control: Control,
    pub(crate) target: Secret,
    pub(crate) stop: Stop,
}

impl Copier {
    /// Works until it is to stop.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        loop {
            let (sender, receiver) = oneshot::channel();
            if self.router.send(Word::Idle(sender)).is_err() {
                return Ok(());
            }
            let assignment = tokio::select! {
                () = self.stop.wait() => return Ok(()),
                assignment = receiver => assignment,
            };
            let Ok(assignment) = assignment else { return Ok(()) };
            match self.copy(assignment).await {
                Ok(()) => {}
                Err(Stopped::Asked) => return Ok(()),
                Err(Stopped::Failed(error)) => return Err(error),
            }
        }
    }

    async fn copy(&mut self, assignment: Assignment) -> Result<(), Stopped> {
        let Assignment { piece, collection, .. } = assignment;
        let ChunkRead { mut documents, until, rest, .. } = self.read(&assignment).await?;
        let (sender, receiver) = oneshot::channel();
        let word = Word::Read { piece, until, rest: rest.clone(), release: sender };
        if self.router.send(word).is_err() {
            return Err(Stopped::Asked);
        }
        let release = tokio::select! {
            () = self.stop.wait() => return Err(Stopped::Asked),
            release = receiver => release,
        };
        // Dropped without an answer: the piece is void, its collection was begun anew.
        let Ok(Release { changed, noted }) = release else { return Ok(()) };
        let count = documents.len() as u64;
        if !changed.is_empty() {
            documents.retain(|(key, _)| !changed.contains(key));
        }
        let events: Vec<Event> = documents
            .into_iter()
            .map(|(key, document)| Event {
                collection,
                key,
                op: Op::Snapshot,
                document,
                position: Position::default(),
                time: 0,
            })
            .collect();
        let bytes = |bound: &Option<Bound>| bound.as_ref().map(|bound| bound.as_bytes().to_vec());
        let chunk = ChunkDone {
            collection: self.plan.collections[usize::from(collection.0)].name.clone(),
            id: piece,
            documents: count,
            rest: rest.as_ref().map(|rest| (bytes(&rest.lo), bytes(&rest.hi))),
        };
        match &mut self.outlet {
            Outlet::Lane(lane) => {
                // Noting rows as met goes with the upsert only.
                let way = if assignment.fresh && noted.is_empty() { Way::Copy } else { Way::Upsert };
                let mut batch = Batch { events, noted, ..Batch::default() };
                lane.write(&mut batch, Some(chunk), way).await?;
            }
            Outlet::Log(logging) => {
                let stamp = Stamp {
                    epoch: logging.outgoing.epoch,
                    fresh: assignment.fresh,
                    noted: !noted.is_empty(),
                };
                logging.send(&self.plan.migration, &events, stamp, &chunk).await?;
            }
        }
        Gauges::add(&self.gauges.copied, count);
        let cut = rest.and_then(|rest| rest.lo);
        if self.router.send(Word::Done { piece, collection, cut }).is_err() {
            return Err(Stopped::Asked);
        }
        Ok(())
    }

    /// Reads the piece, however often it takes: changes since `from` are remembered, so a later read is as good.
    async fn read(&mut self, assignment: &Assignment) -> Result<ChunkRead, Stopped> {
        let collection = &self.plan.collections[usize::from(assignment.collection.0)].collection;
        let mut pauses = Pauses::for_server();
        loop {
            let read =
                self.mongo.read_chunk(collection, &assignment.range, assignment.from, self.most_bytes).await;
            match read {
                Ok(chunk) => return Ok(chunk),
                Err(error) => match action(error.kind) {
                    Action::Wait | Action::Retry => {
                        tracing::warn!(collection, %error, "reading a piece failed; trying again");
                        if !self.stop.sleep(pauses.next_pause()).await {
                            return Err(Stopped::Asked);
                        }
                    }
                    Action::Quarantine | Action::Recopy | Action::Yield | Action::Halt => {
                        return Err(Stopped::Failed(error));
                    }
                },
            }
        }
    }
}

impl Logging {
    /// Sends the piece, and marks it done when the broker has all of it. A crash in between has it read again.
    async fn send(
        &mut self,
        migration: &str,
        events: &[Event],
        stamp: Stamp,
        chunk: &ChunkDone,
    ) -> Result<(), Stopped> {
        let (ticket, trace) = (Ticket::new(), random());
        for event in events {
            let sending = self.outgoing.event(&mut self.pen, event, stamp, trace, &ticket);
            tokio::select! {
                biased;
                sent = sending => sent.map_err(Stopped::Failed)?,
                () = self.stop.wait() => return Err(Stopped::Asked),
            }
        }
        ticket.close();
        tokio::select! {
            biased;
            acknowledged = ticket.acknowledged() => acknowledged.map_err(Stopped::Failed)?,
            () = self.stop.wait() => return Err(Stopped::Asked),
        }
        let mut pauses = Pauses::for_server();
        loop {
            let error = match self.control.finish_chunk(chunk).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match action(error.kind) {
                Action::Wait | Action::Retry => {
                    tracing::debug!(%error, "the control store does not answer; trying again");
                    if !self.stop.sleep(pauses.next_pause()).await {
                        return Err(Stopped::Asked);
                    }
                    if !self.control.is_connected()
                        && let Ok(mut control) = Control::open(&self.target).await
                    {
                        control.act_as(migration, self.outgoing.epoch);
                        self.control = control;
                    }
                }
                Action::Quarantine | Action::Recopy | Action::Yield | Action::Halt => {
                    return Err(Stopped::Failed(error));
                }
            }
        }
    }
}
