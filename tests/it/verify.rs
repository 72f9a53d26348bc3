//! What is planted into the target is found, named to table, key and column, while others write; and nothing else is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bson::{Document, doc};
use serde_json::Value;
use slackwater_migrations::Chance;

use crate::stage::ground::Ground;
use crate::stage::{PATIENCE, Slackwater, Stage, items, number, postgres, state, until};

pub(crate) const SCHEMA: &str = "
CREATE TABLE public.teams (id uuid PRIMARY KEY, name text NOT NULL, people bigint);
CREATE TABLE public.people (id uuid PRIMARY KEY, n bigint NOT NULL UNIQUE, name text, note text, balance numeric(12,2), ratio numeric, more jsonb,
                            version bigint NOT NULL, friend_id uuid REFERENCES public.people, mail text, since interval);
CREATE TABLE public.lines (id uuid PRIMARY KEY, person_id uuid NOT NULL REFERENCES public.people, sku text NOT NULL, count int);
CREATE INDEX ON public.lines (person_id);
CREATE TABLE public.members (person_id uuid REFERENCES public.people, team_n bigint, PRIMARY KEY (person_id, team_n));
CREATE TABLE public.cities (id uuid PRIMARY KEY, name text NOT NULL, people bigint NOT NULL);";

pub(crate) const FILE: &str = r#"migration: proven
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.people:
    - into: people
      columns:
        id: { uuid: _id }
        n: { integer: _id }
        name: name
        note: note
        balance: { numeric: balance }
        ratio: { numeric: ratio }
        more: { jsonb: more }
        version: { integer: version }
        friend_id: { ref: friend, to: legacy.people }
        mail: { sql: "lower(name) || '@example.org'", with: { name: name } }
        since: { text: since }
    - { into: lines, each: "lines[]", columns: { id: { uuid: each, by: sku }, person_id: { parent: id }, sku: sku, count: { integer: count } } }
    - { into: members, each: "teams[]", columns: { person_id: { parent: id }, team_n: { integer: . } } }
    - { into: cities, merge: any, when: { city: { exists: true } }, columns: { id: { identity: city }, name: city, people: { const: 1, merge: sum } } }
"#;

/// Documents below are left alone by the writers, so what is planted there stays.
const QUIET: i64 = 200;

pub(crate) fn person(chance: &mut Chance, id: i64) -> Document {
    let v = chance.below(1_000) as i64;
    let lines: Vec<Document> =
        (0..1 + v % 3).map(|n| doc! {"sku": format!("s{}", (v + n) % 7), "count": n}).collect();
    doc! {
        "_id": id, "name": format!("Name {v}"), "note": "", "balance": v as f64 / 4.0, "ratio": format!("{}.{}", v, v % 10),
        "more": {"a": v, "b": [1, 2]}, "version": v, "friend": if id < QUIET { (id + 7) % QUIET } else { 20 + v % 100 }, "lines": lines,
        "teams": [v % 5, 5 + v % 4], "city": format!("c{}", v % 9), "since": format!("{} days", 2 + v % 5),
    }
}

/// One change of somebody; `done` changes were made before.
pub(crate) async fn change(
    people: &mongodb::Collection<Document>,
    chance: &mut Chance,
    done: u64,
) -> mongodb::error::Result<()> {
    let id = QUIET + chance.below(300) as i64;
    let document = person(chance, id);
    match chance.below(10) {
        0 => people.delete_one(doc! {"_id": id}).await.map(drop),
        1..=4 => {
            let more = doc! {"$inc": {"version": 1_i64}, "$set": {"name": format!("N{done}")}};
            people.update_one(doc! {"_id": id}, more).await.map(drop)
        }
        _ => people.replace_one(doc! {"_id": id}, document).upsert(true).await.map(drop),
    }
}

