//! The place of an event in its source's order.

use std::fmt;

use bytes::Bytes;

/// A time of one source, in that source's own order: a cluster time, a log's sequence number, the number of a poll. Opaque:
/// moments of different sources cannot be compared, and only the source knows what a moment means to people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// From its upper and lower half, which is how the log writes it (as a BSON timestamp).
    pub fn of_halves(upper: u32, lower: u32) -> Self {
        Self(u64::from(upper) << 32 | u64::from(lower))
    }

    /// The upper half.
    pub fn upper(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The lower half.
    pub fn lower(self) -> u32 {
        self.0 as u32
    }

    /// The last moment before this one.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.upper(), self.lower())
    }
}

/// A place in a source's order of changes. `token` is what the source needs to resume from there; tokens of one source compare as
/// bytes. Changes that were committed together share one moment and differ in the token.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Everything at or before this moment has been seen.
    pub moment: Moment,
    /// What the source resumes from, as bytes.
    pub token: Bytes,
}

impl Position {
    /// A position.
    pub fn new(moment: Moment, token: impl Into<Bytes>) -> Self {
        Self { moment, token: token.into() }
    }
}
