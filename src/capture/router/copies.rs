//! The copies: gives chunks to the copiers, releases what the log is safe past, and notices when all is done.

use std::sync::atomic::Ordering;

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::postgres::control::CopyState;
use slackwater_connectors::postgres::lost;
use slackwater_topics::{Bound, CollectionId, Range};

use super::{Assignment, Awaited, CopierMessage, Copying, Done, Held, Release, Reread, Router};
use crate::capture::merge::ChunkId;
use crate::log::{Barrier, Batch};
use crate::ops::gauges::Gauges;
use crate::ops::persist::{Stopped, persist};
use crate::ops::store::ask;

impl Router {
    pub(super) async fn on_copier(&mut self, message: CopierMessage) -> Done {
        match message {
            CopierMessage::Idle(copier) => {
                self.idle.push_back(copier);
                self.dispatch().await
            }
            CopierMessage::Read { chunk, until, rest, release } => {
                let collection = self.merge.collection_of(chunk);
                if self.merge.read(chunk, until, rest)
                    && let Some(collection) = collection
                {
                    self.held.push(Held { chunk, collection, release });
                }
                self.release().await
            }
            CopierMessage::Done { chunk, collection, cut } => {
                self.merge.done(chunk);
                if let Some(at) = cut {
                    self.identify(chunk, collection, &at).await?;
                }
                if self.merge.all_done(collection) {
                    self.finish_copies().await?;
                }
                self.dispatch().await
            }
            CopierMessage::Reread { id, collection, keys, found, at } => {
                self.merge.recaptured(id, at);
                let found = found.into_iter().collect();
                self.rereads.push(Reread { id, collection, keys, found });
                self.release().await
            }
            CopierMessage::RereadFailed { id, error } => {
                tracing::debug!(%error, "dead letters could not be read again; later");
                self.merge.forget_recapture(id);
                self.repairs.remove(&id);
                Ok(())
            }
        }
    }

    /// A chunk was cut: the rest has got an id in the control store.
    async fn identify(&mut self, chunk: ChunkId, collection: CollectionId, at: &Bound) -> Done {
        let name = self.name(collection);
        let migration = self.plan.migration.clone();
        let chunks = ask!(self.store, control => control.open_chunks(&migration))?;
        let rest = chunks
            .into_iter()
            .find(|chunk| chunk.collection == name && chunk.lo.as_deref() == Some(at.as_bytes().as_ref()));
        if let Some(rest) = rest {
            self.merge.identify(chunk, rest.id);
        }
        Ok(())
    }

    /// The collections whose turn it is: those that the others' rows refer to come first.
    fn turn(&self) -> Vec<CollectionId> {
        let waiting = || self.copying.iter().filter(|(_, copying)| copying.state != CopyState::Copied);
        let level = waiting().map(|(id, _)| self.plan.collection(*id).level).min();
        waiting().map(|(id, _)| *id).filter(|id| Some(self.plan.collection(*id).level) == level).collect()
    }

    /// Gives chunks to the copiers that have none.
    pub(super) async fn dispatch(&mut self) -> Done {
        self.idle.retain(|copier| !copier.is_closed());
        while !self.idle.is_empty() && !self.draining {
            let mut next = None;
            let turn = self.turn();
            if !self.others_came_first(&turn).await? || !self.has_landed(&turn).await? {
                return Ok(());
            }
            for collection in turn {
                if self.merge.is_unplanned(collection) {
                    self.plan_copy(collection).await?;
                }
                if let Some((chunk, range)) = self.merge.next_open(collection) {
                    next = Some((collection, chunk, range));
                    break;
                }
            }
            let Some((collection, chunk, range)) = next else {
                // A collection without documents is complete as soon as it is planned.
                return self.finish_copies().await;
            };
            ask!(self.store, control => control.note_read(chunk))?;
            let from = self.now;
            self.merge.begin(chunk, from);
            let fresh = self.copying.get(&collection).is_some_and(|copying| copying.fresh);
            let Some(copier) = self.idle.pop_front() else { return Ok(()) };
            // A copier that is gone took the process with it.
            let _ = copier.send(Assignment { chunk, collection, range, from, fresh });
        }
        Ok(())
    }

    async fn plan_copy(&mut self, collection: CollectionId) -> Done {
        let plan = self.plan.collection(collection);
        let (name, of) = (plan.name.clone(), plan.collection.clone());
        let (source, chunking) = (&self.source, self.chunking);
        let split = persist(&self.stop, || source.split(&of, chunking)).await?;
        let bytes = |bound: Option<&Bound>| bound.map(|bound| bound.as_bytes().to_vec());
        let bounds: Vec<_> = Range::between(&split.bounds)
            .iter()
            .map(|range| (bytes(range.lo.as_ref()), bytes(range.hi.as_ref())))
            .collect();
        let Some(Copying { generation, fresh, .. }) = self.copying.get(&collection).cloned() else {
            return Ok(());
        };
        let (migration, documents) = (self.plan.migration.clone(), split.documents);
        ask!(self.store, control => control.plan_chunks(&name, generation, &bounds, documents, fresh))?;
        let open = ask!(self.store, control => control.open_chunks(&migration))?;
        let mut chunks = Vec::with_capacity(bounds.len());
        for chunk in open.into_iter().filter(|chunk| chunk.collection == name) {
            chunks.push((chunk.id, Range { lo: bound(chunk.lo)?, hi: bound(chunk.hi)? }));
        }
        self.merge.plan(collection, chunks);
        if let Some(copying) = self.copying.get_mut(&collection) {
            copying.state = CopyState::Copying;
        }
        Gauges::add(&self.gauges.to_copy, split.documents);
        tracing::info!(collection = name, documents = split.documents, chunks = bounds.len(), "copying");
        Ok(())
    }

