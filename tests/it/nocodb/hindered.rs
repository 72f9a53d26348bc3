//! Switches of three sources that are hindered: one cannot be frozen, one stands still, or the leader is killed. In the end all are unfrozen
//! and everything is as before, or the target is open and equal.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Database;
use slackwater_migrations::Chance;

use super::three::{LONG, People, Three, Writer};
use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::{PATIENCE, Slackwater, number, state, until};

/// The freeze of the base: a file that is there while it lasts, and another one that forbids it.
const FREEZE: &str = "freeze: { command: { freeze: [ bash, -c, \"test ! -e refuse && touch frozen\" ], unfreeze: [ rm, -f, frozen ] } }";
/// After each of these lines the leader is killed, at one of them in a round.
const STEPS: [&str; 7] = ["preflight", "arm", "freeze", "fence", "drained", "proof", "finishing"];
/// The last step is held up, so that there is one.
const CUTOVER: &str = "cutover: { max_lag: 10s, deadline: 8s, after: [ { name: hold, sql: select pg_sleep(0.2) }, { name: more, sql: select pg_sleep(0.2) } ] }";

#[derive(Clone, Copy, Debug)]
enum Hindrance {
    /// The base refuses to be frozen.
    Refused,
    /// A MongoDB stands still when it is to be frozen.
    Stopped,
    /// The leader is killed.
    Killed,
}

const HINDRANCES: [Hindrance; 3] = [Hindrance::Refused, Hindrance::Stopped, Hindrance::Killed];

/// One after the other, on the same migration.
struct Rounds {
    three: Three,
    other: Database,
    processes: Vec<Slackwater>,
    people: [People; 2],
}

impl Rounds {
    fn refuse(&self) -> std::path::PathBuf {
        self.three.stage.folder.join("refuse")
    }

    /// Waits until it follows closely.
    async fn near(&mut self) {
        until("it follows closely", LONG, async || {
            self.processes.iter_mut().for_each(Slackwater::still_runs);
            let status = self.three.stage.status(&self.three.file).await;
            (status["copied"] == true && status["lag_ms"].as_i64().is_some_and(|lag| lag < 9_000))
                .then_some(())
        })
        .await;
    }

    fn cutover(&self) -> Slackwater {
        self.three.stage.start(&["cutover", self.three.path()], "cutover")
    }

    /// Starts a switch, again where this machine was too slow for it, until it has said that a step is done.
    async fn until_step(&self, step: &str) -> Slackwater {
        let _ = std::fs::remove_file(self.three.stage.folder.join("cutover.log"));
        let mut cutover = self.cutover();
        until("the step is made", LONG, async || {
            let made = cutover.said(&format!("\n{step} ")) || cutover.said(&format!("{step}  "));
            if !made && cutover.ended().is_some() {
                println!("once more: {}", cutover.tail());
                cutover = self.cutover();
            }
            made.then_some(())
        })
        .await;
        cutover
    }

    async fn hinder(&self, hindrance: Hindrance, chance: &mut Chance) -> Option<Slackwater> {
        match hindrance {
            Hindrance::Refused => {
                std::fs::write(self.refuse(), "").expect("a file");
                Some(self.until_step("arm").await)
            }
            Hindrance::Stopped => {
                let cutover = self.until_step("arm").await;
                self.three.second.signal("STOP").await;
                // The random time is what hinders; nothing is waited for.
                tokio::time::sleep(Duration::from_millis(chance.between(200, 10_000) as u64)).await;
                self.three.second.signal("CONT").await;
                Some(cutover)
            }
            Hindrance::Killed => {
                let step = STEPS[chance.below(STEPS.len() as u64) as usize];
                println!("killed after {step}");
                let mut cutover = self.until_step(step).await;
                if cutover.ended().is_none() {
                    cutover.kill().await;
                }
                // Half of them are started again at once, the others are forgotten.
                (chance.below(2) == 0).then(|| self.cutover())
            }
        }
    }

    /// How the switch ends.
    async fn ended(&self, mut cutover: Option<Slackwater>) -> String {
        until("the switch has an end", LONG, async || {
            let sql = "SELECT state FROM slackwater.cutovers ORDER BY armed_at DESC LIMIT 1";
            let rows = state::rows(&self.three.stage.target, sql).await;
            let word = rows.first().map(|row| row.get::<_, String>(0));
            let gone = cutover.as_mut().is_none_or(|cutover| cutover.ended().is_some());
            match word.as_deref() {
                Some("open" | "reverted") => word,
                Some("armed") if gone => {
                    // Forgotten before anything was frozen.
                    let output = self.three.stage.output(&["cutover", self.three.path(), "--abort"]).await;
                    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                    None
                }
                None if gone => Some("never armed".to_owned()),
                _ => None,
            }
        })
        .await
    }

