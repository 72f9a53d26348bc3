//! The sections of the file: target, snapshot, defaults, collections.

use slackwater_connectors::secret::Secret;
use slackwater_topics::Namespace;

use super::append_only;
use super::checks;
use super::ciphers::Section as Ciphers;
use super::cutover;
use super::diagnostics::{At, Findings, Place};
use super::fields::{self, Fields};
use super::form::{self, Beside, Usual};
use super::log;
use super::lookups;
use super::migration::{
    Candidates, Collection, Log, Merge, Migration, Snapshot, Source, Table, Target, Verify,
};
use super::outside::{Outside, secret};
use super::path::Levels;
use super::predicate::predicate;
use super::rules::{self, Defaults};
use super::sources::sources;
use super::spelling::{list, nearest};
use super::tree::{Node, Shape};

/// What Postgres keeps of a name.
pub(crate) const LONGEST_NAME: usize = 63;

/// The schema of tables that are named without one, where the file names none either.
const PUBLIC: &str = "public";

const SECTIONS: [&str; 15] = [
    "migration",
    "namespace",
    "ids",
    "sources",
    "target",
    "log",
    "snapshot",
    "ciphers",
    "defaults",
    "collections",
    "not_migrated",
    "checks",
    "verify",
    "cutover",
    "include",
];

pub(super) fn migration(root: &Node, outside: &Outside<'_>, findings: &mut Findings) -> Option<Migration> {
    let mut fields = Fields::of(root, "a migration file", findings)?;
    let name = fields
        .require("migration", "give the migration a name: `migration: crm`", findings)
        .and_then(|(_, node)| fields::text(node, "the migration's name", findings));
    let namespace = fields.take("namespace").and_then(|(_, node)| namespace(node, findings));
    let kinds = [("hashed", false), ("time_ordered", true)];
    let ids = fields.take("ids").and_then(|(_, node)| fields::choice(node, "`ids`", &kinds, findings));
    let mut programs = Vec::new();
    let sources = fields
        .require("sources", "name the source: `sources: { legacy: { mongodb: { … } } }`", findings)
        .map(|(_, node)| sources(node, outside, &mut programs, findings));
    let target = fields
        .require("target", "name the target: `target: { postgres: { uri: … } }`", findings)
        .and_then(|(_, node)| target(node, outside, findings));
    let log = fields.take("log").map(|(_, node)| {
        let name = name.as_ref().map_or("", |name| name.value.as_str());
        log::log(node, name, outside, findings)
    });
    let snapshot = fields.take("snapshot").map(|(_, node)| snapshot(node, findings)).unwrap_or_default();
    let defaults = fields.take("defaults").map(|(_, node)| (Defaults::read(node, findings), Usual::of(node)));
    let (defaults, usual) = defaults.unwrap_or((Defaults::NONE, Usual::default()));
    let ciphers = fields.take("ciphers").map(|(_, node)| Ciphers::read(node, outside, findings));
    let ciphers = ciphers.unwrap_or_default();
    let known = sources.as_deref().unwrap_or_default();
    let collections =
        fields.require("collections", "say what becomes of each collection", findings).map(|(_, node)| {
            let schema = target.as_ref().map_or(PUBLIC, |target| target.schema.as_str());
            let beside = Beside { usual: &usual, schema, ciphers: &ciphers.forms() };
            collections(node, known, (defaults, beside), findings)
        });
    ciphers.check(collections.as_deref().unwrap_or_default(), findings);
    let not_migrated = fields.take("not_migrated");
    let not_migrated = not_migrated.map(|(_, node)| left_behind(node, known, findings)).unwrap_or_default();
    // The parts are there already.
    let _ = fields.take("include");
    let checks = fields.take("checks").map(|(_, node)| checks::checks(node, known, findings));
    let checks = checks.unwrap_or_default();
    let verify = fields.take("verify").map(|(_, node)| verify(node, findings));
    let cutover = fields.take("cutover").map(|(_, node)| cutover::cutover(node, outside, findings));
    let mut cutover = cutover.unwrap_or_default();
    cutover.programs.extend(programs);
    fields.finish(&SECTIONS, findings);
    for left in &not_migrated {
        if let Some(both) = collections.iter().flatten().find(|found| found.name.value == left.value) {
            let line = findings.line(both.name.place, left.place);
            let message = format!("`{}` is mapped in {line} and not migrated as well", left.value);
            findings.error(left.place, message, "take it out of one of the two");
        }
    }
    // Without a name the rest can still be judged; the mistake has been reported.
    let name = name.unwrap_or_else(|| At::new("unnamed".to_owned(), root.place));
    let namespace = namespace.unwrap_or_else(|| Namespace::of_migration(&name.value));
    let migration = Migration {
        namespace: if ids == Some(true) { namespace.ordered() } else { namespace },
        name: name.value,
        sources: sources.unwrap_or_default(),
        target: target.unwrap_or_else(|| Target {
            uri: Secret::new(String::new()),
            schema: PUBLIC.to_owned(),
            place: root.place,
            unread: true,
        }),
        log: log.flatten().unwrap_or(Log::Direct),
        snapshot,
        ciphers: ciphers.ciphers,
        collections: collections.unwrap_or_default(),
        not_migrated,
        checks,
        verify,
        cutover,
        file: findings.file(),
        fingerprint: String::new(),
        files: Vec::new(),
    };
    log::check_topics(&migration, findings);
    append_only::check(&migration, findings);
    Some(migration)
}

