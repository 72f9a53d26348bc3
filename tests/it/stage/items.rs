//! The smallest migration: one collection of numbered items into one table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bson::{Document, doc};
use futures_util::TryStreamExt as _;
use mongodb::Collection;

use crate::stage::{Slackwater, Stage, until};

/// The table.
pub(crate) const SCHEMA: &str =
    "CREATE TABLE items (id uuid PRIMARY KEY, n bigint NOT NULL, name text NOT NULL,
                                  version bigint NOT NULL)";

/// Workers that read chunks side by side, as the file says.
pub(crate) const WORKERS: i64 = 4;

/// The migration file; its chunks are small, so that a copy can be caught in its middle.
pub(crate) const FILE: &str = r#"migration: items
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
snapshot: { workers: 4, chunk_documents: 1000 }
collections:
  legacy.items:
    - into: items
      columns:
        id: { uuid: _id }
        n: { integer: n }
        name: { text: name }
        version: v
"#;

/// What can be told of an item by its number.
type Items = BTreeMap<i64, (String, i64)>;

/// Creates the table and writes the file.
pub(crate) async fn prepare(stage: &Stage) -> PathBuf {
    stage.target.batch_execute(SCHEMA).await.expect("the table can be created");
    stage.file("migration.yaml", FILE)
}

/// The collection.
pub(crate) fn collection(stage: &Stage) -> Collection<Document> {
    stage.source.collection("items")
}

/// Inserts items with these numbers.
pub(crate) async fn insert(stage: &Stage, numbers: std::ops::Range<i64>) {
    let numbers: Vec<_> = numbers.collect();
    for batch in numbers.chunks(2_000) {
        let documents =
            batch.iter().map(|n| doc! {"_id": *n, "n": *n, "name": format!("item {n}"), "v": 1_i64});
        collection(stage).insert_many(documents).await.expect("items can be inserted");
    }
}

async fn wanted(stage: &Stage) -> Items {
    let documents = collection(stage).find(doc! {}).await.expect("items can be read");
    let item = |item: Document| {
        let name = item.get_str("name").expect("a name").to_owned();
        (item.get_i64("n").expect("a number"), (name, item.get_i64("v").expect("a version")))
    };
    documents.map_ok(item).try_collect().await.expect("items can be read")
}

async fn found(stage: &Stage) -> Items {
    let rows = stage.target.query("SELECT n, name, version FROM items", &[]).await.expect("rows can be read");
    let items: Items = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    assert_eq!(items.len(), rows.len(), "a number is in two rows");
    items
}

/// Waits until the rows are what the documents say; how many there are.
pub(crate) async fn equal(stage: &Stage, process: &mut Slackwater, deadline: Duration) -> usize {
    until("the rows are equal to the items", deadline, async || {
        process.still_runs();
        let wanted = wanted(stage).await;
        (found(stage).await == wanted).then_some(wanted.len())
    })
    .await
}
