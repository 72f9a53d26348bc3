//! Documents that cannot be written hold nobody up: they are listed with their reason, tried again by themselves and when
//! they change, and the list is empty when everything fits at last.

use std::path::PathBuf;

use bson::{Document, doc};
use mongodb::Collection;

use crate::stage::{PATIENCE, Slackwater, Stage, until};

pub(crate) const SCHEMA: &str = "
CREATE TABLE parents (id uuid PRIMARY KEY, n bigint NOT NULL, name text NOT NULL);
CREATE TABLE children (id uuid PRIMARY KEY, n bigint NOT NULL, parent_id uuid NOT NULL REFERENCES parents,
                       score integer NOT NULL CHECK (score < 1000));
CREATE INDEX ON children (parent_id);";

pub(crate) const FILE: &str = r#"migration: letters
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.parents:
    - into: parents
      columns: { id: { uuid: _id }, n: { integer: _id }, name: { text: name, null: reject } }
  legacy.children:
    - into: children
      columns:
        id: { uuid: _id }
        n: { integer: _id }
        parent_id: { ref: parent, to: legacy.parents, missing: reject }
        score: { integer: score }
"#;

async fn prepare(stage: &Stage) -> PathBuf {
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    stage.file("migration.yaml", FILE)
}

fn collection(stage: &Stage, name: &str) -> Collection<Document> {
    stage.source.collection(name)
}

pub(crate) async fn set(stage: &Stage, name: &str, id: i64, fields: Document) {
    let set = doc! {"$set": fields};
    collection(stage, name).update_one(doc! {"_id": id}, set).upsert(true).await.expect("it can be changed");
}

pub(crate) async fn delete(stage: &Stage, name: &str, id: i64) {
    collection(stage, name).delete_one(doc! {"_id": id}).await.expect("it can be deleted");
}

pub(crate) async fn numbers(stage: &Stage, table: &str) -> Vec<i64> {
    let rows = stage.target.query(&format!("SELECT n FROM {table} ORDER BY n"), &[]).await;
    rows.expect("rows can be read").iter().map(|row| row.get(0)).collect()
}

