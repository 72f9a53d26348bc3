//! What was taken from the log and is not in the target yet, and which of it is tried when.
//!
//! A row may refer to one that is in another partition, and partitions are read unevenly, by several processes at
//! that. So a batch may dangle: what it refers to is still to come, or what it deletes is still referred to.
//!
//! # Invariant
//!
//! What waits of a partition is all that follows its last commit, and what is tried is a prefix of that: order within a
//! partition does not depend on anything decided here.
//!
//! # What is tried
//!
//! - As long as nothing dangles, all there is, in one transaction.
//! - What dangles is tried again in smaller steps, in the source's order over all partitions: the references were good in
//!   that order. What was written makes the steps longer again, and what all others have passed goes in one.
//! - A few records are tried partition by partition, until one record is left that cannot be written: its partition is
//!   *blocked*. It is tried again after growing pauses; all others go on, though not far ahead of it in the source's time.
//! - So a process that is behind in time is not kept waiting by those ahead, and some partition of some process always goes on. What is
//!   tried again in vain, by however many, takes turns with what was not tried yet: a try may take longer than its pause.
//! - A reference is wrong, and its record a dead letter, when it dangles although every other partition was applied
//!   through its time. So is the earliest of them when nothing else can be tried here and all that nothing waits of here is
//!   through its time: nobody else can help it. Where neither can be known it is when the others have not moved for a
//!   while, or when no more may wait in memory.
//! - A document that was copied has no place in the source's order. One that it is referred to before it comes may make a
//!   dead letter of what refers to it; that is tried again when it has come.
//!
//! # Crash
//!
//! Nothing of this is kept: the next reader of a partition begins behind its last commit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slackwater_connectors::kafka::{Partition, Raw};
use slackwater_topics::Moment;

/// One transaction takes no more than this, so that memory and locks stay bounded.
const MOST_BYTES: usize = 8 << 20;
const MOST_RECORDS: usize = 20_000;
/// No more waits in memory than this; what is still to come waits at the broker.
const MOST_WAITING: usize = 48 << 20;
/// What a record takes beside its value.
const RECORD: usize = 256;
/// Up to this many records are tried partition by partition.
const FEW: usize = 64;
/// Batch limit when every reference that will ever arrive has arrived: the bad ones of these are found in one go.
const PROVEN: usize = 2_000;
/// Up to this many records are tried again as they are, this often: what they refer to is under way in another process.
const SOME: usize = 256;
const HESITATIONS: u32 = 2;
const FIRST_PAUSE: Duration = Duration::from_millis(15);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A reference that is late by more than this is called wrong without proof, if the others do not move.
const GIVE_UP: Duration = Duration::from_secs(2);
/// The same, if the others are right before it: they are blocked by the same transaction of the source, and wait for us.
const GIVE_UP_TIED: Duration = Duration::from_millis(100);
/// Nothing is applied that happened more than these seconds after a blocked record; less where there is much to catch up with.
const AHEAD: u64 = 5;
const AHEAD_OF_MUCH: u64 = 1;
const MUCH: u64 = 2;
/// What a second is on the scale that all sources share.
const SECOND: u64 = 1 << 32;

/// All that waits.
#[derive(Debug)]
pub(crate) struct Parked {
    queues: BTreeMap<Partition, Queue>,
    /// How many records may be tried at once.
    together: usize,
    hesitated: u32,
    again: Option<Instant>,
    /// What was tried last was written.
    good: bool,
    /// What was tried last was a blocked record, in vain.
    in_vain: bool,
    /// Something dangled since all was applied the last time; from then on the times of records are known.
    uneven: bool,
    newest: Moment,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Waiting>,
    /// It is tried on its own, this many records at a time.
    alone: Option<usize>,
    blocked: Option<Blocked>,
}

#[derive(Debug)]
struct Waiting {
    raw: Raw,
    /// Nothing before it in its partition happened later, nothing behind it earlier.
    time: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Blocked {
    since: Instant,
    again: Instant,
    pause: Duration,
}

/// What is to be tried: a number of records of each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) takes: Vec<(Partition, usize)>,
    /// What still dangles goes to the dead letters.
    pub(crate) last: bool,
}

impl Pick {
    fn records(&self) -> usize {
        self.takes.iter().map(|(_, count)| count).sum()
    }
}

