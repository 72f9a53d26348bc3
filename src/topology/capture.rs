//! The capture of each source: a router, workers of the copy, the pulse, and the watch for a cutover. What lies behind the log is
//! built by `direct` and `kafka`.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::control::{Control, Owner, Takeover, Taking};
use slackwater_connectors::postgres::target::introspect;
use slackwater_connectors::postgres::target::rows::TableSpec;
use slackwater_connectors::postgres::target::sink::prepare_parts;
use slackwater_topics::{CollectionId, Moment, Position};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;

use super::load;
use super::{Process, Tasks, adopt, direct, kafka};
use crate::capture::copier::Copier;
use crate::capture::pulse::Pulse;
use crate::capture::router::{Init, Inputs, Router};
use crate::config::{self, KafkaLog, Migration};
use crate::cutover;
use crate::cutover::watch::Watch;
use crate::failure::Failure;
use crate::letters::Letters;
use crate::log::{ChunkLog, Log, Reach};
use crate::ops::board::Place;
use crate::ops::persist::{Patience, Stopped, ended};
use crate::ops::store::Store;
use crate::source::{Chunking, Fitness, Named, Presence, unmapped};

/// A source whose capture is being put together.
pub(super) struct Origin {
    pub(super) named: Named,
    pub(super) fitness: Fitness,
    pub(super) collections: Vec<CollectionId>,
    pub(super) reach: Arc<Reach>,
}

/// What a log gives to a capture.
pub(super) struct Joined {
    /// We, as the control store knows us.
    pub(super) owner: Owner,
    pub(super) first_run: bool,
    pub(super) log: Log,
    /// One for each worker of the copy.
    pub(super) chunks: Vec<ChunkLog>,
    pub(super) letters: Arc<Letters>,
    /// Where the stream begins.
    pub(super) position: Position,
    /// Former runs have sent nothing that is newer.
    pub(super) now: Moment,
    /// Look-ups of former runs may have shown states up to this moment.
    pub(super) horizon: Moment,
    /// What the log has lost while no capture ran.
    pub(super) lost: Vec<(Vec<CollectionId>, String)>,
}

/// Starts a capture for each source, or for one of them; the log is direct where there is no other.
///
/// A source that is away does not keep the others waiting: it is started when it answers. Where none answers the start has failed.
pub(super) async fn start(
    process: &mut Process,
    only: Option<&str>,
    log: Option<&KafkaLog>,
) -> Result<(), Failure> {
    for warning in load::warnings(&process.plan) {
        tracing::warn!("{warning}");
    }
    let migration = Arc::clone(&process.migration);
    let sources = chosen(&migration, only)?;
    process.captured = sources.iter().map(|source| source.name.value.clone()).collect();
    process.gauges.copying.store(sources.len() as u64, Ordering::Release);
    let (mut origins, mut away) = (Vec::new(), Vec::new());
    for source in &sources {
        match prepare(process, source).await {
            Ok(origin) => origins.push(origin),
            Err(Failure::Server(error)) if error.kind == Kind::Unreachable => away.push((*source, error)),
            Err(failure) => return Err(failure),
        }
    }
    if origins.is_empty()
        && let Some((_, error)) = away.pop()
    {
        return Err(error.into());
    }
    // All are taken over before one begins: what is tidied up then must not be in use.
    let mut joined = Vec::with_capacity(origins.len());
    for origin in origins {
        let log = join(process, &origin, log).await?;
        joined.push((origin, log));
    }
    for (origin, log) in joined {
        begin(process, origin, log).await?;
    }
    for (source, error) in away {
        let name = &source.name.value;
        tracing::warn!(source = name, %error, "it is away; the others begin, and it joins them when it answers");
        let part = process.part();
        process.spawn("source", later(part, source.clone(), log.cloned()));
    }
    Ok(())
}

/// The sources whose captures run in this process.
fn chosen<'m>(migration: &'m Migration, only: Option<&str>) -> Result<Vec<&'m config::Source>, Failure> {
    let Some(only) = only else { return Ok(migration.sources.iter().collect()) };
    let found = migration.sources.iter().find(|source| source.name.value == only);
    found.map(|source| vec![source]).ok_or_else(|| {
        let names: Vec<&str> = migration.sources.iter().map(|source| source.name.value.as_str()).collect();
        Failure::Unsuitable(vec![format!(
            "the migration file has no source `{only}`; sources: {}",
            names.join(", ")
        )])
    })
}

