//! The gauges: what this process counts, for its progress line, its beat and `/readyz`. The counters only grow.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::board::Board;

/// Shared by all tasks of the process.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Events of the stream that were applied.
    pub(crate) events: AtomicU64,
    /// Events of the stream that were sent into Kafka.
    pub(crate) sent: AtomicU64,
    /// Documents that were copied.
    pub(crate) copied: AtomicU64,
    /// Documents to copy, as estimated by the source.
    pub(crate) to_copy: AtomicU64,
    /// Rows that were inserted, changed or deleted.
    pub(crate) rows: AtomicU64,
    /// Dead letters that this process wrote.
    pub(crate) letters: AtomicU64,
    /// Time of the newest applied change, milliseconds since 1970.
    pub(crate) source_time: AtomicI64,
    /// When the stream's lane last applied everything up to some moment of the source, milliseconds since 1970.
    pub(crate) current_at: AtomicI64,
    /// Sources of this process whose copy is not complete.
    pub(crate) copying: AtomicU64,
    /// Bytes of the documents that were applied or sent.
    pub(crate) bytes: AtomicU64,
    /// Partitions of the log that this process applies.
    pub(crate) claimed: AtomicU64,
    /// The servers that the process waits for.
    pub(crate) board: Board,
}

impl Gauges {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}
