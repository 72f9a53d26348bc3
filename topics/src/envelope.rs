//! The bytes of an event in a log: a BSON document, so that any BSON reader can look into it.
//!
//! `{v: 1, c: collection name, o: "s" | "u" | "d", k: key, t: cluster time, p: token, w: time of the change, d: document}`,
//! in this order. `d` is the document's own bytes, untouched; it is absent for a delete.

use std::fmt;

use bytes::Bytes;

use crate::event::{CollectionId, Event, Op};
use crate::key::Key;
use crate::position::{ClusterTime, Position};
use crate::value::{Document, Value};

const VERSION: i32 = 1;

/// Bytes that are no event of ours.
#[derive(Debug, PartialEq, Eq)]
pub enum EnvelopeError {
    /// No readable BSON, or a field is missing or of another type.
    Malformed(&'static str),
    /// Written by a later version of slackwater.
    Version(i32),
    /// The collection is not in the migration file.
    Collection(String),
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(field) => write!(f, "not an event: field `{field}` is missing or broken"),
            Self::Version(version) => write!(
                f,
                "the event has format {version}, this program reads {VERSION}: run the same version on both sides"
            ),
            Self::Collection(name) => {
                write!(f, "the event belongs to `{name}`, which the migration file does not name")
            }
        }
    }
}

impl std::error::Error for EnvelopeError {}

fn head(kind: u8, name: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind, name, 0]);
}

fn binary(name: u8, bytes: &[u8], out: &mut Vec<u8>) {
    head(0x05, name, out);
    out.extend_from_slice(&(bytes.len() as i32).to_le_bytes());
    out.push(0);
    out.extend_from_slice(bytes);
}

fn text(name: u8, text: &str, out: &mut Vec<u8>) {
    head(0x02, name, out);
    out.extend_from_slice(&(text.len() as i32 + 1).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

/// Appends the event's bytes. `collection` is its name in the migration file.
pub fn encode(event: &Event, collection: &str, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    head(0x10, b'v', out);
    out.extend_from_slice(&VERSION.to_le_bytes());
    text(b'c', collection, out);
    let op = match event.op {
        Op::Snapshot => "s",
        Op::Upsert => "u",
        Op::Delete => "d",
    };
    text(b'o', op, out);
    binary(b'k', event.key.as_bytes(), out);
    head(0x11, b't', out);
    out.extend_from_slice(&event.position.time.0.to_le_bytes());
    binary(b'p', &event.position.token, out);
    head(0x09, b'w', out);
    out.extend_from_slice(&event.time.to_le_bytes());
    if !event.document.is_empty() {
        head(0x03, b'd', out);
        out.extend_from_slice(&event.document);
    }
    out.push(0);
    let length = (out.len() - start) as i32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Reads an event; its document and token stay slices of `bytes`. `find` gives the collection of a name.
pub fn decode(
    bytes: &Bytes,
    find: impl FnOnce(&str) -> Option<CollectionId>,
) -> Result<Event, EnvelopeError> {
    let broken = EnvelopeError::Malformed;
    let envelope = Document::new(bytes).map_err(|_| broken("v"))?;
    let (mut collection, mut op, mut key, mut time, mut token, mut wall, mut document) =
        (None, None, None, None, None, None, Bytes::new());
    for element in envelope.elements() {
        let (name, value) = element.map_err(|_| broken("v"))?;
        match (name, value) {
            (b"v", Value::Int32(VERSION)) => {}
            (b"v", Value::Int32(version)) => return Err(EnvelopeError::Version(version)),
            (b"c", Value::String(text)) => {
                collection = Some(std::str::from_utf8(text).map_err(|_| broken("c"))?);
            }
            (b"o", Value::String(b"s")) => op = Some(Op::Snapshot),
            (b"o", Value::String(b"u")) => op = Some(Op::Upsert),
            (b"o", Value::String(b"d")) => op = Some(Op::Delete),
            (b"k", Value::Binary { bytes, .. }) => key = Some(Key::from_bytes(bytes)),
            (b"t", Value::Timestamp { seconds, increment }) => {
                time = Some(ClusterTime::new(seconds, increment));
            }
            (b"p", Value::Binary { bytes: data, .. }) => token = Some(bytes.slice_ref(data)),
            (b"w", Value::DateTime(millis)) => wall = Some(millis),
            (b"d", Value::Document(inner)) => document = bytes.slice_ref(inner.as_bytes()),
            // A later version of the same format may add fields.
            _ => {}
        }
    }
    let op = op.ok_or(broken("o"))?;
    if document.is_empty() != (op == Op::Delete) {
        return Err(broken("d"));
    }
    let collection = collection.ok_or(broken("c"))?;
    Ok(Event {
        collection: find(collection).ok_or_else(|| EnvelopeError::Collection(collection.into()))?,
        key: key.ok_or(broken("k"))?,
        op,
        document,
        position: Position { time: time.ok_or(broken("t"))?, token: token.ok_or(broken("p"))? },
        time: wall.ok_or(broken("w"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(op: Op) -> Event {
        let document = bson::doc! {"_id": 7, "a.b": "x", "": null, "$c": [1]};
        Event {
            collection: CollectionId(3),
            key: Key::of(Value::Int32(7)).expect("a key"),
            op,
            document: match op {
                Op::Delete => Bytes::new(),
                _ => document.to_vec().expect("a document").into(),
            },
            position: Position::new(ClusterTime::new(5, 1), vec![0x82, 1]),
            time: 1_700_000_000_123,
        }
    }

    #[test]
    fn golden() {
        let mut bytes = Vec::new();
        encode(&event(Op::Delete), "legacy.user", &mut bytes);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            text,
            concat!(
                "59000000",
                "107600",
                "01000000",
                "026300",
                "0c000000",
                "6c65676163792e7573657200",
                "026f00",
                "02000000",
                "6400",
                "056b00",
                "09000000",
                "00",
                "100000000000000007",
                "117400",
                "0100000005000000",
                "057000",
                "02000000",
                "00",
                "8201",
                "097700",
                "7b68e5cf8b010000",
                "00"
            )
        );
    }

    #[test]
    fn comes_back() {
        for op in [Op::Snapshot, Op::Upsert, Op::Delete] {
            let event = event(op);
            let mut bytes = Vec::new();
            encode(&event, "legacy.user", &mut bytes);
            let bytes = Bytes::from(bytes);
            let find = |name: &str| (name == "legacy.user").then_some(CollectionId(3));
            assert_eq!(decode(&bytes, find), Ok(event));
            assert_eq!(decode(&bytes, |_| None), Err(EnvelopeError::Collection("legacy.user".into())));
            for cut in 0..bytes.len() {
                assert!(decode(&bytes.slice(..cut), find).is_err());
            }
        }
    }

    #[test]
    fn a_later_format_is_refused() {
        let bytes = bson::doc! {"v": 2, "c": "x"}.to_vec().expect("a document");
        assert_eq!(decode(&bytes.into(), |_| None), Err(EnvelopeError::Version(2)));
    }
}
