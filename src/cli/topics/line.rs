//! One record as `slackwater topics tail` prints it: a line for a person, or a JSON object.
//!
//! Keys are always shown, the values of a document only on request.

use bytes::Bytes;
use serde_json::{Value as Json, json};
use slackwater_connectors::kafka::Found;
use slackwater_topics::{CollectionId, Document, Key, Op, Record, Value, debezium, extjson};

use crate::mapping::Sensitive;

/// A record, ready to be printed.
#[derive(Debug)]
pub(super) struct Line {
    partition: i32,
    offset: i64,
    size: usize,
    key: Option<Name>,
    content: Result<Record, String>,
    documents: bool,
}

/// A key, in one of the two forms that records have.
#[derive(Debug)]
enum Name {
    Canonical(Key),
    /// Debezium's form, in extended JSON.
    Text(String),
}

impl Line {
    /// Reads a record. `documents`: the document is to be printed, less these fields.
    pub(super) fn of(found: &Found, collection: &str, documents: Option<&Sensitive>) -> Self {
        let mut content = read(found, collection);
        if let (Ok(Record::Event(event, _)), Some(sensitive)) = (&mut content, documents) {
            event.document = sensitive.blanked(&event.document);
        }
        let key = match (&content, &found.key) {
            (Ok(Record::Event(event, _)), _) => Some(Name::Canonical(event.key.clone())),
            (Ok(Record::Tombstone), Some(bytes)) => name(bytes),
            _ => None,
        };
        Self {
            partition: found.partition,
            offset: found.offset,
            size: found.value.as_ref().map_or(0, Bytes::len),
            key,
            content,
            documents: documents.is_some(),
        }
    }

    /// For a person.
    pub(super) fn text(&self) -> String {
        let key = self.key.as_ref().map(Name::text);
        let (time, what, rest) = match &self.content {
            Ok(Record::Event(event, _)) => (event.time, word(event.op), key.unwrap_or_default()),
            Ok(Record::Part(part)) => {
                let rest = format!("{} of {}, group {}", part.index + 1, part.count, part.group);
                (0, "part", rest)
            }
            Ok(Record::Mark(mark)) => {
                let fence = mark.fence.map(|fence| format!(", fence {fence}")).unwrap_or_default();
                (mark.at, "mark", format!("all up to {}, epoch {}{fence}", mark.time, mark.epoch))
            }
            Ok(Record::Tombstone) => (0, "tombstone", key.unwrap_or_default()),
            Err(why) => (0, "unknown", why.clone()),
        };
        let place = format!("{}/{}", self.partition, self.offset);
        let mut text = format!("{place:<12}  {:<24}  {what:<9}  {rest}", at(time));
        if self.size > 0 {
            text += &format!("  {} bytes", self.size);
        }
        if let Some(document) = self.document() {
            text += "  ";
            text += &extended(document, Types::AsPeopleWrite);
        }
        // JSON strings may hold control characters that a terminal would obey.
        one_line(&text)
    }

    /// For a machine: one object, on one line.
    pub(super) fn json(&self) -> String {
        let mut object = json!({ "partition": self.partition, "offset": self.offset, "bytes": self.size });
        let more = match &self.content {
            Ok(Record::Event(event, stamp)) => json!({
                "kind": "event", "op": word(event.op), "time": event.time,
                "cluster_time": event.position.moment.0, "epoch": stamp.epoch,
            }),
            Ok(Record::Part(part)) => json!({
                "kind": "part", "index": part.index, "count": part.count, "group": part.group,
                "epoch": part.epoch,
            }),
            Ok(Record::Mark(mark)) => json!({
                "kind": "mark", "time": mark.at, "cluster_time": mark.time.0, "epoch": mark.epoch,
                "fence": mark.fence,
            }),
            Ok(Record::Tombstone) => json!({ "kind": "tombstone" }),
            Err(why) => json!({ "kind": "unknown", "error": why }),
        };
        if let (Json::Object(object), Json::Object(more)) = (&mut object, more) {
            object.extend(more);
        }
        let mut text = object.to_string();
        // Written as text, because a tree of JSON would sort a document's fields and lose repeated ones.
        let key = self.key.as_ref().map(Name::json);
        let document = self.document().map(|document| extended(document, Types::Exact));
        for (name, value) in [("key", key), ("document", document)] {
            if let Some(value) = value {
                text.truncate(text.len() - 1);
                text += &format!(",\"{name}\":{value}}}");
            }
        }
        text
    }

    fn document(&self) -> Option<&[u8]> {
        match &self.content {
            Ok(Record::Event(event, _)) if self.documents && !event.document.is_empty() => {
                Some(&event.document)
            }
            _ => None,
        }
    }
}

