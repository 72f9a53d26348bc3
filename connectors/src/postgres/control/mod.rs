//! What is known about a migration beside its rows: who owns it, what is copied, what failed, what happened.
//!
//! **Invariant**: only the owner of the newest epoch changes anything. Each change is one transaction that first holds
//! the migration's row at our epoch (`slackwater.guard`); [`Control::take_over`] waits for whoever holds it, so no change
//! of an old owner lands after the new one has begun.
//!
//! **Crash**: each call is whole or not at all, and can be made again.

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Row, Transaction};
use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::postgres::client::connect;
use crate::postgres::error::explain;
use crate::postgres::progress::{Progress, progress_of};
use crate::secret::Secret;

mod copies;
pub mod cutover;
pub mod ledger;
pub mod partitions;
pub mod pulse;
mod schema;

pub use copies::{ChunkRow, CollectionRow, CopyState, SeenTable};

/// Longer than the server lets a frozen owner keep its transaction.
pub(super) const WAIT_FOR_OWNER: &str = "SET LOCAL lock_timeout = '90s'";

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

    /// Becomes the owner of a migration and of all its lanes but those of appliers, which are taken one by one
    /// ([`Control::take_lane`]); in one transaction. Waits for a transaction that an old owner has under way; its next
    /// one fails. A namespace other than the stored one is refused: every identifier in the target was made with it. So
    /// is another `log` (`direct` or `kafka`): the progress stands elsewhere.
    pub async fn take_over(
        &mut self,
        migration: &str,
        file_hash: &str,
        namespace: Uuid,
        log: &str,
        lanes: &[&str],
    ) -> Result<Takeover> {
        let doing = format!("taking over migration {migration}");
        let fail = |error: tokio_postgres::Error| explain(doing.clone(), &error);
        let namespace = namespace.to_string();
        let transaction = self.client.transaction().await.map_err(fail)?;
        transaction.batch_execute(WAIT_FOR_OWNER).await.map_err(fail)?;
        let made = transaction
            .execute(
                "INSERT INTO slackwater.migrations (name, file_hash, namespace, epoch, log)
                 VALUES ($1, $2, $3::text::uuid, 0, $4) ON CONFLICT DO NOTHING",
                &[&migration, &file_hash, &namespace, &log],
            )
            .await
            .map_err(fail)?;
        let first_run = made == 1;
        let before = transaction
            .query_one(
                "SELECT file_hash, namespace::text, log FROM slackwater.migrations WHERE name = $1 FOR UPDATE",
                &[&migration],
            )
            .await
            .map_err(fail)?;
        let stored: (String, String) = (before.try_get(1).map_err(fail)?, before.try_get(2).map_err(fail)?);
        suits(&doing, (&stored.0, &stored.1), (&namespace, log))?;
        unless_switched(&transaction, migration).await.map_err(fail)?;
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
            .execute(
                "UPDATE slackwater.lanes SET epoch = $2 WHERE migration = $1 AND lane NOT LIKE 'apply/%'",
                &[&migration, &epoch],
            )
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

    /// The migration and our epoch.
    pub(super) fn owner(&self, doing: &str) -> Result<(String, i64)> {
        self.owner.clone().ok_or_else(|| Error::new(Kind::Bug, doing, "the migration was not taken over"))
    }

    /// A transaction that only the owner gets into, and the migration's name.
    pub(super) async fn owned(&mut self, doing: &str) -> Result<(Transaction<'_>, String)> {
        let (migration, epoch) = self.owner(doing)?;
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
             events, rows_written, as_of, (extract(epoch FROM clock_timestamp() - updated_at) * 1000)::bigint \
             FROM slackwater.lanes WHERE migration = $1 ORDER BY lane";
        self.rows("reading lanes", sql, &[&migration], |row| {
            Ok(LaneRow {
                lane: row.try_get(0)?,
                epoch: row.try_get(1)?,
                progress: progress_of(row, 2)?,
                idle_ms: row.try_get(11)?,
            })
        })
        .await
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

/// Refuses a migration that was switched. To be asked when the rows are held that the switch makes newer.
pub(super) async fn unless_switched(
    transaction: &Transaction<'_>,
    migration: &str,
) -> std::result::Result<(), tokio_postgres::Error> {
    transaction.execute("SELECT slackwater.unless_switched($1)", &[&migration]).await.map(drop)
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Refuses a stored migration (its namespace, its log) to one who comes with another.
pub(super) fn suits(doing: &str, stored: (&str, &str), given: (&str, &str)) -> Result<()> {
    let what = if stored.0 != given.0 {
        "its rows were made with another namespace of identifiers: put the old one back into the migration file, or \
         give the migration a new name"
            .to_owned()
    } else if stored.1 != given.1 {
        format!(
            "it was begun with `log: {}`, not with `log: {}`: put that back into the migration file, or give the \
             migration a new name, with which it starts anew",
            stored.1, given.1
        )
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Unsuitable, doing, what))
}
