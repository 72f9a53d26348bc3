//! Programs that are broken on purpose (`dev/broken` builds them): an applier that drops updates, one that writes an older version. What changes
//! is verified, and exactly the rows that are wrong are findings.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Document, doc};
use slackwater_migrations::Chance;

use crate::stage::ground::Ground;
use crate::stage::trial::CATCH_UP;
use crate::stage::{Slackwater, is_verified, number, until};

const SCHEMA: &str = "CREATE TABLE public.things (id uuid PRIMARY KEY, n bigint NOT NULL, v bigint NOT NULL)";
const FILE: &str = r#"migration: broken
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.things: { into: things, columns: { id: { uuid: _id }, n: { integer: _id }, v: v } }
verify: { every: 1h, throttle: 20000 }
"#;

/// So many documents, and updates of them side by side.
const DOCUMENTS: i64 = 8_000;
const WRITERS: u64 = 4;

/// What stands that should not stand: documents by their number.
async fn wrong(ground: &Ground) -> BTreeSet<i64> {
    let stage = ground.stage();
    let rows = stage.target.query("SELECT n, v FROM things", &[]).await.expect("rows");
    let there: BTreeMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut cursor =
        stage.source.collection::<Document>("things").find(doc! {}).await.expect("documents can be read");
    let mut wrong = BTreeSet::new();
    while cursor.advance().await.expect("a document") {
        let document = Document::try_from(cursor.current()).expect("a document");
        let id = document.get_i64("_id").expect("a number");
        if there.get(&id) != Some(&document.get_i64("v").expect("a number")) {
            wrong.insert(id);
        }
    }
    wrong
}

/// Documents that are findings.
async fn found(ground: &Ground) -> BTreeSet<i64> {
    let sql = "SELECT document FROM slackwater.late_findings";
    let rows = ground.stage().target.query(sql, &[]).await.expect("rows");
    let number = |row: &tokio_postgres::Row| {
        let document: String = row.get(0);
        document.rsplit(' ').next().and_then(|id| id.parse().ok()).expect("an id")
    };
    rows.iter().map(number).collect()
}

async fn is_found(kafka: bool) {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    let updates = number("SLACKWATER_TEST_UPDATES", 30_000);
    println!("seed {seed}, {updates} updates");
    let ground = Ground::set("broken", kafka, SCHEMA, FILE, &["things"]).await;
    let things = ground.stage().source.collection::<Document>("things");
    let all = (0..DOCUMENTS).map(|id| doc! {"_id": id, "v": 0_i64});
    things.insert_many(all).await.expect("inserted");
    let mut processes = ground.processes();
    ground.stage().follows(&mut processes).await;
    let writers = (0..WRITERS).map(|writer| {
        let (things, mut chance) = (things.clone(), Chance::new(seed * 10 + writer));
        tokio::spawn(async move {
            for _ in 0..updates / WRITERS {
                let id = chance.below(DOCUMENTS as u64) as i64;
                let more = doc! {"$inc": {"v": 1_i64}};
                things.update_one(doc! {"_id": id}, more).await.expect("updated");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer");
    }
    let now = ground.stage().clock().await;
    until("what has changed is verified", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let status = ground.stage().status(ground.file()).await;
        is_verified(&status["verification"], now).then_some(())
    })
    .await;
    let (wrong, found) = (wrong(&ground).await, found(&ground).await);
    println!(
        "{} rows are wrong, {} documents are findings, {} were verified when they had changed",
        wrong.len(),
        found.len(),
        ground.stage().has_followed().await
    );
    assert!(!wrong.is_empty(), "the program is not broken");
    assert_eq!(found, wrong);
    let report = ground.verify(&[]).await;
    let named = report["findings"].as_array().expect("findings").len();
    assert_eq!(named, wrong.len(), "the verification of everything says the same: {report:#}");
    for process in processes {
        process.stop().await;
    }
    ground.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program that is right has nothing to be found: dev/broken builds others"]
async fn is_found_direct() {
    is_found(false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program that is right has nothing to be found: dev/broken builds others"]
async fn is_found_over_kafka() {
    is_found(true).await;
}
