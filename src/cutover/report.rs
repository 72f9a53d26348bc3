//! The report of a cutover: each step with its time, as text, as JSON and as a page.

use serde_json::{Value, json};
use slackwater_connectors::postgres::control::cutover::CutoverState;
use uuid::Uuid;

use super::plan::{Checked, time};
use super::proof::Count;

/// A step that is done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DoneStep {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    /// When it began, in milliseconds after the freeze; negative before it, `None` if there was no freeze yet.
    pub(crate) at_ms: Option<f64>,
    pub(crate) took_ms: f64,
}

/// The whole report.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) migration: String,
    pub(crate) id: Uuid,
    pub(crate) state: CutoverState,
    /// Why it was reverted.
    pub(crate) reason: Option<String>,
    pub(crate) log: &'static str,
    pub(crate) freeze: String,
    pub(crate) armed_at: i64,
    pub(crate) open_at: Option<i64>,
    /// How long the source refused writers: from the request to freeze until the target was open or the source was unfrozen.
    pub(crate) gap_ms: Option<f64>,
    /// How long a fence took before the freeze.
    pub(crate) rehearsal_ms: Option<f64>,
    pub(crate) steps: Vec<DoneStep>,
    pub(crate) counts: Vec<Count>,
    /// Tables whose rows are not counted.
    pub(crate) uncounted: Vec<String>,
    pub(crate) checks: Vec<Checked>,
    /// Failures that did not stop the cutover.
    pub(crate) warnings: Vec<String>,
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| {
                json!({"step": step.name, "what": step.text, "at_ms": step.at_ms.map(round), "took_ms": round(step.took_ms)})
            })
            .collect();
        let counts: Vec<Value> = self
            .counts
            .iter()
            .map(|count| {
                json!({"table": count.table, "collections": count.collections, "documents": count.documents, "rows": count.rows})
            })
            .collect();
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| match &check.found {
                Ok(rows) => json!({"check": check.name, "rows": rows, "holds": *rows == 0}),
                Err(error) => json!({"check": check.name, "error": error, "holds": false}),
            })
            .collect();
        json!({
            "migration": self.migration,
            "cutover": self.id.to_string(),
            "state": self.state.word(),
            "reason": self.reason,
            "log": self.log,
            "freeze": self.freeze,
            "armed_at": self.armed_at,
            "open_at": self.open_at,
            "gap_ms": self.gap_ms.map(round),
            "rehearsal_ms": self.rehearsal_ms.map(round),
            "steps": steps,
            "counts": counts,
            "not_counted": self.uncounted,
            "checks": checks,
            "warnings": self.warnings,
        })
    }

    /// The outcome, on one line.
    pub(crate) fn outcome(&self) -> String {
        match (self.state, self.gap_ms) {
            (CutoverState::Open, Some(gap)) => {
                format!(
                    "{} is switched: the target was open {} after the freeze began",
                    self.migration,
                    time(gap as u128)
                )
            }
            (CutoverState::Open, None) => format!("{} is switched", self.migration),
            (_, gap) => {
                let frozen = gap.map_or_else(String::new, |gap| {
                    format!(" The source was frozen for {}.", time(gap as u128))
                });
                let reason = self.reason.as_deref().unwrap_or("no reason was recorded");
                format!("{} is not switched, the source is as before: {reason}.{frozen}", self.migration)
            }
        }
    }

    /// A self-contained page of HTML.
    pub(crate) fn page(&self) -> String {
        let mut page = String::from(HEAD);
        let class = if self.state == CutoverState::Open { "good" } else { "bad" };
        page += &format!("<title>Cutover of {}</title>\n", escape(&self.migration));
        page += &format!(
            "<h1>Cutover of {}</h1>\n<p class={class}>{}</p>\n",
            escape(&self.migration),
            escape(&self.outcome())
        );
        page += &format!(
            "<p>Armed {}{}. Log: {}. Freeze: {}.{}</p>\n",
            when(self.armed_at),
            self.open_at.map_or_else(String::new, |at| format!(", open {}", when(at))),
            self.log,
            self.freeze,
            self.rehearsal_ms.map_or_else(String::new, |took| format!(
                " A fence took {} in the rehearsal.",
                time(took as u128)
            )),
        );
        page += "<h2>Steps</h2>\n<table>\n<tr><th>step<th>what<th class=n>begins, ms from the freeze<th class=n>took, ms<th></tr>\n";
        let longest = self
            .steps
            .iter()
            .filter(|step| step.at_ms.is_some_and(|at| at >= 0.0))
            .map(|step| step.took_ms)
            .fold(1.0, f64::max);
        for step in &self.steps {
            let frozen = step.at_ms.is_some_and(|at| at >= 0.0);
            let bar = if frozen { (step.took_ms / longest * 160.0).ceil() } else { 0.0 };
            page += &format!(
                "<tr><td>{}<td>{}<td class=n>{}<td class=n>{:.1}<td><div class=bar style=\"width:{bar}px\"></div></tr>\n",
                step.name,
                escape(&step.text),
                step.at_ms.map_or_else(String::new, |at| format!("{at:.1}")),
                step.took_ms
            );
        }
        page += "</table>\n<h2>Counts</h2>\n<table>\n<tr><th>table<th>collections<th class=n>documents<th class=n>rows</tr>\n";
        for count in &self.counts {
            let class = if count.differs() { " class=bad" } else { "" };
            page += &format!(
                "<tr{class}><td>{}<td>{}<td class=n>{}<td class=n>{}</tr>\n",
                escape(&count.table),
                escape(&count.collections.join(", ")),
                count.documents,
                count.rows
            );
        }
        page += "</table>\n";
        if !self.uncounted.is_empty() {
            page += &format!(
                "<p>Not counted, because they hold rows of arrays: {}.</p>\n",
                escape(&self.uncounted.join(", "))
            );
        }
        if !self.checks.is_empty() {
            page += "<h2>Checks</h2>\n<ul>\n";
            for check in &self.checks {
                let text = check.complaint().unwrap_or_else(|| format!("`{}` holds", check.name));
                let class = if check.complaint().is_some() { " class=bad" } else { "" };
                page += &format!("<li{class}>{}</li>\n", escape(&text));
            }
            page += "</ul>\n";
        }
        for warning in &self.warnings {
            page += &format!("<p class=bad>{}</p>\n", escape(warning));
        }
        page
    }
}

const HEAD: &str = "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=viewport content=\"width=device-width\">\n\
<style>\n\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #1b2733; }\n\
h1 { font-size: 1.6em; } h2 { font-size: 1.15em; margin-top: 1.8em; }\n\
table { border-collapse: collapse; } th, td { text-align: left; padding: .25em .9em .25em 0; border-bottom: 1px solid #dde4ea; vertical-align: top; }\n\
.n { text-align: right; font-variant-numeric: tabular-nums; }\n\
.good { background: #e2f3e7; padding: .6em .9em; } p.bad, .bad { background: #fbe6e3; } p.bad { padding: .6em .9em; }\n\
.bar { background: #3a7ca5; height: .8em; margin-top: .35em; }\n\
</style>\n";

fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn when(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| millis.to_string(), |at| format!("{at:.0}"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
