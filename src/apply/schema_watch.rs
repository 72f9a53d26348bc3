//! Watches the target's tables while they are written: a table that cannot be written as it is now stands still, and all others go on.
//!
//! One task a process looks every second whether a table has changed, and more often who holds a lock that a lane waits for. It compiles
//! the migration against what it finds and gives the new plan to the lanes, which take it before their next transaction. A lane that
//! fails in a way that such a change explains asks at once.
//!
//! # Invariant
//!
//! A document of a collection that stands still is noted in the transaction that moves the lane past it, as a dead letter of the kind
//! `standing` with its key. When the table can be written again, its document is read again and goes through the log like any change.
//! So nothing is lost and nothing goes back, in whatever order processes see the change.
//!
//! # Crash
//!
//! Nothing of this is kept in memory alone. What waits is released by any process that sees the table mended, again and again until
//! none is left: one that has not seen it yet may note another document meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::standing::{StandingRow, TableIdentity};
use slackwater_connectors::postgres::target::catalog::{Catalog, Table};
use slackwater_connectors::postgres::target::drift::{Blocked, Facts, Looker, Name, number_of, oid_of};
use slackwater_connectors::secret::Secret;
use tokio::sync::{mpsc, oneshot, watch};

use super::drift;
use crate::config::{Column, Diagnostic, InvalidPolicy, Migration};
use crate::mapping::{Plan, follow};
use crate::ops::board::Place;
use crate::ops::gauges::Gauges;
use crate::ops::stop::Stop;

/// How often it is looked who holds locks.
const EVERY: Duration = Duration::from_millis(400);
/// How often the tables are looked at.
const TABLES_EVERY: Duration = Duration::from_secs(1);
/// What waits for a lock for so long is given up. By then the task of every process has seen it, and not only the quickest.
const CANCEL_MS: i64 = 750;
/// A server that does not answer is left alone for so long. The lanes notice for themselves.
const AWAY: Duration = Duration::from_secs(2);
/// Errors that a changed table explains, beside all of class 42 (names, types, rights): a schema that is not there, a column that may
/// not be null any more, a plan that may not change. A statement that was prepared for a table which is gone gets XX000; bytes of
/// another type 22P03 or 08P01.
const EXPLAINED: [&str; 6] = ["3F000", "23502", "0A000", "XX000", "22P03", "08P01"];

/// What a lane knows of the watch.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    plans: watch::Receiver<Arc<Plan>>,
    asks: mpsc::Sender<oneshot::Sender<bool>>,
}

impl Schema {
    /// The plan, if there is a new one since this was last asked.
    pub(super) fn changed(&mut self) -> Option<Arc<Plan>> {
        match self.plans.has_changed() {
            Ok(true) => Some(Arc::clone(&self.plans.borrow_and_update())),
            _ => None,
        }
    }

    /// The plan as it is now.
    pub(crate) fn newest(&mut self) -> Arc<Plan> {
        Arc::clone(&self.plans.borrow_and_update())
    }

    /// After an error: looks at the tables at once. True if the work is to be tried again: there is a new plan, or it is not known.
    pub(super) async fn explains(&mut self, error: &Error) -> bool {
        let mismatch =
            error.code.as_deref().is_some_and(|code| code.starts_with("42") || EXPLAINED.contains(&code));
        if !mismatch {
            return false;
        }
        let (answer, answered) = oneshot::channel();
        // The watch ends with the process; then there is nothing to wait for.
        let looked = self.asks.send(answer).await.is_err() || answered.await.unwrap_or(true);
        !looked || self.plans.has_changed().unwrap_or(false)
    }
}

