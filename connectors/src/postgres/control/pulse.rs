//! Who works, what the source says of itself, and what time it is: what tells how far behind a migration is.
//!
//! **Invariant**: what is said of a source is said by the migration's owner only (`slackwater.pulse` holds the guard). A
//! process writes a row of its own, and none that a later process of the same name has taken. Times are those of the
//! server of the target; the source's clock is kept as the difference to it.
//!
//! **Crash**: nobody says anything any more, and that is what is seen.

use postgres_types::Type;
use slackwater_topics::Moment;

use super::{Control, Owner};
use crate::error::Result;
use crate::postgres::error::explain;
use crate::source;

/// What is known of a source, to be said once a second. `None`: nothing new.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// Its clock, milliseconds since 1970, and how many milliseconds ago that was.
    pub clock: Option<(i64, i64)>,
    /// Its operation time.
    pub operation_time: Option<Moment>,
    /// How far it was read into the log.
    pub read_through: Option<Moment>,
    /// What was read holds all that it had at this moment of its clock, milliseconds since 1970.
    pub read_as_of: Option<i64>,
    /// The oldest change that it still has.
    pub oplog_from: Option<Moment>,
    /// What its reader waits for; `None`: nothing.
    pub trouble: Option<String>,
}

/// A source as it was heard of last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRow {
    /// Its name.
    pub source: String,
    /// The kind of system that it is.
    pub kind: source::Kind,
    /// Milliseconds since it answered; `None`: it never has.
    pub pulse_ms: Option<i64>,
    /// How far its clock is ahead of the target's, in milliseconds.
    pub skew_ms: Option<i64>,
    /// Its operation time.
    pub operation_time: Option<Moment>,
    /// How far it was read into the log.
    pub read_through: Option<Moment>,
    /// What was read holds all that it had at this moment of its clock, milliseconds since 1970.
    pub read_as_of: Option<i64>,
    /// The oldest change that it still has; `None` where we may not ask.
    pub oplog_from: Option<Moment>,
    /// What its reader waits for.
    pub trouble: Option<String>,
    /// Milliseconds since its reader has said anything.
    pub silent_ms: i64,
}

/// What a process says of itself once a second.
#[derive(Clone, Debug, Default)]
pub struct Beat {
    /// Its name: `run`, `capture`, `apply/<member>`.
    pub name: String,
    /// Tells two of the same name apart.
    pub instance: i64,
    /// `run`, `capture` or `apply`.
    pub role: String,
    /// Where it runs.
    pub host: String,
    /// Events that it has taken.
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

/// A process as it was heard of last.
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
    /// Milliseconds since its last word.
    pub silent_ms: i64,
    /// It has said that it ends.
    pub ended: bool,
    /// Events that it has taken.
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
    /// The time, milliseconds since 1970, by the target's clock.
    pub async fn clock(&self) -> Result<i64> {
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        Ok(self.rows("asking for the time", sql, &[], |row| row.try_get(0)).await?.pop().unwrap_or_default())
    }

    /// Says what is known of a source.
    pub async fn pulse(&mut self, pulse: &Pulse) -> Result<()> {
        let doing = "noting what the source says";
        let Owner { migration, source, epoch } = self.owner(doing)?;
        let bits = |time: Option<Moment>| time.map(|time| time.0.cast_signed());
        self.client
            .execute_typed(
                "SELECT slackwater.pulse($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                &[
                    (&migration, Type::TEXT),
                    (&epoch, Type::INT8),
                    (&source, Type::TEXT),
                    (&pulse.clock.map(|(clock, _)| clock), Type::INT8),
                    (&pulse.clock.map(|(_, age)| age), Type::INT8),
                    (&bits(pulse.operation_time), Type::INT8),
                    (&bits(pulse.read_through), Type::INT8),
                    (&pulse.read_as_of, Type::INT8),
                    (&bits(pulse.oplog_from), Type::INT8),
                    (&pulse.trouble, Type::TEXT),
                ],
            )
            .await
            .map_err(|error| explain(doing, &error))?;
        Ok(())
    }

    /// The sources.
    pub async fn sources(&self, migration: &str) -> Result<Vec<SourceRow>> {
        let sql = "SELECT s.source, (extract(epoch FROM clock_timestamp() - pulse_at) * 1000)::bigint, skew_ms, \
             operation_time, read_through, read_as_of, oplog_from, trouble, \
             (extract(epoch FROM clock_timestamp() - updated_at) * 1000)::bigint, coalesce(c.kind, 'mongodb') \
             FROM slackwater.sources AS s LEFT JOIN slackwater.captures AS c USING (migration, source) \
             WHERE migration = $1 ORDER BY source";
        self.rows("reading what sources said", sql, &[&migration], |row| {
            let time =
                |place| row.try_get::<_, Option<i64>>(place).map(|time| time.map(|time| Moment(time as u64)));
            Ok(SourceRow {
                source: row.try_get(0)?,
                kind: source::Kind::of(row.try_get(9)?).unwrap_or_default(),
                pulse_ms: row.try_get(1)?,
                skew_ms: row.try_get(2)?,
                operation_time: time(3)?,
                read_through: time(4)?,
                read_as_of: row.try_get(5)?,
                oplog_from: time(6)?,
                trouble: row.try_get(7)?,
                silent_ms: row.try_get(8)?,
            })
        })
        .await
    }

    /// A process lives. The first time it takes the name; later a row that another has taken is left alone.
    pub async fn beat(&mut self, migration: &str, beat: &Beat, first: bool) -> Result<()> {
        let doing = format!("saying that {} lives", beat.name);
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
            .map_err(|error| explain(doing, &error))?;
        Ok(())
    }

    /// A process ends because it was asked to.
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
            .map_err(|error| explain("saying goodbye", &error))?;
        Ok(())
    }

    /// Forgets processes that have been silent for so long.
    pub async fn forget_processes(&mut self, migration: &str, silent_ms: i64) -> Result<()> {
        self.client
            .execute(
                "DELETE FROM slackwater.processes
                 WHERE migration = $1 AND beat_at < now() - $2::bigint * interval '1 ms'",
                &[&migration, &silent_ms],
            )
            .await
            .map_err(|error| explain("forgetting processes", &error))?;
        Ok(())
    }

    /// The processes.
    pub async fn processes(&self, migration: &str) -> Result<Vec<ProcessRow>> {
        let sql = "SELECT name, role, host, (extract(epoch FROM clock_timestamp() - started_at) * 1000)::bigint, \
             (extract(epoch FROM clock_timestamp() - beat_at) * 1000)::bigint, ended_at IS NOT NULL, \
             events, rows, bytes, documents, trouble \
             FROM slackwater.processes WHERE migration = $1 ORDER BY name";
        self.rows("reading who works", sql, &[&migration], |row| {
            let count = |place| row.try_get::<_, i64>(place).map(i64::cast_unsigned);
            Ok(ProcessRow {
                name: row.try_get(0)?,
                role: row.try_get(1)?,
                host: row.try_get(2)?,
                age_ms: row.try_get(3)?,
                silent_ms: row.try_get(4)?,
                ended: row.try_get(5)?,
                events: count(6)?,
                rows: count(7)?,
                bytes: count(8)?,
                documents: count(9)?,
                trouble: row.try_get(10)?,
            })
        })
        .await
    }
}
