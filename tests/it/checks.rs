//! Checks: what the source says against what the target says. No false alarm while others write; what is planted is found, and what is mapped
//! wrongly, which a verification cannot see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Decimal128, Document, doc};
use mongodb::Database;
use mongodb::options::ChangeStreamPreAndPostImages;
use serde_json::Value;
use slackwater_migrations::Chance;

use crate::lag::{address, ask};
use crate::stage::ground::Ground;
use crate::stage::{PATIENCE, Slackwater, number, state, until};

const SCHEMA: &str = "
CREATE TABLE public.users (id uuid PRIMARY KEY, old_id text NOT NULL UNIQUE, name text);
CREATE TABLE public.invoices (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES public.users, amount numeric(12,2), fee numeric(12,2),
                              at timestamptz, paid boolean);
CREATE INDEX ON public.invoices (user_id);";

/// The fee is filled with the wrong field.
const FILE: &str = r#"migration: checked
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.users: { into: users, columns: { id: { uuid: _id }, old_id: { text: no }, name: name } }
  legacy.invoices:
    into: invoices
    columns:
      id: { uuid: _id }
      user_id: { ref: user, to: legacy.users }
      amount: { numeric: amount }
      fee: { numeric: amount }
      at: { timestamp: at }
      paid: { boolean: paid }
"#;

const CHECKS: &str = r#"checks:
  - { name: users, source: { collection: legacy.users }, target: select count(*) from users }
  - { name: paid ones, source: { collection: legacy.invoices, filter: { paid: true } }, target: select count(*) from invoices where paid }
  - name: total
    source: { collection: legacy.invoices, aggregate: [ { $group: { _id: null, total: { $sum: $amount } } } ] }
    target: select sum(amount) from invoices;
  - name: total nearly
    source: { collection: legacy.invoices, aggregate: [ { $group: { _id: null, total: { $sum: $amount } } } ] }
    target: select sum(amount) * 1.004 from invoices
    within: 1%
  - name: every balance
    source:
      collection: legacy.invoices
      aggregate: [ { $group: { _id: $user, balance: { $sum: $amount } } } ]
    target: select user_id as "user", sum(amount) from invoices group by 1
    by: user
    of: legacy.users
  - name: every balance by the old id
    source:
      collection: legacy.invoices
      aggregate:
        - { $lookup: { from: users, localField: user, foreignField: _id, as: u } }
        - { $group: { _id: { $first: $u.no }, balance: { $sum: $amount } } }
    target: select u.old_id as no, sum(i.amount) from invoices i join users u on u.id = i.user_id group by 1
    by: no
  - { name: by payment, source: { collection: legacy.invoices }, by: paid, target: "select paid, count(*) from invoices group by 1" }
  - name: newest
    source: { collection: legacy.invoices, aggregate: [ { $group: { _id: null, at: { $max: $at } } } ] }
    target: select max(at) from invoices
  - name: last name
    source: { collection: legacy.users, aggregate: [ { $group: { _id: null, name: { $max: $name } } } ] }
    target: select max(name collate "C") from users
  - { name: no strangers, returns_nothing: select id from invoices where user_id is null }
"#;

const FEES: &str = r#"  - name: fees
    source: { collection: legacy.invoices, aggregate: [ { $group: { _id: null, fees: { $sum: { $toDecimal: $fee } } } } ] }
    target: select sum(fee) from invoices
"#;

const USERS: u64 = 40;
/// The invoices of these users are left alone by the writers.
const QUIET: u64 = 20;

