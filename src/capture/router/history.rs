//! Lost history: a collection that was dropped or renamed, a source or a log that no longer has what we have not read. The loss is
//! recorded, the collections are recopied, and rows that are no longer in the source are swept at the end.

use std::collections::HashSet;

use bytes::Bytes;
use slackwater_connectors::error::Error;
use slackwater_connectors::postgres::control::ledger::Incident;
use slackwater_connectors::postgres::control::recopies::{ASKED, MAPPING_CHANGED, TABLE_LOST};
use slackwater_connectors::postgres::control::{CopyState, SeenTable};
use slackwater_topics::{CollectionId, Moment, Position};

use super::{Awaited, Done, Router};
use crate::log::{Barrier, Batch, News};
use crate::ops::persist::persist;
use crate::ops::store::ask;

impl Router {
    /// Tables whose row keys are noted as seen: those of the collections that are being recopied.
    pub(super) fn seen(&self) -> Vec<usize> {
        let recopied = self.copying.iter().filter(|(_, copying)| copying.recopy);
        self.plan.tables_of(&recopied.map(|(id, _)| *id).collect::<Vec<_>>())
    }

    fn seen_tables(&self, collections: &[CollectionId]) -> Vec<SeenTable> {
        let mut named = HashSet::new();
        let tables = self.plan.tables_of(collections).into_iter().map(|table| &self.plan.tables[table]);
        let tables = tables.filter(|spec| named.insert((&spec.table.schema, &spec.table.name)));
        tables
            .map(|spec| {
                let column = |key: &usize| spec.table.columns[spec.columns[*key]].name.clone();
                SeenTable {
                    schema: spec.table.schema.clone(),
                    name: spec.table.name.clone(),
                    key: spec.key.iter().map(column).collect(),
                }
            })
            .collect()
    }

    /// These collections, and all of the source that share a table with them.
    fn sharing(&self, mut collections: Vec<CollectionId>) -> Vec<CollectionId> {
        let tables_of = |ids: &[CollectionId]| -> HashSet<(&str, &str)> {
            let tables = self.plan.tables_of(ids).into_iter().map(|table| &self.plan.tables[table].table);
            tables.map(|table| (table.schema.as_str(), table.name.as_str())).collect()
        };
        loop {
            let tables = tables_of(&collections);
            let before = collections.len();
            for id in self.all_collections() {
                if !collections.contains(&id) && !tables.is_disjoint(&tables_of(&[id])) {
                    collections.push(id);
                }
            }
            if collections.len() == before {
                return collections;
            }
        }
    }

    /// Copies these collections again, and all that share a table with them; those that are gone are parked.
    pub(super) async fn recopy(&mut self, collections: Vec<CollectionId>, kind: &str, text: &str) -> Done {
        let there = self.there(collections, false, text).await?;
        self.copy_again(there, kind, text).await
    }

