//! Which rights the role lacks beside those to the tables themselves: for our own schema, and for sequences that are moved at the switch.

use tokio_postgres::Row;

use crate::error::Result;
use crate::postgres::client::connect;
use crate::postgres::error::explain;
use crate::postgres::target::statements::quote;
use crate::secret::Secret;

/// A right that the role lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it cannot do.
    pub what: String,
    /// The statement that gives the right.
    pub grant: String,
    /// It is for moving a sequence at the switch.
    pub sequence: bool,
}

const SCHEMA: &str = "
SELECT current_user::text, current_database()::text, s.oid IS NOT NULL,
       has_database_privilege(current_database(), 'CREATE'),
       s.oid IS NULL OR has_schema_privilege(s.oid, 'USAGE') AND has_schema_privilege(s.oid, 'CREATE'),
       s.oid IS NULL OR pg_has_role(s.nspowner, 'USAGE')
FROM (SELECT to_regnamespace('slackwater')::oid) AS wanted(oid) LEFT JOIN pg_catalog.pg_namespace s ON s.oid = wanted.oid";

const SEQUENCES: &str = "
SELECT DISTINCT n.nspname::text, s.relname::text
FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
JOIN pg_catalog.pg_namespace tn ON tn.nspname = wanted.nsp
JOIN pg_catalog.pg_class t ON t.relnamespace = tn.oid AND t.relname = wanted.rel
JOIN pg_catalog.pg_depend d ON d.refobjid = t.oid AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
    AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.classid = 'pg_catalog.pg_class'::regclass
JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
WHERE NOT (has_sequence_privilege(s.oid, 'UPDATE') AND has_sequence_privilege(s.oid, 'SELECT'))
ORDER BY 1, 2";

/// The rights that the role lacks, for a migration that fills these tables (schema, name).
pub async fn missing(url: &Secret, tables: &[(String, String)]) -> Result<Vec<Missing>> {
    let (client, task) = connect(url).await?;
    let fail = |error: tokio_postgres::Error| explain("looking at the rights of the role", &error);
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|(schema, name)| (schema.as_str(), name.as_str())).unzip();
    let found = async {
        let schema = client.query_one(SCHEMA, &[]).await.map_err(fail)?;
        let sequences = client.query(SEQUENCES, &[&schemas, &names]).await.map_err(fail)?;
        of(&schema, &sequences).map_err(fail)
    };
    let found = found.await;
    task.abort();
    found
}

fn of(schema: &Row, sequences: &[Row]) -> std::result::Result<Vec<Missing>, tokio_postgres::Error> {
    let (role, database): (String, String) = (schema.try_get(0)?, schema.try_get(1)?);
    let (there, creates, uses, owns): (bool, bool, bool, bool) =
        (schema.try_get(2)?, schema.try_get(3)?, schema.try_get(4)?, schema.try_get(5)?);
    let quoted = quote(&role);
    let mut missing = Vec::new();
    let mut add = |what: String, grant: String, sequence| missing.push(Missing { what, grant, sequence });
    if !there && !creates {
        add(
            format!("the role `{role}` may not create the schema `slackwater` in the database `{database}`"),
            format!("CREATE SCHEMA slackwater AUTHORIZATION {quoted}"),
            false,
        );
    } else if !uses || !owns {
        add(
            format!(
                "the schema `slackwater` belongs to another role than `{role}`, which cannot bring it up to date"
            ),
            format!("ALTER SCHEMA slackwater OWNER TO {quoted}, and so for the tables and functions in it"),
            false,
        );
    }
    for row in sequences {
        let (schema, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        add(
            format!("the role `{role}` may not move the sequence `{schema}.{name}`"),
            format!("GRANT SELECT, UPDATE ON SEQUENCE {}.{} TO {quoted}", quote(&schema), quote(&name)),
            true,
        );
    }
    Ok(missing)
}
