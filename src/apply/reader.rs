//! From partitions of the log into the target: what waits in all of them becomes one transaction.
//!
//! # Invariant
//!
//! A transaction moves the rows, this process's lane, and each partition that events came from, the last only if its
//! claim is still ours. If one is not, nothing is written; the records of that partition are dropped, and the rest
//! is written again.
//!
//! What is tried is worked out from the records again each time, on copies of the intakes. Those take the intakes' place when
//! the target has it; otherwise nothing has happened. What cannot be written yet waits as [`super::parked`] decides.
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
use slackwater_connectors::postgres::control::partitions::PartitionRow;
use slackwater_connectors::source;
use slackwater_topics::{CollectionId, Moment};
use tokio::sync::mpsc;

use super::intake::{Claim, Gathered, Intake};
use super::lane::{Lane, Way};
use super::parked::{Parked, Pick};
use super::transaction::{Origin, Transaction};
use crate::mapping::Plan;
use crate::ops::gauges::Gauges;
use crate::ops::persist::{Stopped, ended};
use crate::ops::process::now_millis;
use crate::ops::stop::Stop;
use crate::ops::store::{Store, ask};

/// Without any news the lane still says that it lives.
const BEAT: Duration = Duration::from_secs(2);
/// Others may wait to hear how far it is.
const BEAT_BLOCKED: Duration = Duration::from_millis(100);
/// While processes wait for each other it is asked this often how far other partitions are.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A topic as its readers know it.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) collection: CollectionId,
    /// The collection's name in the migration file.
    pub(crate) collection_name: Arc<str>,
    /// What its source is.
    pub(crate) kind: source::Kind,
    pub(crate) partitions: u32,
}

/// What a reader works with.
pub(crate) struct Reader {
    pub(crate) lane: Lane,
    pub(crate) plan: Arc<Plan>,
    pub(crate) topics: Arc<Vec<Topic>>,
    pub(crate) deliveries: mpsc::Receiver<Delivery<Claim>>,
    pub(crate) consumer: Handle,
    pub(crate) store: Store,
    pub(crate) member: String,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stop: Stop,
}

/// The partitions that are ours, as committed, and what waits of them.
struct Work {
    intakes: BTreeMap<Partition, Intake>,
    parked: Parked,
    /// How far others are, as read not long ago.
    passed: BTreeMap<Partition, Moment>,
    looked: Option<Instant>,
}

impl Reader {
    /// Works until the consumer has ended or it is to stop.
    pub(crate) async fn run(self) -> Result<()> {
        ended(self.work().await)
    }

    async fn work(mut self) -> std::result::Result<(), Stopped> {
        let mut work =
            Work { intakes: BTreeMap::new(), parked: Parked::new(), passed: BTreeMap::new(), looked: None };
        let mut wrote = Instant::now();
        loop {
            let mut pick = self.pick(&mut work).await;
            let mut beat = false;
            if pick.is_none() {
                let every = if work.parked.is_blocked() { BEAT_BLOCKED } else { BEAT };
                let wait = every.saturating_sub(wrote.elapsed());
                let due = work.parked.due().map(|due| due.saturating_duration_since(Instant::now()));
                let due = due.map(|due| if work.parked.is_blocked() { due.min(LOOK_EVERY) } else { due });
                let full = work.parked.is_full();
                let first = tokio::select! {
                    biased;
                    () = self.stop.wait() => return Ok(()),
                    delivery = self.deliveries.recv(), if !full => match delivery {
                        Some(delivery) => Some(delivery),
                        None => return Ok(()),
                    },
                    () = tokio::time::sleep(due.map_or(wait, |due| due.min(wait))) => None,
                };
                beat = first.is_none() && wrote.elapsed() >= every;
                first.into_iter().for_each(|delivery| self.take(delivery, &mut work));
            }
            while !work.parked.is_full() && (work.parked.is_uneven() || !work.parked.is_enough()) {
                let Ok(delivery) = self.deliveries.try_recv() else { break };
                self.take(delivery, &mut work);
                pick = None;
            }
            if pick.is_none() {
                pick = self.pick(&mut work).await;
            }
            if pick.is_none() && !beat {
                continue;
            }
            self.write(&mut work, pick).await?;
            wrote = Instant::now();
        }
    }

