//! How a command ends when it cannot go on: a message on stderr, and a code.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use crate::failure::Failure;

/// Says why on stderr; the exit code.
pub(super) fn tell(failure: &Failure) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    // Where stderr is closed nobody can be told; the code still says it.
    let _ = match failure {
        Failure::Mistakes(mistakes) => {
            let color = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            writeln!(stderr, "{}", mistakes.report(color))
        }
        other => writeln!(stderr, "{other}"),
    };
    ExitCode::from(failure.code())
}

/// Something that should not happen before anything else could.
pub(super) fn unexpected(doing: &str, error: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {doing}: {error}");
    ExitCode::from(1)
}
