//! Which rights a user lacks, found out by asking for what needs them. Nothing is written and no group is joined:
//!
//! - **Write**: a record that wants to be acknowledged by two replicas. Kafka knows all and one only, and says so (`InvalidRequiredAcks`)
//!   to somebody who may write, after it has looked at the rights and before it looks at the record.
//! - **Read**: a fetch at the end of a partition.
//! - **Group**: an offset for a topic that does not exist. The right is looked at first; then there is nothing to keep.
//!
//! We considered the operations that brokers list with a topic (KIP-430); the client's library has no safe call for them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::error::explain;
use super::settings::Settings;
use crate::error::{Error, Kind, Result};

const DOING: &str = "asking Kafka for the rights of the user";
/// How long the answers to one question may take.
const ANSWER: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// No topic of ours can be called so: ours have a dot behind the prefix.
const NO_TOPIC: &str = "slackwater-no-such-topic";

/// A right that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To send records to topics.
    Write,
    /// To read records of topics.
    Read,
    /// To be a member of the group.
    Group,
}

/// The topics for which the user lacks the right, and whether that of the group is lacking. What no answer came for is not listed.
pub async fn lacking(
    settings: &Settings,
    topics: &[String],
    group: &str,
    right: Right,
) -> Result<Vec<String>> {
    let (settings, topics, group) = (settings.clone(), topics.to_vec(), group.to_owned());
    let asked = tokio::task::spawn_blocking(move || match right {
        Right::Write => write(&settings, &topics),
        Right::Read => read(&settings, &topics),
        Right::Group => joins(&settings, &group),
    });
    asked.await.map_err(|_| Error::new(Kind::Bug, DOING, "the question was broken off"))?
}

/// Says nothing: what it finds out is told by others.
#[derive(Default)]
struct Quiet {
    refused: Mutex<BTreeSet<String>>,
    answered: Mutex<usize>,
}

impl Quiet {
    fn answered(&self) -> usize {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}

    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result
            && denied(error)
        {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.insert(message.topic().to_owned());
        }
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }
}

impl ConsumerContext for Quiet {}

fn denied(error: &KafkaError) -> bool {
    let denied =
        [Code::TopicAuthorizationFailed, Code::GroupAuthorizationFailed, Code::ClusterAuthorizationFailed];
    error.rdkafka_error_code().is_some_and(|code| denied.contains(&code))
}

fn quiet(settings: &Settings) -> ClientConfig {
    let mut config = settings.client();
    config.set_log_level(RDKafkaLogLevel::Emerg);
    config
}

fn write(settings: &Settings, topics: &[String]) -> Result<Vec<String>> {
    let mut config = quiet(settings);
    for (name, value) in
        [("acks", "2"), ("retries", "0"), ("linger.ms", "0"), ("message.timeout.ms", "10000")]
    {
        config.set(name, value);
    }
    let producer: BaseProducer<Quiet> = settings.open(&config, Quiet::default())?;
    for topic in topics {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(0).key(b"slackwater check");
        producer.send(record).map_err(|(error, _)| explain(DOING, &error))?;
    }
    let end = Instant::now() + ANSWER;
    while producer.context().answered() < topics.len() && Instant::now() < end {
        producer.poll(LOOK);
    }
    // What no answer came for must not be sent later.
    producer.purge(PurgeConfig::default().queue().inflight());
    producer.poll(Duration::ZERO);
    let refused = producer.context().refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(topics.iter().filter(|topic| refused.contains(*topic)).cloned().collect())
}

fn consumer(settings: &Settings, group: &str) -> Result<BaseConsumer<Quiet>> {
    let mut config = quiet(settings);
    for (name, value) in [
        ("group.id", group),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("fetch.wait.max.ms", "10"),
    ] {
        config.set(name, value);
    }
    settings.open(&config, Quiet::default())
}

/// Closing waits for the group's coordinator, and somebody whom it does not answer would wait for ever.
fn leave(consumer: impl Send + 'static) {
    std::thread::spawn(move || drop(consumer));
}

/// One topic after the other: an error does not say which one it is about.
fn read(settings: &Settings, topics: &[String]) -> Result<Vec<String>> {
    let consumer = consumer(settings, "slackwater.check")?;
    let refused = read_with(&consumer, topics);
    leave(consumer);
    refused
}

fn read_with(consumer: &BaseConsumer<Quiet>, topics: &[String]) -> Result<Vec<String>> {
    let fail = |error: KafkaError| explain(DOING, &error);
    let end = Instant::now() + ANSWER;
    let mut refused = Vec::new();
    for topic in topics {
        // A topic that is hidden from us is never fetched, and nothing is said of it.
        let seen = consumer.fetch_metadata(Some(topic), ANSWER).map_err(fail)?;
        let code = seen.topics().first().and_then(|topic| topic.error()).map(Code::from);
        if let Some(code) = code {
            // One that is not there is no matter of rights.
            refused.extend((code == Code::TopicAuthorizationFailed).then(|| topic.clone()));
            continue;
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::End).map_err(fail)?;
        consumer.assign(&list).map_err(fail)?;
        while Instant::now() < end {
            match consumer.poll(LOOK) {
                None => {}
                Some(Err(error)) if error.rdkafka_error_code() == Some(Code::GroupAuthorizationFailed) => {}
                Some(Err(error)) if denied(&error) => {
                    refused.push(topic.clone());
                    break;
                }
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(_)) => {}
            }
        }
    }
    Ok(refused)
}

fn joins(settings: &Settings, group: &str) -> Result<Vec<String>> {
    let consumer = Arc::new(consumer(settings, group)?);
    let refused = joins_with(&consumer);
    leave(consumer);
    Ok(refused?.then(|| group.to_owned()).into_iter().collect())
}

/// A refusal comes as an error among the records. The answer to an offset that was sent comes only to somebody who waits for it
/// (rust-rdkafka #856), and that wait has no end of its own.
fn joins_with(consumer: &Arc<BaseConsumer<Quiet>>) -> Result<bool> {
    let fail = |error: KafkaError| explain(DOING, &error);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(NO_TOPIC, 0, Offset::Offset(0)).map_err(fail)?;
    let (waiting, (answer, answered)) = (Arc::clone(consumer), mpsc::channel());
    std::thread::spawn(move || {
        // Nobody listens any more if it took too long.
        let _ = answer.send(waiting.commit(&list, CommitMode::Sync));
        drop(waiting);
    });
    let refuses = |error: &KafkaError| error.rdkafka_error_code() == Some(Code::GroupAuthorizationFailed);
    let end = Instant::now() + ANSWER;
    while Instant::now() < end {
        if consumer.poll(LOOK).is_some_and(|outcome| outcome.is_err_and(|error| refuses(&error))) {
            return Ok(true);
        }
        if let Ok(answer) = answered.try_recv() {
            return Ok(answer.is_err_and(|error| refuses(&error)));
        }
    }
    Ok(false)
}
