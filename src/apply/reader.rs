//! From partitions of the log into the target: whatever waits in all of them becomes one transaction.
//!
//! # Invariant
//!
//! A transaction moves the rows, this process's lane, and each partition that events came from, the last only if its
//! claim is still ours. Where one is not, nothing is written; what came from that partition is let go, and the rest
//! is written again.
//!
//! # Crash
//!
//! Nothing is kept in memory that the next reader of a partition would need.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::kafka::{Delivery, Handle, Partition};
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::retry::Pauses;
use slackwater_connectors::secret::Secret;
use slackwater_topics::{CollectionId, partition_of};
use tokio::sync::mpsc;

use super::batch::Batch;
use super::intake::{Claim, Gathered, Intake};
use super::lane::{Lane, Stopped, Way};
use super::letters::Letters;
use super::stream::{now_millis, tables_of};
use crate::mapping::Plan;
use crate::ops::gauges::Gauges;
use crate::ops::policy::{Action, action};
use crate::ops::stop::Stop;

/// One transaction takes no more than this, so that memory and locks stay bounded.
const MOST_BYTES: usize = 8 << 20;
const MOST_EVENTS: usize = 20_000;
/// Without any news the lane still says that it lives, and looks whether others wrote dead letters.
const BEAT: Duration = Duration::from_secs(2);

/// A topic as its readers know it.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) collection: CollectionId,
    /// The collection's name in the migration file.
    pub(crate) collection_name: Arc<str>,
    pub(crate) partitions: u32,
}

/// What a reader works with.
pub(crate) struct Reader {
    pub(crate) lane: Lane,
    pub(crate) plan: Arc<Plan>,
    pub(crate) topics: Arc<Vec<Topic>>,
    pub(crate) deliveries: mpsc::Receiver<Delivery<Claim>>,
    pub(crate) consumer: Handle,
    pub(crate) control: Control,
    pub(crate) target: Secret,
    pub(crate) member: String,
    pub(crate) letters: Arc<Letters>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stop: Stop,
}

impl Reader {
    /// Works until the consumer has ended or it is to stop.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut intakes: BTreeMap<Partition, Intake> = BTreeMap::new();
        let mut wrote = Instant::now();
        loop {
            let mut gathered = Gathered::default();
            let wait = BEAT.saturating_sub(wrote.elapsed());
            let first = tokio::select! {
                biased;
                () = self.stop.wait() => return Ok(()),
                delivery = self.deliveries.recv() => match delivery {
                    Some(delivery) => Some(delivery),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(wait) => None,
            };
            let beat = first.is_none();
            let mut next = first;
            while let Some(delivery) = next {
                self.take(delivery, &mut intakes, &mut gathered)?;
                let full = gathered.bytes >= MOST_BYTES || gathered.events.len() >= MOST_EVENTS;
                next = if full { None } else { self.deliveries.try_recv().ok() };
            }
            if beat {
                self.look_for_letters().await;
            }
            let moved = intakes.values().any(|intake| intake.advance().is_some());
            if !moved && !beat {
                continue;
            }
            if !self.write(&mut intakes, gathered).await? {
                return Ok(());
            }
            wrote = Instant::now();
        }
    }

    fn take(
        &self,
        delivery: Delivery<Claim>,
        intakes: &mut BTreeMap<Partition, Intake>,
        gathered: &mut Gathered,
    ) -> Result<()> {
        match delivery {
            Delivery::Claimed { partition, offset, claim } => {
                // An older claim of ours is void, and so is what was gathered under it: the write finds that out.
                let topic = &self.topics[usize::from(partition.topic)];
                let collection = (topic.collection, Arc::clone(&topic.collection_name));
                if let Some(old) = intakes.remove(&partition) {
                    self.let_go(&old, partition, gathered);
                }
                let intake =
                    Intake::new(Arc::clone(&topic.name), partition.number, collection, offset, claim);
                intakes.insert(partition, intake);
                self.gauges.claimed.fetch_add(1, Ordering::Relaxed);
            }
            Delivery::Revoked(partition) => {
                if let Some(old) = intakes.remove(&partition) {
                    self.let_go(&old, partition, gathered);
                }
            }
            Delivery::Records { records, .. } => {
                for (partition, raw) in &records {
                    let Some(intake) = intakes.get_mut(partition) else { continue };
                    intake.take(raw, gathered).map_err(|error| {
                        let (topic, number) = intake.place();
                        let doing = format!("reading {topic}/{number} at {}", raw.offset);
                        Error::new(Kind::Unsuitable, doing, error.to_string())
                    })?;
                }
            }
        }
        Ok(())
    }

