//! `slackwater topics`: the topics of a log, as they are to be, as they are, and what they hold.

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
    /// Prints what a collection's topic holds and what comes, until SIGTERM or SIGINT. Commits nothing.
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
