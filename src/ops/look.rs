//! A look: the state of a whole migration, read once from the control store. It is the same in every process.
//!
//! **Lag** is the present of the source's clock minus the time of that clock as of which the target shows everything. Both come from
//! the source, so silence never looks like being up to date: a pipeline that is stuck falls behind. If the lag cannot be known, it
//! is unknown, never zero. `docs/design/lag.md` has the reasons.

use std::collections::BTreeSet;

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::breaches::{BreachCount, BreachRow};
use slackwater_connectors::postgres::control::checks::CheckRow;
use slackwater_connectors::postgres::control::cutover::{CutoverRow, CutoverState};
use slackwater_connectors::postgres::control::followed::FollowedRow;
use slackwater_connectors::postgres::control::gone::GoneRow;
use slackwater_connectors::postgres::control::ledger::{DeadLetterCount, IncidentRow};
use slackwater_connectors::postgres::control::partitions::{CapturedRow, PartitionRow};
use slackwater_connectors::postgres::control::proofs::Verified;
use slackwater_connectors::postgres::control::pulse::{ProcessRow, SourceRow};
use slackwater_connectors::postgres::control::recopies::RecopyRow;
use slackwater_connectors::postgres::control::standing::{STANDING, StandingRow};
use slackwater_connectors::postgres::control::waiting::WaitingRows;
use slackwater_connectors::postgres::control::{self, CollectionRow, Control, CopyState, LaneRow};
use slackwater_connectors::postgres::progress::Tally;
use slackwater_topics::Moment;

use crate::config::Migration;

/// Processes write a beat once a second; one without a beat for this long counts as silent.
pub(crate) const SILENT_MS: i64 = 3_000;
/// Older ones are not shown.
const MOST_INCIDENTS: i64 = 100;
const MOST_BREACHES: i64 = 100;

/// What the migration file names.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) migration: String,
    /// The number of its collections.
    pub(crate) collections: usize,
    pub(crate) sources: Vec<String>,
    /// Its checks, and whether each is a criterion for going back.
    pub(crate) checks: Vec<(String, bool)>,
}

impl Named {
    pub(crate) fn of(migration: &Migration) -> Self {
        Self {
            migration: migration.name.clone(),
            collections: migration.collections.len(),
            sources: migration.sources.iter().map(|source| source.name.value.clone()).collect(),
            checks: migration.checks.iter().map(|check| (check.name.value.clone(), check.rollback)).collect(),
        }
    }
}

/// What a check of the migration file has last said.
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckState {
    pub(crate) row: CheckRow,
    /// It is a criterion for going back.
    pub(crate) rollback: bool,
}

/// The state of a migration, as stored in the control store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    pub(crate) migration: String,
    /// The number of collections in the migration file; only those whose copy was planned have rows.
    pub(crate) named: usize,
    /// The sources in the migration file; only those whose capture has begun have rows.
    pub(crate) expected: Vec<String>,
    /// The target's clock, milliseconds since 1970.
    pub(crate) clock: i64,
    pub(crate) lanes: Vec<LaneRow>,
    /// If the log is Kafka: how far it is written …
    pub(crate) captured: Vec<CapturedRow>,
    /// … and how far each partition is applied.
    pub(crate) partitions: Vec<PartitionRow>,
    pub(crate) collections: Vec<CollectionRow>,
    pub(crate) letters: Vec<DeadLetterCount>,
    /// Rows that wait for rows of other tables.
    pub(crate) waiting: Vec<WaitingRows>,
    /// Collections that stand still because a table of theirs cannot be written.
    pub(crate) standing: Vec<StandingRow>,
    /// Collections that are gone at their source.
    pub(crate) gone: Vec<GoneRow>,
    /// Collections that have to be copied again, and are not yet.
    pub(crate) recopies: Vec<RecopyRow>,
    /// Documents that wait for such a table, or are on their way back since it can be written again.
    pub(crate) returning: u64,
    pub(crate) tallies: Vec<Tally>,
    /// What was not applied, because collections are append only …
    pub(crate) breach_counts: Vec<BreachCount>,
    /// … and the documents that were changed last.
    pub(crate) breaches: Vec<BreachRow>,
    /// The newest incidents.
    pub(crate) incidents: Vec<IncidentRow>,
    /// The number of all incidents.
    pub(crate) incidents_total: u64,
    pub(crate) sources: Vec<SourceRow>,
    pub(crate) processes: Vec<ProcessRow>,
    /// How far the changes of each collection are verified.
    pub(crate) followed: Vec<FollowedRow>,
    /// What the newest verification says.
    pub(crate) verified: Option<Verified>,
    /// What the checks of the migration file have last said, in its order.
    pub(crate) checks: Vec<CheckState>,
    /// The newest cutover.
    pub(crate) cutover: Option<CutoverRow>,
    /// The source's own operation time, if it was asked just now.
    pub(crate) asked: Option<Moment>,
}

