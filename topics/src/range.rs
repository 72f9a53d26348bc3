//! Ranges of document ids, in the order of [`compare`].
//!
//! A bound is kept as the BSON document `{"": value}`. It is made from a key, so numbers that are equal give the same bound.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;

use crate::key::Key;
use crate::order::compare;
use crate::value::{Document, Malformed, Value};

/// An `_id` at which a range begins or ends.
#[derive(Clone, PartialEq, Eq)]
pub struct Bound(Bytes);

impl fmt::Debug for Bound {
    /// Never the value: an `_id` can be somebody's e-mail address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bound({} bytes)", self.0.len())
    }
}

impl Bound {
    /// At this `_id`.
    pub fn of(value: Value<'_>) -> Result<Self, Malformed> {
        Self::at(&Key::of(value)?)
    }

    /// At the `_id` of this key.
    pub fn at(key: &Key) -> Result<Self, Malformed> {
        let mut bytes = vec![0; 4];
        key.write_element("", &mut bytes)?;
        bytes.push(0);
        let length = i32::try_from(bytes.len()).map_err(|_| Malformed { at: 0 })?;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        Ok(Self(bytes.into()))
    }

    /// Takes bytes that were kept.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, Malformed> {
        let document = Document::new(&bytes)?;
        let mut elements = document.elements();
        match (elements.next(), elements.next()) {
            (Some(Ok((b"", _))), None) => Ok(Self(bytes)),
            _ => Err(Malformed { at: 4 }),
        }
    }

    /// The bytes to keep.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The `_id`.
    pub fn value(&self) -> Value<'_> {
        // Both constructors have read it; a bound that broke since would compare as the lowest.
        let value = Document::new(&self.0).and_then(|document| document.get(b""));
        value.ok().flatten().unwrap_or(Value::MinKey)
    }

    /// The document `{name: value}`.
    pub fn document(&self, name: &str) -> Vec<u8> {
        // What is kept is the same document with an empty name: length, type, name, value, end.
        let mut bytes = Vec::with_capacity(self.0.len() + name.len());
        bytes.extend_from_slice(&((self.0.len() + name.len()) as u32).to_le_bytes());
        bytes.push(self.0[4]);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&self.0[5..]);
        bytes
    }
}

/// Some of a collection: all documents whose `_id` is at or above `lo` and below `hi`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The lowest `_id`; `None` from the very start.
    pub lo: Option<Bound>,
    /// The first `_id` that is not in it; `None` to the very end.
    pub hi: Option<Bound>,
}

impl Range {
    /// The whole collection.
    pub fn all() -> Self {
        Self::default()
    }

    /// The ranges that these bounds, in ascending order, cut a collection into.
    pub fn between(bounds: &[Bound]) -> Vec<Self> {
        let lows = std::iter::once(None).chain(bounds.iter().cloned().map(Some));
        let highs = bounds.iter().cloned().map(Some).chain(std::iter::once(None));
        lows.zip(highs).map(|(lo, hi)| Self { lo, hi }).collect()
    }

    /// Whether a document with this `_id` lies in it.
    pub fn contains(&self, id: Value<'_>) -> bool {
        self.lo.as_ref().is_none_or(|lo| compare(lo.value(), id) != Ordering::Greater)
            && self.hi.as_ref().is_none_or(|hi| compare(id, hi.value()) == Ordering::Less)
    }

    /// True where no `_id` can lie in it.
    pub fn is_empty(&self) -> bool {
        match (&self.lo, &self.hi) {
            (Some(lo), Some(hi)) => compare(lo.value(), hi.value()) != Ordering::Less,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(value: i32) -> Bound {
        Bound::of(Value::Int32(value)).expect("a bound")
    }

    #[test]
    fn ranges_share_no_id_and_leave_none_out() {
        let ranges = Range::between(&[bound(3), bound(7)]);
        for id in 0..10 {
            let holders = ranges.iter().filter(|range| range.contains(Value::Int32(id))).count();
            assert_eq!(holders, 1, "{id}");
        }
        assert!(ranges[0].contains(Value::MinKey) && ranges[2].contains(Value::MaxKey));
        assert_eq!(Range::between(&[]), [Range::all()]);
    }

    #[test]
    fn bounds_are_kept_as_bytes_and_never_printed() {
        let bound = Bound::of(Value::String(b"ann@example.org")).expect("a bound");
        assert_eq!(Bound::from_bytes(bound.as_bytes().clone()), Ok(bound.clone()));
        assert_eq!(format!("{bound:?}"), "Bound(27 bytes)");
        assert!(Bound::from_bytes(Bytes::from_static(b"\x05\0\0\0\0")).is_err());
        assert!(Bound::from_bytes(Bytes::from_static(b"noise")).is_err());
    }

    #[test]
    fn a_bound_is_written_under_any_name() {
        let document = bound(7).document("_id");
        let document = Document::new(&document).expect("a document");
        assert_eq!(
            document.get(b"_id").map(|id| id.map(|id| compare(id, Value::Int32(7)))),
            Ok(Some(Ordering::Equal))
        );
    }

    #[test]
    fn a_range_that_ends_where_it_begins_is_empty() {
        let range = Range { lo: Some(bound(3)), hi: Some(bound(3)) };
        assert!(range.is_empty() && !range.contains(Value::Int32(3)));
    }
}