fn user(n: u64) -> ObjectId {
    let mut bytes = [7; 12];
    bytes[4..].copy_from_slice(&n.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

fn cents(cents: u64) -> Decimal128 {
    format!("{}.{:02}", cents / 100, cents % 100).parse().expect("a decimal")
}

fn invoice(chance: &mut Chance, id: i64, user_number: u64) -> Document {
    let amount: Bson = match chance.below(3) {
        0 => cents(chance.below(100_000)).into(),
        1 => (chance.below(4_000) as f64 / 4.0).into(),
        _ => (chance.below(1_000) as i64).into(),
    };
    doc! {
        "_id": id, "user": user(user_number), "amount": amount, "fee": chance.below(400) as f64 / 4.0, "paid": chance.below(2) == 0,
        "at": DateTime::from_millis(1_772_359_200_000 + chance.below(1_000_000) as i64),
    }
}

/// Changes invoices for as long as it is wanted: also two of them in one transaction, so that the total stays.
async fn write(source: Database, seed: u64, on: Arc<AtomicBool>) -> u64 {
    let invoices = source.collection::<Document>("invoices");
    let mut chance = Chance::new(seed);
    let mut session = source.client().start_session().await.expect("a session");
    let mut done = 0;
    let busy = |chance: &mut Chance| QUIET + chance.below(USERS - QUIET);
    while on.load(Ordering::Relaxed) {
        let id = 10_000 + chance.below(300) as i64;
        let changed = match chance.below(10) {
            0 => invoices.delete_one(doc! {"_id": id}).await.map(drop),
            1..=4 => {
                let to = 10_000 + chance.below(300) as i64;
                let moved = cents(1 + chance.below(5_000));
                let back: Decimal128 = format!("-{moved}").parse().expect("a decimal");
                session.start_transaction().await.expect("a transaction");
                let mut both = Ok(());
                for (which, amount) in [(id, moved), (to, back)] {
                    let change = doc! {"$inc": {"amount": amount}};
                    both = both.and(
                        invoices
                            .update_one(doc! {"_id": which}, change)
                            .session(&mut session)
                            .await
                            .map(drop),
                    );
                }
                // Another writer may have been first.
                match both {
                    Ok(()) => session.commit_transaction().await.map_or(Ok(()), Ok),
                    Err(_) => session.abort_transaction().await.map_or(Ok(()), Ok),
                }
            }
            _ => {
                let number = busy(&mut chance);
                let document = invoice(&mut chance, id, number);
                invoices.replace_one(doc! {"_id": id}, document).upsert(true).await.map(drop)
            }
        };
        match changed {
            Ok(()) => done += 1,
            Err(error) if error.to_string().contains("WriteConflict") => {}
            Err(error) => panic!("it can be changed: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(4)).await;
    }
    done
}

/// What `slackwater checks` says of these; all of them if none are named.
async fn checks(ground: &Ground, names: &[&str]) -> (Option<i32>, Value) {
    let mut arguments = vec!["checks", ground.path(), "--json"];
    names.iter().for_each(|name| arguments.extend(["--name", name]));
    let output = ground.stage().output(&arguments).await;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("an answer: {}", said()));
    (output.status.code(), json)
}

fn one<'j>(answer: &'j Value, name: &str) -> &'j Value {
    let all = answer["checks"].as_array().expect("checks");
    all.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("no {name}: {answer:#}"))
}

fn verdicts(answer: &Value) -> Vec<(&str, &str)> {
    let all = answer["checks"].as_array().expect("checks").iter();
    all.map(|check| (check["check"].as_str().expect("a name"), check["verdict"].as_str().expect("a word")))
        .collect()
}

