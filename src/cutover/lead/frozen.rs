//! From the freeze to the open target.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::cutover::Fence;
use slackwater_connectors::postgres::target::finish::Finisher;
use slackwater_connectors::postgres::wants_no_transaction;
use uuid::Uuid;

use super::verified::look_last;
use super::{Abandon, LOOK_EVERY, Leader, Prepared, ms};
use crate::checks::{Checked, blocks_as, still};
use crate::config::Finish;
use crate::cutover::freeze::{freeze, frozen_by_us};
use crate::cutover::plan::{count, freeze_in_words, not_counted, time, waits, warnings};
use crate::cutover::proof::{self, Count};
use crate::cutover::report::SourceTimes;
use crate::ops::process::unique_id;

impl<'a> Leader<'a> {
    /// The steps from `freezing` to `open`.
    pub(super) async fn frozen(
        &mut self,
        id: Uuid,
        prepared: &mut Prepared<'a>,
        within: Duration,
    ) -> std::result::Result<(), Abandon> {
        let fence = self.freeze_sources(id, within).await?;
        let documents = self.reach_fence(id, &fence).await?;
        self.drain(id).await?;
        self.prove(prepared, &documents, &fence).await?;
        let together = self.finish(prepared).await?;
        self.open(id, together.then_some(&prepared.finisher)).await
    }

    /// Freezes the sources; gives a fence at the moment of each freeze.
    async fn freeze_sources(&mut self, id: Uuid, within: Duration) -> std::result::Result<Fence, Abandon> {
        if !self.control.freeze_cutover(id, self.owner).await? {
            return Err(Abandon::taken_back());
        }
        // The gap counts from here: until now every writer was served.
        let begun = Instant::now();
        self.frozen_at.get_or_insert(begun);
        let stopping = freeze(self.migration, &self.sources, within);
        let stopped = self.underway.during("stopping the writers", stopping).await?;
        self.frozen = stopped.iter().map(|one| SourceTimes::new(&one.source, ms(one.after))).collect();
        let moments = stopped.into_iter().map(|one| (one.source, one.moment)).collect();
        let moments = self.as_captures_count(moments).await?;
        self.record("freeze", freeze_in_words(self.migration), begun);
        Ok(Fence { id: unique_id(), moments })
    }

    /// Waits until everything up to the fence is applied; gives the numbers of documents in the sources.
    async fn reach_fence(&mut self, id: Uuid, fence: &Fence) -> std::result::Result<Vec<u64>, Abandon> {
        let begun = Instant::now();
        if !self.control.frozen_cutover(id, self.owner, fence).await? {
            self.unfreeze_late(id).await?;
            return Err(Abandon::taken_back());
        }
        // The documents can be counted meanwhile: the frozen sources do not change. Whether that is so is seen at the end.
        let (passed, documents, glances) = tokio::join!(
            self.passed_by_source(fence),
            proof::documents(self.plan, &self.sources),
            proof::glance(self.plan, &self.sources, &self.glances),
        );
        for (source, after) in passed? {
            if let Some(times) = self.frozen.iter_mut().find(|times| times.source == source) {
                times.passed_ms = Some(ms(after));
            }
        }
        self.glances = glances?;
        self.record(
            "fence",
            format!("everything up to the freeze is applied{}", by_source(&self.frozen)),
            begun,
        );
        Ok(documents?)
    }

