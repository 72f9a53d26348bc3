//! Sequences that have no number left, and sequences that would give numbers which rows have already.

use std::path::Path;

use bson::{Document, doc};

use crate::letters::letters;
use crate::stage::{PATIENCE, Stage, until};

const EXHAUSTED: &str = "
CREATE TABLE few (id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n bigint NOT NULL);
ALTER TABLE few ALTER COLUMN id RESTART WITH 32764;
CREATE TABLE many (id serial PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE refs (id uuid PRIMARY KEY, n bigint NOT NULL, few_id smallint REFERENCES few);";

const EXHAUSTED_FILE: &str = r#"migration: exhausted
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.few: { into: few, columns: { id: { serial: _id }, n: { integer: _id } } }
  legacy.many: { into: many, columns: { id: { serial: _id }, n: { integer: _id } } }
  legacy.refs: { into: refs, columns: { id: { uuid: _id }, n: { integer: _id }, few_id: { ref: few, to: legacy.few, invalid: null } } }
"#;

const SEEDED: &str = "
CREATE TABLE cats (id serial PRIMARY KEY, name text NOT NULL);
INSERT INTO cats (id, name) VALUES (1, 'seed 1'), (2, 'seed 2'), (3, 'seed 3');";

const SEEDED_FILE: &str = r#"migration: seeded
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.cats: { into: cats, columns: { id: { serial: _id }, name: name } }
"#;

async fn insert(stage: &Stage, ids: std::ops::RangeInclusive<i64>) {
    for name in ["few", "many", "refs"] {
        let documents = ids.clone().map(|id| doc! {"_id": id, "few": id});
        stage.source.collection::<Document>(name).insert_many(documents).await.expect("documents");
    }
}

async fn count(stage: &Stage, sql: &str) -> i64 {
    stage.target.query_one(&format!("SELECT count(*) FROM {sql}"), &[]).await.expect("rows").get(0)
}

fn lack(count: i64) -> Vec<(String, String, i64)> {
    ["few", "refs"].map(|name| (format!("legacy.{name}"), "range".to_owned(), count)).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_without_a_number_are_letters_and_all_others_are_written() {
    let stage = Stage::new("numbers_exhausted").await;
    stage.target.batch_execute(EXHAUSTED).await.expect("the tables can be created");
    let file = stage.file("migration.yaml", EXHAUSTED_FILE);
    insert(&stage, 1..=6).await;
    let mut process = stage.run(&file);
    let mut settled = async |what: &str, many: i64, letters_of: Vec<_>| {
        until(what, PATIENCE, async || {
            process.still_runs();
            let there = count(&stage, "many").await == many;
            (there && letters(&stage).await == letters_of).then_some(())
        })
        .await;
        let wrong = "refs AS r WHERE NOT EXISTS (SELECT FROM few AS f WHERE f.id = r.few_id AND f.n = r.n)";
        assert_eq!(count(&stage, wrong).await, 0, "{what}: a reference to another row, or to none");
        assert_eq!(count(&stage, "few WHERE id = 0").await, 0, "{what}");
    };
    // There are four numbers left; which documents have them is open.
    settled("the copy", 6, lack(2)).await;
    assert_eq!(count(&stage, "few WHERE id BETWEEN 32764 AND 32767").await, 4);
    insert(&stage, 7..=9).await;
    settled("the stream", 9, lack(5)).await;
    assert_eq!((count(&stage, "few").await, count(&stage, "refs").await), (4, 4));
    let reasons =
        stage.target.query("SELECT reason FROM slackwater.dead_letters", &[]).await.expect("letters");
    assert!(reasons.iter().all(|row| row.get::<_, String>(0).contains("no number left")), "{reasons:?}");
    let wider = "ALTER SEQUENCE few_id_seq AS integer; ALTER TABLE few ALTER COLUMN id TYPE integer;
                 ALTER TABLE refs ALTER COLUMN few_id TYPE integer";
    stage.target.batch_execute(wider).await.expect("there is room now");
    settled("a sequence with numbers", 9, Vec::new()).await;
    until("all have a number", PATIENCE, async || {
        (count(&stage, "few").await == 9 && count(&stage, "refs").await == 9).then_some(())
    })
    .await;
    process.stop().await;
    stage.clear().await;
}

async fn check(stage: &Stage, file: &Path) -> (bool, String) {
    let output = stage.output(&["check", file.to_str().expect("a path in UTF-8"), "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("check prints JSON");
    (output.status.success(), report["diagnostics"].to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_behind_the_rows_is_refused() {
    let stage = Stage::new("numbers_seeded").await;
    stage.target.batch_execute(SEEDED).await.expect("the tables can be created");
    let file = stage.file("migration.yaml", SEEDED_FILE);
    let cats = stage.source.collection::<Document>("cats");
    cats.insert_many((1..=2).map(|id| doc! {"_id": id, "name": format!("document {id}")}))
        .await
        .expect("cats");
    let remedy = r#"SELECT setval('public.cats_id_seq'::regclass, (SELECT max("id") FROM "public"."cats"))"#;
    let (fit, said) = check(&stage, &file).await;
    assert!(!fit && said.replace("\\\"", "\"").contains(remedy), "{said}");
    let start = stage.output(&["run", file.to_str().expect("a path in UTF-8")]).await;
    let said = String::from_utf8_lossy(&start.stderr).into_owned();
    assert!(start.status.code() == Some(4) && said.contains("setval"), "{said}");
    stage.target.batch_execute(remedy).await.expect("the remedy");
    let (fit, said) = check(&stage, &file).await;
    assert!(fit, "{said}");
    let mut process = stage.run(&file);
    until("the documents have rows of their own", PATIENCE, async || {
        process.still_runs();
        let there = count(&stage, "cats WHERE id > 3 AND name LIKE 'document %'").await == 2;
        (there && count(&stage, "cats WHERE name = 'seed ' || id").await == 3).then_some(())
    })
    .await;
    process.stop().await;
    // What it took itself does not keep the next start.
    let mut process = stage.run(&file);
    cats.insert_one(doc! {"_id": 3, "name": "document 3"}).await.expect("a cat");
    until("the third has one too", PATIENCE, async || {
        process.still_runs();
        (count(&stage, "cats").await == 6).then_some(())
    })
    .await;
    process.stop().await;
    stage.clear().await;
}
