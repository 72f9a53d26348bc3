//! The stream's way into the log: sends what the router gives, and saves positions once the broker has them.
//!
//! # Invariant
//!
//! A position is saved when every record before it is acknowledged, and only by the newest capture. So a restart begins at
//! a place that the log has reached, and sends again what came after; readers know it by its position. Where a topic was
//! re-created, its partitions are marked as lost before the next position is saved.
//!
//! # Crash
//!
//! What was sent and not saved is sent again. What was sent for a chunk of the copy that was not marked done stays
//! in the log, and the chunk is read and sent again: its second reading comes behind the first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slackwater_connectors::error::Result;
use slackwater_connectors::kafka::Ticket;
use slackwater_topics::{CollectionId, Moment, Position, Stamp};
use tokio::sync::{mpsc, watch};

use super::outgoing::{Outgoing, Pen};
use super::watcher::Watched;
use crate::log::{Barrier, Batch, News, Reach};
use crate::mapping::Plan;
use crate::ops::board::Place;
use crate::ops::gauges::Gauges;
use crate::ops::persist::{Again, Patience};
use crate::ops::policy::remedy;
use crate::ops::process::{now_millis, unique, unique_id};
use crate::ops::stop::Stop;
use crate::ops::store::Store;

/// Every partition learns how far the source was read, whether or not something was for it: as often as the source says what
/// time it is, which is once a second, …
const MARKS_APART: Duration = Duration::from_millis(500);
/// … and where it does not say, this often.
const MARK_EVERY: Duration = Duration::from_millis(1_500);
/// Positions are saved this often while nothing waits for them. What comes twice after a crash is dropped by readers.
const SAVE_EVERY: Duration = Duration::from_millis(200);
/// Without any news the capture still says that it is alive, and learns whether a newer capture has superseded it.
const BEAT: Duration = Duration::from_secs(1);
/// A clean stop waits this long for acknowledgements.
const FAREWELL: Duration = Duration::from_millis(1_500);
/// Without an acknowledgement for so long the broker is said to be away.
const STALLED: Duration = Duration::from_secs(3);
/// Batches that were sent and are not acknowledged. The bytes are bounded by the producer's queue.
const ON_THE_WAY: usize = 4_096;

/// A batch on its way.
struct Sent {
    ticket: Arc<Ticket>,
    position: Option<Position>,
    passed: Moment,
    settled: Moment,
    as_of: Option<i64>,
    /// It flushes: capture hears when it is acknowledged.
    flush: bool,
}

/// What both halves work with.
pub(crate) struct Publisher {
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) plan: Arc<Plan>,
    /// The source's collections.
    pub(crate) collections: Vec<CollectionId>,
    pub(crate) store: Store,
    pub(crate) batches: mpsc::Receiver<Batch>,
    pub(crate) safe: watch::Sender<Moment>,
    pub(crate) news: mpsc::UnboundedSender<News>,
    pub(crate) watcher: mpsc::UnboundedSender<Watched>,
    pub(crate) reach: Arc<Reach>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stop: Stop,
}

impl Publisher {
    /// Sends and saves until the router has ended or it is to stop.
    pub(crate) async fn run(self) -> Result<()> {
        let Self { outgoing, plan, collections, store, batches, safe, news, watcher, reach, gauges, stop } =
            self;
        let (sent_in, sent_out) = mpsc::channel(ON_THE_WAY);
        let pen = outgoing.pen();
        let sender = Sender {
            outgoing: Arc::clone(&outgoing),
            plan,
            collections,
            batches,
            sent: sent_in,
            watcher,
            gauges: Arc::clone(&gauges),
            stop: stop.clone(),
            pen,
            passed: Moment::default(),
            as_of: None,
            marked: None,
        };
        let saver = Saver { outgoing, last: None, store, safe, news, reach, gauges, stop };
        let (sent, saved) = tokio::join!(sender.run(), saver.run(sent_out));
        sent.and(saved)
    }
}

