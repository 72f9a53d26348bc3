//! `slackwater check`: finds every problem that can be found before the first row moves.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use slackwater_connectors::postgres::client::{Server, look};

use crate::config::Migration;
use crate::failure::Failure;
use crate::log::kafka::topics::{Ready, of_log};
use crate::mapping::{Ask, Plan, asks};
use crate::source::{Fitness, Presence};
use crate::topology::load;

/// The result of the check.
struct Found {
    plan: std::sync::Arc<Plan>,
    target: Server,
    /// Every source with its name.
    sources: Vec<(String, Fitness)>,
    /// The topics, if the log is Kafka.
    topics: Option<Vec<Ready>>,
}

pub(super) async fn run(path: &Path, json: bool) -> Result<ExitCode, Failure> {
    let found = find(&load::migration(path)?).await?;
    let mut stdout = std::io::stdout().lock();
    // If stdout is closed, nobody needs the answer.
    let _ =
        if json { writeln!(stdout, "{:#}", as_json(&found)) } else { write!(stdout, "{}", as_text(&found)) };
    Ok(ExitCode::SUCCESS)
}

async fn find(migration: &Migration) -> Result<Found, Failure> {
    let target = look(&migration.target.uri).await?;
    let plan = load::plan(migration).await?;
    let mut sources = Vec::with_capacity(migration.sources.len());
    for source in &migration.sources {
        let (named, fitness) = load::fit(source, &plan).await?;
        sources.push((named.name, fitness));
    }
    Ok(Found { plan, target, sources, topics: of_log(migration).await? })
}

impl Found {
    /// For each collection: its name, its tables, whether post-images are on, and its level in the order of the copy.
    fn collections(&self) -> Vec<(String, Vec<String>, &'static str, usize)> {
        let mut rows = Vec::with_capacity(self.plan.collections.len());
        for (source, fitness) in &self.sources {
            for (id, presence) in self.plan.of_source(source).into_iter().zip(&fitness.collections) {
                let collection = self.plan.collection(id);
                let tables =
                    collection.tables.iter().map(|table| self.plan.tables[*table].table.name.clone());
                rows.push((
                    id,
                    (collection.name.clone(), tables.collect(), images(*presence), collection.level),
                ));
            }
        }
        rows.sort_by_key(|(id, _)| *id);
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn warnings(&self) -> Vec<String> {
        let of_sources =
            self.sources.iter().flat_map(|(_, fitness)| fitness.findings.warnings.iter().cloned());
        load::warnings(&self.plan).into_iter().chain(self.target.warning()).chain(of_sources).collect()
    }
}

fn images(presence: Presence) -> &'static str {
    match presence {
        Presence::Present { sends_documents: true } => "on",
        Presence::Present { sends_documents: false } => "off",
        Presence::Missing => "collection missing",
        Presence::Unknown => "unknown",
    }
}

fn as_text(found: &Found) -> String {
    let mut text = format!("migration {}: fit to run\n\ntarget: {}", found.plan.migration, found.target);
    for (name, fitness) in &found.sources {
        text += &format!("\nsource {name}: {}", fitness.text);
    }
    if let Some(topics) = &found.topics {
        let partitions: u32 = topics.iter().map(|topic| topic.partitions).sum();
        text += &format!("\nlog: Kafka, topics: {}, partitions: {partitions}", topics.len());
    }
    text += "\n\n";
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["collection", "tables", "post-images"]);
    for (name, tables, images, _) in found.collections() {
        table.add_row([name.as_str(), &tables.join(", "), images]);
    }
    text += &format!("{table}\n");
    let asks = asks(&found.plan);
    if !asks.is_empty() {
        text += "\nwhat your schema asks of us\n";
        let widest = asks.iter().map(|ask| ask.kind.len()).max().unwrap_or_default();
        for Ask { kind, text: said, .. } in &asks {
            text += &format!("  {kind:widest$}  {said}\n");
        }
    }
    for warning in found.warnings() {
        text += &format!("\nwarning: {warning}");
    }
    text + "\nnothing was written\n"
}

fn as_json(found: &Found) -> serde_json::Value {
    let collections = found.collections().into_iter().map(|(name, tables, images, level)| {
        json!({ "name": name, "tables": tables, "post_images": images, "level": level })
    });
    let sources = found.sources.iter().map(|(name, fitness)| json!({ "name": name, "about": fitness.json }));
    let only = match &found.sources[..] {
        [(_, fitness)] => Some(&fitness.json),
        _ => None,
    };
    json!({
        "migration": found.plan.migration,
        "fit": true,
        // For a migration with one source; otherwise see `sources`.
        "source": only,
        "sources": sources.collect::<Vec<_>>(),
        "target": {
            "version": found.target.version,
            "host": found.target.host,
            "port": found.target.port,
            "database": found.target.database,
            "user": found.target.user,
            "tls": found.target.tls,
            "verified": found.target.tls.map(|_| found.target.verified.words()),
        },
        "topics": found.topics.as_ref().map(|topics| topics.iter().map(as_topic).collect::<Vec<_>>()),
        "collections": collections.collect::<Vec<_>>(),
        "asks": asks(&found.plan)
            .into_iter()
            .map(|ask| json!({ "kind": ask.kind, "tables": ask.tables, "text": ask.text }))
            .collect::<Vec<_>>(),
        "warnings": found.warnings(),
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
