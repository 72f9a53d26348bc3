//! What is watched, and how a lane learns of it: from errors.

use postgres_types::ToSql;

use super::prepared::Use;
use super::{BEGIN, COMMIT, Sink};
use crate::error::{Error, Kind, Result};
use crate::postgres::error::{NOT_WATCHED, UNAWARE, explain};
use crate::postgres::target::references::{Reference, Unique};
use crate::postgres::target::waiting::Numbers;

impl Sink {
    /// Reads what is watched.
    pub(super) async fn read_watched(&mut self) -> Result<()> {
        let doing = "reading which references are watched";
        let fail = |error: tokio_postgres::Error| explain(doing, &error);
        let row = self
            .client
            .query_opt("SELECT watching FROM slackwater.migrations WHERE name = $1", &[&self.migration])
            .await
            .map_err(fail)?;
        self.watching = row.map_or(Ok(0), |row| row.try_get(0)).map_err(fail)?;
        let mut numbers = Numbers {
            references: vec![None; self.references.all.len()],
            uniques: vec![None; self.references.uniques.len()],
            tables: vec![None; self.references.tables.len()],
        };
        if self.watching > 0 || self.specs.iter().any(|spec| spec.claimed) {
            const WATCHED: &str = "SELECT id, schema_name, table_name, constraint_name FROM slackwater.watched WHERE migration = $1";
            for row in self.client.query(WATCHED, &[&self.migration]).await.map_err(fail)? {
                let get = |at: usize| row.try_get::<_, String>(at).map_err(fail);
                let (schema, table, constraint) = (get(1)?, get(2)?, get(3)?);
                let number = Some(row.try_get(0).map_err(fail)?);
                let of = |place: usize| {
                    let of = &self.references.tables[place].table;
                    (&of.schema, &of.name) == (&schema, &table)
                };
                let named = |one: &Reference| of(one.from) && one.name == constraint;
                if let Some(place) = self.references.all.iter().position(named) {
                    numbers.references[place] = number;
                }
                let named = |one: &Unique| of(one.table) && one.name() == constraint;
                if let Some(place) = self.references.uniques.iter().position(named) {
                    numbers.uniques[place] = number;
                }
            }
            const RELATIONS: &str =
                "SELECT id, schema_name, table_name FROM slackwater.relations WHERE migration = $1";
            for row in self.client.query(RELATIONS, &[&self.migration]).await.map_err(fail)? {
                let get = |at: usize| row.try_get::<_, String>(at).map_err(fail);
                let (schema, table) = (get(1)?, get(2)?);
                let place = self
                    .references
                    .tables
                    .iter()
                    .position(|of| (&of.table.schema, &of.table.name) == (&schema, &table));
                if let Some(place) = place {
                    numbers.tables[place] = Some(row.try_get(0).map_err(fail)?);
                }
            }
        }
        self.numbers = numbers;
        self.prepared.retain(|what, _| !matches!(what, Use::Waiting(_)));
        self.together.clear();
        Ok(())
    }

    /// After an error: if a reference has to be watched, or others have put one under watch, then that is done, and the batch can
    /// be tried again.
    pub(super) async fn learn(&mut self, error: Error) -> Error {
        let learnt = match self.lesson(&error) {
            Some(Lesson::Read) => self.read_again().await,
            Some(Lesson::Watch(place)) => {
                let one = &self.references.all[place];
                let (name, by_key) = (one.name.clone(), one.named == self.references.tables[one.to].key);
                self.watch(one.from, one.to, &name, ("reference", one.blocks, by_key)).await
            }
            Some(Lesson::WatchValue(place)) => {
                let one = &self.references.uniques[place];
                let (table, name) = (one.table, one.name().to_owned());
                self.watch(table, table, &name, ("unique", true, false)).await
            }
            None => return error,
        };
        match learnt {
            Ok(()) => Error::new(Kind::Contention, error.doing, "what is watched has changed"),
            Err(error) => error,
        }
    }

    /// The error can be learnt from: see [`Sink::learn`].
    pub(super) fn teaches(&self, error: &Error) -> bool {
        self.lesson(error).is_some()
    }

    fn lesson(&self, error: &Error) -> Option<Lesson> {
        match error.code.as_deref()? {
            UNAWARE => Some(Lesson::Read),
            "23503" | NOT_WATCHED => {
                let (table, constraint) = &**error.constraint.as_ref()?;
                let place = self.references.find(table, constraint)?;
                self.numbers.references[place].is_none().then_some(Lesson::Watch(place))
            }
            "23505" | "23P01" => {
                let (table, constraint) = &**error.constraint.as_ref()?;
                let place = self.references.find_unique(table, constraint)?;
                self.numbers.uniques[place].is_none().then_some(Lesson::WatchValue(place))
            }
            _ => None,
        }
    }

    async fn read_again(&mut self) -> Result<()> {
        self.tidy().await?;
        self.read_watched().await
    }

    async fn watch(
        &mut self,
        from: usize,
        to: usize,
        constraint: &str,
        (kind, blocks, by_key): (&str, bool, bool),
    ) -> Result<()> {
        self.tidy().await?;
        let name = |table: usize| {
            let table = &self.references.tables[table].table;
            (table.schema.clone(), table.name.clone())
        };
        let ((schema, table), (to_schema, to_table)) = (name(from), name(to));
        let doing = format!("putting {constraint} of {schema}.{table} under watch");
        let statement = "SELECT slackwater.watch($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let parameters: [&(dyn ToSql + Sync); 9] =
            [&self.migration, &schema, &table, &constraint, &to_schema, &to_table, &kind, &blocks, &by_key];
        self.dirty = true;
        let fail = |error: tokio_postgres::Error| explain(doing.clone(), &error);
        self.client.batch_execute(BEGIN).await.map_err(fail)?;
        self.client.query_one(statement, &parameters).await.map_err(fail)?;
        self.client.batch_execute(COMMIT).await.map_err(fail)?;
        self.dirty = false;
        let what = if kind == "unique" {
            "two rows want the same value"
        } else {
            "rows refer to rows that are not there"
        };
        tracing::info!(table, constraint, "{what}; what lacks something waits");
        self.read_watched().await
    }
}

/// What follows from an error.
enum Lesson {
    Read,
    Watch(usize),
    WatchValue(usize),
}
