//! One migration of two sources, on two servers: one that is away leaves the other alone, each loses its own history, and the switch
//! freezes both or neither.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bson::{Document, doc};
use mongodb::Database;
use serde_json::Value;

use crate::letters::letters;
use crate::stage::broker::shared;
use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::{PATIENCE, Slackwater, Stage, state, until};

const SCHEMA: &str = "
CREATE TABLE people (id uuid PRIMARY KEY, tenant text NOT NULL, n integer NOT NULL, v integer NOT NULL);
CREATE TABLE orders (id uuid PRIMARY KEY, n integer NOT NULL, person_id uuid NOT NULL REFERENCES people);";

/// Both sources fill `people`; orders of the second refer to people of the first. `apart`: a constant tells the people apart.
fn file(other: &str, freeze: &str, apart: bool) -> String {
    let tenant = |name: &str| if apart { format!("{{ const: {name} }}") } else { "tenant".to_owned() };
    let people = |name: &str| {
        format!(
            "  {name}.people:\n    - into: people\n      columns: {{ id: {{ uuid: _id }}, tenant: {}, n: {{ integer: _id }}, v: {{ integer: v }} }}\n",
            tenant(name)
        )
    };
    format!(
        "migration: sources\nsources:\n  a: {{ mongodb: {{ uri: \"${{SLACKWATER_MONGODB_URI}}\", database: \"${{SOURCE_DATABASE}}\" }} }}\n  \
         b: {{ mongodb: {{ uri: \"{other}\", database: \"${{SOURCE_DATABASE}}\" }}{freeze} }}\n\
         target: {{ postgres: {{ uri: \"${{SLACKWATER_POSTGRES_URL}}\", schema: public }} }}\ncollections:\n{}{}  \
         b.orders:\n    - into: orders\n      columns: {{ id: {{ uuid: _id }}, n: {{ integer: _id }}, person_id: {{ ref: person, to: a.people }} }}\n",
        people("a"),
        people("b")
    )
}

/// Two sources, and what runs.
struct Two {
    stage: Stage,
    other: Database,
    pipeline: Option<(crate::stage::records::Topics, String)>,
    file: PathBuf,
}

impl Two {
    /// With some people and orders in both.
    async fn set(name: &str, first: &str, second: &Mongod, kafka: bool, text: &str) -> Self {
        let stage = Stage::at(name, first).await;
        stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
        let client = mongodb::Client::with_uri_str(second.uri()).await.expect("a URI");
        let other = client.database(&stage.name);
        let two = if kafka {
            let pipeline = Pipeline::on(stage, text, &Log { partitions: 2, ..Log::at(&shared()) }).await;
            let Pipeline { stage, file, topics, group } = pipeline;
            Self { stage, other, file, pipeline: Some((topics, group)) }
        } else {
            let file = stage.file("migration.yaml", text);
            Self { stage, other, file, pipeline: None }
        };
        two.write(&two.stage.source, "people", 0..300).await;
        two.write(&two.other, "people", 0..200).await;
        two.write(&two.other, "orders", 0..250).await;
        two
    }

    async fn write(&self, database: &Database, collection: &str, numbers: std::ops::Range<i32>) {
        let document = |n: i32| doc! {"_id": n, "v": n, "person": n, "tenant": "of the document"};
        let inserted = database.collection::<Document>(collection).insert_many(numbers.map(document)).await;
        inserted.expect("documents can be inserted");
    }

    fn path(&self) -> &str {
        self.file.to_str().expect("a path in UTF-8")
    }

    /// With Kafka a capture for each source, and an applier.
    fn start(&self) -> Vec<Slackwater> {
        if self.pipeline.is_none() {
            return vec![self.stage.run(&self.file)];
        }
        let capture = |name: &str| {
            self.stage.start(&["capture", self.path(), "--source", name], &format!("capture_{name}"))
        };
        vec![capture("a"), capture("b"), self.stage.start(&["apply", self.path(), "--member", "one"], "one")]
    }

