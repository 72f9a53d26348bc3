//! Sending records: in order, each once, however long the brokers are away.
//!
//! A partition holds a prefix of what was sent to it. librdkafka keeps order and count through its
//! retries. A record that is refused for good would leave a gap, and an applier that went past the gap would take what is
//! sent again for old; so the first refusal ends the producer: what waits is thrown away, all that is open fails, and
//! `send` only tells the error. After that, as after a crash, the caller begins at its saved position with a new one.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};

use super::error::{explain, of_code};
use super::report::{self, Trouble};
use super::settings::{Settings, largest};
use super::ticket::{Failure, Ticket, copy};
use crate::error::{Error, Kind, Result};

const ALL: &str = "sending to Kafka";
/// How long to wait for room in the queue before looking again.
const FULL: Duration = Duration::from_millis(2);
/// How often the thread looks whether it has to end; acknowledgements do not wait for that.
const SLICE: Duration = Duration::from_millis(100);
/// How long to wait for librdkafka to give back what was thrown away.
const PURGE: Duration = Duration::from_secs(10);

/// Sends records to a set of topics. Cheap to clone.
#[derive(Clone)]
pub struct Producer(Arc<Handle>);

/// One record, borrowed until it is in the queue.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value; none is a tombstone or a mark.
    pub value: Option<&'a [u8]>,
    /// Headers by name.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Milliseconds since 1970; zero means now.
    pub timestamp: i64,
}

impl fmt::Debug for Record<'_> {
    /// What is in it is not ours to show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} and {} bytes)", self.key.len(), self.value.map_or(0, <[u8]>::len))
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer({} topics)", self.0.deliveries.topics.len())
    }
}

impl Producer {
    /// Makes the client and the thread that serves it. Nothing is asked of a broker: one that is away is waited for.
    ///
    /// `message.max.bytes` among the producer's options limits records and batches; it has to be no larger than the smallest
    /// `max.message.bytes` of the topics.
    pub fn open(settings: &Settings, topics: &[(String, u32)]) -> Result<Self> {
        let doing = "opening a producer";
        let config = settings.producing();
        let deliveries = Deliveries {
            topics: topics.iter().map(|(name, partitions)| Topic::new(name, *partitions)).collect(),
            largest: largest(&config)?,
            recent: AtomicUsize::new(0),
            trouble: Trouble::of(settings),
            failure: Failure::default(),
            client: OnceLock::new(),
        };
        let client: Arc<BaseProducer<Deliveries>> = Arc::new(settings.open(&config, deliveries)?);
        let deliveries = Arc::clone(client.context());
        let _ = deliveries.client.set(Arc::downgrade(&client));
        let stop = Arc::new(AtomicBool::new(false));
        let (served, stopped) = (Arc::clone(&client), Arc::clone(&stop));
        std::thread::Builder::new()
            .name("kafka-producer".into())
            .spawn(move || serve(&served, &stopped))
            .map_err(|_| Error::new(Kind::Exhausted, doing, "this machine has no thread left"))?;
        Ok(Self(Arc::new(Handle { client: Some(client), deliveries, stop })))
    }

