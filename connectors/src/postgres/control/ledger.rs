//! What the control store lists for people and for the cutover: dead letters, tallies, incidents, passed fences.
//!
//! Sinks write dead letters, tallies and passed fences together with the rows. This module reads them, and sets when a dead
//! letter is tried again.

use std::time::Duration;

use bytes::Bytes;
use slackwater_topics::Op;
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::Control;
use super::doing::Doing as _;
use super::id::Id;
use crate::error::Result;
use crate::postgres::progress::{Answer, DeadLetter, Tally, count_of, op_of};

/// A dead letter, as stored.
#[derive(Clone, Debug)]
pub struct DeadLetterRow {
    /// Its id.
    pub id: i64,
    /// The letter.
    pub letter: DeadLetter,
    /// When it was written first, milliseconds since 1970.
    pub first_seen: i64,
    /// When it was written last, milliseconds since 1970.
    pub last_seen: i64,
    /// How often writing it was tried.
    pub tries: i32,
    /// When it is due to be tried again, milliseconds since 1970.
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
    /// The reason of one of them, with table and constraint where Postgres names them. Never a value.
    pub example: String,
}

/// Something that a person should know, to be written.
#[derive(Clone, Copy, Debug)]
pub struct Incident<'a> {
    /// Its kind.
    pub kind: &'a str,
    /// The collection, if it is about one.
    pub collection: Option<&'a str>,
    /// What happened.
    pub text: &'a str,
}

impl Incident<'_> {
    /// Writes it in the transaction of the change that it is about.
    pub(super) async fn write(&self, transaction: &Transaction<'_>, migration: &str) -> Answer<()> {
        let sql =
            "INSERT INTO slackwater.incidents (migration, kind, collection, text) VALUES ($1, $2, $3, $4)";
        transaction.execute(sql, &[&migration, &self.kind, &self.collection, &self.text]).await.map(drop)
    }
}

/// Something that a person should know, as stored.
#[derive(Clone, Debug)]
pub struct IncidentRow {
    /// When it happened, milliseconds since 1970.
    pub at: i64,
    /// Its kind.
    pub kind: String,
    /// The collection, if it is about one.
    pub collection: Option<String>,
    /// What happened.
    pub text: String,
}

const DEAD_LETTERS: &str = "SELECT id, collection, key, op, kind, reason, table_name, column_name, document, \
    (extract(epoch FROM first_seen) * 1000)::bigint, (extract(epoch FROM last_seen) * 1000)::bigint, tries, \
    (extract(epoch FROM retry_at) * 1000)::bigint FROM slackwater.dead_letters WHERE migration = $1 ";

fn dead_letter(row: &Row) -> Answer<DeadLetterRow> {
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
    /// Dead letters whose next try is due now or within `early`; the one that is due longest comes first.
    pub async fn due_dead_letters(
        &self,
        migration: &str,
        collections: &[&str],
        early: Duration,
        limit: i64,
    ) -> Result<Vec<DeadLetterRow>> {
        let sql = format!(
            "{DEAD_LETTERS} AND collection = ANY($4) AND retry_at <= clock_timestamp() + $2::bigint * interval '1 ms' \
             ORDER BY retry_at LIMIT $3"
        );
        let early = i64::try_from(early.as_millis()).unwrap_or(i64::MAX);
        self.rows("reading due dead letters", &sql, &[&migration, &early, &limit, &collections], dead_letter)
            .await
    }

    /// Dead letters with an id above `after`, ordered by id; of one collection, or of all.
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

    /// Dead letters by collection and kind; documents that wait for a table, or are on their way back, have the kind `standing`.
    pub async fn dead_letter_counts(&self, migration: &str) -> Result<Vec<DeadLetterCount>> {
        let sql = "SELECT collection, kind, count(*), min(reason) FROM slackwater.dead_letters WHERE migration = $1 \
                   GROUP BY 1, 2 ORDER BY 1, 2";
        self.rows("counting dead letters", sql, &[&migration], |row| {
            Ok(DeadLetterCount {
                collection: row.try_get(0)?,
                kind: row.try_get(1)?,
                count: count_of(row, 2)?,
                example: row.try_get(3)?,
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

    /// Postpones the next try of dead letters whose retry is on its way through the log, so that it is not sent twice.
    pub async fn postpone(&mut self, ids: &[i64], milliseconds: i64) -> Result<()> {
        let doing = "postponing dead letters";
        let (transaction, migration) = self.owned(doing).await?;
        transaction
            .execute(
                "UPDATE slackwater.dead_letters SET retry_at = now() + $3::bigint * interval '1 ms'
                 WHERE migration = $1 AND id = ANY($2)",
                &[&migration, &ids, &milliseconds],
            )
            .await
            .doing(doing)?;
        transaction.commit().await.doing(doing)
    }

    /// Makes all dead letters due now; returns how many there are. It changes only their time, so no ownership is needed.
    pub async fn retry_now(&self, migration: &str) -> Result<u64> {
        self.client
            .execute(
                "UPDATE slackwater.dead_letters SET retry_at = now() WHERE migration = $1 AND kind <> 'standing'",
                &[&migration],
            )
            .await
            .doing("setting dead letters to be tried again")
    }

    /// Makes the dead letters of these collections due now, unless they wait for a table: what was on its way for them is void.
    pub async fn retry_collections(&self, migration: &str, collections: &[&str]) -> Result<u64> {
        let sql = "UPDATE slackwater.dead_letters SET retry_at = now() WHERE migration = $1 AND collection = ANY($2) \
                   AND retry_at < now() + interval '1 year'";
        let due = self.client.execute(sql, &[&migration, &collections]).await;
        due.doing("setting dead letters to be tried again")
    }

    /// How often policies were applied.
    pub async fn tallies(&self, migration: &str) -> Result<Vec<Tally>> {
        let sql = "SELECT collection, table_name, column_name, policy, count, sample_key FROM slackwater.tallies \
                   WHERE migration = $1 ORDER BY 1, 2, 3, 4";
        self.rows("reading tallies", sql, &[&migration], |row| {
            Ok(Tally {
                collection: row.try_get(0)?,
                table: row.try_get(1)?,
                column: row.try_get(2)?,
                policy: row.try_get(3)?,
                count: count_of(row, 4)?,
                sample_key: row.try_get(5)?,
            })
        })
        .await
    }

    /// Incidents, the newest first.
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

    /// The number of incidents.
    pub async fn incident_count(&self, migration: &str) -> Result<u64> {
        let sql = "SELECT count(*) FROM slackwater.incidents WHERE migration = $1";
        let count = |row: &Row| count_of(row, 0);
        Ok(self.rows("counting incidents", sql, &[&migration], count).await?.into_iter().sum())
    }

    /// The lanes and partitions of the log that have passed a fence.
    pub async fn fence_passes(&self, migration: &str, id: Uuid) -> Result<Vec<String>> {
        let sql = "SELECT lane FROM slackwater.fence_passes WHERE migration = $1 AND id = $2 ORDER BY 1";
        self.rows("looking for a fence", sql, &[&migration, &Id(id)], |row| row.try_get(0)).await
    }

    /// The number of lanes and partitions of the log that have passed a fence.
    pub async fn fence_passed(&self, migration: &str, id: Uuid) -> Result<u64> {
        let sql = "SELECT count(*) FROM slackwater.fence_passes WHERE migration = $1 AND id = $2";
        let count = |row: &Row| count_of(row, 0);
        let found = self.rows("looking for a fence", sql, &[&migration, &Id(id)], count).await?;
        Ok(found.into_iter().sum())
    }
}
