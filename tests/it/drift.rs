//! Tables that change while they are written: the one concerned stands still, the others go on, and when it is mended everything is as
//! the source has it, without a restart.

use std::time::Instant;

use bson::{Document, doc};
use serde_json::Value;

use crate::letters::{letters, set};
use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::{PATIENCE, Slackwater, Stage, number, postgres, until};

const SCHEMA: &str = "
CREATE TABLE orgs (id uuid PRIMARY KEY, n bigint NOT NULL, name text);
CREATE TABLE public.users (id uuid PRIMARY KEY, n bigint NOT NULL, name text, age bigint, score numeric(12,2),
                    org_id uuid REFERENCES orgs, CONSTRAINT users_n UNIQUE (n));
CREATE TABLE notes (id uuid PRIMARY KEY, n bigint NOT NULL, name text);";

const FILE: &str = r#"migration: drift
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.orgs: { into: orgs, columns: { id: { uuid: _id }, n: { integer: _id }, name: name } }
  legacy.users:
    - into: users
      columns: { id: { uuid: _id }, n: { integer: _id }, name: name, age: age, score: score, org_id: { ref: org, to: legacy.orgs } }
  legacy.notes: { into: notes, columns: { id: { uuid: _id }, n: { integer: _id }, name: name } }
"#;

/// What somebody does to a table of the running migration.
struct Drift {
    name: &'static str,
    sql: &'static str,
    mend: &'static str,
    /// The word for it, if the table stands still; otherwise it is written as it is now.
    kind: Option<&'static str>,
}

const fn stands(name: &'static str, sql: &'static str, mend: &'static str, kind: &'static str) -> Drift {
    Drift { name, sql, mend, kind: Some(kind) }
}

const fn goes_on(name: &'static str, sql: &'static str, mend: &'static str) -> Drift {
    Drift { name, sql, mend, kind: None }
}

const DRIFTS: [Drift; 20] = [
    stands(
        "a column is renamed",
        "ALTER TABLE users RENAME COLUMN name TO title",
        "ALTER TABLE users RENAME COLUMN title TO name",
        "column_renamed",
    ),
    stands(
        "a column is dropped",
        "ALTER TABLE users DROP COLUMN age",
        "ALTER TABLE users ADD COLUMN age bigint",
        "column_gone",
    ),
    goes_on("a column is added", "ALTER TABLE users ADD COLUMN extra text", "ALTER TABLE users DROP COLUMN extra"),
    stands(
        "a column without default is added that may not be null",
        "ALTER TABLE users ADD COLUMN tenant text NOT NULL DEFAULT 'x'; ALTER TABLE users ALTER COLUMN tenant DROP DEFAULT",
        "ALTER TABLE users DROP COLUMN tenant",
        "not_null",
    ),
    stands(
        "a type that the rule cannot fill",
        "ALTER TABLE users ALTER COLUMN n TYPE text",
        "ALTER TABLE users ALTER COLUMN n TYPE bigint USING n::bigint",
        "type_changed",
    ),
    goes_on(
        "a column is narrowed",
        "ALTER TABLE users ALTER COLUMN age TYPE smallint USING 0",
        "ALTER TABLE users ALTER COLUMN age TYPE bigint",
    ),
    goes_on(
        "a column is widened",
        "ALTER TABLE users ALTER COLUMN score TYPE numeric",
        "ALTER TABLE users ALTER COLUMN score TYPE numeric(12,2)",
    ),
    goes_on(
        "NOT NULL is added",
        "ALTER TABLE users ALTER COLUMN org_id SET NOT NULL",
        "ALTER TABLE users ALTER COLUMN org_id DROP NOT NULL",
    ),
    goes_on(
        "a check is added",
        "ALTER TABLE users ADD CONSTRAINT positive CHECK (age >= 0) NOT VALID",
        "ALTER TABLE users DROP CONSTRAINT positive",
    ),
    stands(
        "the table is renamed",
        "ALTER TABLE users RENAME TO people",
        "ALTER TABLE people RENAME TO users",
        "table_gone",
    ),
    stands("the table is dropped", "DROP TABLE users", SCHEMA_OF_USERS, "table_gone"),
    goes_on(
        "the key gets another type",
        "ALTER TABLE users ALTER COLUMN id TYPE text",
        "ALTER TABLE users ALTER COLUMN id TYPE uuid USING id::uuid",
    ),
    stands(
        "the key is dropped",
        "ALTER TABLE users DROP CONSTRAINT users_pkey",
        "ALTER TABLE users ADD PRIMARY KEY (id)",
        "key_gone",
    ),
    goes_on(
        "a unique constraint is dropped",
        "ALTER TABLE users DROP CONSTRAINT users_n",
        "ALTER TABLE users ADD CONSTRAINT users_n UNIQUE (n)",
    ),
    goes_on(
        "a foreign key is dropped",
        "ALTER TABLE users DROP CONSTRAINT users_org_id_fkey",
        "ALTER TABLE users ADD FOREIGN KEY (org_id) REFERENCES orgs",
    ),
    stands(
        "a column becomes generated",
        "ALTER TABLE users DROP COLUMN name; ALTER TABLE users ADD COLUMN name text GENERATED ALWAYS AS ('x') STORED",
        "ALTER TABLE users DROP COLUMN name; ALTER TABLE users ADD COLUMN name text",
        "column_generated",
    ),
    stands(
        "the table moves to another schema",
        "CREATE SCHEMA IF NOT EXISTS away; ALTER TABLE users SET SCHEMA away",
        "ALTER TABLE away.users SET SCHEMA public",
        "table_gone",
    ),
    stands(
        "a view takes its place",
        "ALTER TABLE users RENAME TO people; CREATE VIEW public.users AS SELECT * FROM people",
        "DROP VIEW public.users; ALTER TABLE people RENAME TO users",
        "not_a_table",
    ),
    goes_on(
        "a trigger that refuses is added",
        "CREATE OR REPLACE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
         CREATE TRIGGER no BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION no()",
        "DROP TRIGGER no ON users",
    ),
    stands("the table is locked", "LOCK TABLE users", "", "locked"),
];

