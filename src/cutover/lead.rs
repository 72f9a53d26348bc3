//! The process that makes the cutover.
//!
//! # Invariant
//!
//! The source is asked to freeze only after `freezing` was written, and to unfreeze only after `reverting` was written. One
//! transaction opens the target; it also fences off every writer of the migration. That transaction fails after the deadline. An
//! open cutover cannot be reverted.
//!
//! # Crash
//!
//! The next `slackwater cutover` reads the record. Before the deadline it resumes the cutover, after it it takes the cutover back.
//! If nobody starts one, the process that reads the source reverts it ([`super::watch`]).
//!
//! # Time
//!
//! Between freeze and open every round trip counts. Work that can be prepared is prepared before the freeze, and independent steps
//! run side by side.

mod accepted;
mod ending;
mod frozen;
mod verified;

use std::sync::Arc;
use std::time::{Duration, Instant};

use slackwater_connectors::error::{Error, Result};
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::accepted::Accepted;
use slackwater_connectors::postgres::control::cutover::{
    CutoverRow, CutoverState, Fence, FenceProgress, NewCutover,
};
use slackwater_connectors::postgres::target::drift::Looker;
use slackwater_connectors::postgres::target::finish::{Finisher, Sequence};
use slackwater_topics::Moment;
use uuid::Uuid;

use super::facts;
use super::freeze::{ask, by_hand};
use super::plan::{Blocker, blockers, freeze_in_words, time};
use super::proof::{self, Count, Counted, Glances};
use super::report::{DoneStep, Report, SourceTimes};
use super::resume::{Resume, resume};
use crate::checks::Checked;
use crate::config::Migration;
use crate::mapping::Plan;
use crate::ops::process::{self, unique_id};
use crate::ops::underway::Underway;
use crate::source::Named;
use crate::verify::Follower;

/// How often the progress of a fence is read.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// How often a preparing leader checks that its cutover was not reverted.
const TAKEN_BACK_EVERY: Duration = Duration::from_millis(300);
/// How long a capture may take to answer, and a fence to pass before the freeze.
const REHEARSAL_WITHIN: Duration = Duration::from_secs(15);
/// The first fence still waits until the stream follows closely. The second one takes as long as the fence in the freeze will.
const REHEARSALS: usize = 2;
/// Connections that count rows side by side; one more runs the checks.
const COUNTERS: usize = 3;

/// How the cutover ended.
pub(crate) enum Outcome {
    /// It did not start.
    Blocked(Vec<Blocker>),
    /// It opened the target, or was reverted.
    Ended(Box<Report>),
    /// The target was open before. `report`: the stored report; `failed`: what could not be told to the team.
    Before { report: Option<String>, failed: Vec<String> },
}

/// Leads one cutover.
pub(crate) struct Leader<'a> {
    migration: &'a Migration,
    plan: &'a Arc<Plan>,
    control: Control,
    sources: Vec<Named>,
    owner: Uuid,
    host: String,
    on_step: &'a (dyn Fn(&DoneStep) + Sync),
    /// What does not block, because an operator has accepted it.
    accepted: Accepted,
    /// When this process began to lead.
    began: Instant,
    steps: Vec<DoneStep>,
    /// When the freeze began.
    frozen_at: Option<Instant>,
    /// What each source took since.
    frozen: Vec<SourceTimes>,
    rehearsal: Option<Duration>,
    /// Sources that cannot refuse writers, right after the freeze.
    glances: Glances,
    counts: Vec<Count>,
    checks: Vec<Checked>,
    warnings: Vec<String>,
    /// What the freeze waits for.
    underway: Underway,
}

/// What is prepared before the freeze.
struct Prepared<'a> {
    /// For the checks and the finishing steps.
    finisher: Finisher,
    counters: Vec<Finisher>,
    tables: Vec<Counted>,
    sequences: Vec<Sequence>,
    /// For the last verification.
    followers: Vec<Follower<'a>>,
}

/// Why the cutover cannot go on and has to be reverted.
enum Abandon {
    Because(String),
    Failed(Error),
}

impl Abandon {
    fn taken_back() -> Self {
        Self::Because("another process took it back".into())
    }
}

