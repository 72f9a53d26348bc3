//! Ranges of `_id`, in MongoDB's order: what a snapshot is cut into.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::order::compare;
use crate::value::{Document, Malformed, Value};

/// An `_id` as a border, kept as raw BSON (`{"": value}`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bound(Bytes);

impl Bound {
    /// From raw BSON: a document whose first element is the value.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self, Malformed> {
        let bytes = bytes.into();
        Document::new(&bytes)?.elements().next().ok_or(Malformed { at: 4 })??;
        Ok(Self(bytes))
    }

    /// The raw BSON.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The value.
    pub fn value(&self) -> Value<'_> {
        let first = Document::new(&self.0).ok().and_then(|document| document.elements().next());
        // Checked when the bound was made.
        first.and_then(Result::ok).map_or(Value::Null, |(_, value)| value)
    }
}

/// From one `_id` (included) to another (excluded). `None` is the end of the world on that side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Range {
    /// First `_id`, included.
    pub lo: Option<Bound>,
    /// End, excluded.
    pub hi: Option<Bound>,
}

impl Range {
    /// Whether a document of this `_id` lies in it.
    pub fn contains(&self, id: Value<'_>) -> bool {
        let after_lo = self.lo.as_ref().is_none_or(|lo| compare(lo.value(), id) != Ordering::Greater);
        after_lo && self.hi.as_ref().is_none_or(|hi| compare(id, hi.value()) == Ordering::Less)
    }

    /// Cuts at an `_id`, which falls to the second part.
    pub fn cut(self, at: Bound) -> (Self, Self) {
        (Self { lo: self.lo, hi: Some(at.clone()) }, Self { lo: Some(at), hi: self.hi })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(value: impl Into<bson::Bson>) -> Bound {
        let raw = bson::doc! {"": value.into()}.to_vec().expect("a document");
        Bound::from_bytes(raw).expect("a bound")
    }

    #[test]
    fn includes_its_start_and_not_its_end() {
        let range = Range { lo: Some(bound(5)), hi: Some(bound("b")) };
        let inside = |value: bson::Bson| range.contains(bound(value).value());
        assert!(inside(5.0.into()) && inside(1e300.into()) && inside("a".into()));
        assert!(!inside(4_i64.into()) && !inside("b".into()) && !inside(true.into()));
        assert!(Range::default().contains(Value::MinKey) && Range::default().contains(Value::MaxKey));
        let (low, high) = range.cut(bound("a"));
        assert!(!low.contains(bound("a").value()) && high.contains(bound("a").value()));
    }
}
