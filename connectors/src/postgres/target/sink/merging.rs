//! Rows that several documents make together.
//!
//! **Invariant**: when a transaction ends, each row of such a table is what [`merged::rows`] makes of all parts with its key, and a key
//! without parts has no row. Who changes parts locks the keys that they had and have, before it changes them, and computes the rows of
//! these keys afterwards. So of two transactions that touch one key the second one waits, and then sees the parts of the first. The parts of one
//! document are changed by one lane at a time, as all its rows are, so what is read of them before the lock stays true.
//!
//! Locks are taken in the order of their numbers, behind the turn among watched references. Postgres ends one of two transactions that
//! wait for each other all the same (rows of other tables are locked as well), and that one is tried again.
//!
//! **Crash**: parts, rows and the lane's progress are one transaction.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hasher as _;

use postgres_types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Statement};

use super::prepared::Use;
use super::{BEGIN, Sink};
use crate::error::{Error, Kind, Result};
use crate::postgres::client::connect;
use crate::postgres::error::explain;
use crate::postgres::progress::Counts;
use crate::postgres::target::merged;
use crate::postgres::target::parameter::{rows, values};
use crate::postgres::target::pipeline::{Call, send};
use crate::postgres::target::references::Key;
use crate::postgres::target::rows::{LookUp, Merging, PART, TableSpec, TableWrite, Values, WriteSet};
use crate::postgres::target::statements::{self, quote};
use crate::secret::Secret;

/// Class of the advisory locks of keys.
const KEYS: i32 = 1_398_206_259;

/// Class of the advisory locks of what is looked up.
const LOOKUPS: i32 = 1_398_206_260;

/// All keys of a table share so many locks: the server has room for some thousands.
const LOCKS: u64 = 256;

/// One statement computes the rows of no more keys than this.
const MOST_KEYS: usize = 5_000;

/// Keys that a transaction touches, by the table of the rows.
type Touched = BTreeMap<usize, BTreeSet<Key>>;

/// What documents are found by: the table of what is known, its column, and values.
type Found = BTreeMap<(usize, String), BTreeSet<Key>>;

/// Keys, and the place of the column of each that lacks its value.
#[derive(Default)]
pub(in crate::postgres::target) struct Lacking(Vec<Key>, Vec<Option<i32>>);

impl Lacking {
    /// How many keys have no row because of that.
    pub(in crate::postgres::target) fn count(&self) -> u64 {
        self.1.iter().flatten().count() as u64
    }
}

impl Sink {
    /// The table whose rows the parts in this one make.
    fn made_of(&self, spec: usize) -> Option<usize> {
        match self.specs[spec].merging {
            Merging::Part { of } => Some(of),
            Merging::None | Merging::Known | Merging::Holder | Merging::Whole(_) => None,
        }
    }

    /// The tables whose rows may become others when this one is written.
    fn makes(&self, spec: usize) -> Vec<usize> {
        let wholes = self.specs.iter().enumerate().filter_map(|(of, spec)| Some((of, spec.whole()?)));
        let makes = wholes.filter(|(_, whole)| {
            whole.parts.contains(&spec) || whole.lookups.iter().any(|lookup| lookup.known == spec)
        });
        makes.map(|(of, _)| of).collect()
    }

    /// The batch changes parts.
    pub(super) fn has_parts(&self, writes: &WriteSet) -> bool {
        let tables = writes.tables.iter().enumerate();
        tables.into_iter().any(|(spec, write)| !write.is_empty() && self.specs[spec].is_part())
    }

