//! `slackwater recopy`: collections are copied again, because a person wants it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::recopies::ASKED;

use crate::changes::digest_of;
use crate::config::Migration;
use crate::config::spelling::{list, nearest};
use crate::failure::Failure;
use crate::ops::look::is_up;
use crate::topology::load;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The migration file.
    file: PathBuf,
    /// The collections, as the migration file names them: `legacy.users`. Without any: all of them.
    collections: Vec<String>,
    /// Prints JSON, for machines.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let migration = load::migration(&arguments.file)?;
    let complaints = strangers(&migration, &arguments.collections);
    if !complaints.is_empty() {
        return Err(Failure::Unsuitable(complaints));
    }
    let wanted: Vec<&str> = match &arguments.collections[..] {
        [] => names(&migration).collect(),
        some => some.iter().map(String::as_str).collect(),
    };
    let never = "this migration has never run; `slackwater run` copies everything";
    let never = || Failure::Unsuitable(vec![never.to_owned()]);
    let control = Control::peek(&migration.target.uri).await?.ok_or_else(never)?;
    let recorded = control.mapping(&migration.name).await?.ok_or_else(never)?;
    if control.switched(&migration.name).await? {
        let line =
            "the migration is switched: its rows are those of the application now, and are not copied again";
        return Err(Failure::Unsuitable(vec![line.to_owned()]));
    }
    control.want_recopies(&migration.name, &wanted, (ASKED, "a person asked for it")).await?;
    let rows = control.processes(&migration.name).await?;
    let works = rows.iter().any(|row| matches!(row.role.as_str(), "run" | "capture") && is_up(row));
    let changed = recorded.digest.is_some_and(|digest| digest != digest_of(&migration));
    if arguments.json {
        let answer = json!({
            "migration": migration.name,
            "collections": wanted,
            "begins": if works { "now" } else { "with the next start" },
            "file_has_changed": changed,
        });
        // If nobody reads the answer, only the exit code tells.
        let _ = writeln!(std::io::stdout(), "{answer:#}");
    } else {
        let begins = if works { "begins now" } else { "begins with the next start: no process is at work" };
        tracing::info!("copying again {begins}: {}", wanted.join(", "));
    }
    if changed && works {
        tracing::warn!(
            "the migration file has changed: the process at work makes rows by the one that it was started with"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn names(migration: &Migration) -> impl Iterator<Item = &str> + Clone {
    migration.collections.iter().map(|found| found.name.value.as_str())
}

/// A line for each of these collections that the migration file does not have.
pub(super) fn strangers(migration: &Migration, wanted: &[String]) -> Vec<String> {
    let strange = wanted.iter().filter(|name| !names(migration).any(|known| known == name.as_str()));
    strange
        .map(|name| {
            let help = match nearest(name, names(migration)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it has: {}", list(names(migration))),
            };
            format!("the migration file has no collection `{name}`; {help}")
        })
        .collect()
}