/// Looks at a source, and tells what is odd.
async fn prepare(process: &Process, source: &config::Source) -> Result<Origin, Failure> {
    let (named, fitness) = load::fit(source, &process.plan).await?;
    for warning in &fitness.findings.warnings {
        tracing::warn!(source = named.name, "{}", warning.text);
    }
    let collections = process.plan.of_source(&named.name);
    let looked = collections.iter().zip(&fitness.collections);
    for (id, _) in looked.filter(|(_, presence)| **presence == Presence::Missing) {
        tracing::warn!(collection = process.plan.collection(*id).name, "it does not exist (yet)");
    }
    let left = unmapped(&process.migration, &named.name, &fitness.others);
    if !left.is_empty() {
        tracing::warn!(
            source = named.name,
            collections = left.join(", "),
            "neither mapped nor under `not_migrated`: the switch is blocked until the file says what becomes of them"
        );
    }
    Ok(Origin { named, fitness, collections, reach: Arc::default() })
}

async fn join(process: &mut Process, origin: &Origin, log: Option<&KafkaLog>) -> Result<Joined, Failure> {
    match log {
        None => direct::join(process, origin).await,
        Some(log) => kafka::join(process, origin, log).await,
    }
}

/// Starts the capture of a source as soon as that answers. Its tasks live and die together.
async fn later(mut process: Process, source: config::Source, log: Option<KafkaLog>) -> Result<(), Error> {
    let name = &source.name.value;
    let place = Place::Source(slot(&process.migration, name));
    let mut patience = Patience::new(&process.stop).shown(&process.gauges, place);
    loop {
        match once(&mut process, &source, log.as_ref()).await {
            Ok(()) => break,
            Err(failure) => {
                // What was started of it ends.
                process.tasks = Tasks::new();
                match patience.after(failure.into_error()).await {
                    Ok(_) => {}
                    Err(stopped) => return ended(Err(stopped)),
                }
            }
        }
    }
    patience.over();
    while let Some(task) = process.tasks.join_next().await {
        let broken = |error: JoinError| Error::new(Kind::Bug, "running", error.to_string());
        task.map_err(broken)?.1?;
    }
    Ok(())
}

async fn once(process: &mut Process, source: &config::Source, log: Option<&KafkaLog>) -> Result<(), Failure> {
    let origin = prepare(process, source).await?;
    let joined = join(process, &origin, log).await?;
    begin(process, origin, joined).await
}

/// The place of a source in the file.
fn slot(migration: &Migration, name: &str) -> u16 {
    let found = migration.sources.iter().position(|source| source.name.value == name);
    found.unwrap_or_default() as u16
}

