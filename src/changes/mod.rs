//! A migration file that changes while its migration runs: what the change means for rows that are there. Pure;
//! `docs/design/changed-mapping.md` has the reasons.
//!
//! What rows are made by is compared as digests by table and column ([`crate::config::Form`]), with what the control store has kept.
//! A change means that collections are copied again, that columns or tables are left as they are, or it is refused.

pub(crate) mod count;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use slackwater_connectors::postgres::control::mapping::Recorded;

use crate::config::{At, Collection, Findings, Form, LOOKED_UP, Migration, Place, Table, TableForm, digest};
use crate::mapping::Plan;

/// What is kept of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    form: Form,
    /// The columns by which rows are found, by table: what the file states, or what the table has.
    found_by: BTreeMap<String, Vec<String>>,
}

/// One thing that is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) what: What,
    pub(crate) collection: String,
    /// With its schema.
    pub(crate) table: Option<String>,
    pub(crate) column: Option<String>,
    /// It is of a table of history, and holds for versions that come: those that are rows are not made again.
    pub(crate) from_now_on: bool,
}

impl Change {
    /// Rows that are there have to be made again.
    pub(crate) fn recopies(&self) -> bool {
        !self.from_now_on && self.what.recopies()
    }
}

/// What is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A collection that was not in the file.
    NewCollection,
    /// One that was, and is again.
    BackAgain,
    /// One that is not in the file any more.
    CollectionOut,
    /// A table that the collection did not fill.
    NewTable,
    /// Other rows are made.
    Rows,
    /// A table that it does not fill any more.
    TableOut,
    /// A column that nothing filled.
    NewColumn,
    /// A column that is made by another rule.
    Rule,
    /// A column that nothing fills any more.
    ColumnOut,
}

impl What {
    /// A word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::NewCollection => "new_collection",
            Self::BackAgain => "collection_back",
            Self::CollectionOut => "collection_out",
            Self::NewTable => "new_table",
            Self::Rows => "other_rows",
            Self::TableOut => "table_out",
            Self::NewColumn => "new_column",
            Self::Rule => "other_rule",
            Self::ColumnOut => "column_out",
        }
    }

    /// Rows that are there have to be made again, unless they are versions.
    fn recopies(self) -> bool {
        matches!(self, Self::BackAgain | Self::NewTable | Self::Rows | Self::NewColumn | Self::Rule)
    }
}

/// What the file changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) list: Vec<Change>,
    /// What the file may not change, with its place, what is wrong, and what to do.
    pub(crate) refused: Vec<(Place, String, String)>,
    /// What was there before is not known: a version wrote it that kept nothing.
    pub(crate) unknown: bool,
    /// Nothing fills these tables any more.
    pub(crate) left: Vec<(String, String)>,
}

impl Changes {
    /// The collections that are copied again, each once, with the reason.
    pub(crate) fn recopies(&self) -> Vec<(String, String)> {
        let mut again: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for change in self.list.iter().filter(|change| change.recopies()) {
            again.entry(&change.collection).or_default().push(change.reason());
        }
        let text = |reasons: Vec<String>| format!("the migration file has changed: {}", reasons.join(", "));
        again.into_iter().map(|(name, reasons)| (name.to_owned(), text(reasons))).collect()
    }

    /// Collections that are not in the file any more.
    pub(crate) fn out(&self) -> Vec<String> {
        let out = self.list.iter().filter(|change| change.what == What::CollectionOut);
        out.map(|change| change.collection.clone()).collect()
    }

    /// Puts what is refused among the mistakes of the file.
    pub(crate) fn complain(&self, findings: &mut Findings) {
        for (place, message, help) in &self.refused {
            findings.error(*place, message.clone(), help.clone());
        }
    }
}

/// The digest of everything that rows are made by.
pub(crate) fn digest_of(migration: &Migration) -> String {
    let forms = migration.collections.iter().map(|collection| (&collection.name.value, &collection.form));
    let forms: BTreeMap<_, _> = forms.collect();
    digest(&serde_json::to_string(&forms).unwrap_or_default())
}

/// What is to be kept of each collection. Of a table that stands still it is not known how rows are found: what was kept stays.
pub(crate) fn kept(migration: &Migration, plan: &Plan, before: Option<&Recorded>) -> Vec<(String, String)> {
    let collections = migration.collections.iter().map(|collection| {
        let name = &collection.name.value;
        let mut found_by = before.and_then(|before| read(before, name)).unwrap_or_default().found_by;
        found_by.retain(|table, _| collection.form.0.contains_key(table));
        found_by.extend(keys(collection, plan, &migration.target.schema));
        let kept = Kept { form: collection.form.clone(), found_by };
        (name.clone(), serde_json::to_string(&kept).unwrap_or_default())
    });
    collections.collect()
}

