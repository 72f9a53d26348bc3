//! Verification of what changes: documents are compared again soon after their change was applied.
//!
//! **Invariant**: every document of a collection that changed after the collection's beginning and at or before `through` was looked at, in the
//! target as it was when it had all of that. With a verification of everything that began later than the collection did, that is all documents.
//!
//! A change stream of keys alone tells what to look at. It is read no faster than it is worked off, so what waits in memory is bounded. A
//! document that differs and changes meanwhile comes again in the stream.
//!
//! **Crash**: how far it is stands in the control store with what was found. What was read of the stream behind it is read again.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use slackwater_connectors::error::Kind;
use slackwater_connectors::postgres::control::followed::Looked;
use slackwater_connectors::postgres::control::proofs::FindingRow;
use slackwater_connectors::postgres::target::comparer::Comparer;
use slackwater_connectors::source::Change;
use slackwater_topics::{CollectionId, Event, Key, Moment};
use tokio::time::timeout;

use super::pace::{LATE, Pace, Watching};
use super::pass::events;
use super::reached::{PATIENCE, Present, present, reached};
use super::settle::{Pending, Scene, of_row};
use super::worker::{Asked, Worker, deleted};
use super::{Cut, again, why_not};
use crate::changes::digest_of;
use crate::config::Migration;
use crate::mapping::Plan;
use crate::ops::look::{Look, Named as About};
use crate::ops::persist::{Patience, persist};
use crate::ops::stop::Stop;
use crate::ops::store::{Store, ask};
use crate::source::{Changes, Named};

/// No more documents wait in memory.
const MOST: usize = 5_000;
/// So many documents are looked up and compared at once.
const AT_ONCE: usize = 1_000;
/// How soon an idle source is heard by one who follows it all the time, and by one who is waited for.
const CALM: Duration = Duration::from_millis(300);
const HURRY: Duration = Duration::from_millis(5);
/// How far it is is written this often while nothing changes.
const KEEP_EVERY: Duration = Duration::from_secs(1);

type Which = (CollectionId, Key);

/// Follows one source.
pub(crate) struct Follower<'m> {
    migration: &'m Migration,
    plan: Arc<Plan>,
    named: Named,
    mapping: String,
    store: Store,
    stop: Stop,
    workers: Vec<Worker>,
    /// It writes down how far it is, and what it finds.
    keeps: bool,
    covered: BTreeSet<CollectionId>,
    stream: Option<Changes>,
    /// How far the stream was read.
    heard: Moment,
    waiting: BTreeSet<Which>,
    /// Everything through here was looked at.
    through: Moment,
    kept: Option<Instant>,
    /// Dropped, or renamed, or too much at once: nothing is known of them from here on.
    lost: BTreeSet<CollectionId>,
    /// Whoever is not waited for rests where the target is behind.
    watching: Option<Watching>,
    /// It goes through what is past, in which collections may have gone that are there now.
    looks_back: bool,
}

/// What a step did.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// Documents that were looked at.
    pub(crate) documents: u64,
    /// What was found.
    pub(crate) found: Vec<FindingRow>,
    /// What is not as it should be, and why that is known.
    pub(super) explained: Vec<FindingRow>,
    /// How long the target took to show all of it.
    pub(super) waited: Duration,
}

impl<'m> Follower<'m> {
    /// `workers`: connections to the target that compare side by side. `keeps`: it writes down what it does.
    pub(crate) async fn new(
        migration: &'m Migration,
        plan: &Arc<Plan>,
        named: Named,
        (workers, keeps): (usize, bool),
        stop: &Stop,
    ) -> Result<Self, Cut> {
        let mut follower = Self {
            migration,
            plan: Arc::clone(plan),
            named,
            mapping: digest_of(migration),
            store: Store::new(&migration.target.uri, None, stop),
            stop: stop.clone(),
            workers: Vec::with_capacity(workers),
            keeps,
            covered: BTreeSet::new(),
            stream: None,
            heard: Moment::default(),
            waiting: BTreeSet::new(),
            through: Moment::default(),
            kept: None,
            lost: BTreeSet::new(),
            watching: None,
            looks_back: false,
        };
        for _ in 0..workers {
            let worker = follower.worker().await?;
            follower.workers.push(worker);
        }
        Ok(follower)
    }

