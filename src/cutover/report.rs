//! What is known of a cutover in the end: each step with its time, as text and as JSON.

use serde_json::{Value, json};
use slackwater_connectors::postgres::control::accepted::Accepted;
use slackwater_connectors::postgres::control::cutover::CutoverState;
use uuid::Uuid;

use super::accept;
use super::plan::time;
use super::proof::Count;
use crate::checks::Checked;

/// A step that is done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DoneStep {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    /// When it began, in milliseconds after the freeze; negative before it, `None` if there was no freeze yet.
    pub(crate) at_ms: Option<f64>,
    /// When it began, in milliseconds after this process began to lead.
    pub(crate) from_start_ms: f64,
    pub(crate) took_ms: f64,
}

/// What one source took, in milliseconds after the freeze began.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SourceTimes {
    pub(crate) source: String,
    /// Its writers were stopped.
    pub(crate) frozen_ms: f64,
    /// All that it had was applied.
    pub(crate) passed_ms: Option<f64>,
}

impl SourceTimes {
    pub(crate) fn new(source: &str, frozen_ms: f64) -> Self {
        Self { source: source.to_owned(), frozen_ms, passed_ms: None }
    }

    fn json(&self) -> Value {
        json!({"source": self.source, "frozen_ms": round(self.frozen_ms), "passed_ms": self.passed_ms.map(round)})
    }
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
    pub(crate) sources: Vec<SourceTimes>,
    pub(crate) counts: Vec<Count>,
    /// Tables whose rows are not counted.
    pub(crate) uncounted: Vec<String>,
    pub(crate) checks: Vec<Checked>,
    /// Failures that did not stop the cutover.
    pub(crate) warnings: Vec<String>,
    /// Blockers that did not block.
    pub(crate) accepted: Accepted,
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| {
                json!({
                    "step": step.name, "what": step.text, "at_ms": step.at_ms.map(round),
                    "from_start_ms": round(step.from_start_ms), "took_ms": round(step.took_ms),
                })
            })
            .collect();
        let counts: Vec<Value> = self
            .counts
            .iter()
            .map(|count| {
                json!({"table": count.table, "collections": count.collections, "documents": count.documents, "rows": count.rows})
            })
            .collect();
        let checks: Vec<Value> = self.checks.iter().map(Checked::json).collect();
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
            "frozen_sources": self.sources.iter().map(SourceTimes::json).collect::<Vec<_>>(),
            "counts": counts,
            "not_counted": self.uncounted,
            "checks": checks,
            "warnings": self.warnings,
            "accepted": accept::json(&self.accepted),
            "outcome": self.outcome(),
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
}

fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}
