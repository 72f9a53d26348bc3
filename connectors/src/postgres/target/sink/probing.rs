//! Rows that are about to wait: whether they could be in their table at all, and what has to be let go before one takes another key.
//!
//! A held row that a check refuses would be found out only when the row comes that it waits for, and the document of that one would be taken for
//! the culprit. So held rows are tried at once, in a savepoint that is never kept: Postgres looks at checks, triggers and partitions before it
//! looks at references.

use std::collections::BTreeSet;

use postgres_types::ToSql;

use super::Sink;
use super::prepared::Use;
use super::watched::{Waiting, Work};
use crate::error::{Error, Result};
use crate::postgres::target::parameter::rows;
use crate::postgres::target::references::Key;
use crate::postgres::target::rows::TableWrite;
use crate::postgres::target::waiting::What;

impl Sink {
    /// Fails if the table refuses one of these rows, which are held, for what it is.
    pub(super) async fn probe(&mut self, spec: usize, write: &TableWrite, held: BTreeSet<Key>) -> Result<()> {
        if held.is_empty() {
            return Ok(());
        }
        let what = Use::Waiting(Waiting::Probe(spec));
        self.prepare(what).await?;
        self.client.batch_execute("SAVEPOINT probe").await.map_err(|error| self.failed(spec, &error))?;
        let keys = self.columns(self.references.of_spec[spec], held);
        let tried = {
            let rows = rows(self.get(what)?, 0, &write.rows);
            let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&*rows];
            parameters.extend(keys.iter().map(|column| column as &(dyn ToSql + Sync)));
            self.run(what, &parameters).await
        };
        match tried {
            Err(error) if !self.is_of_others(&error) => Err(error),
            _ => {
                const BACK: &str = "ROLLBACK TO SAVEPOINT probe; RELEASE SAVEPOINT probe";
                self.client.batch_execute(BACK).await.map_err(|error| self.failed(spec, &error))
            }
        }
    }

    /// It is refused for what other rows are, or are not. That may change, and is found again when it does.
    fn is_of_others(&self, error: &Error) -> bool {
        match (error.code.as_deref(), &error.constraint) {
            (Some("23505" | "23P01"), _) => true,
            (Some("23503"), Some(constraint)) => self.references.find(&constraint.0, &constraint.1).is_some(),
            _ => false,
        }
    }

    /// Rows are about to take another key: what refers to them by the old one waits, as if they went.
    pub(super) async fn let_move(&mut self, spec: usize, write: &TableWrite, work: &mut Work) -> Result<()> {
        let table = self.references.of_spec[spec];
        let into: Vec<usize> = self
            .references
            .refer_to(table)
            .filter(|place| self.numbers.references[*place].is_some())
            .collect();
        if into.is_empty() {
            return Ok(());
        }
        let what = Use::Waiting(Waiting::KeysOfMoved(spec));
        self.prepare(what).await?;
        let moved = self.run(what, &[&*rows(self.get(what)?, 0, &write.rows)]).await?;
        let moved: BTreeSet<Key> = moved.into_iter().filter_map(|answer| answer.key).collect();
        if moved.is_empty() {
            return Ok(());
        }
        for reference in into {
            let leave = self.let_go(reference, moved.clone(), work).await?;
            self.remove(self.references.all[reference].from, leave, work).await?;
        }
        Ok(())
    }

    /// What refers to rows with these keys waits from now on. Gives the keys of the rows that have to leave their table.
    pub(super) async fn let_go(
        &mut self,
        reference: usize,
        keys: BTreeSet<Key>,
        work: &mut Work,
    ) -> Result<BTreeSet<Key>> {
        let child = self.references.all[reference].from;
        let spec = self.spec_of(child);
        let mut leave = BTreeSet::new();
        for answer in self.by_keys(Waiting::LetGo(reference), keys).await? {
            match (answer.what, answer.key) {
                (What::Leaves, Some(key)) => {
                    if self.references.tables[child].circular {
                        work.held.insert((child, key.clone()));
                    }
                    leave.insert(key);
                }
                _ => work.counts[spec].upserted += answer.count,
            }
        }
        Ok(leave)
    }

    fn failed(&self, spec: usize, error: &tokio_postgres::Error) -> Error {
        crate::postgres::error::explain(self.doing("writing", spec), error)
    }
}
