//! The source's history breaks: a collection dropped or renamed, the database dropped, the oplog run over. What was
//! lost is said, the collection is copied again, and the rows end equal.

use std::path::PathBuf;

use bson::doc;

use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::{PATIENCE, Slackwater, Stage, until};
use crate::stage::{items, state};

async fn streaming(stage: &Stage) -> (PathBuf, Slackwater) {
    let file = items::prepare(stage).await;
    items::insert(stage, 0..2_000).await;
    let mut process = stage.run(&file);
    items::equal(stage, &mut process, PATIENCE).await;
    until("it streams", PATIENCE, async || {
        process.still_runs();
        state::copied(&stage.target).await.then_some(())
    })
    .await;
    assert!(state::incidents(&stage.target).await.is_empty());
    (file, process)
}

/// Equal again, and said what happened.
async fn recovered(stage: &Stage, process: &mut Slackwater, items: usize, what: &str) {
    assert_eq!(items::equal(stage, process, PATIENCE).await, items);
    let incidents = until("it says what happened", PATIENCE, async || {
        process.still_runs();
        Some(state::incidents(&stage.target).await).filter(|incidents| !incidents.is_empty())
    })
    .await;
    println!("{what}: {incidents:?}");
    assert!(incidents.iter().any(|incident| incident.contains("items")), "{incidents:?}");
    // And the stream goes on.
    items::insert(stage, 100_000..100_001).await;
    assert_eq!(items::equal(stage, process, PATIENCE).await, items + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_collection_is_copied_again() {
    let stage = Stage::new("drop").await;
    let (_, mut process) = streaming(&stage).await;
    items::collection(&stage).drop().await.expect("a collection can be dropped");
    items::insert(&stage, 1_900..2_500).await;
    recovered(&stage, &mut process, 600, "drop").await;
    process.stop().await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_collection_is_copied_again() {
    let stage = Stage::new("rename").await;
    let (_, mut process) = streaming(&stage).await;
    let name = |collection| format!("{}.{collection}", stage.name);
    let rename = doc! {"renameCollection": name("items"), "to": name("old_items")};
    let admin = stage.source.client().database("admin");
    admin.run_command(rename).await.expect("a collection can be renamed");
    // Another takes its place by the same command: no insert of its documents is ever in the oplog as theirs.
    let aside = stage.source.collection::<bson::Document>("aside");
    let documents = (0..700_i64).map(|n| doc! {"_id": n * 10, "n": n * 10, "name": "aside", "v": 5_i64});
    aside.insert_many(documents).await.expect("items can be inserted");
    let rename = doc! {"renameCollection": name("aside"), "to": name("items")};
    admin.run_command(rename).await.expect("a collection can be renamed");
    recovered(&stage, &mut process, 700, "rename").await;
    process.stop().await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_database_is_copied_again() {
    let stage = Stage::new("drop_database").await;
    let (file, process) = streaming(&stage).await;
    // Once while it runs, once while it does not.
    process.stop().await;
    stage.source.drop().await.expect("a database can be dropped");
    items::insert(&stage, 10..20).await;
    let mut process = stage.run(&file);
    recovered(&stage, &mut process, 10, "dropDatabase while stopped").await;
    stage.source.drop().await.expect("a database can be dropped");
    items::insert(&stage, 15..40).await;
    assert_eq!(items::equal(&stage, &mut process, PATIENCE).await, 25);
    process.stop().await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_history_is_said_and_copied_again() {
    let server = Mongod::start("history", Flavour::TinyOplog).await;
    let stage = Stage::at("history", &server.uri()).await;
    let (file, process) = streaming(&stage).await;
    process.stop().await;
    let every = doc! {"n": {"$mod": [3, 0]}};
    items::collection(&stage).delete_many(every).await.expect("items can be deleted");
    let changed = items::collection(&stage).update_many(doc! {}, doc! {"$inc": {"v": 1_i64}}).await;
    changed.expect("items can be changed");
    items::insert(&stage, 5_000..5_100).await;
    server.roll_oplog().await;
    let mut process = stage.run(&file);
    recovered(&stage, &mut process, 2_000 - 667 + 100, "history lost").await;
    process.stop().await;
    stage.clear().await;
}
