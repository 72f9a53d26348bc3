//! Writes a batch of which some reference is watched, or from which rows go that others may refer to.
//!
//! **Invariant**: when a transaction ends, each row of the mapping is either in its table with all that it refers to, or it waits, and
//! for each thing that it lacks there is an entry. Whoever brings a thing looks at the entries in the same transaction. Transactions
//! that could miss each other hold a lock one after the other. `docs/design/references.md` has the reasons.
//!
//! **Crash**: all of it is the transaction of the rows and the lane's progress.

use std::collections::{BTreeMap, BTreeSet};

use postgres_types::ToSql;

use super::Sink;
use super::prepared::Use;
use crate::error::{Error, Kind, Result};
use crate::postgres::error::{WAITING, explain};
use crate::postgres::progress::{Advance, Counts, Notes, TableCounts};
use crate::postgres::target::parameter::{rows, values};
use crate::postgres::target::pipeline::{Call, Count, Parameters, send};
use crate::postgres::target::references::{Held, Key, circle};
use crate::postgres::target::rows::{TableWrite, WriteSet};
use crate::postgres::target::statements::quote;
use crate::postgres::target::waiting::{What, Writer};

/// One statement takes no more keys than this.
const MOST_KEYS: usize = 5_000;

/// Rows that are looked at for a circle; beyond that they wait for the next thing that comes.
const MOST_HELD: usize = 50_000;

/// After one that fails, no more batches than this are looked at closely before the plain way is tried again.
const MOST_DOUBT: u32 = 31;

/// A statement of this module; the numbers are those of a spec, a table or a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Waiting {
    Guard(usize),
    Retry(usize),
    Arrive(usize, usize),
    ArriveByKey(usize),
    Frees(usize, usize),
    FreesByKey(usize),
    Rivals(usize),
    LetGo(usize),
    Lock(usize),
    Ask(usize),
    Forget(usize),
    ForgetOwned(usize),
    ForgetMoved(usize),
    KeysOfDeletes(usize),
    KeysOfMoved(usize),
    KeysOfOwned(usize),
    Probe(usize),
    Wants(usize),
    ClaimedByAnother(usize),
    ClaimsLeft(usize),
    RelocateClaimed(usize),
    Claim(usize),
    Disclaim(usize),
}

/// What a statement says of one row, or counts. `place`: of which of the statement's tables.
pub(super) struct Answer {
    pub(super) what: What,
    pub(super) count: u64,
    pub(super) key: Option<Key>,
    place: usize,
}

/// What is still to be done in the transaction, and what was done.
pub(super) struct Work {
    pub(super) counts: Vec<TableCounts>,
    /// Waiting rows to be tried again, by table.
    ready: BTreeMap<usize, BTreeSet<Key>>,
    /// Rows that are held since this transaction and may wait only for each other.
    pub(super) held: BTreeSet<Held>,
}

impl Sink {
    /// True where rows of these tables have to be merged, never copied: something of them is watched, or written as text.
    pub fn merges(&self, specs: &[usize]) -> bool {
        let merges = |spec: &usize| {
            let one = &self.specs[*spec];
            one.shape.is_some() || one.is_part() || self.is_watched(self.references.of_spec[*spec])
        };
        specs.iter().any(merges)
    }

    pub(super) fn is_watched(&self, table: usize) -> bool {
        self.numbers.tables.get(table).is_some_and(Option::is_some)
    }

    /// True where the batch cannot be written by the plain statements.
    pub(super) fn needs_care(&self, writes: &WriteSet) -> bool {
        writes.tables.iter().enumerate().any(|(spec, write)| {
            let table = self.references.of_spec[spec];
            let plain = !self.specs[spec].is_part() && !self.is_watched(table);
            !write.is_empty() && (!plain || (removes(write) && self.cascades_from(table)))
        })
    }

