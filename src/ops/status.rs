//! How far a migration is, read from the control store. Whichever process asks, the answer is the same.

use serde_json::{Value, json};
use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::{CollectionRow, Control, CopyState, LaneRow};
use slackwater_connectors::postgres::ledger::{DeadLetterCount, Incident};
use slackwater_connectors::postgres::log::{CapturedRow, PartitionRow};
use slackwater_connectors::postgres::progress::Tally;
use slackwater_topics::{ClusterTime, Key};

/// The stream's lane writes every two seconds at least; one that is silent for longer is not running.
const ALIVE_WITHIN_MS: i64 = 5_000;

/// A person reads the newest.
const MOST_INCIDENTS: i64 = 100;

/// A look at the whole.
#[derive(Debug)]
pub(crate) struct Status {
    migration: String,
    /// Collections that the migration file names; those whose copy has begun have rows.
    named: usize,
    lanes: Vec<LaneRow>,
    /// Where the log is Kafka: how far it is written …
    captured: Vec<CapturedRow>,
    /// … and how far each partition is applied.
    partitions: Vec<PartitionRow>,
    collections: Vec<CollectionRow>,
    letters: Vec<DeadLetterCount>,
    tallies: Vec<Tally>,
    incidents: Vec<Incident>,
    /// The source's present, where it answered.
    now: Option<ClusterTime>,
}

impl Status {
    /// Reads it.
    pub(crate) async fn read(
        control: &Control,
        migration: &str,
        named: usize,
        now: Option<ClusterTime>,
    ) -> Result<Self> {
        Ok(Self {
            migration: migration.to_owned(),
            named,
            lanes: control.lanes(migration).await?,
            captured: control.captured(migration).await?,
            partitions: control.partitions(migration).await?,
            collections: control.collections(migration).await?,
            letters: control.dead_letter_counts(migration).await?,
            tallies: control.tallies(migration).await?,
            incidents: control.incidents(migration, MOST_INCIDENTS).await?,
            now,
        })
    }

    fn stream(&self) -> Option<&LaneRow> {
        self.lanes.iter().find(|lane| lane.lane == "stream")
    }

    /// Whether the log is Kafka.
    fn is_kafka(&self) -> bool {
        !self.partitions.is_empty()
    }

    fn capture_runs(&self) -> bool {
        self.captured.iter().all(|row| row.idle_ms < ALIVE_WITHIN_MS)
    }

    /// Processes that apply, and have said so just now.
    fn appliers(&self) -> usize {
        let alive = |lane: &&LaneRow| lane.lane.starts_with("apply/") && lane.idle_ms < ALIVE_WITHIN_MS;
        let mut members: Vec<&str> =
            self.lanes.iter().filter(alive).filter_map(|lane| Some(lane.lane.rsplit_once('/')?.0)).collect();
        members.dedup();
        members.len()
    }

    fn running(&self) -> bool {
        if self.is_kafka() {
            return self.capture_runs() && self.appliers() > 0;
        }
        self.stream().is_some_and(|lane| lane.idle_ms < ALIVE_WITHIN_MS)
    }

    fn applied_through(&self) -> Option<ClusterTime> {
        if self.is_kafka() {
            // The slowest partition counts; one that has never been heard of holds all back.
            return self.partitions.iter().map(|row| row.applied_through).min().flatten();
        }
        self.stream()?.progress.applied_through
    }

    /// Records that the broker has and the target has not.
    fn waiting(row: &PartitionRow) -> i64 {
        row.acked_offset.map_or(0, |acked| (acked + 1 - row.next_offset).max(0))
    }

    /// Seconds from what is applied to the source's present. Unknown, and never zero, where the source does not
    /// answer.
    fn lag_seconds(&self) -> Option<i64> {
        let (now, applied) = (self.now?, self.applied_through()?);
        Some((i64::from(now.seconds()) - i64::from(applied.seconds())).max(0))
    }

    fn copied(&self) -> bool {
        self.collections.len() >= self.named
            && self.collections.iter().all(|row| row.state == CopyState::Copied && !row.reload)
    }