fn namespace(node: &Node, findings: &mut Findings) -> Option<Namespace> {
    let text = fields::text(node, "`namespace`", findings)?;
    match uuid::Uuid::parse_str(&text.value) {
        Ok(uuid) => Some(Namespace::new(uuid)),
        Err(_) => {
            findings.error(
                node.place,
                "`namespace` must be a UUID",
                "leave it out to have it made of the name",
            );
            None
        }
    }
}

fn target(node: &Node, outside: &Outside<'_>, findings: &mut Findings) -> Option<Target> {
    let mut fields = Fields::of(node, "`target`", findings)?;
    let found = fields.require("postgres", "`{ postgres: { uri: …, schema: public } }`", findings);
    fields.finish(&["postgres"], findings);
    let mut fields = Fields::of(found?.1, "`postgres`", findings)?;
    let uri = fields.require("uri", "write `uri: \"${NAME}\"`", findings);
    let place = uri.as_ref().map_or(node.place, |(_, node)| node.place);
    let uri = uri.and_then(|(_, node)| secret(node, "`uri`", outside, findings));
    let schema = fields.take("schema").and_then(|(_, node)| identifier(node, "the schema", findings));
    fields.finish(&["uri", "schema"], findings);
    let schema = schema.map_or_else(|| PUBLIC.to_owned(), |schema| schema.value);
    let unread = uri.is_none();
    Some(Target { uri: uri.unwrap_or_else(|| Secret::new(String::new())), schema, place, unread })
}

fn verify(node: &Node, findings: &mut Findings) -> Verify {
    let mut verify = Verify::default();
    let Some(mut fields) = Fields::of(node, "`verify`", findings) else { return verify };
    if let Some((_, node)) = fields.take("every") {
        verify.every = fields::duration(node, "`every`", findings).unwrap_or(verify.every);
    }
    if let Some((_, node)) = fields.take("throttle") {
        verify.throttle = fields::count(node, "`throttle`", findings).unwrap_or(verify.throttle);
    }
    fields.finish(&["every", "throttle"], findings);
    verify
}

