//! Capture and apply in one process, with nothing between them but a channel.

use std::collections::HashSet;
use std::sync::Arc;

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::mongodb::Mongo;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::target::introspect;
use slackwater_connectors::postgres::target::sink::Sink;
use slackwater_topics::{Moment, Position};
use tokio::sync::{mpsc, watch};

use super::{Loaded, Tasks, announce, beside, most_bytes};
use crate::apply::batch::Batch;
use crate::apply::lane::{Lane, Stopped, Way};
use crate::apply::letters::Letters;
use crate::apply::stream;
use crate::capture::copier::{Copier, Outlet};
use crate::capture::router::{Chunking, Log, Parts, Router, Wires};
use crate::cli::exit::Failure;
use crate::cutover;
use crate::ops::gauges::Gauges;
use crate::ops::stop::Stop;

/// Batches between capture and the stream's lane; each may have 16 MB.
const LOG_BUFFER: usize = 1;
const STREAM_LANE: &str = "stream";

/// Prepares everything and starts the tasks.
pub(super) async fn start(
    loaded: &Loaded,
    mongo: Mongo,
    tasks: &mut Tasks,
    gauges: &Arc<Gauges>,
    stop: &Stop,
) -> Result<(), Failure> {
    let Loaded { migration, plan, fingerprint } = loaded;
    let target = migration.target.uri.clone();
    let Some(source) = migration.sources.first() else {
        return Err(Failure::Unsuitable(vec!["the migration file names no source".to_owned()]));
    };
    let workers = migration.snapshot.workers;
    let copy_lanes: Vec<String> = (0..workers).map(|worker| format!("copy/{worker}")).collect();
    let lanes: Vec<&str> =
        std::iter::once(STREAM_LANE).chain(copy_lanes.iter().map(String::as_str)).collect();
    let mut control = Control::open(&target).await?;
    let takeover =
        control.take_over(&plan.migration, fingerprint, plan.namespace.as_uuid(), "direct", &lanes).await?;
    if takeover.previous_file_hash.as_ref().is_some_and(|before| before != fingerprint) {
        tracing::warn!(
            "the migration file has changed since the last run; rows written before are as it said then"
        );
    }
    control.forget_seen().await?;
    let open = async |lane: &str| {
        Sink::open(&target, &plan.migration, lane, takeover.epoch, Arc::clone(&plan.tables)).await
    };
    let letters = Arc::new(Letters::new(control.has_dead_letters(&plan.migration).await?));
    let lane = |name: &str, sink: Sink| {
        Lane::new(
            name.to_owned(),
            sink,
            Arc::clone(plan),
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
    let (applied_in, applied_out) = watch::channel(Moment::default());
    let (say, words) = mpsc::unbounded_channel();
    let (report, reports) = mpsc::unbounded_channel();
    let (heard_in, heard) = watch::channel(None);
    let chunking =
        Chunking { bytes: migration.snapshot.chunk_bytes, documents: migration.snapshot.chunk_documents };
    let parts = Parts {
        mongo: mongo.clone(),
        plan: Arc::clone(plan),
        control,
        target: target.clone(),
        epoch: takeover.epoch,
        chunking,
        letters: Arc::clone(&letters),
        gauges: Arc::clone(gauges),
        stop: stop.clone(),
        empty_tables,
        now: position.moment,
        position,
        horizon,
        log: Log::Direct,
        lost: Vec::new(),
    };
    let (phase_in, phase) = cutover::watch::channel();
    let wires = Wires { log: log_in, applied: applied_out, words, say: say.clone(), reports, heard, phase };
    let router = Router::new(parts, wires).await?;
    let running = stream::run(
        stream_lane,
        Arc::clone(plan),
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
            plan: Arc::clone(plan),
            outlet: Outlet::Lane(Box::new(lane(name, sink))),
            router: say.clone(),
            most_bytes: most_bytes(migration),
            gauges: Arc::clone(gauges),
            stop: stop.clone(),
        };
        tasks.spawn(async move { ("copy", copier.run().await) });
    }
    let source = (source.name.value.as_str(), mongo);
    beside::start(loaded, source, takeover.epoch, (heard_in, phase_in), tasks, (gauges, stop)).await?;
    tasks.spawn(async move { ("capture", router.run().await) });
    announce(plan, takeover.first_run);
    Ok(())
}

/// Where the stream begins. On the first run it is the source's present, and is kept before anything is copied: a
/// copied piece that counted from a position which nobody remembers would lose what came after it.
async fn first_position(mongo: &Mongo, lane: &mut Lane) -> Result<Position, Error> {
    if let Some(position) = &lane.sink().progress().position {
        return Ok(position.clone());
    }
    let position = Position::new(mongo.operation_time().await?, Vec::new());
    let mut batch = Batch { position: Some(position.clone()), ..Batch::default() };
    match lane.write(&mut batch, None, Way::Upsert).await {
        Ok(_) => Ok(position),
        Err(Stopped::Failed(error)) => Err(error),
        Err(Stopped::Asked) => Err(Error::new(Kind::Fenced, "starting", "stopped before it had begun")),
    }
}
