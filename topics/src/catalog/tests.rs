use serde_json::{Value as Json, json};

use super::*;

fn names(migration: &str, collections: &[&str], prefix: Option<&str>) -> Result<Vec<String>, CatalogError> {
    let overrides = Overrides { prefix: prefix.map(Into::into), ..Overrides::default() };
    let specs = topics(Format::Bson, migration, collections, &overrides)?;
    Ok(specs.into_iter().map(|spec| spec.name).collect())
}

fn config(format: Format, overrides: &Overrides) -> String {
    let specs = topics(format, "coworking", &["legacy.user"], overrides).expect("topics");
    let settings: Vec<_> = specs[0].config.iter().map(|(name, value)| format!("{name}={value}")).collect();
    settings.join(" ")
}

fn spec() -> TopicSpec {
    let mut specs =
        topics(Format::Bson, "coworking", &["legacy.user"], &Overrides::default()).expect("topics");
    specs.remove(0)
}

/// As the description has it, and with settings of its own.
fn as_described() -> Observed {
    let TopicSpec { partitions, replication, mut config, .. } = spec();
    config.insert("segment.bytes".into(), "1000000".into());
    Observed { partitions, replication, config }
}

fn lines(change: impl FnOnce(&mut Observed)) -> Vec<String> {
    let mut observed = as_described();
    change(&mut observed);
    plan(&spec(), Some(&observed), 3).lines()
}

#[test]
fn golden() {
    let specs = topics(Format::Bson, "coworking", &["legacy.user", "legacy.booking"], &Overrides::default())
        .expect("topics");
    let names: Vec<_> = specs.iter().map(|spec| (spec.name.as_str(), spec.collection.0)).collect();
    assert_eq!(names, [("slackwater.coworking.legacy.user", 0), ("slackwater.coworking.legacy.booking", 1)]);
    let TopicSpec { partitions, replication, format, compact, .. } = specs[1];
    assert_eq!((partitions, replication, format, compact), (4, 3, Format::Bson, false));
    let bson = "cleanup.policy=delete compression.type=producer min.insync.replicas=2 retention.ms=604800000";
    assert_eq!(config(Format::Bson, &Overrides::default()), bson);
    assert_eq!(
        config(Format::Debezium, &Overrides::default()),
        "cleanup.policy=delete compression.type=producer max.message.bytes=33554432 min.insync.replicas=2 \
         retention.ms=604800000"
    );
}

#[test]
fn what_is_said_otherwise_goes_before() {
    let overrides = Overrides {
        partitions: Some(12),
        replication: Some(1),
        retention_ms: Some(1000),
        config: vec![("compression.type".into(), "zstd".into()), ("segment.ms".into(), "5".into())],
        ..Overrides::default()
    };
    let specs = topics(Format::Bson, "coworking", &["legacy.user"], &overrides).expect("topics");
    assert_eq!((specs[0].partitions, specs[0].replication), (12, 1));
    assert_eq!(
        config(Format::Bson, &overrides),
        "cleanup.policy=delete compression.type=zstd min.insync.replicas=1 retention.ms=1000 segment.ms=5"
    );
    let compact = Overrides { compact: true, ..Overrides::default() };
    assert_eq!(
        config(Format::Bson, &compact),
        "cleanup.policy=compact compression.type=producer delete.retention.ms=604800000 min.insync.replicas=2"
    );
    assert!(topics(Format::Bson, "coworking", &["legacy.user"], &compact).expect("topics")[0].compact);
    let both = vec![("cleanup.policy".into(), "delete, compact".into())];
    let both = Overrides { config: both, ..Overrides::default() };
    assert!(topics(Format::Bson, "coworking", &["legacy.user"], &both).expect("topics")[0].compact);
}

