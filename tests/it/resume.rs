//! Killed in the middle of the copy it goes on where it was: at most one chunk a worker is read a second time.

use std::time::{Duration, Instant};

use crate::stage::{PATIENCE, Stage, number, until};
use crate::stage::{items, state};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_copy_goes_on() {
    let documents = number("SLACKWATER_TEST_DOCUMENTS", 100_000) as i64;
    let workers = items::WORKERS;
    let deadline = PATIENCE + Duration::from_millis(documents as u64);
    let stage = Stage::new("resume").await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..documents).await;
    let start = Instant::now();
    let mut process = stage.run(&file);
    let middle = until("the copy is in its middle", deadline, async || {
        process.still_runs();
        let copy = state::copy(&stage.target).await;
        (copy.done > 0 && copy.done * 4 >= copy.chunks).then_some(copy)
    })
    .await;
    process.kill().await;
    let killed = state::copy(&stage.target).await;
    println!("killed after {:?}: seen {middle:?}, left {killed:?}", start.elapsed());
    assert!(killed.done < killed.chunks, "the kill came after the copy: take more documents");

    // Changes on both sides of where the copy was.
    items::insert(&stage, documents..documents + 10).await;
    let change = bson::doc! {"$inc": {"v": 1_i64}};
    let every = bson::doc! {"n": {"$mod": [1_000, 7]}};
    items::collection(&stage).update_many(every, change).await.expect("items can be changed");
    let mut process = stage.run(&file);
    let items = items::equal(&stage, &mut process, deadline).await;
    let copy = state::copy(&stage.target).await;
    process.stop().await;
    println!("{items} items equal after {:?}, {copy:?}, {workers} workers", start.elapsed());
    assert_eq!(items as i64, documents + 10);
    assert!(copy.repeated <= workers, "{} chunks were read again", copy.repeated);
    assert!(copy.reads - copy.chunks <= workers, "{} reads of {} chunks", copy.reads, copy.chunks);
    stage.clear().await;
}
