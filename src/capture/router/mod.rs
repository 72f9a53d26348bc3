//! The one task that sees everything a source brings, in one order: it feeds the log.
//!
//! It asks [`Merge`] about every change, hands chunks to the copiers, holds what they read until the log is safe past it,
//! looks documents up where the source does not send them, and recopies collections whose history was lost.
//!
//! A crash loses nothing but work: the position that the next start reads was committed with the rows before it, chunks
//! that are not marked done are read again, and a collection that is being recopied is still marked so.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::postgres::control::CopyState;
use slackwater_connectors::postgres::control::gone::Word;
use slackwater_connectors::source::{Change, ChangeBatch, ChangeKind, DocumentChange, Heard, Lookup};
use slackwater_topics::{Bound, CollectionId, Document, Event, Key, Moment, Op, Position, Range, Value};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::clock::SourceClock;
use super::horizons::{Horizons, is_complete};
use super::merge::{Arrival, ChunkId, Merge, RereadId, Route};
use crate::cutover::watch::Phase;
use crate::letters::Letters;
use crate::log::{Batch, Log, Reach, keep_last};
use crate::mapping::Plan;
use crate::ops::board::Place;
use crate::ops::gauges::Gauges;
use crate::ops::persist::{Again, Patience, Stopped, ended, persist};
use crate::ops::stop::Stop;
use crate::ops::store::{Store, ask};
use crate::source::{Changes, Chunking, Source};

/// How often dead letters that are due are looked for.
const LETTERS_EVERY: Duration = Duration::from_secs(1);
/// While a cutover is under way, which waits for those whose references were only late.
const LETTERS_AT_CUTOVER: Duration = Duration::from_millis(25);
const LETTERS_AT_ONCE: i64 = 500;
/// How long the source may hold its answer back while nothing happens. Chunks wait for the stream to pass the moment
/// at which they were read.
const IDLE_WAIT: Duration = Duration::from_millis(500);
const IDLE_WAIT_IN_COPY: Duration = Duration::from_millis(20);
/// A frozen source changes nothing that would wake the stream.
const IDLE_WAIT_AT_CUTOVER: Duration = Duration::from_millis(4);

/// A chunk to copy.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) chunk: ChunkId,
    pub(crate) collection: CollectionId,
    pub(crate) range: Range,
    /// The read has to show everything up to here.
    pub(crate) from: Moment,
    /// The tables hold nothing of this collection.
    pub(crate) fresh: bool,
}

/// A chunk may be appended to the log.
#[derive(Debug)]
pub(crate) struct Release {
    /// Without these: the stream has brought them since.
    pub(crate) changed: HashSet<Key>,
    /// Tables whose row keys are noted as seen.
    pub(crate) seen: Vec<usize>,
}

/// What copiers, and reads of dead letters, tell the router.
#[derive(Debug)]
pub(crate) enum CopierMessage {
    /// I have nothing to do.
    Idle(oneshot::Sender<Assignment>),
    /// I have read the chunk; answered when it may be appended, dropped where it is void.
    Read { chunk: ChunkId, until: Moment, rest: Option<Range>, release: oneshot::Sender<Release> },
    /// The chunk is done. `cut`: a rest was left for another.
    Done { chunk: ChunkId, collection: CollectionId, cut: Option<Bound> },
    /// Documents of dead letters were read again.
    Reread { id: RereadId, collection: CollectionId, keys: Vec<Key>, found: Vec<(Key, Bytes)>, at: Moment },
    /// Reading them failed.
    RereadFailed { id: RereadId, error: Error },
}

/// A chunk that was read and waits.
struct Held {
    chunk: ChunkId,
    collection: CollectionId,
    release: oneshot::Sender<Release>,
}

/// Documents that were read again and wait.
struct Reread {
    id: RereadId,
    collection: CollectionId,
    keys: Vec<Key>,
    found: HashMap<Key, Bytes>,
}

/// What the router knows of the copy of a collection.
#[derive(Clone, Debug)]
struct Copying {
    state: CopyState,
    generation: i32,
    fresh: bool,
    /// It is a recopy, over rows that are there already.
    recopy: bool,
}

/// What reaches the router, beside the source's changes and the log's news.
pub(crate) struct Inputs {
    pub(crate) copiers: mpsc::UnboundedReceiver<CopierMessage>,
    /// For reads of dead letters, which answer on the copiers' way.
    pub(crate) to_router: mpsc::UnboundedSender<CopierMessage>,
    /// How near a cutover is.
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) heard: watch::Receiver<Option<Heard>>,
}