/// Sends.
struct Sender {
    outgoing: Arc<Outgoing>,
    plan: Arc<Plan>,
    collections: Vec<CollectionId>,
    batches: mpsc::Receiver<Batch>,
    sent: mpsc::Sender<Sent>,
    watcher: mpsc::UnboundedSender<Watched>,
    gauges: Arc<Gauges>,
    stop: Stop,
    pen: Pen,
    /// How far what was sent reaches.
    passed: Moment,
    /// And as of when, by the source's clock.
    as_of: Option<i64>,
    /// The newest moment that the partitions have been told of.
    marked: Option<i64>,
}

impl Sender {
    async fn run(mut self) -> Result<()> {
        let mut marked = Instant::now();
        loop {
            let wait = self.pause().saturating_sub(marked.elapsed());
            let batch = tokio::select! {
                biased;
                () = self.stop.wait() => return Ok(()),
                batch = self.batches.recv() => match batch {
                    Some(batch) => Some(batch),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(wait) => None,
            };
            if let Some(batch) = batch
                && !self.batch(batch).await?
            {
                return Ok(());
            }
            if marked.elapsed() >= self.pause() && self.passed > Moment::default() {
                marked = Instant::now();
                self.marked = self.as_of;
                let ticket = Ticket::new();
                self.outgoing.marks(&self.collections, (self.passed, self.as_of), None, &ticket).await?;
                ticket.close();
                // Nothing hangs on this acknowledgement but the knowledge that the broker is there.
                let sent = Sent {
                    ticket,
                    position: None,
                    passed: Moment::default(),
                    settled: Moment::default(),
                    as_of: None,
                    flush: false,
                };
                if self.sent.send(sent).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// Between two rounds of marks.
    fn pause(&self) -> Duration {
        if self.as_of > self.marked { MARKS_APART } else { MARK_EVERY }
    }

    /// False where nobody waits for acknowledgements any more.
    async fn batch(&mut self, batch: Batch) -> Result<bool> {
        let ticket = Ticket::new();
        let trace = unique();
        let recopied = |id: CollectionId| {
            !batch.seen.is_empty()
                && self.plan.collection(id).tables.iter().any(|table| batch.seen.contains(table))
        };
        let noted: Vec<bool> = self.plan.ids().map(recopied).collect();
        for event in &batch.events {
            let stamp = Stamp {
                epoch: self.outgoing.epoch,
                fresh: false,
                noted: noted[usize::from(event.collection.0)],
            };
            let sending = self.outgoing.event(&mut self.pen, event, stamp, trace, &ticket);
            tokio::select! {
                biased;
                sent = sending => sent?,
                () = self.stop.wait() => return Ok(false),
            }
        }
        Gauges::add(&self.gauges.sent, batch.events.len() as u64);
        let bytes: usize = batch.events.iter().map(|event| event.document.len()).sum();
        Gauges::add(&self.gauges.bytes, bytes as u64);
        if let Some(newest) = batch.events.iter().map(|event| event.time).max() {
            self.gauges.source_time.fetch_max(newest, Ordering::Relaxed);
        }
        self.passed = self.passed.max(batch.passed);
        self.as_of = self.as_of.max(batch.as_of);
        let mut flush = false;
        for barrier in batch.barriers {
            match barrier {
                Barrier::Flush => flush = true,
                Barrier::Sweep { collections, kept } => {
                    let id = unique_id();
                    let reached = (self.passed, self.as_of);
                    let lanes = self.outgoing.marks(&collections, reached, Some(id), &ticket).await?;
                    // The watcher ends with us.
                    let _ = self.watcher.send(Watched::Sweep { id, lanes, collections, kept });
                }
                Barrier::Fence { id } => {
                    let reached = (self.passed, self.as_of);
                    let lanes = self.outgoing.marks(&self.collections, reached, Some(id), &ticket).await?;
                    let _ = self.watcher.send(Watched::Fence { id, lanes });
                }
            }
        }
        ticket.close();
        let sent = Sent {
            ticket,
            position: batch.position,
            passed: batch.passed,
            settled: batch.settled,
            as_of: batch.as_of,
            flush,
        };
        Ok(self.sent.send(sent).await.is_ok())
    }
}

/// Waits for acknowledgements, in order, and saves.
struct Saver {
    outgoing: Arc<Outgoing>,
    /// As it was saved last.
    last: Option<Position>,
    store: Store,
    safe: watch::Sender<Moment>,
    news: mpsc::UnboundedSender<News>,
    reach: Arc<Reach>,
    gauges: Arc<Gauges>,
    stop: Stop,
}

/// What is acknowledged and not saved.
#[derive(Default)]
struct Unsaved {
    position: Option<Position>,
    settled: Moment,
}

impl Saver {
    async fn run(mut self, mut sent: mpsc::Receiver<Sent>) -> Result<()> {
        let mut unsaved = Unsaved::default();
        let mut waiting: VecDeque<Sent> = VecDeque::new();
        let mut saved = Instant::now();
        let mut ended = false;
        let mut stalled = Stalled::default();
        loop {
            stalled.look(&self.outgoing, &self.gauges, !waiting.is_empty());
            while let Ok(more) = sent.try_recv() {
                waiting.push_back(more);
            }
            while let Some(first) = waiting.front() {
                if first.ticket.outstanding() > 0 {
                    break;
                }
                let Some(first) = waiting.pop_front() else { break };
                stalled.over(&self.gauges);
                self.acknowledged(first, &mut unsaved).await?;
            }
            let due = if self.reach.is_copied() { SAVE_EVERY } else { Duration::ZERO };
            let news = unsaved.position.is_some();
            if (news && saved.elapsed() >= due)
                || saved.elapsed() >= BEAT
                || (ended && waiting.is_empty() && news)
            {
                if !self.save_newest(&mut unsaved, &mut sent, &mut waiting).await? {
                    return Ok(());
                }
                saved = Instant::now();
                continue;
            }
            if ended && waiting.is_empty() {
                return Ok(());
            }
            let wait = if news { due } else { BEAT }.saturating_sub(saved.elapsed());
            tokio::select! {
                biased;
                () = self.stop.wait() => return self.finish(unsaved, waiting).await,
                more = sent.recv(), if !ended => match more {
                    Some(more) => waiting.push_back(more),
                    None => ended = true,
                },
                acknowledged = front(&waiting) => acknowledged?,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// What is on its way is worth a moment: the less has to be sent again after the next start.
    async fn finish(&mut self, mut unsaved: Unsaved, mut waiting: VecDeque<Sent>) -> Result<()> {
        let arriving = async {
            while let Some(first) = waiting.pop_front() {
                first.ticket.acknowledged().await?;
                self.acknowledged(first, &mut unsaved).await?;
            }
            Ok(())
        };
        // Being too slow is not an error: it comes again.
        if let Ok(arrived) = tokio::time::timeout(FAREWELL, arriving).await {
            arrived?;
        }
        if let Some(position) = &unsaved.position
            && let Err(error) = self.save(position, &mut Vec::new()).await
        {
            tracing::debug!(%error, "the last position was not saved");
        }
        Ok(())
    }

    async fn acknowledged(&self, sent: Sent, unsaved: &mut Unsaved) -> Result<()> {
        sent.ticket.acknowledged().await?;
        if sent.position.is_some() {
            unsaved.position = sent.position;
        }
        unsaved.settled = unsaved.settled.max(sent.settled);
        if let Some(as_of) = sent.as_of {
            self.reach.read(as_of, sent.passed);
        }
        if sent.flush {
            // The router ends everything when it ends.
            let _ = self.news.send(News::Flushed);
        }
        Ok(())
    }

    /// Saves the newest, however long the control store is away; acknowledgements go on meanwhile. False where it was to
    /// stop first.
    async fn save_newest(
        &mut self,
        unsaved: &mut Unsaved,
        sent: &mut mpsc::Receiver<Sent>,
        waiting: &mut VecDeque<Sent>,
    ) -> Result<bool> {
        let mut patience = Patience::new(&self.stop);
        let mut recreated = Vec::new();
        loop {
            // An old one again, where there is no news: so a capture that was superseded learns of it.
            let Some(position) = unsaved.position.as_ref().or(self.last.as_ref()).cloned() else {
                return Ok(true);
            };
            let error = match self.save(&position, &mut recreated).await {
                Ok(()) => break,
                Err(error) => error,
            };
            let pause = match patience.judge(error)? {
                Again::Soon => Duration::ZERO,
                Again::Later(pause) => pause,
            };
            let pause = tokio::time::sleep(pause);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    biased;
                    () = self.stop.wait() => return Ok(false),
                    () = &mut pause => break,
                    Some(more) = sent.recv(), if waiting.len() < ON_THE_WAY => waiting.push_back(more),
                    acknowledged = front(waiting) => {
                        acknowledged?;
                        if let Some(first) = waiting.pop_front() {
                            self.acknowledged(first, unsaved).await?;
                        }
                    }
                }
            }
        }
        patience.over();
        let settled = unsaved.settled;
        self.last = unsaved.position.take().or(self.last.take());
        self.safe.send_if_modified(|applied| {
            let further = settled > *applied;
            *applied = settled.max(*applied);
            further
        });
        self.gauges.current_at.store(now_millis(), Ordering::Relaxed);
        Ok(true)
    }

    /// Saves a position, after topics that were re-created are marked: after a crash such a topic may have grown past all that
    /// was acknowledged in the old one, and nothing else would tell. The watcher finds the mark.
    async fn save(&mut self, position: &Position, recreated: &mut Vec<usize>) -> Result<()> {
        let acked = self.outgoing.acknowledged();
        recreated.extend(std::iter::from_fn(|| self.outgoing.producer.regressed()));
        while let Some(topic) = recreated.last() {
            let name = &self.outgoing.topics[*topic].name;
            let text = format!("topic {name} was re-created while it was written to");
            self.store.control().await?.mark_topic_lost(name, &text).await?;
            recreated.pop();
        }
        self.store.control().await?.save_position(position, &acked).await
    }
}

/// A broker that is away is waited for without an error; somebody has to be told all the same.
struct Stalled {
    since: Instant,
    said: bool,
}

impl Default for Stalled {
    fn default() -> Self {
        Self { since: Instant::now(), said: false }
    }
}

impl Stalled {
    fn look(&mut self, outgoing: &Outgoing, gauges: &Gauges, waiting: bool) {
        if !waiting {
            self.since = Instant::now();
        }
        if self.since.elapsed() < STALLED {
            return;
        }
        let trouble = outgoing.producer.trouble();
        let mut text =
            format!("Kafka has not acknowledged anything for {} s", self.since.elapsed().as_secs());
        if let Some(error) = &trouble {
            text += &format!(" ({error})");
        }
        gauges.board.set(Place::Kafka, Some(text));
        if std::mem::replace(&mut self.said, true) {
            return;
        }
        match trouble {
            Some(error) => {
                tracing::warn!(%error, remedy = remedy(&error), "waiting for Kafka; nothing is lost");
            }
            None => tracing::warn!("waiting for Kafka, which acknowledges no records; nothing is lost"),
        }
    }

    fn over(&mut self, gauges: &Gauges) {
        if self.said {
            gauges.board.set(Place::Kafka, None);
            tracing::info!("Kafka acknowledges again");
        }
        *self = Self::default();
    }
}

/// The oldest that is not acknowledged; waits for ever where there is none.
async fn front(waiting: &VecDeque<Sent>) -> Result<()> {
    match waiting.front() {
        Some(first) => first.ticket.acknowledged().await,
        None => std::future::pending().await,
    }
}