    /// What to try now.
    async fn pick(&mut self, work: &mut Work) -> Option<Pick> {
        if work.parked.is_uneven() && work.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.look_at_others(work).await;
        }
        let Work { intakes, parked, passed, .. } = work;
        let reached = |partition: &Partition| {
            let mut next = parked.behind(*partition, 0).peekable();
            next.peek()?;
            let reached = intakes.get(partition)?.reached(next).unwrap_or_default();
            Some(self.shared(*partition, reached))
        };
        let reached: BTreeMap<Partition, Moment> = if parked.is_uneven() {
            passed.keys().filter_map(|partition| Some((*partition, reached(partition)?))).collect()
        } else {
            BTreeMap::new()
        };
        let through = |partition: &Partition, passed: &Moment| {
            reached.get(partition).map_or(*passed, |reached| *passed.max(reached))
        };
        let others = passed.iter().filter(|(partition, _)| !reached.contains_key(partition));
        let none = if passed.is_empty() { Moment::default() } else { Moment(u64::MAX) };
        let others = others.map(|(_, passed)| *passed).min().unwrap_or(none);
        let but_one = |one: Partition| {
            let others = passed.iter().filter(|(partition, _)| **partition != one);
            others.map(|(partition, passed)| through(partition, passed)).min()
        };
        parked.next(Instant::now(), but_one, others)
    }

    fn shared(&self, partition: Partition, moment: Moment) -> Moment {
        shared(&self.topics, partition, moment)
    }

    /// How far each partition is. Nothing is known while the control store does not answer.
    async fn look_at_others(&mut self, work: &mut Work) {
        work.looked = Some(Instant::now());
        let others = |work: &Work| -> Vec<Moment> {
            let others = work.passed.iter().filter(|(partition, _)| !work.intakes.contains_key(partition));
            others.map(|(_, passed)| *passed).collect()
        };
        let before = others(work);
        work.passed.clear();
        match self.stored().await {
            Ok(rows) => {
                for row in rows.into_iter().filter(|row| row.lost.is_none()) {
                    let topic = self.topics.iter().position(|topic| *topic.name == *row.topic);
                    if let Some(topic) = topic {
                        let partition = Partition { topic: topic as u16, number: row.partition };
                        let passed = self.shared(partition, row.applied_through.unwrap_or_default());
                        work.passed.insert(partition, passed);
                    }
                }
                let (now, after) = (Instant::now(), others(work));
                if after != before {
                    work.parked.try_again(now);
                }
                let slowest = before.iter().min();
                if after.iter().min() > slowest {
                    work.parked.others_moved(now, slowest.copied().unwrap_or_default());
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the control store does not answer");
            }
        }
    }

    async fn stored(&mut self) -> Result<Vec<PartitionRow>> {
        self.store.control().await?.partitions(&self.plan.migration).await
    }

    fn take(&self, delivery: Delivery<Claim>, work: &mut Work) {
        match delivery {
            Delivery::Claimed { partition, offset, claim } => {
                // An older claim of ours is void, and so is what waits of it.
                let topic = &self.topics[usize::from(partition.topic)];
                let collection = (topic.collection, Arc::clone(&topic.collection_name));
                let intake =
                    Intake::new(Arc::clone(&topic.name), partition.number, collection, offset, claim);
                work.parked.forget(partition);
                if work.intakes.insert(partition, intake).is_none() {
                    self.gauges.claimed.fetch_add(1, Ordering::Relaxed);
                }
            }
            Delivery::Revoked(partition) => {
                self.forget(work, partition);
            }
            Delivery::Records { records, .. } => {
                for (partition, raw) in records {
                    let Some(intake) = work.intakes.get(&partition) else { continue };
                    work.parked.push(partition, raw, |raw| self.shared(partition, intake.time_of(raw)));
                }
            }
        }
    }

    /// It is not ours any more, nor is what waits of it.
    fn forget(&self, work: &mut Work, partition: Partition) -> Option<Intake> {
        work.parked.forget(partition);
        let intake = work.intakes.remove(&partition)?;
        self.gauges.claimed.fetch_sub(1, Ordering::Relaxed);
        Some(intake)
    }

    /// What the records contain, and where their partitions are after them.
    fn gather(&self, work: &Work, pick: &Pick) -> Result<(Gathered, BTreeMap<Partition, Intake>)> {
        let mut gathered = Gathered::default();
        let mut ahead = BTreeMap::new();
        for (partition, count) in &pick.takes {
            let Some(intake) = work.intakes.get(partition) else { continue };
            let mut intake = intake.clone();
            for raw in work.parked.first(*partition, *count) {
                intake.take(raw, &mut gathered).map_err(|error| {
                    let (topic, number) = intake.place();
                    let doing = format!("reading {topic}/{number} at {}", raw.offset);
                    Error::new(Kind::Unsuitable, doing, error.to_string())
                })?;
            }
            ahead.insert(*partition, intake);
        }
        if work.parked.is_uneven() {
            // Others wait until we are past some time: they are told how far we are in each partition.
            for (partition, intake) in &work.intakes {
                let taken =
                    pick.takes.iter().find(|(taken, _)| taken == partition).map_or(0, |(_, count)| *count);
                let mut next = work.parked.behind(*partition, taken).peekable();
                if next.peek().is_some() {
                    ahead.entry(*partition).or_insert_with(|| intake.clone()).say_reached(next);
                }
            }
        }
        Ok((gathered, ahead))
    }

    async fn write(&mut self, work: &mut Work, pick: Option<Pick>) -> std::result::Result<(), Stopped> {
        let pick = pick.unwrap_or(Pick { takes: Vec::new(), last: false });
        let (gathered, mut ahead) = self.gather(work, &pick)?;
        let partitions: Vec<_> = ahead.values().filter_map(Intake::advance).collect();
        if partitions.is_empty() && !pick.takes.is_empty() {
            // Parts of an event that is not complete.
            work.intakes.append(&mut ahead);
            work.parked.written(&pick);
            return Ok(());
        }
        let seen = self.plan.tables_of(&gathered.noted);
        // Only what was read for a first copy, and nothing of it twice as far as anybody knows.
        let copy = !gathered.mixed && !gathered.events.is_empty() && seen.is_empty();
        let way = if copy { Way::Copy } else { Way::Upsert };
        let count = gathered.events.len() as u64;
        let newest = gathered.events.iter().map(|event| event.time).max();
        let mut transaction = Transaction {
            events: gathered.events,
            seen,
            fences: gathered.fences,
            origin: Origin::Partitions { advances: partitions, letters: gathered.letters },
        };
        self.lane.be_patient(!pick.last);
        match self.lane.write(&mut transaction, way).await {
            Ok(_) => {
                for (partition, intake) in &mut ahead {
                    if let Some(offset) = intake.committed() {
                        self.consumer.committed(*partition, offset);
                    }
                }
                work.intakes.append(&mut ahead);
                work.parked.written(&pick);
                Gauges::add(&self.gauges.events, count);
                if let Some(newest) = newest.filter(|newest| *newest > 0) {
                    self.gauges.source_time.fetch_max(newest, Ordering::Relaxed);
                }
                self.gauges.current_at.store(now_millis(), Ordering::Relaxed);
                Ok(())
            }
            Err(Stopped::Failed(error)) if error.kind == Kind::Data && !pick.last => {
                tracing::debug!(%error, records = count, "not yet");
                let Work { intakes, parked, .. } = work;
                parked.refused(&pick, Instant::now(), |partition, raw| {
                    let time = intakes.get(&partition).map(|intake| intake.time_of(raw));
                    shared(&self.topics, partition, time.unwrap_or_default())
                });
                Ok(())
            }
            // What is left is tried again.
            Err(Stopped::Failed(error)) if error.kind == Kind::Revoked => self.yield_lost(work).await,
            Err(stopped) => Err(stopped),
        }
    }

    /// Finds out which partitions are not ours any more, and lets them go.
    async fn yield_lost(&mut self, work: &mut Work) -> std::result::Result<(), Stopped> {
        let stored = ask!(self.store, control => control.partitions(&self.plan.migration))?;
        let lost: Vec<(Partition, bool)> = work
            .intakes
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
            )
            .into());
        }
        for (partition, coming) in lost {
            let Some(intake) = self.forget(work, partition) else { continue };
            let (topic, number) = intake.place();
            tracing::info!(%topic, partition = number, "another process reads this partition now");
            if !coming {
                self.consumer.reclaim(partition);
            }
        }
        Ok(())
    }
}

/// A partition's moment on the scale that all sources share: partitions of several are tried in one order.
fn shared(topics: &[Topic], partition: Partition, moment: Moment) -> Moment {
    topics[usize::from(partition.topic)].kind.shared(moment)
}
