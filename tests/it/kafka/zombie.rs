//! A process that slept while another one took its work over: it writes nothing of what is not its own any more. An applier
//! lets those partitions go and works on as a member of its group; a capture ends, and what it still sent is dropped.

use std::collections::BTreeMap;
use std::path::Path;

use bson::{Document, Timestamp, doc};
use slackwater_migrations::crm_demo::{Kind, Pace};

use super::replay::present;
use crate::stage::broker::{Broker, shared};
use crate::stage::pipeline::{Log, Partition, Pipeline};
use crate::stage::state;
use crate::stage::trial::{CATCH_UP, Load};
use crate::stage::{PATIENCE, Slackwater, Stage, number, until};

/// As documented: another process has taken over.
const TAKEN_OVER: i32 = 7;
/// The one that does not sleep, as the member it is.
const AWAKE: &str = "awake";

/// Partitions that the sleeper has, or has had.
fn of_sleeper(partitions: BTreeMap<(String, i32), Partition>) -> BTreeMap<(String, i32), Partition> {
    let other =
        |(_, partition): &(_, Partition)| partition.member.as_deref().is_some_and(|member| member != AWAKE);
    partitions.into_iter().filter(other).collect()
}

/// Puts an applier to sleep in a transaction that waits at its first statement, and lets that go on when all its partitions
/// are somebody else's: then it must be refused. Returns what it had.
async fn sleep_in_transaction(
    pipeline: &Pipeline,
    sleeper: &Slackwater,
    awake: &mut Slackwater,
) -> BTreeMap<(String, i32), Partition> {
    let gate = crate::stage::postgres(&pipeline.stage.postgres).await;
    let lanes = format!(
        "BEGIN; SELECT FROM slackwater.lanes WHERE lane LIKE 'apply/%' AND lane NOT LIKE 'apply/{AWAKE}/%'
                         FOR UPDATE"
    );
    gate.batch_execute(&lanes).await.expect("the lanes can be locked");
    until("the sleeper waits for its lane", PATIENCE, async || {
        let statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                         AND application_name = 'slackwater' AND wait_event_type = 'Lock'";
        let waiting =
            pipeline.stage.target.query_one(statement, &[]).await.expect("the activity can be read");
        (waiting.get::<_, i64>(0) > 0).then_some(())
    })
    .await;
    let owned = of_sleeper(pipeline.partitions().await);
    assert!(!owned.is_empty(), "the sleeper has partitions");
    sleeper.signal("STOP").await;
    taken_over(pipeline, &owned, awake).await;
    gate.batch_execute("COMMIT").await.expect("the lock can go");
    owned
}

