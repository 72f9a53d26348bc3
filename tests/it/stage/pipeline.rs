//! Capture and appliers as processes of their own, with Kafka between them.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use slackwater_migrations::crm_demo::{self, Kind};

use crate::stage::records::{Counts, Standing, Topics};
use crate::stage::state;
use crate::stage::{PATIENCE, Slackwater, Stage, number, until};

/// What a test says of its log; the rest is the same for all.
pub(crate) struct Log {
    /// Where Kafka is.
    pub(crate) brokers: String,
    pub(crate) partitions: u32,
    pub(crate) replication: u32,
    /// More fields under `topics`, such as `compact: true`.
    pub(crate) topics: &'static str,
    /// More fields under `kafka`, such as `values: debezium`.
    pub(crate) more: &'static str,
}

impl Log {
    /// Four partitions to a topic and nothing special.
    pub(crate) fn at(brokers: &str) -> Self {
        Self { brokers: brokers.into(), partitions: 4, replication: 1, topics: "", more: "" }
    }
}

/// A stage, its file, its topics.
pub(crate) struct Pipeline {
    pub(crate) stage: Stage,
    pub(crate) file: PathBuf,
    pub(crate) topics: Topics,
    pub(crate) group: String,
}

/// A row of `slackwater.partitions`.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) next_offset: i64,
    pub(crate) epoch: i64,
    pub(crate) capture_epoch: i64,
    pub(crate) member: Option<String>,
    pub(crate) lost: Option<String>,
    pub(crate) counts: Counts,
}

impl Pipeline {
    /// The CRM's stage with its documents. `snapshot` is that section of the file.
    pub(crate) async fn crm(name: &str, seed: u64, documents: u64, snapshot: &str, log: &Log) -> Self {
        let (stage, _) = Stage::crm(name, seed, documents).await;
        let text = format!("{}\nsnapshot: {snapshot}\n", crm_demo::mapping());
        Self::on(stage, &text, log).await
    }

    /// On a stage that is prepared: the file with the log's section, and the topics made.
    pub(crate) async fn on(stage: Stage, text: &str, log: &Log) -> Self {
        let prefix = format!("sw.{}", stage.name);
        // What a run before has left, which failed.
        Topics::new(&log.brokers, &prefix).delete().await;
        let random = RandomState::new().hash_one(std::process::id()) as u32;
        let prefix = format!("{prefix}.{random:08x}");
        let Log { brokers, partitions, replication, topics, more } = log;
        let writers = number("SLACKWATER_TEST_WRITERS", 1);
        // Six seconds is the least that a broker allows.
        let section = format!(
            "log:\n  kafka:\n    brokers: \"{brokers}\"\n    \
             topics: {{ prefix: {prefix}, partitions: {partitions}, replication: {replication}{}{topics} }}\n    \
             group: {prefix}\n    writers: {writers}\n    consumer: {{ session.timeout.ms: 6000 }}\n    {more}\n",
            if topics.is_empty() { "" } else { ", " }
        );
        let file = stage.file("kafka.yaml", &format!("{text}\n{section}"));
        let pipeline = Self { stage, file, topics: Topics::new(brokers, &prefix), group: prefix };
        pipeline.make_topics().await;
        pipeline
    }

    fn path(&self) -> &str {
        self.file.to_str().expect("a path in UTF-8")
    }

    /// `slackwater topics apply FILE`.
    pub(crate) async fn make_topics(&self) {
        let output = self.stage.output(&["topics", "apply", self.path()]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "topics can be made: {said}");
    }

    /// Starts `slackwater capture FILE`. What it says is added to `NAME.log`.
    pub(crate) fn capture(&self, name: &str) -> Slackwater {
        self.stage.start(&["capture", self.path()], name)
    }

    /// Starts `slackwater apply FILE`, as a member that keeps its name over restarts where there is one. What it says is
    /// added to `NAME.log`.
    pub(crate) fn apply(&self, name: &str, member: Option<&str>) -> Slackwater {
        let mut arguments = vec!["apply", self.path()];
        arguments.extend(member.iter().flat_map(|member| ["--member", member]));
        self.stage.start(&arguments, name)
    }

    /// How far partitions are applied; none before they are registered.
    pub(crate) async fn partitions(&self) -> BTreeMap<(String, i32), Partition> {
        let statement = "SELECT topic, partition, next_offset, epoch, capture_epoch, member, lost, events, duplicates, superseded
                         FROM slackwater.partitions";
        state::rows(&self.stage.target, statement)
            .await
            .iter()
            .map(|row| {
                let counts = Counts { events: row.get(7), duplicates: row.get(8), superseded: row.get(9) };
                let partition = Partition {
                    next_offset: row.get(2),
                    epoch: row.get(3),
                    capture_epoch: row.get(4),
                    member: row.get(5),
                    lost: row.get(6),
                    counts,
                };
                ((row.get(0), row.get(1)), partition)
            })
            .collect()
    }

