//! The CRM under live writers and under watch, and the verdict at the end: what kills and cuts have in common.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use slackwater_migrations::crm_demo::{self, Pace, Writers, Written};
use slackwater_migrations::{Result, Watcher};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::stage::state;
use crate::stage::{Slackwater, Stage, number, until};

/// For the last equality, on a machine that does everything else too.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(300);

/// A trial under way.
pub(crate) struct Trial {
    pub(crate) stage: Stage,
    pub(crate) file: PathBuf,
    load: Load,
}

/// Writers that write to a stage's source, and a watcher that looks at every row of its target.
pub(crate) struct Load {
    writers: JoinHandle<Result<Written>>,
    stop_writing: watch::Sender<bool>,
    watcher: JoinHandle<Result<Watcher>>,
    stop_watching: watch::Sender<bool>,
}

impl Trial {
    /// Loads the documents; from now on writers write and a watcher looks at every row.
    pub(crate) async fn start(name: &str, seed: u64, documents: u64, snapshot: &str, pace: Pace) -> Self {
        let (stage, _) = Stage::crm(name, seed, documents).await;
        let small = format!("{}\nsnapshot: {snapshot}\n", crm_demo::mapping());
        let file = stage.file("small-chunks.yaml", &small);
        let load = Load::start(&stage, seed, pace).await;
        Self { stage, file, load }
    }

    /// Stops the writers and waits until status says that their last write is applied: then one look has to be enough.
    /// Equal to the last row, nothing acknowledged is lost, no row went back, no dead letter.
    pub(crate) async fn end(self, process: Slackwater) {
        let Self { stage, file, load } = self;
        let mut processes = [process];
        load.end(&stage, &file, &mut processes).await;
        let [process] = processes;
        process.stop().await;
        stage.clear().await;
    }
}

impl Load {
    /// From now on writers write and a watcher looks at every row.
    pub(crate) async fn start(stage: &Stage, seed: u64, pace: Pace) -> Self {
        Watcher::lay_tripwires(&stage.target, crm_demo::WATCHED).await.expect("tripwires can be laid");
        let (stop_watching, stopped) = watch::channel(false);
        let watcher = Watcher::spawn(stage.postgres.clone(), crm_demo::WATCHED, stopped);
        let (stop_writing, stopped) = watch::channel(false);
        let writers = Writers::learn(&stage.source, seed, pace).await.expect("documents can be read");
        let writers = tokio::spawn(writers.write(stopped));
        Self { writers, stop_writing, watcher, stop_watching }
    }

    /// As [`Trial::end`]; the processes that bring it there go on. Tells how long they took for it.
    pub(crate) async fn end(self, stage: &Stage, file: &Path, processes: &mut [Slackwater]) -> Duration {
        let Self { writers, stop_writing, watcher, stop_watching } = self;
        stop_writing.send(true).expect("the writers listen");
        let written = writers.await.expect("a task").expect("the writers write");
        let stopped = Instant::now();
        let last = written.until.expect("the source tells its operation time");
        applied(stage, file, processes, u64::from(last.time) << 32 | u64::from(last.increment)).await;
        let caught_up = stopped.elapsed();
        let report = stage.crm_compare().await;
        let lost = written.lost(&stage.target).await.expect("rows can be read");
        let status = stage.status(file).await;
        let dead_letters = state::dead_letters(&stage.target).await;
        stop_watching.send(true).expect("the watcher listens");
        let watcher = watcher.await.expect("a task").expect("the target can be read");
        println!("{written}\n{watcher}\n{} rows compared\n{report}\n{status}", report.rows());
        println!("caught up with the last write after {caught_up:?}");
        assert!(lost.is_empty(), "{} acknowledged changes are lost: {:?}", lost.len(), lost.first());
        assert!(report.is_equal(), "both sides differ");
        watcher.verdict().expect("no row goes back");
        assert_eq!(dead_letters, 0, "no document of the example is refused");
        caught_up
    }
}

/// The same, where a run by hand needs more.
pub(crate) fn patience() -> Duration {
    Duration::from_secs(number("SLACKWATER_TEST_PATIENCE", CATCH_UP.as_secs()))
}

/// Waits until everything is copied and status says that what the source did until `last` is applied.
pub(crate) async fn applied(stage: &Stage, file: &Path, processes: &mut [Slackwater], mut last: u64) {
    let mut copied = false;
    until("status says that the last write is applied", patience(), async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let status = stage.status(file).await;
        let logged = status["partitions"].as_array().is_some_and(|partitions| !partitions.is_empty());
        if logged && !copied && status["copied"] == true {
            // What was copied is in the log; what the source shows from now on comes behind it.
            copied = true;
            last = status["source_operation_time"].as_u64().expect("the source answers").max(last);
        }
        let applied = status["applied_through"].as_u64().is_some_and(|applied| applied >= last);
        // A reference may come before its target where they travel side by side; it is tried again.
        let settled = !logged || state::dead_letters(&stage.target).await == 0;
        (applied && status["copied"] == true && settled).then_some(())
    })
    .await;
}
