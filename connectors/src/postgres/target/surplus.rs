//! Rows that belong to documents which do not make them, and rows of several documents that some have touched: what is asked besides when
//! changed documents are verified. It writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use postgres_types::ToSql;

use super::compare;
use super::comparer::{Comparer, SeenMade};
use super::judge::of_texts;
use super::merged;
use super::parameter::{rows, values};
use super::references::Key;
use super::rows::{Merging, TableSpec, TableWrite, Values, WriteSet};
use super::sink::key_of;
use super::statements::{element_type, literal, owners, quote, source, table_name};
use crate::error::{Error, Result};
use crate::postgres::error::explain;

const DOING: &str = "looking for rows that their documents do not make in";

/// A row: its table, as an index into the specifications, and its key as text.
pub type Surplus = (usize, Vec<String>);

/// What belongs to the documents, before those rows are left out that they make.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The keys of a delete.
    Deletes,
    /// The owners of rows of elements.
    Owners,
}

impl Comparer {
    /// Rows that belong to documents and are not among those that they make. `made`: what they make; `theirs`: what would go if they were
    /// deleted; `skipped`: tables whose rows outlive their documents.
    pub async fn surplus(
        &mut self,
        made: &WriteSet,
        theirs: &WriteSet,
        skipped: &[usize],
    ) -> Result<Vec<Surplus>> {
        let specs = Arc::clone(&self.specs);
        let mut found = Vec::new();
        for (at, spec) in specs.iter().enumerate() {
            if spec.whole().is_some() || spec.stands || skipped.contains(&at) {
                continue;
            }
            // Where the document's id is the whole key, a row is either made or named by what the document itself brings.
            let by_ids = spec.claimed || spec.found.is_some();
            let write = if by_ids { &theirs.tables[at] } else { &made.tables[at] };
            for by in [By::Deletes, By::Owners] {
                let nothing = match by {
                    By::Deletes => write.deletes.iter().all(Values::is_empty),
                    By::Owners => write.owners.is_empty() || spec.owner.is_none(),
                };
                if !nothing {
                    self.surplus_of(at, by, write, made, &mut found).await?;
                }
            }
        }
        Ok(found)
    }

    async fn surplus_of(
        &mut self,
        at: usize,
        by: By,
        write: &TableWrite,
        made: &WriteSet,
        found: &mut Vec<Surplus>,
    ) -> Result<()> {
        let specs = Arc::clone(&self.specs);
        let spec = &specs[at];
        let same_table = |other: &TableSpec| table_name(other) == table_name(spec);
        let makers: Vec<usize> = (0..specs.len())
            .filter(|other| same_table(&specs[*other]) && !made.tables[*other].rows.is_empty())
            .collect();
        let makers_of: Vec<&TableSpec> = makers.iter().map(|other| &specs[*other]).collect();
        let Some(sql) = belonging(spec, by, &makers_of, &self.migration) else { return Ok(()) };
        let statement = self.prepare(sql, DOING, at).await?;
        let mut bound: Vec<_> = match by {
            By::Deletes => write
                .deletes
                .iter()
                .enumerate()
                .map(|(place, keys)| values(&statement, place, keys))
                .collect(),
            By::Owners => vec![values(&statement, 0, &write.owners)],
        };
        for other in &makers {
            bound.push(rows(&statement, bound.len(), &made.tables[*other].rows));
        }
        let bound: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|one| &**one as _).collect();
        let fail = |error: tokio_postgres::Error| of_texts(&specs, explain(self.doing(DOING, at), &error));
        for row in self.client.query(&statement, &bound).await.map_err(fail)? {
            found.push((at, row.try_get(0).map_err(fail)?));
        }
        Ok(())
    }

    /// Compares those rows of several documents that some documents touch, in one snapshot; with each table, its keys. `writes`: what the
    /// documents make.
    pub async fn made_of(&mut self, writes: &WriteSet) -> Result<Vec<(usize, Vec<Key>, SeenMade)>> {
        let specs = Arc::clone(&self.specs);
        let touches = |(at, write): (usize, &TableWrite)| {
            matches!(specs[at].merging, Merging::Part { .. } | Merging::Known) && !write.is_empty()
        };
        if !writes.tables.iter().enumerate().any(touches) {
            return Ok(Vec::new());
        }
        self.begin().await?;
        let seen = self.made_of_inside(&specs, writes).await;
        self.end(seen).await
    }

    async fn made_of_inside(
        &mut self,
        specs: &[TableSpec],
        writes: &WriteSet,
    ) -> Result<Vec<(usize, Vec<Key>, SeenMade)>> {
        let mut touched: BTreeMap<usize, BTreeSet<Key>> = BTreeMap::new();
        for (at, write) in writes.tables.iter().enumerate().filter(|(_, write)| !write.is_empty()) {
            if let Merging::Part { of } = specs[at].merging {
                let keys = self.keys_in(merged::touched(&specs[at], &specs[of]), at, write).await?;
                touched.entry(of).or_default().extend(keys);
            }
        }
        for (of, spec) in specs.iter().enumerate() {
            for lookup in spec.whole().iter().flat_map(|whole| &whole.lookups) {
                let write = &writes.tables[lookup.known];
                if write.is_empty() {
                    continue;
                }
                let sql = merged::found(&specs[lookup.known], &lookup.by);
                let values: Vec<String> =
                    self.keys_in(sql, lookup.known, write).await?.into_iter().flatten().collect();
                let sql = merged::looking(&specs[lookup.part], spec, &lookup.wanted);
                let statement = self.prepare(sql, DOING, of).await?;
                let fail = |error: tokio_postgres::Error| explain(self.doing(DOING, of), &error);
                for row in self.client.query(&statement, &[&values]).await.map_err(fail)? {
                    touched.entry(of).or_default().extend(key_of(&row).map_err(fail)?);
                }
            }
        }
        let mut all = Vec::with_capacity(touched.len());
        for (of, keys) in touched.into_iter().filter(|(of, _)| !specs[*of].stands) {
            let keys: Vec<Key> = keys.into_iter().collect();
            let mut seen = SeenMade::default();
            for some in keys.chunks(compare::MADE_AT_ONCE) {
                self.made_of_keys(of, some.to_vec(), &mut seen).await?;
            }
            all.push((of, keys, seen));
        }
        Ok(all)
    }

    /// What a statement over the rows, deletes and owners of a batch says.
    async fn keys_in(&mut self, sql: String, spec: usize, write: &TableWrite) -> Result<BTreeSet<Key>> {
        let statement = self.prepare(sql, DOING, spec).await?;
        let none = Values::default();
        let all = [
            rows(&statement, 0, &write.rows),
            values(&statement, 1, write.deletes.first().unwrap_or(&none)),
            values(&statement, 2, &write.owners),
        ];
        let all: Vec<&(dyn ToSql + Sync)> =
            all.iter().take(statement.params().len()).map(|one| &**one as _).collect();
        let fail = |error: tokio_postgres::Error| -> Error {
            of_texts(&self.specs, explain(self.doing(DOING, spec), &error))
        };
        let mut keys = BTreeSet::new();
        for row in self.client.query(&statement, &all).await.map_err(fail)? {
            keys.extend(key_of(&row).map_err(fail)?);
        }
        Ok(keys)
    }
}

