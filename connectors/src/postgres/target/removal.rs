//! Removes rows that no document makes, because a person wants it. Whatever refers to one keeps it: nothing goes by a cascade.

use postgres_types::ToSql;

use super::rows::TableSpec;
use super::statements::{element_type, qualified, quote, table_name};
use crate::error::Result;
use crate::postgres::client::connect;
use crate::postgres::error::explain;
use crate::secret::Secret;

/// Foreign keys that refer to a table: the table that has it, its columns, and the columns that they refer to.
const REFERRING: &str = "
SELECT n.nspname::text, c.relname::text,
       (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(f.conkey) WITH ORDINALITY AS k(at, n)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = k.at),
       (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(f.confkey) WITH ORDINALITY AS k(at, n)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.confrelid AND a.attnum = k.at)
FROM pg_catalog.pg_constraint AS f JOIN pg_catalog.pg_class AS c ON c.oid = f.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.confrelid = $1::text::regclass AND f.conparentid = 0";

/// Removes the rows with these keys, each column as text. Gives how many went; others are referred to, or are gone already.
pub async fn remove(url: &Secret, spec: &TableSpec, keys: &[Vec<String>]) -> Result<u64> {
    let doing = || format!("removing rows of {}", table_name(spec));
    let fail = |error: tokio_postgres::Error| explain(doing(), &error);
    let (client, task) = connect(url).await?;
    let outcome = async {
        let referring = client.query(REFERRING, &[&table_name(spec)]).await.map_err(fail)?;
        let mut kept = String::new();
        for row in referring {
            let (schema, table): (String, String) =
                (row.try_get(0).map_err(fail)?, row.try_get(1).map_err(fail)?);
            let (own, theirs): (Vec<String>, Vec<String>) =
                (row.try_get(2).map_err(fail)?, row.try_get(3).map_err(fail)?);
            let same: Vec<String> = own
                .iter()
                .zip(&theirs)
                .map(|(own, theirs)| format!("c.{} = t.{}", quote(own), quote(theirs)))
                .collect();
            let (from, same) = (qualified(&schema, &table), same.join(" AND "));
            kept += &format!(" AND NOT EXISTS (SELECT FROM {from} AS c WHERE {same})");
        }
        let (mut arrays, mut names, mut equal) = (Vec::new(), Vec::new(), Vec::new());
        for (place, at) in spec.key.iter().enumerate() {
            let column = &spec.table.columns[spec.columns[*at]];
            arrays.push(format!("${}::text[]", place + 1));
            names.push(format!("k{place}"));
            equal.push(format!("t.{} = d.k{place}::{}", quote(&column.name), element_type(&column.kind)));
        }
        let sql = format!(
            "DELETE FROM {} AS t USING unnest({}) AS d({}) WHERE {}{kept}",
            table_name(spec),
            arrays.join(", "),
            names.join(", "),
            equal.join(" AND ")
        );
        let columns: Vec<Vec<&str>> =
            (0..spec.key.len()).map(|at| keys.iter().map(|key| key[at].as_str()).collect()).collect();
        let bound: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as _).collect();
        client.execute(&sql, &bound).await.map_err(fail)
    }
    .await;
    task.abort();
    outcome
}