const SCHEMA_OF_USERS: &str = "
CREATE TABLE public.users (id uuid PRIMARY KEY, n bigint NOT NULL, name text, age bigint, score numeric(12,2),
                    org_id uuid REFERENCES public.orgs, CONSTRAINT users_n UNIQUE (n))";

/// What the source has of the users: number, name, age, number of the organisation.
async fn wanted(stage: &Stage) -> Vec<(i64, Option<String>, Option<i64>, Option<i64>)> {
    let mut cursor = stage
        .source
        .collection::<Document>("users")
        .find(doc! {})
        .sort(doc! {"_id": 1})
        .await
        .expect("users");
    let mut users = Vec::new();
    while cursor.advance().await.expect("users") {
        let user = Document::try_from(cursor.current()).expect("a document");
        users.push((
            user.get_i64("_id").expect("an id"),
            user.get_str("name").ok().map(str::to_owned),
            user.get_i64("age").ok(),
            user.get_i64("org").ok(),
        ));
    }
    users
}

async fn found(stage: &Stage) -> Option<Vec<(i64, Option<String>, Option<i64>, Option<i64>)>> {
    let sql = "SELECT u.n, u.name, u.age::bigint, (SELECT o.n FROM orgs o WHERE o.id = u.org_id) FROM users u ORDER BY 1";
    let rows = stage.target.query(sql, &[]).await.ok()?;
    Some(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect())
}

async fn equal(what: &str, stage: &Stage, processes: &mut [Slackwater]) {
    let wanted = wanted(stage).await;
    let mut said = Instant::now();
    until(what, PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let found = found(stage).await?;
        if found != wanted && said.elapsed().as_secs() > 20 {
            said = Instant::now();
            let differ = wanted.iter().zip(&found).find(|(one, other)| one != other);
            println!(
                "{what}: {} wanted, {} found, {differ:?}, {:?}",
                wanted.len(),
                found.len(),
                letters(stage).await
            );
        }
        (found == wanted && letters(stage).await.is_empty()).then_some(())
    })
    .await;
}

