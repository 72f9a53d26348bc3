//! What is said of a file that changes, what it may not change, and in which order processes go by it.

use std::path::Path;

use bson::{Document, doc};

use super::{TAKEN_OVER, copied, xmins};
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::{PATIENCE, Slackwater, Stage, broker, items, state, until};

/// As documented: mistakes in the migration file.
const MISTAKES: i32 = 3;

/// The items' file with another rule for the name.
fn items_file(name: &str) -> String {
    items::FILE.replace("name: { text: name }", &format!("name: {name}"))
}

async fn check(stage: &Stage, file: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut arguments = vec!["check", file.to_str().expect("UTF-8")];
    arguments.extend(more);
    let output = stage.output(&arguments).await;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_rows_that_differ_are_written_and_the_rest_is_said() {
    let stage = Stage::new("changes_said").await;
    stage.target.batch_execute(items::SCHEMA).await.expect("the table can be created");
    // Every third name is in capitals already.
    let documents = (0..3_000_i64).map(|n| {
        let name = if n % 3 == 0 { format!("ITEM {n}") } else { format!("item {n}") };
        doc! {"_id": n, "n": n, "name": name, "v": 1_i64, "old": format!("old {n}")}
    });
    items::collection(&stage).insert_many(documents).await.expect("items can be inserted");
    let file = stage.file("migration.yaml", items::FILE);
    let mut process = stage.run(&file);
    copied(&stage, &mut process, 1).await;
    let process_log = process.log().to_owned();
    process.stop().await;
    let before = xmins(&stage).await;

    // Other words for the same change nothing.
    let same = items::FILE.replace("name: { text: name }", "name: { empty: keep, text: 'name' } # a comment");
    stage.file("migration.yaml", &same.replace("workers: 4", "workers: 3"));
    let (code, said) = check(&stage, &file, &[]).await;
    assert!(code == Some(0) && !said.contains("what the file changes"), "{said}");
    std::fs::remove_file(process_log).expect("the log");
    let mut process = stage.run(&file);
    until("it goes on", PATIENCE, async || {
        process.still_runs();
        process.said("going on where it stopped").then_some(())
    })
    .await;
    assert!(!process.said("the migration file has changed"));
    process.stop().await;
    assert_eq!(xmins(&stage).await, before);

    stage.file("migration.yaml", &items_file("{ text: name, lower: true }"));
    let (code, said) = check(&stage, &file, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("what the file changes\n  items.name: 3 000 rows to be written again\n"), "{said}");
    let (_, json) = check(&stage, &file, &["--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let change = &json["changes"][0];
    assert_eq!((change["kind"].as_str(), change["copied_again"].as_bool()), (Some("other_rule"), Some(true)));
    let mut process = stage.run(&file);
    copied(&stage, &mut process, 2).await;
    assert!(process.said("the migration file has changed: items.name: 3 000 rows to be written again"));
    let after = xmins(&stage).await;
    for (n, (name, xmin)) in &after {
        assert_eq!(*name, format!("item {n}"));
        assert_eq!(before[n].1 == *xmin, n % 3 != 0, "item {n} was written if it differed, and only then");
    }
    process.stop().await;

    // A key that changes is refused at its place, before anything happens.
    let other_key = items::FILE.replace("id: { uuid: _id }", "id: { uuid: _id }\n        n2: { integer: n }");
    stage.target.batch_execute("ALTER TABLE items ADD COLUMN n2 bigint UNIQUE").await.expect("a column");
    let other_key = other_key.replace("    - into: items\n", "    - into: items\n      key: [n2]\n");
    stage
        .target
        .batch_execute("UPDATE items SET n2 = n; ALTER TABLE items ALTER n2 SET NOT NULL")
        .await
        .expect("set");
    stage.file("migration.yaml", &other_key);
    for command in ["check", "run"] {
        let output = stage.output(&[command, file.to_str().expect("UTF-8")]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(MISTAKES), "{command}: {said}");
        assert!(
            said.contains("rows of `public.items` are found by `id` until now") && said.contains("key: [n2]"),
            "{said}"
        );
        assert!(said.contains("slackwater reset FILE --rows"), "{said}");
    }
    stage.clear().await;
}

/// An applier with the old file writes nothing after the capture has begun with the new one, and one with the new file waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn appliers_go_by_the_file_of_the_capture() {
    let stage = Stage::new("changes_order").await;
    stage.target.batch_execute(items::SCHEMA).await.expect("the table can be created");
    items::insert(&stage, 0..500).await;
    let pipeline =
        Pipeline::on(stage, items::FILE, &Log { partitions: 2, ..Log::at(&broker::shared()) }).await;
    let stage = &pipeline.stage;
    let mut capture = pipeline.capture("capture");
    let mut old = pipeline.apply("old", None);
    copied(stage, &mut capture, 1).await;
    let text = std::fs::read_to_string(&pipeline.file).expect("the file");
    std::fs::write(
        &pipeline.file,
        text.replace("{ text: name }", "{ text: name, default: none, lower: true }"),
    )
    .expect("the file can be written");
    let new = pipeline.apply("new", None);
    until("the new applier waits", PATIENCE, async || {
        old.still_runs();
        new.said("waiting for a capture with this migration file").then_some(())
    })
    .await;
    // The old one works meanwhile.
    items::collection(stage).update_many(doc! {}, doc! {"$set": {"name": "Other"}}).await.expect("changed");
    let named = async |name: &str| {
        let sql = format!("SELECT count(*) FROM items WHERE name = '{name}'");
        stage.target.query_one(&sql, &[]).await.expect("a count").get::<_, i64>(0)
    };
    until("the old applier writes", PATIENCE, async || (named("Other").await == 500).then_some(())).await;
    capture.stop().await;
    let mut capture = pipeline.capture("capture");
    let ended = until("the old applier ends", PATIENCE, async || old.ended()).await;
    assert_eq!(ended.code(), Some(TAKEN_OVER), "{}", old.tail());
    assert!(old.said("the migration goes on with another migration file"), "{}", old.tail());
    until("the new one makes all rows again", PATIENCE, async || (named("other").await == 500).then_some(()))
        .await;
    copied(stage, &mut capture, 2).await;
    capture.stop().await;
    new.stop().await;
    pipeline.clear().await;
}

const OF_TWO: &str = r#"migration: two
sources:
  a: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
  b: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
not_migrated: [ a.*, b.* ]
collections:
  a.items: { into: items, columns: { id: { uuid: _id }, n: n, name: name, version: v } }
  b.others: { into: others, columns: { id: { uuid: _id }, name: name } }
"#;

/// Captures of two sources: the file changes when both have the new one, and an old one that comes later changes nothing back.
#[tokio::test(flavor = "multi_thread")]
async fn captures_of_several_sources_agree_on_a_file() {
    let stage = Stage::new("changes_of_two").await;
    stage.target.batch_execute(items::SCHEMA).await.expect("the table can be created");
    let others = "CREATE TABLE public.others (id uuid PRIMARY KEY, name text)";
    stage.target.batch_execute(others).await.expect("the table can be created");
    items::insert(&stage, 0..200).await;
    let documents = (0..50_i64).map(|n| doc! {"_id": n, "name": format!("Other {n}")});
    stage.source.collection::<Document>("others").insert_many(documents).await.expect("inserted");
    let pipeline = Pipeline::on(stage, OF_TWO, &Log { partitions: 1, ..Log::at(&broker::shared()) }).await;
    let stage = &pipeline.stage;
    let old = std::fs::read_to_string(&pipeline.file).expect("the file");
    let old_file = stage.file("old.yaml", &old);
    let capture = |source: &str, file: &Path, name: &str| {
        stage.start(&["capture", file.to_str().expect("UTF-8"), "--source", source], name)
    };
    let count = async |sql: &str| {
        let rows = state::rows(&stage.target, sql).await;
        rows.first().map_or(0, |row| row.get::<_, i64>(0))
    };
    let lower = "SELECT count(*) FROM public.others WHERE name LIKE 'other %'";
    let mut a = capture("a", &pipeline.file, "a");
    let mut b = capture("b", &pipeline.file, "b");
    let mut applier = pipeline.apply("one", None);
    until("both are copied", PATIENCE, async || {
        [&mut a, &mut b, &mut applier].into_iter().for_each(Slackwater::still_runs);
        let rows = "SELECT (SELECT count(*) FROM items) + (SELECT count(*) FROM public.others)";
        (count(rows).await == 250 && state::copied(&stage.target).await).then_some(())
    })
    .await;
    let new = old.replace(
        "{ id: { uuid: _id }, name: name }",
        "{ id: { uuid: _id }, name: { text: name, lower: true } }",
    );
    std::fs::write(&pipeline.file, new).expect("the file can be written");
    a.stop().await;
    let mut a = capture("a", &pipeline.file, "a_new");
    until("it waits for the other", PATIENCE, async || {
        [&mut a, &mut b, &mut applier].into_iter().for_each(Slackwater::still_runs);
        a.said("waiting for processes that make rows by other rules").then_some(())
    })
    .await;
    assert_eq!(count(lower).await, 0);
    b.stop().await;
    let mut b = capture("b", &pipeline.file, "b_new");
    let ended = until("the old applier ends", PATIENCE, async || applier.ended()).await;
    assert_eq!(ended.code(), Some(TAKEN_OVER), "{}", applier.tail());
    let mut applier = pipeline.apply("two", None);
    until("the new file holds", PATIENCE, async || {
        [&mut a, &mut b, &mut applier].into_iter().for_each(Slackwater::still_runs);
        (count(lower).await == 50 && a.said("going on where it stopped")).then_some(())
    })
    .await;
    // Somebody starts the old one again.
    b.stop().await;
    let late = capture("b", &old_file, "b_old");
    until("the old one waits", PATIENCE, async || {
        [&mut a, &mut applier].into_iter().for_each(Slackwater::still_runs);
        late.said("waiting for processes that make rows by other rules").then_some(())
    })
    .await;
    assert_eq!(count(lower).await, 50);
    late.stop().await;
    for process in [a, applier] {
        process.stop().await;
    }
    pipeline.clear().await;
}
