//! Rows that refer to rows which are not there, where Postgres itself does not vouch for a foreign key: one that was never validated, or
//! whose triggers are disabled.

use super::finish::Finisher;
use crate::error::Result;
use crate::postgres::error::explain;
use crate::postgres::target::statements::quote;

/// A foreign key that Postgres does not vouch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubtful {
    /// The table that refers, with its schema.
    pub table: (String, String),
    /// Its columns.
    pub columns: Vec<String>,
    /// The table that is referred to, with its schema.
    pub to: (String, String),
    /// The columns there.
    pub to_columns: Vec<String>,
    /// Why: it is not validated, or its triggers are disabled.
    pub why: &'static str,
}

/// A foreign key is in doubt if it was not validated, or if one of its triggers does not fire for us.
const DOUBTFUL: &str = "
SELECT tn.nspname::text, t.relname::text, fn.nspname::text, f.relname::text, c.convalidated,
    ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY AS k(number, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.number ORDER BY k.place),
    ARRAY(SELECT a.attname::text FROM unnest(c.confkey) WITH ORDINALITY AS k(number, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.confrelid AND a.attnum = k.number ORDER BY k.place)
FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
JOIN pg_catalog.pg_namespace AS tn ON tn.nspname = wanted.nsp
JOIN pg_catalog.pg_class AS t ON t.relnamespace = tn.oid AND t.relname = wanted.rel
JOIN pg_catalog.pg_constraint AS c ON c.conrelid = t.oid AND c.contype = 'f' AND c.conparentid = 0
JOIN pg_catalog.pg_class AS f ON f.oid = c.confrelid
JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.relnamespace
JOIN unnest($1::text[], $2::text[]) AS known(nsp, rel) ON known.nsp = fn.nspname AND known.rel = f.relname
WHERE NOT c.convalidated
    OR EXISTS (SELECT FROM pg_catalog.pg_trigger AS g WHERE g.tgconstraint = c.oid AND g.tgenabled IN ('D', 'R'))
ORDER BY 1, 2, c.conname";

impl Finisher {
    /// The foreign keys between these tables that Postgres does not vouch for; one look at the catalogue.
    pub async fn doubtful(&self, tables: &[(String, String)]) -> Result<Vec<Doubtful>> {
        let fail = |error: tokio_postgres::Error| explain("looking at the foreign keys", &error);
        let mut tables: Vec<(&str, &str)> =
            tables.iter().map(|(schema, name)| (schema.as_str(), name.as_str())).collect();
        tables.sort_unstable();
        tables.dedup();
        let (schemas, names): (Vec<&str>, Vec<&str>) = tables.into_iter().unzip();
        let rows = self.client.query(DOUBTFUL, &[&schemas, &names]).await.map_err(fail)?;
        let read = |row: &tokio_postgres::Row| {
            let validated: bool = row.try_get(4)?;
            Ok(Doubtful {
                table: (row.try_get(0)?, row.try_get(1)?),
                to: (row.try_get(2)?, row.try_get(3)?),
                columns: row.try_get(5)?,
                to_columns: row.try_get(6)?,
                why: if validated { "its triggers are disabled" } else { "it is not validated" },
            })
        };
        rows.iter().map(read).collect::<std::result::Result<_, _>>().map_err(fail)
    }

    /// The values that refer to nothing, as text, in order; at most so many.
    pub async fn orphans(&self, key: &Doubtful, most: u32) -> Result<Vec<String>> {
        let doing = format!("looking for orphans of {}.{}", key.table.0, key.table.1);
        let rows = self.client.query(&orphans(key, most), &[]).await;
        let fail = |error: tokio_postgres::Error| explain(doing.as_str(), &error);
        let rows = rows.map_err(fail)?;
        rows.iter().map(|row| row.try_get(0)).collect::<std::result::Result<_, _>>().map_err(fail)
    }
}

fn orphans(key: &Doubtful, most: u32) -> String {
    let Doubtful { table, columns, to, to_columns, .. } = key;
    let ours: Vec<String> = columns.iter().map(|name| format!("c.{}", quote(name))).collect();
    let given: Vec<String> = ours.iter().map(|name| format!("{name} IS NOT NULL")).collect();
    let same = ours.iter().zip(to_columns).map(|(ours, theirs)| format!("p.{} = {ours}", quote(theirs)));
    format!(
        "SELECT DISTINCT ROW({})::text FROM {}.{} AS c WHERE {} AND NOT EXISTS (SELECT FROM {}.{} AS p WHERE {}) ORDER BY 1 LIMIT {most}",
        ours.join(", "),
        quote(&table.0),
        quote(&table.1),
        given.join(" AND "),
        quote(&to.0),
        quote(&to.1),
        same.collect::<Vec<_>>().join(" AND ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_refers_to_nothing_and_is_no_orphan() {
        let key = Doubtful {
            table: ("public".into(), "orders".into()),
            columns: vec!["a".into(), "b".into()],
            to: ("app".into(), "users".into()),
            to_columns: vec!["x".into(), "y".into()],
            why: "",
        };
        assert_eq!(
            orphans(&key, 3),
            "SELECT DISTINCT ROW(c.\"a\", c.\"b\")::text FROM \"public\".\"orders\" AS c WHERE c.\"a\" IS NOT NULL AND c.\"b\" IS NOT NULL \
             AND NOT EXISTS (SELECT FROM \"app\".\"users\" AS p WHERE p.\"x\" = c.\"a\" AND p.\"y\" = c.\"b\") ORDER BY 1 LIMIT 3"
        );
    }
}
