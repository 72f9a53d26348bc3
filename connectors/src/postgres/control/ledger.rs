//! The control store's lists for people and for the gate: dead letters, tallies, incidents, fences.
//!
//! Sinks write dead letters, tallies and fences with the rows they belong to; here they are read, and retries are set.

use std::time::Duration;

use bytes::Bytes;
use slackwater_topics::Op;
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::Control;
use crate::error::Result;
use crate::postgres::error::explain;
use crate::postgres::progress::{DeadLetter, Tally, op_of};

/// A dead letter as it is kept.
#[derive(Clone, Debug)]
pub struct DeadLetterRow {
    /// Its number.
    pub id: i64,
    /// The letter.
    pub letter: DeadLetter,
    /// Milliseconds since 1970.
    pub first_seen: i64,
    /// Milliseconds since 1970.
    pub last_seen: i64,
    /// How often it was tried.
    pub tries: i32,
    /// When it is tried again, milliseconds since 1970.
    pub retry_at: i64,
}

/// How many dead letters of one kind a collection has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterCount {
    /// The collection.
    pub collection: String,
    /// The kind of reason.
    pub kind: String,
    /// How many.
    pub count: u64,
}

/// Something that a person should know of, as it is written.
#[derive(Clone, Copy, Debug)]
pub struct Incident<'a> {
    /// Which kind.
    pub kind: &'a str,
    /// The collection it concerns, where it is one.
    pub collection: Option<&'a str>,
    /// What happened.
    pub text: &'a str,
}

impl Incident<'_> {
    /// Writes it with what it tells of.
    pub(super) async fn write(
        &self,
        transaction: &Transaction<'_>,
        migration: &str,
    ) -> std::result::Result<(), tokio_postgres::Error> {
        let sql =
            "INSERT INTO slackwater.incidents (migration, kind, collection, text) VALUES ($1, $2, $3, $4)";
        transaction.execute(sql, &[&migration, &self.kind, &self.collection, &self.text]).await.map(drop)
    }
}

/// Something that a person should know of, as it is kept.
#[derive(Clone, Debug)]
pub struct IncidentRow {
    /// Milliseconds since 1970.
    pub at: i64,
    /// Which kind.
    pub kind: String,
    /// The collection it concerns.
    pub collection: Option<String>,
    /// What happened.
    pub text: String,
}

const DEAD_LETTERS: &str = "SELECT id, collection, key, op, kind, reason, table_name, column_name, document, \
    (extract(epoch FROM first_seen) * 1000)::bigint, (extract(epoch FROM last_seen) * 1000)::bigint, tries, \
    (extract(epoch FROM retry_at) * 1000)::bigint FROM slackwater.dead_letters WHERE migration = $1 ";

fn dead_letter(row: &Row) -> std::result::Result<DeadLetterRow, tokio_postgres::Error> {
    let op: Op = op_of(row.try_get(3)?);
    Ok(DeadLetterRow {
        id: row.try_get(0)?,
        letter: DeadLetter {
            collection: row.try_get(1)?,
            key: row.try_get(2)?,
            op,
            kind: row.try_get(4)?,
            text: row.try_get(5)?,
            table: row.try_get(6)?,
            column: row.try_get(7)?,
            document: Bytes::from(row.try_get::<_, Vec<u8>>(8)?),
        },
        first_seen: row.try_get(9)?,
        last_seen: row.try_get(10)?,
        tries: row.try_get(11)?,
        retry_at: row.try_get(12)?,
    })
}

impl Control {
    /// Dead letters whose next try is due, or will be that soon, the longest waiting first.
    pub async fn due_dead_letters(
        &self,
        migration: &str,
        early: Duration,
        limit: i64,
    ) -> Result<Vec<DeadLetterRow>> {
        let sql = format!(
            "{DEAD_LETTERS} AND retry_at <= clock_timestamp() + $2::bigint * interval '1 ms' \
             ORDER BY retry_at LIMIT $3"
        );
        let early = i64::try_from(early.as_millis()).unwrap_or(i64::MAX);
        self.rows("reading due dead letters", &sql, &[&migration, &early, &limit], dead_letter).await
    }

    /// Dead letters with a number above `after`, in the order of their numbers; of one collection, or of all.
    pub async fn dead_letters(
        &self,
        migration: &str,
        collection: Option<&str>,
        after: i64,
        limit: i64,
    ) -> Result<Vec<DeadLetterRow>> {
        let sql = format!(
            "{DEAD_LETTERS} AND ($2::text IS NULL OR collection = $2) AND id > $3 ORDER BY id LIMIT $4"
        );
        self.rows("reading dead letters", &sql, &[&migration, &collection, &after, &limit], dead_letter).await
    }

