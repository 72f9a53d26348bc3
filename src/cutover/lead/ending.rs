//! How a cutover ends: opened and told, or taken back; and its report.

use std::time::{Duration, Instant};

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::cutover::CutoverState;
use slackwater_connectors::retry::Pauses;
use uuid::Uuid;

use super::{Leader, Outcome, ms};
use crate::config::Log;
use crate::cutover::freeze::unfreeze;
use crate::cutover::notice::tell;
use crate::cutover::plan::freeze_in_words;
use crate::cutover::proof;
use crate::cutover::report::{DoneStep, Report};
use crate::ops::persist::passes;
use crate::source::Named;

impl Leader<'_> {
    /// Unfreezes a source that we froze after the cutover had been reverted without our knowing; unless it is frozen for
    /// another process's cutover.
    pub(super) async fn unfreeze_late(&self, id: Uuid) -> Result<()> {
        let theirs = self.control.cutover(&self.migration.name).await?.is_some_and(|row| {
            row.id != id
                && matches!(row.state, CutoverState::Freezing | CutoverState::Frozen | CutoverState::Open)
        });
        if theirs { Ok(()) } else { unfreeze(self.migration, &self.sources).await }
    }

    pub(super) async fn opened(&mut self, id: Uuid) -> Result<Outcome> {
        // What was counted in the freeze has come to what was accepted before it.
        if let Err(error) = self.record_accepted(id).await {
            self.warnings.push(format!("what was accepted was not recorded: {error}"));
        }
        let mut report = self.report(id).await;
        let json = report.json().to_string();
        // The target is open, even if the report cannot be stored.
        if let Err(error) = self.control.report_cutover(id, &json).await {
            self.warnings.push(format!("the report was not stored: {error}"));
        }
        let begun = Instant::now();
        let failed = self.tell(id, &json).await?;
        if !self.migration.cutover.open.is_empty() {
            self.record(
                "told",
                format!(
                    "{} of {}",
                    self.migration.cutover.open.len() - failed.len(),
                    self.migration.cutover.open.len()
                ),
                begun,
            );
        }
        self.warnings.extend(failed);
        report.steps = std::mem::take(&mut self.steps);
        report.warnings = std::mem::take(&mut self.warnings);
        Ok(Outcome::Ended(Box::new(report)))
    }

    pub(super) async fn tell(&self, id: Uuid, report: &str) -> Result<Vec<String>> {
        let failed = tell(&self.migration.cutover.open, report).await;
        if failed.is_empty() {
            self.control.told_cutover(id).await?;
        }
        Ok(failed)
    }

    /// Takes the cutover back, however long that takes; or finds that the target is open after all.
    pub(super) async fn revert_cutover(&mut self, id: Uuid, reason: String) -> Result<Outcome> {
        let begun = Instant::now();
        let mut pauses = Pauses::for_server();
        loop {
            match self.try_to_revert_cutover(id, &reason).await {
                Ok(Some(CutoverState::Open)) => return self.opened(id).await,
                Ok(Some(_)) => break,
                Ok(None) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) if passes(&error) => {
                    tracing::warn!(%error, "the cutover cannot be reverted yet; trying again");
                    tokio::time::sleep(pauses.next_pause()).await;
                    if !self.control.is_connected()
                        && let Ok(control) = Control::open(&self.migration.target.uri).await
                    {
                        self.control = control;
                    }
                    let missing =
                        self.migration.sources.iter().filter(|source| {
                            self.sources.iter().all(|named| named.name != source.name.value)
                        });
                    let back = Named::connect_to_those_that_answer(missing).await;
                    self.sources.extend(back);
                }
                Err(error) => return Err(error),
            }
        }
        self.record("back", "the source is as before".into(), begun);
        let mut report = self.report(id).await;
        // The cutover is over, even if the report cannot be stored.
        if let Err(error) = self.control.report_cutover(id, &report.json().to_string()).await {
            report.warnings.push(format!("the report was not stored: {error}"));
        }
        Ok(Outcome::Ended(Box::new(report)))
    }

    /// The state in which the cutover ended; `None` while another process works on it.
    async fn try_to_revert_cutover(&mut self, id: Uuid, reason: &str) -> Result<Option<CutoverState>> {
        self.control.revert_cutover(id, reason, None).await?;
        let name = &self.migration.name;
        // A session may hold the lease twice; that does no harm, because the lease ends with the session.
        let leased = self.control.lease_cutover(name).await?;
        let row = self.control.cutover(name).await?;
        let Some(row) = row.filter(|row| row.id == id) else { return Ok(Some(CutoverState::Reverted)) };
        match row.state {
            CutoverState::Open | CutoverState::Reverted => Ok(Some(row.state)),
            CutoverState::Reverting if leased => {
                // A source that was never asked to freeze need not be asked to unfreeze.
                if row.left_ms.is_some() {
                    unfreeze(self.migration, &self.sources).await?;
                }
                self.control.reverted_cutover(id).await?;
                Ok(Some(CutoverState::Reverted))
            }
            _ => Ok(None),
        }
    }

    /// Records a step that is done.
    pub(super) fn record(&mut self, name: &'static str, text: String, begun: Instant) {
        self.record_took(name, text, begun, begun.elapsed());
    }

    /// The same for a step that ended before now.
    pub(super) fn record_took(&mut self, name: &'static str, text: String, begun: Instant, took: Duration) {
        let at_ms = self
            .frozen_at
            .map(|frozen| if begun >= frozen { ms(begun - frozen) } else { -ms(frozen - begun) });
        let from_start_ms = ms(begun.saturating_duration_since(self.began));
        let step = DoneStep { name, text, at_ms, from_start_ms, took_ms: ms(took) };
        (self.on_step)(&step);
        self.steps.push(step);
    }

    async fn report(&self, id: Uuid) -> Report {
        let row = self.control.cutover(&self.migration.name).await.ok().flatten().filter(|row| row.id == id);
        let gap_ms = self.frozen_at.map(|frozen| ms(frozen.elapsed()));
        let counted: Vec<String> = self.counts.iter().map(|count| count.table.clone()).collect();
        let uncounted = proof::uncounted(self.plan, &counted);
        let last = |name: &str| self.steps.iter().rfind(|step| step.name == name);
        let gap = last("open").or(last("back")).and_then(|step| Some(step.at_ms? + step.took_ms));
        Report {
            migration: self.migration.name.clone(),
            id,
            state: row.as_ref().map_or(CutoverState::Open, |row| row.state),
            reason: row.as_ref().and_then(|row| row.reason.clone()),
            log: if matches!(self.migration.log, Log::Direct) { "direct" } else { "kafka" },
            freeze: freeze_in_words(self.migration),
            armed_at: row.as_ref().map_or(0, |row| row.armed_at),
            open_at: row.as_ref().and_then(|row| row.open_at),
            gap_ms: gap.filter(|gap| *gap >= 0.0).or(gap_ms),
            rehearsal_ms: self.rehearsal.map(ms),
            steps: self.steps.clone(),
            sources: self.frozen.clone(),
            counts: self.counts.clone(),
            uncounted: if self.counts.is_empty() { Vec::new() } else { uncounted },
            checks: self.checks.clone(),
            warnings: self.warnings.clone(),
            accepted: match (self.accepted.is_empty(), &row) {
                // Who takes back what another process has begun was told nothing of it.
                (true, Some(row)) => row.accepted.clone(),
                _ => self.accepted.clone(),
            },
        }
    }
}
