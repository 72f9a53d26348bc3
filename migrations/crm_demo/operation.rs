//! One thing that a writer does, as plain data: planned without a server, then carried out.

use bson::{Bson, Document};

use super::Kind;

/// Changes that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// What it is, for the count.
    pub name: &'static str,
    /// All of it or nothing, in one transaction.
    pub transaction: bool,
    /// The changes, in their order.
    pub steps: Vec<Step>,
}

/// A change of one document.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Where.
    pub kind: Kind,
    /// Which document.
    pub id: Bson,
    /// The version that the document has then; of a delete the last one it had.
    pub v: i64,
    /// What happens to it.
    pub change: Change,
}

/// What happens to a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It comes to be.
    Insert(Document),
    /// Update operators.
    Update(Document),
    /// Another takes its place.
    Replace(Document),
    /// It goes.
    Delete,
}
