//! A server that is away is waited for: the broker, and then the target, each for a while under load. Capture's memory stays
//! bounded, the lag rises and falls again, nothing is lost.

use std::time::{Duration, Instant};

use slackwater_migrations::Watcher;
use slackwater_migrations::crm_demo::{self, Pace, Writers};
use tokio::sync::watch;

use crate::stage::broker::{Broker, shared};
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::target::Target;
use crate::stage::trial::{CATCH_UP, Load};
use crate::stage::{PATIENCE, Slackwater, Stage, number, postgres, until, variable};

/// Megabytes. The queue for Kafka holds 64, and batches on their way there some more; this is a build for debugging.
const MOST_MEMORY: u64 = 300;
/// Seconds behind the source that count as none.
const LITTLE: i64 = 3;
const SNAPSHOT: &str = "{ workers: 2, chunk_documents: 1000 }";

fn seconds() -> u64 {
    number("SLACKWATER_TEST_OUTAGE", 8)
}

fn pace() -> Pace {
    Pace { writers: 8, rate: Some(number("SLACKWATER_TEST_RATE", 1_000) as f64) }
}

/// What was seen of processes and lag.
#[derive(Debug, Default)]
struct Most {
    /// Megabytes of each process.
    memory: Vec<(String, u64)>,
    lag: i64,
}

impl Most {
    /// Looks once; how far behind.
    async fn look(&mut self, pipeline: &Pipeline, processes: &mut [Slackwater]) -> i64 {
        self.weigh(processes);
        let lag = pipeline.lag().await.unwrap_or_default();
        self.lag = self.lag.max(lag);
        lag
    }

    fn weigh(&mut self, processes: &mut [Slackwater]) {
        self.memory.resize_with(processes.len(), Default::default);
        for (most, process) in self.memory.iter_mut().zip(processes) {
            *most = (process.name().to_owned(), process.memory().max(most.1));
        }
    }

    fn is_bounded(&self) {
        assert!(self.memory.iter().all(|(_, most)| *most < MOST_MEMORY), "{self:?}");
    }
}

/// Waits until everything is copied and what is written is applied soon.
async fn follows(pipeline: &Pipeline, processes: &mut [Slackwater], most: &mut Most) -> Duration {
    let begun = Instant::now();
    until("it follows closely", CATCH_UP, async || {
        let lag = most.look(pipeline, processes).await;
        (pipeline.copied().await && lag <= LITTLE).then_some(())
    })
    .await;
    begun.elapsed()
}

