//! From an event to key and value. What is the same in all records of a topic is made once.

use std::io::Write;

use super::{flag, schema};
use crate::ascii;
use crate::event::{Event, Op};
use crate::extjson::{self, Faithful};
use crate::json;
use crate::key::Key;
use crate::stamp::Stamp;
use crate::value::{Document, Value};

/// Names in the records of one topic.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions<'a> {
    /// What Debezium calls the logical name or `topic.prefix`.
    pub name: &'a str,
    /// The schemas are named after it.
    pub topic: &'a str,
    /// The collection's database.
    pub database: &'a str,
    /// The collection's name in it.
    pub collection: &'a str,
    /// True puts the schema into each key and value (`schemas.enable` of `JsonConverter`).
    pub schemas: bool,
}

/// Writes the records of one topic.
#[derive(Clone, Debug)]
pub struct Writer {
    /// Up to the id.
    key: Vec<u8>,
    /// Up to the document.
    head: Vec<u8>,
    /// From behind the document up to the time.
    source: Vec<u8>,
    /// From behind `snapshot` up to the time in microseconds.
    database: Vec<u8>,
    /// From behind the times up to the increment.
    collection: Vec<u8>,
    /// Braces at the end.
    end: &'static [u8],
}

impl Writer {
    /// A writer for one topic.
    pub fn new(options: WriterOptions<'_>) -> Self {
        let WriterOptions { name, topic, database, collection, schemas } = options;
        let envelope = |write: fn(&str, &mut Vec<u8>), rest: &str| {
            let mut out = Vec::new();
            if schemas {
                out.extend_from_slice(br#"{"schema":"#);
                write(topic, &mut out);
                out.extend_from_slice(br#","payload":"#);
            }
            out.extend_from_slice(rest.as_bytes());
            out
        };
        let named = |before: &str, name: &str, after: &str| {
            let mut out = before.as_bytes().to_vec();
            json::string(name.as_bytes(), &mut out);
            out.extend_from_slice(after.as_bytes());
            out
        };
        let version = env!("CARGO_PKG_VERSION");
        let source = format!(
            r#","updateDescription":null,"source":{{"version":"{version}","connector":"mongodb","name":"#
        );
        Self {
            key: envelope(schema::key, r#"{"id":"#),
            head: envelope(schema::value, r#"{"before":null,"after":"#),
            source: named(&source, name, r#","ts_ms":"#),
            database: named(r#","db":"#, database, r#","sequence":null,"ts_us":"#),
            collection: named(r#","collection":"#, collection, r#","ord":"#),
            end: if schemas { b"}}" } else { b"}" },
        }
    }

    /// Appends the key of a document's records: the same bytes for all `_id`s that are equal.
    pub fn key(&self, key: &Key, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key);
        text(out, |out| id(key, out));
        out.extend_from_slice(self.end);
    }

    /// Appends a key for records that belong to no document, readable like the others.
    pub fn mark_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key);
        text(out, |out| out.extend_from_slice(br#""slackwater: a mark, no document""#));
        out.extend_from_slice(self.end);
    }

    /// Appends the value. `now_millis` is the time at which it is written, in milliseconds since 1970.
    pub fn value(&self, event: &Event, stamp: Stamp, now_millis: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        let raw = match event.op {
            Op::Delete => {
                out.extend_from_slice(b"null");
                true
            }
            Op::Snapshot | Op::Upsert => document(event, out),
        };
        out.extend_from_slice(&self.source);
        // A copied document has no time of its own; like Debezium we say when it was read.
        let millis = if event.time == 0 { now_millis } else { event.time };
        let _ = write!(out, r#"{millis},"snapshot":"{}""#, event.op == Op::Snapshot);
        out.extend_from_slice(&self.database);
        finer(millis, 1_000, out);
        out.extend_from_slice(br#","ts_ns":"#);
        finer(millis, 1_000_000, out);
        out.extend_from_slice(&self.collection);
        let time = event.position.moment;
        let _ = write!(out, r#"{},"lsid":null,"txnNumber":null,"wallTime":"#, time.lower().cast_signed());
        let _ = if event.time == 0 { write!(out, "null") } else { write!(out, "{}", event.time) };
        let _ = write!(out, r#","slackwater_time":{},"slackwater_token":""#, time.0.cast_signed());
        ascii::hex(&event.position.token, out);
        let _ = write!(out, r#"","slackwater_epoch":{}"#, stamp.epoch);
        let fresh = if stamp.fresh { flag::FRESH } else { 0 };
        let noted = if stamp.noted { flag::NOTED } else { 0 };
        if fresh + noted != 0 {
            let _ = write!(out, r#","slackwater_flags":{}"#, fresh + noted);
        }
        if !tells_key(event) {
            bytes(r#","slackwater_key":""#, event.key.as_bytes(), out);
        }
        if !raw {
            bytes(r#","slackwater_document":""#, &event.document, out);
        }
        let op = match event.op {
            Op::Snapshot => "r",
            // An insert is an update of what was not there: readers of Debezium write both alike.
            Op::Upsert => "u",
            Op::Delete => "d",
        };
        let _ = write!(out, r#"}},"op":"{op}","ts_ms":{now_millis},"ts_us":"#);
        finer(now_millis, 1_000, out);
        out.extend_from_slice(br#","ts_ns":"#);
        finer(now_millis, 1_000_000, out);
        out.extend_from_slice(br#","transaction":null"#);
        out.extend_from_slice(self.end);
    }
}

/// Puts what `write` appends, which is JSON, into a JSON string.
fn text<T>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    out.push(b'"');
    let start = out.len();
    let written = write(out);
    json::escape_tail(out, start);
    out.push(b'"');
    written
}

fn bytes(before: &str, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(before.as_bytes());
    ascii::base64(bytes, out);
    out.push(b'"');
}

/// Times far off do not fit in the finer units, which are optional.
fn finer(millis: i64, factor: i64, out: &mut Vec<u8>) {
    let _ = match millis.checked_mul(factor) {
        Some(value) => write!(out, "{value}"),
        None => write!(out, "null"),
    };
}

/// The `_id` as text, from the canonical key, so that equal ones have the same text.
fn id(key: &Key, out: &mut Vec<u8>) {
    let start = out.len();
    let written = with_id(key, |document| {
        let id = document.get(b"_id").ok().flatten()?;
        extjson::write_relaxed(id, out).ok()
    });
    if written.is_none() {
        // No key of ours; its bytes are text enough to keep it apart from others.
        out.truncate(start);
        let _ = extjson::write_relaxed(Value::Binary { subtype: 0, bytes: key.as_bytes() }, out);
    }
}

/// Makes `{_id: …}` of a key.
fn with_id<T>(key: &Key, then: impl FnOnce(Document<'_>) -> Option<T>) -> Option<T> {
    let mut raw = vec![0; 4];
    key.write_element("_id", &mut raw).ok()?;
    raw.push(0);
    let length = i32::try_from(raw.len()).ok()?;
    raw[..4].copy_from_slice(&length.to_le_bytes());
    then(Document::new(&raw).ok()?)
}

/// Appends the document as text. False where the text does not say all: then its bytes have to be there too.
fn document(event: &Event, out: &mut Vec<u8>) -> bool {
    text(out, |out| {
        let start = out.len();
        let written = Document::new(&event.document).and_then(|document| extjson::write(document, out));
        match written {
            Ok(faithful) => faithful == Faithful::Yes,
            Err(_) => {
                // A broken document: others see which one it is, we see its bytes.
                out.truncate(start);
                out.extend_from_slice(br#"{"_id": "#);
                id(&event.key, out);
                out.push(b'}');
                false
            }
        }
    })
}

/// True where the document's own `_id` gives the event's key.
fn tells_key(event: &Event) -> bool {
    let id = Document::new(&event.document).and_then(|document| document.get(b"_id"));
    matches!(id, Ok(Some(id)) if Key::of(id).is_ok_and(|key| key == event.key))
}