fn snapshot(node: &Node, findings: &mut Findings) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let Some(mut fields) = Fields::of(node, "`snapshot`", findings) else { return snapshot };
    if let Some((_, node)) = fields.take("workers") {
        let workers = fields::count(node, "`workers`", findings).map(|count| count.min(64) as usize);
        snapshot.workers = workers.unwrap_or(snapshot.workers);
    }
    if let Some((_, node)) = fields.take("chunk_bytes") {
        snapshot.chunk_bytes = fields::size(node, "`chunk_bytes`", findings).unwrap_or(snapshot.chunk_bytes);
    }
    if let Some((_, node)) = fields.take("chunk_documents") {
        let count = fields::count(node, "`chunk_documents`", findings);
        snapshot.chunk_documents = count.unwrap_or(snapshot.chunk_documents);
    }
    fields.finish(&["workers", "chunk_bytes", "chunk_documents"], findings);
    snapshot
}

/// `source.collection` taken apart, where the source is known.
pub(super) fn split_name(
    name: &At<String>,
    sources: &[Source],
    findings: &mut Findings,
) -> Option<(String, String)> {
    match name.value.split_once('.') {
        Some((source, collection)) if !source.is_empty() && !collection.is_empty() => {
            // With no source read at all, its own mistake has been reported.
            if !sources.is_empty() && !sources.iter().any(|known| known.name.value == source) {
                let names = || sources.iter().map(|known| known.name.value.as_str());
                let help = match nearest(source, names()) {
                    Some(near) => format!("did you mean `{near}.{collection}`?"),
                    None => format!("sources: {}", list(names())),
                };
                findings.error(name.place, format!("there is no source `{source}`"), help);
            }
            Some((source.to_owned(), collection.to_owned()))
        }
        _ => {
            let help = "collections are named with their source: `legacy.users`";
            findings.error(name.place, format!("`{}` names no collection", name.value), help);
            None
        }
    }
}

fn left_behind(node: &Node, sources: &[Source], findings: &mut Findings) -> Vec<At<String>> {
    let mut names: Vec<At<String>> = Vec::new();
    for node in fields::items(node, "`not_migrated`", false, findings).unwrap_or_default() {
        let Some(name) = fields::text(node, "a collection", findings) else { continue };
        if split_name(&name, sources, findings).is_none() {
            continue;
        }
        if names.iter().any(|seen| seen.value == name.value) {
            findings.error(name.place, format!("`{}` is written twice", name.value), "keep one of them");
        } else {
            names.push(name);
        }
    }
    names
}