/// The keys, as text, of rows that belong to documents and are not among the rows of `makers`, which are the parameters behind.
fn belonging(spec: &TableSpec, by: By, makers: &[&TableSpec], migration: &str) -> Option<String> {
    let table = table_name(spec);
    let column = |at: usize| quote(&spec.table.columns[spec.columns[at]].name);
    let (from, same, parameters) = match by {
        By::Owners => {
            (format!("{table} AS t, {}", owners(spec)?), format!("t.{} = o.id", column(spec.owner?)), 1)
        }
        By::Deletes if spec.claimed => (
            format!(
                "{table} AS t, slackwater.claims AS c JOIN slackwater.relations AS n ON n.id = c.relation"
            ),
            format!(
                "(n.migration, n.schema_name, n.table_name) = ({}, {}, {}) AND c.id = ANY($1::uuid[]) AND c.key = {}",
                literal(migration),
                literal(&spec.table.schema),
                literal(&spec.table.name),
                compare::key_as_text(spec, "t"),
            ),
            1,
        ),
        By::Deletes => {
            let (mut arrays, mut names, mut equal) = (Vec::new(), Vec::new(), Vec::new());
            for (place, at) in spec.found_by().iter().enumerate() {
                let kind = &spec.table.columns[spec.columns[*at]].kind;
                arrays.push(format!("${}::{}[]", place + 1, element_type(kind)));
                names.push(format!("k{place}"));
                equal.push(format!("t.{} = d.k{place}", column(*at)));
            }
            let from = format!("unnest({}) AS d({}), {table} AS t", arrays.join(", "), names.join(", "));
            (from, equal.join(" AND "), arrays.len())
        }
    };
    let not_made: String = makers
        .iter()
        .enumerate()
        .map(|(number, maker)| {
            let names: Vec<String> =
                maker.key.iter().map(|at| quote(&maker.table.columns[maker.columns[*at]].name)).collect();
            let of =
                |row: &str| names.iter().map(|name| format!("{row}.{name}")).collect::<Vec<_>>().join(", ");
            // Hashed, however many rows the planner guesses.
            format!(
                " AND ({}) NOT IN (SELECT {} FROM {} AS r)",
                of("t"),
                of("r"),
                source(maker, parameters + number + 1)
            )
        })
        .collect();
    Some(format!("SELECT DISTINCT {} FROM {from} WHERE {same}{not_made}", compare::key_as_text(spec, "t")))
}
