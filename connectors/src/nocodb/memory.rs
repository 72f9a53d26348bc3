//! What was handed out, and the store that keeps it whatever is killed.
//!
//! Every decision that changes the store is made and written under one lock, so that what is written later was decided later.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use slackwater_topics::{CollectionId, Key, Moment};

use super::mirror::{Chunk, Mirror, Safe};
use super::record::{Hash, Record};
use crate::error::Result;
use crate::source::ChangeKind;

/// A key, with the hash of the content that the log has safely taken; none where that is not known.
pub type Kept = (Key, Option<Hash>);

/// Keeps what the target has of a source's tables. A call that returns has been written durably; all of it, or nothing.
///
/// A process that was superseded must not be able to write: its calls end with [`crate::error::Kind::Fenced`].
pub trait Remembers: Send + Sync {
    /// The keys of a table.
    fn load<'a>(&'a self, table: &'a str) -> BoxFuture<'a, Result<Vec<Kept>>>;

    /// The largest moment that [`Self::sending`] was ever told.
    fn sent_through(&self) -> BoxFuture<'_, Result<Moment>>;

    /// These are about to be handed out, at this moment: keys that are not there come in, and all of them lose their hash.
    fn sending<'a>(&'a self, table: &'a str, keys: &'a [Key], at: Moment) -> BoxFuture<'a, Result<()>>;

    /// The log has safely taken these contents; `gone` have no row any more and leave.
    fn safe<'a>(
        &'a self,
        table: &'a str,
        kept: &'a [(Key, Hash)],
        gone: &'a [Key],
    ) -> BoxFuture<'a, Result<()>>;
}

/// What was handed out of every table that is followed.
pub(super) struct Memory {
    /// Held from a decision until it is written.
    store: tokio::sync::Mutex<Arc<dyn Remembers>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tables: HashMap<CollectionId, Known>,
    /// What the stream handed out and nobody has called safe yet, in its order.
    handed_out: VecDeque<(Moment, CollectionId, Vec<Key>)>,
}

