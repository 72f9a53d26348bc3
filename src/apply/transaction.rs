//! What becomes one transaction of a lane: events, and what is committed with their rows.

use slackwater_connectors::postgres::progress::{
    Advance, ChunkDone, DeadLetter, FencePass, Notes, PartitionAdvance, Progress,
};
use slackwater_topics::{Event, Moment, Position};

use crate::log::{Barrier, Batch, Chunk};

/// See the module.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// In the order of the log.
    pub(crate) events: Vec<Event>,
    /// Tables whose row keys are noted as seen.
    pub(crate) seen: Vec<usize>,
    /// Fences that are passed with it.
    pub(crate) fences: Vec<FencePass>,
    pub(crate) origin: Origin,
}

/// Where the events come from, and the progress that is committed with them.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The stream of a direct log.
    Stream {
        /// Where the stream is after them.
        position: Option<Position>,
        /// Everything at or before this moment has come.
        passed: Moment,
        /// Everything that the source had at this time of its clock has come.
        as_of: Option<i64>,
        horizon: Moment,
    },
    /// A chunk of the copy, which is done with them.
    Chunk(ChunkDone),
    /// Partitions of Kafka.
    Partitions {
        advances: Vec<PartitionAdvance>,
        /// Records that are not events.
        letters: Vec<DeadLetter>,
    },
}

impl Transaction {
    /// A batch of a direct log.
    pub(crate) fn stream(batch: Batch) -> Self {
        let fences = batch.barriers.iter().filter_map(|barrier| match barrier {
            Barrier::Fence { id } => Some(FencePass { id: *id, lane: None }),
            Barrier::Sweep { .. } | Barrier::Flush => None,
        });
        Self {
            fences: fences.collect(),
            events: batch.events,
            seen: batch.seen,
            origin: Origin::Stream {
                position: batch.position,
                passed: batch.passed,
                as_of: batch.as_of,
                horizon: batch.horizon,
            },
        }
    }

    /// A chunk of a direct log.
    pub(crate) fn chunk(chunk: Chunk) -> Self {
        Self { events: chunk.events, seen: chunk.seen, fences: Vec::new(), origin: Origin::Chunk(chunk.done) }
    }

    /// The step that it is for its lane. `taken`: events before it was reduced.
    pub(super) fn advance(&self, taken: u64, progress: &Progress) -> Advance {
        let mut advance = Advance {
            sequence: progress.sequence,
            // What was read and not streamed has no time of its own.
            source_time: self.events.iter().map(|event| event.time).filter(|time| *time > 0).max(),
            horizon: progress.horizon,
            events: taken,
            seen: self.seen.clone(),
            ..Advance::default()
        };
        match &self.origin {
            Origin::Stream { position, passed, as_of, horizon } => {
                advance.position.clone_from(position);
                advance.applied_through = (passed.0 > 0).then_some(*passed);
                advance.as_of = *as_of;
                advance.horizon = advance.horizon.max(*horizon);
            }
            Origin::Chunk(done) => advance.chunk = Some(done.clone()),
            Origin::Partitions { advances, .. } => advance.partitions.clone_from(advances),
        }
        advance
    }

    /// What is remembered with it, whatever becomes of its events.
    pub(super) fn notes(&self) -> Notes {
        let dead_letters = match &self.origin {
            Origin::Partitions { letters, .. } => letters.clone(),
            Origin::Stream { .. } | Origin::Chunk(_) => Vec::new(),
        };
        Notes { fences: self.fences.clone(), dead_letters, ..Notes::default() }
    }
}