    pub(crate) fn json(&self) -> Value {
        let collections: Vec<Value> = self
            .collections
            .iter()
            .map(|row| {
                json!({
                    "name": row.collection,
                    "state": state(row),
                    "generation": row.generation,
                    "documents_estimate": row.documents_estimate,
                    "documents_copied": row.documents_copied,
                    "chunks_total": row.chunks_total,
                    "chunks_done": row.chunks_done,
                    "started_at": row.started_at,
                    "finished_at": row.finished_at,
                })
            })
            .collect();
        let lanes: Vec<Value> = self
            .lanes
            .iter()
            .map(|lane| {
                json!({
                    "name": lane.lane,
                    "epoch": lane.epoch,
                    "sequence": lane.progress.sequence,
                    "events": lane.progress.events,
                    "rows_written": lane.progress.rows_written,
                    "applied_through": lane.progress.applied_through.map(|time| time.0),
                    "source_time": lane.progress.source_time,
                    "silent_ms": lane.idle_ms,
                })
            })
            .collect();
        let partitions: Vec<Value> = self
            .partitions
            .iter()
            .map(|row| {
                json!({
                    "topic": &*row.topic,
                    "partition": row.partition,
                    "collection": row.collection,
                    "member": row.member,
                    "epoch": row.epoch,
                    "next_offset": row.next_offset,
                    "records_waiting": Self::waiting(row),
                    "events": row.events,
                    "duplicates": row.duplicates,
                    "superseded": row.superseded,
                    "applied_through": row.applied_through.map(|time| time.0),
                    "lost": row.lost,
                    "silent_ms": row.idle_ms,
                })
            })
            .collect();
        let captured: Vec<Value> = self
            .captured
            .iter()
            .map(|row| json!({ "source": row.source, "captured_through": row.time.0, "silent_ms": row.idle_ms }))
            .collect();
        let letters: Vec<Value> = self
            .letters
            .iter()
            .map(|row| json!({ "collection": row.collection, "kind": row.kind, "count": row.count }))
            .collect();
        let tallies: Vec<Value> = self
            .tallies
            .iter()
            .map(|row| {
                json!({
                    "collection": row.collection, "table": row.table, "column": row.column,
                    "policy": row.policy, "count": row.count,
                    "sample": Key::from_bytes(&row.sample_key).to_string(),
                })
            })
            .collect();
        let incidents: Vec<Value> = self
            .incidents
            .iter()
            .map(|row| json!({ "at": row.at, "kind": row.kind, "collection": row.collection, "text": row.text }))
            .collect();
        json!({
            "migration": self.migration,
            "running": self.running(),
            "copied": self.copied(),
            "lag_seconds": self.lag_seconds(),
            "applied_through": self.applied_through().map(|time| time.0),
            "source_operation_time": self.now.map(|time| time.0),
            "collections": collections,
            "lanes": lanes,
            "captured": captured,
            "partitions": partitions,
            "dead_letters": letters,
            "tallies": tallies,
            "incidents": incidents,
        })
    }

    pub(crate) fn text(&self) -> String {
        let running = if self.running() { "running" } else { "not running" };
        let mut text = format!("migration {}: {running}", self.migration);
        text += &match (self.lag_seconds(), self.applied_through()) {
            (Some(lag), _) => format!(", {lag} s behind the source"),
            (None, Some(_)) => ", the source does not answer: lag unknown".to_owned(),
            (None, None) => ", nothing applied yet".to_owned(),
        };
        if let Some(lane) = self.stream() {
            text += &format!(
                "\n{} changes applied; last word from the stream {:.1} s ago",
                lane.progress.events,
                lane.idle_ms as f64 / 1000.0
            );
        }
        if self.is_kafka() {
            text += &self.log_text();
        }
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_header([
            "collection",
            "copy",
            "documents",
            "chunks",
            "dead letters",
        ]);
        for row in &self.collections {
            let letters: u64 = self
                .letters
                .iter()
                .filter(|count| count.collection == row.collection)
                .map(|count| count.count)
                .sum();
            table.add_row([
                row.collection.clone(),
                state(row).to_owned(),
                format!("{} of about {}", row.documents_copied, row.documents_estimate),
                format!("{}/{}", row.chunks_done, row.chunks_total),
                letters.to_string(),
            ]);
        }
        text += &format!("\n\n{table}\n");
        for row in &self.letters {
            text += &format!("\ndead letters: {} of {} ({})", row.count, row.collection, row.kind);
        }
        for row in &self.tallies {
            text += &format!(
                "\npolicy: {} {} times for {} → {}.{}, for example {}",
                row.policy,
                row.count,
                row.collection,
                row.table,
                row.column,
                Key::from_bytes(&row.sample_key)
            );
        }
        for row in &self.incidents {
            let at = jiff::Timestamp::from_millisecond(row.at)
                .map_or_else(|_| row.at.to_string(), |at| format!("{at:.0}"));
            text += &format!("\nincident {at}: {}", row.text);
        }
        text + "\n"
    }

    /// What stands in Kafka, and who works on it.
    fn log_text(&self) -> String {
        let silent = self.captured.iter().map(|row| row.idle_ms).max().unwrap_or_default();
        let waiting: i64 = self.partitions.iter().map(Self::waiting).sum();
        let events: u64 = self.partitions.iter().map(|row| row.events).sum();
        let duplicates: u64 = self.partitions.iter().map(|row| row.duplicates).sum();
        let mut text = format!(
            "\ncapture: {}, last word {:.1} s ago; appliers: {}; {} partitions\n{events} events applied, {waiting} records waiting \
             in Kafka, {duplicates} duplicates dropped",
            if self.capture_runs() { "running" } else { "not running" },
            silent as f64 / 1000.0,
            self.appliers(),
            self.partitions.len(),
        );
        let unread = self.partitions.iter().filter(|row| row.member.is_none()).count();
        if unread > 0 {
            text += &format!("\n{unread} partitions have no applier yet");
        }
        for row in self.partitions.iter().filter(|row| row.lost.is_some()) {
            text += &format!("\nlost: {}", row.lost.as_deref().unwrap_or_default());
        }
        text
    }
}

fn state(row: &CollectionRow) -> &'static str {
    match (row.state, row.reload) {
        (CopyState::Pending, false) => "pending",
        (CopyState::Copying, false) => "copying",
        (CopyState::Copied, false) => "copied",
        (CopyState::Pending | CopyState::Copying, true) => "copying again",
        (CopyState::Copied, true) => "sweeping",
    }
}
