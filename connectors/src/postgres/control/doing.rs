//! What was being done when Postgres refused: our errors name it.

use crate::error::Result;
use crate::postgres::error::explain;
use crate::postgres::progress::Answer;

/// Makes one of our errors of the driver's.
pub(super) trait Doing<T> {
    /// `doing` completes "while …".
    fn doing(self, doing: &str) -> Result<T>;
}

impl<T> Doing<T> for Answer<T> {
    fn doing(self, doing: &str) -> Result<T> {
        self.map_err(|error| explain(doing, &error))
    }
}
