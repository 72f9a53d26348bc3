//! The pass: all documents are read, in ranges, by several workers at once.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use slackwater_connectors::postgres::control::proofs::ProofRange;
use slackwater_connectors::postgres::target::compare::Lists;
use slackwater_connectors::postgres::target::comparer::Comparer;
use slackwater_connectors::secret::Secret;
use slackwater_topics::{Bound, CollectionId, Event, Moment, Op, Position, Range};
use tokio::task::JoinSet;

use super::pace::Pace;
use super::worker::{Asked, Worker};
use super::{Cut, Progress, Verifier, again};
use crate::mapping::Plan;
use crate::ops::persist::{Patience, Stopped, persist};
use crate::ops::stop::Stop;
use crate::ops::store::{Store, ask};
use crate::source::{Chunking, Named};

/// Workers of a pass. Two keep two cores busy between the source and the target; a third fills the gaps.
const WORKERS: usize = 3;
/// How large ranges are.
const CHUNK: Chunking = Chunking { bytes: 12 << 20, documents: 15_000 };
/// Ranges of a sample are small, so that a sample is of many places.
const SAMPLED: Chunking = Chunking { bytes: 1 << 20, documents: 1_000 };
/// No more bytes of documents are read at once.
const MOST_BYTES: usize = 8 << 20;

/// What a pass is for.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// What differs.
    Compare,
    /// What the documents make leaves the lists of extra rows of these tables.
    Strike(Arc<Vec<Vec<usize>>>),
}

impl Verifier<'_> {
    /// Cuts the collections into ranges, unless that was done before.
    pub(super) async fn plan_ranges(&mut self) -> Result<(), Cut> {
        let id = self.id;
        let counts = ask!(self.store, control => control.proof_counts(id))?;
        let mut total = 0;
        for collection in self.collections.clone() {
            let plan = Arc::clone(&self.plan);
            let plan = plan.collection(collection);
            let source = self.source(&plan.source).clone();
            if let Some((.., documents)) = counts.collections.iter().find(|(name, ..)| *name == plan.name) {
                self.count(*documents);
                total += persist(&self.stop, || source.count_quickly(&plan.collection)).await?;
                continue;
            }
            let size = if self.wanted.sample.is_some() { SAMPLED } else { CHUNK };
            let split = persist(&self.stop, || source.split(&plan.collection, size)).await?;
            let mut ranges = Range::between(&split.bounds);
            let mut documents = split.documents;
            if let Some(percent) = self.wanted.sample {
                let (all, wanted) =
                    (ranges.len(), (ranges.len() * usize::from(percent)).div_ceil(100).max(1));
                // Any order will do that nobody knows beforehand.
                let chance = RandomState::new();
                ranges.sort_by_cached_key(|range| {
                    chance.hash_one(format!("{:?}", range.lo.as_ref().map(Bound::as_bytes)))
                });
                ranges.truncate(wanted);
                documents = documents * wanted as u64 / all.max(1) as u64;
            }
            total += documents;
            ask!(self.store, control => control.add_proof_ranges(id, &plan.name, &ranges))?;
        }
        self.progress.total.store(total, Ordering::Relaxed);
        Ok(())
    }

    /// Reads what is left to read.
    pub(super) async fn read_all(&mut self) -> Result<(), Cut> {
        let id = self.id;
        let ranges = ask!(self.store, control => control.proof_ranges(id, false))?;
        self.read(ranges, What::Compare).await
    }

    /// Reads these ranges.
    pub(super) async fn read(&mut self, ranges: Vec<ProofRange>, what: What) -> Result<(), Cut> {
        let mut since = Vec::with_capacity(self.sources.len());
        for named in &self.sources {
            since.push(persist(&self.stop, || named.source.now()).await?);
        }
        let workers = WORKERS.min(ranges.len());
        let shared = Arc::new(Shared {
            plan: Arc::clone(&self.plan),
            sources: self.sources.clone(),
            since,
            target: self.migration.target.uri.clone(),
            id: self.id,
            queue: Mutex::new(ranges.into()),
            pace: Mutex::new(Instant::now()),
            throttle: (self.wanted.throttle, self.wanted.pace.clone()),
            progress: Arc::clone(&self.progress),
            what,
        });
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            tasks.spawn(read(Arc::clone(&shared), self.stop.clone()));
        }
        let mut outcome = Ok(());
        while let Some(done) = tasks.join_next().await {
            let done = done.unwrap_or(Err(Stopped::Asked));
            if done.is_err() && outcome.is_ok() {
                // Nobody needs what the others find now.
                shared.queue().clear();
                outcome = done;
            }
        }
        outcome.map_err(Cut::from)
    }
}

