//! A migration file that changes while its migration runs: after each change the target is what a first copy by the new file would have
//! made, whoever is killed meanwhile, and rows that do not differ are not written. What may not change is refused.

mod by_hand;
mod said;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bson::{Document, doc};
use slackwater_migrations::Chance;
use tokio_postgres::Client;

use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::{PATIENCE, Slackwater, Stage, broker, number, postgres, state, until};

/// As documented: another process has taken over.
const TAKEN_OVER: i32 = 7;

const SCHEMA: &str = "
CREATE TABLE users (id uuid PRIMARY KEY, n bigint, name text, mood text, note text, v bigint, raw jsonb);
CREATE TABLE tags (user_id uuid REFERENCES users ON DELETE CASCADE, tag text, place int, PRIMARY KEY (user_id, tag));
CREATE TABLE people (id uuid PRIMARY KEY, name text);
CREATE TABLE orgs (id uuid PRIMARY KEY, name text, kind text);";

/// Documents with lower numbers are left alone by the writer.
const CALM: i64 = 150;

/// What the file says, by choices.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rules {
    name: usize,
    mood: usize,
    note: bool,
    v: usize,
    raw: bool,
    tags: Option<(usize, usize)>,
    /// Some tags only.
    picky: bool,
    people: bool,
    orgs: Option<usize>,
}

const NAMES: [&str; 5] = [
    "first",
    "last",
    "{ text: first, lower: true }",
    "{ text: nick, default: nobody }",
    "{ sql: upper(f), with: { f: first } }",
];
const MOODS: [&str; 3] = ["mood", "{ text: mood, empty: null }", "{ text: mood, trim: true }"];
const VALUES: [&str; 3] =
    ["{ integer: v, invalid: 'null' }", "{ integer: v, invalid: reject }", "{ integer: n }"];
const ARRAYS: [&str; 2] = ["tags[]", "labels[]"];

impl Rules {
    fn first() -> Self {
        Self {
            name: 0,
            mood: 0,
            note: true,
            v: 0,
            raw: false,
            tags: Some((0, 0)),
            picky: false,
            people: false,
            orgs: Some(0),
        }
    }

    /// The tables that are filled, and the columns that are.
    fn filled(&self) -> Vec<(&'static str, Vec<&'static str>)> {
        let mut users = vec!["id", "n", "name", "mood", "v"];
        users.extend(self.note.then_some("note"));
        users.extend(self.raw.then_some("raw"));
        let mut filled = vec![("users", users)];
        filled.extend(self.tags.map(|_| ("tags", vec!["user_id", "tag", "place"])));
        filled.extend(self.people.then(|| ("people", vec!["id", "name"])));
        filled.extend(self.orgs.map(|_| ("orgs", vec!["id", "name", "kind"])));
        filled
    }

