//! Where a consumer claims its partitions: the control store, asked from the consumer's own thread.

use std::sync::Arc;

use slackwater_connectors::error::Result;
use slackwater_connectors::kafka::{self, Desk, Partition};
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::retry::Pauses;
use slackwater_connectors::secret::Secret;
use slackwater_topics::Position;
use tokio::runtime::Handle;

use super::intake::Claim;
use super::letters::Letters;
use crate::ops::policy::{Action, action, remedy};
use crate::ops::stop::Stop;

/// Claims for one process.
pub(crate) struct Claims {
    runtime: Handle,
    control: Control,
    target: Secret,
    migration: String,
    member: String,
    /// One of our lanes, and our epoch of it: whoever goes by our name takes it.
    lane: (String, i64),
    topics: Vec<Arc<str>>,
    letters: Arc<Letters>,
    stop: Stop,
}

impl Claims {
    /// For the process that is called `member` and has this lane. Topics in the order that the consumer has them in.
    pub(crate) async fn open(
        target: &Secret,
        migration: &str,
        member: &str,
        lane: (String, i64),
        topics: Vec<Arc<str>>,
        letters: Arc<Letters>,
        stop: Stop,
    ) -> Result<Self> {
        Ok(Self {
            runtime: Handle::current(),
            control: Control::open(target).await?,
            target: target.clone(),
            migration: migration.to_owned(),
            member: member.to_owned(),
            lane,
            topics,
            letters,
            stop,
        })
    }

    fn name(&self, partition: Partition) -> (Arc<str>, i32) {
        (Arc::clone(&self.topics[usize::from(partition.topic)]), partition.number)
    }

    /// Asks until the control store answers: a partition is not read before it is claimed. `None` where it was to stop first.
    fn insist<T>(&mut self, ask: impl AsyncFn(&mut Control, &str, &str) -> Result<T>) -> Result<Option<T>> {
        let mut pauses = Pauses::for_server();
        let mut said = false;
        loop {
            let runtime = self.runtime.clone();
            let error = match runtime.block_on(ask(&mut self.control, &self.migration, &self.member)) {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) => error,
            };
            match action(error.kind) {
                Action::Wait | Action::Retry => {
                    if !said {
                        tracing::warn!(%error, remedy = remedy(error.kind), "waiting for the control store");
                        said = true;
                    }
                    if !runtime.block_on(self.stop.sleep(pauses.next_pause())) {
                        return Ok(None);
                    }
                    if !self.control.is_connected()
                        && let Ok(control) = runtime.block_on(Control::open(&self.target))
                    {
                        self.control = control;
                    }
                }
                Action::Quarantine | Action::Recopy | Action::Yield | Action::Halt => return Err(error),
            }
        }
    }
}

impl Desk for Claims {
    type Claim = Claim;

    fn claim(&mut self, wanted: &[Partition]) -> Result<Option<kafka::Claims<Claim>>> {
        let names: Vec<(Arc<str>, i32)> = wanted.iter().map(|partition| self.name(*partition)).collect();
        let asked = names.clone();
        let letters = Arc::clone(&self.letters);
        let claimed = self.insist(async move |control, migration, member| {
            let claimed = control.claim(migration, member, &asked).await?;
            // Who had them before writes no letter of theirs any more: what there is of them is seen now.
            letters.found(control.has_dead_letters(migration).await?);
            Ok(claimed)
        })?;
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
        let epoch = claim.epoch;
        let marked = self.insist(async move |control, migration, _| {
            control.mark_lost(migration, &topic, number, epoch, &text).await
        })?;
        Ok(marked.map(|_| ()))
    }

    fn succeeded(&mut self) -> Result<Option<bool>> {
        let lanes = self.insist(async move |control, migration, _| control.lanes(migration).await)?;
        let (name, epoch) = &self.lane;
        Ok(lanes.map(|lanes| lanes.iter().any(|lane| lane.lane == *name && lane.epoch > *epoch)))
    }
}
