//! Looks after what the appliers report back: fences that they have passed, partitions that they cannot read on.
//!
//! It asks, and holds nothing that a restart would miss: the router sends its fences again, and a lost partition stays marked
//! until its collection was begun anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::target::sink::Sink;
use slackwater_connectors::secret::Secret;
use slackwater_topics::CollectionId;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::apply::lane::{Lane, Stopped};
use crate::apply::letters::Letters;
use crate::apply::stream::{Report, tables_of};
use crate::mapping::Plan;
use crate::ops::gauges::Gauges;
use crate::ops::policy::{Action, action};
use crate::ops::stop::Stop;

/// How often fences that are on their way are looked for.
const FENCES_EVERY: Duration = Duration::from_millis(50);
/// How often lost partitions are looked for.
const LOST_EVERY: Duration = Duration::from_secs(1);

/// A fence that was sent.
#[derive(Debug)]
pub(crate) enum Watched {
    /// When it is through, rows that a repeated copy did not meet go.
    Sweep { id: Uuid, lanes: u64, collections: Vec<CollectionId> },
    /// The router waits for it.
    Fence { id: Uuid, lanes: u64 },
    /// What was sent before is not waited for any more. Answered when no sweep is under way.
    Forget { answer: oneshot::Sender<()> },
}

/// What the watcher works with.
pub(crate) struct Watcher {
    pub(crate) plan: Arc<Plan>,
    pub(crate) target: Secret,
    pub(crate) epoch: i64,
    pub(crate) watched: mpsc::UnboundedReceiver<Watched>,
    pub(crate) reports: mpsc::UnboundedSender<Report>,
    pub(crate) letters: Arc<Letters>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stop: Stop,
}

impl Watcher {
    /// Watches until it is to stop. A control store that does not answer is asked again.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut control = Control::open(&self.target).await?;
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
                        // Who asked may have ended.
                        let _ = answer.send(());
                    }
                    Some(watched) => pending.push(watched),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(wait) => {}
            }
            let looking = self.fences(&control, &mut pending).await;
            let looking = match looking {
                Ok(()) if looked.elapsed() >= LOST_EVERY => {
                    looked = Instant::now();
                    self.lost(&control, &mut reported).await
                }
                other => other,
            };
            match looking {
                Ok(()) => {}
                Err(Stopped::Asked) => return Ok(()),
                Err(Stopped::Failed(error)) if matches!(action(error.kind), Action::Wait | Action::Retry) => {
                    tracing::debug!(%error, "the control store does not answer");
                    if !control.is_connected()
                        && let Ok(again) = Control::open(&self.target).await
                    {
                        control = again;
                    }
                }
                Err(Stopped::Failed(error)) => return Err(error),
            }
        }
    }

    async fn fences(
        &self,
        control: &Control,
        pending: &mut Vec<Watched>,
    ) -> std::result::Result<(), Stopped> {
        while let Some(watched) = pending.first() {
            let (Watched::Sweep { id, lanes, .. } | Watched::Fence { id, lanes }) = watched else {
                return Ok(());
            };
            let passed = control.fence_passed(&self.plan.migration, *id).await.map_err(Stopped::Failed)?;
            if passed < *lanes {
                return Ok(());
            }
            let report = match watched {
                Watched::Fence { id, .. } => Report::Passed { id: *id },
                Watched::Sweep { collections, .. } => {
                    let rows = self.sweep(collections).await?;
                    Report::Swept { collections: collections.clone(), rows }
                }
                Watched::Forget { .. } => return Ok(()),
            };
            // The router ends everything when it ends.
            let _ = self.reports.send(report);
            pending.remove(0);
        }
        Ok(())
    }

    /// Every row of the repeated copy is in the target and noted: what is not goes.
    async fn sweep(&self, collections: &[CollectionId]) -> std::result::Result<u64, Stopped> {
        let lane = super::LANE;
        let sink =
            Sink::open(&self.target, &self.plan.migration, lane, self.epoch, Arc::clone(&self.plan.tables))
                .await
                .map_err(Stopped::Failed)?;
        let mut lane = Lane::new(
            lane.to_owned(),
            sink,
            Arc::clone(&self.plan),
            Arc::clone(&self.letters),
            Arc::clone(&self.gauges),
            self.stop.clone(),
        );
        lane.sweep(&tables_of(&self.plan, collections)).await
    }

    async fn lost(
        &self,
        control: &Control,
        reported: &mut Vec<(Arc<str>, i32)>,
    ) -> std::result::Result<(), Stopped> {
        let lost = control.lost_partitions(&self.plan.migration).await.map_err(Stopped::Failed)?;
        reported.retain(|seen| lost.iter().any(|lost| (&lost.topic, lost.partition) == (&seen.0, seen.1)));
        let mut collections: Vec<CollectionId> = Vec::new();
        let mut texts = Vec::new();
        for lost in &lost {
            if reported.iter().any(|seen| (&lost.topic, lost.partition) == (&seen.0, seen.1)) {
                continue;
            }
            reported.push((Arc::clone(&lost.topic), lost.partition));
            let place =
                self.plan.collections.iter().position(|collection| collection.name == lost.collection);
            let Some(place) = place else { continue };
            let id = CollectionId(place as u16);
            if !collections.contains(&id) {
                collections.push(id);
            }
            // What befell a whole topic is said of each of its partitions.
            if !texts.contains(&lost.text) {
                texts.push(lost.text.clone());
            }
        }
        if !collections.is_empty() {
            let text = texts.join("; ");
            let _ = self.reports.send(Report::Lost { collections, text });
        }
        Ok(())
    }
}
