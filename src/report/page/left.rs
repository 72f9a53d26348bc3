//! What did not move, and by which policy. Pure.

use serde_json::Value;

use super::html::{Cell, escape, figure, items, plain, table, text, when};

/// So many dead letters are on the page.
const SHOWN: usize = 50;

type Rows = Vec<(Vec<Cell>, bool)>;

/// A part with a heading, nothing if there are no rows.
fn part(title: &str, about: &str, header: &[&str], rows: &Rows) -> String {
    if rows.is_empty() {
        return String::new();
    }
    format!("<h3>{title}</h3>\n<p class=soft>{about}</p>\n{}", table(header, rows))
}

/// Of each object the fields that are named; those that begin with a blank are figures.
fn fields(objects: &Value, names: &[&str]) -> Rows {
    let cell = |object: &Value, name: &str| match name.strip_prefix(' ') {
        Some(name) => figure(&object[name]),
        None => text(&plain(&object[name])),
    };
    items(objects)
        .iter()
        .map(|object| (names.iter().map(|name| cell(object, name)).collect(), false))
        .collect()
}

/// How often a policy was applied where.
fn policies(tallies: &Value) -> Rows {
    let row = |tally: &Value| {
        let policy = plain(&tally["policy"]);
        let what = match policy.as_str() {
            "null_to_default" => "no value: the default",
            "invalid_to_null" => "invalid: null",
            "invalid_to_default" => "invalid: the default",
            "clamped" => "out of range: the nearest value",
            "stripped" => "without what does not fit",
            "quoted" => "no number of JSON: as text",
            "unknown_to_null" => "unknown label: null",
            "unknown_to_default" => "unknown label: the default",
            other => other,
        };
        let mut cells: Vec<Cell> =
            ["collection", "table", "column"].map(|name| text(&plain(&tally[name]))).into();
        cells.extend([text(what), figure(&tally["count"]), text(&plain(&tally["sample"]))]);
        (cells, false)
    };
    items(tallies).iter().map(row).collect()
}

/// Everything that is on purpose not in the target, or not yet.
pub(super) fn not_moved(report: &Value) -> String {
    let left = &report["not_moved"];
    let mut parts = String::new();
    let names: Vec<String> = items(&left["not_migrated"])
        .iter()
        .map(|name| format!("<code>{}</code>", escape(&plain(name))))
        .collect();
    if !names.is_empty() {
        parts += &format!(
            "<h3>Left behind on purpose</h3>\n<p>{} (<code>not_migrated</code>)</p>\n",
            names.join(", ")
        );
    }
    parts += &part(
        "Values that a policy changed",
        "How often a rule of the migration file wrote something else than the document has, such as null where a value is invalid.",
        &["Collection", "Table", "Column", "What was written", " Times", "For example"],
        &policies(&left["policies"]),
    );
    parts += &part(
        "Documents that were refused",
        "Dead letters by the kind of their reason. The documents are listed below.",
        &["Collection", "Kind", " Documents"],
        &fields(&left["dead_letters"], &["collection", "kind", " count"]),
    );
    let waiting = items(&left["waiting"]).iter().map(|row| {
        let policy = match (row["unique"] == true, row["blocks"] == true) {
            (true, _) => "a value that another row has",
            (false, true) => "a row that is not there; the switch waits for it",
            (false, false) => "a row that is not there; null by declaration",
        };
        let cells = vec![
            text(&plain(&row["table"])),
            text(&plain(&row["constraint"])),
            text(policy),
            figure(&row["count"]),
        ];
        (cells, row["blocks"] == true)
    });
    parts += &part(
        "Rows that lack something",
        "They refer to rows that the source does not have, or repeat a value that only one row may have.",
        &["Table", "Constraint", "What they lack", " Rows"],
        &waiting.collect(),
    );
    parts += &part(
        "Changes that were not applied",
        "Of collections that are append only: the first version of a document stands.",
        &["Collection", "Kind", " Documents", " Changes"],
        &fields(&left["append_only"], &["collection", "kind", " documents", " changes"]),
    );
    let gone = items(&left["gone"]).iter().map(|row| {
        let word = match row["word"].as_str() {
            Some("keep") => "its rows stay",
            Some("follow") => "its rows go",
            _ => "nobody has said what becomes of its rows",
        };
        (
            vec![text(&plain(&row["collection"])), text(&plain(&row["text"])), text(word)],
            row["word"].is_null(),
        )
    });
    parts += &part(
        "Collections that are gone at their source",
        "They were dropped, renamed or replaced after they had been copied.",
        &["Collection", "What happened", "Word"],
        &gone.collect(),
    );
    parts += &part(
        "Collections that stand still",
        "A table of theirs cannot be written as it is.",
        &["Collection", "Table", "Why", " Documents that wait"],
        &fields(&left["standing"], &["collection", "table", "text", " documents"]),
    );
    if parts.is_empty() {
        parts = "<p>Nothing was left behind.</p>\n".to_owned();
    }
    format!("<h2>What did not move, and by which policy</h2>\n{parts}")
}

/// The documents that were refused: which, and why.
pub(super) fn letters(report: &Value) -> String {
    let left = &report["not_moved"];
    let all = left["dead_letters_total"].as_u64().unwrap_or_default();
    let shown = items(&left["dead_letter_documents"]).iter().take(SHOWN).map(|letter| {
        let place = [&letter["table"], &letter["column"]].map(plain).join(".");
        let cells = vec![
            text(&plain(&letter["collection"])),
            text(&plain(&letter["document"])),
            text(place.trim_matches('.')),
            text(&plain(&letter["reason"])),
            text(&when(&letter["first_seen"])),
        ];
        (cells, false)
    });
    let shown: Rows = shown.collect();
    if shown.is_empty() {
        return "<h2>Dead letters</h2>\n<p>None.</p>\n".to_owned();
    }
    let more = match all.saturating_sub(shown.len() as u64) {
        0 => String::new(),
        more => format!("<p>And {} more: see dead_letters.csv.</p>\n", super::html::grouped(more)),
    };
    let header = ["Collection", "Document", "Place", "Reason", "First seen"];
    format!("<h2>Dead letters</h2>\n{}{more}", table(&header, &shown))
}
