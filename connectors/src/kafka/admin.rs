//! Topics at the brokers: looked at, created, changed.
//!
//! The two clients are one in intent: librdkafka's administration tells nothing of the connection's troubles, so a
//! second client asks for metadata and keeps them. Asking never makes a topic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigEntry, ConfigSource, NewTopic as Wanted,
    OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::error::{explain, of_code};
use super::handshake;
use super::report::{self, Report};
use super::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::retry::Pauses;

/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(10);
/// A broker that refuses us is asked twice, so long each: another one may let us in.
const SLICE: Duration = Duration::from_secs(1);
/// How many times a change is looked for: every broker learns of it by itself, a little later than the answer.
const LOOKS: u32 = 40;

/// Administration of topics. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    admin: Arc<AdminClient<Report>>,
    client: Arc<BaseProducer<Report>>,
    /// What both were made with.
    settings: Settings,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admin")
    }
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// How many partitions it has.
    pub partitions: u32,
    /// How many replicas the partition with the fewest has.
    pub replication: u16,
    /// The settings that hold for it, whether set for it or for the brokers.
    pub config: BTreeMap<String, String>,
}

/// A topic to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How many replicas of each.
    pub replication: u16,
    /// Settings of its own.
    pub config: BTreeMap<String, String>,
}

impl Admin {
    /// Makes the clients; nothing is asked of a broker yet.
    pub fn open(settings: &Settings) -> Result<Self> {
        let mut quiet = settings.client();
        // What its lines say is in our errors, and the clients that send and read log the same while they run.
        quiet.set_log_level(RDKafkaLogLevel::Emerg);
        Ok(Self {
            admin: Arc::new(settings.open(&quiet, Report::of(settings))?),
            client: Arc::new(settings.open(&quiet, Report::of(settings))?),
            settings: settings.clone(),
        })
    }

    /// How many brokers the cluster has now.
    pub async fn brokers(&self) -> Result<u32> {
        Ok(self.cluster("asking for the brokers").await?.brokers)
    }

