//! Forgets a migration: everything of it in our own schema, and, if that is wanted, the rows that it has written.

use postgres_types::ToSql;
use tokio_postgres::Transaction;

use super::doing::Doing as _;
use super::{Control, WAIT_FOR_OWNER};
use crate::error::{Error, Result};
use crate::postgres::target::merged::{delete_made, prefix};
use crate::postgres::target::rows::{Apart, TableSpec};
use crate::postgres::target::statements::{ours, quote};

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Rows of the target, by table.
    pub rows: Vec<(String, u64)>,
    /// The migration was known.
    pub known: bool,
}

/// What belongs to a migration by another thing's number.
const BY_NUMBER: [&str; 4] = [
    "DELETE FROM slackwater.numbers WHERE series IN (SELECT id FROM slackwater.series WHERE migration = $1)",
    "DELETE FROM slackwater.claims WHERE relation IN (SELECT id FROM slackwater.relations WHERE migration = $1)",
    "DELETE FROM slackwater.waiting_for WHERE relation IN (SELECT id FROM slackwater.relations WHERE migration = $1)",
    "DELETE FROM slackwater.waiting_rows WHERE relation IN (SELECT id FROM slackwater.relations WHERE migration = $1)",
];

impl Control {
    /// Forgets a migration, in one transaction. `rows`: the tables whose rows go too, as far as the mapping could have made them;
    /// referenced tables first. A process that still works for it is superseded.
    pub async fn reset(&mut self, migration: &str, rows: &[&TableSpec]) -> Result<Forgotten> {
        let doing = format!("forgetting migration {migration}");
        let transaction = self.client.transaction().await.doing(&doing)?;
        transaction.batch_execute(WAIT_FOR_OWNER).await.doing(&doing)?;
        let known = transaction
            .query_opt("SELECT FROM slackwater.migrations WHERE name = $1 FOR UPDATE", &[&migration])
            .await
            .doing(&doing)?;
        let mut forgotten = Forgotten { known: known.is_some(), rows: Vec::new() };
        // As text has one form where keys are kept.
        let forms = "SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = postgres; SET LOCAL extra_float_digits = 1; \
                     SET LOCAL bytea_output = hex";
        transaction.batch_execute(forms).await.doing(&doing)?;
        let parts = transaction
            .query(
                "SELECT relname::text FROM pg_catalog.pg_class
                 WHERE relnamespace = 'slackwater'::regnamespace AND relkind = 'r' AND starts_with(relname::text, $1)",
                &[&prefix(migration)],
            )
            .await
            .doing(&doing)?;
        let parts: Vec<String> =
            parts.iter().map(|row| row.try_get(0)).collect::<std::result::Result<_, _>>().doing(&doing)?;
        forgotten.rows = delete_rows(&transaction, migration, rows, &parts).await?;
        for table in parts {
            let sql = format!("DROP TABLE slackwater.{}", quote(&table));
            transaction.batch_execute(&sql).await.doing(&doing)?;
        }
        let lists = transaction
            .query("SELECT id FROM slackwater.seen WHERE migration = $1", &[&migration])
            .await
            .doing(&doing)?;
        for list in lists {
            let id: i32 = list.try_get(0).doing(&doing)?;
            let sql = format!("DROP TABLE IF EXISTS slackwater.seen_{id}");
            transaction.batch_execute(&sql).await.doing(&doing)?;
        }
        let proofs = transaction
            .query(
                "SELECT c.relname::text FROM pg_catalog.pg_class AS c JOIN slackwater.proofs AS p
                 ON starts_with(c.relname::text, 'proof_' || p.id || '_')
                 WHERE p.migration = $1 AND c.relnamespace = 'slackwater'::regnamespace AND c.relkind = 'r'",
                &[&migration],
            )
            .await
            .doing(&doing)?;
        for list in proofs {
            let name: String = list.try_get(0).doing(&doing)?;
            let sql = format!("DROP TABLE slackwater.{}", quote(&name));
            transaction.batch_execute(&sql).await.doing(&doing)?;
        }
        for sql in BY_NUMBER {
            transaction.execute(sql, &[&migration]).await.doing(&doing)?;
        }
        // All others say whose they are.
        let tables = transaction
            .query(
                "SELECT c.relname::text FROM pg_catalog.pg_class AS c
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'migration'
                 WHERE c.relnamespace = 'slackwater'::regnamespace AND c.relkind = 'r' ORDER BY 1",
                &[],
            )
            .await
            .doing(&doing)?;
        for table in tables {
            let name: String = table.try_get(0).doing(&doing)?;
            let sql = format!("DELETE FROM slackwater.{} WHERE migration = $1", quote(&name));
            transaction.execute(&sql, &[&migration]).await.doing(&doing)?;
        }
        transaction
            .execute("DELETE FROM slackwater.migrations WHERE name = $1", &[&migration])
            .await
            .doing(&doing)?;
        transaction.commit().await.doing(&doing)?;
        Ok(forgotten)
    }
}

/// Deletes rows of all these tables in one statement: keys that refer to each other in a circle are looked at when it is done. Gives how many
/// went, by table; `parts`: the tables of ours that there are.
async fn delete_rows(
    transaction: &Transaction<'_>,
    migration: &str,
    rows: &[&TableSpec],
    parts: &[String],
) -> Result<Vec<(String, u64)>> {
    let (mut names, mut deletes) = (Vec::new(), Vec::new());
    let mut values: Vec<&(dyn ToSql + Sync)> = Vec::new();
    for spec in rows.iter().rev().filter(|spec| !spec.is_ours()) {
        let delete = if let Some(whole) = spec.whole() {
            let made = whole.parts.iter().filter_map(|part| rows.get(*part).copied());
            let made: Vec<&TableSpec> = made.filter(|part| parts.contains(&part.table.name)).collect();
            if made.is_empty() {
                continue;
            }
            delete_made(spec, &made)
        } else {
            let constants = match &spec.apart {
                Apart::By(constants) => &constants[..],
                Apart::Alone | Apart::Not => &[],
            };
            let columns: Vec<&str> = constants.iter().map(|(column, _)| column.as_str()).collect();
            let delete = ours(spec, migration, &columns, values.len());
            values.extend(constants.iter().map(|(_, value)| value as &(dyn ToSql + Sync)));
            delete
        };
        deletes.push(format!("d{} AS ({delete} RETURNING 1)", deletes.len()));
        names.push(format!("{}.{}", spec.table.schema, spec.table.name));
    }
    if deletes.is_empty() {
        return Ok(Vec::new());
    }
    let counts: Vec<String> = (0..deletes.len()).map(|at| format!("(SELECT count(*) FROM d{at})")).collect();
    let sql = format!("WITH {} SELECT ARRAY[{}]", deletes.join(", "), counts.join(", "));
    let doing = format!("deleting rows of {}", names.join(", "));
    let deleted = transaction.query_one(&sql, &values).await.doing(&doing).map_err(of_others)?;
    let deleted: Vec<i64> = deleted.try_get(0).doing(&doing)?;
    Ok(names.into_iter().zip(deleted.into_iter().map(|rows| rows as u64)).collect())
}

/// What to do where rows that stay refer to those that would go.
fn of_others(error: Error) -> Error {
    if error.code.as_deref() != Some("23503") {
        return error;
    }
    let by = error.constraint.as_ref().map_or_else(
        || "rows that stay refer to them".to_owned(),
        |named| format!("rows of {} that stay refer to them ({})", named.0, named.1),
    );
    error.help(format!(
        "{by}: delete those rows, or drop that foreign key, then try again; nothing was deleted"
    ))
}