/// Everything is loaded and in the target.
async fn filled(name: &str, way: Way, file: &str) -> (Ground, Vec<Slackwater>) {
    let kafka = way == Way::Kafka;
    let ground = Ground::set(name, kafka, SCHEMA, file, &["users", "invoices"]).await;
    let source = &ground.stage().source;
    for collection in ["users", "invoices"] {
        let images =
            doc! {"collMod": collection, "changeStreamPreAndPostImages": {"enabled": way != Way::Bare}};
        source.run_command(images).await.expect("post-images, or none");
    }
    let users =
        (0..USERS).map(|n| doc! {"_id": user(n), "no": format!("old-{n}"), "name": format!("Ann {n}")});
    source.collection::<Document>("users").insert_many(users).await.expect("users");
    let mut chance = Chance::new(number("SLACKWATER_TEST_SEED", 1));
    let quiet: Vec<Document> = (0..200).map(|id| invoice(&mut chance, id, id as u64 % QUIET)).collect();
    let busy: Vec<Document> =
        (0..300).map(|id| invoice(&mut chance, 10_000 + id, QUIET + id as u64 % (USERS - QUIET))).collect();
    let invoices = source.collection::<Document>("invoices");
    invoices.insert_many(quiet).await.expect("invoices");
    invoices.insert_many(busy).await.expect("invoices");
    let mut processes = ground.processes();
    until("everything is copied and there", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let output = ground.stage().output(&["status", ground.path(), "--json"]).await;
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let row = ground.stage().target.query_one("SELECT count(*) FROM invoices", &[]).await.expect("a row");
        (status["copied"] == true && status["lag_ms"].is_i64() && row.get::<_, i64>(0) == 500).then_some(())
    })
    .await;
    (ground, processes)
}

/// How the rows come into the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In one process, with post-images: both sides can be read as of one moment.
    Direct,
    /// In one process, without: what was looked up may be newer than the stream.
    Bare,
    Kafka,
}

