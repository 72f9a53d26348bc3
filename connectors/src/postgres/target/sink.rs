//! Writes rows: one connection for one lane of the log, one transaction for one batch.
//!
//! **Invariant**: rows and the lane's progress are committed together or not at all, and only by the lane's owner. The
//! first statement moves the lane from the sequence and epoch that we believe in; if it is anywhere else, it
//! fails, and with it all that was sent behind it. Partitions of the log are moved in the same way by the second. Should the
//! BEGIN itself fail, what was sent behind it must not write on its own: it leaves a mark that lives as long as the transaction, and
//! the first statement ends the whole connection where that is missing ([`INSIDE`]). (A session that is read-only by default would do the same,
//! and would be handed on to other programs by a pooler.)
//!
//! **Crash**: a transaction cut short is rolled back by the server. When the answer to a COMMIT is lost,
//! [`Sink::reopen`] locks the lane, which waits for whatever the old connection still has in hand, and reads
//! the sequence: it tells what happened. A call that is dropped half way leaves a mark, and the next one cleans up first.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::SinkExt as _;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Statement};

use crate::error::{Error, Kind, Result};
use crate::postgres::client::connect;
use crate::postgres::error::{explain, lost};
use crate::postgres::progress::{Advance, Counts, Notes, Progress, TableCounts, progress_of};
use crate::postgres::target::pipeline::{Call, Count, send};
use crate::postgres::target::references::References;
use crate::postgres::target::rows::{Rows, TableSpec, WriteSet};
use crate::postgres::target::statements;
use crate::postgres::target::waiting::Numbers;
use crate::secret::Secret;

mod calls;
mod claims;
mod learn;
mod merging;
mod numbers;
mod prepared;
mod probing;
mod sweep;
mod texts;
mod turns;
mod versions;
mod watched;

pub use merging::prepare_parts;
pub(super) use merging::{key_of, made_of_keys};
pub use numbers::Taken;
use prepared::Use;

/// Each statement sees what was committed before it began: who has waited for a lock has to see what its holder did.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL slackwater.writing = on";
/// True in a transaction that [`BEGIN`] has opened. Elsewhere the server ends the connection before it reads what was sent behind.
const INSIDE: &str = "CASE WHEN pg_catalog.current_setting('slackwater.writing', true) = 'on' THEN true \
    ELSE NOT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid()) END";
const COMMIT: &str = "COMMIT";
const ROLLBACK: &str = "ROLLBACK";
const COPY_PIECE: usize = 128 * 1024;
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// One connection, one lane of the log.
pub struct Sink {
    url: Secret,
    migration: String,
    lane: String,
    epoch: i64,
    specs: Arc<Vec<TableSpec>>,
    client: Client,
    task: JoinHandle<()>,
    lazy: bool,
    prepared: HashMap<Use, Statement>,
    /// The foreign keys between the tables, what of them is watched, and which version of that this is.
    references: References,
    numbers: Numbers,
    watching: i64,
    /// So many batches are looked at closely before the plain way is tried again, and how many are left.
    doubt: (u32, u32),
    /// Statements over several tables: whether they place rows, and the tables.
    together: HashMap<(bool, Vec<usize>), Statement>,
    progress: Progress,
    /// Rows written by transactions whose number no lane has yet.
    unreported: u64,
    /// The transaction that `begin` opened.
    careful: Option<Careful>,
    /// A transaction may be open that no one minds any more: a call was dropped half way.
    dirty: bool,
}

/// A transaction of the careful path.
struct Careful {
    advance: Advance,
    rows: u64,
}

impl Sink {
    /// Connects as the owner of a lane, which [`crate::postgres::control::Control::take_over`] or
    /// [`crate::postgres::control::Control::take_lane`] has made.
    pub async fn open(
        url: &Secret,
        migration: &str,
        lane: &str,
        epoch: i64,
        specs: Arc<Vec<TableSpec>>,
    ) -> Result<Self> {
        let (client, task) = writer(url, &specs).await?;
        let mut sink = Self {
            url: url.clone(),
            migration: migration.to_owned(),
            lane: lane.to_owned(),
            epoch,
            references: References::of(&specs),
            numbers: Numbers::default(),
            watching: 0,
            doubt: (0, 0),
            together: HashMap::new(),
            specs,
            client,
            task,
            lazy: false,
            prepared: HashMap::new(),
            progress: Progress::default(),
            unreported: 0,
            careful: None,
            dirty: false,
        };
        sink.start().await?;
        Ok(sink)
    }

