//! The log loses something: topics deleted, re-created, cut, or given more partitions, under writers. It is said, what was
//! lost is copied again, no row goes back, and both sides end equal.

use std::collections::BTreeSet;
use std::time::Instant;

use bson::doc;
use bytes::Bytes;
use slackwater_migrations::crm_demo::Pace;

use super::replay::{captured, position, present};
use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::trial::{CATCH_UP, Load};
use crate::stage::{Slackwater, Stage, number, postgres, until};
use crate::stage::{items, state};

const DOCUMENTS: u64 = 4_000;
const SNAPSHOT: &str = "{ workers: 2, chunk_documents: 500 }";
/// A program's exit code where a server is not what the migration needs.
const UNSUITABLE: i32 = 4;

fn pace() -> Pace {
    Pace { writers: 4, rate: Some(number("SLACKWATER_TEST_RATE", 200) as f64) }
}

/// Two appliers and a capture that have copied everything, and writers whose changes they apply.
async fn streaming(name: &str, seed: u64, more: &'static str) -> (Pipeline, Load, Vec<Slackwater>) {
    println!("seed {seed}");
    let log = Log { more, ..Log::at(&shared()) };
    let pipeline = Pipeline::crm(name, seed, DOCUMENTS, SNAPSHOT, &log).await;
    let mut processes =
        vec![pipeline.apply("one", None), pipeline.apply("two", Some("two")), pipeline.capture("capture")];
    until("everything is copied", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        pipeline.copied().await.then_some(())
    })
    .await;
    let load = Load::start(&pipeline.stage, seed, pace()).await;
    further(&pipeline, &mut processes).await;
    (pipeline, load, processes)
}

/// Waits until some more was applied than now.
async fn further(pipeline: &Pipeline, processes: &mut [Slackwater]) {
    let events = async || pipeline.partitions().await.values().map(|row| row.counts.events).sum::<i64>();
    let least = events().await + 500;
    until("what is written is applied", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        (events().await >= least).then_some(())
    })
    .await;
}

/// Waits until `slackwater status --json` tells of something that the log has lost in each of these topics and that they
/// are copied again; the incidents.
async fn told(pipeline: &Pipeline, processes: &mut [Slackwater], topics: &[String]) -> Vec<String> {
    until("status tells what was lost", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let status = pipeline.stage.status(&pipeline.file).await;
        let incidents = status["incidents"].as_array().expect("a list").iter();
        let lost: Vec<String> = incidents
            .filter(|incident| incident["kind"] == "log_lost")
            .map(|incident| incident["text"].as_str().expect("a text").to_owned())
            .collect();
        let told = |topic: &String| {
            let collection = topic.strip_prefix(&format!("{}.", pipeline.group)).expect("a topic of ours");
            lost.iter().any(|text| {
                text.split_once("; copied again: ")
                    .is_some_and(|(what, names)| what.contains(topic) && names.contains(collection))
            })
        };
        topics.iter().all(told).then_some(lost)
    })
    .await
}

/// Stops the writers; equal, no row went back, nothing acknowledged is lost. Then everything ends.
async fn finish(pipeline: Pipeline, load: Load, mut processes: Vec<Slackwater>) {
    let caught_up = load.end(&pipeline.stage, &pipeline.file, &mut processes).await;
    processes.pop().expect("the capture").stop().await;
    pipeline.applied_to_the_end(&[], CATCH_UP).await;
    let partitions = pipeline.partitions().await;
    assert!(partitions.values().all(|partition| partition.lost.is_none()), "{partitions:?}");
    let status = pipeline.stage.status(&pipeline.file).await;
    println!("caught up in {caught_up:?}, incidents {:#}", status["incidents"]);
    for applier in processes {
        applier.stop().await;
    }
    pipeline.clear().await;
}

