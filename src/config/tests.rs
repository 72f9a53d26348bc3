mod append_only;
mod checks;
mod ciphers;
mod secrecy;

use super::*;

fn environment(name: &str) -> Option<String> {
    match name {
        "MONGO" => Some("mongodb://user:hush@host".into()),
        "PG" => Some("postgres://host".into()),
        "BROKERS" => Some("one:9092, [::1]:9093".into()),
        "KAFKA_BROKERS" => Some("broker:9092".into()),
        "KAFKA_PASSWORD" => Some("hush".into()),
        _ => None,
    }
}

fn file(path: &std::path::Path) -> std::io::Result<String> {
    match path.to_str() {
        Some("/run/secrets/mongo") => Ok("mongodb://file:hush@host\r\n".into()),
        Some("/run/secrets/kafka") => Ok("hush ${PG}\n".into()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    }
}

fn read(text: &str) -> Result<Migration, Diagnostics> {
    parse_with(
        "migration.yaml",
        text,
        &Outside {
            environment: &environment,
            file: &file,
            folder: &|_| Err(std::io::ErrorKind::NotFound.into()),
        },
    )
}

/// The file with another log.
fn with_log(log: &str) -> String {
    GOOD.replace("log: direct", log)
}

fn kafka(log: &str) -> KafkaLog {
    match read(&with_log(log)).expect("a good file").log {
        Log::Kafka(kafka) => *kafka,
        Log::Direct => panic!("the log is Kafka"),
    }
}

fn exposed(options: &[(At<String>, slackwater_connectors::secret::Secret)]) -> Vec<(&str, &str)> {
    options.iter().map(|(name, value)| (name.value.as_str(), value.expose())).collect()
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
    assert_eq!(uri(&migration), "mongodb://user:hush@host");
    assert_eq!(migration.snapshot, Snapshot { workers: 3, chunk_bytes: 4 << 20, chunk_documents: 12_000 });
    assert!(matches!(migration.log, Log::Direct));
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
log: { kafka: { broker: x, values: avro, topics: { retention: 7, size: 3 }, group: "", options: { acks: 1 } } }
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

#[test]
fn reads_kafka_as_the_log() {
    let all = r#"
log:
  kafka:
    brokers: "${BROKERS}"
    values: { debezium: { schemas: false } }
    topics:
      prefix: crm.v2
      partitions: 4
      replication: 3
      retention: 7d
      compact: true
      config: { segment.bytes: 104857600, preallocate: false }
    group: the-group
    writers: 3
    options: { security.protocol: SASL_SSL, sasl.password: "${KAFKA_PASSWORD}", ssl.ca.location: "${file:/run/secrets/kafka}" }
    producer: { linger.ms: 20, queue.buffering.backpressure.threshold: 1 }
    consumer: { check.crcs: true }"#;
    let log = kafka(all.trim_start());
    assert_eq!(log.brokers, "one:9092,[::1]:9093");
    assert_eq!(log.values, Values::Debezium { schemas: false });
    assert_eq!(log.prefix.as_deref(), Some("crm.v2"));
    assert_eq!((log.partitions, log.replication), (Some(4), Some(3)));
    assert_eq!((log.retention_ms, log.compact), (Some(604_800_000), true));
    let config = [("segment.bytes", "104857600"), ("preallocate", "false")];
    assert_eq!(log.config, config.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!((log.group.as_str(), log.writers), ("the-group", 3));
    // A file's content is taken as it is, less its last line break.
    let options =
        [("security.protocol", "SASL_SSL"), ("sasl.password", "hush"), ("ssl.ca.location", "hush ${PG}")];
    assert_eq!(exposed(&log.options), options);
    assert_eq!(log.options[1].0.place.line, 19);
    assert_eq!(
        exposed(&log.producer),
        [("linger.ms", "20"), ("queue.buffering.backpressure.threshold", "1")]
    );
    assert_eq!(exposed(&log.consumer), [("check.crcs", "true")]);
    assert_eq!(log.place.line, 8);
    assert!(!format!("{log:?}").contains("hush"));
}

#[test]
fn kafka_needs_its_brokers_and_nothing_else() {
    let log = kafka("log: { kafka: { brokers: one } }");
    assert_eq!((log.brokers.as_str(), log.values), ("one", Values::Bson));
    assert_eq!((log.prefix, log.partitions, log.replication, log.retention_ms), (None, None, None, None));
    assert!(!log.compact && log.config.is_empty() && log.options.is_empty());
    assert_eq!((log.group.as_str(), log.writers), ("slackwater.crm-demo", 1));
    let log = kafka("log: { kafka: { brokers: one, values: debezium, topics: { retention: forever } } }");
    assert_eq!((log.values, log.retention_ms), (Values::Debezium { schemas: true }, Some(-1)));
    for (log, says) in [
        ("log: kafka", "`kafka` has no `brokers`"),
        ("log: { kafka: { } }", "`kafka` has no `brokers`"),
        ("log: { kafak: { brokers: one } }", "`log` knows no `kafak`"),
        ("log: nats", "this log is not known"),
        ("log: [ kafka ]", "this log is not known"),
    ] {
        let found = read(&with_log(log)).expect_err("a mistake");
        assert!(found.list().iter().any(|found| found.line == 6 && found.message == says), "{log}: {found}");
    }
}

#[test]
fn mistakes_in_the_log() {
    let log = r#"
log:
  kafka:
    brokers: "PLAINTEXT://me:hush@host:9092"
    values: { debezum: { schemas: maybe } }
    topics:
      prefix: crm/app
      partitions: 0
      replication: 40000
      retention: 1.5d
      compact: sometimes
      config: { retention.ms: 1000, cleanup.policy: compact, segment.bytes: [ 1 ], segment.ms: }
    writers: 17
    options: { Security: { a: hush }, sasl.pasword: hush, sasl.password: "${file:/run/secrets/none}", bootstrap.servers: x, x: "${A" }
    producer: { acks: 1, enable.idempotence: false, sasl.password: "${NOBODY}" }
    consumer: [ group.id ]
    writer: 2"#;
    let found = read(&with_log(log.trim_start())).expect_err("mistakes");
    let report = found.report(false);
    assert!(
        !report.contains("hush") && report.contains("sasl.pasword: ****, sasl.password: \"${file:"),
        "{report}"
    );
    insta::assert_snapshot!(found);
}

#[test]
fn topics_that_cannot_be() {
    let with = |topics: &str| with_log(&format!("log: {{ kafka: {{ brokers: one, topics: {topics} }} }}"));
    for (text, line, says) in [
        (
            with("{ retention: 7d, config: { retention.ms: 1 } }"),
            6,
            "`retention` says `retention.ms` already",
        ),
        (
            with("{ compact: true, config: { cleanup.policy: delete } }"),
            6,
            "`compact` says `cleanup.policy` already",
        ),
        (with("{ replication: 1, config: { min.insync.replicas: 2 } }"), 6, "min.insync.replicas is 2"),
        (
            with("{ }").replace(
                "legacy.a.b:",
                "legacy.a_b: { into: x, columns: { id: { uuid: _id } } }\n  legacy.a.b:",
            ),
            31,
            "would share the topic",
        ),
    ] {
        let found = read(&text).expect_err("a mistake");
        assert_eq!((found.errors(), found.list()[0].line), (1, line), "{found}");
        assert!(found.list()[0].message.contains(says), "{found}");
    }
    let log = kafka(
        "log: { kafka: { brokers: one, topics: { config: { retention.ms: 1, cleanup.policy: compact } } } }",
    );
    assert_eq!(log.config.len(), 2);
}

#[test]
fn brokers_are_checked_before_anybody_calls_them() {
    for brokers in
        ["one:9092,", ",", "one:kafka", "one:0", "a b:1", ":9092", "x@one:1", "ssl://one:1", "[::1]:x"]
    {
        let found = read(&with_log(&format!("log: {{ kafka: {{ brokers: \"{brokers}\" }} }}")));
        assert_eq!(found.expect_err("a mistake").list()[0].line, 6, "{brokers}");
    }
}

#[test]
fn secrets_may_stand_in_files() {
    let good = read(&GOOD.replace("${MONGO}", "${file:/run/secrets/mongo}")).expect("a good file");
    assert_eq!(uri(&good), "mongodb://file:hush@host");
    let found = read(&GOOD.replace("${PG}", "${file:/run/secrets/none}")).expect_err("a mistake");
    assert_eq!((found.list()[0].line, found.list()[0].column), (5, 28));
    assert!(found.to_string().contains("`/run/secrets/none`"), "{found}");
}

#[test]
fn what_can_be_sensitive() {
    const HEAD: &str = "migration: m
sources: { legacy: { mongodb: { uri: \"${MONGO}\", database: d } } }
target: { postgres: { uri: \"${PG}\", schema: s } }
collections:
  legacy.people:
    - into: people
      columns: { id: { uuid: _id }, a: { text: a, sensitive: true }, b: { text: b, sensitive: false }, c: { rest: jsonb, sensitive: true } }
    - into: notes
      each: notes[]
      columns: { id: { uuid: each, by: index }, a: { text: _id, sensitive: true }, b: COLUMN }
";
    let whole = |column: &str| read(&HEAD.replace("COLUMN", column));
    let good = whole("words").expect("a good file");
    let tables = good.collections[0].tables.iter();
    let sensitive: Vec<bool> =
        tables.flat_map(|table| table.columns.iter().map(|column| column.sensitive)).collect();
    // In an element `_id` is a field like others.
    assert_eq!(sensitive, [false, true, false, true, false, true, false]);
    for (column, said) in [
        ("{ text: ^._id, sensitive: true }", "the id of a document cannot be sensitive"),
        ("{ parent: id, sensitive: true }", "`sensitive` does not go with `parent`"),
        ("{ text: words, sensitive: often }", "`sensitive`"),
    ] {
        let found = whole(column).expect_err("a mistake");
        assert!(found.list().len() == 1 && found.to_string().contains(said), "{column}: {found}");
    }
}

/// What the reference shows must be what the program takes.
#[test]
fn the_reference_is_right() {
    let reference = include_str!("../../docs/migration-file.md");
    let blocks = reference.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let blocks: Vec<&str> = blocks.collect();
    // Those of several files are read where the files are.
    let is_whole = |block: &&&str| block.starts_with("migration:") && !block.contains("\ninclude:");
    let whole: Vec<&str> = blocks.iter().filter(is_whole).copied().collect();
    assert!(!whole.is_empty());
    for block in whole {
        parse("migration-file.md", block, &|_| Some("x".into())).unwrap_or_else(|found| panic!("{found}"));
    }
    let logs: Vec<&str> = blocks.iter().filter(|block| block.starts_with("log:")).copied().collect();
    assert!(!logs.is_empty());
    for block in logs {
        read(&with_log(block)).unwrap_or_else(|found| panic!("{found}"));
    }
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "[a-z:{}\\[\\]\"'& *|>\n-]{0,60}") {
        let _ = read(&text);
    }
}

fn uri(migration: &Migration) -> &str {
    let System::Mongodb { uri, .. } = &migration.sources[0].system else { panic!("a MongoDB") };
    uri.expose()
}
