//! A collection that nobody writes to, longer than the oplog reaches back: its position moves all the same, and
//! nothing is copied again when a change comes at last.

use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::{PATIENCE, Stage, until};
use crate::stage::{items, state};

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_collection_is_not_copied_again() {
    let server = Mongod::start("idle", Flavour::TinyOplog).await;
    let stage = Stage::at("idle", &server.uri()).await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..500).await;
    let mut process = stage.run(&file);
    items::equal(&stage, &mut process, PATIENCE).await;
    until("it streams", PATIENCE, async || {
        process.still_runs();
        state::copied(&stage.target).await.then_some(())
    })
    .await;
    let before = state::copy(&stage.target).await;

    // It runs, and everything it has seen of its collection falls out of the oplog.
    for _ in 0..2 {
        server.roll_oplog().await;
        // This oplog holds less than a second; a real one is longer than the second in which a position is saved.
        let kept = server.oplog_start().await;
        until("the position has moved though nothing was written", PATIENCE, async || {
            process.still_runs();
            let status = stage.status(&file).await;
            status["applied_through"].as_u64().is_some_and(|applied| applied > kept).then_some(())
        })
        .await;
    }
    // Stopped and started again it has nothing to go on from but the position it saved while idle.
    let (status, _) = process.end("TERM").await;
    assert!(status.success(), "SIGTERM ends with {status}");
    let mut process = stage.run(&file);
    items::insert(&stage, 500..501).await;
    assert_eq!(items::equal(&stage, &mut process, PATIENCE).await, 501);
    // Again idle, this time it goes on running.
    server.roll_oplog().await;
    items::insert(&stage, 501..502).await;
    assert_eq!(items::equal(&stage, &mut process, PATIENCE).await, 502);

    let status = stage.status(&file).await;
    let after = state::copy(&stage.target).await;
    let incidents = state::incidents(&stage.target).await;
    process.stop().await;
    println!("before {before:?}, after {after:?}, {} incidents\n{status}", incidents.len());
    assert_eq!(before, after, "it was copied again");
    assert!(incidents.is_empty(), "{incidents:?}");
    stage.clear().await;
}
