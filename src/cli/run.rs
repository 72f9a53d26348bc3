//! `slackwater run`: starts the tasks, watches over them, stops them.
//!
//! All tasks live and die together. The first that fails stops the others; on SIGTERM or SIGINT each ends after the
//! transaction that it has under way, and what it had not committed comes again after the next start.

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::mongodb::Mongo;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::introspect;
use slackwater_connectors::postgres::sink::Sink;
use slackwater_connectors::retry::Pauses;
use slackwater_topics::{ClusterTime, Position};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::check::findings_or_failure;
use super::exit::Failure;
use super::{load, progress};
use crate::apply::batch::Batch;
use crate::apply::lane::{Lane, Stopped, Way};
use crate::apply::letters::Letters;
use crate::apply::stream;
use crate::capture::copier::Copier;
use crate::capture::router::{Chunking, Parts, Router, Wires};
use crate::config::Migration;
use crate::mapping::Plan;
use crate::ops::gauges::Gauges;
use crate::ops::policy::{Action, action};
use crate::ops::stop::{self, Stop};

/// Batches between capture and the stream's lane; each may have 16 MB.
const LOG_BUFFER: usize = 1;
/// How often a start is tried while connections break.
const START_TRIES: usize = 5;
/// A clean stop takes no longer.
const STOP_WITHIN: Duration = Duration::from_secs(4);
const STREAM_LANE: &str = "stream";

