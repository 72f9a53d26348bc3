//! What the topics hold twice is applied once: capture begins again at an old position, and no row is touched.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::options::ChangeStreamPreAndPostImages;
use slackwater_migrations::crm_demo::{self, Pace, Writers};
use tokio::sync::watch;

use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::trial::CATCH_UP;
use crate::stage::{PATIENCE, Slackwater, Stage, number, postgres, until};
use crate::stage::{items, state};

/// A position as it is kept.
pub(super) type Position = (i64, Vec<u8>);

/// How far capture has read the source.
pub(super) async fn position(pipeline: &Pipeline) -> Position {
    let statement = "SELECT position_time, position_token FROM slackwater.positions";
    let row = pipeline.stage.target.query_one(statement, &[]).await.expect("a position");
    (row.get(0), row.get(1))
}

/// The source's present.
pub(super) async fn present(pipeline: &Pipeline) -> i64 {
    let hello = pipeline.stage.source.run_command(doc! {"hello": 1}).await.expect("MongoDB answers");
    let time = hello.get_timestamp("operationTime").expect("a replica set");
    i64::from(time.time) << 32 | i64::from(time.increment)
}

/// Waits until capture has read the source up to now.
pub(super) async fn captured(pipeline: &Pipeline, capture: &mut Slackwater) {
    let time = present(pipeline).await;
    until("the source is captured up to now", CATCH_UP, async || {
        capture.still_runs();
        (position(pipeline).await.0 >= time).then_some(())
    })
    .await;
}

/// Every row of these tables, with the place and the transaction that wrote it.
async fn rows(pipeline: &Pipeline, tables: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for table in tables {
        let statement = format!(
            "SELECT count(*) || ' rows ' || md5(coalesce(string_agg(ctid || ' ' || xmin || ' ' || t::text, ',' ORDER BY ctid), ''))
             FROM \"{table}\" AS t"
        );
        let row = pipeline.stage.target.query_one(&statement, &[]).await.expect("rows can be read");
        found.push(format!("{table} {}", row.get::<_, String>(0)));
    }
    found
}

