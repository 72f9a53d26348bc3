//! One change, as it travels from a source to the target.

use bytes::Bytes;

use crate::key::Key;
use crate::position::Position;

/// Which collection: an index into the migration's list of collections, which every process reads from the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionId(pub u16);

/// What happened to the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Read while copying; it is in the log where its state is the newest.
    Snapshot,
    /// Inserted, replaced or updated; the document is as it was afterwards.
    Upsert,
    /// Deleted.
    Delete,
}

/// A change of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where it happened.
    pub collection: CollectionId,
    /// To which document.
    pub key: Key,
    /// What happened.
    pub op: Op,
    /// The document afterwards, raw BSON; empty for a delete. A slice of the reply that brought it.
    pub document: Bytes,
    /// Its place in the source's order.
    pub position: Position,
    /// When it happened at the source, milliseconds since 1970.
    pub time: i64,
}
