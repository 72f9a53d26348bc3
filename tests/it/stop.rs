//! SIGTERM and SIGINT end it with success, in the copy and in the stream; started again it goes on. How long it took is printed;
//! on a machine at rest it is under five seconds.

use crate::stage::{PATIENCE, Stage, until};
use crate::stage::{items, state};

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_it_in_good_order() {
    let stage = Stage::new("stop").await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..60_000).await;
    let mut next = 60_000;
    let mut reads = 0;
    for (round, signal) in ["TERM", "INT", "TERM", "INT"].into_iter().enumerate() {
        let mut process = stage.run(&file);
        if round < 2 {
            until("the copy has begun", PATIENCE, async || {
                process.still_runs();
                (state::copy(&stage.target).await.reads > reads).then_some(())
            })
            .await;
        } else {
            items::insert(&stage, next..next + 100).await;
            next += 100;
            items::equal(&stage, &mut process, PATIENCE).await;
        }
        let (status, took) = process.end(signal).await;
        let copy = state::copy(&stage.target).await;
        println!("SIG{signal} ended it after {took:?} with {status}, {copy:?}");
        assert!(status.success(), "SIG{signal}: {status}");
        assert!(round != 0 || copy.done < copy.chunks, "the signal came after the copy: {copy:?}");
        reads = if copy.done == copy.chunks { -1 } else { copy.reads };
    }
    // What came while it was stopped is not lost.
    items::insert(&stage, next..next + 100).await;
    let mut process = stage.run(&file);
    let items = items::equal(&stage, &mut process, PATIENCE).await;
    assert_eq!(items as i64, next + 100);
    process.stop().await;
    stage.clear().await;
}
