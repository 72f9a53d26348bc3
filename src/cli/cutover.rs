//! `slackwater cutover`: shows the plan, makes the cutover, or reverts it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::cutover::CutoverState;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Migration;
use crate::cutover::facts;
use crate::cutover::lead::{Leader, Outcome, leader_of};
use crate::cutover::plan::{self, Blocker, listed, steps};
use crate::cutover::report::DoneStep;
use crate::failure::Failure;
use crate::mapping::Plan;
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
    pub(super) report: Option<PathBuf>,
}

pub(super) async fn run(path: &Path, request: Request) -> Result<ExitCode, Failure> {
    let migration = load::migration(path)?;
    if request.plan {
        return show(&migration, request.json).await;
    }
    let plan = load::plan(&migration).await?;
    let sources = match request.abort {
        // One that is away does not keep the others frozen.
        true => Named::connect_to_those_that_answer(&migration.sources).await,
        false => Named::connect_all(&migration.sources).await?,
    };
    let on_step = |step: &DoneStep| show_step(step, request.json);
    let leader = Leader::new(&migration, &plan, sources, &on_step).await?;
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
        tokio::select! {
            outcome = Box::pin(leader.run()) => outcome?,
            _ = interrupt.recv() => revert_cutover(&migration, &plan, &on_step).await?,
            _ = terminate.recv() => revert_cutover(&migration, &plan, &on_step).await?,
        }
    };
    Ok(end(&migration, &request, outcome))
}

/// Takes the interrupted cutover back, or finds that it has already opened the target.
async fn revert_cutover(
    migration: &Migration,
    plan: &Arc<Plan>,
    on_step: &(dyn Fn(&DoneStep) + Sync),
) -> Result<Outcome, Failure> {
    let sources = Named::connect_to_those_that_answer(&migration.sources).await;
    let leader = Leader::new(migration, plan, sources, on_step).await?;
    Ok(leader.abort("it was interrupted").await?.unwrap_or(Outcome::Blocked(Vec::new())))
}

fn no_signals(error: std::io::Error) -> Failure {
    Error::new(Kind::Bug, "listening for signals", error.to_string()).into()
}

/// Shows the steps, and what blocks now. Changes nothing.
async fn show(migration: &Migration, json: bool) -> Result<ExitCode, Failure> {
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
    let (facts, found) = facts::settled(migration, &control, &sources, busy).await?;
    let warnings = plan::warnings(&facts.look.breach_counts);
    if json {
        let steps: Vec<_> = steps(migration)
            .into_iter()
            .map(|step| serde_json::json!({"step": step.name, "what": step.text}))
            .collect();
        let plan = serde_json::json!({
            "migration": migration.name, "lag_ms": facts.look.lag_ms(), "steps": steps, "blockers": json_of(&found),
            "warnings": warnings,
        });
        print(&format!("{plan:#}"));
    } else {
        print(plan::text(migration, &found, &warnings).trim_end());
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

fn end(migration: &Migration, request: &Request, outcome: Outcome) -> ExitCode {
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
        Outcome::Ended(report) => {
            let json = format!("{:#}", report.json());
            let mut kept = None;
            if let Some(folder) = &request.report {
                kept = keep(folder, &json, Some(&report.page()));
            }
            if request.json {
                print(&json);
            } else {
                print(&report.outcome());
                for warning in &report.warnings {
                    print(&format!("warning: {warning}"));
                }
                if let Some(kept) = kept {
                    print(&kept);
                }
            }
            // With --abort, reverted is the success.
            if (report.state == CutoverState::Open) != request.abort {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(TAKEN_BACK)
            }
        }
        Outcome::Before { report, failed } => {
            if let (Some(folder), Some(report)) = (&request.report, &report) {
                keep(folder, report, None);
            }
            if request.json {
                print(report.as_deref().unwrap_or("{}"));
            } else {
                print(&format!("{} is already switched: the target is the one to write to", migration.name));
                failed.iter().for_each(|line| print(&format!("warning: {line}")));
            }
            ExitCode::SUCCESS
        }
    }
}

/// Writes the report and returns a line that names its place. A failure does not change the outcome.
fn keep(folder: &Path, json: &str, page: Option<&str>) -> Option<String> {
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("cutover.json"), json)?;
        page.map_or(Ok(()), |page| std::fs::write(folder.join("cutover.html"), page))
    };
    match write() {
        Ok(()) => Some(format!("report: {}", folder.join("cutover.html").display())),
        Err(error) => {
            Some(format!("warning: the report cannot be written into {}: {error}", folder.display()))
        }
    }
}

fn print(text: &str) {
    // If stdout is closed, nobody needs the answer.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