    /// Writes the batch inside the transaction that is open, with the rows that its parts make.
    pub(super) async fn write_with_care(&mut self, writes: &WriteSet, seen: &[usize]) -> Result<Counts> {
        let all: Vec<&TableWrite> = writes.tables.iter().collect();
        if !self.has_parts(writes) {
            send(&self.client, self.hold_types(writes).into_iter().collect()).await?;
            return self.write_watched(&all, seen).await;
        }
        let watched = |spec: usize| {
            let watched = |spec: usize| self.is_watched(self.references.of_spec[spec]);
            !writes.tables[spec].is_empty() && (watched(spec) || self.makes(spec).into_iter().any(watched))
        };
        // The turn among watched references comes before all other locks, and the lists of a recopy before those of keys.
        if (0..writes.tables.len()).any(watched) {
            self.take_turn().await?;
        }
        let made = (0..writes.tables.len()).filter(|spec| !writes.tables[*spec].is_empty());
        let made: BTreeSet<usize> = made.flat_map(|spec| self.makes(spec)).collect();
        let mut names: BTreeSet<String> = made
            .into_iter()
            .filter(|of| self.specs[*of].shape.is_none())
            .map(|of| statements::table_name(&self.specs[of]))
            .collect();
        names.extend(self.typed(writes));
        send(&self.client, self.lock_types(&names).into_iter().collect()).await?;
        self.note_seen(&all, seen).await?;
        self.plan_by_keys(true).await?;
        let mut touched = self.touched(writes).await?;
        self.lock_all(writes, &mut touched, true).await?;
        let nothing = WriteSet::new(&self.specs, false);
        let (mut parts, mut others) = (Vec::new(), Vec::new());
        for (spec, write) in all.into_iter().enumerate() {
            let none = &nothing.tables[spec];
            let is_part = self.specs[spec].is_part();
            parts.push(if is_part { write } else { none });
            others.push(if is_part { none } else { write });
        }
        let mut counts = self.write_watched(&parts, &[]).await?;
        // In one go with the other rows, which may refer to them.
        let made = self.made(touched).await?;
        for (spec, write) in made.tables.iter().enumerate().filter(|(_, write)| !write.is_empty()) {
            others[spec] = write;
        }
        counts.add(&self.write_watched(&others, &[]).await?);
        Ok(counts)
    }

    async fn touched(&mut self, writes: &WriteSet) -> Result<Touched> {
        let mut touched = Touched::new();
        for (spec, write) in writes.tables.iter().enumerate().filter(|(_, write)| !write.is_empty()) {
            if let Some(of) = self.made_of(spec) {
                let keys = match merged::is_by_part(&self.specs[of]) {
                    true => ids(write),
                    false => self.keys_in(Use::Touched(spec), spec, write).await?,
                };
                touched.entry(of).or_default().extend(keys);
            }
        }
        Ok(touched)
    }

    /// What a statement over the rows, deletes and owners of a batch says.
    async fn keys_in(&mut self, what: Use, spec: usize, write: &TableWrite) -> Result<BTreeSet<Key>> {
        self.prepare(what).await?;
        let statement = self.get(what)?;
        let none = Values::default();
        let deletes = write.deletes.first().unwrap_or(&none);
        let all = [
            rows(statement, 0, &write.rows),
            values(statement, 1, deletes),
            values(statement, 2, &write.owners),
        ];
        let count = statement.params().len();
        let all: Vec<&(dyn ToSql + Sync)> = all.iter().take(count).map(|one| &**one as _).collect();
        let found = self.client.query(statement, &all).await;
        let fail = |error: tokio_postgres::Error| explain(self.doing("looking for parts in", spec), &error);
        keys(&found.map_err(fail)?).map_err(fail)
    }

    /// Takes all locks of a batch, and adds the rows that are to be made anew because they look up what it changes. `own`: the lane is that
    /// of the documents.
    async fn lock_all(&mut self, writes: &WriteSet, touched: &mut Touched, own: bool) -> Result<()> {
        let anew = self.lock_lookups(writes).await?;
        self.lock_keys(touched, own, &anew).await?;
        for (of, keys) in anew {
            touched.entry(of).or_default().extend(keys);
        }
        Ok(())
    }

