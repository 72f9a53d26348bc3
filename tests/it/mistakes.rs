//! Mistakes as people make them, and what `check` says of each: one golden text for all of them.
//!
//! A case is a change of a file that is right, or of its surroundings. What is said must name the line, the matter and the remedy.

use std::fmt::Write as _;

use bson::{Document, doc};

use crate::stage::Stage;

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE orgs (id uuid PRIMARY KEY, name text NOT NULL, tags text[]);
CREATE TABLE users (id uuid PRIMARY KEY, email varchar(20) UNIQUE, name text NOT NULL, org_id uuid REFERENCES orgs, age integer,
                    born date, mood mood, extra jsonb, full_name text GENERATED ALWAYS AS (name) STORED);
CREATE TABLE lines (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users, n integer NOT NULL, price numeric(8,2));
CREATE INDEX ON lines (user_id);
CREATE TABLE keyless (a text);
CREATE VIEW seen AS SELECT id FROM users;";

const FILE: &str = r#"migration: mistakes
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.orgs: { into: orgs, columns: { id: { uuid: _id }, name: name, tags: { array: tags[] } } }
  legacy.users:
    - into: users
      columns:
        id: { uuid: _id }
        email: { text: email, lower: true }
        name: name
        org_id: { ref: org, to: legacy.orgs }
        age: age
        mood: { enum: mood, unknown: reject }
        extra: { rest: jsonb }
    - into: lines
      each: lines[]
      columns: { id: { uuid: each, by: index }, user_id: { parent: id }, n: { index: 1 }, price: price }
not_migrated: [ legacy.logs ]
checks:
  - { name: orphans, returns_nothing: select 1 from lines where user_id is null }
cutover:
  freeze: { command: { freeze: [ "true" ], unfreeze: [ "true" ] } }
  before: [ { name: view, sql: analyze users } ]
  after: [ sequences, { name: fix, sql: update users set age = 1 where false } ]
"#;

