//! Whether there are dead letters at all: while there are none, no batch has to look for any. Invariant: it is never said
//! that there are none while there may be one of a document that is ours to write. Letters of a partition are written by its
//! owner alone, so it is enough to note our own and to look once when we have become the owner.

use std::sync::atomic::{AtomicBool, Ordering};

use slackwater_connectors::postgres::progress::Notes;
use slackwater_topics::Event;

use crate::mapping::Plan;

/// Shared by all lanes.
#[derive(Debug)]
pub(crate) struct Letters {
    any: AtomicBool,
}

impl Letters {
    pub(crate) fn new(any: bool) -> Self {
        Self { any: AtomicBool::new(any) }
    }

    /// There are some, or may be.
    pub(crate) fn found(&self, some: bool) {
        if some {
            self.any.store(true, Ordering::Release);
        }
    }

    /// Whether any may exist.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Whatever is written settles an older letter of the same document, unless it failed again.
    pub(crate) fn settle(&self, plan: &Plan, events: &[Event], notes: &mut Notes) {
        // Now, and not only when we hear that they were written: the answer may get lost.
        self.found(!notes.dead_letters.is_empty());
        if !self.any() {
            return;
        }
        let failed: std::collections::HashSet<(&str, &[u8])> = notes
            .dead_letters
            .iter()
            .map(|letter| (letter.collection.as_str(), letter.key.as_slice()))
            .collect();
        notes.settled = events
            .iter()
            .map(|event| {
                (plan.collections[usize::from(event.collection.0)].name.as_str(), event.key.as_bytes())
            })
            .filter(|document| !failed.contains(document))
            .map(|(collection, key)| (collection.to_owned(), key.to_vec()))
            .collect();
    }
}