/// Changes users in every way, and waits until another collection shows what it was told after them.
async fn change(stage: &Stage, round: i64) -> f64 {
    let org = round % 7 + 1;
    set(stage, "orgs", 100 + round, doc! {"name": format!("org {round}")}).await;
    set(stage, "users", round % 40, doc! {"name": format!("changed {round}"), "age": -round, "org": org})
        .await;
    set(
        stage,
        "users",
        1_000 + round,
        doc! {"name": format!("new {round}"), "age": round, "score": 1.5, "org": 100 + round},
    )
    .await;
    stage
        .source
        .collection::<Document>("users")
        .delete_one(doc! {"_id": 40 + round})
        .await
        .expect("it can be deleted");
    let begun = Instant::now();
    set(stage, "notes", round, doc! {"name": format!("note {round}")}).await;
    until("the others go on", PATIENCE, async || {
        let sql = "SELECT count(*) FROM notes WHERE name = $1";
        let row = stage.target.query_one(sql, &[&format!("note {round}")]).await.expect("notes");
        (row.get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    begun.elapsed().as_secs_f64()
}

async fn all(stage: &Stage, file: &std::path::Path, processes: &mut [Slackwater]) {
    equal("the copy", stage, processes).await;
    let (mut round, mut last_goes_on) = (0, false);
    let only = std::env::var("SLACKWATER_TEST_DRIFT").unwrap_or_default();
    for drift in DRIFTS.iter().filter(|drift| drift.name.contains(&only)) {
        round += 1;
        println!("{}", drift.name);
        let other = postgres(&stage.postgres).await;
        let followed = std::mem::replace(&mut last_goes_on, drift.kind.is_none());
        let locks = drift.kind == Some("locked");
        if locks {
            other.batch_execute("BEGIN").await.expect("a transaction");
        }
        other.batch_execute(drift.sql).await.expect(drift.name);
        if drift.name.starts_with("NOT NULL") {
            set(stage, "users", 5_000, doc! {"name": "of no organisation", "age": 1_i64}).await;
        }
        let mut slowest = change(stage, round).await;
        if let Some(kind) = drift.kind {
            let mut status = Value::Null;
            until("it is said what stands still", PATIENCE, async || {
                processes.iter_mut().for_each(Slackwater::still_runs);
                status = stage.status(file).await;
                let rows = status["standing"].as_array()?;
                let row = rows.iter().find(|row| row["collection"] == "legacy.users")?;
                // Where the drift before was followed at once, its end and this one may be seen as one change.
                (row["kind"] == kind || followed).then_some(())
            })
            .await;
            println!("  {}", status["standing"]);
        }
        let begun = Instant::now();
        let lasts = number("SLACKWATER_TEST_DRIFT_SECONDS", 0);
        for times in 0.. {
            round += 1;
            slowest = slowest.max(change(stage, round).await);
            if times >= 2 && begun.elapsed().as_secs() >= lasts {
                break;
            }
        }
        let mended = Instant::now();
        match locks {
            true => other.batch_execute("ROLLBACK").await.expect("the lock can be released"),
            false => other.batch_execute(drift.mend).await.expect(drift.name),
        }
        equal(drift.name, stage, processes).await;
        println!(
            "  others within {slowest:.2} s; equal {:.1} s after it was mended",
            mended.elapsed().as_secs_f64()
        );
    }
    // Who watched the last table may notice a moment later than who writes it.
    let mut status = Value::Null;
    until("nothing stands any more", PATIENCE, async || {
        status = stage.status(file).await;
        (status["standing"].as_array()?.is_empty()).then_some(())
    })
    .await;
    let incidents = status["incidents"].as_array().expect("incidents");
    let of = |kind: &str| incidents.iter().filter(|row| row["kind"] == kind).count();
    println!(
        "incidents: {} stood still, {} went on, {} changed",
        of("table_stands"),
        of("table_goes_on"),
        of("schema_changed")
    );
    assert!(
        !only.is_empty() || of("table_stands") >= DRIFTS.iter().filter(|drift| drift.kind.is_some()).count(),
        "{status}"
    );
}

async fn prepare(stage: &Stage) {
    for id in 1..=7_i64 {
        set(stage, "orgs", id, doc! {"name": format!("org {id}")}).await;
    }
    let users = stage.source.collection::<Document>("users");
    let documents = (0..140_i64)
        .map(|id| doc! {"_id": id, "name": format!("user {id}"), "age": id, "score": 0.5, "org": id % 7 + 1});
    users.insert_many(documents).await.expect("they can be inserted");
    set(stage, "notes", 0, doc! {"name": "first"}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_drifts_direct() {
    let stage = Stage::new("drift_direct").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    let file = stage.file("migration.yaml", FILE);
    prepare(&stage).await;
    let mut processes = [stage.run(&file)];
    all(&stage, &file, &mut processes).await;
    for process in processes {
        process.stop().await;
    }
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_drifts_kafka() {
    let stage = Stage::new("drift_kafka").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    prepare(&stage).await;
    let log = Log { partitions: 3, ..Log::at(&shared()) };
    let pipeline = Pipeline::on(stage, FILE, &log).await;
    let mut processes =
        [pipeline.capture("capture"), pipeline.apply("one", Some("one")), pipeline.apply("two", Some("two"))];
    all(&pipeline.stage, &pipeline.file, &mut processes).await;
    for process in processes {
        process.stop().await;
    }
    pipeline.clear().await;
}

const AGAIN: &str = r#"migration: again
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.again: { into: again, columns: { id: { uuid: _id }, n: n, short: { text: short, invalid: clamp }, small: { integer: small, invalid: clamp } } }
  legacy.other: { into: other, columns: { id: { uuid: _id }, n: n } }
"#;

const TABLE_AGAIN: &str =
    "CREATE TABLE public.again (id uuid PRIMARY KEY, n bigint, short varchar(3), small smallint)";

async fn rows(stage: &Stage, sql: &str) -> Option<i64> {
    let row = stage.target.query_one(&format!("SELECT count(*) FROM {sql}"), &[]).await.ok()?;
    Some(row.get(0))
}

/// Nothing of it is the same but what it looks like.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_made_again_at_once_is_copied_again() {
    let stage = Stage::new("drift_again").await;
    let tables = format!("{TABLE_AGAIN}; CREATE TABLE other (id uuid PRIMARY KEY, n bigint)");
    stage.target.batch_execute(&tables).await.expect("the tables can be created");
    let file = stage.file("migration.yaml", AGAIN);
    for id in 0..5_i64 {
        for name in ["again", "other"] {
            set(&stage, name, id, doc! {"n": 1_i64, "short": "abcdef", "small": 100_000}).await;
        }
    }
    let mut process = stage.run(&file);
    let mut has = async |what: &str, sql: &str, count: i64| {
        until(what, PATIENCE, async || {
            process.still_runs();
            (rows(&stage, sql).await? == count && letters(&stage).await.is_empty()).then_some(())
        })
        .await;
    };
    has("the copy", "again WHERE short = 'abc' AND small = 32767", 5).await;
    has("the other copy", "other", 5).await;
    for round in 1..=3_i64 {
        let again = format!("BEGIN; DROP TABLE again; {TABLE_AGAIN}; COMMIT");
        stage.target.batch_execute(&again).await.expect("the table can be made again");
        if round == 2 {
            // Before anybody has looked.
            stage.target.batch_execute(&again).await.expect("the table can be made again");
        }
        set(&stage, "again", 5 + round, doc! {"n": round, "short": "abc", "small": 1}).await;
        set(&stage, "other", 5 + round, doc! {"n": round}).await;
        has("all of it is copied again", "again", 5 + round).await;
        has("the others go on", "other", 5 + round).await;
    }

    // A wider column takes what was cut before.
    let wider = "ALTER TABLE again ALTER COLUMN short TYPE varchar(10), ALTER COLUMN small TYPE integer";
    stage.target.batch_execute(wider).await.expect("the columns can be wider");
    has("nothing is cut any more", "again WHERE short = 'abcdef' AND small = 100000", 5).await;

    // A rule would make a write something else.
    let rule = "CREATE RULE nothing AS ON DELETE TO again DO INSTEAD NOTHING";
    stage.target.batch_execute(rule).await.expect("a rule");
    until("the table stands still", PATIENCE, async || {
        let status = stage.status(&file).await;
        let rows = status["standing"].as_array()?;
        rows.iter()
            .any(|row| row["collection"] == "legacy.again" && row["kind"] == "rule_added")
            .then_some(())
    })
    .await;
    stage.source.collection::<Document>("again").delete_one(doc! {"_id": 0_i64}).await.expect("a delete");
    set(&stage, "other", 20, doc! {"n": 1_i64}).await;
    until("the others go on", PATIENCE, async || (rows(&stage, "other").await? == 9).then_some(())).await;
    stage.target.batch_execute("DROP RULE nothing ON again").await.expect("no rule");
    has("the delete was not lost", "again", 7).await;
    process.stop().await;
    stage.clear().await;
}
