//! From events to records of the log.
//!
//! The order of the calls is the order in a partition, so two tasks may send side by side as long as no document is in
//! the hands of both; the router sees to that.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::kafka::{Producer, Record, Ticket};
use slackwater_topics::{
    CollectionId, Event, Format, Headers, Mark, Moment, Occasion, Op, Part, Stamp, debezium, encode,
    partition_of,
};
use uuid::Uuid;

use crate::mapping::Travel;
use crate::ops::process::now_millis;

/// What a record takes beside key and value: its own frame, and the headers.
const FRAME: usize = 1_024;

/// A topic as the capture knows it.
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) partitions: u32,
    /// The collection's name in the migration file.
    pub(crate) collection: String,
    /// The largest record that it takes.
    pub(crate) most: usize,
    /// Deletes are followed by tombstones.
    pub(crate) tombstones: bool,
    /// What of its documents travels encrypted.
    pub(crate) travel: Option<Arc<Travel>>,
    /// For readers that know Debezium's format.
    pub(crate) debezium: Option<debezium::Writer>,
}

/// Everything that sending takes. Shared by the tasks that do it.
pub(crate) struct Outgoing {
    pub(crate) producer: Producer,
    /// One for each collection, in the plan's order.
    pub(crate) topics: Vec<Topic>,
    /// Ours, as the control store gave it.
    pub(crate) epoch: i64,
    /// Without an event: each task has a copy.
    headers: Headers,
    groups: AtomicI64,
    counter: AtomicU64,
}

/// Buffers of one task.
pub(crate) struct Pen {
    key: Vec<u8>,
    value: Vec<u8>,
    part: Vec<u8>,
    headers: Headers,
}

impl Outgoing {
    /// For a migration and a source of it, by their names in the migration file.
    pub(crate) fn new(
        producer: Producer,
        topics: Vec<Topic>,
        epoch: i64,
        (migration, source): (&str, &str),
    ) -> Self {
        let debezium = topics.iter().any(|topic| topic.debezium.is_some());
        let format = if debezium { Format::Debezium } else { Format::Bson };
        let headers = Headers::new(migration, source, format);
        Self { producer, topics, epoch, headers, groups: AtomicI64::new(1), counter: AtomicU64::new(0) }
    }

    /// Buffers for one task.
    pub(crate) fn pen(&self) -> Pen {
        Pen { key: Vec::new(), value: Vec::new(), part: Vec::new(), headers: self.headers.clone() }
    }

    pub(crate) fn topic(&self, collection: CollectionId) -> &Topic {
        &self.topics[usize::from(collection.0)]
    }

