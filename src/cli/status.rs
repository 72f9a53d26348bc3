//! `slackwater status`: one look at the whole migration, read from the control store; with `--watch` one a second.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::control::Control;
use slackwater_topics::Moment;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::config::Migration;
use crate::failure::Failure;
use crate::ops::json::json;
use crate::ops::look::{self, Look};
use crate::ops::persist::passes;
use crate::ops::text::text;
use crate::source::Named;
use crate::topology::load;

/// The time between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(1);
/// How long the source may take to answer; after that the control store's last pulse is shown.
const ANSWER: Duration = Duration::from_secs(2);
/// Clears the terminal and moves to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

pub(super) async fn run(path: &Path, as_json: bool, watch: bool) -> Result<ExitCode, Failure> {
    let migration = load::migration(path)?;
    if watch {
        return follow(&migration, as_json).await;
    }
    let control = open(&migration).await?;
    let asked = source_time(&migration).await;
    let look = Look { asked, ..read(&control, &migration).await? };
    let mut stdout = std::io::stdout().lock();
    // If stdout is closed, nobody needs the answer.
    let _ =
        if as_json { writeln!(stdout, "{:#}", json(&look)) } else { write!(stdout, "{}", text(&look, None)) };
    Ok(ExitCode::SUCCESS)
}

/// Prints a look every second until SIGINT or SIGTERM, or until stdout is closed.
async fn follow(migration: &Migration, as_json: bool) -> Result<ExitCode, Failure> {
    let no_signals =
        |error: std::io::Error| Error::new(Kind::Bug, "listening for signals", error.to_string());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut control = Some(open(migration).await?);
    let mut before: Option<Look> = None;
    loop {
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = ticks.tick() => {}
        }
        let looked = tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            looked = look(&mut control, migration) => looked,
        };
        let shown = match looked {
            Ok(look) => {
                let shown = if as_json { json(&look).to_string() } else { text(&look, before.as_ref()) };
                before = Some(look);
                shown
            }
            Err(Failure::Server(error)) if passes(&error) => {
                control = None;
                // A reader would take any line of JSON for a look.
                if as_json {
                    tracing::warn!(%error, "the control store does not answer");
                    continue;
                }
                format!("the control store does not answer: {error}\n")
            }
            Err(failure) => return Err(failure),
        };
        let mut stdout = std::io::stdout().lock();
        let clear = if stdout.is_terminal() && !as_json { CLEAR } else { "" };
        if writeln!(stdout, "{clear}{shown}").and_then(|()| stdout.flush()).is_err() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

async fn look(control: &mut Option<Control>, migration: &Migration) -> Result<Look, Failure> {
    let open = match control.take() {
        Some(open) => open,
        None => open(migration).await?,
    };
    let look = read(&open, migration).await;
    *control = Some(open);
    look
}

async fn open(migration: &Migration) -> Result<Control, Failure> {
    let never = "slackwater has never run against this target; start it with `slackwater run`";
    let control = Control::peek(&migration.target.uri).await?;
    control.ok_or_else(|| Failure::Unsuitable(vec![never.to_owned()]))
}

async fn read(control: &Control, migration: &Migration) -> Result<Look, Failure> {
    Ok(Look::read(control, &look::Named::of(migration)).await?)
}

/// The present of the source, asked of the source itself; `None` if it does not answer, or if there are several.
async fn source_time(migration: &Migration) -> Option<Moment> {
    let [source] = &migration.sources[..] else { return None };
    let asking = async { Named::connect(source).await.ok()?.source.now().await.ok() };
    timeout(ANSWER, asking).await.ok().flatten()
}