    /// Writes a batch of watched tables the plain way, in the hope that nothing waits and nothing is missing. None if that is not so, or
    /// not likely: then nothing is written.
    pub(super) async fn hope(
        &mut self,
        advance: &Advance,
        writes: &WriteSet,
        notes: &Notes,
    ) -> Option<Result<Counts>> {
        if self.claims(writes) || self.has_parts(writes) {
            return None;
        }
        let (step, left) = self.doubt;
        if left > 0 {
            self.doubt = (step, left - 1);
            return None;
        }
        let touched = |table: usize| {
            let writes = writes.tables.iter().enumerate();
            writes
                .into_iter()
                .any(|(spec, write)| self.references.of_spec[spec] == table && !write.is_empty())
        };
        let cascades = writes
            .tables
            .iter()
            .enumerate()
            .any(|(spec, write)| removes(write) && self.cascades_from(self.references.of_spec[spec]));
        if cascades {
            return None;
        }
        let tables: Vec<usize> = (0..self.references.tables.len()).filter(|table| touched(*table)).collect();
        let into = tables.iter().flat_map(|table| self.references.refer_to(*table));
        let values = tables.iter().flat_map(|table| self.references.uniques_of(*table));
        let mut waited: Vec<i32> = into.filter_map(|place| self.numbers.references[place]).collect();
        waited.extend(values.filter_map(|place| self.numbers.uniques[place]));
        let relations: Vec<i32> = tables.iter().filter_map(|table| self.numbers.tables[*table]).collect();
        if let Err(error) = self.prepare(Use::Idle).await {
            return Some(Err(error));
        }
        let parameters: Parameters<'static> =
            vec![Box::new(self.migration.clone()), Box::new(waited), Box::new(relations)];
        let idle = match self.get(Use::Idle) {
            Ok(statement) => Call::prepared("looking what waits", statement, parameters),
            Err(error) => return Some(Err(error)),
        };
        match self.apply_at_once(advance, writes, notes, Some(idle)).await {
            Err(error) if self.disappoints(&error) => {
                let step = (step * 2 + 1).min(MOST_DOUBT);
                self.doubt = (step, step);
                None
            }
            outcome => {
                self.doubt = (0, 0);
                Some(outcome)
            }
        }
    }

    /// Something waits, or is missing, as is known to happen.
    fn disappoints(&self, error: &Error) -> bool {
        let known = matches!(error.code.as_deref(), Some(WAITING | "23503" | "23505" | "23P01"));
        known && !self.teaches(error)
    }

    /// Postgres would take away or change rows that refer to rows of this table.
    fn cascades_from(&self, table: usize) -> bool {
        self.references.refer_to(table).any(|place| self.references.all[place].cascades)
    }

    /// Rows of this table may be referred to, or wait.
    pub(super) fn needs_careful_sweep(&self, spec: usize) -> bool {
        let table = self.references.of_spec[spec];
        self.is_watched(table) || self.references.refer_to(table).next().is_some()
    }

    /// See [`Sink::sweep`]. What refers to the rows that go waits from then on.
    pub(super) async fn sweep_watched(
        &mut self,
        spec: usize,
        constants: &[(String, String)],
        but: &str,
    ) -> Result<u64> {
        self.prepare(Use::Hold).await?;
        self.prepare(Use::Aware).await?;
        let relation = self.seen_relation(spec).await?;
        self.dirty = true;
        let outcome = self.sweep_inside(spec, &relation, constants, but).await;
        if outcome.is_err() {
            self.give_up().await;
        }
        self.dirty = false;
        outcome
    }

