//! The section `log`: what lies between capture and apply.

use slackwater_connectors::kafka::{Refusals, Settings, reserved};
use slackwater_connectors::secret::Secret;
use slackwater_topics::Format;
use slackwater_topics::catalog::{self, CatalogError, Overrides, TopicSpec};

use super::diagnostics::{At, Findings};
use super::fields::{self, Fields};
use super::migration::{KafkaLog, Log, Migration, Values};
use super::outside::{Outside, secret};
use super::tree::{Node, Shape};

const KAFKA: [&str; 8] =
    ["brokers", "values", "topics", "group", "writers", "options", "producer", "consumer"];
const TOPICS: [&str; 6] = ["prefix", "partitions", "replication", "retention", "compact", "config"];

/// One applier writes to one target: more transactions at a time only wait for each other.
const MOST_WRITERS: u64 = 16;
/// Kafka counts partitions in 31 bits and copies in 15.
const MOST_PARTITIONS: u64 = i32::MAX as u64;
const MOST_COPIES: u64 = i16::MAX as u64;

const BROKERS_HELP: &str = "write `log: { kafka: { brokers: \"${KAFKA_BROKERS}\" } }`";

/// Reads the section. None where a mistake was found.
pub(super) fn log(
    node: &Node,
    migration: &str,
    outside: &Outside<'_>,
    findings: &mut Findings,
) -> Option<Log> {
    match &node.shape {
        Shape::Scalar(scalar) if scalar.text == "direct" => return Some(Log::Direct),
        Shape::Scalar(scalar) if scalar.text == "kafka" => {
            findings.error(node.place, "`kafka` has no `brokers`", BROKERS_HELP);
            return None;
        }
        Shape::Map(_) => {}
        _ => {
            let help = "write `log: direct`, `log: { kafka: { brokers: … } }`, or leave `log` out";
            findings.error(node.place, "this log is not known", help);
            return None;
        }
    }
    let mut fields = Fields::of(node, "`log`", findings)?;
    let kafka = fields.require("kafka", BROKERS_HELP, findings);
    fields.finish(&["kafka"], findings);
    let kafka = kafka_log(kafka?.1, migration, outside, findings)?;
    Some(Log::Kafka(Box::new(kafka)))
}

/// Sees whether the topics can be made, which only the whole file tells.
pub(super) fn check_topics(migration: &Migration, findings: &mut Findings) {
    let Log::Kafka(log) = &migration.log else { return };
    let Err(error) = log.topics(migration) else { return };
    let culprit = match &error {
        CatalogError::Name { collection, .. } | CatalogError::Collision { second: collection, .. } => {
            migration.collections.iter().find(|found| found.name.value == *collection)
        }
        _ => None,
    };
    findings.error(culprit.map_or(log.place, |found| found.name.place), error.to_string(), "");
}

impl KafkaLog {
    /// The topics as they are to be, in the order of the collections.
    pub(crate) fn topics(&self, migration: &Migration) -> Result<Vec<TopicSpec>, CatalogError> {
        let format = match self.values {
            Values::Bson => Format::Bson,
            Values::Debezium { .. } => Format::Debezium,
        };
        let collections: Vec<&str> =
            migration.collections.iter().map(|collection| collection.name.value.as_str()).collect();
        let overrides = Overrides {
            prefix: self.prefix.clone(),
            partitions: self.partitions,
            replication: self.replication,
            retention_ms: self.retention_ms,
            compact: self.compact,
            config: self.config.clone(),
        };
        catalog::topics(format, &migration.name, &collections, &overrides)
    }

    /// How to reach the brokers. They are told which part of slackwater is calling.
    pub(crate) fn settings(&self, part: &str) -> Settings {
        let options = |options: &[(At<String>, Secret)]| {
            options.iter().map(|(name, value)| (name.value.clone(), value.clone())).collect()
        };
        Settings {
            brokers: self.brokers.clone(),
            options: options(&self.options),
            producer: options(&self.producer),
            consumer: options(&self.consumer),
            client_id: format!("slackwater-{part}"),
            refusals: Refusals::default(),
        }
    }
}

