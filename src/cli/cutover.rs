//! `slackwater cutover`: shows the plan, makes the cutover, or reverts it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Map, Value};
use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::accepted::Accepted;
use slackwater_connectors::postgres::control::cutover::CutoverState;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Migration;
use crate::cutover::lead::{Leader, Outcome, leader_of};
use crate::cutover::plan::{self, Blocker, listed, steps};
use crate::cutover::proof::uncountable;
use crate::cutover::report::DoneStep;
use crate::cutover::{accept, facts};
use crate::failure::Failure;
use crate::mapping::Plan;
use crate::ops::process::now_millis;
use crate::report;
use crate::source::Named;
use crate::topology::load;

/// Exit code: something blocks the cutover; nothing was changed.
const BLOCKED: u8 = 8;
/// Exit code: the cutover was reverted; the source is as before.
const TAKEN_BACK: u8 = 9;

/// The arguments.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) plan: bool,
    pub(super) abort: bool,
    pub(super) json: bool,
    pub(super) report: PathBuf,
    /// What does not block.
    pub(super) accepted: Accepted,
}

pub(super) async fn run(path: &Path, request: Request) -> Result<ExitCode, Failure> {
    let started_at = now_millis();
    let migration = load::migration(path)?;
    if request.plan {
        return show(&migration, request).await;
    }
    let plan = load::plan(&migration).await?;
    let sources = match request.abort {
        // One that is away does not keep the others frozen.
        true => Named::connect_to_those_that_answer(&migration.sources).await,
        false => Named::connect_all(&migration.sources).await?,
    };
    let on_step = |step: &DoneStep| show_step(step, request.json);
    let leader = Leader::new(&migration, &plan, sources, request.accepted.clone(), &on_step).await?;
    let outcome = if request.abort {
        match leader.abort("an operator took it back").await? {
            Some(outcome) => outcome,
            None => {
                print("no cutover is under way: nothing to revert");
                return Ok(ExitCode::SUCCESS);
            }
        }
    } else {
        // Before anything is frozen, because no signal may be lost after that.
        let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
        let ended = tokio::select! {
            outcome = Box::pin(leader.run()) => Some(outcome?),
            _ = interrupt.recv() => revert_cutover(&migration, &plan, &on_step).await?,
            _ = terminate.recv() => revert_cutover(&migration, &plan, &on_step).await?,
        };
        let Some(outcome) = ended else {
            const TEXT: &str = "it was interrupted before anything was frozen: nothing was changed";
            match request.json {
                true => print(&format!(
                    "{:#}",
                    serde_json::json!({"migration": migration.name, "state": "interrupted", "reason": TEXT})
                )),
                false => print(TEXT),
            }
            return Ok(ExitCode::from(TAKEN_BACK));
        };
        outcome
    };
    Ok(end(&migration, &request, started_at, outcome).await)
}

/// Takes the interrupted cutover back, or finds that it has already opened the target. None if it had not begun.
async fn revert_cutover(
    migration: &Migration,
    plan: &Arc<Plan>,
    on_step: &(dyn Fn(&DoneStep) + Sync),
) -> Result<Option<Outcome>, Failure> {
    let sources = Named::connect_to_those_that_answer(&migration.sources).await;
    let leader = Leader::new(migration, plan, sources, Accepted::default(), on_step).await?;
    Ok(leader.abort("it was interrupted").await?)
}

fn no_signals(error: std::io::Error) -> Failure {
    Error::new(Kind::Bug, "listening for signals", error.to_string()).into()
}

/// Shows the steps, and what blocks now. Changes nothing.
async fn show(migration: &Migration, request: Request) -> Result<ExitCode, Failure> {
    let Some(control) = Control::peek(&migration.target.uri).await? else {
        let line = "slackwater has never run against this target; start it with `slackwater run`";
        return Err(Failure::Unsuitable(vec![line.to_owned()]));
    };
    let row = control.cutover(&migration.name).await?;
    if row.as_ref().is_some_and(|row| row.state == CutoverState::Open) {
        print("the migration is switched: the target is the one to write to");
        return Ok(ExitCode::SUCCESS);
    }
    // A source that does not answer becomes a blocker.
    let sources = Named::connect_to_those_that_answer(&migration.sources).await;
    let busy = row.as_ref().filter(|row| row.state != CutoverState::Reverted).map(|row| leader_of(Some(row)));
    // The plan of a resumption: what its record says is accepted as well.
    let mut accepted = match row.as_ref().filter(|row| row.state != CutoverState::Reverted) {
        Some(row) => accept::both(&row.accepted, &request.accepted),
        None => request.accepted,
    };
    let (facts, found) = facts::settled(migration, &control, &sources, busy, &mut accepted).await?;
    // Tables that cannot be read now say so among the blockers.
    let uncounted = match load::plan(migration).await {
        Ok(plan) => uncountable(&plan, &control.gone(&migration.name).await?),
        Err(_) => Vec::new(),
    };
    let warnings = plan::warnings(&facts.look.breach_counts);
    if request.json {
        let steps: Vec<_> = steps(migration, &uncounted)
            .into_iter()
            .map(|step| serde_json::json!({"step": step.name, "what": step.text}))
            .collect();
        let plan = serde_json::json!({
            "migration": migration.name, "lag_ms": facts.look.lag_ms(), "steps": steps, "blockers": json_of(&found),
            "warnings": warnings, "accepted": accept::json(&accepted), "not_counted": uncounted,
        });
        print(&format!("{plan:#}"));
    } else {
        print(plan::text((migration, &uncounted), &found, &accepted, &warnings).trim_end());
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BLOCKED) })
}