    async fn sweep_inside(
        &mut self,
        spec: usize,
        relation: &str,
        constants: &[(String, String)],
        but: &str,
    ) -> Result<u64> {
        let table = self.references.of_spec[spec];
        let lock = format!("LOCK TABLE slackwater.{} IN SHARE MODE", quote(relation));
        let calls = vec![
            Call::simple("beginning", super::BEGIN),
            Call::prepared("holding the lane", self.get(Use::Hold)?, self.identity()),
            self.aware()?,
        ];
        send(&self.client, calls).await?;
        if self.is_watched(table) {
            self.take_turn().await?;
        }
        send(&self.client, vec![Call::simple("waiting for writers", lock)]).await?;
        let names: Vec<&str> = constants.iter().map(|(column, _)| column.as_str()).collect();
        let values: Vec<&str> = constants.iter().map(|(_, value)| value.as_str()).collect();
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        let writer = Writer { references: &self.references, numbers: &self.numbers };
        let (keys, forget) = (
            writer.keys_of_unseen(&self.specs[spec], table, relation, &names) + but,
            writer.forget_unseen(&self.specs[spec], table, relation, &names),
        );
        let doing = || self.doing("sweeping", spec);
        let fail = |error: tokio_postgres::Error| explain(doing(), &error);
        let found = answers(&self.client.query(&keys, &values).await.map_err(fail)?, doing)?;
        if self.is_watched(table) {
            self.client.execute(&forget, &values).await.map_err(fail)?;
        }
        if self.specs[spec].claimed {
            self.client.execute(&writer.disclaim_unseen(table, relation), &[]).await.map_err(fail)?;
        }
        let mut work = Work::new(self.specs.iter().map(|_| TableCounts::default()).collect());
        let mut keys = found.into_iter().filter_map(|answer| answer.key);
        loop {
            let part: BTreeSet<Key> = keys.by_ref().take(MOST_KEYS).collect();
            if part.is_empty() {
                break;
            }
            self.remove(table, part.clone(), &mut work).await?;
            if self.is_watched(table) {
                // One that goes may have referred to another that goes.
                self.by_keys(Waiting::Forget(table), part).await?;
            }
        }
        // What had to go for a value may have left it to another row.
        self.settle(&mut work).await?;
        send(&self.client, vec![Call::simple("committing", super::COMMIT)]).await?;
        Ok(work.counts.iter().map(|counts| counts.deleted).sum())
    }

    /// Writes the batch inside the transaction that is open.
    pub(super) async fn write_watched(&mut self, writes: &[&TableWrite], seen: &[usize]) -> Result<Counts> {
        let received =
            |write: &&TableWrite| TableCounts { received: write.rows.len() as u64, ..TableCounts::default() };
        let mut work = Work::new(writes.iter().map(received).collect());
        let touched =
            |spec: usize| !writes[spec].is_empty() && self.is_watched(self.references.of_spec[spec]);
        if (0..writes.len()).any(touched) {
            self.take_turn().await?;
        }
        self.note_seen(writes, seen).await?;
        self.plan_by_keys(true).await?;
        for (spec, write) in writes.iter().enumerate().rev() {
            if removes(write) {
                self.delete_watched(spec, write, &mut work).await?;
            }
        }
        for (spec, write) in writes.iter().enumerate() {
            if !write.rows.is_empty() {
                self.upsert_watched(spec, write, &mut work).await?;
            }
        }
        self.settle(&mut work).await?;
        Ok(Counts::of(work.counts))
    }

    /// Writes all that can be in its table now.
    async fn settle(&mut self, work: &mut Work) -> Result<()> {
        loop {
            self.retry_all(work).await?;
            if !self.place_circles(work).await? {
                return Ok(());
            }
        }
    }

    pub(super) async fn note_seen(&mut self, writes: &[&TableWrite], seen: &[usize]) -> Result<()> {
        for spec in seen {
            if let Some(write) = writes.get(*spec).filter(|write| !write.rows.is_empty()) {
                self.prepare(Use::NoteSeen(*spec)).await?;
                let statement = self.get(Use::NoteSeen(*spec))?;
                let seen = vec![rows(statement, 0, &write.rows)];
                let call = Call::prepared(self.doing("noting rows of", *spec), statement, seen);
                send(&self.client, vec![call]).await?;
            }
        }
        Ok(())
    }

