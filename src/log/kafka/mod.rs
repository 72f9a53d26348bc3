//! Kafka as the log: a topic for each collection, records in the order of the source within each partition.
//!
//! Capture's side is here: what sends ([`publisher`], [`outgoing`]), what hears from appliers through the control store
//! ([`watcher`]), and the topics themselves ([`topics`]). Appliers read on their own side, in `apply`.

mod chunks;
pub(crate) mod outgoing;
pub(crate) mod publisher;
pub(crate) mod rights;
pub(crate) mod topics;
pub(crate) mod watcher;

use std::sync::Arc;

use slackwater_connectors::kafka::Admin;
use slackwater_connectors::postgres::control::partitions::Skip;
use slackwater_topics::CollectionId;
use tokio::sync::{mpsc, oneshot};

pub(crate) use chunks::ChunkSender;

use crate::ops::persist::{Stopped, persist};
use crate::ops::stop::Stop;
use outgoing::Outgoing;
use watcher::Watched;

/// Capture's hold on the topics of its source.
pub(crate) struct Topics {
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) admin: Admin,
    pub(crate) watcher: mpsc::UnboundedSender<Watched>,
    pub(crate) stop: Stop,
}

impl Topics {
    /// See [`super::Log::recall`].
    pub(super) async fn recall(&self) {
        let (answer, answered) = oneshot::channel();
        if self.watcher.send(Watched::Forget { answer }).is_ok() {
            // An error: the watcher has ended, and every sweep with it.
            let _ = answered.await;
        }
    }

    /// See [`super::Log::ends_of`].
    pub(super) async fn ends_of(&self, collections: &[CollectionId]) -> Result<Vec<Skip>, Stopped> {
        let mut ends = Vec::new();
        for id in collections {
            let topic = self.outgoing.topic(*id);
            for partition in 0..topic.partitions as i32 {
                let end = persist(&self.stop, || self.admin.watermarks(&topic.name, partition));
                let (_, offset) = end.await?;
                ends.push(Skip { topic: Arc::clone(&topic.name), partition, offset });
            }
        }
        Ok(ends)
    }
}
