//! What has changed in the target's tables, in words: what happened, and what mends it. Pure.

use std::collections::BTreeSet;

use slackwater_connectors::postgres::control::standing::{StandingRow, TableIdentity};
use slackwater_connectors::postgres::target::catalog::{Column, Table};
use slackwater_connectors::postgres::target::statements::quote;

/// One change of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// A word for it.
    pub(super) kind: &'static str,
    pub(super) text: String,
    pub(super) remedy: String,
}

/// What of a table is another since `before`, as far as it can matter to who fills these columns; the worst first.
pub(super) fn changes(before: &Table, now: Option<&Table>, filled: &BTreeSet<String>) -> Vec<Change> {
    let name = format!("{}.{}", before.schema, before.name);
    let sql = format!("ALTER TABLE {}.{}", quote(&before.schema), quote(&before.name));
    let Some(now) = now else {
        return vec![Change {
            kind: "table_gone",
            text: format!("{name} is gone: it was dropped, renamed or moved"),
            remedy: "rename it back or create it again".into(),
        }];
    };
    let mut found = Vec::new();
    let mut add = |kind, text: String, remedy: String| found.push(Change { kind, text, remedy });
    if before.is_table && !now.is_table {
        let text = format!("{name} is not a table any more");
        add("not_a_table", text, "drop or rename what has its name now, and bring the table back".into());
    }
    if before.lacks.is_empty() && !now.lacks.is_empty() {
        let remedy = now.grant();
        add("right_taken", format!("the right to write {name} was taken"), remedy);
    }
    for rule in now.rules.iter().filter(|rule| !before.rules.contains(rule)) {
        let remedy =
            format!("DROP RULE {} ON {}.{}", quote(rule), quote(&before.schema), quote(&before.name));
        add(
            "rule_added",
            format!("{name} has a rule now, {rule}, which rewrites what is written to it"),
            remedy,
        );
    }
    let fresh: Vec<&Column> =
        now.columns.iter().filter(|column| before.column(&column.name).is_none()).collect();
    for column in &before.columns {
        let quoted = quote(&column.name);
        let Some(same) = now.column(&column.name).map(|at| &now.columns[at]) else {
            if !filled.contains(&column.name) {
                continue;
            }
            let kin: Vec<&&Column> = fresh.iter().filter(|new| new.kind.name == column.kind.name).collect();
            match kin.as_slice() {
                [other] => add(
                    "column_renamed",
                    format!("{name} has no column {} any more; {} is new", column.name, other.name),
                    format!(
                        "{sql} RENAME COLUMN {} TO {quoted}, or write the new name into the migration file and start again",
                        quote(&other.name)
                    ),
                ),
                _ => add(
                    "column_gone",
                    format!("{name} has no column {} any more", column.name),
                    format!(
                        "{sql} ADD COLUMN {quoted} {}, or take it out of the migration file and start again",
                        column.kind.name
                    ),
                ),
            }
            continue;
        };
        if same.kind.name != column.kind.name && filled.contains(&column.name) {
            add(
                "type_changed",
                format!("{name}.{} is {} now, and was {}", column.name, same.kind.name, column.kind.name),
                format!("{sql} ALTER COLUMN {quoted} TYPE {}", column.kind.name),
            );
        }
        if same.generated && !column.generated && filled.contains(&column.name) {
            let remedy = format!("{sql} ALTER COLUMN {quoted} DROP EXPRESSION");
            add("column_generated", format!("{name}.{} is generated now", column.name), remedy);
        }
        if same.not_null && !column.not_null {
            let remedy = format!("{sql} ALTER COLUMN {quoted} DROP NOT NULL");
            add("not_null", format!("{name}.{} is NOT NULL now", column.name), remedy);
        }
    }
    for column in fresh.iter().filter(|column| column.not_null && !column.has_default) {
        add(
            "not_null",
            format!("{name}.{} is new, NOT NULL and without a default", column.name),
            format!(
                "{sql} ALTER COLUMN {} SET DEFAULT …, or fill it in the migration file",
                quote(&column.name)
            ),
        );
    }
    let names = |table: &Table, key: &[usize]| -> Vec<String> {
        key.iter().map(|at| table.columns[*at].name.clone()).collect()
    };
    let keys = |table: &Table| -> Vec<Vec<String>> {
        let all = std::iter::once(&table.primary_key).chain(&table.uniques);
        all.filter(|key| !key.is_empty()).map(|key| names(table, key)).collect()
    };
    for key in keys(before).into_iter().filter(|key| !keys(now).contains(key)) {
        let listed = key.join(", ");
        add(
            "key_gone",
            format!("{name} has no unique key over {listed} any more"),
            format!("{sql} ADD UNIQUE ({listed})"),
        );
    }
    found
}

