//! Where the copy and the stream become one order.
//!
//! # Invariant
//!
//! What is published, in the order in which it is published, never takes a document back: each publication of a
//! document shows a state at least as new as the one before it, and the last one shows its last state.
//!
//! # How
//!
//! A collection is cut into ranges of `_id`, the *chunks*. A chunk is read between two operation times: everything at or
//! before `from` is in the read (the server was told to wait for it), nothing after `until` is. A read chunk is held until
//! the target has everything that the stream brought up to `until`; only then it is applied, less the
//! documents that the stream showed to have changed after `from`.
//!
//! ```text
//!              from            until        applied ≥ until
//!    ───────────┼────────────────┼──────────────┼───────────────▶ stream
//!     open      │    reading     │     held     │ applying │ done
//!     dropped   │ published, and taken out of   │  waits   │ published
//!               │ what was read                 │          │
//! ```
//!
//! A change in an open chunk need not travel: the read that is still to come will show it or something newer. So the
//! stream costs little while the copy lags behind, rows of a chunk do not exist before the chunk is applied (they can be
//! copied in instead of merged), and a reference never points at a row of a collection that is copied later.
//! Deletes always travel: after a crash an open chunk may have left rows from the stream
//! behind, and what is deleted would not be read again. Such a delete is never resolved to a document that is there again:
//! that may be newer than what the chunk has read.
//!
//! # After a crash
//!
//! Chunks that were not marked done in the target's own transaction are open again and are read again, from a later
//! `from`. Rows that the stream had written into them meanwhile are older than that read.

use std::cmp::Ordering;
use std::collections::HashSet;

use slackwater_topics::{CollectionId, Key, Moment, Range, Value, compare};

/// Identifies a chunk for the whole life of a migration.
pub(crate) type ChunkId = i64;

/// Identifies documents that are read again out of turn, for the life of a process.
pub(crate) type RereadId = u64;

/// What a chunk is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// As the control store has it.
    Stored(ChunkId),
    /// The control store has given it no id yet: it is what was left of this chunk.
    RestOf(ChunkId),
}

/// A range of one collection, and how far it has come.
#[derive(Debug)]
struct Chunk {
    name: Name,
    range: Range,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Open,
    Reading { from: Moment, changed: HashSet<Key> },
    Held { from: Moment, until: Moment, changed: HashSet<Key> },
    Applying,
    Done,
}

/// One collection's copy. Chunks are sorted and share nothing.
#[derive(Debug)]
enum Copy {
    /// Not cut into chunks yet; all of it is open.
    Unplanned,
    Chunks(Vec<Chunk>),
    Copied,
}

/// Documents that are read again out of turn: dead letters, repairs.
#[derive(Debug)]
struct Recapture {
    id: RereadId,
    collection: CollectionId,
    keys: HashSet<Key>,
    changed: HashSet<Key>,
    until: Option<Moment>,
}

/// What becomes of a change from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The copy will show it.
    Drop,
    /// It travels.
    Publish,
    /// Stays a delete or is dropped; if the document was re-created, the copy will show it.
    Remove,
    /// It may travel only after this chunk has been applied.
    Wait(ChunkId),
}

/// A change from the stream, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) collection: CollectionId,
    pub(crate) id: Value<'a>,
    pub(crate) key: &'a Key,
    pub(crate) is_delete: bool,
    pub(crate) time: Moment,
}

/// The state of all copies. Pure: it does nothing but decide.
#[derive(Debug)]
pub(crate) struct Merge {
    copies: Vec<Copy>,
    recaptures: Vec<Recapture>,
}

impl Merge {
    /// This many collections, none of them copied yet.
    pub(crate) fn new(collections: usize) -> Self {
        Self { copies: (0..collections).map(|_| Copy::Unplanned).collect(), recaptures: Vec::new() }
    }

    fn copy(&mut self, collection: CollectionId) -> &mut Copy {
        &mut self.copies[usize::from(collection.0)]
    }

    /// The collection is (again) uncopied: everything that was under way for it is void.
    pub(crate) fn reset(&mut self, collection: CollectionId) {
        *self.copy(collection) = Copy::Unplanned;
        self.recaptures.retain(|recapture| recapture.collection != collection);
    }

    /// The collection is complete.
    pub(crate) fn copied(&mut self, collection: CollectionId) {
        *self.copy(collection) = Copy::Copied;
    }

