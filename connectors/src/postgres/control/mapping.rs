//! What the rows are made by: the mapping of each collection, as the capture that goes on with the migration has it. What a mapping
//! is made of is not known here: it is a text, and its digest.
//!
//! **Invariant**: all rows of a collection are made by the mapping that is stored here, or its recopy is asked for or under way. It
//! is stored in the transaction that asks for the recopies; and whoever makes rows by another one can write nothing after it, because
//! that transaction supersedes the lanes of appliers and the captures of other sources.
//!
//! **Crash**: before that transaction nothing has happened; after it the recopies are asked for until they have begun.

use std::collections::BTreeMap;

use tokio_postgres::Transaction;
use uuid::Uuid;

use super::doing::Doing as _;
use super::id::Id;
use super::ledger::Incident;
use super::recopies::MAPPING_CHANGED;
use super::{Control, Owner, WAIT_FOR_OWNER};
use crate::error::{Error, Kind, Result};
use crate::postgres::progress::Answer;

/// What was kept of the mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The digest of the whole; `None` if the last capture was of a version that kept none.
    pub digest: Option<String>,
    /// The hash of the migration file at the last start of a capture.
    pub file_hash: String,
    /// What ids are made with.
    pub namespace: Uuid,
    /// The mapping of each collection, by its name.
    pub collections: BTreeMap<String, RecordedMapping>,
}

/// The mapping of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedMapping {
    /// As it was given.
    pub mapping: String,
    /// The migration file does not name it any more.
    pub is_out: bool,
}

/// The mapping that a capture goes on with.
#[derive(Clone, Copy, Debug)]
pub struct Adoption<'a> {
    /// The digest of the whole.
    pub digest: &'a str,
    /// The digest that it was compared with.
    pub before: Option<&'a str>,
    /// The sources that this process captures.
    pub sources: &'a [&'a str],
    /// The mapping of each collection in the file.
    pub collections: &'a [(String, String)],
    /// Collections that are copied again, and why.
    pub recopies: &'a [(String, String)],
    /// Collections that are not in the file any more.
    pub out: &'a [String],
    /// Tables that nothing fills any more, each with its schema.
    pub left: &'a [(String, String)],
    /// Those of `collections` in which the first version of a document stands.
    pub append_only: &'a [&'a str],
    /// What has changed, for people; empty if nothing has.
    pub text: &'a str,
}

impl Control {
    /// What was kept of the mapping; `None` if the migration has never been run.
    pub async fn mapping(&self, migration: &str) -> Result<Option<Recorded>> {
        let doing = "reading what the rows are made by";
        let sql = "SELECT mapping, file_hash, namespace FROM slackwater.migrations WHERE name = $1";
        let head =
            |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<_, Id>(2)?.0));
        let Some((digest, file_hash, namespace)) = self.rows(doing, sql, &[&migration], head).await?.pop()
        else {
            return Ok(None);
        };
        let sql =
            "SELECT collection, mapping, out_since IS NOT NULL FROM slackwater.mappings WHERE migration = $1";
        let one = |row: &tokio_postgres::Row| {
            Ok((row.try_get(0)?, RecordedMapping { mapping: row.try_get(1)?, is_out: row.try_get(2)? }))
        };
        let collections = self.rows(doing, sql, &[&migration], one).await?.into_iter().collect();
        Ok(Some(Recorded { digest, file_hash, namespace, collections }))
    }

    /// Goes on with this mapping. [`Kind::Contention`] if another process has stored one meanwhile that is not this one.
    pub async fn adopt(&mut self, adoption: &Adoption<'_>) -> Result<()> {
        let doing = "keeping what the rows are made by";
        let Owner { migration, source, epoch } = self.owner(doing)?;
        let transaction = self.client.transaction().await.doing(doing)?;
        transaction.batch_execute(WAIT_FOR_OWNER).await.doing(doing)?;
        // The migration before the guard, as where a source is taken over.
        let stored: Option<String> = transaction
            .query_one("SELECT mapping FROM slackwater.migrations WHERE name = $1 FOR UPDATE", &[&migration])
            .await
            .and_then(|row| row.try_get(0))
            .doing(doing)?;
        let guard = "SELECT slackwater.guard($1, $2, $3)";
        transaction.execute(guard, &[&migration, &source, &epoch]).await.doing(doing)?;
        if stored.as_deref() != adoption.before {
            if stored.as_deref() == Some(adoption.digest) {
                return Ok(());
            }
            return Err(Error::new(
                Kind::Contention,
                doing,
                "another process has stored another one meanwhile",
            ));
        }
        store(&transaction, &migration, adoption).await.doing(doing)?;
        if !adoption.text.is_empty() {
            let changed = Incident { kind: MAPPING_CHANGED, collection: None, text: adoption.text };
            changed.write(&transaction, &migration).await.doing(doing)?;
        }
        if adoption.before.is_some_and(|before| before != adoption.digest) {
            supersede(&transaction, &migration, adoption.sources).await.doing(doing)?;
        }
        transaction.commit().await.doing(doing)
    }
}

