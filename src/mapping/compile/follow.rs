//! The migration against a catalogue that has changed since it was compiled, while it runs.
//!
//! **Invariant**: collections and tables keep their numbers. Others hold them, in batches that are on their way.

use std::sync::Arc;

use slackwater_connectors::postgres::target::catalog::{Catalog, Table};
use slackwater_connectors::postgres::target::rows::{Apart, RowFormat, TableSpec};

use super::conversions::Surroundings;
use super::{Compiler, serial, set_levels};
use crate::config::{Collection, Diagnostic, Findings, Migration, Severity};
use crate::mapping::Sensitive;
use crate::mapping::plan::{Code, CollectionPlan, Plan};
use crate::mapping::trie::Trie;

/// A plan of the same migration. A collection that cannot be written as the tables are now stands still, and the mistake says why.
/// Without a plan from before, its tables are only names.
pub(crate) fn follow(
    file: &Migration,
    catalog: &Catalog,
    before: Option<&Plan>,
) -> (Plan, Vec<(usize, Diagnostic)>) {
    let series = serial::all(file, catalog);
    let around = Surroundings::of(file, &series, catalog);
    let mut tables: Vec<Option<TableSpec>> = Vec::new();
    let mut collections = Vec::new();
    let mut mistakes = Vec::new();
    for (index, collection) in file.collections.iter().enumerate() {
        let places = match before {
            Some(before) => before.collections[index].tables.clone(),
            None => (tables.len()..tables.len() + collection.tables.len()).collect(),
        };
        let most = places.iter().map(|place| place + 1).max().unwrap_or_default();
        tables.resize_with(tables.len().max(most), || None);
        let mut findings = Findings::new(file.file.clone());
        let mut specs = Vec::new();
        let compiler =
            Compiler { file, catalog, around: &around, specs: &mut specs, findings: &mut findings };
        let compiled = compiler.collection(collection);
        for (spec, place) in specs.iter().zip(&places) {
            let old = before.map(|before| &before.tables[*place]).filter(|old| !old.columns.is_empty());
            if old.is_some_and(|old| key_of(old) != key_of(spec)) {
                // Rows that wait, and those that a recopy has seen, are known by the old one.
                let message = format!("rows of `{}` were found by another key until now", spec.table.name);
                let help = "bring its unique constraint back, or start again";
                findings.error(collection.name.place, message, help);
            }
        }
        let found = findings.finish();
        let mistake = found.list().iter().find(|found| found.severity == Severity::Error);
        if let (Some(mut plan), None) = (compiled, mistake) {
            renumber(&mut plan, &places);
            for (spec, place) in specs.into_iter().zip(&places) {
                tables[*place] = Some(spec);
            }
            collections.push(plan);
            continue;
        }
        mistakes.extend(mistake.map(|mistake| (index, mistake.clone())));
        for (rule, place) in places.iter().enumerate() {
            let spec = before.map(|before| before.tables[*place].clone());
            let spec = spec.unwrap_or_else(|| named(file, collection, rule));
            tables[*place] = Some(TableSpec { stands: true, ..spec });
        }
        collections.push(still(collection, places));
    }
    let tables: Vec<TableSpec> = tables.into_iter().flatten().collect();
    set_levels(&mut collections, &tables);
    let plan = Plan {
        migration: file.name.clone(),
        namespace: file.namespace,
        collections,
        tables: Arc::new(tables),
        series,
        warnings: Findings::new(file.file.clone()).finish(),
    };
    (plan, mistakes)
}

/// The names of the columns by which rows are found.
fn key_of(spec: &TableSpec) -> Vec<&str> {
    let name = |at: &usize| spec.table.columns[spec.columns[*at]].name.as_str();
    let claims = spec.claimed.then_some("claims");
    spec.key.iter().chain(spec.found_by()).map(name).chain(claims).collect()
}

/// A collection that stands still.
fn still(collection: &Collection, tables: Vec<usize>) -> CollectionPlan {
    CollectionPlan {
        name: collection.name.value.clone(),
        source: collection.source.clone(),
        collection: collection.collection.clone(),
        stands: true,
        level: 0,
        after: Vec::new(),
        tables,
        sensitive: Sensitive::of(collection),
        code: Code {
            document: Trie::new(),
            rows: Vec::new(),
            each: Vec::new(),
            rest: false,
            id_values: false,
            routed: false,
            reject_others: false,
        },
    }
}

fn renumber(plan: &mut CollectionPlan, places: &[usize]) {
    let Code { rows, each, .. } = &mut plan.code;
    for row in rows.iter_mut().chain(each.iter_mut().map(|each| &mut each.row)) {
        row.table = places[row.table];
    }
    for table in &mut plan.tables {
        *table = places[*table];
    }
}

/// A table of which nothing is known but its name.
fn named(file: &Migration, collection: &Collection, rule: usize) -> TableSpec {
    // Rules without `each` come first, as the compiler has them.
    let (own, elements): (Vec<_>, Vec<_>) = collection.tables.iter().partition(|rule| rule.each.is_none());
    let rule = own.into_iter().chain(elements).nth(rule);
    let schema = rule.and_then(|rule| rule.schema.clone()).unwrap_or_else(|| file.target.schema.clone());
    let name = rule.map(|rule| rule.into.value.clone()).unwrap_or_default();
    let table = Table { schema, name, is_table: true, ..Table::default() };
    TableSpec {
        record: Arc::new(RowFormat::record(&table, &[])),
        copy: Arc::new(RowFormat::copy(0)),
        table: Arc::new(table),
        missing: Vec::new(),
        shape: None,
        ordered: false,
        serial: None,
        stands: true,
        source: collection.source.as_str().into(),
        apart: Apart::Alone,
        columns: Vec::new(),
        key: Vec::new(),
        found: None,
        claimed: false,
        owner: None,
    }
}