    /// The topics as they are, in the order asked; `None` for a topic that does not exist.
    pub async fn observe(&self, topics: &[&str]) -> Result<Vec<Option<Observed>>> {
        let cluster = self.cluster("looking at the topics").await?;
        let mut there = BTreeSet::new();
        for name in topics {
            if let Some(seen) = cluster.topic(name) {
                // Right after it was made, some brokers know its name and not yet its leaders.
                if let Some(code) = seen.error.filter(|code| *code != Code::LeaderNotAvailable) {
                    return Err(of_code(format!("looking at the topic {name}"), code));
                }
                there.insert(*name);
            }
        }
        let unlisted = topics.iter().filter(|name| !there.contains(**name)).map(|name| (*name).to_owned());
        self.seen_by_name(unlisted.collect()).await?;
        let configs = self.configs(&Vec::from_iter(there)).await?;
        let observed = topics.iter().map(|name| {
            let (seen, entries) = (cluster.topic(name)?, configs.get(*name)?);
            let config = entries.iter().filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?)));
            Some(Observed {
                partitions: seen.partitions,
                replication: seen.replication,
                config: config.collect(),
            })
        });
        Ok(observed.collect())
    }

    /// A topic that the brokers do not list may be missing, or hidden from us. Asked for by name, they tell.
    async fn seen_by_name(&self, names: Vec<String>) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let settings = self.settings.clone();
        let mut config: ClientConfig = settings.client();
        config.set_log_level(RDKafkaLogLevel::Emerg);
        // A client of its own: it would follow what it was asked for from then on.
        let asked = tokio::task::spawn_blocking(move || {
            let client: BaseProducer<Report> = settings.open(&config, Report::of(&settings))?;
            for name in names {
                let seen = client.client().fetch_metadata(Some(&name), ANSWER);
                let seen = seen.map_err(|error| explain("looking at the topics", &error))?;
                let code = seen.topics().first().and_then(|topic| topic.error()).map(Code::from);
                if code == Some(Code::TopicAuthorizationFailed) {
                    return Err(lacks(
                        format!("looking at the topic {name}"),
                        Code::TopicAuthorizationFailed,
                        "Describe on the topic",
                        "everybody who uses the topic (Read and Write include it)",
                    ));
                }
            }
            Ok(())
        });
        asked
            .await
            .map_err(|_| Error::new(Kind::Bug, "looking at the topics", "the question was broken off"))?
    }

    /// Makes topics, and waits until they are known. One that is there already counts as made.
    pub async fn create(&self, topics: &[NewTopic]) -> Result<Vec<(String, Result<()>)>> {
        let doing = "making topics";
        let wanted: Vec<Wanted<'_>> = topics.iter().map(wanted).collect();
        let options = options().operation_timeout(Some(ANSWER));
        let answers = self.answer(doing, self.admin.create_topics(&wanted, &options).await)?;
        let mut new = BTreeSet::new();
        let mut made = Vec::new();
        for answer in answers {
            made.push(match answer {
                Ok(name) => {
                    new.insert(name.clone());
                    (name, Ok(()))
                }
                Err((name, Code::TopicAlreadyExists)) => (name, Ok(())),
                Err((name, code @ (Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed))) => {
                    let doing = format!("making the topic {name}");
                    (name, Err(lacks(doing, code, "Create on the topic", "`slackwater topics apply`")))
                }
                Err((name, code)) => {
                    let error = of_code(format!("making the topic {name}"), code);
                    (name, Err(error))
                }
            });
        }
        self.until(doing, |cluster| {
            new.iter().all(|name| cluster.topic(name).is_some_and(|topic| topic.led))
        })
        .await?;
        Ok(made)
    }

    /// Changes settings of a topic; others that were set for it stay.
    pub async fn change(&self, topic: &str, config: &BTreeMap<String, String>) -> Result<()> {
        let doing = format!("changing the settings of the topic {topic}");
        // The request replaces all that was set for the topic, so what is to stay is sent with it.
        let present = self.config(&doing, topic).await?;
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for entry in present.iter().filter(|entry| entry.source == ConfigSource::DynamicTopic) {
            if let Some(value) = &entry.value {
                alter = alter.set(&entry.name, value);
            }
        }
        for (name, value) in config {
            alter = alter.set(name, value);
        }
        self.answer(&doing, self.admin.alter_configs(&[alter], &options()).await)?;
        // A refusal does not come back with the answer, so what holds afterwards is what tells.
        let mut refused = Vec::new();
        let mut pauses = pauses();
        for _ in 0..LOOKS {
            let entries = self.config(&doing, topic).await?;
            refused = config.iter().filter(|(name, value)| !holds(&entries, name, value)).collect();
            if refused.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(pauses.next_pause()).await;
        }
        let names: Vec<&str> = refused.iter().map(|(name, _)| name.as_str()).collect();
        Err(Error::new(
            Kind::Unsuitable,
            doing,
            format!(
                "the broker did not take {}: it does not know the name or the value, a policy forbids it, or the user \
                 lacks the right AlterConfigs",
                names.join(", ")
            ),
        ))
    }

    /// The first offset that a partition still has, and the one that its next record will get.
    ///
    /// Librdkafka answers from what it last heard of the topic, and while a broker goes away that may lack a partition which
    /// exists. So a partition counts as gone only if the brokers, asked anew, do not list it either.
    pub async fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64)> {
        let doing = format!("asking for the offsets of {topic} partition {partition}");
        let mut pauses = pauses();
        for _ in 0..LOOKS {
            let name = topic.to_owned();
            let question = move |client: &BaseProducer<Report>| match client
                .client()
                .fetch_watermarks(&name, partition, ANSWER)
            {
                Err(error) if error.rdkafka_error_code() == Some(Code::UnknownPartition) => {
                    let cluster = Cluster::of(&client.client().fetch_metadata(None, ANSWER)?);
                    if cluster.has(&name, partition) { Ok(None) } else { Err(error) }
                }
                answer => answer.map(Some),
            };
            if let Some(ends) = self.ask(doing.clone(), question).await? {
                return Ok(ends);
            }
            tokio::time::sleep(pauses.next_pause()).await;
        }
        Err(Error::new(Kind::Unreachable, doing, "the brokers list the partition, but none answers for it"))
    }

    /// Removes a topic with its records, and waits until it is gone.
    pub async fn delete(&self, topic: &str) -> Result<()> {
        let doing = format!("removing the topic {topic}");
        let options = options().operation_timeout(Some(ANSWER));
        for answer in self.answer(&doing, self.admin.delete_topics(&[topic], &options).await)? {
            answer.map_err(|(_, code)| of_code(&doing, code))?;
        }
        self.until(&doing, |cluster| cluster.topic(topic).is_none()).await
    }

    async fn config(&self, doing: &str, topic: &str) -> Result<Vec<ConfigEntry>> {
        self.configs(&[topic])
            .await?
            .remove(topic)
            .ok_or_else(|| of_code(doing, Code::UnknownTopicOrPartition))
    }

    /// The settings of topics that are there. One that was removed meanwhile is left out.
    async fn configs(&self, topics: &[&str]) -> Result<BTreeMap<String, Vec<ConfigEntry>>> {
        let doing = "reading the settings of the topics";
        let asked: Vec<_> = topics.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        if asked.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut configs = BTreeMap::new();
        for answer in self.answer(doing, self.admin.describe_configs(&asked, &options()).await)? {
            let answer = answer.map_err(|code| of_code(doing, code))?;
            if let OwnedResourceSpecifier::Topic(name) = answer.specifier {
                configs.insert(name, answer.entries);
            }
        }
        // Every topic has settings: an answer without any is a refusal, whose reason librdkafka keeps to itself.
        if configs.values().any(Vec::is_empty) {
            let cluster = self.cluster(doing).await?;
            configs.retain(|name, _| cluster.topic(name).is_some());
            if let Some((name, _)) = configs.iter().find(|(_, entries)| entries.is_empty()) {
                return Err(lacks(
                    format!("reading the settings of the topic {name}"),
                    Code::TopicAuthorizationFailed,
                    "DescribeConfigs on the topic",
                    "`capture`, `check` and `slackwater topics`, which have to know how large a record may be",
                ));
            }
        }
        Ok(configs)
    }

    async fn until(&self, doing: &str, mut enough: impl FnMut(&Cluster) -> bool) -> Result<()> {
        let mut pauses = pauses();
        for _ in 0..LOOKS {
            if enough(&self.cluster(doing).await?) {
                return Ok(());
            }
            tokio::time::sleep(pauses.next_pause()).await;
        }
        Err(Error::new(Kind::Unreachable, doing, "the brokers did not learn of it in time"))
    }

    /// All topics: asking for one by name would have the client follow it from then on.
    async fn cluster(&self, doing: &str) -> Result<Cluster> {
        let answer = self.ask(doing.to_owned(), everything).await;
        match answer {
            Ok(cluster) => Ok(cluster),
            Err(error) => {
                let hint = self.client.context().trouble.hint();
                Err(handshake::explained(error, hint, &self.settings.client()).await)
            }
        }
    }

    /// Asks on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        doing: String,
        question: impl FnOnce(&BaseProducer<Report>) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T> {
        let client = Arc::clone(&self.client);
        let (answer, client) = tokio::task::spawn_blocking(move || {
            let answer = question(&client);
            report::listen(&client);
            (answer, client)
        })
        .await
        .map_err(|_| Error::new(Kind::Bug, &doing, "the question was broken off"))?;
        if answer.is_ok() {
            client.context().trouble.over();
        }
        self.answer(&doing, answer)
    }

    /// The answer, or an error: where no broker was reached, the reason that the connection gave.
    fn answer<T>(&self, doing: &str, answer: KafkaResult<T>) -> Result<T> {
        answer.map_err(|error| {
            let told = error.rdkafka_error_code().or(match error {
                KafkaError::AdminOp(code) => Some(code),
                _ => None,
            });
            let silent = [Code::BrokerTransportFailure, Code::OperationTimedOut, Code::AllBrokersDown];
            match self.client.context().trouble.code() {
                Some(code) if told.is_some_and(|told| silent.contains(&told)) => of_code(doing, code),
                _ => explain(doing, &error),
            }
        })
    }
}

