//! What the target has of one table, as far as we know: a hash for each key. Pure.
//!
//! # Invariant
//!
//! What the store keeps holds whatever is killed: each key that the target may have a row of is in the store, and where a key has a
//! hash there, the log has safely taken exactly that content, or a chunk that has not been read yet will show it. So a key loses its
//! hash in the store before any other content of it is handed out, be it by the stream, in a chunk or by a look-up, and gets the new one
//! when that is safe.
//!
//! What is in memory knows more: the content that was handed out last. It says whether a record is news, and is thrown away with the
//! stream that it was handed out by.

use std::collections::{HashMap, HashSet};

use slackwater_topics::{Key, Moment};

use super::record::Hash;
use crate::source::ChangeKind;

/// What is known of a key.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: Hash,
    /// When the content was handed out.
    at: Moment,
    state: State,
    /// The last sweep that has seen it.
    seen: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The store has the hash.
    Kept,
    /// The stream has handed it out.
    Streamed,
    /// It is in a chunk.
    Copied,
    /// The target may have anything.
    Unknown,
    /// The stream has handed out that it is gone.
    Gone,
}

/// One table.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    entries: HashMap<Key, Entry>,
    sweep: u32,
    /// The last delete that is safe and forgotten. A chunk that began before it may leave a key out that is there again.
    forgotten: Moment,
}

/// A chunk that was read.
pub(super) struct Chunk<'a> {
    pub(super) records: &'a [(Key, Hash)],
    /// Whether it would show this key if there were a record of it.
    pub(super) covers: &'a (dyn Fn(&Key) -> bool + Sync),
    /// Its read began after this.
    pub(super) since: Moment,
}

/// What the store has to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Safe {
    pub(super) kept: Vec<(Key, Hash)>,
    pub(super) gone: Vec<Key>,
}

impl Mirror {
    /// As the store has it.
    pub(super) fn of(kept: Vec<(Key, Option<Hash>)>) -> Self {
        let entry = |hash: Option<Hash>| Entry {
            hash: hash.unwrap_or_default(),
            at: Moment::default(),
            state: if hash.is_some() { State::Kept } else { State::Unknown },
            seen: 0,
        };
        Self { entries: kept.into_iter().map(|(key, hash)| (key, entry(hash))).collect(), ..Self::default() }
    }

    /// Nobody knows what became of what was handed out: only the store counts.
    pub(super) fn restart(&mut self) {
        for entry in self.entries.values_mut() {
            if entry.state != State::Kept {
                entry.state = State::Unknown;
            }
        }
    }

    /// How many records the table had when it was looked at last.
    pub(super) fn len(&self) -> usize {
        self.entries.values().filter(|entry| entry.state != State::Gone).count()
    }

    /// Whether the content of this key is news; a sweep has seen it.
    pub(super) fn look(&mut self, key: &Key, hash: &Hash) -> Option<ChangeKind> {
        let sweep = self.sweep;
        let Some(entry) = self.entries.get_mut(key) else { return Some(ChangeKind::Insert) };
        entry.seen = sweep;
        match entry.state {
            State::Gone => Some(ChangeKind::Insert),
            State::Unknown => Some(ChangeKind::Replace),
            _ => (entry.hash != *hash).then_some(ChangeKind::Replace),
        }
    }

    /// The stream hands it out. The store has the key without a hash by now.
    pub(super) fn stream(&mut self, key: Key, hash: Hash, at: Moment) {
        let entry = Entry { hash, at, state: State::Streamed, seen: self.sweep };
        self.entries.insert(key, entry);
    }

    /// The stream hands out that it is gone. The store has the key without a hash by now.
    pub(super) fn delete(&mut self, key: &Key, at: Moment) {
        if let Some(entry) = self.entries.get_mut(key) {
            (entry.state, entry.at) = (State::Gone, at);
        }
    }

    /// A sweep begins.
    pub(super) fn begin(&mut self) {
        self.sweep += 1;
    }

    /// What it has not seen.
    pub(super) fn missing(&self) -> Vec<Key> {
        let unseen = |entry: &Entry| entry.seen != self.sweep && entry.state != State::Gone;
        self.entries.iter().filter(|(_, entry)| unseen(entry)).map(|(key, _)| key.clone()).collect()
    }