    /// The lane's progress: as read when the connection was made, and as moved by what was committed since.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Commits need not wait for the disk. For lanes whose work is done again when it is lost: what another lane
    /// commits afterwards, and waits for, takes this lane's earlier commits to the disk with it.
    pub async fn commit_lazily(&mut self) -> Result<()> {
        self.lazy = true;
        let set = self.client.batch_execute("SET synchronous_commit = off").await;
        set.map_err(|error| explain("preparing the connection", &error))
    }

    /// Writes these tables from now on: the same as before, as they have become. [`Sink::reopen`] has to follow.
    pub fn adopt(&mut self, specs: Arc<Vec<TableSpec>>) {
        self.references = References::of(&specs);
        self.specs = specs;
        self.together.clear();
    }

    /// Connects again and reads the progress. After a connection was lost in a commit, `progress().sequence` tells
    /// whether it got there: then it is one more than the [`Advance`] started from.
    ///
    /// If it is less than it was, the target has lost what it had confirmed. That is an error, unless commits are lazy: then the work is done again
    /// by whoever finds out that it is missing.
    pub async fn reopen(&mut self) -> Result<()> {
        let confirmed = self.progress.sequence;
        self.task.abort();
        let (client, task) = writer(&self.url, &self.specs).await?;
        self.client = client;
        self.task = task;
        self.prepared.clear();
        self.careful = None;
        self.dirty = false;
        if self.lazy {
            self.commit_lazily().await?;
        }
        self.start().await?;
        if self.progress.sequence < confirmed && !self.lazy {
            return Err(lost("connecting to the target again"));
        }
        Ok(())
    }

    /// One transaction, sent in one go if no reference of its tables is watched. On an error all of it is rolled back.
    pub async fn apply(&mut self, advance: &Advance, writes: &WriteSet, notes: &Notes) -> Result<Counts> {
        let outcome = if self.needs_care(writes) {
            match self.hope(advance, writes, notes).await {
                Some(outcome) => outcome,
                None => self.apply_watched(advance, writes, notes).await,
            }
        } else {
            self.apply_at_once(advance, writes, notes, None).await
        };
        match outcome {
            Ok(counts) => Ok(counts),
            Err(error) => Err(self.learn(self.of_texts(error)).await),
        }
    }

    async fn apply_watched(&mut self, advance: &Advance, writes: &WriteSet, notes: &Notes) -> Result<Counts> {
        self.open_transaction(advance).await?;
        let mut careful = self.careful.take().ok_or_else(|| self.misuse("no transaction is open"))?;
        self.dirty = true;
        let counts = match self.write_with_care(writes, &advance.seen).await {
            Ok(counts) => counts,
            Err(error) => {
                self.give_up().await;
                return Err(error);
            }
        };
        careful.rows += counts.upserted + counts.deleted;
        self.careful = Some(careful);
        self.end_transaction(notes).await?;
        Ok(counts)
    }

    async fn apply_at_once(
        &mut self,
        advance: &Advance,
        writes: &WriteSet,
        notes: &Notes,
        idle: Option<Call<'static>>,
    ) -> Result<Counts> {
        self.tidy().await?;
        self.prepare_writes(writes, &advance.seen).await?;
        self.prepare_notes(notes).await?;
        self.prepare_partitions(advance).await?;
        let mut calls = self.opening(advance)?;
        calls.extend(idle);
        self.push_writes(&mut calls, writes, &advance.seen)?;
        self.push_notes(&mut calls, notes)?;
        calls.push(Call::simple("committing", COMMIT));
        self.dirty = true;
        let outcome = send(&self.client, calls).await;
        self.dirty = false;
        let counts = self.counts(&outcome?, writes);
        self.committed(advance, counts.upserted + counts.deleted);
        Ok(counts)
    }

