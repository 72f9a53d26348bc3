//! The lane of the stream: whatever waits becomes one transaction, no timer adds to the delay.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slackwater_connectors::error::Error;
use slackwater_topics::{Barrier, CollectionId, Moment};
use tokio::sync::{mpsc, watch};

use super::batch::Batch;
use super::lane::{Lane, Stopped, Way};
use crate::mapping::Plan;
use crate::ops::gauges::Gauges;
use crate::ops::stop::Stop;

/// One transaction takes no more than this, so that memory and locks stay bounded.
const MOST_BYTES: usize = 8 << 20;
const MOST_EVENTS: usize = 20_000;
/// A position without events is saved this often: the token of an idle stream must not grow old.
const IDLE_SAVE: Duration = Duration::from_secs(1);
/// Without any news the lane still says that it lives.
const BEAT: Duration = Duration::from_secs(2);

/// What the stream lane reports back.
#[derive(Debug)]
pub(crate) enum Report {
    /// Rows that a repeated copy did not meet are gone.
    Swept { collections: Vec<CollectionId>, rows: u64 },
    /// Every partition of the log has passed the fence.
    Passed { id: uuid::Uuid },
    /// The log has lost what was not applied yet.
    Lost { collections: Vec<CollectionId>, text: String },
}

/// The task of the stream's lane. Ends when the log is closed, when it is to stop, or with an error.
pub(crate) async fn run(
    mut lane: Lane,
    plan: Arc<Plan>,
    mut log: mpsc::Receiver<Batch>,
    applied: watch::Sender<Moment>,
    reports: mpsc::UnboundedSender<Report>,
    gauges: Arc<Gauges>,
    mut stop: Stop,
) -> Result<(), Error> {
    let mut idle: Option<Batch> = None;
    let mut saved = Instant::now();
    loop {
        let wait = if idle.is_some() { IDLE_SAVE } else { BEAT }.saturating_sub(saved.elapsed());
        let received = tokio::select! {
            biased;
            () = stop.wait() => None,
            received = log.recv() => received.map(Some),
            () = tokio::time::sleep(wait) => Some(None),
        };
        let mut batch = match received {
            None => {
                // The last position of an idle stream is worth a moment.
                if let Some(batch) = idle.take() {
                    write(&mut lane, batch).await?;
                }
                return Ok(());
            }
            Some(None) => idle.take().unwrap_or_default(),
            Some(Some(first)) => match idle.take() {
                Some(mut batch) => {
                    batch.append(first);
                    batch
                }
                None => first,
            },
        };
        while batch.is_open() && batch.bytes < MOST_BYTES && batch.events.len() < MOST_EVENTS {
            match log.try_recv() {
                Ok(more) => batch.append(more),
                Err(_) => break,
            }
        }
        let passed = batch.passed;
        let nothing = batch.events.is_empty() && batch.barriers.is_empty();
        // While pieces are copied every position is saved: a change that was left to a piece must not come again, as an
        // older one, after that piece is in the target.
        let copied = gauges.copy_complete.load(Ordering::Acquire);
        // A moment of the source comes once a second, and is what tells that we are not behind.
        if nothing && copied && batch.as_of.is_none() && saved.elapsed() < IDLE_SAVE {
            // Nothing to write: all that came before is committed, so the time counts already.
            advance(&applied, passed, &gauges);
            idle = Some(batch);
            continue;
        }
        let count = batch.events.len() as u64;
        let newest = batch.events.iter().map(|event| event.time).max();
        let barriers = std::mem::take(&mut batch.barriers);
        batch.barriers.clone_from(&barriers);
        if !write(&mut lane, batch).await? {
            return Ok(());
        }
        saved = Instant::now();
        Gauges::add(&gauges.events, count);
        if let Some(newest) = newest {
            gauges.source_time.fetch_max(newest, Ordering::Relaxed);
        }
        for barrier in barriers {
            if let Barrier::Sweep { collections } = barrier {
                let tables = tables_of(&plan, &collections);
                let rows = match lane.sweep(&tables).await {
                    Ok(rows) => rows,
                    Err(Stopped::Asked) => return Ok(()),
                    Err(Stopped::Failed(error)) => return Err(error),
                };
                // Nobody listens where the capture has ended: then the sweep is done again after the next start.
                let _ = reports.send(Report::Swept { collections, rows });
            }
        }
        advance(&applied, passed, &gauges);
    }
}

/// False where it was to stop first.
async fn write(lane: &mut Lane, mut batch: Batch) -> Result<bool, Error> {
    match lane.write(&mut batch, None, Way::Upsert).await {
        Ok(_) => Ok(true),
        Err(Stopped::Asked) => Ok(false),
        Err(Stopped::Failed(error)) => Err(error),
    }
}

fn advance(applied: &watch::Sender<Moment>, passed: Moment, gauges: &Gauges) {
    applied.send_if_modified(|applied| {
        let further = passed > *applied;
        if further {
            *applied = passed;
        }
        further
    });
    // A beat without news brings none.
    if passed > Moment::default() {
        gauges.current_at.store(now_millis(), Ordering::Relaxed);
    }
}

/// The tables that these collections fill, in the plan's order.
pub(crate) fn tables_of(plan: &Plan, collections: &[CollectionId]) -> Vec<usize> {
    let mut tables: Vec<usize> = collections
        .iter()
        .flat_map(|collection| plan.collections[usize::from(collection.0)].tables.iter().copied())
        .collect();
    tables.sort_unstable();
    tables.dedup();
    tables
}

/// Milliseconds since 1970.
pub(crate) fn now_millis() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