/// A topic that is gone cannot be waited for: its name and the remedy are said at the end, and at every start.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_and_made_anew_under_way() {
    let seed = number("SLACKWATER_TEST_SEED", 31);
    let (pipeline, load, mut processes) = streaming("kafka_deleted", seed, "").await;
    let topics = [format!("{}.legacy.bookings", pipeline.group)];
    pipeline.topics.delete_some(&topics).await;
    let deleted = Instant::now();
    for process in &mut processes {
        let status = until("who misses the topic ends", CATCH_UP, async || process.ended()).await;
        println!("{} ended with {status} after {:?}", process.name(), deleted.elapsed());
        assert_eq!(status.code(), Some(UNSUITABLE), "{}", process.tail());
        assert!(process.said(&topics[0]), "the topic is named: {}", process.tail());
        assert!(process.said("slackwater topics apply"), "the remedy is named: {}", process.tail());
    }
    let file = pipeline.file.to_str().expect("a path in UTF-8");
    for command in ["capture", "apply"] {
        let output = pipeline.stage.output(&[command, file]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(UNSUITABLE), "{command}: {said}");
        assert!(said.contains(&topics[0]) && said.contains("slackwater topics apply"), "{command}: {said}");
    }
    let names = pipeline.topics.names().await;
    assert!(!names.contains_key(&topics[0]), "nobody makes a topic by asking for it");
    pipeline.make_topics().await;
    let mut processes =
        vec![pipeline.apply("one", None), pipeline.apply("two", Some("two")), pipeline.capture("capture")];
    println!("{:?}", told(&pipeline, &mut processes, &topics).await);
    further(&pipeline, &mut processes).await;
    finish(pipeline, load, processes).await;
}

/// Too fast for anybody to miss the topic: what was acknowledged in the old one is gone all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_at_once() {
    let seed = number("SLACKWATER_TEST_SEED", 32);
    let (pipeline, load, mut processes) = streaming("kafka_anew", seed, "").await;
    let topics = [format!("{}.legacy.users", pipeline.group)];
    pipeline.topics.delete_some(&topics).await;
    pipeline.make_topics().await;
    // Whoever saw that it was gone has ended, and is started again as by a supervisor.
    let (mut ended, mut lost) = (Vec::new(), Vec::new());
    until("what was lost is said and copied again", CATCH_UP, async || {
        for process in &mut processes {
            let Some(status) = process.ended() else { continue };
            assert_eq!(status.code(), Some(UNSUITABLE), "{}", process.tail());
            let name = process.name().to_owned();
            *process = match &*name {
                "capture" => pipeline.capture("capture"),
                "one" => pipeline.apply("one", None),
                _ => pipeline.apply("two", Some("two")),
            };
            ended.push(name);
        }
        let status = pipeline.stage.status(&pipeline.file).await;
        let incidents = status["incidents"].as_array().expect("a list").iter();
        lost = incidents.filter(|incident| incident["kind"] == "log_lost").cloned().collect();
        (!lost.is_empty() && status["copied"] == true).then_some(())
    })
    .await;
    println!("ended: {ended:?}; {lost:?}");
    told(&pipeline, &mut processes, &topics).await;
    further(&pipeline, &mut processes).await;
    finish(pipeline, load, processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_made_anew_while_everything_is_stopped() {
    let seed = number("SLACKWATER_TEST_SEED", 33);
    let (pipeline, load, processes) = streaming("kafka_stopped", seed, "").await;
    for process in processes {
        process.stop().await;
    }
    let topics = pipeline.topics.names().await;
    pipeline.topics.delete().await;
    for (name, partitions) in &topics {
        pipeline.topics.make(name, *partitions).await;
    }
    // Appliers see it first. They read nothing on until a capture has seen to it.
    let mut processes = vec![pipeline.apply("one", None), pipeline.apply("two", Some("two"))];
    until("the appliers miss what was there", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let status = pipeline.stage.status(&pipeline.file).await;
        let partitions = status["partitions"].as_array().expect("a list");
        partitions.iter().all(|partition| partition["lost"].is_string()).then_some(())
    })
    .await;
    processes.push(pipeline.capture("capture"));
    let names: Vec<String> = topics.into_keys().collect();
    println!("{:?}", told(&pipeline, &mut processes, &names).await);
    further(&pipeline, &mut processes).await;
    finish(pipeline, load, processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_stay_empty() {
    let seed = number("SLACKWATER_TEST_SEED", 34);
    // Members learn of partitions when they ask what topics there are; by itself that is every five minutes.
    let often = "options: { topic.metadata.refresh.interval.ms: 1000 }";
    let (pipeline, load, mut processes) = streaming("kafka_wider", seed, often).await;
    let topic = format!("{}.legacy.users", pipeline.group);
    let unused: Vec<(String, i32)> = (4..6).map(|partition| (topic.clone(), partition)).collect();
    pipeline.topics.widen(&topic, 6).await;
    until("an applier says that it does not use them", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        processes[..2].iter().any(|applier| applier.said("this partition was added later")).then_some(())
    })
    .await;
    let file = pipeline.file.to_str().expect("a path in UTF-8");
    let output = pipeline.stage.output(&["topics", "check", file]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(UNSUITABLE), "{said}");
    assert!(said.contains(&format!("{topic}: it has partitions: 6, described are 4")), "{said}");
    further(&pipeline, &mut processes).await;
    for process in processes {
        process.stop().await;
    }
    let mut processes =
        vec![pipeline.apply("one", None), pipeline.apply("two", Some("two")), pipeline.capture("capture")];
    until("capture says that it does not use them", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        processes[2].said("partitions were added to this topic; they stay empty").then_some(())
    })
    .await;
    further(&pipeline, &mut processes).await;
    load.end(&pipeline.stage, &pipeline.file, &mut processes).await;
    processes.pop().expect("the capture").stop().await;
    println!("{:?}", pipeline.counted_beside(&unused, CATCH_UP).await);
    let records = pipeline.topics.read().await;
    let changes = records.iter().filter(|record| record.mark.is_none());
    let places: BTreeSet<(&str, &Bytes, i32)> =
        changes.map(|record| (&*record.topic, &record.key, record.partition)).collect();
    let keys: BTreeSet<(&str, &Bytes)> = places.iter().map(|(topic, key, _)| (*topic, *key)).collect();
    println!("{} records, {} keys", records.len(), keys.len());
    assert_eq!(places.len(), keys.len(), "a key has one partition, before and after");
    assert!(state::incidents(&pipeline.stage.target).await.is_empty(), "nothing was lost");
    for applier in processes {
        applier.stop().await;
    }
    pipeline.clear().await;
}

