//! Parts of a report as CSV (RFC 4180), for a spreadsheet. Pure.

use serde_json::Value;
use slackwater_connectors::postgres::control::ledger::IncidentRow;
use slackwater_connectors::postgres::control::reports::ListedLetter;

use super::assemble::document;
use crate::candidates::joined;

/// What stands in a cell.
enum Cell {
    /// A number of ours.
    Number(String),
    /// Anything else. A spreadsheet takes what begins like a formula for one, so it gets an apostrophe in front.
    Text(String),
}

impl Cell {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Text(String::new()),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(items) => {
                let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                Self::Text(texts.join(", "))
            }
            other => Self::Number(other.to_string()),
        }
    }

    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    fn optional(text: Option<&str>) -> Self {
        Self::text(text.unwrap_or_default())
    }

    fn field(self) -> String {
        match self {
            Self::Number(text) => text,
            Self::Text(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
            Self::Text(text) => text,
        }
    }
}

fn list(header: &[&str], rows: impl Iterator<Item = Vec<Cell>>) -> String {
    let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    let lines = rows.map(|row| joined(&row.into_iter().map(Cell::field).collect::<Vec<_>>()));
    std::iter::once(joined(&header)).chain(lines).collect()
}

/// These fields of some objects.
fn fields(header: &[&str], objects: &[Value]) -> String {
    list(header, objects.iter().map(|object| header.iter().map(|name| Cell::of(&object[*name])).collect()))
}

/// Each table of the target.
pub(super) fn tables(report: &Value) -> String {
    let header = [
        "table",
        "collections",
        "documents",
        "rows",
        "counts_agree",
        "about_rows",
        "verified_rows",
        "missing",
        "different",
        "extra",
        "waiting",
    ];
    fields(&header, report["moved"].as_array().map(Vec::as_slice).unwrap_or_default())
}

/// What a verification has found.
pub(super) fn findings(findings: &[Value]) -> String {
    fields(&["finding", "kind", "table", "key", "columns", "document"], findings)
}

/// The steps of a cutover.
pub(super) fn steps(steps: &[Value]) -> String {
    fields(&["step", "what", "from_start_ms", "at_ms", "took_ms"], steps)
}

/// Documents that are not in the target, and why. Never what is in them.
pub(super) fn letters(letters: &[ListedLetter]) -> String {
    let header =
        ["collection", "document", "kind", "reason", "table", "column", "first_seen", "last_seen", "tries"];
    let row = |letter: &ListedLetter| {
        vec![
            Cell::text(&letter.collection),
            Cell::Text(document(&letter.key)),
            Cell::text(&letter.kind),
            Cell::text(&letter.text),
            Cell::optional(letter.table.as_deref()),
            Cell::optional(letter.column.as_deref()),
            Cell::Text(time(letter.first_seen)),
            Cell::Text(time(letter.last_seen)),
            Cell::Number(letter.tries.to_string()),
        ]
    };
    list(&header, letters.iter().map(row))
}

/// What happened, the newest first.
pub(super) fn incidents(incidents: &[IncidentRow]) -> String {
    let row = |incident: &IncidentRow| {
        vec![
            Cell::Text(time(incident.at)),
            Cell::text(&incident.kind),
            Cell::optional(incident.collection.as_deref()),
            Cell::text(&incident.text),
        ]
    };
    list(&["at", "kind", "collection", "text"], incidents.iter().map(row))
}

fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| millis.to_string(), |at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_taken_for_a_formula() {
        let letter = |key: &str, text: &str| ListedLetter {
            collection: "legacy.users".into(),
            key: [crate::letters::RECORD, key.as_bytes()].concat(),
            kind: "-null".into(),
            text: text.into(),
            first_seen: 1_772_359_200_700,
            tries: 2,
            ..ListedLetter::default()
        };
        let said = letters(&[letter("t/0/1", "=HYPERLINK(\"x\")"), letter("t/0/2", "a, b\nc")]);
        assert_eq!(
            said,
            "collection,document,kind,reason,table,column,first_seen,last_seen,tries\r\n\
             legacy.users,record t/0/1,'-null,\"'=HYPERLINK(\"\"x\"\")\",,,2026-03-01T10:00:00.700Z,1970-01-01T00:00:00.000Z,2\r\n\
             legacy.users,record t/0/2,'-null,\"a, b\nc\",,,2026-03-01T10:00:00.700Z,1970-01-01T00:00:00.000Z,2\r\n"
        );
    }

    #[test]
    fn numbers_stay_numbers() {
        let step = json!({"step": "arm", "what": "@home", "at_ms": -12.5, "took_ms": 3, "from_start_ms": 0});
        assert_eq!(steps(&[step]), "step,what,from_start_ms,at_ms,took_ms\r\narm,'@home,0,-12.5,3\r\n");
        let finding =
            json!({"finding": 7, "kind": "missing", "table": "public.a", "key": "-4", "columns": ["x", "y"]});
        let lines = findings(&[finding]);
        assert!(lines.ends_with("\r\n7,missing,public.a,'-4,\"x, y\",\r\n"), "{lines}");
        assert!(tables(&json!({})).starts_with("table,collections,"));
    }
}
