//! Killed again and again at random moments, in the copy too, while writers write: equal to the last row in the end,
//! nothing acknowledged is lost, and no row ever goes back.

use std::time::Duration;

use slackwater_migrations::Chance;
use slackwater_migrations::crm_demo::Pace;

use crate::stage::state;
use crate::stage::trial::Trial;
use crate::stage::{PATIENCE, number, until};

/// How often a process has said that it begins its work.
fn beginnings(trial: &Trial) -> usize {
    let said = std::fs::read_to_string(trial.stage.folder.join("run.log")).unwrap_or_default();
    said.matches("going on where it stopped").count() + said.matches(" started ").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_fifty_times_it_ends_equal() {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    let kills = number("SLACKWATER_TEST_KILLS", 50);
    let documents = number("SLACKWATER_TEST_KILL_DOCUMENTS", 30_000);
    let rate = number("SLACKWATER_TEST_RATE", 400);
    println!("seed {seed}, {kills} kills, {documents} documents, {rate} operations a second");
    let pace = Pace { writers: 4, rate: Some(rate as f64) };
    // Small chunks, so that kills fall between them too.
    let snapshot = "{ workers: 3, chunk_documents: 500 }";
    let trial = Trial::start("kill", seed, documents, snapshot, pace).await;
    let mut chance = Chance::of(seed, 0, 0);
    let mut in_copy = 0;
    for kill in 1..=kills {
        let begun = beginnings(&trial);
        let mut process = trial.stage.run(&trial.file);
        // Short lives hit the start, long ones get somewhere, however slow the machine is.
        let long = chance.percent(40);
        let life = if long { chance.between(20, 2_000) } else { chance.between(20, 500) };
        if long {
            until("it has begun", PATIENCE, async || {
                process.still_runs();
                (beginnings(&trial) > begun).then_some(())
            })
            .await;
        }
        // The random moment is the test; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(life as u64)).await;
        process.kill().await;
        let copied = state::copied(&trial.stage.target).await;
        let copy = state::copy(&trial.stage.target).await;
        in_copy += u64::from(!copied && copy.chunks > 0);
        println!(
            "kill {kill} after {life} ms{}, copied: {copied}, {copy:?}",
            if long { " at work" } else { "" }
        );
    }
    println!("{kills} kills, {in_copy} of them in the copy");
    assert!(in_copy > 0, "no kill fell into the copy: take another seed or more documents");
    let process = trial.stage.run(&trial.file);
    trial.end(process).await;
}
