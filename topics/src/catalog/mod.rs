//! Which topics a migration has and how each is to be: described in `topics/catalog/`, checked here.
//!
//! Nothing here talks to a broker. [`topics`] makes the descriptions of one migration's topics, [`plan`] compares one with
//! what a cluster has.

mod name;
mod plan;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::event::CollectionId;
use crate::format::Format;

pub use plan::{LEAST_MESSAGE_BYTES, Observed, Plan, Problem, Step, plan};

const CLEANUP: &str = "cleanup.policy";
const RETENTION: &str = "retention.ms";
const TOMBSTONES: &str = "delete.retention.ms";
const IN_SYNC: &str = "min.insync.replicas";
const MESSAGE_BYTES: &str = "max.message.bytes";

/// What a file of the catalog says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The pattern of the names, with `{migration}` and `{collection}`.
    pub topic: String,
    /// Who answers for the topics.
    pub owner: String,
    /// What they hold.
    pub description: String,
    /// Partitions of each.
    pub partitions: u32,
    /// Replicas of each partition.
    pub replication: u16,
    /// Settings by Kafka's names.
    pub config: BTreeMap<String, String>,
    /// What the keys of records are.
    pub key: Form,
    /// What their values are.
    pub value: Form,
}

/// What a key or a value is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Form {
    /// Its format's name.
    pub format: String,
    /// Its media type.
    pub content_type: Option<String>,
    /// The file beside the description that holds its JSON Schema.
    pub schema: Option<String>,
    /// What it says.
    pub description: String,
}

/// What the migration file says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Stands before the collection's name instead of `slackwater.{migration}`.
    pub prefix: Option<String>,
    /// Partitions of each topic.
    pub partitions: Option<u32>,
    /// Replicas of each partition.
    pub replication: Option<u16>,
    /// How long records are kept.
    pub retention_ms: Option<i64>,
    /// Keep the last state of each document for ever instead of all states for a while.
    pub compact: bool,
    /// Settings by Kafka's names; they go before everything else.
    pub config: Vec<(String, String)>,
}

/// A topic as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// The collection whose events it holds.
    pub collection: CollectionId,
    /// In which form.
    pub format: Format,
    /// How many partitions events are spread over.
    pub partitions: u32,
    /// Replicas of each partition.
    pub replication: u16,
    /// Settings by Kafka's names; what is not here is left as it is.
    pub config: BTreeMap<String, String>,
    /// True where the broker removes older states: a delete needs a tombstone behind it then.
    pub compact: bool,
}

/// No topics can be made of this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogError {
    /// The description that is built in is broken.
    Description {
        /// Of which format.
        format: Format,
        /// Where and how.
        detail: String,
    },
    /// Kafka takes no topic of that name.
    Name {
        /// Whose topic.
        collection: String,
        /// The name.
        topic: String,
    },
    /// Two collections would share a topic.
    Collision {
        /// The one.
        first: String,
        /// The other.
        second: String,
        /// The name that the second one's topic would have.
        topic: String,
    },
    /// A number of which there must be one at least.
    Zero {
        /// Its name in the migration file.
        setting: &'static str,
    },
    /// More replicas would have to answer than there are.
    InSync {
        /// `min.insync.replicas`.
        least: u16,
        /// Replicas of each partition.
        replication: u16,
    },
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Description { format, detail } => {
                write!(f, "the built-in description of `{format}` topics cannot be read: {detail}")
            }
            Self::Name { collection, topic } => write!(
                f,
                "the topic of collection `{collection}` would be `{topic}` with {} characters; Kafka takes 249 at most, \
                 and neither `.` nor `..`: set another prefix",
                topic.len()
            ),
            Self::Collision { first, second, topic } => write!(
                f,
                "collections `{first}` and `{second}` would share the topic `{topic}` (Kafka holds `.` and `_` in names \
                 to be the same, and other characters become `_`): move one of them into a migration of its own"
            ),
            Self::Zero { setting } => write!(f, "a topic cannot have {setting}: 0; set 1 or more"),
            Self::InSync { least, replication } => write!(
                f,
                "{IN_SYNC} is {least}, but there are {replication} replicas, so no record could be written: set \
                 {replication} or less"
            ),
        }
    }
}

impl std::error::Error for CatalogError {}

/// The description of the topics of a format, as its file has it.
pub fn describe(format: Format) -> Result<Description, CatalogError> {
    let text = match format {
        Format::Bson => include_str!("../../catalog/events.bson.yaml"),
        Format::Debezium => include_str!("../../catalog/events.debezium.yaml"),
    };
    serde_saphyr::from_str(text)
        .map_err(|error| CatalogError::Description { format, detail: error.to_string() })
}

/// The JSON Schema of the values of a format.
pub fn schema(format: Format) -> &'static str {
    match format {
        Format::Bson => include_str!("../../catalog/event.bson.schema.json"),
        Format::Debezium => include_str!("../../catalog/event.debezium.schema.json"),
    }
}

/// The topics of a migration: one for each of its collections, in their order.
pub fn topics(
    format: Format,
    migration: &str,
    collections: &[&str],
    overrides: &Overrides,
) -> Result<Vec<TopicSpec>, CatalogError> {
    let description = describe(format)?;
    let partitions = overrides.partitions.unwrap_or(description.partitions);
    let replication = overrides.replication.unwrap_or(description.replication);
    if partitions == 0 {
        return Err(CatalogError::Zero { setting: "partitions" });
    }
    if replication == 0 {
        return Err(CatalogError::Zero { setting: "replication" });
    }
    let names = name::all(&description.topic, migration, collections, overrides.prefix.as_deref())?;
    let config = config(description.config, replication, overrides)?;
    let policy = config.get(CLEANUP).map(String::as_str).unwrap_or_default();
    let compact = policy.split(',').any(|policy| policy.trim() == "compact");
    let specs = (0..).zip(names).map(|(index, name)| TopicSpec {
        name,
        collection: CollectionId(index),
        format,
        partitions,
        replication,
        config: config.clone(),
        compact,
    });
    Ok(specs.collect())
}

fn config(
    mut config: BTreeMap<String, String>,
    replication: u16,
    overrides: &Overrides,
) -> Result<BTreeMap<String, String>, CatalogError> {
    if let Some(millis) = overrides.retention_ms {
        config.insert(RETENTION.into(), millis.to_string());
    }
    if overrides.compact {
        config.insert(CLEANUP.into(), "compact".into());
        // Who is away for that long still has to find out what was deleted; states stay anyway.
        if let Some(retention) = config.remove(RETENTION) {
            config.insert(TOMBSTONES.into(), retention);
        }
    }
    let least = |config: &BTreeMap<String, String>| config.get(IN_SYNC)?.parse::<u16>().ok();
    if least(&config).is_some_and(|least| least > replication) {
        config.insert(IN_SYNC.into(), replication.to_string());
    }
    config.extend(overrides.config.iter().cloned());
    match least(&config) {
        Some(least) if least > replication => Err(CatalogError::InSync { least, replication }),
        _ => Ok(config),
    }
}