    /// Waits until nobody else changes what this batch looks up, or looks up what it changes. Gives the rows that are to be made anew
    /// because they look up what it changes.
    async fn lock_lookups(&mut self, writes: &WriteSet) -> Result<Touched> {
        let mut anew = Touched::new();
        let wholes = self.specs.iter().enumerate().filter_map(|(of, spec)| Some((of, spec.whole()?)));
        let all: Vec<(usize, usize, LookUp)> = wholes
            .flat_map(|(of, whole)| {
                whole.lookups.iter().enumerate().map(move |(n, one)| (of, n, one.clone()))
            })
            .collect();
        let (mut changed, mut wanted) = (Found::new(), Found::new());
        for (of, number, lookup) in &all {
            let place = (lookup.known, lookup.by.clone());
            let write = &writes.tables[lookup.known];
            if !write.is_empty() && !changed.contains_key(&place) {
                let found = self.keys_in(Use::Found(*of, *number), lookup.known, write).await?;
                changed.insert(place.clone(), found);
            }
            let write = &writes.tables[lookup.part];
            if !write.rows.is_empty() {
                let found = self.looked_for(Use::LookedFor(*of, *number), lookup, write).await?;
                wanted.entry(place).or_default().extend(found);
            }
        }
        self.lock_found(&changed, &wanted).await?;
        for (of, number, lookup) in &all {
            let Some(values) = changed.get(&(lookup.known, lookup.by.clone())) else { continue };
            let what = Use::Looking(*of, *number);
            self.prepare(what).await?;
            let doing = || self.doing("looking what looks something up for", *of);
            let fail = |error: tokio_postgres::Error| explain(doing(), &error);
            let values: Vec<&String> = values.iter().flatten().collect();
            for values in values.chunks(MOST_KEYS) {
                let found = self.client.query(self.get(what)?, &[&values]).await.map_err(fail)?;
                anew.entry(*of).or_default().extend(keys(&found).map_err(fail)?);
            }
        }
        Ok(anew)
    }

    /// What the rows of a batch look for.
    async fn looked_for(&mut self, what: Use, lookup: &LookUp, write: &TableWrite) -> Result<BTreeSet<Key>> {
        let part = &self.specs[lookup.part];
        let column = part.columns.iter().position(|column| part.table.columns[*column].name == lookup.wanted);
        let column = column.filter(|_| part.shape.is_none());
        let Some(column) = column else { return self.keys_in(what, lookup.part, write).await };
        // Many rows look for few values.
        let some: HashSet<&[u8]> = write.rows.column(column).filter(|field| !is_null(field)).collect();
        let mut wanted = Values::default();
        some.into_iter().for_each(|field| wanted.push().extend_from_slice(field));
        self.prepare(what).await?;
        let statement = self.get(what)?;
        let found = self.client.query(statement, &[&*values(statement, 0, &wanted)]).await;
        let fail = |error: tokio_postgres::Error| {
            explain(self.doing("looking what is looked up by", lookup.part), &error)
        };
        keys(&found.map_err(fail)?).map_err(fail)
    }

    /// Locks what changes for one, and what is only wanted for many.
    async fn lock_found(&self, changed: &Found, wanted: &Found) -> Result<()> {
        let mut locks: BTreeMap<i32, bool> = BTreeMap::new();
        for (found, alone) in [(wanted, false), (changed, true)] {
            for ((known, by), values) in found {
                let table = &self.specs[*known].table;
                for value in values {
                    let lock = lock_of([&table.schema, &table.name, by], value);
                    *locks.entry(lock).or_default() |= alone;
                }
            }
        }
        self.lock(LOOKUPS, locks, "waiting for others that change what is looked up").await
    }

    /// Waits until nobody else makes the same rows: of the batch's own parts (`touched`), and of what it changes for others (`anew`).
    ///
    /// Where a row has one part, only the lane of its document touches it, and who changes what it looks up. So such lanes
    /// need not wait for each other, and the keys of their own parts are locked for many.
    async fn lock_keys(&self, touched: &Touched, own: bool, anew: &Touched) -> Result<()> {
        let mut locks: BTreeMap<i32, bool> = BTreeMap::new();
        for (all, own) in [(touched, own), (anew, false)] {
            for (of, keys) in all {
                let table = &self.specs[*of].table;
                let single = self.specs[*of].whole().is_some_and(|whole| whole.single);
                for key in keys {
                    *locks.entry(lock_of([&table.schema, &table.name, ""], key)).or_default() |=
                        !(own && single);
                }
            }
        }
        self.lock(KEYS, locks, "waiting for others that make the same rows").await
    }