    /// Cuts the collection. What no chunk covers was applied in a former run.
    pub(crate) fn plan(&mut self, collection: CollectionId, chunks: Vec<(ChunkId, Range)>) {
        let mut chunks: Vec<Chunk> = chunks
            .into_iter()
            .map(|(id, range)| Chunk { name: Name::Stored(id), range, stage: Stage::Open })
            .collect();
        chunks.sort_by(|a, b| lower_bounds(&a.range, &b.range));
        *self.copy(collection) = Copy::Chunks(chunks);
    }

    /// The next open chunk of the collection.
    pub(crate) fn next_open(&self, collection: CollectionId) -> Option<(ChunkId, Range)> {
        let Copy::Chunks(chunks) = &self.copies[usize::from(collection.0)] else { return None };
        let mut open = chunks.iter().filter(|chunk| matches!(chunk.stage, Stage::Open));
        open.find_map(|chunk| match chunk.name {
            Name::Stored(id) => Some((id, chunk.range.clone())),
            Name::RestOf(_) => None,
        })
    }

    /// Whether every chunk of the collection was applied.
    pub(crate) fn all_done(&self, collection: CollectionId) -> bool {
        match &self.copies[usize::from(collection.0)] {
            Copy::Unplanned => false,
            Copy::Chunks(chunks) => chunks.iter().all(|chunk| matches!(chunk.stage, Stage::Done)),
            Copy::Copied => true,
        }
    }

    /// Whether the collection waits for its plan.
    pub(crate) fn is_unplanned(&self, collection: CollectionId) -> bool {
        matches!(self.copies[usize::from(collection.0)], Copy::Unplanned)
    }

    fn chunk(&mut self, name: Name) -> Option<&mut Chunk> {
        self.copies
            .iter_mut()
            .filter_map(|copy| match copy {
                Copy::Chunks(chunks) => Some(chunks),
                _ => None,
            })
            .flatten()
            .find(|chunk| chunk.name == name)
    }

    /// A read of the chunk starts; it will show everything at or before `from`.
    pub(crate) fn begin(&mut self, id: ChunkId, from: Moment) {
        if let Some(chunk) = self.chunk(Name::Stored(id)) {
            chunk.stage = Stage::Reading { from, changed: HashSet::new() };
        }
    }

    /// The chunk was read and shows nothing after `until`. `rest`: only the part before this range was read; the rest
    /// is open, and is given out once [`Merge::identify`] has told its id. False where the chunk is void by now.
    pub(crate) fn read(&mut self, id: ChunkId, until: Moment, rest: Option<Range>) -> bool {
        let Some((collection, index)) = self.find(id) else { return false };
        let Copy::Chunks(chunks) = &mut self.copies[collection] else { return false };
        let Stage::Reading { from, changed } = &mut chunks[index].stage else { return false };
        let (from, changed) = (*from, std::mem::take(changed));
        chunks[index].stage = Stage::Held { from, until, changed };
        if let Some(rest) = rest {
            chunks[index].range.hi.clone_from(&rest.lo);
            chunks.insert(index + 1, Chunk { name: Name::RestOf(id), range: rest, stage: Stage::Open });
        }
        true
    }

    /// The rest of this chunk has an id of its own now, kept with the rows of the first part.
    pub(crate) fn identify(&mut self, id: ChunkId, rest: ChunkId) {
        if let Some(chunk) = self.chunk(Name::RestOf(id)) {
            chunk.name = Name::Stored(rest);
        }
    }

    fn find(&self, id: ChunkId) -> Option<(usize, usize)> {
        self.copies.iter().enumerate().find_map(|(collection, copy)| match copy {
            Copy::Chunks(chunks) => {
                Some((collection, chunks.iter().position(|chunk| chunk.name == Name::Stored(id))?))
            }
            _ => None,
        })
    }

    /// Releases the chunk once the target holds everything up to `applied`: the keys to leave out of what was read.
    pub(crate) fn release(&mut self, id: ChunkId, applied: Moment) -> Option<HashSet<Key>> {
        let chunk = self.chunk(Name::Stored(id))?;
        let Stage::Held { until, changed, .. } = &mut chunk.stage else { return None };
        if *until > applied {
            return None;
        }
        let changed = std::mem::take(changed);
        chunk.stage = Stage::Applying;
        Some(changed)
    }

    /// The chunk is in the target.
    pub(crate) fn done(&mut self, id: ChunkId) {
        if let Some(chunk) = self.chunk(Name::Stored(id)) {
            chunk.stage = Stage::Done;
        }
    }

