//! The migration against a catalogue that has changed since it was compiled, while it runs.
//!
//! **Invariant**: collections and tables keep their numbers. Others hold them, in batches that are on their way.

use std::sync::Arc;

use slackwater_connectors::postgres::target::catalog::{Catalog, Table};
use slackwater_connectors::postgres::target::rows::{Apart, Merging, RowFormat, TableSpec};

use super::conversions::Surroundings;
use super::{Compiler, Part, Places, lookups, merged, same_table, serial, set_levels};
use crate::config::{Collection, Diagnostic, Findings, Migration, Severity};
use crate::mapping::plan::{Code, CollectionPlan, Plan};
use crate::mapping::trie::Trie;
use crate::mapping::{Sensitive, Travel};

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
    let mut parts: Vec<Part> = Vec::new();
    let known = lookups::all(file, catalog);
    let mut kept = Places::new();
    for (index, collection) in file.collections.iter().enumerate() {
        let places = match before {
            Some(before) => before.collections[index].tables.clone(),
            None => {
                let looked_up = usize::from(known.contains_key(&collection.name.value));
                (tables.len()..tables.len() + collection.tables.len() + looked_up).collect()
            }
        };
        let most = places.iter().map(|place| place + 1).max().unwrap_or_default();
        tables.resize_with(tables.len().max(most), || None);
        let mut findings = Findings::new(file.file.clone());
        let (mut specs, mut given, mut theirs) = (Vec::new(), Vec::new(), Places::new());
        let compiler = Compiler {
            file,
            catalog,
            around: &around,
            specs: &mut specs,
            parts: &mut given,
            known: &known,
            places: &mut theirs,
            findings: &mut findings,
        };
        let compiled = compiler.collection(collection);
        let mut places = places;
        let beyond = tables.len().max(before.map_or(0, |before| before.tables.len()));
        // Where it could not be compiled before, nobody knew of tables of ours.
        let more = if compiled.is_some() { specs.len().saturating_sub(places.len()) } else { 0 };
        places.extend(beyond..beyond + more);
        let most = places.iter().map(|place| place + 1).max().unwrap_or_default();
        tables.resize_with(tables.len().max(most), || None);
        for (spec, place) in specs.iter().zip(&places) {
            let old =
                before.and_then(|before| before.tables.get(*place)).filter(|old| !old.columns.is_empty());
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
            parts.extend(given.into_iter().map(|part| {
                let spec = places[part.spec];
                part.at(spec)
            }));
            kept.extend(theirs.into_iter().map(|(name, spec)| (name, places[spec])));
            for (spec, place) in specs.into_iter().zip(&places) {
                tables[*place] = Some(spec);
            }
            collections.push(plan);
            continue;
        }
        mistakes.extend(mistake.map(|mistake| (index, mistake.clone())));
        for (rule, place) in places.iter().enumerate() {
            let spec = before.and_then(|before| before.tables.get(*place)).cloned();
            let spec = spec.unwrap_or_else(|| named(file, collection, rule));
            tables[*place] = Some(TableSpec { stands: true, ..spec });
        }
        // What it has given is there, and counts.
        let theirs = before.iter().flat_map(|before| &before.parts);
        parts.extend(theirs.filter(|part| places.contains(&part.spec)).cloned());
        let theirs = before.iter().flat_map(|before| &before.places);
        kept.extend(
            theirs.filter(|(_, spec)| places.contains(spec)).map(|(name, spec)| (name.clone(), *spec)),
        );
        collections.push(still(file, collection, places));
    }
    let mut findings = Findings::new(file.file.clone());
    let there: Vec<Option<&TableSpec>> = tables.iter().map(Option::as_ref).collect();
    for whole in merged::wholes(file, catalog, &parts, &there, &kept, &mut findings) {
        let name = (whole.table.schema.clone(), whole.table.name.clone());
        let known = before.and_then(|before| {
            before.tables.iter().position(|old| old.whole().is_some() && same_table(old, &name))
        });
        let of = known.unwrap_or(tables.len());
        tables.resize_with(tables.len().max(of + 1), || None);
        for part in whole.whole().into_iter().flat_map(|whole| &whole.parts) {
            if let Some(part) = &mut tables[*part] {
                part.merging = Merging::Part { of };
            }
        }
        tables[of] = Some(whole);
    }
    // A table that is gone has no place above.
    for (at, old) in before.iter().flat_map(|before| before.tables.iter().enumerate()) {
        tables.resize_with(tables.len().max(at + 1), || None);
        if tables[at].is_none() {
            tables[at] = Some(TableSpec { stands: true, ..old.clone() });
        }
    }
    let tables: Vec<TableSpec> = tables.into_iter().flatten().collect();
    set_levels(&mut collections, &tables);
    let mut plan = Plan {
        parts,
        places: kept,
        migration: file.name.clone(),
        namespace: file.namespace,
        collections,
        tables: Arc::new(tables),
        series,
        warnings: Findings::new(file.file.clone()).finish(),
    };
    if before.is_none() {
        wait_for_others(file, &mut plan);
    }
    (plan, mistakes)
}