/// Collection, reason's kind and how many.
pub(crate) async fn letters(stage: &Stage) -> Vec<(String, String, i64)> {
    let sql = "SELECT collection, kind, count(*) FROM slackwater.dead_letters GROUP BY 1, 2 ORDER BY 1, 2";
    let Ok(rows) = stage.target.query(sql, &[]).await else { return Vec::new() };
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// Waits until these letters lie there, and none else.
async fn lie(stage: &Stage, process: &mut Slackwater, what: &str, wanted: &[(&str, &str, i64)]) {
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(collection, kind, count)| (format!("legacy.{collection}"), kind.to_string(), *count))
        .collect();
    let mut last = Vec::new();
    until(what, PATIENCE, async || {
        process.still_runs();
        let now = letters(stage).await;
        if now != last {
            println!("{what}: {now:?}");
            last.clone_from(&now);
        }
        (now == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_listed_and_tried_again() {
    let stage = Stage::new("letters").await;
    let file = prepare(&stage).await;
    for id in 1..=100_i64 {
        set(&stage, "parents", id, doc! {"name": format!("parent {id}")}).await;
        set(&stage, "children", id, doc! {"parent": id, "score": id}).await;
    }
    // No name; with it goes child 7, whose parent has no row then.
    collection(&stage, "parents")
        .replace_one(doc! {"_id": 7_i64}, doc! {})
        .await
        .expect("it can be replaced");
    set(&stage, "children", 50, doc! {"score": "many"}).await;
    set(&stage, "children", 51, doc! {"parent": 999_i64}).await;
    set(&stage, "children", 52, doc! {"score": 5_000}).await;
    let mut process = stage.run(&file);
    let at_first =
        [("children", "23503", 2), ("children", "23514", 1), ("children", "type", 1), ("parents", "null", 1)];
    lie(&stage, &mut process, "the copy lists what does not fit", &at_first).await;
    assert_eq!(numbers(&stage, "parents").await.len(), 99);
    assert_eq!(numbers(&stage, "children").await.len(), 96);
    let status = stage.status(&file).await;
    assert_eq!(status["dead_letters"].as_array().map(Vec::len), Some(4), "{status}");
    let reasons = stage.target.query("SELECT reason, table_name FROM slackwater.dead_letters", &[]).await;
    for row in reasons.expect("letters can be read") {
        let reason: String = row.get(0);
        println!("{reason}");
        assert!(!reason.contains("many") && !reason.contains("5000"), "a value is shown: {reason}");
    }

    // In the stream too; and what changes is tried at once.
    set(&stage, "children", 60, doc! {"score": 2_000}).await;
    set(&stage, "children", 50, doc! {"score": 50}).await;
    set(&stage, "children", 52, doc! {"score": 52}).await;
    delete(&stage, "parents", 3).await;
    let then =
        [("children", "23503", 2), ("children", "23514", 1), ("parents", "23503", 1), ("parents", "null", 1)];
    lie(&stage, &mut process, "changes settle letters and make new ones", &then).await;
    assert!(numbers(&stage, "parents").await.contains(&3), "a row that is referred to stays");

    // What the others wait for comes; nobody touches those themselves.
    set(&stage, "parents", 7, doc! {"name": "named at last"}).await;
    set(&stage, "parents", 999, doc! {"name": "late"}).await;
    set(&stage, "children", 60, doc! {"score": 60}).await;
    delete(&stage, "children", 3).await;
    lie(&stage, &mut process, "all letters are settled in the end", &[]).await;
    let children: Vec<i64> = (1..=100).filter(|id| *id != 3).collect();
    assert_eq!(numbers(&stage, "children").await, children);
    let parents: Vec<i64> = children.iter().copied().chain([999]).collect();
    assert_eq!(numbers(&stage, "parents").await, parents);
    process.stop().await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_tries_all_letters_again() {
    let stage = Stage::new("letters_at_start").await;
    let file = prepare(&stage).await;
    set(&stage, "children", 1, doc! {"parent": 1_i64, "score": 1}).await;
    let mut process = stage.run(&file);
    lie(&stage, &mut process, "a child without its parent", &[("children", "23503", 1)]).await;
    process.stop().await;
    let later = "UPDATE slackwater.dead_letters SET retry_at = now() + interval '1 hour'";
    stage.target.batch_execute(later).await.expect("a letter can be put off");
    set(&stage, "parents", 1, doc! {"name": "late"}).await;
    let mut process = stage.run(&file);
    lie(&stage, &mut process, "the letter is settled", &[]).await;
    assert_eq!(numbers(&stage, "children").await, [1]);
    process.stop().await;
    stage.clear().await;
}

const NAMES: &str = r#"migration: names
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.strict: { into: strict, columns: { id: { uuid: _id }, n: { integer: _id }, relation: relation } }
  legacy.lenient: { into: lenient, columns: { id: { uuid: _id }, n: { integer: _id }, config: { text: config, invalid: null } } }
"#;

/// Types whose values are names of something in the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_nothing_is_an_invalid_value() {
    let stage = Stage::new("letters_names").await;
    let tables = "CREATE TABLE strict (id uuid PRIMARY KEY, n bigint NOT NULL, relation regclass);
                  CREATE TABLE lenient (id uuid PRIMARY KEY, n bigint NOT NULL, config regconfig)";
    stage.target.batch_execute(tables).await.expect("the tables can be created");
    let file = stage.file("migration.yaml", NAMES);
    for (id, relation, config) in [(1, "pg_class", "english"), (2, "no_such_table", "klingon")] {
        set(&stage, "strict", id, doc! {"relation": relation}).await;
        set(&stage, "lenient", id, doc! {"config": config}).await;
    }
    let mut process = stage.run(&file);
    lie(&stage, &mut process, "the copy goes on", &[("strict", "type", 1)]).await;
    for (id, relation) in [(3, "no_schema.of_this"), (4, "pg_proc"), (1, "gone")] {
        set(&stage, "strict", id, doc! {"relation": relation}).await;
        set(&stage, "lenient", id, doc! {"config": relation}).await;
    }
    lie(&stage, &mut process, "so does the stream", &[("strict", "type", 3)]).await;
    until("all others are written", PATIENCE, async || {
        process.still_runs();
        let all =
            numbers(&stage, "strict").await == [1, 4] && numbers(&stage, "lenient").await == [1, 2, 3, 4];
        all.then_some(())
    })
    .await;
    set(&stage, "strict", 1, doc! {"relation": "pg_type"}).await;
    lie(&stage, &mut process, "a name that is known settles it", &[("strict", "type", 2)]).await;
    process.stop().await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_is_refused_is_no_equality() {
    let stage = Stage::new("letters_of_deletes").await;
    let file = prepare(&stage).await;
    for id in 1..=3 {
        set(&stage, "parents", id, doc! {"name": "p"}).await;
    }
    let mut process = stage.run(&file);
    until("all are there", PATIENCE, async || {
        process.still_runs();
        (numbers(&stage, "parents").await == [1, 2, 3]).then_some(())
    })
    .await;
    // A table that nothing fills keeps the row.
    let notes = "CREATE TABLE notes (parent_id uuid REFERENCES parents);
                 INSERT INTO notes SELECT id FROM parents WHERE n = 2";
    stage.target.batch_execute(notes).await.expect("a table");
    delete(&stage, "parents", 2).await;
    lie(&stage, &mut process, "the delete is refused", &[("parents", "23503", 1)]).await;
    let path = file.to_str().expect("UTF-8");
    for arguments in [
        &["verify", path, "--report", "none", "--json"][..],
        &["verify", path, "--since", "1h", "--report", "none", "--json"],
        &["repair", path, "--remove-extra", "--json"],
    ] {
        let output = stage.output(arguments).await;
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let said = if arguments[0] == "repair" { &said["verification"] } else { &said };
        assert_eq!(output.status.code(), Some(10), "{arguments:?}: {said:#}");
        assert_eq!((&said["equal"], &said["dead_letters"]), (&false.into(), &1.into()), "{said:#}");
        assert_eq!(said["findings"], serde_json::json!([]), "{said:#}");
    }
    assert_eq!(numbers(&stage, "parents").await, [1, 2, 3]);

    stage.target.batch_execute("DELETE FROM notes").await.expect("no rows");
    lie(&stage, &mut process, "the delete is tried again", &[]).await;
    let said = stage.verify(&file, &["--report", "none"]).await;
    assert_eq!((&said["equal"], &said["dead_letters"]), (&true.into(), &0.into()), "{said:#}");
    process.stop().await;
    stage.clear().await;
}
