//! What is sent: the calls of one transaction, in their order.

use std::collections::BTreeSet;

use postgres_types::ToSql;

use super::prepared::Use;
use super::{BEGIN, Sink};
use crate::error::Result;
use crate::postgres::progress::{Advance, Notes, PartitionAdvance};
use crate::postgres::target::notes;
use crate::postgres::target::parameter::{Parameter, rows, values};
use crate::postgres::target::pipeline::{Call, Count, Parameters};
use crate::postgres::target::rows::{TableWrite, WriteSet};
use crate::postgres::target::statements;

impl Sink {
    pub(super) fn identity(&self) -> Parameters<'static> {
        vec![Box::new(self.migration.clone()), Box::new(self.lane.clone()), Box::new(self.epoch)]
    }

    /// What is watched is as we believe, and stays so until the transaction ends.
    pub(super) fn aware(&self) -> Result<Call<'static>> {
        let parameters: Parameters<'static> = vec![Box::new(self.migration.clone()), Box::new(self.watching)];
        Ok(Call::prepared("looking what is watched", self.get(Use::Aware)?, parameters))
    }

    /// The transaction's first statements. What they refuse is refused before any row is touched.
    pub(super) fn opening<'a>(&self, advance: &'a Advance) -> Result<Vec<Call<'a>>> {
        let mut calls = vec![Call::simple("beginning", BEGIN), self.advance_call(advance)?];
        if !advance.partitions.is_empty() {
            calls.push(self.partitions_call(&advance.partitions)?);
        }
        Ok(calls)
    }

    fn advance_call(&self, advance: &Advance) -> Result<Call<'static>> {
        let chunk = advance.chunk.as_ref();
        let rest = chunk.and_then(|chunk| chunk.rest.clone());
        let has_rest = rest.is_some();
        let (lo, hi) = rest.unwrap_or_default();
        let mut parameters = self.identity();
        parameters.extend([
            Box::new(advance.sequence) as Parameter<'static>,
            Box::new(advance.position.as_ref().map(|position| position.moment.0 as i64)),
            Box::new(advance.position.as_ref().map(|position| position.token.to_vec())),
            Box::new(advance.source_time),
            Box::new(advance.applied_through.map(|time| time.0 as i64)),
            Box::new(advance.horizon.0 as i64),
            Box::new(advance.events as i64),
            Box::new(self.unreported as i64),
            Box::new(chunk.map(|chunk| chunk.id)),
            Box::new(chunk.map(|chunk| chunk.documents as i64)),
            Box::new(has_rest),
            Box::new(lo),
            Box::new(hi),
            Box::new(advance.as_of),
            Box::new(self.watching),
        ]);
        Ok(Call::prepared(format!("advancing lane {}", self.lane), self.get(Use::Advance)?, parameters))
    }

    fn partitions_call<'a>(&self, steps: &'a [PartitionAdvance]) -> Result<Call<'a>> {
        fn column<'a, T>(
            steps: &'a [PartitionAdvance],
            of: impl Fn(&'a PartitionAdvance) -> T,
        ) -> Parameter<'a>
        where
            T: ToSql + Sync + Send + 'a,
        {
            Box::new(steps.iter().map(of).collect::<Vec<T>>())
        }
        let parameters = vec![
            Box::new(self.migration.clone()) as Parameter<'a>,
            column(steps, |step| &*step.topic),
            column(steps, |step| step.partition),
            column(steps, |step| step.epoch),
            column(steps, |step| step.from_offset),
            column(steps, |step| step.next_offset),
            column(steps, |step| step.capture_epoch),
            column(steps, |step| step.position.as_ref().map(|position| position.moment.0 as i64)),
            column(steps, |step| step.position.as_ref().map(|position| &position.token[..])),
            column(steps, |step| step.applied_through.map(|time| time.0 as i64)),
            column(steps, |step| step.source_time),
            column(steps, |step| step.events as i64),
            column(steps, |step| step.duplicates as i64),
            column(steps, |step| step.superseded as i64),
            column(steps, |step| step.as_of),
        ];
        let doing = format!("advancing partitions of the log in lane {}", self.lane);
        Ok(Call::prepared(doing, self.get(Use::AdvancePartitions)?, parameters))
    }

    /// Locks the tables whose rows travel in their own type, as writing them does anyway. Postgres reads what is bound before it waits
    /// for a table: if the type of a column changed in between, bytes of the old layout would be taken for the new one.
    pub(super) fn hold_types(&self, writes: &WriteSet) -> Option<Call<'static>> {
        self.lock_types(&self.typed(writes).collect())
    }

    /// The tables of which the batch has rows in their own type. What is in tables of ours changes only when a process begins.
    pub(super) fn typed(&self, writes: &WriteSet) -> impl Iterator<Item = String> {
        let tables = writes.tables.iter().zip(self.specs.iter());
        tables
            .filter(|(write, spec)| spec.shape.is_none() && !spec.is_part() && !write.rows.is_empty())
            .map(|(_, spec)| statements::table_name(spec))
    }

    pub(super) fn lock_types(&self, names: &BTreeSet<String>) -> Option<Call<'static>> {
        let tables: Vec<String> = names.iter().map(|name| format!("ONLY {name}")).collect();
        let sql = format!("LOCK TABLE {} IN ROW EXCLUSIVE MODE", tables.join(", "));
        (!tables.is_empty()).then(|| Call::simple("waiting for changes of the tables", sql))
    }

    pub(super) fn push_writes<'a>(
        &self,
        calls: &mut Vec<Call<'a>>,
        writes: &'a WriteSet,
        seen: &[usize],
    ) -> Result<()> {
        calls.extend(self.hold_types(writes));
        for index in seen.iter().copied() {
            if let Some(write) = writes.tables.get(index).filter(|write| !write.rows.is_empty()) {
                let statement = self.get(Use::NoteSeen(index))?;
                let rows = rows(statement, 0, &write.rows);
                calls.push(Call::prepared(self.doing("noting rows of", index), statement, vec![rows]));
            }
        }
        self.push_deletes(calls, writes)?;
        for (index, write) in writes.tables.iter().enumerate() {
            if self.relocates(index, write) {
                let statement = self.get(Use::Relocate(index))?;
                let moved = vec![rows(statement, 0, &write.rows)];
                calls.push(Call::prepared(self.doing("writing", index), statement, moved));
            }
            if !write.rows.is_empty() {
                let statement = self.get(Use::Upsert(index))?;
                let rows = rows(statement, 0, &write.rows);
                let call = Call::prepared(self.doing("writing", index), statement, vec![rows]);
                calls.push(call.counted(Count::Upserted(index)));
            }
        }
        Ok(())
    }

    /// Referencing tables first, and in each what is left of sets of children before single rows.
    pub(super) fn push_deletes<'a>(&self, calls: &mut Vec<Call<'a>>, writes: &'a WriteSet) -> Result<()> {
        for (index, write) in writes.tables.iter().enumerate().rev() {
            self.push_delete(calls, index, write)?;
        }
        Ok(())
    }

    pub(super) fn push_delete<'a>(
        &self,
        calls: &mut Vec<Call<'a>>,
        index: usize,
        write: &'a TableWrite,
    ) -> Result<()> {
        let doing = || self.doing("deleting from", index);
        if !write.owners.is_empty() {
            let call = if write.rows.is_empty() {
                let statement = self.get(Use::DeleteOwned(index))?;
                Call::prepared(doing(), statement, vec![values(statement, 0, &write.owners)])
            } else {
                let statement = self.get(Use::DeleteOthers(index))?;
                let rows = rows(statement, 1, &write.rows);
                Call::prepared(doing(), statement, vec![values(statement, 0, &write.owners), rows])
            };
            calls.push(call.counted(Count::Deleted(index)));
        }
        if write.deletes.iter().any(|values| !values.is_empty()) {
            let statement = self.get(Use::Delete(index))?;
            let keys = write.deletes.iter().enumerate();
            let parameters = keys.map(|(place, keys)| values(statement, place, keys)).collect();
            calls.push(Call::prepared(doing(), statement, parameters).counted(Count::Deleted(index)));
        }
        Ok(())
    }

    pub(super) fn push_notes<'a>(&self, calls: &mut Vec<Call<'a>>, notes: &'a Notes) -> Result<()> {
        for note in notes::needed(notes) {
            let statement = self.get(Use::Note(note))?;
            calls.push(notes::call(note, statement, notes, &self.migration, &self.lane));
        }
        Ok(())
    }
}
