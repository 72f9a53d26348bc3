//! What the running process knows of itself, for the progress display. Counters only ever grow.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use super::board::Board;

/// Shared by all tasks of a run.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Events of the stream that were applied.
    pub(crate) events: AtomicU64,
    /// Events of the stream that were sent into Kafka.
    pub(crate) sent: AtomicU64,
    /// Documents that were copied.
    pub(crate) copied: AtomicU64,
    /// Documents to copy, as the source estimates them.
    pub(crate) to_copy: AtomicU64,
    /// Rows that were inserted, changed or deleted.
    pub(crate) rows: AtomicU64,
    /// Dead letters that this process wrote.
    pub(crate) letters: AtomicU64,
    /// Time of the newest applied change, milliseconds since 1970.
    pub(crate) source_time: AtomicI64,
    /// When the stream lane last knew that it had everything up to some time of the source, milliseconds since 1970.
    pub(crate) current_at: AtomicI64,
    /// Every collection was copied.
    pub(crate) copy_complete: AtomicBool,
    /// Bytes of the documents in what was applied or sent.
    pub(crate) bytes: AtomicU64,
    /// Partitions of the log that are ours to apply.
    pub(crate) claimed: AtomicU64,
    /// What is waited for.
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
