//! The one task that sees everything a source brings, in one order: it feeds the log.
//!
//! It asks [`Merge`] about every change, hands pieces to the copiers, holds what they read until the stream has passed it,
//! looks documents up where the stream does not carry them, and begins collections anew when their history was lost.
//!
//! A crash loses nothing but work: the position that the next start reads was committed with the rows before it, pieces
//! that are not marked done are read again, and a collection that was begun anew is still marked so.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::kafka::Admin;
use slackwater_connectors::mongodb::{Mongo, Start};
use slackwater_connectors::postgres::control::{Control, CopyState};
use slackwater_connectors::retry::Pauses;
use slackwater_connectors::secret::Secret;
use slackwater_connectors::source::{Change, ChangeBatch, ChangeKind, DocumentChange, Heard, Lookup};
use slackwater_topics::{Bound, CollectionId, Document, Event, Key, Moment, Op, Position, Range, Value};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::beats::Beats;
use super::lookup::{Horizons, is_complete};
use super::merge::{Arrival, Merge, PieceId, Route};
use super::outgoing::Outgoing;
use super::watcher::Watched;
use crate::apply::batch::{Batch, keep_last};
use crate::apply::letters::Letters;
use crate::apply::stream::Report;
use crate::cutover::watch::Phase;
use crate::mapping::Plan;
use crate::ops::gauges::Gauges;
use crate::ops::policy::{Action, action, remedy};
use crate::ops::stop::Stop;

/// How often dead letters that are due are looked for.
const LETTERS_EVERY: Duration = Duration::from_secs(1);
/// While a switch is under way, which waits for those whose references were only late.
const LETTERS_AT_SWITCH: Duration = Duration::from_millis(25);
const LETTERS_AT_ONCE: i64 = 500;
/// How long the server may hold its answer back while nothing happens. Pieces wait for the stream to pass the time
/// at which they were read.
const IDLE_WAIT: Duration = Duration::from_millis(500);
const IDLE_WAIT_IN_COPY: Duration = Duration::from_millis(20);
/// A frozen source changes nothing that would wake the stream.
const IDLE_WAIT_AT_SWITCH: Duration = Duration::from_millis(4);
/// Batches of the stream that wait for us; each may have 16 MB.
const STREAM_BUFFER: usize = 1;

/// How large pieces are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunking {
    pub(crate) bytes: u64,
    pub(crate) documents: u64,
}

/// A piece to copy.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) piece: PieceId,
    pub(crate) collection: CollectionId,
    pub(crate) range: Range,
    /// The read has to show everything up to here.
    pub(crate) from: Moment,
    /// The tables hold nothing of this collection.
    pub(crate) fresh: bool,
}

/// A piece may be applied.
#[derive(Debug)]
pub(crate) struct Release {
    /// Without these: the stream has brought them since.
    pub(crate) changed: HashSet<Key>,
    /// Tables whose rows are noted as met.
    pub(crate) noted: Vec<usize>,
}

/// What copiers say.
#[derive(Debug)]
pub(crate) enum Word {
    /// I have nothing to do.
    Idle(oneshot::Sender<Assignment>),
    /// I have read the piece; answered when it may be applied, dropped where it is void.
    Read { piece: PieceId, until: Moment, rest: Option<Range>, release: oneshot::Sender<Release> },
    /// The piece is in the target. `cut`: a rest was left for another.
    Done { piece: PieceId, collection: CollectionId, cut: Option<Bound> },
    /// Documents of dead letters were read again.
    Reread { id: PieceId, collection: CollectionId, keys: Vec<Key>, found: Vec<(Key, Bytes)>, at: Moment },
    /// Reading them failed.
    RereadFailed { id: PieceId, error: Error },
}

/// A piece that was read and waits.
struct Held {
    piece: PieceId,
    collection: CollectionId,
    release: oneshot::Sender<Release>,
}

/// Documents that were read again and wait.
struct Reread {
    id: PieceId,
    collection: CollectionId,
    keys: Vec<Key>,
    found: HashMap<Key, Bytes>,
}