    /// The careful path, for a batch in which some record cannot be written: opens the transaction.
    pub async fn begin(&mut self, advance: &Advance) -> Result<()> {
        match self.open_transaction(advance).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.learn(error).await),
        }
    }

    async fn open_transaction(&mut self, advance: &Advance) -> Result<()> {
        self.tidy().await?;
        self.prepare_partitions(advance).await?;
        self.dirty = true;
        let calls = self.opening(advance)?;
        if let Err(error) = send(&self.client, calls).await {
            self.give_up().await;
            return Err(error);
        }
        self.dirty = false;
        self.careful = Some(Careful { advance: advance.clone(), rows: 0 });
        Ok(())
    }

    /// Writes in a savepoint. On [`Kind::Data`] only this is undone and the transaction goes on; on any other error all of
    /// it is rolled back. Deferred constraints are checked here, or the commit would fail with nobody to blame.
    pub async fn attempt(&mut self, writes: &WriteSet) -> Result<Counts> {
        let mut careful = self.careful.take().ok_or_else(|| self.misuse("attempt without begin"))?;
        self.dirty = true;
        match self.attempt_in(&careful, writes).await.map_err(|error| self.of_texts(error)) {
            Ok(counts) => {
                careful.rows += counts.upserted + counts.deleted;
                self.careful = Some(careful);
                self.dirty = false;
                Ok(counts)
            }
            Err(error) => {
                if error.kind == Kind::Data && !self.teaches(&error) {
                    const BACK: &str = "ROLLBACK TO SAVEPOINT record; RELEASE SAVEPOINT record";
                    if self.client.batch_execute(BACK).await.is_ok() {
                        self.careful = Some(careful);
                        self.dirty = false;
                        return Err(error);
                    }
                }
                self.give_up().await;
                Err(self.learn(error).await)
            }
        }
    }

    async fn attempt_in(&mut self, careful: &Careful, writes: &WriteSet) -> Result<Counts> {
        const SAVE: &str = "SAVEPOINT record; SET CONSTRAINTS ALL DEFERRED";
        if self.needs_care(writes) {
            send(&self.client, vec![Call::simple("setting a savepoint", SAVE)]).await?;
            let counts = self.write_with_care(writes, &careful.advance.seen).await?;
            let calls = vec![
                Call::simple("checking deferred constraints", "SET CONSTRAINTS ALL IMMEDIATE"),
                Call::simple("releasing a savepoint", "RELEASE SAVEPOINT record"),
            ];
            send(&self.client, calls).await?;
            return Ok(counts);
        }
        self.prepare_writes(writes, &careful.advance.seen).await?;
        let mut calls = vec![Call::simple("setting a savepoint", SAVE)];
        self.push_writes(&mut calls, writes, &careful.advance.seen)?;
        calls.push(Call::simple("checking deferred constraints", "SET CONSTRAINTS ALL IMMEDIATE"));
        calls.push(Call::simple("releasing a savepoint", "RELEASE SAVEPOINT record"));
        let answers = send(&self.client, calls).await?;
        Ok(self.counts(&answers, writes))
    }

    /// Ends the careful path.
    pub async fn commit(&mut self, notes: &Notes) -> Result<()> {
        match self.end_transaction(notes).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.learn(error).await),
        }
    }

    async fn end_transaction(&mut self, notes: &Notes) -> Result<()> {
        let careful = self.careful.take().ok_or_else(|| self.misuse("commit without begin"))?;
        self.dirty = true;
        if let Err(error) = self.prepare_notes(notes).await {
            self.give_up().await;
            return Err(error);
        }
        let mut calls = Vec::new();
        self.push_notes(&mut calls, notes)?;
        calls.push(Call::simple("committing", COMMIT));
        let outcome = send(&self.client, calls).await;
        self.dirty = false;
        outcome?;
        self.committed(&careful.advance, careful.rows);
        Ok(())
    }

    /// Undoes the careful path.
    pub async fn rollback(&mut self) -> Result<()> {
        self.careful = None;
        self.dirty = true;
        self.client.batch_execute(ROLLBACK).await.map_err(|error| explain("rolling back", &error))?;
        self.dirty = false;
        Ok(())
    }

    /// The first copy into empty tables: rows framed for COPY, otherwise as [`Sink::apply`].
    pub async fn copy(&mut self, advance: &Advance, writes: &WriteSet, notes: &Notes) -> Result<Counts> {
        self.tidy().await?;
        if !advance.seen.is_empty() {
            return Err(self.misuse("a reload is never a first copy"));
        }
        if self.needs_care(writes) {
            let doing = format!("copying in lane {}", self.lane);
            return Err(Error::new(Kind::Data, doing, "references are watched: the rows have to be merged"));
        }
        self.dirty = true;
        match self.copy_in(advance, writes, notes).await {
            Ok(counts) => {
                self.dirty = false;
                self.committed(advance, counts.upserted + counts.deleted);
                Ok(counts)
            }
            Err(error) => {
                self.give_up().await;
                Err(self.learn(error).await)
            }
        }
    }

    async fn copy_in(&mut self, advance: &Advance, writes: &WriteSet, notes: &Notes) -> Result<Counts> {
        for (index, write) in writes.tables.iter().enumerate() {
            if !write.rows.is_empty() {
                self.prepare(Use::Copy(index)).await?;
            }
        }
        self.prepare_deletes(writes).await?;
        self.prepare_notes(notes).await?;
        self.prepare_partitions(advance).await?;
        let mut calls = self.opening(advance)?;
        self.push_deletes(&mut calls, writes)?;
        let mut answers = send(&self.client, calls).await?;
        for (index, write) in writes.tables.iter().enumerate() {
            if !write.rows.is_empty() {
                let rows = self.copy_table(index, &write.rows).await?;
                answers.push((Count::Upserted(index), rows));
            }
        }
        let mut calls = Vec::new();
        self.push_notes(&mut calls, notes)?;
        calls.push(Call::simple("committing", COMMIT));
        send(&self.client, calls).await?;
        Ok(self.counts(&answers, writes))
    }

    async fn copy_table(&self, index: usize, rows: &Rows) -> Result<u64> {
        let fail = |error: tokio_postgres::Error| explain(self.doing("copying into", index), &error);
        let sink = self.client.copy_in::<_, Bytes>(self.get(Use::Copy(index))?).await.map_err(fail)?;
        let mut sink = std::pin::pin!(sink);
        let mut piece = BytesMut::with_capacity(COPY_PIECE);
        piece.extend_from_slice(COPY_HEADER);
        for row in rows.in_order() {
            if piece.len() + row.len() > COPY_PIECE && !piece.is_empty() {
                let full = std::mem::replace(&mut piece, BytesMut::with_capacity(COPY_PIECE));
                if sink.send(full.freeze()).await.is_err() {
                    // The reason comes with the end.
                    return sink.finish().await.map_err(fail);
                }
            }
            piece.extend_from_slice(row);
        }
        piece.put_i16(-1);
        // Likewise.
        let _ = sink.send(piece.freeze()).await;
        sink.finish().await.map_err(fail)
    }

    // Its state.

    async fn start(&mut self) -> Result<()> {
        self.prepare(Use::Advance).await?;
        let specs = Arc::clone(&self.specs);
        for index in (0..self.specs.len()).filter(|index| !specs[*index].stands) {
            self.prepare(Use::Upsert(index)).await?;
        }
        self.number_claimed().await?;
        self.forget_lacking().await?;
        self.read_watched().await?;
        self.progress = self.read_progress().await?;
        Ok(())
    }

    async fn read_progress(&self) -> Result<Progress> {
        let doing = format!("reading the progress of lane {}", self.lane);
        let fail = |error: tokio_postgres::Error| explain(doing.clone(), &error);
        self.client.batch_execute(BEGIN).await.map_err(fail)?;
        // The lock waits for a transaction that a lost connection of ours may still have in hand.
        let row = self
            .client
            .query_opt(
                "SELECT sequence, position_time, position_token, source_time, applied_through, horizon, events, \
                 rows_written, as_of FROM slackwater.lanes WHERE migration = $1 AND lane = $2 AND epoch = $3 \
                 FOR NO KEY UPDATE",
                &[&self.migration, &self.lane, &self.epoch],
            )
            .await;
        self.client.batch_execute(ROLLBACK).await.map_err(fail)?;
        match row.map_err(fail)? {
            Some(row) => progress_of(&row, 0).map_err(fail),
            None => Err(Error::new(
                Kind::Fenced,
                doing,
                "a newer process has taken over, or the lane was never made",
            )),
        }
    }

    /// Cleans up after a call that was dropped half way, or a careful path that was not ended.
    async fn tidy(&mut self) -> Result<()> {
        if self.dirty || self.careful.is_some() {
            self.rollback().await?;
            self.dirty = true;
            self.progress = self.read_progress().await?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Rolls back and lets no new error hide the one there is.
    async fn give_up(&mut self) {
        let _ = self.rollback().await;
    }

    fn committed(&mut self, advance: &Advance, rows: u64) {
        let progress = &mut self.progress;
        progress.sequence = advance.sequence + 1;
        progress.position = advance.position.clone().or(progress.position.take());
        progress.source_time = advance.source_time.or(progress.source_time);
        progress.applied_through = advance.applied_through.or(progress.applied_through);
        progress.horizon = advance.horizon;
        progress.as_of = progress.as_of.max(advance.as_of);
        progress.events += advance.events;
        progress.rows_written += self.unreported;
        self.unreported = rows;
    }

    fn counts(&self, answers: &[(Count, u64)], writes: &WriteSet) -> Counts {
        let mut tables: Vec<TableCounts> = writes
            .tables
            .iter()
            .map(|write| TableCounts { received: write.rows.len() as u64, ..TableCounts::default() })
            .collect();
        for (count, rows) in answers {
            match *count {
                Count::Nothing => {}
                Count::Upserted(index) => tables[index].upserted += rows,
                Count::Deleted(index) => tables[index].deleted += rows,
            }
        }
        Counts::of(tables)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Triggers of the target find their own schema; names of ours are written in full. Rows that wait are kept as text, so text
/// has one form.
pub(super) async fn writer(url: &Secret, specs: &[TableSpec]) -> Result<(Client, JoinHandle<()>)> {
    let (client, task) = connect(url).await?;
    for shape in specs.iter().filter(|spec| !spec.stands).filter_map(|spec| spec.shape.as_ref()) {
        let made = client.batch_execute(&shape.create()).await;
        made.map_err(|error| explain("making a type for rows", &error))?;
    }
    merging::make_tables(&client, specs).await?;
    let schemas: BTreeSet<&str> = specs.iter().map(|spec| spec.table.schema.as_str()).collect();
    let path: String = schemas.iter().map(|schema| format!(", {}", statements::quote(schema))).collect();
    // Elements that are gone are found by a hash of all that are there. With the usual few megabytes Postgres would compare each with each
    // once a batch has more than some hundred thousand of them, which takes hours.
    let sql = format!(
        "SET work_mem = '64MB'; SET search_path = pg_catalog{path}; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = postgres; SET extra_float_digits = 1; \
         SET bytea_output = hex; SET jit = off"
    );
    client.batch_execute(&sql).await.map_err(|error| explain("preparing the connection", &error))?;
    // What expressions make of a time is to be the same wherever the database is. Otherwise the zone is the team's.
    if specs.iter().filter_map(|spec| spec.shape.as_ref()).any(|shape| !shape.computed().is_empty()) {
        let set = client.batch_execute("SET TimeZone = 'UTC'").await;
        set.map_err(|error| explain("preparing the connection", &error))?;
    }
    Ok((client, task))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::control::{Control, Taking};

    /// What is sent behind a BEGIN that failed must not write on its own, and ends the connection.
    #[tokio::test]
    async fn nothing_is_written_outside_a_transaction() {
        let server =
            Secret::new(std::env::var("SLACKWATER_POSTGRES_URL").expect("the services' environment"));
        let (admin, _task) = connect(&server).await.expect("the server");
        let name = format!("sw_test_outside_{}", std::process::id());
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a new database");
        let (base, _) = server.expose().rsplit_once('/').expect("a URL with a database");
        let url = Secret::new(format!("{base}/{name}"));
        {
            let mut control = Control::open(&url).await.expect("control");
            let taking = Taking {
                migration: "m",
                source: "s",
                kind: crate::source::Kind::Mongodb,
                file_hash: "h",
                namespace: uuid::Uuid::nil(),
                log: "direct",
            };
            let epoch = control.take_over(taking, &["main"]).await.expect("taken over").owner.epoch;
            let (other, _task) = connect(&url).await.expect("the database");
            other.batch_execute("CREATE TABLE public.t (n int)").await.expect("a table");
            for begins in [true, false] {
                let mut sink =
                    Sink::open(&url, "m", "main", epoch, Arc::new(Vec::new())).await.expect("a sink");
                let advance = Advance { sequence: sink.progress().sequence, ..Advance::default() };
                sink.prepare(Use::Hold).await.expect("prepared");
                for hold in [true, false] {
                    let mut calls = sink.opening(&advance).expect("prepared");
                    if hold {
                        calls.truncate(1);
                        calls.push(Call::prepared(
                            "holding",
                            sink.get(Use::Hold).expect("prepared"),
                            sink.identity(),
                        ));
                    }
                    if !begins {
                        // As if it had failed.
                        calls[0] = Call::simple("beginning", "SELECT 1 / 0");
                    }
                    calls.push(Call::simple("writing", "INSERT INTO public.t VALUES (1)"));
                    calls.push(Call::simple("committing", COMMIT));
                    let outcome = send(&sink.client, calls).await;
                    assert_eq!(outcome.is_ok(), begins, "{outcome:?}");
                    if !begins {
                        let gone =
                            sink.client.batch_execute("SELECT 1").await.expect_err("the connection is gone");
                        assert_eq!(explain("trying", &gone).kind, Kind::Unreachable);
                        sink.reopen().await.expect("reopened");
                    }
                }
                let rows = "SELECT (SELECT count(*) FROM public.t), (SELECT sum(sequence)::bigint FROM slackwater.lanes)";
                let row = other.query_one(rows, &[]).await.expect("a row");
                // What was begun has written; what was not has changed nothing.
                assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 1));
            }
        }
        admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.expect("dropped");
    }
}
