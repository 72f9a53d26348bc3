//! The pulse, what a source's clock said; and the beat, a process's sign of life. Both are stored once a second, and the lag is
//! worked out from them.
//!
//! **Invariant**: only the newest capture of a source stores its pulse (`slackwater.pulse` holds the guard). A process writes only
//! its own row, and not once a later process of the same name has taken it. Times are those of the target's server; the source's
//! clock is stored as its difference from that.
//!
//! **Crash**: the pulse and the beat stop, and their age shows it.

use postgres_types::Type;
use slackwater_topics::Moment;

use super::doing::Doing as _;
use super::{Control, Owner};
use crate::error::Result;
use crate::postgres::progress::{count_of, moment_of, to_bigint};
use crate::source;

/// The pulse: what a source's clock said, and how far it was read. `None`: nothing new.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// Its clock, milliseconds since 1970, and how many milliseconds ago that was.
    pub clock: Option<(i64, i64)>,
    /// Its operation time.
    pub operation_time: Option<Moment>,
    /// Everything up to this moment is in the log.
    pub read_through: Option<Moment>,
    /// The log shows the source as of this time of its clock, milliseconds since 1970.
    pub read_as_of: Option<i64>,
    /// The oldest change that its history still holds.
    pub oplog_from: Option<Moment>,
    /// What its capture waits for.
    pub trouble: Option<String>,
}

/// A source, as of its last pulse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRow {
    /// Its name.
    pub source: String,
    /// The kind of system.
    pub kind: source::Kind,
    /// Milliseconds since it last answered; `None` if it never has.
    pub pulse_ms: Option<i64>,
    /// How far its clock is ahead of the target's, in milliseconds.
    pub skew_ms: Option<i64>,
    /// Its operation time.
    pub operation_time: Option<Moment>,
    /// Everything up to this moment is in the log.
    pub read_through: Option<Moment>,
    /// The log shows the source as of this time of its clock, milliseconds since 1970.
    pub read_as_of: Option<i64>,
    /// The oldest change that its history still holds; `None` if we may not ask.
    pub oplog_from: Option<Moment>,
    /// What its capture waits for.
    pub trouble: Option<String>,
    /// Milliseconds since its capture last stored a pulse.
    pub silent_ms: i64,
}

/// The beat: a process's sign of life, written once a second.
#[derive(Clone, Debug, Default)]
pub struct Beat {
    /// Its name: `run`, `capture`, `apply/<member>`.
    pub name: String,
    /// Distinguishes processes of the same name.
    pub instance: i64,
    /// `run`, `capture` or `apply`.
    pub role: String,
    /// Where it runs.
    pub host: String,
    /// Events that it has sent (capture) or applied (apply, run).
    pub events: u64,
    /// Rows that it has written.
    pub rows: u64,
    /// Bytes of the documents in those events.
    pub bytes: u64,
    /// Documents that it has copied.
    pub documents: u64,
    /// What it waits for.
    pub trouble: Option<String>,
}

/// A process, as of its last beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRow {
    /// Its name.
    pub name: String,
    /// `run`, `capture` or `apply`.
    pub role: String,
    /// Where it runs.
    pub host: String,
    /// Milliseconds since it was started.
    pub age_ms: i64,
    /// Milliseconds since its last beat.
    pub silent_ms: i64,
    /// It has ended on request.
    pub ended: bool,
    /// Events that it has sent (capture) or applied (apply, run).
    pub events: u64,
    /// Rows that it has written.
    pub rows: u64,
    /// Bytes of the documents in those events.
    pub bytes: u64,
    /// Documents that it has copied.
    pub documents: u64,
    /// What it waits for.
    pub trouble: Option<String>,
}

impl Control {
    /// The time by the target's clock, milliseconds since 1970.
    pub async fn clock(&self) -> Result<i64> {
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        Ok(self.rows("asking for the time", sql, &[], |row| row.try_get(0)).await?.pop().unwrap_or_default())
    }