/// What the router begins with.
pub(crate) struct Init {
    pub(crate) source: Source,
    /// The source's name in the migration file.
    pub(crate) name: String,
    /// Where trouble with single collections is shown.
    pub(crate) place: Place,
    pub(crate) plan: Arc<Plan>,
    pub(crate) store: Store,
    pub(crate) chunking: Chunking,
    /// Rows go as soon as their collection is gone.
    pub(crate) follows_drops: bool,
    pub(crate) reach: Arc<Reach>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stop: Stop,
    pub(crate) letters: Arc<Letters>,
    /// Tables that hold no row.
    pub(crate) empty_tables: HashSet<usize>,
    /// Where the stream is.
    pub(crate) position: Position,
    /// Former runs have sent nothing that is newer. What they sent is not taken again, so chunks have to show it.
    pub(crate) now: Moment,
    /// Look-ups of former runs may have shown states up to this moment.
    pub(crate) horizon: Moment,
    /// Collections of which the log has lost something while no capture ran, and what.
    pub(crate) lost: Vec<(Vec<CollectionId>, String)>,
    pub(crate) log: Log,
    pub(crate) inputs: Inputs,
}

/// The router of one source.
pub(crate) struct Router {
    source: Source,
    place: Place,
    plan: Arc<Plan>,
    store: Store,
    /// With which of its connections it was looked whether a copy is lost.
    looked: u64,
    chunking: Chunking,
    log: Log,
    inputs: Inputs,
    letters: Arc<Letters>,
    reach: Arc<Reach>,
    gauges: Arc<Gauges>,
    stop: Stop,
    merge: Merge,
    horizons: Horizons,
    /// The collections of this source.
    copying: BTreeMap<CollectionId, Copying>,
    idle: VecDeque<oneshot::Sender<Assignment>>,
    held: Vec<Held>,
    rereads: Vec<Reread>,
    /// Which of them are repairs, with their numbers.
    repairs: HashMap<RereadId, Vec<i64>>,
    /// Deletes in the batch that travel as deletes or not at all.
    removals: HashSet<Position>,
    next_reread: RereadId,
    /// More letters were due than are read at once.
    more_letters: bool,
    /// The newest moment that the source told us.
    now: Moment,
    /// Where the stream is.
    position: Position,
    /// A flush or a sweep was appended and is not reported yet.
    awaited: Option<Awaited>,
    /// A recopy is about to begin: nothing is given out and nothing released.
    draining: bool,
    /// Rows of collections below this level are in the target.
    landed: usize,
    /// The fence behind the rows below a level, on its way.
    landing: Option<(Uuid, usize)>,
    /// What the log has lost, and nobody has dealt with yet.
    lost: Vec<(Vec<CollectionId>, String)>,
    /// How far the stream was put into the log.
    passed: Moment,
    /// The cutover's fence that was put into the log last.
    fenced: Option<Uuid>,
    /// The fence that was asked for last, and the moment at which we heard of it, where only we can tell one.
    asked: Option<(Uuid, Moment)>,
    clock: SourceClock,
    others: others::Others,
    follows_drops: bool,
    /// Collections that are gone, and what a person said of them.
    gone: HashMap<CollectionId, Option<Word>>,
    looked_for_gone: Option<Instant>,
    /// Collections that are copied again because a person said that their rows go as well. The stream may still bring how they went.
    followed: HashSet<CollectionId>,
}

/// A barrier that the router waits for; one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Flush,
    Sweep,
}

/// What most of it comes to.
type Done = std::result::Result<(), Stopped>;

mod copies;
mod cutover;
mod gone;
mod history;
mod landing;
mod letters;
mod moments;
mod others;
mod repairs;
mod wanted;

