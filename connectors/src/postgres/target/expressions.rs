//! Expressions of the migration file, tried before the first row: names, types, and whether the result is a function of the inputs.
//!
//! A temporary view of each is made in a transaction that is rolled back, and its parse tree is read. So Postgres itself says which
//! functions and operators are meant, whatever the expression looks like. Nothing is computed.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::error::{Kind, Result};
use crate::postgres::client::connect;
use crate::postgres::error::explain;
use crate::postgres::target::catalog::Complaint;
use crate::postgres::target::statements::{qualified, quote};
use crate::secret::Secret;

/// An expression that fills a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// Schema of the table.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// The expression.
    pub sql: String,
    /// Its inputs, each with the name of its type.
    pub inputs: Vec<(String, String)>,
}

const DOING: &str = "trying the expressions of the file";

/// Functions that Postgres calls stable only because a setting of the session has a say: the time zone and the styles of dates, which all
/// our sessions that compute have in common, or the database's locale.
const HARMLESS: [&str; 25] = [
    "array_to_string",
    "concat",
    "concat_ws",
    "date",
    "date_part",
    "date_trunc",
    "extract",
    "format",
    "json_build_array",
    "json_build_object",
    "jsonb_build_array",
    "jsonb_build_object",
    "quote_literal",
    "quote_nullable",
    "textanycat",
    "anytextcat",
    "time",
    "timestamp",
    "timestamptz",
    "timezone",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_timestamp",
];

/// Functions that a parse tree calls by number, with their names and whether they may be relied on.
const FUNCTIONS: &str = "
WITH tree AS (
    SELECT r.ev_action::text AS text FROM pg_catalog.pg_rewrite r WHERE r.ev_class = to_regclass($1)
), called AS (
    SELECT DISTINCT m[2]::oid AS oid FROM tree, regexp_matches(tree.text, ':(funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') AS m
)
SELECT p.proname::text, p.provolatile::text, n.nspname = 'pg_catalog', p.proretset, p.prokind::text
FROM called JOIN pg_catalog.pg_proc p ON p.oid = called.oid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
ORDER BY 1";

/// What else in a tree is no function of the inputs.
const NODES: &str = "
SELECT r.ev_action::text ~ '\\{SUBLINK ', r.ev_action::text ~ '\\{(SQLVALUEFUNCTION|NEXTVALUEEXPR|CURRENTOFEXPR) ',
       r.ev_action::text ~ '\\{(AGGREF|WINDOWFUNC|GROUPINGFUNC) '
FROM pg_catalog.pg_rewrite r WHERE r.ev_class = to_regclass($1)";

const VIEW: &str = "slackwater_try";

/// What is wrong with each of them; none where nothing is. `schemas`: those of the tables that are written.
pub async fn complaints(
    url: &Secret,
    schemas: &BTreeSet<&str>,
    expressions: &[Expression],
) -> Result<Vec<Option<Complaint>>> {
    if expressions.is_empty() {
        return Ok(Vec::new());
    }
    let (client, _task) = connect(url).await?;
    // Names are found as they are when rows are written.
    let path: String = schemas.iter().map(|schema| format!(", {}", quote(schema))).collect();
    client
        .batch_execute(&format!("SET search_path = pg_catalog{path}; SET TimeZone = 'UTC'"))
        .await
        .map_err(|error| explain(DOING, &error))?;
    let mut found = Vec::with_capacity(expressions.len());
    for expression in expressions {
        client.batch_execute("BEGIN").await.map_err(|error| explain(DOING, &error))?;
        let judged = judge(&client, expression).await;
        client.batch_execute("ROLLBACK").await.map_err(|error| explain(DOING, &error))?;
        found.push(judged?);
    }
    Ok(found)
}

