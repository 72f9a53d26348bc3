//! The copy: collections, their chunks, and the lists of row keys that a recopy has seen.

use tokio_postgres::Transaction;

use super::doing::Doing as _;
use super::ledger::Incident;
use super::partitions::{self, Skip};
use super::{Control, Owner};
use crate::error::Result;
use crate::postgres::progress::{Answer, Bounds, ChunkDone, count_of};
use crate::postgres::target::statements::quote;

/// How far the copy of a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// Not started.
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
    /// The number of the copy: each recopy adds one.
    pub generation: i32,
    /// The source's estimate of its documents.
    pub documents_estimate: u64,
    /// Documents in finished chunks.
    pub documents_copied: u64,
    /// Chunks of this generation.
    pub chunks_total: u64,
    /// Finished chunks of this generation.
    pub chunks_done: u64,
    /// Its tables were empty when the copy started, so COPY may be used.
    pub fresh: bool,
    /// It is being recopied, over existing rows.
    pub reload: bool,
    /// Milliseconds since 1970.
    pub started_at: Option<i64>,
    /// Milliseconds since 1970.
    pub finished_at: Option<i64>,
}

/// A chunk that has not been copied yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// Its id, for [`ChunkDone`].
    pub id: i64,
    /// Its collection.
    pub collection: String,
    /// The copy it belongs to.
    pub generation: i32,
    /// Its lower bound (see [`slackwater_topics::Bound`]); `None` is the beginning of the collection.
    pub lo: Option<Vec<u8>>,
    /// Its upper bound; `None` is the end of the collection.
    pub hi: Option<Vec<u8>>,
    /// How often a read of it was started.
    pub reads: i32,
}

