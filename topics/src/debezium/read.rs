//! From a value back to the event.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;

use super::flag;
use crate::ascii;
use crate::event::{CollectionId, Event, Op};
use crate::extjson::{self, Unreadable};
use crate::key::Key;
use crate::position::{Moment, Position};
use crate::stamp::Stamp;
use crate::value::Document;

/// A value that is not an event of ours in Debezium's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// No JSON, or a field is of another type.
    Json {
        /// Line in the value, from one.
        line: usize,
        /// Column in the line, from one.
        column: usize,
    },
    /// A field is missing or broken.
    Field(&'static str),
    /// The document's text is broken.
    After(Unreadable),
    /// It has none of our own fields.
    Foreign,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json { line, column } => {
                write!(f, "not an event: no JSON of Debezium's form, at line {line}, column {column}")
            }
            Self::Field(field) => write!(f, "not an event: field `{field}` is missing or broken"),
            Self::After(error) => write!(f, "not an event: in field `after` {error}"),
            Self::Foreign => write!(
                f,
                "the event has no field `source.slackwater_time`, so another program wrote it: \
                 give slackwater a topic of its own"
            ),
        }
    }
}

impl std::error::Error for ReadError {}

/// With the schema or without: either `payload` is there, or its fields are.
#[derive(Deserialize)]
struct Outer {
    payload: Option<Payload>,
    op: Option<String>,
    after: Option<String>,
    source: Option<Source>,
}

#[derive(Deserialize)]
struct Payload {
    op: Option<String>,
    after: Option<String>,
    source: Option<Source>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(rename = "wallTime")]
    wall_time: Option<i64>,
    slackwater_time: Option<i64>,
    slackwater_token: Option<String>,
    slackwater_epoch: Option<i64>,
    slackwater_flags: Option<i32>,
    slackwater_key: Option<String>,
    slackwater_document: Option<String>,
}

/// Reads a value that [`super::Writer`] wrote, or a program that copied it. The topic tells the collection.
pub fn read(value: &[u8], collection: CollectionId) -> Result<(Event, Stamp), ReadError> {
    let outer: Outer = serde_json::from_slice(value)
        .map_err(|error| ReadError::Json { line: error.line(), column: error.column() })?;
    let payload = match outer.payload {
        Some(payload) => payload,
        None => Payload { op: outer.op, after: outer.after, source: outer.source },
    };
    let broken = ReadError::Field;
    let op = match payload.op.as_deref() {
        Some("r") => Op::Snapshot,
        Some("c" | "u") => Op::Upsert,
        Some("d") => Op::Delete,
        _ => return Err(broken("op")),
    };
    let source = payload.source.ok_or(broken("source"))?;
    let time = source.slackwater_time.ok_or(ReadError::Foreign)?;
    let document = match (op, &source.slackwater_document, &payload.after) {
        (Op::Delete, ..) => Bytes::new(),
        (_, Some(raw), _) => {
            base64(raw).filter(|raw| !raw.is_empty()).ok_or(broken("source.slackwater_document"))?.into()
        }
        (_, None, Some(text)) => extjson::read(text.as_bytes()).map_err(ReadError::After)?.into(),
        (_, None, None) => return Err(broken("after")),
    };
    let key = match &source.slackwater_key {
        Some(text) => Key::from_bytes(&base64(text).ok_or(broken("source.slackwater_key"))?),
        None => own_key(&document).ok_or(broken("source.slackwater_key"))?,
    };
    let mut token = Vec::new();
    ascii::from_hex(source.slackwater_token.as_deref().unwrap_or_default().as_bytes(), &mut token)
        .ok_or(broken("source.slackwater_token"))?;
    let event = Event {
        collection,
        key,
        op,
        document,
        position: Position::new(Moment(time.cast_unsigned()), token),
        time: source.wall_time.unwrap_or_default(),
    };
    let flags = source.slackwater_flags.unwrap_or_default();
    let stamp = Stamp {
        epoch: source.slackwater_epoch.ok_or(broken("source.slackwater_epoch"))?,
        fresh: flags & flag::FRESH != 0,
        noted: flags & flag::NOTED != 0,
    };
    Ok((event, stamp))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    ascii::from_base64(text.as_bytes(), &mut bytes).map(|()| bytes)
}

fn own_key(document: &[u8]) -> Option<Key> {
    let id = Document::new(document).ok()?.get(b"_id").ok()??;
    Key::of(id).ok()
}