fn kafka_log(
    node: &Node,
    migration: &str,
    outside: &Outside<'_>,
    findings: &mut Findings,
) -> Option<KafkaLog> {
    let mut fields = Fields::of(node, "`kafka`", findings)?;
    let brokers = fields.require("brokers", "write `brokers: \"${KAFKA_BROKERS}\"`", findings);
    let place = brokers.as_ref().map_or(node.place, |(_, node)| node.place);
    let brokers = brokers.and_then(|(_, node)| brokers_list(node, outside, findings));
    let format = fields.take("values").and_then(|(_, node)| values(node, findings));
    let topics = fields.take("topics").and_then(|(_, node)| topics(node, findings)).unwrap_or_default();
    let group = fields.take("group").and_then(|(_, node)| fields::text(node, "`group`", findings));
    let writers = fields.take("writers");
    let writers =
        writers.and_then(|(_, node)| count_to(node, "`writers`", MOST_WRITERS, findings)).unwrap_or(1);
    let mut clients = |name: &str| {
        let found = fields.take(name);
        found.map(|(_, node)| options(node, outside, findings)).unwrap_or_default()
    };
    let (options, producer, consumer) = (clients("options"), clients("producer"), clients("consumer"));
    fields.finish(&KAFKA, findings);
    Some(KafkaLog {
        brokers: brokers?,
        values: format.unwrap_or(Values::Bson),
        prefix: topics.prefix,
        partitions: topics.partitions,
        replication: topics.replication,
        retention_ms: topics.retention_ms,
        compact: topics.compact,
        config: topics.config,
        group: group.map_or_else(|| format!("slackwater.{migration}"), |group| group.value),
        writers,
        options,
        producer,
        consumer,
        place,
    })
}

/// `host:port,host:port`. The text may come from outside, so messages do not show it.
fn brokers_list(node: &Node, outside: &Outside<'_>, findings: &mut Findings) -> Option<String> {
    let text = secret(node, "`brokers`", outside, findings)?;
    let mut brokers = Vec::new();
    for broker in text.expose().split(',').map(str::trim) {
        if let Err(why) = broker_name(broker) {
            findings.error(node.place, format!("`brokers` {why}"), "write `host:port,host:port`");
            return None;
        }
        brokers.push(broker);
    }
    Some(brokers.join(","))
}

fn broker_name(broker: &str) -> Result<(), &'static str> {
    if broker.is_empty() {
        return Err("has an empty entry");
    }
    if broker.contains("://") {
        return Err("must not include a protocol; set `security.protocol` under `options`");
    }
    if broker.contains('@') {
        return Err("takes no user and password; `sasl.username` and `sasl.password` under `options` do");
    }
    // An address of IPv6 is in brackets and has colons of its own.
    let behind = broker.rsplit_once(']').map_or(broker, |(_, behind)| behind);
    let port = behind.split_once(':').map(|(_, port)| port);
    if port.is_some_and(|port| port.parse::<u16>().ok().is_none_or(|port| port == 0)) {
        return Err("has an invalid port");
    }
    if broker.starts_with(':') || broker.contains(char::is_whitespace) {
        return Err("has an entry that names no host");
    }
    Ok(())
}

/// `bson`, `debezium`, `{ debezium: { schemas: false } }`.
fn values(node: &Node, findings: &mut Findings) -> Option<Values> {
    if let Shape::Scalar(_) = &node.shape {
        let words = [("bson", Values::Bson), ("debezium", Values::Debezium { schemas: true })];
        return fields::choice(node, "`values`", &words, findings);
    }
    let mut fields = Fields::of(node, "`values`", findings)?;
    let help = "write `values: bson` or `values: { debezium: { schemas: false } }`";
    let found = fields.require("debezium", help, findings);
    fields.finish(&["debezium"], findings);
    let mut fields = Fields::of(found?.1, "`debezium`", findings)?;
    let schemas = fields.take("schemas");
    let schemas = schemas.and_then(|(_, node)| fields::boolean(node, "`schemas`", findings)).unwrap_or(true);
    fields.finish(&["schemas"], findings);
    Some(Values::Debezium { schemas })
}

/// What the file says about topics, where it is not the catalogue's word.
#[derive(Default)]
struct Topics {
    prefix: Option<String>,
    partitions: Option<u32>,
    replication: Option<u16>,
    retention_ms: Option<i64>,
    compact: bool,
    config: Vec<(String, String)>,
}