async fn judge(client: &Client, expression: &Expression) -> Result<Option<Complaint>> {
    let Expression { schema, table, column, sql, inputs } = expression;
    let listed: Vec<String> =
        inputs.iter().map(|(name, kind)| format!("NULL::{kind} AS {}", quote(name))).collect();
    let from = format!("FROM (SELECT {}) AS w", listed.join(", "));
    let names: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
    // One expression, and nothing that only looks like one because of what is put around it.
    let prepared = match client.prepare(&format!("SELECT ({sql}\n) {from}")).await {
        Ok(prepared) => prepared,
        Err(error) => return told(&error, &names).map(Some),
    };
    if prepared.columns().len() != 1 || !prepared.params().is_empty() {
        return complaint(
            "this is not one expression",
            "write one value: no `,` outside of brackets, no `$1`",
        );
    }
    let made = format!("CREATE TEMPORARY VIEW {VIEW} AS SELECT ({sql}\n) AS v {from}");
    if let Err(error) = client.batch_execute(&made).await {
        let error = explain(DOING, &error);
        if error.kind == Kind::Denied {
            let help = "GRANT TEMPORARY ON DATABASE … TO the role in `target`";
            return complaint("the role may not make temporary views, by which expressions are tried", help);
        }
        return Err(error);
    }
    let fail = |error: tokio_postgres::Error| explain(DOING, &error);
    let view = format!("pg_temp.{VIEW}");
    let row = client.query_one(NODES, &[&view]).await.map_err(fail)?;
    let (subquery, told_by_session, group): (bool, bool, bool) =
        (row.try_get(0).map_err(fail)?, row.try_get(1).map_err(fail)?, row.try_get(2).map_err(fail)?);
    if subquery {
        return complaint(
            "a subquery reads more than the document",
            "an expression is made of its inputs alone",
        );
    }
    if told_by_session {
        return complaint(
            "the result depends on the clock or the session: a replay would write another value",
            "take what changes out of the document, or use `const`",
        );
    }
    if group {
        return complaint(
            "an expression is made of one document",
            "aggregates and window functions have no rows",
        );
    }
    for row in client.query(FUNCTIONS, &[&view]).await.map_err(fail)? {
        let (name, volatility, builtin, set, kind): (String, String, bool, bool, String) = (
            row.try_get(0).map_err(fail)?,
            row.try_get(1).map_err(fail)?,
            row.try_get(2).map_err(fail)?,
            row.try_get(3).map_err(fail)?,
            row.try_get(4).map_err(fail)?,
        );
        if kind != "f" || set {
            return complaint(format!("`{name}` gives more than one value, or takes more than one row"), "");
        }
        let harmless =
            volatility == "i" || (volatility == "s" && builtin && HARMLESS.contains(&name.as_str()));
        if !harmless {
            let why = if volatility == "s" { "stable" } else { "volatile" };
            let message = format!(
                "`{name}` is {why}: its result may be another one the next time, and a replay would write other rows"
            );
            let help = match builtin {
                true => "use a function that depends on its arguments alone",
                false => "if its result depends on its arguments alone, declare it IMMUTABLE",
            };
            return complaint(message, help);
        }
    }
    let assigned = format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT ({sql}\n) {from}",
        qualified(schema, table),
        quote(column)
    );
    match client.prepare(&assigned).await {
        Ok(_) => Ok(None),
        Err(error) => told(&error, &names).map(Some),
    }
}

fn complaint(message: impl Into<String>, help: impl Into<String>) -> Result<Option<Complaint>> {
    Ok(Some(Complaint { message: message.into(), help: help.into() }))
}

/// The server's own words about names, types and syntax repeat the file and nothing else.
fn told(error: &tokio_postgres::Error, names: &[&str]) -> Result<Complaint> {
    let Some(theirs) = error.as_db_error() else { return Err(explain(DOING, error)) };
    let code = theirs.code().code();
    // What can be computed without an input is computed at once, and may fail.
    let of_the_text = ["42", "22", "0A"].iter().any(|class| code.starts_with(class));
    if !of_the_text || code == "42501" {
        return Err(explain(DOING, error));
    }
    let help = match (code, names.is_empty()) {
        ("42703", true) => "the expression has no inputs: add `with: { name: path }`".to_owned(),
        ("42703", false) => format!("its inputs are {}", names.join(", ")),
        ("42804", _) => "cast the expression to the type of the column: `(…)::type`".to_owned(),
        ("42883", _) => {
            "cast the inputs (`name::numeric`), or say of what type they are: `with: { n: { numeric: path } }`".to_owned()
        }
        _ => String::new(),
    };
    Ok(Complaint { message: format!("Postgres cannot read this expression: {}", theirs.message()), help })
}