/// Reads a record of either form, because a topic may hold both after `values` was changed.
fn read(found: &Found, collection: &str) -> Result<Record, String> {
    let id = CollectionId(0);
    match &found.value {
        Some(value) if value.first() == Some(&b'{') && length(value) != Some(value.len()) => {
            let read = debezium::read(value, id);
            read.map(|(event, stamp)| Record::Event(event, stamp)).map_err(|error| error.to_string())
        }
        value => Record::read(value.as_ref(), found.mark.as_deref(), id, collection)
            .map_err(|error| error.to_string()),
    }
}

/// The length that BSON begins with.
fn length(value: &Bytes) -> Option<usize> {
    usize::try_from(i32::from_le_bytes(*value.first_chunk()?)).ok()
}

/// The key of a record without a value.
fn name(bytes: &Bytes) -> Option<Name> {
    // No canonical key begins with a brace.
    if bytes.first() != Some(&b'{') {
        return Some(Name::Canonical(Key::from_bytes(bytes)));
    }
    let key: Json = serde_json::from_slice(bytes).ok()?;
    let id = key.get("payload").unwrap_or(&key).get("id")?;
    Some(Name::Text(id.as_str()?.to_owned()))
}

impl Name {
    fn text(&self) -> String {
        match self {
            Self::Canonical(key) => match in_document(key) {
                // The usual types are printed as in `slackwater status`.
                Some((Shape::Plain, _)) | None => key.to_string(),
                Some((Shape::Other, bytes)) => value(&bytes, Types::AsPeopleWrite),
            },
            Self::Text(text) => text.clone(),
        }
    }

    fn json(&self) -> String {
        match self {
            Self::Canonical(key) => match in_document(key) {
                Some((_, bytes)) => value(&bytes, Types::Exact),
                None => Json::String(key.to_string()).to_string(),
            },
            Self::Text(text) => match serde_json::from_str::<Json>(text) {
                Ok(_) => one_line(text),
                Err(_) => Json::String(text.clone()).to_string(),
            },
        }
    }
}

/// Replaces control characters. JSON has no line breaks inside strings, and between its tokens they mean nothing.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

enum Shape {
    /// An ObjectId or a whole number.
    Plain,
    Other,
}

/// The key as the only field of a document.
fn in_document(key: &Key) -> Option<(Shape, Vec<u8>)> {
    let mut bytes = vec![0; 4];
    key.write_element("", &mut bytes).ok()?;
    bytes.push(0);
    let length = i32::try_from(bytes.len()).ok()?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    let shape = match Document::new(&bytes).ok()?.get(b"").ok()?? {
        Value::ObjectId(_) | Value::Int32(_) | Value::Int64(_) => Shape::Plain,
        _ => Shape::Other,
    };
    Some((shape, bytes))
}

/// How numbers and times are written in extended JSON.
#[derive(Clone, Copy)]
enum Types {
    Exact,
    AsPeopleWrite,
}

fn value(holder: &[u8], types: Types) -> String {
    let found = Document::new(holder).and_then(|holder| holder.get(b""));
    found.ok().flatten().map_or_else(|| UNREADABLE.to_owned(), |found| write(found, types))
}

fn extended(document: &[u8], types: Types) -> String {
    Document::new(document)
        .map_or_else(|_| UNREADABLE.to_owned(), |document| write(Value::Document(document), types))
}

/// Printed instead of invalid BSON, in places where JSON is expected.
const UNREADABLE: &str = "\"(unreadable)\"";

fn write(value: Value<'_>, types: Types) -> String {
    let mut out = Vec::new();
    let written = match types {
        Types::Exact => extjson::write_value(value, &mut out),
        Types::AsPeopleWrite => extjson::write_relaxed(value, &mut out),
    };
    match written {
        Ok(_) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => UNREADABLE.to_owned(),
    }
}

fn word(op: Op) -> &'static str {
    match op {
        Op::Snapshot => "snapshot",
        Op::Upsert => "upsert",
        Op::Delete => "delete",
    }
}

