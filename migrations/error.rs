//! What can go wrong while data is made, written or judged.

use std::fmt;

/// An error of the source, of the target, or of what was found there.
#[derive(Debug)]
pub enum Error {
    /// MongoDB answered with an error.
    Source(mongodb::error::Error),
    /// Postgres answered with an error.
    Target(tokio_postgres::Error),
    /// Something is not as it has to be.
    Unexpected(String),
}

/// Result of making, writing or judging data.
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => write!(f, "MongoDB: {}", error.kind),
            Self::Target(error) => match error.as_db_error() {
                Some(server) => write!(f, "Postgres: {} ({})", server.message(), server.code().code()),
                None => write!(f, "Postgres: {error}"),
            },
            Self::Unexpected(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

impl From<mongodb::error::Error> for Error {
    fn from(error: mongodb::error::Error) -> Self {
        Self::Source(error)
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Target(error)
    }
}
