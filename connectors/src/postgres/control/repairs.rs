//! Documents that have to be sent again because their rows are wrong. Anybody may ask; the capture of their source sends them.

use super::Control;
use super::doing::Doing as _;
use super::ledger::Incident;
use crate::error::Result;
use crate::postgres::progress::count_of;

impl Control {
    /// Asks for these documents of a collection.
    pub async fn want_repairs(&self, migration: &str, collection: &str, keys: &[Vec<u8>]) -> Result<()> {
        let sql = "INSERT INTO slackwater.repairs (migration, collection, key) SELECT $1, $2, k FROM unnest($3::bytea[]) AS k";
        let wanted = self.client.execute(sql, &[&migration, &collection, &keys]).await;
        wanted.doing("asking for repairs").map(drop)
    }

    /// What is asked for of these collections: its number, the collection, the document's key.
    pub async fn repairs(
        &self,
        migration: &str,
        collections: &[&str],
        most: i64,
    ) -> Result<Vec<(i64, String, Vec<u8>)>> {
        let sql = "SELECT id, collection, key FROM slackwater.repairs WHERE migration = $1 AND collection = ANY($2) \
                   ORDER BY id LIMIT $3";
        self.rows("reading what has to be repaired", sql, &[&migration, &collections, &most], |row| {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        })
        .await
    }

    /// How much is asked for and not sent yet.
    pub async fn repairs_left(&self, migration: &str) -> Result<u64> {
        let sql = "SELECT count(*) FROM slackwater.repairs WHERE migration = $1";
        let left = self.rows("counting repairs", sql, &[&migration], |row| count_of(row, 0)).await?;
        Ok(left.first().copied().unwrap_or(0))
    }

    /// These are sent, or nobody wants them any more.
    pub async fn forget_repairs(&self, ids: &[i64]) -> Result<()> {
        let gone = self.client.execute("DELETE FROM slackwater.repairs WHERE id = ANY($1)", &[&ids]).await;
        gone.doing("forgetting repairs").map(drop)
    }

    /// What a verification found or a repair did, for whoever asks later.
    pub async fn note_incident(&mut self, migration: &str, kind: &str, text: &str) -> Result<()> {
        let doing = "noting an incident";
        let transaction = self.client.transaction().await.doing(doing)?;
        let incident = Incident { kind, collection: None, text };
        incident.write(&transaction, migration).await.doing(doing)?;
        transaction.commit().await.doing(doing)
    }
}
