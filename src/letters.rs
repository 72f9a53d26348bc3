//! Dead letters: how one is made of a document or a record that cannot be written, and whether there are any at all.
//!
//! While there are none, no batch has to look for any. **Invariant**: nobody is told that there are none while there may be one of a
//! document that is ours to write. Letters of a partition are written by its owner alone, so it is enough to note our own and to look
//! once when we have become the owner.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use slackwater_connectors::error::Error;
use slackwater_connectors::postgres::control::standing::STANDING;
use slackwater_connectors::postgres::progress::{DeadLetter, Notes};
use slackwater_topics::{Event, Op};

use crate::mapping::{Plan, Rejection};

/// The key of a record's letter begins so; no document has a key that begins with a zero.
pub(crate) const RECORD: &[u8] = b"\0record ";

/// Whether the letter is of a record, and has no document.
pub(crate) fn is_of_record(letter: &DeadLetter) -> bool {
    letter.key.starts_with(RECORD)
}

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

    /// A document that is written settles an older letter of the same document, unless it failed again.
    pub(crate) fn settle(&self, plan: &Plan, events: &[Event], notes: &mut Notes) {
        // Now, and not only when we hear that they were written: the answer may get lost.
        self.found(!notes.dead_letters.is_empty());
        if !self.any() {
            return;
        }
        let failed: HashSet<(&str, &[u8])> = notes
            .dead_letters
            .iter()
            .map(|letter| (letter.collection.as_str(), letter.key.as_slice()))
            .collect();
        notes.settled = events
            .iter()
            .map(|event| (plan.collection(event.collection).name.as_str(), event.key.as_bytes()))
            .filter(|document| !failed.contains(document))
            .map(|(collection, key)| (collection.to_owned(), key.to_vec()))
            .collect();
    }
}

fn letter(plan: &Plan, event: &Event, kind: String, text: String) -> DeadLetter {
    DeadLetter {
        collection: plan.collection(event.collection).name.clone(),
        key: event.key.as_bytes().to_vec(),
        op: event.op,
        kind,
        text,
        table: None,
        column: None,
        document: plan.collection(event.collection).sensitive.blanked(&event.document),
    }
}

/// Of a document that the mapping could not make rows of.
pub(crate) fn rejected(plan: &Plan, event: &Event, rejection: Rejection) -> DeadLetter {
    let mut letter = letter(plan, event, rejection.kind.word().to_owned(), rejection.to_string());
    letter.table = (!rejection.table.is_empty()).then_some(rejection.table);
    letter.column = (!rejection.column.is_empty()).then_some(rejection.column);
    letter
}

/// Of a document that waits for a table. Its content is read again when the table can be written.
pub(crate) fn standing(plan: &Plan, event: &Event) -> DeadLetter {
    let text = "a table of its collection cannot be written at present".to_owned();
    DeadLetter { document: Bytes::new(), ..letter(plan, event, STANDING.to_owned(), text) }
}

/// Of a document whose rows the database does not take.
pub(crate) fn refused(plan: &Plan, event: &Event, error: &Error) -> DeadLetter {
    let kind = error.code.clone().unwrap_or_else(|| "refused".to_owned());
    letter(plan, event, kind, error.to_string())
}

/// Of a record in a topic that is not ours. `place`: topic, partition and offset.
pub(crate) fn unreadable(collection: &str, place: &str, why: &str) -> DeadLetter {
    DeadLetter {
        collection: collection.to_owned(),
        key: [RECORD, place.as_bytes()].concat(),
        op: Op::Upsert,
        kind: "unreadable".to_owned(),
        text: format!("the record at {place} is {why}; another program writes to this topic"),
        table: None,
        column: None,
        document: Bytes::new(),
    }
}
