//! Repairs: documents whose rows a verification has found to be wrong are read again and go through the log like any change.
//!
//! **Crash**: a repair is forgotten once it is in the log. One that is lost behind that is found by the verification that follows.

use std::collections::HashMap;

use slackwater_topics::{CollectionId, Key};

use super::{Done, LETTERS_AT_ONCE, Router};
use crate::capture::merge::RereadId;
use crate::ops::persist::passes;
use crate::ops::store::ask;

impl Router {
    /// Reads again what is asked for of our collections.
    pub(super) async fn send_repairs(&mut self) -> Done {
        if !self.rereads.is_empty() || !self.repairs.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> =
            self.copying.keys().map(|id| self.plan.collection(*id).name.as_str()).collect();
        let wanted = match self.store.control().await {
            Ok(control) => control.repairs(&self.plan.migration, &names, LETTERS_AT_ONCE).await,
            Err(error) => Err(error),
        };
        // Not insisted on: a target that is away must not keep the stream from being read.
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(error) if passes(&error) => {
                tracing::debug!(%error, "it is not known whether a repair is asked for; later");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let mut by_collection: HashMap<CollectionId, (Vec<i64>, Vec<Key>)> = HashMap::new();
        for (number, collection, key) in wanted {
            if let Some(id) = self.plan.id_of(&collection) {
                let (numbers, keys) = by_collection.entry(id).or_default();
                numbers.push(number);
                keys.push(Key::from_bytes(&key));
            }
        }
        for (collection, (numbers, keys)) in by_collection {
            let id = self.read_again(collection, keys);
            self.repairs.insert(id, numbers);
        }
        Ok(())
    }

    /// What was read again is in the log.
    pub(super) async fn repaired(&mut self, id: RereadId) -> Done {
        let Some(numbers) = self.repairs.remove(&id) else { return Ok(()) };
        tracing::info!(documents = numbers.len(), "documents were sent again to repair their rows");
        ask!(self.store, control => control.forget_repairs(&numbers))
    }
}