#[test]
fn names_are_legal() {
    assert_eq!(names("co/ö", &["a b.c$d-e_f"], None), Ok(vec!["slackwater.co__.a_b.c_d-e_f".into()]));
    assert_eq!(names("x", &["a.b"], Some("team.cdc")), Ok(vec!["team.cdc.a.b".into()]));
    assert_eq!(
        names("{collection}", &["{migration}"], None),
        Ok(vec!["slackwater._collection_._migration_".into()])
    );
    let long = "c".repeat(249 - "slackwater.x.".len());
    assert_eq!(names("x", &[&long], None).map(|names| names[0].len()), Ok(249));
}

#[test]
fn what_makes_no_topics_is_told() {
    let error = |overrides: Overrides, collections: &[&str]| {
        topics(Format::Bson, "x", collections, &overrides).expect_err("an error").to_string()
    };
    assert_eq!(
        error(Overrides::default(), &["a.b", "a.c", "a_c"]),
        "collections `a.c` and `a_c` would share the topic `slackwater.x.a_c` (Kafka holds `.` and `_` in names to be \
         the same, and other characters become `_`): move one of them into a migration of its own"
    );
    assert!(
        error(Overrides::default(), &["a$b", "a b"]).starts_with("collections `a$b` and `a b` would share")
    );
    let long = "c".repeat(237);
    assert_eq!(
        error(Overrides::default(), &[&long]),
        format!(
            "the topic of collection `{long}` would be `slackwater.x.{long}` with 250 characters; Kafka takes 249 at \
             most, and neither `.` nor `..`: set another prefix"
        )
    );
    assert!(names("x", &[""], Some("")).is_err());
    assert_eq!(
        error(Overrides { partitions: Some(0), ..Overrides::default() }, &["a.b"]),
        "a topic cannot have partitions: 0; set 1 or more"
    );
    assert_eq!(
        error(Overrides { replication: Some(0), ..Overrides::default() }, &["a.b"]),
        "a topic cannot have replication: 0; set 1 or more"
    );
    let config = vec![("min.insync.replicas".into(), "3".into())];
    assert_eq!(
        error(Overrides { replication: Some(2), config, ..Overrides::default() }, &["a.b"]),
        "min.insync.replicas is 3, but there are 2 replicas, so no record could be written: set 2 or less"
    );
}

#[test]
fn a_topic_that_is_not_there_is_made() {
    let made = plan(&spec(), None, 3);
    assert_eq!(made.steps, [Step::Create { partitions: 4, replication: 3 }]);
    assert_eq!(
        made.lines(),
        ["slackwater.coworking.legacy.user: create it with partitions: 4, replication: 3"]
    );
    let impossible = plan(&spec(), None, 1);
    assert_eq!(
        impossible.lines(),
        [
            "slackwater.coworking.legacy.user: described is replication: 3, the cluster has brokers: 1; describe 1 or \
          less, or add brokers"
        ]
    );
    assert!(impossible.problems[0].stops());
}

#[test]
fn only_what_is_described_is_changed() {
    assert!(plan(&spec(), Some(&as_described()), 3).is_settled());
    assert_eq!(
        lines(|observed| {
            observed.config.insert("retention.ms".into(), "1000".into());
            observed.config.remove("compression.type");
        }),
        [
            "slackwater.coworking.legacy.user: set compression.type to producer",
            "slackwater.coworking.legacy.user: change retention.ms from 1000 to 604800000",
        ]
    );
}

#[test]
fn what_cannot_be_mended_is_told() {
    assert_eq!(
        lines(|observed| observed.partitions = 2),
        [
            "slackwater.coworking.legacy.user: it has partitions: 2, described are 4; adding some would move keys, so \
          describe 2, or delete the topic and copy its collection again"
        ]
    );
    assert_eq!(
        lines(|observed| observed.partitions = 6),
        [
            "slackwater.coworking.legacy.user: it has partitions: 6, described are 4; events go to the first 4, the \
          others stay empty"
        ]
    );
    assert_eq!(
        lines(|observed| {
            observed.config.insert("max.message.bytes".into(), "65535".into());
        }),
        [
            "slackwater.coworking.legacy.user: max.message.bytes is 65535, which is too small for a part of an event; \
          set 65536 or more"
        ]
    );
    assert!(
        lines(|observed| {
            observed.config.insert("max.message.bytes".into(), "65536".into());
        })
        .is_empty()
    );
}

