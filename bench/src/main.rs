//! Makes the bench's data, and reads it back as fast as the driver can: the ceiling that slackwater is measured
//! against. Every command prints one line of JSON.
//!
//! Nothing here is random from run to run: a document follows from its number, the changes from theirs. A load that
//! was cut is loaded again from the start.

mod bare;
mod changes;
mod documents;
mod load;
mod pace;

use std::io::Write;

use bson::Timestamp;
use clap::{Parser, Subcommand, ValueEnum};
use documents::Shape;

/// Loads data for the bench, and reads it with nothing behind.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Connection string of MongoDB.
    #[arg(long, env = "SLACKWATER_MONGODB_URI", hide_env_values = true, global = true, default_value = "")]
    uri: String,
    /// Database to write to or read from.
    #[arg(long, env = "BENCH_DATABASE", global = true, default_value = "slackwater_bench_flat")]
    database: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fills `flat` again: documents of 366 bytes with 12 fields.
    LoadFlat {
        #[arg(long, default_value_t = 1_000_000)]
        documents: u64,
    },
    /// Fills `two` again: documents of 440 bytes with an array of two objects.
    LoadTwo {
        #[arg(long, default_value_t = 1_000_000)]
        documents: u64,
    },
    /// Changes `flat`: 20 % inserts, 75 % updates by `$set`, 5 % deletes, and the insert of a marker as the last.
    ChangeFlat {
        /// How many documents `load-flat` made.
        #[arg(long, default_value_t = 1_000_000)]
        documents: u64,
        /// How many events to cause, the marker included.
        #[arg(long, default_value_t = 500_000)]
        changes: u64,
        /// Keep the documents as they are after each change (MongoDB 6.0), so that no event needs a look-up.
        #[arg(long)]
        images: bool,
    },
    /// Changes `flat` at a pace, a document of its own each time, and tells when each change was acknowledged.
    ChangeAtPace {
        /// Changes a second; the first one comes after a pause.
        #[arg(long)]
        rate: f64,
        /// How many.
        #[arg(long)]
        changes: u64,
        /// The number of the first: each is made once.
        #[arg(long, default_value_t = 0)]
        first: u64,
    },
    /// Reads a change stream and counts, nothing else.
    ChangeStream {
        #[arg(long, default_value = "flat")]
        collection: String,
        /// The operation time that `change-flat` printed: `seconds,increment`.
        #[arg(long, value_parser = timestamp)]
        start: Timestamp,
        /// Stop after this many events.
        #[arg(long)]
        events: u64,
        #[arg(long, value_enum, default_value_t = FullDocument::Default)]
        full_document: FullDocument,
    },
    /// Reads a collection with `find` and counts, nothing else.
    Find {
        #[arg(long, default_value = "flat")]
        collection: String,
    },
}

/// What a change event holds beside the change.
#[derive(Clone, Copy, ValueEnum)]
enum FullDocument {
    /// Inserts only.
    Default,
    /// The server looks each updated document up.
    UpdateLookup,
    /// The server adds its post-image.
    WhenAvailable,
}

fn timestamp(text: &str) -> Result<Timestamp, String> {
    let (time, increment) = text.split_once(',').ok_or("expected seconds,increment")?;
    let number = |part: &str| part.trim().parse().map_err(|_| format!("{part} is not a number"));
    Ok(Timestamp { time: number(time)?, increment: number(increment)? })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    if arguments.uri.is_empty() {
        return Err(
            "no connection string: set SLACKWATER_MONGODB_URI (dev/services env) or give --uri".into()
        );
    }
    let database = mongodb::Client::with_uri_str(&arguments.uri).await?.database(&arguments.database);
    let line = match arguments.command {
        Command::LoadFlat { documents } => load::run(&database, Shape::Flat, documents).await?,
        Command::LoadTwo { documents } => load::run(&database, Shape::Two, documents).await?,
        Command::ChangeFlat { documents, changes, images } => {
            changes::run(&database, documents, changes, images).await?
        }
        Command::ChangeAtPace { rate, changes, first } => pace::run(&database, rate, changes, first).await?,
        Command::ChangeStream { collection, start, events, full_document } => {
            bare::change_stream(&database, &collection, start, events, full_document).await?
        }
        Command::Find { collection } => bare::find(&database, &collection).await?,
    };
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
