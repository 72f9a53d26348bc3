//! The router's part in a cutover: it hurries, and sends the fence that is wanted.

use std::time::Duration;

use super::{Done, IDLE_WAIT, IDLE_WAIT_AT_CUTOVER, IDLE_WAIT_IN_COPY, Router};
use crate::cutover::watch::Phase;
use crate::log::{Barrier, Batch};
use crate::ops::persist::persist;

impl Router {
    /// Whether a cutover is under way.
    pub(super) fn is_near(&self) -> bool {
        *self.inputs.phase.borrow() != Phase::Calm
    }

    /// How long the source may hold its answer back while nothing happens.
    pub(super) fn idle_wait(&self) -> Duration {
        if self.is_near() {
            IDLE_WAIT_AT_CUTOVER
        } else if self.reach.is_copied() {
            IDLE_WAIT
        } else {
            IDLE_WAIT_IN_COPY
        }
    }

    /// Sends the fence that the cutover wants, once everything up to its moment is in the log. After a restart it is sent
    /// again, which does no harm: the leader counts partitions, not arrivals.
    pub(super) async fn fence(&mut self) -> Done {
        let Phase::Near { fence: Some((id, moment)) } = *self.inputs.phase.borrow() else { return Ok(()) };
        if self.fenced == Some(id) {
            return Ok(());
        }
        let moment = match self.asked {
            Some((asked, own)) if asked == id => moment.max(own),
            // The writers are stopped by now, so the present is a moment after all that they wrote.
            _ if self.source.kind().counts_by_itself() => {
                let own = persist(&self.stop, || self.source.now()).await?;
                self.asked = Some((id, own));
                self.source.begin_afresh();
                moment.max(own)
            }
            _ => moment,
        };
        if self.passed < moment {
            return Ok(());
        }
        self.fenced = Some(id);
        self.append(Batch { passed: self.passed, ..Batch::of(Barrier::Fence { id }) }).await
    }
}
