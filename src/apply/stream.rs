//! The lane of the stream: everything that waits becomes one transaction, and no timer adds to the delay.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slackwater_connectors::error::Result;
use slackwater_topics::{Moment, Position};
use tokio::sync::watch;

use super::lane::{Lane, Way};
use super::transaction::Transaction;
use crate::log::direct::StreamEnd;
use crate::log::{Barrier, Batch, News, Reach};
use crate::mapping::Plan;
use crate::ops::gauges::Gauges;
use crate::ops::persist::{Stopped, ended};
use crate::ops::process::now_millis;
use crate::ops::stop::Stop;

/// One transaction takes no more than this, so that memory and locks stay bounded.
const MOST_BYTES: usize = 8 << 20;
const MOST_EVENTS: usize = 20_000;
/// A position without events is saved this often: the token of an idle stream must not grow old.
const IDLE_SAVE: Duration = Duration::from_secs(1);
/// Without any news the lane still says that it is alive.
const BEAT: Duration = Duration::from_secs(2);

/// The lane of a stream.
pub(crate) struct Stream {
    pub(crate) lane: Lane,
    pub(crate) plan: Arc<Plan>,
    pub(crate) end: StreamEnd,
    pub(crate) reach: Arc<Reach>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stop: Stop,
}

impl Stream {
    /// Works until the log is closed, it is to stop, or something fails for good.
    pub(crate) async fn run(self) -> Result<()> {
        ended(self.work().await)
    }

    async fn work(mut self) -> std::result::Result<(), Stopped> {
        let mut idle: Option<Batch> = None;
        let mut saved = Instant::now();
        loop {
            let wait = if idle.is_some() { IDLE_SAVE } else { BEAT }.saturating_sub(saved.elapsed());
            let received = tokio::select! {
                biased;
                () = self.stop.wait() => None,
                received = self.end.batches.recv() => received.map(Some),
                () = tokio::time::sleep(wait) => Some(None),
            };
            let Some(received) = received else {
                // The last position of an idle stream is worth a moment.
                if let Some(batch) = idle.take() {
                    self.write(batch).await?;
                }
                return Ok(());
            };
            let batch = self.gather(idle.take(), received);
            let settled = batch.settled;
            let nothing = batch.events.is_empty() && batch.barriers.is_empty();
            // While chunks are copied every position is saved: a change that was left to a chunk must not come again, as an
            // older one, after that chunk is in the target.
            let copied = self.reach.is_copied();
            // A moment of the source's clock comes once a second, and tells that we are not behind.
            if nothing && copied && batch.as_of.is_none() && saved.elapsed() < IDLE_SAVE {
                // Nothing to write: all that came before is committed, so the moment counts already.
                advance(&self.end.applied, settled, &self.gauges);
                idle = Some(batch);
                continue;
            }
            let barriers = batch.barriers.clone();
            self.write(batch).await?;
            saved = Instant::now();
            for barrier in barriers {
                self.passed(barrier).await?;
            }
            advance(&self.end.applied, settled, &self.gauges);
        }
    }

    /// What waits, as far as it fits into one transaction.
    fn gather(&mut self, idle: Option<Batch>, received: Option<Batch>) -> Batch {
        let mut batch = match (idle, received) {
            (Some(mut idle), Some(received)) => {
                idle.append(received);
                idle
            }
            (idle, received) => received.or(idle).unwrap_or_default(),
        };
        // It waits no more.
        batch.room = None;
        while batch.is_open() && batch.bytes < MOST_BYTES && batch.events.len() < MOST_EVENTS {
            match self.end.batches.try_recv() {
                Ok(more) => batch.append(more),
                Err(_) => break,
            }
        }
        batch
    }

    async fn write(&mut self, batch: Batch) -> std::result::Result<(), Stopped> {
        let count = batch.events.len() as u64;
        let newest = batch.events.iter().map(|event| event.time).max();
        self.lane.write(&mut Transaction::stream(batch), Way::Upsert).await?;
        Gauges::add(&self.gauges.events, count);
        if let Some(newest) = newest {
            self.gauges.source_time.fetch_max(newest, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A barrier is committed.
    async fn passed(&mut self, barrier: Barrier) -> std::result::Result<(), Stopped> {
        let news = match barrier {
            Barrier::Fence { .. } => return Ok(()),
            Barrier::Flush => News::Flushed,
            Barrier::Sweep { collections, kept } => {
                let swept: Vec<_> = collections.iter().copied().filter(|id| !kept.contains(id)).collect();
                let rows = self.lane.sweep(&self.plan, &swept).await?;
                News::Swept { collections, rows }
            }
        };
        // Nobody listens where the capture has ended: then a sweep is done again after the next start.
        let _ = self.end.news.send(news);
        Ok(())
    }
}

/// Keeps where the stream begins, before anything is copied: a chunk that counted from a position which nobody remembers would lose
/// what came after it.
pub(crate) async fn keep_first(lane: &mut Lane, position: &Position) -> std::result::Result<(), Stopped> {
    let batch = Batch { position: Some(position.clone()), ..Batch::default() };
    lane.write(&mut Transaction::stream(batch), Way::Upsert).await.map(drop)
}

fn advance(applied: &watch::Sender<Moment>, settled: Moment, gauges: &Gauges) {
    applied.send_if_modified(|applied| {
        let further = settled > *applied;
        if further {
            *applied = settled;
        }
        further
    });
    // A beat without news brings none.
    if settled > Moment::default() {
        gauges.current_at.store(now_millis(), Ordering::Relaxed);
    }
}