impl Parked {
    /// Nothing waits.
    pub(crate) fn new() -> Self {
        Self {
            queues: BTreeMap::new(),
            together: MOST_RECORDS,
            hesitated: 0,
            again: None,
            good: true,
            in_vain: false,
            uneven: false,
            newest: Moment::default(),
            bytes: 0,
        }
    }
}

impl Parked {
    /// Takes the next record of a partition. `time_of` tells when it happened.
    pub(crate) fn push(&mut self, partition: Partition, raw: Raw, time_of: impl Fn(&Raw) -> Moment) {
        let queue = self.queues.entry(partition).or_default();
        self.bytes += weight(&raw);
        let raw = if queue.alone.is_some() { detached(&raw) } else { raw };
        let mut waiting = Waiting { raw, time: Moment::default() };
        if self.uneven {
            let before = queue.records.back().map(|waiting| waiting.time).unwrap_or_default();
            waiting.date(before, &mut self.newest, time_of);
        }
        queue.records.push_back(waiting);
    }

    /// Forgets a partition that is not ours any more, or that we have claimed again.
    pub(crate) fn forget(&mut self, partition: Partition) {
        if let Some(queue) = self.queues.remove(&partition) {
            self.bytes -= queue.records.iter().map(|waiting| weight(&waiting.raw)).sum::<usize>();
        }
        self.calm();
    }

    /// A transaction's worth is there.
    pub(crate) fn is_enough(&self) -> bool {
        self.bytes >= MOST_BYTES
            || self.queues.values().map(|queue| queue.records.len()).sum::<usize>() >= MOST_RECORDS
    }

