//! The statements as a person pastes them: each server's own language, with comments that say what each right is for.

use std::fmt::Write as _;

use super::{Grants, kafka, mongodb, postgres};

pub(super) fn of(grants: &Grants) -> String {
    let mut text = String::new();
    for grant in &grants.mongodb {
        mongo(grant, &mut text);
    }
    target(&grants.postgres, &mut text);
    if let Some(grant) = &grants.kafka {
        brokers(grant, &mut text);
    }
    text
}

fn mongo(grant: &mongodb::Grant, text: &mut String) {
    let mongodb::Grant { source, database, role, user, .. } = grant;
    let _ = write!(
        text,
        "// MongoDB, source {source}, database {database}: for mongosh, as a user who may make roles and users.\n\
         db.getSiblingDB(\"admin\").createRole({{\n  role: {},\n  privileges: [\n",
        word(role)
    );
    for (resource, needs) in grant.by_resource() {
        for need in &needs {
            let _ = writeln!(text, "    // {}: {}", need.action, need.why);
        }
        let actions: Vec<String> = needs.iter().map(|need| word(need.action)).collect();
        let resource = mongodb::words(resource);
        let _ = writeln!(text, "    {{ resource: {resource}, actions: [{}] }},", actions.join(", "));
    }
    let _ = write!(
        text,
        "  ],\n  roles: []\n}})\ndb.getSiblingDB(\"admin\").createUser({{ user: {}, pwd: passwordPrompt(), \
         roles: [{{ role: {}, db: \"admin\" }}] }})\n\n",
        word(user),
        word(role)
    );
}

/// As JSON and JavaScript write text.
fn word(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn target(grant: &postgres::Grant, text: &mut String) {
    let _ = writeln!(
        text,
        "-- Postgres: for psql in the database {}, as its owner or a superuser, once its tables exist.",
        grant.database
    );
    for statement in &grant.statements {
        let _ = writeln!(text, "-- {}\n{};", statement.why, statement.sql);
    }
    for note in &grant.notes {
        let _ = writeln!(text, "-- Not known from here: {note}");
    }
    text.push('\n');
}

fn brokers(grant: &kafka::Grant, text: &mut String) {
    let _ = writeln!(
        text,
        "# Kafka: for a shell, with a file of settings for a user who may change access control lists.\n\
         # `slackwater run` does the work of capture and apply: give one user both."
    );
    let mut done: Vec<&kafka::Entry> = Vec::new();
    for entry in &grant.entries {
        let same = |other: &&kafka::Entry| {
            (&other.user, other.resource, &other.name) == (&entry.user, entry.resource, &entry.name)
        };
        if done.iter().any(same) {
            continue;
        }
        done.push(entry);
        let together: Vec<&kafka::Entry> = grant.entries.iter().filter(same).collect();
        for one in &together {
            let _ = writeln!(text, "# {}: {}", one.operation, one.why);
        }
        let operations: Vec<String> =
            together.iter().map(|one| format!("--operation {}", one.operation)).collect();
        let kind = entry.resource.word();
        let _ = writeln!(
            text,
            "kafka-acls.sh --bootstrap-server {} --command-config admin.properties --add --allow-principal {} \\\n  {} \
             --resource-pattern-type {} --{kind} {}",
            quoted(&grant.brokers),
            quoted(&format!("User:{}", entry.user)),
            operations.join(" "),
            entry.pattern(),
            quoted(&entry.name),
        );
    }
    text.push('\n');
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