    /// Stores the pulse of our source.
    pub async fn pulse(&mut self, pulse: &Pulse) -> Result<()> {
        let doing = "storing the source's pulse";
        let Owner { migration, source, epoch } = self.owner(doing)?;
        self.client
            .execute_typed(
                "SELECT slackwater.pulse($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                &[
                    (&migration, Type::TEXT),
                    (&epoch, Type::INT8),
                    (&source, Type::TEXT),
                    (&pulse.clock.map(|(clock, _)| clock), Type::INT8),
                    (&pulse.clock.map(|(_, age)| age), Type::INT8),
                    (&pulse.operation_time.map(to_bigint), Type::INT8),
                    (&pulse.read_through.map(to_bigint), Type::INT8),
                    (&pulse.read_as_of, Type::INT8),
                    (&pulse.oplog_from.map(to_bigint), Type::INT8),
                    (&pulse.trouble, Type::TEXT),
                ],
            )
            .await
            .doing(doing)?;
        Ok(())
    }

    /// The sources, each as of its last pulse.
    pub async fn sources(&self, migration: &str) -> Result<Vec<SourceRow>> {
        let sql = "SELECT s.source, (extract(epoch FROM clock_timestamp() - pulse_at) * 1000)::bigint, skew_ms, \
             operation_time, read_through, read_as_of, oplog_from, trouble, \
             (extract(epoch FROM clock_timestamp() - updated_at) * 1000)::bigint, coalesce(c.kind, 'mongodb') \
             FROM slackwater.sources AS s LEFT JOIN slackwater.captures AS c USING (migration, source) \
             WHERE migration = $1 ORDER BY source";
        self.rows("reading the sources", sql, &[&migration], |row| {
            Ok(SourceRow {
                source: row.try_get(0)?,
                kind: source::Kind::of(row.try_get(9)?).unwrap_or_default(),
                pulse_ms: row.try_get(1)?,
                skew_ms: row.try_get(2)?,
                operation_time: moment_of(row, 3)?,
                read_through: moment_of(row, 4)?,
                read_as_of: row.try_get(5)?,
                oplog_from: moment_of(row, 6)?,
                trouble: row.try_get(7)?,
                silent_ms: row.try_get(8)?,
            })
        })
        .await
    }

    /// Writes a process's beat. The first one takes the name's row; a later one leaves a row alone that another process has
    /// taken.
    pub async fn beat(&mut self, migration: &str, beat: &Beat, first: bool) -> Result<()> {
        let doing = format!("writing the beat of {}", beat.name);
        self.client
            .execute_typed(
                "INSERT INTO slackwater.processes AS p
                     (migration, name, instance, role, host, events, rows, bytes, documents, trouble)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                 ON CONFLICT (migration, name) DO UPDATE SET
                     instance = EXCLUDED.instance, role = EXCLUDED.role, host = EXCLUDED.host,
                     started_at = CASE WHEN p.instance = EXCLUDED.instance THEN p.started_at ELSE now() END,
                     beat_at = now(), ended_at = NULL, events = EXCLUDED.events, rows = EXCLUDED.rows,
                     bytes = EXCLUDED.bytes, documents = EXCLUDED.documents, trouble = EXCLUDED.trouble
                 WHERE p.instance = EXCLUDED.instance OR $11",
                &[
                    (&migration, Type::TEXT),
                    (&beat.name, Type::TEXT),
                    (&beat.instance, Type::INT8),
                    (&beat.role, Type::TEXT),
                    (&beat.host, Type::TEXT),
                    (&beat.events.cast_signed(), Type::INT8),
                    (&beat.rows.cast_signed(), Type::INT8),
                    (&beat.bytes.cast_signed(), Type::INT8),
                    (&beat.documents.cast_signed(), Type::INT8),
                    (&beat.trouble, Type::TEXT),
                    (&first, Type::BOOL),
                ],
            )
            .await
            .doing(&doing)?;
        Ok(())
    }

    /// Writes the last beat of a process that ends on request.
    pub async fn farewell(&mut self, migration: &str, beat: &Beat) -> Result<()> {
        self.client
            .execute_typed(
                "UPDATE slackwater.processes SET beat_at = now(), ended_at = now(), events = $4, rows = $5, bytes = $6,
                     documents = $7, trouble = NULL
                 WHERE migration = $1 AND name = $2 AND instance = $3",
                &[
                    (&migration, Type::TEXT),
                    (&beat.name, Type::TEXT),
                    (&beat.instance, Type::INT8),
                    (&beat.events.cast_signed(), Type::INT8),
                    (&beat.rows.cast_signed(), Type::INT8),
                    (&beat.bytes.cast_signed(), Type::INT8),
                    (&beat.documents.cast_signed(), Type::INT8),
                ],
            )
            .await
            .doing("writing the last beat")?;
        Ok(())
    }

    /// Deletes the rows of processes whose last beat is older than that.
    pub async fn forget_processes(&mut self, migration: &str, silent_ms: i64) -> Result<()> {
        self.client
            .execute(
                "DELETE FROM slackwater.processes
                 WHERE migration = $1 AND beat_at < now() - $2::bigint * interval '1 ms'",
                &[&migration, &silent_ms],
            )
            .await
            .doing("forgetting processes")?;
        Ok(())
    }

    /// The processes, each as of its last beat.
    pub async fn processes(&self, migration: &str) -> Result<Vec<ProcessRow>> {
        let sql = "SELECT name, role, host, (extract(epoch FROM clock_timestamp() - started_at) * 1000)::bigint, \
             (extract(epoch FROM clock_timestamp() - beat_at) * 1000)::bigint, ended_at IS NOT NULL, \
             events, rows, bytes, documents, trouble \
             FROM slackwater.processes WHERE migration = $1 ORDER BY name";
        self.rows("reading the processes", sql, &[&migration], |row| {
            Ok(ProcessRow {
                name: row.try_get(0)?,
                role: row.try_get(1)?,
                host: row.try_get(2)?,
                age_ms: row.try_get(3)?,
                silent_ms: row.try_get(4)?,
                ended: row.try_get(5)?,
                events: count_of(row, 6)?,
                rows: count_of(row, 7)?,
                bytes: count_of(row, 8)?,
                documents: count_of(row, 9)?,
                trouble: row.try_get(10)?,
            })
        })
        .await
    }
}
