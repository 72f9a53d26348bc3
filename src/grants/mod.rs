//! The least rights that a migration needs: named once, printed as statements by `slackwater grants`, and compared with what a user
//! has by `slackwater check`. Pure: everything comes from the migration file.

pub(crate) mod kafka;
pub(crate) mod mongodb;
pub(crate) mod postgres;
mod text;

use serde_json::json;
use slackwater_connectors::source::Kind;

use crate::config::{Log, Migration};
use crate::failure::Failure;
use crate::log::kafka::topics::specs;

/// Who is to get the rights.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// A role of Postgres, and one of MongoDB.
    pub(crate) role: String,
    /// A user of MongoDB.
    pub(crate) user: String,
    /// Users of Kafka.
    pub(crate) kafka: kafka::Users,
}

/// Everything that has to be granted.
#[derive(Debug)]
pub(crate) struct Grants {
    migration: String,
    mongodb: Vec<mongodb::Grant>,
    postgres: postgres::Grant,
    kafka: Option<kafka::Grant>,
}

impl Grants {
    /// What this migration needs; `database` is the target's.
    pub(crate) fn of(migration: &Migration, database: &str, names: &Names) -> Result<Self, Failure> {
        let mongodb =
            migration.sources.iter().filter(|source| source.kind() == Kind::Mongodb).map(|source| {
                mongodb::Grant {
                    source: source.name.value.clone(),
                    database: source.database().to_owned(),
                    role: names.role.clone(),
                    user: names.user.clone(),
                    needs: mongodb::needs(source.database(), migration.freeze_of(source)),
                }
            });
        let kafka = match &migration.log {
            Log::Direct => None,
            Log::Kafka(log) => Some(kafka::Grant {
                brokers: log.brokers.clone(),
                entries: kafka::entries(log, &specs(migration, log)?, &migration.name, &names.kafka),
            }),
        };
        Ok(Self {
            migration: migration.name.clone(),
            mongodb: mongodb.collect(),
            postgres: postgres::grant(migration, database, &names.role),
            kafka,
        })
    }

    /// To be pasted.
    pub(crate) fn text(&self) -> String {
        text::of(self)
    }

    /// For machines.
    pub(crate) fn json(&self) -> serde_json::Value {
        json!({
            "migration": self.migration,
            "mongodb": self.mongodb.iter().map(mongodb::Grant::json).collect::<Vec<_>>(),
            "postgres": self.postgres.json(),
            "kafka": self.kafka.as_ref().map(kafka::Grant::json),
        })
    }
}

#[cfg(test)]
mod tests;
