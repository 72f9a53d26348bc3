//! Connections cut on both sides, again and again, while writers write: it goes on by itself and ends equal.

use std::time::Duration;

use bson::doc;
use slackwater_migrations::crm_demo::{self, Pace, Writers};
use slackwater_migrations::{Chance, Watcher};
use tokio::sync::watch;

use crate::harness::{Stage, number, until};
use crate::state;

const CATCH_UP: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_again_and_again_it_ends_equal() {
    let seed = number("SLACKWATER_TEST_SEED", 2);
    let cuts = number("SLACKWATER_TEST_CUTS", 40);
    println!("seed {seed}, {cuts} cuts");
    let (stage, _) = Stage::crm("cut", seed, 6_000).await;
    let small = format!("{}\nsnapshot: {{ workers: 3, chunk_documents: 300 }}\n", crm_demo::MIGRATION_FILE);
    let file = stage.file("small-chunks.yaml", &small);
    Watcher::lay_tripwires(&stage.target, crm_demo::WATCHED).await.expect("tripwires can be laid");
    let (stop_watching, stopped) = watch::channel(false);
    let watcher = Watcher::spawn(stage.postgres.clone(), crm_demo::WATCHED, stopped);
    let (stop_writing, stopped) = watch::channel(false);
    let pace = Pace { writers: 2, rate: Some(200.0) };
    let writers = Writers::learn(&stage.source, seed, pace).await.expect("documents can be read");
    let writers = tokio::spawn(writers.write(stopped));
    let mut process = stage.run(&file);

    let mut chance = Chance::of(seed, 0, 0);
    let (mut cut, mut failed) = (0, 0);
    for _ in 0..cuts {
        // The random moment is the test; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(chance.between(50, 500) as u64)).await;
        if chance.percent(60) {
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE application_name = 'slackwater' AND datname = current_database()";
            let row = stage.target.query_one(sql, &[]).await.expect("backends can be ended");
            cut += row.get::<_, i64>(0);
        } else {
            // Other tests' replicators on this server are hit too; they go on as well.
            let fail = doc! {
                "configureFailPoint": "failCommand", "mode": {"times": 2},
                "data": {"failCommands": ["getMore", "find"], "closeConnection": true, "appName": "slackwater"},
            };
            let admin = stage.source.client().database("admin");
            admin.run_command(fail).await.expect("the server has test commands: start it with dev/services");
            failed += 2;
        }
        process.still_runs();
    }
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
    let dead_letters = state::dead_letters(&stage.target).await;
    process.stop().await;
    stop_watching.send(true).expect("the watcher listens");
    let watcher = watcher.await.expect("a task").expect("the target can be read");
    println!("{cut} backends ended, {failed} commands cut, {} changes written\n{report}", written.changes);
    assert!(cut > 0 && failed > 0, "nothing was cut");
    assert!(lost.is_empty(), "{} acknowledged changes are lost", lost.len());
    assert!(report.is_equal(), "both sides differ");
    watcher.verdict().expect("no row goes back");
    assert_eq!(dead_letters, 0, "no document of the example is refused");
    stage.clear().await;
}
