//! What the report of a run asks beside a look. Reads only.

use tokio_postgres::Row;

use super::Control;
use crate::error::Result;

/// A dead letter without its document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedLetter {
    /// The collection.
    pub collection: String,
    /// The document's key.
    pub key: Vec<u8>,
    /// The kind of reason.
    pub kind: String,
    /// The reason.
    pub text: String,
    /// The table and the column that it is about, if it is about one.
    pub table: Option<String>,
    /// Likewise.
    pub column: Option<String>,
    /// When it was written first, milliseconds since 1970.
    pub first_seen: i64,
    /// When it was written last.
    pub last_seen: i64,
    /// How often writing it was tried.
    pub tries: i32,
}

impl Control {
    /// All dead letters without their documents, the oldest first.
    pub async fn listed_letters(&self, migration: &str, limit: i64) -> Result<Vec<ListedLetter>> {
        let sql = "SELECT collection, key, kind, reason, table_name, column_name, \
                   (extract(epoch FROM first_seen) * 1000)::bigint, (extract(epoch FROM last_seen) * 1000)::bigint, tries \
                   FROM slackwater.dead_letters WHERE migration = $1 ORDER BY id LIMIT $2";
        self.rows("listing dead letters", sql, &[&migration, &limit], |row| {
            Ok(ListedLetter {
                collection: row.try_get(0)?,
                key: row.try_get(1)?,
                kind: row.try_get(2)?,
                text: row.try_get(3)?,
                table: row.try_get(4)?,
                column: row.try_get(5)?,
                first_seen: row.try_get(6)?,
                last_seen: row.try_get(7)?,
                tries: row.try_get(8)?,
            })
        })
        .await
    }

    /// What the verification says that [`Control::verified`] tells of, as JSON.
    pub async fn verified_report(&self, migration: &str) -> Result<Option<String>> {
        let sql = "SELECT report FROM slackwater.proofs WHERE migration = $1 AND ended IS NOT NULL \
                   ORDER BY whole DESC, id DESC LIMIT 1";
        let read = |row: &Row| row.try_get::<_, Option<String>>(0);
        let found = self.rows("reading the verification", sql, &[&migration], read).await?;
        Ok(found.into_iter().next().flatten())
    }

    /// About how many rows these tables have, by what Postgres counted last; `None` where it never did.
    pub async fn about_rows(&self, tables: &[(String, String)]) -> Result<Vec<Option<u64>>> {
        let sql = "SELECT c.reltuples::bigint FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS t(schema, name, place) \
                   LEFT JOIN (pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace) \
                   ON n.nspname = t.schema AND c.relname = t.name AND c.relkind IN ('r', 'p') ORDER BY t.place";
        let schemas: Vec<&str> = tables.iter().map(|(schema, _)| schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|(_, name)| name.as_str()).collect();
        let read = |row: &Row| row.try_get::<_, Option<i64>>(0);
        let found = self.rows("asking for the sizes of tables", sql, &[&schemas, &names], read).await?;
        // Zero is what an old Postgres says of a table that it never counted.
        Ok(found
            .into_iter()
            .map(|rows| rows.and_then(|rows| u64::try_from(rows).ok()).filter(|rows| *rows > 0))
            .collect())
    }
}
