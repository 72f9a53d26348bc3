//! Killed again and again at random moments, in the copy too, while writers write: equal to the last row in the end,
//! nothing acknowledged is lost, and no row ever goes back.

use std::time::Duration;

use slackwater_migrations::crm_demo::{self, Pace, Writers};
use slackwater_migrations::{Chance, Watcher};
use tokio::sync::watch;

use crate::harness::{Stage, number, until};
use crate::state;

/// For the last equality, on a machine that does everything else too.
const CATCH_UP: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn killed_fifty_times_it_ends_equal() {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    let kills = number("SLACKWATER_TEST_KILLS", 50);
    let documents = number("SLACKWATER_TEST_KILL_DOCUMENTS", 30_000);
    let rate = number("SLACKWATER_TEST_RATE", 400);
    println!("seed {seed}, {kills} kills, {documents} documents, {rate} operations a second");
    let (stage, _) = Stage::crm("kill", seed, documents).await;
    // Small chunks, so that kills fall between them too.
    let small = format!("{}\nsnapshot: {{ workers: 3, chunk_documents: 500 }}\n", crm_demo::MIGRATION_FILE);
    let file = stage.file("small-chunks.yaml", &small);
    Watcher::lay_tripwires(&stage.target, crm_demo::WATCHED).await.expect("tripwires can be laid");
    let (stop_watching, stopped) = watch::channel(false);
    let watcher = Watcher::spawn(stage.postgres.clone(), crm_demo::WATCHED, stopped);
    let (stop_writing, stopped) = watch::channel(false);
    let pace = Pace { writers: 4, rate: Some(rate as f64) };
    let writers = Writers::learn(&stage.source, seed, pace).await.expect("documents can be read");
    let writers = tokio::spawn(writers.write(stopped));

    let mut chance = Chance::of(seed, 0, 0);
    let mut in_copy = 0;
    for kill in 1..=kills {
        let process = stage.run(&file);
        // Short lives hit the start and the copy, long ones get somewhere.
        let life = if chance.percent(60) { chance.between(20, 500) } else { chance.between(500, 3_000) };
        // The random moment is the test; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(life as u64)).await;
        process.kill().await;
        let copied = state::copied(&stage.target).await;
        let copy = state::copy(&stage.target).await;
        in_copy += u64::from(!copied && copy.chunks > 0);
        println!("kill {kill} after {life} ms, copied: {copied}, {copy:?}");
    }

    let mut process = stage.run(&file);
    stop_writing.send(true).expect("the writers listen");
    let written = writers.await.expect("a task").expect("the writers write");
    // Once status says that the last write is in the target, it is: one look has to be enough.
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

    println!("{kills} kills, {in_copy} of them in the copy; {} changes written", written.changes);
    println!("{written}\n{watcher}\n{} rows compared\n{report}\n{status}", report.rows());
    assert!(
        lost.is_empty(),
        "{} acknowledged changes are lost: {:?}",
        lost.len(),
        &lost[..lost.len().min(10)]
    );
    watcher.verdict().expect("no row goes back");
    assert_eq!(dead_letters, 0, "no document of the example is refused");
    assert!(in_copy > 0, "no kill fell into the copy: take another seed or more documents");
    stage.clear().await;
}