impl From<Error> for Abandon {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Abandon> for String {
    fn from(abandon: Abandon) -> Self {
        match abandon {
            Abandon::Because(reason) => reason,
            Abandon::Failed(error) => error.to_string(),
        }
    }
}

impl<'a> Leader<'a> {
    /// Connects to the control store.
    pub(crate) async fn new(
        migration: &'a Migration,
        plan: &'a Arc<Plan>,
        sources: Vec<Named>,
        accepted: Accepted,
        on_step: &'a (dyn Fn(&DoneStep) + Sync),
    ) -> Result<Self> {
        Ok(Self {
            migration,
            plan,
            control: Control::open(&migration.target.uri).await?,
            sources,
            owner: unique_id(),
            host: process::name(),
            on_step,
            accepted,
            began: Instant::now(),
            steps: Vec::new(),
            frozen_at: None,
            frozen: Vec::new(),
            rehearsal: None,
            glances: Vec::new(),
            counts: Vec::new(),
            checks: Vec::new(),
            warnings: Vec::new(),
            underway: Underway::default(),
        })
    }

    /// Makes the cutover, or resumes the one that another process has left.
    pub(crate) async fn run(mut self) -> Result<Outcome> {
        let name = &self.migration.name;
        if !self.control.lease_cutover(name).await? {
            // The newest record may be that of an older one, which has ended.
            let row = self.control.cutover(name).await?.filter(|row| row.state != CutoverState::Reverted);
            let busy = Some(leader_of(row.as_ref()));
            let facts = facts::gather(self.migration, &self.control, &self.sources, busy).await?;
            return Ok(Outcome::Blocked(blockers(self.migration, &facts)));
        }
        let row = self.control.cutover(name).await?;
        self.accept_again(row.as_ref());
        match resume(row.as_ref()) {
            Resume::Begin => self.begin().await,
            Resume::Arm(id) => self.resume_armed(id).await,
            Resume::Freeze { id, left } => self.resume_frozen(id, left).await,
            Resume::TakeBack(id) => {
                let reason = "the process that led it has ended, and the deadline passed";
                self.revert_cutover(id, reason.into()).await
            }
            Resume::Unfreeze(id) => self.revert_cutover(id, "it was being reverted".into()).await,
            Resume::Done { id, told, report } => {
                let mut failed = Vec::new();
                if !told {
                    failed = self.tell(id, report.as_deref().unwrap_or("{}")).await?;
                }
                Ok(Outcome::Before { report, failed })
            }
        }
    }

    async fn begin(&mut self) -> Result<Outcome> {
        if let Some(blocked) = self.preflight().await? {
            return Ok(Outcome::Blocked(blocked));
        }
        let id = unique_id();
        let new = NewCutover {
            id,
            owner: self.owner,
            host: &self.host,
            freeze: &freeze_in_words(self.migration),
            deadline_ms: millis(self.migration.cutover.deadline),
            accepted: &self.accepted,
        };
        self.control.arm_cutover(&self.migration.name, new).await?;
        self.armed(id).await
    }

    async fn resume_armed(&mut self, id: Uuid) -> Result<Outcome> {
        tracing::info!("resuming a cutover that another process has armed");
        if !self.control.adopt_cutover(id, self.owner, &self.host).await? {
            return self.revert_cutover(id, "it was reverted".into()).await;
        }
        match self.preflight().await? {
            None => {
                self.record_accepted(id).await?;
                self.armed(id).await
            }
            Some(blocked) => {
                self.revert_cutover(id, "it was blocked when it was resumed".into()).await?;
                Ok(Outcome::Blocked(blocked))
            }
        }
    }

    async fn resume_frozen(&mut self, id: Uuid, left: Duration) -> Result<Outcome> {
        tracing::warn!("resuming a cutover that another process has left with the source frozen");
        // The writers have waited since then, so the gap counts from there.
        self.frozen_at = Instant::now().checked_sub(self.migration.cutover.deadline.saturating_sub(left));
        if !self.control.adopt_cutover(id, self.owner, &self.host).await? {
            return self.revert_cutover(id, "it was reverted".into()).await;
        }
        self.record_accepted(id).await?;
        match tokio::time::timeout(left, self.connect()).await {
            Ok(Ok(prepared)) => self.freeze_and_open(id, prepared, left).await,
            Ok(Err(abandon)) => self.revert_cutover(id, abandon.into()).await,
            Err(_) => self.revert_cutover(id, self.deadline_passed()).await,
        }
    }

