//! A reader for people: it looks at a topic and leaves no trace.
//!
//! Partitions are assigned by hand. No group is joined, nothing is committed, and where to begin is said, so two
//! of these and any number of appliers do not notice each other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use slackwater_topics::Mark;

use super::error::{explain, of_code};
use super::report::Report;
use super::settings::Settings;
use crate::error::{Error, Kind, Result};

/// A broker that has not said by then what the topic looks like is away.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A look that finds nothing takes so long; whoever stops reading waits for it.
const LOOK: Duration = Duration::from_millis(200);
/// How many events are taken after a request that failed.
const EVENTS: u32 = 128;
/// Records handed over at a time.
const AT_A_TIME: usize = 500;
/// librdkafka reads records in the name of a group only. This one is never joined.
const NAME: &str = "slackwater.tail";

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest record.
    Beginning,
    /// With the next one to come.
    End,
    /// With this one, or the one nearest to it that the partition has.
    Offset(i64),
}

/// A record as its topic has it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// The header that makes it a mark.
    pub mark: Option<Bytes>,
}

/// Reads one topic.
pub struct Tail {
    consumer: Arc<BaseConsumer<Report>>,
    doing: String,
    ready: VecDeque<Found>,
    failed: Option<KafkaError>,
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail").field("doing", &self.doing).finish_non_exhaustive()
    }
}

impl Tail {
    /// Begins to read all partitions of a topic, or one.
    pub async fn open(
        settings: &Settings,
        topic: &str,
        partition: Option<i32>,
        start: Start,
    ) -> Result<Self> {
        let mut config = settings.consuming();
        config.set("group.id", NAME);
        let consumer: BaseConsumer<Report> = settings.open(&config, Report::default())?;
        let tail = Self {
            consumer: Arc::new(consumer),
            doing: format!("reading topic {topic}"),
            ready: VecDeque::new(),
            failed: None,
        };
        let topic = topic.to_owned();
        blocking(move || tail.assign(&topic, partition, start).map(|()| tail)).await?
    }

    fn assign(&self, topic: &str, partition: Option<i32>, start: Start) -> Result<()> {
        let partitions = self.partitions(topic)?;
        let mut list = TopicPartitionList::new();
        for known in &partitions {
            if partition.is_none_or(|wanted| wanted == *known) {
                let offset = self.offset(topic, *known, start)?;
                list.add_partition_offset(topic, *known, offset)
                    .map_err(|error| explain(&self.doing, &error))?;
            }
        }
        if list.count() == 0 {
            let last = partitions.iter().max().copied().unwrap_or_default();
            let what = format!("it has no such partition; they are numbered from 0 to {last}");
            return Err(Error::new(Kind::Unsuitable, &self.doing, what));
        }
        self.consumer.assign(&list).map_err(|error| explain(&self.doing, &error))
    }

    fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let metadata =
            self.consumer.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(|error| self.cause(&error))?;
        let found = metadata.topics().first();
        if let Some(error) = found.and_then(rdkafka::metadata::MetadataTopic::error) {
            return Err(of_code(&self.doing, RDKafkaErrorCode::from(error)));
        }
        Ok(found.map(|topic| topic.partitions().iter().map(|found| found.id()).collect()).unwrap_or_default())
    }

    fn offset(&self, topic: &str, partition: i32, start: Start) -> Result<Offset> {
        if start == Start::Beginning {
            return Ok(Offset::Beginning);
        }
        let ends = self.consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN);
        let (low, high) = ends.map_err(|error| self.cause(&error))?;
        Ok(Offset::Offset(match start {
            Start::Offset(offset) => offset.clamp(low, high),
            Start::Beginning | Start::End => high,
        }))
    }

    /// What is behind a request that failed: a wrong password shows only as an event beside it.
    fn cause(&self, error: &KafkaError) -> Error {
        // Each call without waiting takes one thing, and log lines are among them. No partition is assigned yet.
        for _ in 0..EVENTS {
            self.consumer.poll(Duration::ZERO);
        }
        let explained = explain(&self.doing, error);
        match self.consumer.context().trouble.code() {
            Some(code) if explained.kind == Kind::Unreachable => of_code(&self.doing, code),
            _ => explained,
        }
    }

    /// The error, unless reading goes on by itself.
    fn later(&self, error: &KafkaError) -> Option<Error> {
        // It concerns the group, which is none.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) {
            return None;
        }
        let error = explain(&self.doing, error);
        if error.kind == Kind::Unreachable {
            tracing::warn!("{error}");
            return None;
        }
        Some(error)
    }

    /// The next record. Waits for it as long as it takes, also for a broker that is away.
    pub async fn next(&mut self) -> Result<Found> {
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Ok(found);
            }
            if let Some(error) = self.failed.take().and_then(|error| self.later(&error)) {
                return Err(error);
            }
            let consumer = Arc::clone(&self.consumer);
            (self.ready, self.failed) = blocking(move || look(&consumer)).await?;
        }
    }
}

/// What is there, and the error behind it.
fn look(consumer: &BaseConsumer<Report>) -> (VecDeque<Found>, Option<KafkaError>) {
    let mut ready = VecDeque::new();
    let mut patience = LOOK;
    while ready.len() < AT_A_TIME {
        match consumer.poll(patience) {
            Some(Ok(message)) => ready.push_back(Found::of(&message)),
            Some(Err(error)) => return (ready, Some(error)),
            None => break,
        }
        patience = Duration::ZERO;
    }
    (ready, None)
}

impl Found {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let mark = message.headers().and_then(|headers| {
            headers.iter().find(|header| header.key == Mark::HEADER).and_then(|header| header.value)
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
            mark: mark.map(Bytes::copy_from_slice),
        }
    }
}

/// librdkafka's calls wait in the thread that makes them.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::new(Kind::Bug, "talking to Kafka", error.to_string()))
}
