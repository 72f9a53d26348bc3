//! The topics of a log in Kafka: how they are to be, by the migration file and the catalogue, and how they are.

mod look;
mod ready;

use slackwater_connectors::kafka::{self, Admin, Settings};
use slackwater_topics::catalog::TopicSpec;

pub(crate) use look::{Look, look};
pub(crate) use ready::{Ready, topics_ready};

use crate::config::{Findings, KafkaLog, Log, Migration};
use crate::failure::Failure;

/// How to reach the brokers. What librdkafka does not take is a mistake in the file, at the setting's place.
pub(crate) fn client(migration: &Migration, log: &KafkaLog, part: &str) -> Result<Settings, Failure> {
    let settings = log.settings(part);
    let Err(error) = kafka::check(&settings) else { return Ok(settings) };
    let named = |name: &str| {
        let part_of_name = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        error.what.split(|letter| !part_of_name(letter)).any(|word| word == name)
    };
    let mut options = log.options.iter().chain(&log.producer).chain(&log.consumer);
    let Some((name, _)) = options.find(|(name, _)| named(&name.value)) else { return Err(error.into()) };
    let mut findings = Findings::new(migration.file.clone());
    findings.error(name.place, error.what, "the settings are librdkafka's (its CONFIGURATION.md lists them)");
    Err(Failure::Mistakes(findings.finish()))
}

pub(crate) fn admin(migration: &Migration, log: &KafkaLog) -> Result<Admin, Failure> {
    Ok(Admin::open(&client(migration, log, "topics")?)?)
}

/// The topics of a log that is Kafka, where they can be used.
pub(crate) async fn of_log(migration: &Migration) -> Result<Option<Vec<Ready>>, Failure> {
    let Log::Kafka(log) = &migration.log else { return Ok(None) };
    topics_ready(&admin(migration, log)?, migration, log).await.map(Some)
}

/// The topics as they are to be, in the order of the collections.
pub(crate) fn specs(migration: &Migration, log: &KafkaLog) -> Result<Vec<TopicSpec>, Failure> {
    log.topics(migration).map_err(|error| {
        let mut findings = Findings::new(migration.file.clone());
        findings.error(log.place, error.to_string(), "");
        Failure::Mistakes(findings.finish())
    })
}
