//! Whether a source is fit for a migration, in words that hold for every kind of source.

use slackwater_connectors::error::{Error, Kind};

/// What a look at the source has brought.
#[derive(Debug)]
pub(crate) struct Fitness {
    /// The system, in a line for people.
    pub(crate) text: String,
    /// The same for machines.
    pub(crate) json: serde_json::Value,
    /// The collections that were asked for, in that order.
    pub(crate) collections: Vec<Presence>,
    pub(crate) findings: Findings,
}

impl Fitness {
    /// Every change brings the document as it was right after it, so that nothing has to be looked up.
    pub(crate) fn is_exact(&self) -> bool {
        let exact = |presence: &Presence| matches!(presence, Presence::Present { sends_documents: true });
        self.collections.iter().all(exact)
    }
}

/// Whether a collection is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Present {
        /// Its updates bring the document.
        sends_documents: bool,
    },
    Missing,
    /// We may not ask.
    Unknown,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// It will not do.
    pub(crate) errors: Vec<String>,
    /// The worst of them, for the exit code.
    pub(crate) denied: bool,
    /// It will do, but somebody should know.
    pub(crate) warnings: Vec<String>,
}

impl Findings {
    /// The system refuses us something.
    pub(super) fn refuse(&mut self, system: &str, error: &Error, remedy: &str) {
        self.denied |= error.kind == Kind::Denied;
        let line = format!("{system} refuses us: {error}; {remedy}");
        if !self.errors.contains(&line) {
            self.errors.push(line);
        }
    }
}
