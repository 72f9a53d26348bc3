//! The control store, in the schema `slackwater` of the target: what is known of a migration besides its rows. Who owns it,
//! what is copied, what failed, what happened.
//!
//! **Invariant**: only the newest capture of a source changes what belongs to that source. Each change is one transaction that
//! first locks the capture's row at our epoch (`slackwater.guard`). [`Control::take_over`] waits for that lock, so no change of a
//! superseded capture arrives after the new one has started.
//!
//! **Crash**: each call takes effect as a whole or not at all, and can be repeated.

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Row, Transaction};
use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::postgres::client::connect;
use crate::postgres::error::refused_writes;
use crate::postgres::progress::{Answer, Progress, progress_of};
use crate::secret::Secret;
use crate::source;

pub mod accepted;
pub mod breaches;
pub mod checks;
mod copies;
pub mod cutover;
mod doing;
pub mod followed;
pub mod gone;
pub(in crate::postgres) mod id;
pub mod lanes;
pub mod ledger;
pub mod mapping;
pub mod partitions;
pub mod proofs;
pub mod pulse;
pub mod recopies;
pub mod repairs;
pub mod reports;
pub mod reset;
mod schema;
pub mod sent;
pub mod standing;
pub mod waiting;

pub use copies::{ChunkRow, CollectionRow, CopyState, SeenTable};
use doing::Doing as _;
use id::Id;

/// Longer than the server lets a frozen owner keep its transaction.
pub(super) const WAIT_FOR_OWNER: &str = "SET LOCAL lock_timeout = '90s'";

/// One connection to our own schema.
pub struct Control {
    pub(super) client: Client,
    task: JoinHandle<()>,
    owner: Option<Owner>,
    /// How often writes had been refused when it connected.
    refused: u64,
}

/// The capture of one source, at one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub migration: String,
    pub source: String,
    pub epoch: i64,
}

/// What a capture states when it takes a source over.
#[derive(Clone, Copy, Debug)]
pub struct Taking<'a> {
    pub migration: &'a str,
    pub source: &'a str,
    pub kind: source::Kind,
    pub file_hash: &'a str,
    pub namespace: Uuid,
    /// `direct` or `kafka`.
    pub log: &'a str,
}

/// What a capture found when it took its source over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// This capture, at its new epoch.
    pub owner: Owner,
    /// This source had never been captured.
    pub first_run: bool,
    /// The hash of the migration file at the previous start.
    pub previous_file_hash: Option<String>,
}

/// A lane of the log.
#[derive(Clone, Debug)]
pub struct LaneRow {
    /// Its name, made by [`lanes`].
    pub lane: String,
    /// The source whose capture owns it; `None` for an applier's lane.
    pub source: Option<String>,
    /// The epoch of its owner.
    pub epoch: i64,
    /// How far it is.
    pub progress: Progress,
    /// Milliseconds since its last transaction, by the server's clock.
    pub idle_ms: i64,
}

impl Control {
    /// Connects, and creates the schema or brings it up to date.
    pub async fn open(url: &Secret) -> Result<Self> {
        let refused = refused_writes();
        let (mut client, task) = connect(url).await?;
        schema::prepare(&mut client).await?;
        Ok(Self { client, task, owner: None, refused })
    }

    /// Connects to read. `None` if slackwater has never run here.
    pub async fn peek(url: &Secret) -> Result<Option<Self>> {
        let refused = refused_writes();
        let (client, task) = connect(url).await?;
        match schema::version(&client).await? {
            None => Ok(None),
            Some(version) if schema::is_current(version) => {
                Ok(Some(Self { client, task, owner: None, refused }))
            }
            Some(version) => Err(Error::new(
                Kind::Unsuitable,
                "reading the schema slackwater",
                format!(
                    "it has version {version}, older than this program: start a run to bring it up to date"
                ),
            )),
        }
    }

    /// True while the connection is open, and was not opened when no writes were allowed.
    pub fn is_connected(&self) -> bool {
        !self.client.is_closed() && self.refused == refused_writes()
    }

    /// Becomes the capture of a source and the owner of that source's lanes, in one transaction. Appliers take their lanes one
    /// by one ([`Control::take_lane`]). Waits for a running transaction of an older capture; that capture's next one fails.
    /// Refuses a namespace other than the stored one, because every id in the target was made with it; and another log
    /// (`direct` or `kafka`), because the progress of each is stored elsewhere.
    pub async fn take_over(&mut self, taking: Taking<'_>, lanes: &[&str]) -> Result<Takeover> {
        let Taking { migration, source, file_hash, namespace, log, .. } = taking;
        let doing = format!("taking over source {source} of migration {migration}");
        let transaction = self.client.transaction().await.doing(&doing)?;
        transaction.batch_execute(WAIT_FOR_OWNER).await.doing(&doing)?;
        let made = transaction
            .execute(
                "INSERT INTO slackwater.migrations (name, file_hash, namespace, epoch, log)
                 VALUES ($1, $2, $3, 0, $4) ON CONFLICT DO NOTHING",
                &[&migration, &file_hash, &Id(namespace), &log],
            )
            .await
            .doing(&doing)?;
        let first_start = made == 1;
        let before = transaction
            .query_one(
                "SELECT file_hash, namespace, log FROM slackwater.migrations WHERE name = $1 FOR UPDATE",
                &[&migration],
            )
            .await
            .doing(&doing)?;
        let stored: (Id, String) = (before.try_get(1).doing(&doing)?, before.try_get(2).doing(&doing)?);
        must_match(&doing, (stored.0.0, &stored.1), (namespace, log))?;
        unless_switched(&transaction, migration).await.doing(&doing)?;
        transaction
            .execute(
                "UPDATE slackwater.migrations SET file_hash = $2, started_at = now() WHERE name = $1",
                &[&migration, &file_hash],
            )
            .await
            .doing(&doing)?;
        let epoch = take_source(&transaction, &taking, lanes).await.doing(&doing)?;
        transaction.commit().await.doing(&doing)?;
        let owner = Owner { migration: migration.to_owned(), source: source.to_owned(), epoch };
        self.owner = Some(owner.clone());
        let hash: String = before.try_get(0).doing(&doing)?;
        // A source that is new in the file begins, whatever the others have done before.
        let first_run = epoch == 1;
        Ok(Takeover { owner, first_run, previous_file_hash: (!first_start).then_some(hash) })
    }