    /// What the store has to be told before a chunk is handed out: keys that it has to learn, and those whose hash the chunk belies, be it
    /// that it shows something else or that it does not show them (a record may be gone, and come again as it was). What the stream
    /// handed out after `since` is left out of the chunk by whoever applies it, so that stays what counts.
    pub(super) fn to_copy(&self, read: &Chunk<'_>) -> Vec<Key> {
        let changes = |key: &Key, hash: &Hash| match self.entries.get(key) {
            None => true,
            Some(entry) => entry.state == State::Kept && entry.at <= read.since && entry.hash != *hash,
        };
        let shown = read.records.iter().filter(|(key, hash)| changes(key, hash)).map(|(key, _)| key.clone());
        let lacking = self.lacking(read).into_iter();
        shown.chain(lacking.filter(|key| self.entries[key].state == State::Kept)).collect()
    }

    /// Keys of the chunk's range that it does not show.
    fn lacking(&self, read: &Chunk<'_>) -> Vec<Key> {
        let shown: HashSet<&Key> = read.records.iter().map(|(key, _)| key).collect();
        let lacks = |key: &Key, entry: &Entry| {
            let sent = matches!(entry.state, State::Kept | State::Streamed | State::Copied);
            sent && entry.at <= read.since && (read.covers)(key) && !shown.contains(key)
        };
        self.entries.iter().filter(|(key, entry)| lacks(key, entry)).map(|(key, _)| key.clone()).collect()
    }

    /// The chunk is handed out; `until` is when its read ended. The store knows.
    pub(super) fn copy(&mut self, read: &Chunk<'_>, until: Moment) {
        for key in self.lacking(read) {
            if let Some(entry) = self.entries.get_mut(&key) {
                (entry.state, entry.at) = (State::Unknown, until);
            }
        }
        for (key, hash) in read.records {
            // No sweep has seen it: the read may be older than the sweep that is under way.
            let copied = Entry { hash: *hash, at: until, state: State::Copied, seen: 0 };
            let state = if self.forgotten > read.since { State::Unknown } else { State::Copied };
            let entry = self.entries.entry(key.clone()).or_insert(Entry { state, ..copied });
            let same = entry.hash == *hash && matches!(entry.state, State::Kept | State::Streamed);
            if entry.at <= read.since && !same {
                *entry = Entry { seen: entry.seen, ..copied };
            }
        }
    }

    /// The chunk whose read ended then is in the log, with these keys.
    pub(super) fn copied(&self, keys: &[Key], until: Moment) -> Safe {
        let of_chunk = |key: &Key| match self.entries.get(key) {
            Some(entry) if entry.state == State::Copied && entry.at == until => {
                Some((key.clone(), entry.hash))
            }
            _ => None,
        };
        Safe { kept: keys.iter().filter_map(of_chunk).collect(), gone: Vec::new() }
    }

    /// Of what the stream handed out at this moment: what is still the last of its key.
    pub(super) fn safe(&self, keys: &[Key], at: Moment) -> Safe {
        let mut safe = Safe::default();
        for key in keys {
            match self.entries.get(key) {
                Some(entry) if entry.at == at && entry.state == State::Streamed => {
                    safe.kept.push((key.clone(), entry.hash));
                }
                Some(entry) if entry.at == at && entry.state == State::Gone => safe.gone.push(key.clone()),
                _ => {}
            }
        }
        safe
    }

    /// The store has it now.
    pub(super) fn kept(&mut self, safe: &Safe) {
        for (key, _) in &safe.kept {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.state = State::Kept;
            }
        }
        for key in &safe.gone {
            if let Some(entry) = self.entries.remove(key) {
                self.forgotten = self.forgotten.max(entry.at);
            }
        }
    }

    /// Of these, which a look-up has found: those whose content is not what was handed out last.
    pub(super) fn to_look_up(&self, found: &[(Key, Hash)]) -> Vec<Key> {
        let differs = |key: &Key, hash: &Hash| match self.entries.get(key) {
            Some(entry) => {
                entry.hash != *hash || matches!(entry.state, State::Unknown | State::Gone | State::Copied)
            }
            None => true,
        };
        found.iter().filter(|(key, hash)| differs(key, hash)).map(|(key, _)| key.clone()).collect()
    }

    /// They are handed out, and may be older or newer than what the stream brings: the stream brings them again. The store knows.
    pub(super) fn looked_up(&mut self, keys: Vec<Key>, at: Moment) {
        for key in keys {
            let unknown = Entry { hash: Hash::default(), at, state: State::Unknown, seen: 0 };
            let entry = self.entries.entry(key).or_insert(unknown);
            *entry = Entry { seen: entry.seen, ..unknown };
        }
    }
}

#[cfg(test)]
#[path = "mirror_simulation.rs"]
mod simulation;