    /// Takes locks of a class in the order of their numbers: for this transaction alone, or for many.
    async fn lock(&self, class: i32, locks: BTreeMap<i32, bool>, doing: &str) -> Result<()> {
        if locks.is_empty() {
            return Ok(());
        }
        let (locks, alone): (Vec<i32>, Vec<bool>) = locks.into_iter().unzip();
        let sql = "SELECT count(CASE WHEN l.alone THEN pg_catalog.pg_advisory_xact_lock($1, l.n)
                                     ELSE pg_catalog.pg_advisory_xact_lock_shared($1, l.n) END)
                   FROM unnest($2::int[], $3::bool[]) AS l(n, alone)";
        let locked = self.client.query_one(sql, &[&class, &locks, &alone]).await;
        locked.map(drop).map_err(|error| explain(doing, &error))
    }

    /// What the parts of these keys make: rows to write, and rows to delete.
    async fn made(&mut self, touched: Touched) -> Result<WriteSet> {
        let mut writes = WriteSet::new(&self.specs, false);
        for (of, keys) in touched {
            if self.specs[of].stands {
                let doing = self.doing("writing", of);
                return Err(Error::new(Kind::Data, doing, "the table cannot be written as it is now"));
            }
            let mut keys = keys.into_iter();
            loop {
                let part: Vec<Key> = keys.by_ref().take(MOST_KEYS).collect();
                if part.is_empty() {
                    break;
                }
                let lacking = self.made_of_keys(of, part, &mut writes.tables[of]).await?;
                self.note_lacking(of, lacking).await?;
            }
        }
        writes.sort();
        Ok(writes)
    }

    /// Writes what is made of these keys, and says which of them lack something.
    async fn made_of_keys(&mut self, of: usize, keys: Vec<Key>, write: &mut TableWrite) -> Result<Lacking> {
        self.prepare(Use::Made(of)).await?;
        let made = made_of_keys(&self.client, self.get(Use::Made(of))?, &self.specs[of], keys, write).await;
        made.map_err(|error| explain(self.doing("making rows of", of), &error))
    }

    /// Notes which rows are not there because something that they look up is not.
    async fn note_lacking(&mut self, of: usize, Lacking(keys, columns): Lacking) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let what = Use::Lacking(of);
        self.prepare(what).await?;
        let mut values = vec![Vec::with_capacity(keys.len()); self.specs[of].key.len()];
        for key in keys {
            for (column, value) in values.iter_mut().zip(key) {
                column.push(value);
            }
        }
        let mut parameters: Vec<&(dyn ToSql + Sync)> = values.iter().map(|column| column as _).collect();
        parameters.push(&columns);
        let noted = self.client.execute(self.get(what)?, &parameters).await;
        noted.map(drop).map_err(|error| explain(self.doing("noting what is lacking in", of), &error))
    }

    /// Forgets what rows lack of tables that look nothing up any more.
    pub(super) async fn forget_lacking(&mut self) -> Result<()> {
        let requires = |spec: &&TableSpec| spec.whole().is_some_and(|whole| !whole.required.is_empty());
        let tables: Vec<String> = self
            .specs
            .iter()
            .filter(requires)
            .map(|spec| format!("{}.{}", spec.table.schema, spec.table.name))
            .collect();
        let doing = "looking which rows lack something";
        let fail = |error: tokio_postgres::Error| explain(doing, &error);
        let some = "SELECT FROM slackwater.lacking WHERE migration = $1 AND NOT schema_name || '.' || table_name = ANY($2) LIMIT 1";
        if self.client.query_opt(some, &[&self.migration, &tables]).await.map_err(fail)?.is_none() {
            return Ok(());
        }
        let forget = "DELETE FROM slackwater.lacking WHERE migration = $1 AND NOT schema_name || '.' || table_name = ANY($2)";
        self.client.batch_execute(BEGIN).await.map_err(fail)?;
        self.client.execute(forget, &[&self.migration, &tables]).await.map_err(fail)?;
        self.client.batch_execute(super::COMMIT).await.map_err(fail)
    }

    /// The end of a recopy of parts: those that it has not met go, and the rows become what is left makes of them.
    pub(super) async fn sweep_parts(&mut self, spec: usize) -> Result<u64> {
        let relation = self.seen_relation(spec).await?;
        self.prepare(Use::Hold).await?;
        self.prepare(Use::Aware).await?;
        self.dirty = true;
        let outcome = self.sweep_parts_inside(spec, &relation).await;
        if outcome.is_err() {
            self.give_up().await;
        }
        self.dirty = false;
        outcome
    }

    async fn sweep_parts_inside(&mut self, spec: usize, relation: &str) -> Result<u64> {
        let calls = vec![
            Call::simple("beginning", BEGIN),
            Call::prepared("holding the lane", self.get(Use::Hold)?, self.identity()),
            self.aware()?,
        ];
        send(&self.client, calls).await?;
        if self.makes(spec).iter().any(|of| self.is_watched(self.references.of_spec[*of])) {
            self.take_turn().await?;
        }
        let lock = format!("LOCK TABLE slackwater.{} IN SHARE MODE", quote(relation));
        send(&self.client, vec![Call::simple("waiting for writers", lock)]).await?;
        let doing = self.doing("sweeping", spec);
        let fail = |error: tokio_postgres::Error| explain(doing.clone(), &error);
        let condition = format!(
            "NOT EXISTS (SELECT FROM slackwater.{} AS s WHERE s.{id} = t.{id})",
            quote(relation),
            id = quote(PART)
        );
        let part = &self.specs[spec];
        let gone = format!(
            "SELECT t.{}::text FROM {} AS t WHERE {condition}",
            quote(PART),
            statements::table_name(part)
        );
        let delete = format!("DELETE FROM {} AS t WHERE {condition}", statements::table_name(part));
        // As if the documents were deleted.
        let mut writes = WriteSet::new(&self.specs, false);
        let mut count = 0;
        for row in self.client.query(&gone, &[]).await.map_err(fail)? {
            let id: String = row.try_get(0).map_err(fail)?;
            let id = uuid::Uuid::parse_str(&id).unwrap_or_default();
            for ids in &mut writes.tables[spec].deletes {
                let field = ids.push();
                field.extend_from_slice(&16_i32.to_be_bytes());
                field.extend_from_slice(id.as_bytes());
            }
            count += 1;
        }
        if count == 0 {
            send(&self.client, vec![Call::simple("committing", super::COMMIT)]).await?;
            return Ok(0);
        }
        let mut touched = self.touched(&writes).await?;
        self.lock_all(&writes, &mut touched, false).await?;
        self.client.execute(&delete, &[]).await.map_err(fail)?;
        self.plan_by_keys(true).await?;
        let made = self.made(touched).await?;
        let counts = self.write_watched(&made.tables.iter().collect::<Vec<_>>(), &[]).await?;
        send(&self.client, vec![Call::simple("committing", super::COMMIT)]).await?;
        Ok(counts.deleted)
    }

    /// The SQL of a statement of this module.
    pub(super) fn sql_of_parts(&self, what: Use) -> Result<String> {
        let none = || self.misuse("a table whose rows are not made of parts");
        match what {
            Use::Touched(spec) => {
                let of = self.made_of(spec).ok_or_else(none)?;
                Ok(merged::touched(&self.specs[spec], &self.specs[of]))
            }
            Use::Lacking(of) => {
                let whole = self.specs[of].whole().ok_or_else(none)?;
                Ok(merged::note_lacking(&self.specs[of], whole, &self.migration))
            }
            Use::Made(of) => {
                let whole = self.specs[of].whole().ok_or_else(none)?;
                Ok(merged::rows(&self.specs[of], whole, &self.specs))
            }
            Use::Found(of, number) | Use::LookedFor(of, number) | Use::Looking(of, number) => {
                let whole = self.specs[of].whole().ok_or_else(none)?;
                let lookup = whole.lookups.get(number).ok_or_else(none)?;
                let part = &self.specs[lookup.part];
                Ok(match what {
                    Use::Found(..) => merged::found(&self.specs[lookup.known], &lookup.by),
                    Use::LookedFor(..) => merged::looked_for(part, &lookup.wanted),
                    _ => merged::looking(part, &self.specs[of], &lookup.wanted),
                })
            }
            _ => Err(none()),
        }
    }
}

