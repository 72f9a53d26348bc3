//! The board: what this process waits for, by server.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A server that the process needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A source, by its place in the migration file.
    Source(u16),
    /// Single collections of a source.
    Collections(u16),
    /// Kafka, from the producer's side.
    Kafka,
    /// Kafka, from the consumer's side.
    Consumer,
    Target,
    /// Our own state, which is stored in the target.
    Control,
    /// A lock that somebody else holds in the target.
    Lock,
    /// The target's catalogue, for looking whether tables have changed.
    Tables,
}

impl Place {
    /// Its name in messages.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Source(_) | Self::Collections(_) => "the source",
            Self::Kafka | Self::Consumer => "Kafka",
            Self::Target => "the target",
            Self::Control => "the control store",
            Self::Lock => "a lock",
            Self::Tables => "the target's catalogue",
        }
    }
}

/// The servers that do not answer now, each with the reason.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<BTreeMap<Place, String>>);

impl Board {
    /// Shows what is wrong with a server; `None` if it answers again.
    pub(crate) fn set(&self, place: Place, trouble: Option<String>) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(trouble) => board.insert(place, trouble),
            None => board.remove(&place),
        };
    }

    /// All reasons, on one line.
    pub(crate) fn text(&self) -> Option<String> {
        let board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<&str> = board.values().map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}
