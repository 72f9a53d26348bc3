//! The bytes of an event in a log: a BSON document, so that any BSON reader can look into it.
//!
//! `{v: 1, c: collection name, o: "s" | "u" | "d", k: key, t: cluster time, p: token, w: time of the change, e: epoch,
//! f: fresh, n: noted, d: document}`, in this order. `f` and `n` are there only when true ([`Stamp`]). `d` is the
//! document's own bytes, untouched; it is absent for a delete.

use std::fmt;

use bytes::Bytes;

use crate::debezium;
use crate::event::{CollectionId, Event, Op};
use crate::key::Key;
use crate::position::{Moment, Position};
use crate::stamp::Stamp;
use crate::value::{Document, Value};
use crate::wire;

/// Bytes that are not an event of ours.
#[derive(Debug, PartialEq, Eq)]
pub enum EnvelopeError {
    /// No readable BSON, or a field is missing or of another type.
    Malformed(&'static str),
    /// Written by a later version of slackwater.
    Version(i32),
    /// The collection is not in the migration file.
    Collection(String),
    /// No event in Debezium's form.
    Debezium(debezium::ReadError),
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(field) => write!(f, "not an event: field `{field}` is missing or broken"),
            Self::Version(version) => write!(
                f,
                "the event has format {version}, this program reads {}: run the same version on both sides",
                wire::VERSION
            ),
            Self::Debezium(error) => error.fmt(f),
            Self::Collection(name) => {
                write!(f, "the event belongs to `{name}`, which the migration file does not name")
            }
        }
    }
}

impl std::error::Error for EnvelopeError {}

/// Appends the event's bytes. `collection` is its name in the migration file.
pub fn encode(event: &Event, collection: &str, stamp: Stamp, out: &mut Vec<u8>) {
    let start = wire::begin(out);
    wire::version(out);
    wire::text(b'c', collection, out);
    let op = match event.op {
        Op::Snapshot => "s",
        Op::Upsert => "u",
        Op::Delete => "d",
    };
    wire::text(b'o', op, out);
    wire::binary(b'k', wire::GENERIC, event.key.as_bytes(), out);
    wire::timestamp(b't', event.position.moment, out);
    wire::binary(b'p', wire::GENERIC, &event.position.token, out);
    wire::date(b'w', event.time, out);
    wire::long(b'e', stamp.epoch, out);
    if stamp.fresh {
        wire::truth(b'f', out);
    }
    if stamp.noted {
        wire::truth(b'n', out);
    }
    if !event.document.is_empty() {
        wire::document(b'd', &event.document, out);
    }
    wire::end(start, out);
}

/// Reads an event; its document and token stay slices of `bytes`. `find` gives the collection of a name.
pub fn decode(
    bytes: &Bytes,
    find: impl FnOnce(&str) -> Option<CollectionId>,
) -> Result<(Event, Stamp), EnvelopeError> {
    let broken = EnvelopeError::Malformed;
    let envelope = Document::new(bytes).map_err(|_| broken("v"))?;
    let (mut collection, mut op, mut key, mut time, mut token, mut wall, mut document) =
        (None, None, None, None, None, None, Bytes::new());
    let (mut epoch, mut fresh, mut noted) = (None, false, false);
    for element in envelope.elements() {
        let (name, value) = element.map_err(|_| broken("v"))?;
        match (name, value) {
            (b"v", Value::Int32(version)) => wire::check(version)?,
            (b"c", Value::String(text)) => {
                collection = Some(std::str::from_utf8(text).map_err(|_| broken("c"))?);
            }
            (b"o", Value::String(b"s")) => op = Some(Op::Snapshot),
            (b"o", Value::String(b"u")) => op = Some(Op::Upsert),
            (b"o", Value::String(b"d")) => op = Some(Op::Delete),
            (b"k", Value::Binary { bytes, .. }) => key = Some(Key::from_bytes(bytes)),
            (b"t", Value::Timestamp { seconds, increment }) => {
                time = Some(Moment::of_halves(seconds, increment));
            }
            (b"p", Value::Binary { bytes: data, .. }) => token = Some(bytes.slice_ref(data)),
            (b"w", Value::DateTime(millis)) => wall = Some(millis),
            (b"e", Value::Int64(value)) => epoch = Some(value),
            (b"f", Value::Boolean(value)) => fresh = value,
            (b"n", Value::Boolean(value)) => noted = value,
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
    let stamp = Stamp { epoch: epoch.ok_or(broken("e"))?, fresh, noted };
    let event = Event {
        collection: find(collection).ok_or_else(|| EnvelopeError::Collection(collection.into()))?,
        key: key.ok_or(broken("k"))?,
        op,
        document,
        position: Position { moment: time.ok_or(broken("t"))?, token: token.ok_or(broken("p"))? },
        time: wall.ok_or(broken("w"))?,
    };
    Ok((event, stamp))
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
            position: Position::new(Moment::of_halves(5, 1), vec![0x82, 1]),
            time: 1_700_000_000_123,
        }
    }

    #[test]
    fn golden() {
        let mut bytes = Vec::new();
        encode(&event(Op::Delete), "legacy.user", Stamp { epoch: 3, ..Stamp::default() }, &mut bytes);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            text,
            concat!(
                "64000000",
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
                "126500",
                "0300000000000000",
                "00"
            )
        );
    }

    #[test]
    fn comes_back() {
        for op in [Op::Snapshot, Op::Upsert, Op::Delete] {
            let event = event(op);
            let mut bytes = Vec::new();
            let stamp = Stamp { epoch: 3, fresh: op == Op::Snapshot, noted: op == Op::Upsert };
            encode(&event, "legacy.user", stamp, &mut bytes);
            let bytes = Bytes::from(bytes);
            let find = |name: &str| (name == "legacy.user").then_some(CollectionId(3));
            assert_eq!(decode(&bytes, find), Ok((event, stamp)));
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
