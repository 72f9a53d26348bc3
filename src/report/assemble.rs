//! One object of all that a report tells: what the run says of itself, and what is known beside it. Pure.
//!
//! What a run says stands as it comes, so a field that it gets later is in the report. Fields are added, never removed.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use slackwater_connectors::postgres::control::reports::ListedLetter;
use slackwater_topics::Key;

use super::gather::Gathered;
use super::{Kind, Run};
use crate::config::{Log, Migration};

/// The form of the report.
const FORM: u64 = 1;
/// The page and the JSON list no more dead letters; all of them are in the CSV.
const LISTED: usize = 1_000;

/// See the module.
pub(super) fn report(run: &Run<'_>, gathered: &Gathered, host: &str, now: i64) -> Value {
    let look = &gathered.look;
    let mut report = match &run.said {
        Value::Object(said) => said.clone(),
        // What was stored by another version may be anything.
        other => Map::from_iter([("said".to_owned(), other.clone())]),
    };
    let mut verification = look["verification"].clone();
    if let (Some(verification), Kind::Cutover) = (verification.as_object_mut(), run.kind) {
        verification.insert("report".into(), gathered.verified.clone());
    }
    let more = json!({
        "form": FORM,
        "kind": run.kind.noun(),
        "migration": run.migration.name,
        "slackwater": env!("CARGO_PKG_VERSION"),
        "host": host,
        "log": if matches!(run.migration.log, Log::Direct) { "direct" } else { "kafka" },
        "started_at": run.started_at,
        "ended_at": now,
        "versions": gathered.versions,
        "migration_file": files(run.migration),
        "moved": moved(run, gathered),
        "collections": look["collections"],
        "not_moved": not_moved(run.migration, gathered),
        "verification": verification,
        "incidents": look["incidents"],
        "incidents_total": look["incidents_total"],
        "missing": gathered.missing,
    });
    if let Value::Object(more) = more {
        report.extend(more);
    }
    Value::Object(report)
}

/// The findings that a report lists, where there was a verification.
pub(super) fn findings(report: &Value) -> Option<&[Value]> {
    let verified =
        if report["kind"] == Kind::Verification.noun() { report } else { &report["verification"]["report"] };
    verified["findings"].as_array().map(Vec::as_slice)
}

fn files(migration: &Migration) -> Vec<Value> {
    migration.files.iter().map(|file| json!({"path": file.path, "sha256": file.sha256})).collect()
}

/// What is in the target, by table: as it was counted in the freeze, as it was verified, and about how much there is.
fn moved(run: &Run<'_>, gathered: &Gathered) -> Vec<Value> {
    let mut tables: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for collection in &run.migration.collections {
        for table in &collection.tables {
            let schema = table.schema.as_ref().unwrap_or(&run.migration.target.schema);
            let from = tables.entry(format!("{schema}.{}", table.into.value)).or_default();
            if !from.contains(&collection.name.value.as_str()) {
                from.push(&collection.name.value);
            }
        }
    }
    let verified = if run.kind == Kind::Verification { &run.said } else { &gathered.verified };
    // Rows of another run may have become more or fewer since.
    let verified_at = match run.kind {
        Kind::Verification => &Value::Null,
        Kind::Cutover => &gathered.look["verification"]["ended"],
    };
    let of = |list: &Value, table: &str| {
        let rows = list.as_array().map(Vec::as_slice).unwrap_or_default();
        rows.iter().find(|row| row["table"] == table).cloned().unwrap_or_default()
    };
    tables
        .into_iter()
        .map(|(table, collections)| {
            let counted = of(&run.said["counts"], &table);
            let proven = of(&verified["tables"], &table);
            let about = gathered.about.iter().find(|(name, _)| *name == table).and_then(|(_, rows)| *rows);
            let compared = counted["rows"].as_u64().map(|rows| counted["documents"] == rows);
            json!({
                "table": table, "collections": collections, "documents": counted["documents"], "rows": counted["rows"],
                "counts_agree": compared, "about_rows": about,
                "verified_rows": proven["rows"], "verified_at": if proven["rows"].is_null() { &Value::Null } else { verified_at },
                "missing": proven["missing"], "different": proven["different"],
                "extra": proven["extra"], "waiting": proven["waiting"],
            })
        })
        .collect()
}

/// What is not in the target, and by which policy.
fn not_moved(migration: &Migration, gathered: &Gathered) -> Value {
    let look = &gathered.look;
    let left: Vec<&str> = migration.not_migrated.iter().map(|name| name.value.as_str()).collect();
    let letters: Vec<Value> = gathered.letters.iter().take(LISTED).map(letter).collect();
    json!({
        "not_migrated": left,
        "dead_letters": look["dead_letters"],
        "dead_letters_total": gathered.letters.len(),
        "dead_letter_documents": letters,
        "waiting": look["waiting"],
        "standing": look["standing"],
        "gone": look["gone"],
        "append_only": look["append_only"],
        "policies": look["tallies"],
    })
}

/// A dead letter: which document, and why. Never what is in it.
fn letter(letter: &ListedLetter) -> Value {
    json!({
        "collection": letter.collection, "document": document(&letter.key), "kind": letter.kind, "reason": letter.text,
        "table": letter.table, "column": letter.column, "first_seen": letter.first_seen, "last_seen": letter.last_seen,
        "tries": letter.tries,
    })
}

/// The id of a document, or the place of a record in a topic.
pub(super) fn document(key: &[u8]) -> String {
    match key.strip_prefix(crate::letters::RECORD) {
        Some(place) => format!("record {}", String::from_utf8_lossy(place)),
        None => Key::from_bytes(key).to_string(),
    }
}
