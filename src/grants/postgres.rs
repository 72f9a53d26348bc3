//! What is asked of Postgres: a role, our own schema, and rights on exactly the mapped tables.

use std::collections::BTreeSet;

use serde_json::json;
use slackwater_connectors::postgres::target::statements::quote;

use crate::config::{Finish, Migration, Rule};
use crate::topology::load;

/// One statement and what it is for.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(super) sql: String,
    pub(super) why: &'static str,
}

/// What is to be run in the target's database.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(super) database: String,
    pub(super) role: String,
    pub(super) statements: Vec<Statement>,
    /// What the file does not tell.
    pub(super) notes: Vec<String>,
}

/// What this migration needs.
pub(super) fn grant(migration: &Migration, database: &str, role: &str) -> Grant {
    let quoted = quote(role);
    let tables: BTreeSet<(String, String)> = load::tables(migration).into_iter().collect();
    let schemas: BTreeSet<&str> = tables.iter().map(|(schema, _)| schema.as_str()).collect();
    let listed = |names: Vec<String>| names.join(", ");
    let all =
        listed(tables.iter().map(|(schema, name)| format!("{}.{}", quote(schema), quote(name))).collect());
    let mut statements = vec![
        Statement {
            sql: format!("CREATE ROLE {quoted} LOGIN"),
            why: "the role that the target's `uri` names; in psql, \\password sets its password",
        },
        Statement {
            sql: format!("GRANT CONNECT ON DATABASE {} TO {quoted}", quote(database)),
            why: "connecting; everybody may unless somebody has revoked it",
        },
        Statement {
            sql: format!("CREATE SCHEMA slackwater AUTHORIZATION {quoted}"),
            why: "slackwater's own state; as its owner the role needs no right to create anything elsewhere",
        },
    ];
    let columns =
        migration.collections.iter().flat_map(|found| &found.tables).flat_map(|table| &table.columns);
    if columns.into_iter().any(|column| matches!(column.rule.value, Rule::Sql(_))) {
        statements.push(Statement {
            sql: format!("GRANT TEMPORARY ON DATABASE {} TO {quoted}", quote(database)),
            why: "trying the expressions of computed columns; everybody may unless somebody has revoked it",
        });
    }
    if !tables.is_empty() {
        statements.push(Statement {
            sql: format!(
                "GRANT USAGE ON SCHEMA {} TO {quoted}",
                listed(schemas.iter().map(|schema| quote(schema)).collect())
            ),
            why: "finding the mapped tables",
        });
        statements.push(Statement {
            sql: format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {all} TO {quoted}"),
            why: "writing their rows, and reading them for references, unique values and counts",
        });
        statements.push(sequences(migration, &tables, role));
    }
    Grant { database: database.to_owned(), role: role.to_owned(), statements, notes: notes(migration) }
}

/// Which sequences there are, only the database knows.
fn sequences(migration: &Migration, tables: &BTreeSet<(String, String)>, role: &str) -> Statement {
    let moved = migration.cutover.after.contains(&Finish::Sequences);
    let (rights, why) = if moved {
        (
            "SELECT, UPDATE",
            "the sequences of their columns: numbers for new rows, and moving the sequences at the switch",
        )
    } else {
        ("USAGE", "the sequences of their columns: numbers for new rows")
    };
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let names: Vec<String> =
        tables.iter().map(|(schema, name)| literal(&format!("{}.{}", quote(schema), quote(name)))).collect();
    let sql = format!(
        "DO $grants$
DECLARE sequence regclass;
BEGIN
  FOR sequence IN
    SELECT DISTINCT d.objid::regclass FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
      AND d.refobjsubid > 0 AND d.refobjid = ANY (ARRAY[{}]::regclass[])
  LOOP
    EXECUTE format('GRANT {rights} ON SEQUENCE %s TO %I', sequence, {});
  END LOOP;
END $grants$",
        names.join(", "),
        literal(role)
    );
    Statement { sql, why }
}

fn notes(migration: &Migration) -> Vec<String> {
    let mut notes = Vec::new();
    if !migration.checks.is_empty() {
        let names: Vec<&str> = migration.checks.iter().map(|check| check.name.value.as_str()).collect();
        notes.push(format!("the queries under `checks` may read other tables: {}", names.join(", ")));
    }
    let after = migration.cutover.after.iter().filter_map(|step| match step {
        Finish::Sql(statement) => Some(statement.name.as_str()),
        Finish::Sequences => None,
    });
    let steps: Vec<&str> =
        migration.cutover.before.iter().map(|step| step.name.as_str()).chain(after).collect();
    if !steps.is_empty() {
        notes.push(format!(
            "the SQL under `before` and `after` may need more (ANALYZE and REFRESH need the owner of the table): {}",
            steps.join(", ")
        ));
    }
    notes
}

/// New rows take a number from the column's sequence: a rule says so, or no rule fills the column.
pub(crate) fn takes_numbers(migration: &Migration, schema: &str, table: &str, column: &str) -> bool {
    let rules = migration.collections.iter().flat_map(|collection| &collection.tables).filter(|rule| {
        rule.schema.as_deref().unwrap_or(&migration.target.schema) == schema && rule.into.value == table
    });
    rules.into_iter().any(|rule| {
        let serial = |filled: &crate::config::Column| {
            filled.name.value == column
                && matches!(
                    filled.rule.value,
                    Rule::Own { serial: true } | Rule::Element { serial: true, .. }
                )
        };
        !rule.names(column) || rule.columns.iter().any(serial)
    })
}

impl Grant {
    pub(super) fn json(&self) -> serde_json::Value {
        let statements = self.statements.iter().map(|one| json!({ "sql": one.sql, "for": one.why }));
        json!({
            "database": self.database,
            "role": self.role,
            "statements": statements.collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}
