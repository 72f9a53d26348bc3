use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::event::{CollectionId, Event, Op};
use crate::extjson::tests::any_document;
use crate::key::Key;
use crate::position::{Moment, Position};
use crate::stamp::Stamp;
use crate::value::Value;

const HERE: CollectionId = CollectionId(3);
const NOW: i64 = 1_700_000_009_000;

fn writer(schemas: bool) -> Writer {
    Writer::new(WriterOptions {
        name: "coworking",
        topic: "slackwater.coworking.legacy.user",
        database: "legacy",
        collection: "us\"er",
        schemas,
    })
}

fn event(op: Op) -> Event {
    let document = bson::doc! {"_id": 7, "name": "é\"\n", "tags": [1_i64]}.to_vec().expect("a document");
    Event {
        collection: HERE,
        key: Key::of(Value::Int32(7)).expect("a key"),
        op,
        document: if op == Op::Delete { Bytes::new() } else { document.into() },
        position: match op {
            Op::Snapshot => Position::default(),
            _ => Position::new(Moment::of_halves(5, 1), vec![0x82, 1]),
        },
        time: if op == Op::Snapshot { 0 } else { 1_700_000_000_123 },
    }
}

fn stamp(op: Op) -> Stamp {
    Stamp { epoch: 4, fresh: op == Op::Snapshot, noted: op == Op::Snapshot }
}

fn value(event: &Event, stamp: Stamp, schemas: bool) -> Vec<u8> {
    let mut out = Vec::new();
    writer(schemas).value(event, stamp, NOW, &mut out);
    out
}

fn key(key: &Key, schemas: bool) -> String {
    let mut out = Vec::new();
    writer(schemas).key(key, &mut out);
    String::from_utf8(out).expect("text")
}

#[test]
fn golden_without_schemas() {
    let head = concat!(
        r#"{"version":""#,
        env!("CARGO_PKG_VERSION"),
        r#"","connector":"mongodb","name":"coworking","#
    );
    let after = concat!(
        r#""{\"_id\": {\"$numberInt\": \"7\"},\"name\": \"é\\\"\\n\","#,
        r#"\"tags\": [{\"$numberLong\": \"1\"}]}""#
    );
    let times = r#""ts_us":1700000000123000,"ts_ns":1700000000123000000,"collection":"us\"er","#;
    let now =
        r#""ts_ms":1700000009000,"ts_us":1700000009000000,"ts_ns":1700000009000000000,"transaction":null}"#;
    let ours = r#""slackwater_time":21474836481,"slackwater_token":"8201","slackwater_epoch":4"#;
    for (op, expected) in [
        (
            Op::Snapshot,
            format!(
                concat!(
                    r#"{{"before":null,"after":{},"updateDescription":null,"source":{}"ts_ms":1700000009000,"#,
                    r#""snapshot":"true","db":"legacy","sequence":null,"ts_us":1700000009000000,"#,
                    r#""ts_ns":1700000009000000000,"collection":"us\"er","ord":0,"lsid":null,"txnNumber":null,"#,
                    r#""wallTime":null,"slackwater_time":0,"slackwater_token":"","slackwater_epoch":4,"#,
                    r#""slackwater_flags":3}},"op":"r",{}"#
                ),
                after, head, now
            ),
        ),
        (
            Op::Upsert,
            format!(
                concat!(
                    r#"{{"before":null,"after":{},"updateDescription":null,"source":{}"ts_ms":1700000000123,"#,
                    r#""snapshot":"false","db":"legacy","sequence":null,{}"ord":1,"lsid":null,"txnNumber":null,"#,
                    r#""wallTime":1700000000123,{}}},"op":"u",{}"#
                ),
                after, head, times, ours, now
            ),
        ),
        (
            Op::Delete,
            format!(
                concat!(
                    r#"{{"before":null,"after":null,"updateDescription":null,"source":{}"ts_ms":1700000000123,"#,
                    r#""snapshot":"false","db":"legacy","sequence":null,{}"ord":1,"lsid":null,"txnNumber":null,"#,
                    r#""wallTime":1700000000123,{},"slackwater_key":"EAAAAAAAAAAH"}},"op":"d",{}"#
                ),
                head, times, ours, now
            ),
        ),
    ] {
        let text = String::from_utf8(value(&event(op), stamp(op), false)).expect("text");
        assert_eq!(text, expected);
    }
}