impl Look {
    /// Reads a look at what the migration file names.
    pub(crate) async fn read(control: &Control, about: &Named) -> Result<Self> {
        let migration = about.migration.as_str();
        let letters = control.dead_letter_counts(migration).await?;
        let (returning, letters): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(|row| row.kind == STANDING);
        Ok(Self {
            returning: returning.iter().map(|row| row.count).sum(),
            letters,
            migration: migration.to_owned(),
            named: about.collections,
            expected: about.sources.clone(),
            lanes: control.lanes(migration).await?,
            partitions: control.partitions(migration).await?,
            // Read after the rows that it is compared with, so that the lag is never shown too small.
            clock: control.clock().await?,
            sources: control.sources(migration).await?,
            processes: control.processes(migration).await?,
            captured: control.captured(migration).await?,
            collections: control.collections(migration).await?,
            waiting: control.waiting(migration).await?,
            standing: control.standing(migration).await?,
            gone: control.gone(migration).await?,
            recopies: control.wanted_recopies(migration).await?,
            tallies: control.tallies(migration).await?,
            breach_counts: control.breach_counts(migration).await?,
            breaches: control.breaches(migration, MOST_BREACHES).await?,
            incidents: control.incidents(migration, MOST_INCIDENTS).await?,
            incidents_total: control.incident_count(migration).await?,
            followed: control.followed(migration).await?,
            verified: control.verified(migration).await?,
            checks: checks(control, about).await?,
            cutover: control.cutover(migration).await?,
            asked: None,
        })
    }

    /// How far the verification of a collection's changes is behind its source.
    pub(crate) fn verified_lag_ms(&self, row: &FollowedRow) -> i64 {
        (self.clock - row.through_at).max(0)
    }

    /// The lanes of the streams, one for each source, if the log is direct.
    pub(crate) fn streams(&self) -> impl Iterator<Item = &LaneRow> {
        self.lanes.iter().filter(|lane| {
            lane.source.as_ref().is_some_and(|source| lane.lane == control::lanes::stream(source))
        })
    }