    /// No more may be taken from the log.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= MOST_WAITING
    }

    /// Something dangled since all was applied the last time.
    pub(crate) fn is_uneven(&self) -> bool {
        self.uneven
    }

    /// The first `count` records of a partition.
    pub(crate) fn first(&self, partition: Partition, count: usize) -> impl Iterator<Item = &Raw> {
        self.queues
            .get(&partition)
            .into_iter()
            .flat_map(move |queue| queue.records.iter().take(count))
            .map(|waiting| &waiting.raw)
    }

    /// Whether some partition is blocked.
    pub(crate) fn is_blocked(&self) -> bool {
        self.queues.values().any(|queue| queue.blocked.is_some())
    }

    /// The records of a partition behind its first `count`.
    pub(crate) fn behind(&self, partition: Partition, count: usize) -> impl Iterator<Item = &Raw> {
        let queue = self.queues.get(&partition).into_iter();
        queue.flat_map(move |queue| queue.records.iter().skip(count)).map(|waiting| &waiting.raw)
    }

    /// Other processes are further than they were, which was `before`: what is waited for may still come, unless they
    /// were past it already.
    pub(crate) fn others_moved(&mut self, now: Instant, before: Moment) {
        for queue in self.queues.values_mut() {
            let ahead = queue.records.front().is_some_and(|head| head.time > before);
            if let Some(blocked) = queue.blocked.as_mut().filter(|_| ahead) {
                blocked.since = now;
            }
        }
    }

    /// Some other process has written something: what was waited for may be there.
    pub(crate) fn try_again(&mut self, now: Instant) {
        for blocked in self.queues.values_mut().filter_map(|queue| queue.blocked.as_mut()) {
            let tried = blocked.again.checked_sub(blocked.pause).unwrap_or(now);
            blocked.again = blocked.again.min(now.max(tried + FIRST_PAUSE));
        }
    }

    /// What to try now. `passed` tells through which time all partitions but one are applied, where that is known, and
    /// `others` through which all those are that nothing waits of here; zero where that is not known.
    pub(crate) fn next(
        &self,
        now: Instant,
        passed: impl Fn(Partition) -> Option<Moment>,
        others: Moment,
    ) -> Option<Pick> {
        let bound = self.bound();
        let paused = self.again.is_some_and(|again| again > now);
        let untried = self.queues.values().filter(|queue| queue.alone.is_none() && !paused);
        let untried = untried.filter_map(|queue| queue.records.front().map(|waiting| waiting.time));
        let untried = untried.filter(|head| *head <= bound).min();
        let alone = self.queues.iter().filter_map(|(partition, queue)| {
            let head = queue.records.front()?.time;
            let ready = queue.blocked.is_none_or(|blocked| {
                blocked.again <= now || passed(*partition).is_some_and(|passed| head <= passed)
            });
            let in_time = queue.blocked.is_some() || head <= bound;
            (ready && in_time).then_some((head, *partition, queue, queue.alone?))
        });
        let in_vain = |queue: &Queue| self.in_vain && queue.blocked.is_some();
        let alone = alone.min_by_key(|(head, partition, queue, _)| (in_vain(queue), *head, *partition));
        let alone = alone
            .filter(|(head, _, queue, _)| untried.is_none_or(|untried| *head <= untried && !in_vain(queue)));
        if let Some((head, partition, queue, most)) = alone {
            let within = |most: usize, bound: Moment| {
                queue.records.iter().take(most).take_while(|waiting| waiting.time <= bound).count().max(1)
            };
            let Some(blocked) = queue.blocked else {
                return Some(Pick { takes: vec![(partition, within(most, bound))], last: false });
            };
            if let Some(passed) = passed(partition).filter(|passed| head <= *passed) {
                return Some(Pick { takes: vec![(partition, within(PROVEN, passed))], last: true });
            }
            let tied = others > Moment::default() && others.0 >= head.0.saturating_sub(1);
            let patience = if tied { GIVE_UP_TIED } else { GIVE_UP };
            let last = self.is_full() || now.duration_since(blocked.since) >= patience;
            return Some(Pick { takes: vec![(partition, 1)], last });
        }
        if paused {
            return None;
        }
        let takes = if self.uneven { self.by_time(bound, others) } else { self.by_partition() };
        if takes.is_empty() { self.helpless(others) } else { Some(Pick { takes, last: false }) }
    }

    /// The earliest that is blocked, where nothing can be tried here and nobody else is behind it: no pause would help.
    fn helpless(&self, others: Moment) -> Option<Pick> {
        let blocked = self.queues.iter().filter(|(_, queue)| queue.blocked.is_some());
        let heads = blocked.filter_map(|(partition, queue)| Some((queue.records.front()?.time, *partition)));
        let (_, partition) = heads.min().filter(|(head, _)| *head <= others)?;
        Some(Pick { takes: vec![(partition, 1)], last: true })
    }

    /// Nothing is to be applied behind this.
    fn bound(&self) -> Moment {
        let blocked = self.queues.values().filter(|queue| queue.blocked.is_some());
        let first = blocked.filter_map(|queue| queue.records.front().map(|waiting| waiting.time)).min();
        let Some(first) = first else { return Moment(u64::MAX) };
        let behind = self.newest.0.saturating_sub(first.0);
        let ahead = if behind > MUCH * SECOND { AHEAD_OF_MUCH } else { AHEAD };
        Moment(first.0.saturating_add(ahead * SECOND))
    }

    fn by_partition(&self) -> Vec<(Partition, usize)> {
        let (mut records, mut bytes) = (0, 0);
        let mut takes = Vec::new();
        for (partition, queue) in &self.queues {
            let mut count = 0;
            for waiting in &queue.records {
                if records >= self.together || bytes >= MOST_BYTES {
                    break;
                }
                count += 1;
                records += 1;
                bytes += weight(&waiting.raw);
            }
            if count > 0 {
                takes.push((*partition, count));
            }
        }
        takes
    }

    /// What all others have passed needs nothing of theirs: it goes in one step.
    fn by_time(&self, bound: Moment, others: Moment) -> Vec<(Partition, usize)> {
        let mut heads: BinaryHeap<Reverse<(Moment, Partition, usize)>> = BinaryHeap::new();
        let reach = |heads: &mut BinaryHeap<_>, partition: Partition, queue: &Queue, place: usize| {
            if let Some(waiting) = queue.records.get(place).filter(|waiting| waiting.time <= bound) {
                heads.push(Reverse((waiting.time, partition, place)));
            }
        };
        for (partition, queue) in self.queues.iter().filter(|(_, queue)| queue.alone.is_none()) {
            reach(&mut heads, *partition, queue, 0);
        }
        let (mut records, mut bytes) = (0, 0);
        let mut takes: BTreeMap<Partition, usize> = BTreeMap::new();
        while records < MOST_RECORDS && bytes < MOST_BYTES {
            let Some(Reverse((time, partition, place))) = heads.pop() else { break };
            if records >= self.together && !(self.good && time <= others) {
                break;
            }
            let queue = &self.queues[&partition];
            takes.insert(partition, place + 1);
            records += 1;
            bytes += weight(&queue.records[place].raw);
            reach(&mut heads, partition, queue, place + 1);
        }
        takes.into_iter().collect()
    }

    /// When something is to be tried that is not yet.
    pub(crate) fn due(&self) -> Option<Instant> {
        let blocked = self.queues.values().filter_map(|queue| queue.blocked.map(|blocked| blocked.again));
        let waits = self.queues.values().any(|queue| !queue.records.is_empty());
        blocked.chain(self.again.filter(|_| waits)).min()
    }

    /// It is in the target.
    pub(crate) fn written(&mut self, pick: &Pick) {
        for (partition, count) in &pick.takes {
            let Some(queue) = self.queues.get_mut(partition) else { continue };
            let gone: usize = queue.records.drain(..count).map(|waiting| weight(&waiting.raw)).sum();
            self.bytes -= gone;
            if queue.alone.is_some() {
                queue.blocked = None;
                let more = count * 4;
                queue.alone = (more <= FEW && !queue.records.is_empty()).then_some(more);
            }
        }
        self.hesitated = 0;
        self.again = None;
        self.good = true;
        self.in_vain = false;
        self.together = (self.together * 2).min(MOST_RECORDS);
        self.calm();
    }

    /// Where nothing waits any more the next batch is tried whole.
    fn calm(&mut self) {
        if self.queues.values().all(|queue| queue.records.is_empty()) {
            self.queues.clear();
            self.bytes = 0;
            self.together = MOST_RECORDS;
            self.uneven = false;
            self.newest = Moment::default();
        }
    }

    /// It cannot be written as it is. `time_of` as in [`Parked::push`].
    pub(crate) fn refused(&mut self, pick: &Pick, now: Instant, time_of: impl Fn(Partition, &Raw) -> Moment) {
        let records = pick.records();
        if !self.uneven && self.hesitated < HESITATIONS && records <= SOME {
            self.hesitated += 1;
            self.again = Some(now + FIRST_PAUSE);
            return;
        }
        self.again = None;
        self.good = false;
        self.in_vain = false;
        self.date(time_of);
        match pick.takes.as_slice() {
            [(partition, count)] if *count <= FEW => {
                let Some(queue) = self.queues.get_mut(partition) else { return };
                queue.set_aside((count / 4).max(1));
                if *count == 1 {
                    self.in_vain = true;
                    queue.block(now);
                }
            }
            takes if records <= FEW => {
                for (partition, count) in takes {
                    if let Some(queue) = self.queues.get_mut(partition) {
                        queue.set_aside(*count);
                    }
                }
            }
            _ => self.together = records / 4,
        }
    }

    /// From now on the times of records count.
    fn date(&mut self, time_of: impl Fn(Partition, &Raw) -> Moment) {
        if self.uneven {
            return;
        }
        self.uneven = true;
        for (partition, queue) in &mut self.queues {
            let mut before = Moment::default();
            for waiting in &mut queue.records {
                waiting.date(before, &mut self.newest, |raw| time_of(*partition, raw));
                before = waiting.time;
            }
        }
    }
}

