//! `slackwater topics tail`: prints the records of a topic.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::kafka::{Start, Tail};
use tokio::signal::unix::{SignalKind, signal};

use super::line::Line;
use super::{kafka_log, topic_of};
use crate::failure::Failure;
use crate::log::kafka::topics::client;
use crate::mapping::Sensitive;
use crate::topology::load;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The migration file.
    file: PathBuf,
    /// The collection, as named in the migration file.
    collection: String,
    /// Where to start: `beginning`, `end`, or an offset.
    #[arg(long, default_value = "end", value_parser = start)]
    from: Start,
    /// Reads only this partition.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Ends after this many records.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Prints the documents too, in extended JSON.
    #[arg(long)]
    documents: bool,
    /// Prints JSON, for machines: one object per line, keys and documents in canonical extended JSON.
    #[arg(long)]
    json: bool,
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "beginning" => Ok(Start::Beginning),
        "end" => Ok(Start::End),
        number => match number.parse() {
            Ok(offset) if offset >= 0 => Ok(Start::Offset(offset)),
            _ => Err("use `beginning`, `end` or the offset of a record".to_owned()),
        },
    }
}

pub(super) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let migration = load::migration(&arguments.file)?;
    let log = kafka_log(&migration)?;
    let topic = topic_of(&migration, log, &arguments.collection)?;
    let settings = client(&migration, log, "tail")?;
    let found = migration.collections.iter().find(|found| found.name.value == arguments.collection);
    let sensitive = found.map(Sensitive::of).unwrap_or_default();
    let tail = Tail::open(&settings, &topic, arguments.partition, arguments.from).await?;
    let reading = read(arguments, tail, &sensitive);
    tokio::select! {
        ended = reading => ended?,
        asked = asked_to_stop() => asked?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints records until the limit is reached or stdout is closed.
async fn read(arguments: &Arguments, mut tail: Tail, sensitive: &Sensitive) -> Result<(), Failure> {
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let documents = arguments.documents.then_some(sensitive);
        let line = Line::of(&tail.next().await?, &arguments.collection, documents);
        let text = if arguments.json { line.json() } else { line.text() };
        if writeln!(std::io::stdout(), "{text}").is_err() {
            break;
        }
        left -= 1;
    }
    Ok(())
}

async fn asked_to_stop() -> Result<(), Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| Error::new(Kind::Bug, "listening for signals", error.to_string()))
    };
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