/// The task.
pub(crate) struct SchemaWatch {
    migration: Arc<Migration>,
    target: Secret,
    /// The tables as they last were when they could be written.
    known: BTreeMap<Name, Table>,
    /// The columns of each table that the migration file fills.
    filled: BTreeMap<Name, BTreeSet<String>>,
    /// Those of them whose rules adjust, or leave out, what does not fit.
    adjusted: BTreeMap<Name, BTreeSet<String>>,
    nothing: BTreeSet<String>,
    names: Vec<Name>,
    plans: watch::Sender<Arc<Plan>>,
    asks: mpsc::Receiver<oneshot::Sender<bool>>,
    gauges: Arc<Gauges>,
    stop: Stop,
    facts: Option<Facts>,
    /// The catalogue that belongs to these.
    catalog: Catalog,
    looked: Option<Instant>,
    /// What is still to be written down of the last change.
    told: Vec<String>,
    to_identify: bool,
    to_retry: bool,
    /// Why collections stand still, except for locks.
    unfit: Vec<StandingRow>,
    /// Tables that somebody has locked, and who.
    locked: BTreeMap<Name, String>,
    /// What was last kept.
    kept: Option<Vec<StandingRow>>,
    connected: Option<(Looker, Control)>,
}

impl SchemaWatch {
    pub(crate) fn new(
        migration: Arc<Migration>,
        plan: &Arc<Plan>,
        gauges: Arc<Gauges>,
        stop: Stop,
    ) -> (Self, Schema) {
        let (plans, receiver) = watch::channel(Arc::clone(plan));
        let (asker, asks) = mpsc::channel(16);
        let name = |table: &Table| (table.schema.clone(), table.name.clone());
        let known = plan.tables.iter().filter(|spec| !spec.stands && !spec.is_ours());
        let known = known.map(|spec| (name(&spec.table), (*spec.table).clone())).collect();
        let mut filled: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
        let mut adjusted: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
        for rule in migration.collections.iter().flat_map(|collection| &collection.tables) {
            let schema = rule.schema.clone().unwrap_or_else(|| migration.target.schema.clone());
            let name = (schema, rule.into.value.clone());
            let columns = rule.columns.iter().map(|column| column.name.value.clone());
            filled.entry(name.clone()).or_default().extend(columns);
            let adjusts = |column: &&Column| column.policies.invalid != InvalidPolicy::Reject;
            let columns = rule.columns.iter().filter(adjusts).map(|column| column.name.value.clone());
            adjusted.entry(name).or_default().extend(columns);
        }
        let names = plan.tables.iter().filter(|spec| !spec.is_ours());
        let names: BTreeSet<Name> = names.map(|spec| name(&spec.table)).collect();
        let watch = Self {
            target: migration.target.uri.clone(),
            migration,
            known,
            filled,
            adjusted,
            nothing: BTreeSet::new(),
            names: names.into_iter().collect(),
            plans,
            asks,
            gauges,
            stop,
            facts: None,
            catalog: Catalog::default(),
            looked: None,
            told: Vec::new(),
            to_identify: false,
            to_retry: false,
            unfit: Vec::new(),
            locked: BTreeMap::new(),
            kept: None,
            connected: None,
        };
        (watch, Schema { plans: receiver, asks: asker })
    }

