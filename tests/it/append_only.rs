//! Collections in which the first version of a document stands: whatever becomes of documents, and whoever is killed, the rows are as they
//! were first written, and every change is listed.

use std::collections::BTreeMap;

use bson::{Document, doc};
use slackwater_migrations::Chance;

use crate::stage::ground::Ground;
use crate::stage::rounds::change_and_kill;
use crate::stage::{PATIENCE, Slackwater, Stage, number, state, until};

const SCHEMA: &str = "
CREATE TABLE public.accounts (id uuid PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE public.ledger_entries (id uuid PRIMARY KEY, n bigint NOT NULL, amount numeric(12,2) NOT NULL, note text,
                                    account_id uuid NOT NULL REFERENCES public.accounts);
CREATE TABLE public.ledger_lines (entry_id uuid NOT NULL REFERENCES public.ledger_entries, position integer, text text, PRIMARY KEY (entry_id, position));";

const FILE: &str = r#"migration: books
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
cutover: { freeze: { command: { freeze: [ "true" ], unfreeze: [ "true" ] } } }
collections:
  legacy.accounts: { into: accounts, columns: { id: { uuid: _id }, n: { integer: _id } } }
  legacy.ledger:
    - into: ledger_entries
      append_only: true
      columns:
        id: { uuid: _id }
        n: { integer: n }
        amount: { numeric: amount }
        account_id: { ref: account, to: legacy.accounts }
    - into: ledger_lines
      append_only: true
      each: lines[]
      columns: { entry_id: { parent: id }, position: { index: 0 }, text: . }
"#;

const COLLECTIONS: [&str; 2] = ["accounts", "ledger"];
const ACCOUNTS: i64 = 4;

/// What the source has done to each entry.
#[derive(Default)]
struct Books {
    /// The first version of each, as its rows show it.
    first: BTreeMap<i64, Vec<String>>,
    /// What is there.
    now: BTreeMap<i64, Document>,
    /// How often each was updated, deleted, inserted again.
    changed: BTreeMap<(i64, &'static str), i64>,
    version: i64,
}

impl Books {
    fn entry(&mut self, chance: &mut Chance, id: i64) -> Document {
        // No two versions are the same.
        self.version += 1;
        let lines: Vec<String> =
            (0..chance.below(4)).map(|line| format!("{line} of {}", self.version)).collect();
        let account = chance.below(ACCOUNTS as u64) as i64;
        doc! {"_id": id, "n": id, "amount": self.version, "account": account, "lines": lines}
    }

    fn note(&mut self, id: i64, kind: &'static str) {
        *self.changed.entry((id, kind)).or_default() += 1;
    }

    async fn insert(&mut self, stage: &Stage, entry: Document) {
        let id = entry.get_i64("_id").expect("an id");
        stage.source.collection::<Document>("ledger").insert_one(&entry).await.expect("it can be inserted");
        let was_there = self.first.contains_key(&id);
        self.first.entry(id).or_insert_with(|| rows(&entry));
        if was_there {
            self.note(id, "insert");
        }
        self.now.insert(id, entry);
    }

    async fn change(&mut self, stage: &Stage, chance: &mut Chance) {
        let ledger = stage.source.collection::<Document>("ledger");
        let id = chance.below(60) as i64;
        let Some(now) = self.now.get(&id).cloned() else {
            let entry = self.entry(chance, id);
            return self.insert(stage, entry).await;
        };
        match chance.below(4) {
            0 => {
                ledger.delete_one(doc! {"_id": id}).await.expect("it can be deleted");
                self.note(id, "delete");
                self.now.remove(&id);
                if chance.percent(30) {
                    // The same once more.
                    self.insert(stage, now).await;
                }
            }
            1 => {
                let entry = self.entry(chance, id);
                ledger.replace_one(doc! {"_id": id}, &entry).await.expect("it can be replaced");
                self.note(id, "update");
                self.now.insert(id, entry);
            }
            _ => {
                self.version += 1;
                let amount = doc! {"$set": {"amount": self.version}};
                ledger.update_one(doc! {"_id": id}, amount).await.expect("it can be updated");
                self.note(id, "update");
                self.now.get_mut(&id).expect("it is there").insert("amount", self.version);
            }
        }
    }
}

fn rows(entry: &Document) -> Vec<String> {
    let of = |name: &str| entry.get_i64(name).expect("a number");
    let head = format!("{} {}.00 {}", of("n"), of("amount"), of("account"));
    let lines = entry.get_array("lines").expect("lines").iter().enumerate();
    let line =
        |(at, line): (usize, &bson::Bson)| format!("{} {at} {}", of("n"), line.as_str().expect("text"));
    std::iter::once(head).chain(lines.map(line)).collect()
}

async fn shown(stage: &Stage) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', e.n, e.amount, a.n) FROM public.ledger_entries e JOIN public.accounts a ON a.id = e.account_id
               UNION ALL SELECT concat_ws(' ', e.n, l.position, l.text) FROM public.ledger_lines l JOIN public.ledger_entries e ON e.id = l.entry_id
               ORDER BY 1";
    state::rows(&stage.target, sql).await.iter().map(|row| row.get(0)).collect()
}

/// What is listed, as the key, what happened, how often.
async fn listed(stage: &Stage) -> BTreeMap<(i64, String), i64> {
    let sql =
        "SELECT e.n, b.kind, b.count FROM slackwater.breaches b JOIN public.ledger_entries e USING (id)";
    let rows = state::rows(&stage.target, sql).await;
    rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
}

async fn random(kafka: bool, images: bool) {
    let name = if images { "append_images" } else { "append" };
    let seed = number("SLACKWATER_TEST_SEED", 61 + u64::from(kafka));
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let ground = Ground::set(name, kafka, SCHEMA, FILE, &COLLECTIONS).await;
    let stage = ground.stage();
    if images {
        let on = doc! {"collMod": "ledger", "changeStreamPreAndPostImages": {"enabled": true}};
        stage.source.run_command(on).await.expect("post-images can be turned on");
    }
    let accounts = (0..ACCOUNTS).map(|id| doc! {"_id": id});
    stage.source.collection::<Document>("accounts").insert_many(accounts).await.expect("accounts");
    let mut books = Books::default();
    for id in 0..20 {
        let entry = books.entry(&mut chance, id);
        books.insert(stage, entry).await;
    }
    let mut processes = ground.processes();
    // From now on each version travels.
    let first = books.first.values().flatten().count();
    until("it is copied", PATIENCE, async || (shown(stage).await.len() == first).then_some(())).await;
    let which = |which| ground.start(which);
    change_and_kill(stage, &mut chance, &mut processes, which, async |chance: &mut Chance| {
        books.change(stage, chance).await;
    })
    .await;
    ends(stage, &mut processes, &books, images).await;
    // Everything is read once more, and is no news.
    let before = listed(stage).await;
    recopy(&ground, stage, &mut processes).await;
    ends(stage, &mut processes, &books, images).await;
    if images {
        assert_eq!(listed(stage).await, before, "a recopy finds nothing new");
    }
    let incidents = state::incidents(&stage.target).await;
    assert!(incidents.iter().any(|text| text.contains("append_only")), "{incidents:?}");
    println!("{} entries, {} listed", books.first.len(), before.len());
    ground.end(processes).await;
}

async fn recopy(ground: &Ground, stage: &Stage, processes: &mut [Slackwater]) {
    let generation = state::copy(&stage.target).await.generation;
    let output = stage.output(&["recopy", ground.path(), "legacy.ledger"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    until("it is copied again", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let again = state::copy(&stage.target).await.generation > generation;
        (again && state::copied(&stage.target).await).then_some(())
    })
    .await;
}

/// Each row is as it was first, and each change is listed: exactly, where the stream carries documents; otherwise at least that there was one.
async fn ends(stage: &Stage, processes: &mut [Slackwater], books: &Books, exact: bool) {
    let mut wanted: Vec<String> = books.first.values().flatten().cloned().collect();
    wanted.sort();
    let changed: BTreeMap<(i64, String), i64> =
        books.changed.iter().map(|((id, kind), count)| ((*id, (*kind).to_owned()), *count)).collect();
    let ids = |map: &BTreeMap<(i64, String), i64>| -> Vec<i64> {
        let mut ids: Vec<i64> = map.keys().map(|(id, _)| *id).collect();
        ids.dedup();
        ids
    };
    let mut last = (0, 0);
    until("the first versions stand and the changes are listed", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let (mut rows, listed) = (shown(stage).await, listed(stage).await);
        rows.sort();
        let now = (rows.len(), listed.values().sum::<i64>());
        if now != last {
            let other = changed.iter().find(|(change, count)| listed.get(*change) != Some(*count));
            println!("{now:?} of {:?}; for example {other:?}", (wanted.len(), changed.len()));
            last = now;
        }
        let all = if exact { listed == changed } else { ids(&listed) == ids(&changed) };
        (rows == wanted && all).then_some(())
    })
    .await;
    let deletes = books.changed.keys().filter(|(_, kind)| *kind == "delete").count();
    assert!(deletes > 5, "the history has deletes");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_version_stands() {
    random(false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_listed_with_post_images() {
    random(false, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_kafka_with_two_appliers() {
    random(true, true).await;
}

/// Letters, another mapping, a collection that is dropped, and the switch.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_happens() {
    let stage = Stage::new("append_else").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    let ledger = stage.source.collection::<Document>("ledger");
    stage
        .source
        .collection::<Document>("accounts")
        .insert_one(doc! {"_id": 0_i64})
        .await
        .expect("an account");
    let entry = |id: i64, amount: &str| doc! {"_id": id, "n": id, "amount": amount, "note": format!("note {id}"), "account": 0_i64, "lines": []};
    let entries = [entry(1, "1"), entry(2, "2"), entry(3, "three"), entry(4, "4")];
    ledger.insert_many(entries).await.expect("entries");
    let file = stage.file("migration.yaml", FILE);
    let mut process = stage.run(&file);
    let shows = async |wanted: &[&str], process: &mut Slackwater| {
        until(&format!("the rows are {wanted:?}"), PATIENCE, async || {
            process.still_runs();
            (shown(&stage).await == wanted).then_some(())
        })
        .await;
    };
    let lists = async |wanted: &[&str], process: &mut Slackwater| {
        until(&format!("{wanted:?} are listed"), PATIENCE, async || {
            process.still_runs();
            let listed = listed(&stage).await;
            let listed: Vec<String> =
                listed.iter().map(|((id, kind), count)| format!("{kind} {id} {count}")).collect();
            (listed == wanted).then_some(())
        })
        .await;
    };
    shows(&["1 1.00 0", "2 2.00 0", "4 4.00 0"], &mut process).await;
    // A version that is a dead letter does not stand: the next one is the first that is written.
    ledger.update_one(doc! {"_id": 3_i64}, doc! {"$set": {"amount": "3"}}).await.expect("updated");
    shows(&["1 1.00 0", "2 2.00 0", "3 3.00 0", "4 4.00 0"], &mut process).await;
    ledger.update_one(doc! {"_id": 1_i64}, doc! {"$set": {"amount": "9"}}).await.expect("updated");
    ledger.delete_one(doc! {"_id": 2_i64}).await.expect("deleted");
    lists(&["update 1 1", "delete 2 1"], &mut process).await;
    let said = stage.status(&file).await;
    assert_eq!(said["append_only"][0]["collection"], "legacy.ledger", "{said}");
    assert_eq!(said["append_only_documents"].as_array().map(Vec::len), Some(2), "{said}");
    assert!(!said.to_string().contains("note "), "no value is shown");
    process.stop().await;
    // By other rules the versions that stand are made again; of others nobody knows what they were.
    let file = stage.file(
        "migration.yaml",
        &FILE.replace("amount: { numeric: amount }", "amount: { numeric: amount }\n        note: note"),
    );
    let mut process = stage.run(&file);
    let notes = async |wanted: &str, process: &mut Slackwater| {
        until("the rows are made by the other rules", PATIENCE, async || {
            process.still_runs();
            let sql = "SELECT string_agg(concat_ws(' ', n, amount, note), ', ' ORDER BY n) FROM public.ledger_entries";
            let now: Option<String> = stage.target.query_one(sql, &[]).await.expect("rows").get(0);
            (now.as_deref() == Some(wanted) && state::copied(&stage.target).await).then_some(())
        })
        .await;
    };
    notes("1 1.00, 2 2.00, 3 3.00 note 3, 4 4.00 note 4", &mut process).await;
    lists(&["update 1 1", "delete 2 1"], &mut process).await;
    // The switch tells of them, and is not blocked.
    let path = file.to_str().expect("a path in UTF-8");
    until("nothing blocks the switch", PATIENCE, async || {
        let plan = stage.output(&["cutover", path, "--plan"]).await;
        let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
        assert!(plan.contains("append_only: 1 document of legacy.ledger not applied (delete)"), "{plan}");
        plan.contains("Nothing blocks it now").then_some(())
    })
    .await;
    // A collection that is gone takes no row with it, even if that is what a person wants.
    ledger.drop().await.expect("dropped");
    until("it is parked", PATIENCE, async || {
        process.still_runs();
        let gone = state::rows(&stage.target, "SELECT FROM slackwater.gone").await;
        (!gone.is_empty()).then_some(())
    })
    .await;
    let output = stage.output(&["resolve", path, "legacy.ledger", "--follow"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lists(&["delete 1 1", "update 1 1", "delete 2 1", "delete 3 1", "delete 4 1"], &mut process).await;
    until("the recopy has ended", PATIENCE, async || state::copied(&stage.target).await.then_some(())).await;
    notes("1 1.00, 2 2.00, 3 3.00 note 3, 4 4.00 note 4", &mut process).await;
    // Rows that have outlived their documents are counted as such.
    stage.source.create_collection("ledger").await.expect("a collection");
    ledger.insert_one(entry(5, "5")).await.expect("an entry");
    shows(&["1 1.00 0", "2 2.00 0", "3 3.00 0", "4 4.00 0", "5 5.00 0"], &mut process).await;
    let switched = stage.output(&["cutover", path]).await;
    let said =
        format!("{}{}", String::from_utf8_lossy(&switched.stdout), String::from_utf8_lossy(&switched.stderr));
    assert!(switched.status.success(), "{said}");
    assert!(said.contains("warning: append_only"), "{said}");
    drop(process);
    stage.clear().await;
}