/// A table whose row keys are listed while its collections are recopied.
#[derive(Clone, Debug)]
pub struct SeenTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The names of its key columns.
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
    /// All collections whose copy was planned.
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
                documents_estimate: count_of(row, 3)?,
                documents_copied: count_of(row, 4)?,
                chunks_total: count_of(row, 5)?,
                chunks_done: count_of(row, 6)?,
                fresh: row.try_get(7)?,
                reload: row.try_get(8)?,
                started_at: row.try_get(9)?,
                finished_at: row.try_get(10)?,
            })
        })
        .await
    }

    /// The open chunks of every collection's current generation.
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

    /// Starts the copy of a collection: all of its chunks are stored, or none. Does nothing if this generation is already
    /// planned, so the call can be repeated when its answer was lost.
    pub async fn plan_chunks(
        &mut self,
        collection: &str,
        generation: i32,
        bounds: &[Bounds],
        estimate: u64,
        fresh: bool,
    ) -> Result<()> {
        let doing = format!("planning the copy of {collection}");
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
            .doing(&doing)?;
        if planned == 1 {
            let lower: Vec<Option<&[u8]>> = bounds.iter().map(|(lo, _)| lo.as_deref()).collect();
            let upper: Vec<Option<&[u8]>> = bounds.iter().map(|(_, hi)| hi.as_deref()).collect();
            transaction
                .execute(
                    "DELETE FROM slackwater.chunks WHERE migration = $1 AND collection = $2",
                    &[&migration, &collection],
                )
                .await
                .doing(&doing)?;
            transaction
                .execute(
                    "INSERT INTO slackwater.chunks (migration, collection, generation, lo, hi)
                     SELECT $1, $2, $3, b.lo, b.hi
                     FROM unnest($4::bytea[], $5::bytea[]) WITH ORDINALITY AS b(lo, hi, place) ORDER BY b.place",
                    &[&migration, &collection, &generation, &lower, &upper],
                )
                .await
                .doing(&doing)?;
        }
        transaction.commit().await.doing(&doing)
    }

    /// Counts a read of a chunk that is about to start, and returns how many were started, this one included. 0: the chunk
    /// is no longer open.
    pub async fn note_read(&mut self, chunk: i64) -> Result<i32> {
        let doing = "noting that a chunk is read";
        let (transaction, migration) = self.owned(doing).await?;
        let row = transaction
            .query_opt(
                "UPDATE slackwater.chunks SET reads = reads + 1
                 WHERE id = $1 AND migration = $2 AND NOT done RETURNING reads",
                &[&chunk, &migration],
            )
            .await
            .doing(doing)?;
        transaction.commit().await.doing(doing)?;
        row.map_or(Ok(0), |row| row.try_get(0).doing(doing))
    }

    /// Marks a chunk as done that was copied through Kafka and whose records are all acknowledged. (In a direct log the
    /// lane's own transaction marks it.) Does nothing if the chunk is gone or already done: either its collection is being
    /// recopied, or the answer to the first call was lost.
    pub async fn finish_chunk(&mut self, chunk: &ChunkDone) -> Result<()> {
        let doing = format!("finishing a chunk of {}", chunk.collection);
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
            .doing(&doing)?;
        transaction.commit().await.doing(&doing)
    }

    /// Marks the copy of a collection as complete. False while a chunk is open, or if another generation has started.
    pub async fn finish_collection(&mut self, collection: &str, generation: i32) -> Result<bool> {
        let doing = format!("finishing the copy of {collection}");
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
            .doing(&doing)?;
        transaction.commit().await.doing(&doing)?;
        Ok(finished == 1)
    }

    /// Starts to recopy collections over their existing rows: each collection is pending in a new generation, and each of
    /// their tables gets an empty list of row keys. With Kafka, `skip` holds where the partitions of their topics end now:
    /// no record before that is applied afterwards. `why` becomes an incident. The call can be repeated when its answer was
    /// lost.
    pub async fn start_reload(
        &mut self,
        collections: &[(&str, i32)],
        tables: &[SeenTable],
        skip: &[Skip],
        why: Incident<'_>,
    ) -> Result<()> {
        let doing = "starting a recopy";
        let owner = self.owner(doing)?;
        let (transaction, _) = self.owned(doing).await?;
        let migration = &owner.migration;
        // Before the lists of row keys: an applier locks its partitions before it notes a key, so everyone uses this order.
        partitions::skip_partitions(&transaction, doing, &owner, skip).await?;
        let (collections, generations): (Vec<&str>, Vec<i32>) = collections.iter().copied().unzip();
        transaction
            .execute(
                // One that nobody has planned yet has no row.
                "INSERT INTO slackwater.collections (migration, collection, state, generation, reload)
                 SELECT $1, n.collection, 'pending', n.generation, true
                 FROM unnest($2::text[], $3::int[]) AS n(collection, generation)
                 ON CONFLICT (migration, collection) DO UPDATE SET state = 'pending', generation = EXCLUDED.generation,
                     reload = true, fresh = false, started_at = NULL, finished_at = NULL",
                &[&migration, &collections, &generations],
            )
            .await
            .doing(doing)?;
        transaction
            .execute(
                "DELETE FROM slackwater.chunks WHERE migration = $1 AND collection = ANY($2)",
                &[&migration, &collections],
            )
            .await
            .doing(doing)?;
        for table in tables {
            start_seen(&transaction, &owner, table).await.doing(doing)?;
        }
        why.write(&transaction, migration).await.doing(doing)?;
        transaction.commit().await.doing(doing)
    }

    /// Ends a recopy after the sweep. The lists of row keys stay, because batches that are on their way still note keys.
    /// [`Control::forget_seen`] drops them.
    pub async fn end_reload(&mut self, collections: &[&str], outcome: Incident<'_>) -> Result<()> {
        let doing = "ending a recopy";
        let (transaction, migration) = self.owned(doing).await?;
        transaction
            .execute(
                "UPDATE slackwater.collections SET reload = false WHERE migration = $1 AND collection = ANY($2)",
                &[&migration, &collections],
            )
            .await
            .doing(doing)?;
        outcome.write(&transaction, &migration).await.doing(doing)?;
        transaction.commit().await.doing(doing)
    }

    /// Drops the lists of row keys, unless a recopy needs them. Call it when nobody writes.
    pub async fn forget_seen(&mut self) -> Result<()> {
        let doing = "tidying up after a recopy";
        let (transaction, migration) = self.owned(doing).await?;
        let lists = transaction
            .query(
                "SELECT s.id FROM slackwater.seen s WHERE s.migration = $1 AND NOT EXISTS (
                     SELECT FROM slackwater.collections c WHERE c.migration = $1 AND c.reload)",
                &[&migration],
            )
            .await
            .doing(doing)?;
        for list in &lists {
            let id: i32 = list.try_get(0).doing(doing)?;
            let sql = format!("DROP TABLE IF EXISTS slackwater.seen_{id}");
            transaction.batch_execute(&sql).await.doing(doing)?;
        }
        transaction.commit().await.doing(doing)
    }
}

/// Makes an empty list of row keys of our source. It is a logged table: if a crash emptied it, the sweep would delete every row.
async fn start_seen(transaction: &Transaction<'_>, owner: &Owner, table: &SeenTable) -> Answer<()> {
    drop_seen(transaction, owner, table).await?;
    // A table keeps its id for good, so that prepared statements of writers find the new list.
    let id: i32 = transaction
        .query_one(
            "INSERT INTO slackwater.seen (migration, schema_name, table_name, source) VALUES ($1, $2, $3, $4)
             ON CONFLICT (migration, schema_name, table_name, source) DO UPDATE SET table_name = EXCLUDED.table_name
             RETURNING id",
            &[&owner.migration, &table.schema, &table.name, &owner.source],
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

async fn drop_seen(transaction: &Transaction<'_>, owner: &Owner, table: &SeenTable) -> Answer<()> {
    let row = transaction
        .query_opt(
            "SELECT id FROM slackwater.seen WHERE migration = $1 AND schema_name = $2 AND table_name = $3 AND source = $4",
            &[&owner.migration, &table.schema, &table.name, &owner.source],
        )
        .await?;
    let Some(row) = row else { return Ok(()) };
    let id: i32 = row.try_get(0)?;
    transaction.batch_execute(&format!("DROP TABLE IF EXISTS slackwater.seen_{id}")).await
}
