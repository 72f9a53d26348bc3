//! `crm-demo`: fills the CRM example, writes to it, and judges what came of it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a command says is its result")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use mongodb::{Client, Database};
use slackwater_migrations::crm_demo::{self, Pace, World, Writers};
use slackwater_migrations::{Error, Finding, Result, Watcher};
use tokio::sync::watch;
use tokio_postgres::NoTls;

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

#[derive(Args)]
struct Target {
    /// Where Postgres is, with the database that has the tables
    #[arg(long, env = "SLACKWATER_POSTGRES_URL", hide_env_values = true)]
    postgres: String,
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

fn duration(text: &str) -> std::result::Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let seconds: f64 = number.parse().map_err(|_| "a number and a unit: 20s, 5m, 1h".to_owned())?;
    let factor = match unit {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err("the units are s, m and h".into()),
    };
    Duration::try_from_secs_f64(seconds * factor).map_err(|error| error.to_string())
}

impl Source {
    async fn open(&self) -> Result<Database> {
        Ok(Client::with_uri_str(&self.mongodb).await?.database(&self.database))
    }
}

impl Target {
    /// Points to a database of this name, which is re-created.
    async fn renew(&mut self, name: &str) -> Result<()> {
        let server = self.open().await?;
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        server.batch_execute(&format!("DROP DATABASE IF EXISTS {quoted} WITH (FORCE)")).await?;
        server.batch_execute(&format!("CREATE DATABASE {quoted}")).await?;
        let (address, options) = self.postgres.split_once('?').unwrap_or((&self.postgres, ""));
        let Some((server, _)) = address.rsplit_once('/') else {
            return Err(Error::Unexpected("the address of Postgres has to end in /DATABASE".to_owned()));
        };
        let options = if options.is_empty() { String::new() } else { format!("?{options}") };
        self.postgres = format!("{server}/{name}{options}");
        Ok(())
    }

    async fn open(&self) -> Result<tokio_postgres::Client> {
        let (client, connection) = tokio_postgres::connect(&self.postgres, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// True once time is over or a signal came.
fn stop_after(during: Option<Duration>) -> Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let unexpected = |error: std::io::Error| Error::Unexpected(error.to_string());
    let mut terminate = signal(SignalKind::terminate()).map_err(unexpected)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unexpected)?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        let over = async {
            match during {
                Some(during) => tokio::time::sleep(during).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = over => {}
        }
        let _ = sender.send(true);
        // Kept, because a sender that is gone would end the watcher's waiting too.
        sender.closed().await;
    });
    Ok(receiver)
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
        }
        Command::Write { source, seed, writers, rate, during } => {
            let database = source.open().await?;
            let writers = Writers::learn(&database, seed, Pace { writers, rate }).await?;
            println!("writing");
            println!("{}", writers.write(stop_after(during)?).await?);
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
            let report = crm_demo::compare(&source.open().await?, &mut target.open().await?).await?;
            print!("{report}");
            for finding in report.tables.iter().flat_map(|table| &table.findings).filter(|_| values) {
                if let Finding::Different { id, columns } = finding {
                    for (column, wanted, found) in columns {
                        println!("{id} {column}: {wanted:?} expected, {found:?} found");
                    }
                }
            }
            println!("{}", if report.is_equal() { "equal" } else { "NOT equal" });
            return Ok(ExitCode::from(u8::from(!report.is_equal())));
        }
        Command::Thaw { source } => {
            let admin = source.open().await?.client().database("admin");
            admin.run_command(bson::doc! {"setUserWriteBlockMode": 1, "global": false}).await?;
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
