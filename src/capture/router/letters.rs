//! Dead letters are tried again: their documents are read anew and go through the log like any change.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use slackwater_connectors::error::{Error, Result};
use slackwater_connectors::retry::Pauses;
use slackwater_topics::{CollectionId, Event, Key, Op, Position};

use super::{LETTERS_AT_ONCE, Reread, Router, Word};
use crate::apply::batch::Batch;
use crate::ops::policy::{Action, action};

/// While a switch is under way, letters are not waited for that would be tried again within this.
const SOON: Duration = Duration::from_secs(2);

impl Router {
    /// Has all letters tried anew: what a former run has put off it may not have sent, and what a person has mended since is
    /// worth a try.
    pub(super) async fn hurry_letters(&mut self) -> Result<()> {
        let letters = keep!(self, control => control.retry_now(&self.plan.migration))?;
        if letters > 0 {
            tracing::info!(letters, "trying the dead letters again");
        }
        Ok(())
    }

    pub(super) async fn retry_letters(&mut self) -> Result<()> {
        if !self.letters.any() || !self.rereads.is_empty() {
            return Ok(());
        }
        let migration = self.plan.migration.clone();
        // Not insisted on: a target that is away must not keep the stream from being read.
        let early = if self.is_near() { SOON } else { Duration::ZERO };
        let due = match self.control.due_dead_letters(&migration, early, LETTERS_AT_ONCE).await {
            Ok(due) => due,
            Err(error) => return self.later(error).await,
        };
        let ids: Vec<i64> = due.iter().map(|row| row.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.control.put_off(&ids, 60_000).await {
            return self.later(error).await;
        }
        let mut by_collection: HashMap<CollectionId, Vec<Key>> = HashMap::new();
        // A record that is no event has no document to read again.
        for row in due.into_iter().filter(|row| row.letter.key.first() != Some(&0)) {
            let found =
                self.plan.collections.iter().position(|collection| collection.name == row.letter.collection);
            if let Some(index) = found {
                by_collection
                    .entry(CollectionId(index as u16))
                    .or_default()
                    .push(Key::from_bytes(&row.letter.key));
            }
        }
        for (collection, keys) in by_collection {
            let id = self.next_reread;
            self.next_reread -= 1;
            self.merge.recapture(id, collection, keys.iter().cloned().collect());
            let (mongo, say, after) = (self.mongo.clone(), self.wires.say.clone(), self.now);
            let name = self.plan.collections[usize::from(collection.0)].collection.clone();
            tokio::spawn(async move {
                let word = match mongo.lookup(&name, &keys, after).await {
                    Ok(lookup) => Word::Reread { id, collection, keys, found: lookup.found, at: lookup.at },
                    Err(error) => Word::RereadFailed { id, error },
                };
                // Nobody listens while everything stops.
                let _ = say.send(word);
            });
        }
        Ok(())
    }

    async fn later(&mut self, error: Error) -> Result<()> {
        match action(error.kind) {
            Action::Wait | Action::Retry => {
                tracing::debug!(%error, "dead letters could not be looked for; later");
                self.reconnect().await;
                Ok(())
            }
            Action::Quarantine | Action::Recopy | Action::Yield | Action::Halt => Err(error),
        }
    }

    pub(super) async fn publish_reread(&mut self, reread: Reread, changed: &HashSet<Key>) -> Result<()> {
        let Reread { collection, keys, mut found, .. } = reread;
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
            Batch { events, horizon: self.horizons.latest(), noted: self.noted(), bytes, ..Batch::default() };
        Box::pin(self.send(batch)).await
    }
}
