//! `slackwater reset`: forgets a migration. What belongs to the application goes only if it is asked for, and named.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use slackwater_connectors::kafka::Admin;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::target::introspect;
use slackwater_connectors::postgres::target::rows::TableSpec;

use crate::config::{Log, Migration, Table};
use crate::failure::Failure;
use crate::log::kafka::topics::{admin, specs};
use crate::ops::look::is_up;
use crate::topology::load;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The migration file.
    file: PathBuf,
    /// Removes the migration's topics in Kafka as well, with their records.
    #[arg(long)]
    topics: bool,
    /// Deletes the rows that the migration could have made from the application's tables as well.
    #[arg(long)]
    rows: bool,
    /// The migration's name, instead of being asked for it.
    #[arg(long, value_name = "NAME")]
    yes: Option<String>,
    /// Prints JSON, for machines.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let migration = load::migration(&arguments.file)?;
    let control = Control::peek(&migration.target.uri).await?;
    let refuse = |line: String| Err(Failure::Unsuitable(vec![line]));
    let Some(mut control) = control else {
        return refuse("slackwater has never run against this target: there is nothing to forget".to_owned());
    };
    if arguments.topics && !matches!(migration.log, Log::Kafka(_)) {
        return refuse("the migration has no topics: its log is not Kafka. Leave `--topics` out".to_owned());
    }
    let rows = control.processes(&migration.name).await?;
    let alive: Vec<&str> = rows.iter().filter(|row| is_up(row)).map(|row| row.name.as_str()).collect();
    if !alive.is_empty() {
        let names = alive.join(", ");
        return refuse(format!("processes of the migration are at work: {names}. Stop them, and try again"));
    }
    if arguments.rows && control.switched(&migration.name).await? {
        return refuse(
            "the migration is switched: the rows are those of the application now. Leave `--rows` out"
                .to_owned(),
        );
    }
    if !arguments.rows && !control.switched(&migration.name).await? {
        let kept = histories(&migration).await?;
        if !kept.is_empty() {
            return Err(Failure::Unsuitable(kept));
        }
    }
    let plan = if arguments.rows { Some(load::plan(&migration).await?) } else { None };
    let admin = match &migration.log {
        Log::Kafka(log) if arguments.topics => Some((admin(&migration, log)?, specs(&migration, log)?)),
        _ => None,
    };
    if let Some((admin, _)) = &admin {
        // Brokers that do not answer are heard of before anything is forgotten.
        admin.brokers().await?;
    }
    confirm(&arguments, &migration)?;
    let tables: Vec<&TableSpec> = plan.iter().flat_map(|plan| plan.tables.iter()).collect();
    let forgotten = control.reset(&migration.name, &tables).await?;
    let mut topics = Vec::new();
    if let Some((admin, specs)) = admin {
        for spec in specs {
            if delete(&admin, &spec.name).await? {
                topics.push(spec.name);
            }
        }
    }
    if arguments.json {
        let rows = forgotten.rows.iter().map(|(table, rows)| json!({ "table": table, "rows": rows }));
        let answer = json!({
            "migration": migration.name,
            "known": forgotten.known,
            "rows": rows.collect::<Vec<_>>(),
            "topics": topics,
        });
        // If nobody reads the answer, only the exit code tells.
        let _ = writeln!(std::io::stdout(), "{answer:#}");
    } else {
        for (table, rows) in &forgotten.rows {
            tracing::info!("{rows} rows of {table} are deleted");
        }
        for topic in &topics {
            tracing::info!("topic {topic} is removed");
        }
        match forgotten.known {
            true => tracing::info!(
                "migration {} is forgotten: the next start begins from the beginning",
                migration.name
            ),
            false => tracing::info!("migration {} was not known", migration.name),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What stands in the way: tables of history with rows. The numbers of their versions would be forgotten, and the next start would write
/// version 1 over the rows that are there.
async fn histories(migration: &Migration) -> Result<Vec<String>, Failure> {
    let tables = migration.collections.iter().flat_map(|collection| &collection.tables);
    let tables = tables.filter(|table| table.history.is_some());
    let name = |table: &Table| {
        let schema = table.schema.clone().unwrap_or_else(|| migration.target.schema.clone());
        (schema, table.into.value.clone())
    };
    let names: Vec<(String, String)> = tables.map(name).collect::<BTreeSet<_>>().into_iter().collect();
    let counts = introspect::count_rows(&migration.target.uri, &names).await?;
    let filled = names
        .iter()
        .zip(counts)
        .filter_map(|(name, count)| Some((name, count.filter(|(rows, _)| *rows > 0)?)));
    let line = |((schema, table), (rows, exact)): (&(String, String), (u64, bool))| {
        let about = if exact { "" } else { "about " };
        format!(
            "{schema}.{table} is a table of history with {about}{rows} rows. What is known of their versions would be forgotten, and the next \
             start would count from 1 again and write over them. Give it another name (`ALTER TABLE {schema}.{table} RENAME TO …`) and make it \
             anew, or empty it; or add `--rows`, which deletes all rows that the migration has made"
        )
    };
    Ok(filled.map(line).collect())
}

/// Removes a topic. False if there is none.
async fn delete(admin: &Admin, topic: &str) -> Result<bool, Failure> {
    if let [None] = admin.observe(&[topic]).await?[..] {
        return Ok(false);
    }
    admin.delete(topic).await?;
    Ok(true)
}

/// A person types the migration's name, here or on the command line.
fn confirm(arguments: &Arguments, migration: &Migration) -> Result<(), Failure> {
    let what = match (arguments.rows, arguments.topics) {
        (false, false) => "what slackwater knows of it",
        (false, true) => "what slackwater knows of it, and its topics",
        (true, false) => "what slackwater knows of it, and its rows in the application's tables",
        (true, true) => "what slackwater knows of it, its topics, and its rows in the application's tables",
    };
    let typed = match &arguments.yes {
        Some(name) => name.clone(),
        None if std::io::stdin().is_terminal() => {
            let mut stderr = std::io::stderr();
            let _ = write!(stderr, "This removes {what}. Type the migration's name to go on: ");
            let _ = stderr.flush();
            let mut line = String::new();
            let _ = std::io::stdin().read_line(&mut line);
            line.trim().to_owned()
        }
        None => {
            let line = format!("this removes {what}: confirm it with `--yes {}`", migration.name);
            return Err(Failure::Unsuitable(vec![line]));
        }
    };
    if typed == migration.name {
        return Ok(());
    }
    let line = format!(
        "the migration is named `{}`, and something else was typed: nothing is removed",
        migration.name
    );
    Err(Failure::Unsuitable(vec![line]))
}
