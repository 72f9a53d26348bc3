//! `slackwater topics`: compares the topics of a log with their description, changes them, and prints their records.

mod apply;
mod line;
mod plan;
mod tail;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use crate::config::spelling::{list, nearest};
use crate::config::{KafkaLog, Log, Migration};
use crate::failure::Failure;
use crate::log::kafka::topics::specs;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows what `topics apply` would change. Changes nothing.
    #[command(after_help = "Exit code 4: a difference needs a person; the output names it.
The other exit codes are listed in `slackwater --help`.

Example: slackwater topics plan migration.yaml")]
    Plan {
        /// The migration file.
        file: PathBuf,
        /// Prints JSON, for machines.
        #[arg(long)]
        json: bool,
    },
    /// Creates missing topics and changes settings that differ from their description. Can be repeated.
    #[command(after_help = "Exit code 4: a topic cannot be used or changed; the output names it.
The other exit codes are listed in `slackwater --help`.

Example: slackwater topics apply migration.yaml")]
    Apply {
        /// The migration file.
        file: PathBuf,
    },
    /// Checks that the topics are as described; prints each difference with its remedy. Changes nothing.
    #[command(after_help = "Exit code 4: a topic is not as described.
The other exit codes are listed in `slackwater --help`.

Example: slackwater topics check migration.yaml --json | jq .fit")]
    Check {
        /// The migration file.
        file: PathBuf,
        /// Prints JSON, for machines.
        #[arg(long)]
        json: bool,
    },
    /// Prints the records of a collection's topic, and waits for new ones until SIGTERM or SIGINT. Commits no offsets.
    #[command(
        after_help = "Each line shows partition/offset, the time at the source, what happened, the key and the size.
Values of a document are shown only with --documents.

Example: slackwater topics tail migration.yaml legacy.users --from beginning --limit 20

The exit codes are listed in `slackwater --help`."
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
            let line = "the log of this migration is direct, so it has no topics; write `log: { kafka: { brokers: … } }` to \
                        use Kafka";
            Err(Failure::Unsuitable(vec![line.to_owned()]))
        }
    }
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