/// What the workers share.
struct Shared {
    plan: Arc<Plan>,
    sources: Vec<Named>,
    /// Documents are read as they are at this moment of their source, or later.
    since: Vec<Moment>,
    target: Secret,
    id: i64,
    queue: Mutex<VecDeque<ProofRange>>,
    /// When the next documents may be read.
    pace: Mutex<Instant>,
    /// No more documents a second, and who says that they be fewer.
    throttle: (Option<u64>, Option<Arc<Pace>>),
    progress: Arc<Progress>,
    what: What,
}

impl Shared {
    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<ProofRange>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait before so many more documents are read.
    fn pause(&self, documents: u64) -> Duration {
        let (Some(most), pace) = &self.throttle else { return Duration::ZERO };
        let most = pace.as_ref().map_or(*most, |pace| pace.throttled(*most)).max(1);
        let now = Instant::now();
        let mut next = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*next).max(now);
        *next = begin + Duration::from_secs_f64(documents as f64 / most as f64);
        begin - now
    }
}

async fn read(shared: Arc<Shared>, mut stop: Stop) -> Result<(), Stopped> {
    let tables = &shared.plan.tables;
    let (target, name) = (&shared.target, &shared.plan.migration);
    let comparer = persist(&stop, || Comparer::open(target, name, Arc::clone(tables))).await?;
    let mut worker = Worker::new(&shared.plan, comparer);
    let mut store = Store::new(target, None, &stop);
    loop {
        let Some(mut range) = shared.queue().pop_front() else { return Ok(()) };
        let Some(collection) = shared.plan.id_of(&range.collection) else { continue };
        let plan = shared.plan.collection(collection);
        let Some(of) = shared.sources.iter().position(|source| source.name == plan.source) else { continue };
        let (source, since) = (&shared.sources[of].source, shared.since[of]);
        loop {
            if stop.is_set() {
                return Err(Stopped::Asked);
            }
            let wanted = &range.range;
            let read = persist(&stop, || source.read(&plan.collection, wanted, since, MOST_BYTES)).await?;
            let documents = read.documents.len() as u64;
            let events = events(collection, read.documents);
            match &shared.what {
                What::Compare => {
                    let done = compare(&shared, &mut worker, &stop, &events).await?;
                    let (suspects, rows) = done;
                    let (rest, id) = (read.rest.as_ref(), shared.id);
                    ask!(store, control => control.proof_read(id, &range, (documents, &suspects), &rows, rest))?;
                    shared.progress.read.fetch_add(documents, Ordering::Relaxed);
                }
                What::Strike(tables) => {
                    strike(&mut worker, &stop, &events, Lists(shared.id), (tables, false)).await?;
                }
            }
            let pause = shared.pause(documents);
            if !pause.is_zero() && !stop.sleep(pause).await {
                return Err(Stopped::Asked);
            }
            match read.rest {
                Some(rest) => range.range = rest,
                None => break,
            }
        }
    }
}

/// As they would come through the log.
pub(super) fn events(
    collection: CollectionId,
    documents: impl IntoIterator<Item = (slackwater_topics::Key, bytes::Bytes)>,
) -> Vec<Event> {
    let event = |(key, document)| Event {
        collection,
        key,
        op: Op::Snapshot,
        document,
        position: Position::default(),
        time: 0,
    };
    documents.into_iter().map(event).collect()
}

type Rows = Vec<((String, String), u64)>;

/// The keys of suspects, and how many rows were compared by table.
async fn compare(
    shared: &Shared,
    worker: &mut Worker,
    stop: &Stop,
    events: &[Event],
) -> Result<(Vec<Vec<u8>>, Rows), Stopped> {
    let mut patience = Patience::new(stop);
    let lists = Lists(shared.id);
    let seen = loop {
        match worker.compare(events, Asked::Differences(Some(lists))).await {
            Ok(seen) => break seen,
            Err(error) => again(worker, &mut patience, error).await?,
        }
    };
    let differ = seen.differences.iter().map(|(document, _)| *document);
    let suspects: BTreeSet<usize> =
        differ.chain(seen.refused.iter().map(|(document, _)| *document)).collect();
    let keys = suspects.into_iter().map(|document| events[document].key.as_bytes().to_vec()).collect();
    let named = |(table, rows): (usize, u64)| {
        let table = &shared.plan.written(table).table;
        ((table.schema.clone(), table.name.clone()), rows)
    };
    // Rows of several documents are counted once they are compared.
    let single = |(table, _): &(usize, u64)| !shared.plan.tables[*table].is_ours();
    Ok((keys, seen.rows.into_iter().filter(single).map(named).collect()))
}

/// What the events make leaves the lists of extra rows; see [`Worker::strike`].
pub(super) async fn strike(
    worker: &mut Worker,
    stop: &Stop,
    events: &[Event],
    lists: Lists,
    (tables, theirs): (&[Vec<usize>], bool),
) -> Result<(), Stopped> {
    let mut patience = Patience::new(stop);
    while let Err(error) = worker.strike(events, lists, tables, theirs).await {
        again(worker, &mut patience, error).await?;
    }
    Ok(())
}
