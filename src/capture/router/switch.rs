//! The router's part in the switch: it hurries, and sends the fence that is wanted.

use std::sync::atomic::Ordering;
use std::time::Duration;

use slackwater_connectors::error::Result;
use slackwater_topics::Barrier;

use super::{IDLE_WAIT, IDLE_WAIT_AT_SWITCH, IDLE_WAIT_IN_COPY, Router};
use crate::apply::batch::Batch;
use crate::cutover::watch::Phase;

impl Router {
    /// Whether a switch is under way.
    pub(super) fn is_near(&self) -> bool {
        *self.wires.phase.borrow() != Phase::Calm
    }

    /// How long the source may hold its answer back while nothing happens.
    pub(super) fn idle_wait(&self) -> Duration {
        if self.is_near() {
            IDLE_WAIT_AT_SWITCH
        } else if self.gauges.copy_complete.load(Ordering::Acquire) {
            IDLE_WAIT
        } else {
            IDLE_WAIT_IN_COPY
        }
    }

    /// Sends the fence that the switch wants, once everything up to its time is in the log. After a restart it is sent
    /// again, which does no harm: whoever waits for it counts partitions, not arrivals.
    pub(super) async fn fence(&mut self) -> Result<()> {
        let Phase::Near { fence: Some((id, time)) } = *self.wires.phase.borrow() else { return Ok(()) };
        if self.fenced == Some(id) || self.passed < time {
            return Ok(());
        }
        self.fenced = Some(id);
        self.send(Batch { barriers: vec![Barrier::Fence { id }], passed: self.passed, ..Batch::default() })
            .await
    }
}
