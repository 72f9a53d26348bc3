//! A mark in a log: no document's change, but what is known at its place.

use uuid::Uuid;

use crate::envelope::EnvelopeError;
use crate::position::Moment;
use crate::value::{Document, Value};
use crate::wire;

/// Everything at or before `time` that belongs into this partition is before the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which capture sent it.
    pub epoch: i64,
    /// How far the source was read.
    pub time: Moment,
    /// When it was made, milliseconds since 1970, by the capture's clock.
    pub at: i64,
    /// A moment of the source's own clock, milliseconds since 1970: what was written there before it, and belongs into this
    /// partition, is before the mark. Not in every mark.
    pub as_of: Option<i64>,
    /// A fence that somebody waits for by identity.
    pub fence: Option<Uuid>,
}

impl Mark {
    /// The header that holds a mark. Its record has no value, so that other readers of the topic pass it by.
    pub const HEADER: &'static str = "slackwater";

    /// The key of its record, where keys are canonical: no document has one that begins with a zero.
    pub const KEY: &'static [u8] = b"\0mark";

    /// Appends `{v: 1, e: epoch, t: time, w: at, s: as_of, f: fence}` as BSON.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = wire::begin(out);
        wire::version(out);
        wire::long(b'e', self.epoch, out);
        wire::timestamp(b't', self.time, out);
        wire::date(b'w', self.at, out);
        if let Some(as_of) = self.as_of {
            wire::date(b's', as_of, out);
        }
        if let Some(fence) = self.fence {
            wire::binary(b'f', wire::UUID, fence.as_bytes(), out);
        }
        wire::end(start, out);
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let broken = EnvelopeError::Malformed;
        let document = Document::new(bytes).map_err(|_| broken("v"))?;
        let (mut epoch, mut time, mut at, mut as_of, mut fence) = (None, None, None, None, None);
        for element in document.elements() {
            match element.map_err(|_| broken("v"))? {
                (b"v", Value::Int32(version)) => wire::check(version)?,
                (b"e", Value::Int64(value)) => epoch = Some(value),
                (b"t", Value::Timestamp { seconds, increment }) => {
                    time = Some(Moment::of_halves(seconds, increment));
                }
                (b"w", Value::DateTime(value)) => at = Some(value),
                (b"s", Value::DateTime(value)) => as_of = Some(value),
                (b"f", Value::Binary { bytes, .. }) => {
                    fence = Some(Uuid::from_slice(bytes).map_err(|_| broken("f"))?);
                }
                // A later version of the same format may add fields.
                _ => {}
            }
        }
        Ok(Self {
            epoch: epoch.ok_or(broken("e"))?,
            time: time.ok_or(broken("t"))?,
            at: at.ok_or(broken("w"))?,
            as_of,
            fence,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let mark =
            Mark { epoch: 3, time: Moment::of_halves(5, 1), at: 1_700_000_000_123, as_of: None, fence: None };
        let text = |mark: &Mark| {
            let mut bytes = Vec::new();
            mark.encode(&mut bytes);
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let expected = concat!(
            "2d000000",
            "10760001000000",
            "1265000300000000000000",
            "1174000100000005000000",
            "0977007b68e5cf8b010000",
            "00"
        );
        assert_eq!(text(&mark), expected, "as marks were before they told of the source's clock");
        let known = Mark { as_of: Some(1_700_000_000_100), ..mark };
        let expected = concat!(
            "38000000",
            "10760001000000",
            "1265000300000000000000",
            "1174000100000005000000",
            "0977007b68e5cf8b010000",
            "0973006468e5cf8b010000",
            "00"
        );
        assert_eq!(text(&known), expected);
    }

    #[test]
    fn comes_back() {
        for (as_of, fence) in [(None, None), (Some(-2), None), (None, Some(7)), (Some(2), Some(7))] {
            let fence = fence.map(Uuid::from_u128);
            let mark = Mark { epoch: 3, time: Moment::of_halves(5, 1), at: -1, as_of, fence };
            let mut bytes = Vec::new();
            mark.encode(&mut bytes);
            assert_eq!(Mark::decode(&bytes), Ok(mark));
            for cut in 0..bytes.len() {
                assert!(Mark::decode(&bytes[..cut]).is_err());
            }
        }
    }
}
