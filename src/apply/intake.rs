//! One partition of the log as its reader sees it: what is new, what came twice, what must wait for its other parts.
//!
//! # Invariant
//!
//! What is taken out is a prefix of the partition, in its order: each record once, less what a superseded capture sent
//! after a newer one had spoken, and less the events of the stream that were in the partition before. So after any crash
//! the next reader begins at an offset, and nothing behind it has been applied.
//!
//! # Duplicates
//!
//! A capture that was killed sends again what it had sent since its last saved position. Events of the stream are in a
//! partition in the order of the source, so an event at or below the highest position seen here is a duplicate. Documents that
//! were read and not streamed (the copy, dead letters read again) have no position: their place in the log is where they are the
//! newest, and a killed capture reads them again before it sends them again.
//!
//! # Parts
//!
//! Parts of one event follow each other, but others write into the partition meanwhile. From the first part on everything is
//! held back until the last is there: so progress can be a single offset. A newer capture voids a group that was not
//! finished; it sends the event again.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use slackwater_connectors::kafka::Raw;
use slackwater_connectors::postgres::progress::{DeadLetter, FencePass, PartitionAdvance};
use slackwater_topics::{
    CollectionId, EnvelopeError, Event, Mark, Moment, Op, Part, Position, Record, Stamp,
};

use crate::letters;

/// This many records are looked at for one that was streamed.
const LOOK_AHEAD: usize = 64;

/// What the control store knows of a partition when it is claimed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claim {
    /// Ours, until somebody else claims.
    pub(crate) epoch: i64,
    /// The newest capture that has spoken here.
    pub(crate) capture: i64,
    /// The highest position of an event seen here.
    pub(crate) high: Position,
}

/// A partition that is being read. A copy may be taken ahead, to see what would come of records.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    topic: Arc<str>,
    number: i32,
    collection: CollectionId,
    /// The collection's name in the migration file.
    name: Arc<str>,
    epoch: i64,
    /// As committed.
    stored: i64,
    /// Likewise, since the claim.
    through: Moment,
    /// One past the last record seen.
    seen: i64,
    capture: i64,
    high: Position,
    joining: Option<Joining>,
    held: Vec<(i64, Taken, usize)>,
    news: News,
}

/// What a record turned out to be: ours, or nobody knows what.
type Taken = Result<Record, Box<DeadLetter>>;

/// Since the last commit.
#[derive(Clone, Debug, Default)]
struct News {
    events: u64,
    duplicates: u64,
    superseded: u64,
    applied_through: Moment,
    source_time: i64,
    as_of: Option<i64>,
}

/// Parts of an event that is not complete.
#[derive(Clone, Debug)]
struct Joining {
    first: i64,
    epoch: i64,
    group: i64,
    /// When it happened, where that is known: zero says that it was not streamed.
    time: Option<Moment>,
    parts: Vec<Option<Bytes>>,
}

/// What was taken out of partitions and goes into the target together.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) events: Vec<Event>,
    /// Collections whose row keys are noted as seen.
    pub(crate) noted: Vec<CollectionId>,
    pub(crate) fences: Vec<FencePass>,
    /// Records that are not events.
    pub(crate) letters: Vec<DeadLetter>,
    pub(crate) bytes: usize,
    /// Something of it was not read for a first copy.
    pub(crate) mixed: bool,
}

impl Intake {
    /// Begins at an offset.
    pub(crate) fn new(
        topic: Arc<str>,
        number: i32,
        (collection, name): (CollectionId, Arc<str>),
        offset: i64,
        claim: Claim,
    ) -> Self {
        Self {
            topic,
            number,
            collection,
            name,
            epoch: claim.epoch,
            stored: offset,
            through: Moment::default(),
            seen: offset,
            capture: claim.capture,
            high: claim.high,
            joining: None,
            held: Vec::new(),
            news: News::default(),
        }
    }

    /// Our claim.
    pub(crate) fn epoch(&self) -> i64 {
        self.epoch
    }

    /// The topic and the partition's number.
    pub(crate) fn place(&self) -> (&Arc<str>, i32) {
        (&self.topic, self.number)
    }

    /// Takes the next record. An error is one that going on would make worse.
    pub(crate) fn take(&mut self, raw: &Raw, out: &mut Gathered) -> Result<(), EnvelopeError> {
        if raw.offset < self.seen {
            return Ok(());
        }
        let taken = match self.read(raw.value.as_ref(), raw) {
            Ok(record) => Ok(record),
            Err(error @ EnvelopeError::Version(_)) => return Err(error),
            Err(error) => Err(Box::new(self.unreadable(raw.offset, &error))),
        };
        let bytes = raw.value.as_ref().map_or(0, Bytes::len);
        self.seen = raw.offset + 1;
        self.follow(raw.offset, taken, bytes, out)
    }

