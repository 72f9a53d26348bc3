//! The process that makes the switch.
//!
//! # Invariant
//!
//! The source is asked to freeze only after `freezing` was written, and to unfreeze only after `reverting` was; the target is
//! open from one transaction on, which also fences off every writer of the migration. That transaction
//! fails past the deadline, and so does whoever would take an open cutover back.
//!
//! # Crash
//!
//! The next process that is started for the migration reads the record: it goes on while there is time, and goes back
//! afterwards. Where none is started, the process that reads the source goes back ([`super::watch`]).
//!
//! # Time
//!
//! Between freeze and open every round trip counts: what can be prepared is prepared before, what does not depend on each
//! other runs side by side.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use slackwater_connectors::error::{Error, Result};
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::cutover::{
    CutoverRow, CutoverState, Fence, FenceProgress, NewCutover,
};
use slackwater_connectors::postgres::target::finish::{Finisher, Sequence};
use slackwater_connectors::retry::Pauses;
use uuid::Uuid;

use super::facts::{self, check};
use super::freeze::{ask, freeze, unfreeze};
use super::notice::tell;
use super::plan::{Blocker, Checked, Facts, blockers, how, passing, time};
use super::proof::{self, Count, Counted};
use super::report::{Made, Report};
use super::resume::{Resume, resume};
use crate::config::{Finish, Freeze, Log, Migration};
use crate::mapping::Plan;
use crate::ops::persist::passes;
use crate::ops::process::{self, unique_id};
use crate::source::Named;

/// How often the log's progress is looked at while a fence is on its way.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// How long the preflight waits for what may be over in a moment, and how often it looks.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// How often a leader that prepares asks whether it still should.
const TAKEN_BACK_EVERY: Duration = Duration::from_millis(300);
/// How long capture may take to answer, and a fence to pass while the source is written to.
const REHEARSAL_WITHIN: Duration = Duration::from_secs(15);
/// The first fence waits for the stream to hurry; what the second one takes is what the freeze will take.
const REHEARSALS: usize = 2;
/// Connections that count side by side.
const COUNTERS: usize = 4;

/// How it ended.
pub(crate) enum Outcome {
    /// It did not begin.
    Blocked(Vec<Blocker>),
    /// It is open, or taken back.
    Ended(Box<Report>),
    /// It was open before; what was kept of its report.
    Before { report: Option<String>, failed: Vec<String> },
}

/// Leads one cutover.
pub(crate) struct Leader<'a> {
    migration: &'a Migration,
    plan: &'a Plan,
    control: Control,
    sources: Vec<Named>,
    owner: Uuid,
    host: String,
    say: &'a (dyn Fn(&Made) + Sync),
    steps: Vec<Made>,
    /// When the freeze began.
    frozen_at: Option<Instant>,
    rehearsal: Option<Duration>,
    counts: Vec<Count>,
    checks: Vec<Checked>,
    warnings: Vec<String>,
}

/// What was made ready before the freeze.
struct Ready {
    finishers: Vec<Finisher>,
    tables: Vec<Counted>,
    sequences: Vec<Sequence>,
}

/// Why it did not go on.
enum Ended {
    /// It has to go back.
    Back(String),
    /// Something failed.
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Ended> for String {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Back(reason) => reason,
            Ended::Failed(error) => error.to_string(),
        }
    }
}

