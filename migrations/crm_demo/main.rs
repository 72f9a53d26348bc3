//! `crm-demo`: fills the CRM example, writes to it, and judges what came of it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a command says is its result")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use mongodb::{Client, Database};
use slackwater_migrations::command::{Target, duration, judge, stop_after, thaw};
use slackwater_migrations::crm_demo::{self, Pace, World, Writers};
use slackwater_migrations::{Error, Result, Watcher};

/// The CRM example: fills a MongoDB database, writes to it, and compares it with the tables in Postgres.
#[derive(Parser)]
#[command(name = "crm-demo", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Source {
    /// Where MongoDB is
    #[arg(long, env = "SLACKWATER_MONGODB_URI", hide_env_values = true)]
    mongodb: String,
    /// The database with the CRM's documents
    #[arg(long, env = "CRM_DATABASE", default_value = "crm_demo")]
    database: String,
}

#[derive(Subcommand)]
enum Command {
    /// Creates the five collections and fills them
    Load {
        #[command(flatten)]
        source: Source,
        /// Documents in all collections together
        #[arg(long, default_value_t = 100_000)]
        documents: u64,
        /// The same seed and number give the same documents
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Drop the database first
        #[arg(long)]
        drop: bool,
    },
    /// Writes to the collections as applications do, until it is told to stop (SIGTERM or SIGINT)
    Write {
        #[command(flatten)]
        source: Source,
        /// The same seed gives the same changes
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Writers side by side
        #[arg(long, default_value_t = 4)]
        writers: u8,
        /// Operations a second of all writers together [default: as fast as it goes]
        #[arg(long)]
        rate: Option<f64>,
        /// Stop after so long: 20s, 5m [default: when told]
        #[arg(long = "for", value_parser = duration)]
        during: Option<Duration>,
    },
    /// Creates the tables in Postgres, and prints the address of their database
    Schema {
        #[command(flatten)]
        target: Target,
        /// Drop and create a database of this name on that server, and take it instead
        #[arg(long, value_name = "DATABASE")]
        fresh: Option<String>,
    },
    /// Compares every row of every table with the documents; ends with 1 where they differ
    Compare {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        target: Target,
        /// Print the values that differ too
        #[arg(long)]
        values: bool,
    },
    /// Lets writers write to that MongoDB again, after a cutover has frozen it
    Thaw {
        #[command(flatten)]
        source: Source,
    },
    /// Watches the rows until it is told to stop; ends with 1 where one went back to an older version
    Watch {
        #[command(flatten)]
        target: Target,
        /// Stop after so long: 20s, 5m [default: when told]
        #[arg(long = "for", value_parser = duration)]
        during: Option<Duration>,
    },
}

impl Source {
    async fn open(&self) -> Result<Database> {
        Ok(Client::with_uri_str(&self.mongodb).await?.database(&self.database))
    }
}

/// The driver ends its sessions behind a client that is dropped, and panics where the runtime is gone before that is done.
async fn close(database: Database) {
    database.client().clone().shutdown().immediate(true).await;
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Load { source, documents, seed, drop } => {
            let database = source.open().await?;
            if drop {
                database.drop().await?;
            }
            let start = Instant::now();
            let mut said = 0;
            let loaded = crm_demo::load(&database, World::new(seed, documents), |loaded| {
                if loaded.documents * 10 / documents > said {
                    said = loaded.documents * 10 / documents;
                    println!("{} of {documents} documents", loaded.documents);
                }
            })
            .await?;
            println!(
                "{} documents of {} bytes on average in {:.1} s",
                loaded.documents,
                loaded.bytes / loaded.documents,
                start.elapsed().as_secs_f64()
            );
            close(database).await;
        }
        Command::Write { source, seed, writers, rate, during } => {
            let database = source.open().await?;
            let writers = Writers::learn(&database, seed, Pace { writers, rate }).await?;
            println!("writing");
            println!("{}", writers.write(stop_after(during)?).await?);
            close(database).await;
        }
        Command::Schema { mut target, fresh } => {
            if let Some(name) = fresh {
                target.renew(&name).await?;
            }
            target.open().await?.batch_execute(crm_demo::SCHEMA).await?;
            eprintln!("{} tables created", crm_demo::SHAPES.len());
            println!("{}", target.postgres);
        }
        Command::Compare { source, target, values } => {
            let database = source.open().await?;
            let report = crm_demo::compare(&database, &mut target.open().await?).await?;
            close(database).await;
            return Ok(ExitCode::from(u8::from(!judge(&report, values))));
        }
        Command::Thaw { source } => {
            let database = source.open().await?;
            thaw(&database).await?;
            close(database).await;
        }
        Command::Watch { target, during } => {
            let watcher = Watcher::spawn(target.postgres, crm_demo::WATCHED, stop_after(during)?);
            let watcher = watcher.await.map_err(|error| Error::Unexpected(error.to_string()))??;
            println!("{watcher}");
            watcher.backwards.iter().take(20).for_each(|backwards| println!("{backwards}"));
            return Ok(ExitCode::from(u8::from(watcher.verdict().is_err())));
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("crm-demo: {error}");
            ExitCode::from(2)
        }
    }
}
