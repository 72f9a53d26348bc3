//! Compares what documents make with what stands in the target: one connection of a verification. It writes nothing but lists of ours.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use postgres_types::ToSql;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::compare::{self, Lists};
use super::judge::{Judge, of_texts};
use super::parameter::{rows, values};
use super::references::Key;
use super::rows::{TableSpec, TableWrite, WriteSet};
use super::serial::Series;
use super::sink::{made_of_keys, writer};
use super::statements::table_name;
use crate::error::{Error, Kind, Result};
use crate::postgres::error::explain;
use crate::secret::Secret;

/// A row that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its table, as an index into the specifications.
    pub table: usize,
    /// Which of the rows that were sent, in their order.
    pub place: usize,
    /// Its key, each column as text.
    pub key: Vec<String>,
    /// It is not there at all.
    pub missing: bool,
    /// The columns that differ, as indices into those that are filled.
    pub columns: Vec<usize>,
}

/// What was seen at one moment of the target.
#[derive(Debug, Default)]
pub struct Seen {
    /// What differs.
    pub differences: Vec<Difference>,
    /// Which of the documents have a dead letter, as indices.
    pub letters: HashSet<usize>,
    /// Of which of them the first version stands, and is not the one that the source has, as indices.
    pub kept: HashSet<usize>,
    /// Which of the differences are of rows that wait for something, as indices, and whether the switch waits for that.
    pub waiting: HashMap<usize, bool>,
}

/// What was seen of a table whose rows are made of several documents.
#[derive(Debug, Default)]
pub struct SeenMade {
    /// Rows that are as they should be.
    pub equal: u64,
    /// Rows that differ or are missing; the places say nothing.
    pub differences: Vec<Difference>,
    /// As in [`Seen`].
    pub waiting: HashMap<usize, bool>,
    /// Rows that no part makes.
    pub extra: Vec<Vec<String>>,
    /// Rows that are not there because they lack what they look up.
    pub lacking: u64,
}

/// The connection.
pub struct Comparer {
    url: Secret,
    pub(super) migration: String,
    pub(super) specs: Arc<Vec<TableSpec>>,
    pub(super) client: Client,
    task: JoinHandle<()>,
    prepared: HashMap<String, Statement>,
}

impl Comparer {
    /// Connects.
    pub async fn open(url: &Secret, migration: &str, specs: Arc<Vec<TableSpec>>) -> Result<Self> {
        let (client, task) = session(url, &specs).await?;
        let (url, migration) = (url.clone(), migration.to_owned());
        Ok(Self { url, migration, specs, client, task, prepared: HashMap::new() })
    }

    /// Connects again.
    pub async fn reopen(&mut self) -> Result<()> {
        let (client, task) = session(&self.url, &self.specs).await?;
        self.task.abort();
        (self.client, self.task) = (client, task);
        self.prepared.clear();
        Ok(())
    }

