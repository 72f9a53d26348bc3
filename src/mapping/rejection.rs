//! What the mapping says of documents that it could not take as they are.

use std::fmt;

use slackwater_topics::{CollectionId, Key};

/// Why a document was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No value where there must be one.
    Null,
    /// A value of a type that cannot be converted.
    Type,
    /// Past the range of the column.
    Range,
    /// Longer than the column.
    Length,
    /// Text that Postgres cannot hold: NUL, no UTF-8.
    Text,
    /// It cannot be decrypted.
    Cipher,
    /// No label of the enum.
    Label,
    /// Nested too deeply.
    Depth,
    /// None of the collection's tables takes such a document.
    Route,
    /// The bytes are not a document.
    Malformed,
}

impl Reason {
    /// A word for lists and counters.
    pub fn word(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Type => "type",
            Self::Range => "range",
            Self::Length => "length",
            Self::Text => "text",
            Self::Cipher => "cipher",
            Self::Label => "label",
            Self::Depth => "depth",
            Self::Route => "route",
            Self::Malformed => "malformed",
        }
    }
}

/// A document that goes to the dead letters. Holds no value of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The table, as `schema.name`; empty where the whole document is unreadable.
    pub table: String,
    /// The column; empty likewise, and where it is about an array whose elements are rows.
    pub column: String,
    /// The place of the value in the document, as the migration file writes it.
    pub path: String,
    /// Why.
    pub kind: Reason,
    /// Why, for a person.
    pub text: String,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.table.as_str(), self.column.as_str()) {
            ("", _) => return f.write_str(&self.text),
            (table, "") => write!(f, "{table}: {}", self.text)?,
            (table, column) => write!(f, "{table}.{column}: {}", self.text)?,
        }
        if self.path.is_empty() { Ok(()) } else { write!(f, " (from `{}`)", self.path) }
    }
}

impl std::error::Error for Rejection {}

/// The document as a whole.
pub(super) fn unreadable(text: &str) -> Rejection {
    of_document(Reason::Malformed, text)
}

pub(super) fn of_document(kind: Reason, text: &str) -> Rejection {
    Rejection {
        table: String::new(),
        column: String::new(),
        path: String::new(),
        kind,
        text: text.to_owned(),
    }
}

/// What a policy did to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Adjustment {
    /// No value: the default was written.
    NullToDefault,
    /// Invalid: NULL was written.
    InvalidToNull,
    /// Invalid: the default was written.
    InvalidToDefault,
    /// The nearest value that fits.
    Clamped,
    /// Written without what does not fit.
    Stripped,
    /// NaN or an infinity became text in JSON.
    Quoted,
    /// An unknown label became NULL.
    UnknownToNull,
    /// An unknown label became the one given for that case.
    UnknownToDefault,
}

impl Adjustment {
    /// A word for lists and counters.
    pub fn word(self) -> &'static str {
        match self {
            Self::NullToDefault => "null_to_default",
            Self::InvalidToNull => "invalid_to_null",
            Self::InvalidToDefault => "invalid_to_default",
            Self::Clamped => "clamped",
            Self::Stripped => "stripped",
            Self::Quoted => "quoted",
            Self::UnknownToNull => "unknown_to_null",
            Self::UnknownToDefault => "unknown_to_default",
        }
    }
}

/// How often a policy changed what was written to one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The collection.
    pub collection: CollectionId,
    /// Index into `Plan::tables`.
    pub table: usize,
    /// The column.
    pub column: String,
    /// What the policy did.
    pub what: Adjustment,
    /// How many values.
    pub count: u64,
    /// The first few documents.
    pub samples: Vec<Key>,
}