/// Raising `min.insync.replicas` to what is described would make the topic one that nobody can write.
#[test]
fn few_replicas_stay_writable() {
    assert_eq!(
        lines(|observed| {
            observed.replication = 1;
            observed.config.insert("min.insync.replicas".into(), "1".into());
        }),
        ["slackwater.coworking.legacy.user: it has replication: 1, described is 3; change it with Kafka's \
          kafka-reassign-partitions, or describe 1"]
    );
    let lowered = lines(|observed| observed.replication = 1);
    assert_eq!(lowered[0], "slackwater.coworking.legacy.user: change min.insync.replicas from 2 to 1");
}

#[test]
fn a_size_that_is_too_small_is_not_set() {
    let config = vec![("max.message.bytes".into(), "1000".into())];
    let overrides = Overrides { config, ..Overrides::default() };
    let spec = topics(Format::Bson, "coworking", &["legacy.user"], &overrides).expect("topics").remove(0);
    let expected = [Problem::MessageBytes { bytes: 1000 }];
    for observed in [None, Some(&as_described())] {
        let plan = plan(&spec, observed, 3);
        assert_eq!((plan.steps.len(), plan.problems.as_slice()), (0, expected.as_slice()));
    }
    // One that is too small is raised where another is described.
    let mut observed = as_described();
    observed.config.insert("max.message.bytes".into(), "1000".into());
    let spec = topics(Format::Debezium, "coworking", &["legacy.user"], &Overrides::default())
        .expect("topics")
        .remove(0);
    assert_eq!(
        plan(&spec, Some(&observed), 3).lines(),
        ["slackwater.coworking.legacy.user: change max.message.bytes from 1000 to 33554432"]
    );
}

#[test]
fn the_files_name_each_other() {
    for format in [Format::Bson, Format::Debezium] {
        let description = describe(format).expect("a description");
        assert_eq!(description.value.content_type.as_deref(), Some(format.content_type()));
        assert_eq!(description.value.schema, Some(format!("event.{format}.schema.json")));
        let schema: Json = serde_json::from_str(schema(format)).expect("JSON");
        assert_eq!(schema["$id"], format!("urn:slackwater:event.{format}:v1"));
    }
}

