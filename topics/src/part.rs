//! An event that is larger than a record of the log may be travels in parts.

use bytes::Bytes;

use crate::envelope::EnvelopeError;
use crate::key::Key;
use crate::position::Moment;
use crate::value::{Document, Value};
use crate::wire;

/// A piece of a record's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which capture sent it.
    pub epoch: i64,
    /// Which value it is a piece of: a number that its capture gives out once.
    pub group: i64,
    /// Its place, from zero.
    pub index: i32,
    /// How many there are.
    pub count: i32,
    /// When it happened, as the source counts; zero where it was read and not streamed, `None` where nothing says so.
    pub time: Option<Moment>,
    /// The bytes.
    pub bytes: Bytes,
}

impl Part {
    /// What the frame around a piece takes.
    pub const OVERHEAD: usize = 96;

    /// The key of its record: a compacted topic must keep every part. No document's key begins with a zero.
    pub fn key(key: &Key, index: i32, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\0part");
        out.extend_from_slice(&index.to_be_bytes());
        out.extend_from_slice(key.as_bytes());
    }

    /// Appends `{v: 1, o: "x", e: epoch, g: group, i: index, n: count, t: time, b: bytes}` as BSON.
    pub fn encode(
        (epoch, group): (i64, i64),
        (index, count): (i32, i32),
        time: Moment,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) {
        let start = wire::begin(out);
        wire::version(out);
        wire::text(b'o', "x", out);
        wire::long(b'e', epoch, out);
        wire::long(b'g', group, out);
        wire::int(b'i', index, out);
        wire::int(b'n', count, out);
        wire::timestamp(b't', time, out);
        wire::binary(b'b', wire::GENERIC, bytes, out);
        wire::end(start, out);
    }

    /// Reads it; `None` where the record is whole.
    pub fn decode(value: &Bytes) -> Result<Option<Self>, EnvelopeError> {
        let broken = EnvelopeError::Malformed;
        let document = Document::new(value).map_err(|_| broken("v"))?;
        let mut elements = document.elements();
        match elements.next() {
            Some(Ok((b"v", Value::Int32(version)))) => wire::check(version)?,
            _ => return Err(broken("v")),
        }
        match elements.next() {
            Some(Ok((b"o", Value::String(b"x")))) => {}
            _ => return Ok(None),
        }
        let (mut epoch, mut group, mut index, mut count) = (None, None, None, None);
        let (mut time, mut bytes) = (None, None);
        for element in elements {
            match element.map_err(|_| broken("v"))? {
                (b"e", Value::Int64(value)) => epoch = Some(value),
                (b"g", Value::Int64(value)) => group = Some(value),
                (b"i", Value::Int32(value)) => index = Some(value),
                (b"n", Value::Int32(value)) => count = Some(value),
                (b"t", Value::Timestamp { seconds, increment }) => {
                    time = Some(Moment::of_halves(seconds, increment));
                }
                (b"b", Value::Binary { bytes: data, .. }) => bytes = Some(value.slice_ref(data)),
                // A later version of the same format may add fields.
                _ => {}
            }
        }
        Ok(Some(Self {
            epoch: epoch.ok_or(broken("e"))?,
            group: group.ok_or(broken("g"))?,
            index: index.ok_or(broken("i"))?,
            count: count.ok_or(broken("n"))?,
            time,
            bytes: bytes.ok_or(broken("b"))?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back() {
        let mut out = Vec::new();
        let time = Moment::of_halves(7, 1);
        Part::encode((3, 9), (1, 4), time, b"\x01\x02", &mut out);
        assert!(out.len() <= Part::OVERHEAD + 2);
        let bytes = Bytes::from_static(b"\x01\x02");
        let expected = Part { epoch: 3, group: 9, index: 1, count: 4, time: Some(time), bytes };
        let value = Bytes::from(out);
        assert_eq!(Part::decode(&value), Ok(Some(expected)));
        for cut in 0..value.len() {
            assert!(Part::decode(&value.slice(..cut)).is_err());
        }
    }

    #[test]
    fn a_whole_record_is_no_part() {
        let value = bson::doc! {"v": 1, "c": "legacy.user"}.to_vec().expect("a document");
        assert_eq!(Part::decode(&value.into()), Ok(None));
    }
}
