//! Events in the form of Debezium's MongoDB connector, for programs that read that one.
//!
//! It is JSON as Kafka Connect writes it, with the schema in each record or without. The document is text in canonical
//! Extended JSON (`json.serialization.mode=extended` there); the key's `id` is relaxed, as it is there. What
//! Debezium has no field for is in `source` in fields of our own, all optional, so that [`read`] gives back exactly
//! what was written: cluster time, token, epoch, and the raw bytes where the text would lose some of them.

mod read;
mod schema;
mod write;

#[cfg(test)]
mod tests;

pub use read::{ReadError, read};
pub use write::{Writer, WriterOptions};

/// Bits of `source.slackwater_flags`.
mod flag {
    pub(super) const FRESH: i32 = 1;
    pub(super) const NOTED: i32 = 2;
}
