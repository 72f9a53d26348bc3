//! What every source answers with, whichever system it is. Documents are raw BSON; a system that speaks JSON converts once, at the
//! edge.

use bytes::Bytes;
use slackwater_topics::{Bound, CollectionId, Key, Moment, Position, Range};

/// A kind of system that documents come from. It knows what the moments of its sources mean to people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// MongoDB: a moment is a cluster time.
    #[default]
    Mongodb,
    /// NocoDB: a moment is a millisecond of our own clock, which never goes back.
    Nocodb,
}

impl Kind {
    /// Its word in the migration file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mongodb => "mongodb",
            Self::Nocodb => "nocodb",
        }
    }

    /// The kind that has this word.
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "mongodb" => Some(Self::Mongodb),
            "nocodb" => Some(Self::Nocodb),
            _ => None,
        }
    }

    /// The moment on a scale that all kinds share, on which a second is 2³²: in the same order, and about the same for what happened
    /// at the same time. For what is tried first, never for what is right.
    pub fn shared(self, moment: Moment) -> Moment {
        match self {
            Self::Mongodb => moment,
            Self::Nocodb => Moment(((moment.0 / 1_000) << 32) | ((moment.0 % 1_000) << 22)),
        }
    }

    /// Its moments are those of the process that reads it: nobody else can tell one that comes after something.
    pub fn counts_by_itself(self) -> bool {
        match self {
            Self::Mongodb => false,
            Self::Nocodb => true,
        }
    }

    /// Nothing that comes after this batch shows a state from before this moment.
    pub fn settled(self, batch: &ChangeBatch) -> Moment {
        match self {
            Self::Mongodb => batch.passed,
            // Whatever comes later is read later.
            Self::Nocodb => batch.position.moment,
        }
    }

    /// Whole seconds since 1970.
    pub fn seconds(self, moment: Moment) -> i64 {
        match self {
            Self::Mongodb => i64::from(moment.upper()),
            Self::Nocodb => i64::try_from(moment.0 / 1_000).unwrap_or(i64::MAX),
        }
    }
}

/// The source's present, as it was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Every write that was acknowledged before `clock` is at or before this moment.
    pub moment: Moment,
    /// The source's own clock, milliseconds since 1970.
    pub clock: i64,
}

/// What happened to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// A new document.
    Insert,
    /// Some fields.
    Update,
    /// All fields.
    Replace,
    /// Gone.
    Delete,
}

/// A change of one document.
#[derive(Clone, Debug)]
pub struct DocumentChange {
    /// Its collection.
    pub collection: CollectionId,
    /// What happened.
    pub kind: ChangeKind,
    /// Which document.
    pub key: Key,
    /// The document's id, raw: `{_id: …}`.
    pub id: Bytes,
    /// The document right after the change. `None` for a delete, and where the source does not send it: look it up then.
    pub document: Option<Bytes>,
    /// Its own place.
    pub position: Position,
    /// When it happened, milliseconds since 1970.
    pub wall: i64,
}

/// A change that a source tells of.
#[derive(Clone, Debug)]
pub enum Change {
    /// A document changed.
    Document(DocumentChange),
    /// The collection is gone with all its documents; no delete is sent for them.
    Dropped {
        /// Which.
        collection: CollectionId,
        /// Its place.
        position: Position,
    },
    /// A collection changed its name. What had the name `to` before is gone.
    Renamed {
        /// The collection, where it is followed.
        from: Option<CollectionId>,
        /// The collection that is followed under the new name, where there is one.
        to: Option<CollectionId>,
        /// The new name.
        to_name: String,
        /// Its place.
        position: Position,
    },
    /// The database is gone. Drops of its collections came before.
    DatabaseDropped {
        /// Its place.
        position: Position,
    },
    /// The source closed the stream; it was opened again behind this place.
    Invalidated {
        /// Its place.
        position: Position,
    },
}

impl Change {
    /// Its place in the source's order.
    pub fn position(&self) -> &Position {
        match self {
            Self::Document(change) => &change.position,
            Self::Dropped { position, .. }
            | Self::Renamed { position, .. }
            | Self::DatabaseDropped { position }
            | Self::Invalidated { position } => position,
        }
    }
}

/// Changes that came together.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    /// In the source's order; none where only time went by.
    pub changes: Vec<Change>,
    /// Where to go on once all of this is safe.
    pub position: Position,
    /// Every change at or before this moment has been delivered. A copy or a fence has to wait for this: it is before
    /// `position.moment` while other changes of that very moment may still come.
    pub passed: Moment,
    /// The source's present when it answered.
    pub now: Moment,
    /// Bytes of the answer.
    pub bytes: usize,
}

/// How a collection is cut into chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// How many documents there are, by the source's own estimate.
    pub documents: u64,
    /// Ascending; [`Range::between`] makes the ranges.
    pub bounds: Vec<Bound>,
}

/// Documents of a range, with the time in which they were read.
#[derive(Clone, Debug)]
pub struct ChunkRead {
    /// In the order of their ids.
    pub documents: Vec<(Key, Bytes)>,
    /// Every change at or before this moment is in the documents.
    pub from: Moment,
    /// No change after this moment is in the documents.
    pub until: Moment,
    /// What is left of the range, where the reader's limit was reached.
    pub rest: Option<Range>,
    /// Bytes of the documents.
    pub bytes: usize,
}

/// Documents that were looked up by key.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// In no order; a key that is not here had no document.
    pub found: Vec<(Key, Bytes)>,
    /// No change after this moment is in them.
    pub at: Moment,
}

/// Whether a source can stop its own writers for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FreezeRight {
    /// It can.
    Given,
    /// Our user has no right to ask for it.
    Missing {
        /// The right.
        give: &'static str,
    },
    /// The system does not know how.
    Unable {
        /// A sentence for people.
        why: String,
    },
}
