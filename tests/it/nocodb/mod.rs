//! NocoDB as a source, on the real server: live edits of every kind through its API, processes that are killed, a switch, and a MongoDB
//! beside it. What the target has to show is known from the edits alone.

#[path = "../../../connectors/tests/stage/base.rs"]
mod base;
mod hindered;
mod marina;
mod server;
mod three;

use std::cell::Cell;
use std::time::Duration;

use bson::{Document, doc};
use serde_json::Value;
use slackwater_migrations::Chance;

use self::marina::{Marina, SCHEMA};
use crate::letters::letters;
use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::ports::free_ports;
use crate::stage::{PATIENCE, Slackwater, Stage, number, until};

/// Each pass costs a request a table at least, and the server has other tests to serve.
const LONG: Duration = Duration::from_secs(300);

/// A migration of a base, and of a MongoDB beside it.
struct Trial {
    marina: Marina,
    stage: Stage,
    file: std::path::PathBuf,
    kafka: Option<(crate::stage::records::Topics, String)>,
}

impl Trial {
    async fn set(name: &str, kafka: bool) -> Self {
        let marina = Marina::new().await;
        let stage = Stage::new(name).await;
        stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
        let text = marina.file();
        if kafka {
            let pipeline = Pipeline::on(stage, &text, &Log { partitions: 2, ..Log::at(&shared()) }).await;
            let Pipeline { stage, file, topics, group } = pipeline;
            return Self { marina, stage, file, kafka: Some((topics, group)) };
        }
        let file = stage.file("migration.yaml", &text);
        Self { marina, stage, file, kafka: None }
    }

    fn path(&self) -> &str {
        self.file.to_str().expect("a path in UTF-8")
    }

    fn count(&self) -> usize {
        if self.kafka.is_some() { 3 } else { 1 }
    }

    fn start(&self, which: usize) -> Slackwater {
        match (self.kafka.is_some(), which) {
            (false, _) => self.stage.run(&self.file),
            (true, 0) => self.stage.start(&["capture", self.path()], "capture"),
            (true, 1) => self.stage.start(&["apply", self.path(), "--member", "one"], "one"),
            (true, _) => self.stage.start(&["apply", self.path(), "--member", "two"], "two"),
        }
    }

    /// Waits until the rows are what the edits say.
    async fn equal(&self, processes: &mut [Slackwater]) {
        let mut last = String::new();
        until("the target is what the edits say", LONG, async || {
            processes.iter_mut().for_each(Slackwater::still_runs);
            let differs = self.marina.differs(&self.stage.target).await;
            if let Some(differs) = differs.as_ref().filter(|differs| **differs != last) {
                println!("{differs}");
                last.clone_from(differs);
            }
            differs.is_none().then_some(())
        })
        .await;
    }

    async fn clear(self, processes: Vec<Slackwater>) {
        drop(processes);
        if let Some((topics, group)) = self.kafka {
            topics.delete().await;
            topics.delete_group(&group).await;
        }
        self.stage.clear().await;
    }
}

