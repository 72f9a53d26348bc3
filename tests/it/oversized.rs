//! Changes of 18 MB, which no reply of MongoDB holds, among small ones: killed at random moments around them, the rows end equal, and no
//! row goes back to an older version. A server that can cut such a change does; with others it comes without what its update changed.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Document, doc};
use slackwater_migrations::{Chance, collection};

use crate::stage::trial::CATCH_UP;
use crate::stage::{Slackwater, Stage, number, until};

const SCHEMA: &str = "CREATE TABLE files (id uuid PRIMARY KEY, n bigint NOT NULL, body text, words text, version bigint NOT NULL);
    CREATE FUNCTION forward() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.version < OLD.version THEN RAISE EXCEPTION 'a row goes back'; END IF; RETURN NEW; END $$;
    CREATE TRIGGER forward BEFORE UPDATE ON files FOR EACH ROW EXECUTE FUNCTION forward();";

const FILE: &str = r#"migration: oversized
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.files:
    - into: files
      columns:
        id: { uuid: _id }
        n: { integer: n }
        body: { text: body }
        words: { text: words }
        version: v
"#;

/// Documents of fifteen megabytes; an update writes six of them anew.
const LARGE: i64 = 3;
const SMALL: i64 = 40;

/// A letter for each version, so that the length and one letter tell the whole text.
fn letter(version: i64) -> String {
    char::from(b'a' + (version % 26) as u8).to_string()
}

/// Versions of the documents by their numbers.
type Files = BTreeMap<i64, i64>;

async fn change(stage: &Stage, n: i64, files: &mut Files) {
    let version = files[&n] + 1;
    let words = letter(version).repeat(if n < LARGE { 6 << 20 } else { 10 });
    let change = doc! {"$set": {"words": words, "v": version}};
    let files_there = stage.source.collection::<Document>("files");
    let changed = files_there.update_one(doc! {"n": n}, change).await.expect("a document can be changed");
    assert_eq!(changed.matched_count, 1);
    files.insert(n, version);
}

async fn equal(stage: &Stage, process: &mut Slackwater, files: &Files) {
    until("the rows are the same", CATCH_UP, async || {
        process.still_runs();
        let rows = stage.target.query("SELECT n, version FROM files", &[]).await.expect("rows can be read");
        let found: Files = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        (found == *files).then_some(())
    })
    .await;
    let sql = "SELECT n, length(body), length(words), left(words, 1), right(words, 1) FROM files";
    for row in stage.target.query(sql, &[]).await.expect("rows can be read") {
        let n: i64 = row.get(0);
        let (body, words) = if n < LARGE { (9 << 20, 6 << 20) } else { (10, 10) };
        assert_eq!((row.get::<_, i32>(1), row.get::<_, i32>(2)), (body, words), "file {n}");
        let ends: [String; 2] = [row.get(3), row.get(4)];
        assert_eq!(ends, [letter(files[&n]), letter(files[&n])], "file {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_around_changes_of_18_mb_it_ends_equal() {
    let seed = number("SLACKWATER_TEST_SEED", 18);
    let kills = number("SLACKWATER_TEST_KILLS", 8);
    println!("seed {seed}, {kills} kills");
    let mut chance = Chance::of(seed, 0, 0);
    let stage = Stage::new("oversized").await;
    stage.target.batch_execute(SCHEMA).await.expect("the table can be created");
    collection::create(&stage.source, "files", true).await.expect("a collection can be created");
    let file = stage.file("oversized.yaml", FILE);
    let mut files = Files::new();
    for n in 0..LARGE + SMALL {
        let (body, words) = if n < LARGE { (9 << 20, 6 << 20) } else { (10, 10) };
        let document =
            doc! {"_id": n, "n": n, "body": "x".repeat(body), "words": letter(0).repeat(words), "v": 0_i64};
        let inserted = stage.source.collection("files").insert_one(document).await;
        inserted.expect("a document can be inserted");
        files.insert(n, 0);
    }
    let mut process = stage.run(&file);
    equal(&stage, &mut process, &files).await;
    for kill in 1..=kills {
        for turn in 0..5 {
            // A large one in the middle of each five, the others at random: some stand in a row.
            let large = turn == 2 || chance.percent(20);
            let n =
                if large { chance.between(0, LARGE - 1) } else { chance.between(LARGE, LARGE + SMALL - 1) };
            change(&stage, n, &mut files).await;
        }
        let life = chance.between(0, 1_200);
        // The random moment is the test; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(life as u64)).await;
        process.kill().await;
        println!("kill {kill} after {life} ms");
        process = stage.run(&file);
    }
    equal(&stage, &mut process, &files).await;
    process.stop().await;
    stage.clear().await;
}
