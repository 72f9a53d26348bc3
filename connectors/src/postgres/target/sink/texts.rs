//! What only the server can judge, asked over a sink's connection.

use super::Sink;
use crate::error::{Error, Result};
use crate::postgres::target::judge::{self, Judge};

impl Sink {
    /// To ask what only the server can judge.
    pub async fn judge(&mut self) -> Result<Judge<'_>> {
        self.tidy().await?;
        Ok(Judge { client: &self.client, specs: &self.specs })
    }

    pub(super) fn of_texts(&self, error: Error) -> Error {
        judge::of_texts(&self.specs, error)
    }
}
