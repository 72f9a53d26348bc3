//! How a command ends when it cannot go on: what happened and what to do, on stderr, and a code.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use slackwater_connectors::error::{Error, Kind};

use crate::config::Diagnostics;
use crate::ops::policy::{exit_code, remedy};

/// Mistakes in the migration file.
const MISTAKES: u8 = 3;
/// Source or target is not what the migration needs.
const UNSUITABLE: u8 = 4;

/// Why a command ends early.
#[derive(Debug)]
pub(super) enum Failure {
    /// The migration file cannot be read.
    File { path: String, error: std::io::Error },
    /// Mistakes in it.
    Mistakes(Diagnostics),
    /// A server did not do what we wanted.
    Server(Error),
    /// Source or target will not do; one line each.
    Unsuitable(Vec<String>),
    /// A server refuses us; one line each.
    Denied(Vec<String>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

impl Failure {
    /// Says it on stderr; the exit code.
    pub(super) fn tell(&self) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        // Where stderr is closed there is nobody to tell; the code still says it.
        let _ = match self {
            Self::Mistakes(mistakes) => {
                let color = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
                writeln!(stderr, "{}", mistakes.report(color))
            }
            other => writeln!(stderr, "{other}"),
        };
        ExitCode::from(match self {
            Self::File { .. } | Self::Mistakes(_) => MISTAKES,
            Self::Server(error) => exit_code(error.kind),
            Self::Unsuitable(_) => UNSUITABLE,
            Self::Denied(_) => exit_code(Kind::Denied),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => {
                write!(
                    f,
                    "error: the migration file {path} cannot be read: {error}\n  help: give the path of a YAML file, for example migrations/crm_demo/migration.yaml"
                )
            }
            Self::Mistakes(mistakes) => write!(f, "{mistakes}"),
            Self::Server(error) => write!(f, "error: {error}\n  help: {}", remedy(error.kind)),
            Self::Unsuitable(lines) | Self::Denied(lines) => {
                lines.iter().try_for_each(|line| writeln!(f, "error: {line}"))?;
                write!(f, "nothing was written")
            }
        }
    }
}

/// Something that should not happen before anything else could.
pub(super) fn unexpected(doing: &str, error: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {doing}: {error}");
    ExitCode::from(1)
}