/// A time of the source. Copied documents have none.
fn at(millis: i64) -> String {
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) if millis != 0 => format!("{time:.3}"),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;
    use slackwater_topics::{Event, Mark, Moment, Part, Position, Stamp, encode};

    use super::*;

    fn event(op: Op, id: impl Into<bson::Bson>) -> Event {
        let document = doc! { "_id": id, "b": "value\u{9b}", "a": 1_i64 }.to_vec().expect("a document");
        let key = Document::new(&document).expect("BSON").get(b"_id").expect("BSON").expect("an id");
        Event {
            collection: CollectionId(0),
            key: Key::of(key).expect("a key"),
            op,
            document: if op == Op::Delete { Bytes::new() } else { document.clone().into() },
            position: Position::new(Moment::of_halves(5, 1), vec![1]),
            time: if op == Op::Snapshot { 0 } else { 1_700_000_000_123 },
        }
    }

    fn record(key: Option<&[u8]>, value: Option<Vec<u8>>, mark: Option<Vec<u8>>) -> Found {
        Found {
            partition: 2,
            offset: 17,
            key: key.map(Bytes::copy_from_slice),
            value: value.map(Bytes::from),
            mark: mark.map(Bytes::from),
        }
    }

    fn sent(event: &Event) -> Found {
        let mut value = Vec::new();
        encode(event, "legacy.users", Stamp { epoch: 3, ..Stamp::default() }, &mut value);
        record(Some(event.key.as_bytes()), Some(value), None)
    }

    fn shown(found: &Found, documents: bool) -> (String, Json) {
        let none = Sensitive::default();
        let line = Line::of(found, "legacy.users", documents.then_some(&none));
        let (text, json) = (line.text(), line.json());
        assert!(!text.contains(char::is_control) && !json.contains('\n'), "{text}\n{json}");
        (text, serde_json::from_str(&json).expect("JSON"))
    }

    #[test]
    fn events() {
        let (text, json) = shown(&sent(&event(Op::Upsert, 7)), false);
        let size = json["bytes"].as_u64().expect("a size");
        assert_eq!(text, format!("2/17          2023-11-14T22:13:20.123Z  upsert     7  {size} bytes"));
        assert_eq!((&json["kind"], &json["op"]), (&json!("event"), &json!("upsert")));
        assert_eq!(
            (&json["key"], &json["time"]),
            (&json!({"$numberLong": "7"}), &json!(1_700_000_000_123_i64))
        );
        assert!(json.get("document").is_none() && !text.contains("value"));
        let (text, json) = shown(&sent(&event(Op::Snapshot, "me")), true);
        assert!(text.starts_with("2/17          -                         snapshot   \"me\"  "), "{text}");
        assert!(text.ends_with(r#"{"_id": "me","b": "value ","a": 1}"#), "{text}");
        assert_eq!((&json["key"], &json["document"]["a"]), (&json!("me"), &json!({"$numberLong": "1"})));
        let (text, json) = shown(&sent(&event(Op::Delete, "me")), true);
        assert!(text.contains("delete     \"me\"") && !text.contains('{'), "{text}");
        assert!(json.get("document").is_none());
    }

    #[test]
    fn events_in_debezium_s_form() {
        for schemas in [false, true] {
            let writer = debezium::Writer::new(debezium::WriterOptions {
                name: "crm",
                topic: "crm.users",
                database: "app",
                collection: "users",
                schemas,
            });
            let event = event(Op::Upsert, bson::oid::ObjectId::from_bytes([7; 12]));
            let (mut key, mut value) = (Vec::new(), Vec::new());
            writer.key(&event.key, &mut key);
            writer.value(&event, Stamp::default(), 1_700_000_000_999, &mut value);
            let (text, json) = shown(&record(Some(&key), Some(value), None), true);
            assert!(text.contains("20.123Z  upsert     070707070707070707070707  "), "{text}");
            assert!(text.ends_with(r#""a": 1}"#), "{text}");
            let id = json!({"$oid": "070707070707070707070707"});
            assert_eq!((&json["key"], &json["document"]["_id"]), (&id, &id));
            let (text, json) = shown(&record(Some(&key), None, None), false);
            assert!(text.contains("tombstone  {"), "{text}");
            assert_eq!((&json["kind"], &json["key"]), (&json!("tombstone"), &id));
        }
    }

    #[test]
    fn records_that_are_not_events() {
        let mark =
            Mark { epoch: 3, time: Moment::of_halves(5, 1), at: 1_700_000_000_123, as_of: None, fence: None };
        let mut bytes = Vec::new();
        mark.encode(&mut bytes);
        let (text, json) = shown(&record(Some(Mark::KEY), None, Some(bytes)), false);
        assert_eq!(text, "2/17          2023-11-14T22:13:20.123Z  mark       all up to 5.1, epoch 3");
        assert_eq!((&json["kind"], json.get("key")), (&json!("mark"), None));
        let mut bytes = Vec::new();
        Part::encode((3, 9), (0, 4), Moment::default(), b"half a document", &mut bytes);
        let (text, json) = shown(&record(None, Some(bytes), None), true);
        assert!(text.contains("part       1 of 4, group 9  ") && !text.contains("half"), "{text}");
        assert_eq!((&json["index"], &json["count"]), (&json!(0), &json!(4)));
        let (text, json) = shown(&record(Some(event(Op::Delete, 7).key.as_bytes()), None, None), false);
        assert!(text.ends_with("tombstone  7"), "{text}");
        assert_eq!(json["kind"], json!("tombstone"));
    }

    #[test]
    fn records_of_other_writers() {
        for value in ["", "{", "{}", "not ours", "[1]", "{\"op\": \"u\", \"after\": \"hush\"}"] {
            let (text, json) = shown(&record(Some(b"hush"), Some(value.into()), None), true);
            assert!(text.contains("unknown") && !text.contains("hush"), "{text}");
            assert!(json["kind"] == json!("unknown") && !json.to_string().contains("hush"), "{json}");
        }
    }
}