    /// The names of all sources: those of the file, or those that the control store knows.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        if !self.expected.is_empty() {
            return self.expected.iter().map(String::as_str).collect();
        }
        let streams = self.streams().filter_map(|lane| lane.source.as_deref());
        let partitions = self.partitions.iter().map(|row| row.source.as_str());
        streams.chain(partitions).chain(self.sources.iter().map(|row| row.source.as_str())).collect()
    }

    /// The name of the source, if there is only one. One figure cannot show the times of several sources.
    fn only(&self) -> Option<&str> {
        let names = self.names();
        names.first().copied().filter(|_| names.len() == 1)
    }

    fn source(&self, name: &str) -> Option<&SourceRow> {
        self.sources.iter().find(|row| row.source == name)
    }

    /// Whether the log is Kafka.
    pub(crate) fn is_kafka(&self) -> bool {
        !self.partitions.is_empty()
    }

    /// The number of live processes with this role; `run` has every role.
    pub(crate) fn live(&self, role: &str) -> usize {
        let doing = |process: &&ProcessRow| process.role == role || process.role == "run";
        self.processes.iter().filter(doing).filter(|process| is_up(process)).count()
    }

    /// The sources that no live process captures.
    pub(crate) fn uncaptured(&self) -> Vec<&str> {
        let live: Vec<&ProcessRow> = self
            .processes
            .iter()
            .filter(|row| is_up(row) && matches!(row.role.as_str(), "capture" | "run"))
            .collect();
        let captures =
            |row: &ProcessRow, name: &str| row.name.strip_prefix("capture/").is_none_or(|only| only == name);
        self.names().into_iter().filter(|name| !live.iter().any(|row| captures(row, name))).collect()
    }

    /// When the target was opened, milliseconds since 1970.
    pub(crate) fn opened_at(&self) -> Option<i64> {
        self.cutover.as_ref().filter(|row| row.state == CutoverState::Open)?.open_at
    }

    /// Whether a process reads each source and a process writes the target.
    pub(crate) fn running(&self) -> bool {
        self.live("capture") > 0 && self.uncaptured().is_empty() && self.live("apply") > 0
    }

    /// Everything up to this moment of the source is applied, if there is only one source.
    pub(crate) fn applied_through(&self) -> Option<Moment> {
        self.applied_through_of(self.only()?)
    }

    /// Everything up to this moment of a source is applied.
    pub(crate) fn applied_through_of(&self, source: &str) -> Option<Moment> {
        if self.is_kafka() {
            // The slowest partition counts; if one has applied nothing, nothing is known of the whole.
            return self.partitions_of(source).map(|row| row.applied_through).min().flatten();
        }
        self.stream_of(source)?.progress.applied_through
    }

    fn partitions_of<'a>(&'a self, source: &'a str) -> impl Iterator<Item = &'a PartitionRow> {
        self.partitions.iter().filter(move |row| row.source == source)
    }

    fn stream_of(&self, source: &str) -> Option<&LaneRow> {
        self.streams().find(|lane| lane.source.as_deref() == Some(source))
    }

    /// The operation time in the source's last pulse, if there is only one source.
    pub(crate) fn operation_time(&self) -> Option<Moment> {
        self.asked.or_else(|| self.source(self.only()?)?.operation_time)
    }

    /// The present by the clock of the source, milliseconds since 1970, if there is only one source.
    pub(crate) fn source_now(&self) -> Option<i64> {
        self.now_of(self.only()?)
    }

    /// The present by a source's clock. The source need not be asked: its clock and the target's run equally fast.
    fn now_of(&self, source: &str) -> Option<i64> {
        self.source(source)?.skew_ms.map(|skew| self.clock + skew)
    }

    /// The target shows the source as of this time of the source's clock, milliseconds since 1970, if there is only one source.
    pub(crate) fn as_of(&self) -> Option<i64> {
        self.as_of_source(self.only()?)
    }

    fn as_of_source(&self, source: &str) -> Option<i64> {
        if self.is_kafka() {
            return self.partitions_of(source).map(|row| row.as_of).min().flatten();
        }
        self.stream_of(source)?.progress.as_of
    }

    /// How far the target is behind a source, milliseconds.
    pub(crate) fn lag_of(&self, source: &str) -> Option<i64> {
        self.behind(source, self.as_of_source(source))
    }

    /// How far the target is behind the source that is furthest ahead of it, milliseconds.
    pub(crate) fn lag_ms(&self) -> Option<i64> {
        self.worst(|source| self.lag_of(source))
    }

    /// How far the log is behind a source, milliseconds; the rest of the lag arises between the log and the target.
    pub(crate) fn capture_lag_of(&self, source: &str) -> Option<i64> {
        self.behind(source, self.source(source)?.read_as_of)
    }

    /// How far the log is behind the source that is furthest ahead of it, milliseconds.
    pub(crate) fn capture_lag_ms(&self) -> Option<i64> {
        self.worst(|source| self.capture_lag_of(source))
    }

    /// The largest lag of all sources; unknown if that of one source is unknown.
    fn worst(&self, lag: impl Fn(&str) -> Option<i64>) -> Option<i64> {
        let lags: Option<Vec<i64>> = self.names().into_iter().map(lag).collect();
        lags?.into_iter().max()
    }

    /// How far the target is behind the source of a partition's events, milliseconds.
    pub(crate) fn partition_lag_ms(&self, row: &PartitionRow) -> Option<i64> {
        self.behind(&row.source, row.as_of)
    }

    fn behind(&self, source: &str, as_of: Option<i64>) -> Option<i64> {
        Some((self.now_of(source)? - as_of?).max(0))
    }

    /// How many seconds of history a source keeps from before the position of the next start: the time left before history is
    /// lost. The smallest of all sources. Unknown if we may not ask.
    pub(crate) fn window_seconds(&self) -> Option<i64> {
        let window = |row: &SourceRow| {
            let position = if self.is_kafka() {
                self.captured.iter().find(|captured| captured.source == row.source)?.time
            } else {
                self.stream_of(&row.source)?.progress.position.as_ref()?.moment
            };
            Some((row.kind.seconds(position) - row.kind.seconds(row.oplog_from?)).max(0))
        };
        self.sources.iter().filter_map(window).min()
    }

    /// Whether every collection is copied.
    pub(crate) fn copied(&self) -> bool {
        self.copied_collections() >= self.named.max(self.collections.len())
    }

    /// The number of copied collections.
    pub(crate) fn copied_collections(&self) -> usize {
        self.collections.iter().filter(|row| self.is_copied(row)).count()
    }

    /// Whether a collection is copied, and not to be copied again.
    pub(crate) fn is_copied(&self, row: &CollectionRow) -> bool {
        let wanted = self.recopies.iter().any(|wanted| wanted.collection == row.collection);
        row.state == CopyState::Copied && !row.reload && !wanted
    }

    /// The number of all dead letters.
    pub(crate) fn dead_letters(&self) -> u64 {
        self.letters.iter().map(|row| row.count).sum()
    }

    /// Collections that are gone and of which nobody has said what becomes of their rows.
    pub(crate) fn parked(&self) -> impl Iterator<Item = &GoneRow> {
        self.gone.iter().filter(|row| row.word.is_none())
    }

    /// The live processes that wait for a server, each with the reason.
    pub(crate) fn troubles(&self) -> Vec<(&str, &str)> {
        let processes = self.processes.iter().filter(|row| is_up(row));
        processes.filter_map(|row| Some((row.name.as_str(), row.trouble.as_deref()?))).collect()
    }
}