    async fn round(&mut self, hindrance: Hindrance, chance: &mut Chance) -> String {
        for _ in 0..10 {
            self.three.marina.edit(chance).await;
        }
        let seed = chance.below(1 << 32);
        let writers =
            [&self.three.stage.source, &self.other].map(|source| Writer::start(source.clone(), seed));
        self.near().await;
        let cutover = self.hinder(hindrance, chance).await;
        let end = self.ended(cutover).await;
        let _ = std::fs::remove_file(self.refuse());
        for (people, writer) in self.people.iter_mut().zip(writers) {
            people.extend(writer.end().await);
        }
        let frozen = self.three.stage.folder.join("frozen");
        if end == "open" {
            assert_eq!(self.three.differs([&self.people[0], &self.people[1]]).await, None);
            assert!(frozen.exists(), "the base is still frozen");
            self.begin_again().await;
            return end;
        }
        assert!(!frozen.exists(), "the base is let go");
        for (source, people) in [&self.three.stage.source, &self.other].into_iter().zip(&mut self.people) {
            let everybody = source.collection::<Document>("people");
            let written = everybody.replace_one(doc! {"_id": -1}, doc! {"v": 7}).upsert(true).await;
            written.unwrap_or_else(|error| panic!("{end}: the source is as before: {error}"));
            people.insert(-1, 7);
        }
        state::rows(&self.three.stage.target, "DELETE FROM slackwater.cutovers").await;
        self.equal().await;
        end
    }

    /// Waits until the target is what was written.
    async fn equal(&mut self) {
        until("the target is what was written", LONG, async || {
            self.processes.iter_mut().for_each(Slackwater::still_runs);
            self.three.differs([&self.people[0], &self.people[1]]).await.is_none().then_some(())
        })
        .await;
    }

    /// As if it had never been switched.
    async fn begin_again(&mut self) {
        for process in &mut self.processes {
            until("it ends", PATIENCE, async || process.ended()).await;
        }
        state::rows(&self.three.stage.target, "DELETE FROM slackwater.cutovers").await;
        let _ = std::fs::remove_file(self.three.stage.folder.join("frozen"));
        for source in [&self.three.stage.source, &self.other] {
            let thaw = doc! {"setUserWriteBlockMode": 1, "global": false};
            source.client().database("admin").run_command(thaw).await.expect("it can be unfrozen");
        }
        self.processes = self.three.start_all();
        self.equal().await;
    }
}

async fn hindered(kafka: bool) {
    let seed = number("SLACKWATER_TEST_SEED", 29);
    let rounds = number("SLACKWATER_TEST_CUTOVERS", 2);
    println!("seed {seed}, {rounds} switches");
    let mut chance = Chance::new(seed);
    let name = if kafka { "three_hindered_kafka" } else { "three_hindered" };
    let first = Mongod::start(&format!("{name}_first"), Flavour::Replica).await;
    let mut three = Three::set(name, &first.uri(), kafka, FREEZE).await;
    let text = std::fs::read_to_string(&three.file).expect("the file");
    let usual = "cutover: { max_lag: 10s, deadline: 30s }";
    assert!(text.contains(usual));
    std::fs::write(&three.file, text.replace(usual, CUTOVER)).expect("the file can be written");
    three.marina.fill(&mut chance, 40).await;
    let other = three.other().await;
    let processes = three.start_all();
    let mut all = Rounds { three, other, processes, people: [People::new(), People::new()] };
    let mut counted: BTreeMap<String, u32> = BTreeMap::new();
    for round in 0..rounds {
        let hindrance = HINDRANCES[(seed + round) as usize % HINDRANCES.len()];
        let end = all.round(hindrance, &mut chance).await;
        println!("{round}: {hindrance:?}, {end}");
        *counted.entry(format!("{hindrance:?}, {end}")).or_default() += 1;
    }
    println!("{counted:?}");
    let Rounds { three, processes, .. } = all;
    for process in processes {
        process.stop().await;
    }
    three.clear(Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hindered_switch_is_made_or_unmade() {
    hindered(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hindered_switch_is_made_or_unmade_over_kafka() {
    hindered(true).await;
}