/// Rows that are merged cannot be made without the parts of a collection of which nothing is known.
fn wait_for_others(file: &Migration, plan: &mut Plan) {
    let merged = |collection: &Collection| -> Vec<(Option<String>, String)> {
        let rules = collection.tables.iter().filter(|rule| rule.merge.is_some());
        rules.map(|rule| (rule.schema.clone(), rule.into.value.clone())).collect()
    };
    let mut still: Vec<usize> =
        (0..plan.collections.len()).filter(|index| plan.collections[*index].stands).collect();
    let mut at = 0;
    while let Some(index) = still.get(at).copied() {
        let tables = merged(&file.collections[index]);
        for (other, collection) in file.collections.iter().enumerate() {
            if !still.contains(&other) && merged(collection).iter().any(|table| tables.contains(table)) {
                still.push(other);
            }
        }
        at += 1;
    }
    plan.stand(&still);
}

/// The names of the columns by which rows are found.
fn key_of(spec: &TableSpec) -> Vec<&str> {
    let name = |at: &usize| spec.table.columns[spec.columns[*at]].name.as_str();
    let claims = spec.claimed.then_some("claims");
    spec.key.iter().chain(spec.found_by()).map(name).chain(claims).collect()
}

/// A collection that stands still.
fn still(file: &Migration, collection: &Collection, tables: Vec<usize>) -> CollectionPlan {
    CollectionPlan {
        name: collection.name.value.clone(),
        source: collection.source.clone(),
        collection: collection.collection.clone(),
        stands: true,
        append_only: collection.append_only.is_some(),
        level: 0,
        after: Vec::new(),
        tables,
        sensitive: Sensitive::of(collection),
        // A capture may send its documents all the same.
        travel: Travel::of(collection, &file.ciphers).map(Arc::new),
        code: Code {
            document: Trie::new(),
            rows: Vec::new(),
            each: Vec::new(),
            holders: Vec::new(),
            rest: false,
            id_values: false,
            routed: false,
            reject_others: false,
        },
    }
}

fn renumber(plan: &mut CollectionPlan, places: &[usize]) {
    let Code { rows, each, holders, .. } = &mut plan.code;
    for row in rows.iter_mut().chain(each.iter_mut().map(|each| &mut each.row)) {
        row.table = places[row.table];
    }
    for holder in holders {
        holder.table = places[holder.table];
    }
    for table in &mut plan.tables {
        *table = places[*table];
    }
}

/// A table of which nothing is known but its name.
fn named(file: &Migration, collection: &Collection, rule: usize) -> TableSpec {
    // Rules without `each` come first, as the compiler has them.
    let (own, mut elements): (Vec<_>, Vec<_>) =
        collection.tables.iter().partition(|rule| rule.each.is_none());
    elements.sort_by_key(|rule| rule.each.as_ref().map_or(0, |each| each.value.depth()));
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
        holder: None,
        merging: Merging::None,
        columns: Vec::new(),
        key: Vec::new(),
        found: None,
        claimed: false,
        owner: None,
    }
}
