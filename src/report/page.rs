//! The report as a page: to read on a screen and to print. One file without network and scripts. Pure.

mod evidence;
mod html;
mod left;
mod picture;

use serde_json::Value;

use html::{Cell, any, escape, facts, figure, html, items, plain, right, table, text, took, when};

const STYLE: &str = include_str!("page/style.css");

/// The page of a report.
pub(super) fn page(report: &Value) -> String {
    let is_cutover = report["kind"] == "cutover";
    let title =
        format!("{} of {}", if is_cutover { "Cutover" } else { "Verification" }, plain(&report["migration"]));
    let mut page = format!(
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n<meta name=viewport content=\"width=device-width\">\n\
         <title>{0}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{0}</h1>\n<p class=soft>{1}</p>\n",
        escape(&title),
        escape(&subtitle(report)),
    );
    page += &verdict(report);
    page += &accepted(report);
    page += &notes("Warnings", &report["warnings"]);
    page += &notes("Missing in this report", &report["missing"]);
    page += &figures(report);
    if is_cutover {
        page += &circumstances(report);
    }
    page += &moved(report);
    page += &left::not_moved(report);
    page += &left::letters(report);
    page += &evidence::checks(report);
    page += &evidence::verification(report);
    page += &incidents(report);
    page += &timings(report);
    page += &versions(report);
    page + "</body>\n</html>\n"
}

fn subtitle(report: &Value) -> String {
    let at = [&report["open_at"], &report["armed_at"], &report["started_at"]];
    let at = at.into_iter().map(when).find(|at| !at.is_empty()).unwrap_or_default();
    format!("{at}, slackwater {} on {}", plain(&report["slackwater"]), plain(&report["host"]))
}

/// How it went, in a sentence.
fn verdict(report: &Value) -> String {
    let (good, sentence) = match report["kind"].as_str() {
        Some("cutover") => {
            let state = plain(&report["state"]);
            // What an older program has stored has no sentence.
            let told = report["outcome"].as_str().map(str::to_owned);
            (
                state == "open",
                told.unwrap_or_else(|| format!("The cutover is {state}. {}", plain(&report["reason"]))),
            )
        }
        _ if report["equal"] == true => (true, "Every row is what its document makes.".to_owned()),
        _ => {
            (false, "Not every row is what its document makes, or not everything could be proven.".to_owned())
        }
    };
    let class = if good { "good" } else { "bad" };
    format!("<p class=\"verdict {class}\">{}</p>\n", escape(&sentence))
}

/// Blockers that somebody has accepted.
fn accepted(report: &Value) -> String {
    let accepted = items(&report["accepted"]);
    let Some(first) = accepted.first() else { return String::new() };
    let lines: String = accepted
        .iter()
        .map(|one| {
            let what = one["what"].as_str().unwrap_or("there was nothing of it");
            format!("<li><code>{}</code>: {}</li>\n", escape(&plain(&one["blocker"])), escape(what))
        })
        .collect();
    format!(
        "<div class=\"verdict note\"><b>Accepted by the operator, because:</b> {}\n<ul>\n{lines}</ul></div>\n",
        escape(&plain(&first["reason"]))
    )
}

fn notes(title: &str, notes: &Value) -> String {
    let lines: String =
        items(notes).iter().map(|note| format!("<li>{}</li>\n", escape(&plain(note)))).collect();
    match lines.as_str() {
        "" => String::new(),
        _ => format!("<div class=\"verdict note\"><b>{title}</b>\n<ul>\n{lines}</ul></div>\n"),
    }
}

