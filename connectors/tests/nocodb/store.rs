//! A store in memory, which outlives a stream as a database would.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use slackwater_connectors::error::Result;
use slackwater_connectors::nocodb::{Hash, Remembers};
use slackwater_topics::{Key, Moment};

type Table = HashMap<Key, Option<Hash>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Store(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    tables: HashMap<String, Table>,
    through: Moment,
}

type Answer<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

impl Store {
    pub(crate) fn shared() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Keys, and how many of them have a hash.
    pub(crate) fn held(&self, table: &str) -> (usize, usize) {
        let kept = self.0.lock().expect("not poisoned");
        let Some(table) = kept.tables.get(table) else { return (0, 0) };
        (table.len(), table.values().flatten().count())
    }
}

impl Remembers for Store {
    fn load<'a>(&'a self, table: &'a str) -> Answer<'a, Vec<(Key, Option<Hash>)>> {
        let kept = self.0.lock().expect("not poisoned");
        let table = kept.tables.get(table).cloned().unwrap_or_default();
        Box::pin(async { Ok(table.into_iter().collect()) })
    }

    fn sent_through(&self) -> Answer<'_, Moment> {
        let through = self.0.lock().expect("not poisoned").through;
        Box::pin(async move { Ok(through) })
    }

    fn sending<'a>(&'a self, table: &'a str, keys: &'a [Key], at: Moment) -> Answer<'a, ()> {
        let mut kept = self.0.lock().expect("not poisoned");
        kept.through = kept.through.max(at);
        let table = kept.tables.entry(table.to_owned()).or_default();
        table.extend(keys.iter().map(|key| (key.clone(), None)));
        Box::pin(async { Ok(()) })
    }

    fn safe<'a>(&'a self, table: &'a str, sent: &'a [(Key, Hash)], gone: &'a [Key]) -> Answer<'a, ()> {
        let mut kept = self.0.lock().expect("not poisoned");
        let table = kept.tables.entry(table.to_owned()).or_default();
        for (key, hash) in sent {
            assert!(table.insert(key.clone(), Some(*hash)).is_some(), "a key that was never sent");
        }
        table.retain(|key, _| !gone.contains(key));
        Box::pin(async { Ok(()) })
    }
}
