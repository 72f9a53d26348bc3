//! Appliers come and go every few seconds, by SIGTERM and SIGKILL, with names that they keep and without: equal in the end,
//! no row ever goes back, and every record of the topics was counted once. Values are in Debezium's format.

use std::time::{Duration, Instant};

use slackwater_migrations::Chance;
use slackwater_migrations::crm_demo::Pace;

use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::trial::{CATCH_UP, Load};
use crate::stage::{Slackwater, number, until};

/// Side by side.
const MOST: usize = 4;
/// Names that are kept; what is called otherwise joins without one.
const NAMES: [&str; 3] = ["red", "green", "blue"];

/// Starts one more, under a name that nobody has now, or under none.
fn join(pipeline: &Pipeline, chance: &mut Chance, appliers: &[Slackwater], count: u64) -> Slackwater {
    let free: Vec<&str> =
        NAMES.into_iter().filter(|name| !appliers.iter().any(|applier| applier.name() == *name)).collect();
    if !free.is_empty() && chance.percent(50) {
        let name = chance.pick(&free);
        return pipeline.apply(name, Some(name));
    }
    pipeline.apply(&format!("nameless-{count}"), None)
}

#[tokio::test(flavor = "multi_thread")]
async fn appliers_come_and_go() {
    let seed = number("SLACKWATER_TEST_SEED", 6);
    let seconds = number("SLACKWATER_TEST_SECONDS", 20);
    let rate = number("SLACKWATER_TEST_RATE", 200);
    println!("seed {seed}, {seconds} seconds, {rate} operations a second");
    let snapshot = "{ workers: 3, chunk_documents: 300 }";
    // The other format of values, and tombstones in between.
    let (topics, more) = ("compact: true", "values: { debezium: { schemas: false } }");
    let log = Log { topics, more, ..Log::at(&shared()) };
    let pipeline = Pipeline::crm("rebalance", seed, 6_000, snapshot, &log).await;
    let load = Load::start(&pipeline.stage, seed, Pace { writers: 4, rate: Some(rate as f64) }).await;
    let mut capture = pipeline.capture("capture");
    let mut chance = Chance::of(seed, 0, 0);
    let mut appliers = vec![join(&pipeline, &mut chance, &[], 0)];
    let (mut joined, mut told, mut killed, mut greatest_lag) = (1, 0, 0, 0);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        // The random moment is the test; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(chance.between(200, 5_000) as u64)).await;
        capture.still_runs();
        appliers.iter_mut().for_each(Slackwater::still_runs);
        let more = appliers.len() == 1 || (appliers.len() < MOST && chance.percent(50));
        if more {
            appliers.push(join(&pipeline, &mut chance, &appliers, joined));
            joined += 1;
        } else {
            let leaving = appliers.swap_remove(chance.below(appliers.len() as u64) as usize);
            if chance.percent(50) {
                leaving.stop().await;
                told += 1;
            } else {
                leaving.kill().await;
                killed += 1;
            }
        }
        greatest_lag = pipeline.lag().await.unwrap_or_default().max(greatest_lag);
    }
    assert!(told + killed > 0, "nobody has left: take another seed or more seconds");
    until("everything is copied", CATCH_UP, async || pipeline.copied().await.then_some(())).await;
    let mut processes: Vec<Slackwater> = appliers.into_iter().chain([capture]).collect();
    let caught_up = load.end(&pipeline.stage, &pipeline.file, &mut processes).await;
    processes.pop().expect("the capture").stop().await;
    let standing = pipeline.counted_exactly(CATCH_UP).await;
    let claims: i64 = pipeline.partitions().await.values().map(|partition| partition.epoch).sum();
    println!(
        "{joined} joined, {told} were told to go, {killed} killed, {claims} claims of partitions, at most {greatest_lag} s \
         behind, caught up in {caught_up:?}, {standing:?}"
    );
    assert!(standing.tombstones > 0, "documents were deleted");
    assert_eq!(standing.counts.superseded, 0, "there was one capture");
    assert_eq!(standing.counts.duplicates, 0, "and it was never interrupted");
    for applier in processes {
        applier.stop().await;
    }
    pipeline.clear().await;
}
