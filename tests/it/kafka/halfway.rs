//! An applier that keeps its name is killed half way through letting partitions go to another one, and comes back. The broker gives it
//! what it was to keep, without a rebalance, because it knows the name. The other one has to get the rest all the same. Nor may an
//! applier be left with a former share when it comes back with other topics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::records::Topics;
use crate::stage::{PATIENCE, Slackwater, Stage, items, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_member_was_letting_go_finds_a_reader() {
    let stage = Stage::new("kafka_halfway").await;
    items::prepare(&stage).await;
    items::insert(&stage, 0..1_000).await;
    let pipeline = Pipeline::on(stage, items::FILE, &Log::at(&shared())).await;
    let capture = pipeline.capture("capture");
    let has_all = Arc::new(AtomicBool::new(false));
    let vanish = pipeline.topics.vanish_half_way(&pipeline.group, "one", Arc::clone(&has_all));
    let vanish = tokio::spawn(vanish);
    until("one has all partitions", PATIENCE, async || has_all.load(Ordering::Relaxed).then_some(())).await;
    let two = pipeline.apply("two", None);
    vanish.await.expect("a task");
    let processes = [pipeline.apply("one", Some("one")), two, capture];
    every_item_arrives(&pipeline, processes).await;
    pipeline.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_had_other_topics_gets_those_of_now() {
    let stage = Stage::new("kafka_other_topics").await;
    items::prepare(&stage).await;
    items::insert(&stage, 0..1_000).await;
    // A name of its own, since a run that failed leaves its topics.
    let prefix = format!("{}-{}", stage.name, std::process::id());
    let before = Topics::new(&shared(), &prefix);
    before.make(&format!("{prefix}.items"), 2).await;
    let pipeline = Pipeline::on(stage, items::FILE, &Log::at(&shared())).await;
    before.join(&pipeline.group, "one").await;
    let processes = [pipeline.apply("one", Some("one")), pipeline.capture("capture")];
    every_item_arrives(&pipeline, processes).await;
    before.delete().await;
    pipeline.clear().await;
}

async fn every_item_arrives<const N: usize>(pipeline: &Pipeline, mut processes: [Slackwater; N]) {
    until("every item is a row", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let rows = pipeline.stage.target.query_one("SELECT count(*) FROM items", &[]).await;
        (rows.expect("rows can be counted").get::<_, i64>(0) == 1_000).then_some(())
    })
    .await;
    for process in processes {
        process.stop().await;
    }
}