    /// Reverts the cutover in progress, even if another process leads it. `None` if there is none.
    pub(crate) async fn abort(mut self, reason: &str) -> Result<Option<Outcome>> {
        let row = self.control.cutover(&self.migration.name).await?;
        let Some(row) = row.filter(|row| row.state != CutoverState::Reverted) else { return Ok(None) };
        if row.state == CutoverState::Open {
            return Ok(Some(Outcome::Before { report: row.report, failed: Vec::new() }));
        }
        self.control.revert_cutover(row.id, reason, None).await?;
        self.control.end_leaseholder(row.id).await?;
        self.revert_cutover(row.id, reason.into()).await.map(Some)
    }

    async fn preflight(&mut self) -> Result<Option<Vec<Blocker>>> {
        let begun = Instant::now();
        let (facts, found) =
            facts::settled(self.migration, &self.control, &self.sources, None, &mut self.accepted).await?;
        let lag = facts.look.lag_ms().unwrap_or_default();
        self.checks = facts.checks;
        if !found.is_empty() {
            return Ok(Some(found));
        }
        let text = format!("everything is copied, the target is {} behind", time(lag as u128));
        self.record("preflight", text, begun);
        Ok(None)
    }

    /// Goes on from `armed`: prepares everything that may take long, then freezes.
    async fn armed(&mut self, id: Uuid) -> Result<Outcome> {
        let name = self.migration.name.clone();
        let second = Control::open(&self.migration.target.uri).await?;
        // The team's SQL may take long, and an operator may not want to wait for it.
        let prepared = tokio::select! {
            prepared = self.prepare(id) => prepared,
            () = taken_back(&second, &name, id) => Err(Abandon::taken_back()),
        };
        match prepared {
            Ok(prepared) => self.freeze_and_open(id, prepared, self.migration.cutover.deadline).await,
            Err(abandon) => self.revert_cutover(id, abandon.into()).await,
        }
    }

    async fn prepare(&mut self, id: Uuid) -> std::result::Result<Prepared<'a>, Abandon> {
        for statement in &self.migration.cutover.before {
            let begun = Instant::now();
            self.finisher().await?.run(&statement.name, &statement.sql).await?;
            self.record("before", statement.name.clone(), begun);
        }
        // A capture follows an armed cutover closely for a limited time only. Adopting it starts that time again.
        if !self.control.adopt_cutover(id, self.owner, &self.host).await? {
            return Err(Abandon::taken_back());
        }
        let prepared = self.connect().await?;
        let begun = Instant::now();
        self.captures_answer(id).await?;
        let most = self.migration.cutover.deadline / 2;
        let mut rehearsals = 0;
        let took = loop {
            let sent = Instant::now();
            self.rehearse(id).await?;
            let took = sent.elapsed();
            self.rehearsal = Some(took);
            rehearsals += 1;
            if rehearsals >= REHEARSALS && took <= most {
                break took.as_millis();
            }
            if begun.elapsed() > self.rehearsal_within() {
                let (took, most) = (time(took.as_millis()), time(most.as_millis()));
                return Err(Abandon::Because(format!(
                    "fence_slow: a fence takes {took}, and half of the deadline is {most}"
                )));
            }
        };
        self.record("arm", format!("a fence takes {}", time(took)), begun);
        let by_hand = by_hand(self.migration);
        if !by_hand.is_empty() {
            ask(&by_hand).await?;
        }
        Ok(prepared)
    }

    async fn finisher(&self) -> Result<Finisher> {
        Finisher::open(&self.migration.target.uri, &self.migration.target.schema).await
    }

