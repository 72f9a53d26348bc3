//! Changes of documents of which the first version stands: what was not applied. Sinks write them with the rows.

use super::Control;
use crate::error::Result;
use crate::postgres::progress::count_of;

/// The documents of a collection to which one thing has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreachCount {
    /// The collection.
    pub collection: String,
    /// `update`, `delete` or `insert`.
    pub kind: String,
    /// How many documents.
    pub documents: u64,
    /// How many changes.
    pub changes: u64,
}

/// One document to which something has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreachRow {
    /// The collection.
    pub collection: String,
    /// `update`, `delete` or `insert`.
    pub kind: String,
    /// The canonical bytes of its key.
    pub key: Vec<u8>,
    /// How often.
    pub count: u64,
    /// When it was last noted, milliseconds since 1970.
    pub last_at: i64,
}

impl Control {
    /// What was not applied, by collection and kind.
    pub async fn breach_counts(&self, migration: &str) -> Result<Vec<BreachCount>> {
        let sql = "SELECT collection, kind, count(*), sum(count)::bigint FROM slackwater.breaches WHERE migration = $1 \
                   GROUP BY 1, 2 ORDER BY 1, 2";
        self.rows("counting what was not applied", sql, &[&migration], |row| {
            Ok(BreachCount {
                collection: row.try_get(0)?,
                kind: row.try_get(1)?,
                documents: count_of(row, 2)?,
                changes: count_of(row, 3)?,
            })
        })
        .await
    }

    /// The keys of a collection's documents whose version that stands is not the one that the source has.
    pub async fn kept_documents(&self, migration: &str, collection: &str) -> Result<Vec<Vec<u8>>> {
        let sql = "SELECT key FROM slackwater.versions WHERE migration = $1 AND collection = $2 \
                   AND last IS DISTINCT FROM first";
        self.rows("looking for versions that stand", sql, &[&migration, &collection], |row| row.try_get(0))
            .await
    }

    /// The documents concerned, the newest first.
    pub async fn breaches(&self, migration: &str, limit: i64) -> Result<Vec<BreachRow>> {
        let sql = "SELECT collection, kind, key, count, (extract(epoch FROM last_at) * 1000)::bigint \
                   FROM slackwater.breaches WHERE migration = $1 ORDER BY last_at DESC, id LIMIT $2";
        self.rows("reading what was not applied", sql, &[&migration, &limit], |row| {
            Ok(BreachRow {
                collection: row.try_get(0)?,
                kind: row.try_get(1)?,
                key: row.try_get(2)?,
                count: count_of(row, 3)?,
                last_at: row.try_get(4)?,
            })
        })
        .await
    }

    /// How many documents of each collection are deleted at the source, and stand in the target.
    pub async fn outlived(&self, migration: &str) -> Result<Vec<(String, u64)>> {
        let sql = "SELECT b.collection, count(*) FROM slackwater.breaches AS b
                   JOIN slackwater.versions AS v USING (migration, id)
                   WHERE b.migration = $1 AND b.kind = 'delete' AND v.last IS NULL GROUP BY 1";
        let row = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, count_of(row, 1)?));
        self.rows("counting documents that are gone and whose rows stay", sql, &[&migration], row).await
    }
}