    /// Puts a record into the queue; the order of calls is the order in the partition. Waits while the queue is full.
    ///
    /// An error ends the producer, except for a record that is larger than `largest_record`: that one was not taken, and
    /// nothing else happened.
    pub async fn send(
        &self,
        topic: usize,
        partition: i32,
        record: Record<'_>,
        ticket: &Arc<Ticket>,
    ) -> Result<()> {
        let Handle { client: Some(client), deliveries, .. } = &*self.0 else {
            return Err(Error::new(Kind::Bug, "sending", "the producer is closed"));
        };
        let Some(Topic { name, .. }) = deliveries.topics.get(topic) else {
            return Err(Error::new(Kind::Bug, "sending", format!("there is no topic number {topic}")));
        };
        let mut next = BaseRecord::<[u8], [u8], _>::with_opaque_to(name, Arc::clone(ticket))
            .partition(partition)
            .key(record.key)
            .timestamp(record.timestamp);
        next.payload = record.value;
        next.headers = headers(record.headers);
        loop {
            if let Some(error) = deliveries.failure.get() {
                return Err(error);
            }
            ticket.add();
            let Err((error, back)) = client.send(next) else {
                return Ok(());
            };
            ticket.done();
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => {
                    next = back;
                    tokio::time::sleep(FULL).await;
                }
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => return Err(explain(sending(name), &error)),
                _ => return Err(deliveries.end(name, &error)),
            }
        }
    }

    /// The offset acknowledged last in a partition, since the producer was opened.
    pub fn acknowledged(&self, topic: usize, partition: i32) -> Option<i64> {
        let slot = self.0.deliveries.topics.get(topic)?.acknowledged.get(usize::try_from(partition).ok()?)?;
        Some(slot.load(Ordering::Acquire)).filter(|offset| *offset >= 0)
    }

    /// A topic whose offsets went back: it was re-created, or brokers lost records. It is told once, and again when
    /// another of its partitions shows it.
    pub fn regressed(&self) -> Option<usize> {
        self.0.deliveries.topics.iter().position(|topic| topic.regressed.swap(false, Ordering::AcqRel))
    }

    /// The largest record that is taken, in bytes with key, headers and what surrounds them.
    pub fn largest_record(&self) -> usize {
        self.0.deliveries.largest
    }

    /// About how many records are not acknowledged yet; what librdkafka has to tell is counted with them.
    pub fn outstanding(&self) -> usize {
        self.0.client.as_ref().map_or(0, |client| usize::try_from(client.in_flight_count()).unwrap_or(0))
    }

    /// Why nothing is acknowledged, where the last thing heard from the brokers was trouble. Sending waits all the same.
    pub fn trouble(&self) -> Option<Error> {
        Some(of_code(ALL, self.0.deliveries.trouble.code()?))
    }
}

fn sending(topic: &str) -> String {
    format!("sending to {topic}")
}

fn headers(pairs: &[(&str, &[u8])]) -> Option<OwnedHeaders> {
    if pairs.is_empty() {
        return None;
    }
    let made = OwnedHeaders::new_with_capacity(pairs.len());
    Some(pairs.iter().fold(made, |made, (key, value)| made.insert(Header { key, value: Some(*value) })))
}

/// True where the error only tells that something else went wrong before.
fn consequence(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::PurgeQueue | Code::PurgeInflight | Code::Fatal | Code::GaplessGuarantee)
    )
}

/// Why a record was refused, from librdkafka's sentence about the gap that would follow. The refusal itself comes by
/// another way, and later.
fn refusal(text: &str) -> Option<RDKafkaErrorCode> {
    use RDKafkaErrorCode as Code;
    const REFUSALS: [Code; 15] = [
        Code::Authentication,
        Code::SSL,
        Code::MessageSizeTooLarge,
        Code::InvalidMessageSize,
        Code::MessageBatchTooLarge,
        Code::InvalidMessage,
        Code::InvalidRecord,
        Code::InvalidTimestamp,
        Code::InvalidTopic,
        Code::PolicyViolation,
        Code::TopicAuthorizationFailed,
        Code::ClusterAuthorizationFailed,
        Code::UnsupportedVersion,
        Code::UnsupportedForMessageFormat,
        Code::UnsupportedCompressionType,
    ];
    let (_, rest) = text.split_once(" failed: ")?;
    let (reason, _) = rest.split_once(" (broker ")?;
    REFUSALS.into_iter().find(|code| code.to_string() == format!("{code:?} ({reason})"))
}

/// What the clones share. With the last of them the thread ends, and throws away what was not sent.
struct Handle {
    /// Always there until it is dropped.
    client: Option<Arc<BaseProducer<Deliveries>>>,
    deliveries: Arc<Deliveries>,
    stop: Arc<AtomicBool>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Let go before the thread is told to: closing the client blocks, so it has to be the thread that does it.
        self.client = None;
        self.stop.store(true, Ordering::Release);
    }
}

/// Answers the acknowledgements, on a thread of its own.
fn serve(client: &BaseProducer<Deliveries>, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        client.poll(SLICE);
        // A record that came into the queue beside the end would lie there for ever.
        if client.context().failure.get().is_some() && client.in_flight_count() > 0 {
            client.purge(PurgeConfig::default().queue().inflight().non_blocking());
        }
    }
    client.purge(PurgeConfig::default().queue().inflight());
    let until = Instant::now() + PURGE;
    while client.in_flight_count() > 0 && Instant::now() < until {
        client.poll(Duration::from_millis(10));
    }
}