/// What is replaced by what; a case may change several places.
const CASES: &[(&str, &[(&str, &str)])] = &[
    ("nothing is wrong", &[]),
    ("no YAML", &[("sources:\n", "sources: [\n")]),
    ("a tab", &[("  legacy.orgs: {", "\tlegacy.orgs: {")]),
    ("a section that is mistyped", &[("collections:", "colections:")]),
    ("a section that is not known", &[("not_migrated:", "ignore:")]),
    ("no name", &[("migration: mistakes\n", "")]),
    ("no target", &[("target: {", "targets: {")]),
    ("a variable that is not set", &[("${SLACKWATER_POSTGRES_URL}", "${SLACKWATER_POSTGRES_URI}")]),
    ("a variable that is not closed", &[("${SLACKWATER_POSTGRES_URL}", "${SLACKWATER_POSTGRES_URL")]),
    ("a file that is not there", &[("${SLACKWATER_POSTGRES_URL}", "${file:/no/such/file}")]),
    ("a source of another kind", &[("legacy: { mongodb:", "legacy: { mysql:")]),
    ("a source that is mistyped", &[("  legacy.users:\n", "  legcy.users:\n")]),
    ("a collection without its source", &[("  legacy.users:\n", "  users:\n")]),
    (
        "a collection that is mistyped",
        &[("  legacy.orgs:", "  legacy.org:"), ("to: legacy.orgs", "to: legacy.org")],
    ),
    ("a collection that is forgotten", &[("not_migrated: [ legacy.logs ]\n", "")]),
    ("all others stay behind", &[("not_migrated: [ legacy.logs ]", "not_migrated: [ \"legacy.*\" ]")]),
    ("what stays behind is mistyped", &[("not_migrated: [ legacy.logs ]", "not_migrated: [ legacy.logz ]")]),
    (
        "mapped and not migrated",
        &[("not_migrated: [ legacy.logs ]", "not_migrated: [ legacy.logs, legacy.orgs ]")],
    ),
    ("a table that is mistyped", &[("into: orgs", "into: orgz")]),
    ("a table of another schema", &[("into: orgs", "into: crm.orgs")]),
    ("a view", &[("into: orgs", "into: seen")]),
    (
        "a table without a key",
        &[(
            "{ into: orgs, columns: { id: { uuid: _id }, name: name, tags: { array: tags[] } } }",
            "{ into: keyless, columns: { a: name } }",
        )],
    ),
    ("a column that is mistyped", &[("        name: name", "        nmae: name")]),
    ("a column that is forgotten", &[("        name: name\n", "")]),
    ("a column that is generated", &[("        age: age", "        age: age\n        full_name: name")]),
    ("two rules for a column", &[("        age: age", "        age: age\n        age: years")]),
    ("a rule that is mistyped", &[("{ text: email, lower: true }", "{ txt: email, lower: true }")]),
    ("two rules in one", &[("{ text: email, lower: true }", "{ text: email, integer: email }")]),
    ("an option that is mistyped", &[("lower: true", "lowr: true")]),
    ("an option of another rule", &[("        age: age", "        age: { integer: age, hex: true }")]),
    ("a policy that is not known", &[("        age: age", "        age: { integer: age, invalid: ignore }")]),
    ("a default that is not given", &[("        age: age", "        age: { integer: age, null: default }")]),
    ("a default that does not fit", &[("        age: age", "        age: { integer: age, default: many }")]),
    (
        "a default longer than the column",
        &[("lower: true }", "lower: true, default: \"a text of more than twenty letters\" }")],
    ),
    ("null where none may be", &[("        name: name", "        name: { text: name, null: keep }")]),
    ("a rule that does not fit the type", &[("        age: age", "        age: { timestamp: age }")]),
    ("a uuid for a number", &[("        age: age", "        age: { uuid: _id }")]),
    ("a sequence that is not there", &[("        age: age", "        age: { serial: _id }")]),
    (
        "the key is not made of _id",
        &[("        id: { uuid: _id }\n        email", "        id: { uuid: id }\n        email")],
    ),
    ("a reference to nobody", &[("to: legacy.orgs", "to: legacy.organisations")]),
    ("a reference without a collection", &[("{ ref: org, to: legacy.orgs }", "{ ref: org }")]),
    ("a reference to what stays behind", &[("to: legacy.orgs", "to: legacy.logs")]),
    ("missing without a reference", &[("        age: age", "        age: { integer: age, missing: wait }")]),
    (
        "an enum with a label that is not known",
        &[("{ enum: mood, unknown: reject }", "{ enum: mood, map: { happy: god } }")],
    ),
    ("an array into one value", &[("        age: age", "        age: { integer: \"ages[]\" }")]),
    ("one value into an array", &[("{ array: tags[] }", "{ text: tags }")]),
    ("parent outside of elements", &[("        age: age", "        age: { parent: id }")]),
    ("a parent that is not filled", &[("{ parent: id }", "{ parent: key }")]),
    ("elements without an owner", &[("user_id: { parent: id }, ", "")]),
    ("elements that are no array", &[("each: lines[]", "each: lines")]),
    ("a key that is not unique", &[("    - into: users\n", "    - into: users\n      key: name\n")]),
    ("one table twice", &[("    - into: lines\n", "    - into: users\n")]),
    ("SQL with a table that is not there", &[("select 1 from lines where", "select 1 from line where")]),
    ("SQL with a column that is not there", &[("set age = 1", "set agee = 1")]),
    ("SQL that is no SQL", &[("select 1 from lines where user_id is null", "selec 1")]),
    ("SQL with a relation that is not there", &[("analyze users", "refresh materialized view search")]),
    (
        "SQL that returns nothing at all",
        &[("select 1 from lines where user_id is null", "delete from lines")],
    ),
    ("a program that is not there", &[("freeze: [ \"true\" ], un", "freeze: [ ./no-such-program ], un")]),
    ("a deadline that is no time", &[("cutover:\n", "cutover:\n  deadline: soon\n")]),
    (
        "a freeze that is not known",
        &[("freeze: { command: { freeze: [ \"true\" ], unfreeze: [ \"true\" ] } }", "freeze: stop")],
    ),
    (
        "a database of the source that is not there",
        &[("database: \"${SOURCE_DATABASE}\"", "database: nothing_here")],
    ),
    (
        "nothing listens at the source",
        &[("${SLACKWATER_MONGODB_URI}", "mongodb://127.0.0.1:1/?replicaSet=rs0")],
    ),
    (
        "a name that does not resolve, at the source",
        &[("${SLACKWATER_MONGODB_URI}", "mongodb://no.such.host.invalid/?replicaSet=rs0")],
    ),
    ("a wrong replica set", &[("${SLACKWATER_MONGODB_URI}", "${WRONG_SET}")]),
    ("a source's address that is none", &[("${SLACKWATER_MONGODB_URI}", "127.0.0.1:27017")]),
    (
        "nothing listens at the target",
        &[("${SLACKWATER_POSTGRES_URL}", "postgres://app:canary@127.0.0.1:1/crm")],
    ),
    (
        "a name that does not resolve, at the target",
        &[("${SLACKWATER_POSTGRES_URL}", "postgres://app:canary@no.such.host.invalid/crm")],
    ),
    ("a database of the target that is not there", &[("${SLACKWATER_POSTGRES_URL}", "${WRONG_DATABASE}")]),
    (
        "both servers down",
        &[
            ("${SLACKWATER_MONGODB_URI}", "mongodb://127.0.0.1:1/?replicaSet=rs0"),
            ("${SLACKWATER_POSTGRES_URL}", "postgres://app:canary@127.0.0.1:1/crm"),
        ],
    ),
    ("the broker is down", &[("collections:", "log: { kafka: { brokers: \"127.0.0.1:1\" } }\ncollections:")]),
    (
        "many at once",
        &[
            ("collections:", "snapshots: {}\ncollections:"),
            ("        name: name", "        nmae: name"),
            ("to: legacy.orgs", "to: legacy.org"),
            ("not_migrated: [ legacy.logs ]\n", ""),
            ("set age = 1", "set agee = 1"),
            ("[ \"true\" ], un", "[ ./no-such-program ], un"),
        ],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_told() {
    let stage = Stage::new("mistakes").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    for name in ["orgs", "users", "logs"] {
        stage.source.collection::<Document>(name).insert_one(doc! {"_id": 1}).await.expect("a document");
    }
    // It holds no documents of its own, so nobody has to say what becomes of it.
    let view = doc! {"create": "recent", "viewOn": "users", "pipeline": []};
    stage.source.run_command(view).await.expect("a view");
    let wrong_set = stage.mongodb.replace("replicaSet=rs0", "replicaSet=wrong");
    let wrong_database = stage.postgres.replace(&stage.name, "no_such_database");
    let mut golden = String::new();
    for (name, changes) in CASES {
        let mut file = FILE.to_owned();
        for (from, to) in *changes {
            assert!(file.contains(from), "{name}: nothing to change");
            file = file.replacen(from, to, 1);
        }
        let file = file.replace("${WRONG_SET}", &wrong_set).replace("${WRONG_DATABASE}", &wrong_database);
        let path = stage.file("migration.yaml", &file);
        let output = stage.output(&["check", path.to_str().expect("a path in UTF-8"), "--json"]).await;
        let code = output.status.code().expect("it ends by itself");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("check prints JSON");
        assert!(!report.to_string().contains("canary"), "{name}: a password is shown");
        let _ = writeln!(golden, "{name} (exit code {code})");
        for found in report["diagnostics"].as_array().expect("a list") {
            let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
            let message = text("message");
            // How far the oplog of the shared server reaches back is not ours to say.
            if message.starts_with("the oplog reaches back") {
                continue;
            }
            // The role of the tests is one, whatever else is wrong: once is enough.
            if message.contains("is a superuser") && !changes.is_empty() {
                continue;
            }
            let _ =
                writeln!(golden, "  {}:{} {}: {message}", found["line"], found["column"], text("severity"));
            if !text("help").is_empty() {
                let _ = writeln!(golden, "      {}", text("help"));
            }
        }
        golden.push('\n');
    }
    let host = |url: &str| {
        let rest = url.split("://").nth(1).unwrap_or_default();
        let rest = rest.split('/').next().unwrap_or_default();
        rest.rsplit('@').next().unwrap_or_default().to_owned()
    };
    let golden = golden.replace(&stage.name, "DATABASE").replace(&host(&stage.mongodb), "HOST:PORT");
    let golden = golden.replace(&host(&stage.postgres), "HOST:PORT");
    insta::assert_snapshot!("mistakes", golden);
    stage.clear().await;
}

/// A role that may do little is told everything that it lacks, not one right after the other.
#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_come_together() {
    let mut stage = Stage::new("mistakes_rights").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    let role = format!("{}_app", stage.name);
    let make = format!(
        "ALTER TABLE users ADD COLUMN number serial; DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'canary';
         GRANT SELECT, INSERT, UPDATE, DELETE ON users TO {role}; GRANT SELECT ON orgs, lines TO {role}"
    );
    stage.target.batch_execute(&make).await.expect("a role");
    for name in ["orgs", "users", "logs"] {
        stage.source.collection::<Document>(name).insert_one(doc! {"_id": 1}).await.expect("a document");
    }
    let path = stage.file("migration.yaml", FILE);
    let (_, rest) = stage.postgres.split_once('@').expect("a URL with a user");
    stage.postgres = format!("postgres://{role}:canary@{rest}");
    let output = stage.output(&["check", path.to_str().expect("a path in UTF-8"), "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("check prints JSON");
    let said = report["diagnostics"].to_string();
    for lack in [
        "may not write to `public.orgs`",
        "may not write to `public.lines`",
        "may not create the schema `slackwater`",
        "may not move the sequence `public.users_number_seq`",
    ] {
        assert!(said.contains(lack), "{lack}: {said}");
    }
    assert!(!said.contains("`fix`"), "what it may do is no finding: {said}");
    assert!(!said.contains("canary"), "a password is shown");
    stage
        .target
        .batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await
        .expect("the role can go");
    stage.clear().await;
}