/// As much of JSON Schema as our files use; what they do not use is refused.
fn fits(root: &Json, schema: &Json, value: &Json) -> bool {
    let kind = |name: &str| match name {
        "object" => value.is_object(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "null" => value.is_null(),
        other => panic!("no type {other}"),
    };
    let all = |schema: &Json| schema.as_object().expect("a schema").clone();
    all(schema).iter().all(|(keyword, rule)| match keyword.as_str() {
        "$ref" => {
            let target = rule.as_str().and_then(|path| root.pointer(path.trim_start_matches('#')));
            fits(root, target.expect("a definition"), value)
        }
        "type" => match rule {
            Json::Array(names) => names.iter().any(|name| kind(name.as_str().expect("a name"))),
            name => kind(name.as_str().expect("a name")),
        },
        "const" => rule == value,
        "enum" => rule.as_array().expect("values").contains(value),
        "minimum" => value.as_i64() >= rule.as_i64(),
        "required" => {
            let names = rule.as_array().expect("names");
            names.iter().all(|name| value.get(name.as_str().expect("a name")).is_some())
        }
        "properties" => {
            all(rule).iter().all(|(name, rule)| value.get(name).is_none_or(|value| fits(root, rule, value)))
        }
        "oneOf" => {
            rule.as_array().expect("schemas").iter().filter(|rule| fits(root, rule, value)).count() == 1
        }
        "not" => !fits(root, rule, value),
        "if" => {
            let branch = if fits(root, rule, value) { "then" } else { "else" };
            fits(root, &schema[branch], value)
        }
        "then" | "else" | "$schema" | "$id" | "$defs" | "title" | "description" => true,
        other => panic!("no keyword {other}"),
    })
}

fn is_described(format: Format, value: &Json) -> bool {
    let schema: Json = serde_json::from_str(schema(format)).expect("JSON");
    fits(&schema, &schema, value)
}

#[test]
fn the_schema_of_bson_tells_records_apart() {
    let binary = json!({"$binary": {"base64": "AQ==", "subType": "00"}});
    let time = json!({"$timestamp": {"t": 5, "i": 1}});
    let date = json!({"$date": {"$numberLong": "-1"}});
    let event = json!({
        "v": 1, "c": "legacy.user", "o": "u", "k": binary, "t": time, "p": binary, "w": date, "e": 4, "d": {"_id": 7},
    });
    let part = json!({"v": 1, "o": "x", "e": 4, "g": 9, "i": 0, "n": 2, "b": binary});
    let mark = json!({"v": 1, "e": 4, "t": time, "w": {"$date": "2023-11-14T22:13:20Z"}});
    let with = |value: &Json, name: &str, new: Json| {
        let mut value = value.clone();
        value[name] = new;
        value
    };
    let without = |value: &Json, name: &str| {
        let mut value = value.clone();
        value.as_object_mut().expect("an object").remove(name).expect("a field");
        value
    };
    for described in [
        &event,
        &with(&event, "f", json!(true)),
        &with(&event, "later", json!(1)),
        &without(&with(&event, "o", json!("d")), "d"),
        &part,
        &mark,
        &with(&mark, "f", binary.clone()),
    ] {
        assert!(is_described(Format::Bson, described), "{described}");
    }
    for other in [
        &without(&event, "d"),
        &without(&event, "e"),
        &with(&event, "o", json!("d")),
        &with(&event, "o", json!("z")),
        &with(&event, "v", json!(2)),
        &with(&event, "n", json!(false)),
        &without(&part, "b"),
        &with(&part, "n", json!(0)),
        &without(&mark, "t"),
        &json!({}),
    ] {
        assert!(!is_described(Format::Bson, other), "{other}");
    }
}

#[test]
fn the_schema_of_debezium_describes_what_is_written() {
    use crate::debezium::{Writer, WriterOptions};
    use crate::{Event, Key, Moment, Op, Position, Stamp, Value};

    let options = WriterOptions {
        name: "coworking",
        topic: "slackwater.coworking.legacy.user",
        database: "legacy",
        collection: "user",
        schemas: false,
    };
    for schemas in [false, true] {
        let writer = Writer::new(WriterOptions { schemas, ..options });
        for op in [Op::Snapshot, Op::Upsert, Op::Delete] {
            let document = bson::doc! {"_id": 7, "wrapper": {"$oid": 1}}.to_vec().expect("a document");
            let event = Event {
                collection: CollectionId(0),
                key: Key::of(Value::Int32(7)).expect("a key"),
                op,
                document: if op == Op::Delete { Vec::new() } else { document }.into(),
                position: Position::new(Moment::of_halves(5, 1), vec![1]),
                time: if op == Op::Snapshot { 0 } else { i64::MAX },
            };
            let mut out = Vec::new();
            writer.value(&event, Stamp { epoch: 4, fresh: true, noted: false }, 9, &mut out);
            let value: Json = serde_json::from_slice(&out).expect("JSON");
            assert!(is_described(Format::Debezium, &value), "{value}");
            // Every field that is written is described.
            let root: Json = serde_json::from_str(schema(Format::Debezium)).expect("JSON");
            let payload = if schemas { &value["payload"] } else { &value };
            for (path, object) in [("payload", payload), ("source", &payload["source"])] {
                let described = &root["$defs"][path]["properties"];
                for name in object.as_object().expect("an object").keys() {
                    assert!(described.get(name).is_some(), "{name}");
                }
            }
            let mut broken = payload.clone();
            broken["source"]["slackwater_epoch"] = json!("4");
            assert!(!is_described(Format::Debezium, &broken));
        }
    }
}
