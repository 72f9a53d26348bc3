//! Lost history: a collection that was dropped or renamed, an oplog that no longer reaches back. What was lost is said, the
//! collections are copied again, and rows that are in the source no longer are swept away at the end.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use slackwater_connectors::error::{Error, Result};
use slackwater_connectors::postgres::control::{CopyState, SeenTable};
use slackwater_connectors::retry::Pauses;
use slackwater_topics::{Barrier, CollectionId, Moment, Position};

use super::Router;
use crate::apply::batch::Batch;
use crate::apply::stream::{Report, tables_of};
use crate::ops::policy::{Action, action};

impl Router {
    /// Tables whose rows are noted: those of the collections that are being copied again.
    pub(super) fn noted(&self) -> Vec<usize> {
        let reloading: Vec<CollectionId> = self
            .copying
            .iter()
            .enumerate()
            .filter(|(_, copying)| copying.reload)
            .map(|(index, _)| CollectionId(index as u16))
            .collect();
        tables_of(&self.plan, &reloading)
    }

    pub(super) fn seen_tables(&self, collections: &[CollectionId]) -> Vec<SeenTable> {
        let mut named = HashSet::new();
        tables_of(&self.plan, collections)
            .into_iter()
            .filter(|table| {
                let table = &self.plan.tables[*table].table;
                named.insert((table.schema.clone(), table.name.clone()))
            })
            .map(|table| {
                let spec = &self.plan.tables[table];
                let column = |key: &usize| spec.table.columns[spec.columns[*key]].name.clone();
                SeenTable {
                    schema: spec.table.schema.clone(),
                    name: spec.table.name.clone(),
                    key: spec.key.iter().map(column).collect(),
                }
            })
            .collect()
    }

    /// Copies these collections again, and all that share a table with them.
    pub(super) async fn begin_anew(
        &mut self,
        mut collections: Vec<CollectionId>,
        kind: &str,
        text: &str,
    ) -> Result<()> {
        loop {
            let names = |ids: &[CollectionId]| -> HashSet<(String, String)> {
                let tables =
                    tables_of(&self.plan, ids).into_iter().map(|table| &self.plan.tables[table].table);
                tables.map(|table| (table.schema.clone(), table.name.clone())).collect()
            };
            let tables = names(&collections);
            let before = collections.len();
            for id in self.all_collections() {
                let shares = !tables.is_disjoint(&names(&[id]));
                if shares && !collections.contains(&id) {
                    collections.push(id);
                }
            }
            if collections.len() == before {
                break;
            }
        }
        tracing::warn!(kind, text, "history was lost; copying again");
        // What is on its way into the target belongs to the old copy: a piece must not arrive in the new one, and a
        // sweep or a batch must not find the new list of rows met.
        self.draining = true;
        self.recall_fences().await;
        while self.merge.any_applying() || self.sweeping {
            self.next_word().await?;
        }
        self.sweeping = true;
        let marker = Batch { barriers: vec![Barrier::Sweep { collections: Vec::new() }], ..Batch::default() };
        self.send(marker).await?;
        while self.sweeping {
            self.next_word().await?;
        }
        // A fence that was still on its way to the publisher has reached the watcher only now. Appliers may skip its marks, so
        // it would never pass, and hold back all behind it.
        self.recall_fences().await;
        self.draining = false;
        let names: Vec<String> = collections.iter().map(|id| self.name(*id)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = format!("{text}; copied again: {}", names.join(", "));
        let tables = self.seen_tables(&collections);
        let skip = self.ends_of(&collections).await?;
        keep!(self, control => control.start_reload(&names, &tables, &skip))?;
        keep!(self, control => control.incident(kind, names.first().copied(), &text))?;
        for id in &collections {
            self.merge.reset(*id);
            let copying = &mut self.copying[usize::from(id.0)];
            copying.state = CopyState::Pending;
            copying.generation += 1;
            copying.fresh = false;
            copying.reload = true;
        }
        self.gauges.copy_complete.store(false, Ordering::Release);
        let merge = &self.merge;
        self.held.retain(|held| merge.collection_of(held.piece) == Some(held.collection));
        self.rereads.retain(|reread| merge.has_recapture(reread.id));
        self.dispatch().await
    }

    pub(super) async fn on_history_lost(&mut self, error: &Error) -> Result<()> {
        let mut pauses = Pauses::for_server();
        let now = loop {
            match self.mongo.operation_time().await {
                Ok(now) => break now,
                Err(error) => {
                    if !self.stop.sleep(pauses.next_pause()).await {
                        return Err(error);
                    }
                }
            }
        };
        let text = format!(
            "the source's log no longer reaches back to our position: changes between {} and {} were lost ({error})",
            said(self.position.moment),
            said(now),
        );
        self.now = self.now.max(now);
        let all = self.all_collections();
        self.begin_anew(all, "history_lost", &text).await?;
        self.position = Position::new(now, Bytes::new());
        let (position, passed) = (self.position.clone(), Moment(now.0.saturating_sub(1)));
        self.publish(Vec::new(), position, passed).await
    }

    pub(super) async fn on_report(&mut self, report: Report) -> Result<()> {
        let (collections, rows) = match report {
            Report::Swept { collections, rows } => (collections, rows),
            Report::Passed { id } => return self.passed_fence(id).await,
            Report::Lost { collections, text } => {
                self.lost.push((collections, text));
                return Ok(());
            }
        };
        self.sweeping = false;
        if collections.is_empty() {
            // Only a marker: the lane is empty.
            return Ok(());
        }
        let names: Vec<String> = collections.iter().map(|id| self.name(*id)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        keep!(self, control => control.end_reload(&names))?;
        let text = format!(
            "{} copied again; {rows} rows that are no longer in the source were removed",
            names.join(", ")
        );
        keep!(self, control => control.incident("recopied", None, &text))?;
        tracing::info!(rows, "copied again; rows that are no longer in the source were removed");
        for id in collections {
            self.copying[usize::from(id.0)].reload = false;
        }
        Ok(())
    }
}

/// A time as people read it.
fn said(time: Moment) -> String {
    jiff::Timestamp::from_second(i64::from(time.upper()))
        .map_or_else(|_| time.to_string(), |time| time.to_string())
}
