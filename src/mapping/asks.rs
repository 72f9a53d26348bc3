//! What a schema asks of slackwater beyond writing rows: what somebody who runs the migration should know before. Pure.

use std::collections::{BTreeMap, BTreeSet};

use slackwater_connectors::postgres::target::catalog::{OnDelete, Table};
use slackwater_connectors::postgres::target::rows::{Missing, TableSpec};
use slackwater_connectors::postgres::target::statements::quote;

use super::compile::groups;
use super::plan::Plan;

/// One thing to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// `cycle`, `cascade`, `unique`, `key`, `trigger` or `text`.
    pub(crate) kind: &'static str,
    /// The tables that it is about, with their schemas.
    pub(crate) tables: Vec<String>,
    pub(crate) text: String,
}

fn name(table: &Table) -> String {
    format!("{}.{}", table.schema, table.name)
}

/// Everything that there is to know, by kind.
pub(crate) fn of(plan: &Plan) -> Vec<Ask> {
    let mut tables: Vec<&TableSpec> = Vec::new();
    for spec in plan.tables.iter().filter(|spec| !spec.is_ours()) {
        if tables.iter().all(|known| name(&known.table) != name(&spec.table)) {
            tables.push(spec);
        }
    }
    let mut asks = cycles(&tables);
    asks.extend(cascades(&tables));
    asks.extend(tables.iter().filter_map(|spec| uniques(spec)));
    asks.extend(tables.iter().flat_map(|spec| keys(spec)));
    asks.extend(tables.iter().filter_map(|spec| triggers(spec)));
    asks.extend(tables.iter().filter_map(|spec| texts(spec)));
    asks
}

/// References between the tables: from, to, which.
fn references<'a>(tables: &'a [&TableSpec]) -> impl Iterator<Item = (usize, usize, usize)> + 'a {
    tables.iter().enumerate().flat_map(move |(from, spec)| {
        spec.table.foreign_keys.iter().enumerate().filter_map(move |(at, key)| {
            let named =
                |other: &&TableSpec| (&other.table.schema, &other.table.name) == (&key.table.0, &key.table.1);
            Some((from, tables.iter().position(named)?, at))
        })
    })
}

fn cycles(tables: &[&TableSpec]) -> Vec<Ask> {
    let mut edges = vec![Vec::new(); tables.len()];
    for (from, to, _) in references(tables) {
        edges[from].push(to);
    }
    let circles =
        groups(&edges).into_iter().filter(|group| group.len() > 1 || edges[group[0]].contains(&group[0]));
    circles
        .map(|group| {
            let inside: Vec<_> = references(tables)
                .filter(|(from, to, _)| group.contains(from) && group.contains(to))
                .collect();
            let (mut later, mut held) = (Vec::new(), Vec::new());
            for (from, _, at) in inside {
                let table = &tables[from].table;
                let key = &table.foreign_keys[at];
                let column = |at: &usize| &table.columns[*at];
                let nullable = key.columns.iter().any(|at| !column(at).not_null)
                    && !key.columns.iter().any(|at| column(at).null_checked);
                if nullable { later.push(key.name.clone()) } else { held.push(key.name.clone()) }
            }
            let mut ways = Vec::new();
            if !later.is_empty() {
                ways.push(format!("{} is null until the other row is there", later.join(", ")));
            }
            if !held.is_empty() {
                ways.push(format!(
                    "for {} the row waits outside its table until the other can come",
                    held.join(", ")
                ));
            }
            let names: Vec<String> = group.iter().map(|at| name(&tables[*at].table)).collect();
            let text = match names.as_slice() {
                [one] => format!("rows of {one} refer to each other: {}", ways.join("; ")),
                _ => format!("{} refer to each other in a circle: {}", names.join(", "), ways.join("; ")),
            };
            Ask { kind: "cycle", tables: names, text }
        })
        .collect()
}

