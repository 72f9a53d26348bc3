//! `slackwater run`, `capture` and `apply`: start the tasks, watch over them, stop them.
//!
//! The tasks of a process end together: the first one that fails stops the others. Where it was Kafka that refused us, or the target has lost what it had confirmed, they are started
//! again in the same process: a password or a certificate has changed there, and its file is read anew. On SIGTERM or SIGINT each task ends after its
//! running transaction, and the next start repeats what was not committed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::kafka::is_refusal;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::{was_cut, was_lost};
use slackwater_connectors::retry::Pauses;
use tokio::signal::unix::{SignalKind, signal};

use super::progress;
use crate::changes::digest_of;
use crate::config::Migration;
use crate::failure::Failure;
use crate::ops::gauges::Gauges;
use crate::ops::health::Health;
use crate::ops::http;
use crate::ops::persist::passes;
use crate::ops::policy::remedy;
use crate::ops::presence;
use crate::ops::stop::{self, Stop, Stopper};
use crate::topology::{RENEWAL, Role, Tasks, load, start};

/// How often a start is tried while a server does not answer.
const START_TRIES: usize = 9;
/// How often it is tried again where the target answers and cuts us off: the server is there, so waiting helps.
const START_CUTS: usize = 60;
/// After this, tasks that have not stopped are cut off.
const STOP_WITHIN: Duration = Duration::from_secs(4);
/// Who has worked for so long is tried again soon when it is refused.
const CALM: Duration = Duration::from_secs(60);

pub(super) async fn run(path: &Path, role: Role, listen: Option<SocketAddr>) -> Result<ExitCode, Failure> {
    // Before anything else, because a signal during the start must not be lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    if is_switched(path).await? {
        tracing::info!("the migration is switched: there is nothing left to do");
        return Ok(ExitCode::SUCCESS);
    }
    let file = load::loaded(path)?;
    let health = Arc::new(role.health());
    // Before the work starts, and for as long as the process lives.
    if let Some(address) = listen {
        let listener = http::bind(address).await?;
        tracing::info!(%address, "listening for /metrics, /healthz and /readyz");
        tokio::spawn(http::serve(listener, Arc::clone(&health)));
    }
    let mut again = None;
    let mut pauses = Pauses::for_server();
    loop {
        let (stopper, stop) = stop::channel();
        let (tasks, gauges) = tokio::select! {
            started = start_patiently(&file, &role, &health, &stop, again) => match started {
                Ok(started) => started,
                // The target was opened between our two checks.
                Err(Failure::Server(error)) if was_switched(path, &error).await => {
                    tracing::info!("the migration is switched: there is nothing left to do");
                    return Ok(ExitCode::SUCCESS);
                }
                Err(failure) => return Err(failure),
            },
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        };
        health.set_working(&gauges);
        let show =
            tokio::spawn(progress::show(Arc::clone(&gauges), matches!(role, Role::Capture { .. }), stop));
        let asked = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let begun = Instant::now();
        let ended = work(tasks, stopper, &health, asked).await;
        if begun.elapsed() > CALM {
            pauses.reset();
        }
        // A failed progress line does not matter.
        let _ = show.await;
        match ended {
            Ended::Renewal => {
                tracing::info!(
                    "Kafka takes what the files of its options hold now; beginning anew with that"
                );
                again = Some(Duration::ZERO);
            }
            Ended::Asked => {
                presence::farewell(&health, &gauges).await;
                tracing::info!("stopped; the next start goes on from here");
                return Ok(ExitCode::SUCCESS);
            }
            // Kafka's library gives up where it was sending when it was refused. The start waits for what else it takes.
            Ended::Failed(error) if is_refusal(&error) => {
                tracing::warn!(%error, remedy = remedy(&error), "beginning anew; nothing is lost");
                again = Some(pauses.next_pause());
            }
            // What this process knows to be done is not done.
            Ended::Failed(error) if was_lost(&error) => {
                tracing::warn!(%error, remedy = remedy(&error), "beginning anew from what the target has");
                again = Some(pauses.next_pause());
            }
            Ended::Failed(error) if was_switched(path, &error).await => {
                tracing::info!(
                    "the migration is switched: the target is the one to write to, and this process is done"
                );
                return Ok(ExitCode::SUCCESS);
            }
            Ended::Failed(error)
                if error.kind == Kind::Fenced && goes_on_otherwise(&file.migration).await =>
            {
                let what = "the migration goes on with another migration file, by which rows are made in another way; what this \
                            process has not written, the others write";
                let help = "start this process with the same file as the capture";
                return Err(Error::new(Kind::Fenced, "working", what).help(help).into());
            }
            Ended::Failed(error) => return Err(error.into()),
        }
    }
}

/// Whether a capture works by another mapping than ours.
async fn goes_on_otherwise(migration: &Migration) -> bool {
    let Ok(Some(control)) = Control::peek(&migration.target.uri).await else { return false };
    let Ok(Some(recorded)) = control.mapping(&migration.name).await else { return false };
    recorded.digest.is_some_and(|digest| digest != digest_of(migration))
}