type Tasks = JoinSet<(&'static str, Result<(), Error>)>;

pub(super) async fn run(path: &Path) -> Result<ExitCode, Failure> {
    // Before anything else: a signal while starting must not be lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let (stopper, stop) = stop::channel();
    let (mut tasks, gauges) = tokio::select! {
        started = start_patiently(path, &stop) => started?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    let show = tokio::spawn(progress::show(Arc::clone(&gauges), stop));
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = tasks.join_next() => ended,
    };
    stopper.stop();
    let mut failure = ended.and_then(failed);
    if failure.is_none() {
        tracing::info!("stopping");
    }
    let rest = async {
        while let Some(ended) = tasks.join_next().await {
            // The first one is the cause; what follows is its echo.
            failure = failure.take().or_else(|| failed(ended));
        }
    };
    if tokio::time::timeout(STOP_WITHIN, rest).await.is_err() {
        tracing::warn!("some tasks did not stop in time and were cut off; nothing is lost");
    }
    // It only shows.
    let _ = show.await;
    match failure {
        None => {
            tracing::info!("stopped; the next run goes on from here");
            Ok(ExitCode::SUCCESS)
        }
        Some(error) => Err(error.into()),
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
        // The panic's own message was printed by its hook.
        Err(error) => Some(Error::new(Kind::Bug, "running", error.to_string())),
    }
}

/// A connection that breaks in the middle of the start is no reason to give up; a server that is away for longer is.
async fn start_patiently(path: &Path, stop: &Stop) -> Result<(Tasks, Arc<Gauges>), Failure> {
    let mut pauses = Pauses::for_server();
    let mut tries = 1;
    loop {
        let gauges = Arc::new(Gauges::default());
        match start(path, &gauges, stop).await {
            Ok(tasks) => return Ok((tasks, gauges)),
            Err(Failure::Server(error)) if passes(error.kind) && tries < START_TRIES => {
                tracing::debug!(%error, "the start was cut short; trying again");
                tokio::time::sleep(pauses.next_pause()).await;
                tries += 1;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Whether a start that failed so may succeed a moment later.
fn passes(kind: Kind) -> bool {
    kind == Kind::Unreachable || action(kind) == Action::Retry
}

/// Prepares everything and starts the tasks.
async fn start(path: &Path, gauges: &Arc<Gauges>, stop: &Stop) -> Result<Tasks, Failure> {
    let migration = load::migration(path)?;
    let plan = load::plan(&migration).await?;
    let (mongo, _, findings) = load::source(&migration, &plan).await?;
    findings_or_failure(&findings)?;
    for warning in load::warnings(&plan, &findings) {
        tracing::warn!("{warning}");
    }
    let target = migration.target.uri.clone();
    let workers = migration.snapshot.workers;
    let copy_lanes: Vec<String> = (0..workers).map(|worker| format!("copy/{worker}")).collect();
    let lanes: Vec<&str> =
        std::iter::once(STREAM_LANE).chain(copy_lanes.iter().map(String::as_str)).collect();
    let mut control = Control::open(&target).await?;
    let fingerprint = load::fingerprint(path)?;
    let takeover = control.take_over(&plan.migration, &fingerprint, plan.namespace.as_uuid(), &lanes).await?;
    if takeover.previous_file_hash.is_some_and(|before| before != fingerprint) {
        tracing::warn!(
            "the migration file has changed since the last run; rows written before are as it said then"
        );
    }
    control.forget_seen().await?;
    let open = async |lane: &str| {
        Sink::open(&target, &plan.migration, lane, takeover.epoch, Arc::clone(&plan.tables)).await
    };
    let any_letters = !control.dead_letter_counts(&plan.migration).await?.is_empty();
    let letters = Arc::new(Letters::new(any_letters));
    let lane = |name: &str, sink: Sink| {
        Lane::new(
            name.to_owned(),
            sink,
            Arc::clone(&plan),
            Arc::clone(&letters),
            Arc::clone(gauges),
            stop.clone(),
        )
    };
    let mut stream_lane = lane(STREAM_LANE, open(STREAM_LANE).await?);
    let position = first_position(&mongo, &mut stream_lane).await?;
    let horizon = stream_lane.sink().progress().horizon;
    let names: Vec<(String, String)> =
        plan.tables.iter().map(|spec| (spec.table.schema.clone(), spec.table.name.clone())).collect();
    let empty_tables: HashSet<usize> = introspect::empty(&target, &names).await?.into_iter().collect();

    let (log_in, log_out) = mpsc::channel(LOG_BUFFER);
    let (applied_in, applied_out) = watch::channel(ClusterTime::default());
    let (say, words) = mpsc::unbounded_channel();
    let (report, reports) = mpsc::unbounded_channel();
    let chunking =
        Chunking { bytes: migration.snapshot.chunk_bytes, documents: migration.snapshot.chunk_documents };
    let parts = Parts {
        mongo: mongo.clone(),
        plan: Arc::clone(&plan),
        control,
        target: target.clone(),
        epoch: takeover.epoch,
        chunking,
        letters: Arc::clone(&letters),
        gauges: Arc::clone(gauges),
        stop: stop.clone(),
        empty_tables,
        position,
        horizon,
    };
    let wires = Wires { log: log_in, applied: applied_out, words, say: say.clone(), reports };
    let router = Router::new(parts, wires).await?;

    let mut tasks = JoinSet::new();
    let running = stream::run(
        stream_lane,
        Arc::clone(&plan),
        log_out,
        applied_in,
        report,
        Arc::clone(gauges),
        stop.clone(),
    );
    tasks.spawn(async move { ("apply", running.await) });
    for name in &copy_lanes {
        let mut sink = open(name).await?;
        // A piece whose commit is lost is read again; the stream's commits wait for the disk and take these with them.
        sink.commit_lazily().await?;
        let copier = Copier {
            mongo: mongo.clone(),
            plan: Arc::clone(&plan),
            lane: lane(name, sink),
            router: say.clone(),
            most_bytes: most_bytes(&migration),
            gauges: Arc::clone(gauges),
            stop: stop.clone(),
        };
        tasks.spawn(async move { ("copy", copier.run().await) });
    }
    tasks.spawn(async move { ("capture", router.run().await) });
    announce(&plan, takeover.first_run);
    Ok(tasks)
}

/// A piece that turns out larger than planned is cut here.
fn most_bytes(migration: &Migration) -> usize {
    usize::try_from(migration.snapshot.chunk_bytes.saturating_mul(2)).unwrap_or(usize::MAX)
}

/// Where the stream begins. On the first run it is the source's present, and is kept before anything is copied: a
/// copied piece that counted from a position which nobody remembers would lose what came after it.
async fn first_position(mongo: &Mongo, lane: &mut Lane) -> Result<Position, Error> {
    if let Some(position) = &lane.sink().progress().position {
        return Ok(position.clone());
    }
    let position = Position::new(mongo.operation_time().await?, Vec::new());
    let batch = Batch { position: Some(position.clone()), ..Batch::default() };
    match lane.write(batch, None, Way::Upsert).await {
        Ok(_) => Ok(position),
        Err(Stopped::Failed(error)) => Err(error),
        Err(Stopped::Asked) => Err(Error::new(Kind::Fenced, "starting", "stopped before it had begun")),
    }
}

fn announce(plan: &Plan, first_run: bool) {
    let (collections, tables) = (plan.collections.len(), plan.tables.len());
    if first_run {
        tracing::info!(migration = plan.migration, collections, tables, "started");
    } else {
        tracing::info!(migration = plan.migration, collections, tables, "going on where it stopped");
    }
}
