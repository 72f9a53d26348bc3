//! `slackwater topics apply`: creates missing topics, changes settings that differ, and prints both.
//!
//! A failure with one topic does not stop the others. If the command is killed, the next one does the rest.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::kafka::{Admin, NewTopic};
use slackwater_topics::catalog::Step;

use super::kafka_log;
use super::plan::count;
use crate::failure::Failure;
use crate::log::kafka::topics::{Look, admin, look};
use crate::ops::policy::{exit_code, remedy};
use crate::topology::load;

pub(super) async fn run(file: &Path) -> Result<ExitCode, Failure> {
    let migration = load::migration(file)?;
    let log = kafka_log(&migration)?;
    let admin = admin(&migration, log)?;
    let looks = look(&admin, &migration, log).await?;
    let mut failed = create(&admin, &looks).await?;
    for look in &looks {
        failed.extend(change(&admin, look).await.err());
    }
    if looks.iter().all(|look| look.plan.is_settled()) {
        print(&format!("{} as described: nothing to do", count(looks.len(), "topic")));
    }
    let mut code = None;
    for error in failed {
        complain(&format!("error: {error}\n  help: {}", remedy(&error)));
        code = code.or(Some(exit_code(error.kind)));
    }
    for (topic, problem) in
        looks.iter().flat_map(|look| look.plan.problems.iter().map(|problem| (&look.spec.name, *problem)))
    {
        let word = if problem.stops() { "error" } else { "warning" };
        complain(&format!("{word}: {topic}: {problem}"));
        if problem.stops() {
            code = code.or(Some(exit_code(Kind::Unsuitable)));
        }
    }
    Ok(code.map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// Creates the missing topics; returns the errors of those that were refused.
async fn create(admin: &Admin, looks: &[Look]) -> Result<Vec<Error>, Failure> {
    let missing: Vec<&Look> =
        looks.iter().filter(|look| matches!(look.plan.steps[..], [Step::Create { .. }])).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: Vec<NewTopic> = missing
        .iter()
        .map(|look| NewTopic {
            name: look.spec.name.clone(),
            partitions: look.spec.partitions,
            replication: look.spec.replication,
            config: look.spec.config.clone(),
        })
        .collect();
    let mut refused = Vec::new();
    for (name, made) in admin.create(&wanted).await? {
        match made {
            Ok(()) => {
                let spec = missing.iter().map(|look| &look.spec).find(|spec| spec.name == name);
                let (partitions, replication) =
                    spec.map_or((0, 0), |spec| (spec.partitions, spec.replication));
                print(&format!("{name}: created with partitions: {partitions}, replication: {replication}"));
            }
            Err(error) => refused.push(error),
        }
    }
    Ok(refused)
}

/// Changes the settings of a topic that differ from their description.
async fn change(admin: &Admin, look: &Look) -> Result<(), Error> {
    let changes: Vec<_> = look
        .plan
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::ChangeConfig { name, from, to } => Some((name, from, to)),
            Step::Create { .. } => None,
        })
        .collect();
    if changes.is_empty() {
        return Ok(());
    }
    let config: BTreeMap<String, String> =
        changes.iter().map(|(name, _, to)| ((*name).clone(), (*to).clone())).collect();
    let topic = &look.spec.name;
    admin.change(topic, &config).await?;
    for (name, from, to) in changes {
        let from = from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
        print(&format!("{topic}: changed {name}{from} to {to}"));
    }
    Ok(())
}

/// Prints a line. If stdout is closed, nobody needs it.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
