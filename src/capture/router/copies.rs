//! The copies: gives pieces to the copiers, lets go what the stream has passed, and notices when all is done.

use std::sync::atomic::Ordering;

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::postgres::control::CopyState;
use slackwater_connectors::retry::Pauses;
use slackwater_topics::{Barrier, Bound, CollectionId, Range};

use super::{Assignment, Copying, Held, Release, Reread, Router, Word};
use crate::apply::batch::Batch;
use crate::capture::merge::PieceId;
use crate::ops::gauges::Gauges;
use crate::ops::policy::{Action, action};

impl Router {
    pub(super) async fn hear(&mut self, word: Word) -> Result<()> {
        match word {
            Word::Idle(copier) => {
                self.idle.push_back(copier);
                self.dispatch().await
            }
            Word::Read { piece, until, rest, release } => {
                let collection = self.merge.collection_of(piece);
                if self.merge.read(piece, until, rest)
                    && let Some(collection) = collection
                {
                    self.held.push(Held { piece, collection, release });
                }
                self.release().await
            }
            Word::Done { piece, collection, cut } => {
                self.merge.done(piece);
                if let Some(at) = cut {
                    self.identify(piece, collection, &at).await?;
                }
                if self.merge.all_done(collection) {
                    self.finish_copies().await?;
                }
                self.dispatch().await
            }
            Word::Reread { id, collection, keys, found, at } => {
                self.merge.recaptured(id, at);
                let found = found.into_iter().collect();
                self.rereads.push(Reread { id, collection, keys, found });
                self.release().await
            }
            Word::RereadFailed { id, error } => {
                tracing::debug!(%error, "dead letters could not be read again; later");
                self.merge.forget_recapture(id);
                Ok(())
            }
        }
    }

    /// A piece was cut: the rest has got an id in the control store.
    pub(super) async fn identify(
        &mut self,
        piece: PieceId,
        collection: CollectionId,
        at: &Bound,
    ) -> Result<()> {
        let name = self.name(collection);
        let migration = self.plan.migration.clone();
        let chunks = keep!(self, control => control.open_chunks(&migration))?;
        let rest = chunks
            .into_iter()
            .find(|chunk| chunk.collection == name && chunk.lo.as_deref() == Some(at.as_bytes().as_ref()));
        if let Some(rest) = rest {
            self.merge.identify(piece, rest.id);
        }
        Ok(())
    }

    /// The collections whose turn it is: those that the others' rows refer to come first.
    pub(super) fn turn(&self) -> Vec<CollectionId> {
        let waiting = |index: &usize| self.copying[*index].state != CopyState::Copied;
        let level =
            (0..self.copying.len()).filter(waiting).map(|index| self.plan.collections[index].level).min();
        (0..self.copying.len())
            .filter(waiting)
            .filter(|index| Some(self.plan.collections[*index].level) == level)
            .map(|index| CollectionId(index as u16))
            .collect()
    }

    /// Gives pieces to the copiers that have none.
    pub(super) async fn dispatch(&mut self) -> Result<()> {
        self.idle.retain(|copier| !copier.is_closed());
        while !self.idle.is_empty() && !self.draining {
            let mut next = None;
            let turn = self.turn();
            if !self.has_landed(&turn).await? {
                return Ok(());
            }
            for collection in turn {
                if self.merge.is_unplanned(collection) {
                    self.plan_copy(collection).await?;
                }
                if let Some((piece, range)) = self.merge.next_open(collection) {
                    next = Some((collection, piece, range));
                    break;
                }
            }
            let Some((collection, piece, range)) = next else {
                // A collection without documents is complete as soon as it is planned.
                return self.finish_copies().await;
            };
            keep!(self, control => control.note_read(piece))?;
            let from = self.now;
            self.merge.begin(piece, from);
            let fresh = self.copying[usize::from(collection.0)].fresh;
            let Some(copier) = self.idle.pop_front() else { return Ok(()) };
            // A copier that is gone took the process with it.
            let _ = copier.send(Assignment { piece, collection, range, from, fresh });
        }
        Ok(())
    }