impl Router {
    /// Reads how far the copies are.
    pub(crate) async fn new(init: Init) -> std::result::Result<Self, Stopped> {
        let Init { source, name, plan, mut store, reach, gauges, position, log, inputs, .. } = init;
        let migration = plan.migration.clone();
        let rows = ask!(store, control => control.collections(&migration))?;
        let chunks = ask!(store, control => control.open_chunks(&migration))?;
        let gone = ask!(store, control => control.gone(&migration))?;
        let ours = plan.of_source(&name);
        let gone = gone.into_iter().filter_map(|row| {
            let id = plan.id_of(&row.collection).filter(|id| ours.contains(id))?;
            Some((id, row.word))
        });
        let gone = gone.collect();
        let mut merge = Merge::new(plan.collections.len());
        let mut open: HashMap<String, Vec<(ChunkId, Range)>> = HashMap::new();
        for chunk in chunks {
            let range = Range { lo: copies::bound(chunk.lo)?, hi: copies::bound(chunk.hi)? };
            open.entry(chunk.collection).or_default().push((chunk.id, range));
        }
        let mut copying = BTreeMap::new();
        for id in ours {
            let collection = plan.collection(id);
            let fresh = collection.tables.iter().all(|table| init.empty_tables.contains(table));
            let mut state = Copying { state: CopyState::Pending, generation: 1, fresh, recopy: false };
            if let Some(row) = rows.iter().find(|row| row.collection == collection.name) {
                state = Copying {
                    state: row.state,
                    generation: row.generation,
                    fresh: row.fresh,
                    recopy: row.reload,
                };
                Gauges::add(&gauges.copied, row.documents_copied);
                Gauges::add(&gauges.to_copy, row.documents_estimate);
            }
            match state.state {
                CopyState::Pending => {}
                CopyState::Copying => merge.plan(id, open.remove(&collection.name).unwrap_or_default()),
                CopyState::Copied => merge.copied(id),
            }
            copying.insert(id, state);
        }
        Ok(Self {
            horizons: Horizons::new(plan.collections.len(), init.horizon),
            now: position.moment.max(init.now),
            source,
            place: init.place,
            plan,
            store,
            looked: 0,
            chunking: init.chunking,
            log,
            inputs,
            letters: init.letters,
            reach,
            gauges,
            stop: init.stop,
            merge,
            copying,
            idle: VecDeque::new(),
            held: Vec::new(),
            rereads: Vec::new(),
            repairs: HashMap::new(),
            removals: HashSet::new(),
            next_reread: 0,
            more_letters: false,
            position,
            awaited: None,
            draining: false,
            landed: 0,
            landing: None,
            lost: init.lost,
            passed: Moment::default(),
            fenced: None,
            asked: None,
            clock: SourceClock::default(),
            others: others::Others::new(),
            follows_drops: init.follows_drops,
            gone,
            looked_for_gone: None,
            followed: HashSet::new(),
        })
    }

    /// Runs until it is to stop.
    pub(crate) async fn run(mut self) -> Result<()> {
        let done = self.work().await;
        // What fails while everything stops was cut short by the stop.
        if self.stop.is_set() { Ok(()) } else { ended(done) }
    }

    async fn work(&mut self) -> Done {
        self.recopy_lost().await?;
        self.recopy_wanted().await?;
        self.retry_all_letters().await?;
        // Copies that ended just before the last stop.
        self.finish_copies().await?;
        let mut patience = Patience::new(&self.stop);
        loop {
            let mut changes = self.follow();
            let Err(error) = self.consume(&mut changes, &mut patience).await? else { return Ok(()) };
            if error.kind == Kind::HistoryLost {
                self.on_history_lost(&error).await?;
            } else if patience.after(error).await? == Again::Soon {
                tracing::debug!("following the source again");
            }
        }
    }

    /// The changes behind our position.
    fn follow(&self) -> Changes {
        let collections = self.copying.keys().map(|id| (*id, self.plan.collection(*id).collection.clone()));
        self.source.follow(self.position.clone(), collections.collect(), self.log.safe.clone())
    }

    /// Deals with everything that comes, until the stream of changes fails, or until it is to stop.
    async fn consume(
        &mut self,
        changes: &mut Changes,
        patience: &mut Patience,
    ) -> std::result::Result<Result<()>, Stopped> {
        let mut wait = None;
        let mut near = None;
        let mut letters = tokio::time::interval(LETTERS_EVERY);
        loop {
            if wait != Some(self.idle_wait()) {
                wait = Some(self.idle_wait());
                changes.answer_within(self.idle_wait());
            }
            let soon = self.is_near() || self.more_letters;
            if near != Some(soon) {
                near = Some(soon);
                letters = tokio::time::interval(if soon { LETTERS_AT_CUTOVER } else { LETTERS_EVERY });
                letters.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            }
            tokio::select! {
                biased;
                () = self.stop.wait() => return Ok(Ok(())),
                message = self.inputs.copiers.recv() => match message {
                    Some(message) => self.on_copier(message).await?,
                    None => return Ok(Ok(())),
                },
                Some(news) = self.log.news.recv() => self.on_news(news).await?,
                changed = self.log.safe.changed() => match changed {
                    Ok(()) => self.release().await?,
                    Err(_) => return Ok(Ok(())),
                },
                heard = self.inputs.heard.changed() => match heard {
                    Ok(()) => self.on_moment().await?,
                    Err(_) => return Ok(Ok(())),
                },
                batch = changes.next() => match batch {
                    Ok(batch) => {
                        patience.over();
                        self.on_batch(batch).await?;
                    }
                    Err(error) => return Ok(Err(error)),
                },
                _ = letters.tick() => {
                    self.gauges.board.set(self.place, changes.trouble());
                    self.retry_letters().await?;
                    if !self.is_near() {
                        self.send_repairs().await?;
                        self.recopy_wanted().await?;
                        self.resolve_gone().await?;
                        self.look_for_lost_copies().await?;
                    }
                    if self.others.held_up {
                        self.dispatch().await?;
                    }
                }
                Ok(()) = self.inputs.phase.changed() => self.fence().await?,
            }
            self.recopy_lost().await?;
        }
    }

