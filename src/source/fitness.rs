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
    /// Of each the names of its fields, where the source declares them.
    pub(crate) fields: Vec<Option<Vec<String>>>,
    /// Collections that were not asked for.
    pub(crate) others: Vec<String>,
    /// We may ask which collections there are.
    pub(crate) listed: bool,
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

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The collection that it is about, if it is about one.
    pub(crate) collection: Option<String>,
    pub(crate) text: String,
    /// It comes of a right that the user lacks.
    pub(crate) of_right: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// It will not do.
    pub(crate) errors: Vec<Finding>,
    /// The worst of them, for the exit code.
    pub(crate) denied: bool,
    /// It will do, but somebody should know.
    pub(crate) warnings: Vec<Finding>,
}

impl Findings {
    /// The system refuses us something.
    pub(super) fn refuse(&mut self, system: &str, error: &Error, remedy: &str) {
        self.denied |= error.kind == Kind::Denied;
        let text = format!("{system} refuses us: {error}; {remedy}");
        if self.errors.iter().all(|known| known.text != text) {
            let of_right = error.kind == Kind::Denied;
            self.errors.push(Finding { collection: None, text, of_right });
        }
    }

    /// Something is not known for want of a right.
    pub(crate) fn unknown(&mut self, text: impl Into<String>) {
        self.warnings.push(Finding { collection: None, text: text.into(), of_right: true });
    }

    pub(super) fn error(&mut self, collection: Option<&str>, text: impl Into<String>) {
        let collection = collection.map(str::to_owned);
        self.errors.push(Finding { collection, text: text.into(), of_right: false });
    }

    pub(crate) fn warning(&mut self, collection: Option<&str>, text: impl Into<String>) {
        let collection = collection.map(str::to_owned);
        self.warnings.push(Finding { collection, text: text.into(), of_right: false });
    }
}
