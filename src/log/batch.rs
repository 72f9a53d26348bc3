//! A batch of the stream: what capture appends to the log, and how several become one transaction.

use std::collections::HashSet;

use slackwater_topics::{CollectionId, Event, Key, Moment, Position};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

/// What is appended between events and concerns no document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Barrier {
    /// The recopy of these collections is complete: rows that it has not seen and that the mapping could have made are left over
    /// from before, and go; but not those in tables of `kept`.
    Sweep { collections: Vec<CollectionId>, kept: Vec<CollectionId> },
    /// A marker that is matched by identity.
    Fence { id: Uuid },
    /// Capture wants to know when everything before it is out of its hands.
    Flush,
}

/// Events of one source that become visible together, and what they prove.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// In the order of the source.
    pub(crate) events: Vec<Event>,
    /// Where the stream is after them.
    pub(crate) position: Option<Position>,
    /// Everything at or before this moment is in this batch or before it.
    pub(crate) passed: Moment,
    /// Nothing behind this batch shows a state from before this moment.
    pub(crate) settled: Moment,
    /// And everything that the source had at this time of its own clock, milliseconds since 1970.
    pub(crate) as_of: Option<i64>,
    /// Documents that were looked up may show states up to this moment.
    pub(crate) horizon: Moment,
    /// Tables whose row keys are noted as seen, because their collections are being recopied.
    pub(crate) seen: Vec<usize>,
    /// After the events.
    pub(crate) barriers: Vec<Barrier>,
    /// How much memory the events hold.
    pub(crate) bytes: usize,
    /// The room that it takes while it waits in the log.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

impl Batch {
    /// Only barriers.
    pub(crate) fn of(barrier: Barrier) -> Self {
        Self { barriers: vec![barrier], ..Self::default() }
    }

    /// Takes the next batch of the same stream in: both become one transaction.
    pub(crate) fn append(&mut self, mut next: Self) {
        debug_assert!(self.is_open(), "nothing follows a barrier in the same transaction");
        self.events.append(&mut next.events);
        self.barriers.append(&mut next.barriers);
        self.position = next.position.or(self.position.take());
        self.passed = self.passed.max(next.passed);
        self.settled = self.settled.max(next.settled);
        self.as_of = self.as_of.max(next.as_of);
        self.horizon = self.horizon.max(next.horizon);
        self.bytes += next.bytes;
        for table in next.seen {
            if !self.seen.contains(&table) {
                self.seen.push(table);
            }
        }
    }

    /// Whether another batch may follow in the same transaction: a barrier ends one.
    pub(crate) fn is_open(&self) -> bool {
        self.barriers.is_empty()
    }
}

/// Keeps the last event of each document, in their order; of collections of which every version counts, all.
///
/// A statement may not touch a row twice, and what is in between would be overwritten unseen in the same transaction.
pub(crate) fn keep_last(events: Vec<Event>, all_of: impl Fn(CollectionId) -> bool) -> Vec<Event> {
    let mut seen: HashSet<(CollectionId, &Key), foldhash::fast::RandomState> =
        HashSet::with_capacity_and_hasher(events.len(), foldhash::fast::RandomState::default());
    let last: Vec<bool> = events
        .iter()
        .rev()
        .map(|event| all_of(event.collection) || seen.insert((event.collection, &event.key)))
        .collect();
    drop(seen);
    if last.iter().all(|last| *last) {
        return events;
    }
    let mut kept = last.into_iter().rev();
    let mut events = events;
    events.retain(|_| kept.next().unwrap_or(true));
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use slackwater_topics::{Op, Value};

    fn event(collection: u16, key: i32, time: i64) -> Event {
        Event {
            collection: CollectionId(collection),
            key: Key::of(Value::Int32(key)).expect("a key"),
            op: Op::Delete,
            document: Bytes::new(),
            position: Position::default(),
            time,
        }
    }

    #[test]
    fn the_last_of_each_document_stays_in_order() {
        let events = vec![event(0, 1, 1), event(0, 2, 2), event(1, 1, 3), event(0, 1, 4), event(0, 3, 5)];
        let times: Vec<i64> = keep_last(events.clone(), |_| false).iter().map(|event| event.time).collect();
        assert_eq!(times, [2, 3, 4, 5]);
        let all = keep_last(events, |id| id == CollectionId(0));
        assert_eq!(all.len(), 5, "nothing of the first collection may be left out");
    }

    #[test]
    fn a_barrier_ends_a_transaction() {
        let mut batch = Batch::default();
        assert!(batch.is_open());
        batch.append(Batch {
            barriers: vec![Barrier::Sweep { collections: vec![CollectionId(0)], kept: Vec::new() }],
            passed: Moment(7),
            ..Batch::default()
        });
        assert!(!batch.is_open());
        assert_eq!(batch.passed, Moment(7));
    }
}