    /// Whether every collection of the CRM is in the log.
    pub(crate) async fn copied(&self) -> bool {
        let statement = "SELECT count(*) FROM slackwater.collections WHERE state = 'copied' AND NOT reload";
        let copied = state::rows(&self.stage.target, statement).await.first().map(|row| row.get::<_, i64>(0));
        copied == Some(Kind::ALL.len() as i64)
    }

    /// When the capture saved its position, in milliseconds.
    pub(crate) async fn saved_at(&self) -> Option<i64> {
        let statement = "SELECT max(extract(epoch FROM saved_at) * 1000)::bigint FROM slackwater.positions";
        state::rows(&self.stage.target, statement).await.first()?.get(0)
    }

    /// Seconds from what is applied to the source's present, where anything is.
    pub(crate) async fn lag(&self) -> Option<i64> {
        let statement =
            "SELECT (extract(epoch FROM clock_timestamp()))::bigint - (min(applied_through) >> 32)
                         FROM slackwater.partitions";
        state::rows(&self.stage.target, statement).await.first()?.get(0)
    }

    /// Waits until the CRM's rows are what its documents say, for which nobody may write; how many rows.
    pub(crate) async fn wait_equal(&self, processes: &mut [Slackwater], deadline: Duration) -> u64 {
        until("the rows are equal to the documents", deadline, async || {
            processes.iter_mut().for_each(Slackwater::still_runs);
            let report = self.stage.crm_compare().await;
            report.is_equal().then(|| report.rows())
        })
        .await
    }

    /// When nobody sends any more: each partition is applied to its end, and its counters are what its topic holds, as
    /// reckoned from the records alone. No record was applied twice, and none was left out. The sum of all.
    pub(crate) async fn counted_exactly(&self, deadline: Duration) -> Standing {
        self.counted_beside(&[], deadline).await
    }

    /// The same, where these partitions are nobody's: nothing is in them.
    pub(crate) async fn counted_beside(&self, unused: &[(String, i32)], deadline: Duration) -> Standing {
        self.applied_to_the_end(unused, deadline).await;
        let mut standing = self.topics.reckon().await;
        for place in unused {
            let standing = standing.remove(place).expect("a partition that is there");
            assert_eq!(standing, Standing::default(), "{place:?} is empty");
        }
        let applied = self.partitions().await;
        assert_eq!(applied.len(), standing.len(), "every partition is registered");
        let mut sum = Standing::default();
        for (place, standing) in &standing {
            let partition = &applied[place];
            assert_eq!(partition.lost, None, "{place:?} has lost nothing");
            assert_eq!(partition.next_offset, standing.end, "{place:?} is applied to its end");
            assert_eq!(partition.counts, standing.counts, "{place:?}: {standing:?}, {partition:?}");
            sum.add(standing);
        }
        sum
    }

    /// Waits until each partition is applied to the end that it has now, except for these.
    pub(crate) async fn applied_to_the_end(&self, unused: &[(String, i32)], deadline: Duration) {
        let mut ends = self.topics.offsets().await;
        ends.retain(|place, _| !unused.contains(place));
        until("the partitions are applied to their ends", deadline, async || {
            let applied = self.partitions().await;
            ends.iter().all(|(place, (_, end))| applied[place].next_offset >= *end).then_some(())
        })
        .await;
    }

    /// Takes the topics, the group and the databases away.
    pub(crate) async fn clear(self) {
        self.topics.delete().await;
        self.topics.delete_group(&self.group).await;
        self.stage.clear().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_make_the_rows_equal() {
    let log = Log::at(&crate::stage::broker::shared());
    let pipeline = Pipeline::crm("pipeline", 21, 3_000, "{ workers: 2, chunk_documents: 500 }", &log).await;
    let capture = pipeline.capture("capture");
    let appliers = [pipeline.apply("one", None), pipeline.apply("two", Some("two"))];
    let mut processes: Vec<_> = appliers.into_iter().chain([capture]).collect();
    let rows = pipeline.wait_equal(&mut processes, PATIENCE).await;
    let change = bson::doc! {"$inc": {"v": 1_i64}};
    let users = pipeline.stage.source.collection::<bson::Document>("users");
    users.update_many(bson::doc! {}, change).await.expect("documents can be changed");
    assert_eq!(pipeline.wait_equal(&mut processes, PATIENCE).await, rows);
    // From now on nothing comes into the topics.
    processes.pop().expect("the capture").stop().await;
    let standing = pipeline.counted_exactly(PATIENCE).await;
    println!("{rows} rows, {standing:?}");
    assert!(standing.counts.events > 3_000 && standing.counts.superseded == 0, "{standing:?}");
    for applier in processes {
        applier.stop().await;
    }
    pipeline.clear().await;
}