    fn file(&self) -> String {
        let mut text = String::from(
            r#"migration: changes
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}" } }
snapshot: { workers: 2, chunk_documents: 100 }
not_migrated: [ legacy.* ]
collections:
  legacy.users:
    - into: users
      columns:
        id: { uuid: _id }
        n: n
"#,
        );
        let mut column = |name: &str, rule: &str| text += &format!("        {name}: {rule}\n");
        column("name", NAMES[self.name]);
        column("mood", MOODS[self.mood]);
        column("v", VALUES[self.v]);
        if self.note {
            column("note", "note");
        }
        if self.raw {
            column("raw", "{ rest: jsonb }");
        }
        if let Some((array, from)) = self.tags {
            let each = ARRAYS[array];
            let when = if self.picky { "      when: { \".\": { matches: \"[a-e]\" } }\n" } else { "" };
            text += &format!(
                "    - into: tags\n      each: {each}\n{when}      columns: {{ user_id: {{ parent: id }}, tag: ., place: {{ index: {from} }} }}\n"
            );
        }
        if self.people {
            text += "    - { into: people, columns: { id: { uuid: _id }, name: last } }\n";
        }
        if let Some(kind) = self.orgs {
            text += &format!(
                "  legacy.orgs: {{ into: orgs, set: {{ kind: kind-{kind} }}, columns: {{ id: {{ uuid: _id }}, name: name }} }}\n"
            );
        }
        text
    }

    /// One thing or two are others.
    fn changed(&self, chance: &mut Chance) -> Self {
        let mut next = self.clone();
        let other = |chance: &mut Chance, now: usize, all: usize| {
            (now + 1 + chance.below(all as u64 - 1) as usize) % all
        };
        while next == *self {
            for _ in 0..=chance.below(2) {
                match chance.below(9) {
                    0 => next.name = other(chance, next.name, NAMES.len()),
                    1 => next.mood = other(chance, next.mood, MOODS.len()),
                    2 => next.note = !next.note,
                    3 => next.v = other(chance, next.v, VALUES.len()),
                    4 => next.raw = !next.raw,
                    5 => {
                        next.tags = match next.tags {
                            Some(_) if chance.percent(35) => None,
                            Some((array, from)) if chance.percent(50) => Some((1 - array, from)),
                            Some((array, from)) => Some((array, 1 - from)),
                            None => Some((0, 0)),
                        }
                    }
                    6 => next.people = !next.people,
                    7 => next.picky = !next.picky,
                    _ => {
                        next.orgs = match next.orgs {
                            Some(_) if chance.percent(50) => None,
                            Some(kind) => Some(1 - kind),
                            None => Some(0),
                        }
                    }
                }
            }
        }
        next
    }
}

fn user(chance: &mut Chance, n: i64) -> Document {
    let words = |chance: &mut Chance, some: &[&str]| {
        let many = chance.below(4);
        let mut words: Vec<String> =
            (0..many).map(|_| some[chance.below(some.len() as u64) as usize].to_owned()).collect();
        words.sort();
        words.dedup();
        words
    };
    let mood = ["", "good", " bad ", "fair"][chance.below(4) as usize];
    let mut user = doc! {
        "_id": n, "n": n, "first": format!("First{}", chance.below(50)), "last": format!("Last{}", chance.below(50)),
        "mood": mood, "note": format!("note {}", chance.below(9)),
        "tags": words(chance, &["a", "b", "c", "d"]), "labels": words(chance, &["b", "c", "x", "y"]),
    };
    // The update of a document that is refused leaves the row that is there, so the writer writes none such.
    if n >= CALM || chance.percent(90) {
        user.insert("v", chance.below(100) as i64);
    } else {
        user.insert("v", "not a number");
    }
    if chance.percent(30) {
        user.insert("nick", format!("nick{}", chance.below(20)));
    }
    user
}

/// A few changes at the source.
async fn write(stage: &Stage, chance: &mut Chance, next: &mut i64) {
    let users = stage.source.collection::<Document>("users");
    for _ in 0..20 {
        let n = CALM + chance.below((*next - CALM) as u64) as i64;
        match chance.below(10) {
            0 => drop(users.delete_one(doc! {"_id": n}).await.expect("a user can be deleted")),
            1..4 => {
                let new = user(chance, *next);
                users.insert_one(new).await.expect("a user can be inserted");
                *next += 1;
            }
            _ => {
                let new = user(chance, n);
                let replaced = users.replace_one(doc! {"_id": n}, new).await;
                replaced.expect("a user can be changed");
            }
        }
    }
    let orgs = stage.source.collection::<Document>("orgs");
    let name = format!("Org {}", chance.below(1000));
    let n = chance.below(40) as i64;
    let changed = orgs.update_one(doc! {"_id": n}, doc! {"$set": {"name": name}}).upsert(true).await;
    changed.expect("an organisation can be changed");
}

/// The filled columns of the filled tables, a line a row.
async fn shown(client: &Client, rules: &Rules) -> Vec<String> {
    let mut lines = Vec::new();
    for (table, columns) in rules.filled() {
        let sql = format!("SELECT ROW({})::text FROM {table}", columns.join(", "));
        let Ok(rows) = client.query(&sql, &[]).await else { continue };
        lines.extend(rows.iter().map(|row| format!("{table} {}", row.get::<_, String>(0))));
    }
    lines.sort();
    lines
}

