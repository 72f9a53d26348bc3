//! What this process waits for, by server, for whoever asks how it is.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A server that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Source,
    /// Kafka, as who writes sees it.
    Kafka,
    /// Kafka, as who reads sees it.
    Consumer,
    Target,
    /// Our own state, which stands in the target.
    Control,
}

/// What is wrong, as of now.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<BTreeMap<Place, String>>);

impl Board {
    /// It is so from now on; `None`: all is well again.
    pub(crate) fn set(&self, place: Place, trouble: Option<String>) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(trouble) => board.insert(place, trouble),
            None => board.remove(&place),
        };
    }

    /// All of it, in one line.
    pub(crate) fn text(&self) -> Option<String> {
        let board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<&str> = board.values().map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}