/// What a reader wants to know first.
fn figures(report: &Value) -> String {
    let tables = items(&report["moved"]);
    let number = |number: u64| html::grouped(number);
    let mut figures: Vec<(String, &str)> = Vec::new();
    if let Some(gap) = report["gap_ms"].as_f64() {
        figures.push((took(gap), "nobody could write"));
    }
    if let Some(documents) = report["documents"].as_u64() {
        figures.push((number(documents), "documents compared"));
    }
    figures.push((number(tables.len() as u64), "tables"));
    let rows: Vec<(Option<u64>, bool)> = tables.iter().map(rows_of).collect();
    if rows.iter().any(|(rows, _)| rows.is_some()) {
        let what = match (rows.iter().any(|(_, about)| *about), rows.iter().all(|(rows, _)| rows.is_some())) {
            (true, _) => "rows, some of them estimated",
            (false, true) => "rows",
            (false, false) => "rows in the tables that were counted",
        };
        figures.push((number(rows.iter().filter_map(|(rows, _)| *rows).sum()), what));
    }
    let total = |value: &Value| value.as_u64().map(number);
    let letters = total(&report["not_moved"]["dead_letters_total"]);
    let findings = match report["kind"] == "cutover" {
        true => total(&report["verification"]["findings"]),
        false => Some(number(items(&report["findings"]).len() as u64)),
    };
    figures.extend(letters.map(|letters| (letters, "dead letters")));
    figures.extend(findings.map(|findings| (findings, "findings of verification")));
    let figures: String = figures
        .into_iter()
        .map(|(figure, what)| format!("<li><b>{}</b><span>{}</span></li>\n", escape(&figure), escape(what)))
        .collect();
    format!("<ul class=figures>\n{figures}</ul>\n")
}

/// How the cutover was made.
fn circumstances(report: &Value) -> String {
    let rehearsal = report["rehearsal_ms"].as_f64().map(took).unwrap_or_default();
    facts(&[
        ("Armed", when(&report["armed_at"])),
        ("Open", when(&report["open_at"])),
        ("Freeze", plain(&report["freeze"])),
        ("Log", plain(&report["log"])),
        ("A fence in the rehearsal", rehearsal),
        ("Number", plain(&report["cutover"])),
    ])
}

/// How many rows a table has, and whether that is an estimate: what was verified before the run may have changed since.
fn rows_of(table: &Value) -> (Option<u64>, bool) {
    match (table["rows"].as_u64(), table["verified_rows"].as_u64()) {
        (Some(rows), _) => (Some(rows), false),
        (None, Some(rows)) => (Some(rows), table["verified_at"].is_i64()),
        (None, None) => (table["about_rows"].as_u64(), table["about_rows"].is_u64()),
    }
}

/// The same, for people: with the time of the verification that it comes from.
fn about(row: &Value, rows: u64) -> String {
    let at = if row["verified_rows"].is_u64() { when(&row["verified_at"]) } else { String::new() };
    let at = if at.is_empty() { at } else { format!(", as verified {at}") };
    format!("about {}{at}", html::grouped(rows))
}

/// What is in the target, by table.
fn moved(report: &Value) -> String {
    let rows = items(&report["moved"]).iter().map(|row| {
        let counted = match row["counts_agree"].as_bool() {
            Some(true) => html("<span class=yes>agree</span>".to_owned()),
            Some(false) => html("<span class=no>differ</span>".to_owned()),
            None => text("not counted"),
        };
        let (wrong, verified) = verified(row);
        let many = match rows_of(row) {
            (Some(rows), true) => right(&about(row, rows)),
            (rows, _) => figure(&rows.into()),
        };
        let cells = vec![
            text(&plain(&row["table"])),
            text(&plain(&row["collections"])),
            figure(&row["documents"]),
            many,
            counted,
            verified,
        ];
        (cells, wrong || row["counts_agree"] == false)
    });
    let rows: Vec<(Vec<Cell>, bool)> = rows.collect();
    let header = ["Table", "From", " Documents", " Rows", "Counts", "Verification"];
    let mut html = "<h2>What moved, by table</h2>\n".to_owned() + &table(&header, &rows);
    if report["kind"] == "cutover" {
        html += "<p class=soft>Counts are of the frozen source and of the target at the same moment. Other tables are not \
                 counted: there a document is not one row of its own (rows of elements of arrays, of several documents, of some documents only, or versions), \
                 the key is not made of <code>_id</code> alone, or rows stay of a collection that is gone. Only mapping every document tells how many \
                 there should be, and that is what a verification does.</p>\n";
    }
    html
}

/// What the last verification says of a table, and whether that is bad.
fn verified(row: &Value) -> (bool, Cell) {
    let Some(rows) = row["verified_rows"].as_u64() else { return (false, text("not verified")) };
    let wrong: Vec<String> = ["missing", "different", "extra", "waiting"]
        .iter()
        .filter_map(|name| Some((name, row[*name].as_u64().filter(|count| *count > 0)?)))
        .map(|(name, count)| format!("{} {name}", html::grouped(count)))
        .collect();
    match wrong.is_empty() {
        true => (false, html(format!("<span class=yes>all equal</span> ({} rows)", html::grouped(rows)))),
        false => (true, html(format!("<span class=no>{}</span>", escape(&wrong.join(", "))))),
    }
}