    async fn on_batch(&mut self, mut batch: ChangeBatch) -> Done {
        self.now = self.now.max(batch.now);
        let mut events = Vec::with_capacity(batch.changes.len());
        let mut last: Option<Position> = None;
        for change in std::mem::take(&mut batch.changes) {
            let position = change.position().clone();
            let change = match change {
                Change::Document(change) => {
                    if self.is_parked(change.collection) && change.kind != ChangeKind::Delete {
                        if let Some(before) = last.take() {
                            let passed = before.moment.before();
                            self.publish(std::mem::take(&mut events), (before, passed), passed).await?;
                        }
                        self.copy_again(vec![change.collection], "there_again", "it is there again").await?;
                    }
                    if self.passes(&change).await? {
                        events.push(event(change));
                    }
                    last = Some(position);
                    continue;
                }
                other => other,
            };
            if let Some((collections, kind, text)) = self.lost_with(&change) {
                // What came before is made safe first, so that a crash finds this change again.
                if let Some(before) = last.take() {
                    let passed = before.moment.before();
                    self.publish(std::mem::take(&mut events), (before, passed), passed).await?;
                }
                let there = self.there(collections, true, &text).await?;
                self.copy_again(there, kind, &text).await?;
            }
            last = Some(position);
        }
        let settled = self.source.kind().settled(&batch);
        let batch_end = (batch.position, batch.passed);
        self.publish(events, batch_end, settled).await?;
        self.fence().await
    }

    /// What a change of whole collections takes away.
    fn lost_with(&self, change: &Change) -> Option<(Vec<CollectionId>, &'static str, String)> {
        match change {
            // The drop or rename that caused an invalidation came before it.
            Change::Document(_) | Change::Invalidated { .. } => None,
            Change::Dropped { collection, .. } => {
                let text = format!("collection {} was dropped", self.name(*collection));
                Some((vec![*collection], "drop", text))
            }
            Change::Renamed { from, to, to_name, .. } => {
                let text = match from {
                    Some(from) => format!("collection {} was renamed to {to_name}", self.name(*from)),
                    None => format!("another collection was renamed to {to_name}"),
                };
                Some((from.iter().chain(to).copied().collect(), "rename", text))
            }
            Change::DatabaseDropped { .. } => {
                Some((self.all_collections(), "dropDatabase", "the source's database was dropped".to_owned()))
            }
        }
    }

    fn name(&self, collection: CollectionId) -> String {
        self.plan.collection(collection).name.clone()
    }

    fn all_collections(&self) -> Vec<CollectionId> {
        self.copying.keys().copied().collect()
    }

    /// Whether the change travels; waits where it must.
    async fn passes(&mut self, change: &DocumentChange) -> std::result::Result<bool, Stopped> {
        let broken = |_| Error::new(Kind::Data, "reading a change", "its document key cannot be read");
        let id =
            Document::new(&change.id).and_then(|id| id.get(b"_id")).map_err(broken)?.unwrap_or(Value::Null);
        let arrival = Arrival {
            collection: change.collection,
            id,
            key: &change.key,
            is_delete: change.kind == ChangeKind::Delete,
            time: change.position.moment,
        };
        loop {
            match self.merge.route(arrival) {
                Route::Drop => return Ok(false),
                Route::Publish => return Ok(true),
                Route::Remove => {
                    self.removals.insert(change.position.clone());
                    return Ok(true);
                }
                Route::Wait(chunk) => {
                    while self.merge.is_applying(chunk) {
                        self.next_message().await?;
                    }
                }
            }
        }
    }