/// Changes documents for as long as it is wanted, with a pause between two changes.
pub(crate) async fn write(
    source: mongodb::Database,
    seed: u64,
    pause: std::time::Duration,
    on: Arc<AtomicBool>,
) -> u64 {
    let people = source.collection::<Document>("people");
    let mut chance = Chance::new(seed);
    let mut done = 0;
    while on.load(Ordering::Relaxed) {
        change(&people, &mut chance, done).await.expect("it can be changed");
        done += 1;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    done
}

/// What is found, as text.
fn found(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().expect("findings");
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let one = |finding: &Value| {
        let columns: Vec<String> = finding["columns"].as_array().expect("columns").iter().map(text).collect();
        let document = text(&finding["document"]);
        format!("{} {} {} {}", text(&finding["kind"]), text(&finding["table"]), columns.join(","), document)
    };
    findings.iter().map(one).collect()
}

fn equal(report: &Value) -> bool {
    report["equal"] == true
}

/// The processes, once all these people are there.
pub(crate) async fn filled(ground: &Ground, people: &[Document]) -> Vec<Slackwater> {
    let stage = ground.stage();
    stage.source.collection::<Document>("people").insert_many(people).await.expect("people");
    let mut processes = ground.processes();
    until("everybody is there", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let row = stage.target.query_one("SELECT count(*) FROM people", &[]).await.expect("a row");
        (row.get::<_, i64>(0) == people.len() as i64).then_some(())
    })
    .await;
    processes
}