/// What a table has lost of what was written to it, if it has: it was made again, or a column was, or values were cast to a type that
/// may not hold them. `adjusted`: columns that have another value where one does not fit; what did not fit before may fit now.
pub(super) fn lost(
    table: &str,
    before: &TableIdentity,
    now: &TableIdentity,
    adjusted: &BTreeSet<String>,
) -> Option<String> {
    if before.oid != now.oid {
        return Some(format!("{table} was made again"));
    }
    for (name, number, kind) in &now.columns {
        let Some((_, old_number, old_kind)) = before.columns.iter().find(|(known, ..)| known == name) else {
            // The migration file fills it since then; `slackwater` says at its start that rows written before are as they were.
            continue;
        };
        if number != old_number {
            return Some(format!("{table}.{name} was made again"));
        }
        if kind != old_kind && !widens(old_kind, kind) {
            return Some(format!("{table}.{name} was {old_kind} and is {kind}, which may hold other values"));
        }
        if kind != old_kind && adjusted.contains(name) {
            return Some(format!(
                "{table}.{name} was {old_kind} and is {kind}, which holds values that were adjusted before"
            ));
        }
    }
    None
}

/// Every value of the first type is the same value in the second.
fn widens(from: &str, to: &str) -> bool {
    const WHOLE: [&str; 4] = ["smallint", "integer", "bigint", "numeric"];
    let rank = |kind: &str| WHOLE.iter().position(|known| *known == kind);
    if let (Some(from), Some(to)) = (rank(from), rank(to)) {
        return from <= to;
    }
    let length = |kind: &str| -> Option<u32> {
        if matches!(kind, "text" | "character varying") {
            return Some(u32::MAX);
        }
        kind.strip_prefix("character varying(")?.strip_suffix(')')?.parse().ok()
    };
    matches!((length(from), length(to)), (Some(from), Some(to)) if from <= to)
}

/// Why a collection stands still, for people. `other`: what the compiler says, where no change of a table tells it.
pub(super) fn standing<'a>(
    collection: &str,
    tables: impl Iterator<Item = (&'a Table, Option<&'a Table>, &'a BTreeSet<String>)>,
    other: (String, String),
) -> StandingRow {
    let mut first = None;
    for (before, now, filled) in tables {
        let name = format!("{}.{}", before.schema, before.name);
        if let Some(change) = changes(before, now, filled).into_iter().next() {
            let Change { kind, text, remedy } = change;
            return row(collection, &name, kind, text, remedy);
        }
        first = first.or(Some(name));
    }
    row(collection, &first.unwrap_or_default(), "unfit", other.0, other.1)
}

/// A collection whose table somebody has locked.
pub(super) fn locked(collection: &str, table: &str, holder: &str) -> StandingRow {
    let text = format!("{table} is locked by {holder}");
    row(
        collection,
        table,
        "locked",
        text,
        "wait until that session has ended its transaction, or end it".into(),
    )
}

