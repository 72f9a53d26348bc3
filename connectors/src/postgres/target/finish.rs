//! What the switch asks of the target beside its rows: counts, the team's own SQL, sequences.

use std::collections::HashSet;

use tokio::task::JoinHandle;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::error::Result;
use crate::postgres::client::connect;
use crate::postgres::error::{LATE, explain};
use crate::postgres::target::statements::quote;
use crate::secret::Secret;

/// A sequence that feeds a column of a table that is migrated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// With its schema, quoted.
    pub sequence: String,
    /// The table, with its schema, quoted.
    pub table: String,
    /// The column, quoted.
    pub column: String,
    /// For people.
    pub name: String,
}

/// One connection for such questions.
pub struct Finisher {
    pub(super) client: Client,
    task: JoinHandle<()>,
    pid: i32,
}

impl Finisher {
    /// Connects. The team's SQL finds names as the role's own settings say, and `public` where they say nothing.
    pub async fn open(url: &Secret, schema: &str) -> Result<Self> {
        let (client, task) = connect(url).await?;
        let path = format!("SET search_path = {}, public; SET statement_timeout = 0", quote(schema));
        let fail = |error: tokio_postgres::Error| explain("preparing the connection", &error);
        client.batch_execute(&path).await.map_err(fail)?;
        // From version 14 on a server can notice that we are gone while a statement of the team's waits for a lock, and give back what it holds.
        let notice =
            "SELECT pg_backend_pid(), (SELECT set_config(name, '1s', false) FROM pg_catalog.pg_settings
                                                WHERE name = 'client_connection_check_interval')";
        let pid = client.query_one(notice, &[]).await.and_then(|row| row.try_get(0)).map_err(fail)?;
        Ok(Self { client, task, pid })
    }

    /// How many rows a table has.
    pub async fn count(&self, schema: &str, table: &str) -> Result<u64> {
        let sql = format!("SELECT count(*) FROM {}.{}", quote(schema), quote(table));
        let fail = |error: tokio_postgres::Error| explain(format!("counting {schema}.{table}"), &error);
        let count: i64 =
            self.client.query_one(&sql, &[]).await.and_then(|row| row.try_get(0)).map_err(fail)?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// These columns of all rows as text, in the order of the key; null is empty.
    pub async fn texts(
        &self,
        schema: &str,
        table: &str,
        columns: &[&str],
        key: &[&str],
    ) -> Result<Vec<Vec<String>>> {
        let fail = |error: tokio_postgres::Error| explain(format!("reading {schema}.{table}"), &error);
        let text = |name: &&str| format!("coalesce({}::text, '')", quote(name));
        let order: Vec<String> = key.iter().map(|name| quote(name)).collect();
        let sql = format!(
            "SELECT {} FROM {}.{} ORDER BY {}",
            columns.iter().map(text).collect::<Vec<_>>().join(", "),
            quote(schema),
            quote(table),
            order.join(", ")
        );
        let rows = self.client.query(&sql, &[]).await.map_err(fail)?;
        rows.iter()
            .map(|row| (0..columns.len()).map(|at| row.try_get(at)).collect())
            .collect::<std::result::Result<_, _>>()
            .map_err(fail)
    }

    /// How many rows a query of the team finds, up to `most`. It runs in a transaction that may write nothing.
    pub async fn finds(&self, name: &str, sql: &str, most: u32) -> Result<u64> {
        let doing = format!("running the check `{name}`");
        let fail = |error: tokio_postgres::Error| explain(doing.as_str(), &error);
        let sql = sql.trim().trim_end_matches(';');
        self.client.batch_execute("BEGIN READ ONLY").await.map_err(fail)?;
        let wrapped = format!("SELECT count(*) FROM (SELECT FROM ({sql}\n) AS q LIMIT {most}) AS q");
        let found = self.client.query_one(&wrapped, &[]).await.and_then(|row| row.try_get::<_, i64>(0));
        let ended = self.client.batch_execute("ROLLBACK").await;
        let found = found.map_err(fail)?;
        ended.map_err(fail)?;
        Ok(u64::try_from(found).unwrap_or(0))
    }

    /// Runs SQL of the team, which may be several statements.
    pub async fn run(&self, name: &str, sql: &str) -> Result<()> {
        let done = self.client.batch_execute(sql).await;
        done.map_err(|error| explain(format!("running `{name}`"), &error))
    }

    /// The process of the server that works for it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Begins what becomes true all at once, with [`Finisher::open_cutover`], or not at all.
    pub async fn begin(&self) -> Result<()> {
        let begun = self.client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await;
        begun.map_err(|error| explain("beginning the last steps", &error))
    }

    /// Undoes what was run since [`Finisher::begin`].
    pub async fn undo(&self) -> Result<()> {
        let undone = self.client.batch_execute("ROLLBACK").await;
        undone.map_err(|error| explain("undoing the last steps", &error))
    }

    /// Opens the target and commits what was run since [`Finisher::begin`]. False if the deadline has passed or the cutover was reverted: then
    /// nothing of it has happened.
    pub async fn open_cutover(&self, id: Uuid, owner: Uuid) -> Result<bool> {
        let fail = |error: tokio_postgres::Error| explain("opening the target", &error);
        // The team's SQL may have taken another role.
        self.client.batch_execute("RESET ROLE").await.map_err(fail)?;
        let sql = "SELECT slackwater.open_cutover($1::text::uuid, $2::text::uuid)";
        if let Err(error) = self.client.execute(sql, &[&id.to_string(), &owner.to_string()]).await {
            let error = fail(error);
            if error.code.as_deref() != Some(LATE) {
                return Err(error);
            }
            self.undo().await?;
            return Ok(false);
        }
        self.client.batch_execute("COMMIT").await.map_err(fail)?;
        Ok(true)
    }

    /// Whether the statement can be understood; for a look before anything is changed.
    pub async fn understands(&self, name: &str, sql: &str) -> Result<()> {
        let sql = sql.trim().trim_end_matches(';');
        let fail = |error: tokio_postgres::Error| explain(format!("reading the check `{name}`"), &error);
        self.client.prepare(&format!("SELECT FROM ({sql}\n) AS q")).await.map(drop).map_err(fail)
    }

    /// The sequences behind columns of these tables: `serial` and identity.
    pub async fn sequences(&self, tables: &[(String, String)]) -> Result<Vec<Sequence>> {
        let doing = "looking for sequences";
        let fail = |error: tokio_postgres::Error| explain(doing, &error);
        let (schemas, names): (Vec<&str>, Vec<&str>) =
            tables.iter().map(|(schema, name)| (schema.as_str(), name.as_str())).unzip();
        let rows = self
            .client
            .query(
                "SELECT sn.nspname::text, s.relname::text, tn.nspname::text, t.relname::text, a.attname::text
                 FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
                 JOIN pg_catalog.pg_namespace tn ON tn.nspname = wanted.nsp
                 JOIN pg_catalog.pg_class t ON t.relnamespace = tn.oid AND t.relname = wanted.rel
                 JOIN pg_catalog.pg_depend d ON d.refobjid = t.oid AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
                     AND d.refclassid = 'pg_catalog.pg_class'::regclass
                     AND d.classid = 'pg_catalog.pg_class'::regclass
                 JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
                 JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
                 ORDER BY 1, 2",
                &[&schemas, &names],
            )
            .await
            .map_err(fail)?;
        let mut seen = HashSet::new();
        let mut sequences = Vec::new();
        for row in &rows {
            let text = |index: usize| row.try_get::<_, String>(index).map_err(fail);
            let sequence = format!("{}.{}", quote(&text(0)?), quote(&text(1)?));
            if seen.insert(sequence.clone()) {
                sequences.push(Sequence {
                    sequence,
                    table: format!("{}.{}", quote(&text(2)?), quote(&text(3)?)),
                    column: quote(&text(4)?),
                    name: format!("{}.{}", text(0)?, text(1)?),
                });
            }
        }
        Ok(sequences)
    }

    /// Moves sequences behind the highest value in their columns; never back.
    pub async fn advance(&self, sequences: &[Sequence]) -> Result<()> {
        if sequences.is_empty() {
            return Ok(());
        }
        let calls: Vec<String> = sequences
            .iter()
            .map(|found| {
                format!(
                    "SELECT pg_catalog.setval('{}', highest) FROM (SELECT max({}) AS highest FROM {}) AS rows, {} AS now \
                     WHERE highest > now.last_value OR (highest = now.last_value AND NOT now.is_called)",
                    found.sequence.replace('\'', "''"),
                    found.column,
                    found.table,
                    found.sequence
                )
            })
            .collect();
        let sql = calls.join(";\n");
        let moved = self.client.batch_execute(&sql).await;
        moved.map_err(|error| explain("moving the sequences behind the rows", &error))
    }

    /// Whether it is still connected.
    pub fn is_connected(&self) -> bool {
        !self.client.is_closed()
    }
}

impl Drop for Finisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}
