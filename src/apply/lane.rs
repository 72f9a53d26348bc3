//! One lane of the log into the target: one order, one connection, one transaction a batch.
//!
//! # Invariant
//!
//! A batch is in the target once, whole, together with the lane's progress; documents that cannot be written are in
//! the dead letters, in the same transaction.
//!
//! # When something goes wrong
//!
//! - A record that the database refuses: the transaction is made again carefully, in halves, until the records
//!   that fail stand alone. The others are written.
//! - The connection is lost: after reconnecting, the lane's sequence tells whether the commit arrived. It is asked,
//!   never assumed.
//! - Another process has taken over: the lane's epoch is not ours any more, every statement of ours fails, we stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::postgres::progress::{
    Advance, ChunkDone, Counts, DeadLetter, FencePass, Notes, Tally,
};
use slackwater_connectors::postgres::target::rows::WriteSet;
use slackwater_connectors::postgres::target::sink::Sink;
use slackwater_connectors::retry::Pauses;
use slackwater_topics::{Barrier, Event};

use super::batch::{Batch, keep_last};
use super::letters::Letters;
use crate::mapping::{self, Mapper, Plan, Rejection};
use crate::ops::board::Place;
use crate::ops::gauges::Gauges;
use crate::ops::metrics::{self, Retry};
use crate::ops::policy::{Action, action, remedy};
use crate::ops::stop::Stop;

/// Buffers that one huge batch has blown up are given back.
const KEPT_BYTES: usize = 32 << 20;

/// More than this is not gone through for records that fail: others would wait for its rows meanwhile.
const MOST_CAREFUL: usize = 256;

/// A lane at work.
pub(crate) struct Lane {
    sink: Sink,
    plan: Arc<Plan>,
    mapper: Mapper,
    records: WriteSet,
    /// For COPY; a lane that never copies has none.
    tuples: Option<WriteSet>,
    letters: Arc<Letters>,
    gauges: Arc<Gauges>,
    stop: Stop,
    name: String,
    /// The caller waits for rows of other lanes, and gives less at once, before anything goes to the dead letters.
    patient: bool,
}

/// How a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Insert or update.
    Upsert,
    /// The tables hold nothing of it: COPY. Where that turns out to be wrong it is upserted.
    Copy,
}

/// The lane was told to stop before the batch was in the target.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// On request; the batch comes again after the next start.
    Asked,
    /// Something that going on would make worse.
    Failed(Error),
}

impl Lane {
    pub(crate) fn new(
        name: String,
        sink: Sink,
        plan: Arc<Plan>,
        letters: Arc<Letters>,
        gauges: Arc<Gauges>,
        stop: Stop,
    ) -> Self {
        let records = WriteSet::new(&plan.tables, false);
        let mapper = Mapper::new(Arc::clone(&plan));
        Self { sink, plan, mapper, records, tuples: None, letters, gauges, stop, name, patient: false }
    }

    /// Whether the next batches are given back where rows that they refer to may be on their way in other lanes, or where
    /// they are too large to look for what fails in them.
    pub(crate) fn be_patient(&mut self, patient: bool) {
        self.patient = patient;
    }

