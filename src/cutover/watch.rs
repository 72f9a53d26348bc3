//! Capture's part in a cutover that another process leads.
//!
//! - Armed: the capture follows closely, so that an idle source does not cost half a second.
//! - A fence is wanted: it goes into the log as soon as the stream has passed its moment, behind every earlier event.
//! - The deadline has passed and the leader is silent: the capture unfreezes the source, because a source that stays frozen is an
//!   outage.
//! - The target is open: the process has nothing more to do and ends.
//!
//! The capture keeps no state of its own: after a restart it reads the record in the control store again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::cutover::{CutoverRow, CutoverState};
use slackwater_topics::Moment;
use tokio::sync::watch;
use uuid::Uuid;

use super::freeze::unfreeze;
use crate::config::{self, Freeze, Migration};
use crate::ops::persist::passes;
use crate::ops::stop::Stop;
use crate::source::Named;

/// How often the record is read while there is no cutover …
const CALM: Duration = Duration::from_millis(500);
/// … and while one is under way.
const NEAR: Duration = Duration::from_millis(4);
/// A cutover that stays armed is followed closely only for this long.
const MOST_ARMED_MS: i64 = 120_000;
/// How long past the deadline the leader itself may take to unfreeze.
const GRACE_MS: i64 = 1_000;

/// How near a cutover is, for the tasks that read the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There is none.
    #[default]
    Calm,
    /// One is under way. Its fence goes into the log when the stream has passed its moment.
    Near { fence: Option<(Uuid, Moment)> },
}

/// The task that watches the record of the cutover.
pub(crate) struct Watch {
    pub(crate) migration: Arc<Migration>,
    /// The source whose capture watches.
    pub(crate) name: String,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) stop: Stop,
}

/// The channel that carries the phase.
pub(crate) fn channel() -> (watch::Sender<Phase>, watch::Receiver<Phase>) {
    watch::channel(Phase::Calm)
}

impl Watch {
    /// Watches until a stop is requested, or until the target is open.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut control: Option<Control> = None;
        let mut reverting: Option<Instant> = None;
        loop {
            let wait = match self.look(&mut control, &mut reverting).await {
                Ok(wait) => wait,
                Err(error) if passes(&error) => {
                    tracing::debug!(%error, "the record of the cutover cannot be read");
                    control = None;
                    CALM
                }
                Err(error) => return Err(error),
            };
            if !self.stop.sleep(wait).await {
                return Ok(());
            }
        }
    }

    async fn look(&self, control: &mut Option<Control>, reverting: &mut Option<Instant>) -> Result<Duration> {
        let control = match control {
            Some(control) => control,
            None => control.insert(Control::open(&self.migration.target.uri).await?),
        };
        let row = control.cutover(&self.migration.name).await?;
        let phase = phase(row.as_ref(), &self.name);
        self.phase.send_if_modified(|sent| std::mem::replace(sent, phase) != phase);
        let Some(row) = row else { return Ok(CALM) };
        if row.state != CutoverState::Reverting {
            *reverting = None;
        }
        match row.state {
            CutoverState::Open => {
                return Err(Error::new(Kind::Switched, "following the source", "the target is open"));
            }
            CutoverState::Reverted => {}
            CutoverState::Armed => {
                if phase != Phase::Calm && !row.answered(&self.name) {
                    control.answer_cutover(row.id, &self.name).await?;
                }
            }
            CutoverState::Freezing | CutoverState::Frozen => {
                if row.left_ms.is_some_and(|left| left < -GRACE_MS) {
                    let reason = "the deadline passed and the process that led the cutover was silent";
                    if control.revert_cutover(row.id, reason, Some(GRACE_MS)).await? {
                        tracing::warn!(reason, "reverting the cutover");
                        control.end_leaseholder(row.id).await?;
                    }
                }
            }
            CutoverState::Reverting => self.revert_cutover(control, &row, reverting).await?,
        }
        Ok(if phase == Phase::Calm && row.state != CutoverState::Reverting { CALM } else { NEAR })
    }

    /// Unfreezes the source unless another process is already doing so.
    async fn revert_cutover(
        &self,
        control: &Control,
        row: &CutoverRow,
        since: &mut Option<Instant>,
    ) -> Result<()> {
        let since = since.get_or_insert_with(Instant::now);
        if !control.lease_cutover(&self.migration.name).await? {
            if since.elapsed() > Duration::from_millis(GRACE_MS as u64) {
                *since = Instant::now();
                control.end_leaseholder(row.id).await?;
            }
            return Ok(());
        }
        let done = self.unfreeze(control, row.id).await;
        control.end_lease(&self.migration.name).await?;
        done
    }

    async fn unfreeze(&self, control: &Control, id: Uuid) -> Result<()> {
        // Before we got the lease, another process may have unfrozen the source, and a new cutover may have started.
        let row = control.cutover(&self.migration.name).await?;
        let Some(row) = row.filter(|row| row.id == id && row.state == CutoverState::Reverting) else {
            return Ok(());
        };
        // A source that was never asked to freeze must not be unfrozen.
        if row.left_ms.is_none() {
            return control.reverted_cutover(id).await.map(drop);
        }
        if let Err(error) = self.let_go().await {
            tracing::error!(%error, "the source is frozen and cannot be unfrozen; trying again");
            return Err(Error::new(Kind::Unreachable, "reverting the cutover", "the source is still frozen"));
        }
        control.reverted_cutover(id).await?;
        tracing::warn!("the source is unfrozen: its writers may write again");
        Ok(())
    }

    /// Unfreezes all sources, not only the one that we follow. One that is away does not keep the others frozen.
    async fn let_go(&self) -> Result<()> {
        let ours = |source: &&config::Source| *self.migration.freeze_of(source) == Freeze::BlockWrites;
        let ours = self.migration.sources.iter().filter(ours);
        let sources = Named::connect_to_those_that_answer(ours).await;
        unfreeze(&self.migration, &sources).await
    }
}

fn phase(row: Option<&CutoverRow>, source: &str) -> Phase {
    match row {
        Some(row) => match row.state {
            CutoverState::Armed if row.armed_for_ms > MOST_ARMED_MS => Phase::Calm,
            CutoverState::Armed | CutoverState::Freezing | CutoverState::Frozen => {
                Phase::Near { fence: row.fence_of(source) }
            }
            CutoverState::Open | CutoverState::Reverting | CutoverState::Reverted => Phase::Calm,
        },
        None => Phase::Calm,
    }
}
