//! The command line.

mod candidates;
mod check;
mod checks;
mod cutover;
mod exit;
mod grants;
mod logging;
mod progress;
mod recopy;
mod reset;
mod resolve;
mod run;
mod shell;
mod status;
mod topics;
mod verify;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::cutover::accept;
use crate::topology::Role;

/// Keeps a Postgres schema in step with a live MongoDB, through a mapping from documents to tables.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes:
  0  done, or stopped on request
  1  unexpected
  2  wrong command line
  3  mistakes in the migration file
  4  a server, its topics or its schema are unsuitable
  5  a server cannot be reached
  6  a server refuses us
  7  another process has taken over
  8  the cutover is blocked; nothing was changed
  9  the cutover was reverted; the source is as before
 10  the verification found differences, or could not prove everything
 11  a check fails, or could not be told"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The format of the log lines on stderr. RUST_LOG filters them.
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
    /// Checks the migration file, the target's tables and the source's settings. Writes nothing.
    #[command(after_help = "Example: slackwater check migration.yaml

The exit codes are listed in `slackwater --help`.")]
    Check {
        /// The migration file.
        file: PathBuf,
        /// Prints JSON, for machines.
        #[arg(long)]
        json: bool,
    },
    /// Copies the source into the target, then follows its changes, until SIGTERM or SIGINT. A restart goes on where it stopped.
    #[command(after_help = "Example: slackwater run migration.yaml