    /// Where the lane stands.
    pub(crate) fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Writes the batch, however often it takes.
    ///
    /// The batch is reduced and otherwise left as it is, for a caller who has to try again with less.
    pub(crate) async fn write(
        &mut self,
        batch: &mut Batch,
        chunk: Option<ChunkDone>,
        way: Way,
    ) -> std::result::Result<Counts, Stopped> {
        let taken = batch.events.len() as u64;
        // A piece holds each document once.
        if chunk.is_none() {
            batch.events = keep_last(std::mem::take(&mut batch.events));
        }
        let events = &batch.events;
        let bytes: u64 = events.iter().map(|event| event.document.len() as u64).sum();
        let mut advance = Advance {
            sequence: self.sink.progress().sequence,
            position: batch.position.clone(),
            // What was read and not streamed has no time of its own.
            source_time: events.iter().map(|event| event.time).filter(|time| *time > 0).max(),
            applied_through: (batch.passed.0 > 0).then_some(batch.passed),
            horizon: batch.horizon.max(self.sink.progress().horizon),
            as_of: batch.as_of,
            events: taken,
            chunk,
            seen: batch.noted.clone(),
            partitions: batch.partitions.clone(),
        };
        let mut fences = batch.fences.clone();
        fences.extend(batch.barriers.iter().filter_map(|barrier| match barrier {
            Barrier::Fence { id } => Some(FencePass { id: *id, lane: None }),
            Barrier::Sweep { .. } => None,
        }));
        let given = Notes { fences, dead_letters: batch.letters.clone(), ..Notes::default() };
        let mut way = way;
        let mut careful = false;
        let mut pauses = Pauses::for_server();
        let mut said = false;
        let begun = Instant::now();
        loop {
            let attempt = if careful {
                self.write_carefully(&advance, events, &given).await
            } else {
                self.write_at_once(&advance, events, &given, way).await
            };
            let error = match attempt {
                Ok(counts) => {
                    if said {
                        tracing::info!(lane = self.name, "writing again");
                        self.gauges.board.set(Place::Target, None);
                    }
                    Gauges::add(&self.gauges.rows, counts.upserted + counts.deleted);
                    Gauges::add(&self.gauges.bytes, bytes);
                    metrics::wrote(taken, counts.upserted + counts.deleted, bytes, begun.elapsed());
                    return Ok(counts);
                }
                Err(error) => error,
            };
            match action(error.kind) {
                Action::Quarantine if way == Way::Copy => {
                    // Rows of a former run of this chunk stand there already: the stream had brought them.
                    tracing::debug!(lane = self.name, %error, "the chunk is merged instead of copied");
                    way = Way::Upsert;
                }
                Action::Quarantine if self.patient && (dangles(&error) || events.len() > MOST_CAREFUL) => {
                    metrics::retried(Retry::Reference);
                    return Err(Stopped::Failed(error));
                }
                Action::Quarantine if !careful => {
                    tracing::debug!(lane = self.name, %error, "a record cannot be written; looking for it");
                    careful = true;
                    metrics::retried(Retry::Search);
                }
                Action::Quarantine | Action::Halt | Action::Recopy | Action::Yield => {
                    return Err(Stopped::Failed(error));
                }
                Action::Retry => {
                    tracing::debug!(lane = self.name, %error, "trying again");
                    metrics::retried(Retry::Contention);
                    if !self.stop.sleep(Duration::from_millis(5)).await {
                        return Err(Stopped::Asked);
                    }
                }
                Action::Wait => {
                    if said {
                        tracing::debug!(lane = self.name, %error, "still waiting");
                    } else {
                        tracing::warn!(lane = self.name, %error, remedy = remedy(error.kind), "waiting for the target");
                        said = true;
                    }
                    metrics::retried(Retry::Wait);
                    self.gauges.board.set(Place::Target, Some(format!("waiting for the target: {error}")));
                    if self.reconnect(&mut pauses).await? && self.sink.progress().sequence > advance.sequence
                    {
                        tracing::info!(lane = self.name, "the commit had arrived, its answer had not");
                        self.gauges.board.set(Place::Target, None);
                        return Ok(Counts::default());
                    }
                    advance.sequence = self.sink.progress().sequence;
                }
            }
        }
    }

    /// Connects again, however long it takes.
    async fn reconnect(&mut self, pauses: &mut Pauses) -> std::result::Result<bool, Stopped> {
        loop {
            if !self.stop.sleep(pauses.next_pause()).await {
                return Err(Stopped::Asked);
            }
            match self.sink.reopen().await {
                Ok(()) => {
                    metrics::reconnected("target");
                    return Ok(true);
                }
                Err(error) => match action(error.kind) {
                    Action::Wait | Action::Retry => {
                        tracing::debug!(lane = self.name, %error, "the target is still away");
                    }
                    Action::Quarantine | Action::Halt | Action::Recopy | Action::Yield => {
                        return Err(Stopped::Failed(error));
                    }
                },
            }
        }
    }

    async fn write_at_once(
        &mut self,
        advance: &Advance,
        events: &[Event],
        given: &Notes,
        way: Way,
    ) -> Result<Counts> {
        let writes = match way {
            Way::Upsert => &mut self.records,
            Way::Copy => self.tuples.get_or_insert_with(|| WriteSet::new(&self.plan.tables, true)),
        };
        reset(writes, &self.plan);
        let mut notes = given.clone();
        for event in events {
            if let Err(rejection) = self.mapper.map(event, writes) {
                notes.dead_letters.push(rejected(&self.plan, event, rejection));
            }
        }
        writes.sort();
        notes.tallies = tallied(&self.plan, self.mapper.take_tallies());
        self.letters.settle(&self.plan, events, &mut notes);
        let written = match way {
            Way::Upsert => self.sink.apply(advance, writes, &notes).await,
            Way::Copy => self.sink.copy(advance, writes, &notes).await,
        };
        if written.is_ok() {
            self.count_letters(&notes);
        }
        written
    }

    /// In halves, each in a savepoint, until what fails is a single document.
    async fn write_carefully(
        &mut self,
        advance: &Advance,
        events: &[Event],
        given: &Notes,
    ) -> Result<Counts> {
        let outcome = self.halve(advance, events, given).await;
        if outcome.is_err() {
            // The connection may be gone, then this fails too and the caller reconnects.
            let _ = self.sink.rollback().await;
        }
        outcome
    }

