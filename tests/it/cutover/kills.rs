//! Whoever is killed while the switch is made, and whenever: in the end the target is open and equal, or the source is
//! unfrozen and everything is as before; then a second try goes through.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use slackwater_migrations::Chance;

use super::{LONG, Scene, Way};
use crate::stage::broker::Broker;
use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::state;
use crate::stage::{PATIENCE, Slackwater, number, until};

/// Lines that the cutover says, after each of which somebody is killed. The last step is held up for a moment, so that there
/// is one.
const STEPS: [&str; 7] = ["preflight", "arm", "freeze", "fence", "drained", "proof", "finishing"];
const SLOW: &str = "  after: [ sequences, { name: hold, sql: select pg_sleep(0.2) }, { name: more, sql: select pg_sleep(0.2) } ]\n  deadline: 4s";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Cutover,
    Capture,
    Applier,
    Broker,
}

/// What a round came to.
#[derive(Debug)]
struct Came {
    victim: Victim,
    step: &'static str,
    end: &'static str,
    /// From the freeze to the opening, or until the source was unfrozen; the longest, if there were several.
    frozen: Duration,
}

async fn round(
    way: Way,
    victim: Victim,
    step: &'static str,
    mongod: &Mongod,
    broker: &mut Broker,
    chance: &mut Chance,
) -> Came {
    let name = format!("cutover_kill_{way:?}").to_lowercase();
    let mut scene =
        Scene::set(&name, way, &mongod.uri(), &broker.address(), chance.below(1 << 32), SLOW).await;
    let mut cutover = scene.stage.start(&["cutover", scene.path()], "cutover");
    until("the step is made", PATIENCE, async || {
        let made = cutover.said(&format!("\n{step} ")) || cutover.said(&format!("{step}  "));
        if !made && cutover.ended().is_some() {
            // This machine was too slow for its rehearsal.
            println!("once more: {}", cutover.tail());
            cutover = scene.stage.start(&["cutover", scene.path()], "cutover");
        }
        made.then_some(())
    })
    .await;
    let mut cutover = Some(cutover);
    match victim {
        Victim::Cutover => {
            let mut killed = cutover.take().expect("the cutover");
            if killed.ended().is_none() {
                killed.kill().await;
            }
            // Half of them are started again at once, the others are forgotten.
            if chance.below(2) == 0 {
                cutover = Some(scene.stage.start(&["cutover", scene.path()], "cutover"));
            }
        }
        Victim::Capture | Victim::Applier => {
            let place = if victim == Victim::Applier { 1 } else { 0 };
            if scene.processes[place].ended().is_none() {
                let (again, name) = match (way, place) {
                    (Way::Direct, _) => ("run", "run"),
                    (Way::Kafka, 0) => ("capture", "capture"),
                    (Way::Kafka, _) => ("apply", "one"),
                };
                let file = scene.path().to_owned();
                let mut arguments = vec![again, &file];
                if again == "apply" {
                    arguments.extend(["--member", "one"]);
                }
                // Its end is what the next one waits for, so it goes first.
                scene.processes.remove(place).kill().await;
                let started = scene.stage.start(&arguments, name);
                scene.processes.insert(place, started);
            }
        }
        Victim::Broker => {
            broker.stop().await;
            // How long it is away is random; nothing is waited for.
            tokio::time::sleep(Duration::from_millis(chance.below(1_500))).await;
            broker.again().await;
        }
    }
    let end = ended(&mut scene, cutover).await;
    if end != "open" {
        assert!(!scene.is_frozen().await, "{end}: the source is as before");
        scene.near().await;
        let (code, report) = scene.switch().await;
        assert_eq!((code, &report["state"]), (Some(0), &"open".into()), "{report:#}");
    }
    scene.is_switched().await;
    let longest = "SELECT coalesce(max(extract(epoch FROM ended_at - freezing_at)), 0)::float8 FROM slackwater.cutovers";
    let longest: f64 = state::rows(&scene.stage.target, longest).await[0].get(0);
    scene.clear().await;
    Came { victim, step, end, frozen: Duration::from_secs_f64(longest) }
}

/// Waits until the cutover is open or reverted. A cutover that is armed and forgotten is reverted by hand.
async fn ended(scene: &mut Scene, mut cutover: Option<Slackwater>) -> &'static str {
    until("the cutover has an end", LONG, async || {
        let row =
            state::rows(&scene.stage.target, "SELECT state FROM slackwater.cutovers ORDER BY armed_at DESC")
                .await;
        let state = row.first().map(|row| row.get::<_, String>(0));
        let gone = cutover.as_mut().is_none_or(|cutover| cutover.ended().is_some());
        match state.as_deref() {
            Some("open") => Some("open"),
            Some("reverted") => Some("reverted"),
            Some("armed") if gone => {
                let (code, report) = scene.cutover(&["--abort"]).await;
                assert_eq!((code, &report["state"]), (Some(0), &"reverted".into()), "{report:#}");
                Some("armed, and reverted by hand")
            }
            None if gone => Some("never armed"),
            _ => None,
        }
    })
    .await
}

async fn kills(way: Way, victims: &[Victim]) {
    let seed = number("SLACKWATER_TEST_SEED", RandomState::new().hash_one(std::process::id()) & 0xffff_ffff);
    let rounds = number("SLACKWATER_TEST_CUTOVER_KILLS", 3) as usize;
    println!("{way:?}: {rounds} rounds, seed {seed}");
    let mut chance = Chance::new(seed);
    let mongod = Mongod::start(&format!("kills_{way:?}"), Flavour::Replica).await;
    let mut broker = Broker::start(&format!("kills_{way:?}").to_lowercase()).await;
    let begun = Instant::now();
    let mut came = Vec::new();
    // Each victim at each step, in an order that the seed gives.
    let mut all: Vec<(Victim, &str)> =
        victims.iter().flat_map(|victim| STEPS.map(|step| (*victim, step))).collect();
    while came.len() < rounds {
        if all.is_empty() {
            all = victims.iter().flat_map(|victim| STEPS.map(|step| (*victim, step))).collect();
        }
        let (victim, step) = all.swap_remove(chance.below(all.len() as u64) as usize);
        let result = round(way, victim, step, &mongod, &mut broker, &mut chance).await;
        came.push(result);
    }
    let longest = came.iter().map(|came| came.frozen).max().unwrap_or_default();
    let open = came.iter().filter(|came| came.end == "open").count();
    for Came { victim, step, end, frozen } in &came {
        println!("  {victim:?} after {step:<9} {end:<9} frozen for {frozen:?}");
    }
    println!(
        "{way:?}: {} kills in {:?}: {open} went on, {} went back; frozen for {longest:?} at most",
        came.len(),
        begun.elapsed(),
        came.len() - open
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_direct_log() {
    kills(Way::Direct, &[Victim::Cutover, Victim::Capture]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_kafka() {
    kills(Way::Kafka, &[Victim::Cutover, Victim::Capture, Victim::Applier, Victim::Broker]).await;
}
