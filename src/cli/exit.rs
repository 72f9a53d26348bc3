//! The end of a command that failed: a message on stderr, and an exit code.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use crate::failure::Failure;

/// Prints the reason on stderr; returns the exit code.
pub(super) fn report(failure: &Failure) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    // If stderr is closed, only the exit code tells.
    let _ = match failure {
        Failure::Mistakes(mistakes) => {
            let color = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            writeln!(
                stderr,
                "{}\n{}; nothing was written",
                mistakes.errors_first().report(color),
                mistakes.counted()
            )
        }
        other => writeln!(stderr, "{other}"),
    };
    ExitCode::from(failure.code())
}

/// Prints a failure that comes before the command could start.
pub(super) fn unexpected(doing: &str, error: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {doing}: {error}");
    ExitCode::from(1)
}