    pub(super) async fn plan_copy(&mut self, collection: CollectionId) -> Result<()> {
        let index = usize::from(collection.0);
        let (name, source) = (self.name(collection), self.plan.collections[index].collection.clone());
        let mut pauses = Pauses::for_server();
        let split = loop {
            match self.mongo.split(&source, self.chunking.bytes, self.chunking.documents).await {
                Ok(split) => break split,
                Err(error) if matches!(action(error.kind), Action::Wait | Action::Retry) => {
                    tracing::debug!(%error, "planning a copy failed; trying again");
                    if !self.stop.sleep(pauses.next_pause()).await {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        };
        let bytes = |bound: Option<&Bound>| bound.map(|bound| bound.as_bytes().to_vec());
        let bounds: Vec<_> = Range::between(&split.bounds)
            .iter()
            .map(|range| (bytes(range.lo.as_ref()), bytes(range.hi.as_ref())))
            .collect();
        let Copying { generation, fresh, .. } = self.copying[index];
        keep!(self, control => control.plan_chunks(&name, generation, &bounds, split.documents, fresh))?;
        let migration = self.plan.migration.clone();
        let chunks = keep!(self, control => control.open_chunks(&migration))?;
        let mut pieces = Vec::with_capacity(bounds.len());
        for chunk in chunks.into_iter().filter(|chunk| chunk.collection == name) {
            pieces.push((chunk.id, Range { lo: bound(chunk.lo)?, hi: bound(chunk.hi)? }));
        }
        self.merge.plan(collection, pieces);
        self.copying[index].state = CopyState::Copying;
        Gauges::add(&self.gauges.to_copy, split.documents);
        tracing::info!(collection = name, documents = split.documents, chunks = bounds.len(), "copying");
        Ok(())
    }

    /// Lets go what the stream has passed.
    pub(super) async fn release(&mut self) -> Result<()> {
        if self.draining {
            return Ok(());
        }
        let applied = *self.wires.applied.borrow_and_update();
        let noted = self.noted();
        for held in std::mem::take(&mut self.held) {
            match self.merge.release(held.piece, applied) {
                Some(changed) => {
                    let _ = held.release.send(Release { changed, noted: noted.clone() });
                }
                // Void pieces are dropped, and with them the copier's wait.
                None if self.merge.collection_of(held.piece) == Some(held.collection) => self.held.push(held),
                None => {}
            }
        }
        for reread in std::mem::take(&mut self.rereads) {
            if !self.merge.has_recapture(reread.id) {
                continue;
            }
            match self.merge.release_recapture(reread.id, applied) {
                Some(changed) => self.publish_reread(reread, &changed).await?,
                None => self.rereads.push(reread),
            }
        }
        Ok(())
    }

    /// Marks collections as copied whose last piece is in the target; where they were begun anew, sends the sweep.
    pub(super) async fn finish_copies(&mut self) -> Result<()> {
        for index in 0..self.copying.len() {
            let id = CollectionId(index as u16);
            let state = &self.copying[index];
            if state.state == CopyState::Copying && self.merge.all_done(id) {
                let (name, generation) = (self.name(id), state.generation);
                if keep!(self, control => control.finish_collection(&name, generation))? {
                    tracing::info!(collection = name, "copied");
                    self.merge.copied(id);
                    self.copying[index].state = CopyState::Copied;
                }
            }
        }
        let all = self.copying.iter().all(|copying| copying.state == CopyState::Copied);
        self.gauges.copy_complete.store(all, Ordering::Release);
        let reloading: Vec<CollectionId> =
            self.all_collections().into_iter().filter(|id| self.copying[usize::from(id.0)].reload).collect();
        let complete = reloading.iter().all(|id| self.copying[usize::from(id.0)].state == CopyState::Copied);
        if !reloading.is_empty() && complete && !self.sweeping {
            self.sweeping = true;
            let batch = Batch {
                barriers: vec![Barrier::Sweep { collections: reloading }],
                noted: self.noted(),
                ..Batch::default()
            };
            Box::pin(self.send(batch)).await?;
        }
        Ok(())
    }
}

pub(super) fn bound(bytes: Option<Vec<u8>>) -> Result<Option<Bound>> {
    let broken = |_| Error::new(Kind::Bug, "reading open chunks", "a chunk's bound cannot be read");
    bytes.map(|bytes| Bound::from_bytes(bytes.into()).map_err(broken)).transpose()
}