    /// The same for collections of which it is known that they are there, or that they are to be followed: they are not gone any more.
    pub(super) async fn copy_again(
        &mut self,
        collections: Vec<CollectionId>,
        kind: &str,
        text: &str,
    ) -> Done {
        if collections.is_empty() {
            return Ok(());
        }
        let gone: Vec<CollectionId> =
            collections.iter().copied().filter(|id| self.gone.contains_key(id)).collect();
        self.gone.retain(|id, _| !gone.contains(id));
        let back: Vec<String> = gone.iter().map(|id| self.name(*id)).collect();
        let mut collections = self.sharing(collections);
        collections.retain(|id| !self.gone.contains_key(id));
        match kind {
            MAPPING_CHANGED | ASKED => tracing::info!(kind, text, "copying again"),
            _ => tracing::warn!(kind, text, "history was lost; copying again"),
        }
        self.drain().await?;
        let names: Vec<String> = collections.iter().map(|id| self.name(*id)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = format!("{text}; copied again: {}", names.join(", "));
        let tables = self.seen_tables(&collections);
        let skip = self.log.ends_of(&collections).await?;
        let why = Incident { kind, collection: names.first().copied(), text: &text };
        let generation = |id: &CollectionId| self.copying.get(id).map_or(1, |copying| copying.generation + 1);
        let begun: Vec<(&str, i32)> = names.iter().copied().zip(collections.iter().map(generation)).collect();
        ask!(self.store, control => control.start_reload(&begun, &tables, &skip, why))?;
        for id in &collections {
            self.merge.reset(*id);
            if let Some(copying) = self.copying.get_mut(id) {
                copying.state = CopyState::Pending;
                copying.generation += 1;
                copying.fresh = false;
                copying.recopy = true;
            }
        }
        self.set_copied(false);
        let merge = &self.merge;
        self.held.retain(|held| merge.collection_of(held.chunk) == Some(held.collection));
        self.rereads.retain(|reread| merge.has_recapture(reread.id));
        self.repairs.retain(|id, _| merge.has_recapture(*id));
        let migration = &self.plan.migration;
        ask!(self.store, control => control.retry_collections(migration, &names))?;
        if !back.is_empty() {
            // A crash before this does the same once more.
            let back: Vec<&str> = back.iter().map(String::as_str).collect();
            ask!(self.store, control => control.forget_gone(&back))?;
        }
        self.dispatch().await
    }

    /// Waits until nothing of ours is on its way into the target. It belongs to the old copy: a chunk must not arrive in the new
    /// one, and neither a sweep nor a batch may meet the new list of row keys.
    async fn drain(&mut self) -> Done {
        self.draining = true;
        self.recall_fences().await;
        while self.merge.any_applying() || self.awaited.is_some() {
            self.next_message().await?;
        }
        self.awaited = Some(Awaited::Flush);
        self.append(Batch::of(Barrier::Flush)).await?;
        while self.awaited.is_some() {
            self.next_message().await?;
        }
        // A fence that was still on its way to the publisher has reached the watcher only now. Appliers may skip its marks, so
        // it would never pass, and would hold back all behind it.
        self.recall_fences().await;
        self.draining = false;
        Ok(())
    }

    /// Copies again what the log has lost.
    pub(super) async fn recopy_lost(&mut self) -> Done {
        while let Some((collections, text)) = self.lost.pop() {
            self.recopy(collections, "log_lost", &text).await?;
        }
        Ok(())
    }

    pub(super) async fn on_history_lost(&mut self, error: &Error) -> Done {
        let now = persist(&self.stop, || self.source.now()).await?;
        let text = format!(
            "the source's log no longer reaches back to the saved position: changes between {} and {} were lost ({error})",
            self.date(self.position.moment),
            self.date(now),
        );
        self.now = self.now.max(now);
        self.recopy(self.all_collections(), "history_lost", &text).await?;
        self.publish(Vec::new(), (Position::new(now, Bytes::new()), now.before()), now.before()).await
    }

    /// A moment as people read it.
    fn date(&self, moment: Moment) -> String {
        jiff::Timestamp::from_second(self.source.kind().seconds(moment))
            .map_or_else(|_| moment.to_string(), |time| time.to_string())
    }

    pub(super) async fn on_news(&mut self, news: News) -> Done {
        match news {
            News::Flushed => self.awaited = None,
            News::Passed { fence } => self.passed_fence(fence).await?,
            News::Lost { collections, text } => self.lost.push((collections, text)),
            News::Swept { collections, rows } => {
                self.awaited = None;
                let names: Vec<String> = collections.iter().map(|id| self.name(*id)).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                if rows.is_none() {
                    // Before its end is kept: it is asked for until it is made.
                    let migration = &self.plan.migration;
                    let why = "a table could not be swept as it was";
                    ask!(self.store, control => control.want_recopies(migration, &names, (TABLE_LOST, why)))?;
                }
                let rows = rows.unwrap_or_default();
                let text = format!(
                    "{} copied again; {rows} rows that are no longer in the source were removed",
                    names.join(", ")
                );
                let outcome = Incident { kind: "recopied", collection: None, text: &text };
                ask!(self.store, control => control.end_reload(&names, outcome))?;
                tracing::info!(rows, "copied again; rows that are no longer in the source were removed");
                for id in &collections {
                    if let Some(copying) = self.copying.get_mut(id) {
                        copying.recopy = false;
                    }
                }
            }
        }
        Ok(())
    }
}
