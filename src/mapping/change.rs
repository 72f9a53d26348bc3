//! What is written of an event: the rows as they are now, a row for this version, or both.

use slackwater_topics::Value;

use crate::config::ChangeOf;

/// What is written of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct What {
    /// The rows that show the document as it is.
    pub(crate) current: bool,
    /// The row of this version in tables of history.
    pub(crate) version: Option<Change>,
}

impl What {
    /// As everywhere where no version is kept.
    pub(crate) const CURRENT: Self = Self { current: true, version: None };
    /// Everything that could be written of an event, to see what the target makes of it.
    pub(crate) const ALL: Self =
        Self { current: true, version: Some(Change { kind: ChangeKind::Copy, number: 0, time: 0 }) };
}

/// The change that made a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) kind: ChangeKind,
    /// Which version of the document it is; they begin with one.
    pub(crate) number: i64,
    /// Milliseconds since 1970; 0 where nobody knows.
    pub(crate) time: i64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// The version was read, and not streamed: nobody knows what made it, and when.
    Copy,
    Insert,
    Update,
    Delete,
}

impl ChangeKind {
    /// All words.
    pub(crate) const WORDS: [&str; 4] = ["copy", "insert", "update", "delete"];

    fn word(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl Change {
    /// What a column takes of it.
    pub(super) fn value(self, of: ChangeOf) -> Option<Value<'static>> {
        match of {
            ChangeOf::Time => (self.time > 0).then_some(Value::DateTime(self.time)),
            ChangeOf::Kind => Some(Value::String(self.kind.word().as_bytes())),
            ChangeOf::Number | ChangeOf::Id => Some(Value::Int64(self.number)),
        }
    }
}