    /// Nobody waits for it.
    pub(super) fn at_pace(mut self, pace: &Arc<Pace>) -> Self {
        self.watching = Some(Watching::new(pace));
        self
    }

    /// How long to rest after a step that took so long.
    pub(super) fn rest(&self, step: &Step, took: Duration, throttle: u64) -> Duration {
        let work = took.saturating_sub(step.waited);
        self.watching
            .as_ref()
            .map_or(Duration::ZERO, |watching| watching.rest(work, step.documents, throttle))
    }

    async fn worker(&self) -> Result<Worker, Cut> {
        let (uri, name, tables) = (&self.migration.target.uri, &self.plan.migration, &self.plan.tables);
        let opened = persist(&self.stop, || Comparer::open(uri, name, Arc::clone(tables))).await?;
        Ok(Worker::new(&self.plan, opened))
    }

    /// Rows are made by this plan from now on.
    pub(crate) async fn plan_is(&mut self, plan: &Arc<Plan>) -> Result<(), Cut> {
        if !Arc::ptr_eq(&self.plan, plan) {
            self.plan = Arc::clone(plan);
            for at in 0..self.workers.len() {
                self.workers[at] = self.worker().await?;
            }
        }
        Ok(())
    }

    /// Finds out which collections can be followed now. Those that could not be before begin now; of those that cannot be any more
    /// nothing is known. False where none can be.
    pub(crate) async fn cover(&mut self) -> Result<bool, Cut> {
        let migration = &self.migration.name;
        let look = ask!(self.store, control => Look::read(control, &About::of(self.migration)))?;
        let rows = ask!(self.store, control => control.followed(migration))?;
        let (mut all, mut fresh, mut gone) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut through: Option<Moment> = None;
        for id in self.plan.ids().filter(|id| self.plan.collection(*id).source == self.named.name) {
            let name = self.plan.collection(id).name.as_str();
            let row = rows.iter().find(|row| row.collection == name);
            let known = row.filter(|row| row.mapping == self.mapping && !self.lost.contains(&id));
            match (why_not(&self.plan, &look, id), known) {
                (Some(_), _) => gone.extend(row.map(|_| name)),
                (None, Some(row)) => {
                    all.insert(id);
                    through = Some(through.map_or(row.through, |least| least.min(row.through)));
                }
                (None, None) => fresh.push((id, name)),
            }
        }
        if !self.keeps {
            fresh.clear();
            gone.clear();
        }
        if !gone.is_empty() {
            ask!(self.store, control => control.stop_following(migration, &gone))?;
        }
        if !fresh.is_empty() {
            let now = persist(&self.stop, || self.named.source.now()).await?;
            let names: Vec<&str> = fresh.iter().map(|(_, name)| *name).collect();
            let of = (self.named.name.as_str(), self.mapping.as_str());
            ask!(self.store, control => control.begin_following(migration, of, &names, now))?;
            through = Some(through.map_or(now, |least| least.min(now)));
            all.extend(fresh.into_iter().map(|(id, _)| id));
        }
        self.lost.clear();
        if all != self.covered || self.stream.is_none() {
            self.covered = all;
            self.waiting.clear();
            self.stream = None;
            self.through = through.unwrap_or_default();
            self.heard = self.through;
        }
        Ok(!self.covered.is_empty())
    }

    /// Follows these collections from a moment on, whatever is known of them.
    pub(super) fn follow_from(&mut self, collections: Vec<CollectionId>, from: Moment) {
        self.covered = collections.into_iter().collect();
        (self.through, self.heard, self.stream) = (from, from, None);
        self.looks_back = true;
    }

