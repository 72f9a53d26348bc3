//! What has to be done so that a topic is as described, and what cannot be done.

use std::collections::BTreeMap;
use std::fmt;

use super::{IN_SYNC, MESSAGE_BYTES, TopicSpec};

/// `max.message.bytes` below this leaves too little room for a part and what is around it.
pub const LEAST_MESSAGE_BYTES: u64 = 64 * 1024;

/// A topic as a cluster has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Its partitions.
    pub partitions: u32,
    /// Replicas of each.
    pub replication: u16,
    /// Settings by Kafka's names, as many as are known.
    pub config: BTreeMap<String, String>,
}

/// What is to be done for one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The topic's name.
    pub topic: String,
    /// In this order.
    pub steps: Vec<Step>,
    /// What a person has to decide.
    pub problems: Vec<Problem>,
}

/// Something that can be done without a loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the topic with the settings described.
    Create {
        /// Its partitions.
        partitions: u32,
        /// Replicas of each.
        replication: u16,
    },
    /// Change one setting.
    ChangeConfig {
        /// Kafka's name of it.
        name: String,
        /// What it is, where that is known.
        from: Option<String>,
        /// What it is to be.
        to: String,
    },
}

/// Something that is not as described and is left to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The topic has fewer partitions.
    FewerPartitions {
        /// How many it is to have.
        described: u32,
        /// How many it has.
        observed: u32,
    },
    /// The topic has more partitions.
    MorePartitions {
        /// How many are in use.
        described: u32,
        /// How many it has.
        observed: u32,
    },
    /// The topic has another number of replicas.
    Replication {
        /// How many it is to have.
        described: u16,
        /// How many it has.
        observed: u16,
    },
    /// The cluster has too few brokers to make the topic.
    Brokers {
        /// How many replicas it is to have.
        described: u16,
        /// How many brokers there are.
        brokers: u32,
    },
    /// Records may be so small that not even a part fits.
    MessageBytes {
        /// What is set.
        bytes: u64,
    },
}

impl Plan {
    /// True where the topic is as described.
    pub fn is_settled(&self) -> bool {
        self.steps.is_empty() && self.problems.is_empty()
    }

    /// All of it, one line each.
    pub fn lines(&self) -> Vec<String> {
        let steps = self.steps.iter().map(|step| format!("{}: {step}", self.topic));
        let problems = self.problems.iter().map(|problem| format!("{}: {problem}", self.topic));
        steps.chain(problems).collect()
    }
}

impl Problem {
    /// True where the topic cannot be used before it is solved.
    pub fn stops(self) -> bool {
        match self {
            Self::FewerPartitions { .. } | Self::Brokers { .. } | Self::MessageBytes { .. } => true,
            Self::MorePartitions { .. } | Self::Replication { .. } => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { partitions, replication } => {
                write!(f, "create it with partitions: {partitions}, replication: {replication}")
            }
            Self::ChangeConfig { name, from: Some(from), to } => {
                write!(f, "change {name} from {from} to {to}")
            }
            Self::ChangeConfig { name, from: None, to } => write!(f, "set {name} to {to}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FewerPartitions { described, observed } => write!(
                f,
                "it has partitions: {observed}, described are {described}; adding some would move keys, so describe \
                 {observed}, or delete the topic and copy its collection again"
            ),
            Self::MorePartitions { described, observed } => write!(
                f,
                "it has partitions: {observed}, described are {described}; events go to the first {described}, the others \
                 stay empty"
            ),
            Self::Replication { described, observed } => write!(
                f,
                "it has replication: {observed}, described is {described}; change it with Kafka's \
                 kafka-reassign-partitions, or describe {observed}"
            ),
            Self::Brokers { described, brokers } => write!(
                f,
                "described is replication: {described}, the cluster has brokers: {brokers}; describe {brokers} or less, or \
                 add brokers"
            ),
            Self::MessageBytes { bytes } => write!(
                f,
                "{MESSAGE_BYTES} is {bytes}, which is too small for a part of an event; set {LEAST_MESSAGE_BYTES} or more"
            ),
        }
    }
}

/// Compares a topic with what the cluster has (`None`: no such topic). Settings that are not described are left alone.
pub fn plan(spec: &TopicSpec, observed: Option<&Observed>, brokers: u32) -> Plan {
    let mut plan = Plan { topic: spec.name.clone(), steps: Vec::new(), problems: Vec::new() };
    match observed {
        None => create(spec, brokers, &mut plan),
        Some(observed) => compare(spec, observed, &mut plan),
    }
    plan
}

fn create(spec: &TopicSpec, brokers: u32, plan: &mut Plan) {
    if u32::from(spec.replication) > brokers {
        plan.problems.push(Problem::Brokers { described: spec.replication, brokers });
    }
    plan.problems.extend(too_small(spec.config.get(MESSAGE_BYTES)));
    if plan.problems.is_empty() {
        plan.steps.push(Step::Create { partitions: spec.partitions, replication: spec.replication });
    }
}

fn compare(spec: &TopicSpec, observed: &Observed, plan: &mut Plan) {
    let (described, found) = (spec.partitions, observed.partitions);
    if found < described {
        plan.problems.push(Problem::FewerPartitions { described, observed: found });
    } else if found > described {
        plan.problems.push(Problem::MorePartitions { described, observed: found });
    }
    let (described, found) = (spec.replication, observed.replication);
    if found != described {
        plan.problems.push(Problem::Replication { described, observed: found });
    }
    for (name, to) in &spec.config {
        // More than the replicas that there are would stop every write.
        let to = match to.parse::<u16>() {
            Ok(least) if name == IN_SYNC => least.min(found.max(1)).to_string(),
            _ => to.clone(),
        };
        let from = observed.config.get(name);
        if name == MESSAGE_BYTES && too_small(Some(&to)).is_some() || from == Some(&to) {
            continue;
        }
        plan.steps.push(Step::ChangeConfig { name: name.clone(), from: from.cloned(), to });
    }
    let bytes = spec.config.get(MESSAGE_BYTES).or_else(|| observed.config.get(MESSAGE_BYTES));
    plan.problems.extend(too_small(bytes));
}

fn too_small(bytes: Option<&String>) -> Option<Problem> {
    let bytes = bytes?.parse().ok()?;
    (bytes < LEAST_MESSAGE_BYTES).then_some(Problem::MessageBytes { bytes })
}
