//! Moments of the source's clock: attached to what is sent once the stream has passed them.

use std::sync::atomic::Ordering;

use slackwater_connectors::error::Result;

use super::{Log, Router};
use crate::apply::batch::Batch;

impl Router {
    /// The source said what time it is. Where the stream has passed that already nothing else may come for long, so the
    /// moment travels alone.
    pub(super) async fn on_moment(&mut self) -> Result<()> {
        let Some(heard) = *self.wires.heard.borrow_and_update() else { return Ok(()) };
        let Some(as_of) = self.beats.hear(heard) else { return Ok(()) };
        let batch = Batch { passed: self.beats.passed(), as_of: Some(as_of), ..Batch::default() };
        self.send(batch).await?;
        self.read_as_of(Some(as_of));
        Ok(())
    }

    /// What is sent is in the log, where that is a channel. Kafka has to acknowledge it first.
    pub(super) fn read_as_of(&self, as_of: Option<i64>) {
        if let (Log::Direct, Some(as_of)) = (&self.log, as_of) {
            self.gauges.read_as_of.fetch_max(as_of, Ordering::Relaxed);
            self.gauges.read_through.fetch_max(self.beats.passed().0, Ordering::Relaxed);
        }
    }
}