    /// What was gathered from a partition that is not ours under this claim any more is left out.
    fn let_go(&self, intake: &Intake, partition: Partition, gathered: &mut Gathered) {
        self.gauges.claimed.fetch_sub(1, Ordering::Relaxed);
        let topic = &self.topics[usize::from(partition.topic)];
        gathered.drop_partition(intake, |event| {
            event.collection == topic.collection
                && partition_of(&event.key, topic.partitions) == partition.number
        });
    }

    /// False where it was to stop first.
    async fn write(
        &mut self,
        intakes: &mut BTreeMap<Partition, Intake>,
        mut gathered: Gathered,
    ) -> Result<bool> {
        loop {
            let partitions = intakes.values().filter_map(Intake::advance).collect();
            let noted = tables_of(&self.plan, &gathered.noted);
            // Only what was read for a first copy, and nothing of it twice as far as anybody knows.
            let copy = !gathered.mixed && !gathered.events.is_empty() && noted.is_empty();
            let way = if copy { Way::Copy } else { Way::Upsert };
            let mut batch = Batch {
                events: std::mem::take(&mut gathered.events),
                noted,
                fences: gathered.fences.clone(),
                letters: gathered.letters.clone(),
                partitions,
                bytes: gathered.bytes,
                ..Batch::default()
            };
            let count = batch.events.len() as u64;
            let newest = batch.events.iter().map(|event| event.time).max();
            match self.lane.write(&mut batch, None, way).await {
                Ok(_) => {
                    for (partition, intake) in intakes.iter_mut() {
                        if let Some(offset) = intake.committed() {
                            self.consumer.committed(*partition, offset);
                        }
                    }
                    Gauges::add(&self.gauges.events, count);
                    if let Some(newest) = newest.filter(|newest| *newest > 0) {
                        self.gauges.source_time.fetch_max(newest, Ordering::Relaxed);
                    }
                    self.gauges.current_at.store(now_millis(), Ordering::Relaxed);
                    return Ok(true);
                }
                Err(Stopped::Asked) => return Ok(false),
                Err(Stopped::Failed(error)) if action(error.kind) == Action::Yield => {
                    gathered.events = std::mem::take(&mut batch.events);
                    if !self.yield_lost(intakes, &mut gathered).await? {
                        return Ok(false);
                    }
                }
                Err(Stopped::Failed(error)) => return Err(error),
            }
        }
    }

    /// Finds out which partitions are not ours any more, and lets them go. False where it was to stop first.
    async fn yield_lost(
        &mut self,
        intakes: &mut BTreeMap<Partition, Intake>,
        gathered: &mut Gathered,
    ) -> Result<bool> {
        let mut pauses = Pauses::for_server();
        let stored = loop {
            match self.control.partitions(&self.plan.migration).await {
                Ok(stored) => break stored,
                Err(error) if matches!(action(error.kind), Action::Wait | Action::Retry) => {
                    if !self.stop.sleep(pauses.next_pause()).await {
                        return Ok(false);
                    }
                    self.reconnect().await;
                }
                Err(error) => return Err(error),
            }
        };
        let lost: Vec<(Partition, bool)> = intakes
            .iter()
            .filter_map(|(partition, intake)| {
                let (topic, number) = intake.place();
                let row = stored.iter().find(|row| *row.topic == **topic && row.partition == number);
                let ours = row.is_some_and(|row| row.epoch == intake.epoch());
                // A newer claim of our own is on its way to us; anything else has to be asked for.
                let coming = row.is_some_and(|row| {
                    row.epoch > intake.epoch() && row.member.as_deref() == Some(&self.member)
                });
                (!ours).then_some((*partition, coming))
            })
            .collect();
        if lost.is_empty() {
            return Err(Error::new(
                Kind::Bug,
                "writing what the log brought",
                "a partition is at another offset than its owner believes",
            ));
        }
        for (partition, coming) in lost {
            let Some(intake) = intakes.remove(&partition) else { continue };
            let (topic, number) = intake.place();
            tracing::info!(%topic, partition = number, "another process reads this partition now");
            self.let_go(&intake, partition, gathered);
            if !coming {
                self.consumer.reclaim(partition);
            }
        }
        Ok(true)
    }

    /// Another process may have written some: then ours have to settle them.
    async fn look_for_letters(&mut self) {
        match self.control.dead_letter_counts(&self.plan.migration).await {
            Ok(counts) => self.letters.written(counts.iter().map(|row| row.count).sum()),
            Err(error) => {
                tracing::debug!(%error, "the control store does not answer");
                self.reconnect().await;
            }
        }
    }

    async fn reconnect(&mut self) {
        if self.control.is_connected() {
            return;
        }
        if let Ok(control) = Control::open(&self.target).await {
            self.control = control;
        }
    }
}