/// The same by a connection of its own.
pub async fn prepare_parts(url: &Secret, specs: &[TableSpec]) -> Result<()> {
    if specs.iter().any(TableSpec::is_ours) {
        let (client, _task) = connect(url).await?;
        make_tables(&client, specs).await?;
    }
    Ok(())
}

/// Makes the tables of parts, where they are not as they have to be.
pub(super) async fn make_tables(client: &tokio_postgres::Client, specs: &[TableSpec]) -> Result<()> {
    let lookups: Vec<&LookUp> =
        specs.iter().filter_map(TableSpec::whole).flat_map(|whole| &whole.lookups).collect();
    for (spec, part) in specs.iter().enumerate().filter(|(_, part)| part.is_ours()) {
        let whole = match part.merging {
            Merging::Part { of } => Some(&specs[of]),
            _ => None,
        };
        let found_by = lookups.iter().filter(|lookup| lookup.known == spec).map(|lookup| lookup.by.as_str());
        let looks_by =
            lookups.iter().filter(|lookup| lookup.part == spec).map(|lookup| lookup.wanted.as_str());
        let indexed: Vec<&str> = found_by.chain(looks_by).collect();
        let what = if part.is_part() { "look-ups" } else { "elements" };
        let doing = format!("making a table for {}", whole.map_or(what, |whole| &whole.table.name));
        let fail = |error: tokio_postgres::Error| explain(doing.clone(), &error);
        let sql = "SELECT a.attname::text, a.atttypid FROM pg_catalog.pg_attribute AS a
                   WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped";
        let name = statements::table_name(part);
        let wrong =
            |rows: &[tokio_postgres::Row]| -> std::result::Result<Option<Vec<usize>>, tokio_postgres::Error> {
                let mut there = BTreeMap::new();
                for row in rows {
                    there.insert(row.try_get::<_, String>(0)?, row.try_get::<_, u32>(1)?);
                }
                let columns = &part.table.columns;
                let lacks = columns.iter().any(|column| !there.contains_key(&column.name));
                let other = (0..columns.len()).filter(|at| {
                    there.get(&columns[*at].name).is_some_and(|oid| *oid != columns[*at].kind.oid)
                });
                let other: Vec<usize> = other.collect();
                Ok((lacks || !other.is_empty()).then_some(other))
            };
        let indexes = merged::indexes(part, whole, &indexed);
        let found = client.query(sql, &[&name]).await.map_err(fail)?;
        let names: Vec<String> =
            indexes.iter().map(|(index, _)| format!("slackwater.{}", quote(index))).collect();
        let lacks =
            "SELECT EXISTS (SELECT FROM unnest($1::text[]) AS i(name) WHERE to_regclass(i.name) IS NULL)";
        let lacks: bool =
            client.query_one(lacks, &[&names]).await.and_then(|row| row.try_get(0)).map_err(fail)?;
        if !lacks && wrong(&found).map_err(fail)?.is_none() {
            continue;
        }
        // Two that make it at once would be in each other's way.
        client.batch_execute("BEGIN").await.map_err(fail)?;
        let lock = "SELECT pg_catalog.pg_advisory_xact_lock($1, 0)";
        client.query_one(lock, &[&KEYS]).await.map_err(fail)?;
        client.batch_execute(&merged::create(part)).await.map_err(fail)?;
        for (index, columns) in &indexes {
            let create = format!("CREATE INDEX IF NOT EXISTS {} ON {name} ({columns})", quote(index));
            client.batch_execute(&create).await.map_err(fail)?;
        }
        let found = client.query(sql, &[&name]).await.map_err(fail)?;
        for at in wrong(&found).map_err(fail)?.unwrap_or_default() {
            let column = &part.table.columns[at];
            let retyped = client.batch_execute(&merged::retype(part, &column.name, &column.kind)).await;
            retyped.map_err(fail)?;
        }
        client.batch_execute("COMMIT").await.map_err(fail)?;
    }
    Ok(())
}

