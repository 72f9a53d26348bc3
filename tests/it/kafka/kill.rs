//! Capture, two appliers and the broker are killed again and again at random moments, in the copy too, while writers write:
//! equal to the last row in the end, nothing acknowledged is lost, no row ever goes back, and what the topics hold
//! was counted once, record by record. Some documents are so large that they travel in parts.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::TryStreamExt as _;
use slackwater_migrations::Chance;
use slackwater_migrations::crm_demo::Pace;

use crate::stage::broker::Broker;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::state;
use crate::stage::trial::{CATCH_UP, Load};
use crate::stage::{Slackwater, Stage, number, until};

/// Who can be killed. The second applier keeps its name over restarts.
const VICTIMS: [(&str, u64); 4] = [("capture", 35), ("one", 25), ("two", 25), ("broker", 15)];

fn launch(pipeline: &Pipeline, name: &str) -> Slackwater {
    match name {
        "capture" => pipeline.capture(name),
        "two" => pipeline.apply(name, Some(name)),
        _ => pipeline.apply(name, None),
    }
}

/// As documented: a server cannot be reached.
const UNREACHABLE: i32 = 5;

/// Nobody ends by itself, but for one that finds no broker for long when it starts: whoever looks after it starts it again.
fn look_after(pipeline: &Pipeline, processes: &mut [Slackwater]) {
    for process in processes {
        if process.ended().and_then(|status| status.code()) == Some(UNREACHABLE) {
            println!("{} gave up: {}", process.name(), process.tail().lines().last().unwrap_or_default());
            *process = launch(pipeline, process.name());
        }
        process.still_runs();
    }
}

/// Who is next, and after how long.
fn draw(chance: &mut Chance) -> (usize, Duration) {
    let mut ticket = chance.below(100);
    let mut victim = 0;
    while ticket >= VICTIMS[victim].1 {
        ticket -= VICTIMS[victim].1;
        victim += 1;
    }
    // Short lives hit the start and the copy, long ones get somewhere: a group needs seconds to get over a death.
    let life = if chance.percent(60) { chance.between(20, 1_500) } else { chance.between(1_500, 7_000) };
    (victim, Duration::from_millis(life as u64))
}

/// Makes some documents of two collections larger than a record may be: one has its images in the oplog, one is looked up.
async fn enlarge(stage: &Stage, seed: u64, count: u64) {
    let mut chance = Chance::of(seed, 1, 0);
    for (collection, field) in [("users", "settings.pad"), ("bookings", "note")] {
        let collection = stage.source.collection::<Document>(collection);
        let found = collection.find(doc! {}).projection(doc! {"_id": 1}).limit(count as i64).await;
        let ids: Vec<Document> =
            found.expect("documents can be read").try_collect().await.expect("documents can be read");
        for id in ids {
            let length = chance.between(80_000, 300_000);
            let pad: String = (0..length).map(|_| char::from(b'a' + chance.below(26) as u8)).collect();
            let update = doc! {"$set": {field: pad}};
            collection.update_one(id, update).await.expect("a document can be changed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_it_ends_equal() {
    let seed = number("SLACKWATER_TEST_SEED", 3);
    let kills = number("SLACKWATER_TEST_KILLS", 12);
    let documents = number("SLACKWATER_TEST_KILL_DOCUMENTS", 12_000);
    let rate = number("SLACKWATER_TEST_RATE", 200);
    println!("seed {seed}, {kills} kills, {documents} documents, {rate} operations a second");
    let mut broker = Broker::start("kill").await;
    // The least that is allowed: some documents are larger and travel in parts.
    let topics = "config: { max.message.bytes: 65536 }";
    let log = Log { topics, ..Log::at(&broker.address()) };
    // Small chunks, so that kills fall between them too.
    let snapshot = "{ workers: 3, chunk_documents: 300 }";
    let pipeline = Pipeline::crm("kafka_kill", seed, documents, snapshot, &log).await;
    enlarge(&pipeline.stage, seed, documents / 400).await;
    let load = Load::start(&pipeline.stage, seed, Pace { writers: 4, rate: Some(rate as f64) }).await;
    let mut processes: Vec<Slackwater> = ["capture", "one", "two"].map(|name| launch(&pipeline, name)).into();
    let mut chance = Chance::of(seed, 0, 0);
    let (mut in_copy, mut in_stream, mut greatest_lag) = (0, 0, 0);
    let mut killed = [0; VICTIMS.len()];
    let begun = Instant::now();
    for kill in 1..=kills {
        if kill == kills / 2 + 1 {
            // The other half is the stream's, whatever the copy takes.
            until("everything is copied", CATCH_UP, async || {
                look_after(&pipeline, &mut processes);
                pipeline.copied().await.then_some(())
            })
            .await;
        }
        if kill == 2 {
            // One kill falls into the start, the next ones into the copy, however long a start takes here.
            until("the copy has begun", CATCH_UP, async || {
                look_after(&pipeline, &mut processes);
                (state::copy(&pipeline.stage.target).await.chunks > 0).then_some(())
            })
            .await;
        }
        let (victim, life) = draw(&mut chance);
        // The random moment is the test; nothing is waited for.
        tokio::time::sleep(life).await;
        look_after(&pipeline, &mut processes);
        let (name, _) = VICTIMS[victim];
        match processes.iter().position(|process| process.name() == name) {
            Some(place) => {
                processes.swap_remove(place).kill().await;
                processes.push(launch(&pipeline, name));
            }
            None => {
                // One that is killed again before it is up would never come up.
                broker.ready().await;
                broker.kill().await;
                broker.launch();
            }
        }
        killed[victim] += 1;
        let copied = pipeline.copied().await;
        let copy = state::copy(&pipeline.stage.target).await;
        in_copy += u64::from(!copied && copy.chunks > 0);
        in_stream += u64::from(copied);
        let lag = pipeline.lag().await;
        greatest_lag = lag.unwrap_or_default().max(greatest_lag);
        println!("kill {kill}, {name} after {life:?}, {lag:?} s behind, copied: {copied}, {copy:?}");
    }
    let seconds = begun.elapsed().as_secs();
    broker.ready().await;
    let saved = pipeline.saved_at().await;
    until("the capture works again", CATCH_UP, async || {
        look_after(&pipeline, &mut processes);
        (pipeline.saved_at().await > saved).then_some(())
    })
    .await;
    let caught_up = load.end(&pipeline.stage, &pipeline.file, &mut processes).await;
    let incidents = state::incidents(&pipeline.stage.target).await;
    assert!(incidents.is_empty(), "a process that dies loses nothing: {incidents:?}");
    // From now on nothing comes into the topics.
    let place = processes.iter().position(|process| process.name() == "capture").expect("it runs");
    processes.swap_remove(place).stop().await;
    let standing = pipeline.counted_exactly(CATCH_UP).await;
    let names = VICTIMS.map(|(name, _)| name);
    println!(
        "{kills} kills in {seconds} s: {names:?} {killed:?}, {in_copy} in the copy, {in_stream} in the stream, at most \
         {greatest_lag} s behind, caught up in {caught_up:?}, {standing:?}"
    );
    assert!(standing.parts > 0, "no event was too large for a record");
    assert!(in_copy > 0, "no kill fell into the copy: take another seed or more documents");
    assert!(in_stream > 0, "no kill fell into the stream: take another seed");
    for applier in processes {
        applier.stop().await;
    }
    pipeline.clear().await;
}
