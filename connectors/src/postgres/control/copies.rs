//! What is copied: collections, their chunks, and the lists of row keys that a recopy has seen.

use tokio_postgres::Transaction;

use super::Control;
use super::ledger::Incident;
use super::partitions::{self, Skip};
use crate::error::Result;
use crate::postgres::error::explain;
use crate::postgres::progress::{Bounds, ChunkDone};
use crate::postgres::target::statements::quote;

/// How far the copy of a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// Not begun.
    Pending,
    /// Some chunks are open.
    Copying,
    /// Complete.
    Copied,
}

/// A collection.
#[derive(Clone, Debug)]
pub struct CollectionRow {
    /// Its name in the migration file.
    pub collection: String,
    /// How far its copy is.
    pub state: CopyState,
    /// Number of the copy: each reload adds one.
    pub generation: i32,
    /// Documents that were expected.
    pub documents_estimate: u64,
    /// Documents in finished chunks.
    pub documents_copied: u64,
    /// Chunks of this generation.
    pub chunks_total: u64,
    /// Finished ones.
    pub chunks_done: u64,
    /// Its tables were empty when the copy began, so COPY may be used.
    pub fresh: bool,
    /// It is being recopied, over rows that are there already.
    pub reload: bool,
    /// Milliseconds since 1970.
    pub started_at: Option<i64>,
    /// Milliseconds since 1970.
    pub finished_at: Option<i64>,
}

/// A chunk that is still to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// Its id, for [`ChunkDone`].
    pub id: i64,
    /// Its collection.
    pub collection: String,
    /// The copy it belongs to.
    pub generation: i32,
    /// From this bound on (see [`slackwater_topics::Bound`]); `None` is the beginning.
    pub lo: Option<Vec<u8>>,
    /// Up to this bound; `None` is the end.
    pub hi: Option<Vec<u8>>,
    /// How often its reading was begun.
    pub reads: i32,
}

/// A table whose row keys are noted while its collections are recopied.
#[derive(Clone, Debug)]
pub struct SeenTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Names of the key's columns.
    pub key: Vec<String>,
}

const OPEN_CHUNKS: &str = "
SELECT c.id, c.collection, c.generation, c.lo, c.hi, c.reads
FROM slackwater.chunks c
JOIN slackwater.collections k USING (migration, collection, generation)
WHERE c.migration = $1 AND NOT c.done ORDER BY c.collection, c.id";

const COLLECTIONS: &str = "
SELECT k.collection, k.state, k.generation, k.documents_estimate, coalesce(c.documents, 0)::bigint,
       coalesce(c.total, 0), coalesce(c.done, 0), k.fresh, k.reload,
       (extract(epoch FROM k.started_at) * 1000)::bigint, (extract(epoch FROM k.finished_at) * 1000)::bigint
FROM slackwater.collections k
LEFT JOIN (
    SELECT migration, collection, generation, sum(documents) AS documents, count(*) AS total,
           count(*) FILTER (WHERE done) AS done
    FROM slackwater.chunks GROUP BY 1, 2, 3
) c USING (migration, collection, generation)
WHERE k.migration = $1 ORDER BY k.collection";

impl Control {
    /// All collections that were planned.
    pub async fn collections(&self, migration: &str) -> Result<Vec<CollectionRow>> {
        self.rows("reading collections", COLLECTIONS, &[&migration], |row| {
            let state: String = row.try_get(1)?;
            Ok(CollectionRow {
                collection: row.try_get(0)?,
                state: match state.as_str() {
                    "copied" => CopyState::Copied,
                    "copying" => CopyState::Copying,
                    _ => CopyState::Pending,
                },
                generation: row.try_get(2)?,
                documents_estimate: row.try_get::<_, i64>(3)? as u64,
                documents_copied: row.try_get::<_, i64>(4)? as u64,
                chunks_total: row.try_get::<_, i64>(5)? as u64,
                chunks_done: row.try_get::<_, i64>(6)? as u64,
                fresh: row.try_get(7)?,
                reload: row.try_get(8)?,
                started_at: row.try_get(9)?,
                finished_at: row.try_get(10)?,
            })
        })
        .await
    }

    /// Chunks of the present generation that are not done, of all collections.
    pub async fn open_chunks(&self, migration: &str) -> Result<Vec<ChunkRow>> {
        self.rows("reading open chunks", OPEN_CHUNKS, &[&migration], |row| {
            Ok(ChunkRow {
                id: row.try_get(0)?,
                collection: row.try_get(1)?,
                generation: row.try_get(2)?,
                lo: row.try_get(3)?,
                hi: row.try_get(4)?,
                reads: row.try_get(5)?,
            })
        })
        .await
    }