fn topics(node: &Node, findings: &mut Findings) -> Option<Topics> {
    let mut fields = Fields::of(node, "`topics`", findings)?;
    let mut topics = Topics::default();
    if let Some((_, node)) = fields.take("prefix") {
        topics.prefix = prefix(node, findings);
    }
    if let Some((_, node)) = fields.take("partitions") {
        topics.partitions = count_to(node, "`partitions`", MOST_PARTITIONS, findings);
    }
    if let Some((_, node)) = fields.take("replication") {
        topics.replication = count_to(node, "`replication`", MOST_COPIES, findings);
    }
    if let Some((_, node)) = fields.take("retention") {
        topics.retention_ms = retention(node, findings);
    }
    if let Some((_, node)) = fields.take("compact") {
        topics.compact = fields::boolean(node, "`compact`", findings).unwrap_or_default();
    }
    if let Some((_, node)) = fields.take("config")
        && let Some(config) = Fields::of(node, "`config`", findings)
    {
        for (name, node) in config.into_entries() {
            let twice = match name.value.as_str() {
                "retention.ms" if topics.retention_ms.is_some() => Some("retention"),
                "cleanup.policy" if topics.compact => Some("compact"),
                _ => None,
            };
            if let Some(word) = twice {
                let message = format!("`{word}` says `{}` already", name.value);
                findings.error(name.place, message, "keep one of them");
            }
            let value = fields::text(node, &format!("`{}`", name.value), findings);
            topics.config.extend(value.map(|value| (name.value.clone(), value.value)));
        }
    }
    fields.finish(&TOPICS, findings);
    Some(topics)
}

fn prefix(node: &Node, findings: &mut Findings) -> Option<String> {
    let prefix = fields::text(node, "`prefix`", findings)?;
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if !prefix.value.chars().all(fits) {
        let help = "names of topics are made of a-z, A-Z, 0-9, `.`, `_` and `-`";
        findings.error(node.place, "Kafka does not take this `prefix`", help);
        return None;
    }
    Some(prefix.value)
}

/// `90s`, `30m`, `12h`, `7d` or `forever`, in milliseconds.
fn retention(node: &Node, findings: &mut Findings) -> Option<i64> {
    const UNITS: [(char, i64); 4] = [('s', 1_000), ('m', 60_000), ('h', 3_600_000), ('d', 86_400_000)];
    let text = fields::text(node, "`retention`", findings)?;
    if text.value == "forever" {
        return Some(-1);
    }
    let millis = UNITS.iter().find_map(|(unit, factor)| {
        let number = text.value.strip_suffix(*unit)?.trim_end();
        // `parse` would take a sign.
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        number.parse::<i64>().ok().filter(|number| digits && *number > 0)?.checked_mul(*factor)
    });
    if millis.is_none() {
        findings.error(node.place, "`retention` must be a time", "such as `7d`, `12h`, `30m`, or `forever`");
    }
    millis
}

/// A whole number from 1 to `most`.
fn count_to<T: TryFrom<u64>>(node: &Node, what: &str, most: u64, findings: &mut Findings) -> Option<T> {
    let count = fields::count(node, what, findings)?;
    let fits = T::try_from(count).ok().filter(|_| count <= most);
    if fits.is_none() {
        findings.error(node.place, format!("{what} is more than {most}"), "");
    }
    fits
}

/// Settings by librdkafka's names. Their values may be passwords.
fn options(node: &Node, outside: &Outside<'_>, findings: &mut Findings) -> Vec<(At<String>, Secret)> {
    let Some(fields) = Fields::of(node, "settings of a client", findings) else { return Vec::new() };
    let mut options = Vec::new();
    for (name, node) in fields.into_entries() {
        if let Some(why) = reserved(&name.value) {
            let message = format!("slackwater sets `{}` itself", name.value);
            findings.error(name.place, message, format!("take it out: {why}"));
            continue;
        }
        let value = secret(node, &format!("`{}`", name.value), outside, findings);
        options.extend(value.map(|value| (name.clone(), value)));
    }
    options
}