    async fn delete_watched(&mut self, spec: usize, write: &TableWrite, work: &mut Work) -> Result<()> {
        let table = self.references.of_spec[spec];
        if !self.is_watched(table) && !self.cascades_from(table) {
            let mut calls = Vec::new();
            self.prepare_delete(spec, write).await?;
            self.push_delete(&mut calls, spec, write)?;
            for (count, rows) in send(&self.client, calls).await? {
                if count != Count::Nothing {
                    work.counts[spec].deleted += rows;
                }
            }
            return Ok(());
        }
        let mut keys = BTreeSet::new();
        if !write.owners.is_empty() {
            let what = Use::Waiting(Waiting::KeysOfOwned(spec));
            self.prepare(what).await?;
            let statement = self.get(what)?;
            let owned = self
                .run(what, &[&*values(statement, 0, &write.owners), &*rows(statement, 1, &write.rows)])
                .await?;
            keys.extend(owned.into_iter().filter_map(|answer| answer.key));
        }
        if write.deletes.iter().any(|values| !values.is_empty()) {
            let what = Use::Waiting(Waiting::KeysOfDeletes(spec));
            self.prepare(what).await?;
            let statement = self.get(what)?;
            let parameters: Vec<_> = write
                .deletes
                .iter()
                .enumerate()
                .map(|(place, keys)| values(statement, place, keys))
                .collect();
            let parameters: Vec<&(dyn ToSql + Sync)> =
                parameters.iter().map(|parameter| &**parameter as &(dyn ToSql + Sync)).collect();
            keys.extend(self.run(what, &parameters).await?.into_iter().filter_map(|answer| answer.key));
        }
        self.remove(table, keys.clone(), work).await?;
        if self.is_watched(table) {
            self.by_keys(Waiting::Forget(table), keys).await?;
            if self.specs[spec].claimed {
                self.disclaim(spec, write).await?;
            }
            if !write.owners.is_empty() {
                let what = Use::Waiting(Waiting::ForgetOwned(spec));
                self.prepare(what).await?;
                let statement = self.get(what)?;
                self.run(what, &[&*values(statement, 0, &write.owners), &*rows(statement, 1, &write.rows)])
                    .await?;
            }
        }
        Ok(())
    }

    fn watched_values(&self, table: usize) -> Vec<usize> {
        self.references.uniques_of(table).filter(|place| self.numbers.uniques[*place].is_some()).collect()
    }

    async fn upsert_watched(&mut self, spec: usize, write: &TableWrite, work: &mut Work) -> Result<()> {
        let table = self.references.of_spec[spec];
        let watched = |place: usize| self.numbers.references[place].is_some();
        let (out, into) = (self.references.out_of(table).any(watched), self.references.refer_to(table));
        let into: Vec<usize> = into.filter(|place| watched(*place)).collect();
        let values: Vec<usize> = self.watched_values(table);
        if self.specs[spec].claimed {
            self.claim(spec, write, work).await?;
        }
        if self.relocates(spec, write) {
            self.let_move(spec, write, work).await?;
            self.prepare(Use::Relocate(spec)).await?;
            let statement = self.get(Use::Relocate(spec))?;
            let moved = vec![rows(statement, 0, &write.rows)];
            send(&self.client, vec![Call::prepared(self.doing("writing", spec), statement, moved)]).await?;
            if self.is_watched(table) {
                let what = Use::Waiting(Waiting::ForgetMoved(spec));
                self.prepare(what).await?;
                self.run(what, &[&*rows(self.get(what)?, 0, &write.rows)]).await?;
            }
        }
        for unique in &values {
            let what = Use::Waiting(Waiting::Frees(*unique, spec));
            self.prepare(what).await?;
            let freed = self.run(what, &[&*rows(self.get(what)?, 0, &write.rows)]).await?;
            work.ready.entry(table).or_default().extend(freed.into_iter().filter_map(|answer| answer.key));
        }
        if out || !values.is_empty() {
            let what = Use::Waiting(Waiting::Guard(spec));
            self.prepare(what).await?;
            let (mut leave, mut held) = (BTreeSet::new(), BTreeSet::new());
            for answer in self.run(what, &[&*rows(self.get(what)?, 0, &write.rows)]).await? {
                match (answer.what, answer.key) {
                    (What::Wrote, _) => work.counts[spec].upserted += answer.count,
                    (What::Leaves, Some(key)) => {
                        leave.insert(key);
                    }
                    (What::Ready, Some(key)) => {
                        work.ready.entry(table).or_default().insert(key);
                    }
                    (What::Held, Some(key)) => {
                        held.insert(key);
                    }
                    _ => {}
                }
            }
            self.remove(table, leave, work).await?;
            if self.references.tables[table].table.judges {
                self.probe(spec, write, held.clone()).await?;
            }
            if self.references.tables[table].circular {
                work.held.extend(held.into_iter().map(|key| (table, key)));
            }
        } else {
            let statement = self.get(Use::Upsert(spec))?;
            let written = vec![rows(statement, 0, &write.rows)];
            let call = Call::prepared(self.doing("writing", spec), statement, written);
            let answers = send(&self.client, vec![call]).await?;
            work.counts[spec].upserted += answers.iter().map(|(_, rows)| rows).sum::<u64>();
        }
        for reference in into {
            let what = Use::Waiting(Waiting::Arrive(reference, spec));
            self.prepare(what).await?;
            let arrived = self.run(what, &[&*rows(self.get(what)?, 0, &write.rows)]).await?;
            let child = self.references.all[reference].from;
            work.ready.entry(child).or_default().extend(arrived.into_iter().filter_map(|answer| answer.key));
        }
        Ok(())
    }