/// Sets capture back while it is stopped; what is sent again is what was sent since then.
async fn set_back(pipeline: &Pipeline, (time, token): &Position) {
    let statement = "UPDATE slackwater.positions SET position_time = $1, position_token = $2";
    let changed = pipeline.stage.target.execute(statement, &[time, token]).await;
    assert_eq!(changed.expect("a position can be set"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_sent_again_changes_no_row() {
    let count = number("SLACKWATER_TEST_REPLAY", 5_000) as i64;
    let stage = Stage::new("kafka_replay").await;
    items::prepare(&stage).await;
    // With post-images every change is an event of its own.
    let images = ChangeStreamPreAndPostImages::builder().enabled(true).build();
    let create = stage.source.create_collection("items").change_stream_pre_and_post_images(images);
    create.await.expect("a collection can be made");
    items::insert(&stage, 0..1_000).await;
    let pipeline = Pipeline::on(stage, items::FILE, &Log::at(&shared())).await;
    let mut capture = pipeline.capture("capture");
    let mut appliers = [pipeline.apply("one", None), pipeline.apply("two", None)];
    items::equal(&pipeline.stage, &mut capture, PATIENCE).await;
    until("the copy is done", PATIENCE, async || state::copied(&pipeline.stage.target).await.then_some(()))
        .await;
    captured(&pipeline, &mut capture).await;
    let start = position(&pipeline).await;

    // Two fifths each come and change, and half of them go.
    let documents = count * 2 / 5;
    let first = 10_000_000;
    items::insert(&pipeline.stage, first..first + documents).await;
    let ours = doc! {"n": {"$gte": first}};
    let change = doc! {"$inc": {"v": 1_i64}};
    let collection = items::collection(&pipeline.stage);
    collection.update_many(ours, change).await.expect("items can be changed");
    let half = doc! {"n": {"$gte": first + documents / 2}};
    let gone = collection.delete_many(half).await.expect("items can be deleted").deleted_count;
    let sent = 2 * documents + gone as i64;
    captured(&pipeline, &mut capture).await;
    items::equal(&pipeline.stage, &mut capture, CATCH_UP).await;
    capture.stop().await;
    let before = pipeline.counted_exactly(CATCH_UP).await;
    assert_eq!(before.counts.duplicates, 0);
    let rows_before = rows(&pipeline, &["items"]).await;

    set_back(&pipeline, &start).await;
    let mut capture = pipeline.capture("capture");
    captured(&pipeline, &mut capture).await;
    capture.stop().await;
    let after = pipeline.counted_exactly(CATCH_UP).await;
    appliers.iter_mut().for_each(Slackwater::still_runs);
    println!("{sent} events sent again: {after:?}\n{rows_before:?}");
    assert_eq!(after.counts.duplicates, sent, "each is counted once");
    assert_eq!(after.counts.events, before.counts.events);
    assert_eq!(rows(&pipeline, &["items"]).await, rows_before, "rows were written again");
    // And it goes on.
    let mut capture = pipeline.capture("capture");
    items::insert(&pipeline.stage, first - 1..first).await;
    items::equal(&pipeline.stage, &mut capture, PATIENCE).await;
    capture.stop().await;
    for applier in appliers {
        applier.stop().await;
    }
    pipeline.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_looked_up_again_changes_no_row() {
    let seed = number("SLACKWATER_TEST_SEED", 5);
    let log = Log::at(&shared());
    let pipeline = Pipeline::crm("kafka_looked", seed, 2_000, "{ workers: 2 }", &log).await;
    let mut capture = pipeline.capture("capture");
    let appliers = [pipeline.apply("one", None), pipeline.apply("two", None)];
    until("everything is copied", PATIENCE, async || {
        capture.still_runs();
        pipeline.copied().await.then_some(())
    })
    .await;
    let start = position(&pipeline).await;
    let (stop, stopped) = watch::channel(false);
    let pace = Pace { writers: 4, rate: Some(400.0) };
    let writers = Writers::learn(&pipeline.stage.source, seed, pace).await.expect("documents can be read");
    let writing = tokio::spawn(writers.write(stopped));
    let often = doc! {"v": {"$gte": 6_i64}};
    let bookings = pipeline.stage.source.collection::<Document>("bookings");
    until("a booking was changed often", CATCH_UP, async || {
        bookings.find_one(often.clone()).await.expect("documents can be read")
    })
    .await;
    stop.send(true).expect("the writers listen");
    let written = writing.await.expect("a task").expect("writers write");
    captured(&pipeline, &mut capture).await;
    let mut processes: Vec<_> = appliers.into_iter().chain([capture]).collect();
    pipeline.wait_equal(&mut processes, CATCH_UP).await;
    processes.pop().expect("the capture").stop().await;
    let before = pipeline.counted_exactly(CATCH_UP).await;
    let tables: Vec<&str> = crm_demo::WATCHED.iter().map(|watched| watched.table).collect();
    let rows_before = rows(&pipeline, &tables).await;

    set_back(&pipeline, &start).await;
    let mut capture = pipeline.capture("capture");
    captured(&pipeline, &mut capture).await;
    capture.stop().await;
    let after = pipeline.counted_exactly(CATCH_UP).await;
    println!("{written}\nbefore {before:?}\nafter {after:?}");
    // Look-ups keep one event of several in a batch, so there may be fewer, never more.
    let again = after.counts.duplicates - before.counts.duplicates;
    assert!(again > 0 && again <= written.changes as i64, "{again} duplicates of {}", written.changes);
    assert_eq!(after.counts.events, before.counts.events);
    assert_eq!(rows(&pipeline, &tables).await, rows_before, "rows were written again");
    let report = pipeline.stage.crm_compare().await;
    assert!(report.is_equal(), "{report}");
    for applier in processes {
        applier.stop().await;
    }
    pipeline.clear().await;
}

/// A change of a document that was still to be copied was not sent, a later one of another was; the position behind both
/// was not saved. After the kill the first must not be sent in place of the copy: it would be taken for a duplicate.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_to_the_copy_is_no_duplicate() {
    let stage = Stage::new("kafka_left").await;
    items::prepare(&stage).await;
    items::insert(&stage, 0..20_000).await;
    let one_by_one = items::FILE.replace("workers: 4", "workers: 1");
    let log = Log { partitions: 1, ..Log::at(&shared()) };
    let mut pipeline = Pipeline::on(stage, &one_by_one, &log).await;
    let applier = pipeline.apply("one", None);
    let mut capture = pipeline.capture("capture");
    until("some of it is copied", PATIENCE, async || {
        capture.still_runs();
        (state::copy(&pipeline.stage.target).await.done > 0).then_some(())
    })
    .await;
    // From now on no position is saved, so the copy does not move, and the stream goes on.
    let mut held = postgres(&pipeline.stage.postgres).await;
    let transaction = held.transaction().await.expect("a transaction");
    let lock = "LOCK TABLE slackwater.positions IN SHARE MODE";
    transaction.batch_execute(lock).await.expect("a table can be locked");
    let copy = state::copy(&pipeline.stage.target).await;
    println!("locked: {copy:?}");
    assert!(copy.chunks - copy.done > items::WORKERS, "the copy was faster than the lock");
    let collection = items::collection(&pipeline.stage);
    let change = || doc! {"$inc": {"v": 1_i64}};
    collection.update_many(doc! {}, change()).await.expect("items can be changed");
    // The first piece is done: what comes last of all travels, and moves the mark.
    collection.update_one(doc! {"n": 0_i64}, change()).await.expect("an item can be changed");
    until("the last change is applied", PATIENCE, async || {
        capture.still_runs();
        let row =
            pipeline.stage.target.query_opt("SELECT 1 FROM items WHERE n = 0 AND version = 3", &[]).await;
        row.expect("rows can be read")
    })
    .await;
    capture.kill().await;
    transaction.rollback().await.expect("a transaction ends");
    // As many pieces as can be are read at once when it is back.
    let text = std::fs::read_to_string(&pipeline.file).expect("the file");
    pipeline.file = pipeline.stage.file("wide.yaml", &text.replace("workers: 1", "workers: 16"));
    let mut capture = pipeline.capture("capture");
    assert_eq!(items::equal(&pipeline.stage, &mut capture, Duration::from_secs(60)).await, 20_000);
    capture.stop().await;
    let standing = pipeline.counted_exactly(PATIENCE).await;
    println!("{standing:?}");
    applier.stop().await;
    pipeline.clear().await;
}