async fn planted(kafka: bool) {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let ground = Ground::bare("proven", kafka, SCHEMA, FILE, &["people"]).await;
    let stage = ground.stage();
    let people: Vec<Document> = (0..QUIET + 150).map(|id| person(&mut chance, id)).collect();
    let processes = filled(&ground, &people).await;
    let on = Arc::new(AtomicBool::new(true));
    let at_once = std::time::Duration::ZERO;
    let writer = |n| tokio::spawn(write(stage.source.clone(), seed * 10 + n, at_once, Arc::clone(&on)));
    let writers: Vec<_> = (0..2).map(writer).collect();
    for _ in 0..3 {
        let began = std::time::Instant::now();
        let report = ground.verify(&[]).await;
        println!("took {:?}", began.elapsed());
        assert!(equal(&report), "a false alarm: {report:#}");
    }
    let before = "SELECT id::text, version::text, name FROM people WHERE n = 10";
    let older = stage.target.query_one(before, &[]).await.expect("a row");
    let change = doc! {"$inc": {"version": 1_i64}, "$set": {"name": "Newer"}};
    stage
        .source
        .collection::<Document>("people")
        .update_one(doc! {"_id": 10_i64}, change)
        .await
        .expect("changed");
    until("the change is there", PATIENCE, async || {
        let row = stage.target.query_one(before, &[]).await.expect("a row");
        (row.get::<_, &str>(2) == "Newer").then_some(())
    })
    .await;
    let plant = format!(
        "UPDATE people SET name = overlay(name placing 'X' from 3 for 1) WHERE n = 1;
         DELETE FROM lines WHERE person_id = (SELECT id FROM people WHERE n = 2); DELETE FROM members WHERE person_id = (SELECT id FROM people WHERE n = 2);
         UPDATE people SET friend_id = NULL WHERE friend_id = (SELECT id FROM people WHERE n = 2); DELETE FROM people WHERE n = 2;
         INSERT INTO people (id, n, version) VALUES ('11111111-1111-5111-8111-111111111111', 100000, 1);
         INSERT INTO teams (id, name) VALUES ('11111111-1111-5111-8111-111111111111', 'not ours');
         DELETE FROM lines WHERE id = (SELECT id FROM lines WHERE person_id = (SELECT id FROM people WHERE n = 3) ORDER BY sku LIMIT 1);
         INSERT INTO members SELECT id, 77 FROM people WHERE n = 4;
         UPDATE people AS p SET friend_id = o.friend_id FROM people AS o WHERE (p.n = 5 AND o.n = 6) OR (p.n = 6 AND o.n = 5);
         UPDATE people SET balance = balance + 0.01 WHERE n = 7; UPDATE people SET note = NULL WHERE n = 8;
         UPDATE people SET ratio = ratio::numeric(20,5) WHERE n = 9;
         UPDATE people SET version = {}, name = '{}', mail = lower('{}') || '@example.org' WHERE n = 10;
         UPDATE people SET more = more || '{{\"c\": null}}' WHERE n = 11; UPDATE people SET mail = upper(mail) WHERE n = 12;
         UPDATE people SET since = since + interval '1 second' WHERE n = 13;
         UPDATE cities SET people = people + 1 WHERE name = 'c3'; INSERT INTO cities VALUES ('22222222-2222-5222-8222-222222222222', 'nowhere', 1);",
        older.get::<_, &str>(1),
        older.get::<_, &str>(2),
        older.get::<_, &str>(2),
    );
    stage.target.batch_execute(&plant).await.expect("faults can be planted");
    let lines = people[2].get_array("lines").expect("lines").len();
    let mut wanted: BTreeSet<String> = [
        "different public.people name legacy.people 1",
        "missing public.people  legacy.people 2",
        "missing public.members  legacy.people 2",
        "extra public.people  -",
        "missing public.lines  legacy.people 3",
        "extra public.members  -",
        "different public.people friend_id legacy.people 5",
        "different public.people friend_id legacy.people 6",
        "different public.people balance legacy.people 7",
        "different public.people note legacy.people 8",
        "different public.people ratio legacy.people 9",
        "different public.people name,version,mail legacy.people 10",
        "different public.people more legacy.people 11",
        "different public.people mail legacy.people 12",
        "different public.people since legacy.people 13",
        "extra public.cities  -",
        // Who writes meanwhile may have changed the city's people as well, and with that mended it.
        "different public.cities people -",
        // The row that was their friend is gone.
        &format!("different public.people friend_id legacy.people {}", (2 + QUIET - 7) % QUIET),
    ]
    .map(str::to_owned)
    .into();
    assert!(lines > 0);
    wanted.insert("missing public.lines  legacy.people 2".to_owned());
    let mended = "different public.cities people -";
    let report = ground.verify(&[]).await;
    let mut seen = found(&report);
    seen.insert(mended.to_owned());
    assert_eq!(seen, wanted, "{report:#}");
    assert!(!equal(&report));
    let only = ground.verify(&["--collection", "legacy.people", "--throttle", "5000"]).await;
    let mut seen = found(&only);
    seen.insert(mended.to_owned());
    assert_eq!(seen, wanted, "{only:#}");
    let output = |more: &'static [&'static str]| ground.repair(more);
    let kept = output(&[]).await;
    let extra: BTreeSet<String> = wanted.iter().filter(|line| line.starts_with("extra")).cloned().collect();
    assert_eq!(found(&kept["verification"]), extra, "{kept:#}");
    let mended = output(&["--remove-extra"]).await;
    assert!(equal(&mended["verification"]), "{mended:#}");
    assert_eq!(mended["rows_removed"], 3, "{mended:#}");
    on.store(false, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.expect("a writer");
    }
    println!("{written} changes meanwhile");
    for process in processes {
        process.stop().await;
    }
    ground.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_planted_is_found_direct() {
    planted(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_planted_is_found_over_kafka() {
    planted(true).await;
}

/// One that is killed goes on where it was, and says in the end what one says that was left alone.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_killed_goes_on() {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let ground = Ground::bare("proven_again", false, SCHEMA, FILE, &["people"]).await;
    let stage = ground.stage();
    let people: Vec<Document> = (0..25_000).map(|id| person(&mut chance, id)).collect();
    let processes = filled(&ground, &people).await;
    let plant = "UPDATE people SET note = 'x' WHERE n % 100 = 7; DELETE FROM members AS m USING people AS p WHERE p.id = m.person_id AND m.team_n = 3 AND p.n % 10 = 1;
                 INSERT INTO people (id, n, version) SELECT gen_random_uuid(), 100000 + g, 1 FROM generate_series(1, 20) AS g";
    stage.target.batch_execute(plant).await.expect("faults can be planted");
    let file = ground.file().to_str().expect("a path in UTF-8").to_owned();
    let slowly = ["verify", &file, "--throttle", "6000", "--json"];
    for kill in 0..4 {
        let running = stage.start(&slowly, &format!("verify{kill}"));
        // Once it has read something it is cut off at any place.
        let wanted = 5_000 * (kill + 1);
        until("some is read", PATIENCE, async || {
            let sql = "SELECT coalesce(sum(documents), 0)::bigint FROM slackwater.proof_ranges";
            let rows = stage.target.query(sql, &[]).await.ok()?;
            (rows.first()?.get::<_, i64>(0) >= wanted).then_some(())
        })
        .await;
        if kill == 0 {
            let other = stage.output(&["verify", &file, "--sample", "1"]).await;
            assert_eq!(other.status.code(), Some(4), "{}", String::from_utf8_lossy(&other.stderr));
        }
        running.kill_anyhow().await;
    }
    let report = ground.verify(&[]).await;
    let counts = |kind: &str| {
        let of = |finding: &&Value| finding["kind"] == kind;
        report["findings"].as_array().expect("findings").iter().filter(of).count()
    };
    let in_three = |person: &&Document| {
        person.get_array("teams").expect("teams").iter().any(|team| team.as_i64() == Some(3))
    };
    let members = people
        .iter()
        .filter(|person| person.get_i64("_id").expect("an id") % 10 == 1)
        .filter(in_three)
        .count();
    assert_eq!((counts("different"), counts("missing"), counts("extra")), (250, members, 20), "{report:#}");
    let proofs = "SELECT count(*) FROM slackwater.proofs";
    let row = stage.target.query_one(proofs, &[]).await.expect("a row");
    assert_eq!(row.get::<_, i64>(0), 1, "it is one verification");
    // The switch does not begin.
    let plan = stage.output(&["cutover", &file, "--plan", "--json"]).await;
    let plan: Value = serde_json::from_slice(&plan.stdout).expect("a plan");
    let blocks =
        |name: &str| plan["blockers"].as_array().expect("blockers").iter().any(|one| one["blocker"] == name);
    assert!(blocks("findings"), "{plan:#}");
    // One of a part that finds nothing takes nothing back.
    let sample = ground.verify(&["--sample", "1"]).await;
    println!("a sample: {}", sample["documents"]);
    let plan = stage.output(&["cutover", &file, "--plan", "--json"]).await;
    let plan: Value = serde_json::from_slice(&plan.stdout).expect("a plan");
    let blocked =
        plan["blockers"].as_array().expect("blockers").iter().any(|one| one["blocker"] == "findings");
    assert!(blocked, "{plan:#}");
    let mended = ground.repair(&["--remove-extra"]).await;
    assert!(equal(&mended["verification"]), "{mended:#}");
    let lists = "SELECT count(*) FROM pg_class WHERE relname LIKE 'proof\\_%\\_seen\\_%' OR relname LIKE 'proof\\_%\\_extra\\_%'";
    let row = stage.target.query_one(lists, &[]).await.expect("a row");
    assert_eq!(row.get::<_, i64>(0), 0, "no list is left behind");
    for process in processes {
        process.stop().await;
    }
    ground.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_is_waited_for() {
    let stage = Stage::new("verify_locked").await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..50).await;
    let mut run = stage.run(&file);
    until("everything is copied", PATIENCE, async || {
        run.still_runs();
        state::copied(&stage.target).await.then_some(())
    })
    .await;
    let somebody = postgres(&stage.postgres).await;
    somebody.batch_execute("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE").await.expect("a lock");
    let path = file.to_str().expect("UTF-8");
    let mut verify = stage.start(&["verify", path, "--report", "none", "--json"], "verify");
    until("it says who is in the way", PATIENCE, async || {
        assert!(verify.ended().is_none(), "{}", verify.tail());
        (verify.said("waiting, trying again until it is free") && verify.said("is locked by session"))
            .then_some(())
    })
    .await;
    somebody.batch_execute("COMMIT").await.expect("no lock");
    let ended = until("it goes on", PATIENCE, async || verify.ended()).await;
    assert_eq!(ended.code(), Some(0), "{}", verify.tail());
    run.stop().await;
    stage.clear().await;
}
