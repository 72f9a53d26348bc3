//! Topics of one's own on a broker, removed at the end, and what they hold.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use slackwater_connectors::kafka::{Admin, NewTopic, Producer, Record, Refusals, Settings, Ticket};
use slackwater_connectors::secret::Secret;

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn unique(prefix: &str) -> String {
    let nanos =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    format!("{prefix}-{nanos:x}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn settings(brokers: &str) -> Settings {
    Settings {
        brokers: brokers.to_owned(),
        options: vec![],
        producer: vec![],
        consumer: vec![],
        client_id: "slackwater-test".into(),
        refusals: Refusals::default(),
    }
}

pub(crate) fn option(name: &str, value: &str) -> (String, Secret) {
    (name.to_owned(), Secret::new(value))
}

pub(crate) fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A topic on the shared broker.
#[derive(Clone)]
pub(crate) struct Topic {
    pub(crate) settings: Settings,
    pub(crate) admin: Admin,
    pub(crate) name: String,
    pub(crate) partitions: u32,
}

impl Topic {
    pub(crate) async fn create(&self, own: &[(&str, &str)]) {
        // The records' times lie far back: a broker that looks for what is too old would take them away in the middle of a test.
        let mut config = config(&[("retention.ms", "-1")]);
        config.extend(own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let wanted =
            NewTopic { name: self.name.clone(), partitions: self.partitions, replication: 1, config };
        for (name, made) in self.admin.create(&[wanted]).await.expect("an answer") {
            made.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        self.has_leaders().await;
    }

    /// A topic is created before its partitions have leaders, which takes longer on a busy machine.
    async fn has_leaders(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        for partition in 0..self.partitions as i32 {
            while let Err(error) = self.admin.watermarks(&self.name, partition).await {
                assert!(Instant::now() < end, "{}/{partition} has no leader: {error}", self.name);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    pub(crate) fn producer(&self) -> Producer {
        Producer::open(&self.settings, &[(self.name.clone(), self.partitions)]).expect("a producer")
    }

    pub(crate) fn values(&self) -> Vec<Vec<u64>> {
        values(&self.settings.brokers, &self.name, self.partitions)
    }
}

/// Runs a test with a topic of its own and removes it after, also when the test fails.
pub(crate) async fn with<F, T>(partitions: u32, own: &[(&str, &str)], test: T)
where
    T: FnOnce(Topic) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let brokers = std::env::var("SLACKWATER_KAFKA_BROKERS")
        .expect("SLACKWATER_KAFKA_BROKERS: start the services and load their env");
    let settings = settings(&brokers);
    let admin = Admin::open(&settings).expect("an admin");
    let topic = Topic { settings, admin, name: unique("slackwater-test"), partitions };
    topic.create(own).await;
    let outcome = tokio::spawn(test(topic.clone())).await;
    // The test may have removed it.
    let _ = topic.admin.delete(&topic.name).await;
    if let Err(error) = outcome {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Sends a number, as key and value.
pub(crate) async fn number(
    producer: &Producer,
    partition: i32,
    number: u64,
    ticket: &std::sync::Arc<Ticket>,
) -> slackwater_connectors::error::Result<()> {
    let bytes = number.to_be_bytes();
    let record = Record { key: &bytes, value: Some(&bytes), headers: &[], timestamp: 1_700_000_000_000 };
    producer.send(0, partition, record, ticket).await
}

/// The contents of the topic, partition by partition, read with a plain consumer.
pub(crate) fn read<T>(
    brokers: &str,
    topic: &str,
    partitions: u32,
    look: impl Fn(&BorrowedMessage<'_>) -> T,
) -> Vec<Vec<T>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", unique("slackwater-test"))
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mut all = Vec::new();
    for partition in 0..partitions {
        let mut list = TopicPartitionList::new();
        let partition = partition.cast_signed();
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("a list");
        consumer.assign(&list).expect("assigned");
        let (low, high) =
            consumer.fetch_watermarks(topic, partition, Duration::from_secs(20)).expect("watermarks");
        assert_eq!(low, 0);
        let mut found = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while found.len() < usize::try_from(high).expect("an offset") {
            assert!(Instant::now() < deadline, "{} of {high} records came", found.len());
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                found.push(look(&message.expect("a record")));
            }
        }
        all.push(found);
    }
    all
}

/// The numbers that the topic holds.
pub(crate) fn values(brokers: &str, topic: &str, partitions: u32) -> Vec<Vec<u64>> {
    read(brokers, topic, partitions, |message| {
        let value: [u8; 8] = message.payload().expect("a value").try_into().expect("a number");
        assert_eq!(message.key(), Some(value.as_slice()));
        u64::from_be_bytes(value)
    })
}

/// Waits until it holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What has to come within the tests' patience.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("never: {what}"),
    }
}