/// What the router knows of a collection.
#[derive(Clone, Debug)]
struct Copying {
    state: CopyState,
    generation: i32,
    fresh: bool,
    reload: bool,
}

/// Where the log stands that the router feeds.
pub(crate) enum Log {
    /// In this process: what was released is applied.
    Direct,
    /// In Kafka: what was released is on its way to the appliers.
    Kafka { outgoing: Arc<Outgoing>, admin: Admin, watcher: mpsc::UnboundedSender<Watched> },
}

/// Channels of the router.
pub(crate) struct Wires {
    pub(crate) log: mpsc::Sender<Batch>,
    pub(crate) applied: watch::Receiver<Moment>,
    pub(crate) words: mpsc::UnboundedReceiver<Word>,
    pub(crate) say: mpsc::UnboundedSender<Word>,
    pub(crate) reports: mpsc::UnboundedReceiver<Report>,
    /// How near the switch is.
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) heard: watch::Receiver<Option<Heard>>,
}

/// The router's state.
pub(crate) struct Router {
    mongo: Mongo,
    plan: Arc<Plan>,
    control: Control,
    target: Secret,
    epoch: i64,
    chunking: Chunking,
    wires: Wires,
    letters: Arc<Letters>,
    gauges: Arc<Gauges>,
    stop: Stop,
    merge: Merge,
    horizons: Horizons,
    copying: Vec<Copying>,
    idle: VecDeque<oneshot::Sender<Assignment>>,
    held: Vec<Held>,
    rereads: Vec<Reread>,
    /// Deletes in the batch that travel as deletes or not at all.
    removals: HashSet<Position>,
    next_reread: PieceId,
    /// The newest time that the source told us.
    now: Moment,
    /// Where the stream stands.
    position: Position,
    /// A sweep was sent and is not reported yet.
    sweeping: bool,
    /// A collection is about to be begun anew: nothing is given out and nothing let go.
    draining: bool,
    log: Log,
    /// Rows of collections below this level are in the target.
    landed: usize,
    /// The fence behind the rows below a level, on its way.
    landing: Option<(Uuid, usize)>,
    /// What the log has lost, and nobody has dealt with yet.
    lost: Vec<(Vec<CollectionId>, String)>,
    /// How far the stream was put into the log.
    passed: Moment,
    /// The switch's fence that was put into the log last.
    fenced: Option<Uuid>,
    beats: Beats,
}

/// Asks the control store until it answers: a target that is away must not end the capture.
macro_rules! keep {
    ($router:ident, $control:ident => $call:expr) => {{
        let mut pauses = Pauses::for_server();
        loop {
            let $control = &mut $router.control;
            match $call.await {
                Ok(answer) => break Ok(answer),
                Err(error) => match action(error.kind) {
                    Action::Wait | Action::Retry => {
                        tracing::debug!(%error, "the control store does not answer; trying again");
                        if !$router.stop.sleep(pauses.next_pause()).await {
                            break Err(error);
                        }
                        $router.reconnect().await;
                    }
                    Action::Quarantine | Action::Recopy | Action::Yield | Action::Halt => break Err(error),
                },
            }
        }
    }};
}

mod copies;
mod history;
mod landing;
mod letters;
mod moments;
mod switch;

/// What the router needs to begin.
pub(crate) struct Parts {
    pub(crate) mongo: Mongo,
    pub(crate) plan: Arc<Plan>,
    pub(crate) control: Control,
    pub(crate) target: Secret,
    pub(crate) epoch: i64,
    pub(crate) chunking: Chunking,
    pub(crate) letters: Arc<Letters>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stop: Stop,
    /// Tables that hold no row.
    pub(crate) empty_tables: HashSet<usize>,
    /// Where the stream lane stands.
    pub(crate) position: Position,
    /// Former runs have sent nothing that is newer. What they sent is not taken again, so pieces have to show it.
    pub(crate) now: Moment,
    /// Look-ups of former runs may have seen this far.
    pub(crate) horizon: Moment,
    pub(crate) log: Log,
    /// Collections of which the log has lost something while nobody looked, and what.
    pub(crate) lost: Vec<(Vec<CollectionId>, String)>,
}

