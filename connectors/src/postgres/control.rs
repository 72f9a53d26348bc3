//! What is known about a migration beside its rows: who owns it, what is copied, what failed, what happened.
//!
//! **Invariant**: only the owner of the newest epoch changes anything. Each change is one transaction that first holds
//! the migration's row at our epoch (`slackwater.guard`); [`Control::take_over`] waits for whoever holds it, so no change
//! of an old owner lands after the new one has begun.
//!
//! **Crash**: each call is whole or not at all, and can be made again.

use slackwater_topics::{ClusterTime, Position};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Row, Transaction};
use uuid::Uuid;

use super::client::connect;
use super::error::explain;
use super::progress::{Bounds, Progress};
use super::schema;
use super::sink::progress_of;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// One connection to our own schema.
pub struct Control {
    pub(super) client: Client,
    task: JoinHandle<()>,
    owner: Option<(String, i64)>,
}

/// What a take-over found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// The new epoch.
    pub epoch: i64,
    /// Nobody had run this migration before.
    pub first_run: bool,
    /// The migration file's hash of the run before.
    pub previous_file_hash: Option<String>,
}

/// A lane of the log.
#[derive(Clone, Debug)]
pub struct LaneRow {
    /// Its name.
    pub lane: String,
    /// Epoch of its owner.
    pub epoch: i64,
    /// Where it stands.
    pub progress: Progress,
    /// Milliseconds since its last transaction, by the server's clock.
    pub idle_ms: i64,
}

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
    /// It is being copied over rows that stand there already.
    pub reload: bool,
    /// Milliseconds since 1970.
    pub started_at: Option<i64>,
    /// Milliseconds since 1970.
    pub finished_at: Option<i64>,
}

/// A chunk that is still to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// Its id, for [`super::progress::ChunkDone`].
    pub id: i64,
    /// Its collection.
    pub collection: String,
    /// The copy it belongs to.
    pub generation: i32,
    /// From this key on (canonical bytes); `None` is the beginning.
    pub lo: Option<Vec<u8>>,
    /// Up to this key; `None` is the end.
    pub hi: Option<Vec<u8>>,
    /// How often its reading was begun.
    pub reads: i32,
}

