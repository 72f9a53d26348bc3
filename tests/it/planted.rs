//! A file with thirty-five mistakes in it, some of them in a part that it includes: `check` finds all of them in one go, each at its line and
//! column, each with a remedy.

use std::fmt::Write as _;

use crate::stage::Stage;

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE orgs (id uuid PRIMARY KEY, name text NOT NULL);
CREATE TABLE users (id uuid PRIMARY KEY, email varchar(20) UNIQUE, name text, org_id uuid REFERENCES orgs, age integer, born date,
                    mood mood, extra jsonb, full_name text GENERATED ALWAYS AS (name) STORED, at timestamptz);
CREATE TABLE lines (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users, n integer, price numeric(8,2));
CREATE TABLE teams (id uuid PRIMARY KEY, title text NOT NULL, size integer);
CREATE TABLE rooms (id uuid PRIMARY KEY, name text, size integer);
CREATE TABLE bills (id uuid PRIMARY KEY, note text, paid jsonb, sum numeric);
CREATE VIEW seen AS SELECT id FROM users;";

const FILE: &str = r#"migration: planted
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" }, on_drop: fallow }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
snapshot: { worker: 4 }
defaults: { invalid: default }
include: [ parts/*.yaml, parts/none.yml ]
collections:
  legcy.orgs: { into: orgs, columns: { id: { uuid: _id }, name: name } }
  legacy.tags: { into: tagz, columns: { id: { uuid: _id } } }
  legacy.views: { into: seen, columns: { id: { uuid: _id } } }
  legacy.users:
    - into: users
      columns:
        id: { uuid: _id }
        emial: { text: email }
        name: { txt: name }
        org_id: { ref: org }
        age: { integer: age, invalid: clip }
        born: { date: born..on }
        mood: { enum: mood, map: { G: goood } }
        extra: { rest: text }
        full_name: first
        at: { timestamp: at, unit: minutes }
    - into: lines
      each: lines[]
      columns:
        id: { uuid: each, by: index }
        user_id: { parent: uid }
        n: { index: 2 }
        price: { numeric: price, trim: true }
  legacy.teams:
    into: teams
    columns: { id: { uuid: _id }, size: { const: many } }
  legacy.rooms:
    into: rooms
    key: [ nme ]
    columns: { id: { uuid: name }, size: size }
not_migrated: [ legacy.logs, legacy.logs, legacy.teams ]
checks:
  - { name: lost, returns_nothing: select 1 from nowhere }
  - { name: sums, source: { collection: legacy.bills, aggregate: [ { $gruop: { _id: null } } ] }, target: select 1 }
cutover:
  max_lag: soon
  deadlin: 5s
  freeze: { command: { freeze: [ no-such-program ], unfreeze: [ "true" ] } }
"#;

const PART: &str = r#"collections:
  legacy.teams: { into: bills, columns: { id: { uuid: _id } } }
  legacy.bills:
    into: bills
    columns:
      id: { uuid: _id }
      note: { text: [ a, b ] }
      paid: { jsonb: paid, null: rejct }
      sum: { numeric: ^.sum }
target: { postgres: { uri: x } }
"#;

/// Where each is (a text, and how far behind its beginning), and what is said.
const PLANTED: [(&str, usize, &str); 30] = [
    ("fallow", 0, "`on_drop` cannot be `fallow`"),
    ("worker: 4", 0, "`snapshot` knows no `worker`"),
    ("invalid: default", 9, "`invalid` cannot be `default`"),
    ("parts/none.yml", 0, "parts/none.yml` cannot be read"),
    ("legcy.orgs", 0, "there is no source `legcy`"),
    ("tagz", 0, "the target has no table `public.tagz`"),
    ("seen,", 0, "`public.seen` is not a table"),
    ("emial", 0, "`users` has no column `emial`"),
    ("txt", 0, "a column knows no `txt`"),
    ("{ ref: org }", 0, "a column has no `to`"),
    ("clip", 0, "`invalid` cannot be `clip`"),
    ("born..on", 0, "`born..on` is not a path"),
    ("goood", 0, "`goood`"),
    ("rest: text", 6, "`rest` cannot be `text`"),
    ("full_name", 0, "`full_name` is generated"),
    ("minutes", 0, "`unit` cannot be `minutes`"),
    ("uid }", 0, "nothing fills a column `uid` of `users`"),
    ("index: 2", 7, "`index` cannot be `2`"),
    ("trim", 0, "`trim` does not go with `numeric`"),
    ("into: teams", 6, "`teams.title` is NOT NULL"),
    ("many", 0, "many"),
    ("nme", 0, "`rooms` has no column `nme`"),
    ("uuid: name", 6, "`uuid` cannot be made of `name`"),
    ("legacy.logs, legacy.teams", 0, "`legacy.logs` is written twice"),
    ("legacy.teams ]", 0, "`legacy.teams` is mapped in line 32 and not migrated as well"),
    ("select 1 from nowhere", 0, "nowhere"),
    ("legacy.bills, aggregate", 0, "`sums` cannot run: "),
    ("soon", 0, "`max_lag` must be a time"),
    ("deadlin", 0, "knows no `deadlin`"),
    ("no-such-program", 0, "no-such-program"),
];

/// The same of the part.
const PLANTED_IN_PART: [(&str, usize, &str); 5] = [
    ("legacy.teams", 0, "`legacy.teams` is written twice, first in "),
    ("[ a, b ]", 0, "must be a single value, this is a list"),
    ("rejct", 0, "`null` cannot be `rejct`"),
    ("^.sum", 0, "`^.sum` has a meaning only in a table with `each`"),
    ("target", 0, "`target` cannot stand in an included file"),
];

/// Line and column, as a person counts them.
fn place(text: &str, needle: &str, behind: usize) -> (u64, u64) {
    let at = text.find(needle).unwrap_or_else(|| panic!("no {needle}")) + behind;
    let before = &text[..at];
    let line = before.matches('\n').count() as u64 + 1;
    (line, (at - before.rfind('\n').map_or(0, |end| end + 1)) as u64 + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_mistakes_are_found_in_one_go() {
    let stage = Stage::new("planted").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    std::fs::create_dir(stage.folder.join("parts")).expect("a folder");
    let file = stage.file("migration.yaml", FILE);
    stage.file("parts/billing.yaml", PART);
    let output = stage.output(&["check", file.to_str().expect("UTF-8"), "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(3));
    let mut found: Vec<(String, u64, u64, String, bool)> = report["diagnostics"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|found| found["severity"] == "error")
        .map(|found| {
            let file = found["file"].as_str().expect("a file").rsplit('/').next().expect("a name").to_owned();
            let number = |name: &str| found[name].as_u64().expect("a number");
            let message = found["message"].as_str().expect("a message").to_owned();
            // Texts of servers may say in themselves what to do.
            (file, number("line"), number("column"), message, found["help"].is_string())
        })
        .collect();
    let mut listed = String::new();
    for (file, line, column, message, help) in &found {
        let _ = writeln!(listed, "{file}:{line}:{column}: {message} ({help})");
    }
    let planted = PLANTED.iter().map(|planted| ("migration.yaml", FILE, planted));
    let planted = planted.chain(PLANTED_IN_PART.iter().map(|planted| ("billing.yaml", PART, planted)));
    for (name, text, (needle, behind, message)) in planted {
        let (line, column) = place(text, needle, *behind);
        let same = |found: &(String, u64, u64, String, bool)| {
            found.0 == name && (found.1, found.2) == (line, column) && found.3.contains(message)
        };
        let Some(at) = found.iter().position(same) else {
            panic!("not found: {name}:{line}:{column} {message}\n{listed}");
        };
        let (.., message, has_help) = found.remove(at);
        assert!(has_help, "without a remedy: {message}");
    }
    assert!(found.is_empty(), "more than was planted: {found:?}\n{listed}");
    stage.clear().await;
}

/// The rules of one table in the large file: every kind of rule is somewhere among them.
fn rules(collection: usize) -> String {
    let table = collection % LARGE.1;
    let merged = table % 7 == 6;
    let mut text = format!("  legacy.c{collection}:\n    - into: t{table}\n");
    if merged {
        text += "      merge: any\n      order: { timestamp: at }\n";
    }
    if table % 4 == 1 {
        text += "      when: { any: [ { kind: { in: [ a, b ] } }, { a.f1: { above: 7 } } ], deleted: { exists: false } }\n";
    }
    let id = if merged { "{ identity: mail, trim: true, lower: true }" } else { "{ uuid: _id }" };
    let _ = writeln!(text, "      columns:\n        id: {id}");
    for column in 0..12 {
        let rule = ["text", "integer", "numeric", "timestamp", "boolean", "jsonb"][column % 6];
        let how = if merged { ["longest", "sum", "max", "earliest", "any", "last"][column % 6] } else { "" };
        let how = if how.is_empty() { String::new() } else { format!(", merge: {how}") };
        let _ = writeln!(text, "        c{column}: {{ {rule}: a.f{column}, invalid: 'null'{how} }}");
    }
    let source = if merged { "m" } else { "c" };
    let _ = writeln!(
        text,
        "        kind: {{ const: {source}{table} }}\n        \
         full_name: {{ sql: \"concat_ws(' ', first, last) || n\", with: {{ first: name.first, last: {{ text: name.last, trim: true }}, n: {{ integer: n, default: 0 }} }} }}\n        \
         pin: {{ reencrypt: pin, from: old, to: member, invalid: null }}\n        \
         codes: {{ encrypt: 'codes[].code', to: member }}"
    );
    if table % 5 == 2 {
        text += "        looked: { lookup: k, of: legacy.c0, take: a.f0, default: none }\n        by_name: { lookup: code, of: legacy.c1, by: a.f6, lower: true, take: n }\n";
    }
    if table > 0 {
        // Documents that are merged have no row of their own to be found by a field.
        let by = if table % 5 == 3 && !table.is_multiple_of(7) { ", by: a.f0" } else { "" };
        let _ = writeln!(text, "        ref_id: {{ ref: ref, to: legacy.c{}{by} }}", table - 1);
    }
    if table.is_multiple_of(5) && !merged {
        let _ = writeln!(
            text,
            "    - into: l{table}\n      each: orders[].lines[]\n      when: {{ void: {{ not: true }} }}\n      \
             columns: {{ id: {{ uuid: each, by: [no, sku] }}, t_id: {{ parent: id }}, sku: sku, no: ^.no, place: {{ index: 1 }}, \
             amount: {{ numeric: price }}, card: {{ encrypt: card, to: member }} }}"
        );
    }
    text
}

/// Collections, and tables for documents.
const LARGE: (usize, usize) = (88, 45);

/// A file of 88 collections that fill 45 tables, and tables of lines beside them, in four parts, with rules of every kind; how long its check takes is told,
/// and not judged: the machine may be busy.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_checked() {
    let mut stage = Stage::new("large_file").await;
    stage.variables = vec![("OLD_KEY", "0".repeat(64)), ("MEMBER_KEY", "1".repeat(64))];
    let (collections, tables) = LARGE;
    let mut schema = String::new();
    let mut count = tables;
    for table in 0..tables {
        let _ = write!(schema, "CREATE TABLE t{table} (id uuid PRIMARY KEY");
        for column in 0..12 {
            let kind = ["text", "integer", "numeric(12,2)", "timestamptz", "boolean", "jsonb"][column % 6];
            let _ = write!(schema, ", c{column} {kind}");
        }
        let _ = writeln!(
            schema,
            ", kind text, full_name text, pin text, codes bytea[], looked text, by_name integer, ref_id uuid); CREATE INDEX ON t{table} (ref_id);"
        );
        if table % 5 == 0 && table % 7 != 6 {
            count += 1;
            let _ = writeln!(
                schema,
                "CREATE TABLE l{table} (id uuid PRIMARY KEY, t_id uuid REFERENCES t{table}, sku text, no text, place integer, amount numeric(12,2), card bytea);
                 CREATE INDEX ON l{table} (t_id);"
            );
        }
    }
    for table in 1..tables {
        let _ = writeln!(schema, "ALTER TABLE t{table} ADD FOREIGN KEY (ref_id) REFERENCES t{};", table - 1);
    }
    stage.target.batch_execute(&schema).await.expect("the tables can be created");
    let mut parts = vec!["collections:\n".to_owned(); 4];
    for collection in 0..collections {
        parts[collection % 4] += &rules(collection);
    }
    std::fs::create_dir(stage.folder.join("parts")).expect("a folder");
    for (number, part) in parts.iter().enumerate() {
        stage.file(&format!("parts/{number}.yaml"), part);
    }
    let head: String = FILE.lines().take(4).map(|line| format!("{line}\n")).collect();
    let ciphers = "ciphers:\n  old: { aes-256-cbc: { key: \"${OLD_KEY}\", iv: prefix } }\n  member: { aes-256-gcm: { key: \"${MEMBER_KEY}\" } }\n";
    let head = head.replace(", on_drop: fallow", "")
        + ciphers
        + "not_migrated: [ legacy.* ]\ninclude: [ parts/*.yaml ]\n";
    let file = stage.file("migration.yaml", &head);
    let begun = std::time::Instant::now();
    let output = stage.output(&["check", file.to_str().expect("UTF-8"), "--json"]).await;
    println!("check of {collections} collections and {count} tables took {:?}", begun.elapsed());
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["collections"].as_array().map(Vec::len), Some(collections));
    stage.clear().await;
}
