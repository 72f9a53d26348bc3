//! Rows that no document makes.
//!
//! Candidates are rows whose keys the pass has not met. Then everything is read once more, and whatever a document makes is no candidate any more. Nor
//! is any row that belongs to a document that changed since before the candidates were looked for: such rows are written anew anyway. So what
//! is left belongs to no document, or to one that was at rest all the time and does not make it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use slackwater_connectors::postgres::control::proofs::FindingRow;
use slackwater_connectors::postgres::target::compare::Lists;
use slackwater_topics::{CollectionId, Event, Key};

use super::pass::{What, events, strike};
use super::reached::present;
use super::settle::of_letter;
use super::watch::Watch;
use super::worker::{Worker, deleted};
use super::{Cut, Verifier};
use crate::ops::persist::{Patience, persist};
use crate::ops::store::ask;

/// Dead letters that are read at once, and documents that are looked up at once.
const AT_ONCE: i64 = 2_000;
const NO_FOLLOWER: &str = "the target does not follow its source";

/// A row: its table, as a place among those that are searched, and its key.
type Row = (usize, Vec<String>);

impl Verifier<'_> {
    /// Looks for them. Gives the tables that could not be searched, with the reason.
    pub(super) async fn find_extra(&mut self, worker: &mut Worker) -> Result<Vec<(String, String)>, Cut> {
        if self.wanted.sample.is_some() {
            return Ok(Vec::new());
        }
        let (tables, mut not_searched) = self.searchable();
        let mut watches = HashMap::new();
        for named in self.sources.clone() {
            let now = persist(&self.stop, || present(&named.source)).await?;
            let of_source = self.collections.iter().map(|id| (*id, self.plan.collection(*id)));
            let watched: Vec<_> = of_source
                .filter(|(_, plan)| plan.source == named.name)
                .map(|(id, plan)| (id, plan.collection.clone()))
                .collect();
            if !watched.is_empty()
                && let Some(watch) = Watch::begin(&named.source, now.moment, watched, None)
            {
                watches.insert(named.name.clone(), watch);
            }
            if !self.reached(&named.name, now).await? {
                not_searched.extend(tables.iter().map(|table| (self.name(table[0]), NO_FOLLOWER.to_owned())));
                return Ok(not_searched);
            }
        }
        // One that was cut off may have found some.
        let names: Vec<(String, String)> = tables
            .iter()
            // Parts by their own name: what is found of the rows that they make is found elsewhere.
            .map(|table| &self.plan.tables[table[0]].table)
            .map(|table| (table.schema.clone(), table.name.clone()))
            .collect();
        let id = self.id;
        ask!(self.store, control => control.forget_findings(id, "extra", &names))?;
        let lists = Lists(self.id);
        let mut patience = Patience::new(&self.stop);
        let counts = loop {
            match worker.comparer.find_extra(lists, &tables).await {
                Ok(counts) => break counts,
                Err(error) => self.again(worker, &mut patience, error).await?,
            }
        };
        let tables: Vec<Vec<usize>> =
            tables.into_iter().zip(counts).filter(|(_, count)| *count > 0).map(|(table, _)| table).collect();
        if tables.is_empty() {
            return Ok(not_searched);
        }
        let left = match self.confirm(worker, lists, &tables, watches).await? {
            Ok(left) => left,
            Err(why) => {
                not_searched.extend(tables.iter().map(|table| (self.name(table[0]), why.to_owned())));
                return Ok(not_searched);
            }
        };
        let found: Vec<FindingRow> = left
            .into_iter()
            .map(|(table, row_key)| {
                let of = &self.plan.tables[tables[table][0]].table;
                let table = Some((of.schema.clone(), of.name.clone()));
                FindingRow { kind: "extra".to_owned(), table, row_key, ..FindingRow::default() }
            })
            .collect();
        ask!(self.store, control => control.settle_suspects(id, &[], &found))?;
        Ok(not_searched)
    }

    fn name(&self, spec: usize) -> String {
        let table = &self.plan.written(spec).table;
        format!("{}.{}", table.schema, table.name)
    }

    /// The tables, each as the specifications that fill it, all of whose collections were read; and those of which that is not so.
    fn searchable(&self) -> (Vec<Vec<usize>>, Vec<(String, String)>) {
        let mut tables: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
        for (at, spec) in self
            .plan
            .tables
            .iter()
            .enumerate()
            .filter(|(at, spec)| spec.whole().is_none() && !self.plan.is_history(*at))
        {
            tables.entry((&spec.table.schema, &spec.table.name)).or_default().push(at);
        }
        let fills = |id: &CollectionId, specs: &[usize]| {
            self.plan.collection(*id).tables.iter().any(|table| specs.contains(table))
        };
        let (mut searched, mut not) = (Vec::new(), Vec::new());
        for specs in tables.into_values() {
            let missed = self.plan.ids().find(|id| !self.collections.contains(id) && fills(id, &specs));
            match missed {
                None => searched.push(specs),
                Some(_) if !self.collections.iter().any(|id| fills(id, &specs)) => {}
                Some(missed) => {
                    let why = format!("{} fills it too, and was not read", self.plan.collection(missed).name);
                    not.push((self.name(specs[0]), why));
                }
            }
        }
        (searched, not)
    }

    /// What of the candidates no document makes.
    async fn confirm(
        &mut self,
        worker: &mut Worker,
        lists: Lists,
        tables: &[Vec<usize>],
        mut watches: HashMap<String, Watch>,
    ) -> Result<std::result::Result<HashSet<Row>, &'static str>, Cut> {
        let all: HashSet<usize> = tables.iter().flatten().copied().collect();
        let fills =
            |id: &&CollectionId| self.plan.collection(**id).tables.iter().any(|table| all.contains(table));
        let collections: Vec<CollectionId> = self.collections.iter().filter(fills).copied().collect();
        let id = self.id;
        let names: HashSet<String> =
            collections.iter().map(|id| self.plan.collection(*id).name.clone()).collect();
        let mut ranges = ask!(self.store, control => control.proof_ranges(id, true))?;
        ranges.retain(|range| names.contains(&range.collection));
        self.read(ranges, What::Strike(Arc::new(tables.to_vec()))).await?;
        self.strike_letters(worker, lists, tables).await?;
        self.strike_kept(worker, lists, tables, &collections).await?;
        let mut changed = Vec::new();
        for named in self.sources.clone() {
            let now = persist(&self.stop, || present(&named.source)).await?;
            if !self.reached(&named.name, now).await? {
                return Ok(Err(NO_FOLLOWER));
            }
            let Some(watch) = watches.get_mut(&named.name) else { continue };
            let heard = watch.through(now.moment).await.is_ok();
            let Some(some) = watch.take().filter(|_| heard) else {
                return Ok(Err("what changes meanwhile could not be watched"));
            };
            changed.extend(some);
        }
        self.strike_changed(worker, lists, tables, &changed).await?;
        // Once more by their ids alone, all at one moment: a row is there and leaves the list, or is not there and leaves it too.
        let theirs: Vec<Event> =
            changed.into_iter().map(|(collection, key)| deleted(collection, key)).collect();
        let mut patience = Patience::new(&self.stop);
        let found = loop {
            match look(worker, lists, tables, &theirs).await {
                Ok(found) => break found,
                Err(error) => self.again(worker, &mut patience, error).await?,
            }
        };
        let rows = found.into_iter().enumerate();
        Ok(Ok(rows.flat_map(|(table, keys)| keys.into_iter().map(move |key| (table, key))).collect()))
    }

    /// Rows of documents in the dead letters are those of former versions. A document that has some is counted as one with a dead letter: one
    /// that is gone at its source was not met by the pass, and of one that is there only such a row may be wrong.
    async fn strike_letters(
        &mut self,
        worker: &mut Worker,
        lists: Lists,
        tables: &[Vec<usize>],
    ) -> Result<(), Cut> {
        let mut after = 0;
        loop {
            let name = &self.migration.name;
            let letters = ask!(self.store, control => control.dead_letters(name, None, after, AT_ONCE))?;
            let Some(last) = letters.last() else { return Ok(()) };
            after = last.id;
            let event = |letter: &slackwater_connectors::postgres::control::ledger::DeadLetterRow| {
                let collection = self.plan.id_of(&letter.letter.collection)?;
                let key = Key::from_bytes(&letter.letter.key);
                Some(deleted(collection, key))
            };
            let events: Vec<Event> = letters
                .iter()
                .filter(|letter| !crate::letters::is_of_record(&letter.letter))
                .filter_map(event)
                .collect();
            let mut had = BTreeSet::new();
            let mut patience = Patience::new(&self.stop);
            while let Err(error) = worker.strike_theirs(&events, lists, tables, &mut had).await {
                self.again(worker, &mut patience, error).await?;
            }
            let found: Vec<FindingRow> = had
                .into_iter()
                .map(|at| of_letter(&self.plan.collection(events[at].collection).name, &events[at].key))
                .collect();
            let id = self.id;
            ask!(self.store, control => control.keep_letters(id, &found))?;
        }
    }

    /// Rows of documents whose first version stands, whatever became of them.
    async fn strike_kept(
        &mut self,
        worker: &mut Worker,
        lists: Lists,
        tables: &[Vec<usize>],
        collections: &[CollectionId],
    ) -> Result<(), Cut> {
        let plan = Arc::clone(&self.plan);
        for id in collections.iter().filter(|id| plan.collection(**id).append_only) {
            let (migration, name) = (&plan.migration, &plan.collection(*id).name);
            let keys = ask!(self.store, control => control.kept_documents(migration, name))?;
            for keys in keys.chunks(AT_ONCE as usize) {
                let theirs: Vec<Event> = keys.iter().map(|key| deleted(*id, Key::from_bytes(key))).collect();
                strike(worker, &self.stop, &theirs, lists, (tables, true)).await?;
            }
        }
        Ok(())
    }

    async fn strike_changed(
        &mut self,
        worker: &mut Worker,
        lists: Lists,
        tables: &[Vec<usize>],
        changed: &[(CollectionId, Key)],
    ) -> Result<(), Cut> {
        let mut by_collection: BTreeMap<CollectionId, Vec<Key>> = BTreeMap::new();
        for (collection, key) in changed {
            by_collection.entry(*collection).or_default().push(key.clone());
        }
        for (collection, keys) in by_collection {
            let plan = Arc::clone(&self.plan);
            let plan = plan.collection(collection);
            let source = self.source(&plan.source).clone();
            for keys in keys.chunks(AT_ONCE as usize) {
                let now = persist(&self.stop, || source.now()).await?;
                let found = persist(&self.stop, || source.look_up(&plan.collection, keys, now)).await?.found;
                strike(worker, &self.stop, &events(collection, found), lists, (tables, true)).await?;
            }
        }
        Ok(())
    }
}

/// What is left at one moment, less the rows of these documents.
async fn look(
    worker: &mut Worker,
    lists: Lists,
    tables: &[Vec<usize>],
    theirs: &[Event],
) -> slackwater_connectors::error::Result<Vec<Vec<Vec<String>>>> {
    worker.comparer.begin_left(lists, tables).await?;
    for some in theirs.chunks(AT_ONCE as usize) {
        worker.strike(some, lists, tables, true).await?;
    }
    worker.comparer.left(lists, tables).await
}
