//! What the switch counts, and what it says of tables that it cannot count.

use bson::doc;
use serde_json::Value;

use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::{PATIENCE, Stage, state, until};

const SCHEMA: &str = "
CREATE TABLE counters (oid text PRIMARY KEY, label text);
CREATE TABLE marks (counter text NOT NULL REFERENCES counters, at integer NOT NULL, PRIMARY KEY (counter, at));";

const FILE: &str = r#"migration: counted
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.counters:
    - { into: counters, columns: { oid: _id, label: label } }
    - { into: marks, each: "marks[]", columns: { counter: { parent: oid }, at: { integer: . } } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_key_is_the_value_of_the_id_is_counted() {
    let mongod = Mongod::start("counted", Flavour::Replica).await;
    let stage = Stage::at("cutover_counted", &mongod.uri()).await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    let documents = (0..50_i64).map(|n| doc! {"_id": format!("c{n}"), "label": "l", "marks": [1, 2]});
    stage.source.collection("counters").insert_many(documents).await.expect("documents");
    let file = stage.file("migration.yaml", FILE);
    let mut run = stage.run(&file);
    until("everything is copied", PATIENCE, async || {
        run.still_runs();
        state::copied(&stage.target).await.then_some(())
    })
    .await;
    stage
        .target
        .batch_execute("DELETE FROM marks; DELETE FROM counters WHERE oid = 'c7'")
        .await
        .expect("less");

    let plan = stage.output(&["cutover", "migration.yaml", "--plan"]).await;
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(
        plan.contains("as many rows as documents (1 table is not counted: public.marks), 0 checks"),
        "{plan}"
    );
    let switch = async |more: &[&str]| {
        until("this machine is quick enough for a switch", super::LONG, async || {
            let arguments = [&["cutover", "migration.yaml", "--report", "none", "--json"], more].concat();
            let output = stage.output(&arguments).await;
            let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            (super::slow(&said).is_none() && said["blockers"].is_null()).then_some(said)
        })
        .await
    };
    let said = switch(&[]).await;
    let reason = said["reason"].as_str().expect("a reason");
    assert!(reason.contains("public.counters has 49 rows for 50 documents of legacy.counters"), "{said:#}");

    let said = switch(&["--accept", "count_differs", "--reason", "it was taken out on purpose"]).await;
    assert_eq!(
        (&said["state"], &said["not_counted"]),
        (&"open".into(), &serde_json::json!(["public.marks"]))
    );
    let steps = said["steps"].as_array().expect("steps");
    let proof = steps.iter().find(|step| step["step"] == "proof").expect("the proof");
    let what = proof["what"].as_str().expect("words");
    assert!(what.contains("(1 table is not counted: public.marks)"), "{what}");
    until("the process ends by itself", PATIENCE, async || run.ended()).await;
    drop(run);
    super::thaw(&stage).await;
    stage.clear().await;
}
