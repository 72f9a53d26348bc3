//! The CRM through topics in Debezium's format, with the schema in each record and without: our own appliers make the rows
//! equal all the same.

use slackwater_migrations::crm_demo::Pace;

use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::trial::{CATCH_UP, Load};
use crate::stage::{Slackwater, number, until};

async fn through(name: &str, values: &'static str) {
    let seed = number("SLACKWATER_TEST_SEED", 9);
    // Compacted, so that deletes are followed by tombstones.
    let log = Log { more: values, topics: "compact: true", ..Log::at(&shared()) };
    let snapshot = "{ workers: 3, chunk_documents: 300 }";
    let pipeline = Pipeline::crm(name, seed, 3_000, snapshot, &log).await;
    let load = Load::start(&pipeline.stage, seed, Pace { writers: 4, rate: Some(200.0) }).await;
    let mut processes =
        vec![pipeline.apply("one", None), pipeline.apply("two", None), pipeline.capture("capture")];
    until("everything is copied", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        pipeline.copied().await.then_some(())
    })
    .await;
    let records = async || pipeline.topics.offsets().await.values().map(|(_, end)| end).sum::<i64>();
    let copied = records().await;
    until("much of the stream has come", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        (records().await > copied + 1_000).then_some(())
    })
    .await;
    load.end(&pipeline.stage, &pipeline.file, &mut processes).await;
    processes.pop().expect("the capture").stop().await;
    let standing = pipeline.counted_exactly(CATCH_UP).await;
    println!("{values}: {standing:?}");
    assert!(standing.tombstones > 0, "deletes are followed by tombstones");
    let json = |value: &bytes::Bytes| serde_json::from_slice::<serde_json::Value>(value).is_ok();
    let records = pipeline.topics.read().await;
    assert!(records.iter().filter_map(|record| record.value.as_ref()).all(json), "values are JSON");
    for applier in processes {
        applier.stop().await;
    }
    pipeline.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_schemas() {
    through("dbz_schemas", "values: debezium").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_schemas() {
    through("dbz_plain", "values: { debezium: { schemas: false } }").await;
}
