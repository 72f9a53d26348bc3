//! What speaks for the result: the team's checks, and the verification. Pure.

use serde_json::Value;

use super::html::{
    Cell, any, escape, facts, figure, grouped, html, items, plain, right, table, text, took, when,
};
use crate::verify::sampled;

/// So many findings are on the page.
const SHOWN: usize = 50;

/// Every check with all that is said of it, whatever that is: what a check gets to say later has a column as well.
pub(super) fn checks(report: &Value) -> String {
    let checks = items(&report["checks"]);
    if report["kind"] != "cutover" {
        return String::new();
    }
    if checks.is_empty() {
        return "<h2>Checks</h2>\n<p>The migration file has none, or they were not run.</p>\n".to_owned();
    }
    let mut names: Vec<&str> = Vec::new();
    for check in checks {
        let fields = check.as_object().into_iter().flat_map(|fields| fields.keys());
        for name in fields.filter(|name| !matches!(name.as_str(), "check" | "holds" | "verdict")) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    let rows: Vec<(Vec<Cell>, bool)> = checks
        .iter()
        .map(|check| {
            // What moved all the time neither holds nor fails.
            let open = check["verdict"] == "unsettled";
            let holds = check["holds"].as_bool().filter(|_| !open);
            let verdict = match (holds, check["verdict"].as_str()) {
                (Some(true), _) => "<span class=yes>holds</span>",
                (Some(false), Some("cannot_run")) => "<span class=no>cannot run</span>",
                (Some(false), _) => "<span class=no>fails</span>",
                (None, _) => "not decided",
            };
            let mut cells = vec![text(&plain(&check["check"])), html(verdict.to_owned())];
            cells.extend(names.iter().map(|name| any(&check[*name])));
            (cells, holds == Some(false))
        })
        .collect();
    // Over a column of numbers the name stands on the right as they do.
    let numeric = |name: &str| checks.iter().all(|check| check[name].is_number() || check[name].is_null());
    let titles: Vec<String> = names
        .iter()
        .map(|name| format!("{}{}", if numeric(name) { " " } else { "" }, capital(&name.replace('_', " "))))
        .collect();
    let mut header = vec!["Check", "Verdict"];
    header.extend(titles.iter().map(String::as_str));
    format!("<h2>Checks</h2>\n{}", table(&header, &rows))
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The last verification, or the one that the report is of.
pub(super) fn verification(report: &Value) -> String {
    let is_cutover = report["kind"] == "cutover";
    let (known, said) = match is_cutover {
        true => (&report["verification"], &report["verification"]["report"]),
        false => (&report["verification"], report),
    };
    if is_cutover && known["began"].is_null() {
        let none = "<h2>Verification</h2>\n<p>There was none that came to its end.</p>\n";
        return none.to_owned() + &changes(items(&known["changes"]));
    }
    let part = match (said["sample"].as_u64(), known["whole"].as_bool()) {
        (Some(percent), _) => {
            let number = |name: &str| said[name].as_u64().unwrap_or_default();
            sampled(percent, number("documents"), number("documents_in_all"))
        }
        (None, Some(false)) if is_cutover => "some collections".to_owned(),
        _ => "all documents of the collections that were asked for".to_owned(),
    };
    let count = |name: &str| said[name].as_u64().map(grouped).unwrap_or_default();
    let mut html = "<h2>Verification</h2>\n".to_owned();
    let equal = if is_cutover { &known["equal"] } else { &said["equal"] };
    html += &facts(&[
        (
            "Result",
            if *equal == true { "equal".to_owned() } else { "not equal, or not all proven".to_owned() },
        ),
        ("Of", part),
        ("Begun", when(&known["began"])),
        ("Ended", when(&known["ended"])),
        ("Documents", count("documents")),
        ("With dead letters", count("dead_letters")),
        ("Without rows and without dead letter", count("refused")),
        ("Never at rest", count("unsettled")),
        ("Left out", plain(&said["left_out"])),
        ("Not searched for rows that no document makes", plain(&said["not_searched_for_extra_rows"])),
    ]);
    let tables = items(&said["tables"]).iter().map(|row| {
        let figures = ["rows", "missing", "different", "extra", "waiting"];
        let wrong = figures[1..].iter().any(|name| row[*name].as_u64().is_some_and(|count| count > 0));
        let mut cells = vec![text(&plain(&row["table"]))];
        cells.extend(figures.iter().map(|name| figure(&row[*name])));
        (cells, wrong)
    });
    let tables: Vec<(Vec<Cell>, bool)> = tables.collect();
    if !tables.is_empty() {
        html += &table(&["Table", " Rows", " Missing", " Different", " Extra", " Waiting"], &tables);
    }
    html + &findings(items(&said["findings"])) + &changes(items(&known["changes"]))
}

/// How far what changed was verified, where that is done all the time.
fn changes(changes: &[Value]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let rows = changes.iter().map(|row| {
        let whole = if row["whole"] == true { "yes" } else { "not yet" };
        let behind = row["lag_ms"].as_f64().map(took).unwrap_or_default();
        let cells = vec![
            text(&plain(&row["collection"])),
            figure(&row["documents"]),
            text(&when(&row["verified_through"])),
            right(&behind),
            text(whole),
        ];
        (cells, false)
    });
    let header = ["Collection", " Documents", "Verified through", " Behind", "Everything before"];
    let about = "Documents that changed were compared again soon afterwards.";
    let table = table(&header, &rows.collect::<Vec<_>>());
    format!("<h3>What changed</h3>\n<p class=soft>{about}</p>\n{table}")
}

fn findings(findings: &[Value]) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let rows = findings.iter().take(SHOWN).map(|finding| {
        let cells = ["finding", "kind", "table", "key", "columns", "document"]
            .map(|name| text(&plain(&finding[name])));
        (cells.to_vec(), false)
    });
    let rows: Vec<_> = rows.collect();
    let more = match findings.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => {
            format!("<p>{}</p>\n", escape(&format!("And {} more: see findings.csv.", grouped(more as u64))))
        }
    };
    let header = ["Finding", "Kind", "Table", "Key", "Columns", "Document"];
    format!("<h3>Findings</h3>\n{}{more}", table(&header, &rows))
}
