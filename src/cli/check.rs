//! `slackwater check`: finds every problem that can be found before the first row moves.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use slackwater_connectors::postgres::client::Server;
use slackwater_connectors::source::Kind;

use crate::changes::Change;
use crate::check::{Report, check};
use crate::failure::Failure;
use crate::log::kafka::topics::Ready;
use crate::mapping::{Ask, Plan, asks};
use crate::source::Presence;

pub(super) async fn run(path: &Path, json: bool) -> Result<ExitCode, Failure> {
    let report = check(path).await?;
    let mut stdout = std::io::stdout().lock();
    // If nobody reads the answer, only the exit code tells.
    if json {
        let _ = writeln!(stdout, "{:#}", as_json(&report));
    } else {
        let mut stderr = std::io::stderr().lock();
        if !report.found.is_empty() {
            let color = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let _ = writeln!(stderr, "{}", report.found.errors_first().report(color));
        }
        let _ = match &report.plan {
            Some(plan) => write!(stdout, "{}", as_text(&report, plan)),
            None => writeln!(stderr, "{}; nothing was written", report.found.counted()),
        };
    }
    Ok(report.code.map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// For each collection: its name, its tables, whether post-images are on where its source has them, and its level in the order of the copy.
fn collections(report: &Report, plan: &Plan) -> Vec<(String, Vec<String>, Option<&'static str>, usize)> {
    let mut rows = Vec::with_capacity(plan.collections.len());
    for (source, fitness) in &report.sources {
        for (id, presence) in plan.of_source(source).into_iter().zip(&fitness.collections) {
            let collection = plan.collection(id);
            let mut tables: Vec<String> = Vec::new();
            for table in &collection.tables {
                let spec = plan.written(*table);
                // What is known of documents that others look up is a table of ours.
                let name = if spec.table.schema == "slackwater" {
                    "(looked up)".to_owned()
                } else {
                    spec.table.name.clone()
                };
                if !tables.contains(&name) {
                    tables.push(name);
                }
            }
            let told = *presence == Presence::Missing || has_images(report, source);
            let images = told.then(|| images(*presence));
            rows.push((id, (collection.name.clone(), tables, images, collection.level)));
        }
    }
    rows.sort_by_key(|(id, _)| *id);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Only MongoDB has post-images.
fn has_images(report: &Report, source: &str) -> bool {
    let sources = report.migration.iter().flat_map(|migration| &migration.sources);
    sources.into_iter().any(|one| one.name.value == source && one.kind() == Kind::Mongodb)
}

fn images(presence: Presence) -> &'static str {
    match presence {
        Presence::Present { sends_documents: true } => "on",
        Presence::Present { sends_documents: false } => "off",
        Presence::Missing => "collection missing",
        Presence::Unknown => "unknown",
    }
}

fn as_text(report: &Report, plan: &Plan) -> String {
    let mut text = format!("migration {}: fit to run\n", plan.migration);
    if let Some(target) = &report.target {
        text += &format!("\ntarget: {target}");
    }
    for (name, fitness) in &report.sources {
        text += &format!("\nsource {name}: {}", fitness.text);
    }
    if let Some(topics) = &report.topics {
        let partitions: u32 = topics.iter().map(|topic| topic.partitions).sum();
        text += &format!("\nlog: Kafka, topics: {}, partitions: {partitions}", topics.len());
    }
    text += "\n\n";
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["collection", "tables", "post-images"]);
    for (name, tables, images, _) in collections(report, plan) {
        table.add_row([name.as_str(), &tables.join(", "), images.unwrap_or("-")]);
    }
    text += &format!("{table}\n");
    if !report.changes.is_empty() {
        text += "\nwhat the file changes\n";
        report.changes.iter().for_each(|(_, line)| text += &format!("  {line}\n"));
    }
    let asks = asks(plan);
    if !asks.is_empty() {
        text += "\nwhat your schema asks of us\n";
        let widest = asks.iter().map(|ask| ask.kind.len()).max().unwrap_or_default();
        for Ask { kind, text: said, .. } in &asks {
            text += &format!("  {kind:widest$}  {said}\n");
        }
    }
    text + &format!("\n{}; nothing was written\n", report.found.counted())
}

fn as_json(report: &Report) -> serde_json::Value {
    let sources = report.sources.iter().map(|(name, fitness)| json!({ "name": name, "about": fitness.json }));
    let only = match &report.sources[..] {
        [(_, fitness)] => Some(&fitness.json),
        _ => None,
    };
    let of_plan = |plan: &Plan| {
        let collections = collections(report, plan).into_iter().map(|(name, tables, images, level)| {
            json!({ "name": name, "tables": tables, "post_images": images, "level": level })
        });
        collections.collect::<Vec<_>>()
    };
    let asked = |plan: &Plan| {
        let asks = asks(plan).into_iter();
        asks.map(|ask| json!({ "kind": ask.kind, "tables": ask.tables, "text": ask.text }))
            .collect::<Vec<_>>()
    };
    json!({
        "migration": report.migration.as_ref().map(|migration| &migration.name),
        "fit": report.code.is_none(),
        // For a migration with one source; otherwise see `sources`.
        "source": only,
        "sources": sources.collect::<Vec<_>>(),
        "target": report.target.as_ref().map(as_target),
        "topics": report.topics.as_ref().map(|topics| topics.iter().map(as_topic).collect::<Vec<_>>()),
        "collections": report.plan.as_ref().map(of_plan).unwrap_or_default(),
        "asks": report.plan.as_ref().map(asked).unwrap_or_default(),
        "changes": report.changes.iter().map(|(change, text)| as_change(change, text)).collect::<Vec<_>>(),
        "errors": report.found.errors(),
        "warnings": report.found.list().len() - report.found.errors(),
        "diagnostics": report.found.list(),
    })
}

fn as_change(change: &Change, text: &str) -> serde_json::Value {
    json!({
        "kind": change.what.word(),
        "collection": change.collection,
        "table": change.table,
        "column": change.column,
        "copied_again": change.recopies(),
        "text": text,
    })
}

fn as_target(target: &Server) -> serde_json::Value {
    json!({
        "version": target.version,
        "host": target.host,
        "port": target.port,
        "database": target.database,
        "user": target.user,
        "tls": target.tls,
        "verified": target.tls.map(|_| target.verified.words()),
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
