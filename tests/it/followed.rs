//! What changes is verified soon after it was applied: no false alarm while writers write and processes are killed, and whatever an applier
//! does wrong to a changed document is found, named, and gone once it is mended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bson::{Document, doc};
use serde_json::Value;
use slackwater_migrations::Chance;
use tokio_postgres::error::SqlState;

use crate::stage::ground::Ground;
use crate::stage::trial::CATCH_UP;
use crate::stage::{PATIENCE, Slackwater, is_verified, number, until};
use crate::verify::{FILE, SCHEMA, filled, person, write};

/// Appliers that do not do what they should, as the target sees it: an update that is dropped, an older version, a delete that is dropped, a row
/// of an element that stays, a new one that is dropped, a number that is off.
const FUNCTION: &str = "
CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_TABLE_NAME = 'lines' THEN
    IF (TG_OP = 'DELETE' AND OLD.person_id = (SELECT id FROM people WHERE n = 52)) OR
       (TG_OP = 'INSERT' AND NEW.person_id = (SELECT id FROM people WHERE n = 53) AND NEW.sku = 's_new') THEN RETURN NULL; END IF;
  ELSIF TG_TABLE_NAME = 'cities' THEN
    IF TG_OP = 'UPDATE' AND NEW.name = 'c_odd' THEN NEW.people := NEW.people + 1; END IF;
  ELSIF TG_OP = 'UPDATE' AND NEW.n = 50 THEN RETURN NULL;
  ELSIF TG_OP = 'UPDATE' AND NEW.n = 51 THEN NEW.version := OLD.version;
  ELSIF TG_OP = 'UPDATE' AND NEW.n = 55 THEN NEW.balance := NEW.balance + 0.01;
  ELSIF TG_OP = 'DELETE' AND OLD.n = 150 THEN RETURN NULL;
  END IF;
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$";
const TABLES: [&str; 3] = ["people", "lines", "cities"];

/// What was found of changes and is not mended.
async fn found(ground: &Ground) -> BTreeSet<String> {
    let sql = "SELECT kind, table_name, array_to_string(columns, ','), coalesce(document, '-') FROM slackwater.late_findings";
    let rows = ground.stage().target.query(sql, &[]).await.expect("rows");
    let text = |row: &tokio_postgres::Row, at: usize| row.get::<_, Option<String>>(at).unwrap_or_default();
    rows.iter().map(|row| (0..4).map(|at| text(row, at)).collect::<Vec<_>>().join(" ")).collect()
}

/// The same of what a command has found.
fn named(report: &Value) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let one = |finding: &Value| {
        let columns: Vec<String> = finding["columns"].as_array().expect("columns").iter().map(text).collect();
        let table = text(&finding["table"]).replace("public.", "");
        format!("{} {table} {} {}", text(&finding["kind"]), columns.join(","), text(&finding["document"]))
    };
    report["findings"].as_array().expect("findings").iter().map(one).collect()
}

/// The verification that `slackwater status --json` shows.
async fn shown(ground: &Ground) -> Value {
    ground.stage().status(ground.file()).await["verification"].clone()
}

/// Waits until everything is verified, and what has changed until now is too.
async fn close(ground: &Ground, processes: &mut [Slackwater]) -> Value {
    let now = ground.stage().clock().await;
    until("what has changed is verified", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let shown = shown(ground).await;
        is_verified(&shown, now).then_some(shown)
    })
    .await
}

fn documents(shown: &Value) -> u64 {
    let rows = shown["changes"].as_array().into_iter().flatten();
    rows.map(|row| row["documents"].as_u64().expect("a number")).sum()
}

/// Each table by itself: what is written meanwhile may be in the way, and then it comes again.
async fn triggers(ground: &Ground, statement: impl Fn(&str) -> String) {
    for table in TABLES {
        until("the trigger can be made", PATIENCE, async || {
            match ground.stage().target.batch_execute(&statement(table)).await {
                Ok(()) => Some(()),
                Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => None,
                Err(error) => panic!("{table}: {error}"),
            }
        })
        .await;
    }
}

