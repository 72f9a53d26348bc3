//! The command line.

mod check;
mod cutover;
mod exit;
mod logging;
mod progress;
mod run;
mod status;
mod topics;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::topology::Role;

/// Keeps a Postgres schema in step with a live MongoDB, through a mapping from documents to tables.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Exit codes:
  0  done, or stopped on request
  1  unexpected
  2  wrong usage
  3  mistakes in the migration file
  4  source or target unsuitable
  5  a server cannot be reached
  6  a server refuses us
  7  another process has taken over
  8  the cutover is blocked; nothing was changed
  9  the cutover was taken back; the source is as before"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How log lines are written to stderr; RUST_LOG filters them.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reads the migration file, compiles it against the target, asks the source whether it is fit. Writes nothing.
    #[command(after_help = "Example: slackwater check migration.yaml")]
    Check {
        /// The migration file.
        file: PathBuf,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Copies what is not copied yet and follows the changes, until SIGTERM or SIGINT. Goes on where it stopped.
    #[command(after_help = "Example: slackwater run migration.yaml")]
    Run {
        /// The migration file.
        file: PathBuf,
        /// Where to answer /metrics, /healthz and /readyz, for example 0.0.0.0:9464.
        #[arg(long, env = "SLACKWATER_LISTEN", value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
    /// Copies and follows the source into Kafka; `slackwater apply` takes it from there. Until SIGTERM or SIGINT.
    #[command(after_help = "Example: slackwater capture migration.yaml")]
    Capture {
        /// The migration file.
        file: PathBuf,
        /// Where to answer /metrics, /healthz and /readyz, for example 0.0.0.0:9464.
        #[arg(long, env = "SLACKWATER_LISTEN", value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
    /// Applies the log in Kafka to the target. Any number of processes share the work. Until SIGTERM or SIGINT.
    #[command(after_help = "Example: slackwater apply migration.yaml --member applier-0")]
    Apply {
        /// The migration file.
        file: PathBuf,
        /// A name that stays the same over restarts, such as a pod's: then a short absence moves no partition.
        #[arg(long, env = "SLACKWATER_MEMBER")]
        member: Option<String>,
        /// Where to answer /metrics, /healthz and /readyz, for example 0.0.0.0:9464.
        #[arg(long, env = "SLACKWATER_LISTEN", value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
    /// Tells how far it is: collections, lag, dead letters, incidents. Reads only.
    #[command(after_help = "Example: slackwater status migration.yaml --json | jq .lag_seconds")]
    Status {
        /// The migration file.
        file: PathBuf,
        /// For machines.
        #[arg(long)]
        json: bool,
        /// Looks again every second, until SIGINT; with --json one line a look.
        #[arg(long)]
        watch: bool,
    },
    /// Makes the switch: freezes the source, waits until everything is applied, proves it, opens the target.
    #[command(after_help = "Examples:
  slackwater cutover migration.yaml --plan
  slackwater cutover migration.yaml --report ./cutover

If it is killed, the next start resumes or reverts it. Past its deadline the source is unfrozen by itself.")]
    Cutover {
        /// The migration file.
        file: PathBuf,
        /// Shows the steps and what blocks now, and changes nothing.
        #[arg(long)]
        plan: bool,
        /// Takes back the cutover that is under way: the source is unfrozen.
        #[arg(long, conflicts_with = "plan")]
        abort: bool,
        /// For machines.
        #[arg(long)]
        json: bool,
        /// The folder for the report: cutover.json, and cutover.html to read.
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// The topics of a log that is Kafka: what is to change, making them, checking them, reading them.
    #[command(subcommand)]
    Topics(topics::Command),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.log_format == LogFormat::Json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::unexpected("starting", &error),
    };
    let code = runtime.block_on(async {
        match cli.command {
            Command::Check { file, json } => check::run(&file, json).await,
            Command::Run { file, listen } => run::run(&file, Role::Run, listen).await,
            Command::Capture { file, listen } => run::run(&file, Role::Capture, listen).await,
            Command::Apply { file, member, listen } => run::run(&file, Role::Apply { member }, listen).await,
            Command::Status { file, json, watch } => status::run(&file, json, watch).await,
            Command::Cutover { file, plan, abort, json, report } => {
                cutover::run(&file, cutover::Request { plan, abort, json, report }).await
            }
            Command::Topics(command) => topics::run(&command).await,
        }
    });
    // It is not torn down: what still runs is the drivers' housekeeping, which panics when it is torn off, and look-ups that hang.
    // The system closes all that is open.
    std::mem::forget(runtime);
    code.unwrap_or_else(|failure| exit::tell(&failure))
}
