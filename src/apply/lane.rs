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
//!   that fail are found. The others are written.
//! - The connection is lost: after reconnecting, the lane's sequence tells whether the commit arrived. It is asked,
//!   never assumed.
//! - Another process has taken over: the lane's epoch is not ours any more, every statement of ours fails, we stop.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::postgres::control::standing::STANDING;
use slackwater_connectors::postgres::progress::{Advance, Counts, Notes, Tally};
use slackwater_connectors::postgres::target::rows::{Apart, WriteSet};
use slackwater_connectors::postgres::target::sink::{Sink, Taken};
use slackwater_topics::{CollectionId, Event, Key, Op, Position};
use uuid::Uuid;

use super::schema_watch::Schema;
use super::transaction::{Origin, Transaction};
use super::versions::{self, Chosen};
use crate::judging::ask;
use crate::letters::{Letters, refused, rejected, standing};
use crate::log::{Batch, keep_last};
use crate::mapping::{self, Inputs, Mapper, Plan, Texts, What};
use crate::ops::board::Place;
use crate::ops::gauges::Gauges;
use crate::ops::metrics::{self, Retry};
use crate::ops::persist::{Again, Patience, Stopped};
use crate::ops::stop::Stop;

/// Buffers that one huge batch has blown up are given back.
const KEPT_BYTES: usize = 32 << 20;

/// More than this is not gone through for records that fail: others would wait for its rows meanwhile.
const MOST_CAREFUL: usize = 256;

/// Documents that are deleted in one transaction, where a recopy has not met them.
const UNMET_AT_ONCE: i64 = 5_000;

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
    /// Tells when the tables have changed.
    schema: Schema,
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

impl Lane {
    pub(crate) fn new(
        name: String,
        sink: Sink,
        plan: Arc<Plan>,
        letters: Arc<Letters>,
        gauges: Arc<Gauges>,
        stop: Stop,
        schema: Schema,
    ) -> Self {
        let records = WriteSet::new(&plan.tables, false);
        let mapper = Mapper::new(Arc::clone(&plan));
        Self {
            sink,
            plan,
            mapper,
            records,
            tuples: None,
            letters,
            gauges,
            stop,
            name,
            schema,
            patient: false,
        }
    }

    /// Whether the next batches are given back where rows that they refer to may be on their way in other lanes, or where
    /// they are too large to look for what fails in them.
    pub(crate) fn be_patient(&mut self, patient: bool) {
        self.patient = patient;
    }