    /// Waits until every lane or partition has passed the fence; for each source how long after the freeze that was.
    async fn passed_by_source(&self, fence: &Fence) -> Result<Vec<(String, Duration)>> {
        let since = self.frozen_at.unwrap_or_else(Instant::now);
        let mut open: Vec<&String> = fence.moments.iter().map(|(source, _)| source).collect();
        let mut passed = Vec::new();
        loop {
            let progress = self.control.fence_progress(&self.migration.name, fence).await?;
            let now = since.elapsed();
            let (late, done): (Vec<_>, Vec<_>) =
                open.into_iter().partition(|source| progress.late.contains(source));
            passed.extend(done.into_iter().map(|source| (source.clone(), now)));
            if progress.missing.is_empty() {
                return Ok(passed);
            }
            open = late;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until no dead letter is left. A late one is tried again within a second; the deadline limits the wait.
    ///
    /// Rows that still wait for others wait for ever: the sources are frozen, and everything has come.
    async fn drain(&mut self, id: Uuid) -> std::result::Result<(), Abandon> {
        let begun = Instant::now();
        while self.letters_to_wait_for(id).await? > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let waiting = self.control.waiting(&self.migration.name).await?;
        for row in waiting.iter().filter(|row| row.blocks) {
            let name = if row.unique { "duplicate_values" } else { "dangling_references" };
            self.unless_accepted(name, &waits(row))?;
        }
        let over = ["dead_letters", "dangling_references", "duplicate_values"];
        let text = match over.iter().any(|name| self.accepted.has(name)) {
            true => "nothing more comes; what is left was accepted",
            false => "no dead letter is left, and no row waits for another",
        };
        self.record("drained", text.into(), begun);
        Ok(())
    }

    /// Compares the numbers of rows and documents, and runs the team's checks.
    async fn prove(
        &mut self,
        prepared: &mut Prepared<'a>,
        documents: &[u64],
        fence: &Fence,
    ) -> std::result::Result<(), Abandon> {
        let begun = Instant::now();
        let Prepared { finisher, counters, tables, followers, .. } = prepared;
        let mut outlived = Vec::new();
        if self.plan.collections.iter().any(|collection| collection.append_only) {
            outlived = self.control.outlived(&self.migration.name).await?;
            self.warnings.extend(warnings(&self.control.breach_counts(&self.migration.name).await?));
        }
        let outlived = proof::outlived(self.plan, &outlived);
        // All three begin together.
        let ((counts, counted), (checks, checked), (looked, verified)) = tokio::join!(
            timed(self.underway.during(
                "counting rows",
                proof::compare(self.plan, tables, &self.sources, counters, documents, &outlived)
            )),
            timed(still(finisher, self.migration, &self.sources, &self.underway)),
            timed(
                self.underway
                    .during("verifying what changed last", look_last(followers, fence, &self.accepted))
            ),
        );
        (self.counts, self.checks) = (counts?, checks?);
        let differing: Vec<String> =
            self.counts.iter().filter(|count| count.differs()).map(Count::complaint).collect();
        for text in &differing {
            self.unless_accepted("count_differs", text)?;
        }
        let complaint = |check: &Checked| Some((blocks_as(check.rollback), check.complaint()?));
        let complaints: Vec<(&str, String)> = self.checks.iter().filter_map(complaint).collect();
        for (name, text) in &complaints {
            self.unless_accepted(name, text)?;
        }
        let (looked, over) = looked?;
        for (name, text) in &over {
            self.accepted.note(name, text);
        }
        if self.migration.verify.is_some() {
            let documents =
                count(looked as usize, "document that changed last was", "documents that changed last were");
            self.record_took("verified", format!("{documents} compared"), begun, verified);
        }
        let named: Vec<String> = self.counts.iter().map(|count| count.table.clone()).collect();
        let mut text = format!(
            "{} tables have as many rows as documents{}: {}",
            self.counts.len() - differing.len(),
            not_counted(&proof::uncounted(self.plan, &named)),
            time(counted.as_millis())
        );
        if !self.checks.is_empty() {
            let hold = self.checks.len() - complaints.len();
            let _ = write!(text, "; {hold} checks hold: {}", time(checked.as_millis()));
        }
        self.record("proof", text, begun);
        Ok(())
    }

    /// Runs the finishing steps of the migration file. What SQL changes becomes true together with the opening, or not at all: a cutover that is taken
    /// back has changed nothing. Where a statement wants no transaction, as VACUUM does, each is by itself.
    async fn finish(&mut self, prepared: &Prepared<'_>) -> Result<bool> {
        let has_sql = self.migration.cutover.after.iter().any(|step| matches!(step, Finish::Sql(_)));
        if !has_sql {
            return self.run_last_steps(prepared).await.map(|()| false);
        }
        let done = self.steps.len();
        prepared.finisher.begin().await?;
        match self.run_last_steps(prepared).await {
            Ok(()) => Ok(true),
            Err(error) if wants_no_transaction(&error) => {
                self.steps.truncate(done);
                prepared.finisher.undo().await?;
                let warning = "a statement of `cutover.after` cannot be part of a transaction, so none of them was undone if the switch was not made";
                self.warnings.push(warning.to_owned());
                self.run_last_steps(prepared).await.map(|()| false)
            }
            Err(error) => Err(error),
        }
    }

    async fn run_last_steps(&mut self, prepared: &Prepared<'_>) -> Result<()> {
        let Prepared { finisher, sequences, .. } = prepared;
        for step in &self.migration.cutover.after {
            let begun = Instant::now();
            let text = match step {
                Finish::Sequences => {
                    self.underway.during("moving the sequences", finisher.advance(sequences)).await?;
                    format!("{} sequences", sequences.len())
                }
                Finish::Sql(statement) => {
                    let run = finisher.run(&statement.name, &statement.sql);
                    self.underway.during(format!("`{}` of `cutover.after`", statement.name), run).await?;
                    statement.name.clone()
                }
            };
            self.record("finishing", text, begun);
        }
        Ok(())
    }

    /// `finisher`: has the transaction of the finishing steps, which becomes true with it.
    async fn open(&mut self, id: Uuid, finisher: Option<&Finisher>) -> std::result::Result<(), Abandon> {
        let begun = Instant::now();
        // As late as possible: a write after an unfreeze would be lost.
        let (frozen, later) =
            tokio::join!(self.is_frozen(), proof::glance(self.plan, &self.sources, &self.glances));
        if !frozen? {
            return Err(Abandon::Because("the source was unfrozen from outside in the meantime".into()));
        }
        if let Some(written) = proof::written(&self.glances, &later?) {
            return Err(Abandon::Because(format!("not_frozen: somebody still writes to {written}")));
        }
        let opened = match finisher {
            Some(finisher) => finisher.open_cutover(id, self.owner).await?,
            None => self.control.open_cutover(id, self.owner).await?,
        };
        if !opened {
            return Err(Abandon::Because(self.deadline_passed()));
        }
        self.record("open", "the target is the one to write to".into(), begun);
        Ok(())
    }

    /// Whether the sources are still frozen; true if they cannot be asked.
    async fn is_frozen(&self) -> Result<bool> {
        let blocked = frozen_by_us(self.migration, &self.sources);
        let asked = try_join_all(blocked.into_iter().map(|named| named.source.is_frozen())).await?;
        Ok(asked.into_iter().all(|frozen| frozen.unwrap_or(true)))
    }
}

/// Which source was done when, if there are several.
fn by_source(times: &[SourceTimes]) -> String {
    let time = |times: &SourceTimes| Some(format!("{} after {:.0} ms", times.source, times.passed_ms?));
    match times.len() {
        0 | 1 => String::new(),
        _ => format!(": {}", times.iter().filter_map(time).collect::<Vec<_>>().join(", ")),
    }
}

/// What comes of it, and how long it took.
async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let done = work.await;
    (done, begun.elapsed())
}
