//! Where a consumer claims its partitions: the control store, asked from the consumer's own thread.

use std::sync::Arc;

use slackwater_connectors::error::Result;
use slackwater_connectors::kafka::{self, Desk, Partition};
use slackwater_connectors::postgres::control::LaneRow;
use slackwater_connectors::postgres::control::partitions::Claimed;
use slackwater_topics::Position;
use tokio::runtime::Handle;

use super::intake::Claim;
use crate::letters::Letters;
use crate::ops::persist::Stopped;
use crate::ops::store::{Store, ask};

/// Claims for one process.
pub(crate) struct Claims {
    runtime: Handle,
    store: Store,
    migration: String,
    member: String,
    /// One of our lanes, and our epoch of it: another process of our name takes it.
    lane: (String, i64),
    topics: Vec<Arc<str>>,
    letters: Arc<Letters>,
}

impl Claims {
    /// For the process that is called `member` and has this lane. Topics in the order that the consumer has them in. Made in the
    /// runtime whose tasks answer.
    pub(crate) fn new(
        store: Store,
        (migration, member): (&str, &str),
        lane: (String, i64),
        topics: Vec<Arc<str>>,
        letters: Arc<Letters>,
    ) -> Self {
        Self {
            runtime: Handle::current(),
            store,
            migration: migration.to_owned(),
            member: member.to_owned(),
            lane,
            topics,
            letters,
        }
    }

    fn name(&self, partition: Partition) -> (Arc<str>, i32) {
        (Arc::clone(&self.topics[usize::from(partition.topic)]), partition.number)
    }

    async fn claimed(&mut self, names: &[(Arc<str>, i32)]) -> std::result::Result<Vec<Claimed>, Stopped> {
        let (migration, member) = (&self.migration, &self.member);
        let claimed = ask!(self.store, control => control.claim(migration, member, names))?;
        // Their owner before us writes no dead letter of theirs any more: what there is of them is seen now.
        self.letters.found(ask!(self.store, control => control.has_dead_letters(migration))?);
        Ok(claimed)
    }

    async fn mark_lost(
        &mut self,
        (topic, number): (Arc<str>, i32),
        epoch: i64,
        text: &str,
    ) -> std::result::Result<bool, Stopped> {
        let migration = &self.migration;
        ask!(self.store, control => control.mark_lost(migration, &topic, number, epoch, text))
    }

    async fn lanes(&mut self) -> std::result::Result<Vec<LaneRow>, Stopped> {
        ask!(self.store, control => control.lanes(&self.migration))
    }
}

/// `None` where it was to stop first: the consumer ends then.
fn unless_asked<T>(answer: std::result::Result<T, Stopped>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Stopped::Asked) => Ok(None),
        Err(Stopped::Failed(error)) => Err(error),
    }
}

impl Desk for Claims {
    type Claim = Claim;

    fn claim(&mut self, wanted: &[Partition]) -> Result<Option<kafka::Claims<Claim>>> {
        let names: Vec<(Arc<str>, i32)> = wanted.iter().map(|partition| self.name(*partition)).collect();
        let runtime = self.runtime.clone();
        // A partition is not read before it is claimed, however long that takes.
        let claimed = unless_asked(runtime.block_on(self.claimed(&names)))?;
        let Some(claimed) = claimed else { return Ok(None) };
        let claims = names.iter().map(|(topic, number)| {
            let found = claimed.iter().find(|claim| *claim.topic == **topic && claim.partition == *number)?;
            // What was lost is copied again by the capture, which then says where to go on.
            (!found.lost).then(|| {
                let claim = Claim {
                    epoch: found.epoch,
                    capture: found.capture_epoch,
                    high: found.position.clone().unwrap_or_else(Position::default),
                };
                (found.next_offset, claim)
            })
        });
        Ok(Some(claims.collect()))
    }

    fn lost(&mut self, partition: Partition, claim: &Claim, text: String) -> Result<Option<()>> {
        let (topic, number) = self.name(partition);
        tracing::warn!(
            text,
            "the log lost what was not applied yet; the collection is copied again as soon as a capture runs"
        );
        let runtime = self.runtime.clone();
        let marked = unless_asked(runtime.block_on(self.mark_lost((topic, number), claim.epoch, &text)))?;
        Ok(marked.map(|_| ()))
    }

    fn superseded(&mut self) -> Result<Option<bool>> {
        let runtime = self.runtime.clone();
        let lanes = unless_asked(runtime.block_on(self.lanes()))?;
        let (name, epoch) = &self.lane;
        Ok(lanes.map(|lanes| lanes.iter().any(|lane| lane.lane == *name && lane.epoch > *epoch)))
    }
}
