//! What an operator has accepted, where it would have stopped the cutover.

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::cutover::{CutoverRow, CutoverState};
use uuid::Uuid;

use super::{Abandon, Leader};
use crate::cutover::accept::both;

impl Leader<'_> {
    /// Accepts what was accepted when the cutover began that this process goes on with.
    pub(super) fn accept_again(&mut self, row: Option<&CutoverRow>) {
        if let Some(row) = row.filter(|row| row.state != CutoverState::Reverted) {
            self.accepted = both(&row.accepted, &self.accepted);
        }
    }

    /// Notes it in the record, with what there is of it by now.
    pub(super) async fn record_accepted(&self, id: Uuid) -> Result<()> {
        if self.accepted.is_empty() {
            return Ok(());
        }
        self.control.accept_at_cutover(id, &self.accepted).await
    }

    /// Goes on where this is accepted; abandons the cutover otherwise.
    pub(super) fn unless_accepted(&mut self, name: &str, text: &str) -> std::result::Result<(), Abandon> {
        match self.accepted.note(name, text) {
            true => Ok(()),
            false => Err(Abandon::Because(format!("{name}: {text}"))),
        }
    }

    /// How many dead letters the freeze waits for: all of them, or those that may still become rows by themselves if the others are
    /// accepted. Documents that wait for a table are among both.
    pub(super) async fn letters_to_wait_for(&self, id: Uuid) -> Result<u64> {
        let name = &self.migration.name;
        if self.accepted.has("dead_letters") {
            return self.control.letters_on_their_way(name, id).await;
        }
        let letters = self.control.dead_letter_counts(name).await?;
        Ok(letters.iter().map(|row| row.count).sum())
    }
}
