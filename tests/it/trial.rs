//! The CRM under live writers and under watch, and the verdict at the end: what kills and cuts have in common.

use std::path::PathBuf;
use std::time::Duration;

use slackwater_migrations::crm_demo::{self, Pace, Writers, Written};
use slackwater_migrations::{Result, Watcher};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::{Slackwater, Stage, until};
use crate::state;

/// For the last equality, on a machine that does everything else too.
const CATCH_UP: Duration = Duration::from_secs(300);

/// A trial under way.
pub(crate) struct Trial {
    pub(crate) stage: Stage,
    pub(crate) file: PathBuf,
    writers: JoinHandle<Result<Written>>,
    stop_writing: watch::Sender<bool>,
    watcher: JoinHandle<Result<Watcher>>,
    stop_watching: watch::Sender<bool>,
}

impl Trial {
    /// Loads the documents; from now on writers write and a watcher looks at every row.
    pub(crate) async fn start(name: &str, seed: u64, documents: u64, snapshot: &str, pace: Pace) -> Self {
        let (stage, _) = Stage::crm(name, seed, documents).await;
        let small = format!("{}\nsnapshot: {snapshot}\n", crm_demo::MIGRATION_FILE);
        let file = stage.file("small-chunks.yaml", &small);
        Watcher::lay_tripwires(&stage.target, crm_demo::WATCHED).await.expect("tripwires can be laid");
        let (stop_watching, stopped) = watch::channel(false);
        let watcher = Watcher::spawn(stage.postgres.clone(), crm_demo::WATCHED, stopped);
        let (stop_writing, stopped) = watch::channel(false);
        let writers = Writers::learn(&stage.source, seed, pace).await.expect("documents can be read");
        let writers = tokio::spawn(writers.write(stopped));
        Self { stage, file, writers, stop_writing, watcher, stop_watching }
    }

    /// Stops the writers and waits until status says that their last write is applied: then one look has to be enough.
    /// Equal to the last row, nothing acknowledged is lost, no row went back, no dead letter.
    pub(crate) async fn end(self, mut process: Slackwater) {
        let Self { stage, file, writers, stop_writing, watcher, stop_watching } = self;
        stop_writing.send(true).expect("the writers listen");
        let written = writers.await.expect("a task").expect("the writers write");
        let last = written.until.expect("the source tells its operation time");
        let last = u64::from(last.time) << 32 | u64::from(last.increment);
        until("status says that the last write is applied", CATCH_UP, async || {
            process.still_runs();
            let status = stage.status(&file).await;
            let applied = status["applied_through"].as_u64().is_some_and(|applied| applied >= last);
            (applied && status["copied"] == true).then_some(())
        })
        .await;
        let report = stage.crm_compare().await;
        let lost = written.lost(&stage.target).await.expect("rows can be read");
        let status = stage.status(&file).await;
        let dead_letters = state::dead_letters(&stage.target).await;
        process.stop().await;
        stop_watching.send(true).expect("the watcher listens");
        let watcher = watcher.await.expect("a task").expect("the target can be read");
        println!("{written}\n{watcher}\n{} rows compared\n{report}\n{status}", report.rows());
        assert!(lost.is_empty(), "{} acknowledged changes are lost: {:?}", lost.len(), lost.first());
        assert!(report.is_equal(), "both sides differ");
        watcher.verdict().expect("no row goes back");
        assert_eq!(dead_letters, 0, "no document of the example is refused");
        stage.clear().await;
    }
}