    /// When it happened, as far as the record says. What was read and not streamed is in the log about where it was
    /// read, so it is taken to be as old as what came last.
    pub(crate) fn time_of(&self, raw: &Raw) -> Moment {
        let time = match self.read(raw.value.as_ref(), raw) {
            Ok(Record::Event(event, _)) => event.position.moment,
            Ok(Record::Part(part)) => part.time.unwrap_or_default(),
            Ok(Record::Mark(mark)) => mark.time,
            Ok(Record::Tombstone) | Err(_) => Moment::default(),
        };
        if time == Moment::default() { self.high.moment.max(self.through) } else { time }
    }

    /// Through which time the partition is applied as soon as everything before these records is, which come next. What
    /// was not streamed says nothing; the first of them that was does.
    pub(crate) fn reached<'a>(&self, next: impl Iterator<Item = &'a Raw>) -> Option<Moment> {
        // Another change of the same moment may come behind it.
        let before = |time: Moment| Some(Moment(time.0.saturating_sub(1)));
        match &self.joining {
            Some(joining) if joining.time != Some(Moment::default()) => {
                return joining.time.and_then(before);
            }
            // What is held back until it is complete comes before what is next.
            Some(_) if !self.held.is_empty() => return None,
            Some(_) | None => {}
        }
        let mut heard = self.capture;
        for raw in next.take(LOOK_AHEAD) {
            let record = self.read(raw.value.as_ref(), raw).ok()?;
            if let Some(epoch) = epoch_of(&record) {
                if epoch < heard {
                    continue;
                }
                heard = epoch;
            }
            let time = match record {
                Record::Event(event, _) if event.op == Op::Snapshot || event.position <= self.high => {
                    continue;
                }
                Record::Event(event, _) => event.position.moment,
                Record::Mark(mark) => mark.time,
                Record::Part(part) if part.index != 0 || part.time == Some(Moment::default()) => {
                    continue;
                }
                Record::Part(part) => part.time?,
                Record::Tombstone => continue,
            };
            return before(time);
        }
        None
    }

    /// Lets the next commit say through which time the partition is applied, though nothing of it goes with that.
    pub(crate) fn say_reached<'a>(&mut self, next: impl Iterator<Item = &'a Raw>) {
        let reached = self.reached(next).unwrap_or_default();
        self.news.applied_through = self.news.applied_through.max(reached);
    }

    fn read(&self, value: Option<&Bytes>, raw: &Raw) -> Result<Record, EnvelopeError> {
        Record::read(value, raw.mark.as_deref(), self.collection, &self.name)
    }

    fn unreadable(&self, offset: i64, error: &EnvelopeError) -> DeadLetter {
        let place = format!("{}/{} {offset}", self.topic, self.number);
        letters::unreadable(&self.name, &place, &error.to_string())
    }

    fn follow(
        &mut self,
        offset: i64,
        taken: Taken,
        bytes: usize,
        out: &mut Gathered,
    ) -> Result<(), EnvelopeError> {
        let Some(joining) = &mut self.joining else { return self.settle(offset, taken, bytes, out) };
        match taken {
            Ok(Record::Part(part)) if (part.epoch, part.group) == (joining.epoch, joining.group) => {
                joining.add(&part);
                self.join(offset, out)
            }
            Ok(record) if epoch_of(&record).is_some_and(|epoch| epoch > joining.epoch) => {
                self.joining = None;
                self.release_held(out)?;
                self.follow(offset, Ok(record), bytes, out)
            }
            taken => {
                self.held.push((offset, taken, bytes));
                Ok(())
            }
        }
    }

    /// Puts the parts together, where all are there; what was held back follows.
    fn join(&mut self, offset: i64, out: &mut Gathered) -> Result<(), EnvelopeError> {
        let Some(value) = self.joining.as_ref().and_then(Joining::whole) else { return Ok(()) };
        self.joining = None;
        let raw = Raw { offset, key: Bytes::new(), value: None, mark: None };
        match self.read(Some(&value), &raw) {
            Ok(record) => self.settle(offset, Ok(record), value.len(), out)?,
            Err(error @ EnvelopeError::Version(_)) => return Err(error),
            Err(error) => out.letters.push(self.unreadable(offset, &error)),
        }
        self.release_held(out)
    }

    fn release_held(&mut self, out: &mut Gathered) -> Result<(), EnvelopeError> {
        for (offset, taken, bytes) in std::mem::take(&mut self.held) {
            self.follow(offset, taken, bytes, out)?;
        }
        Ok(())
    }

    fn settle(
        &mut self,
        offset: i64,
        taken: Taken,
        bytes: usize,
        out: &mut Gathered,
    ) -> Result<(), EnvelopeError> {
        let record = match taken {
            Ok(record) => record,
            Err(letter) => {
                out.letters.push(*letter);
                return Ok(());
            }
        };
        if let Some(epoch) = epoch_of(&record) {
            if epoch < self.capture {
                self.news.superseded += 1;
                return Ok(());
            }
            self.capture = epoch;
        }
        match record {
            Record::Event(event, stamp) => self.event(event, stamp, bytes, out),
            Record::Mark(mark) => self.mark(mark, out),
            Record::Tombstone => {}
            // Without its beginning it is the rest of what another reader has taken, or of what was cut away.
            Record::Part(part) if part.index != 0 => {}
            Record::Part(part) => {
                let mut joining = Joining::new(offset, &part);
                joining.add(&part);
                self.joining = Some(joining);
                return self.join(offset, out);
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event, stamp: Stamp, bytes: usize, out: &mut Gathered) {
        let streamed = event.op != Op::Snapshot && event.position != Position::default();
        if streamed {
            if event.position <= self.high {
                self.news.duplicates += 1;
                return;
            }
            self.high = event.position.clone();
            // Another change may have the same time.
            let before = Moment(event.position.moment.0.saturating_sub(1));
            self.news.applied_through = self.news.applied_through.max(before);
            self.news.source_time = self.news.source_time.max(event.time);
        }
        if stamp.noted && !out.noted.contains(&event.collection) {
            out.noted.push(event.collection);
        }
        out.mixed |= !(stamp.fresh && event.op == Op::Snapshot);
        self.news.events += 1;
        out.bytes += bytes + 64;
        out.events.push(event);
    }

    fn mark(&mut self, mark: Mark, out: &mut Gathered) {
        self.news.applied_through = self.news.applied_through.max(mark.time);
        self.news.as_of = self.news.as_of.max(mark.as_of);
        if let Some(id) = mark.fence {
            out.fences.push(FencePass { id, lane: Some(self.lane()) });
        }
    }

    /// What a fence has passed.
    fn lane(&self) -> String {
        format!("{}/{}", self.topic, self.number)
    }

    /// Where the next reader has to begin.
    fn next(&self) -> i64 {
        self.joining.as_ref().map_or(self.seen, |joining| joining.first)
    }

    /// What a commit says of this partition; nothing where nothing has come.
    pub(crate) fn advance(&self) -> Option<PartitionAdvance> {
        let next = self.next();
        let news = next > self.stored || self.news.applied_through > self.through;
        news.then(|| PartitionAdvance {
            topic: Arc::clone(&self.topic),
            partition: self.number,
            epoch: self.epoch,
            from_offset: self.stored,
            next_offset: next,
            capture_epoch: self.capture,
            position: (self.high != Position::default()).then(|| self.high.clone()),
            applied_through: (self.news.applied_through.0 > 0).then_some(self.news.applied_through),
            source_time: (self.news.source_time > 0).then_some(self.news.source_time),
            as_of: self.news.as_of,
            events: self.news.events,
            duplicates: self.news.duplicates,
            superseded: self.news.superseded,
        })
    }

    /// It was committed; tells the offset.
    pub(crate) fn committed(&mut self) -> Option<i64> {
        let next = self.next();
        let moved = next > self.stored;
        self.stored = next;
        self.through = self.through.max(self.news.applied_through);
        self.news = News::default();
        moved.then_some(next)
    }
}

fn epoch_of(record: &Record) -> Option<i64> {
    match record {
        Record::Event(_, stamp) => Some(stamp.epoch),
        Record::Part(part) => Some(part.epoch),
        Record::Mark(mark) => Some(mark.epoch),
        Record::Tombstone => None,
    }
}

impl Joining {
    fn new(first: i64, part: &Part) -> Self {
        let count = usize::try_from(part.count).unwrap_or(0).clamp(1, 4_096);
        Self { first, epoch: part.epoch, group: part.group, time: part.time, parts: vec![None; count] }
    }

    fn add(&mut self, part: &Part) {
        let place = usize::try_from(part.index).ok().and_then(|index| self.parts.get_mut(index));
        if let Some(place) = place {
            // What is kept for long must not keep the whole fetch it came with.
            *place = Some(Bytes::copy_from_slice(&part.bytes));
        }
    }

    fn whole(&self) -> Option<Bytes> {
        let length = self.parts.iter().map(|part| part.as_ref().map(Bytes::len)).sum::<Option<usize>>()?;
        let mut whole = BytesMut::with_capacity(length);
        for part in self.parts.iter().flatten() {
            whole.extend_from_slice(part);
        }
        Some(whole.freeze())
    }
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;