fn incidents(report: &Value) -> String {
    let shown = items(&report["incidents"]);
    let rows = shown.iter().map(|row| {
        let cells = vec![
            text(&when(&row["at"])),
            text(&plain(&row["kind"])),
            text(&plain(&row["collection"])),
            text(&plain(&row["text"])),
        ];
        (cells, false)
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return "<h2>Incidents</h2>\n<p>None.</p>\n".to_owned();
    }
    let total = report["incidents_total"].as_u64().unwrap_or_default();
    let more = match total.checked_sub(shown.len() as u64) {
        Some(more) if more > 0 => {
            format!("<p>And {} older ones: see incidents.csv.</p>\n", html::grouped(more))
        }
        _ => String::new(),
    };
    format!("<h2>Incidents</h2>\n{}{more}", table(&["When", "Kind", "Collection", "What"], &rows))
}

/// Every step with its time, as pictures and as figures.
fn timings(report: &Value) -> String {
    let list = items(&report["steps"]);
    if list.is_empty() {
        return String::new();
    }
    let steps = picture::steps(list);
    let gap = report["gap_ms"].as_f64();
    let mut html = "<h2>How long each step took</h2>\n".to_owned();
    if !steps.whole.is_empty() {
        let frozen = steps.frozen_from.map(|from| (from, from + gap.unwrap_or_default()));
        let about = "The whole run. The red part is the freeze: nobody could write to the source.";
        html += &format!(
            "<figure><figcaption>{about}</figcaption>\n{}</figure>\n",
            picture::svg(&steps.whole, frozen, about)
        );
    }
    if let (false, Some(gap)) = (steps.frozen.is_empty(), gap) {
        let about = "From the freeze on, at a larger scale.";
        html += &format!(
            "<figure><figcaption>{about}</figcaption>\n{}</figure>\n",
            picture::svg(&steps.frozen, Some((0.0, gap)), about)
        );
    }
    let rows = list.iter().map(|step| {
        let took = step["took_ms"].as_f64().map(took).unwrap_or_default();
        let at = step["at_ms"]
            .as_f64()
            .filter(|at| *at >= 0.0)
            .map(|at| format!("{at:.1} ms"))
            .unwrap_or_default();
        (vec![text(&plain(&step["step"])), text(&plain(&step["what"])), right(&at), right(&took)], false)
    });
    html + &table(&["Step", "What", " After the freeze", " Took"], &rows.collect::<Vec<_>>())
}

/// What took part, and the migration file as it was.
fn versions(report: &Value) -> String {
    let versions = &report["versions"];
    let mut rows: Vec<(Vec<Cell>, bool)> = Vec::new();
    let mut row = |name: &str, version: &Value, system: &Value| {
        let version = if version.is_null() { text("did not answer") } else { any(version) };
        rows.push((vec![text(name), version, text(&plain(system))], false));
    };
    row("slackwater", &report["slackwater"], &report["host"]);
    for source in items(&versions["sources"]) {
        row(&format!("source {}", plain(&source["name"])), &source["version"], &source["system"]);
    }
    row("target (Postgres)", &versions["postgres"]["version"], &versions["postgres"]["system"]);
    if versions["kafka"].is_object() {
        let brokers = versions["kafka"]["brokers"].as_u64();
        let brokers = brokers.map_or("did not answer".to_owned(), |brokers| format!("brokers: {brokers}"));
        row("log (Kafka)", &versions["kafka"]["client"], &brokers.into());
    }
    let files = items(&report["migration_file"]).iter().map(|file| {
        let sum = format!("<code>{}</code>", escape(&plain(&file["sha256"])));
        (vec![text(&plain(&file["path"])), html(sum)], false)
    });
    let files: Vec<_> = files.collect();
    format!(
        "<h2>What took part</h2>\n{}<h3>The migration file</h3>\n{}<p class=soft>{}</p>\n",
        table(&["Part", "Version", "Where"], &rows),
        table(&["File", "SHA-256"], &files),
        escape(&format!(
            "Begun {}, report written {}. The same, for machines: report.json; as lists: the CSV files beside this page.",
            when(&report["started_at"]),
            when(&report["ended_at"])
        ))
    )
}

#[cfg(test)]
#[path = "page/tests.rs"]
mod tests;