    /// Collections of which more has changed than single documents.
    pub(super) fn lost(&self) -> &BTreeSet<CollectionId> {
        &self.lost
    }

    /// The name of the source.
    pub(crate) fn source(&self) -> &str {
        &self.named.name
    }

    /// The collections that are followed.
    pub(crate) fn covered(&self) -> &BTreeSet<CollectionId> {
        &self.covered
    }

    /// Everything through this moment of the source was looked at.
    pub(crate) fn through(&self) -> Moment {
        self.through
    }

    /// Looks at what has changed until now, or at as much of it as is looked at in one step. None where the target does not follow, or the
    /// stream is lost: then [`Self::cover`] comes next.
    pub(crate) async fn step(&mut self) -> Result<Option<Step>, Cut> {
        let now = persist(&self.stop, || present(&self.named.source)).await?;
        self.step_at(now).await
    }

    /// The same of a source that stands still since this moment.
    pub(crate) async fn step_through(&mut self, moment: Moment) -> Result<Option<Step>, Cut> {
        self.step_at(Present { moment, at: Instant::now() }).await
    }

    async fn step_at(&mut self, now: Present) -> Result<Option<Step>, Cut> {
        if !self.hear(now.moment).await? {
            return Ok(None);
        }
        let keys: Vec<Which> =
            self.waiting.iter().filter(|(id, _)| self.covered.contains(id)).cloned().collect();
        let (to, mut step) = (self.heard, Step { documents: keys.len() as u64, ..Step::default() });
        let mut looked = Looked::default();
        if !keys.is_empty() {
            let begun = Instant::now();
            if !self.is_shown(now).await? {
                return Ok(None);
            }
            step.waited = begun.elapsed();
            let suspects = self.compare(keys, now, &mut looked).await?;
            let Some(explained) = self.settle(suspects, &mut looked).await? else { return Ok(None) };
            step.explained = explained;
        }
        self.waiting.clear();
        self.through = self.through.max(to);
        self.keep(now, looked, &mut step).await?;
        Ok(Some(step))
    }

    /// Waits until the target shows everything through the present. False where it does not move.
    async fn is_shown(&mut self, now: Present) -> Result<bool, Cut> {
        let of = (self.named.name.as_str(), self.named.source.kind());
        let mut reached = pin!(reached(self.migration, &mut self.store, &self.stop, of, now, PATIENCE));
        // As long as the switch would take that, nobody rests: verification has to be close as well then.
        let soon = timeout(LATE.max(self.migration.cutover.max_lag), &mut reached).await;
        if let Some(watching) = &mut self.watching {
            watching.is(soon.is_err());
        }
        Ok(match soon {
            Ok(reached) => reached?,
            Err(_) => reached.await?,
        })
    }

    /// Reads the stream through the moment, or until enough waits. False where it is lost.
    async fn hear(&mut self, moment: Moment) -> Result<bool, Cut> {
        if self.stream.is_none() {
            let watched: Vec<_> =
                self.covered.iter().map(|id| (*id, self.plan.collection(*id).collection.clone())).collect();
            let Some(stream) = self.named.source.watch(self.through, watched) else { return Ok(false) };
            stream.answer_within(if self.keeps { CALM } else { HURRY });
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else { return Ok(false) };
        while self.heard < moment && self.waiting.len() < MOST {
            let batch = tokio::select! {
                batch = stream.next() => batch,
                () = self.stop.wait() => return Err(Cut::Asked),
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::debug!(%error, "the stream of changes to verify is lost");
                    // A history that is gone: what has changed since is not known.
                    if error.kind == Kind::HistoryLost {
                        self.lost.extend(self.covered.iter().copied());
                    }
                    self.stream = None;
                    return Ok(false);
                }
            };
            for change in batch.changes {
                match change {
                    Change::Document(change) => {
                        self.waiting.insert((change.collection, change.key));
                    }
                    Change::Dropped { collection, .. } => {
                        self.lost.insert(collection);
                    }
                    Change::Renamed { from, to, .. } => self.lost.extend(from.into_iter().chain(to)),
                    Change::DatabaseDropped { .. } | Change::Invalidated { .. } => {
                        self.lost.extend(self.covered.iter().copied());
                    }
                }
            }
            self.heard = self.heard.max(batch.passed);
        }
        if self.lost.is_empty() || self.looks_back {
            return Ok(true);
        }
        self.stream = None;
        Ok(false)
    }