fn row(collection: &str, table: &str, kind: &str, text: String, remedy: String) -> StandingRow {
    StandingRow {
        collection: collection.to_owned(),
        table: table.to_owned(),
        kind: kind.to_owned(),
        text,
        remedy,
        ..StandingRow::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slackwater_connectors::postgres::target::catalog::Type;

    fn column(name: &str, kind: &str) -> Column {
        let kind = Type { oid: 1, name: kind.into(), ..Type::default() };
        Column { name: name.into(), kind, ..Column::default() }
    }

    fn table(columns: &[(&str, &str)]) -> Table {
        Table {
            schema: "public".into(),
            name: "users".into(),
            columns: columns.iter().map(|(name, kind)| column(name, kind)).collect(),
            primary_key: vec![0],
            is_table: true,
            lacks: Vec::new(),
            ..Table::default()
        }
    }

    fn said(before: &Table, now: Option<&Table>) -> Vec<(&'static str, String)> {
        let filled = ["id", "email", "age"].map(str::to_owned).into();
        changes(before, now, &filled).into_iter().map(|change| (change.kind, change.remedy)).collect()
    }

    #[test]
    fn what_was_made_again_has_lost_its_values() {
        let table =
            |oid, number, kind: &str| TableIdentity { oid, columns: vec![("a".into(), number, kind.into())] };
        let after = |now: TableIdentity, adjusted: &[&str]| {
            let adjusted = adjusted.iter().map(|name| (*name).to_owned()).collect();
            lost("t", &table(1, 2, "integer"), &now, &adjusted).is_some()
        };
        let is_lost = |now: TableIdentity| after(now, &["b"]);
        assert!(!after(table(1, 2, "integer"), &["a"]) && after(table(1, 2, "bigint"), &["a"]));
        assert!(!is_lost(table(1, 2, "integer")) && !is_lost(table(1, 2, "bigint")));
        assert!(is_lost(table(2, 2, "integer")) && is_lost(table(1, 3, "integer")));
        assert!(is_lost(table(1, 2, "smallint")) && is_lost(table(1, 2, "text")));
        assert!(
            widens("character varying(5)", "character varying(9)") && widens("character varying(5)", "text")
        );
        assert!(!widens("text", "character varying(9)") && !widens("numeric", "bigint"));
    }

    #[test]
    fn says_what_mends_it() {
        let before = table(&[("id", "uuid"), ("email", "text"), ("age", "bigint")]);
        assert_eq!(said(&before, Some(&before)), []);
        assert_eq!(said(&before, None)[0].0, "table_gone");
        let dropped = table(&[("id", "uuid"), ("email", "text")]);
        let mend = "ALTER TABLE \"public\".\"users\" ADD COLUMN \"age\" bigint, or take it out of the migration file and start again";
        assert_eq!(said(&before, Some(&dropped)), [("column_gone", mend.to_owned())]);
        // What nobody fills may come and go.
        let mut more = before.clone();
        more.columns.push(column("extra", "text"));
        assert_eq!(said(&more, Some(&before)), []);
        let renamed = table(&[("id", "uuid"), ("email", "text"), ("years", "bigint")]);
        let (kind, mend) = &said(&before, Some(&renamed))[0];
        assert_eq!(*kind, "column_renamed");
        assert!(
            mend.starts_with("ALTER TABLE \"public\".\"users\" RENAME COLUMN \"years\" TO \"age\""),
            "{mend}"
        );
        let narrowed = table(&[("id", "uuid"), ("email", "text"), ("age", "integer")]);
        let mend = "ALTER TABLE \"public\".\"users\" ALTER COLUMN \"age\" TYPE bigint";
        assert_eq!(said(&before, Some(&narrowed)), [("type_changed", mend.to_owned())]);
        let mut strict = before.clone();
        strict.columns[1].not_null = true;
        strict.lacks = vec!["INSERT".into()];
        strict.primary_key.clear();
        let kinds: Vec<&str> = said(&before, Some(&strict)).iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, ["right_taken", "not_null", "key_gone"]);
        let mut wider = before.clone();
        wider.columns.push(Column { not_null: true, ..column("tenant", "uuid") });
        assert_eq!(said(&before, Some(&wider))[0].0, "not_null");
    }
}
