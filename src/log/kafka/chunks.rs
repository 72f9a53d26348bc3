//! Chunks of the copy on their way into topics.

use std::sync::Arc;

use slackwater_connectors::kafka::Ticket;
use slackwater_topics::Stamp;

use super::outgoing::{Outgoing, Pen};
use crate::log::Chunk;
use crate::ops::persist::Stopped;
use crate::ops::process::unique;
use crate::ops::stop::Stop;
use crate::ops::store::{Store, ask};

/// What one worker of the copy sends with.
pub(crate) struct ChunkSender {
    outgoing: Arc<Outgoing>,
    pen: Pen,
    store: Store,
    stop: Stop,
}

impl ChunkSender {
    pub(crate) fn new(outgoing: &Arc<Outgoing>, store: Store, stop: &Stop) -> Self {
        Self { pen: outgoing.pen(), outgoing: Arc::clone(outgoing), store, stop: stop.clone() }
    }

    /// Sends the chunk, and marks it done when the broker has all of it. After a crash in between it is read again.
    pub(crate) async fn append(&mut self, chunk: Chunk) -> Result<(), Stopped> {
        let Chunk { done, events, fresh, seen } = chunk;
        let stamp = Stamp { epoch: self.outgoing.epoch, fresh, noted: !seen.is_empty() };
        let (ticket, trace) = (Ticket::new(), unique());
        for event in &events {
            let sending = self.outgoing.event(&mut self.pen, event, stamp, trace, &ticket);
            tokio::select! {
                biased;
                sent = sending => sent?,
                () = self.stop.wait() => return Err(Stopped::Asked),
            }
        }
        ticket.close();
        tokio::select! {
            biased;
            acknowledged = ticket.acknowledged() => acknowledged?,
            () = self.stop.wait() => return Err(Stopped::Asked),
        }
        ask!(self.store, control => control.finish_chunk(&done))
    }
}
