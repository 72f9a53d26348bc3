//! From the path of a migration file to a plan and two servers that are fit for it. Writes nothing.

use std::path::Path;
use std::sync::Arc;

use slackwater_connectors::error::Kind;
use slackwater_connectors::mongodb::{Mongo, Preflight};
use slackwater_connectors::postgres::target::introspect;
use slackwater_connectors::retry::Pauses;

use super::exit::Failure;
use crate::config::{self, Migration};
use crate::mapping::{self, Plan};
use crate::ops::preflight::{Findings, judge};

/// How often the source is looked at when the connection breaks.
const TRIES: usize = 4;

/// Reads and checks the migration file, as far as that goes without a server.
pub(super) fn migration(path: &Path) -> Result<Migration, Failure> {
    config::load(path)
        .map_err(|error| Failure::File { path: path.display().to_string(), error })?
        .map_err(Failure::Mistakes)
}

/// A text that changes when the migration file does.
pub(super) fn fingerprint(path: &Path) -> Result<String, Failure> {
    let text =
        std::fs::read(path).map_err(|error| Failure::File { path: path.display().to_string(), error })?;
    Ok(uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &text).simple().to_string())
}

/// Compiles it against the target's catalogue.
pub(super) async fn plan(migration: &Migration) -> Result<Arc<Plan>, Failure> {
    let catalog = introspect::read(&migration.target.uri, &tables(migration)).await?;
    mapping::compile(migration, &catalog).map(Arc::new).map_err(Failure::Mistakes)
}

/// The tables that it names.
fn tables(migration: &Migration) -> Vec<(String, String)> {
    let tables = migration.collections.iter().flat_map(|collection| &collection.tables);
    tables
        .map(|table| {
            let schema = table.schema.clone().unwrap_or_else(|| migration.target.schema.clone());
            (schema, table.into.value.clone())
        })
        .collect()
}

/// Connects to the source and asks whether it is fit.
pub(super) async fn source(
    migration: &Migration,
    plan: &Plan,
) -> Result<(Mongo, Preflight, Findings), Failure> {
    let Some(source) = migration.sources.first() else {
        return Err(Failure::Unsuitable(vec!["the migration file names no source".to_owned()]));
    };
    let mongo = Mongo::connect(&source.uri, &source.database).await?;
    let names: Vec<String> =
        plan.collections.iter().map(|collection| collection.collection.clone()).collect();
    let mut pauses = Pauses::for_server();
    let mut tries = 1;
    let preflight = loop {
        match mongo.preflight(&names).await {
            Ok(preflight) => break preflight,
            // A connection that broke while we looked says nothing about what is there.
            Err(error) if error.kind == Kind::Unreachable && tries < TRIES => {
                tokio::time::sleep(pauses.next_pause()).await;
                tries += 1;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let findings = judge(&preflight, &source.database);
    Ok((mongo, preflight, findings))
}

/// What somebody should look at, of the file and of the source.
pub(super) fn warnings(plan: &Plan, findings: &Findings) -> Vec<String> {
    let mut warnings: Vec<String> = plan
        .warnings
        .list()
        .iter()
        .map(|warning| match &warning.help {
            Some(help) => format!("line {}: {}; {help}", warning.line, warning.message),
            None => format!("line {}: {}", warning.line, warning.message),
        })
        .collect();
    warnings.extend(findings.warnings.iter().cloned());
    warnings
}