    /// Hears copiers and the log, and nothing else, until one of them has said something.
    async fn next_message(&mut self) -> Done {
        tokio::select! {
            () = self.stop.wait() => Err(Stopped::Asked),
            Some(message) = self.inputs.copiers.recv() => Box::pin(self.on_copier(message)).await,
            Some(news) = self.log.news.recv() => Box::pin(self.on_news(news)).await,
            // They have ended, and say why by themselves.
            else => Err(Stopped::Asked),
        }
    }

    /// Resolves what the events do not carry, and appends them to the log.
    async fn publish(
        &mut self,
        mut events: Vec<Event>,
        (position, passed): (Position, Moment),
        settled: Moment,
    ) -> Done {
        if !events.iter().all(|event| self.is_current(event)) {
            let events_of = |id| self.plan.keeps_versions(id);
            events = self.resolve(keep_last(events, events_of), position.moment).await?;
        }
        self.removals.clear();
        self.position = position.clone();
        self.passed = self.passed.max(passed);
        let as_of = self.clock.pass(passed);
        let bytes = events.iter().map(|event| event.document.len() + 64).sum();
        let batch = Batch {
            events,
            position: Some(position),
            passed,
            settled,
            as_of,
            horizon: self.horizons.latest(),
            seen: self.seen(),
            bytes,
            ..Batch::default()
        };
        self.append(batch).await?;
        self.note_read(as_of);
        Ok(())
    }

    /// The event is used as it is. Where the first version stands, nothing goes back, so each event that carries its document does.
    fn is_current(&self, event: &Event) -> bool {
        let complete = is_complete(event);
        let stands = complete && self.plan.collection(event.collection).append_only;
        stands || self.horizons.is_current(event, complete)
    }

    /// Looks up the documents of events that do not carry them, or that are older than a look-up.
    async fn resolve(
        &mut self,
        mut events: Vec<Event>,
        after: Moment,
    ) -> std::result::Result<Vec<Event>, Stopped> {
        let mut wanted: HashMap<CollectionId, Vec<Key>> = HashMap::new();
        let is_wanted: Vec<bool> = events.iter().map(|event| !self.is_current(event)).collect();
        for (event, _) in events.iter().zip(&is_wanted).filter(|(_, wanted)| **wanted) {
            wanted.entry(event.collection).or_default().push(event.key.clone());
        }
        let mut found: HashMap<(CollectionId, Key), Bytes> = HashMap::new();
        for (collection, keys) in wanted {
            let lookup = self.look_up(collection, &keys, after).await?;
            self.horizons.looked_up(collection, lookup.at);
            found.extend(lookup.found.into_iter().map(|(key, document)| ((collection, key), document)));
        }
        let mut is_wanted = is_wanted.into_iter();
        events.retain_mut(|event| {
            if !is_wanted.next().unwrap_or_default() {
                return true;
            }
            match found.get(&(event.collection, event.key.clone())) {
                Some(_) if self.removals.contains(&event.position) => return false,
                Some(document) => (event.op, event.document) = (Op::Upsert, document.clone()),
                None => (event.op, event.document) = (Op::Delete, Bytes::new()),
            }
            true
        });
        Ok(events)
    }

    async fn look_up(
        &self,
        collection: CollectionId,
        keys: &[Key],
        after: Moment,
    ) -> std::result::Result<Lookup, Stopped> {
        let name = &self.plan.collection(collection).collection;
        persist(&self.stop, || self.source.look_up(name, keys, after)).await
    }

    /// Appends a batch to the log; while that is full, the copiers are heard.
    async fn append(&mut self, mut batch: Batch) -> Done {
        let batches = self.log.batches.clone();
        let room = self.log.room();
        let bytes = batch.bytes;
        let (room, permit) = loop {
            let place = async {
                let room = match room.clone() {
                    Some(room) => room.take(bytes).await,
                    None => None,
                };
                (room, batches.reserve().await)
            };
            tokio::select! {
                biased;
                () = self.stop.wait() => return Err(Stopped::Asked),
                place = place => break place,
                Some(message) = self.inputs.copiers.recv() => Box::pin(self.on_copier(message)).await?,
                Ok(()) = self.log.safe.changed() => Box::pin(self.release()).await?,
            }
        };
        batch.room = room;
        // A log that has ended says why by itself.
        permit.map_err(|_| Stopped::Asked)?.send(batch);
        Ok(())
    }
}

fn event(change: DocumentChange) -> Event {
    Event {
        collection: change.collection,
        op: if change.kind == ChangeKind::Delete { Op::Delete } else { Op::Upsert },
        key: change.key,
        document: change.document.unwrap_or_default(),
        position: change.position,
        time: change.wall,
    }
}
