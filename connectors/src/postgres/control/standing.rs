//! Collections that stand still because a table of theirs cannot be written, and the documents that wait for it.

use postgres_types::ToSql;
use tokio_postgres::Row;

use super::Control;
use super::doing::Doing as _;
use crate::error::Result;
use crate::postgres::progress::count_of;

/// The kind of the dead letters that are documents of such collections. They are no dead letters to anybody else.
pub const STANDING: &str = "standing";

/// A collection that stands still.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StandingRow {
    /// Its name in the migration file.
    pub collection: String,
    /// The table, with its schema.
    pub table: String,
    /// A word for what is wrong.
    pub kind: String,
    /// What has changed.
    pub text: String,
    /// What mends it.
    pub remedy: String,
    /// Since when, milliseconds since 1970.
    pub since: i64,
    /// The documents that wait.
    pub documents: u64,
}

/// A table as rows are written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableIdentity {
    /// The table itself.
    pub oid: u32,
    /// Of the columns that the migration fills: name, number, type. Sorted.
    pub columns: Vec<(String, i32, String)>,
}

impl Control {
    /// The table as rows were last written to it.
    pub async fn table_identity(
        &self,
        migration: &str,
        (schema, table): (&str, &str),
    ) -> Result<Option<TableIdentity>> {
        let sql = "SELECT t.oid, t.columns, t.numbers, t.kinds FROM slackwater.tables AS t \
                   WHERE migration = $1 AND schema_name = $2 AND table_name = $3";
        let identity = |row: &Row| {
            let (names, kinds): (Vec<String>, Vec<String>) = (row.try_get(1)?, row.try_get(3)?);
            let numbers: Vec<i32> = row.try_get(2)?;
            let columns = names.into_iter().zip(numbers).zip(kinds);
            Ok(TableIdentity {
                oid: row.try_get::<_, i64>(0)? as u32,
                columns: columns.map(|((name, number), kind)| (name, number, kind)).collect(),
            })
        };
        let asked = [&migration as &(dyn ToSql + Sync), &schema, &table];
        Ok(self.rows("reading what a table was", sql, &asked, identity).await?.pop())
    }

    /// Keeps what a table is now, if it was `before` until now, and has these collections copied again (with the reason). False if
    /// another process was first.
    pub async fn keep_identity(
        &mut self,
        migration: &str,
        (schema, table): (&str, &str),
        before: Option<&TableIdentity>,
        now: &TableIdentity,
        recopies: &[(String, String)],
    ) -> Result<bool> {
        let doing = "keeping what a table is";
        let names: Vec<&str> = now.columns.iter().map(|(name, ..)| name.as_str()).collect();
        let numbers: Vec<i32> = now.columns.iter().map(|(_, number, _)| *number).collect();
        let kinds: Vec<&str> = now.columns.iter().map(|(.., kind)| kind.as_str()).collect();
        let oid = i64::from(now.oid);
        let transaction = self.client.transaction().await.doing(doing)?;
        let kept = match before {
            None => {
                let sql = "INSERT INTO slackwater.tables (migration, schema_name, table_name, oid, columns, numbers, kinds) \
                           SELECT $1, $2, $3, $4, $5, $6, $7 WHERE EXISTS (SELECT FROM slackwater.migrations WHERE name = $1) \
                           ON CONFLICT DO NOTHING";
                transaction.execute(sql, &[&migration, &schema, &table, &oid, &names, &numbers, &kinds]).await
            }
            Some(before) => {
                let old: Vec<i32> = before.columns.iter().map(|(_, number, _)| *number).collect();
                let old_kinds: Vec<&str> = before.columns.iter().map(|(.., kind)| kind.as_str()).collect();
                let sql = "UPDATE slackwater.tables SET oid = $4, columns = $5, numbers = $6, kinds = $7 \
                           WHERE migration = $1 AND schema_name = $2 AND table_name = $3 \
                           AND oid = $8 AND numbers = $9 AND kinds = $10";
                let old_oid = i64::from(before.oid);
                transaction
                    .execute(
                        sql,
                        &[
                            &migration, &schema, &table, &oid, &names, &numbers, &kinds, &old_oid, &old,
                            &old_kinds,
                        ],
                    )
                    .await
            }
        };
        if kept.doing(doing)? == 0 {
            return Ok(false);
        }
        for (collection, text) in recopies {
            let sql = "INSERT INTO slackwater.recopies (migration, collection, text) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            transaction.execute(sql, &[&migration, collection, text]).await.doing(doing)?;
        }
        transaction.commit().await.doing(doing)?;
        Ok(true)
    }

