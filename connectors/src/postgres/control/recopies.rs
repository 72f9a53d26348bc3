//! Collections that the capture has to copy again, and why. Anybody may ask; the capture of their source begins.

use tokio_postgres::Row;

use super::Control;
use super::doing::Doing as _;
use crate::error::Result;
use crate::postgres::progress::Answer;

/// A collection that has to be copied again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecopyRow {
    /// Its name in the migration file.
    pub collection: String,
    /// A word for the reason.
    pub kind: String,
    /// The reason.
    pub text: String,
}

/// A table has lost what was written to it.
pub const TABLE_LOST: &str = "table_lost";
/// The migration file makes its rows by other rules.
pub const MAPPING_CHANGED: &str = "mapping_changed";
/// A person asked for it.
pub const ASKED: &str = "asked";

impl Control {
    /// Collections that have to be copied again. Not while they stand still: that would be in vain.
    pub async fn recopies(&self, migration: &str) -> Result<Vec<RecopyRow>> {
        let sql = "SELECT r.collection, r.kind, r.text FROM slackwater.recopies AS r WHERE r.migration = $1 AND NOT EXISTS ( \
                   SELECT FROM slackwater.standing AS s WHERE s.migration = $1 AND s.collection = r.collection) ORDER BY 1";
        self.rows("reading what has to be copied again", sql, &[&migration], recopy).await
    }

    /// The same, with those that stand still.
    pub async fn wanted_recopies(&self, migration: &str) -> Result<Vec<RecopyRow>> {
        let sql =
            "SELECT collection, kind, text FROM slackwater.recopies WHERE migration = $1 ORDER BY collection";
        self.rows("reading what has to be copied again", sql, &[&migration], recopy).await
    }

    /// Has these copied again.
    pub async fn want_recopies(
        &self,
        migration: &str,
        collections: &[&str],
        (kind, text): (&str, &str),
    ) -> Result<()> {
        let sql = "INSERT INTO slackwater.recopies (migration, collection, kind, text) \
                   SELECT $1, c, $3, $4 FROM unnest($2::text[]) AS c ON CONFLICT DO NOTHING";
        let wanted = self.client.execute(sql, &[&migration, &collections, &kind, &text]).await;
        wanted.doing("asking for a recopy").map(drop)
    }

    /// These collections of our source are being copied again. What was asked since with another reason stays asked.
    pub async fn recopies_begun(&mut self, begun: &[RecopyRow]) -> Result<()> {
        let doing = "keeping what is being copied again";
        let collections: Vec<&str> = begun.iter().map(|row| row.collection.as_str()).collect();
        let texts: Vec<&str> = begun.iter().map(|row| row.text.as_str()).collect();
        let (transaction, migration) = self.owned(doing).await?;
        let sql = "DELETE FROM slackwater.recopies AS r USING unnest($2::text[], $3::text[]) AS b(collection, text) \
                   WHERE r.migration = $1 AND r.collection = b.collection AND r.text = b.text";
        transaction.execute(sql, &[&migration, &collections, &texts]).await.doing(doing)?;
        transaction.commit().await.doing(doing)
    }
}

fn recopy(row: &Row) -> Answer<RecopyRow> {
    Ok(RecopyRow { collection: row.try_get(0)?, kind: row.try_get(1)?, text: row.try_get(2)? })
}