/// What was kept of a collection; nothing if another version of the program wrote it in another form.
fn read(before: &Recorded, collection: &str) -> Option<Kept> {
    serde_json::from_str(&before.collections.get(collection)?.mapping).ok()
}

/// Stands beside the key of rows that are made of parts. No column is called so.
const MADE: &str = "(made of parts)";

/// The columns by which the rows of each table are found.
fn keys(collection: &Collection, plan: &Plan, schema: &str) -> BTreeMap<String, Vec<String>> {
    let Some(id) = plan.id_of(&collection.name.value) else { return BTreeMap::new() };
    let specs = plan.collection(id).tables.iter().map(|table| plan.written(*table));
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for spec in specs.filter(|spec| !spec.stands) {
        let name = format!("{}.{}", spec.table.schema, spec.table.name);
        let rule = collection.tables.iter().find(|rule| full_name(rule, schema) == name);
        if rule.is_some() && !found.contains_key(&name) {
            let mut key: Vec<String> =
                spec.key.iter().map(|at| spec.table.columns[spec.columns[*at]].name.clone()).collect();
            if spec.whole().is_some() {
                key.push(MADE.to_owned());
            }
            key.sort();
            found.insert(name, key);
        }
    }
    found
}

/// Schema and table.
fn full_name(rule: &Table, schema: &str) -> String {
    format!("{}.{}", rule.schema.as_deref().unwrap_or(schema), rule.into.value)
}

/// What the file changes, compared with what was kept.
pub(crate) fn compare(migration: &Migration, plan: &Plan, before: Option<&Recorded>) -> Changes {
    let mut changes = Changes::default();
    let Some(before) = before else { return changes };
    if before.namespace != plan.namespace.as_uuid() {
        let place = migration.file_place();
        let message = "the migration's rows were made with another `namespace` or another kind of `ids`";
        changes.refused.push((place, message.to_owned(), anew("put the old one back")));
    }
    if before.digest.is_none() {
        changes.unknown = true;
        return changes;
    }
    for collection in &migration.collections {
        let name = &collection.name.value;
        let kept = before.collections.get(name).and_then(|_| read(before, name));
        let histories = histories(collection, kept.as_ref(), &migration.target.schema);
        let mut add = |what, table: Option<&str>, column: Option<&str>| {
            let from_now_on = table.is_some_and(|table| histories.holds_from_now_on(what, table));
            let (table, column) = (table.map(str::to_owned), column.map(str::to_owned));
            changes.list.push(Change { what, collection: name.clone(), table, column, from_now_on });
        };
        let Some(recorded) = before.collections.get(name) else {
            add(What::NewCollection, None, None);
            continue;
        };
        if recorded.is_out {
            add(What::BackAgain, None, None);
        }
        let Some(kept) = kept.as_ref() else {
            add(What::Rows, None, None);
            continue;
        };
        tables(collection, kept, recorded.is_out, &mut add);
        changes.refused.extend(refused(collection, plan, kept, &migration.target.schema));
    }
    let named: BTreeSet<&str> = migration.collections.iter().map(|found| found.name.value.as_str()).collect();
    let gone = before.collections.iter().filter(|(name, row)| !row.is_out && !named.contains(name.as_str()));
    for (name, _) in gone {
        let (table, column) = (None, None);
        let (what, collection) = (What::CollectionOut, name.clone());
        changes.list.push(Change { what, collection, table, column, from_now_on: false });
    }
    changes.left = left(migration, before);
    changes
}

/// The tables of history of a collection.
struct Histories {
    tables: BTreeSet<String>,
    /// Some of them had that before: what is known of the documents' versions goes on.
    stood: bool,
}

impl Histories {
    /// A change concerns versions that come, and no others: a recopy finds none that is new.
    fn holds_from_now_on(&self, what: What, table: &str) -> bool {
        let holds = match what {
            What::NewColumn | What::Rule => true,
            What::NewTable => self.stood,
            _ => false,
        };
        holds && self.tables.contains(table)
    }
}

fn histories(collection: &Collection, kept: Option<&Kept>, schema: &str) -> Histories {
    let rules = collection.tables.iter().filter(|rule| rule.history.is_some());
    let tables: BTreeSet<String> = rules.map(|rule| full_name(rule, schema)).collect();
    let same = |table: &String| {
        let before = kept.and_then(|kept| kept.form.0.get(table));
        before.zip(collection.form.0.get(table)).is_some_and(|(before, form)| before.rows == form.rows)
    };
    Histories { stood: tables.iter().any(same), tables }
}

