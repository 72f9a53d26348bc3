//! What the brokers have beside what is described.

use slackwater_connectors::kafka::Admin;
use slackwater_topics::catalog::{self, Observed, Plan, Step, TopicSpec};

use super::specs;
use crate::config::{KafkaLog, Migration};
use crate::failure::Failure;

/// One topic.
#[derive(Debug)]
pub(crate) struct Look {
    /// As in the migration file.
    pub(crate) collection: String,
    /// As it is to be.
    pub(crate) spec: TopicSpec,
    /// As it is; none if there is no such topic.
    pub(crate) observed: Option<Observed>,
    /// What makes it so.
    pub(crate) plan: Plan,
}

/// Looks at all topics of a migration, in the order of its collections.
pub(crate) async fn look(admin: &Admin, migration: &Migration, log: &KafkaLog) -> Result<Vec<Look>, Failure> {
    let specs = specs(migration, log)?;
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let brokers = admin.brokers().await?;
    let observed = admin.observe(&names).await?;
    let collections = migration.collections.iter().map(|collection| collection.name.value.clone());
    let looks = collections.zip(specs).zip(observed).map(|((collection, spec), observed)| {
        let observed = observed.map(|observed| Observed {
            partitions: observed.partitions,
            replication: observed.replication,
            config: observed.config,
        });
        let plan = catalog::plan(&spec, observed.as_ref(), brokers);
        Look { collection, spec, observed, plan }
    });
    Ok(looks.collect())
}

impl Look {
    /// Each difference with its remedy.
    pub(crate) fn differences(&self) -> Vec<String> {
        let name = &self.spec.name;
        let steps = self.plan.steps.iter().map(|step| match step {
            Step::Create { .. } => format!("{name}: it is missing; `slackwater topics apply FILE` makes it"),
            Step::ChangeConfig { name: setting, from, to } => {
                let from = from.as_deref().unwrap_or("not set");
                format!(
                    "{name}: {setting} is {from}, described is {to}; `slackwater topics apply FILE` changes it"
                )
            }
        });
        steps.chain(self.plan.problems.iter().map(|problem| format!("{name}: {problem}"))).collect()
    }
}
