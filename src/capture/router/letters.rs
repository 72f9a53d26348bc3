//! Dead letters are tried again: their documents are read again and go through the log like any change.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::ledger::DeadLetterRow;
use slackwater_topics::{CollectionId, Event, Key, Op, Position};

use super::{CopierMessage, Done, LETTERS_AT_ONCE, Reread, Router};
use crate::capture::merge::RereadId;
use crate::letters;
use crate::log::Batch;
use crate::ops::persist::passes;
use crate::ops::store::ask;

/// While a cutover is under way, letters are not waited for that would be tried again within this.
const SOON: Duration = Duration::from_secs(2);
/// How long a letter whose document is on its way through the log is not tried again.
const POSTPONE_MS: i64 = 60_000;

impl Router {
    /// Has all letters tried again: what a former run has postponed it may not have sent, and what a person has mended since is
    /// worth a try.
    pub(super) async fn retry_all_letters(&mut self) -> Done {
        let migration = self.plan.migration.clone();
        let letters = ask!(self.store, control => control.retry_now(&migration))?;
        if letters > 0 {
            tracing::info!(letters, "trying the dead letters again");
        }
        Ok(())
    }

    pub(super) async fn retry_letters(&mut self) -> Done {
        if !self.letters.any() || !self.rereads.is_empty() {
            return Ok(());
        }
        // Not insisted on: a target that is away must not keep the stream from being read.
        let due = match self.due_letters().await {
            Ok(due) => due,
            Err(error) if passes(&error) => {
                tracing::debug!(%error, "dead letters could not be looked for; later");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let mut by_collection: HashMap<CollectionId, Vec<Key>> = HashMap::new();
        // A record that is not an event has no document to read again.
        for row in due.into_iter().filter(|row| !letters::is_of_record(&row.letter)) {
            let ours = |id: &CollectionId| self.copying.contains_key(id);
            if let Some(id) = self.plan.id_of(&row.letter.collection).filter(ours) {
                by_collection.entry(id).or_default().push(Key::from_bytes(&row.letter.key));
            }
        }
        for (collection, keys) in by_collection {
            self.read_again(collection, keys);
        }
        Ok(())
    }

    /// Reads these documents again, and sends them through the log like any change.
    pub(super) fn read_again(&mut self, collection: CollectionId, keys: Vec<Key>) -> RereadId {
        let id = self.next_reread;
        self.next_reread += 1;
        self.merge.recapture(id, collection, keys.iter().cloned().collect());
        let (source, to_router, after) = (self.source.clone(), self.inputs.to_router.clone(), self.now);
        let name = self.plan.collection(collection).collection.clone();
        tokio::spawn(async move {
            let message = match source.look_up(&name, &keys, after).await {
                Ok(lookup) => {
                    CopierMessage::Reread { id, collection, keys, found: lookup.found, at: lookup.at }
                }
                Err(error) => CopierMessage::RereadFailed { id, error },
            };
            // Nobody listens while everything stops.
            let _ = to_router.send(message);
        });
        id
    }

    /// Letters that are due, postponed for as long as their documents are on their way.
    async fn due_letters(&mut self) -> Result<Vec<DeadLetterRow>> {
        let early = if self.is_near() { SOON } else { Duration::ZERO };
        // Those of other sources are their captures' to try.
        let ours: Vec<&str> = self.copying.keys().map(|id| self.plan.collection(*id).name.as_str()).collect();
        let control = self.store.control().await?;
        let due = control.due_dead_letters(&self.plan.migration, &ours, early, LETTERS_AT_ONCE).await?;
        self.more_letters = due.len() as i64 == LETTERS_AT_ONCE;
        let ids: Vec<i64> = due.iter().map(|row| row.id).collect();
        if !ids.is_empty() {
            control.postpone(&ids, POSTPONE_MS).await?;
        }
        Ok(due)
    }

    pub(super) async fn publish_reread(&mut self, reread: Reread, changed: &HashSet<Key>) -> Done {
        let Reread { id, collection, keys, mut found } = reread;
        let events: Vec<Event> = keys
            .into_iter()
            .filter(|key| !changed.contains(key))
            .map(|key| {
                let document = found.remove(&key).unwrap_or_default();
                let op = if document.is_empty() { Op::Delete } else { Op::Snapshot };
                // Read and not streamed: it has no place in the source's order, only in the log's.
                Event { collection, key, op, document, position: Position::default(), time: 0 }
            })
            .collect();
        let bytes = events.iter().map(|event| event.document.len() + 64).sum();
        let batch =
            Batch { events, horizon: self.horizons.latest(), seen: self.seen(), bytes, ..Batch::default() };
        Box::pin(self.append(batch)).await?;
        self.repaired(id).await
    }
}
