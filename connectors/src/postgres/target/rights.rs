//! Which rights the role lacks beside those to the tables themselves: for our own schema, and for sequences. And what the role may
//! do that nobody needs.

use tokio_postgres::Row;

use crate::error::Result;
use crate::postgres::client::connect;
use crate::postgres::error::explain;
use crate::postgres::target::statements::quote;
use crate::secret::Secret;

/// What the role lacks, and what it has too much of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Rights that the role lacks.
    pub missing: Vec<Missing>,
    /// More than any migration needs, for a person.
    pub excess: Option<String>,
}

/// A right that the role lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it cannot do.
    pub what: String,
    /// The statement that gives the right.
    pub grant: String,
    /// When it is needed.
    pub when: When,
}

/// When a right is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// When sequences are moved at the switch.
    Switch,
    /// When new rows of the table (schema, name) take a number for this column.
    Number((String, String), String),
}

const SCHEMA: &str = "
SELECT current_user::text, current_database()::text, s.oid IS NOT NULL,
       has_database_privilege(current_database(), 'CREATE'),
       s.oid IS NULL OR has_schema_privilege(s.oid, 'USAGE') AND has_schema_privilege(s.oid, 'CREATE'),
       s.oid IS NULL OR pg_has_role(s.nspowner, 'USAGE')
FROM (SELECT to_regnamespace('slackwater')::oid) AS wanted(oid) LEFT JOIN pg_catalog.pg_namespace s ON s.oid = wanted.oid";

const SEQUENCES: &str = "
SELECT DISTINCT n.nspname::text, s.relname::text, tn.nspname::text, t.relname::text, a.attname::text,
       has_sequence_privilege(s.oid, 'SELECT'), has_sequence_privilege(s.oid, 'UPDATE'), has_sequence_privilege(s.oid, 'USAGE')
FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
JOIN pg_catalog.pg_namespace tn ON tn.nspname = wanted.nsp
JOIN pg_catalog.pg_class t ON t.relnamespace = tn.oid AND t.relname = wanted.rel
JOIN pg_catalog.pg_depend d ON d.refobjid = t.oid AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
    AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.classid = 'pg_catalog.pg_class'::regclass
JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
ORDER BY 1, 2";

/// Where rows are hidden by policies, a role that sees them all may be what is wanted.
const ROLE: &str = "
SELECT r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolbypassrls AND NOT EXISTS (
           SELECT FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
           JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.nsp
           JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.rel WHERE c.relrowsecurity)
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";

/// The rights of the role, for a migration that fills these tables (schema, name).
pub async fn of(url: &Secret, tables: &[(String, String)]) -> Result<Rights> {
    let (client, task) = connect(url).await?;
    let fail = |error: tokio_postgres::Error| explain("looking at the rights of the role", &error);
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|(schema, name)| (schema.as_str(), name.as_str())).unzip();
    let found = async {
        let schema = client.query_one(SCHEMA, &[]).await.map_err(fail)?;
        let sequences = client.query(SEQUENCES, &[&schemas, &names]).await.map_err(fail)?;
        let role = client.query_one(ROLE, &[&schemas, &names]).await.map_err(fail)?;
        let (name, mut missing) = own_schema(&schema).map_err(fail)?;
        for row in &sequences {
            missing.extend(sequence(row, &name).map_err(fail)?);
        }
        Ok(Rights { missing, excess: excess(&role, &name).map_err(fail)? })
    };
    let found = found.await;
    task.abort();
    found
}

type Read<T> = std::result::Result<T, tokio_postgres::Error>;

/// The role, and what it lacks for our schema.
fn own_schema(schema: &Row) -> Read<(String, Vec<Missing>)> {
    let (role, database): (String, String) = (schema.try_get(0)?, schema.try_get(1)?);
    let (there, creates, uses, owns): (bool, bool, bool, bool) =
        (schema.try_get(2)?, schema.try_get(3)?, schema.try_get(4)?, schema.try_get(5)?);
    let quoted = quote(&role);
    let mut missing = Vec::new();
    let mut add = |what, grant| missing.push(Missing { what, grant, when: When::Always });
    if !there && !creates {
        add(
            format!("the role `{role}` may not create the schema `slackwater` in the database `{database}`"),
            format!("CREATE SCHEMA slackwater AUTHORIZATION {quoted}"),
        );
    } else if !uses || !owns {
        add(
            format!(
                "the schema `slackwater` belongs to another role than `{role}`, which cannot bring it up to date"
            ),
            format!("ALTER SCHEMA slackwater OWNER TO {quoted}, and so for the tables and functions in it"),
        );
    }
    Ok((role, missing))
}

fn sequence(row: &Row, role: &str) -> Read<Vec<Missing>> {
    let (schema, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let (reads, updates, uses): (bool, bool, bool) = (row.try_get(5)?, row.try_get(6)?, row.try_get(7)?);
    let (sequence, quoted) = (format!("{}.{}", quote(&schema), quote(&name)), quote(role));
    let mut missing = Vec::new();
    let lacks: Vec<&str> = [("SELECT", reads), ("UPDATE", updates)]
        .into_iter()
        .filter(|(_, has)| !has)
        .map(|(right, _)| right)
        .collect();
    if !lacks.is_empty() {
        let lacks = lacks.join(", ");
        missing.push(Missing {
            what: format!("the role `{role}` may not move the sequence `{schema}.{name}`: it lacks {lacks}"),
            grant: format!("GRANT {lacks} ON SEQUENCE {sequence} TO {quoted}"),
            when: When::Switch,
        });
    }
    if !updates && !uses {
        let (table, column) = ((row.try_get(2)?, row.try_get(3)?), row.try_get(4)?);
        missing.push(Missing {
            what: format!(
                "the role `{role}` may not take numbers from the sequence `{schema}.{name}`: it lacks USAGE"
            ),
            grant: format!("GRANT USAGE ON SEQUENCE {sequence} TO {quoted}"),
            when: When::Number(table, column),
        });
    }
    Ok(missing)
}

fn excess(role: &Row, name: &str) -> Read<Option<String>> {
    if role.try_get(0)? {
        return Ok(Some(format!("the role `{name}` is a superuser")));
    }
    let mut more = Vec::new();
    for (at, word) in [(1, "CREATEROLE"), (2, "CREATEDB"), (3, "REPLICATION"), (4, "BYPASSRLS")] {
        if role.try_get(at)? {
            more.push(word);
        }
    }
    Ok((!more.is_empty()).then(|| format!("the role `{name}` has {}", more.join(", "))))
}
