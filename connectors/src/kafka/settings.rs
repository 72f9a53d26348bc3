//! How to reach Kafka, and which of librdkafka's options belong to whom.
//!
//! Options are passed on as they are, except those that our guarantees rest on. Every value may be a secret, so none is
//! ever shown: librdkafka repeats values in its complaints, and these are put in our own words.

use std::fmt;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use super::renewal::Refusals;
use super::report::{self, Report};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

const CHECKING: &str = "reading the options for Kafka";

/// Where Kafka is and how to talk to it.
#[derive(Clone)]
pub struct Settings {
    /// `host:port,host:port`: some of the brokers; the others are found through them.
    pub brokers: String,
    /// Options of librdkafka for every client.
    pub options: Vec<(String, Secret)>,
    /// Options for producers only; they go before `options`.
    pub producer: Vec<(String, Secret)>,
    /// Options for consumers only; they go before `options`.
    pub consumer: Vec<(String, Secret)>,
    /// Our name at the brokers: in their logs, metrics and quotas.
    pub client_id: String,
    /// Where it is noted that a broker refused one of the clients. Copies of the settings share it.
    pub refusals: Refusals,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |options: &[(String, Secret)]| -> Vec<String> {
            options.iter().map(|(name, _)| name.clone()).collect()
        };
        f.debug_struct("Settings")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("options", &names(&self.options))
            .field("producer", &names(&self.producer))
            .field("consumer", &names(&self.consumer))
            .finish()
    }
}