/// What a first copy by this file makes of the source as it is now, in a database of its own.
async fn first_copy(stage: &Stage, rules: &Rules) -> Vec<String> {
    let name = format!("{}_first", stage.name);
    let url = format!("{}/{name}", stage.postgres.rsplit_once('/').expect("a URL with a database").0);
    let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    stage.target.batch_execute(&drop).await.expect("the database of the last copy can go");
    stage.target.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database can be created");
    let client = postgres(&url).await;
    client.batch_execute(SCHEMA).await.expect("the tables can be created");
    let file = stage.file("first.yaml", &rules.file().replace("${SLACKWATER_POSTGRES_URL}", &url));
    let mut process = stage.start(&["run", file.to_str().expect("UTF-8")], "first");
    let collections = 1 + i64::from(rules.orgs.is_some());
    until("the first copy is made", PATIENCE, async || {
        process.still_runs();
        let sql = "SELECT count(*) FROM slackwater.collections WHERE state = 'copied'";
        (state::rows(&client, sql).await.first()?.get::<_, i64>(0) == collections).then_some(())
    })
    .await;
    process.stop().await;
    let lines = shown(&client, rules).await;
    drop_database(stage, client, &name).await;
    lines
}

async fn drop_database(stage: &Stage, client: Client, name: &str) {
    std::mem::drop(client);
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    stage.target.batch_execute(&drop).await.expect("the database can go");
}

/// Rows of calm documents, with the transaction that wrote each.
async fn calm(stage: &Stage, rules: &Rules) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for (table, columns) in rules.filled() {
        let of = match table {
            "users" => format!("n < {CALM}"),
            "tags" => format!("user_id IN (SELECT id FROM users WHERE n < {CALM})"),
            _ => continue,
        };
        let sql = format!("SELECT ROW({})::text, xmin::text FROM {table} WHERE {of}", columns.join(", "));
        for row in stage.target.query(&sql, &[]).await.expect("rows can be read") {
            rows.insert(format!("{table} {}", row.get::<_, String>(0)), row.get(1));
        }
    }
    rows
}

async fn prepare(stage: &Stage, chance: &mut Chance) -> i64 {
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    let users: Vec<Document> = (0..600).map(|n| user(chance, n)).collect();
    stage.source.collection("users").insert_many(users).await.expect("users can be inserted");
    let orgs = (0..30_i64).map(|n| doc! {"_id": n, "name": format!("Org {n}")});
    stage.source.collection("orgs").insert_many(orgs).await.expect("organisations can be inserted");
    600
}

/// Those that were superseded are started with the file as it is now; nobody else ends.
fn look_after(processes: &mut [Slackwater], start: &dyn Fn(&str) -> Slackwater) {
    for process in processes {
        if process.ended().and_then(|status| status.code()) == Some(TAKEN_OVER) {
            *process = start(process.name());
        }
        process.still_runs();
    }
}

/// Waits until nothing is to be copied again and the target shows the same as a first copy.
async fn equal(
    what: &str,
    stage: &Stage,
    rules: &Rules,
    processes: &mut [Slackwater],
    start: &dyn Fn(&str) -> Slackwater,
) {
    let wanted = first_copy(stage, rules).await;
    let mut last = String::new();
    until(what, PATIENCE, async || {
        look_after(processes, start);
        let found = shown(&stage.target, rules).await;
        let open = "SELECT 1 FROM slackwater.recopies UNION ALL SELECT 1 FROM slackwater.collections WHERE state <> 'copied' OR reload";
        let open = state::rows(&stage.target, open).await.len();
        let lacking = wanted.iter().filter(|line| !found.contains(line)).count();
        let more: Vec<&String> = found.iter().filter(|line| !wanted.contains(line)).collect();
        let now =
            format!("{lacking} lacking, {} more, {open} open, such as {:?}", more.len(), more.first());
        if now != last {
            println!("  {now}");
            last = now;
        }
        (lacking == 0 && more.is_empty() && wanted.len() == found.len() && open == 0).then_some(())
    })
    .await;
}

