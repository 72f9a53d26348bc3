//! Two processes of one migration: the newer one owns it. The older one, asleep meanwhile, wakes up, writes nothing, and
//! ends with a code of its own.

use crate::stage::items;
use crate::stage::{PATIENCE, Stage};

/// As documented: another process has taken over.
const TAKEN_OVER: i32 = 7;

#[tokio::test(flavor = "multi_thread")]
async fn the_one_that_slept_writes_nothing() {
    let stage = Stage::new("takeover").await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..500).await;
    let mut old = stage.run(&file);
    items::equal(&stage, &mut old, PATIENCE).await;
    old.signal("STOP").await;
    // What it has not seen yet, and will want to write when it wakes up.
    items::insert(&stage, 500..600).await;
    let mut new = stage.run(&file);
    items::equal(&stage, &mut new, PATIENCE).await;
    let change = bson::doc! {"$inc": {"v": 1_i64}};
    items::collection(&stage).update_many(bson::doc! {}, change).await.expect("items can be changed");
    items::equal(&stage, &mut new, PATIENCE).await;
    let (status, took) = old.end("CONT").await;
    println!("the old one ended with {status} after {took:?}");
    assert_eq!(status.code(), Some(TAKEN_OVER));
    assert_eq!(items::equal(&stage, &mut new, PATIENCE).await, 600);
    new.stop().await;
    stage.clear().await;
}