    /// Sends an event.
    pub(crate) async fn event(
        &self,
        pen: &mut Pen,
        event: &Event,
        stamp: Stamp,
        trace: [u8; 16],
        ticket: &Arc<Ticket>,
    ) -> Result<()> {
        let topic = self.topic(event.collection);
        let sealed;
        let event = match &topic.travel {
            None => event,
            Some(travel) => {
                let broken =
                    |_| Error::new(Kind::Data, "encrypting fields", "the document's bytes are broken");
                sealed = Event { document: travel.seal(event).map_err(broken)?, ..event.clone() };
                &sealed
            }
        };
        let place = usize::from(event.collection.0);
        let partition = partition_of(&event.key, topic.partitions);
        pen.key.clear();
        pen.value.clear();
        match &topic.debezium {
            None => {
                pen.key.extend_from_slice(event.key.as_bytes());
                encode(event, &topic.collection, stamp, &mut pen.value);
            }
            Some(writer) => {
                writer.key(&event.key, &mut pen.key);
                writer.value(event, stamp, now_millis(), &mut pen.value);
            }
        }
        let counter = if event.op == Op::Snapshot { self.counter.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let occasion = Occasion { collection: &topic.collection, epoch: stamp.epoch, counter, trace };
        pen.headers.compose(event, &occasion);
        // Without a time of its own it is as old as its reading.
        let timestamp = if event.time > 0 { event.time } else { now_millis() };
        if pen.key.len() + pen.value.len() + FRAME > topic.most {
            self.parts(pen, event, (place, partition), timestamp, ticket).await?;
        } else {
            let headers = Pairs::of(&pen.headers);
            let record = Record { key: &pen.key, value: Some(&pen.value), headers: headers.get(), timestamp };
            self.producer.send(place, partition, record, ticket).await?;
        }
        if event.op == Op::Delete && topic.tombstones {
            let record = Record { key: &pen.key, value: None, headers: &[], timestamp };
            self.producer.send(place, partition, record, ticket).await?;
        }
        Ok(())
    }

    /// Sends what is too large for one record.
    async fn parts(
        &self,
        pen: &mut Pen,
        event: &Event,
        (place, partition): (usize, i32),
        timestamp: i64,
        ticket: &Arc<Ticket>,
    ) -> Result<()> {
        let topic = &self.topics[place];
        let room = topic.most.saturating_sub(FRAME + Part::OVERHEAD + event.key.as_bytes().len());
        if room == 0 {
            let what =
                format!("topic {} takes records of {} bytes, which is too small", topic.name, topic.most);
            return Err(Error::new(Kind::Unsuitable, "sending a large document", what));
        }
        let group = self.groups.fetch_add(1, Ordering::Relaxed);
        let count = pen.value.len().div_ceil(room) as i32;
        for (index, bytes) in pen.value.chunks(room).enumerate() {
            let index = index as i32;
            pen.part.clear();
            Part::encode((self.epoch, group), (index, count), event.position.moment, bytes, &mut pen.part);
            pen.key.clear();
            Part::key(&event.key, index, &mut pen.key);
            let headers = Pairs::of(&pen.headers);
            let record = Record { key: &pen.key, value: Some(&pen.part), headers: headers.get(), timestamp };
            self.producer.send(place, partition, record, ticket).await?;
        }
        pen.key.clear();
        match &topic.debezium {
            None => pen.key.extend_from_slice(event.key.as_bytes()),
            Some(writer) => writer.key(&event.key, &mut pen.key),
        }
        if pen.value.capacity() > 4 << 20 {
            // One huge document must not be paid for ever after.
            pen.value = Vec::new();
        }
        Ok(())
    }

    /// Sends a mark into every partition of these collections' topics; tells how many.
    pub(crate) async fn marks(
        &self,
        collections: &[CollectionId],
        (time, as_of): (Moment, Option<i64>),
        fence: Option<Uuid>,
        ticket: &Arc<Ticket>,
    ) -> Result<u64> {
        let mark = Mark { epoch: self.epoch, time, at: now_millis(), as_of, fence };
        let mut bytes = Vec::new();
        mark.encode(&mut bytes);
        let mut key = Vec::new();
        let mut sent = 0;
        for collection in collections {
            let topic = self.topic(*collection);
            key.clear();
            match &topic.debezium {
                None => key.extend_from_slice(Mark::KEY),
                Some(writer) => writer.mark_key(&mut key),
            }
            for partition in 0..topic.partitions as i32 {
                let record =
                    Record { key: &key, value: None, headers: &[(Mark::HEADER, &bytes)], timestamp: mark.at };
                self.producer.send(usize::from(collection.0), partition, record, ticket).await?;
                sent += 1;
            }
        }
        Ok(sent)
    }

    /// The highest acknowledged offsets.
    pub(crate) fn acknowledged(&self) -> Vec<(Arc<str>, i32, i64)> {
        let mut acked = Vec::new();
        for (place, topic) in self.topics.iter().enumerate() {
            for partition in 0..topic.partitions as i32 {
                if let Some(offset) = self.producer.acknowledged(place, partition) {
                    acked.push((Arc::clone(&topic.name), partition, offset));
                }
            }
        }
        acked
    }
}

/// Headers side by side, without an allocation.
struct Pairs<'a> {
    pairs: [(&'a str, &'a [u8]); 8],
    count: usize,
}

impl<'a> Pairs<'a> {
    fn of(headers: &'a Headers) -> Self {
        let mut pairs: [(&str, &[u8]); 8] = [("", b""); 8];
        let mut count = 0;
        for (place, pair) in pairs.iter_mut().zip(headers.iter()) {
            *place = pair;
            count += 1;
        }
        Self { pairs, count }
    }

    fn get(&self) -> &[(&'a str, &'a [u8])] {
        &self.pairs[..self.count]
    }
}
