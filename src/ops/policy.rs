//! The table of errors: for each kind, what the pipeline does, what the operator can do, and the exit code.
//!
//! Each match is exhaustive on purpose: a new kind of error does not compile until its answers are decided.

use slackwater_connectors::error::{Error, Kind};

/// SQLSTATE of a server that takes no more connections.
const NO_CONNECTION_LEFT: &str = "53300";

/// What a running pipeline does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Tries again after a short pause: the error passes by itself.
    Retry,
    /// Tries again after growing pauses, and warns: an operator may have to act.
    Wait,
    /// Moves the record to the dead letters and goes on.
    Quarantine,
    /// Recopies the collections.
    Recopy,
    /// Gives up the work that belongs to another process now, and goes on with the rest.
    Yield,
    /// Stops the process: going on could do harm.
    Halt,
}

/// What a running pipeline does about an error of this kind. Only [`super::persist`] asks.
pub(super) fn action(kind: Kind) -> Action {
    match kind {
        Kind::Unreachable | Kind::Denied | Kind::Exhausted => Action::Wait,
        Kind::Contention => Action::Retry,
        Kind::Data => Action::Quarantine,
        Kind::HistoryLost => Action::Recopy,
        Kind::Revoked => Action::Yield,
        Kind::Fenced | Kind::Switched | Kind::Unsuitable | Kind::Bug => Action::Halt,
    }
}

/// What the operator can do.
pub(crate) fn remedy(error: &Error) -> &str {
    error.help.as_deref().unwrap_or_else(|| usual_remedy(error.kind))
}

fn usual_remedy(kind: Kind) -> &'static str {
    match kind {
        Kind::Unreachable => {
            "check that the server is up and that its address in the migration file is right"
        }
        Kind::Contention => "nothing: it is retried automatically",
        Kind::Denied => "check user, password and rights (docs/operating.md lists the least rights needed)",
        Kind::Exhausted => "make room on the server: disk, memory or connections",
        Kind::Data => "see the dead letters in `slackwater status`, then correct the document or the rule",
        Kind::HistoryLost => "nothing: the collections are recopied; a larger oplog prevents it",
        Kind::Revoked => "nothing: another process has taken the work over",
        Kind::Fenced => {
            "nothing, if you started a second process; otherwise find out who did: only one capture per source and one applier \
             per member name can work"
        }
        Kind::Switched => "nothing: the target is the one to write to now",
        Kind::Unsuitable => {
            "change the server, the target's schema or the migration file, then run `slackwater check`"
        }
        Kind::Bug => "please report it, with the surrounding log lines",
    }
}

/// The same where nobody tries again, because the command has ended.
pub(crate) fn remedy_at_end(error: &Error) -> &str {
    match (&error.help, error.kind) {
        (None, Kind::Contention) => {
            "somebody else's session was in the way, such as one that has locked a table: `slackwater status` names the holder of a lock; \
             then run the command again"
        }
        _ => remedy(error),
    }
}

/// The process's exit code for an error; `docs/operating.md` lists them.
pub(crate) fn exit_code_of(error: &Error) -> u8 {
    match error.code.as_deref() {
        // Who gets no connection has not reached the server.
        Some(NO_CONNECTION_LEFT) => exit_code(Kind::Unreachable),
        _ => exit_code(error.kind),
    }
}

/// The process's exit code for an error of this kind; `docs/operating.md` lists them.
pub(crate) fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::Unsuitable => 4,
        Kind::Unreachable => 5,
        Kind::Denied => 6,
        Kind::Fenced => 7,
        Kind::Switched => 0,
        Kind::Contention | Kind::Exhausted | Kind::Data | Kind::HistoryLost | Kind::Revoked | Kind::Bug => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_says_at_its_end_is_true_of_it() {
        let full =
            Error::new(Kind::Exhausted, "connecting", "the server has no connection left").code("53300");
        assert_eq!(exit_code_of(&full), 5);
        let locked = Error::new(Kind::Contention, "reading", "a lock could not be had in time").code("55P03");
        assert_eq!(exit_code_of(&locked), 1);
        assert!(remedy(&locked).contains("automatically"));
        assert!(remedy_at_end(&locked).contains("run the command again"));
    }
}