    async fn halve(&mut self, advance: &Advance, events: &[Event], given: &Notes) -> Result<Counts> {
        self.sink.begin(advance).await?;
        let mut notes = given.clone();
        let mut total = Counts::default();
        let mut open = vec![events];
        while let Some(part) = open.pop() {
            reset(&mut self.records, &self.plan);
            let mut letters = Vec::new();
            for event in part {
                if let Err(rejection) = self.mapper.map(event, &mut self.records) {
                    letters.push(rejected(&self.plan, event, rejection));
                }
            }
            let tallies = tallied(&self.plan, self.mapper.take_tallies());
            match self.sink.attempt(&self.records).await {
                Ok(counts) => {
                    total.upserted += counts.upserted;
                    total.deleted += counts.deleted;
                    total.received += counts.received;
                    notes.dead_letters.append(&mut letters);
                    notes.tallies.extend(tallies);
                }
                Err(error) if error.kind == Kind::Data && !(self.patient && dangles(&error)) => match part {
                    [] => {}
                    [event] => notes.dead_letters.push(refused(&self.plan, event, &error)),
                    _ => {
                        // The stack gives the first half first: the order of the source is kept.
                        let (first, second) = part.split_at(part.len() / 2);
                        open.push(second);
                        open.push(first);
                    }
                },
                Err(error) => return Err(error),
            }
        }
        self.letters.settle(&self.plan, events, &mut notes);
        self.sink.commit(&notes).await?;
        self.count_letters(&notes);
        Ok(total)
    }

    fn count_letters(&self, notes: &Notes) {
        let count = notes.dead_letters.len() as u64;
        if count > 0 {
            Gauges::add(&self.gauges.letters, count);
            let first = &notes.dead_letters[0];
            tracing::warn!(
                lane = self.name,
                count,
                collection = first.collection,
                table = first.table,
                column = first.column,
                reason = first.text,
                "documents went to the dead letters"
            );
        }
    }

    /// Removes the rows that a repeated copy has not met; how many, and how many are still referenced.
    pub(crate) async fn sweep(&mut self, tables: &[usize]) -> std::result::Result<u64, Stopped> {
        let mut pauses = Pauses::for_server();
        let mut removed = 0;
        // Rows that refer come before those that are referred to.
        for table in tables.iter().rev() {
            loop {
                match self.sink.sweep(*table, &[]).await {
                    Ok(count) => {
                        removed += count;
                        break;
                    }
                    Err(error) => match action(error.kind) {
                        Action::Retry => {}
                        Action::Wait => {
                            tracing::warn!(lane = self.name, %error, "waiting for the target");
                            self.reconnect(&mut pauses).await?;
                        }
                        Action::Quarantine | Action::Halt | Action::Recopy | Action::Yield => {
                            return Err(Stopped::Failed(error));
                        }
                    },
                }
            }
        }
        Ok(removed)
    }
}

/// A foreign key is not met.
fn dangles(error: &Error) -> bool {
    error.code.as_deref() == Some("23503")
}

/// Empties the buffers, and gives them back where a large batch has blown them up.
fn reset(writes: &mut WriteSet, plan: &Plan) {
    if writes.byte_len() > KEPT_BYTES {
        *writes = WriteSet::new(&plan.tables, writes.copy);
    } else {
        writes.clear();
    }
}

fn letter(plan: &Plan, event: &Event, kind: String, text: String) -> DeadLetter {
    DeadLetter {
        collection: plan.collections[usize::from(event.collection.0)].name.clone(),
        key: event.key.as_bytes().to_vec(),
        op: event.op,
        kind,
        text,
        table: None,
        column: None,
        document: event.document.clone(),
    }
}

/// The mapping could not make rows of it.
fn rejected(plan: &Plan, event: &Event, rejection: Rejection) -> DeadLetter {
    let mut letter = letter(plan, event, rejection.kind.word().to_owned(), rejection.to_string());
    letter.table = (!rejection.table.is_empty()).then_some(rejection.table);
    letter.column = (!rejection.column.is_empty()).then_some(rejection.column);
    letter
}

/// The database would not take its rows.
fn refused(plan: &Plan, event: &Event, error: &Error) -> DeadLetter {
    let kind = error.code.clone().unwrap_or_else(|| "refused".to_owned());
    letter(plan, event, kind, error.to_string())
}

/// What policies did, by name.
fn tallied(plan: &Plan, tallies: Vec<mapping::Tally>) -> Vec<Tally> {
    tallies
        .into_iter()
        .map(|tally| Tally {
            collection: plan.collections[usize::from(tally.collection.0)].name.clone(),
            table: plan.tables[tally.table].table.name.clone(),
            column: tally.column,
            policy: tally.what.word().to_owned(),
            count: tally.count,
            sample_key: tally.samples.first().map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
        })
        .collect()
}