/// Asks for everything that the brokers list. Somebody whom they refuse need not wait for the end of the time.
fn everything(client: &BaseProducer<Report>) -> KafkaResult<Cluster> {
    let end = Instant::now() + ANSWER;
    let mut refused = false;
    loop {
        let error = match client.client().fetch_metadata(None, SLICE) {
            Ok(metadata) => return Ok(Cluster::of(&metadata)),
            Err(error) => error,
        };
        report::listen(client);
        let passes = [Code::BrokerTransportFailure, Code::OperationTimedOut, Code::AllBrokersDown];
        let over =
            Instant::now() >= end || !error.rdkafka_error_code().is_some_and(|code| passes.contains(&code));
        if over || refused && client.context().trouble.refuses() {
            return Err(error);
        }
        refused = client.context().trouble.refuses();
    }
}

/// A right that is lacking, and who needs it.
fn lacks(doing: impl Into<String>, code: Code, right: &str, who: &str) -> Error {
    let what = format!("the user lacks the right {right}; it is for {who}");
    Error::new(Kind::Denied, doing, what)
        .code(format!("{code:?}"))
        .help("`slackwater grants FILE` prints the commands that give each user what is needed")
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER))
}

fn pauses() -> Pauses {
    Pauses::new(Duration::from_millis(10), Duration::from_millis(250))
}

