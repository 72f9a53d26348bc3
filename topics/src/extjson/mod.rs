//! MongoDB Extended JSON v2, from raw BSON and back, without a tree in between.
//!
//! Canonical text keeps every type, so it can be read back to the same bytes; what BSON can hold and the text
//! cannot (broken UTF-8, a sub-document that looks like a wrapper, odd encodings) is written as
//! near as possible and reported as not [`Faithful`]. Neither direction recurses: documents may nest as deep as
//! memory goes.

mod decimal;
mod number;
mod read;
mod wrapper;
mod write;

#[cfg(test)]
pub(crate) mod tests;

pub use read::{Unreadable, read, read_value};
pub use write::{Faithful, write, write_relaxed, write_value};

/// A sub-document whose first key is one of these is read as a value of another type.
const WRAPPERS: [&[u8]; 17] = [
    b"$oid",
    b"$symbol",
    b"$numberInt",
    b"$numberLong",
    b"$numberDouble",
    b"$numberDecimal",
    b"$binary",
    b"$uuid",
    b"$code",
    b"$scope",
    b"$timestamp",
    b"$regularExpression",
    b"$dbPointer",
    b"$date",
    b"$minKey",
    b"$maxKey",
    b"$undefined",
];
