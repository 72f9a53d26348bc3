//! Verification: what the documents make is compared with what stands.
//!
//! **Invariant**: a difference becomes a finding only if it was seen when the target had reached the source and the document was at rest.
//! `docs/design/verification.md` has the reasons.
//!
//! **Crash**: what was read, suspected and found stands in the control store; the next start goes on from there.

mod extra;
mod follow;
mod made;
mod pace;
mod pass;
mod patrol;
pub(crate) mod reached;
mod repair;
mod report;
mod settle;
mod since;
mod watch;
mod worker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use slackwater_connectors::error::Error;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::target::compare::Lists;
use slackwater_connectors::postgres::target::comparer::Comparer;
use slackwater_topics::CollectionId;

use crate::changes::digest_of;
use crate::config::Migration;
use crate::failure::Failure;
use crate::mapping::Plan;
use crate::ops::look::{Look, Named as About};
use crate::ops::persist::{Patience, Stopped, persist};
use crate::ops::stop::Stop;
use crate::ops::store::{Store, ask};
use crate::source::{Named, Source};
pub(crate) use follow::Follower;
pub(crate) use pace::Pace;
pub(crate) use patrol::{follow, patrol};
pub(crate) use repair::repair;
pub(crate) use report::{Report, sampled};
pub(crate) use since::since;
use worker::Worker;

/// How often it is asked whether another process verifies, and how long between.
const HELD_FOR: u32 = 20;
const HELD_EVERY: Duration = Duration::from_millis(100);

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Only these collections, by their names in the migration file; all if there are none.
    pub(crate) collections: Vec<String>,
    /// Only about so many of a hundred documents.
    pub(crate) sample: Option<u8>,
    /// No more documents a second.
    pub(crate) throttle: Option<u64>,
    /// It gives way where the target is behind.
    pub(crate) pace: Option<Arc<Pace>>,
    /// One that was cut off is not gone on with.
    pub(crate) anew: bool,
    /// Nobody waits for it: whoever does comes first.
    pub(crate) aside: bool,
}

/// How far it is, for whoever watches.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Documents that are read.
    pub(crate) read: AtomicU64,
    /// Documents that are to be read, about.
    pub(crate) total: AtomicU64,
    stage: Mutex<&'static str>,
}

impl Progress {
    /// What is being done.
    pub(crate) fn stage(&self) -> &'static str {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, stage: &'static str) {
        tracing::debug!(stage, "verification");
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }
}

/// Why it came to no end.
#[derive(Debug)]
pub(crate) enum Cut {
    /// It was to stop; the next start goes on.
    Asked,
    Failed(Failure),
}

impl From<Stopped> for Cut {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Asked => Self::Asked,
            Stopped::Failed(error) => error.into(),
        }
    }
}

impl From<Error> for Cut {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

/// A collection that cannot be verified now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) collection: String,
    pub(crate) why: String,
}

/// A verification at work.
pub(crate) struct Verifier<'m> {
    migration: &'m Migration,
    plan: Arc<Plan>,
    sources: Vec<Named>,
    store: Store,
    stop: Stop,
    progress: Arc<Progress>,
    wanted: Wanted,
    /// The collections that are verified.
    collections: Vec<CollectionId>,
    left_out: Vec<LeftOut>,
    id: i64,
}

/// Verifies, and says what was found.
pub(crate) async fn verify(
    migration: &Migration,
    plan: &Arc<Plan>,
    wanted: Wanted,
    progress: &Arc<Progress>,
    stop: &Stop,
) -> Result<Report, Cut> {
    let control = ready(migration).await?;
    let sources = Named::connect_all(&migration.sources).await?;
    let mut store = Store::new(&migration.target.uri, None, stop);
    let look = ask!(store, control => Look::read(control, &About::of(migration)))?;
    let (collections, left_out) = scope(plan, &wanted, &look);
    let mut verifier = Verifier {
        migration,
        plan: Arc::clone(plan),
        sources,
        store,
        stop: stop.clone(),
        progress: Arc::clone(progress),
        wanted,
        collections,
        left_out,
        id: 0,
    };
    // Held as long as this connection lives.
    let _held = verifier.begin(control).await?;
    verifier.work().await
}

/// The control store of a migration that can be verified.
async fn ready(migration: &Migration) -> Result<Control, Cut> {
    let never = || {
        let line = "this migration has never run; `slackwater run` copies everything";
        Cut::Failed(Failure::Unsuitable(vec![line.to_owned()]))
    };
    let control = Control::peek(&migration.target.uri).await?.ok_or_else(never)?;
    let recorded = control.mapping(&migration.name).await?.ok_or_else(never)?;
    if recorded.digest.is_some_and(|digest| digest != digest_of(migration)) {
        let line = "the migration file has changed since the rows were made: start `slackwater run` (or `capture`) with it first";
        return Err(Cut::Failed(Failure::Unsuitable(vec![line.to_owned()])));
    }
    if control.switched(&migration.name).await? {
        let line = "the migration is switched: its rows are those of the application now, and no document makes them any more";
        return Err(Cut::Failed(Failure::Unsuitable(vec![line.to_owned()])));
    }
    Ok(control)
}