/// The table whose rows go, what Postgres would do to others, and whether the file wants that.
type Cascade = (String, &'static str, bool);

/// By the table whose rows go: a schema of fifty tables has a hundred of such references.
fn cascades(tables: &[&TableSpec]) -> Vec<Ask> {
    let mut found: BTreeMap<Cascade, Vec<(String, String)>> = BTreeMap::new();
    for (from, to, at) in references(tables) {
        let (child, parent) = (&tables[from].table, &tables[to].table);
        let key = &child.foreign_keys[at];
        let what = match key.on_delete {
            OnDelete::Refuse => continue,
            OnDelete::Cascade => "delete rows",
            OnDelete::SetNull => "set columns to null",
            OnDelete::SetDefault => "set columns to their defaults",
        };
        let rejects = key.columns.iter().any(|column| {
            let at = tables[from].columns.iter().position(|mapped| mapped == column);
            at.is_some_and(|at| tables[from].missing[at] == Missing::Reject)
        });
        found.entry((name(parent), what, rejects)).or_default().push((name(child), key.name.clone()));
    }
    let ask = |((parent, what, rejects), of): (Cascade, Vec<(String, String)>)| {
        let keys: Vec<String> = of.iter().map(|(child, key)| format!("{child} ({key})")).collect();
        let end = if rejects {
            "as `missing: reject` wants it"
        } else {
            "slackwater keeps what the source still has, and lets it wait instead"
        };
        let text =
            format!("when a row of {parent} goes, Postgres would {what} of {}; {end}", keys.join(", "));
        let mut tables: Vec<String> = of.into_iter().map(|(child, _)| child).collect();
        tables.dedup();
        tables.push(parent);
        Ask { kind: "cascade", tables, text }
    };
    found.into_iter().map(ask).collect()
}

fn uniques(spec: &TableSpec) -> Option<Ask> {
    let table = &spec.table;
    let columns = |columns: &[usize]| -> BTreeSet<String> {
        columns.iter().map(|at| quote(&table.columns[*at].name)).collect()
    };
    let key = columns(&spec.key.iter().map(|at| spec.columns[*at]).collect::<Vec<_>>());
    let own = |values: &[String]| -> bool {
        let quoted = |value: &String| if value.starts_with('"') { value.clone() } else { quote(value) };
        values.iter().map(quoted).collect::<BTreeSet<_>>() == key
    };
    let others: Vec<&str> = table
        .rivals
        .iter()
        .filter(|rival| rival.predicate.is_some() || !rival.operators.is_empty() || !own(&rival.values))
        .filter_map(|rival| rival.names.first().map(String::as_str))
        .collect();
    (!others.is_empty()).then(|| Ask {
        kind: "unique",
        tables: vec![name(table)],
        text: format!(
            "{} must be unique beside the key ({}): values may change places between documents; of real duplicates the second waits, \
             and blocks the switch",
            name(table),
            others.join(", ")
        ),
    })
}

fn keys(spec: &TableSpec) -> Vec<Ask> {
    let listed = |columns: &[usize]| -> String {
        let names: Vec<&str> =
            columns.iter().map(|at| spec.table.columns[spec.columns[*at]].name.as_str()).collect();
        names.join(", ")
    };
    let table = name(&spec.table);
    let mut texts = Vec::new();
    if let Some(found) = &spec.found {
        texts.push(format!(
            "rows of {table} are found by {}, and move when the rest of their key ({}) changes",
            listed(found),
            listed(&spec.key.iter().copied().filter(|at| !found.contains(at)).collect::<Vec<_>>())
        ));
    }
    if spec.claimed {
        texts.push(format!(
            "nothing of the key of {table} ({}) is made of `_id`: slackwater.claims keeps which row is whose. Of documents with the same key \
             the first has the row, and the others are dead letters",
            listed(&spec.key)
        ));
    }
    if let Some(serial) = spec.serial {
        texts.push(format!(
            "{} of {table} is taken from its sequence, once for each document, and kept in slackwater.numbers",
            listed(&[serial])
        ));
    }
    let key: BTreeSet<usize> = spec.key.iter().map(|at| spec.columns[*at]).collect();
    if !spec.table.primary_key.is_empty() && key != spec.table.primary_key.iter().copied().collect() {
        texts.push(format!(
            "rows of {table} are found by the unique {}, not by the primary key",
            listed(&spec.key)
        ));
    }
    texts.into_iter().map(|text| Ask { kind: "key", tables: vec![table.clone()], text }).collect()
}

fn triggers(spec: &TableSpec) -> Option<Ask> {
    let triggers = &spec.table.triggers;
    (!triggers.is_empty()).then(|| Ask {
        kind: "trigger",
        tables: vec![name(&spec.table)],
        text: format!(
            "{} has triggers ({}): they run for every row that slackwater writes, in the copy as well; what they write into tables of the \
             migration is overwritten or stays beside it",
            name(&spec.table),
            triggers.join(", ")
        ),
    })
}

fn texts(spec: &TableSpec) -> Option<Ask> {
    let columns: Vec<&str> = spec
        .shape
        .iter()
        .flat_map(|shape| shape.texts())
        .map(|at| spec.table.columns[spec.columns[at]].name.as_str())
        .collect();
    (!columns.is_empty()).then(|| Ask {
        kind: "text",
        tables: vec![name(&spec.table)],
        text: format!(
            "{} of {} are read from text by the database, so its copy is merged, which is slower than COPY",
            columns.join(", "),
            name(&spec.table)
        ),
    })
}