/// Waits until so many records wait, and some in every partition; how many.
async fn unread(pipeline: &Pipeline, capture: &mut Slackwater, least: i64) -> i64 {
    until("records wait in every partition", CATCH_UP, async || {
        capture.still_runs();
        let (applied, ends) = (pipeline.partitions().await, pipeline.topics.offsets().await);
        let each = ends.iter().map(|(place, (_, end))| (end - applied[place].next_offset).max(0));
        let each: Vec<i64> = each.collect();
        let all: i64 = each.iter().sum();
        (each.iter().all(|waiting| *waiting > 0) && all > least).then_some(all)
    })
    .await
}

/// Appliers that are frozen for a moment keep their partitions, and find them cut when they go on.
#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removes_under_an_applier_is_copied_again() {
    let seed = number("SLACKWATER_TEST_SEED", 36);
    let (pipeline, load, mut processes) = streaming("kafka_cut", seed, "").await;
    let mut capture = processes.pop().expect("the capture");
    for applier in &processes {
        applier.signal("STOP").await;
    }
    let before = unread(&pipeline, &mut capture, 0).await;
    let removed = pipeline.topics.cut().await;
    for applier in &processes {
        applier.signal("CONT").await;
    }
    println!("{removed} records removed, of which {before} or more were not applied");
    processes.push(capture);
    let topics: Vec<String> = pipeline.topics.names().await.into_keys().collect();
    let lost = told(&pipeline, &mut processes, &topics[..1]).await;
    println!("{lost:?}");
    further(&pipeline, &mut processes).await;
    finish(pipeline, load, processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removed_unread_is_copied_again() {
    let seed = number("SLACKWATER_TEST_SEED", 35);
    let (pipeline, load, mut processes) = streaming("kafka_retention", seed, "").await;
    let mut capture = processes.pop().expect("the capture");
    for applier in processes {
        applier.stop().await;
    }
    let before = unread(&pipeline, &mut capture, 2_000).await;
    let removed = pipeline.topics.cut().await;
    println!("{removed} records removed, of which {before} or more were not applied");
    let mut processes = vec![pipeline.apply("one", None), pipeline.apply("two", Some("two")), capture];
    let topics: Vec<String> = pipeline.topics.names().await.into_keys().collect();
    let lost = told(&pipeline, &mut processes, &topics).await;
    println!("{lost:?}");
    assert!(lost.iter().any(|text| text.contains("removed by the topic's retention")), "{lost:?}");
    further(&pipeline, &mut processes).await;
    finish(pipeline, load, processes).await;
}

/// Capture has seen that the topic was re-created, and dies before its collection was recopied. Meanwhile the new topic has
/// grown past all that was acknowledged in the old one, so that its length tells nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_capture_dies_before_it_has_begun_again() {
    let stage = Stage::new("kafka_grown").await;
    items::prepare(&stage).await;
    items::insert(&stage, 0..500).await;
    let pipeline = Pipeline::on(stage, items::FILE, &Log { partitions: 1, ..Log::at(&shared()) }).await;
    let applier = pipeline.apply("one", None);
    let mut capture = pipeline.capture("capture");
    items::equal(&pipeline.stage, &mut capture, CATCH_UP).await;
    until("it is copied", CATCH_UP, async || state::copied(&pipeline.stage.target).await.then_some(())).await;
    applier.stop().await;
    // Only the old topic has these.
    let some = doc! {"n": {"$lt": 100_i64}};
    let change = doc! {"$inc": {"v": 1_i64}};
    let changed = items::collection(&pipeline.stage).update_many(some, change).await;
    assert_eq!(changed.expect("items can be changed").modified_count, 100);
    captured(&pipeline, &mut capture).await;
    let old = pipeline.topics.offsets().await;
    // From now on nothing is recopied.
    let mut held = postgres(&pipeline.stage.postgres).await;
    let transaction = held.transaction().await.expect("a transaction");
    let lock = "LOCK TABLE slackwater.collections IN SHARE MODE";
    transaction.batch_execute(lock).await.expect("a table can be locked");
    pipeline.topics.delete().await;
    let time = present(&pipeline).await;
    items::insert(&pipeline.stage, 500..3_000).await;
    // They wait in capture's queue, and are in the new topic as soon as that is there.
    until("the inserts are sent, or capture misses the topic", CATCH_UP, async || {
        (capture.ended().is_some() || capture.said("2,600 changes sent")).then_some(())
    })
    .await;
    pipeline.make_topics().await;
    let survived =
        until("the new topic is written to, or capture misses the old one", CATCH_UP, async || {
            if capture.ended().is_some() {
                return Some(false);
            }
            let new = pipeline.topics.offsets().await;
            let longer = new.iter().all(|(place, (_, end))| *end > old[place].1);
            let marked = pipeline.partitions().await.values().all(|partition| partition.lost.is_some());
            (longer && (marked || position(&pipeline).await.0 > time)).then_some(true)
        })
        .await;
    let new = pipeline.topics.offsets().await;
    println!("capture survived: {survived}; the old topic was {old:?}, the new one is {new:?}");
    if survived {
        capture.kill().await;
    }
    transaction.rollback().await.expect("a transaction ends");
    let mut capture = pipeline.capture("capture");
    let applier = pipeline.apply("one", None);
    assert_eq!(items::equal(&pipeline.stage, &mut capture, CATCH_UP).await, 3_000);
    let topics: Vec<String> = new.into_keys().map(|(topic, _)| topic).collect();
    let mut processes = vec![applier, capture];
    println!("{:?}", told(&pipeline, &mut processes, &topics).await);
    for process in processes {
        process.stop().await;
    }
    pipeline.clear().await;
}