/// Changes the file again and again under a writer and kills; `processes` are those that `start` starts, by name.
async fn change_again_and_again(
    stage: &Stage,
    file: &PathBuf,
    more: &str,
    names: &[&str],
    start: &dyn Fn(&str) -> Slackwater,
) {
    let seed = number("SLACKWATER_TEST_SEED", 11);
    let changes = number("SLACKWATER_TEST_CHANGES", 4);
    println!("seed {seed}, {changes} changes");
    let mut chance = Chance::of(seed, 0, 0);
    let mut next = prepare(stage, &mut chance).await;
    let mut rules = Rules::first();
    std::fs::write(file, rules.file() + more).expect("the file can be written");
    let mut processes: Vec<Slackwater> = names.iter().map(|name| start(name)).collect();
    equal("the first copy", stage, &rules, &mut processes, start).await;
    let (mut kept, mut written) = (0, 0);
    for change in 1..=changes {
        let before = calm(stage, &rules).await;
        let was = rules.clone();
        rules = rules.changed(&mut chance);
        println!("change {change}: {rules:?}");
        write(stage, &mut chance, &mut next).await;
        std::fs::write(file, rules.file() + more).expect("the file can be written");
        // In any order; the old ones work on until it is their turn.
        let mut order: Vec<usize> = (0..processes.len()).collect();
        chance.shuffle(&mut order);
        for place in order {
            let name = processes[place].name().to_owned();
            // One that was superseded meanwhile has ended by itself.
            if processes[place].ended().is_none() {
                std::mem::replace(&mut processes[place], start(&name)).kill_anyhow().await;
            } else {
                processes[place] = start(&name);
            }
            write(stage, &mut chance, &mut next).await;
        }
        for _ in 0..2 {
            let victim = chance.below(processes.len() as u64) as usize;
            let name = processes[victim].name().to_owned();
            // The random moment is the test: nothing is waited for.
            tokio::time::sleep(std::time::Duration::from_millis(chance.below(1_500))).await;
            std::mem::replace(&mut processes[victim], start(&name)).kill_anyhow().await;
            write(stage, &mut chance, &mut next).await;
        }
        equal("the target is as a first copy would make it", stage, &rules, &mut processes, start).await;
        if was.filled() == rules.filled() {
            let after = calm(stage, &rules).await;
            for (row, xmin) in &after {
                match before.get(row) {
                    Some(old) if old == xmin => kept += 1,
                    Some(_) => panic!("a row that does not differ was written: {row}"),
                    None => written += 1,
                }
            }
        }
    }
    println!("calm rows that were left alone: {kept}, that differed: {written}");
    stage.verifies(file).await;
    for process in processes {
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_under_writes_and_kills() {
    let stage = Stage::new("changes").await;
    let file = stage.file("migration.yaml", "");
    let path = file.to_str().expect("UTF-8").to_owned();
    let start = |name: &str| stage.start(&["run", &path], name);
    change_again_and_again(&stage, &file, "", &["run"], &start).await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_under_writes_and_kills_with_kafka() {
    let stage = Stage::new("changes_kafka").await;
    let with_orgs = Rules::first().file();
    let pipeline =
        Pipeline::on(stage, &with_orgs, &Log { partitions: 2, ..Log::at(&broker::shared()) }).await;
    let text = std::fs::read_to_string(&pipeline.file).expect("the file");
    let more = text[text.find("\nlog:").expect("the log")..].to_owned();
    let start = |name: &str| match name {
        "capture" => pipeline.capture(name),
        "two" => pipeline.apply(name, Some(name)),
        _ => pipeline.apply(name, None),
    };
    change_again_and_again(&pipeline.stage, &pipeline.file, &more, &["capture", "one", "two"], &start).await;
    pipeline.clear().await;
}

async fn xmins(stage: &Stage) -> BTreeMap<i64, (String, String)> {
    let rows = stage.target.query("SELECT n, name, xmin::text FROM items", &[]).await.expect("rows");
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

async fn copied(stage: &Stage, process: &mut Slackwater, generation: i32) {
    until("it is copied", PATIENCE, async || {
        process.still_runs();
        let copy = state::copy(&stage.target).await;
        (state::copied(&stage.target).await && copy.generation == generation).then_some(())
    })
    .await;
}
