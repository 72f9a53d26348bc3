//! One table: what goes wrong, what is done about it, what the operator can do.
//!
//! The match is exhaustive on purpose: a new kind of error does not compile until somebody has decided.

use slackwater_connectors::error::Kind;

/// What is done when something goes wrong in a running pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Again, after a short pause: it will pass by itself.
    Retry,
    /// Again, after growing pauses, and said loudly: somebody may have to act.
    Wait,
    /// The record goes to the dead letters; the pipeline goes on.
    Quarantine,
    /// The collections are copied again.
    Recopy,
    /// What belongs to another process now is let go; the rest goes on.
    Yield,
    /// The process stops: going on could do harm.
    Halt,
}

/// What is done about an error of this kind. Only [`super::persist`] asks.
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
pub(crate) fn remedy(kind: Kind) -> &'static str {
    match kind {
        Kind::Unreachable => {
            "check that the server is up and that its address in the migration file is right"
        }
        Kind::Contention => "nothing: it is tried again by itself",
        Kind::Denied => "check user, password and rights (docs/operating.md lists the least rights needed)",
        Kind::Exhausted => "make room on the server: disk, memory or connections",
        Kind::Data => "see the dead letters in `slackwater status`, mend the record or the rule",
        Kind::HistoryLost => "nothing: the collections are copied again; a larger oplog avoids it",
        Kind::Revoked => "nothing: another process has taken the work over",
        Kind::Fenced => {
            "nothing, if you started a second one; otherwise find who did: one process at a time owns a migration"
        }
        Kind::Switched => "nothing: the target is the one to write to now",
        Kind::Unsuitable => {
            "change the server, the target's schema or the migration file, then run `slackwater check`"
        }
        Kind::Bug => "please report it with the log around it",
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