/// `is_out`: the collection is copied again anyway, and what stays as it is was told when it was taken out.
fn tables(
    collection: &Collection,
    kept: &Kept,
    is_out: bool,
    add: &mut impl FnMut(What, Option<&str>, Option<&str>),
) {
    for (table, form) in &collection.form.0 {
        let Some(before) = kept.form.0.get(table) else {
            add(What::NewTable, Some(table), None);
            continue;
        };
        if table == LOOKED_UP {
            // Said once, whatever it is.
            if form.columns.keys().any(|field| !before.columns.contains_key(field)) {
                add(What::NewColumn, Some(table), None);
            }
            continue;
        }
        if form.rows != before.rows {
            add(What::Rows, Some(table), None);
        }
        for (column, rule) in &form.columns {
            match before.columns.get(column) {
                None => add(What::NewColumn, Some(table), Some(column)),
                Some(before) if before.rule != rule.rule => add(What::Rule, Some(table), Some(column)),
                Some(_) => {}
            }
        }
        if is_out {
            continue;
        }
        for column in before.columns.keys().filter(|column| !form.columns.contains_key(*column)) {
            add(What::ColumnOut, Some(table), Some(column));
        }
    }
    for table in kept.form.0.keys().filter(|table| !is_out && !collection.form.0.contains_key(*table)) {
        add(What::TableOut, Some(table), None);
    }
}

/// What would make rows that are not found again: they would stay beside the new ones.
fn refused(collection: &Collection, plan: &Plan, kept: &Kept, schema: &str) -> Vec<(Place, String, String)> {
    let mut refused = Vec::new();
    let now = keys(collection, plan, schema);
    for rule in &collection.tables {
        let table = full_name(rule, schema);
        let (Some(form), Some(before)) = (collection.form.0.get(&table), kept.form.0.get(&table)) else {
            continue;
        };
        let (Some(old), Some(new)) = (kept.found_by.get(&table), now.get(&table)) else { continue };
        let is_made = |key: &[String]| key.iter().any(|column| column == MADE);
        if is_made(old) != is_made(new) {
            let message = format!(
                "rows of `{table}` {}: nobody would know any more which documents made those that are there",
                match is_made(new) {
                    true => "would be merged, or look something up, and did not until now",
                    false => "are merged, or look something up, until now, and would not any more",
                }
            );
            refused.push((rule.into.place, message, anew("put the old rules back, or fill another table")));
            continue;
        }
        let plain = |key: &[String]| key.iter().filter(|column| *column != MADE).cloned().collect::<Vec<_>>();
        let (old, new) = (&plain(old), &plain(new));
        let other_key = old != new && (form.key != before.key || lacks(form, old));
        if other_key {
            let place = rule.key.first().map_or(rule.into.place, |at| at.place);
            let message = format!(
                "rows of `{table}` are found by {} until now, and would be found by {}: those that are there would not be found \
                 again",
                listed(old),
                listed(new)
            );
            refused.push((place, message, anew("put the old key back")));
            continue;
        }
        for column in old {
            let (Some(was), Some(is)) = (before.columns.get(column), form.columns.get(column)) else {
                continue;
            };
            if was.value != is.value {
                let place = place_of(rule, column);
                let message = format!(
                    "rows of `{table}` are found by `{column}`, and it is made by another rule until now: those that are there \
                     would not be found again"
                );
                refused.push((place, message, anew("put the old rule back")));
            }
        }
    }
    refused
}

/// Some column of the key is not filled any more.
fn lacks(form: &TableForm, key: &[String]) -> bool {
    key.iter().any(|column| !form.columns.contains_key(column))
}

fn place_of(rule: &Table, column: &str) -> Place {
    let found = rule.columns.iter().find(|known| known.name.value == column);
    found.map_or(rule.into.place, |found| found.name.place)
}

fn listed(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// What to do about a change that is refused.
fn anew(back: &str) -> String {
    format!(
        "{back}; or begin anew with the new file: `slackwater reset FILE --rows` takes what the migration has written and what is \
         known of it, and the next start copies everything"
    )
}

/// Tables that some collection filled and none does any more.
fn left(migration: &Migration, before: &Recorded) -> Vec<(String, String)> {
    let plain = |name: &str| name.split(" (").next().unwrap_or(name).to_owned();
    let filled: BTreeSet<String> = migration
        .collections
        .iter()
        .flat_map(|collection| collection.form.0.keys())
        .map(|name| plain(name))
        .collect();
    let kept = before.collections.keys().filter_map(|name| read(before, name));
    let known: BTreeSet<String> =
        kept.flat_map(|kept| kept.form.0.into_keys()).map(|name| plain(&name)).collect();
    let left = known.difference(&filled).filter_map(|name| name.split_once('.'));
    left.map(|(schema, table)| (schema.to_owned(), table.to_owned())).collect()
}

/// Where a mistake is that belongs to no line of its own.
impl Migration {
    fn file_place(&self) -> Place {
        self.collections.first().map_or(self.target.place, |found: &Collection| {
            let At { place, .. } = &found.name;
            *place
        })
    }
}

#[cfg(test)]
mod tests;
