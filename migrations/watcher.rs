//! Stands beside the target while it is written to, and fails when a row is ever older than it was before.
//!
//! Every document counts its own changes in a field that only grows, over delete and insert again too; the mapping
//! brings it into a column. The watcher reads slices of all tables over and over and remembers the highest version
//! that it saw of each row. Between two looks a row could go back and forth unseen, so tripwires can be laid in the
//! target beside it: triggers that note every UPDATE to an older version.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

use crate::{Error, Result};

/// Rows read from one table in one look.
const SLICE: i64 = 4_000;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(30);

/// A table to watch.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// The table.
    pub table: &'static str,
    /// Columns of type uuid that identify a row, with an index.
    pub key: &'static [&'static str],
    /// The column that only grows.
    pub version: &'static str,
}

/// A row that went back to an older version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backwards {
    /// Where.
    pub table: String,
    /// Which row.
    pub id: String,
    /// The version that it had.
    pub was: i64,
    /// The older one that it had later.
    pub now: i64,
}

/// What the watcher saw.
#[derive(Debug, Default)]
pub struct Watcher {
    seen: HashMap<(usize, String), i64>,
    cursors: HashMap<usize, Vec<String>>,
    /// Looks at all tables.
    pub looks: u64,
    /// Rows read in all looks.
    pub rows: u64,
    /// Versions that were seen to grow.
    pub grown: u64,
    /// Rows that went back.
    pub backwards: Vec<Backwards>,
}

impl Watcher {
    /// Watches over a connection of its own until `stop` says so, then looks at every row a last time.
    pub fn spawn(
        url: String,
        tables: &'static [Watched],
        mut stop: watch::Receiver<bool>,
    ) -> JoinHandle<Result<Self>> {
        tokio::spawn(async move {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
            let connection = tokio::spawn(connection);
            let mut watcher = Self::default();
            let mut pace = tokio::time::interval(PAUSE);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !*stop.borrow_and_update() {
                watcher.look(&client, tables).await?;
                tokio::select! {
                    _ = pace.tick() => {}
                    changed = stop.changed() => if changed.is_err() { break },
                }
            }
            watcher.cursors.clear();
            watcher.look(&client, tables).await?;
            while watcher.cursors.values().any(|cursor| !cursor.is_empty()) {
                watcher.look(&client, tables).await?;
            }
            watcher.tripped(&client).await?;
            drop(client);
            connection.abort();
            Ok(watcher)
        })
    }

    /// Reads the next slice of every table.
    pub async fn look(&mut self, client: &Client, tables: &[Watched]) -> Result<()> {
        for (index, table) in tables.iter().enumerate() {
            self.slice(client, index, table).await?;
        }
        self.looks += 1;
        Ok(())
    }

    async fn slice(&mut self, client: &Client, index: usize, table: &Watched) -> Result<()> {
        let key: Vec<_> = table.key.iter().map(|column| format!("\"{column}\"")).collect();
        let cursor = self.cursors.entry(index).or_default();
        let bounds: Vec<_> = (1..=cursor.len()).map(|at| format!("${at}::text::uuid")).collect();
        let after = match cursor.is_empty() {
            true => String::new(),
            false => format!("WHERE ({}) > ({})", key.join(", "), bounds.join(", ")),
        };
        let texts: Vec<_> = key.iter().map(|column| format!("{column}::text")).collect();
        let statement = format!(
            "SELECT \"{}\", {} FROM \"{}\" {after} ORDER BY {} LIMIT {SLICE}",
            table.version,
            texts.join(", "),
            table.table,
            key.join(", ")
        );
        let bounds: Vec<&(dyn ToSql + Sync)> =
            cursor.iter().map(|bound| bound as &(dyn ToSql + Sync)).collect();
        let rows = client.query(&statement, &bounds).await?;
        let mut last = Vec::new();
        for row in &rows {
            let version: i64 = row.try_get(0)?;
            last = (1..=table.key.len()).map(|at| row.try_get(at)).collect::<std::result::Result<_, _>>()?;
            self.note(index, table, last.join("/"), version);
        }
        self.rows += rows.len() as u64;
        // At the end of the table it starts again from the front.
        let more = rows.len() as i64 == SLICE;
        self.cursors.insert(index, if more { last } else { Vec::new() });
        Ok(())
    }

    fn note(&mut self, index: usize, table: &Watched, id: String, version: i64) {
        let highest = match self.seen.entry((index, id)) {
            Entry::Vacant(vacant) => {
                vacant.insert(version);
                return;
            }
            Entry::Occupied(seen) => seen,
        };
        let was = *highest.get();
        if version < was {
            let id = highest.key().1.clone();
            self.backwards.push(Backwards { table: table.table.into(), id, was, now: version });
        } else if version > was {
            self.grown += 1;
            *highest.into_mut() = version;
        }
    }

    /// Lays tripwires: from now on every UPDATE to an older version is noted, at no cost to the others.
    pub async fn lay_tripwires(client: &Client, tables: &[Watched]) -> Result<()> {
        client
            .batch_execute(
                "CREATE SCHEMA watch;
                 CREATE TABLE watch.backwards (table_name text, id text, was bigint, now bigint);
                 CREATE FUNCTION watch.note() RETURNS trigger LANGUAGE plpgsql AS $$
                 DECLARE id text := '';
                 BEGIN
                   FOR at IN 1 .. TG_NARGS - 1 LOOP
                     id := id || CASE WHEN at > 1 THEN '/' ELSE '' END || (to_jsonb(NEW) ->> TG_ARGV[at]);
                   END LOOP;
                   INSERT INTO watch.backwards VALUES (TG_TABLE_NAME, id,
                     (to_jsonb(OLD) ->> TG_ARGV[0])::bigint, (to_jsonb(NEW) ->> TG_ARGV[0])::bigint);
                   RETURN NULL;
                 END $$;",
            )
            .await?;
        for table in tables {
            let version = table.version;
            let arguments: Vec<_> =
                std::iter::once(&version).chain(table.key).map(|column| format!("'{column}'")).collect();
            let statement = format!(
                "CREATE TRIGGER tripwire AFTER UPDATE ON \"{}\" FOR EACH ROW
                 WHEN (NEW.\"{version}\" < OLD.\"{version}\") EXECUTE FUNCTION watch.note({})",
                table.table,
                arguments.join(", ")
            );
            client.batch_execute(&statement).await?;
        }
        Ok(())
    }

    /// Adds what the tripwires noted, where there are any.
    async fn tripped(&mut self, client: &Client) -> Result<()> {
        let laid = client.query_one("SELECT to_regclass('watch.backwards') IS NOT NULL", &[]).await?;
        if laid.try_get(0)? {
            for row in client.query("SELECT table_name, id, was, now FROM watch.backwards", &[]).await? {
                self.backwards.push(Backwards {
                    table: row.try_get(0)?,
                    id: row.try_get(1)?,
                    was: row.try_get(2)?,
                    now: row.try_get(3)?,
                });
            }
        }
        Ok(())
    }

    /// An error where a row went back.
    pub fn verdict(&self) -> Result<()> {
        match self.backwards.first() {
            None => Ok(()),
            Some(first) => Err(Error::Unexpected(format!(
                "{} times a row went back to an older version; the first: {first}",
                self.backwards.len()
            ))),
        }
    }
}

impl fmt::Display for Backwards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} from version {} to {}", self.table, self.id, self.was, self.now)
    }
}

impl fmt::Display for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} looks, {} rows read, {} different rows, {} seen to grow, {} went back",
            self.looks,
            self.rows,
            self.seen.len(),
            self.grown,
            self.backwards.len()
        )
    }
}