fn is_null(field: &[u8]) -> bool {
    field.starts_with(&(-1_i32).to_be_bytes())
}

/// The ids of the parts that are written and deleted, as keys of one column.
fn ids(write: &TableWrite) -> BTreeSet<Key> {
    let deleted = write.deletes.iter().flat_map(Values::uuids);
    let ids = write.rows.keys().chain(deleted);
    ids.map(|id| vec![uuid::Uuid::from_bytes(id).to_string()]).collect()
}

/// The keys in rows of texts.
fn keys(rows: &[tokio_postgres::Row]) -> std::result::Result<BTreeSet<Key>, tokio_postgres::Error> {
    let mut keys = BTreeSet::new();
    for row in rows {
        keys.extend(key_of(row)?);
    }
    Ok(keys)
}

/// The key in a row of texts. None where a part of it is null: then no row can be meant.
pub(in crate::postgres::target) fn key_of(
    row: &tokio_postgres::Row,
) -> std::result::Result<Option<Key>, tokio_postgres::Error> {
    (0..row.len()).map(|at| row.try_get::<_, Option<String>>(at)).collect()
}

/// The number of the lock for this key of what is named so. Equal is not the same, and equal keys have one lock: capitals, blanks and
/// zeros at the end do not count.
fn lock_of(named: [&str; 3], key: &[String]) -> i32 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    let mut add = |text: &str| {
        hash.write(text.as_bytes());
        hash.write(&[0]);
    };
    named.into_iter().for_each(&mut add);
    let table = hash.finish();
    for value in key {
        hash.write(plain(value).as_bytes());
        hash.write(&[0]);
    }
    // So two tables share locks only by chance.
    (table.wrapping_mul(LOCKS) | (hash.finish() % LOCKS)) as i32
}

