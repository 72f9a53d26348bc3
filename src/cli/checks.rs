//! `slackwater checks`: what the source says against what the target says, whatever the mapping is.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::control::Control;

use crate::checks::{Checked, Ground, Verdict, keep};
use crate::config::Migration;
use crate::config::spelling::{list, nearest};
use crate::failure::Failure;
use crate::ops::persist::Stopped;
use crate::ops::stop;
use crate::ops::store::{Store, ask};
use crate::source::Named;
use crate::topology::load;

/// Exit code: a check fails, or could not be told.
const FAILS: u8 = 11;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The migration file.
    file: PathBuf,
    /// Only the check of this name. May be given several times.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Prints JSON, for machines.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let migration = load::migration(&arguments.file)?;
    let never = "this migration has never run; start it with `slackwater run`";
    let never = || Failure::Unsuitable(vec![never.to_owned()]);
    let control = Control::peek(&migration.target.uri).await?.ok_or_else(never)?;
    control.mapping(&migration.name).await?.ok_or_else(never)?;
    if control.switched(&migration.name).await? {
        let line = "the migration is switched: source and target go their own ways";
        return Err(Failure::Unsuitable(vec![line.to_owned()]));
    }
    let found = Box::pin(check(&migration, &arguments)).await?;
    let holds = found.iter().all(|checked| checked.verdict() == Verdict::Holds);
    let mut stdout = std::io::stdout().lock();
    // If nobody reads the answer, only the exit code tells.
    let _ = if arguments.json {
        let checks: Vec<_> = found.iter().map(Checked::json).collect();
        let answer = json!({ "migration": migration.name, "holds": holds, "checks": checks });
        writeln!(stdout, "{answer:#}")
    } else {
        write!(stdout, "{}", text(&found))
    };
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::from(FAILS) })
}

async fn check(migration: &Migration, arguments: &Arguments) -> Result<Vec<Checked>, Failure> {
    let sources = Named::connect_all(&migration.sources).await?;
    // Nobody stops it but a signal, and there is nothing to be tidied up then.
    let (_stopper, stop) = stop::channel();
    let mut ground = Ground::open(migration, &sources, &stop).await.map_err(failed)?;
    let mut store = Store::new(&migration.target.uri, None, &stop);
    let own = ground.built_in().await?;
    let names = migration.checks.iter().map(|check| check.name.value.as_str());
    let all: Vec<&str> = names.chain(own.iter().map(|key| key.name.as_str())).collect();
    let strange = strangers(&all, &arguments.names);
    if !strange.is_empty() {
        return Err(Failure::Unsuitable(strange));
    }
    let wanted = |name: &str| arguments.names.is_empty() || arguments.names.iter().any(|one| one == name);
    let mut found = Vec::new();
    for check in migration.checks.iter().filter(|check| wanted(&check.name.value)) {
        let began = ask!(store, control => control.clock()).map_err(failed)?;
        let checked = ground.run(check).await.map_err(failed)?;
        keep(&mut store, &migration.name, &checked, began).await.map_err(failed)?;
        found.push(checked);
    }
    for key in own.iter().filter(|key| wanted(&key.name)) {
        found.push(ground.run_built_in(key).await.map_err(failed)?);
    }
    Ok(found)
}

fn failed(stopped: Stopped) -> Failure {
    match stopped {
        Stopped::Failed(error) => error.into(),
        Stopped::Asked => Error::new(Kind::Bug, "running the checks", "they were stopped").into(),
    }
}

/// A line for each of these that is no check.
fn strangers(all: &[&str], wanted: &[String]) -> Vec<String> {
    let strange = wanted.iter().filter(|name| !all.contains(&name.as_str()));
    strange
        .map(|name| {
            let help = match nearest(name, all.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are: {}", list(all.iter().copied())),
            };
            format!("there is no check `{name}`; {help}")
        })
        .collect()
}

fn text(found: &[Checked]) -> String {
    if found.is_empty() {
        return "the migration file has no checks, and Postgres vouches for all foreign keys\n".to_owned();
    }
    let mut text = String::new();
    for checked in found {
        let word = match checked.verdict() {
            Verdict::CannotRun => "fails",
            verdict => verdict.word(),
        };
        let mut lines = checked.lines().into_iter();
        text += &format!("{word:<10} {}\n", lines.next().unwrap_or_default());
        lines.for_each(|line| text += &format!("{:<10} {line}\n", ""));
    }
    text
}