struct Topic {
    name: String,
    acknowledged: Box<[AtomicI64]>,
    regressed: AtomicBool,
}

impl Topic {
    fn new(name: &str, partitions: u32) -> Self {
        Self {
            name: name.to_owned(),
            acknowledged: (0..partitions).map(|_| AtomicI64::new(-1)).collect(),
            regressed: AtomicBool::new(false),
        }
    }
}

/// What comes back. Only the thread of the producer writes here, except for a failure.
struct Deliveries {
    topics: Vec<Topic>,
    largest: usize,
    /// The topic of the last acknowledgement; the next one is mostly of the same.
    recent: AtomicUsize,
    trouble: Trouble,
    failure: Failure,
    client: OnceLock<Weak<BaseProducer<Self>>>,
}

impl Deliveries {
    fn acknowledge(&self, topic: &str, partition: i32, offset: i64) {
        let recent = self.recent.load(Ordering::Relaxed);
        let index = if self.topics.get(recent).is_some_and(|recent| recent.name == topic) {
            recent
        } else {
            let Some(index) = self.topics.iter().position(|other| other.name == topic) else { return };
            self.recent.store(index, Ordering::Relaxed);
            index
        };
        // A record that the broker had already comes back without its offset.
        let Ok(slot) = usize::try_from(partition) else { return };
        let (Some(slot), true) = (self.topics[index].acknowledged.get(slot), offset >= 0) else { return };
        if slot.swap(offset, Ordering::AcqRel) >= offset {
            self.topics[index].regressed.store(true, Ordering::Release);
        }
    }

    /// Keeps the error, throws away what waits, and tells the error that counts.
    fn end(&self, topic: &str, error: &KafkaError) -> Error {
        let followed = consequence(error);
        let known = if followed { self.failure.get().or_else(|| self.fatal(sending(topic))) } else { None };
        let told = known.unwrap_or_else(|| explain(sending(topic), error));
        if self.failure.keep(copy(&told), !followed)
            && let Some(client) = self.client()
        {
            // Not to wait for librdkafka's threads: it would be in the middle of a delivery, or in an async task.
            client.purge(PurgeConfig::default().queue().inflight().non_blocking());
        }
        told
    }

    /// What librdkafka gave up for.
    fn fatal(&self, doing: String) -> Option<Error> {
        let (code, text) = self.client()?.client().fatal_error()?;
        let code =
            if code == RDKafkaErrorCode::GaplessGuarantee { refusal(&text).unwrap_or(code) } else { code };
        Some(of_code(doing, code))
    }

    fn client(&self) -> Option<Arc<BaseProducer<Self>>> {
        self.client.get()?.upgrade()
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        report::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, _reason: &str) {
        self.trouble.note(&error);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
            && let Some(told) = self.fatal(ALL.into())
        {
            self.failure.keep(told, false);
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Arc<Ticket>) {
        match result {
            Ok(message) => {
                self.trouble.over();
                self.acknowledge(message.topic(), message.partition(), message.offset());
            }
            Err((error, message)) => {
                let cause = !consequence(error);
                ticket.fail(self.end(message.topic(), error), cause);
            }
        }
        ticket.done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_refusal_is_found() {
        let text = "ProduceRequest for orders [3] with 1 message(s) failed: Broker: Message size too large \
                    (broker 1 PID{Id:1,Epoch:0}, base seq 7): unable to satisfy gap-less guarantee";
        assert_eq!(refusal(text), Some(RDKafkaErrorCode::MessageSizeTooLarge));
        let text = "ProduceRequest for orders [0] with 1 message(s) failed: Local: Authentication failure (broker 0 \
                    PID{Id:0,Epoch:0}, base seq 513): unable to satisfy gap-less guarantee";
        assert_eq!(refusal(text), Some(RDKafkaErrorCode::Authentication));
        assert_eq!(refusal("ProduceRequest for orders [3] failed: of late (broker 1)"), None);
        assert_eq!(refusal(""), None);
    }
}