    /// The connection, with the lane's progress.
    pub(crate) fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Writes the transaction, however often it takes.
    ///
    /// It is reduced and otherwise left as it is, for a caller who has to try again with less.
    pub(crate) async fn write(
        &mut self,
        transaction: &mut Transaction,
        way: Way,
    ) -> std::result::Result<Counts, Stopped> {
        let taken = transaction.events.len() as u64;
        self.open_sealed(transaction);
        // A chunk holds each document once.
        if !matches!(transaction.origin, Origin::Chunk(_)) {
            let events = std::mem::take(&mut transaction.events);
            transaction.events = keep_last(events, |id| self.plan.keeps_versions(id));
        }
        let mut advance = transaction.advance(taken, self.sink.progress());
        let given = transaction.notes();
        let events = &transaction.events;
        let mut attempt = Attempt { way, careful: false, asked: false };
        self.mapper.refuse(Texts::new(), Inputs::new());
        self.mapper.tidy();
        let tables = if way == Way::Copy { self.tables_of(events) } else { Vec::new() };
        let mut patience = Patience::new(&self.stop).shown(&self.gauges, Place::Target);
        let begun = Instant::now();
        loop {
            if let Some(plan) = self.schema.changed() {
                self.adopt(plan, &mut patience).await?;
                advance.sequence = self.sink.progress().sequence;
                attempt = Attempt { way: attempt.way, careful: false, asked: false };
            }
            if attempt.way == Way::Copy && self.sink.merges(&tables) {
                attempt.way = Way::Upsert;
            }
            let outcome = if attempt.careful {
                self.write_carefully(&advance, events, &given).await
            } else {
                self.write_at_once(&advance, events, &given, attempt.way).await
            };
            let mut error = match outcome {
                Ok(counts) => {
                    patience.over();
                    self.count(taken, events, &counts, begun);
                    return Ok(counts);
                }
                Err(error) => error,
            };
            if self.schema.explains(&error).await {
                continue;
            }
            // Only of that statement: rows that are written and not noted would be swept.
            if is_of_types(&error) && error.doing.starts_with("noting rows of") {
                // The table's key got another type while it was recopied, so it will be recopied once more.
                tracing::debug!(lane = self.name, %error, "row keys cannot be noted any more");
                advance.seen.clear();
                continue;
            }
            if error.kind == Kind::Data && attempt.may_ask(&self.plan, events) {
                match self.ask(events).await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(other) => error = other,
                }
            }
            if error.kind == Kind::Data {
                attempt.refused(error, events.len(), self.patient, &self.name)?;
                continue;
            }
            if patience.after(error).await? == Again::Soon {
                metrics::retried(Retry::Contention);
                continue;
            }
            metrics::retried(Retry::Wait);
            self.reopen(&mut patience).await?;
            if self.sink.progress().sequence > advance.sequence {
                tracing::info!(lane = self.name, "the commit succeeded, but its answer was lost");
                patience.over();
                return Ok(Counts::default());
            }
            advance.sequence = self.sink.progress().sequence;
        }
    }

    /// Opens what travelled encrypted. What does not open is a letter and no event any more.
    fn open_sealed(&self, transaction: &mut Transaction) {
        let Origin::Partitions { letters, .. } = &mut transaction.origin else { return };
        transaction.events.retain_mut(|event| {
            let Some(travel) = &self.plan.collection(event.collection).travel else { return true };
            match travel.open(event) {
                Ok(document) => event.document = document,
                Err(rejection) => {
                    letters.push(rejected(&self.plan, event, rejection));
                    return false;
                }
            }
            true
        });
    }

    /// The tables have changed: what is written from now on, and how. Nothing is under way.
    async fn adopt(&mut self, plan: Arc<Plan>, patience: &mut Patience) -> std::result::Result<(), Stopped> {
        tracing::debug!(lane = self.name, "the tables have changed");
        self.take(plan);
        self.reopen(patience).await
    }

    fn take(&mut self, plan: Arc<Plan>) {
        self.sink.adopt(Arc::clone(&plan.tables));
        self.mapper = Mapper::new(Arc::clone(&plan));
        self.records = WriteSet::new(&plan.tables, false);
        self.tuples = None;
        self.plan = plan;
    }

    /// The tables that these events may write, as indices into the plan's.
    fn tables_of(&self, events: &[Event]) -> Vec<usize> {
        let mut collections: Vec<_> = events.iter().map(|event| event.collection).collect();
        collections.dedup();
        self.plan.tables_of(&collections)
    }

    fn count(&self, taken: u64, events: &[Event], counts: &Counts, begun: Instant) {
        let rows = counts.upserted + counts.deleted;
        let bytes: u64 = events.iter().map(|event| event.document.len() as u64).sum();
        Gauges::add(&self.gauges.rows, rows);
        Gauges::add(&self.gauges.bytes, bytes);
        metrics::wrote(taken, rows, bytes, begun.elapsed());
    }

    /// Connects again, however long it takes.
    async fn reopen(&mut self, patience: &mut Patience) -> std::result::Result<(), Stopped> {
        while let Err(error) = self.sink.reopen().await {
            // A table may have changed again, before we were ready.
            if self.schema.explains(&error).await
                && let Some(plan) = self.schema.changed()
            {
                self.take(plan);
                continue;
            }
            patience.after(error).await?;
        }
        // Of those that were taken for a transaction which then failed, a standby that was behind knows nothing, and would give others.
        self.mapper.forget_numbers();
        metrics::reconnected("target");
        Ok(())
    }

    async fn write_at_once(
        &mut self,
        advance: &Advance,
        events: &[Event],
        given: &Notes,
        way: Way,
    ) -> Result<Counts> {
        let chosen = self.choose(events, &advance.seen).await?;
        let mut notes = self.map_known(events, chosen.as_ref(), given, way).await?;
        let writes = match way {
            Way::Upsert => &mut self.records,
            Way::Copy => self.tuples.get_or_insert_with(|| WriteSet::new(&self.plan.tables, true)),
        };
        writes.sort();
        notes.tallies = tallied(&self.plan, self.mapper.take_tallies());
        self.letters.settle(&self.plan, events, &mut notes);
        if let Some(chosen) = &chosen {
            chosen.note(&mut notes);
        }
        let written = match way {
            Way::Upsert => self.sink.apply(advance, writes, &notes).await,
            Way::Copy => self.sink.copy(advance, writes, &notes).await,
        };
        if written.is_ok() {
            self.count_letters(&notes);
            self.tell_breaches(&notes);
        }
        written
    }

    /// What is written of documents of which every version counts. None where nothing is of such a collection.
    async fn choose(&mut self, events: &[Event], seen: &[usize]) -> Result<Option<Chosen>> {
        let documents = versions::documents(&self.plan, events);
        if documents.is_empty() {
            return Ok(None);
        }
        let ids: Vec<Uuid> = documents.iter().map(|document| document.id).collect();
        let known = self.sink.versions(&ids).await?;
        Ok(Some(versions::choose(&self.plan, events, &documents, &known, seen)))
    }

    /// Makes rows of the events; what is to be noted with them.
    fn map(&mut self, events: &[Event], chosen: Option<&Chosen>, given: &Notes, way: Way) -> Notes {
        let events = chosen.map_or(events, |chosen| &chosen.events);
        let writes = match way {
            Way::Upsert => &mut self.records,
            Way::Copy => self.tuples.get_or_insert_with(|| WriteSet::new(&self.plan.tables, true)),
        };
        reset(writes, &self.plan);
        let mut notes = given.clone();
        for (at, event) in events.iter().enumerate() {
            if self.plan.collection(event.collection).stands {
                notes.dead_letters.push(standing(&self.plan, event));
                continue;
            }
            let what = chosen.map_or(What::CURRENT, |chosen| chosen.what(at));
            if let Err(rejection) = self.mapper.map_version(event, what, writes) {
                notes.dead_letters.push(rejected(&self.plan, event, rejection));
            }
        }
        notes
    }

    /// The same, where all numbers of sequences are known afterwards.
    async fn map_known(
        &mut self,
        events: &[Event],
        chosen: Option<&Chosen>,
        given: &Notes,
        way: Way,
    ) -> Result<Notes> {
        loop {
            let notes = self.map(events, chosen, given, way);
            if !self.learn().await? {
                return Ok(notes);
            }
        }
    }

    /// Takes the numbers of sequences that the mapper did not know. True if there were any: the events have to be mapped again.
    async fn learn(&mut self) -> Result<bool> {
        let wanted = self.mapper.take_wanted();
        if wanted.is_empty() {
            return Ok(false);
        }
        for (series, ids) in wanted {
            let Taken { numbers, refused } =
                self.sink.numbers(&self.plan.series[usize::from(series)], &ids).await?;
            if let Some(why) = refused {
                let without = ids.iter().copied().filter(|id| !numbers.contains_key(id));
                self.mapper.refuse_numbers(series, without, &why);
            }
            self.mapper.learn(series, numbers);
        }
        let _ = self.mapper.take_tallies();
        Ok(true)
    }

    /// Whether the target refuses something of these documents that only it can judge. It is invalid from then on.
    async fn ask(&mut self, events: &[Event]) -> Result<bool> {
        reset(&mut self.records, &self.plan);
        let judge = self.sink.judge().await?;
        ask(&self.plan, &mut self.mapper, &mut self.records, events, judge).await
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
        let chosen = self.choose(events, &advance.seen).await?;
        // Numbers are taken in transactions of their own, and the lane may have connected again since they were.
        self.map_known(events, chosen.as_ref(), given, Way::Upsert).await?;
        let _ = self.mapper.take_tallies();
        self.sink.begin(advance).await?;
        let mut notes = given.clone();
        let mut total = Counts::default();
        let mapped = chosen.as_ref().map_or(events, |chosen| &chosen.events);
        let mut open = vec![(0, mapped.len())];
        while let Some((start, end)) = open.pop() {
            let part = &mapped[start..end];
            reset(&mut self.records, &self.plan);
            let mut letters = Vec::new();
            for (at, event) in part.iter().enumerate() {
                if self.plan.collection(event.collection).stands {
                    letters.push(standing(&self.plan, event));
                    continue;
                }
                let what = chosen.as_ref().map_or(What::CURRENT, |chosen| chosen.what(start + at));
                if let Err(rejection) = self.mapper.map_version(event, what, &mut self.records) {
                    letters.push(rejected(&self.plan, event, rejection));
                }
            }
            let tallies = tallied(&self.plan, self.mapper.take_tallies());
            self.all_known()?;
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
                    [event] => {
                        let stays = self.plan.collection(event.collection).append_only;
                        if Sink::is_claimed_by_another(&error) && !stays {
                            self.remove_document(event).await?;
                        }
                        notes.dead_letters.push(refused(&self.plan, event, &error));
                    }
                    _ => {
                        // The stack gives the first half first: the order of the source is kept.
                        let middle = start + part.len() / 2;
                        open.push((middle, end));
                        open.push((start, middle));
                    }
                },
                Err(error) => return Err(error),
            }
        }
        self.letters.settle(&self.plan, events, &mut notes);
        if let Some(chosen) = &chosen {
            chosen.note(&mut notes);
        }
        self.sink.commit(&notes).await?;
        self.count_letters(&notes);
        self.tell_breaches(&notes);
        Ok(total)
    }

    /// The document has no rows any more. Another has the key that it wants, and may want the one that it had.
    async fn remove_document(&mut self, event: &Event) -> Result<()> {
        reset(&mut self.records, &self.plan);
        let delete = Event { op: Op::Delete, ..event.clone() };
        if self.mapper.map(&delete, &mut self.records).is_ok() {
            self.all_known()?;
            match self.sink.attempt(&self.records).await {
                // It stays as it was, then.
                Err(error) if error.kind == Kind::Data => {}
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }

    /// Rows with zeros in the place of numbers are never written.
    fn all_known(&mut self) -> Result<()> {
        if self.mapper.take_wanted().is_empty() {
            return Ok(());
        }
        Err(Error::new(Kind::Bug, "making rows", "a number of a sequence was not taken"))
    }

    fn tell_breaches(&self, notes: &Notes) {
        if let Some(first) = notes.breaches.first() {
            tracing::warn!(
                lane = self.name,
                documents = notes.breaches.len(),
                collection = first.collection,
                key = %Key::from_bytes(&first.key),
                happened = first.kind.word(),
                "changes were not applied: the collection is append only"
            );
        }
    }

    fn count_letters(&self, notes: &Notes) {
        let mut letters = notes.dead_letters.iter().filter(|letter| letter.kind != STANDING).peekable();
        if let Some(first) = letters.peek().copied() {
            let count = letters.count() as u64;
            Gauges::add(&self.gauges.letters, count);
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

    /// Removes the rows of these collections that a recopy has not seen; how many. None if a table cannot be swept as it is now: then the
    /// recopy was in vain.
    pub(crate) async fn sweep(
        &mut self,
        plan: &Plan,
        collections: &[CollectionId],
    ) -> std::result::Result<Option<u64>, Stopped> {
        for id in collections.iter().filter(|id| plan.keeps_versions(**id)) {
            self.delete_unmet(*id, &plan.collection(*id).name).await?;
        }
        self.sweep_tables(&plan.swept_tables(collections)).await
    }

    /// Documents that are gone, as a recopy has seen: each is deleted as if the source had said so.
    async fn delete_unmet(
        &mut self,
        collection: CollectionId,
        name: &str,
    ) -> std::result::Result<(), Stopped> {
        let mut patience = Patience::new(&self.stop).shown(&self.gauges, Place::Target);
        loop {
            let keys = match self.sink.unmet(name, UNMET_AT_ONCE).await {
                Ok(keys) => keys,
                Err(error) => {
                    if patience.after(error).await? != Again::Soon {
                        self.reopen(&mut patience).await?;
                    }
                    continue;
                }
            };
            if keys.is_empty() {
                patience.over();
                return Ok(());
            }
            let position = Position::default();
            let delete = |key| Event {
                collection,
                key,
                op: Op::Delete,
                document: Bytes::new(),
                position: position.clone(),
                time: 0,
            };
            let events = keys.into_iter().map(delete).collect();
            let mut transaction = Transaction::stream(Batch { events, ..Batch::default() });
            self.write(&mut transaction, Way::Upsert).await?;
        }
    }

    async fn sweep_tables(&mut self, tables: &[usize]) -> std::result::Result<Option<u64>, Stopped> {
        let mut patience = Patience::new(&self.stop).shown(&self.gauges, Place::Target);
        let mut removed = 0;
        // Rows that refer come before those that are referred to.
        for table in tables.iter().rev() {
            loop {
                if let Some(plan) = self.schema.changed() {
                    self.adopt(plan, &mut patience).await?;
                }
                let spec = &self.plan.tables[*table];
                if spec.stands {
                    return Ok(None);
                }
                let constants = match &spec.apart {
                    Apart::Alone => &[][..],
                    Apart::By(constants) => constants,
                    Apart::Not => break,
                };
                let error = match self.sink.sweep(*table, constants).await {
                    Ok(count) => {
                        removed += count;
                        break;
                    }
                    Err(error) => error,
                };
                if self.schema.explains(&error).await {
                    continue;
                }
                if is_of_types(&error) {
                    // As in `write`: what was noted has another type than the key has now.
                    tracing::debug!(lane = self.name, %error, "it is not known any more which rows have to go");
                    return Ok(None);
                }
                if error.kind == Kind::Data {
                    // Such as a trigger of the team's that lets no row go. What is there of this table stays.
                    tracing::warn!(%error, "rows that no document makes any more stay in the table");
                    break;
                }
                if patience.after(error).await? != Again::Soon {
                    self.reopen(&mut patience).await?;
                }
            }
        }
        patience.over();
        Ok(Some(removed))
    }
}

/// How a transaction is tried.
struct Attempt {
    way: Way,
    /// In halves, to find the documents that fail.
    careful: bool,
    /// The target has said which texts it refuses.
    asked: bool,
}

impl Attempt {
    /// The first time that something is refused of tables with columns that are written as text.
    fn may_ask(&mut self, plan: &Plan, events: &[Event]) -> bool {
        let shaped = |event: &Event| {
            let tables = &plan.collection(event.collection).tables;
            tables.iter().any(|table| plan.tables[*table].shape.is_some())
        };
        self.way == Way::Upsert && !std::mem::replace(&mut self.asked, true) && events.iter().any(shaped)
    }

    /// The database has refused a record: another way to try, where there is one.
    fn refused(
        &mut self,
        error: Error,
        events: usize,
        patient: bool,
        lane: &str,
    ) -> std::result::Result<(), Stopped> {
        if self.way == Way::Copy {
            // Rows of a former run of this chunk are there already: the stream had brought them.
            tracing::debug!(lane, %error, "the chunk is merged instead of copied");
            self.way = Way::Upsert;
        } else if patient && (dangles(&error) || events > MOST_CAREFUL) {
            metrics::retried(Retry::Reference);
            return Err(error.into());
        } else if !self.careful {
            tracing::debug!(lane, %error, "a record cannot be written; looking for it");
            self.careful = true;
            metrics::retried(Retry::Search);
        } else {
            return Err(error.into());
        }
        Ok(())
    }
}

/// Two columns have types that do not fit.
fn is_of_types(error: &Error) -> bool {
    matches!(error.code.as_deref(), Some("42703" | "42804" | "42883" | "42846"))
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

/// What policies did, by name.
fn tallied(plan: &Plan, tallies: Vec<mapping::Tally>) -> Vec<Tally> {
    tallies
        .into_iter()
        .map(|tally| Tally {
            collection: plan.collection(tally.collection).name.clone(),
            table: plan.written(tally.table).table.name.clone(),
            column: tally.column,
            policy: tally.what.word().to_owned(),
            count: tally.count,
            sample_key: tally.samples.first().map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
        })
        .collect()
}
