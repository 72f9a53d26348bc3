//! What lies between capture and apply: capture appends, apply takes, and capture hears how far that is.
//!
//! Two fillings of one contract:
//! - **direct**: channels to lanes of the same process. What is appended is applied next, and nothing is kept.
//! - **kafka**: a topic for each collection. What is appended and acknowledged is kept for appliers, which are other processes.
//!
//! # Contract
//!
//! - Batches of one source are taken in the order in which they are appended; a barrier is taken behind everything before it.
//! - [`Log::safe`] tells a moment of the source: no restart brings anything again that happened at or before it, and nothing that comes
//!   later shows a state from before it.
//! - A chunk of the copy is appended beside the stream, by a worker of its own. [`ChunkLog::append`] returns when the chunk is marked
//!   done, together with what keeps it: its rows, or the broker's acknowledgement.
//! - Capture writes nothing into the target by itself: rows are written by lanes (`apply`), and only they sweep.

mod batch;
pub(crate) mod direct;
pub(crate) mod kafka;
mod reach;

use slackwater_connectors::postgres::control::partitions::Skip;
use slackwater_connectors::postgres::progress::ChunkDone;
use slackwater_topics::{CollectionId, Event, Moment};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

pub(crate) use batch::{Barrier, Batch, keep_last};
pub(crate) use reach::Reach;

use crate::ops::persist::Stopped;

/// What the log tells capture.
#[derive(Debug)]
pub(crate) enum News {
    /// Everything that was appended before the flush is out of capture's hands.
    Flushed,
    /// Rows that a recopy has not seen are gone.
    /// `rows`: how many went; none where it could not be said which had to, so the recopy has to be made again.
    Swept { collections: Vec<CollectionId>, rows: Option<u64> },
    /// All that was appended before this fence is in the target.
    Passed { fence: Uuid },
    /// The log has lost what was not applied yet.
    Lost { collections: Vec<CollectionId>, text: String },
}

/// Capture's end of the log, for one source. The fields can be waited for side by side.
pub(crate) struct Log {
    pub(crate) batches: mpsc::Sender<Batch>,
    /// No restart brings again what happened at or before this.
    pub(crate) safe: watch::Receiver<Moment>,
    pub(crate) news: mpsc::UnboundedReceiver<News>,
    pub(crate) filling: Filling,
}

/// Which log it is.
pub(crate) enum Filling {
    Direct(direct::Room),
    Kafka(kafka::Topics),
}

impl Log {
    /// Room for what waits, where the log has to bound it.
    pub(crate) fn room(&self) -> Option<direct::Room> {
        match &self.filling {
            Filling::Direct(room) => Some(room.clone()),
            Filling::Kafka(_) => None,
        }
    }

    /// Whether what was appended counts as read into the log at once; otherwise the log says so when it has kept it.
    pub(crate) fn keeps_at_once(&self) -> bool {
        matches!(self.filling, Filling::Direct(_))
    }

    /// Whether the rows of a chunk are in the target as soon as it is done. Otherwise a fence has to follow it.
    pub(crate) fn applies_chunks(&self) -> bool {
        matches!(self.filling, Filling::Direct(_))
    }

    /// Fences and sweeps that were appended are not waited for any more; none begins after this. What the log has lost is given
    /// back, so that it is not missed. A direct log has none on its way: it is empty when its last barrier is.
    pub(crate) async fn recall(&mut self) -> Vec<(Vec<CollectionId>, String)> {
        let Filling::Kafka(topics) = &self.filling else { return Vec::new() };
        topics.recall().await;
        let mut lost = Vec::new();
        // News that came before the recall is about fences that are recalled; a sweep that is missed is sent again.
        while let Ok(news) = self.news.try_recv() {
            if let News::Lost { collections, text } = news {
                lost.push((collections, text));
            }
        }
        lost
    }

    /// Where these collections end in the log now, while nothing of ours is on its way: nothing before that is applied after
    /// a recopy has begun.
    pub(crate) async fn ends_of(
        &self,
        collections: &[CollectionId],
    ) -> std::result::Result<Vec<Skip>, Stopped> {
        match &self.filling {
            Filling::Direct(_) => Ok(Vec::new()),
            Filling::Kafka(topics) => topics.ends_of(collections).await,
        }
    }
}

/// Documents of one chunk of the copy, as they go into the log.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The chunk that is done with them.
    pub(crate) done: ChunkDone,
    pub(crate) events: Vec<Event>,
    /// The tables held nothing of this collection when the copy began.
    pub(crate) fresh: bool,
    /// Tables whose row keys are noted as seen by this copy.
    pub(crate) seen: Vec<usize>,
}

/// The log for one worker of the copy.
pub(crate) enum ChunkLog {
    Direct(direct::ChunkSender),
    Kafka(Box<kafka::ChunkSender>),
}

impl ChunkLog {
    /// Appends the chunk. It is done when this returns.
    pub(crate) async fn append(&mut self, chunk: Chunk) -> std::result::Result<(), Stopped> {
        match self {
            Self::Direct(lane) => lane.append(chunk).await,
            Self::Kafka(topics) => topics.append(chunk).await,
        }
    }
}