#[test]
fn the_schema_is_debeziums() {
    let field =
        |kind: &str, optional: bool, name: &str| json!({"type": kind, "optional": optional, "field": name});
    let document = |name: &str| json!({"type": "string", "optional": true, "name": "io.debezium.data.Json", "version": 1, "field": name});
    let schema = json!({
        "type": "struct", "optional": false, "name": "slackwater.coworking.legacy.user.Envelope",
        "fields": [
            document("before"),
            document("after"),
            {
                "type": "struct", "optional": true, "version": 1, "field": "updateDescription",
                "name": "io.debezium.connector.mongodb.changestream.updatedescription",
                "fields": [
                    {"type": "array", "items": {"type": "string", "optional": false}, "optional": true,
                        "field": "removedFields"},
                    document("updatedFields"),
                    {"type": "array", "optional": true, "field": "truncatedArrays", "items": {
                        "type": "struct", "optional": false, "version": 1,
                        "name": "io.debezium.connector.mongodb.changestream.truncatedarray",
                        "fields": [field("string", false, "field"), field("int32", false, "size")],
                    }},
                ],
            },
            {
                "type": "struct", "optional": false, "version": 1, "field": "source",
                "name": "io.debezium.connector.mongo.Source",
                "fields": [
                    field("string", false, "version"),
                    field("string", false, "connector"),
                    field("string", false, "name"),
                    field("int64", false, "ts_ms"),
                    {"type": "string", "optional": true, "name": "io.debezium.data.Enum", "version": 1,
                        "default": "false", "field": "snapshot", "parameters": {"allowed":
                        "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"}},
                    field("string", false, "db"),
                    field("string", true, "sequence"),
                    field("int64", true, "ts_us"),
                    field("int64", true, "ts_ns"),
                    field("string", false, "collection"),
                    field("int32", false, "ord"),
                    field("string", true, "lsid"),
                    field("int64", true, "txnNumber"),
                    field("int64", true, "wallTime"),
                    field("int64", true, "slackwater_time"),
                    field("string", true, "slackwater_token"),
                    field("int64", true, "slackwater_epoch"),
                    field("int32", true, "slackwater_flags"),
                    field("string", true, "slackwater_key"),
                    field("string", true, "slackwater_document"),
                ],
            },
            field("string", true, "op"),
            field("int64", true, "ts_ms"),
            field("int64", true, "ts_us"),
            field("int64", true, "ts_ns"),
            {
                "type": "struct", "optional": true, "name": "event.block", "version": 1, "field": "transaction",
                "fields": [
                    field("string", false, "id"),
                    field("int64", false, "total_order"),
                    field("int64", false, "data_collection_order"),
                ],
            },
        ],
    });
    for op in [Op::Snapshot, Op::Upsert, Op::Delete] {
        let whole: Json = serde_json::from_slice(&value(&event(op), stamp(op), true)).expect("JSON");
        let payload: Json = serde_json::from_slice(&value(&event(op), stamp(op), false)).expect("JSON");
        assert_eq!(whole, json!({"schema": schema, "payload": payload}));
    }
}

/// What Kafka Connect checks when it reads a value by its schema.
fn fits(schema: &Json, value: &Json) -> bool {
    if value.is_null() {
        return schema["optional"] == true;
    }
    match schema["type"].as_str().expect("a type") {
        "string" => value.is_string(),
        "int32" => value.as_i64().is_some_and(|value| i32::try_from(value).is_ok()),
        "int64" => value.is_i64(),
        "struct" => {
            let fields = schema["fields"].as_array().expect("fields");
            let declared = |name: &String| fields.iter().any(|field| field["field"] == **name);
            value.as_object().is_some_and(|object| object.keys().all(declared))
                && fields.iter().all(|field| fits(field, &value[field["field"].as_str().expect("a name")]))
        }
        other => panic!("no value has the type {other}"),
    }
}

fn parsed_and_fits(text: &[u8]) -> Json {
    let mut whole: Json = serde_json::from_slice(text).expect("JSON");
    assert!(fits(&whole["schema"], &whole["payload"]), "{whole}");
    whole["payload"].take()
}