    async fn people(&self, database: &Database) -> BTreeMap<i32, i32> {
        let mut cursor = database.collection::<Document>("people").find(doc! {}).await.expect("people");
        let mut people = BTreeMap::new();
        while cursor.advance().await.expect("people can be read") {
            let person = cursor.deserialize_current().expect("a document");
            people.insert(person.get_i32("_id").expect("a number"), person.get_i32("v").expect("a number"));
        }
        people
    }

    /// What the table has of one source.
    async fn rows(&self, tenant: &str) -> BTreeMap<i32, i32> {
        let rows = self.stage.target.query("SELECT n, v FROM people WHERE tenant = $1", &[&tenant]).await;
        rows.expect("rows").iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Waits until the people of a source are its rows.
    async fn shows(&self, tenant: &str, processes: &mut [Slackwater]) {
        let database = if tenant == "a" { &self.stage.source } else { &self.other };
        let people = self.people(database).await;
        until(&format!("the people of {tenant} are there"), PATIENCE, async || {
            processes.iter_mut().for_each(Slackwater::still_runs);
            (self.rows(tenant).await == people).then_some(())
        })
        .await;
    }

    async fn orders(&self) -> i64 {
        let row = self.stage.target.query_one("SELECT count(*) FROM orders", &[]).await;
        row.expect("orders can be counted").get(0)
    }

    /// A field of a source, as `status` has it.
    async fn of_source(&self, name: &str, field: &str) -> Value {
        let status = self.stage.status(&self.file).await;
        let sources = status["sources"].as_array().cloned().unwrap_or_default();
        sources
            .iter()
            .find(|source| source["name"] == name)
            .map(|source| source[field].clone())
            .unwrap_or_default()
    }

    async fn clear(self, processes: Vec<Slackwater>) {
        drop(processes);
        if let Some((topics, group)) = self.pipeline {
            topics.delete().await;
            topics.delete_group(&group).await;
        }
        self.stage.clear().await;
    }
}

async fn away(kafka: bool) {
    let second = Mongod::start(&format!("away_{kafka}"), Flavour::Replica).await;
    let shared = crate::stage::variable("SLACKWATER_MONGODB_URI");
    let text = file(&second.uri(), "", true);
    let two = Two::set(&format!("sources_{kafka}"), &shared, &second, kafka, &text).await;
    // Away when everything starts.
    second.signal("STOP").await;
    let mut processes = two.start();
    let first = if kafka { 1 } else { 0 };
    let people = two.people(&two.stage.source).await;
    until("the first source is copied without the second", PATIENCE, async || {
        processes[0].still_runs();
        (two.rows("a").await == people).then_some(())
    })
    .await;
    let status = two.stage.status(&two.file).await;
    assert_eq!(
        status["lag_ms"],
        Value::Null,
        "what is not known of one source is not known of all: {status:#}"
    );
    second.signal("CONT").await;
    if kafka && processes[first].ended().is_some() {
        // A capture of its own ends where its only source is away, and is started again by whoever watches it.
        processes[first] = two.stage.start(&["capture", two.path(), "--source", "b"], "capture_b");
    }
    two.shows("b", &mut processes).await;
    until("the orders are there", PATIENCE, async || (two.orders().await == 250).then_some(())).await;

    // Away while everything runs.
    second.signal("STOP").await;
    until("it is said that it is away", PATIENCE, async || {
        let trouble = two.of_source("b", "trouble").await;
        trouble.as_str().is_some_and(|text| text.contains("source b has not answered")).then_some(())
    })
    .await;
    for round in 0..10 {
        two.write(&two.stage.source, "people", 1_000 + round * 10..1_010 + round * 10).await;
        two.shows("a", &mut processes).await;
    }
    let lag = two.of_source("a", "lag_ms").await;
    println!("the first source is {lag} ms behind while the second is away");
    assert!(lag.as_i64().is_some_and(|lag| lag < 10_000), "{lag}");
    second.signal("CONT").await;
    two.write(&two.other, "people", 1_000..1_100).await;
    two.write(&two.other, "orders", 1_000..1_100).await;
    two.shows("b", &mut processes).await;
    until("the orders are there", PATIENCE, async || (two.orders().await == 350).then_some(())).await;
    assert!(letters(&two.stage).await.is_empty());
    for process in processes {
        process.stop().await;
    }
    two.clear(Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_away_leaves_the_other_alone() {
    away(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_away_leaves_the_other_alone_over_kafka() {
    away(true).await;
}

/// `people` is filled from both: what one loses takes nothing from the other.
async fn lost(kafka: bool) {
    let second = Mongod::start(&format!("lost_{kafka}"), Flavour::Replica).await;
    let shared = crate::stage::variable("SLACKWATER_MONGODB_URI");
    let text = file(&second.uri(), "", true);
    let two = Two::set(&format!("sources_lost_{kafka}"), &shared, &second, kafka, &text).await;
    let mut processes = two.start();
    two.shows("a", &mut processes).await;
    two.shows("b", &mut processes).await;
    two.stage.source.collection::<Document>("people").drop().await.expect("a collection can be dropped");
    two.write(&two.stage.source, "people", 250..260).await;
    two.shows("a", &mut processes).await;
    two.shows("b", &mut processes).await;
    let generation = "SELECT generation FROM slackwater.collections WHERE collection = 'b.people'";
    let rows = state::rows(&two.stage.target, generation).await;
    assert_eq!(rows[0].get::<_, i32>(0), 1, "the second source was not copied again");
    // Orders of the second whose people are gone from the first wait for them.
    until("the orders wait", PATIENCE, async || (two.orders().await == 0).then_some(())).await;
    two.write(&two.stage.source, "people", 0..250).await;
    until("the orders are back", PATIENCE, async || (two.orders().await == 250).then_some(())).await;
    for process in processes {
        process.stop().await;
    }
    two.clear(Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_loses_takes_nothing_from_the_other() {
    lost(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_loses_takes_nothing_from_the_other_over_kafka() {
    lost(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_be_told_apart_are_not_swept() {
    let second = Mongod::start("apart", Flavour::Replica).await;
    let shared = crate::stage::variable("SLACKWATER_MONGODB_URI");
    let text = file(&second.uri(), "", false);
    let two = Two::set("sources_apart", &shared, &second, false, &text).await;
    let output = two.stage.output(&["check", two.path()]).await;
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    assert!(said.contains("nothing tells their rows apart"), "{said}");
    let mut processes = two.start();
    let all = async || two.rows("of the document").await.len();
    until("everyone is there", PATIENCE, async || (all().await == 300).then_some(())).await;
    let count = "SELECT count(*) FROM people";
    let people = async || two.stage.target.query_one(count, &[]).await.expect("a count").get::<_, i64>(0);
    until("everyone is there", PATIENCE, async || (people().await == 500).then_some(())).await;
    two.stage.source.collection::<Document>("people").drop().await.expect("a collection can be dropped");
    two.write(&two.stage.source, "people", 300..310).await;
    until("the copy is made again", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let told = state::incidents(&two.stage.target).await;
        told.iter().any(|incident| incident.contains("recopied")).then_some(())
    })
    .await;
    assert_eq!(people().await, 510, "no row was taken for one of the other source");
    processes.remove(0).stop().await;
    two.clear(processes).await;
}

/// Its rows stay, and the switch does not wait for it.
async fn left(kafka: bool) {
    let first = Mongod::start(&format!("left_a_{kafka}"), Flavour::Replica).await;
    let second = Mongod::start(&format!("left_b_{kafka}"), Flavour::Replica).await;
    let both = file(&second.uri(), "", true)
        + "not_migrated: [ b.people ]\ncutover: { max_lag: 10s, deadline: 20s }\n";
    // A table of its own: the others are compared with what the sources have that are left.
    let (people, orders) =
        (both.find("  b.people:").expect("people"), both.find("  b.orders:").expect("orders"));
    let text = format!("{}{}", &both[..people], &both[orders..]);
    let mut two = Two::set(&format!("sources_left_{kafka}"), &first.uri(), &second, kafka, &text).await;
    let mut processes = two.start();
    two.shows("a", &mut processes).await;
    until("the orders are there", PATIENCE, async || (two.orders().await == 250).then_some(())).await;
    for process in processes {
        process.stop().await;
    }
    let both = std::fs::read_to_string(&two.file).expect("the file");
    let (begin, end) =
        (both.find("  b.orders:").expect("its collection"), both.find("cutover:").expect("the end"));
    let alone = format!("{}{}", &both[..begin], &both[end..]);
    let alone: String = alone.split_inclusive('\n').filter(|line| !line.starts_with("  b: ")).collect();
    two.file = two.stage.file("alone.yaml", &alone);
    let mut processes = match kafka {
        true => vec![
            two.stage.start(&["capture", two.path()], "capture_a"),
            two.stage.start(&["apply", two.path(), "--member", "one"], "one"),
        ],
        false => two.start(),
    };
    two.write(&two.stage.source, "people", 1_000..1_010).await;
    two.shows("a", &mut processes).await;
    let report = until("this machine is quick enough for a switch", PATIENCE, async || {
        let output = two.stage.output(&["cutover", two.path(), "--json"]).await;
        let said = String::from_utf8_lossy(&output.stdout);
        output.status.success().then(|| serde_json::from_str::<Value>(&said).expect("a report"))
    })
    .await;
    assert_eq!(report["state"], "open", "{report:#}");
    assert_eq!(two.orders().await, 250, "what it has brought stays");
    let thaw = doc! {"setUserWriteBlockMode": 1, "global": false};
    two.stage.source.client().database("admin").run_command(thaw).await.expect("it can be unfrozen");
    two.clear(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_leaves_the_file_is_not_waited_for() {
    left(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_leaves_the_file_is_not_waited_for_over_kafka() {
    left(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_are_frozen_or_neither() {
    let first = Mongod::start("switch_a", Flavour::Replica).await;
    let second = Mongod::start("switch_b", Flavour::Replica).await;
    let freeze = |end: &str| {
        format!(
            ", freeze: {{ command: {{ freeze: [ sh, -c, \"touch frozen; {end}\" ], unfreeze: [ rm, -f, frozen ] }} }}"
        )
    };
    let text =
        file(&second.uri(), &freeze("sleep 1; false"), true) + "cutover: { max_lag: 10s, deadline: 20s }\n";
    let two = Two::set("sources_switch", &first.uri(), &second, false, &text).await;
    let mut processes = two.start();
    two.shows("a", &mut processes).await;
    two.shows("b", &mut processes).await;
    until("the orders are there", PATIENCE, async || (two.orders().await == 250).then_some(())).await;
    let switch = async |file: &PathBuf| {
        let path = file.to_str().expect("a path in UTF-8");
        until("this machine is quick enough for a switch", PATIENCE, async || {
            let output = two.stage.output(&["cutover", path, "--json"]).await;
            let said = String::from_utf8_lossy(&output.stdout);
            let report: Value = serde_json::from_str(&said)
                .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
            (output.status.code() != Some(8)).then_some((output.status.code(), report))
        })
        .await
    };
    let (code, report) = switch(&two.file).await;
    assert_eq!((code, &report["state"]), (Some(9), &"reverted".into()), "{report:#}");
    assert!(
        report["reason"].as_str().is_some_and(|reason| reason.contains("freezing source b")),
        "{report:#}"
    );
    assert!(!two.stage.folder.join("frozen").exists(), "the second may be written to");
    two.write(&two.stage.source, "people", 2_000..2_010).await;
    two.shows("a", &mut processes).await;

    let good = text.replace(&freeze("sleep 1; false"), &freeze("true"));
    let good = two.stage.file("good.yaml", &good);
    let (code, report) = switch(&good).await;
    assert_eq!((code, &report["state"]), (Some(0), &"open".into()), "{report:#}");
    println!("freeze to open {} ms", report["gap_ms"]);
    assert_eq!(report["freeze"], "a: MongoDB refuses writers; b: the team's command stops the writers");
    let refused = two.stage.source.collection::<Document>("people").insert_one(doc! {"_id": 5_000}).await;
    refused.expect_err("nobody may write to the first source any more");
    assert!(two.stage.folder.join("frozen").exists(), "nor to the second");
    for (tenant, database) in [("a", &two.stage.source), ("b", &two.other)] {
        assert_eq!(two.rows(tenant).await, two.people(database).await);
    }
    let thaw = doc! {"setUserWriteBlockMode": 1, "global": false};
    two.stage.source.client().database("admin").run_command(thaw).await.expect("it can be unfrozen");
    two.clear(processes).await;
}