    /// Releases what the log is safe past.
    pub(super) async fn release(&mut self) -> Done {
        if self.draining {
            return Ok(());
        }
        let safe = *self.log.safe.borrow_and_update();
        let seen = self.seen();
        for held in std::mem::take(&mut self.held) {
            match self.merge.release(held.chunk, safe) {
                Some(changed) => {
                    let _ = held.release.send(Release { changed, seen: seen.clone() });
                }
                // Void chunks are dropped, and with them the copier's wait.
                None if self.merge.collection_of(held.chunk) == Some(held.collection) => self.held.push(held),
                None => {}
            }
        }
        for reread in std::mem::take(&mut self.rereads) {
            if !self.merge.has_recapture(reread.id) {
                continue;
            }
            match self.merge.release_recapture(reread.id, safe) {
                Some(changed) => self.publish_reread(reread, &changed).await?,
                None => self.rereads.push(reread),
            }
        }
        Ok(())
    }

    /// Marks collections as copied whose last chunk is done; where they were recopied, sends the sweep.
    pub(super) async fn finish_copies(&mut self) -> Done {
        let mut unfinished = Vec::new();
        for id in self.all_collections() {
            let Some(copying) = self.copying.get_mut(&id) else { continue };
            if copying.state != CopyState::Copying || !self.merge.all_done(id) {
                continue;
            }
            let (name, generation) = (&self.plan.collection(id).name, copying.generation);
            if ask!(self.store, control => control.finish_collection(name, generation))? {
                tracing::info!(collection = name, "copied");
                self.merge.copied(id);
                copying.state = CopyState::Copied;
                self.followed.remove(&id);
            } else {
                unfinished.push(id);
            }
        }
        if !unfinished.is_empty() && self.has_lost(&unfinished).await? {
            return Err(lost("finishing a copy").into());
        }
        let is_copied = |copying: &Copying| copying.state == CopyState::Copied;
        self.set_copied(self.copying.values().all(is_copied));
        let recopied = || self.copying.iter().filter(|(_, copying)| copying.recopy);
        let complete = recopied().all(|(_, copying)| is_copied(copying));
        let collections: Vec<CollectionId> = recopied().map(|(id, _)| *id).collect();
        if !collections.is_empty() && complete && self.awaited.is_none() {
            self.awaited = Some(Awaited::Sweep);
            // What is kept in a table cannot be told from what has to go.
            let kept: Vec<CollectionId> =
                collections.iter().copied().filter(|id| self.keeps_rows_of(*id)).collect();
            let sweep = Batch { seen: self.seen(), ..Batch::of(Barrier::Sweep { collections, kept }) };
            Box::pin(self.append(sweep)).await?;
        }
        Ok(())
    }

    /// The target has not what it had confirmed of these copies, as after a crash or a failover to a standby that was behind.
    async fn has_lost(&mut self, done: &[CollectionId]) -> std::result::Result<bool, Stopped> {
        let migration = self.plan.migration.clone();
        let rows = ask!(self.store, control => control.collections(&migration))?;
        let lacks = |id: &CollectionId| {
            let Some(known) = self.copying.get(id) else { return false };
            // Without its row even the plan is gone.
            let Some(row) = rows.iter().find(|row| row.collection == self.plan.collection(*id).name) else {
                return true;
            };
            let open = row.chunks_done < row.chunks_total || known.state == CopyState::Copied;
            // Whoever has begun another copy of it since has not lost this one.
            row.generation < known.generation
                || row.generation == known.generation && row.state == CopyState::Copying && open
        };
        Ok(done.iter().any(lacks))
    }

    /// Behind a new connection may be another server, which lacks the end of a copy. Then all begins anew from what is there.
    pub(super) async fn look_for_lost_copies(&mut self) -> Done {
        if self.store.opened() == self.looked {
            return Ok(());
        }
        let copied = self.copying.iter().filter(|(_, copying)| copying.state == CopyState::Copied);
        let copied: Vec<CollectionId> = copied.map(|(id, _)| *id).collect();
        let is_lost = self.has_lost(&copied).await?;
        self.looked = self.store.opened();
        if is_lost { Err(lost("looking at the copies").into()) } else { Ok(()) }
    }

    pub(super) fn set_copied(&self, copied: bool) {
        match (self.reach.is_copied(), copied) {
            (false, true) => drop(self.gauges.copying.fetch_sub(1, Ordering::AcqRel)),
            (true, false) => drop(self.gauges.copying.fetch_add(1, Ordering::AcqRel)),
            _ => {}
        }
        self.reach.set_copied(copied);
    }
}

pub(super) fn bound(bytes: Option<Vec<u8>>) -> Result<Option<Bound>> {
    let broken = |_| Error::new(Kind::Bug, "reading open chunks", "a chunk's bound cannot be read");
    bytes.map(|bytes| Bound::from_bytes(bytes.into()).map_err(broken)).transpose()
}