The exit codes are listed in `slackwater --help`.")]
    Run {
        /// The migration file.
        file: PathBuf,
        /// The address that answers /metrics, /healthz and /readyz, for example 0.0.0.0:9464.
        #[arg(long, env = "SLACKWATER_LISTEN", value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
    /// Copies the source into Kafka and follows its changes, until SIGTERM or SIGINT. `slackwater apply` writes them to the target.
    #[command(after_help = "Examples:
  slackwater capture migration.yaml
  slackwater capture migration.yaml --source legacy

The exit codes are listed in `slackwater --help`.")]
    Capture {
        /// The migration file.
        file: PathBuf,
        /// Only this source of the file; other processes capture the others. Without it: all of them.
        #[arg(long, env = "SLACKWATER_SOURCE", value_name = "NAME")]
        source: Option<String>,
        /// The address that answers /metrics, /healthz and /readyz, for example 0.0.0.0:9464.
        #[arg(long, env = "SLACKWATER_LISTEN", value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
    /// Applies the log in Kafka to the target, until SIGTERM or SIGINT. Any number of processes can share the work.
    #[command(after_help = "Example: slackwater apply migration.yaml --member applier-0

The exit codes are listed in `slackwater --help`.")]
    Apply {
        /// The migration file.
        file: PathBuf,
        /// A name that survives restarts, such as a pod's: a short absence then moves no partition to another process.
        #[arg(long, env = "SLACKWATER_MEMBER")]
        member: Option<String>,
        /// The address that answers /metrics, /healthz and /readyz, for example 0.0.0.0:9464.
        #[arg(long, env = "SLACKWATER_LISTEN", value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
    /// Shows the progress of the migration: collections, lag, dead letters, incidents. Reads only.
    #[command(after_help = "Example: slackwater status migration.yaml --json | jq .lag_seconds

The exit codes are listed in `slackwater --help`.")]
    Status {
        /// The migration file.
        file: PathBuf,
        /// Prints JSON, for machines.
        #[arg(long)]
        json: bool,
        /// Repeats every second until SIGINT or SIGTERM; with --json, one line each time.
        #[arg(long)]
        watch: bool,
    },
    /// Switches from the source to the target: freezes the source, waits until everything is applied, checks it, opens the target.
    #[command(after_help = "Examples:
  slackwater cutover migration.yaml --plan
  slackwater cutover migration.yaml --report ./reports
  slackwater cutover migration.yaml --accept dead_letters --accept count_differs --reason \"the seven are test data\"

The report is a folder of its own in --report: report.html to read and to print, report.json for machines, lists as CSV.

If the command is killed, the next start resumes the cutover or reverts it. Without a next start, the source is unfrozen \
after the deadline.

Exit code 8: something blocks the cutover, and nothing was changed.
Exit code 9: the cutover was reverted.
The other exit codes are listed in `slackwater --help`.")]
    Cutover {
        /// The migration file.
        file: PathBuf,
        /// Shows the steps and what blocks the cutover now. Changes nothing.
        #[arg(long)]
        plan: bool,
        /// Reverts the cutover in progress, and unfreezes the source.
        #[arg(long, conflicts_with = "plan")]
        abort: bool,
        /// Prints JSON, for machines.
        #[arg(long)]
        json: bool,
        /// Where the folder of the report is made, when the target is open or the cutover was reverted. `none`: nowhere.
        #[arg(long, value_name = "DIR", default_value = "reports", value_hint = clap::ValueHint::DirPath)]
        report: PathBuf,
        /// A blocker of this name does not block. The record and the report say so. May be given several times.
        #[arg(long, value_name = "NAME", requires = "reason", conflicts_with = "abort", value_parser = accept::acceptable)]
        accept: Vec<String>,
        /// Why it is accepted, for those who read the report.
        #[arg(long, value_name = "TEXT", requires = "accept", value_parser = accept::reason)]
        reason: Option<String>,
    },
    /// Prints the statements that give the least rights this migration needs, for MongoDB, Postgres and Kafka. Asks no server.
    #[command(after_help = "Example: slackwater grants migration.yaml --role slackwater

No password is printed: set those of the new users yourself. `slackwater check` says what is missing, and what is too much.

The exit codes are listed in `slackwater --help`.")]
    Grants(grants::Arguments),
    /// Lists rows that may mean the same (`candidates` in the migration file) as CSV, for a person to judge. Changes nothing.
    #[command(after_help = "Examples:
  slackwater candidates migration.yaml
  slackwater candidates migration.yaml --out -

The list holds the values that are compared: keep it where the data may be.

The exit codes are listed in `slackwater --help`.")]
    Candidates(candidates::Arguments),
    /// Says what becomes of the rows of a collection that is gone at the source: they stay, or go as the collection went.
    #[command(after_help = "Examples:
  slackwater resolve migration.yaml legacy.drafts --keep
  slackwater resolve migration.yaml legacy.drafts --follow

`slackwater status` names the collections that are gone. One that is there again is followed again by itself.

The exit codes are listed in `slackwater --help`.")]
    Resolve(resolve::Arguments),
    /// Copies collections again, beside the stream: the process at work begins within a second, or the next start does.
    #[command(after_help = "Examples:
  slackwater recopy migration.yaml
  slackwater recopy migration.yaml legacy.users legacy.organisations

Rows that are as they should be are not written, and rows that their documents do not make go. `slackwater status` shows how far it is.
A changed migration file needs no such command: the next start copies again what has changed.

The exit codes are listed in `slackwater --help`.")]
    Recopy(recopy::Arguments),
    /// Compares all documents with the rows that stand, through the mapping. Changes nothing in your tables.
    #[command(after_help = "Examples:
  slackwater verify migration.yaml
  slackwater verify migration.yaml --collection legacy.users --json | jq .findings
  slackwater verify migration.yaml --sample 5 --throttle 2000
  slackwater verify migration.yaml --since 12h
  slackwater verify migration.yaml --report ./reports

It may run at any time while the migration is at work: what is under way is waited for. One that is stopped goes on where it was.

Exit code 0: everything is equal. Exit code 10: something is not, or could not be proven.
The other exit codes are listed in `slackwater --help`.")]
    Verify(verify::VerifyArguments),
    /// Verifies, sends documents again whose rows are wrong, and verifies again. A process of the migration has to be at work.
    #[command(after_help = "Examples:
  slackwater repair migration.yaml
  slackwater repair migration.yaml --collection legacy.users --remove-extra

Rows that no document makes are only listed, unless you ask for more. What was done is noted among the incidents in `slackwater status`.

Exit code 0: everything is equal now. Exit code 10: something is not.
The other exit codes are listed in `slackwater --help`.")]
    Repair(verify::RepairArguments),
    /// Runs the checks of the migration file: what the source says against what the target says, whatever the mapping is.
    #[command(after_help = "Examples:
  slackwater checks migration.yaml
  slackwater checks migration.yaml --name 'every balance' --json | jq '.checks[].differences'

It may run at any time while the migration is at work. What it prints holds values of both sides. Foreign keys that Postgres does not \
vouch for are looked at as well.

Exit code 0: all hold. Exit code 11: one fails, or could not be told.
The other exit codes are listed in `slackwater --help`.")]
    Checks(checks::Arguments),
    /// Forgets a migration: the next start begins from the beginning. Rows and topics stay unless you ask for more.
    #[command(after_help = "Examples:
  slackwater reset migration.yaml --yes crm
  slackwater reset migration.yaml --topics --rows --yes crm

Without --yes it asks for the migration's name. Refused while a process of the migration is at work.

The exit codes are listed in `slackwater --help`.")]
    Reset(reset::Arguments),
    /// Plans, creates, checks and prints the Kafka topics of a migration.
    #[command(subcommand)]
    Topics(topics::Command),
    /// Prints the script with which a shell completes commands, options and files. `make install` installs it.
    #[command(after_help = "Examples:
  source <(slackwater completions bash)
  slackwater completions fish > ~/.config/fish/completions/slackwater.fish")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Prints the manual page; with a folder, writes the pages of all commands into it. `make install` installs them.
    #[command(after_help = "Examples:
  slackwater man | man -l -
  slackwater man ~/.local/share/man/man1")]
    Man {
        /// The folder, for example /usr/local/share/man/man1. It is created if it does not exist.
        #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
        folder: Option<PathBuf>,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let brief = !matches!(cli.command, Command::Run { .. } | Command::Capture { .. } | Command::Apply { .. });
    logging::start(cli.log_format == LogFormat::Json, brief);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::unexpected("starting", &error),
    };
    let code = runtime.block_on(async {
        match cli.command {
            Command::Check { file, json } => check::run(&file, json).await,
            Command::Run { file, listen } => run::run(&file, Role::Run, listen).await,
            Command::Capture { file, source, listen } => {
                run::run(&file, Role::Capture { source }, listen).await
            }
            Command::Apply { file, member, listen } => run::run(&file, Role::Apply { member }, listen).await,
            Command::Status { file, json, watch } => status::run(&file, json, watch).await,
            Command::Cutover { file, plan, abort, json, report, accept, reason } => {
                let accepted = accept::accepted(&accept, reason.as_deref());
                cutover::run(&file, cutover::Request { plan, abort, json, report, accepted }).await
            }
            Command::Grants(arguments) => grants::run(arguments),
            Command::Candidates(arguments) => candidates::run(arguments).await,
            Command::Resolve(arguments) => resolve::run(arguments).await,
            Command::Recopy(arguments) => recopy::run(arguments).await,
            Command::Verify(arguments) => verify::run(arguments).await,
            Command::Repair(arguments) => verify::mend(arguments).await,
            Command::Checks(arguments) => checks::run(arguments).await,
            Command::Reset(arguments) => reset::run(arguments).await,
            Command::Topics(command) => topics::run(&command).await,
            Command::Completions { shell } => Ok(shell::completions(shell, Cli::command())),
            Command::Man { folder } => Ok(shell::manual(folder.as_deref(), Cli::command())),
        }
    });
    // The runtime is not shut down: only the drivers' housekeeping still runs, which panics when it is cancelled, and DNS look-ups
    // that may hang. The system closes all open connections.
    std::mem::forget(runtime);
    code.unwrap_or_else(|failure| exit::report(&failure))
}
