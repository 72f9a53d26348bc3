//! Hears from appliers through the control store: fences that they have passed, partitions that they cannot read on.
//!
//! It asks, and holds nothing that a restart would miss: the router sends its fences again, and a lost partition stays marked
//! until its collection is recopied.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slackwater_connectors::error::Result;
use slackwater_topics::CollectionId;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::log::News;
use crate::mapping::Plan;
use crate::ops::persist::{Stopped, ended, passes};
use crate::ops::stop::Stop;
use crate::ops::store::Store;

/// How often fences that are on their way are looked for.
const FENCES_EVERY: Duration = Duration::from_millis(50);
/// How often lost partitions are looked for.
const LOST_EVERY: Duration = Duration::from_secs(1);

/// A fence that was sent.
#[derive(Debug)]
pub(crate) enum Watched {
    /// When it is through, rows that the recopy has not seen go.
    Sweep { id: Uuid, lanes: u64, collections: Vec<CollectionId>, kept: Vec<CollectionId> },
    /// The router waits for it.
    Fence { id: Uuid, lanes: u64 },
    /// What was sent before is not waited for any more. Answered when no sweep is under way.
    Forget { answer: oneshot::Sender<()> },
}

/// Rows are to be swept, on a lane of the capture's own; answered with how many went.
pub(crate) type SweepRequest = (Vec<CollectionId>, oneshot::Sender<Option<u64>>);

/// What the watcher works with.
pub(crate) struct Watcher {
    pub(crate) plan: Arc<Plan>,
    /// The source whose collections are watched.
    pub(crate) source: String,
    pub(crate) store: Store,
    pub(crate) watched: mpsc::UnboundedReceiver<Watched>,
    pub(crate) news: mpsc::UnboundedSender<News>,
    pub(crate) sweeper: mpsc::Sender<SweepRequest>,
    pub(crate) stop: Stop,
}

impl Watcher {
    /// Watches until it is to stop. A control store that does not answer is asked again.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut pending: Vec<Watched> = Vec::new();
        let mut looked = Instant::now();
        let mut reported: Vec<(Arc<str>, i32)> = Vec::new();
        loop {
            let wait = if pending.is_empty() { LOST_EVERY } else { FENCES_EVERY };
            tokio::select! {
                biased;
                () = self.stop.wait() => return Ok(()),
                watched = self.watched.recv() => match watched {
                    Some(Watched::Forget { answer }) => {
                        pending.clear();
                        // The router may have ended.
                        let _ = answer.send(());
                    }
                    Some(watched) => pending.push(watched),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(wait) => {}
            }
            let mut looking = self.fences(&mut pending).await;
            if looking.is_ok() && looked.elapsed() >= LOST_EVERY {
                looked = Instant::now();
                looking = self.lost(&mut reported).await;
            }
            match looking {
                // The next round asks again.
                Err(Stopped::Failed(error)) if passes(&error) => {
                    tracing::debug!(%error, "the control store does not answer");
                }
                Ok(()) => {}
                stopped => return ended(stopped),
            }
        }
    }

    async fn fences(&mut self, pending: &mut Vec<Watched>) -> std::result::Result<(), Stopped> {
        while let Some(watched) = pending.first() {
            let (Watched::Sweep { id, lanes, .. } | Watched::Fence { id, lanes }) = watched else {
                return Ok(());
            };
            let (id, lanes) = (*id, *lanes);
            if self.store.control().await?.fence_passed(&self.plan.migration, id).await? < lanes {
                return Ok(());
            }
            let news = match watched {
                Watched::Sweep { collections, kept, .. } => {
                    let swept = collections.iter().copied().filter(|id| !kept.contains(id));
                    let rows = self.sweep(swept.collect()).await?;
                    News::Swept { collections: collections.clone(), rows }
                }
                _ => News::Passed { fence: id },
            };
            // The router ends everything when it ends.
            let _ = self.news.send(news);
            pending.remove(0);
        }
        Ok(())
    }

    /// Every row of the recopy is in the target and noted: the others go. An end of the sweeper says why by itself.
    async fn sweep(&self, collections: Vec<CollectionId>) -> std::result::Result<Option<u64>, Stopped> {
        let (answer, swept) = oneshot::channel();
        self.sweeper.send((collections, answer)).await.map_err(|_| Stopped::Asked)?;
        swept.await.map_err(|_| Stopped::Asked)
    }

    async fn lost(&mut self, reported: &mut Vec<(Arc<str>, i32)>) -> std::result::Result<(), Stopped> {
        let lost = self.store.control().await?.lost_partitions(&self.plan.migration).await?;
        reported.retain(|seen| lost.iter().any(|lost| (&lost.topic, lost.partition) == (&seen.0, seen.1)));
        let mut collections: Vec<CollectionId> = Vec::new();
        let mut texts = Vec::new();
        for lost in &lost {
            if reported.iter().any(|seen| (&lost.topic, lost.partition) == (&seen.0, seen.1)) {
                continue;
            }
            reported.push((Arc::clone(&lost.topic), lost.partition));
            let Some(id) = self.plan.id_of(&lost.collection) else { continue };
            if self.plan.collection(id).source != self.source {
                continue;
            }
            if !collections.contains(&id) {
                collections.push(id);
            }
            // The loss of a whole topic is reported once, not once per partition.
            if !texts.contains(&lost.text) {
                texts.push(lost.text.clone());
            }
        }
        if !collections.is_empty() {
            let text = texts.join("; ");
            let _ = self.news.send(News::Lost { collections, text });
        }
        Ok(())
    }
}