/// What equal values of a type have in common, as far as texts tell.
fn plain(value: &str) -> String {
    let value = value.trim().to_lowercase();
    match value.parse::<f64>() {
        Ok(number) => format!("{number}"),
        Err(_) => value,
    }
}

/// What the parts of these keys make: rows to write and keys to delete; and which of them lack something. The statement is [`merged::rows`].
pub(in crate::postgres::target) async fn made_of_keys(
    client: &Client,
    statement: &Statement,
    spec: &TableSpec,
    keys: Vec<Key>,
    write: &mut TableWrite,
) -> std::result::Result<Lacking, tokio_postgres::Error> {
    let width = spec.key.len();
    let mut columns = vec![Vec::with_capacity(keys.len()); width];
    for key in keys {
        for (column, value) in columns.iter_mut().zip(key) {
            column.push(value);
        }
    }
    let parameters: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as _).collect();
    let found = client.query(statement, &parameters).await?;
    let required = spec.whole().is_some_and(|whole| !whole.required.is_empty());
    let lacks = 1 + width + spec.columns.len();
    let mut lacking = Lacking::default();
    for row in &found {
        let field = |at: usize, out: &mut Vec<u8>| -> std::result::Result<(), tokio_postgres::Error> {
            match row.try_get::<_, Option<Raw<'_>>>(at)? {
                Some(Raw(bytes)) => {
                    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                    out.extend_from_slice(bytes);
                }
                None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
            }
            Ok(())
        };
        if row.try_get::<_, bool>(0)? {
            write.rows.begin();
            for at in 0..spec.columns.len() {
                field(1 + width + at, write.rows.field(at))?;
            }
            write.rows.end();
        } else {
            for (place, keys) in write.deletes.iter_mut().enumerate() {
                field(1 + place, keys.push())?;
            }
        }
        if required {
            let key: Key =
                (1..=width).map(|at| row.try_get(lacks + at)).collect::<std::result::Result<_, _>>()?;
            lacking.0.push(key);
            lacking.1.push(row.try_get(lacks)?);
        }
    }
    Ok(lacking)
}

/// A value in its binary form.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(
        _: &Type,
        raw: &'a [u8],
    ) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
