//! Takes and leaves claims; see [`crate::postgres::target::waiting::Writer`] for what a claim is.
//!
//! Tables with claims count as watched from the beginning, so transactions that touch them take turns, and nobody claims a key between
//! our look and our claim.

use std::collections::BTreeSet;

use super::prepared::Use;
use super::watched::{Waiting, Work};
use super::{BEGIN, COMMIT, Sink};
use crate::error::{Error, Kind, Result};
use crate::postgres::error::{CLAIMED, explain};
use crate::postgres::target::parameter::{rows, values};
use crate::postgres::target::references::Key;
use crate::postgres::target::rows::{TableWrite, WriteSet};

impl Sink {
    /// Gives the tables with claims the number that stands for them in our schema.
    pub(super) async fn number_claimed(&mut self) -> Result<()> {
        const NUMBER: &str = "INSERT INTO slackwater.relations (migration, schema_name, table_name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        let fail = |error: tokio_postgres::Error| explain("preparing a table whose rows are claimed", &error);
        for spec in self.specs.iter().filter(|spec| spec.claimed && !spec.stands) {
            self.client.batch_execute(BEGIN).await.map_err(fail)?;
            let named = [&self.migration, &spec.table.schema, &spec.table.name];
            let named = named.map(|name| name as &(dyn postgres_types::ToSql + Sync));
            self.client.execute(NUMBER, &named).await.map_err(fail)?;
            self.client.batch_execute(COMMIT).await.map_err(fail)?;
        }
        Ok(())
    }

    /// A document was refused because another one has the key of its row.
    pub fn is_claimed_by_another(error: &Error) -> bool {
        error.code.as_deref() == Some(CLAIMED)
    }

    /// The batch touches tables with claims.
    pub(super) fn claims(&self, writes: &WriteSet) -> bool {
        let touched = self.specs.iter().zip(&writes.tables);
        touched.into_iter().any(|(spec, write)| spec.claimed && !write.is_empty())
    }

    /// Claims the keys of the rows of this batch, and moves what is there under another key.
    pub(super) async fn claim(&mut self, spec: usize, write: &TableWrite, work: &mut Work) -> Result<()> {
        let table = self.references.of_spec[spec];
        self.refuse_claimed(spec, write).await?;
        let what = Use::Waiting(Waiting::ClaimsLeft(spec));
        self.prepare(what).await?;
        let left = self.run(what, &[&*rows(self.get(what)?, 0, &write.rows)]).await?;
        let left: BTreeSet<Key> = left.into_iter().filter_map(|answer| answer.key).collect();
        if !left.is_empty() {
            if self.references.refer_to(table).next().is_some() {
                // What refers to the old key waits for it from now on.
                self.remove(table, left.clone(), work).await?;
            } else {
                self.with_rows(Waiting::RelocateClaimed(spec), write).await?;
            }
            self.by_keys(Waiting::Forget(table), left).await?;
        }
        self.with_rows(Waiting::Claim(spec), write).await
    }

    async fn refuse_claimed(&mut self, spec: usize, write: &TableWrite) -> Result<()> {
        let what = Use::Waiting(Waiting::ClaimedByAnother(spec));
        self.prepare(what).await?;
        let doing = self.doing("writing", spec);
        let fail = |error: tokio_postgres::Error| explain(doing.clone(), &error);
        let statement = self.get(what)?;
        let found =
            self.client.query_opt(statement, &[&*rows(statement, 0, &write.rows)]).await.map_err(fail)?;
        let Some(row) = found else { return Ok(()) };
        let document: String = row.try_get(0).map_err(fail)?;
        let text = format!("the key of its row is taken by another document: {document}");
        Err(Error::new(Kind::Data, doing.clone(), text).code(CLAIMED))
    }

    async fn with_rows(&mut self, what: Waiting, write: &TableWrite) -> Result<()> {
        let what = Use::Waiting(what);
        self.prepare(what).await?;
        let statement = self.get(what)?;
        let done = self.client.execute(statement, &[&*rows(statement, 0, &write.rows)]).await;
        done.map(drop).map_err(|error| explain(self.doing_of(what), &error))
    }

    /// The documents whose rows go claim nothing any more.
    pub(super) async fn disclaim(&mut self, spec: usize, write: &TableWrite) -> Result<()> {
        let what = Use::Waiting(Waiting::Disclaim(spec));
        self.prepare(what).await?;
        let statement = self.get(what)?;
        for ids in &write.deletes {
            self.run(what, &[&*values(statement, 0, ids)]).await?;
        }
        Ok(())
    }
}
