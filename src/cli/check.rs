//! `slackwater check`: everything that can be known before the first row moves.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use slackwater_connectors::mongodb::{Preflight, Presence};

use super::exit::Failure;
use super::load;
use super::topics::{self, Ready};
use crate::mapping::Plan;
use crate::ops::preflight::Findings;

pub(super) async fn run(path: &Path, json: bool) -> Result<ExitCode, Failure> {
    let migration = load::migration(path)?;
    let plan = load::plan(&migration).await?;
    let (_, preflight, findings) = load::source(&migration, &plan).await?;
    findings_or_failure(&findings)?;
    let topics = topics::of_log(&migration).await?;
    let mut stdout = std::io::stdout().lock();
    // A reader that has gone away wants no answer.
    let _ = if json {
        writeln!(stdout, "{:#}", as_json(&plan, &preflight, &findings, topics.as_deref()))
    } else {
        write!(stdout, "{}", as_text(&plan, &preflight, &findings, topics.as_deref()))
    };
    Ok(ExitCode::SUCCESS)
}

/// Errors of the source end the command.
pub(super) fn findings_or_failure(findings: &Findings) -> Result<(), Failure> {
    if findings.errors.is_empty() {
        return Ok(());
    }
    if findings.denied {
        return Err(Failure::Denied(findings.errors.clone()));
    }
    Err(Failure::Unsuitable(findings.errors.clone()))
}

fn images(preflight: &Preflight, index: usize) -> &'static str {
    match preflight.collections.get(index).map(|collection| &collection.presence) {
        Some(Presence::Present(info)) if info.post_images => "on",
        Some(Presence::Present(_)) => "off",
        Some(Presence::Missing) => "collection missing",
        _ => "unknown",
    }
}

fn as_text(plan: &Plan, preflight: &Preflight, findings: &Findings, topics: Option<&[Ready]>) -> String {
    let (major, minor, patch) = preflight.version;
    let set = preflight.replica_set.as_deref().unwrap_or("sharded cluster");
    let mut text =
        format!("migration {}: fit to run\n\nsource: MongoDB {major}.{minor}.{patch}, {set}", plan.migration);
    if let Some(hours) = preflight.oplog_hours {
        text += &format!(", oplog reaches back {hours:.1} h");
    }
    if let Some(topics) = topics {
        let partitions: u32 = topics.iter().map(|topic| topic.partitions).sum();
        text += &format!("\nlog: Kafka, topics: {}, partitions: {partitions}", topics.len());
    }
    text += "\n\n";
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["collection", "tables", "post-images"]);
    for (index, collection) in plan.collections.iter().enumerate() {
        table.add_row([collection.name.as_str(), &tables(plan, index).join(", "), images(preflight, index)]);
    }
    text += &format!("{table}\n");
    for warning in load::warnings(plan, findings) {
        text += &format!("\nwarning: {warning}");
    }
    text + "\nnothing was written\n"
}

fn tables(plan: &Plan, collection: usize) -> Vec<String> {
    plan.collections[collection].tables.iter().map(|table| plan.tables[*table].table.name.clone()).collect()
}

fn as_json(
    plan: &Plan,
    preflight: &Preflight,
    findings: &Findings,
    topics: Option<&[Ready]>,
) -> serde_json::Value {
    let (major, minor, patch) = preflight.version;
    let collections: Vec<_> = (0..plan.collections.len())
        .map(|index| {
            json!({
                "name": plan.collections[index].name,
                "tables": tables(plan, index),
                "post_images": images(preflight, index),
                "level": plan.collections[index].level,
            })
        })
        .collect();
    let warnings = load::warnings(plan, findings);
    json!({
        "migration": plan.migration,
        "fit": true,
        "source": {
            "version": format!("{major}.{minor}.{patch}"),
            "replica_set": preflight.replica_set,
            "oplog_hours": preflight.oplog_hours,
        },
        "topics": topics.map(|topics| topics.iter().map(as_topic).collect::<Vec<_>>()),
        "collections": collections,
        "warnings": warnings,
    })
}

fn as_topic(topic: &Ready) -> serde_json::Value {
    json!({
        "name": topic.name,
        "partitions": topic.partitions,
        "partitions_described": topic.described,
        "largest_record": topic.largest,
        "compacted": topic.compacted,
    })
}
