//! Keys that the database hands out: numbers of sequences.
//!
//! A document's number is taken from the column's own sequence when the document, or a reference to it, is first seen, and is kept in
//! `slackwater.numbers` under the document's id. From then on it is a function of the id, as a UUID is: references, deletes and
//! replays find it again, in whatever order documents come.
//!
//! **Crash**: a number that was taken and kept is found by the next try. One that was taken and not kept leaves a gap in the sequence.

/// A column whose numbers come from a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Schema and table.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// The SQL that takes the next number.
    pub next: String,
}