    /// Removes rows from their tables, and with them those that require them. All of it is in the table of waiting rows, or is
    /// forgotten by the caller.
    pub(super) async fn remove(&mut self, table: usize, keys: BTreeSet<Key>, work: &mut Work) -> Result<()> {
        let mut gone: BTreeMap<usize, BTreeSet<Key>> = BTreeMap::new();
        let mut open = vec![(table, keys)];
        self.plan_by_keys(false).await?;
        while let Some((table, keys)) = open.pop() {
            let known = gone.entry(table).or_default();
            let new: BTreeSet<Key> = keys.difference(known).cloned().collect();
            if new.is_empty() {
                continue;
            }
            known.extend(new.iter().cloned());
            let into: Vec<usize> = self.references.refer_to(table).collect();
            let unwatched = |place: &usize| {
                self.references.all[*place].cascades && self.numbers.references[*place].is_none()
            };
            if into.iter().any(unwatched) {
                self.by_keys(Waiting::Lock(table), new.clone()).await?;
            }
            for reference in into {
                let (child, cascades) =
                    (self.references.all[reference].from, self.references.all[reference].cascades);
                if self.numbers.references[reference].is_some() {
                    open.push((child, self.let_go(reference, new.clone(), work).await?));
                } else if cascades {
                    self.by_keys(Waiting::Ask(reference), new.clone()).await?;
                }
            }
        }
        self.plan_by_keys(true).await?;
        gone.retain(|_, keys| !keys.is_empty());
        for (table, keys) in &gone {
            for unique in self.watched_values(*table) {
                let freed = self.by_keys(Waiting::FreesByKey(unique), keys.clone()).await?;
                work.ready
                    .entry(*table)
                    .or_default()
                    .extend(freed.into_iter().filter_map(|answer| answer.key));
            }
        }
        let tables: Vec<usize> = gone.keys().copied().collect();
        let columns: Vec<Vec<String>> =
            gone.into_iter().flat_map(|(table, keys)| self.columns(table, keys)).collect();
        if tables.is_empty() {
            return Ok(());
        }
        for answer in self.run_together(false, &tables, &columns).await? {
            let spec = self.spec_of(tables[answer.place]);
            work.counts[spec].deleted += answer.count;
        }
        Ok(())
    }

    /// Tries waiting rows again, and what waits for those that come by it, until nothing more comes.
    async fn retry_all(&mut self, work: &mut Work) -> Result<()> {
        while let Some((table, keys)) = work.ready.pop_first() {
            let (mut placed, mut leave) = (BTreeSet::new(), BTreeSet::new());
            for answer in self.by_keys(Waiting::Retry(table), keys).await? {
                match (answer.what, &answer.key) {
                    (What::Leaves, Some(key)) => {
                        leave.insert(key.clone());
                    }
                    _ => self.take(table, answer, &mut placed, work),
                }
            }
            self.remove(table, leave, work).await?;
            self.arrived(table, placed, work).await?;
        }
        Ok(())
    }

    fn take(&self, table: usize, answer: Answer, placed: &mut BTreeSet<Key>, work: &mut Work) {
        match (answer.what, answer.key) {
            (What::Wrote, _) => work.counts[self.spec_of(table)].upserted += answer.count,
            (What::Placed, Some(key)) => {
                work.held.remove(&(table, key.clone()));
                placed.insert(key);
            }
            (What::Held, Some(key)) => {
                work.held.insert((table, key));
            }
            _ => {}
        }
    }

