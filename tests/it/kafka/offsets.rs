//! Offsets at the broker are told for other people's tools, and never asked: whatever they say, progress is the database's.

use std::collections::BTreeMap;

use bson::{Document, doc};

use super::replay::captured;
use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::records::Standing;
use crate::stage::state;
use crate::stage::trial::CATCH_UP;
use crate::stage::{Slackwater, number, until};

/// Changes every user while only capture runs, and waits until the changes wait in the topics; how many.
async fn changed(pipeline: &Pipeline) -> i64 {
    let ends = async || pipeline.topics.offsets().await.values().map(|(_, end)| end).sum::<i64>();
    let mut capture = pipeline.capture("capture");
    let users = pipeline.stage.source.collection::<Document>("users");
    let change = users.update_many(doc! {}, doc! {"$inc": {"v": 1_i64}}).await;
    let changed = change.expect("documents can be changed").modified_count as i64;
    captured(pipeline, &mut capture).await;
    let before = pipeline.partitions().await.values().map(|partition| partition.next_offset).sum::<i64>();
    assert!(ends().await >= before + changed, "the changes wait");
    capture.stop().await;
    changed
}

/// Waits until the broker was told the ends of all partitions; they and what was counted.
async fn told(pipeline: &Pipeline, appliers: &mut [Slackwater]) -> (BTreeMap<(String, i32), i64>, Standing) {
    let standing = pipeline.counted_exactly(CATCH_UP).await;
    let ends = pipeline.topics.offsets().await.into_iter().map(|(place, (_, end))| (place, end)).collect();
    until("the broker was told how far the target is", CATCH_UP, async || {
        appliers.iter_mut().for_each(Slackwater::still_runs);
        (pipeline.topics.committed(&pipeline.group).await == ends).then_some(())
    })
    .await;
    (ends, standing)
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_at_the_broker_are_told_and_not_believed() {
    let seed = number("SLACKWATER_TEST_SEED", 9);
    let pipeline = Pipeline::crm("kafka_offsets", seed, 3_000, "{ workers: 2 }", &Log::at(&shared())).await;
    let mut processes =
        vec![pipeline.apply("one", None), pipeline.apply("two", Some("two")), pipeline.capture("capture")];
    let rows = pipeline.wait_equal(&mut processes, CATCH_UP).await;
    until("everything is copied, and nothing is tried again", CATCH_UP, async || {
        let settled = state::dead_letters(&pipeline.stage.target).await == 0;
        (settled && pipeline.copied().await).then_some(())
    })
    .await;
    // From now on the ends stay where they are.
    processes.pop().expect("the capture").stop().await;
    let (mut ends, mut standing) = told(&pipeline, &mut processes).await;
    for applier in processes {
        applier.stop().await;
    }
    println!("{rows} rows, {standing:?}");

    // Back to the beginning, and forward to where nothing waits any more.
    for forward in [false, true] {
        let changed = changed(&pipeline).await;
        let lie: BTreeMap<(String, i32), i64> = pipeline
            .topics
            .offsets()
            .await
            .into_iter()
            .map(|(place, (begin, end))| (place, if forward { end } else { begin }))
            .collect();
        pipeline.topics.commit(&pipeline.group, &lie).await;
        let mut appliers = vec![pipeline.apply("one", None), pipeline.apply("two", Some("two"))];
        assert_eq!(pipeline.wait_equal(&mut appliers, CATCH_UP).await, rows);
        let (next_ends, next) = told(&pipeline, &mut appliers).await;
        for applier in appliers {
            applier.stop().await;
        }
        println!(
            "the broker was told {}: {changed} changes, {next:?}",
            if forward { "the ends" } else { "0" }
        );
        assert_eq!(next.counts.events, standing.counts.events + changed, "each change is counted once");
        assert!(ends.iter().all(|(place, end)| *end < next_ends[place]), "every partition has a new mark");
        (ends, standing) = (next_ends, next);
    }
    pipeline.clear().await;
}
