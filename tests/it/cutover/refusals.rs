//! What blocks it is named, and nothing is changed.

use bson::{Document, doc};
use serde_json::Value;

use super::{Scene, Way, section};
use crate::stage::broker::shared;
use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::state;
use crate::stage::{PATIENCE, Slackwater, Stage, until};
use slackwater_migrations::crm_demo;

fn names(report: &Value) -> Vec<&str> {
    let blockers = report["blockers"].as_array().expect("blockers");
    blockers.iter().map(|blocker| blocker["blocker"].as_str().expect("a name")).collect()
}

/// A cutover, by its plan and in earnest, names this, and leaves no trace.
async fn refused(scene: &Scene, by: &str) -> Value {
    let records = "SELECT count(*) FROM slackwater.cutovers";
    let before: i64 = state::rows(&scene.stage.target, records).await[0].get(0);
    let (code, plan) = scene.cutover(&["--plan"]).await;
    assert_eq!(code, Some(8), "{plan:#}");
    assert!(names(&plan).contains(&by), "{plan:#}");
    let (code, report) = scene.cutover(&[]).await;
    assert_eq!((code, &report["state"]), (Some(8), &"blocked".into()), "{report:#}");
    assert!(names(&report).contains(&by), "{report:#}");
    let after: i64 = state::rows(&scene.stage.target, records).await[0].get(0);
    assert_eq!(before, after, "a plan and a refusal write nothing");
    assert!(!scene.is_frozen().await);
    let blocker = report["blockers"].as_array().expect("blockers");
    blocker.iter().find(|blocker| blocker["blocker"] == by).expect("it").clone()
}

/// Waits until nothing blocks; the plan. What only just began may: appliers that have no partition yet.
async fn unblocked(scene: &Scene) -> Value {
    until("nothing blocks", PATIENCE, async || {
        let (code, plan) = scene.cutover(&["--plan"]).await;
        let free = names(&plan).is_empty();
        assert_eq!(code, Some(if free { 0 } else { 8 }), "{plan:#}");
        free.then_some(plan)
    })
    .await
}