    /// Opens the connections that the freeze needs.
    async fn connect(&self) -> std::result::Result<Prepared<'a>, Abandon> {
        let finisher = self.finisher().await?;
        let mut counters = Vec::with_capacity(COUNTERS);
        for _ in 0..COUNTERS {
            counters.push(self.finisher().await?);
        }
        let names: Vec<(String, String)> = self
            .plan
            .tables
            .iter()
            .filter(|spec| !spec.is_ours())
            .map(|spec| (spec.table.schema.clone(), spec.table.name.clone()))
            .collect();
        let sequences = finisher.sequences(&names).await?;
        let gone = self.control.gone(&self.migration.name).await?;
        let followers = self.followers().await?;
        Ok(Prepared { finisher, counters, tables: proof::tables(self.plan, &gone), sequences, followers })
    }

    /// Waits until the capture of every source follows closely.
    async fn captures_answer(&self, id: Uuid) -> std::result::Result<(), Abandon> {
        let deadline = Instant::now() + REHEARSAL_WITHIN;
        loop {
            match self.control.cutover(&self.migration.name).await? {
                Some(row) if row.id == id && row.state == CutoverState::Armed => {
                    if self.sources.iter().all(|named| row.answered(&named.name)) {
                        return Ok(());
                    }
                }
                _ => return Err(Abandon::taken_back()),
            }
            if Instant::now() > deadline {
                return Err(Abandon::Because(
                    "capture does not answer: is `slackwater run` or `capture` of this version running?"
                        .into(),
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Who gives the freeze more time gives it to its rehearsal as well: a source that is asked takes a pass over all that it has.
    fn rehearsal_within(&self) -> Duration {
        REHEARSAL_WITHIN.max(self.migration.cutover.deadline)
    }

    /// Sends a fence all the way while the source is still written to: if it does not pass now, it would not pass in the
    /// freeze.
    async fn rehearse(&self, id: Uuid) -> std::result::Result<(), Abandon> {
        let mut moments = Vec::with_capacity(self.sources.len());
        for named in &self.sources {
            moments.push((named.name.clone(), named.source.now().await?));
        }
        let moments = self.as_captures_count(moments).await?;
        let fence = Fence { id: unique_id(), moments };
        if !self.control.rehearse_cutover(id, self.owner, &fence).await? {
            return Err(Abandon::taken_back());
        }
        let within = self.rehearsal_within();
        match tokio::time::timeout(within, self.passed(&fence)).await {
            Ok(passed) => Ok(passed?),
            Err(_) => {
                let told = self.control.sources(&self.migration.name).await?;
                let read = told.iter().map(|row| (row.source.as_str(), row.read_through));
                let late = unread(&fence, &read.collect::<Vec<_>>());
                let within = time(within.as_millis());
                if !late.is_empty() {
                    return Err(Abandon::Because(format!(
                        "source_slow: what {} had at the rehearsal was not read within {within}; raise `cutover.deadline`, or how \
                         many requests the source may be sent",
                        late.join(" and ")
                    )));
                }
                let progress = self.control.fence_progress(&self.migration.name, &fence).await?;
                Err(Abandon::Because(format!(
                    "applier_stopped: a fence did not pass {} within {within}",
                    missing(&progress)
                )))
            }
        }
    }

    /// Moments of a source that has no time of its own are those of the clock of its capture: the last one that it has told takes the
    /// place of ours. When the capture hears of the fence it waits for its own present besides.
    async fn as_captures_count(&self, mut moments: Vec<(String, Moment)>) -> Result<Vec<(String, Moment)>> {
        let counts = |name: &str| {
            let named = self.sources.iter().find(|named| named.name == name);
            named.is_some_and(|named| named.source.kind().counts_by_itself())
        };
        if moments.iter().any(|(name, _)| counts(name)) {
            let told = self.control.sources(&self.migration.name).await?;
            for (name, moment) in moments.iter_mut().filter(|(name, _)| counts(name)) {
                let row = told.iter().find(|row| row.source == *name);
                *moment = row.and_then(|row| row.operation_time).unwrap_or_default();
            }
        }
        Ok(moments)
    }

    /// Waits until every lane or partition has passed a fence.
    async fn passed(&self, fence: &Fence) -> Result<()> {
        while !self.control.fence_progress(&self.migration.name, fence).await?.missing.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// From the freeze to the end.
    async fn freeze_and_open(
        &mut self,
        id: Uuid,
        mut prepared: Prepared<'a>,
        within: Duration,
    ) -> Result<Outcome> {
        let within = match self.caught_up(&mut prepared, within).await {
            Ok(within) => within,
            Err(abandon) => return self.revert_cutover(id, abandon.into()).await,
        };
        let outcome = tokio::time::timeout(within, Box::pin(self.frozen(id, &mut prepared, within))).await;
        let reason = match outcome {
            Ok(Ok(())) => return self.opened(id).await,
            Ok(Err(abandon)) => abandon.into(),
            // The details are worth a question, but not an error.
            Err(_) => {
                let missing = self.what_was_missing(id, &prepared).await;
                missing.unwrap_or_else(|_| self.deadline_passed())
            }
        };
        self.let_go(prepared).await;
        self.revert_cutover(id, reason).await
    }

    /// What the team's SQL has changed so far is undone, and what it has locked is free, before anybody is told that all is as before.
    async fn let_go(&self, prepared: Prepared<'a>) {
        if let Err(error) = self.control.end_sessions(&[prepared.finisher.pid()]).await {
            tracing::debug!(%error, "the session of the last steps ends by itself");
        }
    }

    /// What has changed is verified until now; how much time is left then, where the source is frozen already.
    async fn caught_up(
        &mut self,
        prepared: &mut Prepared<'a>,
        within: Duration,
    ) -> std::result::Result<Duration, Abandon> {
        let begun = Instant::now();
        let (most, is_frozen, passed) =
            (self.rehearsal_within(), self.frozen_at.is_some(), self.deadline_passed());
        let caught_up = self.catch_up(&mut prepared.followers);
        if !is_frozen {
            let late =
                || Abandon::Because("verification_slow: changes come faster than they are verified".into());
            tokio::time::timeout(most, caught_up).await.map_err(|_| late())??;
            return Ok(within);
        }
        let late = || Abandon::Because(passed);
        tokio::time::timeout(within, caught_up).await.map_err(|_| late())??;
        Ok(within.saturating_sub(begun.elapsed()))
    }

    /// What the freeze waited for in vain.
    async fn what_was_missing(&self, id: Uuid, prepared: &Prepared<'_>) -> Result<String> {
        let name = &self.migration.name;
        let row = self.control.cutover(name).await?;
        if let Some(fence) = row.filter(|row| row.state == CutoverState::Frozen).and_then(CutoverRow::fence) {
            let progress = self.control.fence_progress(name, &fence).await?;
            if !progress.missing.is_empty() {
                return Ok(format!(
                    "{}; the fence had not passed {}",
                    self.deadline_passed(),
                    missing(&progress)
                ));
            }
        }
        let (late, open) = (self.deadline_passed(), self.underway.open());
        if !open.is_empty() {
            let holder = self.who_is_waited_for(prepared.finisher.pid()).await.unwrap_or_default();
            return Ok(format!("{late}; not done in time: {}{holder}", open.join(", ")));
        }
        let left = self.letters_to_wait_for(id).await?;
        Ok(if left > 0 { format!("{late}; dead_letters: {left} left") } else { late })
    }

    /// Who holds the lock that our session waits for, if it waits for one.
    async fn who_is_waited_for(&self, pid: i32) -> Result<String> {
        let blocked = Looker::open(&self.migration.target.uri).await?.blocked().await?;
        let ours = blocked.into_iter().find(|blocked| blocked.pid == pid);
        Ok(ours
            .map(|ours| format!(", which waits for a lock that {} holds", ours.holder))
            .unwrap_or_default())
    }

    fn deadline_passed(&self) -> String {
        format!("the deadline of {} passed", time(self.migration.cutover.deadline.as_millis()))
    }
}

/// Ends when the cutover is no longer armed. If that cannot be read, the leader's own calls will fail.
async fn taken_back(control: &Control, migration: &str, id: Uuid) {
    loop {
        tokio::time::sleep(TAKEN_BACK_EVERY).await;
        let row = control.cutover(migration).await;
        if row.is_ok_and(|row| row.is_none_or(|row| row.id != id || row.state != CutoverState::Armed)) {
            return;
        }
    }
}

/// The leader of a cutover, for messages.
pub(crate) fn leader_of(row: Option<&CutoverRow>) -> String {
    match row {
        Some(row) => {
            format!("{} ({}, for {})", row.host, row.state.word(), time(row.armed_for_ms.max(0) as u128))
        }
        None => "it is not armed yet".to_owned(),
    }
}

/// The sources that were not read up to a fence. `read`: how far each of them was.
fn unread<'f>(fence: &'f Fence, read: &[(&str, Option<Moment>)]) -> Vec<&'f str> {
    let through =
        |name: &str| read.iter().find(|(source, _)| *source == name).and_then(|(_, through)| *through);
    let late = fence.moments.iter().filter(|(name, moment)| through(name) < Some(*moment));
    late.map(|(name, _)| name.as_str()).collect()
}

fn missing(progress: &FenceProgress) -> String {
    let shown: Vec<&str> = progress.missing.iter().take(4).map(String::as_str).collect();
    let more = progress.missing.len() - shown.len();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest} ({} of {})", shown.join(", "), progress.missing.len(), progress.all)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "lead_tests.rs"]
mod tests;
