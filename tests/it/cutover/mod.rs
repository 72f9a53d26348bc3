//! The switch, on servers of the test's own: a frozen MongoDB refuses everybody's writes.

mod checked;
mod counted;
mod kills;
mod managed;
mod many;
mod refusals;
mod report;
mod spoiled;
mod ways;

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use bson::doc;
use mongodb::Database;
use serde_json::Value;
use slackwater_migrations::crm_demo::{self, Pace, Writers, Written};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::trial::CATCH_UP;
use crate::stage::{Slackwater, Stage, is_verified, until};

/// What lies between capture and apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Kafka,
}

/// A migration that is ready to be switched: copied, followed, written to.
struct Scene {
    way: Way,
    stage: Stage,
    file: PathBuf,
    /// Topics and group, where the log is Kafka.
    topics: Option<(crate::stage::records::Topics, String)>,
    processes: Vec<Slackwater>,
    stop: watch::Sender<bool>,
    writers: JoinHandle<slackwater_migrations::Result<Written>>,
    /// How often a switch was refused for want of time.
    refused: Cell<u32>,
}

/// The section of the migration file; `more` is added to it.
fn section(more: &str) -> String {
    format!(
        "snapshot: {{ workers: 2, chunk_documents: 1000 }}\nchecks:\n  \
         - {{ name: lines have invoices, returns_nothing: \"select from invoice_lines l where not exists \
         (select from invoices i where i.id = l.invoice_id)\" }}\ncutover:\n  max_lag: 10s\n{more}\n"
    )
}

impl Scene {
    /// Documents loaded, processes started, writers at work; waits until everything is copied.
    async fn set(name: &str, way: Way, mongodb: &str, brokers: &str, seed: u64, more: &str) -> Self {
        let stage = Stage::at(name, mongodb).await;
        stage.fill(seed, 1_500).await;
        Self::on(stage, way, brokers, seed, more).await
    }

    async fn on(stage: Stage, way: Way, brokers: &str, seed: u64, more: &str) -> Self {
        let writing = stage.source.clone();
        Self::written(stage, &writing, way, brokers, seed, more).await
    }

    /// Likewise, where the writers are somebody else than the test.
    async fn written(
        stage: Stage,
        writing: &Database,
        way: Way,
        brokers: &str,
        seed: u64,
        more: &str,
    ) -> Self {
        let text = format!("{}\n{}", crm_demo::mapping(), section(more));
        let pace = Pace { writers: 8, rate: Some(1_000.0) };
        let writers = Writers::learn(writing, seed, pace).await.expect("documents can be read");
        let (stop, stopped) = watch::channel(false);
        let (stage, file, topics, processes) = match way {
            Way::Direct => {
                let file = stage.file("cutover.yaml", &text);
                let run = stage.run(&file);
                (stage, file, None, vec![run])
            }
            Way::Kafka => {
                let pipeline = Pipeline::on(stage, &text, &Log::at(brokers)).await;
                let processes = vec![
                    pipeline.capture("capture"),
                    pipeline.apply("one", Some("one")),
                    pipeline.apply("two", Some("two")),
                ];
                let Pipeline { stage, file, topics, group } = pipeline;
                (stage, file, Some((topics, group)), processes)
            }
        };
        let writers = tokio::spawn(writers.write(stopped));
        let mut scene = Self { way, stage, file, topics, processes, stop, writers, refused: Cell::new(0) };
        scene.near().await;
        scene
    }

    /// The same scene with another section in its file.
    fn with(&mut self, name: &str, more: &str) {
        let text = std::fs::read_to_string(&self.file).expect("the file");
        let (head, _) = text.split_once("\nsnapshot:").expect("the section");
        let log = text.split_once("\nlog:").map_or(String::new(), |(_, log)| format!("\nlog:{log}"));
        self.file = self.stage.file(name, &format!("{head}\n{more}{log}"));
    }

    fn path(&self) -> &str {
        self.file.to_str().expect("a path in UTF-8")
    }

    /// Waits until everything is copied and applied soon.
    async fn near(&mut self) {
        let verifies = std::fs::read_to_string(&self.file).expect("the file").contains("\nverify:");
        let now = self.stage.clock().await;
        until("it is copied and follows closely", CATCH_UP, async || {
            self.processes.iter_mut().for_each(Slackwater::still_runs);
            // Before the first process has begun there is nothing to look at.
            let output = self.stage.output(&["status", self.path(), "--json"]).await;
            let status: Value = serde_json::from_slice(&output.stdout).ok()?;
            let near = status["lag_ms"].as_i64().is_some_and(|lag| lag < 3_000);
            let near = near && (!verifies || is_verified(&status["verification"], now));
            (status["copied"] == true && near).then_some(())
        })
        .await;
    }