async fn agree(way: Way) {
    let exact = way == Way::Direct;
    let seed = number("SLACKWATER_TEST_SEED", 1);
    println!("seed {seed}");
    let (ground, processes) = filled(
        if way == Way::Bare { "checks_bare" } else { "checks" },
        way,
        &format!("{FILE}{CHECKS}{FEES}"),
    )
    .await;
    let (code, answer) = checks(&ground, &[]).await;
    println!("{answer:#}");
    assert_eq!(code, Some(11));
    for (name, verdict) in verdicts(&answer) {
        let wanted = if name == "fees" { "fails" } else { "holds" };
        assert_eq!(verdict, wanted, "{name}: {answer:#}");
    }
    // What is mapped wrongly is equal to what the mapping makes, and is found all the same.
    assert_eq!(ground.verify(&[]).await["equal"], true);
    let fees = one(&answer, "fees");
    assert!(fees["source"].is_string() && fees["source"] != fees["target"], "{fees}");
    assert_eq!(one(&answer, "users")["source"], USERS.to_string());
    assert_eq!(one(&answer, "total nearly")["within"], "1%");
    assert_eq!(one(&answer, "every balance")["keys"], USERS);

    // While others write nothing fails that does not.
    let on = Arc::new(AtomicBool::new(true));
    let source = &ground.stage().source;
    let writers: Vec<_> =
        (0..3).map(|n| tokio::spawn(write(source.clone(), seed * 10 + n, Arc::clone(&on)))).collect();
    let moving = ["total", "every balance", "by payment", "newest", "users"];
    let runs = number("SLACKWATER_TEST_CHECKS", if exact { 6 } else { 2 });
    let mut unsettled = 0;
    for _ in 0..runs {
        for name in moving {
            let (_, answer) = checks(&ground, &[name]).await;
            let verdict = &one(&answer, name)["verdict"];
            assert!(verdict != "fails", "a false alarm: {answer:#}");
            unsettled += u64::from(verdict == "unsettled");
        }
    }
    println!("{unsettled} of {} were unsettled", runs * moving.len() as u64);
    if exact {
        assert!(unsettled < runs, "as of one moment both sides agree though they move");
    }

    // A hundredth that is too much, with somebody whom nobody writes to.
    let plant = "UPDATE invoices SET amount = amount + 0.01 WHERE id = (SELECT i.id FROM invoices i JOIN users u ON u.id = i.user_id \
                 WHERE u.old_id = 'old-3' ORDER BY 1 LIMIT 1)";
    ground.stage().target.execute(plant, &[]).await.expect("it can be planted");
    let name = "every balance by the old id";
    let (code, answer) = checks(&ground, &[name]).await;
    assert_eq!(code, Some(11), "{answer:#}");
    let found = one(&answer, name);
    assert_eq!((&found["verdict"], &found["differing"]), (&"fails".into(), &1.into()), "{answer:#}");
    assert_eq!(found["differences"][0]["key"], "old-3", "{answer:#}");
    if exact {
        let (_, answer) = checks(&ground, &["total"]).await;
        assert_eq!(one(&answer, "total")["verdict"], "fails", "though the total moves: {answer:#}");
    }
    on.store(false, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.expect("a writer");
    }
    println!("{written} changes meanwhile");
    let (_, answer) = checks(&ground, &["total", "every balance"]).await;
    assert_eq!(verdicts(&answer), [("total", "fails"), ("every balance", "fails")], "{answer:#}");
    let mended = plant.replace('+', "-");
    ground.stage().target.execute(&mended, &[]).await.expect("it can be mended");
    let (code, answer) = checks(&ground, &["total", "every balance"]).await;
    assert_eq!(code, Some(0), "{answer:#}");
    for process in processes {
        process.stop().await;
    }
    ground.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_agree_direct() {
    agree(Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_agree_without_post_images() {
    agree(Way::Bare).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_agree_over_kafka() {
    agree(Way::Kafka).await;
}

/// What blocks the switch, by the plan.
async fn blockers(ground: &Ground) -> Vec<(String, String)> {
    let plan = ground.stage().output(&["cutover", ground.path(), "--plan", "--json"]).await;
    let plan: Value = serde_json::from_slice(&plan.stdout).expect("a plan");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let blockers = plan["blockers"].as_array().expect("blockers").iter();
    blockers.map(|one| (text(&one["blocker"]), text(&one["what"]))).collect()
}

/// Waits until a check blocks, or does not.
async fn blocks(ground: &Ground, name: &str, wanted: bool) {
    until("the gate is as it should be", PATIENCE, async || {
        let found = blockers(ground).await;
        let blocks = found.iter().any(|(blocker, _)| blocker == name);
        println!("{found:?}");
        (blocks == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_ones_are_criteria_for_going_back() {
    let scheduled = CHECKS
        .replace(
            "target: select count(*) from users }",
            "target: select count(*) from users, every: 1s, rollback: true }",
        )
        .replace("user_id is null }", "user_id is null, at: \"03:00\" }");
    let ground =
        Ground::set("checks_scheduled", false, SCHEMA, &format!("{FILE}{scheduled}"), &["users", "invoices"])
            .await;
    let stage = ground.stage();
    let users = (0..9).map(|n| doc! {"_id": user(n), "no": format!("old-{n}"), "name": "Ann"});
    stage.source.collection::<Document>("users").insert_many(users).await.expect("users");
    let address = address();
    let mut run = stage.start(&["run", ground.path(), "--listen", &address], "run");
    let state = async |run: &mut Slackwater, wanted: bool| {
        until("the check says so", PATIENCE, async || {
            run.still_runs();
            let output = stage.output(&["status", ground.path(), "--json"]).await;
            let status: Value = serde_json::from_slice(&output.stdout).ok()?;
            let all = status["checks"].as_array().expect("checks");
            // The other one is not due.
            assert!(all.len() <= 1, "{status:#}");
            let check = all.first()?;
            (check["check"] == "users" && check["failing"] == wanted && check["rollback"] == true)
                .then_some(())
        })
        .await;
    };
    let shown = async |line: &str| {
        until("the metric says so", PATIENCE, async || {
            let (_, metrics) = ask(&address, "/metrics").await?;
            metrics.contains(line).then_some(())
        })
        .await;
    };
    let holds =
        |value: u8| format!("slackwater_check_holds{{migration=\"checked\",check=\"users\"}} {value}\n");
    let failing =
        |value: u8| format!("slackwater_rollback_criteria_failing{{migration=\"checked\"}} {value}\n");
    state(&mut run, false).await;
    shown(&holds(1)).await;
    shown(&failing(0)).await;
    blocks(&ground, "rollback_criterion", false).await;

    let plant = "INSERT INTO users (id, old_id) VALUES (gen_random_uuid(), 'nobody')";
    stage.target.execute(plant, &[]).await.expect("it can be planted");
    state(&mut run, true).await;
    shown(&holds(0)).await;
    shown(&failing(1)).await;
    blocks(&ground, "rollback_criterion", true).await;
    assert!(run.said("the check `users` fails"), "{}", run.tail());
    let said = String::from_utf8(stage.output(&["status", ground.path()]).await.stdout).expect("text");
    assert!(said.contains("rollback criterion users: fails"), "{said}");
    let incidents = "SELECT text FROM slackwater.incidents WHERE kind = 'rollback_criterion'";
    let rows = stage.target.query(incidents, &[]).await.expect("incidents");
    assert_eq!(rows.len(), 1, "once, however often it runs");
    assert_eq!(rows[0].get::<_, &str>(0), "the check `users` fails: source and target differ");

    stage.target.execute("DELETE FROM users WHERE old_id = 'nobody'", &[]).await.expect("it can be mended");
    state(&mut run, false).await;
    shown(&holds(1)).await;
    blocks(&ground, "rollback_criterion", false).await;

    // One that is no criterion has the usual name.
    let stray = "INSERT INTO users (id, old_id, name) VALUES (gen_random_uuid(), 'stray', 'Zoe'); DELETE FROM users WHERE old_id = 'old-0'";
    stage.target.batch_execute(stray).await.expect("it can be planted");
    blocks(&ground, "check_fails", true).await;
    run.stop().await;
    ground.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_behind_a_foreign_key_that_postgres_does_not_vouch_for() {
    let schema = SCHEMA.replace(" REFERENCES public.users", "");
    let ground = Ground::set("checks_orphans", false, &schema, FILE, &["users", "invoices"]).await;
    let stage = ground.stage();
    let mut chance = Chance::new(5);
    stage
        .source
        .collection("users")
        .insert_one(doc! {"_id": user(1), "no": "1", "name": "Ann"})
        .await
        .expect("a user");
    let invoices: Vec<Document> =
        (0..5).map(|id| invoice(&mut chance, id, if id < 3 { 1 } else { 2 })).collect();
    stage.source.collection("invoices").insert_many(invoices).await.expect("invoices");
    let run = ground.processes();
    until("the invoices are there", PATIENCE, async || {
        let row = stage.target.query_one("SELECT count(*) FROM invoices", &[]).await.expect("a row");
        (row.get::<_, i64>(0) == 5).then_some(())
    })
    .await;
    let (code, answer) = checks(&ground, &[]).await;
    assert_eq!(
        (code, answer["checks"].as_array().map(Vec::len)),
        (Some(0), Some(0)),
        "no foreign key, no check"
    );
    let key = "ALTER TABLE invoices ADD CONSTRAINT owner FOREIGN KEY (user_id) REFERENCES users NOT VALID";
    stage.target.batch_execute(key).await.expect("a foreign key");
    let name = "orphans of invoices.user_id";
    let (code, answer) = checks(&ground, &[]).await;
    let found = one(&answer, name);
    assert_eq!(
        (code, &found["verdict"], &found["orphans"]),
        (Some(11), &"fails".into(), &1.into()),
        "{answer:#}"
    );
    blocks(&ground, "check_fails", true).await;
    let other = stage.output(&["checks", ground.path(), "--name", "orphans of invoices.userid"]).await;
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(other.status.code() == Some(4) && said.contains(&format!("did you mean `{name}`?")), "{said}");

    // The user comes, and Postgres vouches.
    stage
        .source
        .collection("users")
        .insert_one(doc! {"_id": user(2), "no": "2", "name": "Bob"})
        .await
        .expect("a user");
    until("nothing is an orphan", PATIENCE, async || {
        let (code, answer) = checks(&ground, &[]).await;
        (code == Some(0)).then(|| assert_eq!(one(&answer, name)["verdict"], "holds"))
    })
    .await;
    blocks(&ground, "check_fails", false).await;
    stage.target.batch_execute("ALTER TABLE invoices VALIDATE CONSTRAINT owner").await.expect("it is valid");
    assert_eq!(checks(&ground, &[]).await.1["checks"].as_array().map(Vec::len), Some(0));
    let triggers = "ALTER TABLE invoices DISABLE TRIGGER ALL";
    stage.target.batch_execute(triggers).await.expect("a superuser may");
    assert_eq!(one(&checks(&ground, &[]).await.1, name)["foreign_key"], "its triggers are disabled");
    for process in run {
        process.stop().await;
    }
    ground.clear().await;
}

/// Whoever runs what is due is killed in the middle of it, again and again: another one goes on, and nothing that was held stays held.
async fn scheduled_under_kills(kafka: bool) {
    let seed = number("SLACKWATER_TEST_SEED", 3);
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    // The second one takes so long that a kill meets it.
    let slow = "checks:
  - { name: users, source: { collection: legacy.users }, target: select count(*) from users, every: 1s }
  - { name: slow, source: { collection: legacy.users }, target: \"select count(*) from users, pg_sleep(0.4)\", every: 1s, rollback: true }\n";
    let file = format!("{FILE}{slow}");
    let ground = Ground::set("checks_killed", kafka, SCHEMA, &file, &["users", "invoices"]).await;
    let stage = ground.stage();
    let users = (0..9).map(|n| doc! {"_id": user(n), "no": format!("old-{n}"), "name": "Ann"});
    stage.source.collection::<Document>("users").insert_many(users).await.expect("users");
    let mut processes = ground.processes();
    let ran = async || {
        let sql = "SELECT (extract(epoch FROM max(ran_at)) * 1000)::bigint FROM slackwater.checks WHERE name = 'slow'";
        let rows = state::rows(&stage.target, sql).await;
        rows.first().and_then(|row| row.get::<_, Option<i64>>(0)).unwrap_or_default()
    };
    for _ in 0..number("SLACKWATER_TEST_KILLS", 4) {
        let before = ran().await;
        until("the slow check runs again", PATIENCE, async || {
            processes.iter_mut().for_each(Slackwater::still_runs);
            (ran().await > before).then_some(())
        })
        .await;
        until("it is at work", PATIENCE, async || {
            let sql = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE '%pg_sleep(0.4)%' AND pid <> pg_backend_pid()";
            (!state::rows(&stage.target, sql).await.is_empty()).then_some(())
        })
        .await;
        // The capture runs them. The other processes may go as well.
        for (which, process) in processes.iter_mut().enumerate() {
            if which == 0 || chance.percent(30) {
                std::mem::replace(process, ground.start(which)).kill_anyhow().await;
            }
        }
    }
    let before = ran().await;
    until("the slow check runs again after the last kill", PATIENCE, async || {
        (ran().await > before).then_some(())
    })
    .await;
    let failing = "SELECT name FROM slackwater.checks WHERE failing";
    assert!(state::rows(&stage.target, failing).await.is_empty(), "what was cut off counts as failed");
    let incidents = "SELECT text FROM slackwater.incidents WHERE kind IN ('rollback_criterion', 'check')";
    assert!(state::rows(&stage.target, incidents).await.is_empty(), "what was cut off is an incident");
    ground.end(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_ones_survive_kills_direct() {
    scheduled_under_kills(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_ones_survive_kills_over_kafka() {
    scheduled_under_kills(true).await;
}

/// The file asks for a verification of everything that is not old: none, one with findings, one of a part, and one that is too old block.
#[tokio::test(flavor = "multi_thread")]
async fn a_verification_has_to_be_fresh() {
    let within = |text: &str| format!("{FILE}cutover: {{ max_lag: 20s, verified_within: {text} }}\n");
    let ground = Ground::bare("checks_fresh", false, SCHEMA, &within("1h"), &["users", "invoices"]).await;
    let stage = ground.stage();
    let users = (0..9).map(|n| doc! {"_id": user(n), "no": format!("old-{n}"), "name": "Ann"});
    stage.source.collection::<Document>("users").insert_many(users).await.expect("users");
    let processes = ground.processes();
    until("everybody is there", PATIENCE, async || {
        let row = stage.target.query_one("SELECT count(*) FROM users", &[]).await.expect("a row");
        (row.get::<_, i64>(0) == 9).then_some(())
    })
    .await;
    let said = async |name: &str| {
        blockers(&ground).await.into_iter().find_map(|(blocker, what)| (blocker == name).then_some(what))
    };
    assert!(said("not_verified").await.expect("it blocks").contains("there was none"));
    // Of a part of the documents only.
    assert_eq!(ground.verify(&["--collection", "legacy.users"]).await["equal"], true);
    assert!(said("not_verified").await.expect("it blocks").contains("not of everything"));
    assert_eq!(ground.verify(&[]).await["equal"], true);
    blocks(&ground, "not_verified", false).await;
    // With a finding.
    stage.target.execute("UPDATE users SET name = 'Zoe' WHERE old_id = 'old-3'", &[]).await.expect("spoilt");
    assert_eq!(ground.verify(&[]).await["equal"], false);
    blocks(&ground, "not_verified", true).await;
    blocks(&ground, "findings", true).await;
    assert_eq!(ground.repair(&[]).await["verification"]["equal"], true);
    blocks(&ground, "not_verified", false).await;
    blocks(&ground, "findings", false).await;
    // Every one is too old once, and the text says how old.
    std::fs::write(ground.file(), within("1ms")).expect("the file can be written");
    assert!(said("not_verified").await.expect("it blocks").contains(" ago, and 1 ms is allowed"));
    for process in processes {
        process.stop().await;
    }
    ground.clear().await;
}

/// Somebody writes all the time, one document after the other: the rows are then never those of a moment of which all is known to have come, and
/// the total is told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_total_that_never_rests_is_told() {
    let file = FILE.to_owned()
        + "checks:\n  - { name: users, source: { collection: legacy.users }, target: select count(*) from users }\n";
    let ground = Ground::set("checks_busy", false, SCHEMA, &file, &[]).await;
    let stage = ground.stage();
    for name in ["users", "invoices"] {
        let images = ChangeStreamPreAndPostImages::builder().enabled(true).build();
        let create = stage.source.create_collection(name).change_stream_pre_and_post_images(images);
        create.await.expect("a collection");
    }
    let mut processes = ground.processes();
    until("it follows", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        state::copied(&stage.target).await.then_some(())
    })
    .await;
    let on = Arc::new(AtomicBool::new(true));
    let (source, writing) = (stage.source.clone(), Arc::clone(&on));
    let writer = tokio::spawn(async move {
        let mut n = 0;
        while writing.load(Ordering::Relaxed) {
            n += 1;
            let user = doc! {"_id": user(n), "no": n as i64, "name": format!("user {n}")};
            source.collection::<Document>("users").insert_one(user).await.expect("a document");
        }
        n
    });
    until("rows come", PATIENCE, async || {
        let count: i64 = state::rows(&stage.target, "SELECT count(*) FROM users").await[0].get(0);
        (count > 100).then_some(())
    })
    .await;
    for _ in 0..3 {
        let output = stage.output(&["checks", ground.file().to_str().expect("UTF-8"), "--json"]).await;
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(output.status.code(), Some(0), "{said:#}");
    }
    on.store(false, Ordering::Relaxed);
    println!("{} users", writer.await.expect("the writer"));
    ground.end(processes).await;
}
