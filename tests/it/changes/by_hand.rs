//! `slackwater recopy` and `slackwater reset`: what a person asks for.

use bson::doc;

use super::{copied, xmins};
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::{PATIENCE, Slackwater, Stage, broker, items, state, until};

/// As documented: what is there is not what the command needs.
const UNSUITABLE: i32 = 4;

/// Somebody has changed rows by hand, and has them made again while the process runs.
async fn recopied_by_hand(stage: &Stage, file: &std::path::Path, processes: &mut [Slackwater]) {
    let path = file.to_str().expect("UTF-8");
    let before = xmins(stage).await;
    // The 5 in the third group: an identifier that the migration could have made.
    let spoil = "UPDATE items SET name = 'spoilt' WHERE n % 7 = 0; DELETE FROM items WHERE n % 7 = 1;
                 INSERT INTO items VALUES ('00000000-0000-5000-8000-000000000000', -1, 'left over', 1),
                                          ('00000000-0000-4000-8000-000000000000', -2, 'of the new system', 1),
                                          ('00000000-0000-5000-8000-000000000003', -3, 'held by another', 1);
                 CREATE TABLE public.others (item uuid REFERENCES items);
                 INSERT INTO public.others VALUES ('00000000-0000-5000-8000-000000000003')";
    stage.target.batch_execute(spoil).await.expect("rows can be spoilt");
    let output = stage.output(&["recopy", path, "legacy.itms"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(UNSUITABLE) && said.contains("did you mean `legacy.items`?"),
        "{said}"
    );
    let output = stage.output(&["recopy", path, "legacy.items", "--json"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["begins"], "now");
    until("what was spoilt is mended", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let after = xmins(stage).await;
        let mended = before.iter().all(|(n, (name, _))| after.get(n).is_some_and(|(now, _)| now == name));
        (mended && !after.contains_key(&-1) && state::copied(&stage.target).await).then_some(())
    })
    .await;
    let after = xmins(stage).await;
    assert!(after.get(&-2).is_some_and(|(name, _)| name == "of the new system"), "it is not ours");
    assert!(after.contains_key(&-3), "another table refers to it");
    let kept = |n: &i64| n % 7 > 1;
    assert!(
        before.iter().filter(|(n, _)| kept(n)).all(|(n, row)| after[n] == *row),
        "the others were not written"
    );
    let status = stage.status(file).await;
    assert_eq!(status["recopies"], serde_json::json!([]));
    let incidents = state::incidents(&stage.target).await;
    assert!(incidents.iter().any(|text| text.contains("a person asked for it")), "{incidents:?}");
    let kept = "stay, because rows of public.others refer to them (others_item_fkey)";
    assert!(incidents.iter().any(|text| text.contains(kept)), "{incidents:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_has_a_collection_copied_again() {
    let stage = Stage::new("recopy").await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..1_000).await;
    let output = stage.output(&["recopy", file.to_str().expect("UTF-8")]).await;
    assert_eq!(output.status.code(), Some(UNSUITABLE), "it has never run");
    let mut process = stage.run(&file);
    copied(&stage, &mut process, 1).await;
    let mut processes = [process];
    recopied_by_hand(&stage, &file, &mut processes).await;
    let [process] = processes;
    process.stop().await;
    // With nobody at work the next start does it.
    let output = stage.output(&["recopy", file.to_str().expect("UTF-8"), "--json"]).await;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["begins"], "with the next start");
    assert_eq!(stage.status(&file).await["recopies"][0]["kind"], "asked");
    let mut process = stage.run(&file);
    copied(&stage, &mut process, 3).await;
    process.stop().await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_has_a_collection_copied_again_with_kafka() {
    let stage = Stage::new("recopy_kafka").await;
    stage.target.batch_execute(items::SCHEMA).await.expect("the table can be created");
    items::insert(&stage, 0..1_000).await;
    let pipeline =
        Pipeline::on(stage, items::FILE, &Log { partitions: 2, ..Log::at(&broker::shared()) }).await;
    let mut capture = pipeline.capture("capture");
    let applier = pipeline.apply("one", None);
    until("it is copied", PATIENCE, async || {
        capture.still_runs();
        (xmins(&pipeline.stage).await.len() == 1_000 && state::copied(&pipeline.stage.target).await)
            .then_some(())
    })
    .await;
    let mut processes = [capture, applier];
    recopied_by_hand(&pipeline.stage, &pipeline.file, &mut processes).await;
    for process in processes {
        process.stop().await;
    }
    pipeline.clear().await;
}

/// `slackwater reset`, as it ends and what it says.
async fn reset(stage: &Stage, file: &std::path::Path, more: &[&str]) -> (Option<i32>, String) {
    let mut arguments = vec!["reset", file.to_str().expect("UTF-8")];
    arguments.extend(more);
    let output = stage.output(&arguments).await;
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_forgotten() {
    let stage = Stage::new("reset").await;
    stage.target.batch_execute(items::SCHEMA).await.expect("the table can be created");
    items::insert(&stage, 0..300).await;
    let pipeline =
        Pipeline::on(stage, items::FILE, &Log { partitions: 2, ..Log::at(&broker::shared()) }).await;
    let (stage, file) = (&pipeline.stage, &pipeline.file);
    let count = async || xmins(stage).await.len();
    let start = || [pipeline.capture("capture"), pipeline.apply("one", None)];
    let mut processes = start();
    until("it is copied", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        (count().await == 300).then_some(())
    })
    .await;
    let (code, said) = reset(stage, file, &["--yes", "items"]).await;
    assert!(code == Some(UNSUITABLE) && said.contains("are at work: apply/"), "{said}");
    for process in processes {
        process.stop().await;
    }
    for wrong in [&[][..], &["--yes", "itemz"]] {
        let (code, said) = reset(stage, file, wrong).await;
        assert!(code == Some(UNSUITABLE) && said.contains("items"), "{said}");
    }
    assert!(!state::rows(&stage.target, "SELECT FROM slackwater.migrations").await.is_empty());

    // The state alone: rows and topics stay, and a start begins from the beginning.
    let (code, said) = reset(stage, file, &["--yes", "items"]).await;
    assert_eq!(code, Some(0), "{said}");
    let tables = "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'migration'
                  WHERE c.relnamespace = 'slackwater'::regnamespace AND c.relkind = 'r'";
    for table in state::rows(&stage.target, tables).await {
        let name: String = table.get(0);
        let sql = format!("SELECT FROM slackwater.{name}");
        assert!(state::rows(&stage.target, &sql).await.is_empty(), "{name} knows of it");
    }
    assert_eq!(count().await, 300);
    let topics = || async { pipeline.topics.offsets().await.len() };
    assert_eq!(topics().await, 2);
    items::insert(stage, 300..310).await;
    let mut processes = start();
    until("it is copied again", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        (count().await == 310 && state::copied(&stage.target).await).then_some(())
    })
    .await;
    for process in processes {
        process.stop().await;
    }

    // Everything: but rows of the new system stay.
    let foreign =
        "INSERT INTO items VALUES ('00000000-0000-4000-8000-000000000000', -2, 'of the new system', 1)";
    stage.target.batch_execute(foreign).await.expect("a row");
    let (code, said) = reset(stage, file, &["--rows", "--topics", "--yes", "items"]).await;
    assert!(code == Some(0) && said.contains("310 rows of public.items are deleted"), "{said}");
    assert_eq!(xmins(stage).await.into_keys().collect::<Vec<_>>(), [-2]);
    assert_eq!(topics().await, 0);
    pipeline.make_topics().await;
    let mut processes = start();
    until("it is copied from the beginning", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        (count().await == 311).then_some(())
    })
    .await;
    for process in processes {
        process.stop().await;
    }
    pipeline.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_refer_to_each_other_in_a_circle_go_together() {
    const FILE: &str = r#"migration: circle
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.teams: { into: teams, columns: { id: { uuid: _id }, lead_id: { ref: lead, to: legacy.users } } }
  legacy.users: { into: users, columns: { id: { uuid: _id }, team_id: { ref: team, to: legacy.teams } } }
"#;
    let stage = Stage::new("circle").await;
    let tables = "CREATE TABLE teams (id uuid PRIMARY KEY, lead_id uuid NOT NULL);
                  CREATE TABLE users (id uuid PRIMARY KEY, team_id uuid NOT NULL REFERENCES teams);
                  ALTER TABLE teams ADD FOREIGN KEY (lead_id) REFERENCES users";
    stage.target.batch_execute(tables).await.expect("the tables can be created");
    let file = stage.file("migration.yaml", FILE);
    stage.source.collection("teams").insert_one(doc! {"_id": 1, "lead": 1}).await.expect("a team");
    stage.source.collection("users").insert_one(doc! {"_id": 1, "team": 1}).await.expect("a user");
    let mut process = stage.run(&file);
    let counts = async || {
        let sql = "SELECT (SELECT count(*) FROM teams), (SELECT count(*) FROM users)";
        let row = stage.target.query_one(sql, &[]).await.expect("a row");
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    until("both are there", PATIENCE, async || {
        process.still_runs();
        (counts().await == (1, 1)).then_some(())
    })
    .await;
    process.stop().await;

    // A row that stays refers to one of them: nothing goes, and who refers is named.
    let notes = "CREATE TABLE notes (user_id uuid REFERENCES users); INSERT INTO notes SELECT id FROM users";
    stage.target.batch_execute(notes).await.expect("a table");
    let (code, said) = reset(&stage, &file, &["--rows", "--yes", "circle"]).await;
    assert!(code == Some(1) && said.contains("rows of notes that stay refer to them"), "{said}");
    assert_eq!(counts().await, (1, 1));
    stage.target.batch_execute("DROP TABLE notes").await.expect("no table");
    let (code, said) = reset(&stage, &file, &["--rows", "--yes", "circle"]).await;
    assert!(code == Some(0) && said.contains("1 rows of public.users are deleted"), "{said}");
    assert_eq!(counts().await, (0, 0));
    stage.clear().await;
}
