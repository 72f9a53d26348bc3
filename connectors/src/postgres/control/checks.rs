//! What the checks of the migration file have last said.
//!
//! **Invariant**: a check that begins to fail is noted as an incident in the same transaction, once.

use tokio_postgres::Row;

use super::Control;
use super::doing::Doing as _;
use super::ledger::Incident;
use crate::error::Result;

/// Advisory locks of whoever runs the scheduled checks of a migration.
const LOCK: i32 = 1_398_206_262;

/// The state of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckRow {
    /// Its name in the migration file.
    pub name: String,
    /// Of the last run: `holds`, `fails`, `unsettled` or `cannot_run`.
    pub verdict: String,
    /// What it says.
    pub text: String,
    /// When the last run began, milliseconds since 1970.
    pub ran_at: i64,
    /// When the last one began that came to a verdict.
    pub settled_at: Option<i64>,
    /// What that one said; `None` if there was none.
    pub failing: Option<bool>,
    /// Since when that is so.
    pub since: i64,
}

/// What a run of a check has said.
#[derive(Clone, Copy, Debug)]
pub struct CheckSaid<'a> {
    /// The check.
    pub name: &'a str,
    /// As in [`CheckRow`].
    pub verdict: &'a str,
    /// Likewise; it holds no value of a document or a row.
    pub text: &'a str,
    /// When it began, milliseconds since 1970, by the server's clock.
    pub ran_at: i64,
    /// `None` if it came to no verdict.
    pub failing: Option<bool>,
    /// The kind of the incident, if it begins to fail.
    pub incident: &'a str,
}

impl Control {
    /// The state of all checks that have run.
    pub async fn checks(&self, migration: &str) -> Result<Vec<CheckRow>> {
        let sql = "SELECT name, verdict, text, (extract(epoch FROM ran_at) * 1000)::bigint, \
                   (extract(epoch FROM settled_at) * 1000)::bigint, failing, (extract(epoch FROM since) * 1000)::bigint \
                   FROM slackwater.checks WHERE migration = $1 ORDER BY name";
        let read = |row: &Row| {
            Ok(CheckRow {
                name: row.try_get(0)?,
                verdict: row.try_get(1)?,
                text: row.try_get(2)?,
                ran_at: row.try_get(3)?,
                settled_at: row.try_get(4)?,
                failing: row.try_get(5)?,
                since: row.try_get(6)?,
            })
        };
        self.rows("reading what checks have said", sql, &[&migration], read).await
    }

    /// Keeps what a check has said. True if it begins to fail with that.
    pub async fn keep_check(&mut self, migration: &str, said: CheckSaid<'_>) -> Result<bool> {
        let doing = "keeping what a check has said";
        let transaction = self.client.transaction().await.doing(doing)?;
        let before = "SELECT failing FROM slackwater.checks WHERE migration = $1 AND name = $2 FOR UPDATE";
        let before = transaction.query_opt(before, &[&migration, &said.name]).await.doing(doing)?;
        let before: Option<bool> = match before {
            Some(row) => row.try_get(0).doing(doing)?,
            None => None,
        };
        let sql = "INSERT INTO slackwater.checks AS c (migration, name, verdict, text, ran_at, settled_at, failing)
             SELECT $1, $2, $3, $4, t.at, CASE WHEN $6::bool IS NULL THEN NULL ELSE t.at END, $6
             FROM (SELECT to_timestamp(0) + $5::bigint * interval '1 ms' AS at) AS t
             ON CONFLICT (migration, name) DO UPDATE SET
                 verdict = EXCLUDED.verdict, text = EXCLUDED.text, ran_at = EXCLUDED.ran_at,
                 settled_at = coalesce(EXCLUDED.settled_at, c.settled_at),
                 since = CASE WHEN EXCLUDED.failing <> c.failing OR c.failing IS NULL THEN now() ELSE c.since END,
                 failing = coalesce(EXCLUDED.failing, c.failing)";
        let CheckSaid { name, verdict, text, ran_at, failing, incident } = said;
        let values: [&(dyn postgres_types::ToSql + Sync); 6] =
            [&migration, &name, &verdict, &text, &ran_at, &failing];
        transaction.execute(sql, &values).await.doing(doing)?;
        let begins = failing == Some(true) && before != Some(true);
        if begins {
            let text = format!("the check `{name}` fails: {text}");
            let incident = Incident { kind: incident, collection: None, text: &text };
            incident.write(&transaction, migration).await.doing(doing)?;
        }
        transaction.commit().await.doing(doing)?;
        Ok(begins)
    }

    /// Holds the scheduled checks as long as this connection lives, or until they are let go; false if another process does.
    pub async fn hold_checks(&self, migration: &str) -> Result<bool> {
        let sql = "SELECT pg_try_advisory_lock($1, hashtext($2))";
        let held = self.rows("holding the checks", sql, &[&LOCK, &migration], |row| row.try_get(0)).await?;
        Ok(held.first() == Some(&true))
    }

    /// Lets them go.
    pub async fn let_checks_go(&self, migration: &str) -> Result<()> {
        let sql = "SELECT pg_advisory_unlock($1, hashtext($2))";
        let gone: Result<Vec<bool>> =
            self.rows("letting the checks go", sql, &[&LOCK, &migration], |row| row.try_get(0)).await;
        gone.map(drop)
    }
}