/// A table whose rows are noted while its collections are reloaded.
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
    /// Connects, and makes the schema or brings it up to date.
    pub async fn open(url: &Secret) -> Result<Self> {
        let (mut client, task) = connect(url).await?;
        schema::prepare(&mut client).await?;
        Ok(Self { client, task, owner: None })
    }

    /// Connects to look, never to change anything. `None` where slackwater has never run.
    pub async fn peek(url: &Secret) -> Result<Option<Self>> {
        let (client, task) = connect(url).await?;
        client
            .batch_execute("SET default_transaction_read_only = on")
            .await
            .map_err(|error| explain("preparing to look", &error))?;
        match schema::version(&client).await? {
            None => Ok(None),
            Some(version) if schema::is_current(version) => Ok(Some(Self { client, task, owner: None })),
            Some(version) => Err(Error::new(
                Kind::Unsuitable,
                "reading the schema slackwater",
                format!(
                    "it has version {version}, older than this program: start a run to bring it up to date"
                ),
            )),
        }
    }

    /// True while the connection stands.
    pub fn is_connected(&self) -> bool {
        !self.client.is_closed()
    }

    /// Becomes the owner of a migration and of all its lanes, in one transaction. Waits for a transaction that an old
    /// owner has under way; its next one fails. A namespace other than the stored one is refused: every
    /// identifier in the target was made with it.
    pub async fn take_over(
        &mut self,
        migration: &str,
        file_hash: &str,
        namespace: Uuid,
        lanes: &[&str],
    ) -> Result<Takeover> {
        let doing = format!("taking over migration {migration}");
        let fail = |error: tokio_postgres::Error| explain(doing.clone(), &error);
        let namespace = namespace.to_string();
        let transaction = self.client.transaction().await.map_err(fail)?;
        // Longer than the server lets a frozen owner keep its transaction.
        transaction.batch_execute("SET LOCAL lock_timeout = '90s'").await.map_err(fail)?;
        let made = transaction
            .execute(
                "INSERT INTO slackwater.migrations (name, file_hash, namespace, epoch)
                 VALUES ($1, $2, $3::text::uuid, 0) ON CONFLICT DO NOTHING",
                &[&migration, &file_hash, &namespace],
            )
            .await
            .map_err(fail)?;
        let first_run = made == 1;
        let before = transaction
            .query_one(
                "SELECT file_hash, namespace::text FROM slackwater.migrations WHERE name = $1 FOR UPDATE",
                &[&migration],
            )
            .await
            .map_err(fail)?;
        if before.try_get::<_, String>(1).map_err(fail)? != namespace {
            return Err(Error::new(
                Kind::Unsuitable,
                doing,
                "its rows were made with another namespace of identifiers: put the old one back into the migration \
                 file, or give the migration a new name",
            ));
        }
        let epoch: i64 = transaction
            .query_one(
                "UPDATE slackwater.migrations SET epoch = epoch + 1, file_hash = $2, started_at = now()
                 WHERE name = $1 RETURNING epoch",
                &[&migration, &file_hash],
            )
            .await
            .and_then(|row| row.try_get(0))
            .map_err(fail)?;
        transaction
            .execute(
                "INSERT INTO slackwater.lanes (migration, lane, epoch)
                 SELECT $1, l, $3 FROM unnest($2::text[]) AS l ON CONFLICT DO NOTHING",
                &[&migration, &lanes, &epoch],
            )
            .await
            .map_err(fail)?;
        transaction
            .execute("UPDATE slackwater.lanes SET epoch = $2 WHERE migration = $1", &[&migration, &epoch])
            .await
            .map_err(fail)?;
        transaction.commit().await.map_err(fail)?;
        self.owner = Some((migration.to_owned(), epoch));
        let hash: String = before.try_get(0).map_err(fail)?;
        Ok(Takeover { epoch, first_run, previous_file_hash: (!first_run).then_some(hash) })
    }

    /// Acts for an owner that another connection has made (a second process of the same run).
    pub fn act_as(&mut self, migration: &str, epoch: i64) {
        self.owner = Some((migration.to_owned(), epoch));
    }

    /// A transaction that only the owner gets into, and the migration's name.
    pub(super) async fn owned(&mut self, doing: &str) -> Result<(Transaction<'_>, String)> {
        let Some((migration, epoch)) = self.owner.clone() else {
            return Err(Error::new(Kind::Bug, doing, "the migration was not taken over"));
        };
        let fail = |error: tokio_postgres::Error| explain(doing, &error);
        let transaction = self.client.transaction().await.map_err(fail)?;
        transaction.execute("SELECT slackwater.guard($1, $2)", &[&migration, &epoch]).await.map_err(fail)?;
        Ok((transaction, migration))
    }

    /// Names of the migrations that were ever run here.
    pub async fn migrations(&self) -> Result<Vec<String>> {
        self.rows("listing migrations", "SELECT name FROM slackwater.migrations ORDER BY 1", &[], |row| {
            row.try_get(0)
        })
        .await
    }

    /// All lanes.
    pub async fn lanes(&self, migration: &str) -> Result<Vec<LaneRow>> {
        let sql = "SELECT lane, epoch, sequence, position_time, position_token, source_time, applied_through, horizon, \
             events, rows_written, (extract(epoch FROM clock_timestamp() - updated_at) * 1000)::bigint \
             FROM slackwater.lanes WHERE migration = $1 ORDER BY lane";
        self.rows("reading lanes", sql, &[&migration], |row| {
            Ok(LaneRow {
                lane: row.try_get(0)?,
                epoch: row.try_get(1)?,
                progress: progress_of(row, 2)?,
                idle_ms: row.try_get(10)?,
            })
        })
        .await
    }

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

    /// Begins to copy collections anew over the rows that stand there: the next generation, pending, and for each of
    /// their tables an empty list of the rows met.
    pub async fn start_reload(&mut self, collections: &[&str], tables: &[SeenTable]) -> Result<()> {
        let doing = "starting a reload";
        let fail = |error: tokio_postgres::Error| explain(doing, &error);
        let (transaction, migration) = self.owned(doing).await?;
        transaction
            .execute(
                "UPDATE slackwater.collections SET state = 'pending', generation = generation + 1, reload = true,
                     fresh = false, started_at = NULL, finished_at = NULL
                 WHERE migration = $1 AND collection = ANY($2)",
                &[&migration, &collections],
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
        transaction.commit().await.map_err(fail)
    }

    /// Ends a reload after the sweep. The lists of rows met stay: batches on their way still note theirs. They go with
    /// [`Control::forget_seen`].
    pub async fn end_reload(&mut self, collections: &[&str]) -> Result<()> {
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
        transaction.commit().await.map_err(fail)
    }

    /// Takes the lists of rows met away, unless a reload needs them. For a moment in which nobody writes.
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

    /// Saves how far a source was read into a log that has acknowledged it.
    pub async fn save_position(&mut self, source: &str, position: &Position) -> Result<()> {
        let doing = format!("saving the position of {source}");
        let fail = |error: tokio_postgres::Error| explain(doing.clone(), &error);
        let (transaction, migration) = self.owned(&doing).await?;
        transaction
            .execute(
                "INSERT INTO slackwater.positions AS p (migration, source, position_time, position_token)
                 VALUES ($1, $2, $3, $4) ON CONFLICT (migration, source) DO UPDATE SET
                     position_time = EXCLUDED.position_time, position_token = EXCLUDED.position_token, saved_at = now()",
                &[&migration, &source, &(position.time.0 as i64), &position.token.to_vec()],
            )
            .await
            .map_err(fail)?;
        transaction.commit().await.map_err(fail)
    }

    /// How far a source was read.
    pub async fn position(&self, migration: &str, source: &str) -> Result<Option<Position>> {
        let sql = "SELECT position_time, position_token FROM slackwater.positions WHERE migration = $1 AND source = $2";
        let found = self
            .rows("reading a position", sql, &[&migration, &source], |row| {
                let time: i64 = row.try_get(0)?;
                Ok(Position::new(ClusterTime(time as u64), row.try_get::<_, Vec<u8>>(1)?))
            })
            .await?;
        Ok(found.into_iter().next())
    }

    pub(super) async fn rows<T>(
        &self,
        doing: &str,
        sql: &str,
        parameters: &[&(dyn postgres_types::ToSql + Sync)],
        read: impl Fn(&Row) -> std::result::Result<T, tokio_postgres::Error>,
    ) -> Result<Vec<T>> {
        let rows = self.client.query(sql, parameters).await.map_err(|error| explain(doing, &error))?;
        rows.iter().map(|row| read(row).map_err(|error| explain(doing, &error))).collect()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The list of rows met, logged like any table: one that a crash empties would have the sweep delete everything.
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
    let quote = super::statements::quote;
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