async fn store(transaction: &Transaction<'_>, migration: &str, adoption: &Adoption<'_>) -> Answer<()> {
    let (names, mappings): (Vec<&str>, Vec<&str>) =
        adoption.collections.iter().map(|(name, mapping)| (name.as_str(), mapping.as_str())).unzip();
    transaction
        .execute(
            "UPDATE slackwater.migrations SET mapping = $2 WHERE name = $1",
            &[&migration, &adoption.digest],
        )
        .await?;
    transaction
        .execute(
            "INSERT INTO slackwater.mappings (migration, collection, mapping)
             SELECT $1, n.* FROM unnest($2::text[], $3::text[]) AS n
             ON CONFLICT (migration, collection) DO UPDATE SET mapping = EXCLUDED.mapping, out_since = NULL",
            &[&migration, &names, &mappings],
        )
        .await?;
    let (again, why): (Vec<&str>, Vec<&str>) =
        adoption.recopies.iter().map(|(name, text)| (name.as_str(), text.as_str())).unzip();
    transaction
        .execute(
            // What was asked for before may be begun at this moment by a process that makes rows by the old mapping.
            "INSERT INTO slackwater.recopies (migration, collection, kind, text)
             SELECT $1, n.collection, $4, n.text FROM unnest($2::text[], $3::text[]) AS n(collection, text)
             ON CONFLICT (migration, collection) DO UPDATE SET kind = EXCLUDED.kind, text = EXCLUDED.text",
            &[&migration, &again, &why, &MAPPING_CHANGED],
        )
        .await?;
    forget(transaction, migration, adoption.out).await?;
    if adoption.before != Some(adoption.digest) {
        // Where the first version stood until now, it does not any more, and the other way round. Histories go on where they were.
        let sql = "DELETE FROM slackwater.versions WHERE migration = $1 AND collection = ANY($2)
                   AND (number = 0) <> (collection = ANY($3))";
        transaction.execute(sql, &[&migration, &names, &adoption.append_only]).await?;
    }
    leave(transaction, migration, adoption.left).await
}

/// Forgets how far collections are that are not in the file any more. Their rows stay, and so does the word that they were there: one
/// that comes back has missed changes.
async fn forget(transaction: &Transaction<'_>, migration: &str, out: &[String]) -> Answer<()> {
    if out.is_empty() {
        return Ok(());
    }
    transaction
        .execute(
            "UPDATE slackwater.mappings SET out_since = now()
             WHERE migration = $1 AND collection = ANY($2) AND out_since IS NULL",
            &[&migration, &out],
        )
        .await?;
    transaction
        .execute(
            "DELETE FROM slackwater.partitions AS p USING slackwater.log_partitions AS l
             WHERE p.migration = $1 AND l.migration = $1 AND l.collection = ANY($2)
               AND p.topic = l.topic AND p.partition = l.partition",
            &[&migration, &out],
        )
        .await?;
    for table in ["log_partitions", "collections", "recopies", "standing", "gone", "dead_letters", "tallies"]
    {
        let sql = format!("DELETE FROM slackwater.{table} WHERE migration = $1 AND collection = ANY($2)");
        transaction.execute(&sql, &[&migration, &out]).await?;
    }
    Ok(())
}

/// Rows of tables that nothing fills any more do not wait for anything.
async fn leave(transaction: &Transaction<'_>, migration: &str, left: &[(String, String)]) -> Answer<()> {
    for (schema, table) in left {
        let relations = "SELECT id FROM slackwater.relations WHERE migration = $1 AND schema_name = $2 AND table_name = $3";
        for waiting in ["waiting_for", "waiting_rows"] {
            let sql = format!("DELETE FROM slackwater.{waiting} WHERE relation IN ({relations})");
            transaction.execute(&sql, &[&migration, schema, table]).await?;
        }
    }
    Ok(())
}

/// Supersedes appliers, and the captures of sources that are not ours. Locks in the order of every other transaction that does so.
async fn supersede(transaction: &Transaction<'_>, migration: &str, ours: &[&str]) -> Answer<()> {
    transaction
        .execute(
            "WITH held AS MATERIALIZED (
                 SELECT source FROM slackwater.captures WHERE migration = $1 AND NOT source = ANY($2)
                 ORDER BY source FOR NO KEY UPDATE)
             UPDATE slackwater.captures AS c SET epoch = c.epoch + 1 FROM held
             WHERE c.migration = $1 AND c.source = held.source",
            &[&migration, &ours],
        )
        .await?;
    transaction
        .execute(
            "WITH held AS MATERIALIZED (
                 SELECT lane FROM slackwater.lanes
                 WHERE migration = $1 AND (source IS NULL OR NOT source = ANY($2)) ORDER BY lane FOR NO KEY UPDATE)
             UPDATE slackwater.lanes AS l SET epoch = l.epoch + 1 FROM held
             WHERE l.migration = $1 AND l.lane = held.lane",
            &[&migration, &ours],
        )
        .await
        .map(drop)
}