    /// Compares documents; those that are to be looked at again.
    async fn compare(
        &mut self,
        keys: Vec<Which>,
        now: Present,
        looked: &mut Looked,
    ) -> Result<BTreeMap<CollectionId, BTreeMap<Key, Pending>>, Cut> {
        let mut by_collection: BTreeMap<CollectionId, Vec<Key>> = BTreeMap::new();
        for (id, key) in keys {
            let name = self.plan.collection(id).name.clone();
            looked.documents.push((name, key.as_bytes().to_vec()));
            by_collection.entry(id).or_default().push(key);
        }
        // The work is shared by documents, so that one large collection does not keep all others waiting.
        let mut shares: Vec<Vec<(CollectionId, Vec<Key>)>> = vec![Vec::new(); self.workers.len()];
        for (id, keys) in by_collection {
            for some in keys.chunks(AT_ONCE) {
                let documents = |share: &Vec<(CollectionId, Vec<Key>)>| {
                    share.iter().map(|(_, keys)| keys.len()).sum::<usize>()
                };
                if let Some(least) = shares.iter_mut().min_by_key(|share| documents(share)) {
                    least.push((id, some.to_vec()));
                }
            }
        }
        let (plan, named, stop) = (&self.plan, &self.named, &self.stop);
        let work = self.workers.iter_mut().zip(shares).map(|(worker, share)| async move {
            let mut suspects = Vec::new();
            let (mut rows, mut found) = (Vec::new(), Vec::new());
            for (id, keys) in share {
                let some = compare_some((plan, named, stop), worker, (id, &keys), now.moment).await?;
                suspects.extend(some.suspects.into_iter().map(|key| (id, key)));
                rows.extend(some.rows);
                found.extend(some.found);
            }
            Ok::<_, Cut>((suspects, rows, found))
        });
        let mut suspects: BTreeMap<CollectionId, BTreeMap<Key, Pending>> = BTreeMap::new();
        for done in join_all(work).await {
            let (some, rows, found) = done?;
            looked.rows.extend(rows);
            looked.found.extend(found);
            for (id, key) in some {
                suspects.entry(id).or_default().insert(key, Pending::default());
            }
        }
        Ok(suspects)
    }