#[test]
fn keys_are_debeziums() {
    let of = |value: Value<'_>| Key::of(value).expect("a key");
    let text = |value| key(&of(value), false);
    assert_eq!(text(Value::ObjectId(&[0xab; 12])), r#"{"id":"{\"$oid\": \"abababababababababababab\"}"}"#);
    assert_eq!(text(Value::Int32(1004)), r#"{"id":"1004"}"#);
    assert_eq!(text(Value::Double(12.34)), r#"{"id":"12.34"}"#);
    assert_eq!(text(Value::String(b"a\"b")), r#"{"id":"\"a\\\"b\""}"#);
    assert_eq!(text(Value::DateTime(-1)), r#"{"id":"{\"$date\": {\"$numberLong\": \"-1\"}}"}"#);
    assert_eq!(
        key(&of(Value::Int32(1)), true),
        concat!(
            r#"{"schema":{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"}],"#,
            r#""optional":false,"name":"slackwater.coworking.legacy.user.Key"},"payload":{"id":"1"}}"#
        )
    );
    parsed_and_fits(key(&of(Value::Null), true).as_bytes());
    // Equal in MongoDB, equal here.
    assert_eq!(text(Value::Double(1.0)), text(Value::Int64(1)));
    // Bytes that are not a key still tell themselves apart.
    assert_eq!(
        key(&Key::from_bytes(&[0x10]), false),
        r#"{"id":"{\"$binary\": {\"base64\": \"EA==\",\"subType\": \"00\"}}"}"#
    );
    let mut mark = Vec::new();
    writer(true).mark_key(&mut mark);
    assert_eq!(parsed_and_fits(&mark), json!({"id": "\"slackwater: a mark, no document\""}));
}

fn comes_back(event: &Event, stamp: Stamp) {
    for schemas in [true, false] {
        assert_eq!(read(&value(event, stamp, schemas), HERE), Ok((event.clone(), stamp)));
    }
    parsed_and_fits(&value(event, stamp, true));
}

#[test]
fn odd_events_come_back() {
    let document = bson::doc! {"_id": 7, "wrapper": {"$oid": 1}}.to_vec().expect("a document");
    comes_back(&Event { document: document.into(), ..event(Op::Upsert) }, stamp(Op::Upsert));
    let key = Key::of(Value::String(b"another")).expect("a key");
    comes_back(&Event { key: key.clone(), ..event(Op::Snapshot) }, stamp(Op::Upsert));
    let broken = Event { document: Bytes::from_static(b"\x01\x02"), key, ..event(Op::Upsert) };
    comes_back(&broken, stamp(Op::Snapshot));
    let payload = parsed_and_fits(&value(&broken, stamp(Op::Upsert), true));
    assert_eq!(payload["after"], r#"{"_id": "another"}"#);
    for time in [i64::MIN, -1, i64::MAX] {
        let position = Position::new(Moment(u64::MAX), vec![]);
        comes_back(&Event { time, position, ..event(Op::Delete) }, Stamp { epoch: time, ..Stamp::default() });
    }
}

#[test]
fn what_others_write_is_refused_by_name() {
    let written: Json =
        serde_json::from_slice(&value(&event(Op::Upsert), stamp(Op::Upsert), false)).expect("JSON");
    let without = |path: &str, name: &str| {
        let mut value = written.clone();
        value
            .pointer_mut(path)
            .and_then(Json::as_object_mut)
            .expect("an object")
            .remove(name)
            .expect("a field");
        read(&serde_json::to_vec(&value).expect("JSON"), HERE)
    };
    assert_eq!(without("", "op"), Err(ReadError::Field("op")));
    assert_eq!(without("", "source"), Err(ReadError::Field("source")));
    assert_eq!(without("", "after"), Err(ReadError::Field("after")));
    assert_eq!(without("/source", "slackwater_time"), Err(ReadError::Foreign));
    assert_eq!(without("/source", "slackwater_epoch"), Err(ReadError::Field("source.slackwater_epoch")));
    let with = |path: &str, new: Json| {
        let mut value = written.clone();
        *value.pointer_mut(path).expect("a field") = new;
        read(&serde_json::to_vec(&value).expect("JSON"), HERE)
    };
    assert_eq!(with("/op", json!("t")), Err(ReadError::Field("op")));
    assert!(matches!(with("/after", json!("{x")), Err(ReadError::After(error)) if error.at == 1));
    assert_eq!(with("/after", json!("{}")), Err(ReadError::Field("source.slackwater_key")));
    assert_eq!(
        with("/source/slackwater_token", json!("8")),
        Err(ReadError::Field("source.slackwater_token"))
    );
    assert_eq!(with("/op", json!("c")).map(|(event, _)| event.op), Ok(Op::Upsert));
    assert!(matches!(with("/source", json!("secret")), Err(ReadError::Json { line: 1, .. })));
    let error = with("/source", json!("secret")).expect_err("no source").to_string();
    assert!(!error.contains("secret"), "{error}");
    assert_eq!(read(b"\x05\0\0\0\0", HERE), Err(ReadError::Json { line: 1, column: 1 }));
    assert_eq!(read(br#"{"schema":null,"payload":null}"#, HERE), Err(ReadError::Field("op")));
}

#[test]
fn deep_documents_come_back() {
    let mut raw = vec![5, 0, 0, 0, 0];
    for _ in 0..6_000 {
        let inner = [[3, b'a', 0].as_slice(), &raw, &[0]].concat();
        raw = [(inner.len() as i32 + 4).to_le_bytes().as_slice(), &inner].concat();
    }
    let deep = Event { document: raw.into(), ..event(Op::Upsert) };
    assert_eq!(read(&value(&deep, Stamp::default(), true), HERE), Ok((deep, Stamp::default())));
}

proptest! {
    #[test]
    fn any_event_comes_back(
        (op, document) in prop_oneof![
            Just((Op::Delete, vec![])),
            any_document().prop_map(|raw| (Op::Upsert, raw)),
            any_document().prop_map(|raw| (Op::Snapshot, raw)),
        ],
        other in any_document(),
        (time, cluster, token) in any::<(i64, u64, Vec<u8>)>(),
        (epoch, fresh, noted) in any::<(i64, bool, bool)>(),
    ) {
        let id = crate::Document::new(&document).ok().and_then(|document| document.get(b"_id").ok().flatten());
        let other = Value::Document(crate::Document::new(&other).expect("well formed"));
        let event = Event {
            collection: HERE,
            key: Key::of(id.unwrap_or(other)).expect("a key"),
            op,
            document: document.clone().into(),
            position: Position::new(Moment(cluster), token),
            time,
        };
        comes_back(&event, Stamp { epoch, fresh, noted });
        parsed_and_fits(self::key(&event.key, true).as_bytes());
    }
}