    /// Begins the copy of a collection: its chunks, whole or not at all. Does nothing when this generation is planned
    /// already, so that a plan whose answer was lost can be made again.
    pub async fn plan_chunks(
        &mut self,
        collection: &str,
        generation: i32,
        bounds: &[Bounds],
        estimate: u64,
        fresh: bool,
    ) -> Result<()> {
        let doing = format!("planning the copy of {collection}");
        let fail = |error: tokio_postgres::Error| explain(doing.clone(), &error);
        let (transaction, migration) = self.owned(&doing).await?;
        let planned = transaction
            .execute(
                "INSERT INTO slackwater.collections AS k
                     (migration, collection, state, generation, documents_estimate, fresh, started_at)
                 VALUES ($1, $2, 'copying', $3, $4, $5, now())
                 ON CONFLICT (migration, collection) DO UPDATE SET
                     state = 'copying', generation = EXCLUDED.generation, fresh = EXCLUDED.fresh,
                     documents_estimate = EXCLUDED.documents_estimate, started_at = now(), finished_at = NULL
                 WHERE k.generation < EXCLUDED.generation
                    OR (k.generation = EXCLUDED.generation AND k.state = 'pending')",
                &[&migration, &collection, &generation, &(estimate as i64), &fresh],
            )
            .await
            .map_err(fail)?;
        if planned == 1 {
            let lower: Vec<Option<&[u8]>> = bounds.iter().map(|(lo, _)| lo.as_deref()).collect();
            let upper: Vec<Option<&[u8]>> = bounds.iter().map(|(_, hi)| hi.as_deref()).collect();
            transaction
                .execute(
                    "DELETE FROM slackwater.chunks WHERE migration = $1 AND collection = $2",
                    &[&migration, &collection],
                )
                .await
                .map_err(fail)?;
            transaction
                .execute(
                    "INSERT INTO slackwater.chunks (migration, collection, generation, lo, hi)
                     SELECT $1, $2, $3, b.lo, b.hi
                     FROM unnest($4::bytea[], $5::bytea[]) WITH ORDINALITY AS b(lo, hi, place) ORDER BY b.place",
                    &[&migration, &collection, &generation, &lower, &upper],
                )
                .await
                .map_err(fail)?;
        }
        transaction.commit().await.map_err(fail)
    }

    /// Notes that the reading of a chunk begins; tells how often it has begun, this time included. 0: there is no such
    /// open chunk any more.
    pub async fn note_read(&mut self, chunk: i64) -> Result<i32> {
        let doing = "noting that a chunk is read";
        let fail = |error: tokio_postgres::Error| explain(doing, &error);
        let (transaction, migration) = self.owned(doing).await?;
        let row = transaction
            .query_opt(
                "UPDATE slackwater.chunks SET reads = reads + 1
                 WHERE id = $1 AND migration = $2 AND NOT done RETURNING reads",
                &[&chunk, &migration],
            )
            .await
            .map_err(fail)?;
        transaction.commit().await.map_err(fail)?;
        row.map_or(Ok(0), |row| row.try_get(0).map_err(fail))
    }