    /// Looks again at what differed, and gives what is explained. A document that has changed meanwhile comes again in the stream. None where
    /// that cannot be said.
    async fn settle(
        &mut self,
        suspects: BTreeMap<CollectionId, BTreeMap<Key, Pending>>,
        looked: &mut Looked,
    ) -> Result<Option<Vec<FindingRow>>, Cut> {
        let mut found = Vec::new();
        for (id, mut pending) in suspects {
            let plan = Arc::clone(&self.plan);
            let source = self.named.source.clone();
            let stop = self.stop.clone();
            let scene =
                Scene { migration: self.migration, plan: &plan, source: &source, stop: &stop, surplus: true };
            let (mut watch, worker) = (None, &mut self.workers[0]);
            let settled = scene.round(&mut self.store, worker, id, &mut pending, &mut watch).await?;
            let Some(settled) = settled else { return Ok(None) };
            if settled.len() < pending.len() && watch.is_none() {
                return Ok(None);
            }
            found.extend(settled.into_iter().flat_map(|(_, rows)| rows));
        }
        let (mut found, explained): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|row: &FindingRow| row.explained.is_none());
        if !found.is_empty() {
            // A collection that has just begun to stand still, or to be copied again, differs for that reason.
            let look = ask!(self.store, control => Look::read(control, &About::of(self.migration)))?;
            let still = |id: &CollectionId| why_not(&self.plan, &look, *id).is_none();
            if !self.covered.iter().all(still) {
                return Ok(None);
            }
        }
        looked.found.append(&mut found);
        Ok(Some(explained))
    }

    /// Writes down how far it is.
    async fn keep(&mut self, now: Present, looked: Looked, step: &mut Step) -> Result<(), Cut> {
        step.found = looked.found.clone();
        let idle = looked.is_empty() && self.kept.is_some_and(|kept| kept.elapsed() < KEEP_EVERY);
        if !self.keeps || idle {
            return Ok(());
        }
        let names: Vec<&str> =
            self.covered.iter().map(|id| self.plan.collection(*id).name.as_str()).collect();
        let (migration, through) = (&self.migration.name, self.through);
        // Where not everything was heard, it is older than that.
        let age = if self.heard >= now.moment {
            now.at.elapsed().as_millis() as i64
        } else {
            let kind = self.named.source.kind();
            (kind.seconds(now.moment) - kind.seconds(through)) * 1_000 + now.at.elapsed().as_millis() as i64
        };
        ask!(self.store, control => control.follow_through(migration, &names, (through, age), &looked))?;
        self.kept = Some(Instant::now());
        Ok(())
    }
}

/// What was seen of some documents of a collection.
#[derive(Default)]
struct Compared {
    suspects: Vec<Key>,
    rows: Vec<((String, String), Vec<String>)>,
    found: Vec<FindingRow>,
}

async fn compare_some(
    (plan, named, stop): (&Arc<Plan>, &Named, &Stop),
    worker: &mut Worker,
    (id, keys): (CollectionId, &[Key]),
    since: Moment,
) -> Result<Compared, Cut> {
    let of = plan.collection(id);
    let found = persist(stop, || named.source.look_up(&of.collection, keys, since)).await?.found;
    let there: BTreeSet<Key> = found.iter().map(|(key, _)| key.clone()).collect();
    let mut events: Vec<Event> = events(id, found);
    events.extend(keys.iter().filter(|key| !there.contains(*key)).map(|key| deleted(id, key.clone())));
    worker.forget();
    let mut patience = Patience::new(stop);
    let mut some = Compared::default();
    let seen = loop {
        match worker.compare(&events, Asked::Changed { explained: false }).await {
            Ok(seen) => break seen,
            Err(error) => again(worker, &mut patience, error).await?,
        }
    };
    let differ = seen.differences.iter().map(|(at, _)| *at).chain(seen.refused.iter().map(|(at, _)| *at));
    let suspects: BTreeSet<usize> = differ.chain(seen.surplus.iter().map(|(at, _)| *at)).collect();
    some.suspects = suspects.into_iter().map(|at| events[at].key.clone()).collect();
    let touched = loop {
        match worker.compare_touched(&events).await {
            Ok(touched) => break touched,
            // What is refused of them is told by the comparison.
            Err(error) if error.kind == Kind::Data => break Vec::new(),
            Err(error) => again(worker, &mut patience, error).await?,
        }
    };
    for (table, keys, seen) in touched {
        let name = &plan.tables[table].table;
        let name = (name.schema.clone(), name.name.clone());
        some.rows.extend(keys.into_iter().map(|key| (name.clone(), key)));
        let differ = seen.differences.iter().enumerate().filter(|(at, _)| !seen.waiting.contains_key(at));
        some.found.extend(differ.map(|(_, difference)| of_row(plan, difference)));
        some.found.extend(seen.extra.into_iter().map(|row_key| FindingRow {
            kind: "extra".to_owned(),
            table: Some(name.clone()),
            row_key,
            ..FindingRow::default()
        }));
    }
    Ok(some)
}