    /// The switch in earnest: code and report. Where this machine was too slow for it just then it is refused, as it should
    /// be, with everything as before; then once more.
    async fn switch(&self) -> (Option<i32>, Value) {
        until("this machine is quick enough for a switch", LONG, async || {
            let (code, report) = self.cutover(&[]).await;
            let why = slow(&report);
            if let Some(why) = &why {
                println!("once more: {why}");
                self.refused.update(|refused| refused + 1);
                assert!(!self.is_frozen().await, "{report:#}");
            }
            why.is_none().then_some((code, report))
        })
        .await
    }

    /// `slackwater cutover FILE` with these arguments: code and what it printed as JSON.
    async fn cutover(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let all = [&["cutover", self.path(), "--json"], arguments].concat();
        let output = self.stage.output(&all).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let json = serde_json::from_str(&said);
        let complaint = || format!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code(), json.unwrap_or_else(|_| panic!("no JSON: {}", complaint())))
    }

    /// Ends the writers; what was acknowledged to them.
    async fn end_writers(&mut self) -> Written {
        self.stop.send_replace(true);
        let writers = std::mem::replace(&mut self.writers, tokio::spawn(async { Ok(Written::default()) }));
        writers.await.expect("a task").expect("the writers write")
    }

    /// After the switch: every process has ended by itself and says that all is well, and so does one that is started
    /// again; the target has every write that was acknowledged, and is equal by the oracle.
    async fn is_switched(&mut self) -> Written {
        let written = self.end_writers().await;
        self.is_switched_with(written).await
    }

    /// Likewise, where the writers have ended.
    async fn is_switched_with(&mut self, written: Written) -> Written {
        for process in &mut self.processes {
            let ended = until("the process ends by itself", CATCH_UP, async || process.ended()).await;
            assert!(ended.success(), "{}: {ended}\n{}", process.name(), process.tail());
            assert!(process.said("is switched"), "{}", process.tail());
        }
        let again = match self.way {
            Way::Direct => "run",
            Way::Kafka => "capture",
        };
        let output = self.stage.output(&[again, self.path()]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lost = written.lost(&self.stage.target).await.expect("rows can be read");
        assert!(lost.is_empty(), "{} acknowledged changes are lost: {:?}", lost.len(), lost.first());
        let report = self.stage.crm_compare().await;
        assert!(report.is_equal(), "{report}");
        written
    }

    /// Lets the server's writers write again, whatever has happened.
    async fn thaw(&self) {
        thaw(&self.stage).await;
    }

    /// Whether the source refuses writers.
    async fn is_frozen(&self) -> bool {
        let status = self.stage.source.client().database("admin").run_command(doc! {"serverStatus": 1}).await;
        let status = status.expect("the server answers");
        let repl = status.get_document("repl").expect("a replica set");
        repl.get("userWriteBlockMode").and_then(|mode| mode.as_i32().map(i64::from).or(mode.as_i64()))
            == Some(2)
    }

    /// Takes everything away.
    async fn clear(self) {
        self.thaw().await;
        let Self { stage, topics, processes, .. } = self;
        for process in processes {
            drop(process);
        }
        if let Some((topics, group)) = topics {
            topics.delete().await;
            topics.delete_group(&group).await;
        }
        stage.clear().await;
    }
}

/// Lets the server's writers write again, whatever has happened.
async fn thaw(stage: &Stage) {
    let command = doc! {"setUserWriteBlockMode": 1, "global": false};
    let thawed = stage.source.client().database("admin").run_command(command).await;
    // A server before 6.0 does not know how, and cannot be frozen like that.
    let unknown = |error: &mongodb::error::Error| error.to_string().contains("CommandNotFound");
    assert!(thawed.as_ref().err().is_none_or(unknown), "the source can be unfrozen: {thawed:?}");
}

/// Why a switch was refused or reverted, where that is for want of time alone.
fn slow(report: &Value) -> Option<String> {
    // The source of these tests refers to nothing that it does not have, so what waits is late.
    let names = [
        "trouble",
        "applier_stopped",
        "applier_joining",
        "capture_stopped",
        "lag",
        "dead_letters",
        "dangling_references",
        "verification_behind",
    ];
    let reasons =
        ["fence_slow", "verification_slow", "applier_stopped", "capture does not answer", "the deadline of"];
    if let Some(blockers) = report["blockers"].as_array() {
        let of_time = |blocker: &Value| names.iter().any(|name| blocker["blocker"] == *name);
        let what = || blockers.iter().map(|blocker| format!("{}: {}", blocker["blocker"], blocker["what"]));
        return blockers.iter().all(of_time).then(|| what().collect::<Vec<_>>().join(", "));
    }
    let reason = report["reason"].as_str()?;
    reasons.iter().any(|begin| reason.starts_with(begin)).then(|| reason.to_owned())
}

/// The middle, the 99th of a hundred, and the largest.
fn spread(mut numbers: Vec<f64>) -> (f64, f64, f64) {
    numbers.sort_by(f64::total_cmp);
    let at =
        |share: f64| numbers[((numbers.len() as f64 * share).ceil() as usize).clamp(1, numbers.len()) - 1];
    (at(0.5), at(0.99), at(1.0))
}

/// A deadline that no test comes near.
const LONG: Duration = Duration::from_secs(120);