/// Becomes the capture of the source.
pub(super) async fn take_over(
    process: &Process,
    origin: &Origin,
    log: &str,
    lanes: &[&str],
) -> Result<(Control, Takeover), Failure> {
    let mut control = Control::open(&process.migration.target.uri).await?;
    adopt::ready(process, &control).await?;
    let taking = Taking {
        migration: &process.plan.migration,
        source: &origin.named.name,
        kind: origin.named.source.kind(),
        file_hash: &process.fingerprint,
        namespace: process.plan.namespace.as_uuid(),
        log,
    };
    let mut again = true;
    loop {
        let takeover = control.take_over(taking, lanes).await?;
        // Nothing was written since: what the rows are made by is compared with what they were made by, and kept.
        match adopt::adopt(process, &mut control, &takeover).await {
            Ok(()) => return Ok((control, takeover)),
            // The capture of another source has come between with the same new file, and has superseded who had the old one.
            Err(Failure::Server(error))
                if error.kind == Kind::Fenced && again && adopt::holds(process, &control).await? =>
            {
                again = false;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Starts everything of a capture that does not depend on the log.
async fn begin(process: &mut Process, origin: Origin, joined: Joined) -> Result<(), Failure> {
    let Origin { named, reach, .. } = origin;
    let configured = process.migration.sources.iter().find(|source| source.name.value == named.name);
    let follows_drops = configured.is_some_and(|source| source.follows_drops);
    let Joined { owner, first_run, log, chunks, letters, position, now, horizon, lost } = joined;
    let (plan, target, stop) =
        (Arc::clone(&process.plan), process.migration.target.uri.clone(), &process.stop.clone());
    let remembers = Store::new(&target, Some(&owner), stop);
    let source = named.source.remembering(remembers, &plan, &named.name).await?;
    if let Some(word) = configured.and_then(config::Source::webhook) {
        let called = source.clone();
        process.health.hears_of(word.clone(), Arc::new(move || called.poke()));
    }
    // A recopy notes what it meets in a list that is made after the table.
    prepare_parts(&target, &plan.tables).await?;
    // Of a table that stands still nobody knows, so rows are merged into it.
    // So are they into rows that are made of parts.
    let merged = |spec: &TableSpec| spec.is_part() || spec.whole().is_some();
    let known = plan.tables.iter().enumerate().filter(|(_, spec)| !spec.stands && !merged(spec));
    let (places, names): (Vec<usize>, Vec<(String, String)>) =
        known.map(|(place, spec)| (place, (spec.table.schema.clone(), spec.table.name.clone()))).unzip();
    let empty_tables: HashSet<usize> =
        introspect::empty(&target, &names).await?.into_iter().map(|at| places[at]).collect();
    let snapshot = process.migration.snapshot;
    let (to_router, copiers) = mpsc::unbounded_channel();
    let (heard_in, heard) = watch::channel(None);
    let (phase_in, phase) = cutover::watch::channel();
    let init = Init {
        source: source.clone(),
        name: named.name.clone(),
        place: Place::Collections(slot(&process.migration, &named.name)),
        plan: Arc::clone(&plan),
        store: Store::new(&target, Some(&owner), stop),
        chunking: Chunking { bytes: snapshot.chunk_bytes, documents: snapshot.chunk_documents },
        follows_drops,
        reach: Arc::clone(&reach),
        gauges: Arc::clone(&process.gauges),
        stop: stop.clone(),
        letters,
        empty_tables,
        position,
        now,
        horizon,
        lost,
        log,
        inputs: Inputs { copiers, to_router: to_router.clone(), phase, heard },
    };
    let router = Router::new(init).await.map_err(in_time)?;
    for chunks in chunks {
        let copier = Copier {
            source: source.clone(),
            plan: Arc::clone(&plan),
            log: chunks,
            router: to_router.clone(),
            // A chunk that turns out larger than planned is cut here.
            most_bytes: usize::try_from(snapshot.chunk_bytes.saturating_mul(2)).unwrap_or(usize::MAX),
            gauges: Arc::clone(&process.gauges),
            stop: stop.clone(),
        };
        process.spawn("copy", copier.run());
    }
    let pulse = Pulse {
        source,
        name: named.name.clone(),
        place: Place::Source(slot(&process.migration, &named.name)),
        store: Store::new(&target, Some(&owner), stop),
        heard: heard_in,
        reach,
        gauges: Arc::clone(&process.gauges),
        stop: stop.clone(),
    };
    process.spawn("pulse", pulse.run());
    let watch = Watch {
        migration: Arc::clone(&process.migration),
        name: named.name,
        phase: phase_in,
        stop: stop.clone(),
    };
    process.spawn("cutover", watch.run());
    process.spawn("capture", router.run());
    let ours = plan.of_source(&owner.source);
    let tables: HashSet<usize> =
        ours.iter().flat_map(|id| plan.collection(*id).tables.iter().copied()).collect();
    let (collections, tables) = (ours.len(), tables.len());
    let name = owner.source;
    if first_run {
        tracing::info!(migration = plan.migration, source = name, collections, tables, "started");
    } else {
        tracing::info!(
            migration = plan.migration,
            source = name,
            collections,
            tables,
            "going on where it stopped"
        );
    }
    Ok(())
}

/// A stop while everything is prepared.
pub(super) fn in_time(stopped: Stopped) -> Error {
    match stopped {
        Stopped::Failed(error) => error,
        Stopped::Asked => Error::new(Kind::Fenced, "starting", "stopped before it had begun"),
    }
}
