//! `append_only: true` and `history: true` beside `into`: what goes with them, and what does not.

use super::diagnostics::{Findings, Place};
use super::migration::{Collection, Log, Migration, Table};

/// It holds for documents, so all tables of a collection say it, or none.
pub(super) fn of(tables: &[Table], findings: &mut Findings) -> Option<Place> {
    let place = tables.iter().find_map(|table| table.append_only)?;
    for table in tables.iter().filter(|table| table.append_only.is_none()) {
        let message = format!(
            "`append_only` holds for documents, and `{}` is filled by the same ones without it",
            table.into.value
        );
        let help = "write `append_only: true` beside every `into` of the collection";
        findings.error(table.into.place, message, help);
    }
    Some(place)
}

/// What other parts of the file make impossible.
pub(super) fn check(migration: &Migration, findings: &mut Findings) {
    let is_policy = |(name, value): &(String, String)| name == "cleanup.policy" && value.contains("compact");
    let compact =
        matches!(&migration.log, Log::Kafka(log) if log.compact || log.config.iter().any(is_policy));
    for collection in &migration.collections {
        let history = collection.history();
        if let Some(place) = history {
            histories(collection, place, findings);
        }
        let Some(place) = collection.append_only.or(history) else { continue };
        if compact {
            let name = &collection.name.value;
            let message = format!("a compacted topic would lose versions of the documents of `{name}`");
            findings.error(place, message, "topics that are not compacted: take `compact` out of `log`");
        }
        if collection.append_only.is_none() {
            continue;
        }
        for table in &collection.tables {
            let others = migration.collections.iter().filter(|other| other.append_only.is_none());
            for other in others {
                shared(migration, collection, table, other, findings);
            }
        }
    }
}

/// What a table with a row a version cannot have.
fn histories(collection: &Collection, place: Place, findings: &mut Findings) {
    if let Some(other) = collection.append_only {
        let message = "documents of which the first version stands have no history";
        findings.error(other, message, "take `append_only` or `history` out");
    }
    for table in collection.tables.iter().filter(|table| table.history.is_some()) {
        let place = table.history.unwrap_or(place);
        let with = [
            ("each", table.each.is_some()),
            ("when", table.when.is_some()),
            ("merge", table.merge.is_some()),
        ];
        for (word, _) in with.into_iter().filter(|(_, is_there)| *is_there) {
            let message = format!(
                "`{word}` does not go with `history`: each version of a document is a row of its own"
            );
            findings.error(place, message, "take one of them out");
        }
    }
}

/// At the end of a recopy of the other collection nobody would know which rows of the table have to stay.
fn shared(
    migration: &Migration,
    collection: &Collection,
    table: &Table,
    other: &Collection,
    findings: &mut Findings,
) {
    let full = |table: &Table| {
        (table.schema.clone().unwrap_or_else(|| migration.target.schema.clone()), table.into.value.clone())
    };
    for theirs in other.tables.iter().filter(|theirs| full(theirs) == full(table)) {
        let message = format!(
            "`{}` is filled by `{}` as well, which is append only, and not by this one",
            theirs.into.value, collection.name.value
        );
        findings.error(
            theirs.into.place,
            message,
            "add `append_only: true` here as well, or fill another table",
        );
    }
}
