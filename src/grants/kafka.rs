//! What is asked of Kafka. `Read` and `Write` include `Describe`, and `AlterConfigs` includes `DescribeConfigs`; what is included is
//! not listed.

use serde_json::json;
use slackwater_topics::catalog::TopicSpec;

use crate::config::KafkaLog;

/// Who does what; all may be one.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    pub(crate) capture: String,
    pub(crate) apply: String,
    pub(crate) topics: String,
}

/// What a right is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Topic,
    Group,
}

/// One entry of an access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) user: String,
    pub(crate) resource: Resource,
    /// The name is how names begin.
    pub(crate) prefixed: bool,
    pub(crate) name: String,
    pub(crate) operation: &'static str,
    pub(crate) why: &'static str,
}

/// What is to be added at the brokers.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(super) brokers: String,
    pub(super) entries: Vec<Entry>,
}

/// Which of the users.
type Who = fn(&Users) -> &String;

/// What is done with topics, by whom, and what for.
const TOPICS: [(Who, &str, &str); 6] = [
    (|users| &users.capture, "Write", "`capture` sends events"),
    (|users| &users.capture, "DescribeConfigs", "`capture` and `check` ask how large a record may be"),
    (|users| &users.apply, "Read", "`apply` and `topics tail` read events"),
    (|users| &users.topics, "Create", "`topics apply` makes missing topics"),
    (|users| &users.topics, "Describe", "`topics plan` and `topics apply` look at them"),
    (
        |users| &users.topics,
        "AlterConfigs",
        "`topics plan` compares their settings, `topics apply` corrects them",
    ),
];

/// What an operation includes.
const INCLUDES: [(&str, &str); 3] =
    [("Read", "Describe"), ("Write", "Describe"), ("AlterConfigs", "DescribeConfigs")];

/// The entries, those of a user together.
pub(super) fn entries(log: &KafkaLog, specs: &[TopicSpec], migration: &str, users: &Users) -> Vec<Entry> {
    let prefix = log.prefix.clone().unwrap_or_else(|| format!("slackwater.{migration}")) + ".";
    let prefixed = specs.iter().all(|spec| spec.name.starts_with(&prefix));
    let names: Vec<String> =
        if prefixed { vec![prefix] } else { specs.iter().map(|spec| spec.name.clone()).collect() };
    let mut all: Vec<Entry> = Vec::new();
    for (user, operation, why) in TOPICS {
        all.extend(names.iter().map(|name| Entry {
            user: user(users).clone(),
            resource: Resource::Topic,
            prefixed,
            name: name.clone(),
            operation,
            why,
        }));
    }
    all.push(Entry {
        user: users.apply.clone(),
        resource: Resource::Group,
        prefixed: false,
        name: log.group.clone(),
        operation: "Read",
        why: "appliers share the partitions as members of the group",
    });
    let on_the_same = |a: &Entry, b: &Entry| (&a.user, a.resource, &a.name) == (&b.user, b.resource, &b.name);
    let mut entries: Vec<Entry> = Vec::new();
    for entry in &all {
        let included = all
            .iter()
            .any(|other| on_the_same(other, entry) && INCLUDES.contains(&(other.operation, entry.operation)));
        if !included {
            entries.push(entry.clone());
        }
    }
    let turn = |entry: &Entry| [&users.capture, &users.apply].iter().position(|user| **user == entry.user);
    entries.sort_by_key(|entry| turn(entry).unwrap_or(2));
    entries
}

impl Resource {
    /// As Kafka's tools and its own pages write it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Group => "group",
        }
    }
}

impl Entry {
    pub(super) fn pattern(&self) -> &'static str {
        if self.prefixed { "prefixed" } else { "literal" }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "principal": format!("User:{}", self.user),
            "resource": self.resource.word(),
            "pattern": self.pattern(),
            "name": self.name,
            "operation": self.operation,
            "for": self.why,
        })
    }
}

impl Grant {
    pub(super) fn json(&self) -> serde_json::Value {
        json!({
            "brokers": self.brokers,
            "acls": self.entries.iter().map(Entry::json).collect::<Vec<_>>(),
        })
    }
}