impl Router {
    /// Reads how far the copies are.
    pub(crate) async fn new(parts: Parts, wires: Wires) -> Result<Self> {
        let Parts {
            mongo,
            plan,
            control,
            target,
            epoch,
            chunking,
            letters,
            gauges,
            stop,
            empty_tables,
            position,
            now,
            horizon,
            log,
            lost,
        } = parts;
        let rows = control.collections(&plan.migration).await?;
        let mut merge = Merge::new(plan.collections.len());
        let mut open: HashMap<String, Vec<(PieceId, Range)>> = HashMap::new();
        for chunk in control.open_chunks(&plan.migration).await? {
            let range = Range { lo: copies::bound(chunk.lo)?, hi: copies::bound(chunk.hi)? };
            open.entry(chunk.collection).or_default().push((chunk.id, range));
        }
        let mut copying = Vec::with_capacity(plan.collections.len());
        for (index, collection) in plan.collections.iter().enumerate() {
            let id = CollectionId(index as u16);
            let row = rows.iter().find(|row| row.collection == collection.name);
            let fresh = collection.tables.iter().all(|table| empty_tables.contains(table));
            let Some(row) = row else {
                copying.push(Copying { state: CopyState::Pending, generation: 1, fresh, reload: false });
                continue;
            };
            copying.push(Copying {
                state: row.state,
                generation: row.generation,
                fresh: row.fresh,
                reload: row.reload,
            });
            Gauges::add(&gauges.copied, row.documents_copied);
            Gauges::add(&gauges.to_copy, row.documents_estimate);
            match row.state {
                CopyState::Pending => {}
                CopyState::Copying => merge.plan(id, open.remove(&collection.name).unwrap_or_default()),
                CopyState::Copied => merge.copied(id),
            }
        }
        Ok(Self {
            horizons: Horizons::new(plan.collections.len(), horizon),
            now: position.moment.max(now),
            mongo,
            plan,
            control,
            target,
            epoch,
            chunking,
            wires,
            letters,
            gauges,
            stop,
            merge,
            copying,
            idle: VecDeque::new(),
            held: Vec::new(),
            rereads: Vec::new(),
            removals: HashSet::new(),
            next_reread: -1,
            position,
            sweeping: false,
            draining: false,
            log,
            landed: 0,
            landing: None,
            lost,
            passed: Moment::default(),
            fenced: None,
            beats: Beats::default(),
        })
    }

    async fn reconnect(&mut self) {
        if self.control.is_connected() {
            return;
        }
        if let Ok(mut control) = Control::open(&self.target).await {
            control.act_as(&self.plan.migration, self.epoch);
            self.control = control;
        }
    }

    fn start(&self) -> Start {
        Start::After(self.position.clone())
    }