async fn blockers(ground: &Ground) -> BTreeSet<String> {
    let plan = ground.stage().output(&["cutover", ground.path(), "--plan", "--json"]).await;
    let plan: Value = serde_json::from_slice(&plan.stdout).expect("a plan");
    let name = |one: &Value| one["blocker"].as_str().expect("a name").to_owned();
    plan["blockers"].as_array().expect("blockers").iter().map(name).collect()
}

async fn followed(kafka: bool) {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    let kills = number("SLACKWATER_TEST_KILLS", 3);
    println!("seed {seed}, {kills} kills");
    let mut chance = Chance::new(seed);
    let file = format!("{FILE}verify: {{ every: 1h, throttle: 20000 }}\n");
    let began = std::time::Instant::now();
    let ground = Ground::set("followed", kafka, SCHEMA, &file, &["people"]).await;
    let people: Vec<Document> = (0..350).map(|id| person(&mut chance, id)).collect();
    let mut processes = filled(&ground, &people).await;
    close(&ground, &mut processes).await;
    let source = ground.stage().source.clone();
    let on = Arc::new(AtomicBool::new(true));
    // No faster than a slow machine applies.
    let pause = Duration::from_millis(number("SLACKWATER_TEST_PAUSE", 50));
    let writer = |n| tokio::spawn(write(source.clone(), seed * 10 + n, pause, Arc::clone(&on)));
    let writers: Vec<_> = (0..2).map(writer).collect();
    for kill in 0..kills {
        let before = documents(&shown(&ground).await);
        until("documents are verified", PATIENCE, async || {
            (documents(&shown(&ground).await) > before + 100).then_some(())
        })
        .await;
        let which = (kill as usize) % processes.len();
        let started = ground.start(which);
        std::mem::replace(&mut processes[which], started).kill_anyhow().await;
    }
    let seen = close(&ground, &mut processes).await;
    assert_eq!(found(&ground).await, BTreeSet::new(), "a false alarm");
    println!("{} documents were verified again after {:?}", documents(&seen), began.elapsed());
    // What writers do is right; of what follows the target makes something else.
    let people = source.collection::<Document>("people");
    let odd = doc! {"_id": 60_i64, "version": 1_i64, "city": "c_odd"};
    people.replace_one(doc! {"_id": 60_i64}, odd).await.expect("changed");
    until("the city is there", PATIENCE, async || {
        let sql = "SELECT count(*) FROM cities WHERE name = 'c_odd'";
        let row = ground.stage().target.query_one(sql, &[]).await.expect("a row");
        (row.get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    ground.stage().target.batch_execute(FUNCTION).await.expect("a function");
    let made = "FOR EACH ROW EXECUTE FUNCTION broken()";
    triggers(&ground, |table| {
        format!("CREATE TRIGGER broken BEFORE INSERT OR UPDATE OR DELETE ON {table} {made}")
    })
    .await;
    let version = doc! {"$set": {"version": -1_i64}};
    let change = async |id: i64, change: Document| {
        people.update_one(doc! {"_id": id}, change).await.expect("changed");
    };
    change(50, version.clone()).await;
    change(51, version.clone()).await;
    change(52, doc! {"$set": {"lines": []}}).await;
    change(53, doc! {"$push": {"lines": {"sku": "s_new", "count": 1}}}).await;
    change(55, doc! {"$set": {"balance": 7.25}}).await;
    let one = doc! {"_id": 1_000_i64, "version": 1_i64, "city": "c_odd"};
    people.insert_one(one).await.expect("inserted");
    // One that nobody refers to.
    change(60, doc! {"$unset": {"friend": ""}}).await;
    people.update_many(doc! {"friend": 150_i64}, doc! {"$set": {"friend": 20_i64}}).await.expect("changed");
    people.delete_one(doc! {"_id": 150_i64}).await.expect("deleted");
    let wanted: BTreeSet<String> = [
        "different people version legacy.people 50",
        "different people version legacy.people 51",
        "extra lines  legacy.people 52",
        "missing lines  legacy.people 53",
        "extra people  legacy.people 150",
        "different people balance legacy.people 55",
        "different cities people -",
    ]
    .map(str::to_owned)
    .into();
    until("what is wrong is found", PATIENCE, async || {
        let found = found(&ground).await;
        assert!(found.is_subset(&wanted), "more is found than there is: {found:?}");
        (found == wanted).then_some(())
    })
    .await;
    assert!(blockers(&ground).await.contains("findings"));
    until("it is an incident", PATIENCE, async || {
        let status = ground.stage().status(ground.file()).await;
        let incidents = status["incidents"].as_array().expect("incidents");
        incidents.iter().any(|one| one["kind"] == "findings").then_some(())
    })
    .await;
    // Whoever asks what has changed of late hears the same, and of nothing else.
    let since = format!("{}s", began.elapsed().as_secs() + 5);
    let changed = ground.verify(&["--since", &since]).await;
    assert_eq!(named(&changed), wanted, "{changed:#}");
    // One that is written right in the meantime is no finding any more.
    triggers(&ground, |table| format!("DROP TRIGGER broken ON {table}")).await;
    change(50, doc! {"$set": {"version": -2_i64}}).await;
    until("it is mended", PATIENCE, async || {
        (!found(&ground).await.contains("different people version legacy.people 50")).then_some(())
    })
    .await;
    let mended = ground.repair(&["--remove-extra"]).await;
    assert_eq!(mended["verification"]["equal"], true, "{mended:#}");
    let seen = close(&ground, &mut processes).await;
    assert_eq!((found(&ground).await, &seen["findings"]), (BTreeSet::new(), &0.into()), "{seen:#}");
    let blocked = blockers(&ground).await;
    assert!(!blocked.contains("findings") && !blocked.contains("not_verified"), "{blocked:?}");
    on.store(false, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer");
    }
    for process in processes {
        process.stop().await;
    }
    ground.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_applier_does_wrong_is_found_direct() {
    followed(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_applier_does_wrong_is_found_over_kafka() {
    followed(true).await;
}

/// A table that cannot be written stands still, and with it what is known of its changes; the process goes on, and so does the verification once
/// the table is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changes_ends_nothing() {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let file = format!("{FILE}verify: {{ every: 1h, throttle: 20000 }}\n");
    let ground = Ground::set("followed_drift", false, SCHEMA, &file, &["people"]).await;
    let people: Vec<Document> = (0..50).map(|id| person(&mut chance, id)).collect();
    let mut processes = filled(&ground, &people).await;
    close(&ground, &mut processes).await;
    let target = &ground.stage().target;
    let source = ground.stage().source.collection::<Document>("people");
    let touch = async || {
        let change = doc! {"$inc": {"version": 1_i64}};
        source.update_many(doc! {}, change).await.expect("changed");
    };
    target.batch_execute("ALTER TABLE people DROP COLUMN note").await.expect("a column goes");
    until("the table stands, and nothing is known of it", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        touch().await;
        let status = ground.stage().status(ground.file()).await;
        let stands = status["standing"].as_array().is_some_and(|rows| !rows.is_empty());
        let known = status["verification"]["changes"].as_array().is_some_and(|rows| !rows.is_empty());
        (stands && !known).then_some(())
    })
    .await;
    target.batch_execute("ALTER TABLE people ADD COLUMN note text").await.expect("a column comes");
    until("changes are verified again", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        touch().await;
        (documents(&shown(&ground).await) >= 50).then_some(())
    })
    .await;
    assert_eq!(found(&ground).await, BTreeSet::new(), "a false alarm");
    ground.end(processes).await;
}
