//! One kind of error for everything that talks to a server.
//!
//! The kind decides what happens next (`slackwater::ops::policy` holds the table); the text says what we were doing
//! and what the server answered. Text is cleaned where the error is made: no value of a record, no
//! secret, ever gets in.

use std::fmt;

/// What went wrong, as far as it matters for what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No connection, or it broke: the server may come back.
    Unreachable,
    /// Lost against another transaction (deadlock, serialization): the same work again.
    Contention,
    /// Wrong password, no right: a person has to change something at the server.
    Denied,
    /// The server has no room (disk, memory, connections): wait and alarm.
    Exhausted,
    /// This record cannot be written as it is.
    Data,
    /// The source's log no longer reaches back to our position.
    HistoryLost,
    /// A newer process has taken over; this one must stop.
    Fenced,
    /// The migration was switched: there is nothing more to do.
    Switched,
    /// Part of what this process had belongs to another one now; the rest goes on.
    Revoked,
    /// The server or its schema is not what the migration needs.
    Unsuitable,
    /// Our own mistake.
    Bug,
}

/// An error with what we were doing and what the server said.
#[derive(Debug)]
pub struct Error {
    /// Decides what happens next.
    pub kind: Kind,
    /// What we were doing, for a person: "reading users".
    pub doing: String,
    /// What came back, cleaned.
    pub what: String,
    /// SQLSTATE or MongoDB error code, where there is one.
    pub code: Option<String>,
    /// The table and the constraint that Postgres names, where it does.
    pub constraint: Option<Box<(String, String)>>,
    /// What to do, where that is known better than from the kind.
    pub help: Option<Box<str>>,
}

/// Result of talking to a server.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of this kind.
    pub fn new(kind: Kind, doing: impl Into<String>, what: impl Into<String>) -> Self {
        Self { kind, doing: doing.into(), what: what.into(), code: None, constraint: None, help: None }
    }

    /// With the server's own code.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// With what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<Box<str>>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.what)?;
        match &self.code {
            Some(code) => write!(f, " ({code})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