async fn edited(kafka: bool) {
    let seed = number("SLACKWATER_TEST_SEED", 7);
    let (rounds, kills) = (number("SLACKWATER_TEST_EDITS", 60), number("SLACKWATER_TEST_KILLS", 3));
    println!("seed {seed}, {rounds} edits and a kill, {kills} times");
    let mut chance = Chance::new(seed);
    let mut trial = Trial::set(if kafka { "nocodb_kafka" } else { "nocodb_direct" }, kafka).await;
    trial.marina.fill(&mut chance, number("SLACKWATER_TEST_BOATS", 150)).await;
    let mut processes: Vec<Slackwater> = (0..trial.count()).map(|which| trial.start(which)).collect();
    for kill in 0..=kills {
        for _ in 0..rounds {
            trial.marina.edit(&mut chance).await;
        }
        if kill < kills {
            let which = chance.below(processes.len() as u64) as usize;
            processes.remove(which).kill().await;
            processes.insert(which, trial.start(which));
        }
    }
    trial.equal(&mut processes).await;
    // Nothing is sent twice that has not changed, and a table that nobody touches is not written to.
    let status = trial.stage.status(&trial.file).await;
    println!("lag {}, {} incidents", status["lag_ms"], status["incidents_total"]);
    assert!(letters(&trial.stage).await.is_empty());
    trial.stage.verifies(&trial.file).await;
    for process in processes {
        process.stop().await;
    }
    trial.clear(Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_every_kind_arrive() {
    edited(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_every_kind_arrive_over_kafka() {
    edited(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_switch_waits_for_the_last_edit() {
    let mut chance = Chance::new(number("SLACKWATER_TEST_SEED", 11));
    let mut trial = Trial::set("nocodb_switch", false).await;
    trial.marina.fill(&mut chance, 60).await;
    let mut processes = vec![trial.start(0)];
    trial.equal(&mut processes).await;
    for round in 0..number("SLACKWATER_TEST_CUTOVERS", 2) {
        for _ in 0..30 {
            trial.marina.edit(&mut chance).await;
        }
        // Nobody edits from here on: the last edits are not in the target yet.
        let (code, report) = until("this machine is quick enough for a switch", LONG, async || {
            let output = trial.stage.output(&["cutover", trial.path(), "--json"]).await;
            let said = String::from_utf8_lossy(&output.stdout);
            let report: Value = serde_json::from_str(&said)
                .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
            (output.status.code() != Some(8)).then_some((output.status.code(), report))
        })
        .await;
        assert_eq!((code, &report["state"]), (Some(0), &"open".into()), "{report:#}");
        println!("{round}: freeze to open {} ms", report["gap_ms"]);
        assert_eq!(trial.marina.differs(&trial.stage.target).await, None);
        // Once more, from the state before.
        let again = "DELETE FROM slackwater.cutovers";
        if round == 0 {
            trial.stage.target.batch_execute(again).await.expect("the record of the switch can go");
            processes = vec![trial.start(0)];
            trial.equal(&mut processes).await;
        }
    }
    trial.clear(processes).await;
}

/// Its freeze does nothing, and somebody goes on. Renames alone: counting rows and records would find the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_is_still_written_to_is_not_switched() {
    let mut chance = Chance::new(number("SLACKWATER_TEST_SEED", 19));
    let mut trial = Trial::set("nocodb_not_frozen", false).await;
    trial.marina.fill(&mut chance, 40).await;
    let mut processes = vec![trial.start(0)];
    trial.equal(&mut processes).await;
    let (path, stage, marina) = (trial.path().to_owned(), &trial.stage, &mut trial.marina);
    // The last rename is finished, or nobody would know whether it was made.
    let over = Cell::new(false);
    let switching = async {
        let ended = until("the switch has begun", PATIENCE, async || {
            let output = stage.output(&["cutover", &path, "--json"]).await;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            // A rehearsal may be too slow for a busy machine.
            (output.status.code() != Some(8) && !said.contains("fence_slow"))
                .then_some((output.status.code(), said))
        })
        .await;
        over.set(true);
        ended
    };
    let renaming = async {
        while !over.get() {
            marina.rename(&mut chance).await;
        }
    };
    let ((code, said), ()) = tokio::join!(switching, renaming);
    assert_eq!(code, Some(9), "{said}");
    let report: Value = serde_json::from_str(&said).expect("a report");
    assert_eq!(report["state"], "reverted", "{report:#}");
    let wanted = "not_frozen: somebody still writes to source base: records of Boats were created or changed";
    assert!(report["reason"].as_str().is_some_and(|reason| reason.starts_with(wanted)), "{report:#}");
    trial.equal(&mut processes).await;
    processes.remove(0).stop().await;
    trial.clear(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_found_with_their_place() {
    let trial = Trial::set("nocodb_mistakes", false).await;
    let text = trial.marina.file();
    for (right, wrong, words) in [
        ("base.Boats:", "base.Boots:", &["has no table `Boots`", "did you mean `base.Boats`?"][..]),
        ("name: Name", "name: Nmae", &["the table `Boats` has no column `Nmae`", "did you mean `Name`?"]),
        ("${SLACKWATER_NOCODB_TOKEN}", "not a token", &["NocoDB does not accept the token"]),
    ] {
        assert!(text.contains(right), "{right}");
        let file = trial.stage.file("wrong.yaml", &text.replacen(right, wrong, 1));
        let output = trial.stage.output(&["check", file.to_str().expect("a path in UTF-8")]).await;
        let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
        assert!(!output.status.success(), "{said}");
        let flat = said.replace(['│', '×', '⚠'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(flat.contains(word), "`check` does not say `{word}`:\n{said}");
        }
    }
    let output = trial.stage.output(&["check", trial.path()]).await;
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    let line = said.lines().find(|line| line.contains("base.Boats")).expect("a line of each collection");
    assert!(line.trim_end().ends_with('-'), "only MongoDB has post-images: {line}");
    trial.clear(Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_mongodb_in_one_migration() {
    let mut chance = Chance::new(number("SLACKWATER_TEST_SEED", 13));
    let marina = Marina::new().await;
    let stage = Stage::new("nocodb_beside").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    let guests = "CREATE TABLE guests (id uuid PRIMARY KEY, n integer NOT NULL, boat_id uuid NOT NULL REFERENCES boats)";
    stage.target.batch_execute(guests).await.expect("a table");
    let text = marina.file().replace(
        "sources:\n",
        "sources:\n  legacy: { mongodb: { uri: \"${SLACKWATER_MONGODB_URI}\", database: \"${SOURCE_DATABASE}\" } }\n",
    ) + "  legacy.guests:\n    - into: guests\n      columns: { id: { uuid: _id }, n: { integer: _id }, boat_id: { ref: boat, to: base.Boats } }\n";
    let file = stage.file("migration.yaml", &text);
    let mut trial = Trial { marina, stage, file, kafka: None };
    trial.marina.fill(&mut chance, 40).await;
    let boats = trial.marina.boats();
    let documents = boats.iter().enumerate().map(|(n, boat)| doc! {"_id": n as i32, "boat": *boat});
    let guests = trial.stage.source.collection::<Document>("guests");
    guests.insert_many(documents).await.expect("guests can be inserted");
    let mut processes = vec![trial.start(0)];
    for _ in 0..30 {
        trial.marina.edit(&mut chance).await;
    }
    trial.equal(&mut processes).await;
    // Those whose boat is gone wait, as for any other source.
    let expected = boats.iter().filter(|boat| trial.marina.boats().contains(boat)).count() as i64;
    until("the guests are where their boats are", PATIENCE, async || {
        let row = trial.stage.target.query_one("SELECT count(*) FROM guests", &[]).await;
        (row.expect("a count").get::<_, i64>(0) == expected).then_some(())
    })
    .await;
    let status = trial.stage.status(&trial.file).await;
    let sources: Vec<(Value, Value)> = status["sources"]
        .as_array()
        .expect("sources")
        .iter()
        .map(|source| (source["name"].clone(), source["kind"].clone()))
        .collect();
    assert_eq!(sources, [("base".into(), "nocodb".into()), ("legacy".into(), "mongodb".into())]);
    // Each says what is its own.
    for (source, collections, tables) in [("base", 3, 4), ("legacy", 1, 1)] {
        let line = format!(
            "started migration=\"marina\" source=\"{source}\" collections={collections} tables={tables}"
        );
        assert!(processes[0].said(&line), "{line}:\n{}", processes[0].tail());
    }
    processes.remove(0).stop().await;
    trial.clear(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_table_that_is_deleted_wait_for_a_word() {
    let mut chance = Chance::new(number("SLACKWATER_TEST_SEED", 5));
    let mut trial = Trial::set("nocodb_deleted", false).await;
    trial.marina.fill(&mut chance, 30).await;
    let mut processes = vec![trial.start(0)];
    trial.equal(&mut processes).await;
    let boats = trial.marina.boats().len() as i64;
    let rows = async || {
        let row = trial.stage.target.query_one("SELECT count(*) FROM boats", &[]).await;
        row.expect("boats can be counted").get::<_, i64>(0)
    };
    trial.marina.sink().await;
    until("it is said that it is gone", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let status = trial.stage.status(&trial.file).await;
        (status["gone"][0]["collection"] == "base.Boats").then_some(())
    })
    .await;
    assert_eq!(rows().await, boats, "people may be working on them");
    let output = trial.stage.output(&["resolve", trial.path(), "base.Boats", "--follow"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    trial.equal(&mut processes).await;
    assert_eq!(rows().await, 0);
    processes.remove(0).stop().await;
    trial.clear(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_makes_the_next_poll_come_at_once() {
    let mut chance = Chance::new(number("SLACKWATER_TEST_SEED", 9));
    let mut trial = Trial::set("nocodb_webhook", false).await;
    let word = "a-word-that-nobody-guesses";
    let seldom = format!("every: 3600s, sweep: 3600s, webhook: {word}");
    let text = trial.marina.file();
    let text = text.replace("every: 300ms, sweep: 1500ms", &seldom);
    assert!(text.contains(word));
    trial.file = trial.stage.file("seldom.yaml", &text);
    trial.marina.fill(&mut chance, 20).await;
    let [port] = free_ports();
    let at = format!("127.0.0.1:{port}");
    let mut process = trial.stage.start(&["run", trial.path(), "--listen", &at], "run");
    let client = reqwest::Client::new();
    let post = async |end: &str| {
        let sent = client.post(format!("http://{at}/changed/{end}")).send().await.ok()?;
        Some(sent.status().as_u16())
    };
    for _ in 0..2 {
        until("it is equal as soon as it is called", PATIENCE, async || {
            process.still_runs();
            post(word).await;
            trial.marina.differs(&trial.stage.target).await.is_none().then_some(())
        })
        .await;
        for _ in 0..5 {
            trial.marina.edit(&mut chance).await;
        }
    }
    assert_eq!(post("a-word-that-is-wrong").await, Some(404));
    assert!(!process.said(word), "the word is a secret");
    process.stop().await;
    trial.clear(Vec::new()).await;
}