/// How many documents each process has sent to the dead letters, as it says.
fn letters(processes: &[Slackwater]) -> Vec<u64> {
    let said = |process: &Slackwater| {
        let text = std::fs::read_to_string(process.log()).expect("a log can be read");
        let lines = text.lines().filter(|line| line.contains("documents went to the dead letters"));
        let counts =
            lines.filter_map(|line| line.split("count=").nth(1)?.split(' ').next()?.parse::<u64>().ok());
        counts.sum()
    };
    processes.iter().map(said).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_waited_for() {
    let seed = number("SLACKWATER_TEST_SEED", 7);
    let mut broker = Broker::start("outage").await;
    let log = Log::at(&broker.address());
    let pipeline = Pipeline::crm("kafka_outage", seed, 4_000, SNAPSHOT, &log).await;
    let mut processes =
        vec![pipeline.apply("one", None), pipeline.apply("two", None), pipeline.capture("capture")];
    follows(&pipeline, &mut processes, &mut Most::default()).await;
    let load = Load::start(&pipeline.stage, seed, pace()).await;
    let mut before = Most::default();
    follows(&pipeline, &mut processes, &mut before).await;

    broker.stop().await;
    let mut during = Most::default();
    until("it is as far behind as the broker is away", CATCH_UP, async || {
        let lag = during.look(&pipeline, &mut processes).await;
        (lag >= seconds() as i64).then_some(())
    })
    .await;
    until("capture says what it waits for", PATIENCE, async || {
        during.look(&pipeline, &mut processes).await;
        processes[2].said("waiting for Kafka").then_some(())
    })
    .await;
    broker.again().await;
    let mut after = Most::default();
    let caught_up = follows(&pipeline, &mut processes, &mut after).await;
    println!("before {before:?}\nduring {during:?}\nafter {after:?}\nback at {LITTLE} s after {caught_up:?}");
    [before, during, after].iter().for_each(Most::is_bounded);
    assert!(processes[2].said("Kafka acknowledges again"), "{}", processes[2].tail());

    load.end(&pipeline.stage, &pipeline.file, &mut processes).await;
    processes.pop().expect("the capture").stop().await;
    println!("{:?}", pipeline.counted_exactly(CATCH_UP).await);
    for applier in processes {
        applier.stop().await;
    }
    pipeline.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_away_is_waited_for() {
    let seed = number("SLACKWATER_TEST_SEED", 8);
    let mut target = Target::start("outage").await;
    let stage = Stage::between("kafka_away", &variable("SLACKWATER_MONGODB_URI"), &target.url()).await;
    stage.fill(seed, 4_000).await;
    let text = format!("{}\nsnapshot: {SNAPSHOT}\n", crm_demo::mapping());
    let mut pipeline = Pipeline::on(stage, &text, &Log::at(&shared())).await;
    let mut processes =
        vec![pipeline.apply("one", None), pipeline.apply("two", None), pipeline.capture("capture")];
    follows(&pipeline, &mut processes, &mut Most::default()).await;
    Watcher::lay_tripwires(&pipeline.stage.target, crm_demo::WATCHED).await.expect("tripwires can be laid");
    let (stop, stopped) = watch::channel(false);
    let writers = Writers::learn(&pipeline.stage.source, seed, pace()).await.expect("documents can be read");
    let writing = tokio::spawn(writers.write(stopped));
    let mut before = Most::default();
    follows(&pipeline, &mut processes, &mut before).await;

    target.stop().await;
    let ends = async || pipeline.topics.offsets().await.values().map(|(_, end)| end).sum::<i64>();
    let (begun, first) = (Instant::now(), ends().await);
    // Marks are in every partition about once a second; there have to be more records than those.
    let marks = 20 * seconds() as i64;
    let mut during = Most::default();
    let published = until("capture goes on all the time", CATCH_UP, async || {
        during.weigh(&mut processes);
        let published = ends().await - first;
        // The outage takes its time; nothing else is waited for.
        (begun.elapsed() >= Duration::from_secs(seconds()) && published > 3 * marks).then_some(published)
    })
    .await;
    target.again().await;
    pipeline.stage.target = postgres(&pipeline.stage.postgres).await;
    let mut after = Most::default();
    let behind = after.look(&pipeline, &mut processes).await;
    assert!(behind >= seconds() as i64 - 1, "nothing was applied meanwhile, and it is {behind} s behind");
    let caught_up = follows(&pipeline, &mut processes, &mut after).await;
    println!("before {before:?}\nduring {during:?}\nafter {after:?}");
    println!("{published} records were published meanwhile, back at {LITTLE} s after {caught_up:?}");
    println!("dead letters of the appliers until then: {:?}", letters(&processes[..2]));
    [before, during, after].iter().for_each(Most::is_bounded);

    stop.send(true).expect("the writers listen");
    let written = writing.await.expect("a task").expect("the writers write");
    let rows = pipeline.wait_equal(&mut processes, CATCH_UP).await;
    let lost = written.lost(&pipeline.stage.target).await.expect("rows can be read");
    println!("{written}\n{rows} rows");
    assert!(lost.is_empty(), "{} acknowledged changes are lost: {:?}", lost.len(), lost.first());
    let (_, stopped) = watch::channel(true);
    let watcher = Watcher::spawn(pipeline.stage.postgres.clone(), crm_demo::WATCHED, stopped).await;
    let watcher = watcher.expect("a task").expect("the target can be read");
    watcher.verdict().expect("no row goes back");
    processes.pop().expect("the capture").stop().await;
    println!("{:?}", pipeline.counted_exactly(CATCH_UP).await);
    for applier in processes {
        applier.stop().await;
    }
    pipeline.clear().await;
}