    /// Runs until it is to stop.
    pub(crate) async fn run(mut self) -> Result<()> {
        let watched: Vec<(CollectionId, String)> = self
            .plan
            .collections
            .iter()
            .enumerate()
            .map(|(place, collection)| (CollectionId(place as u16), collection.collection.clone()))
            .collect();
        let mut stream = self.mongo.stream(self.start(), watched.clone(), STREAM_BUFFER);
        let mut letters = tokio::time::interval(LETTERS_EVERY);
        letters.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut near = false;
        self.make_good().await?;
        self.hurry_letters().await?;
        // Copies that ended just before the last stop.
        self.finish_copies().await?;
        let mut waits = None;
        loop {
            let wait = self.idle_wait();
            if waits != Some(wait) {
                stream.hurry(wait);
                waits = Some(wait);
            }
            if near != self.is_near() {
                near = !near;
                letters = tokio::time::interval(if near { LETTERS_AT_SWITCH } else { LETTERS_EVERY });
                letters.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            }
            let step = tokio::select! {
                biased;
                () = self.stop.wait() => return Ok(()),
                word = self.wires.words.recv() => match word {
                    Some(word) => self.hear(word).await,
                    None => return Ok(()),
                },
                Some(report) = self.wires.reports.recv() => self.on_report(report).await,
                changed = self.wires.applied.changed() => match changed {
                    Ok(()) => self.release().await,
                    Err(_) => return Ok(()),
                },
                heard = self.wires.heard.changed() => match heard {
                    Ok(()) => self.on_moment().await,
                    Err(_) => return Ok(()),
                },
                batch = stream.next() => match batch {
                    Ok(batch) => self.on_batch(batch).await,
                    Err(error) if action(error.kind) == Action::Recopy => {
                        let recovered = self.on_history_lost(&error).await;
                        if recovered.is_ok() {
                            stream = self.mongo.stream(self.start(), watched.clone(), STREAM_BUFFER);
                            waits = None;
                        }
                        recovered
                    }
                    Err(error) if action(error.kind) == Action::Wait => {
                        tracing::warn!(%error, remedy = remedy(error.kind), "waiting for the source");
                        if !self.stop.sleep(Duration::from_secs(5)).await {
                            return Ok(());
                        }
                        stream = self.mongo.stream(self.start(), watched.clone(), STREAM_BUFFER);
                        waits = None;
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
                _ = letters.tick() => self.retry_letters().await,
                Ok(()) = self.wires.phase.changed() => self.fence().await,
            };
            let step = match step {
                Ok(()) => self.make_good().await,
                failed => failed,
            };
            if let Err(error) = step {
                // What fails while everything stops was cut short by the stop.
                return if self.stop.is_set() { Ok(()) } else { Err(error) };
            }
        }
    }

    async fn on_batch(&mut self, batch: ChangeBatch) -> Result<()> {
        self.now = self.now.max(batch.now);
        let mut events = Vec::with_capacity(batch.changes.len());
        let mut last: Option<Position> = None;
        for change in batch.changes {
            let position = change.position().clone();
            let lost = match change {
                Change::Document(change) => {
                    if self.passes(&change).await? {
                        events.push(event(change));
                    }
                    None
                }
                Change::Dropped { collection, .. } => Some((
                    vec![collection],
                    "drop",
                    format!("collection {} was dropped", self.name(collection)),
                )),
                Change::Renamed { from, to, to_name, .. } => {
                    let ids: Vec<CollectionId> = from.into_iter().chain(to).collect();
                    let text = match from {
                        Some(from) => {
                            format!("collection {} was renamed to {to_name}", self.name(from))
                        }
                        None => format!("another collection was renamed to {to_name}"),
                    };
                    Some((ids, "rename", text))
                }
                Change::DatabaseDropped { .. } => Some((
                    self.all_collections(),
                    "dropDatabase",
                    "the source's database was dropped".to_owned(),
                )),
                // The drop or rename that caused it came before.
                Change::Invalidated { .. } => None,
            };
            if let Some((collections, kind, text)) = lost {
                // What came before is made safe first, so that a crash finds this change again.
                if let Some(before) = last.take() {
                    let passed = Moment(before.moment.0.saturating_sub(1));
                    self.publish(std::mem::take(&mut events), before, passed).await?;
                }
                self.begin_anew(collections, kind, &text).await?;
            }
            last = Some(position);
        }
        self.publish(events, batch.position, batch.passed).await?;
        self.fence().await
    }

    fn name(&self, collection: CollectionId) -> String {
        self.plan.collections[usize::from(collection.0)].name.clone()
    }

    fn all_collections(&self) -> Vec<CollectionId> {
        (0..self.plan.collections.len()).map(|index| CollectionId(index as u16)).collect()
    }

    /// Whether the change travels; waits where it must.
    async fn passes(&mut self, change: &DocumentChange) -> Result<bool> {
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
                Route::Wait(piece) => {
                    while self.merge.is_applying(piece) {
                        self.next_word().await?;
                    }
                }
            }
        }
    }