/// Second names of options. librdkafka takes either, and with both it is chance which one counts.
const ALIASES: [(&str, &str); 10] = [
    ("metadata.broker.list", "bootstrap.servers"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("message.send.max.retries", "retries"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
    ("request.required.acks", "acks"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("sasl.mechanism", "sasl.mechanisms"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("auto.commit.enable", "enable.auto.commit"),
];

const RESERVED: [(&str, &str); 27] = [
    ("bootstrap.servers", "the address of the brokers has a place of its own"),
    ("client.id", "it names slackwater's parts at the brokers"),
    ("log_level", "the level of slackwater's own log decides"),
    ("log.queue", "log lines go to slackwater's own log"),
    ("enabled_events", "slackwater needs the events that it asks for"),
    ("statistics.interval.ms", "nothing would read the statistics"),
    ("test.mock.num.brokers", "it would put a mock in the place of the brokers"),
    (
        "allow.auto.create.topics",
        "a topic that is missing is made by `slackwater topics apply`, with its settings",
    ),
    ("enable.idempotence", "without it a record could be written twice or out of order"),
    ("enable.gapless.guarantee", "without it a record could be missing among others"),
    ("transactional.id", "slackwater uses no transactions of Kafka"),
    ("acks", "a record counts as sent when all replicas in sync have it"),
    ("retries", "a broker that is away is waited for without end"),
    ("message.timeout.ms", "a broker that is away is waited for without end"),
    ("max.in.flight.requests.per.connection", "more would cost the order of records"),
    ("queuing.strategy", "another one would cost the order of records"),
    ("partitioner", "the partition of a record is made of its document's key"),
    ("delivery.report.only.error", "progress is made of the acknowledgements"),
    ("group.id", "the group belongs to the migration"),
    ("group.instance.id", "each process is a member of its own"),
    ("group.protocol", "partitions are claimed the classic way"),
    ("group.remote.assignor", "partitions are claimed the classic way"),
    ("partition.assignment.strategy", "slackwater decides how partitions change hands"),
    ("enable.auto.commit", "progress is kept in the target, with the rows"),
    ("enable.auto.offset.store", "progress is kept in the target, with the rows"),
    ("offset.store.method", "progress is kept in the target, with the rows"),
    (
        "auto.offset.reset",
        "where to begin is kept in the target; jumping elsewhere would lose changes in silence",
    ),
];

fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name)
}

/// Why an option may not be set, if it may not.
pub fn reserved(name: &str) -> Option<&'static str> {
    RESERVED.iter().find(|(reserved, _)| *reserved == canonical(name)).map(|(_, why)| *why)
}

/// Sees whether librdkafka takes these options. Nothing is asked of a broker.
pub fn check(settings: &Settings) -> Result<()> {
    if settings.brokers.split(',').all(|broker| broker.trim().is_empty()) {
        return Err(unsuitable("there is no broker: say at least one as host:port"));
    }
    for (name, value) in settings.all() {
        if let Some(why) = reserved(name) {
            return Err(unsuitable(format!("the option {name} cannot be set: {why}")));
        }
        // One by one: a complaint about all of them would not always name the one it is about.
        let mut one = ClientConfig::new();
        one.set(name, value.expose());
        one.create_native_config()
            .map_err(|error| unsuitable(format!("the option {name} {}", why(&error))))?;
    }
    // They may connect before they are gone; what they would say, nobody has asked for.
    let mut producing = settings.producing();
    producing.set_log_level(RDKafkaLogLevel::Emerg);
    largest(&producing)?;
    let _: BaseProducer<Report> = settings.open(&producing, Report::default())?;
    let mut consuming = settings.consuming();
    consuming.set("group.id", "slackwater-check").set_log_level(RDKafkaLogLevel::Emerg);
    let _: BaseConsumer<Report> = settings.open(&consuming, Report::default())?;
    Ok(())
}

impl Settings {
    /// The options of all kinds of clients.
    pub(super) fn all(&self) -> impl Iterator<Item = &(String, Secret)> {
        self.options.iter().chain(&self.producer).chain(&self.consumer)
    }

    /// For a client that neither produces nor consumes.
    pub(super) fn client(&self) -> ClientConfig {
        self.with(&[])
    }

    /// For a producer. Its own limits are set by the producer.
    pub(super) fn producing(&self) -> ClientConfig {
        let mut config = self.with(&self.producer);
        for (name, value) in [
            ("enable.idempotence", "true"),
            ("enable.gapless.guarantee", "true"),
            ("acks", "all"),
            ("message.timeout.ms", "0"),
        ] {
            config.set(name, value);
        }
        for (name, value) in [
            ("compression.type", "lz4"),
            ("linger.ms", "5"),
            ("batch.size", "1000000"),
            ("batch.num.messages", "100000"),
            ("queue.buffering.max.kbytes", "65536"),
            // The limit in bytes counts values only; this one bounds keys, headers and what surrounds them.
            ("queue.buffering.max.messages", "200000"),
        ] {
            default(&mut config, name, value);
        }
        config
    }

    /// For a consumer, less its group.
    pub(super) fn consuming(&self) -> ClientConfig {
        let mut config = self.with(&self.consumer);
        for (name, value) in [
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
        ] {
            config.set(name, value);
        }
        config
    }

    /// Makes a client; what librdkafka complains about is told by the names of the options.
    pub(super) fn open<C, T>(&self, config: &ClientConfig, context: C) -> Result<T>
    where
        C: rdkafka::ClientContext,
        T: FromClientConfigAndContext<C>,
    {
        config.create_with_context(context).map_err(|error| match &error {
            KafkaError::ClientConfig(_, _, name, _) => {
                unsuitable(format!("the option {name} {}", why(&error)))
            }
            KafkaError::ClientCreation(text) => {
                let named = self.named(text);
                unsuitable(if named.is_empty() {
                    "librdkafka makes no client with these options".to_owned()
                } else {
                    format!(
                        "librdkafka makes no client with these options; look at {}: the value does not fit the other \
                         options, or a file that it names cannot be read",
                        named.join(", ")
                    )
                })
            }
            _ => unsuitable("librdkafka makes no client with these options"),
        })
    }

    fn with(&self, more: &[(String, Secret)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(report::level());
        for (name, value) in self.options.iter().chain(more) {
            config.set(canonical(name), value.expose_now());
        }
        // A peer that is gone without a word is noticed, and one that is back is found soon.
        default(&mut config, "socket.keepalive.enable", "true");
        default(&mut config, "reconnect.backoff.max.ms", "3000");
        // A broker that hangs is replaced by the others within nine seconds; by default it is waited for a whole minute.
        default(&mut config, "socket.timeout.ms", "15000");
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", &self.client_id);
        config.set("allow.auto.create.topics", "false");
        config
    }

    /// The options that a complaint speaks of. The complaint itself may hold values and is not shown.
    fn named(&self, complaint: &str) -> Vec<String> {
        let ours = self.all().map(|(name, _)| name.as_str());
        let mut names: Vec<String> = ours
            .filter(|name| {
                complaint
                    .split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_'))
                    .any(|word| word.trim_end_matches('.') == *name || canonical(word) == canonical(name))
            })
            .map(str::to_owned)
            .collect();
        names.dedup();
        names
    }
}

/// The largest record of a producer. One that is larger than the whole queue would wait for room without end.
pub(super) fn largest(producing: &ClientConfig) -> Result<usize> {
    let number = |name: &str| -> Result<usize> {
        let broken = || unsuitable(format!("the option {name} has a value that is not a number"));
        let text =
            producing.create_native_config().and_then(|config| config.get(name)).map_err(|_| broken())?;
        text.parse().map_err(|_| broken())
    };
    let (largest, queue) = (number("message.max.bytes")?, number("queue.buffering.max.kbytes")?);
    if largest / 1024 >= queue {
        return Err(unsuitable(
            "the option queue.buffering.max.kbytes leaves no room for a record of message.max.bytes",
        ));
    }
    Ok(largest)
}

fn default(config: &mut ClientConfig, name: &str, value: &str) {
    if config.get(name).is_none() {
        config.set(name, value);
    }
}

fn unsuitable(what: impl Into<String>) -> Error {
    Error::new(Kind::Unsuitable, CHECKING, what)
}

/// A complaint about one option, without its value.
fn why(error: &KafkaError) -> String {
    let KafkaError::ClientConfig(_, text, ..) = error else {
        return "holds a zero byte, in its name or in its value".into();
    };
    if text.starts_with("No such configuration property") {
        return "is not known to librdkafka; is it a name of the Java client, or misspelt?".into();
    }
    if text.contains("not supported in this build") {
        return "is not supported by this build".into();
    }
    if text.contains("must be set through dedicated") {
        return "cannot be set in a file".into();
    }
    if text.starts_with("Expected bool") {
        return "takes true or false, and nothing else".into();
    }
    match text.split_once("outside allowed range ") {
        Some((_, range)) => format!("has a value outside of {}", range.trim().replace("..", " to ")),
        None => "has a value that librdkafka does not take".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(options: &[(&str, &str)]) -> Settings {
        Settings {
            brokers: "127.0.0.1:1".into(),
            options: options.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect(),
            producer: vec![],
            consumer: vec![],
            client_id: "slackwater-test".into(),
            refusals: Refusals::default(),
        }
    }

    fn refused(options: &[(&str, &str)]) -> String {
        let error = check(&settings(options)).expect_err("not usable");
        assert_eq!(error.kind, Kind::Unsuitable, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        shown
    }

    #[test]
    fn options_are_named_and_values_are_not() {
        for (option, value) in [
            ("sasl.pasword", "hunter2"),
            ("security.protocol", "hunter2"),
            ("enable.ssl.certificate.verification", "hunter2"),
            ("socket.timeout.ms", "hunter2"),
            ("socket.timeout.ms", "123456789"),
            ("builtin.features", "lz4,hunter2"),
            ("error_cb", "hunter2"),
            ("ssl.truststore.password", "hunter2"),
            ("sasl.password", "hun\0ter2"),
        ] {
            let shown = refused(&[(option, value)]);
            assert!(shown.contains(option), "{shown}");
            assert!(!shown.contains(value), "{shown}");
        }
        assert!(refused(&[("socket.timeout.ms", "5")]).contains("10 to 300000"));
        let shown = refused(&[("security.protocol", "ssl"), ("ssl.ca.location", "/hunter2/ca.pem")]);
        assert!(shown.contains("ssl.ca.location"), "{shown}");
        let shown = refused(&[("security.protocol", "ssl"), ("ssl.ca.pem", "hunter2")]);
        assert!(shown.contains("ssl.ca.pem"), "{shown}");
        let shown = refused(&[("reconnect.backoff.ms", "5000"), ("reconnect.backoff.max.ms", "1000")]);
        assert!(shown.contains("reconnect.backoff.max.ms"), "{shown}");
        let shown = refused(&[("message.max.bytes", "100000000")]);
        assert!(shown.contains("queue.buffering.max.kbytes"), "{shown}");
        assert!(!format!("{:?}", settings(&[("sasl.password", "hunter2")])).contains("hunter2"));
    }

    #[test]
    fn what_guarantees_rest_on_is_ours() {
        for (name, why) in RESERVED {
            assert!(refused(&[(name, "hunter2")]).contains(why), "{name}");
        }
        for (alias, name) in ALIASES {
            assert_eq!(reserved(alias), reserved(name), "{alias}");
        }
        assert_eq!(reserved("sasl.username"), None);
    }

    #[test]
    fn usual_options_are_taken() {
        let mut settings = settings(&[
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "me"),
            ("sasl.password", "hunter2"),
        ]);
        settings.producer.push(("compression.codec".into(), Secret::new("zstd")));
        settings.producer.push(("queue.buffering.max.ms".into(), Secret::new("20")));
        settings.consumer.push(("fetch.min.bytes".into(), Secret::new("1024")));
        check(&settings).expect("usable");
        let producing = settings.producing();
        assert_eq!(
            (producing.get("compression.type"), producing.get("linger.ms")),
            (Some("zstd"), Some("20"))
        );
        assert_eq!(settings.consuming().get("fetch.min.bytes"), Some("1024"));
        settings.brokers = " ,".into();
        assert!(check(&settings).is_err());
    }
}