    /// Works until it is to stop.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                biased;
                () = self.stop.wait() => return Ok(()),
                asked = self.asks.recv() => asked,
                _ = ticks.tick() => None,
            };
            let mut answers: Vec<_> = asked.into_iter().collect();
            while let Ok(more) = self.asks.try_recv() {
                answers.push(more);
            }
            let mut stop = self.stop.clone();
            let looked = tokio::select! {
                biased;
                () = stop.wait() => return Ok(()),
                looked = self.look(!answers.is_empty()) => looked,
            };
            let trouble = looked.as_ref().err().filter(|error| error.kind != Kind::Contention);
            let trouble = trouble.map(|error| format!("the target's tables cannot be looked at ({error})"));
            self.gauges.board.set(Place::Tables, trouble);
            let failed = looked.is_err();
            if let Err(error) = looked {
                tracing::debug!(%error, "the target's tables could not be looked at");
                let pause = if error.kind == Kind::Contention { EVERY } else { AWAY };
                if !self.stop.sleep(pause).await {
                    return Ok(());
                }
            }
            // Who is not told that it was looked tries again, so only after the pause.
            for answer in answers {
                // Who has asked may have been told to stop.
                let _ = answer.send(!failed);
            }
        }
    }

    async fn look(&mut self, asked: bool) -> Result<()> {
        let (looker, mut control) = match self.connected.take() {
            Some(connected) => connected,
            None => (Looker::open(&self.target).await?, Control::open(&self.target).await?),
        };
        let due =
            asked || self.to_identify || self.looked.is_none_or(|looked| looked.elapsed() >= TABLES_EVERY);
        // Locks first: the catalogue of a table that somebody has locked cannot be read.
        self.look_at_locks(&looker).await?;
        if due {
            let looked = self.look_at_tables(&looker, &mut control).await;
            if let Err(error) = looked {
                // One that nobody waits for yet.
                self.keep(&control).await?;
                self.connected = (error.kind == Kind::Contention).then_some((looker, control));
                return Err(error);
            }
            self.looked = Some(Instant::now());
        }
        self.keep(&control).await?;
        if due {
            let standing: Vec<&str> = self.kept.iter().flatten().map(|row| row.collection.as_str()).collect();
            control.release(&self.migration.name, &standing).await?;
        }
        self.connected = Some((looker, control));
        Ok(())
    }

    async fn look_at_tables(&mut self, looker: &Looker, control: &mut Control) -> Result<()> {
        let facts = looker.facts(&self.names).await?;
        if let Some(before) = self.facts.as_ref().filter(|before| self.to_identify && **before != facts) {
            // What was written until now was written to the tables as they were.
            self.identify(before, control).await?;
        }
        let before = self.facts.as_ref();
        if before != Some(&facts) {
            let catalog = self.read(looker).await?;
            if let Some(before) = before {
                let told = self.tell(before, &facts, &catalog);
                told.iter().for_each(|text| tracing::warn!("{text}"));
                self.told.extend(told);
                // What was refused because of the table as it was is worth another try.
                self.to_retry = true;
            }
            self.facts = Some(facts.clone());
            self.compile(&catalog);
            self.catalog = catalog;
            self.to_identify = true;
        }
        // What follows is done again until it is done, whatever happens to the connection meanwhile.
        if self.to_identify {
            self.to_identify = !self.identify(&facts, control).await?;
        }
        while let Some(text) = self.told.first() {
            control.schema_changed(&self.migration.name, text).await?;
            self.told.remove(0);
        }
        if self.to_retry {
            control.retry_now(&self.migration.name).await?;
            self.to_retry = false;
        }
        Ok(())
    }

    /// The catalogue. Of tables that are locked it is what was known before: their part cannot be read now.
    async fn read(&self, looker: &Looker) -> Result<Catalog> {
        let free = |name: &&Name| !self.locked.contains_key(*name);
        let names: Vec<Name> = self.names.iter().filter(free).cloned().collect();
        let mut catalog = looker.catalog(&names).await?;
        for name in self.locked.keys() {
            if let Some(table) = self.catalog.tables.get(name) {
                catalog.tables.insert(name.clone(), table.clone());
            }
        }
        Ok(catalog)
    }

    /// Has collections copied again whose tables have lost what was written to them. True if what the tables are is kept.
    async fn identify(&self, facts: &Facts, control: &mut Control) -> Result<bool> {
        let plan = Arc::clone(&self.plans.borrow());
        let mut found: BTreeMap<Name, (TableIdentity, Vec<&str>)> = BTreeMap::new();
        for collection in plan.collections.iter().filter(|collection| !collection.stands) {
            for spec in collection.tables.iter().map(|table| plan.written(*table)) {
                let name = (spec.table.schema.clone(), spec.table.name.clone());
                let Some(facts) = facts.get(&name) else { continue };
                let Some(oid) = oid_of(facts) else { continue };
                let columns = spec.columns.iter().filter_map(|at| {
                    let column = &spec.table.columns[*at];
                    Some((column.name.clone(), number_of(facts, &column.name)?, column.kind.name.clone()))
                });
                let none = || (TableIdentity { oid, columns: Vec::new() }, Vec::new());
                let (identity, collections) = found.entry(name).or_insert_with(none);
                identity.columns.extend(columns);
                identity.columns.sort();
                identity.columns.dedup();
                collections.push(&collection.name);
            }
        }
        let migration = &self.migration.name;
        // Of what stands still it is looked at when it goes on.
        let mut kept = plan.collections.iter().all(|collection| !collection.stands);
        for ((schema, table), (now, collections)) in found {
            let name = (schema.as_str(), table.as_str());
            let before = control.table_identity(migration, name).await?;
            if before.as_ref() == Some(&now) {
                continue;
            }
            let full = format!("{schema}.{table}");
            let adjusted = self.adjusted.get(&(schema.clone(), table.clone())).unwrap_or(&self.nothing);
            let lost = before.as_ref().and_then(|before| drift::lost(&full, before, &now, adjusted));
            let recopies = lost.iter().flat_map(|text| {
                collections.iter().map(move |collection| ((*collection).to_owned(), text.clone()))
            });
            let recopies: Vec<_> = recopies.collect();
            // Otherwise another process was first, or the migration has not begun.
            kept &= control.keep_identity(migration, name, before.as_ref(), &now, &recopies).await?;
        }
        Ok(kept)
    }

    /// What has changed, in words.
    fn tell(&self, before: &Facts, now: &Facts, catalog: &Catalog) -> Vec<String> {
        let mut told = Vec::new();
        let none = BTreeSet::new();
        for name in &self.names {
            let (old, new) = (before.get(name).unwrap_or(&none), now.get(name).unwrap_or(&none));
            let constraints = |of: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> {
                let gone = of.difference(other).filter_map(|fact| fact.strip_prefix("constraint "));
                gone.map(str::to_owned).collect()
            };
            let table = format!("{}.{}", name.0, name.1);
            let known = self.known.get(name);
            let changes = known.map(|known| {
                drift::changes(known, catalog.tables.get(name), self.filled.get(name).unwrap_or(&none))
            });
            if old != new {
                let changes = changes.into_iter().flatten();
                told.extend(changes.map(|change| format!("{}; to undo it: {}", change.text, change.remedy)));
                told.extend(
                    constraints(new, old).into_iter().map(|constraint| {
                        format!("{table} has a new constraint, {constraint}; documents that violate it become dead letters")
                    }),
                );
                told.extend(
                    constraints(old, new)
                        .into_iter()
                        .map(|constraint| format!("{table} has lost its constraint {constraint}")),
                );
            }
        }
        told
    }

    fn compile(&mut self, catalog: &Catalog) {
        let before = Arc::clone(&self.plans.borrow());
        let (mut plan, mistakes) = follow(&self.migration, catalog, Some(&before));
        let unfit = mistakes.iter().map(|(index, mistake)| self.why(&before, *index, mistake, catalog));
        self.unfit = unfit.collect();
        for spec in plan.tables.iter().filter(|spec| !spec.stands && !spec.is_ours()) {
            let name = (spec.table.schema.clone(), spec.table.name.clone());
            self.known.insert(name, (*spec.table).clone());
        }
        self.set_still(&mut plan);
        self.publish(&before, plan);
    }

    fn why(&self, plan: &Plan, index: usize, mistake: &Diagnostic, catalog: &Catalog) -> StandingRow {
        let collection = &plan.collections[index];
        let tables = collection.tables.iter().map(|place| {
            let spec = plan.written(*place);
            let name = (spec.table.schema.clone(), spec.table.name.clone());
            let filled = self.filled.get(&name).unwrap_or(&self.nothing);
            (self.known.get(&name).unwrap_or(&spec.table), catalog.tables.get(&name), filled)
        });
        let other = (mistake.message.clone(), mistake.help.clone().unwrap_or_default());
        drift::standing(&collection.name, tables, other)
    }

    /// Locked tables, and what refers to them, stand still too: Postgres looks at both sides of a foreign key.
    fn set_still(&self, plan: &mut Plan) {
        if self.locked.is_empty() {
            return;
        }
        let mut still = Vec::new();
        for (index, collection) in plan.collections.iter().enumerate() {
            if collection.tables.iter().any(|table| self.locks(plan, *table).is_some()) {
                still.push(index);
            }
        }
        plan.stand(&still);
    }

    /// The lock that keeps a table from being written.
    fn locks(&self, plan: &Plan, table: usize) -> Option<(&Name, &String)> {
        let spec = plan.written(table);
        let name = |spec: &Table| (spec.schema.clone(), spec.name.clone());
        let own = name(&spec.table);
        self.locked.iter().find(|(locked, _)| {
            let refers = |from: &Table, to: &Name| from.foreign_keys.iter().any(|key| key.table == *to);
            let other = plan.tables.iter().find(|other| name(&other.table) == **locked);
            own == **locked
                || refers(&spec.table, locked)
                || other.is_some_and(|other| refers(&other.table, &own))
        })
    }

    fn publish(&self, before: &Plan, plan: Plan) {
        if is_other(before, &plan) {
            self.plans.send_replace(Arc::new(plan));
        }
    }

    async fn look_at_locks(&mut self, looker: &Looker) -> Result<()> {
        let mut changed = false;
        for name in self.locked.keys().cloned().collect::<Vec<_>>() {
            if looker.is_free(&name).await? {
                self.locked.remove(&name);
                changed = true;
            }
        }
        let blocked = looker.blocked().await?;
        let rows = blocked.iter().find(|blocked| blocked.table.is_none());
        let waits = rows.map(|row| format!("waiting for a lock on a row, held by {}", row.holder));
        self.gauges.board.set(Place::Lock, waits);
        let mut wait = Vec::new();
        for Blocked { pid, table, holder, waited_ms } in blocked {
            let Some(table) = table.filter(|table| self.names.contains(table)) else { continue };
            changed |= self.locked.insert(table, holder.clone()).as_ref() != Some(&holder);
            if waited_ms >= CANCEL_MS {
                wait.push(pid);
            }
        }
        if changed {
            // As it was read before: the catalogue of a table that is locked cannot be read.
            let catalog = std::mem::take(&mut self.catalog);
            self.compile(&catalog);
            self.catalog = catalog;
        }
        // Only now: a lane that is woken finds the plan in which the table stands still.
        for pid in wait {
            looker.cancel(pid).await?;
        }
        Ok(())
    }

    /// Writes down what stands still.
    async fn keep(&mut self, control: &Control) -> Result<()> {
        let plan = Arc::clone(&self.plans.borrow());
        let mut rows = self.unfit.clone();
        for (index, collection) in plan.collections.iter().enumerate() {
            let mut tables = collection.tables.iter();
            let known = rows.iter().any(|row| row.collection == plan.collections[index].name);
            if !known && let Some((table, holder)) = tables.find_map(|table| self.locks(&plan, *table)) {
                rows.push(drift::locked(&collection.name, &format!("{}.{}", table.0, table.1), holder));
            }
        }
        if self.kept.as_ref() != Some(&rows) {
            control.stands(&self.migration.name, &rows).await?;
            let before = self.kept.take().unwrap_or_default();
            for row in rows.iter().filter(|row| !before.contains(row)) {
                tracing::warn!(
                    collection = row.collection,
                    remedy = row.remedy,
                    "{}: its documents wait, the others go on",
                    row.text
                );
            }
            for row in before.iter().filter(|old| rows.iter().all(|row| row.collection != old.collection)) {
                tracing::info!(collection = row.collection, "{} can be written again", row.table);
            }
            self.kept = Some(rows);
        }
        Ok(())
    }
}

