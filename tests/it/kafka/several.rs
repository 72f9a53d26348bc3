//! Three brokers that copy for each other. One after the other dies or hangs under load, leaders of partitions and the
//! group's coordinator among them: the others go on without it, and nothing is lost or applied twice.

use std::time::{Duration, Instant};

use slackwater_migrations::Chance;
use slackwater_migrations::crm_demo::Pace;

use crate::stage::broker::Broker;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::trial::{CATCH_UP, Load};
use crate::stage::{Slackwater, number, until};

/// Seconds behind the source that count as none.
const LITTLE: i64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn any_one_of_three_brokers_may_be_away() {
    let seed = number("SLACKWATER_TEST_SEED", 11);
    let rounds = number("SLACKWATER_TEST_ROUNDS", 3);
    println!("seed {seed}, {rounds} rounds");
    let mut brokers = Broker::start_three("several").await;
    let addresses = brokers.each_ref().map(Broker::address).join(",");
    let log = Log { replication: 3, ..Log::at(&addresses) };
    let pipeline = Pipeline::crm("kafka_several", seed, 3_000, "{ workers: 2 }", &log).await;
    let load = Load::start(&pipeline.stage, seed, Pace { writers: 4, rate: Some(200.0) }).await;
    let mut processes =
        vec![pipeline.capture("capture"), pipeline.apply("one", None), pipeline.apply("two", Some("two"))];
    let follows = async |processes: &mut [Slackwater]| {
        until("it follows closely", CATCH_UP, async || {
            processes.iter_mut().for_each(Slackwater::still_runs);
            let little = pipeline.lag().await.is_some_and(|lag| lag <= LITTLE);
            (little && pipeline.copied().await).then_some(())
        })
        .await;
    };
    let mut chance = Chance::of(seed, 0, 0);
    let first = chance.below(3) as usize;
    for round in 0..rounds as usize {
        let place = (first + round) % brokers.len();
        let dies = round % 2 == 0;
        // The random moment is the test; the first is in the copy.
        tokio::time::sleep(Duration::from_millis(chance.between(200, 2_500) as u64)).await;
        let copied = pipeline.copied().await;
        if dies {
            brokers[place].kill().await;
        } else {
            brokers[place].signal("STOP").await;
        }
        let begun = Instant::now();
        brokers[(place + 1) % 3].misses_one().await;
        let missed = begun.elapsed();
        let published = pipeline.saved_at().await;
        until("capture goes on without it", CATCH_UP, async || {
            processes.iter_mut().for_each(Slackwater::still_runs);
            (pipeline.saved_at().await > published).then_some(())
        })
        .await;
        let goes_on = begun.elapsed();
        follows(&mut processes).await;
        let close = begun.elapsed();
        if dies {
            brokers[place].launch();
        } else {
            brokers[place].signal("CONT").await;
        }
        brokers[place].ready().await;
        let what = if dies { "was killed" } else { "hung" };
        println!(
            "broker {place} {what}, copied before: {copied}; it was missed after {missed:?}, capture went on after \
             {goes_on:?}, followed closely after {close:?}; the broker was back {:?} later",
            begun.elapsed() - close
        );
    }
    load.end(&pipeline.stage, &pipeline.file, &mut processes).await;
    processes.swap_remove(0).stop().await;
    println!("{:?}", pipeline.counted_exactly(CATCH_UP).await);
    for applier in processes {
        applier.stop().await;
    }
    pipeline.clear().await;
}
