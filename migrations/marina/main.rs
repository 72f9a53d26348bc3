//! `marina-demo`: makes the marina's base, works in it, and judges what came of it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a command says is its result")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use mongodb::{Client, Database};
use slackwater_migrations::Result;
use slackwater_migrations::command::{Target, duration, judge, stop_after, thaw};
use slackwater_migrations::marina::{self, Base, Door, Known, Office, Server, Size, Till};

/// The marina: makes a base in NocoDB and payments in MongoDB, works in both, and compares them with the tables in Postgres.
#[derive(Parser)]
#[command(name = "marina-demo", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Folder {
    /// The folder of the office, whose door can be closed
    #[arg(long = "office", env = "MARINA_OFFICE")]
    folder: PathBuf,
}

#[derive(Args)]
struct Source {
    /// Where NocoDB is
    #[arg(long, env = "SLACKWATER_NOCODB_URL")]
    nocodb: String,
    /// A token of its API
    #[arg(long, env = "SLACKWATER_NOCODB_TOKEN", hide_env_values = true)]
    token: String,
    /// The title of the base
    #[arg(long, env = "MARINA_BASE", default_value = "marina_demo")]
    base: String,
    #[command(flatten)]
    payments: Payments,
}

#[derive(Args)]
struct Payments {
    /// Where MongoDB is
    #[arg(long, env = "SLACKWATER_MONGODB_URI", hide_env_values = true)]
    mongodb: String,
    /// The database with the payments
    #[arg(long, env = "MARINA_DATABASE", default_value = "marina_demo")]
    database: String,
}

#[derive(Subcommand)]
enum Command {
    /// Makes the base with its records and links, and the payments
    Load {
        #[command(flatten)]
        source: Source,
        /// So many times 500 interests, 200 berths, 2 000 expenses, 500 invoices and 600 payments
        #[arg(long, default_value_t = 1)]
        times: u64,
        /// The same seed gives the same records
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Drop the base and the database first
        #[arg(long)]
        drop: bool,
    },
    /// Works in the base and writes payments, as people and programs do, until it is told to stop (SIGTERM or SIGINT)
    Write {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        office: Folder,
        /// The same seed gives the same changes
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Pieces of work a second in the base, at the most
        #[arg(long, default_value_t = 5.0)]
        rate: f64,
        /// Payments a second that come, change or go
        #[arg(long, default_value_t = 20.0)]
        payments: f64,
        /// Stop after so long: 20s, 5m [default: when told]
        #[arg(long = "for", value_parser = duration)]
        during: Option<Duration>,
    },
    /// Lets nobody work in the base any more, and waits until all have stopped
    Close {
        #[command(flatten)]
        office: Folder,
    },
    /// Lets people work in the base again
    Open {
        #[command(flatten)]
        office: Folder,
    },
    /// Creates the tables in Postgres, and prints the address of their database
    Schema {
        #[command(flatten)]
        target: Target,
        /// Drop and create a database of this name on that server, and take it instead
        #[arg(long, value_name = "DATABASE")]
        fresh: Option<String>,
    },
    /// Compares every row of every table with the records and the payments; ends with 1 where they differ
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
        payments: Payments,
    },
}

impl Folder {
    fn door(&self) -> Result<Door> {
        Door::of(&self.folder)
    }
}

impl Source {
    fn server(&self) -> Server {
        Server::new(&self.nocodb, &self.token)
    }
}

impl Payments {
    async fn open(&self) -> Result<Database> {
        Ok(Client::with_uri_str(&self.mongodb).await?.database(&self.database))
    }
}

async fn load(source: Source, times: u64, seed: u64, drop: bool) -> Result<()> {
    let (server, payments) = (source.server(), source.payments.open().await?);
    if drop {
        marina::drop_base(&server, &source.base).await?;
        payments.drop().await?;
    }
    let (start, size) = (Instant::now(), Size::times(times));
    let said = |what: &str| println!("{what} ({:.1} s)", start.elapsed().as_secs_f64());
    marina::build(&server, &source.base, seed, size, said).await?;
    let count = 600 * times;
    marina::load_payments(&payments, seed, count, size.interests, size.invoices).await?;
    said(&format!("{count} payments in MongoDB"));
    Ok(())
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Load { source, times, seed, drop } => load(source, times, seed, drop).await?,
        Command::Write { source, office, seed, rate, payments, during } => {
            let known = Known::default();
            let base = Base::open(&source.server(), &source.base).await?;
            let people = Office::open(base, office.door()?, seed, known.clone()).await?;
            let till = Till::open(&source.payments.open().await?, seed, known).await?;
            let stop = stop_after(during)?;
            println!("working, seed {seed}");
            let (people, till) =
                tokio::try_join!(people.work(rate, stop.clone()), till.write(payments, stop))?;
            println!("{people}\n{till}");
        }
        Command::Close { office } => office.door()?.close()?,
        Command::Open { office } => office.door()?.open()?,
        Command::Schema { mut target, fresh } => {
            if let Some(name) = fresh {
                target.renew(&name).await?;
            }
            target.open().await?.batch_execute(marina::SCHEMA).await?;
            eprintln!("{} tables created", marina::SHAPES.len());
            println!("{}", target.postgres);
        }
        Command::Compare { source, target, values } => {
            let base = Base::open(&source.server(), &source.base).await?;
            let payments = source.payments.open().await?;
            let report = marina::compare(&base, &payments, &mut target.open().await?).await?;
            return Ok(ExitCode::from(u8::from(!judge(&report, values))));
        }
        Command::Thaw { payments } => thaw(&payments.open().await?).await?,
    }
    Ok(ExitCode::SUCCESS)
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("marina-demo: {error}");
            ExitCode::from(2)
        }
    }
}