/// Whether a lane has anything to do about it.
fn is_other(before: &Plan, now: &Plan) -> bool {
    let stands = |plan: &Plan| plan.collections.iter().map(|one| one.stands).collect::<Vec<_>>();
    let same = |old: &Table, new: &Table| {
        // The planner's estimate is nothing to us.
        *old == Table { estimated_rows: old.estimated_rows, ..new.clone() }
    };
    let tables = before.tables.iter().zip(now.tables.iter());
    stands(before) != stands(now)
        || tables.into_iter().any(|(old, new)| old.stands != new.stands || !same(&old.table, &new.table))
}

/// A plan for a start while tables stand still: as at the last one, if the control store says that just these collections do.
pub(crate) async fn plan_with_standing(migration: &Migration, names: &[Name]) -> Result<Option<Plan>> {
    let Some(control) = Control::peek(&migration.target.uri).await? else { return Ok(None) };
    let standing = control.standing(&migration.name).await?;
    if standing.is_empty() {
        return Ok(None);
    }
    let catalog = Looker::open(&migration.target.uri).await?.catalog(names).await?;
    let (plan, _) = follow(migration, &catalog, None);
    let mut still = plan.collections.iter().filter(|collection| collection.stands);
    let noted = still.all(|one| standing.iter().any(|row| row.collection == one.name));
    let others = plan.collections.iter().any(|collection| !collection.stands);
    Ok((noted && others).then_some(plan))
}