/// Waits until the other one has all partitions and has brought them further.
async fn taken_over(pipeline: &Pipeline, owned: &BTreeMap<(String, i32), Partition>, awake: &mut Slackwater) {
    let epochs = until("the sleeper's partitions are taken over", CATCH_UP, async || {
        awake.still_runs();
        let partitions = pipeline.partitions().await;
        let taken = |(place, before): (&(String, i32), &Partition)| partitions[place].epoch > before.epoch;
        (owned.iter().all(taken) && of_sleeper(partitions.clone()).is_empty()).then_some(partitions)
    })
    .await;
    until("they are brought further", CATCH_UP, async || {
        awake.still_runs();
        let partitions = pipeline.partitions().await;
        let further = |place: &(String, i32)| partitions[place].counts.events > epochs[place].counts.events;
        owned.keys().any(further).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applier_that_slept_writes_nothing_of_others() {
    let seed = number("SLACKWATER_TEST_SEED", 4);
    let rate = number("SLACKWATER_TEST_RATE", 300);
    println!("seed {seed}, {rate} operations a second");
    let snapshot = "{ workers: 3, chunk_documents: 500 }";
    let pipeline = Pipeline::crm("zombie_apply", seed, 4_000, snapshot, &Log::at(&shared())).await;
    let load = Load::start(&pipeline.stage, seed, Pace { writers: 4, rate: Some(rate as f64) }).await;
    let capture = pipeline.capture("capture");
    let mut awake = pipeline.apply(AWAKE, Some(AWAKE));
    let mut named = None;
    for member in [None, Some("sleepy")] {
        let mut sleeper = pipeline.apply(member.unwrap_or("nameless"), member);
        until("everything is copied, and both have partitions", CATCH_UP, async || {
            sleeper.still_runs();
            let all = pipeline.partitions().await;
            let owned = of_sleeper(all.clone()).len();
            (pipeline.copied().await && owned > 0 && owned < all.len()).then_some(())
        })
        .await;
        let owned = sleep_in_transaction(&pipeline, &sleeper, &mut awake).await;
        sleeper.signal("CONT").await;
        until("the sleeper is a member again, with claims of its own", CATCH_UP, async || {
            sleeper.still_runs();
            let again = of_sleeper(pipeline.partitions().await);
            let newer = |(place, now): (&(String, i32), &Partition)| {
                owned.get(place).is_none_or(|was| now.epoch > was.epoch)
            };
            (!again.is_empty() && again.iter().all(newer)).then_some(())
        })
        .await;
        println!("{} slept with {} partitions and is back", sleeper.name(), owned.len());
        let refused = "another process reads this partition now";
        assert!(sleeper.said(refused), "its transaction was not refused: {}", sleeper.tail());
        if member.is_none() {
            sleeper.stop().await;
            // What still goes by its name must not be taken for the next one's.
            until("the other one has all partitions", CATCH_UP, async || {
                awake.still_runs();
                of_sleeper(pipeline.partitions().await).is_empty().then_some(())
            })
            .await;
        } else {
            named = Some(sleeper);
        }
    }
    // Somebody else takes the sleeper's own name: that is not to be shared.
    let old = named.expect("the one with a name");
    old.signal("STOP").await;
    let before = of_sleeper(pipeline.partitions().await);
    let mut new = pipeline.apply("sleepy-again", Some("sleepy"));
    until("its successor has claimed them", CATCH_UP, async || {
        new.still_runs();
        let now = pipeline.partitions().await;
        before.iter().all(|(place, was)| now[place].epoch > was.epoch).then_some(())
    })
    .await;
    let log = old.log().to_owned();
    let (status, took) = old.end("CONT").await;
    println!("the one whose name was taken ended with {status} after {took:?}");
    assert_eq!(status.code(), Some(TAKEN_OVER), "{}", read(&log));
    let mut processes = [capture, awake, new];
    load.end(&pipeline.stage, &pipeline.file, &mut processes).await;
    let [capture, awake, new] = processes;
    capture.stop().await;
    println!("{:?}", pipeline.counted_exactly(CATCH_UP).await);
    awake.stop().await;
    new.stop().await;
    pipeline.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applier_whose_name_only_the_broker_calls_taken_goes_on() {
    let pipeline =
        Pipeline::crm("shut_out", 22, 1_000, "{ workers: 2, chunk_documents: 500 }", &Log::at(&shared()))
            .await;
    let capture = pipeline.capture("capture");
    let mut processes = [pipeline.apply("alone", Some("alone")), capture];
    let rows = pipeline.wait_equal(&mut processes, PATIENCE).await;
    // To the broker this is what it looks like when a member joins again whose first answer was lost.
    pipeline.topics.join(&pipeline.group, "alone").await;
    let [alone, _] = &mut processes;
    until("the applier is shut out and joins again", PATIENCE, async || {
        alone.still_runs();
        alone.said("the consumer group has removed this member").then_some(())
    })
    .await;
    let change = doc! {"$inc": {"v": 1_i64}};
    let users = pipeline.stage.source.collection::<Document>("users");
    users.update_many(doc! {}, change).await.expect("documents can be changed");
    assert_eq!(pipeline.wait_equal(&mut processes, PATIENCE).await, rows);
    let [alone, capture] = processes;
    capture.stop().await;
    println!("{:?}", pipeline.counted_exactly(CATCH_UP).await);
    alone.stop().await;
    pipeline.clear().await;
}

/// Operations of this test that the source has noted since this time. From a time on, so that the oplog is not read whole:
/// it is long, and its beginning may be cut off under way.
async fn operations(stage: &Stage, since: Timestamp) -> u64 {
    let oplog = stage.source.client().database("local").collection::<Document>("oplog.rs");
    let ours = doc! {"ts": {"$gte": since}, "ns": {"$regex": format!("^{}\\.", stage.name)}};
    oplog.count_documents(ours).await.expect("the oplog can be read")
}

/// Freezes the broker until the capture has in hand what it cannot send, and then the capture.
async fn put_capture_to_sleep(pipeline: &Pipeline, broker: &Broker, capture: &Slackwater) {
    broker.signal("STOP").await;
    let frozen = present(pipeline).await;
    let frozen = Timestamp { time: (frozen >> 32) as u32, increment: frozen as u32 };
    until("the capture has more than it can send", CATCH_UP, async || {
        (operations(&pipeline.stage, frozen).await > 1_000).then_some(())
    })
    .await;
    capture.signal("STOP").await;
    broker.signal("CONT").await;
}

/// Waits until every partition has heard of a capture newer than this one.
async fn heard_of_newer(pipeline: &Pipeline, than: i64, capture: &mut Slackwater) -> i64 {
    until("every partition has heard of the new capture", CATCH_UP, async || {
        capture.still_runs();
        let partitions = pipeline.partitions().await;
        let oldest = partitions.values().map(|partition| partition.capture_epoch).min()?;
        (oldest > than).then_some(oldest)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_slept_is_not_listened_to() {
    let seed = number("SLACKWATER_TEST_SEED", 5);
    let rate = number("SLACKWATER_TEST_RATE", 300);
    println!("seed {seed}, {rate} operations a second");
    let mut broker = Broker::start("zombie").await;
    let snapshot = "{ workers: 3, chunk_documents: 200 }";
    let pipeline = Pipeline::crm("zombie_capture", seed, 8_000, snapshot, &Log::at(&broker.address())).await;
    let load = Load::start(&pipeline.stage, seed, Pace { writers: 4, rate: Some(rate as f64) }).await;
    let appliers = [pipeline.apply("one", None), pipeline.apply("two", Some("two"))];
    let mut capture = pipeline.capture("first");
    let mut epoch = heard_of_newer(&pipeline, 0, &mut capture).await;
    for (place, next) in [("the copy", "second"), ("the stream", "third")] {
        if place == "the copy" {
            until("the copy is on its way", CATCH_UP, async || {
                (state::copy(&pipeline.stage.target).await.reads > 0).then_some(())
            })
            .await;
        } else {
            until("everything is copied", CATCH_UP, async || pipeline.copied().await.then_some(())).await;
        }
        put_capture_to_sleep(&pipeline, &broker, &capture).await;
        let copied = pipeline.copied().await;
        assert_eq!(copied, place == "the stream", "it was caught in {place}");
        broker.ready().await;
        let mut newer = pipeline.capture(next);
        epoch = heard_of_newer(&pipeline, epoch, &mut newer).await;
        let old = std::mem::replace(&mut capture, newer);
        let (name, log) = (old.name().to_owned(), old.log().to_owned());
        let (status, took) = old.end("CONT").await;
        println!("{name}, asleep in {place}, ended with {status} after {took:?}");
        assert_eq!(status.code(), Some(TAKEN_OVER), "{}", read(&log));
        assert!(read(&log).contains("taken over"), "it says why: {}", read(&log));
    }
    let [one, two] = appliers;
    let mut processes = [capture, one, two];
    load.end(&pipeline.stage, &pipeline.file, &mut processes).await;
    let [capture, one, two] = processes;
    capture.stop().await;
    let standing = pipeline.counted_exactly(CATCH_UP).await;
    println!("{standing:?}");
    assert!(standing.counts.superseded > 0, "what the old ones still sent came in and was dropped");
    assert!(standing.events > Kind::ALL.len() as i64);
    one.stop().await;
    two.stop().await;
    pipeline.clear().await;
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).expect("a log can be read")
}