struct Known {
    name: String,
    mirror: Mirror,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

impl Memory {
    /// Everything that the store has.
    pub(super) async fn load(
        store: Arc<dyn Remembers>,
        tables: &[(CollectionId, String)],
    ) -> Result<(Self, Moment)> {
        let mut state = State::default();
        for (collection, name) in tables {
            let mirror = Mirror::of(store.load(name).await?);
            state.tables.insert(*collection, Known { name: name.clone(), mirror });
        }
        let through = store.sent_through().await?;
        Ok((Self { store: store.into(), state: Mutex::new(state) }, through))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at a table, where it is followed.
    fn with<T>(&self, collection: CollectionId, look: impl FnOnce(&mut Mirror) -> T) -> Option<T> {
        self.state().tables.get_mut(&collection).map(|known| look(&mut known.mirror))
    }

    fn name(&self, collection: CollectionId) -> String {
        self.state().tables.get(&collection).map(|known| known.name.clone()).unwrap_or_default()
    }

    /// The collection of a table that is followed under this name.
    pub(super) fn collection(&self, table: &str) -> Option<CollectionId> {
        let state = self.state();
        state.tables.iter().find(|(_, known)| known.name == table).map(|(collection, _)| *collection)
    }

    /// A stream begins: what an earlier one handed out may have reached nobody.
    pub(super) async fn restart(&self) {
        let _store = self.store.lock().await;
        let mut state = self.state();
        state.handed_out.clear();
        for known in state.tables.values_mut() {
            known.mirror.restart();
        }
    }

    /// How many records a table had when it was looked at last.
    pub(super) fn len(&self, collection: CollectionId) -> usize {
        self.with(collection, |mirror| mirror.len()).unwrap_or_default()
    }

    /// A sweep of the table begins.
    pub(super) fn begin(&self, collection: CollectionId) {
        self.with(collection, Mirror::begin);
    }

    /// What the sweep has not seen.
    pub(super) fn missing(&self, collection: CollectionId) -> Vec<Key> {
        self.with(collection, |mirror| mirror.missing()).unwrap_or_default()
    }

    /// What of a page is news; the store knows that it is on its way.
    pub(super) async fn news(
        &self,
        collection: CollectionId,
        records: Vec<Record>,
        at: Moment,
    ) -> Result<Vec<(ChangeKind, Record)>> {
        let store = self.store.lock().await;
        let news: Vec<(ChangeKind, Record)> = {
            let mut state = self.state();
            let Some(known) = state.tables.get_mut(&collection) else { return Ok(Vec::new()) };
            let look = |record: Record| Some((known.mirror.look(&record.key, &record.hash)?, record));
            records.into_iter().filter_map(look).collect()
        };
        if news.is_empty() {
            return Ok(news);
        }
        let keys: Vec<Key> = news.iter().map(|(_, record)| record.key.clone()).collect();
        store.sending(&self.name(collection), &keys, at).await?;
        let mut state = self.state();
        if let Some(known) = state.tables.get_mut(&collection) {
            for (_, record) in &news {
                known.mirror.stream(record.key.clone(), record.hash, at);
            }
        }
        state.handed_out.push_back((at, collection, keys));
        Ok(news)
    }

    /// These are gone; the store knows that this is on its way.
    pub(super) async fn gone(&self, collection: CollectionId, keys: &[Key], at: Moment) -> Result<()> {
        let store = self.store.lock().await;
        store.sending(&self.name(collection), keys, at).await?;
        let mut state = self.state();
        if let Some(known) = state.tables.get_mut(&collection) {
            for key in keys {
                known.mirror.delete(key, at);
            }
        }
        state.handed_out.push_back((at, collection, keys.to_vec()));
        Ok(())
    }

    /// Everything that the stream handed out at or before this moment is safe.
    pub(super) async fn safe(&self, through: Moment) -> Result<()> {
        let store = self.store.lock().await;
        loop {
            let (collection, keys, safe) = {
                let state = self.state();
                match state.handed_out.front() {
                    Some((at, collection, keys)) if *at <= through => {
                        let known = state.tables.get(collection);
                        let safe = known.map(|known| known.mirror.safe(keys, *at)).unwrap_or_default();
                        (*collection, keys.len(), safe)
                    }
                    _ => return Ok(()),
                }
            };
            self.keep(&**store, collection, safe).await?;
            tracing::trace!(keys, "what was handed out is safe");
            self.state().handed_out.pop_front();
        }
    }

    /// A chunk whose read ended at `until` is in the log, with these keys.
    pub(super) async fn copied(&self, collection: CollectionId, keys: &[Key], until: Moment) -> Result<()> {
        let store = self.store.lock().await;
        let safe = self.with(collection, |mirror| mirror.copied(keys, until)).unwrap_or_default();
        self.keep(&**store, collection, safe).await
    }

    async fn keep(&self, store: &dyn Remembers, collection: CollectionId, safe: Safe) -> Result<()> {
        if safe == Safe::default() {
            return Ok(());
        }
        store.safe(&self.name(collection), &safe.kept, &safe.gone).await?;
        self.with(collection, |mirror| mirror.kept(&safe));
        Ok(())
    }

    /// A chunk is about to be handed out; its read ended at `until`.
    pub(super) async fn copying(
        &self,
        collection: CollectionId,
        read: &Chunk<'_>,
        until: Moment,
    ) -> Result<()> {
        let store = self.store.lock().await;
        let keys = self.with(collection, |mirror| mirror.to_copy(read)).unwrap_or_default();
        if !keys.is_empty() {
            store.sending(&self.name(collection), &keys, until).await?;
        }
        self.with(collection, |mirror| mirror.copy(read, until));
        Ok(())
    }

    /// Records that were looked up are about to be handed out.
    pub(super) async fn looked_up(
        &self,
        collection: CollectionId,
        found: &[(Key, Hash)],
        at: Moment,
    ) -> Result<()> {
        let store = self.store.lock().await;
        let keys = self.with(collection, |mirror| mirror.to_look_up(found)).unwrap_or_default();
        if keys.is_empty() {
            return Ok(());
        }
        store.sending(&self.name(collection), &keys, at).await?;
        self.with(collection, |mirror| mirror.looked_up(keys, at));
        Ok(())
    }
}
