//! The end of a recopy: rows go that it has not met and that the mapping could have made.
//!
//! A row to which a row of somebody else's table refers cannot go. It stays, the others go, and an incident says so.

use tokio_postgres::Row;

use super::prepared::Use;
use super::{BEGIN, COMMIT, Sink};
use crate::error::{Error, Result};
use crate::postgres::error::explain;
use crate::postgres::target::pipeline::{Call, Count, Parameters, send};
use crate::postgres::target::statements::{self, qualified, quote};

/// A reference from a table that is not ours.
struct Holder {
    constraint: String,
    /// The table, with its schema.
    table: String,
    /// No row of it refers to the row `t`.
    condition: String,
}

impl Sink {
    /// Deletes the rows of a table that the reload has not met and that could be ours; `constants` are columns and
    /// the text of the value that all rows of the mapping have there. Rows that others made stay.
    ///
    /// Writers note a key before they touch its row; the lock below lets no one be between the two, or a row
    /// that is being written now would be deleted by what was known before.
    pub async fn sweep(&mut self, index: usize, constants: &[(String, String)]) -> Result<u64> {
        let mut holders: Vec<Holder> = Vec::new();
        loop {
            self.tidy().await?;
            let but: String = holders.iter().map(|holder| format!(" AND {}", holder.condition)).collect();
            let outcome = if self.specs[index].is_part() {
                self.sweep_parts(index).await
            } else if self.needs_careful_sweep(index) {
                self.sweep_watched(index, constants, &but).await
            } else {
                self.sweep_at_once(index, constants, &but).await
            };
            let error = match outcome {
                Ok(deleted) => {
                    self.unreported += deleted;
                    self.tell(index, &holders).await?;
                    return Ok(deleted);
                }
                Err(error) => error,
            };
            // A reference of ours is put under watch, and then no row is kept by it.
            if self.teaches(&error) {
                return Err(self.learn(error).await);
            }
            match self.holder(index, &error).await? {
                Some(new) if holders.iter().all(|known| known.constraint != new.constraint) => {
                    holders.push(new)
                }
                _ => return Err(self.learn(error).await),
            }
        }
    }

    async fn sweep_at_once(
        &mut self,
        index: usize,
        constants: &[(String, String)],
        but: &str,
    ) -> Result<u64> {
        let relation = self.seen_relation(index).await?;
        let columns: Vec<&str> = constants.iter().map(|(column, _)| column.as_str()).collect();
        let doing = self.doing("sweeping", index);
        let sql = statements::sweep(&self.specs[index], &relation, &columns) + but;
        let delete = self.client.prepare(&sql).await.map_err(|error| explain(doing.clone(), &error))?;
        self.prepare(Use::Hold).await?;
        self.prepare(Use::Aware).await?;
        let parameters: Parameters<'_> =
            constants.iter().map(|(_, value)| Box::new(value.as_str()) as Box<_>).collect();
        let lock = format!("LOCK TABLE slackwater.{} IN SHARE MODE", quote(&relation));
        let calls = vec![
            Call::simple("beginning", BEGIN),
            Call::prepared("holding the lane", self.get(Use::Hold)?, self.identity()),
            self.aware()?,
            Call::simple("waiting for writers", lock),
            Call::prepared(doing, &delete, parameters).counted(Count::Deleted(index)),
            Call::simple("committing", COMMIT),
        ];
        self.dirty = true;
        let outcome = send(&self.client, calls).await;
        self.dirty = false;
        Ok(outcome?.iter().filter(|(count, _)| *count != Count::Nothing).map(|(_, rows)| rows).sum())
    }

    /// The reference that has kept a row from being deleted, if it is one to this table from a table that is not ours.
    async fn holder(&mut self, index: usize, error: &Error) -> Result<Option<Holder>> {
        let (Some("23503"), Some((_, constraint))) = (error.code.as_deref(), error.constraint.as_deref())
        else {
            return Ok(None);
        };
        self.tidy().await?;
        let table = &self.specs[index].table;
        let sql = "SELECT n.nspname::text, c.relname::text,
                ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u(number, place)
                      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.place),
                ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u(number, place)
                      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY u.place)
            FROM pg_catalog.pg_constraint AS k
            JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE k.contype = 'f' AND k.conname = $1 AND k.confrelid = $2::text::regclass AND k.conparentid = 0";
        let doing = self.doing("looking who refers to rows of", index);
        let fail = |error: tokio_postgres::Error| explain(doing.clone(), &error);
        let name = qualified(&table.schema, &table.name);
        let found = self.client.query(sql, &[&constraint, &name]).await.map_err(fail)?;
        let [row] = &found[..] else { return Ok(None) };
        let holder = |row: &Row| {
            let (schema, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let (theirs, ours): (Vec<String>, Vec<String>) = (row.try_get(2)?, row.try_get(3)?);
            let equal: Vec<String> = theirs
                .iter()
                .zip(&ours)
                .map(|(theirs, ours)| format!("h.{} = t.{}", quote(theirs), quote(ours)))
                .collect();
            let condition = format!(
                "NOT EXISTS (SELECT FROM {} AS h WHERE {})",
                qualified(&schema, &name),
                equal.join(" AND ")
            );
            Ok(Holder { constraint: constraint.clone(), table: format!("{schema}.{name}"), condition })
        };
        holder(row).map(Some).map_err(fail)
    }

    /// Says which rows had to stay.
    async fn tell(&mut self, index: usize, holders: &[Holder]) -> Result<()> {
        let doing = self.doing("telling which rows stay in", index);
        for Holder { constraint, table, .. } in holders {
            let ours = &self.specs[index].table;
            let text = format!(
                "rows of {}.{} that no document makes any more stay, because rows of {table} refer to them ({constraint})",
                ours.schema, ours.name
            );
            let sql = "INSERT INTO slackwater.incidents (migration, kind, text) VALUES ($1, 'rows_kept', $2)";
            let told = self.client.execute(sql, &[&self.migration, &text]).await;
            told.map_err(|error| explain(doing.clone(), &error))?;
        }
        Ok(())
    }
}
