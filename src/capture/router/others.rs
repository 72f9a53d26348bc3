//! Collections of other sources come first where our rows refer to theirs: rows whose referenced rows are late cost more.
//!
//! It is a matter of speed alone. A source that does not get on is not waited for: rows that lack something wait by themselves.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use slackwater_connectors::postgres::control::pulse::SourceRow;
use slackwater_connectors::postgres::control::{CollectionRow, CopyState};
use slackwater_topics::CollectionId;

use super::Router;
use crate::mapping::Plan;
use crate::ops::look::SILENT_MS;
use crate::ops::persist::Stopped;
use crate::ops::store::ask;

/// How often the others are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A source that has given no sign of life so long after our start is away.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);

/// What we wait for.
#[derive(Debug)]
pub(super) struct Others {
    begun: Instant,
    looked: Option<Instant>,
    /// These are copied, or are not waited for any more: each is asked about until then, and not for every chunk.
    passed: HashSet<CollectionId>,
    /// Somebody has something to do, and was not given it.
    pub(super) held_up: bool,
}

impl Others {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), looked: None, passed: HashSet::new(), held_up: false }
    }
}

impl Router {
    /// Whether the collections of other sources that these refer to are copied, or are not to be waited for.
    pub(super) async fn others_came_first(&mut self, turn: &[CollectionId]) -> Result<bool, Stopped> {
        let first = turn.iter().filter(|id| self.copying.get(id).is_some_and(|copying| !copying.recopy));
        let mut wanted: Vec<CollectionId> =
            first.flat_map(|id| self.plan.collection(*id).after.iter().copied()).collect();
        wanted.retain(|id| !self.others.passed.contains(id));
        wanted.sort_unstable();
        wanted.dedup();
        self.others.held_up = false;
        if wanted.is_empty() {
            return Ok(true);
        }
        self.others.held_up = true;
        if self.others.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(false);
        }
        let migration = self.plan.migration.clone();
        let rows = ask!(self.store, control => control.collections(&migration))?;
        let sources = ask!(self.store, control => control.sources(&migration))?;
        self.others.looked = Some(Instant::now());
        let began = self.others.begun.elapsed() < BEGINS_WITHIN;
        self.others.held_up = waits(&self.plan, &wanted, &rows, &sources, began);
        if !self.others.held_up {
            self.others.passed.extend(wanted);
        }
        Ok(!self.others.held_up)
    }
}

/// Whether one of these is still to come. `beginning`: a source that nothing is known of may be about to begin.
fn waits(
    plan: &Plan,
    wanted: &[CollectionId],
    rows: &[CollectionRow],
    sources: &[SourceRow],
    beginning: bool,
) -> bool {
    wanted.iter().map(|id| plan.collection(*id)).any(|collection| {
        let row = rows.iter().find(|row| row.collection == collection.name);
        if row.is_some_and(|row| row.state == CopyState::Copied) {
            return false;
        }
        match sources.iter().find(|row| row.source == collection.source) {
            Some(source) => source.trouble.is_none() && source.silent_ms < SILENT_MS,
            None => beginning,
        }
    })
}