    /// Collections that stand still.
    pub async fn standing(&self, migration: &str) -> Result<Vec<StandingRow>> {
        let sql = "SELECT s.collection, s.table_name, s.kind, s.text, s.remedy, (extract(epoch FROM s.since) * 1000)::bigint, \
                   (SELECT count(*) FROM slackwater.dead_letters AS d WHERE d.migration = s.migration \
                    AND d.collection = s.collection AND d.kind = 'standing') \
                   FROM slackwater.standing AS s WHERE s.migration = $1 ORDER BY 1";
        self.rows("reading which tables stand still", sql, &[&migration], |row| {
            Ok(StandingRow {
                collection: row.try_get(0)?,
                table: row.try_get(1)?,
                kind: row.try_get(2)?,
                text: row.try_get(3)?,
                remedy: row.try_get(4)?,
                since: row.try_get(5)?,
                documents: count_of(row, 6)?,
            })
        })
        .await
    }

    /// These collections stand still, and no others: keeps that, with an incident for each that stops or goes on.
    pub async fn stands(&self, migration: &str, rows: &[StandingRow]) -> Result<()> {
        fn column<'a>(rows: &'a [StandingRow], of: impl Fn(&'a StandingRow) -> &'a str) -> Vec<&'a str> {
            rows.iter().map(of).collect()
        }
        let doing = "keeping which tables stand still";
        let collections = column(rows, |row| &row.collection);
        // The rows that stand are the same in every process, so the first to write one tells of it.
        let stop = "WITH made AS (INSERT INTO slackwater.standing AS s (migration, collection, table_name, kind, text, remedy) \
                    SELECT $1, n.* FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) AS n \
                    ON CONFLICT (migration, collection) DO UPDATE SET table_name = EXCLUDED.table_name, kind = EXCLUDED.kind, \
                    text = EXCLUDED.text, remedy = EXCLUDED.remedy \
                    WHERE (s.kind, s.text) IS DISTINCT FROM (EXCLUDED.kind, EXCLUDED.text) \
                    RETURNING collection, kind, text, remedy, (xmax = 0) AS fresh) \
                    INSERT INTO slackwater.incidents (migration, kind, collection, text) \
                    SELECT $1, 'table_stands', collection, collection || ' stands still: ' || text || '; ' || remedy \
                    FROM made WHERE fresh";
        let go_on = "WITH gone AS (DELETE FROM slackwater.standing WHERE migration = $1 AND NOT collection = ANY($2) \
                     RETURNING collection, table_name) \
                     INSERT INTO slackwater.incidents (migration, kind, collection, text) \
                     SELECT $1, 'table_goes_on', collection, collection || ' goes on: ' || table_name || ' can be written again' \
                     FROM gone";
        if !rows.is_empty() {
            self.client
                .execute(
                    stop,
                    &[
                        &migration,
                        &collections,
                        &column(rows, |row| &row.table),
                        &column(rows, |row| &row.kind),
                        &column(rows, |row| &row.text),
                        &column(rows, |row| &row.remedy),
                    ],
                )
                .await
                .doing(doing)?;
        }
        self.client.execute(go_on, &[&migration, &collections]).await.doing(doing).map(drop)
    }

    /// Has the documents tried again that wait for collections which are not among these. How many there were.
    pub async fn release(&self, migration: &str, standing: &[&str]) -> Result<u64> {
        let sql = "UPDATE slackwater.dead_letters SET retry_at = now() WHERE migration = $1 AND kind = 'standing' \
                   AND retry_at > now() + interval '1 year' AND NOT collection = ANY($2)";
        self.client
            .execute(sql, &[&migration, &standing])
            .await
            .doing("releasing documents that wait for a table")
    }

    /// Keeps that a table has changed, unless another process has done so already.
    pub async fn schema_changed(&self, migration: &str, text: &str) -> Result<()> {
        let sql = "INSERT INTO slackwater.incidents (migration, kind, text) SELECT $1, 'schema_changed', $2 \
                   WHERE NOT EXISTS (SELECT FROM slackwater.incidents WHERE migration = $1 AND kind = 'schema_changed' \
                                     AND text = $2 AND at > now() - interval '10 s')";
        self.client
            .execute(sql, &[&migration, &text])
            .await
            .doing("keeping that a table has changed")
            .map(drop)
    }
}
