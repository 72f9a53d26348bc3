use super::*;

fn environment(name: &str) -> Option<String> {
    match name {
        "MONGO" => Some("mongodb://user:hush@host".into()),
        "PG" => Some("postgres://host".into()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Migration, Diagnostics> {
    parse("migration.yaml", text, &environment)
}

const GOOD: &str = r#"
migration: crm-demo
sources:
  legacy: { mongodb: { uri: "${MONGO}", database: crm } }
target: { postgres: { uri: "${PG}", schema: app } }
log: direct
snapshot: { workers: 3, chunk_bytes: 4MiB }
defaults: { invalid: reject, null: keep }
collections:
  legacy.users:
    - into: users
      set: { kind: line }
      columns:
        id: { uuid: _id }
        email: { text: contact.email, trim: true, lower: true, empty: null, null: reject }
        full_name: name
        age: { integer: age, invalid: clamp }
        price: { const: 1.10 }
        status: { enum: state, map: { A: active, 1: blocked, yes: "on" }, unknown: { default: active } }
        org: { ref: organisation, to: legacy.users, hex: true }
        raw: { rest: jsonb }
    - into: other.locations
      each: locations[]
      key: [user_id, location_id]
      columns:
        user_id: { parent: id }
        location_id: { ref: ., to: legacy.users }
        position: { index: 0 }
        name: ^.name
  legacy.a.b: { into: things, columns: { id: { uuid: _id } } }
not_migrated: [ legacy.logs ]
"#;

#[test]
fn reads_a_whole_file() {
    let migration = read(GOOD).expect("a good file");
    assert_eq!(migration.name, "crm-demo");
    assert_eq!(migration.namespace, slackwater_topics::Namespace::of_migration("crm-demo"));
    assert_eq!(migration.sources[0].uri.expose(), "mongodb://user:hush@host");
    assert_eq!(migration.snapshot, Snapshot { workers: 3, chunk_bytes: 4 << 20, chunk_documents: 12_000 });
    assert_eq!(migration.collections[1].collection, "a.b");
    let users = &migration.collections[0].tables[0];
    let column =
        |name: &str| users.columns.iter().find(|column| column.name.value == name).expect("a column");
    assert_eq!(column("email").policies.null, NullPolicy::Reject);
    assert_eq!(column("email").name.place.line, 15);
    let Rule::Value(email) = &column("email").rule.value else { panic!("a value") };
    assert!(email.trim && email.lower && email.empty_is_null);
    let Rule::Const(price) = &column("price").rule.value else { panic!("a constant") };
    assert_eq!(price.value.text, "1.10");
    let Rule::Value(Value { convert: Convert::Enum { map: Some(map), .. }, .. }) =
        &column("status").rule.value
    else {
        panic!("an enum")
    };
    let keys: Vec<_> = map.iter().map(|(key, label)| (key.value.as_str(), label.value.as_str())).collect();
    assert_eq!(keys, [("A", "active"), ("1", "blocked"), ("yes", "on")]);
    let other = &migration.collections[0].tables[1];
    assert_eq!((other.schema.as_deref(), other.into.value.as_str()), (Some("other"), "locations"));
    assert!(!format!("{migration:?}").contains("hush"));
}

#[test]
fn all_mistakes_at_once() {
    let text = r#"
migraton: crm
sources:
  legacy: { mongodb: { uri: "${NOBODY}", databse: crm } }
target: { postgres: { uri: "postgres://me:hush@host/db", schema: "" } }
log: { kafka: { brokers: x } }
snapshot: { workers: none, chunk_bytes: 8 apples }
defaults: { invalid: default, nul: keep }
collections:
  users: { into: users, columns: { id: { uuid: _id } } }
  legcy.orders:
    - into: orders
      colums: { id: { uuid: _id } }
  legacy.users:
    - into: users
      columns:
        id: { uuid: organisation }
        email: { txt: email }
        name: { text: name, integer: name }
        age: { integer: age, invalid: shrug, unit: s }
        age: age
        nick: { text: nick, null: default }
        org: { ref: organisation }
        tag: { text: tags[].name }
        broken: a..b
        up: ^.x
        parent: { parent: id }
        a_name_that_is_very_much_longer_than_anything_that_postgres_would_keep_whole: x
    - into: lines
      each: lines
      columns: { id: { uuid: each } }
    - [ into ]
not_migrated: [ legacy.users, logs ]
"#;
    let found = read(text).expect_err("mistakes");
    assert!(!found.report(false).contains("hush"));
    insta::assert_snapshot!(found);
}

#[test]
fn a_syntax_error_stops_at_the_first() {
    let found = read("migration: x\nsources: { a: [ }\nlog: direct\n").expect_err("a syntax error");
    assert_eq!(found.errors(), 1);
    assert_eq!(found.list()[0].line, 2);
}

#[test]
fn reports_show_the_line() {
    let found = read(&GOOD.replace("workers: 3", "wokers: 3")).expect_err("a mistake");
    insta::assert_snapshot!(found.report(false));
    assert_eq!(found.to_json()["diagnostics"][0]["line"], 7);
    assert_eq!(found.to_json()["diagnostics"][0]["help"], "did you mean `workers`?");
}

/// What the reference shows must be what the program takes.
#[test]
fn the_reference_is_right() {
    let reference = include_str!("../../docs/migration-file.md");
    let blocks = reference.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let whole: Vec<&str> = blocks.filter(|block| block.starts_with("migration:")).collect();
    assert!(!whole.is_empty());
    for block in whole {
        parse("migration-file.md", block, &|_| Some("x".into())).unwrap_or_else(|found| panic!("{found}"));
    }
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "[a-z:{}\\[\\]\"'& *|>\n-]{0,60}") {
        let _ = read(&text);
    }
}
