//! `slackwater topics plan` and `check`: show how the topics differ from their description, without changing them.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value as Json, json};
use slackwater_connectors::error::Kind;
use slackwater_topics::catalog::Step;

use super::kafka_log;
use crate::config::Migration;
use crate::failure::Failure;
use crate::log::kafka::topics::{Look, admin, look};
use crate::ops::policy::exit_code;
use crate::topology::load;

pub(super) async fn plan(file: &Path, json: bool) -> Result<ExitCode, Failure> {
    let (migration, looks) = both(file).await?;
    let text =
        if json { format!("{:#}\n", plan_json(&migration, &looks)) } else { plan_text(&migration, &looks) };
    // If stdout is closed, nobody needs the answer.
    let _ = write!(std::io::stdout(), "{text}");
    let left = looks.iter().any(|look| !look.plan.problems.is_empty());
    Ok(if left { unsuitable() } else { ExitCode::SUCCESS })
}

pub(super) async fn check(file: &Path, json: bool) -> Result<ExitCode, Failure> {
    let (migration, looks) = both(file).await?;
    let differences: Vec<String> = looks.iter().flat_map(Look::differences).collect();
    let fit = differences.is_empty();
    let mut stdout = std::io::stdout().lock();
    if json {
        let _ = writeln!(stdout, "{:#}", check_json(&migration, &looks, fit));
        return Ok(if fit { ExitCode::SUCCESS } else { unsuitable() });
    }
    if !fit {
        return Err(Failure::Unsuitable(differences));
    }
    let _ = writeln!(stdout, "migration {}: {} as described", migration.name, count(looks.len(), "topic"));
    Ok(ExitCode::SUCCESS)
}

async fn both(file: &Path) -> Result<(Migration, Vec<Look>), Failure> {
    let migration = load::migration(file)?;
    let log = kafka_log(&migration)?;
    let looks = look(&admin(&migration, log)?, &migration, log).await?;
    Ok((migration, looks))
}

fn unsuitable() -> ExitCode {
    ExitCode::from(exit_code(Kind::Unsuitable))
}

pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn plan_text(migration: &Migration, looks: &[Look]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header([
        "topic",
        "collection",
        "partitions",
        "replication",
        "plan",
    ]);
    for look in looks {
        let (partitions, replication) =
            look.observed.as_ref().map_or(("-".to_owned(), "-".to_owned()), |observed| {
                (observed.partitions.to_string(), observed.replication.to_string())
            });
        table.add_row([
            look.spec.name.clone(),
            look.collection.clone(),
            partitions,
            replication,
            summary(look),
        ]);
    }
    let mut text = format!("migration {}\n\n{table}\n", migration.name);
    let lines: Vec<String> = looks.iter().flat_map(|look| look.plan.lines()).collect();
    if !lines.is_empty() {
        text += &format!("\n{}\n", lines.join("\n"));
    }
    text + "\nnothing was changed\n"
}

fn summary(look: &Look) -> String {
    if !look.plan.problems.is_empty() {
        return "see below".to_owned();
    }
    match look.plan.steps.as_slice() {
        [] => "as described".to_owned(),
        [Step::Create { .. }] => "create".to_owned(),
        steps => format!("change {}", count(steps.len(), "setting")),
    }
}

fn plan_json(migration: &Migration, looks: &[Look]) -> Json {
    let topics: Vec<Json> = looks
        .iter()
        .map(|look| {
            let steps: Vec<Json> = look.plan.steps.iter().map(step_json).collect();
            let problems: Vec<Json> = look
                .plan
                .problems
                .iter()
                .map(|problem| json!({ "text": problem.to_string(), "stops": problem.stops() }))
                .collect();
            json!({
                "name": look.spec.name,
                "collection": look.collection,
                "described": {
                    "partitions": look.spec.partitions,
                    "replication": look.spec.replication,
                    "config": look.spec.config,
                },
                "observed": look.observed.as_ref().map(|observed| json!({
                    "partitions": observed.partitions,
                    "replication": observed.replication,
                })),
                "steps": steps,
                "problems": problems,
            })
        })
        .collect();
    json!({ "migration": migration.name, "topics": topics })
}

fn step_json(step: &Step) -> Json {
    match step {
        Step::Create { partitions, replication } => {
            json!({ "do": "create", "partitions": partitions, "replication": replication })
        }
        Step::ChangeConfig { name, from, to } => {
            json!({ "do": "change", "setting": name, "from": from, "to": to })
        }
    }
}

fn check_json(migration: &Migration, looks: &[Look], fit: bool) -> Json {
    let topics: Vec<Json> = looks
        .iter()
        .map(|look| {
            json!({
                "name": look.spec.name,
                "collection": look.collection,
                "exists": look.observed.is_some(),
                "differences": look.differences(),
            })
        })
        .collect();
    json!({ "migration": migration.name, "fit": fit, "topics": topics })
}