/// What the checks have said; nothing is asked where there are none.
async fn checks(control: &Control, about: &Named) -> Result<Vec<CheckState>> {
    if about.checks.is_empty() {
        return Ok(Vec::new());
    }
    let rows = control.checks(&about.migration).await?;
    let state = |(name, rollback): &(String, bool)| {
        let row = rows.iter().find(|row| row.name == *name)?.clone();
        Some(CheckState { row, rollback: *rollback })
    };
    Ok(about.checks.iter().filter_map(state).collect())
}

/// Whether the process lives: its last beat is recent.
pub(crate) fn is_up(process: &ProcessRow) -> bool {
    !process.ended && process.silent_ms < SILENT_MS
}

/// Whether the process is silent without having ended on request.
pub(crate) fn is_silent(process: &ProcessRow) -> bool {
    !process.ended && process.silent_ms >= SILENT_MS
}

/// The number of records that the broker has acknowledged and that are not applied.
pub(crate) fn waiting(row: &PartitionRow) -> i64 {
    row.acked_offset.map_or(0, |acked| (acked + 1 - row.next_offset).max(0))
}

/// The state of a collection's copy.
pub(crate) fn state(row: &CollectionRow) -> &'static str {
    match (row.state, row.reload) {
        (CopyState::Pending, false) => "pending",
        (CopyState::Copying, false) => "copying",
        (CopyState::Copied, false) => "copied",
        (CopyState::Pending | CopyState::Copying, true) => "copying again",
        (CopyState::Copied, true) => "sweeping",
    }
}

