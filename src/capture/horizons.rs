//! Which documents have to be read again where the stream does not carry them.
//!
//! Without post-images an update tells only that something changed. The document is then read at the source, once
//! for all updates of a batch, and what is read is newer than the update: it shows the state of some later
//! time, the *horizon* at the most. Until the stream has passed the horizon, an insert, replace or delete
//! of the same collection is older than what the target may already have, so it is read again as well:
//! the document as it is now, or nothing where it is gone. So a document never goes back, and
//! once the stream has passed the horizon, events count as they are again. The horizon is kept with
//! the progress, in the rows' transaction.

use slackwater_topics::{CollectionId, Event, Moment, Op};

/// Of each collection: whether its updates carry the document, and how far look-ups have seen.
#[derive(Debug)]
pub(crate) struct Horizons {
    collections: Vec<Moment>,
}

impl Horizons {
    /// After a start nobody knows which collection the kept horizon belongs to: it holds for all.
    pub(crate) fn new(collections: usize, kept: Moment) -> Self {
        Self { collections: vec![kept; collections] }
    }

    /// Whether the event may be used as it is.
    pub(crate) fn is_current(&self, event: &Event, carries_document: bool) -> bool {
        carries_document && event.position.moment > self.collections[usize::from(event.collection.0)]
    }

    /// Documents of this collection were read, no later than this.
    pub(crate) fn looked_up(&mut self, collection: CollectionId, at: Moment) {
        let horizon = &mut self.collections[usize::from(collection.0)];
        *horizon = (*horizon).max(at);
    }

    /// The largest, to be kept with the progress.
    pub(crate) fn latest(&self) -> Moment {
        self.collections.iter().copied().max().unwrap_or_default()
    }
}

/// Whether the event itself says how the document is afterwards.
pub(crate) fn is_complete(event: &Event) -> bool {
    event.op == Op::Delete || !event.document.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use slackwater_topics::{Key, Position, Value};

    fn event(collection: u16, time: u64, op: Op) -> Event {
        Event {
            collection: CollectionId(collection),
            key: Key::of(Value::Int32(1)).expect("a key"),
            op,
            document: Bytes::new(),
            position: Position::new(Moment(time), Bytes::new()),
            time: 0,
        }
    }

    #[test]
    fn what_is_older_than_a_look_up_is_looked_up_too() {
        let mut horizons = Horizons::new(2, Moment(5));
        let delete = |collection, time| event(collection, time, Op::Delete);
        assert!(!horizons.is_current(&delete(0, 5), true));
        assert!(horizons.is_current(&delete(0, 6), true));
        assert!(!horizons.is_current(&event(0, 6, Op::Upsert), false));
        horizons.looked_up(CollectionId(0), Moment(9));
        assert!(!horizons.is_current(&delete(0, 9), true));
        assert!(horizons.is_current(&delete(1, 9), true), "of another collection");
        assert_eq!(horizons.latest(), Moment(9));
    }
}
