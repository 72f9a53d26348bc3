//! A worker of the copy: reads a chunk, waits until it may be appended to the log, appends it, asks for the next.
//!
//! One chunk at a time, so that a crash costs one chunk a worker at the most. Several workers keep source and target busy
//! at the same time.

use std::sync::Arc;

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::progress::ChunkDone;
use slackwater_connectors::source::ChunkRead;
use slackwater_topics::{Bound, Event, Key, Op, Position};
use tokio::sync::{mpsc, oneshot};

use super::router::{Assignment, CopierMessage, Release};
use crate::log::{Chunk, ChunkLog};
use crate::mapping::Plan;
use crate::ops::gauges::Gauges;
use crate::ops::persist::{Stopped, ended, persist};
use crate::ops::stop::Stop;
use crate::source::Source;

/// What a copier works with.
pub(crate) struct Copier {
    pub(crate) source: Source,
    pub(crate) plan: Arc<Plan>,
    pub(crate) log: ChunkLog,
    pub(crate) router: mpsc::UnboundedSender<CopierMessage>,
    /// A chunk is read no further than this many bytes.
    pub(crate) most_bytes: usize,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stop: Stop,
}

impl Copier {
    /// Works until it is to stop.
    pub(crate) async fn run(self) -> Result<()> {
        ended(self.work().await)
    }

    async fn work(mut self) -> std::result::Result<(), Stopped> {
        loop {
            let (sender, assignment) = oneshot::channel();
            self.tell(CopierMessage::Idle(sender))?;
            let assignment = self.hear(assignment).await?.ok_or(Stopped::Asked)?;
            self.copy(assignment).await?;
        }
    }

    fn tell(&self, message: CopierMessage) -> std::result::Result<(), Stopped> {
        self.router.send(message).map_err(|_| Stopped::Asked)
    }

    /// The router's answer; none where it has dropped the question.
    async fn hear<T>(&mut self, answer: oneshot::Receiver<T>) -> std::result::Result<Option<T>, Stopped> {
        tokio::select! {
            () = self.stop.wait() => Err(Stopped::Asked),
            answer = answer => Ok(answer.ok()),
        }
    }

    async fn copy(&mut self, assignment: Assignment) -> std::result::Result<(), Stopped> {
        let Assignment { chunk, collection, ref range, from, fresh } = assignment;
        let plan = Arc::clone(&self.plan);
        let plan = plan.collection(collection);
        // However often it takes: changes since `from` are remembered, so a later read is as good.
        let (source, most_bytes) = (&self.source, self.most_bytes);
        let read = persist(&self.stop, || source.read(&plan.collection, range, from, most_bytes));
        let ChunkRead { mut documents, until, rest, .. } = read.await?;
        let name = plan.name.clone();
        let (sender, release) = oneshot::channel();
        self.tell(CopierMessage::Read { chunk, until, rest: rest.clone(), release: sender })?;
        // Without an answer the chunk is void: its collection is being recopied.
        let Some(Release { changed, seen }) = self.hear(release).await? else { return Ok(()) };
        let count = documents.len() as u64;
        if !changed.is_empty() {
            documents.retain(|(key, _)| !changed.contains(key));
        }
        let keys: Vec<Key> = match self.source.kind().counts_by_itself() {
            true => documents.iter().map(|(key, _)| key.clone()).collect(),
            false => Vec::new(),
        };
        let events = documents.into_iter().map(|(key, document)| Event {
            collection,
            key,
            op: Op::Snapshot,
            document,
            position: Position::default(),
            time: 0,
        });
        let bytes = |bound: &Option<Bound>| bound.as_ref().map(|bound| bound.as_bytes().to_vec());
        let done = ChunkDone {
            collection: name,
            id: chunk,
            documents: count,
            rest: rest.as_ref().map(|rest| (bytes(&rest.lo), bytes(&rest.hi))),
        };
        self.log.append(Chunk { done, events: events.collect(), fresh, seen }).await?;
        if !keys.is_empty() {
            let (source, of) = (&self.source, &plan.collection);
            persist(&self.stop, || source.copied(of, &keys, until)).await?;
        }
        Gauges::add(&self.gauges.copied, count);
        self.tell(CopierMessage::Done { chunk, collection, cut: rest.and_then(|rest| rest.lo) })
    }
}