    /// Dead letters by collection and kind.
    pub async fn dead_letter_counts(&self, migration: &str) -> Result<Vec<DeadLetterCount>> {
        let sql = "SELECT collection, kind, count(*) FROM slackwater.dead_letters WHERE migration = $1 \
                   GROUP BY 1, 2 ORDER BY 1, 2";
        self.rows("counting dead letters", sql, &[&migration], |row| {
            Ok(DeadLetterCount {
                collection: row.try_get(0)?,
                kind: row.try_get(1)?,
                count: row.try_get::<_, i64>(2)? as u64,
            })
        })
        .await
    }

    /// Whether there are dead letters.
    pub async fn has_dead_letters(&self, migration: &str) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM slackwater.dead_letters WHERE migration = $1)";
        let found = self.rows("looking for dead letters", sql, &[&migration], |row| row.try_get(0)).await?;
        Ok(found.first() == Some(&true))
    }

    /// Puts a letter off while its retry is on the way through the log, so that it is not sent twice.
    pub async fn put_off(&mut self, ids: &[i64], milliseconds: i64) -> Result<()> {
        let doing = "putting dead letters off";
        let fail = |error: tokio_postgres::Error| explain(doing, &error);
        let (transaction, migration) = self.owned(doing).await?;
        transaction
            .execute(
                "UPDATE slackwater.dead_letters SET retry_at = now() + $3::bigint * interval '1 ms'
                 WHERE migration = $1 AND id = ANY($2)",
                &[&migration, &ids, &milliseconds],
            )
            .await
            .map_err(fail)?;
        transaction.commit().await.map_err(fail)
    }

    /// Has all dead letters tried now; tells how many. It changes only the time, so nothing has to be owned.
    pub async fn retry_now(&self, migration: &str) -> Result<u64> {
        self.client
            .execute(
                "UPDATE slackwater.dead_letters SET retry_at = now() WHERE migration = $1",
                &[&migration],
            )
            .await
            .map_err(|error| explain("setting dead letters to be tried again", &error))
    }

    /// What policies did.
    pub async fn tallies(&self, migration: &str) -> Result<Vec<Tally>> {
        let sql = "SELECT collection, table_name, column_name, policy, count, sample_key FROM slackwater.tallies \
                   WHERE migration = $1 ORDER BY 1, 2, 3, 4";
        self.rows("reading tallies", sql, &[&migration], |row| {
            Ok(Tally {
                collection: row.try_get(0)?,
                table: row.try_get(1)?,
                column: row.try_get(2)?,
                policy: row.try_get(3)?,
                count: row.try_get::<_, i64>(4)? as u64,
                sample_key: row.try_get(5)?,
            })
        })
        .await
    }

    /// What happened, the newest first.
    pub async fn incidents(&self, migration: &str, limit: i64) -> Result<Vec<IncidentRow>> {
        let sql = "SELECT (extract(epoch FROM at) * 1000)::bigint, kind, collection, text FROM slackwater.incidents \
                   WHERE migration = $1 ORDER BY id DESC LIMIT $2";
        self.rows("reading incidents", sql, &[&migration, &limit], |row| {
            Ok(IncidentRow {
                at: row.try_get(0)?,
                kind: row.try_get(1)?,
                collection: row.try_get(2)?,
                text: row.try_get(3)?,
            })
        })
        .await
    }

    /// How much has happened.
    pub async fn incident_count(&self, migration: &str) -> Result<u64> {
        let sql = "SELECT count(*) FROM slackwater.incidents WHERE migration = $1";
        let count = |row: &Row| Ok(row.try_get::<_, i64>(0)? as u64);
        Ok(self.rows("counting incidents", sql, &[&migration], count).await?.into_iter().sum())
    }

    /// The lanes, and the partitions of the log, that a fence has passed.
    pub async fn fence_passes(&self, migration: &str, id: Uuid) -> Result<Vec<String>> {
        let sql = "SELECT lane FROM slackwater.fence_passes WHERE migration = $1 AND id = $2::text::uuid ORDER BY 1";
        self.rows("looking for a fence", sql, &[&migration, &id.to_string()], |row| row.try_get(0)).await
    }

    /// How many of them there are.
    pub async fn fence_passed(&self, migration: &str, id: Uuid) -> Result<u64> {
        let sql = "SELECT count(*) FROM slackwater.fence_passes WHERE migration = $1 AND id = $2::text::uuid";
        let count = |row: &Row| Ok(row.try_get::<_, i64>(0)? as u64);
        let found = self.rows("looking for a fence", sql, &[&migration, &id.to_string()], count).await?;
        Ok(found.into_iter().sum())
    }
}
