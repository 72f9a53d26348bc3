//! What was sent of the records of a source that has no log of its changes.
//!
//! **Invariant**: a key is here before its row may be in the target; a hash is here only while the log has safely taken exactly that
//! content.

use slackwater_topics::{Key, Moment};

use super::Control;
use super::doing::Doing as _;
use crate::error::Result;
use crate::postgres::progress::{of_bigint, to_bigint};

/// A hash of a record's content.
pub type Hash = [u8; 16];

impl Control {
    /// The keys of a collection of our source, each with the hash of what the log has safely taken.
    pub async fn sent(&self, collection: &str) -> Result<Vec<(Key, Option<Hash>)>> {
        let doing = "reading what was sent";
        let owner = self.owner(doing)?;
        let sql =
            "SELECT key, hash FROM slackwater.sent WHERE migration = $1 AND source = $2 AND collection = $3";
        self.rows(doing, sql, &[&owner.migration, &owner.source, &collection], |row| {
            let (key, hash): (&[u8], Option<&[u8]>) = (row.try_get(0)?, row.try_get(1)?);
            Ok((Key::from_bytes(key), hash.and_then(|hash| Hash::try_from(hash).ok())))
        })
        .await
    }

    /// The largest moment at which anything of our source was sent.
    pub async fn sent_through(&self) -> Result<Moment> {
        let doing = "reading when something was sent";
        let owner = self.owner(doing)?;
        let sql = "SELECT moment FROM slackwater.sent_through WHERE migration = $1 AND source = $2";
        let read = |row: &tokio_postgres::Row| row.try_get::<_, i64>(0);
        let found = self.rows(doing, sql, &[&owner.migration, &owner.source], read).await?;
        Ok(found.into_iter().next().map(of_bigint).unwrap_or_default())
    }

    /// These are about to be sent: none of them has a hash any more.
    pub async fn sending(&mut self, collection: &str, keys: &[Key], at: Moment) -> Result<()> {
        let doing = "noting what is sent";
        let owner = self.owner(doing)?;
        let (transaction, _) = self.owned(doing).await?;
        let keys: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
        transaction
            .execute(
                "INSERT INTO slackwater.sent (migration, source, collection, key)
                 SELECT $1, $2, $3, k FROM unnest($4::bytea[]) AS k
                 ON CONFLICT (migration, source, collection, key) DO UPDATE SET hash = NULL",
                &[&owner.migration, &owner.source, &collection, &keys],
            )
            .await
            .doing(doing)?;
        transaction
            .execute(
                "INSERT INTO slackwater.sent_through AS s (migration, source, moment) VALUES ($1, $2, $3)
                 ON CONFLICT (migration, source) DO UPDATE SET moment = greatest(s.moment, EXCLUDED.moment)",
                &[&owner.migration, &owner.source, &to_bigint(at)],
            )
            .await
            .doing(doing)?;
        transaction.commit().await.doing(doing)
    }

    /// The log has safely taken these contents; what is gone has no row any more.
    pub async fn sent_safely(&mut self, collection: &str, kept: &[(Key, Hash)], gone: &[Key]) -> Result<()> {
        let doing = "noting what is safe";
        let owner = self.owner(doing)?;
        let (transaction, _) = self.owned(doing).await?;
        let keys: Vec<&[u8]> = kept.iter().map(|(key, _)| key.as_bytes()).collect();
        let hashes: Vec<&[u8]> = kept.iter().map(|(_, hash)| &hash[..]).collect();
        transaction
            .execute(
                "UPDATE slackwater.sent AS s SET hash = n.hash
                 FROM unnest($4::bytea[], $5::bytea[]) AS n(key, hash)
                 WHERE s.migration = $1 AND s.source = $2 AND s.collection = $3 AND s.key = n.key",
                &[&owner.migration, &owner.source, &collection, &keys, &hashes],
            )
            .await
            .doing(doing)?;
        let gone: Vec<&[u8]> = gone.iter().map(Key::as_bytes).collect();
        transaction
            .execute(
                "DELETE FROM slackwater.sent
                 WHERE migration = $1 AND source = $2 AND collection = $3 AND key = ANY($4)",
                &[&owner.migration, &owner.source, &collection, &gone],
            )
            .await
            .doing(doing)?;
        transaction.commit().await.doing(doing)
    }
}