    /// Whether the chunk is being applied right now.
    pub(crate) fn is_applying(&self, id: ChunkId) -> bool {
        self.copies.iter().any(|copy| match copy {
            Copy::Chunks(chunks) => chunks
                .iter()
                .any(|chunk| chunk.name == Name::Stored(id) && matches!(chunk.stage, Stage::Applying)),
            _ => false,
        })
    }

    /// Whether any chunk is being applied right now.
    pub(crate) fn any_applying(&self) -> bool {
        self.copies.iter().any(|copy| match copy {
            Copy::Chunks(chunks) => chunks.iter().any(|chunk| matches!(chunk.stage, Stage::Applying)),
            _ => false,
        })
    }

    /// These documents are about to be read again.
    pub(crate) fn recapture(&mut self, id: RereadId, collection: CollectionId, keys: HashSet<Key>) {
        self.recaptures.push(Recapture { id, collection, keys, changed: HashSet::new(), until: None });
    }

    /// They were read and show nothing after `until`.
    pub(crate) fn recaptured(&mut self, id: RereadId, until: Moment) {
        if let Some(recapture) = self.recaptures.iter_mut().find(|recapture| recapture.id == id) {
            recapture.until = Some(until);
        }
    }

    /// Releases documents that were read again: the keys to leave out. `None` while it must wait; void ones are gone.
    pub(crate) fn release_recapture(&mut self, id: RereadId, applied: Moment) -> Option<HashSet<Key>> {
        let index = self.recaptures.iter().position(|recapture| recapture.id == id)?;
        let until = self.recaptures[index].until?;
        (until <= applied).then(|| self.recaptures.swap_remove(index).changed)
    }

    /// The documents could not be read; they are not waited for.
    pub(crate) fn forget_recapture(&mut self, id: RereadId) {
        self.recaptures.retain(|recapture| recapture.id != id);
    }

    /// The collection of a chunk that is not void.
    pub(crate) fn collection_of(&self, id: ChunkId) -> Option<CollectionId> {
        self.find(id).map(|(collection, _)| CollectionId(collection as u16))
    }

    /// Whether the recapture is still wanted.
    pub(crate) fn has_recapture(&self, id: RereadId) -> bool {
        self.recaptures.iter().any(|recapture| recapture.id == id)
    }

    /// Decides about one change, in the order of the stream.
    pub(crate) fn route(&mut self, arrival: Arrival<'_>) -> Route {
        let route = match self.copy(arrival.collection) {
            Copy::Copied => Route::Publish,
            Copy::Unplanned => open(&arrival),
            Copy::Chunks(chunks) => match containing(chunks, arrival.id) {
                None => Route::Publish,
                Some(chunk) => match &mut chunk.stage {
                    Stage::Open => open(&arrival),
                    Stage::Reading { from, changed } | Stage::Held { from, changed, .. } => {
                        if arrival.time <= *from {
                            open(&arrival)
                        } else {
                            changed.insert(arrival.key.clone());
                            Route::Publish
                        }
                    }
                    Stage::Applying => match chunk.name {
                        Name::Stored(id) => Route::Wait(id),
                        // Only chunks with an id are given out.
                        Name::RestOf(_) => open(&arrival),
                    },
                    Stage::Done => Route::Publish,
                },
            },
        };
        // A dropped change too: the chunk will show it, and what the recapture read is older.
        if !matches!(route, Route::Wait(_)) {
            for recapture in &mut self.recaptures {
                if recapture.collection == arrival.collection && recapture.keys.contains(arrival.key) {
                    recapture.changed.insert(arrival.key.clone());
                }
            }
        }
        route
    }
}

/// A read is still to come.
fn open(arrival: &Arrival<'_>) -> Route {
    if arrival.is_delete { Route::Remove } else { Route::Drop }
}

fn lower_bounds(a: &Range, b: &Range) -> Ordering {
    match (&a.lo, &b.lo) {
        (None, None) => Ordering::Equal,
        (None, _) => Ordering::Less,
        (_, None) => Ordering::Greater,
        (Some(a), Some(b)) => compare(a.value(), b.value()),
    }
}

fn containing<'a>(chunks: &'a mut [Chunk], id: Value<'_>) -> Option<&'a mut Chunk> {
    let after = chunks.partition_point(|chunk| {
        chunk.range.lo.as_ref().is_none_or(|lo| compare(lo.value(), id) != Ordering::Greater)
    });
    // Only what was open at the start is listed: what lies between was applied in a former run.
    chunks.get_mut(after.checked_sub(1)?).filter(|chunk| chunk.range.contains(id))
}

#[cfg(test)]
#[path = "merge_simulation.rs"]
mod simulation;
