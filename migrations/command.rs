//! What the commands of the demos share.

use std::time::Duration;

use clap::Args;
use mongodb::Database;
use mongodb::bson::doc;
use tokio::sync::watch;
use tokio_postgres::NoTls;

use crate::oracle::{Finding, Report};
use crate::{Error, Result};

/// The target.
#[derive(Args, Debug)]
pub struct Target {
    /// Where Postgres is, with the database that has the tables
    #[arg(long, env = "SLACKWATER_POSTGRES_URL", hide_env_values = true)]
    pub postgres: String,
}

impl Target {
    /// Points to a database of this name, which is re-created.
    pub async fn renew(&mut self, name: &str) -> Result<()> {
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

    /// A connection.
    pub async fn open(&self) -> Result<tokio_postgres::Client> {
        let (client, connection) = tokio_postgres::connect(&self.postgres, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// `20s`, `5m`, `1h`.
pub fn duration(text: &str) -> std::result::Result<Duration, String> {
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

/// True once time is over or a signal came.
pub fn stop_after(during: Option<Duration>) -> Result<watch::Receiver<bool>> {
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

/// Lets writers write to that MongoDB again, after a cutover has frozen it.
pub async fn thaw(database: &Database) -> Result<()> {
    let admin = database.client().database("admin");
    admin.run_command(doc! {"setUserWriteBlockMode": 1, "global": false}).await?;
    Ok(())
}

/// Prints what was found; true where everything is equal. `values`: what differs, too.
#[allow(clippy::print_stdout, reason = "it is the result of a command")]
pub fn judge(report: &Report, values: bool) -> bool {
    print!("{report}");
    for finding in report.tables.iter().flat_map(|table| &table.findings).filter(|_| values) {
        if let Finding::Different { id, columns } = finding {
            for (column, wanted, found) in columns {
                println!("{id} {column}: {wanted:?} expected, {found:?} found");
            }
        }
    }
    println!("{}", if report.is_equal() { "equal" } else { "NOT equal" });
    report.is_equal()
}