    async fn next_word(&mut self) -> Result<()> {
        let stopped = || Error::new(Kind::Bug, "waiting for the copiers", "they have stopped");
        tokio::select! {
            () = self.stop.wait() => Err(stopped()),
            Some(word) = self.wires.words.recv() => Box::pin(self.hear(word)).await,
            Some(report) = self.wires.reports.recv() => Box::pin(self.on_report(report)).await,
            else => Err(stopped()),
        }
    }

    /// Resolves what the events do not carry, and puts them into the log.
    async fn publish(&mut self, mut events: Vec<Event>, position: Position, passed: Moment) -> Result<()> {
        let stands = |horizons: &Horizons, event: &Event| horizons.stands(event, is_complete(event));
        if !events.iter().all(|event| stands(&self.horizons, event)) {
            events = keep_last(events);
            let mut wanted: HashMap<CollectionId, Vec<Key>> = HashMap::new();
            for event in events.iter().filter(|event| !stands(&self.horizons, event)) {
                wanted.entry(event.collection).or_default().push(event.key.clone());
            }
            let mut found: HashMap<(CollectionId, Key), Bytes> = HashMap::new();
            let mut looked_up: HashSet<(CollectionId, Key)> = HashSet::new();
            for (collection, keys) in wanted {
                let lookup = self.look_up(collection, &keys, position.moment).await?;
                self.horizons.looked_up(collection, lookup.at);
                found.extend(lookup.found.into_iter().map(|(key, document)| ((collection, key), document)));
                looked_up.extend(keys.into_iter().map(|key| (collection, key)));
            }
            events.retain_mut(|event| {
                let document = (event.collection, event.key.clone());
                if !looked_up.contains(&document) {
                    return true;
                }
                match found.remove(&document) {
                    Some(_) if self.removals.contains(&event.position) => return false,
                    Some(document) => (event.op, event.document) = (Op::Upsert, document),
                    None => (event.op, event.document) = (Op::Delete, Bytes::new()),
                }
                true
            });
        }
        self.removals.clear();
        self.position = position.clone();
        self.passed = self.passed.max(passed);
        let as_of = self.beats.pass(passed);
        let bytes = events.iter().map(|event| event.document.len() + 64).sum();
        let batch = Batch {
            events,
            position: Some(position),
            passed,
            as_of,
            horizon: self.horizons.latest(),
            noted: self.noted(),
            bytes,
            ..Batch::default()
        };
        self.send(batch).await?;
        self.read_as_of(as_of);
        Ok(())
    }

    async fn look_up(&mut self, collection: CollectionId, keys: &[Key], after: Moment) -> Result<Lookup> {
        let name = self.plan.collections[usize::from(collection.0)].collection.clone();
        let mut pauses = Pauses::for_server();
        loop {
            match self.mongo.lookup(&name, keys, after).await {
                Ok(lookup) => return Ok(lookup),
                Err(error) => match action(error.kind) {
                    Action::Wait | Action::Retry => {
                        tracing::debug!(%error, "a look-up failed; trying again");
                        if !self.stop.sleep(pauses.next_pause()).await {
                            return Err(error);
                        }
                    }
                    Action::Quarantine | Action::Recopy | Action::Yield | Action::Halt => return Err(error),
                },
            }
        }
    }

    /// Puts a batch into the log; while that is full, the copiers are heard.
    async fn send(&mut self, batch: Batch) -> Result<()> {
        let log = self.wires.log.clone();
        let permit = loop {
            tokio::select! {
                biased;
                () = self.stop.wait() => return Ok(()),
                permit = log.reserve() => break permit,
                Some(word) = self.wires.words.recv() => Box::pin(self.hear(word)).await?,
                Ok(()) = self.wires.applied.changed() => Box::pin(self.release()).await?,
            }
        };
        match permit {
            Ok(permit) => {
                permit.send(batch);
                Ok(())
            }
            // The lane has ended; its own error says why.
            Err(_) => Ok(()),
        }
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