/// Waits until the plan names this.
async fn named(scene: &Scene, by: &str) -> Value {
    until("the blocker is named", PATIENCE, async || {
        let (_, plan) = scene.cutover(&["--plan"]).await;
        let blockers = plan["blockers"].as_array().expect("blockers");
        blockers.iter().find(|blocker| blocker["blocker"] == by).cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_by_its_name() {
    let mongod = Mongod::start("refusals", Flavour::Replica).await;
    let mut scene = Scene::set("cutover_refused", Way::Kafka, &mongod.uri(), &shared(), 41, "").await;
    let good = std::mem::take(&mut scene.file);
    scene.file = good.clone();

    let plan = unblocked(&scene).await;
    let steps: Vec<&str> =
        plan["steps"].as_array().expect("steps").iter().filter_map(|step| step["step"].as_str()).collect();
    let all = ["preflight", "arm", "freeze", "fence", "drained", "proof", "finishing", "open", "report"];
    assert_eq!(steps, all);

    scene.with("lag.yaml", &section("").replace("max_lag: 10s", "max_lag: 1ms"));
    println!("{}", refused(&scene, "lag").await);

    let failing = "checks:\n  - { name: nobody there, returns_nothing: \"select id from users;\" }\n  - ";
    scene.with("check.yaml", &section("").replace("checks:\n  - ", failing));
    let blocker = refused(&scene, "check_fails").await;
    assert!(blocker["what"].as_str().is_some_and(|what| what.contains("nobody there")), "{blocker}");
    println!("{blocker}");

    // Somebody's transaction that does not end.
    scene.file = good.clone();
    let mut session = scene.stage.source.client().start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    let notes = scene.stage.source.collection::<Document>("notes");
    notes.insert_one(doc! {"_id": 1}).session(&mut session).await.expect("a write");
    println!("{}", named(&scene, "open_transaction").await);
    refused(&scene, "open_transaction").await;
    session.abort_transaction().await.expect("it can be given up");
    unblocked(&scene).await;

    // One that is armed and takes its time. The second one learns of it, and an operator reverts it.
    let slow = section("  before: [ { name: slow, sql: select pg_sleep(600) } ]");
    scene.with("slow.yaml", &slow);
    let mut armed = scene.stage.start(&["cutover", scene.path()], "armed");
    until("the cutover is armed", PATIENCE, async || {
        // A machine that is slow just then blocks it.
        if let Some(ended) = armed.ended() {
            assert_eq!(ended.code(), Some(8), "{}", armed.tail());
            armed = scene.stage.start(&["cutover", scene.path()], "armed");
        }
        let rows =
            state::rows(&scene.stage.target, "SELECT FROM slackwater.cutovers WHERE state = 'armed'").await;
        (!rows.is_empty()).then_some(())
    })
    .await;
    println!("{}", refused(&scene, "another_cutover").await);
    let (code, report) = scene.cutover(&["--abort"]).await;
    assert_eq!((code, &report["state"]), (Some(0), &"reverted".into()), "{report:#}");
    let ended = until("the armed one ends", PATIENCE, async || armed.ended()).await;
    assert_eq!(ended.code(), Some(9), "{}", armed.tail());
    scene.file = good.clone();

    // An applier that is stopped, and not dead: nobody else takes its partitions yet.
    scene.processes[2].signal("STOP").await;
    println!("{}", named(&scene, "applier_stopped").await);
    refused(&scene, "applier_stopped").await;
    scene.processes[2].signal("CONT").await;
    unblocked(&scene).await;
    let (code, report) = scene.switch().await;
    assert_eq!((code, &report["state"]), (Some(0), &"open".into()), "{report:#}");
    scene.is_switched().await;
    let (code, _) = scene.cutover(&[]).await;
    assert_eq!(code, Some(0), "once more does no harm");
    scene.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_copy() {
    let mongod = Mongod::start("unfinished", Flavour::Replica).await;
    let stage = Stage::at("cutover_unfinished", &mongod.uri()).await;
    stage.fill(42, 20_000).await;
    let text = format!("{}\n{}", crm_demo::mapping(), section("").replace("1000", "100"));
    let file = stage.file("cutover.yaml", &text);
    let path = file.to_str().expect("a path in UTF-8");
    let mut run = stage.run(&file);
    until("the copy has begun", PATIENCE, async || {
        run.still_runs();
        let rows =
            state::rows(&stage.target, "SELECT FROM slackwater.collections WHERE state = 'copying'").await;
        (!rows.is_empty()).then_some(())
    })
    .await;
    run.kill().await;
    until("both are named", PATIENCE, async || {
        let output = stage.output(&["cutover", path, "--json"]).await;
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(output.status.code(), Some(8), "{report:#}");
        let named = |name: &str| names(&report).contains(&name);
        assert!(named("snapshot_unfinished"), "{report:#}");
        // Its silence is worth a word after three seconds.
        named("capture_stopped").then(|| println!("{report:#}"))
    })
    .await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_right_to_freeze() {
    let mongod = Mongod::start("rights", Flavour::Passwords).await;
    let mut stage = Stage::at("cutover_rights", &mongod.uri()).await;
    stage.fill(43, 300).await;
    let admin = stage.source.client().database("admin");
    let user =
        doc! {"createUser": "reader", "pwd": "p", "roles": [{"role": "read", "db": stage.source.name()}]};
    admin.run_command(user).await.expect("a user can be made");
    stage.mongodb = mongod.uri_as("reader", "p");
    let file = stage.file("cutover.yaml", &format!("{}\n{}", crm_demo::mapping(), section("")));
    let path = file.to_str().expect("a path in UTF-8");
    let mut processes = [stage.run(&file)];
    until("it is copied", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let output = stage.output(&["status", path, "--json"]).await;
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        (status["copied"] == true && status["lag_ms"].is_i64()).then_some(())
    })
    .await;
    let output = stage.output(&["cutover", path, "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    println!("{report:#}");
    assert_eq!(output.status.code(), Some(8));
    assert!(names(&report).contains(&"no_right_to_freeze"), "{report:#}");
    for process in processes {
        process.stop().await;
    }
    stage.clear().await;
}