/// Why the tasks have ended.
enum Ended {
    Asked,
    Failed(Error),
    /// To be started again, with what the files hold now.
    Renewal,
}

/// Lets the tasks run until one has ended or somebody asks for the end, and stops them all.
async fn work(mut tasks: Tasks, stopper: Stopper, health: &Health, asked: impl Future<Output = ()>) -> Ended {
    let ended = tokio::select! {
        () = asked => None,
        ended = tasks.join_next() => ended,
    };
    stopper.stop();
    let renewal = matches!(ended, Some(Ok((RENEWAL, Ok(())))));
    let refused = matches!(&ended, Some(Ok((_, Err(error)))) if is_refusal(error) || was_lost(error));
    if renewal || refused {
        health.set_starting();
    } else {
        health.set_stopping();
    }
    let mut failure = ended.and_then(failed);
    if failure.is_none() && !renewal {
        tracing::info!("stopping");
    }
    let rest = async {
        while let Some(ended) = tasks.join_next().await {
            // The first failure is the cause; later ones only follow from it.
            failure = failure.take().or_else(|| failed(ended));
        }
    };
    if tokio::time::timeout(STOP_WITHIN, rest).await.is_err() {
        if renewal {
            tracing::debug!("some tasks did not stop in time and were cut off");
        } else {
            tracing::warn!("some tasks did not stop in time and were cut off; nothing is lost");
        }
    }
    match failure {
        Some(error) => Ended::Failed(error),
        None if renewal => Ended::Renewal,
        None => Ended::Asked,
    }
}

/// Whether the target is open. Source and Kafka are not asked, because they may be gone by then.
async fn is_switched(path: &Path) -> Result<bool, Failure> {
    let migration = load::migration(path)?;
    match Control::peek(&migration.target.uri).await {
        // Never run, unreachable, or of an older version: the start itself deals with that.
        Ok(Some(control)) => Ok(control.switched(&migration.name).await.unwrap_or(false)),
        Ok(None) | Err(_) => Ok(false),
    }
}

/// Whether the process failed because the target is open: opening it fences off every process that still writes.
async fn was_switched(path: &Path, error: &Error) -> bool {
    match error.kind {
        Kind::Switched => true,
        Kind::Fenced => is_switched(path).await.unwrap_or(false),
        _ => false,
    }
}

fn no_signals(error: std::io::Error) -> Failure {
    Error::new(Kind::Bug, "listening for signals", error.to_string()).into()
}

fn failed(ended: Result<(&'static str, Result<(), Error>), tokio::task::JoinError>) -> Option<Error> {
    match ended {
        Ok((_, Ok(()))) => None,
        Ok((task, Err(error))) => {
            tracing::debug!(task, %error, "failed");
            Some(error)
        }
        // The panic hook has printed the message.
        Err(error) => Some(Error::new(Kind::Bug, "running", error.to_string())),
    }
}

/// Starts the tasks. Tries again if a connection breaks during the start, but gives up if a server stays away. Where they have run before in
/// this process they are started `again` after a pause, and a server that is away or refuses us is waited for, as while they run.
async fn start_patiently(
    file: &load::Loaded,
    role: &Role,
    health: &Arc<Health>,
    stop: &Stop,
    again: Option<Duration>,
) -> Result<(Tasks, Arc<Gauges>), Failure> {
    let mut pauses = Pauses::for_server();
    let (mut tries, mut cuts) = (1, 0);
    let (mut announced, mut warned) = (again.is_some(), false);
    tokio::time::sleep(again.unwrap_or_default()).await;
    loop {
        let gauges = Arc::new(Gauges::default());
        let starting = async {
            if !announced {
                load::announce_target(&file.migration).await?;
                announced = true;
            }
            start(file, role, (&gauges, health), stop).await
        };
        match starting.await {
            Ok(tasks) => return Ok((tasks, gauges)),
            Err(Failure::Server(error)) if again.is_some() && passes(&error) => {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(%error, remedy = remedy(&error), "waiting for a server; nothing is lost");
                }
                tokio::time::sleep(pauses.next_pause()).await;
            }
            Err(Failure::Server(error)) if was_cut(&error) && cuts < START_CUTS => {
                tracing::debug!(%error, "the start was cut off; trying again");
                tokio::time::sleep(pauses.next_pause()).await;
                cuts += 1;
            }
            Err(Failure::Server(error)) if starts_later(&error, announced) && tries < START_TRIES => {
                tracing::debug!(%error, "the start failed; trying again");
                tokio::time::sleep(pauses.next_pause()).await;
                tries += 1;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Whether a failed start may succeed a moment later. A wrong password needs a person first; but where the target has just let us in, the
/// password is being changed, and the file or the server will follow.
fn starts_later(error: &Error, let_in: bool) -> bool {
    let is_login = error.code.as_deref().is_some_and(|code| code.starts_with("28"));
    let needs_a_person = match error.kind {
        Kind::Denied => !(let_in && is_login),
        Kind::Exhausted => true,
        _ => false,
    };
    passes(error) && !needs_a_person
}
