//! The statements of one connection, prepared when they are first needed and kept as long as it lives.

use tokio_postgres::Statement;

use super::watched::Waiting;
use super::{INSIDE, Sink};
use crate::error::{Error, Kind, Result};
use crate::postgres::error::explain;
use crate::postgres::progress::{Advance, Notes};
use crate::postgres::target::notes::{self, Note};
use crate::postgres::target::rows::{TableWrite, WriteSet};
use crate::postgres::target::statements;

const ADVANCE: &str = "SELECT slackwater.advance($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";

const ADVANCE_PARTITIONS: &str =
    "SELECT slackwater.advance_partitions($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";

/// What a prepared statement is for; the number is that of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Use {
    Advance,
    AdvancePartitions,
    Hold,
    Aware,
    Idle,
    Upsert(usize),
    Relocate(usize),
    Delete(usize),
    DeleteOwned(usize),
    DeleteOthers(usize),
    Copy(usize),
    NoteSeen(usize),
    Note(Note),
    Waiting(Waiting),
    /// Keys of rows that a batch of parts touches.
    Touched(usize),
    /// Rows that are made of parts, and which of them lack something.
    Made(usize),
    Lacking(usize),
    /// Of the look-up of this number for a table: what documents of a batch are found by, what its parts look for, and whose rows look
    /// for given values.
    Found(usize, usize),
    LookedFor(usize, usize),
    Looking(usize, usize),
}

impl Sink {
    pub(super) async fn prepare_writes(&mut self, writes: &WriteSet, seen: &[usize]) -> Result<()> {
        self.prepare_deletes(writes).await?;
        for index in seen {
            if *index >= self.specs.len() {
                return Err(self.misuse("a reload of a table that is not of this sink"));
            }
            if !writes.tables[*index].rows.is_empty() {
                self.prepare(Use::NoteSeen(*index)).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn prepare_deletes(&mut self, writes: &WriteSet) -> Result<()> {
        if writes.tables.len() != self.specs.len() {
            return Err(self.misuse("the rows are not of this sink's tables"));
        }
        for (index, write) in writes.tables.iter().enumerate() {
            self.prepare_delete(index, write).await?;
            if self.relocates(index, write) {
                self.prepare(Use::Relocate(index)).await?;
            }
        }
        Ok(())
    }

    /// Rows of the table may be there under another key.
    pub(super) fn relocates(&self, index: usize, write: &TableWrite) -> bool {
        self.specs[index].found.is_some() && !write.rows.is_empty()
    }

    pub(super) async fn prepare_delete(&mut self, index: usize, write: &TableWrite) -> Result<()> {
        if !write.owners.is_empty() {
            let others = !write.rows.is_empty();
            self.prepare(if others { Use::DeleteOthers(index) } else { Use::DeleteOwned(index) }).await?;
        }
        if write.deletes.iter().any(|values| !values.is_empty()) {
            self.prepare(Use::Delete(index)).await?;
        }
        Ok(())
    }

    /// Only for a log that has partitions.
    pub(super) async fn prepare_partitions(&mut self, advance: &Advance) -> Result<()> {
        if advance.partitions.is_empty() {
            return Ok(());
        }
        self.prepare(Use::AdvancePartitions).await
    }

    pub(super) async fn prepare_notes(&mut self, notes: &Notes) -> Result<()> {
        for note in notes::needed(notes) {
            self.prepare(Use::Note(note)).await?;
        }
        Ok(())
    }

    pub(super) async fn prepare(&mut self, what: Use) -> Result<()> {
        if self.prepared.contains_key(&what) {
            return Ok(());
        }
        let owned = |sql: Option<String>| sql.ok_or_else(|| self.misuse("owners for a table that has none"));
        let (doing, sql) = match what {
            Use::Advance => ("preparing to advance".to_owned(), format!("{ADVANCE} WHERE {INSIDE}")),
            Use::AdvancePartitions => {
                ("preparing to advance partitions".to_owned(), ADVANCE_PARTITIONS.to_owned())
            }
            Use::Hold => {
                let sql = format!("SELECT slackwater.hold($1, $2, $3) WHERE {INSIDE}");
                ("preparing to hold the lane".to_owned(), sql)
            }
            Use::Aware => {
                ("preparing to look what is watched".to_owned(), "SELECT slackwater.aware($1, $2)".to_owned())
            }
            Use::Idle => {
                ("preparing to look what waits".to_owned(), "SELECT slackwater.idle($1, $2, $3)".to_owned())
            }
            Use::Note(note) => ("preparing notes".to_owned(), notes::sql(note).to_owned()),
            Use::Upsert(index) => (self.doing("writing", index), statements::upsert(&self.specs[index])),
            Use::Relocate(index) => {
                let sql = statements::relocate(&self.specs[index]);
                (self.doing("writing", index), sql.ok_or_else(|| self.misuse("a key that cannot change"))?)
            }
            Use::Copy(index) => (self.doing("copying into", index), statements::copy(&self.specs[index])),
            Use::Delete(index) => {
                (self.doing("deleting from", index), statements::delete(&self.specs[index]))
            }
            Use::DeleteOwned(index) => {
                (self.doing("deleting from", index), owned(statements::delete_owned(&self.specs[index]))?)
            }
            Use::DeleteOthers(index) => {
                (self.doing("deleting from", index), owned(statements::delete_others(&self.specs[index]))?)
            }
            Use::Waiting(waiting) => (self.doing_of(what), self.sql_of(waiting)?),
            Use::Touched(index)
            | Use::Made(index)
            | Use::Lacking(index)
            | Use::Found(index, _)
            | Use::LookedFor(index, _)
            | Use::Looking(index, _) => {
                (self.doing("preparing rows that are made of parts in", index), self.sql_of_parts(what)?)
            }
            Use::NoteSeen(index) => {
                let relation = self.seen_relation(index).await?;
                (self.doing("noting rows of", index), statements::note_seen(&self.specs[index], &relation))
            }
        };
        let statement = self.client.prepare(&sql).await.map_err(|error| explain(doing, &error))?;
        self.prepared.insert(what, statement);
        Ok(())
    }

    pub(super) fn get(&self, what: Use) -> Result<&Statement> {
        self.prepared.get(&what).ok_or_else(|| self.misuse("a statement was not prepared"))
    }

    pub(super) async fn seen_relation(&self, index: usize) -> Result<String> {
        let table = &self.specs[index].table;
        let doing = self.doing("looking for the reload of", index);
        let row = self
            .client
            .query_opt(
                "SELECT 'seen_' || id FROM slackwater.seen
                 WHERE migration = $1 AND schema_name = $2 AND table_name = $3 AND source = $4",
                &[&self.migration, &table.schema, &table.name, &&*self.specs[index].source],
            )
            .await
            .map_err(|error| explain(doing.clone(), &error))?
            .ok_or_else(|| Error::new(Kind::Bug, doing.clone(), "none has been started"))?;
        row.try_get(0).map_err(|error| explain(doing, &error))
    }

    pub(super) fn doing(&self, what: &str, index: usize) -> String {
        let table = &self.specs[index].table;
        format!("{what} {}.{}", table.schema, table.name)
    }

    pub(super) fn misuse(&self, what: &str) -> Error {
        Error::new(Kind::Bug, format!("writing in lane {}", self.lane), what)
    }
}