    /// Rows with these keys have come: what waits for them is to be tried again.
    async fn arrived(&mut self, table: usize, keys: BTreeSet<Key>, work: &mut Work) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let into: Vec<usize> = self
            .references
            .refer_to(table)
            .filter(|place| self.numbers.references[*place].is_some())
            .collect();
        for reference in into {
            let arrived = self.by_keys(Waiting::ArriveByKey(reference), keys.clone()).await?;
            let child = self.references.all[reference].from;
            let arrived: BTreeSet<Key> = arrived.into_iter().filter_map(|answer| answer.key).collect();
            if !arrived.is_empty() {
                work.ready.entry(child).or_default().extend(arrived);
            }
        }
        Ok(())
    }

    /// Writes held rows that wait only for each other. True if there were some.
    async fn place_circles(&mut self, work: &mut Work) -> Result<bool> {
        let mut open = std::mem::take(&mut work.held);
        if open.is_empty() {
            return Ok(false);
        }
        let mut wants: BTreeMap<Held, Vec<Held>> = BTreeMap::new();
        while !open.is_empty() && wants.len() < MOST_HELD {
            let mut by_table: BTreeMap<usize, BTreeSet<Key>> = BTreeMap::new();
            for (table, key) in std::mem::take(&mut open) {
                by_table.entry(table).or_default().insert(key);
            }
            for (table, keys) in by_table {
                for (reference, wanted, key) in self.wants(table, keys).await? {
                    let place = self.numbers.references.iter().position(|number| *number == Some(reference));
                    let Some(one) = place.map(|place| &self.references.all[place]) else {
                        // A value that another row has.
                        wants.entry((table, key)).or_default().push((table, Vec::new()));
                        continue;
                    };
                    // What is held outside the circle comes for a reason of its own, and whoever waits for it is tried again
                    // then. What does not name the key of its row cannot be followed. Both count as not there.
                    let tables = &self.references.tables;
                    let followed =
                        tables[one.to].circle == tables[table].circle && one.named == tables[one.to].key;
                    let target = (one.to, if followed { wanted } else { Vec::new() });
                    if followed && !wants.contains_key(&target) {
                        open.insert(target.clone());
                    }
                    wants.entry((table, key)).or_default().push(target);
                }
            }
            open.retain(|row| !wants.contains_key(row));
        }
        let by_table = loop {
            let set = circle(&wants);
            if set.is_empty() {
                return Ok(false);
            }
            let mut by_table: BTreeMap<usize, BTreeSet<Key>> = BTreeMap::new();
            for (table, key) in set {
                by_table.entry(table).or_default().insert(key);
            }
            // Of two that want the same value one comes. The other wants what is not there, and so does who needs it.
            let mut lose = Vec::new();
            for (table, keys) in &by_table {
                if !self.watched_values(*table).is_empty() {
                    let answers = self.by_keys(Waiting::Rivals(*table), keys.clone()).await?;
                    lose.extend(answers.into_iter().filter_map(|answer| Some((*table, answer.key?))));
                }
            }
            if lose.is_empty() {
                break by_table;
            }
            for row in lose {
                let nobody = (row.0, Vec::new());
                wants.entry(row).or_default().push(nobody);
            }
        };
        let tables: Vec<usize> = by_table.keys().copied().collect();
        let columns: Vec<Vec<String>> =
            by_table.into_iter().flat_map(|(table, keys)| self.columns(table, keys)).collect();
        let mut placed: BTreeMap<usize, BTreeSet<Key>> = BTreeMap::new();
        for answer in self.run_together(true, &tables, &columns).await? {
            let table = tables[answer.place];
            self.take(table, answer, placed.entry(table).or_default(), work);
        }
        for (table, keys) in placed {
            self.arrived(table, keys, work).await?;
        }
        Ok(true)
    }

    async fn wants(&mut self, table: usize, keys: BTreeSet<Key>) -> Result<Vec<(i32, Key, Key)>> {
        let required =
            |place: usize| self.references.all[place].required() && self.numbers.references[place].is_some();
        if !self.references.out_of(table).any(required) {
            return Ok(Vec::new());
        }
        let what = Use::Waiting(Waiting::Wants(table));
        self.prepare(what).await?;
        let columns = self.columns(table, keys);
        let columns: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as _).collect();
        let fail =
            |error: tokio_postgres::Error| explain("looking for rows that wait for each other", &error);
        let rows = self.client.query(self.get(what)?, &columns).await.map_err(fail)?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
            .collect::<std::result::Result<_, _>>()
            .map_err(fail)
    }

    /// Runs a statement for these keys, a part of them at a time.
    pub(super) async fn by_keys(&mut self, what: Waiting, keys: BTreeSet<Key>) -> Result<Vec<Answer>> {
        let table = match what {
            Waiting::Retry(table)
            | Waiting::Rivals(table)
            | Waiting::Lock(table)
            | Waiting::Forget(table) => table,
            Waiting::FreesByKey(place) => self.references.uniques[place].table,
            Waiting::ArriveByKey(place) | Waiting::LetGo(place) | Waiting::Ask(place) => {
                self.references.all[place].to
            }
            _ => return Err(self.misuse("a statement that takes no keys")),
        };
        let what = Use::Waiting(what);
        let mut answers = Vec::new();
        let mut keys = keys.into_iter();
        loop {
            let part: BTreeSet<Key> = keys.by_ref().take(MOST_KEYS).collect();
            if part.is_empty() {
                return Ok(answers);
            }
            self.prepare(what).await?;
            let columns = self.columns(table, part);
            let columns: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as _).collect();
            answers.extend(self.run(what, &columns).await?);
        }
    }

    pub(super) async fn run(&self, what: Use, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Answer>> {
        let doing = || self.doing_of(what);
        let rows = self.client.query(self.get(what)?, parameters).await;
        answers(&rows.map_err(|error| explain(doing(), &error))?, doing)
    }

    /// Runs a statement over several tables: it places held rows, or removes rows.
    async fn run_together(
        &mut self,
        places: bool,
        tables: &[usize],
        columns: &[Vec<String>],
    ) -> Result<Vec<Answer>> {
        let doing =
            || if places { "writing rows that wait for each other" } else { "removing rows" }.to_owned();
        let known = (places, tables.to_vec());
        if !self.together.contains_key(&known) {
            let writer = Writer { references: &self.references, numbers: &self.numbers };
            let sql = if places { writer.place(tables) } else { writer.remove(tables) };
            let statement = self.client.prepare(&sql).await.map_err(|error| explain(doing(), &error))?;
            self.together.insert(known.clone(), statement);
        }
        let columns: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as _).collect();
        let rows = self.client.query(&self.together[&known], &columns).await;
        answers(&rows.map_err(|error| explain(doing(), &error))?, doing)
    }

    pub(super) fn sql_of(&self, what: Waiting) -> Result<String> {
        let writer = Writer { references: &self.references, numbers: &self.numbers };
        let table = |spec: usize| self.references.of_spec[spec];
        let owned = |sql: Option<String>| sql.ok_or_else(|| self.misuse("owners for a table that has none"));
        Ok(match what {
            Waiting::Guard(spec) => writer.guard(&self.specs[spec], table(spec)),
            Waiting::Retry(table) => writer.retry(table),
            Waiting::Arrive(reference, spec) => writer.arrive(reference, &self.specs[spec]),
            Waiting::ArriveByKey(reference) => writer.arrive_by_key(reference),
            Waiting::Frees(unique, spec) => writer.frees(unique, &self.specs[spec]),
            Waiting::FreesByKey(unique) => writer.frees_by_key(unique),
            Waiting::Rivals(table) => writer.rivals(table),
            Waiting::LetGo(reference) => writer.let_go(reference),
            Waiting::Lock(table) => writer.lock(table),
            Waiting::Ask(reference) => writer.ask(reference),
            Waiting::Forget(table) => writer.forget(table),
            Waiting::ForgetOwned(spec) => owned(writer.forget_owned(&self.specs[spec], table(spec)))?,
            Waiting::KeysOfDeletes(spec) => writer.keys_of_deletes(&self.specs[spec], table(spec)),
            Waiting::KeysOfMoved(spec) => {
                let sql = writer.keys_of_moved(&self.specs[spec], table(spec));
                sql.ok_or_else(|| self.misuse("a key that cannot change"))?
            }
            Waiting::Probe(spec) => writer.probe(&self.specs[spec], table(spec)),
            Waiting::ForgetMoved(spec) => writer.forget_moved(&self.specs[spec], table(spec)),
            Waiting::ClaimedByAnother(spec) => writer.claimed_by_another(&self.specs[spec], table(spec)),
            Waiting::ClaimsLeft(spec) => writer.claims_left(&self.specs[spec], table(spec)),
            Waiting::RelocateClaimed(spec) => writer.relocate_claimed(&self.specs[spec], table(spec)),
            Waiting::Claim(spec) => writer.claim(&self.specs[spec], table(spec)),
            Waiting::Disclaim(spec) => writer.disclaim(table(spec)),
            Waiting::KeysOfOwned(spec) => owned(writer.keys_of_owned(&self.specs[spec], table(spec)))?,
            Waiting::Wants(table) => {
                writer.wants(table).ok_or_else(|| self.misuse("rows that require nothing are not held"))?
            }
        })
    }

    pub(super) fn doing_of(&self, what: Use) -> String {
        let Use::Waiting(what) = what else { return "writing".into() };
        let name = |table: usize| {
            let table = &self.references.tables[table].table;
            format!("{}.{}", table.schema, table.name)
        };
        match what {
            Waiting::Guard(spec)
            | Waiting::Probe(spec)
            | Waiting::KeysOfMoved(spec)
            | Waiting::ClaimedByAnother(spec)
            | Waiting::ClaimsLeft(spec)
            | Waiting::RelocateClaimed(spec)
            | Waiting::Claim(spec) => self.doing("writing", spec),
            Waiting::Retry(table) => format!("writing what waited in {}", name(table)),
            Waiting::Arrive(place, _) | Waiting::ArriveByKey(place) => {
                format!("looking what waits for {}", name(self.references.all[place].to))
            }
            Waiting::Frees(_, spec) => self.doing("looking what waits for a value of", spec),
            Waiting::FreesByKey(place) => {
                format!("looking what waits for a value of {}", name(self.references.uniques[place].table))
            }
            Waiting::LetGo(place) | Waiting::Ask(place) => {
                format!("looking who refers to {}", name(self.references.all[place].to))
            }
            Waiting::Lock(table) | Waiting::Forget(table) => format!("deleting from {}", name(table)),
            Waiting::ForgetOwned(spec)
            | Waiting::Disclaim(spec)
            | Waiting::ForgetMoved(spec)
            | Waiting::KeysOfDeletes(spec)
            | Waiting::KeysOfOwned(spec) => self.doing("deleting from", spec),
            Waiting::Rivals(table) | Waiting::Wants(table) => {
                format!("looking for rows that wait for each other in {}", name(table))
            }
        }
    }

    /// The first spec of a table: its counts take what nobody asked for.
    pub(super) fn spec_of(&self, table: usize) -> usize {
        self.references.of_spec.iter().position(|of| *of == table).unwrap_or_default()
    }

    /// Keys as they are bound: one array a column.
    pub(super) fn columns(&self, table: usize, keys: BTreeSet<Key>) -> Vec<Vec<String>> {
        let mut columns = vec![Vec::with_capacity(keys.len()); self.references.tables[table].key.len()];
        for key in keys {
            for (column, value) in columns.iter_mut().zip(key) {
                column.push(value);
            }
        }
        columns
    }
}

impl Work {
    fn new(counts: Vec<TableCounts>) -> Self {
        Self { counts, ready: BTreeMap::new(), held: BTreeSet::new() }
    }
}

fn removes(write: &TableWrite) -> bool {
    !write.owners.is_empty() || write.deletes.iter().any(|values| !values.is_empty())
}

fn answers(rows: &[tokio_postgres::Row], doing: impl Fn() -> String) -> Result<Vec<Answer>> {
    let fail = |error: tokio_postgres::Error| explain(doing(), &error);
    rows.iter()
        .map(|row| {
            let what: &str = row.try_get(0).map_err(fail)?;
            let what =
                What::of(what).ok_or_else(|| Error::new(Kind::Bug, doing(), "an answer of no known kind"))?;
            let count: i64 = row.try_get(1).map_err(fail)?;
            let place: i32 = if row.len() > 3 { row.try_get(3).map_err(fail)? } else { 0 };
            Ok(Answer {
                what,
                count: count.max(0) as u64,
                key: row.try_get(2).map_err(fail)?,
                place: place as usize,
            })
        })
        .collect()
}