    /// To ask what only the server can judge.
    pub fn judge(&self) -> Judge<'_> {
        Judge { client: &self.client, specs: &self.specs }
    }

    /// The numbers of these ids, as far as they have any.
    pub async fn numbers(&self, series: &Series, ids: &[Uuid]) -> Result<HashMap<Uuid, i64>> {
        let doing = || format!("looking for numbers of {}.{}", series.schema, series.table);
        let fail = |error: tokio_postgres::Error| explain(doing(), &error);
        let texts: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        let sql = "SELECT n.id::text, n.number FROM slackwater.numbers AS n JOIN slackwater.series AS s ON s.id = n.series \
                   WHERE (s.migration, s.schema_name, s.table_name, s.column_name) = ($1, $2, $3, $4) \
                   AND n.id = ANY($5::text[]::uuid[])";
        let named: [&(dyn ToSql + Sync); 5] =
            [&self.migration, &series.schema, &series.table, &series.column, &texts];
        let mut found = HashMap::new();
        for row in self.client.query(sql, &named).await.map_err(fail)? {
            let id: String = row.try_get(0).map_err(fail)?;
            if let Ok(id) = Uuid::parse_str(&id) {
                found.insert(id, row.try_get(1).map_err(fail)?);
            }
        }
        Ok(found)
    }

    /// Compares the rows. With lists, keeps their keys.
    pub async fn compare(&mut self, writes: &WriteSet, lists: Option<Lists>) -> Result<Vec<Difference>> {
        let mut differences = Vec::new();
        for (table, write) in writes.tables.iter().enumerate().filter(|(_, write)| !write.rows.is_empty()) {
            let list = lists.map(|lists| lists.seen(table));
            let sql = compare::compare(&self.specs[table], list.as_deref());
            let statement = self.prepare(sql, "comparing", table).await?;
            let found = self.client.query(&statement, &[&*rows(&statement, 0, &write.rows)]).await;
            let fail = |error: tokio_postgres::Error| {
                of_texts(&self.specs, explain(self.doing("comparing", table), &error))
            };
            for row in found.map_err(fail)? {
                differences.push(difference(table, &row).map_err(fail)?);
            }
        }
        Ok(differences)
    }

    /// The same in one snapshot, with what explains a difference. `documents`: collection and key of those whose rows these are, and
    /// whether their first version stands for good.
    pub async fn look(
        &mut self,
        writes: &WriteSet,
        documents: &[(&str, &[u8])],
        append_only: bool,
    ) -> Result<Seen> {
        self.begin().await?;
        let seen = self.look_inside(writes, documents, append_only).await;
        self.end(seen).await
    }

    async fn look_inside(
        &mut self,
        writes: &WriteSet,
        documents: &[(&str, &[u8])],
        append_only: bool,
    ) -> Result<Seen> {
        let differences = self.compare(writes, None).await?;
        let letters = self.letters(documents).await?;
        let waiting = self.waiting(&differences).await?;
        let kept = if append_only { self.kept(documents).await? } else { HashSet::new() };
        Ok(Seen { differences, letters, kept, waiting })
    }

    async fn kept(&self, documents: &[(&str, &[u8])]) -> Result<HashSet<usize>> {
        let fail = |error: tokio_postgres::Error| explain("looking for versions that stand", &error);
        let (collections, keys): (Vec<&str>, Vec<&[u8]>) = documents.iter().copied().unzip();
        let sql = "SELECT d.n::int FROM unnest($2::text[], $3::bytea[]) WITH ORDINALITY AS d(collection, key, n) \
                   JOIN slackwater.versions AS v ON (v.migration, v.collection, v.key) = ($1, d.collection, d.key) \
                   WHERE v.last IS DISTINCT FROM v.first";
        let found = self.client.query(sql, &[&self.migration, &collections, &keys]).await.map_err(fail)?;
        found.iter().map(|row| Ok(row.try_get::<_, i32>(0).map_err(fail)? as usize - 1)).collect()
    }

    pub(super) async fn begin(&self) -> Result<()> {
        const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
        self.client.batch_execute(BEGIN).await.map_err(|error| explain("beginning to look", &error))
    }

    pub(super) async fn end<T>(&self, outcome: Result<T>) -> Result<T> {
        // If the connection is gone, the outcome says so already.
        let ended = self.client.batch_execute("ROLLBACK").await;
        let outcome = outcome?;
        ended.map_err(|error| explain("ending a look", &error))?;
        Ok(outcome)
    }

    async fn letters(&self, documents: &[(&str, &[u8])]) -> Result<HashSet<usize>> {
        let fail = |error: tokio_postgres::Error| explain("looking for dead letters", &error);
        let (collections, keys): (Vec<&str>, Vec<&[u8]>) = documents.iter().copied().unzip();
        let sql = "SELECT d.n::int FROM unnest($2::text[], $3::bytea[]) WITH ORDINALITY AS d(collection, key, n) \
                   WHERE EXISTS (SELECT FROM slackwater.dead_letters AS l WHERE l.migration = $1 \
                   AND l.collection = d.collection AND l.digest = sha256(d.key))";
        let found = self.client.query(sql, &[&self.migration, &collections, &keys]).await.map_err(fail)?;
        found.iter().map(|row| Ok(row.try_get::<_, i32>(0).map_err(fail)? as usize - 1)).collect()
    }

    /// A row that is missing waits; of one that is there only columns are null that wait.
    async fn waiting(&self, differences: &[Difference]) -> Result<HashMap<usize, bool>> {
        let mut waiting = HashMap::new();
        let mut by_table: HashMap<usize, Vec<usize>> = HashMap::new();
        for (at, difference) in differences.iter().enumerate() {
            by_table.entry(difference.table).or_default().push(at);
        }
        for (table, places) in by_table {
            let spec = &self.specs[table];
            let doing = || self.doing("looking what waits in", table);
            let fail = |error: tokio_postgres::Error| explain(doing(), &error);
            // One array of text a column, or Postgres would want all arrays equally long.
            let width = spec.key.len();
            let columns: Vec<Vec<&str>> = (0..width)
                .map(|column| places.iter().map(|at| differences[*at].key[column].as_str()).collect())
                .collect();
            let arrays: Vec<String> = (0..width).map(|place| format!("${}::text[]", place + 4)).collect();
            let names: Vec<String> = (0..width).map(|place| format!("k{place}")).collect();
            let wanted: Vec<String> = names.iter().map(|name| format!("d.{name}")).collect();
            let sql = format!(
                "SELECT d.n::int, w.held, coalesce((SELECT bool_or(o.blocks) FROM slackwater.waiting_for AS f \
                 JOIN slackwater.watched AS o ON o.id = f.reference WHERE (f.relation, f.key) = (w.relation, w.key)), true) \
                 FROM unnest({}) WITH ORDINALITY AS d({}, n) JOIN slackwater.waiting_rows AS w \
                 ON w.key = ARRAY[{}] JOIN slackwater.relations AS r ON r.id = w.relation \
                 WHERE (r.migration, r.schema_name, r.table_name) = ($1, $2, $3)",
                arrays.join(", "),
                names.join(", "),
                wanted.join(", ")
            );
            let mut bound: Vec<&(dyn ToSql + Sync)> =
                vec![&self.migration, &spec.table.schema, &spec.table.name];
            bound.extend(columns.iter().map(|column| column as &(dyn ToSql + Sync)));
            for row in self.client.query(&sql, &bound).await.map_err(fail)? {
                let at = places[row.try_get::<_, i32>(0).map_err(fail)? as usize - 1];
                let held: bool = row.try_get(1).map_err(fail)?;
                let difference = &differences[at];
                // Only a column that refers to something can be the one that waits.
                let refers = |column: &usize| {
                    let column = spec.columns[*column];
                    spec.table.foreign_keys.iter().any(|key| key.columns.contains(&column))
                };
                if (difference.missing && held)
                    || (!difference.missing && !held && difference.columns.iter().all(refers))
                {
                    waiting.insert(at, row.try_get(2).map_err(fail)?);
                }
            }
        }
        Ok(waiting)
    }

    /// Makes the lists of keys; those that are there stay as they are.
    pub async fn make_lists(&self, lists: Lists) -> Result<()> {
        for (table, spec) in self.specs.iter().enumerate().filter(|(_, spec)| is_listed(spec)) {
            let made = self.client.batch_execute(&compare::make_seen(spec, &lists.seen(table))).await;
            made.map_err(|error| explain(self.doing("making a list for", table), &error))?;
        }
        Ok(())
    }

    /// Looks for rows whose keys are in no list. `tables`: each table once, as the specifications that fill it. Gives how many there are, in
    /// the same order.
    pub async fn find_extra(&self, lists: Lists, tables: &[Vec<usize>]) -> Result<Vec<u64>> {
        let mut counts = Vec::with_capacity(tables.len());
        for table in tables {
            let Some(first) = table.first().copied() else { continue };
            let doing = || self.doing("looking for rows that no document makes in", first);
            let fail = |error: tokio_postgres::Error| explain(doing(), &error);
            let specs: Vec<(&TableSpec, String)> =
                table.iter().map(|spec| (&self.specs[*spec], lists.seen(*spec))).collect();
            for (_, list) in &specs {
                self.client.batch_execute(&format!("ANALYZE {list}")).await.map_err(fail)?;
            }
            let extra = lists.extra(first);
            if let Some(sql) = compare::make_extra(&specs, &extra) {
                // Other statements look rows up one by one; this one reads two tables.
                let sql = format!(
                    "BEGIN; SET LOCAL enable_seqscan = on; DROP TABLE IF EXISTS {extra}; {sql}; COMMIT"
                );
                if let Err(error) = self.client.batch_execute(&sql).await {
                    let _ = self.client.batch_execute("ROLLBACK").await;
                    return Err(fail(error));
                }
            }
            let row =
                self.client.query_one(&format!("SELECT count(*) FROM {extra}"), &[]).await.map_err(fail)?;
            counts.push(u64::try_from(row.try_get::<_, i64>(0).map_err(fail)?).unwrap_or(0));
        }
        Ok(counts)
    }

    /// Takes out of the lists of extra rows what documents make, or could have made; `theirs`: and all rows that belong to them. How many
    /// left the lists.
    pub async fn strike(
        &mut self,
        lists: Lists,
        tables: &[Vec<usize>],
        writes: &WriteSet,
        theirs: bool,
    ) -> Result<u64> {
        let mut gone = 0;
        for (spec, write) in writes.tables.iter().enumerate().filter(|(_, write)| !write.is_empty()) {
            let Some(first) =
                tables.iter().find(|table| table.contains(&spec)).and_then(|table| table.first())
            else {
                continue;
            };
            gone += self.strike_one((lists, theirs), spec, *first, write).await?;
        }
        Ok(gone)
    }

    /// Begins a try of [`Comparer::strike`].
    pub async fn begin_strike(&self) -> Result<()> {
        let begun = self.client.batch_execute("BEGIN").await;
        begun.map_err(|error| explain("looking for rows that no document makes", &error))
    }

    /// Ends the try; what was taken out of the lists comes back unless it is kept.
    pub async fn end_strike(&self, keep: bool) -> Result<()> {
        let ended = self.client.batch_execute(if keep { "COMMIT" } else { "ROLLBACK" }).await;
        ended.map_err(|error| explain("looking for rows that no document makes", &error))
    }

    async fn strike_one(
        &mut self,
        (lists, theirs): (Lists, bool),
        spec: usize,
        first: usize,
        write: &TableWrite,
    ) -> Result<u64> {
        const DOING: &str = "looking for rows that no document makes in";
        let extra = lists.extra(first);
        let (of, list_of) = (&self.specs[spec], &self.specs[first]);
        let mut open: Vec<(String, usize)> = Vec::new();
        if !write.rows.is_empty() {
            open.push((compare::strike_rows(of, list_of, &extra), 0));
        }
        if write.deletes.iter().any(|values| !values.is_empty()) {
            open.push((compare::strike_deletes(of, list_of, &extra, &self.migration), 1));
        }
        if theirs
            && !write.owners.is_empty()
            && let Some(sql) = compare::strike_owned(of, list_of, &extra)
        {
            open.push((sql, 2));
        }
        let mut gone = 0;
        for (sql, what) in open {
            let statement = self.prepare(sql, DOING, spec).await?;
            let bound: Vec<_> = match what {
                0 => vec![rows(&statement, 0, &write.rows)],
                1 => {
                    write.deletes.iter().enumerate().map(|(at, keys)| values(&statement, at, keys)).collect()
                }
                _ => vec![values(&statement, 0, &write.owners)],
            };
            let bound: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|one| &**one as _).collect();
            let done = self.client.execute(&statement, &bound).await;
            gone += done.map_err(|error| of_texts(&self.specs, explain(self.doing(DOING, spec), &error)))?;
        }
        Ok(gone)
    }

    /// Begins a look at the lists of extra rows, in one snapshot: what is not in its table now is no candidate any more. [`Comparer::left`] ends
    /// it, or [`Comparer::reopen`].
    pub async fn begin_left(&self, lists: Lists, tables: &[Vec<usize>]) -> Result<()> {
        const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ";
        const DOING: &str = "looking for rows that no document makes";
        self.client.batch_execute(BEGIN).await.map_err(|error| explain(DOING, &error))?;
        for first in tables.iter().filter_map(|table| table.first()) {
            let sql = compare::strike_absent(&self.specs[*first], &lists.extra(*first));
            self.client.batch_execute(&sql).await.map_err(|error| explain(DOING, &error))?;
        }
        Ok(())
    }

    /// What is left of the lists of extra rows and stands, by table: ends the look.
    pub async fn left(&self, lists: Lists, tables: &[Vec<usize>]) -> Result<Vec<Vec<Vec<String>>>> {
        let mut all = Vec::with_capacity(tables.len());
        for first in tables.iter().filter_map(|table| table.first()) {
            let sql = compare::left(&self.specs[*first], &lists.extra(*first));
            let doing = || self.doing("looking for rows that no document makes in", *first);
            let found = self.client.query(&sql, &[]).await;
            let keys = found.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect());
            all.push(keys.map_err(|error| explain(doing(), &error))?);
        }
        let ended = self.client.batch_execute("COMMIT").await;
        ended.map_err(|error| explain("ending a look", &error))?;
        Ok(all)
    }

    /// Compares the rows of a table that are made of several documents with what the parts make, in one snapshot.
    pub async fn made(&mut self, table: usize) -> Result<SeenMade> {
        self.begin().await?;
        let seen = self.made_inside(table).await;
        self.end(seen).await
    }

    async fn made_inside(&mut self, table: usize) -> Result<SeenMade> {
        let specs = Arc::clone(&self.specs);
        let spec = &specs[table];
        let doing = || format!("comparing rows that are made of parts in {}", table_name(spec));
        let fail = |error: tokio_postgres::Error| explain(doing(), &error);
        let Some(whole) = spec.whole() else {
            return Err(Error::new(Kind::Bug, doing(), "a table whose rows are not made of parts"));
        };
        let parts: Vec<&TableSpec> = whole.parts.iter().map(|part| &specs[*part]).collect();
        let keys = super::merged::all_keys(spec, &parts);
        let batch = format!("FETCH {} FROM keys", compare::MADE_AT_ONCE);
        self.client
            .batch_execute(&format!("DECLARE keys NO SCROLL CURSOR FOR {keys}"))
            .await
            .map_err(fail)?;
        let mut seen = SeenMade::default();
        loop {
            let found = self.client.query(&batch, &[]).await.map_err(fail)?;
            let keys: Vec<Key> = found
                .iter()
                .map(|row| row.try_get(0))
                .collect::<std::result::Result<_, _>>()
                .map_err(fail)?;
            if keys.is_empty() {
                return Ok(seen);
            }
            self.made_of_keys(table, keys, &mut seen).await?;
        }
    }

    /// Compares the rows with these keys, inside the transaction that is open.
    pub(super) async fn made_of_keys(
        &mut self,
        table: usize,
        keys: Vec<Key>,
        seen: &mut SeenMade,
    ) -> Result<()> {
        let specs = Arc::clone(&self.specs);
        let spec = &specs[table];
        let doing = || format!("comparing rows that are made of parts in {}", table_name(spec));
        let fail = |error: tokio_postgres::Error| explain(doing(), &error);
        let Some(whole) = spec.whole() else {
            return Err(Error::new(Kind::Bug, doing(), "a table whose rows are not made of parts"));
        };
        let made = self.prepare(super::merged::rows(spec, whole, &specs), "making rows of", table).await?;
        let mut writes = WriteSet::new(&specs, false);
        let lacking =
            made_of_keys(&self.client, &made, spec, keys, &mut writes.tables[table]).await.map_err(fail)?;
        seen.lacking += lacking.count();
        let differences = self.compare(&writes, None).await?;
        seen.equal += (writes.tables[table].rows.len() - differences.len()) as u64;
        let waiting = self.waiting(&differences).await?;
        let before = seen.differences.len();
        seen.waiting.extend(waiting.into_iter().map(|(at, blocks)| (before + at, blocks)));
        seen.differences.extend(differences);
        let deletes = &writes.tables[table].deletes;
        if deletes.iter().any(|values| !values.is_empty()) {
            let standing =
                self.prepare(compare::standing(spec), "looking for rows without parts in", table).await?;
            let bound: Vec<_> =
                deletes.iter().enumerate().map(|(at, keys)| values(&standing, at, keys)).collect();
            let bound: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|one| &**one as _).collect();
            for row in self.client.query(&standing, &bound).await.map_err(fail)? {
                seen.extra.push(row.try_get(0).map_err(fail)?);
            }
        }
        Ok(())
    }

    pub(super) async fn prepare(&mut self, sql: String, doing: &str, table: usize) -> Result<Statement> {
        if let Some(statement) = self.prepared.get(&sql) {
            return Ok(statement.clone());
        }
        let prepared = self.client.prepare(&sql).await;
        let statement = prepared.map_err(|error| explain(self.doing(doing, table), &error))?;
        self.prepared.insert(sql, statement.clone());
        Ok(statement)
    }

    pub(super) fn doing(&self, what: &str, table: usize) -> String {
        format!("{what} {}", table_name(&self.specs[table]))
    }
}

impl Drop for Comparer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Rows of such a table are made by single documents.
fn is_listed(spec: &TableSpec) -> bool {
    spec.whole().is_none() && !spec.stands
}

/// Rows are looked up by their key, however small the table is or seems to be; nothing of what is kept need be on the disk at once.
async fn session(url: &Secret, specs: &[TableSpec]) -> Result<(Client, JoinHandle<()>)> {
    let (client, task) = writer(url, specs).await?;
    let set = client.batch_execute("SET enable_seqscan = off; SET synchronous_commit = off").await;
    set.map_err(|error| explain("preparing the connection", &error))?;
    Ok((client, task))
}

fn difference(table: usize, row: &Row) -> std::result::Result<Difference, tokio_postgres::Error> {
    let place: i64 = row.try_get(0)?;
    let columns: Vec<i32> = row.try_get(3)?;
    Ok(Difference {
        table,
        place: usize::try_from(place - 1).unwrap_or(0),
        key: row.try_get(1)?,
        missing: row.try_get(2)?,
        columns: columns.into_iter().map(|column| column as usize).collect(),
    })
}
