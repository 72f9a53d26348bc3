//! Whether capture and apply may begin with the topics as they are.

use slackwater_connectors::kafka::Admin;
use slackwater_topics::catalog::{LEAST_MESSAGE_BYTES, Step};

use super::look::{Look, look};
use crate::config::{KafkaLog, Migration};
use crate::failure::Failure;

/// A topic that can be used.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Its name.
    pub(crate) name: String,
    /// How many partitions it has; more than described where some were added.
    pub(crate) partitions: u32,
    /// How many it is to have: as many are used when it is used for the first time.
    pub(crate) described: u32,
    /// The largest record that it takes, in bytes.
    pub(crate) largest: usize,
    /// Older states are removed, so that a delete needs a tombstone behind it.
    pub(crate) compacted: bool,
}

/// The topics of a migration, in the order of its collections. What keeps one from being used ends it; what only
/// differs from the description is said.
pub(crate) async fn topics_ready(
    admin: &Admin,
    migration: &Migration,
    log: &KafkaLog,
) -> Result<Vec<Ready>, Failure> {
    let looks = look(admin, migration, log).await?;
    let complaints: Vec<String> = looks.iter().flat_map(complaints).collect();
    if !complaints.is_empty() {
        return Err(Failure::Unsuitable(complaints));
    }
    for difference in looks.iter().flat_map(Look::differences) {
        tracing::warn!("{difference}");
    }
    Ok(looks.iter().map(ready).collect())
}

/// Why a topic cannot be used.
fn complaints(look: &Look) -> Vec<String> {
    let name = &look.spec.name;
    let mut complaints: Vec<String> = look
        .plan
        .problems
        .iter()
        .filter(|problem| problem.stops())
        .map(|problem| format!("{name}: {problem}"))
        .collect();
    let missing = look.plan.steps.iter().any(|step| matches!(step, Step::Create { .. }));
    // Until the description is applied, what the topic takes now counts.
    let small = look.observed.is_some() && largest(look) < LEAST_MESSAGE_BYTES;
    if missing || small && complaints.is_empty() {
        complaints.extend(look.differences());
    }
    complaints
}

fn largest(look: &Look) -> u64 {
    let set = look.observed.as_ref().and_then(|observed| observed.config.get("max.message.bytes"));
    // Brokers that do not tell take this much at least, or events in parts would not fit either.
    set.and_then(|set| set.parse().ok()).unwrap_or(LEAST_MESSAGE_BYTES)
}

fn ready(look: &Look) -> Ready {
    let policy = look.observed.as_ref().and_then(|observed| observed.config.get("cleanup.policy"));
    let compacts = policy.is_some_and(|policy| policy.split(',').any(|word| word.trim() == "compact"));
    Ready {
        name: look.spec.name.clone(),
        partitions: look.observed.as_ref().map_or(look.spec.partitions, |observed| observed.partitions),
        described: look.spec.partitions,
        largest: usize::try_from(largest(look)).unwrap_or(usize::MAX),
        // What is described is about to hold.
        compacted: compacts || look.spec.compact,
    }
}

#[cfg(test)]
mod tests {
    use slackwater_topics::Format;
    use slackwater_topics::catalog::{self, Observed, Overrides, TopicSpec};

    use super::*;

    fn spec(config: &[(&str, &str)]) -> TopicSpec {
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let overrides = Overrides { replication: Some(1), config, ..Overrides::default() };
        catalog::topics(Format::Bson, "crm", &["legacy.users"], &overrides).expect("topics").remove(0)
    }

    fn look(spec: &TopicSpec, partitions: u32, config: &[(&str, &str)]) -> Look {
        let mut all = spec.config.clone();
        all.extend(config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let observed = Observed { partitions, replication: 1, config: all };
        Look {
            collection: "legacy.users".into(),
            plan: catalog::plan(spec, Some(&observed), 1),
            observed: Some(observed),
            spec: spec.clone(),
        }
    }

    #[test]
    fn what_only_differs_is_no_hindrance() {
        let config = [("max.message.bytes", "2000000"), ("cleanup.policy", "compact, delete")];
        let look = look(&spec(&[]), 6, &config);
        assert_eq!(look.differences().len(), 2);
        assert!(complaints(&look).is_empty());
        let ready = ready(&look);
        assert_eq!((ready.partitions, ready.described, ready.largest), (6, 4, 2_000_000));
        assert!(ready.compacted);
    }

    #[test]
    fn what_hinders_is_told() {
        let told = |look: &Look| complaints(look).join("\n");
        let missing =
            Look { plan: catalog::plan(&spec(&[]), None, 1), observed: None, ..look(&spec(&[]), 4, &[]) };
        assert_eq!(
            told(&missing),
            "slackwater.crm.legacy.users: it is missing; `slackwater topics apply FILE` makes it"
        );
        let few = told(&look(&spec(&[]), 2, &[("retention.ms", "1")]));
        assert!(few.contains("it has partitions: 2, described are 4") && !few.contains("retention"), "{few}");
        let small = [("max.message.bytes", "1000")];
        assert!(told(&look(&spec(&[]), 4, &small)).contains("max.message.bytes is 1000, which is too small"));
        let mended = told(&look(&spec(&[("max.message.bytes", "2000000")]), 4, &small));
        assert!(mended.contains("is 1000, described is 2000000; `slackwater topics apply FILE`"), "{mended}");
    }
}
