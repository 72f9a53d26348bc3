//! What is different when the log is Kafka: what was released is not applied yet, and the log may lose things.

use std::sync::Arc;

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::partitions::Skip;
use slackwater_connectors::retry::Pauses;
use slackwater_topics::{Barrier, CollectionId};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Log, Router};
use crate::apply::batch::Batch;
use crate::apply::stream::Report;
use crate::capture::outgoing::random;
use crate::capture::watcher::Watched;
use crate::ops::policy::{Action, action};

impl Router {
    /// Whether the rows that these collections' rows refer to are in the target. Where that is not known a fence is sent
    /// behind them; when it is through, pieces are given out.
    pub(super) async fn has_landed(&mut self, turn: &[CollectionId]) -> Result<bool> {
        let Log::Kafka { .. } = self.log else { return Ok(true) };
        let level = turn.iter().map(|id| self.plan.collections[usize::from(id.0)].level).min().unwrap_or(0);
        if level <= self.landed {
            return Ok(true);
        }
        if self.landing.is_none() {
            let id = Uuid::from_bytes(random());
            self.landing = Some((id, level));
            let batch = Batch { barriers: vec![Barrier::Fence { id }], ..Batch::default() };
            Box::pin(self.send(batch)).await?;
        }
        Ok(false)
    }

    pub(super) async fn passed_fence(&mut self, id: Uuid) -> Result<()> {
        match self.landing {
            Some((awaited, level)) if awaited == id => {
                self.landing = None;
                self.landed = level;
                self.dispatch().await
            }
            // It was sent before something was begun anew.
            _ => Ok(()),
        }
    }

    /// Nothing is waited for any more that may have been lost, and no sweep begins.
    pub(super) async fn recall_fences(&mut self) {
        let Log::Kafka { watcher, .. } = &self.log else { return };
        let (answer, answered) = oneshot::channel();
        if watcher.send(Watched::Forget { answer }).is_ok() {
            // An error: the watcher has ended, and with it every sweep.
            let _ = answered.await;
        }
        // What was reported before the answer is about fences that are recalled; a sweep that is missed is sent again.
        while let Ok(report) = self.wires.reports.try_recv() {
            if let Report::Lost { collections, text } = report {
                self.lost.push((collections, text));
            }
        }
        self.landing = None;
        self.landed = 0;
        self.sweeping = false;
    }

    /// Where the topics of these collections end now. Nothing of ours is on its way into them.
    pub(super) async fn ends_of(&mut self, collections: &[CollectionId]) -> Result<Vec<Skip>> {
        let mut ends = Vec::new();
        let Log::Kafka { outgoing, admin, .. } = &self.log else { return Ok(ends) };
        let mut pauses = Pauses::for_server();
        for id in collections {
            let topic = outgoing.topic(*id);
            for partition in 0..topic.partitions as i32 {
                let offset = loop {
                    match admin.watermarks(&topic.name, partition).await {
                        Ok((_, high)) => break high,
                        Err(error) if matches!(action(error.kind), Action::Wait | Action::Retry) => {
                            tracing::debug!(%error, "the broker does not say where a topic ends; asking again");
                            if !self.stop.sleep(pauses.next_pause()).await {
                                return Err(error);
                            }
                        }
                        Err(error) => return Err(error),
                    }
                };
                ends.push(Skip { topic: Arc::clone(&topic.name), partition, offset });
            }
        }
        Ok(ends)
    }

    /// Copies again what the log has lost.
    pub(super) async fn make_good(&mut self) -> Result<()> {
        while let Some((collections, text)) = self.lost.pop() {
            self.begin_anew(collections, "log_lost", &text).await?;
        }
        Ok(())
    }
}