/// All results of [`state`].
pub(crate) const STATES: [&str; 5] = ["pending", "copying", "copied", "copying again", "sweeping"];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use slackwater_connectors::postgres::progress::Progress;
    use slackwater_topics::Position;

    pub(crate) fn process(name: &str, role: &str, silent_ms: i64) -> ProcessRow {
        ProcessRow {
            name: name.into(),
            role: role.into(),
            host: "host".into(),
            age_ms: 60_000,
            silent_ms,
            ended: false,
            events: 10,
            rows: 20,
            bytes: 3_000,
            documents: 40,
            trouble: None,
        }
    }

    pub(crate) fn partition(topic: &str, number: i32, as_of: Option<i64>) -> PartitionRow {
        PartitionRow {
            topic: topic.into(),
            partition: number,
            collection: "legacy.users".into(),
            source: "legacy".into(),
            epoch: 1,
            member: Some("one".into()),
            next_offset: 90,
            capture_epoch: 1,
            position: None,
            applied_through: as_of.map(|_| Moment::of_halves(90, 0)),
            source_time: None,
            as_of,
            events: 50,
            duplicates: 2,
            superseded: 1,
            lost: None,
            acked_offset: Some(99),
            idle_ms: 100,
        }
    }

    pub(crate) fn stream(as_of: Option<i64>) -> LaneRow {
        let position = Some(Position::new(Moment::of_halves(90, 0), Vec::new()));
        let progress = Progress { position, as_of, ..Progress::default() };
        let source = Some("legacy".to_owned());
        LaneRow { lane: "capture/legacy/stream".into(), source, epoch: 1, progress, idle_ms: 100 }
    }

    /// The source's clock is two seconds ahead of the target's.
    pub(crate) fn look() -> Look {
        let source = SourceRow {
            source: "legacy".into(),
            kind: slackwater_connectors::source::Kind::Mongodb,
            pulse_ms: Some(300),
            skew_ms: Some(2_000),
            operation_time: Some(Moment::of_halves(101, 0)),
            read_through: Some(Moment::of_halves(100, 0)),
            read_as_of: Some(101_500),
            oplog_from: Some(Moment::of_halves(30, 0)),
            trouble: None,
            silent_ms: 300,
        };
        Look { migration: "crm".into(), named: 1, clock: 100_000, sources: vec![source], ..Look::default() }
    }

    #[test]
    fn lag_is_by_the_clock_of_the_source() {
        let direct = Look { lanes: vec![stream(Some(101_200))], ..look() };
        assert_eq!(direct.source_now(), Some(102_000));
        assert_eq!((direct.lag_ms(), direct.capture_lag_ms()), (Some(800), Some(500)));
        let later = Look { clock: 160_000, ..direct };
        assert_eq!(later.lag_ms(), Some(60_800), "silence is lag");
        let ahead = Look { lanes: vec![stream(Some(102_900))], ..look() };
        assert_eq!(ahead.lag_ms(), Some(0));
    }

    #[test]
    fn lag_that_cannot_be_known_is_not_zero() {
        assert_eq!(look().lag_ms(), None, "nothing is applied");
        let never = Look { lanes: vec![stream(None)], ..look() };
        assert_eq!(never.lag_ms(), None);
        let unheard = Look { lanes: vec![stream(Some(1))], sources: Vec::new(), ..look() };
        assert_eq!(unheard.lag_ms(), None, "there was never a pulse");
    }

    #[test]
    fn the_source_that_is_furthest_behind_counts() {
        let mut both = Look { lanes: vec![stream(Some(101_200))], ..look() };
        let mut slow = stream(Some(70_000));
        (slow.lane, slow.source) = ("capture/crm/stream".into(), Some("crm".into()));
        both.lanes.push(slow);
        assert_eq!(both.lag_ms(), None, "one of them never had a pulse");
        // Its clock is a day behind, and its moments cannot be compared with those of the other source.
        let skew_ms = Some(-86_400_000);
        both.sources.push(SourceRow { source: "crm".into(), skew_ms, ..both.sources[0].clone() });
        both.lanes[1].progress.as_of = Some(-86_330_000);
        assert_eq!((both.lag_of("legacy"), both.lag_of("crm")), (Some(800), Some(30_000)));
        assert_eq!(both.lag_ms(), Some(30_000));
        assert_eq!(both.applied_through(), None, "two sources have no common moment");
    }

    #[test]
    fn the_slowest_partition_counts() {
        let rows = vec![partition("t", 0, Some(101_900)), partition("t", 1, Some(95_000))];
        let kafka = Look { partitions: rows.clone(), ..look() };
        assert_eq!(kafka.lag_ms(), Some(7_000));
        assert_eq!(kafka.partition_lag_ms(&kafka.partitions[0]), Some(100));
        let unread = Look { partitions: [rows, vec![partition("t", 2, None)]].concat(), ..look() };
        assert_eq!(unread.lag_ms(), None, "one partition has applied nothing");
        assert_eq!(waiting(&unread.partitions[0]), 10);
    }

    #[test]
    fn the_window_is_what_is_left_of_the_oplog() {
        let direct = Look { lanes: vec![stream(None)], ..look() };
        assert_eq!(direct.window_seconds(), Some(60));
        let captured = CapturedRow { source: "legacy".into(), time: Moment::of_halves(29, 0), idle_ms: 1 };
        let rows = vec![partition("t", 0, None)];
        let kafka = Look { partitions: rows, captured: vec![captured], ..look() };
        assert_eq!(kafka.window_seconds(), Some(0), "it is over");
        let mut unknown = direct;
        unknown.sources[0].oplog_from = None;
        assert_eq!(unknown.window_seconds(), None);
    }

    #[test]
    fn it_runs_while_both_roles_live() {
        let mut look = Look { processes: vec![process("run", "run", 100)], ..look() };
        assert!(look.running());
        look.processes = vec![process("capture", "capture", 100), process("apply/one", "apply", SILENT_MS)];
        assert!(!look.running() && is_silent(&look.processes[1]));
        look.processes[1] = ProcessRow { ended: true, ..process("apply/one", "apply", 100) };
        assert!(!look.running() && !is_silent(&look.processes[1]), "it ended on request");
    }
}
