//! What a report tells beside the run itself. Asked when the run is over. Whatever does not answer in time is missing in the report, which
//! says so.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::kafka::{Admin, client_version};
use slackwater_connectors::postgres::client;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::ledger::IncidentRow;
use slackwater_connectors::postgres::control::reports::ListedLetter;

use crate::config::{Log, Migration};
use crate::ops::{json, look, process};
use crate::source::Named;
use crate::topology::load;

/// A server that takes longer to say what it is stays unnamed.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// The lists of the control store may be long.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// Longer lists are cut, and the report says so.
const MOST_LETTERS: i64 = 100_000;
const MOST_INCIDENTS: i64 = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// As `status --json`; null if the control store did not answer.
    pub(super) look: Value,
    pub(super) letters: Vec<ListedLetter>,
    pub(super) incidents: Vec<IncidentRow>,
    /// What the last verification says, as JSON.
    pub(super) verified: Value,
    /// About how many rows each table has, by its name with its schema.
    pub(super) about: Vec<(String, Option<u64>)>,
    pub(super) versions: Value,
    /// What could not be asked, and why.
    pub(super) missing: Vec<String>,
}

pub(super) async fn gather(migration: &Migration) -> Gathered {
    let stored = tokio::time::timeout(READ_WITHIN, stored(migration));
    let (stored, sources, target, kafka) =
        tokio::join!(stored, sources(migration), target(migration), kafka(migration));
    let mut gathered = match stored {
        Ok(Ok(gathered)) => gathered,
        Ok(Err(error)) => lacking(format!("what the control store knows: {error}")),
        Err(_) => lacking("what the control store knows: it did not answer in time".to_owned()),
    };
    gathered.versions = json!({ "sources": sources, "postgres": target, "kafka": kafka });
    gathered
}

/// The machine that the command ran on: a shell does not always say so in the environment.
pub(super) fn host() -> String {
    let told =
        std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let told = told.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    told.unwrap_or_else(process::host)
}

fn lacking(what: String) -> Gathered {
    Gathered { missing: vec![what], ..Gathered::default() }
}

/// What the control store knows.
async fn stored(migration: &Migration) -> Result<Gathered> {
    let name = &migration.name;
    let control = Control::peek(&migration.target.uri).await?.ok_or_else(|| {
        Error::new(
            Kind::Unsuitable,
            "reading the control store",
            "slackwater has never run against this target",
        )
    })?;
    let look = look::Look::read(&control, &look::Named::of(migration)).await?;
    let verified = control.verified_report(name).await?;
    let mut tables = load::tables(migration);
    tables.sort();
    tables.dedup();
    let about = control.about_rows(&tables).await?;
    let letters = control.listed_letters(name, MOST_LETTERS).await?;
    let incidents = control.incidents(name, MOST_INCIDENTS).await?;
    let mut missing = Vec::new();
    if letters.len() as i64 == MOST_LETTERS {
        missing.push(format!(
            "dead letters beyond the first {MOST_LETTERS}: they are in slackwater.dead_letters"
        ));
    }
    if incidents.len() as i64 == MOST_INCIDENTS {
        missing.push(format!("incidents beyond the last {MOST_INCIDENTS}: they are in slackwater.incidents"));
    }
    Ok(Gathered {
        look: json::json(&look),
        letters,
        incidents,
        // What an older program has written is not shown rather than misread.
        verified: verified.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        about: tables.into_iter().map(|(schema, table)| format!("{schema}.{table}")).zip(about).collect(),
        versions: Value::Null,
        missing,
    })
}

/// What each source is.
async fn sources(migration: &Migration) -> Vec<Value> {
    let connected = Named::connect_to_those_that_answer(&migration.sources).await;
    let asked = migration.sources.iter().map(|source| {
        let named = connected.iter().find(|named| named.name == source.name.value);
        async move {
            let fitness = match named {
                Some(named) => tokio::time::timeout(ANSWERS_WITHIN, named.source.fitness(&[])).await,
                None => {
                    return json!({"name": source.name.value, "kind": source.kind().word(), "version": null});
                }
            };
            let fitness = fitness.ok().and_then(Result::ok);
            let version = fitness.as_ref().map(|fitness| fitness.json["version"].clone());
            json!({
                "name": source.name.value, "kind": source.kind().word(), "version": version,
                "system": fitness.map(|fitness| fitness.text),
            })
        }
    });
    join_all(asked).await
}

/// What the target is.
async fn target(migration: &Migration) -> Value {
    match tokio::time::timeout(ANSWERS_WITHIN, client::look(&migration.target.uri)).await {
        Ok(Ok(server)) => json!({"version": server.version, "system": server.to_string()}),
        _ => json!({"version": null}),
    }
}

/// What is known of Kafka; null where it is not the log.
async fn kafka(migration: &Migration) -> Value {
    let Log::Kafka(log) = &migration.log else { return Value::Null };
    let brokers = async { Admin::open(&log.settings("report"))?.brokers().await };
    let brokers = tokio::time::timeout(ANSWERS_WITHIN, brokers).await;
    json!({"client": format!("librdkafka {}", client_version()), "brokers": brokers.ok().and_then(Result::ok)})
}