fn json_of(blockers: &[Blocker]) -> Vec<serde_json::Value> {
    let json = |blocker: &Blocker| serde_json::json!({"blocker": blocker.name, "what": blocker.text, "remedy": blocker.remedy});
    blockers.iter().map(json).collect()
}

/// Prints a step when it is done, on one line.
fn show_step(step: &DoneStep, json: bool) {
    let line = format!("{:<10} {:>8.1} ms  {}", step.name, step.took_ms, step.text);
    let mut stderr = std::io::stderr().lock();
    // If stderr is closed, nobody reads it.
    let _ = if json { Ok(()) } else { writeln!(stderr, "{line}") };
}

/// Says how it ended, after the report was written.
async fn end(migration: &Migration, request: &Request, started_at: i64, outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Blocked(found) => {
            if request.json {
                let json = serde_json::json!({
                    "migration": migration.name, "state": "blocked", "blockers": json_of(&found),
                });
                print(&format!("{json:#}"));
            } else {
                print(&format!(
                    "The cutover is blocked, and nothing was changed:\n{}",
                    listed(&found).trim_end()
                ));
            }
            ExitCode::from(BLOCKED)
        }
        Outcome::Ended(ended) => {
            let mut said = ended.json();
            let kept = keep(migration, request, &said, started_at, false).await;
            if request.json {
                said["report_folder"] = folder(kept.as_deref());
                print(&format!("{said:#}"));
            } else {
                print(&ended.outcome());
                print_some(&accept::text(&ended.accepted));
                for warning in &ended.warnings {
                    print(&format!("warning: {warning}"));
                }
                print_place(kept.as_deref());
            }
            // With --abort, reverted is the success.
            if (ended.state == CutoverState::Open) != request.abort {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(TAKEN_BACK)
            }
        }
        Outcome::Before { report, failed } => {
            // The process that opened the target may have been killed before it wrote its report.
            let mut said: Value =
                report.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            let kept = match said.is_object() {
                true => keep(migration, request, &said, started_at, true).await,
                false => None,
            };
            if request.json {
                if said.is_null() {
                    said = Value::Object(Map::new());
                }
                said["report_folder"] = folder(kept.as_deref());
                print(&format!("{said:#}"));
            } else {
                print(&format!("{} is already switched: the target is the one to write to", migration.name));
                failed.iter().for_each(|line| print(&format!("warning: {line}")));
                print_place(kept.as_deref());
            }
            ExitCode::SUCCESS
        }
    }
}

/// Writes the report, if one is wanted; gives its folder. `once`: unless it is there already.
async fn keep(
    migration: &Migration,
    request: &Request,
    said: &Value,
    started_at: i64,
    once: bool,
) -> Option<PathBuf> {
    let into = report::wanted(&request.report)?;
    let armed = said["armed_at"].as_i64().filter(|at| *at > 0);
    let run = report::Run {
        kind: report::Kind::Cutover,
        migration,
        said: said.clone(),
        at: armed.unwrap_or(started_at),
        started_at: if once { armed.unwrap_or(started_at) } else { started_at },
        once,
    };
    Box::pin(report::keep(run, into)).await
}

fn folder(kept: Option<&Path>) -> Value {
    kept.map_or(Value::Null, |folder| folder.display().to_string().into())
}

fn print_place(kept: Option<&Path>) {
    if let Some(folder) = kept {
        print(&format!("report: {}", folder.join("report.html").display()));
    }
}

fn print_some(text: &str) {
    if !text.is_empty() {
        print(text.trim_end());
    }
}

fn print(text: &str) {
    // If stdout is closed, nobody needs the answer.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
