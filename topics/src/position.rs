//! Where an event stands in its source's order.

use std::fmt;

use bytes::Bytes;

/// MongoDB's operation time: seconds since 1970 in the upper half, a counter in the lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterTime(pub u64);

impl ClusterTime {
    /// From the two halves.
    pub fn new(seconds: u32, increment: u32) -> Self {
        Self(u64::from(seconds) << 32 | u64::from(increment))
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The counter within the second.
    pub fn increment(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for ClusterTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seconds(), self.increment())
    }
}

/// A place in a change stream. `token` is what the server gave to resume from; tokens of one stream compare as bytes,
/// and a transaction's events share one time and differ in the token.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Everything at or before this time has been seen.
    pub time: ClusterTime,
    /// The resume token's `_data`, as bytes.
    pub token: Bytes,
}

impl Position {
    /// A position.
    pub fn new(time: ClusterTime, token: impl Into<Bytes>) -> Self {
        Self { time, token: token.into() }
    }
}
