//! The log loses something: topics deleted, made anew, cut, or given more partitions, under writers. It is said, what was
//! lost is copied again, no row goes back, and both sides end equal.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;
use slackwater_migrations::crm_demo::Pace;

use super::broker::shared;
use super::pipeline::{Log, Pipeline};
use crate::harness::{Slackwater, number, until};
use crate::state;
use crate::trial::{CATCH_UP, Load};

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
    until("the appliers miss what stood there", CATCH_UP, async || {
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

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removed_unread_is_copied_again() {
    let seed = number("SLACKWATER_TEST_SEED", 35);
    let (pipeline, load, mut processes) = streaming("kafka_retention", seed, "").await;
    let mut capture = processes.pop().expect("the capture");
    for applier in processes {
        applier.stop().await;
    }
    let unread = async || {
        let (applied, ends) = (pipeline.partitions().await, pipeline.topics.offsets().await);
        let each: Vec<i64> =
            ends.iter().map(|(place, (_, end))| (end - applied[place].next_offset).max(0)).collect();
        (each.iter().min().copied().unwrap_or_default(), each.iter().sum::<i64>())
    };
    let before = until("records wait in every partition", CATCH_UP, async || {
        capture.still_runs();
        let (least, all) = unread().await;
        (least > 0 && all > 2_000).then_some(all)
    })
    .await;
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
