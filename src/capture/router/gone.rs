//! Collections that are gone at the source after they were copied. People may be working on their rows, so these stay until somebody
//! has said what becomes of them, or until the collection is there again. `docs/design/sources.md` has the reasons.

use std::time::{Duration, Instant};

use slackwater_connectors::postgres::control::CopyState;
use slackwater_connectors::postgres::control::gone::Word;
use slackwater_connectors::postgres::control::ledger::Incident;
use slackwater_topics::CollectionId;

use super::{Copying, Done, Router};
use crate::ops::persist::{Stopped, passes};
use crate::ops::store::ask;

/// How often it is looked whether one is there again: a collection that is made without a document sends no change.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Router {
    /// Nobody has said what becomes of its rows.
    pub(super) fn is_parked(&self, collection: CollectionId) -> bool {
        self.gone.get(&collection) == Some(&None)
    }

    /// Of these collections, of which history was lost, those that are there; the others are parked. All of them, where drops are
    /// followed. `dropped`: one was dropped, so what cannot be asked for is gone.
    pub(super) async fn there(
        &mut self,
        collections: Vec<CollectionId>,
        dropped: bool,
        text: &str,
    ) -> Result<Vec<CollectionId>, Stopped> {
        if self.follows_drops {
            return Ok(collections);
        }
        let mut there = Vec::with_capacity(collections.len());
        for id in collections {
            // One that is being copied again has its rows already, and keeps them unless somebody has just said otherwise.
            let asked = !self.followed.contains(&id);
            let has_come = |copying: &Copying| copying.state == CopyState::Copied || copying.recopy && asked;
            let copied = self.copying.get(&id).is_some_and(has_come);
            let kept = self.gone.get(&id) == Some(&Some(Word::Keep));
            if !copied && !kept {
                there.push(id);
                continue;
            }
            if self.source.has(&self.plan.collection(id).collection).await.unwrap_or(!dropped) {
                there.push(id);
            } else if !kept && !self.is_parked(id) {
                // A collection that never was, or that had nothing, leaves nothing to ask about.
                let tables = self.tables_of(id);
                let asked = async { self.store.control().await?.has_rows(&tables).await };
                // Where nobody can say there may be some.
                if asked.await.unwrap_or(true) {
                    self.park(id, dropped, text).await?;
                } else {
                    there.push(id);
                }
            }
        }
        Ok(there)
    }

    async fn park(&mut self, id: CollectionId, dropped: bool, text: &str) -> Done {
        let name = self.name(id);
        let text = &gone_because(dropped, text);
        tracing::warn!(
            collection = name,
            text,
            "it is gone at the source; its rows stay, and the switch is blocked, until `slackwater resolve` says what becomes of them"
        );
        let why = Incident { kind: "gone", collection: Some(&name), text };
        ask!(self.store, control => control.note_gone(&name, why))?;
        self.gone.insert(id, None);
        Ok(())
    }

    /// Goes on with collections that are there again, or that a person has spoken of. Not insisted on: a server that is away must not
    /// keep the stream from being read.
    pub(super) async fn resolve_gone(&mut self) -> Done {
        if self.gone.is_empty() {
            return Ok(());
        }
        let migration = self.plan.migration.clone();
        let read = async { self.store.control().await?.gone(&migration).await };
        let rows = match read.await {
            Ok(rows) => rows,
            Err(error) if passes(&error) => {
                tracing::debug!(%error, "it is not known what becomes of collections that are gone; later");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let mut followed = Vec::new();
        for row in rows {
            let Some(id) = self.plan.id_of(&row.collection).filter(|id| self.gone.contains_key(id)) else {
                continue;
            };
            match row.word {
                Some(Word::Follow) => followed.push(id),
                word => drop(self.gone.insert(id, word)),
            }
        }
        let mut back = Vec::new();
        if self.looked_for_gone.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.looked_for_gone = Some(Instant::now());
            for id in self.gone.keys().copied().filter(|id| self.is_parked(*id) && !followed.contains(id)) {
                if self.source.has(&self.plan.collection(id).collection).await == Some(true) {
                    back.push(id);
                }
            }
        }
        self.followed.extend(&followed);
        self.copy_again(followed, "followed", "as a person said, its rows go as it went").await?;
        self.copy_again(back, "there_again", "it is there again").await
    }

    /// Whether rows of a table are kept for a collection that is gone: then nobody knows which of the others may go.
    pub(super) fn keeps_rows_of(&self, collection: CollectionId) -> bool {
        let mine = self.tables_of(collection);
        self.gone.keys().any(|id| self.tables_of(*id).iter().any(|table| mine.contains(table)))
    }

    /// The tables of a collection, each with its schema.
    fn tables_of(&self, id: CollectionId) -> Vec<(String, String)> {
        let tables = self.plan.tables_of(&[id]).into_iter().map(|table| &self.plan.tables[table].table);
        tables.map(|table| (table.schema.clone(), table.name.clone())).collect()
    }
}

/// Why a collection is gone, in words: where it is only missed, `text` says why it was looked for.
fn gone_because(dropped: bool, text: &str) -> String {
    match dropped {
        true => text.to_owned(),
        false => format!("it was not there when it was to be copied again ({text})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_missed_is_not_gone_for_the_reason_of_a_copy() {
        assert_eq!(gone_because(true, "collection legacy.a was dropped"), "collection legacy.a was dropped");
        let text = gone_because(false, "a person asked for it");
        assert_eq!(text, "it was not there when it was to be copied again (a person asked for it)");
    }
}
