//! Why a command cannot go on: what happened and what to do.

use std::fmt;

use slackwater_connectors::error::{Error, Kind};

use crate::config::Diagnostics;
use crate::ops::policy::{exit_code, exit_code_of, remedy_at_end};

/// Mistakes in the migration file.
const MISTAKES: u8 = 3;

/// See the module.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The migration file cannot be read.
    File { path: String, error: std::io::Error },
    /// Mistakes in it.
    Mistakes(Diagnostics),
    /// A server did not do what we wanted.
    Server(Error),
    /// Source, target or log will not do; one line each.
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
    /// The same of a task that is started later than the process.
    pub(crate) fn into_error(self) -> Error {
        let doing = "starting";
        match self {
            Self::Server(error) => error,
            Self::Unsuitable(lines) => Error::new(Kind::Unsuitable, doing, lines.join("; ")),
            Self::Denied(lines) => Error::new(Kind::Denied, doing, lines.join("; ")),
            Self::File { .. } | Self::Mistakes(_) => Error::new(Kind::Unsuitable, doing, self.to_string()),
        }
    }

    /// The process's exit code; `docs/operating.md` lists them.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::File { .. } | Self::Mistakes(_) => MISTAKES,
            Self::Server(error) => exit_code_of(error),
            Self::Unsuitable(_) => exit_code(Kind::Unsuitable),
            Self::Denied(_) => exit_code(Kind::Denied),
        }
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
            Self::Server(error) => write!(f, "error: {error}\n  help: {}", remedy_at_end(error)),
            Self::Unsuitable(lines) | Self::Denied(lines) => {
                lines.iter().try_for_each(|line| writeln!(f, "error: {line}"))?;
                write!(f, "nothing was written")
            }
        }
    }
}
