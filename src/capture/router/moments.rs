//! Times of the source's clock: attached to what is sent once the stream has passed them.

use super::{Done, Router};
use crate::log::Batch;

impl Router {
    /// The source said what time it is. Where the stream has passed that already nothing else may come for long, so it travels
    /// alone.
    pub(super) async fn on_moment(&mut self) -> Done {
        let Some(heard) = *self.inputs.heard.borrow_and_update() else { return Ok(()) };
        let Some(as_of) = self.clock.hear(heard) else { return Ok(()) };
        let batch = Batch { passed: self.clock.passed(), as_of: Some(as_of), ..Batch::default() };
        self.append(batch).await?;
        self.note_read(Some(as_of));
        Ok(())
    }

    /// What was appended counts as read where the log keeps it at once. Others say so themselves.
    pub(super) fn note_read(&self, as_of: Option<i64>) {
        if let Some(as_of) = as_of.filter(|_| self.log.keeps_at_once()) {
            self.reach.read(as_of, self.clock.passed());
        }
    }
}