impl Queue {
    /// From now on it is tried without others.
    fn set_aside(&mut self, count: usize) {
        if self.alone.is_none() {
            self.records.iter_mut().for_each(|waiting| waiting.raw = detached(&waiting.raw));
        }
        self.alone = Some(count);
    }

    /// Its first record cannot be written.
    fn block(&mut self, now: Instant) {
        let (since, pause) = match self.blocked {
            Some(blocked) => (blocked.since, (blocked.pause * 2).min(LONGEST_PAUSE)),
            None => (now, FIRST_PAUSE),
        };
        self.blocked = Some(Blocked { since, again: now + pause, pause });
    }
}

impl Waiting {
    fn date(&mut self, before: Moment, newest: &mut Moment, time_of: impl Fn(&Raw) -> Moment) {
        self.time = time_of(&self.raw).max(before);
        *newest = self.time.max(*newest);
    }
}

fn weight(raw: &Raw) -> usize {
    raw.value.as_ref().map_or(0, Bytes::len) + RECORD
}

/// What is kept for long must not keep the whole fetch that it came with.
fn detached(raw: &Raw) -> Raw {
    let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    Raw {
        offset: raw.offset,
        key: Bytes::new(),
        value: raw.value.as_ref().map(own),
        mark: raw.mark.as_ref().map(own),
    }
}

#[cfg(test)]
#[path = "parked_tests.rs"]
mod tests;
