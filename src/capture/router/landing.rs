//! Where a chunk that is done is not in the target yet: the collections of a higher level wait for a fence behind it.

use slackwater_topics::CollectionId;
use uuid::Uuid;

use super::{Done, Router};
use crate::log::{Barrier, Batch};
use crate::ops::persist::Stopped;
use crate::ops::process::unique_id;

impl Router {
    /// Whether the rows that these collections' rows refer to are in the target. Where that is not known a fence is sent
    /// behind them; when it is through, chunks are given out.
    pub(super) async fn has_landed(&mut self, turn: &[CollectionId]) -> Result<bool, Stopped> {
        let level = turn.iter().map(|id| self.plan.collection(*id).level).min().unwrap_or(0);
        if self.log.applies_chunks() || level <= self.landed {
            return Ok(true);
        }
        if self.landing.is_none() {
            let id = unique_id();
            self.landing = Some((id, level));
            Box::pin(self.append(Batch::of(Barrier::Fence { id }))).await?;
        }
        Ok(false)
    }

    pub(super) async fn passed_fence(&mut self, id: Uuid) -> Done {
        match self.landing {
            Some((awaited, level)) if awaited == id => {
                self.landing = None;
                self.landed = level;
                self.dispatch().await
            }
            // It was sent before a recopy began.
            _ => Ok(()),
        }
    }

    /// Nothing is waited for any more that may have been lost, and no sweep begins. A direct log has lost nothing.
    pub(super) async fn recall_fences(&mut self) {
        if self.log.applies_chunks() {
            return;
        }
        self.lost.extend(self.log.recall().await);
        self.landing = None;
        self.landed = 0;
        self.awaited = None;
    }
}