fn wanted(topic: &NewTopic) -> Wanted<'_> {
    let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
    let replication = TopicReplication::Fixed(i32::from(topic.replication));
    topic.config.iter().fold(Wanted::new(&topic.name, partitions, replication), |wanted, (name, value)| {
        wanted.set(name, value)
    })
}

/// What the brokers say of themselves.
struct Cluster {
    brokers: u32,
    topics: BTreeMap<String, Seen>,
}

struct Seen {
    partitions: u32,
    replication: u16,
    /// All of its partitions can be written to.
    led: bool,
    error: Option<Code>,
}

impl Cluster {
    fn of(metadata: &Metadata) -> Self {
        let topics = metadata.topics().iter().map(|topic| {
            let partitions = topic.partitions();
            let replication = partitions.iter().map(|partition| partition.replicas().len()).min();
            let error = topic.error().map(Code::from);
            let led = !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0);
            let seen = Seen {
                partitions: u32::try_from(partitions.len()).unwrap_or(u32::MAX),
                replication: u16::try_from(replication.unwrap_or(0)).unwrap_or(u16::MAX),
                led: led && error.is_none(),
                error,
            };
            (topic.name().to_owned(), seen)
        });
        let brokers = u32::try_from(metadata.brokers().len()).unwrap_or(u32::MAX);
        Self { brokers, topics: topics.collect() }
    }

    fn topic(&self, name: &str) -> Option<&Seen> {
        self.topics.get(name).filter(|topic| topic.error != Some(Code::UnknownTopicOrPartition))
    }

    fn has(&self, name: &str, partition: i32) -> bool {
        let number = u32::try_from(partition);
        self.topic(name).zip(number.ok()).is_some_and(|(topic, number)| number < topic.partitions)
    }
}

/// True if the setting of the topic has this value, as the broker writes it: `0.50` comes back as `0.5`.
fn holds(entries: &[ConfigEntry], name: &str, value: &str) -> bool {
    let plain = |value: &str| -> String { value.split_whitespace().collect() };
    entries.iter().any(|entry| {
        entry.name == name && entry.value.as_deref().is_some_and(|present| {
            plain(present) == plain(value)
                || matches!((present.parse::<f64>(), value.trim().parse::<f64>()), (Ok(a), Ok(b)) if a == b)
        })
    })
}
