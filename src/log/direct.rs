//! The direct log: channels to the lanes of the same process. Nothing is kept here; progress is kept with the rows.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::{Batch, Chunk, Filling, Log, News};
use crate::ops::persist::Stopped;
use crate::ops::stop::Stop;
use slackwater_topics::Moment;

/// Batches between capture and the stream's lane. While the lane commits, small ones pile up here, and the next transaction takes all
/// of them; if there were room for one only, those behind it would wait for a transaction each.
const BUFFER: usize = 256;
/// Together they have no more bytes than one large batch: there is always room for one, and for a second one only if both are small.
const ROOM: usize = 16 << 20;

/// The stream's lane at the other end.
pub(crate) struct StreamEnd {
    pub(crate) batches: mpsc::Receiver<Batch>,
    /// The target holds everything up to here.
    pub(crate) applied: watch::Sender<Moment>,
    pub(crate) news: mpsc::UnboundedSender<News>,
}

/// What batches that wait for the lane may have in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Semaphore>);

impl Room {
    /// Waits until there is room for so many bytes, or until all of it is free. May be cancelled.
    pub(crate) async fn take(self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.0.acquire_many_owned(bytes.min(ROOM) as u32).await.ok()
    }
}

/// Both ends of a stream.
pub(crate) fn stream() -> (Log, StreamEnd) {
    let (batches, batches_out) = mpsc::channel(BUFFER);
    let (applied, safe) = watch::channel(Moment::default());
    let (news_in, news) = mpsc::unbounded_channel();
    let log = Log { batches, safe, news, filling: Filling::Direct(Room(Arc::new(Semaphore::new(ROOM)))) };
    (log, StreamEnd { batches: batches_out, applied, news: news_in })
}

/// A chunk on its way to its lane, which answers when it is in the target.
pub(crate) type Pending = (Chunk, oneshot::Sender<()>);

/// A worker's way to its lane.
pub(crate) struct ChunkSender {
    lane: mpsc::Sender<Pending>,
    stop: Stop,
}

/// Both ends of a worker's way.
pub(crate) fn chunks(stop: &Stop) -> (ChunkSender, mpsc::Receiver<Pending>) {
    let (lane, chunks) = mpsc::channel(1);
    (ChunkSender { lane, stop: stop.clone() }, chunks)
}

impl ChunkSender {
    pub(super) async fn append(&mut self, chunk: Chunk) -> Result<(), Stopped> {
        let (answer, done) = oneshot::channel();
        // A lane that has ended says why by itself.
        self.lane.send((chunk, answer)).await.map_err(|_| Stopped::Asked)?;
        tokio::select! {
            biased;
            done = done => done.map_err(|_| Stopped::Asked),
            () = self.stop.wait() => Err(Stopped::Asked),
        }
    }
}