    /// Acts for a capture that took its source over on another connection.
    pub fn act_as(&mut self, owner: &Owner) {
        self.owner = Some(owner.clone());
    }

    /// The capture that we act for.
    pub(super) fn owner(&self, doing: &str) -> Result<Owner> {
        self.owner.clone().ok_or_else(|| Error::new(Kind::Bug, doing, "no source was taken over"))
    }

    /// Starts a transaction that only the newest capture of our source can start; gives it and the migration's name.
    pub(super) async fn owned(&mut self, doing: &str) -> Result<(Transaction<'_>, String)> {
        let Owner { migration, source, epoch } = self.owner(doing)?;
        let transaction = self.client.transaction().await.doing(doing)?;
        transaction
            .execute("SELECT slackwater.guard($1, $2, $3)", &[&migration, &source, &epoch])
            .await
            .doing(doing)?;
        Ok((transaction, migration))
    }

    /// All lanes.
    pub async fn lanes(&self, migration: &str) -> Result<Vec<LaneRow>> {
        let sql = "SELECT lane, source, epoch, sequence, position_time, position_token, source_time, applied_through, horizon, \
             events, rows_written, as_of, (extract(epoch FROM clock_timestamp() - updated_at) * 1000)::bigint \
             FROM slackwater.lanes WHERE migration = $1 ORDER BY lane";
        self.rows("reading lanes", sql, &[&migration], |row| {
            Ok(LaneRow {
                lane: row.try_get(0)?,
                source: row.try_get(1)?,
                epoch: row.try_get(2)?,
                progress: progress_of(row, 3)?,
                idle_ms: row.try_get(12)?,
            })
        })
        .await
    }

    pub(super) async fn rows<T>(
        &self,
        doing: &str,
        sql: &str,
        parameters: &[&(dyn postgres_types::ToSql + Sync)],
        read: impl Fn(&Row) -> Answer<T>,
    ) -> Result<Vec<T>> {
        let rows = self.client.query(sql, parameters).await.doing(doing)?;
        rows.iter().map(|row| read(row).doing(doing)).collect()
    }
}

/// Raises the epoch of a source's capture, and gives it the lanes, in the transaction of a take-over.
async fn take_source(transaction: &Transaction<'_>, taking: &Taking<'_>, lanes: &[&str]) -> Answer<i64> {
    let Taking { migration, source, kind, .. } = taking;
    let epoch: i64 = transaction
        .query_one(
            "INSERT INTO slackwater.captures AS c (migration, source, kind, epoch)
             SELECT name, $2, $3, epoch + 1 FROM slackwater.migrations WHERE name = $1
             ON CONFLICT (migration, source) DO UPDATE SET
                 epoch = c.epoch + 1, kind = EXCLUDED.kind, started_at = now()
             RETURNING epoch",
            &[&migration, &source, &kind.word()],
        )
        .await
        .and_then(|row| row.try_get(0))?;
    transaction
        .execute(
            // Lanes without a source are from a version in which a migration had only one source: the one whose collections there are.
            "UPDATE slackwater.lanes SET source = $2,
                 lane = 'capture/' || $2 || CASE WHEN lane = 'capture' THEN '' ELSE '/' || lane END
             WHERE migration = $1 AND source IS NULL AND lane NOT LIKE 'apply/%' AND EXISTS (
                 SELECT FROM slackwater.collections
                 WHERE migration = $1 AND left(collection, length($2) + 1) = $2 || '.')",
            &[&migration, &source],
        )
        .await?;
    transaction
        .execute(
            "INSERT INTO slackwater.lanes (migration, source, lane, epoch)
             SELECT $1, $2, l, $4 FROM unnest($3::text[]) AS l ON CONFLICT DO NOTHING",
            &[&migration, &source, &lanes, &epoch],
        )
        .await?;
    transaction
        .execute(
            "UPDATE slackwater.lanes SET epoch = $3 WHERE migration = $1 AND source = $2",
            &[&migration, &source, &epoch],
        )
        .await?;
    Ok(epoch)
}

/// Refuses a migration whose target is open. Call it while the rows are locked whose epochs the cutover raises.
pub(super) async fn unless_switched(transaction: &Transaction<'_>, migration: &str) -> Answer<()> {
    transaction.execute("SELECT slackwater.unless_switched($1)", &[&migration]).await.map(drop)
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Refuses a namespace and a log other than those that the migration was started with.
pub(super) fn must_match(doing: &str, stored: (Uuid, &str), given: (Uuid, &str)) -> Result<()> {
    let what = if stored.0 != given.0 {
        "its rows were made with another namespace of ids: put the old one back into the migration file, or give the \
         migration a new name"
            .to_owned()
    } else if stored.1 != given.1 {
        format!(
            "it was started with `log: {}`, not with `log: {}`: put that back into the migration file, or give the \
             migration a new name, which starts it from the beginning",
            stored.1, given.1
        )
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Unsuitable, doing, what))
}
