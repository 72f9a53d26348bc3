//! `slackwater topics`: the topics of a log, as they are to be, as they are, and what stands in them.

mod apply;
mod line;
mod look;
mod plan;
mod ready;
mod tail;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use slackwater_connectors::kafka::{self, Admin, Settings};
use slackwater_topics::catalog::TopicSpec;

pub(crate) use self::ready::{Ready, topics_ready};
use super::exit::Failure;
use crate::config::spelling::{list, nearest};
use crate::config::{Findings, KafkaLog, Log, Migration};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows what `apply` would change. Changes nothing.
    #[command(after_help = "Exit code 4: something is left to a person, see the lines that say so.

Example: slackwater topics plan migration.yaml")]
    Plan {
        /// The migration file.
        file: PathBuf,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Makes the topics that are missing and changes the settings that differ. Again does nothing.
    #[command(after_help = "Example: slackwater topics apply migration.yaml")]
    Apply {
        /// The migration file.
        file: PathBuf,
    },
    /// Tells whether the topics are as described, and each difference with its remedy. Changes nothing.
    #[command(after_help = "Exit code 4: they are not.

Example: slackwater topics check migration.yaml --json | jq .fit")]
    Check {
        /// The migration file.
        file: PathBuf,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Prints what stands in a collection's topic and what comes, until SIGTERM or SIGINT. Commits nothing.
    #[command(
        after_help = "A line has partition/offset, the time at the source, what happened, the key, the size.
Values of a document are shown with --documents only.

Example: slackwater topics tail migration.yaml legacy.users --from beginning --limit 20"
    )]
    Tail(tail::Arguments),
}

pub(super) async fn run(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Plan { file, json } => plan::plan(file, *json).await,
        Command::Apply { file } => apply::run(file).await,
        Command::Check { file, json } => plan::check(file, *json).await,
        Command::Tail(arguments) => tail::run(arguments).await,
    }
}

fn kafka_log(migration: &Migration) -> Result<&KafkaLog, Failure> {
    match &migration.log {
        Log::Kafka(log) => Ok(log),
        Log::Direct => {
            let line = "the log of this migration is direct, so it has no topics; `log: { kafka: { brokers: … } }` \
                        gives it some";
            Err(Failure::Unsuitable(vec![line.to_owned()]))
        }
    }
}

/// How to reach the brokers. What librdkafka does not take is a mistake in the file, at the setting's place.
fn client(migration: &Migration, log: &KafkaLog, part: &str) -> Result<Settings, Failure> {
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

fn admin(migration: &Migration, log: &KafkaLog) -> Result<Admin, Failure> {
    Ok(Admin::open(&client(migration, log, "topics")?)?)
}

/// The topics of a log that is Kafka, where they can be used.
pub(super) async fn of_log(migration: &Migration) -> Result<Option<Vec<Ready>>, Failure> {
    let Log::Kafka(log) = &migration.log else { return Ok(None) };
    topics_ready(&admin(migration, log)?, migration, log).await.map(Some)
}

/// The topics as they are to be, in the order of the collections.
fn specs(migration: &Migration, log: &KafkaLog) -> Result<Vec<TopicSpec>, Failure> {
    log.topics(migration).map_err(|error| {
        let mut findings = Findings::new(migration.file.clone());
        findings.error(log.place, error.to_string(), "");
        Failure::Mistakes(findings.finish())
    })
}

/// The name of a collection's topic.
fn topic_of(migration: &Migration, log: &KafkaLog, collection: &str) -> Result<String, Failure> {
    let specs = specs(migration, log)?;
    let names = || migration.collections.iter().map(|collection| collection.name.value.as_str());
    let found = names().zip(specs).find(|(name, _)| *name == collection);
    found.map(|(_, spec)| spec.name).ok_or_else(|| {
        let help = match nearest(collection, names()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("it has {}", list(names())),
        };
        Failure::Unsuitable(vec![format!("the migration file has no collection `{collection}`; {help}")])
    })
}
