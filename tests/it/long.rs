//! Heavy writes for as long as is asked for, while processes are killed, the source elects and appliers come and go: verification finds
//! nothing, because nothing is wrong.
//!
//! By hand, because it is long: `SLACKWATER_TEST_MINUTES`, `_PAUSE` (milliseconds between two changes of a writer), `_WRITERS`, `_SEED`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bson::Document;
use slackwater_migrations::Chance;

use crate::letters::letters;
use crate::stage::ground::Ground;
use crate::stage::mongod::Three;
use crate::stage::trial::CATCH_UP;
use crate::stage::{Slackwater, Stage, is_verified, number, state, until};
use crate::verify::{FILE, SCHEMA, change, filled, person};

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    Restart,
    /// One more applier, for as long as until the next fault of this kind.
    Join,
    StepDown,
    /// The leader stands still until another one leads, and then comes back.
    Freeze,
    CutSessions,
}

const FAULTS: [Fault; 6] =
    [Fault::Kill, Fault::Restart, Fault::Join, Fault::StepDown, Fault::Freeze, Fault::CutSessions];

/// Changes documents for as long as it is wanted. What fails in an election may have happened or not.
async fn write(
    source: mongodb::Database,
    seed: u64,
    pause: Duration,
    on: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
) {
    let people = source.collection::<Document>("people");
    let mut chance = Chance::new(seed);
    while on.load(Ordering::Relaxed) {
        if change(&people, &mut chance, made.load(Ordering::Relaxed)).await.is_ok() {
            made.fetch_add(1, Ordering::Relaxed);
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// All that was ever found, and where nothing was: the number of the last verification of everything.
async fn alarms(stage: &Stage) -> Result<i64, Vec<String>> {
    let sql = "SELECT kind || ' ' || coalesce(table_name, '-') || ' ' || coalesce(document, '-') FROM slackwater.late_findings
               UNION ALL SELECT kind || ' ' || coalesce(table_name, '-') || ' ' || coalesce(document, '-') FROM slackwater.findings
               WHERE explained IS NULL AND kind <> 'unsettled'
               UNION ALL SELECT 'incident ' || text FROM slackwater.incidents WHERE kind = 'findings'";
    let found: Vec<String> = state::rows(&stage.target, sql).await.iter().map(|row| row.get(0)).collect();
    if !found.is_empty() {
        return Err(found);
    }
    let ended = "SELECT coalesce(max(id), 0) FROM slackwater.proofs WHERE ended IS NOT NULL";
    Ok(state::rows(&stage.target, ended).await.first().map_or(0, |row| row.get(0)))
}

async fn goes_on(kafka: bool) {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    let end = Instant::now() + Duration::from_secs(60 * number("SLACKWATER_TEST_MINUTES", 30));
    let pause = Duration::from_millis(number("SLACKWATER_TEST_PAUSE", 5));
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let name = if kafka { "long_kafka" } else { "long_direct" };
    let servers = Three::equal(name).await;
    let stage = Stage::at(name, &servers.uri("")).await;
    let file = format!("{FILE}verify: {{ every: 1m, throttle: 20000 }}\n");
    let ground = Ground::on(stage, kafka, SCHEMA, &file, &["people"]).await;
    let people: Vec<Document> = (0..500).map(|id| person(&mut chance, id)).collect();
    let mut processes = filled(&ground, &people).await;
    ground.stage().follows(&mut processes).await;
    let (on, made) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..number("SLACKWATER_TEST_WRITERS", 4))
        .map(|n| {
            let source = ground.stage().source.clone();
            tokio::spawn(write(source, seed * 100 + n, pause, Arc::clone(&on), Arc::clone(&made)))
        })
        .collect();
    let mut third: Option<Slackwater> = None;
    let mut done: BTreeMap<Fault, u64> = BTreeMap::new();
    let mut told = Instant::now();
    while Instant::now() < end {
        // Life between two faults: until so much was written and verified.
        let (written, verified) = (made.load(Ordering::Relaxed), ground.stage().has_followed().await);
        let (more, seen) = (300 + chance.below(2_000), 50 + chance.below(600) as i64);
        until("changes are made, applied and verified", CATCH_UP, async || {
            processes.iter_mut().chain(&mut third).for_each(Slackwater::still_runs);
            let goes = made.load(Ordering::Relaxed) >= written + more;
            (goes && ground.stage().has_followed().await >= verified + seen).then_some(())
        })
        .await;
        let fault = FAULTS[chance.below(FAULTS.len() as u64) as usize];
        if fault == Fault::Join && !kafka {
            continue;
        }
        match fault {
            Fault::Kill | Fault::Restart => {
                let which = chance.below(processes.len() as u64) as usize;
                let ends = processes.remove(which);
                if fault == Fault::Kill {
                    ends.kill().await
                } else {
                    ends.stop().await
                }
                processes.insert(which, ground.start(which));
            }
            Fault::Join => match third.take() {
                Some(third) if chance.below(2) == 0 => third.kill().await,
                Some(third) => third.stop().await,
                None => third = ground.join(),
            },
            Fault::StepDown => servers.step_down(&ground.stage().source).await,
            Fault::Freeze => servers.freeze_leader(&ground.stage().source).await,
            Fault::CutSessions => {
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                           WHERE datname = current_database() AND application_name LIKE 'slackwater%'";
                ground.stage().target.query(sql, &[]).await.expect("sessions can be ended");
            }
        }
        *done.entry(fault).or_default() += 1;
        let passes = alarms(ground.stage()).await.unwrap_or_else(|found| panic!("a false alarm: {found:?}"));
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            let verified = ground.stage().has_followed().await;
            println!(
                "{} changes, {verified} verified, {passes} passes, {done:?}",
                made.load(Ordering::Relaxed)
            );
        }
    }
    on.store(false, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer");
    }
    processes.extend(third);
    let now = ground.stage().clock().await;
    until("what has changed is verified", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let shown = ground.stage().status(ground.file()).await["verification"].clone();
        is_verified(&shown, now).then_some(())
    })
    .await;
    let passes = alarms(ground.stage()).await.unwrap_or_else(|found| panic!("a false alarm: {found:?}"));
    assert_eq!(letters(ground.stage()).await, Vec::new());
    let verified = ground.stage().has_followed().await;
    println!(
        "in all: {} changes, {verified} verified, {passes} passes, {done:?}",
        made.load(Ordering::Relaxed)
    );
    ground.end(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "half an hour, by hand"]
async fn no_false_alarm_direct() {
    goes_on(false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "half an hour, by hand"]
async fn no_false_alarm_over_kafka() {
    goes_on(true).await;
}