impl<'a> Leader<'a> {
    /// Connects.
    pub(crate) async fn new(
        migration: &'a Migration,
        plan: &'a Plan,
        sources: Vec<Named>,
        say: &'a (dyn Fn(&Made) + Sync),
    ) -> Result<Self> {
        Ok(Self {
            migration,
            plan,
            control: Control::open(&migration.target.uri).await?,
            sources,
            owner: unique_id(),
            host: process::name(),
            say,
            steps: Vec::new(),
            frozen_at: None,
            rehearsal: None,
            counts: Vec::new(),
            checks: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// Makes the switch, or goes on with the one that another process has left.
    pub(crate) async fn run(mut self) -> Result<Outcome> {
        let name = &self.migration.name;
        if !self.control.lease_cutover(name).await? {
            let row = self.control.cutover(name).await?;
            let facts = self.facts(Some(who(row.as_ref()))).await?;
            return Ok(Outcome::Blocked(blockers(self.migration, &facts)));
        }
        let row = self.control.cutover(name).await?;
        match resume(row.as_ref()) {
            Resume::Begin => {
                if let Some(blocked) = self.preflight().await? {
                    return Ok(Outcome::Blocked(blocked));
                }
                let id = unique_id();
                let new = NewCutover {
                    id,
                    owner: self.owner,
                    host: &self.host,
                    freeze: how(&self.migration.cutover.freeze),
                    deadline_ms: millis(self.migration.cutover.deadline),
                };
                self.control.arm_cutover(name, new).await?;
                self.armed(id).await
            }
            Resume::Arm(id) => {
                tracing::info!("going on with a cutover that another process has armed");
                if !self.control.adopt_cutover(id, self.owner, &self.host).await? {
                    return self.back(id, "it was taken back".into()).await;
                }
                match self.preflight().await? {
                    None => self.armed(id).await,
                    Some(blocked) => {
                        self.back(id, "something stands in its way".into()).await?;
                        Ok(Outcome::Blocked(blocked))
                    }
                }
            }
            Resume::Freeze(id) => {
                tracing::warn!(
                    "going on with a cutover that another process has left with the source frozen"
                );
                if !self.control.adopt_cutover(id, self.owner, &self.host).await? {
                    return self.back(id, "it was taken back".into()).await;
                }
                let left = row.as_ref().and_then(|row| row.left_ms).unwrap_or(0);
                let ready = self.ready();
                let within = Duration::from_millis(left.max(1) as u64);
                let ready = match tokio::time::timeout(within, ready).await {
                    Ok(Ok(ready)) => ready,
                    Ok(Err(error)) => return self.back(id, error.to_string()).await,
                    Err(_) => return self.back(id, self.late()).await,
                };
                self.switch(id, ready, within).await
            }
            Resume::TakeBack(id) => {
                let reason = "the process that led it has ended, and the deadline passed";
                self.back(id, reason.into()).await
            }
            Resume::Unfreeze(id) => self.back(id, "it was being taken back".into()).await,
            Resume::Done(id) => {
                let row = row.as_ref();
                let report = row.and_then(|row| row.report.clone());
                let mut failed = Vec::new();
                if row.is_some_and(|row| !row.told) {
                    failed = self.tell(id, report.as_deref().unwrap_or("{}")).await?;
                }
                Ok(Outcome::Before { report, failed })
            }
        }
    }

    /// Takes a cutover back that is under way, whoever leads it. None where there is none.
    pub(crate) async fn abort(mut self, reason: &str) -> Result<Option<Outcome>> {
        let row = self.control.cutover(&self.migration.name).await?;
        let Some(row) = row.filter(|row| row.state != CutoverState::Reverted) else { return Ok(None) };
        if row.state == CutoverState::Open {
            return Ok(Some(Outcome::Before { report: row.report, failed: Vec::new() }));
        }
        self.control.revert_cutover(row.id, reason, None).await?;
        self.control.end_leaseholder(row.id).await?;
        self.back(row.id, reason.into()).await.map(Some)
    }

    async fn facts(&self, busy: Option<String>) -> Result<Facts> {
        facts::gather(self.migration, &self.control, &self.sources, busy).await
    }

    async fn preflight(&mut self) -> Result<Option<Vec<Blocker>>> {
        let begun = Instant::now();
        let (facts, found) = loop {
            let facts = self.facts(None).await?;
            let found = blockers(self.migration, &facts);
            if found.is_empty() || !passing(&facts, &found) || begun.elapsed() > SETTLE_WITHIN {
                break (facts, found);
            }
            tokio::time::sleep(SETTLE_EVERY).await;
        };
        let lag = facts.look.lag_ms().unwrap_or_default();
        self.checks = facts.checks;
        if !found.is_empty() {
            return Ok(Some(found));
        }
        let text = format!("everything is copied, the target {} behind", time(lag as u128));
        self.made("preflight", text, begun);
        Ok(None)
    }

    /// From armed to frozen: everything that may take its time.
    async fn armed(&mut self, id: Uuid) -> Result<Outcome> {
        let name = self.migration.name.clone();
        let beside = Control::open(&self.migration.target.uri).await?;
        // SQL of the team may take its time, and an operator may not want to wait for it.
        let prepared = tokio::select! {
            prepared = self.prepare(id) => prepared,
            () = taken_back(&beside, &name, id) => Err(Ended::Back("it was taken back".into())),
        };
        match prepared {
            Ok(ready) => self.switch(id, ready, self.migration.cutover.deadline).await,
            Err(ended) => self.back(id, ended.into()).await,
        }
    }

    async fn prepare(&mut self, id: Uuid) -> std::result::Result<Ready, Ended> {
        for statement in &self.migration.cutover.before {
            let begun = Instant::now();
            self.finisher().await?.run(&statement.name, &statement.sql).await?;
            self.made("before", statement.name.clone(), begun);
        }
        // Capture does not follow closely for long: whatever came before, it begins to now.
        if !self.control.adopt_cutover(id, self.owner, &self.host).await? {
            return Err(Ended::Back("it was taken back".into()));
        }
        let ready = self.ready().await?;
        let begun = Instant::now();
        self.heard(id).await?;
        let most = self.migration.cutover.deadline / 2;
        let mut rehearsals = 0;
        let took = loop {
            let one = Instant::now();
            self.rehearse(id).await?;
            let took = one.elapsed();
            self.rehearsal = Some(took);
            rehearsals += 1;
            if rehearsals >= REHEARSALS && took <= most {
                break took.as_millis();
            }
            if begun.elapsed() > REHEARSAL_WITHIN {
                let (took, most) = (time(took.as_millis()), time(most.as_millis()));
                return Err(Ended::Back(format!(
                    "fence_slow: a fence takes {took}, and {most} is half of the deadline"
                )));
            }
        };
        self.made("arm", format!("a fence takes {} all the way", time(took)), begun);
        if self.migration.cutover.freeze == Freeze::ByHand {
            ask().await?;
        }
        Ok(ready)
    }

    async fn finisher(&self) -> Result<Finisher> {
        Finisher::open(&self.migration.target.uri, &self.migration.target.schema).await
    }

    async fn ready(&self) -> Result<Ready> {
        let mut finishers = Vec::with_capacity(COUNTERS);
        for _ in 0..COUNTERS {
            finishers.push(self.finisher().await?);
        }
        let names: Vec<(String, String)> = self
            .plan
            .tables
            .iter()
            .map(|spec| (spec.table.schema.clone(), spec.table.name.clone()))
            .collect();
        let sequences = finishers[0].sequences(&names).await?;
        Ok(Ready { finishers, tables: proof::tables(self.plan), sequences })
    }

    /// Waits until capture follows closely.
    async fn heard(&self, id: Uuid) -> std::result::Result<(), Ended> {
        let deadline = Instant::now() + REHEARSAL_WITHIN;
        loop {
            match self.control.cutover(&self.migration.name).await? {
                Some(row) if row.id == id && row.state == CutoverState::Armed => {
                    if self.sources.iter().all(|named| row.answered(&named.name)) {
                        return Ok(());
                    }
                }
                _ => return Err(Ended::Back("it was taken back".into())),
            }
            if Instant::now() > deadline {
                return Err(Ended::Back(
                    "capture does not answer: is `slackwater run` or `capture` of this version there?".into(),
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends a fence all the way while the source is still written to: what does not come through now would not in
    /// the freeze.
    async fn rehearse(&self, id: Uuid) -> std::result::Result<(), Ended> {
        let mut moments = Vec::with_capacity(self.sources.len());
        for named in &self.sources {
            moments.push((named.name.clone(), named.source.now().await?));
        }
        let fence = Fence { id: unique_id(), moments };
        if !self.control.rehearse_cutover(id, self.owner, &fence).await? {
            return Err(Ended::Back("it was taken back".into()));
        }
        match tokio::time::timeout(REHEARSAL_WITHIN, self.passed(&fence)).await {
            Ok(passed) => Ok(passed?),
            Err(_) => {
                let fencing = self.control.fence_progress(&self.migration.name, &fence).await?;
                Err(Ended::Back(format!(
                    "applier_stopped: a fence did not pass {} within {}",
                    missing(&fencing),
                    time(REHEARSAL_WITHIN.as_millis())
                )))
            }
        }
    }

    async fn passed(&self, fence: &Fence) -> Result<()> {
        while !self.control.fence_progress(&self.migration.name, fence).await?.missing.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// From the freeze to the end.
    async fn switch(&mut self, id: Uuid, ready: Ready, within: Duration) -> Result<Outcome> {
        let begun = Instant::now();
        self.frozen_at = Some(begun);
        let outcome = tokio::time::timeout(within, Box::pin(self.frozen(id, &ready, within))).await;
        match outcome {
            Ok(Ok(())) => self.opened(id).await,
            Ok(Err(ended)) => self.back(id, ended.into()).await,
            Err(_) => {
                // Why is worth a question, and not worth an error.
                let reason = self.what_was_missing().await.unwrap_or_else(|_| self.late());
                self.back(id, reason).await
            }
        }
    }

    /// What the freeze waited for in vain.
    async fn what_was_missing(&self) -> Result<String> {
        let name = &self.migration.name;
        let row = self.control.cutover(name).await?;
        if let Some(fence) = row.filter(|row| row.state == CutoverState::Frozen).and_then(CutoverRow::fence) {
            let fencing = self.control.fence_progress(name, &fence).await?;
            if !fencing.missing.is_empty() {
                return Ok(format!("{}; the fence had not passed {}", self.late(), missing(&fencing)));
            }
        }
        let left = self.letters().await?;
        Ok(if left > 0 { format!("{}; dead_letters: {left} left", self.late()) } else { self.late() })
    }

    fn late(&self) -> String {
        format!("the deadline of {} passed", time(self.migration.cutover.deadline.as_millis()))
    }

    async fn frozen(&mut self, id: Uuid, ready: &Ready, within: Duration) -> std::result::Result<(), Ended> {
        let gone = || Ended::Back("it was taken back by somebody else".into());
        if !self.control.freeze_cutover(id, self.owner).await? {
            return Err(gone());
        }
        // The gap counts from here: before, every writer was served.
        let begun = Instant::now();
        self.frozen_at = Some(begun);
        let way = &self.migration.cutover.freeze;
        let moments = freeze(way, &self.sources, within).await?;
        let fence = Fence { id: unique_id(), moments };
        self.made("freeze", how(way).into(), begun);
        let begun = Instant::now();
        if !self.control.frozen_cutover(id, self.owner, &fence).await? {
            self.make_good(id).await?;
            return Err(gone());
        }
        // What the source holds does not change any more.
        let (passed, documents) =
            tokio::join!(self.passed(&fence), proof::documents(self.plan, &self.sources));
        passed?;
        self.made("fence", "everything up to the freeze is applied".into(), begun);
        let documents = documents?;

        let begun = Instant::now();
        // One that came in just before is tried again within a second; the deadline bounds the wait.
        while self.letters().await? > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.made("drained", "no dead letter is left".into(), begun);

        let begun = Instant::now();
        let (last, counters) = ready.finishers.split_last().ok_or_else(gone)?;
        let (counts, checks) = tokio::join!(
            proof::compare(self.plan, &ready.tables, &self.sources, counters, &documents),
            check(last, &self.migration.checks),
        );
        (self.counts, self.checks) = (counts?, checks?);
        if let Some(count) = self.counts.iter().find(|count| count.differs()) {
            return Err(Ended::Back(format!(
                "count_differs: {} documents of {} are {} rows of {}",
                count.documents,
                count.collections.join(", "),
                count.rows,
                count.table
            )));
        }
        if let Some(complaint) = self.checks.iter().find_map(Checked::complaint) {
            return Err(Ended::Back(format!("check_fails: {complaint}")));
        }
        let text = format!(
            "{} tables count as many rows as documents, {} checks hold",
            self.counts.len(),
            self.checks.len()
        );
        self.made("proof", text, begun);

        for step in &self.migration.cutover.after {
            let begun = Instant::now();
            match step {
                Finish::Sequences => last.advance(&ready.sequences).await?,
                Finish::Sql(statement) => last.run(&statement.name, &statement.sql).await?,
            }
            let text = match step {
                Finish::Sequences => format!("{} sequences", ready.sequences.len()),
                Finish::Sql(statement) => statement.name.clone(),
            };
            self.made("finishing", text, begun);
        }

        let begun = Instant::now();
        // As late as can be: what was written since would be lost.
        if !self.is_frozen().await? {
            return Err(Ended::Back("somebody has unfrozen the source meanwhile".into()));
        }
        if !self.control.open_cutover(id, self.owner).await? {
            return Err(Ended::Back(self.late()));
        }
        self.made("open", "the target is the one to write to".into(), begun);
        Ok(())
    }

    async fn letters(&self) -> Result<u64> {
        let letters = self.control.dead_letter_counts(&self.migration.name).await?;
        Ok(letters.iter().map(|row| row.count).sum())
    }

    /// Whether the source is still frozen, as far as anybody may ask.
    async fn is_frozen(&self) -> Result<bool> {
        match self.migration.cutover.freeze {
            Freeze::BlockWrites => {
                let asked = try_join_all(self.sources.iter().map(|named| named.source.is_frozen())).await?;
                Ok(asked.into_iter().all(|frozen| frozen.unwrap_or(true)))
            }
            Freeze::ByHand | Freeze::Command { .. } => Ok(true),
        }
    }

    /// We froze a source whose cutover had been taken back while we slept. It must not stay so, unless somebody else has
    /// frozen it for a cutover of theirs.
    async fn make_good(&self, id: Uuid) -> Result<()> {
        let theirs = self.control.cutover(&self.migration.name).await?.is_some_and(|row| {
            row.id != id
                && matches!(row.state, CutoverState::Freezing | CutoverState::Frozen | CutoverState::Open)
        });
        if theirs { Ok(()) } else { unfreeze(&self.migration.cutover.freeze, &self.sources).await }
    }

    async fn opened(&mut self, id: Uuid) -> Result<Outcome> {
        let mut report = self.report(id).await;
        let json = report.json().to_string();
        // It is open, whatever becomes of its report.
        if let Err(error) = self.control.report_cutover(id, &json).await {
            self.warnings.push(format!("the report was not kept: {error}"));
        }
        let begun = Instant::now();
        let failed = self.tell(id, &json).await?;
        if !self.migration.cutover.open.is_empty() {
            self.made(
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

    async fn tell(&self, id: Uuid, report: &str) -> Result<Vec<String>> {
        let failed = tell(&self.migration.cutover.open, report).await;
        if failed.is_empty() {
            self.control.told_cutover(id).await?;
        }
        Ok(failed)
    }

    /// Goes back, however long it takes; or learns that it is open after all.
    async fn back(&mut self, id: Uuid, reason: String) -> Result<Outcome> {
        let begun = Instant::now();
        let mut pauses = Pauses::for_server();
        loop {
            match self.try_back(id, &reason).await {
                Ok(Some(CutoverState::Open)) => return self.opened(id).await,
                Ok(Some(_)) => break,
                Ok(None) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) if passes(&error) => {
                    tracing::warn!(%error, "the cutover cannot be taken back yet; trying again");
                    tokio::time::sleep(pauses.next_pause()).await;
                    if !self.control.is_connected()
                        && let Ok(control) = Control::open(&self.migration.target.uri).await
                    {
                        self.control = control;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.made("back", "the source is as before".into(), begun);
        let report = self.report(id).await;
        Ok(Outcome::Ended(Box::new(report)))
    }

    /// The state in which it ended; none while somebody else is at it.
    async fn try_back(&mut self, id: Uuid, reason: &str) -> Result<Option<CutoverState>> {
        self.control.revert_cutover(id, reason, None).await?;
        let name = &self.migration.name;
        // Asked for twice, a session has it twice, which does no harm: it ends with the session.
        let leased = self.control.lease_cutover(name).await?;
        let row = self.control.cutover(name).await?;
        let Some(row) = row.filter(|row| row.id == id) else { return Ok(Some(CutoverState::Reverted)) };
        match row.state {
            CutoverState::Open | CutoverState::Reverted => Ok(Some(row.state)),
            CutoverState::Reverting if leased => {
                // A source that was never asked to freeze need not be asked to unfreeze.
                if row.left_ms.is_some() {
                    unfreeze(&self.migration.cutover.freeze, &self.sources).await?;
                }
                self.control.reverted_cutover(id).await?;
                Ok(Some(CutoverState::Reverted))
            }
            _ => Ok(None),
        }
    }

    fn made(&mut self, name: &'static str, text: String, begun: Instant) {
        let now = Instant::now();
        let at_ms = self
            .frozen_at
            .map(|frozen| if begun >= frozen { ms(begun - frozen) } else { -ms(frozen - begun) });
        let made = Made { name, text, at_ms, took_ms: ms(now - begun) };
        (self.say)(&made);
        self.steps.push(made);
    }

    async fn report(&self, id: Uuid) -> Report {
        let row = self.control.cutover(&self.migration.name).await.ok().flatten().filter(|row| row.id == id);
        let gap_ms = self.frozen_at.map(|frozen| ms(frozen.elapsed()));
        let counted: Vec<&str> = self.counts.iter().map(|count| count.table.as_str()).collect();
        let mut uncounted: Vec<String> = self
            .plan
            .tables
            .iter()
            .map(|spec| format!("{}.{}", spec.table.schema, spec.table.name))
            .filter(|name| !counted.contains(&name.as_str()))
            .collect();
        uncounted.sort();
        uncounted.dedup();
        let last = |name: &str| self.steps.iter().rfind(|step| step.name == name);
        let gap = last("open").or(last("back")).and_then(|step| Some(step.at_ms? + step.took_ms));
        Report {
            migration: self.migration.name.clone(),
            id,
            state: row.as_ref().map_or(CutoverState::Open, |row| row.state),
            reason: row.as_ref().and_then(|row| row.reason.clone()),
            log: if matches!(self.migration.log, Log::Direct) { "direct" } else { "kafka" },
            freeze: how(&self.migration.cutover.freeze),
            armed_at: row.as_ref().map_or(0, |row| row.armed_at),
            open_at: row.as_ref().and_then(|row| row.open_at),
            gap_ms: gap.filter(|gap| *gap >= 0.0).or(gap_ms),
            rehearsal_ms: self.rehearsal.map(ms),
            steps: self.steps.clone(),
            counts: self.counts.clone(),
            uncounted: if self.counts.is_empty() { Vec::new() } else { uncounted },
            checks: self.checks.clone(),
            warnings: self.warnings.clone(),
        }
    }
}

/// Ends when the cutover is not armed any more. Where that cannot be read, the leader's own questions will tell.
async fn taken_back(control: &Control, migration: &str, id: Uuid) {
    loop {
        tokio::time::sleep(TAKEN_BACK_EVERY).await;
        let row = control.cutover(migration).await;
        if row.is_ok_and(|row| row.is_none_or(|row| row.id != id || row.state != CutoverState::Armed)) {
            return;
        }
    }
}

/// Who leads a cutover, for somebody who wants to.
pub(crate) fn who(row: Option<&CutoverRow>) -> String {
    match row {
        Some(row) => {
            format!("{} ({}, since {})", row.host, row.state.word(), time(row.armed_for_ms.max(0) as u128))
        }
        None => "it has not armed yet".to_owned(),
    }
}

fn missing(fencing: &FenceProgress) -> String {
    let shown: Vec<&str> = fencing.missing.iter().take(4).map(String::as_str).collect();
    let more = fencing.missing.len() - shown.len();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest} ({} of {})", shown.join(", "), fencing.missing.len(), fencing.all)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