    /// A chunk that was copied through a log with partitions is complete: all its records are acknowledged. With a lane
    /// the same comes with the rows. Not there or done already: the collection was begun anew meanwhile, or the answer
    /// to the first call was lost; then nothing is done.
    pub async fn finish_chunk(&mut self, chunk: &ChunkDone) -> Result<()> {
        let doing = format!("finishing a chunk of {}", chunk.collection);
        let fail = |error: tokio_postgres::Error| explain(doing.clone(), &error);
        let (transaction, migration) = self.owned(&doing).await?;
        let (lo, hi) = chunk.rest.clone().unwrap_or_default();
        transaction
            .execute(
                "WITH finished AS (
                     UPDATE slackwater.chunks SET done = true, documents = $3
                     WHERE id = $2 AND migration = $1 AND NOT done RETURNING collection, generation
                 )
                 INSERT INTO slackwater.chunks (migration, collection, generation, lo, hi)
                 SELECT $1, collection, generation, $5, $6 FROM finished WHERE $4",
                &[&migration, &chunk.id, &(chunk.documents as i64), &chunk.rest.is_some(), &lo, &hi],
            )
            .await
            .map_err(fail)?;
        transaction.commit().await.map_err(fail)
    }

    /// The copy of a collection is complete. False while a chunk is open, or when another generation has begun.
    pub async fn finish_collection(&mut self, collection: &str, generation: i32) -> Result<bool> {
        let doing = format!("finishing the copy of {collection}");
        let fail = |error: tokio_postgres::Error| explain(doing.clone(), &error);
        let (transaction, migration) = self.owned(&doing).await?;
        let finished = transaction
            .execute(
                "UPDATE slackwater.collections k
                 SET state = 'copied', finished_at = coalesce(finished_at, now())
                 WHERE migration = $1 AND collection = $2 AND generation = $3 AND state <> 'pending'
                   AND NOT EXISTS (SELECT FROM slackwater.chunks c WHERE c.migration = k.migration
                       AND c.collection = k.collection AND c.generation = k.generation AND NOT c.done)",
                &[&migration, &collection, &generation],
            )
            .await
            .map_err(fail)?;
        transaction.commit().await.map_err(fail)?;
        Ok(finished == 1)
    }

    /// Begins to recopy collections over the rows that are there: each at its new generation, pending, and for each of
    /// their tables an empty list of the row keys seen. With a log that has partitions, `skip` says where those of the
    /// collections' topics end now: nothing before that is applied after this. `why` becomes an incident. A call whose
    /// answer was lost can be made again.
    pub async fn start_reload(
        &mut self,
        collections: &[(&str, i32)],
        tables: &[SeenTable],
        skip: &[Skip],
        why: Incident<'_>,
    ) -> Result<()> {
        let doing = "starting a reload";
        let owner = self.owner(doing)?;
        let fail = |error: tokio_postgres::Error| explain(doing, &error);
        let (transaction, migration) = self.owned(doing).await?;
        // Before the lists of row keys: appliers hold their partitions when they note a key, so this is the order for all.
        partitions::skip_partitions(&transaction, doing, &owner, skip).await?;
        let (collections, generations): (Vec<&str>, Vec<i32>) = collections.iter().copied().unzip();
        transaction
            .execute(
                "UPDATE slackwater.collections AS k SET state = 'pending', generation = n.generation, reload = true,
                     fresh = false, started_at = NULL, finished_at = NULL
                 FROM unnest($2::text[], $3::int[]) AS n(collection, generation)
                 WHERE k.migration = $1 AND k.collection = n.collection",
                &[&migration, &collections, &generations],
            )
            .await
            .map_err(fail)?;
        transaction
            .execute(
                "DELETE FROM slackwater.chunks WHERE migration = $1 AND collection = ANY($2)",
                &[&migration, &collections],
            )
            .await
            .map_err(fail)?;
        for table in tables {
            start_seen(&transaction, &migration, table).await.map_err(fail)?;
        }
        why.write(&transaction, &migration).await.map_err(fail)?;
        transaction.commit().await.map_err(fail)
    }

    /// Ends a recopy after the sweep. The lists of row keys stay: batches on their way still note theirs. They go with
    /// [`Control::forget_seen`].
    pub async fn end_reload(&mut self, collections: &[&str], outcome: Incident<'_>) -> Result<()> {
        let doing = "ending a reload";
        let fail = |error: tokio_postgres::Error| explain(doing, &error);
        let (transaction, migration) = self.owned(doing).await?;
        transaction
            .execute(
                "UPDATE slackwater.collections SET reload = false WHERE migration = $1 AND collection = ANY($2)",
                &[&migration, &collections],
            )
            .await
            .map_err(fail)?;
        outcome.write(&transaction, &migration).await.map_err(fail)?;
        transaction.commit().await.map_err(fail)
    }

    /// Takes the lists of row keys away, unless a recopy needs them. For a moment in which nobody writes.
    pub async fn forget_seen(&mut self) -> Result<()> {
        let doing = "tidying up after a reload";
        let fail = |error: tokio_postgres::Error| explain(doing, &error);
        let (transaction, migration) = self.owned(doing).await?;
        let lists = transaction
            .query(
                "SELECT s.id FROM slackwater.seen s WHERE s.migration = $1 AND NOT EXISTS (
                     SELECT FROM slackwater.collections c WHERE c.migration = $1 AND c.reload)",
                &[&migration],
            )
            .await
            .map_err(fail)?;
        for list in &lists {
            let id: i32 = list.try_get(0).map_err(fail)?;
            let sql = format!("DROP TABLE IF EXISTS slackwater.seen_{id}");
            transaction.batch_execute(&sql).await.map_err(fail)?;
        }
        transaction.commit().await.map_err(fail)
    }
}

/// The list of row keys seen, logged like any table: one that a crash empties would have the sweep delete everything.
async fn start_seen(
    transaction: &Transaction<'_>,
    migration: &str,
    table: &SeenTable,
) -> std::result::Result<(), tokio_postgres::Error> {
    drop_seen(transaction, migration, table).await?;
    // The id stays the table's own for good, so that writers who have prepared a statement find the new list.
    let id: i32 = transaction
        .query_one(
            "INSERT INTO slackwater.seen (migration, schema_name, table_name) VALUES ($1, $2, $3)
             ON CONFLICT (migration, schema_name, table_name) DO UPDATE SET table_name = EXCLUDED.table_name
             RETURNING id",
            &[&migration, &table.schema, &table.name],
        )
        .await?
        .try_get(0)?;
    let key: Vec<String> = table.key.iter().map(|name| quote(name)).collect();
    let key = key.join(", ");
    let sql = format!(
        "CREATE TABLE slackwater.seen_{id} AS SELECT {key} FROM {}.{} WITH NO DATA;
         ALTER TABLE slackwater.seen_{id} ADD PRIMARY KEY ({key})",
        quote(&table.schema),
        quote(&table.name)
    );
    transaction.batch_execute(&sql).await
}

async fn drop_seen(
    transaction: &Transaction<'_>,
    migration: &str,
    table: &SeenTable,
) -> std::result::Result<(), tokio_postgres::Error> {
    let row = transaction
        .query_opt(
            "SELECT id FROM slackwater.seen WHERE migration = $1 AND schema_name = $2 AND table_name = $3",
            &[&migration, &table.schema, &table.name],
        )
        .await?;
    let Some(row) = row else { return Ok(()) };
    let id: i32 = row.try_get(0)?;
    transaction.batch_execute(&format!("DROP TABLE IF EXISTS slackwater.seen_{id}")).await
}