fn collections(
    node: &Node,
    sources: &[Source],
    (defaults, beside): (Defaults, Beside<'_>),
    findings: &mut Findings,
) -> Vec<Collection> {
    let Some(fields) = Fields::of(node, "`collections`", findings) else { return Vec::new() };
    let mut collections = Vec::new();
    let mut empty = Vec::new();
    for (name, node) in fields.into_entries() {
        let parts = split_name(name, sources, findings);
        let nodes = fields::items(node, "a collection", true, findings).unwrap_or_default();
        if nodes.is_empty() {
            empty.push((name.value.clone(), node.place));
        }
        let mut tables: Vec<Table> = Vec::new();
        let (mut reject_others, mut incomplete) = (None, false);
        for node in nodes {
            match otherwise(node, findings) {
                Some(place) => reject_others = Some(place),
                None => match table(node, defaults, findings) {
                    Some(table) => tables.push(table),
                    None => incomplete = true,
                },
            }
        }
        if let Some(place) = reject_others {
            let own = || tables.iter().filter(|table| table.each.is_none());
            if !incomplete && (own().count() == 0 || own().any(|table| table.when.is_none())) {
                let message = format!("every document of `{}` fits some table, or none is asked", name.value);
                findings.error(place, message, "`otherwise` goes with tables that all have `when`");
            }
        }
        let append_only = append_only::of(&tables, findings);
        if let Some((source, collection)) = parts {
            let name = name.clone();
            let form = form::of(nodes, beside);
            collections.push(Collection {
                name,
                source,
                collection,
                tables,
                reject_others,
                append_only,
                form,
                incomplete,
            });
        }
    }
    let taken = lookups::taken(&collections);
    for (name, place) in empty {
        if !taken.contains_key(&name) {
            let help = "give it a table (`into: …`), let a rule look something of it up, or list it under `not_migrated`";
            findings.error(place, format!("nothing becomes of `{name}`"), help);
            let found = collections.iter_mut().filter(|collection| collection.name.value == name);
            found.for_each(|collection| collection.incomplete = true);
        }
    }
    for collection in &mut collections {
        if let Some(taken) = taken.get(&collection.name.value) {
            collection.form.take(taken);
        }
    }
    if collections.len() > usize::from(u16::MAX) {
        findings.error(node.place, "more than 65 535 collections", "split the migration in two");
    }
    collections
}

const TABLE: [&str; 11] = [
    "into",
    "each",
    "when",
    "key",
    "merge",
    "order",
    "append_only",
    "history",
    "candidates",
    "set",
    "columns",
];

/// `- otherwise: reject`, beside the tables.
fn otherwise(node: &Node, findings: &mut Findings) -> Option<Place> {
    let Shape::Map(entries) = &node.shape else { return None };
    let [(key, word)] = &entries[..] else { return None };
    if key.value != "otherwise" {
        return None;
    }
    fields::choice(word, "`otherwise`", &[("reject", ())], findings);
    Some(key.place)
}

fn table(node: &Node, defaults: Defaults, findings: &mut Findings) -> Option<Table> {
    let mut fields = Fields::of(node, "a table", findings)?;
    let into = fields.require("into", "name the table: `into: users`", findings);
    let into = into.and_then(|(_, node)| table_name(node, findings));
    let each = fields.take("each");
    let in_element = each.is_some();
    let each = each.and_then(|(_, node)| {
        let text = fields::text(node, "`each`", findings)?;
        let levels = Levels::parse(&text.value);
        if let Err(why) = &levels {
            let help = "write `each: lines[]`, `each: orders[].lines[]`, or `each: prices{}` for the fields of an object";
            let message = format!("`each` must be an array or an object of the document: {why}");
            findings.error(node.place, message, help);
        }
        Some(At::new(levels.ok()?, text.place))
    });
    // Where it cannot be read nobody knows how far out the document is.
    let unread = if in_element { usize::MAX } else { 0 };
    let depth = each.as_ref().map_or(unread, |each| each.value.depth());
    let condition = fields.take("when");
    let unread_condition = condition.is_some();
    let when = condition.and_then(|(_, node)| {
        predicate(node, depth, findings).map(|condition| At::new(condition, node.place))
    });
    let unread_condition = unread_condition && when.is_none();
    let mut key = Vec::new();
    if let Some((_, node)) = fields.take("key") {
        for node in fields::items(node, "`key`", true, findings).unwrap_or_default() {
            key.extend(identifier(node, "a column of `key`", findings));
        }
    }
    let merge = fields.take("merge").and_then(|(_, node)| {
        let words = [("any", Merge::Any), ("all", Merge::All)];
        fields::choice(node, "`merge`", &words, findings).map(|word| At::new(word, node.place))
    });
    let order = fields.take("order");
    if let Some((key, _)) = order.as_ref().filter(|_| merge.is_none()) {
        let help = "`merge: any`, where several documents make one row; or take `order` out";
        findings.error(key.place, "`order` goes with `merge`", help);
    }
    let order = order.and_then(|(_, node)| rules::order(node, depth, findings)).map(Box::new);
    let append_only = fields
        .take("append_only")
        .and_then(|(key, node)| fields::boolean(node, "`append_only`", findings)?.then_some(key.place));
    let history = fields
        .take("history")
        .and_then(|(key, node)| fields::boolean(node, "`history`", findings)?.then_some(key.place));
    let candidates = fields.take("candidates").and_then(|(_, node)| candidates(node, findings));
    let (mut columns, mut unread) = (Vec::new(), Vec::new());
    if let Some((_, node)) = fields.take("set")
        && let Some(set) = Fields::of(node, "`set`", findings)
    {
        for (name, node) in set.into_entries() {
            checked_name(&name.value, name.place, "a column", findings);
            match rules::constant(name, node, findings) {
                Some(column) => columns.push(column),
                None => unread.push(name.value.clone()),
            }
        }
    }
    if let Some((_, node)) = fields.take("columns")
        && let Some(list) = Fields::of(node, "`columns`", findings)
    {
        for (name, node) in list.into_entries() {
            checked_name(&name.value, name.place, "a column", findings);
            if let Some(twice) = columns.iter().find(|column| column.name.value == name.value) {
                let line = findings.line(twice.name.place, name.place);
                let message = format!("`{}` has two rules, the first in {line} (`set`)", name.value);
                findings.error(name.place, message, "keep one of them");
            }
            match rules::column(name, node, depth, defaults, findings) {
                Some(column) => columns.push(column),
                None => unread.push(name.value.clone()),
            }
        }
    }
    if columns.is_empty() && unread.is_empty() {
        findings.error(fields.place(), "the table has no columns", "add `columns: { id: { uuid: _id } }`");
    }
    for merge in columns.iter().filter_map(|column| column.merge.as_ref()).filter(|_| merge.is_none()) {
        let help = "add `merge: any` beside `into`, where several documents make one row";
        findings.error(merge.place, "the table's rows are not merged", help);
    }
    fields.finish(&TABLE, findings);
    let (schema, into) = into?;
    if (in_element && each.is_none()) || unread_condition {
        return None;
    }
    Some(Table {
        schema,
        into,
        each,
        when,
        key,
        merge,
        order,
        append_only,
        history,
        candidates,
        columns,
        unread,
    })
}

/// `candidates: { near: name, within: 2, same: [city] }`.
fn candidates(node: &Node, findings: &mut Findings) -> Option<Candidates> {
    let mut fields = Fields::of(node, "`candidates`", findings)?;
    let near = fields.require("near", "name the column whose values are compared: `near: name`", findings);
    let near = near.and_then(|(_, node)| identifier(node, "the column of `near`", findings));
    let within = fields.take("within");
    let within =
        within.map_or(Some(2), |(_, node)| fields::choice(node, "`within`", &[("1", 1), ("2", 2)], findings));
    let mut same = Vec::new();
    if let Some((_, node)) = fields.take("same") {
        for node in fields::items(node, "`same`", true, findings).unwrap_or_default() {
            same.extend(identifier(node, "a column of `same`", findings));
        }
    }
    fields.finish(&["near", "within", "same"], findings);
    Some(Candidates { near: near?, within: within?, same })
}

/// `table` or `schema.table`.
fn table_name(node: &Node, findings: &mut Findings) -> Option<(Option<String>, At<String>)> {
    let name = fields::text(node, "`into`", findings)?;
    let (schema, table) = match name.value.split_once('.') {
        Some((schema, table)) => (Some(schema.to_owned()), table.to_owned()),
        None => (None, name.value),
    };
    if let Some(schema) = &schema {
        checked_name(schema, node.place, "the schema", findings);
    }
    checked_name(&table, node.place, "the table", findings);
    Some((schema, At::new(table, name.place)))
}

fn identifier(node: &Node, what: &str, findings: &mut Findings) -> Option<At<String>> {
    let name = fields::text(node, what, findings)?;
    checked_name(&name.value, name.place, what, findings);
    Some(name)
}

/// Postgres cuts long names with no error, and two can fall together; empty ones it refuses.
fn checked_name(name: &str, place: Place, what: &str, findings: &mut Findings) {
    if name.is_empty() {
        findings.error(place, format!("{what} has an empty name"), "Postgres takes no empty names");
    } else if name.len() > LONGEST_NAME {
        let message = format!("the name of {what} has {} bytes", name.len());
        findings.error(place, message, "Postgres cuts names after 63 bytes: use the one that the table has");
    }
}