/// What can be verified now, and what not.
fn scope(plan: &Plan, wanted: &Wanted, look: &Look) -> (Vec<CollectionId>, Vec<LeftOut>) {
    let (mut collections, mut left_out) = (Vec::new(), Vec::new());
    for id in plan.ids() {
        let name = &plan.collection(id).name;
        if !wanted.collections.is_empty() && !wanted.collections.contains(name) {
            continue;
        }
        match why_not(plan, look, id) {
            Some(why) => left_out.push(LeftOut { collection: name.clone(), why: why.to_owned() }),
            None => collections.push(id),
        }
    }
    (collections, left_out)
}

/// Why a collection cannot be verified now.
fn why_not(plan: &Plan, look: &Look, id: CollectionId) -> Option<&'static str> {
    let name = &plan.collection(id).name;
    let row = look.collections.iter().find(|row| row.collection == *name);
    if plan.collection(id).stands || look.standing.iter().any(|row| row.collection == *name) {
        Some("it stands still, because one of its tables cannot be written")
    } else if look.parked().any(|row| row.collection == *name) {
        Some("it is gone at its source, and nobody has said what becomes of its rows")
    } else if !row.is_some_and(|row| look.is_copied(row)) {
        Some("it is not copied yet")
    } else {
        None
    }
}

impl Verifier<'_> {
    /// Goes on with one that was cut off, or begins a new one.
    async fn begin(&mut self, control: Control) -> Result<Control, Cut> {
        let name = &self.migration.name;
        let mut tries = 1;
        if !self.wanted.aside {
            control.want_proof(name).await?;
        }
        // The connection of one that has just ended may still be there.
        while !control.hold_proofs(name).await? {
            if tries == HELD_FOR || self.wanted.aside || !self.stop.sleep(HELD_EVERY).await {
                let line = "another process verifies this migration at present";
                return Err(Cut::Failed(Failure::Unsuitable(vec![line.to_owned()])));
            }
            tries += 1;
        }
        let scope = self.scope();
        let newest = control.newest_proof(name, false).await?;
        let open = newest.filter(|proof| proof.ended.is_none() && proof.scope == scope && !self.wanted.anew);
        if let Some(open) = open {
            self.id = open.id;
            tracing::info!("going on with the verification that was cut off (--anew begins a new one)");
            return Ok(control);
        }
        let whole = self.wanted.collections.is_empty() && self.wanted.sample.is_none();
        self.id = control.begin_proof(&self.migration.name, &scope, whole).await?;
        Ok(control)
    }

    /// What it is about: one of another mapping, other tables or other collections is another verification.
    fn scope(&self) -> String {
        let tables: Vec<_> = self
            .plan
            .tables
            .iter()
            .map(|spec| {
                let names: Vec<&str> =
                    spec.columns.iter().map(|at| spec.table.columns[*at].name.as_str()).collect();
                (&spec.table.schema, &spec.table.name, names, &spec.key)
            })
            .collect();
        let collections: Vec<&str> =
            self.collections.iter().map(|id| self.plan.collection(*id).name.as_str()).collect();
        let scope = json!({
            "mapping": digest_of(self.migration), "tables": tables, "collections": collections, "sample": self.wanted.sample,
        });
        scope.to_string()
    }

    async fn work(&mut self) -> Result<Report, Cut> {
        self.progress.enter("planning");
        self.progress.read.store(0, Ordering::Relaxed);
        let comparer = self.comparer().await?;
        persist(&self.stop, || comparer.make_lists(Lists(self.id))).await?;
        self.plan_ranges().await?;
        self.progress.enter("comparing");
        self.read_all().await?;
        let mut worker = Worker::new(&self.plan, comparer);
        self.progress.enter("looking again at what differs");
        self.settle_all(&mut worker).await?;
        self.progress.enter("comparing rows of several documents");
        self.compare_made(&mut worker).await?;
        self.progress.enter("looking for rows that no document makes");
        let not_searched = self.find_extra(&mut worker).await?;
        self.report(not_searched).await
    }

    async fn comparer(&self) -> Result<Comparer, Cut> {
        let (uri, tables) = (&self.migration.target.uri, &self.plan.tables);
        let opened = persist(&self.stop, || Comparer::open(uri, &self.plan.migration, Arc::clone(tables)));
        Ok(opened.await?)
    }

    fn source(&self, name: &str) -> &Source {
        let found = self.sources.iter().find(|source| source.name == name).unwrap_or(&self.sources[0]);
        &found.source
    }

    /// Connects again, however long it takes.
    async fn again(&self, worker: &mut Worker, patience: &mut Patience, error: Error) -> Result<(), Cut> {
        again(worker, patience, error).await.map_err(Cut::from)
    }

    fn count(&self, documents: u64) {
        self.progress.read.fetch_add(documents, Ordering::Relaxed);
    }
}

/// After a failure that passes the worker gets another connection.
async fn again(worker: &mut Worker, patience: &mut Patience, error: Error) -> Result<(), Stopped> {
    patience.after(error).await?;
    while let Err(error) = worker.comparer.reopen().await {
        patience.after(error).await?;
    }
    Ok(())
}
