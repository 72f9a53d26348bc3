//! Generated targets whose tables refer to each other in every way and have unique values of every kind, over sources whose references are late, dangle and go, and whose unique values change places. Processes
//! are killed meanwhile. In the end the target has what follows from the documents alone, no document is a dead letter, and what
//! waits is what the source does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bson::{Document, doc};

use slackwater_migrations::Chance;

use crate::letters::letters;
use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::state;
use crate::stage::{PATIENCE, Slackwater, Stage, number, until};

/// A table: what each of its references points to, and how.
#[derive(Clone, Debug)]
struct Made {
    references: Vec<Pointer>,
    /// What makes `u` unique.
    unique: &'static str,
}

#[derive(Clone, Debug)]
struct Pointer {
    to: usize,
    required: bool,
    rule: &'static str,
}

/// Collection and `_id`.
type Id = (usize, i32);

/// A row: a number, and the `_id`s of what it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    v: i32,
    u: i32,
    refers: Vec<Option<i32>>,
}

fn generated(chance: &mut Chance) -> Vec<Made> {
    let count = 2 + chance.below(5) as usize;
    let table = |chance: &mut Chance, index: usize| {
        let pointer = |chance: &mut Chance| {
            // Half of the references go back in the order of the tables; the others may go in circles.
            let to = if chance.percent(50) { index } else { count } as u64;
            let required = chance.percent(45);
            let rules = [
                "",
                " on delete restrict",
                " on delete cascade",
                " deferrable",
                " deferrable initially deferred",
            ];
            let nullable = [" on delete set null", " on delete set default", " on update cascade"];
            let pick = chance.below(if required { 5 } else { 8 }) as usize;
            let rule = rules.get(pick).or_else(|| nullable.get(pick - 5)).expect("a rule");
            Pointer { to: chance.below(to.max(1)) as usize, required, rule }
        };
        let references: Vec<Pointer> = (0..chance.below(4)).map(|_| pointer(chance)).collect();
        let uniques = [
            "",
            "alter table T add unique (u)",
            "alter table T add unique (u) deferrable",
            "alter table T add unique (v, u)",
            "create unique index on T (u) where v < 50",
            "create unique index on T ((u * 2), abs(v)) where v is not null",
            "alter table T add exclude using gist (int4range(u, u + 1) with &&)",
        ];
        Made { unique: uniques[chance.below(uniques.len() as u64) as usize], references }
    };
    (0..count).map(|index| table(chance, index)).collect()
}

fn schema(made: &[Made]) -> String {
    let mut sql = String::new();
    for (index, table) in made.iter().enumerate() {
        let column = |(at, one): (usize, &Pointer)| {
            format!(", r{at} uuid{}", if one.required { " not null" } else { "" })
        };
        let columns: String = table.references.iter().enumerate().map(column).collect();
        let _ = write!(
            sql,
            "create table t{index} (id uuid primary key, n int not null, v int, u int{columns});"
        );
    }
    for (index, table) in made.iter().enumerate() {
        let _ = write!(sql, "{};", table.unique.replace(" T ", &format!(" t{index} ")));
        for (at, one) in table.references.iter().enumerate() {
            let _ = write!(
                sql,
                "alter table t{index} add foreign key (r{at}) references t{}{}; create index on t{index} (r{at});",
                one.to, one.rule
            );
        }
    }
    sql
}

fn file(made: &[Made]) -> String {
    let mut text = String::from(
        "migration: references\nsources:\n  legacy: { mongodb: { uri: \"${SLACKWATER_MONGODB_URI}\", database: \"${SOURCE_DATABASE}\" } }\n\
         target: { postgres: { uri: \"${SLACKWATER_POSTGRES_URL}\", schema: public } }\ncollections:\n",
    );
    for (index, table) in made.iter().enumerate() {
        let _ = write!(
            text,
            "  legacy.c{index}:\n    - into: t{index}\n      columns:\n        id: {{ uuid: _id }}\n        n: {{ integer: _id }}\n        \
             v: {{ integer: v }}\n        u: {{ integer: u }}\n"
        );
        for (at, one) in table.references.iter().enumerate() {
            let _ = writeln!(text, "        r{at}: {{ ref: r{at}, to: legacy.c{} }}", one.to);
        }
    }
    text
}

/// A document and what it refers to; no two of a collection have the same `u`.
type Documents = BTreeMap<Id, Row>;

impl Row {
    fn document(&self, id: i32) -> Document {
        let mut document = doc! { "_id": id, "v": self.v, "u": self.u };
        for (at, to) in self.refers.iter().enumerate() {
            if let Some(to) = to {
                document.insert(format!("r{at}"), to);
            }
        }
        document
    }
}

/// Changes some documents; which. Who takes a `u` from another gives its own.
fn changed(chance: &mut Chance, made: &[Made], pool: u64, documents: &mut Documents) -> BTreeSet<Id> {
    let mut touched = BTreeSet::new();
    for _ in 0..=chance.below(6) {
        let table = chance.below(made.len() as u64) as usize;
        let key = (table, chance.below(pool) as i32);
        touched.insert(key);
        if chance.percent(25) {
            documents.remove(&key);
            continue;
        }
        let taken = |documents: &Documents, u: i32| {
            let has = |(id, row): (&Id, &Row)| (id.0 == table && row.u == u && *id != key).then_some(*id);
            documents.iter().find_map(has)
        };
        let mut u = chance.below(pool) as i32;
        if let Some(other) = taken(documents, u) {
            match documents.get(&key).map(|row| row.u) {
                Some(own) => {
                    documents.get_mut(&other).expect("it is there").u = own;
                    touched.insert(other);
                }
                None => u = (0..).find(|u| taken(documents, *u).is_none()).expect("some number"),
            }
        }
        let v = chance.below(100) as i32;
        let refers = made[table].references.iter();
        let refers =
            refers.map(|one| (one.required || chance.percent(80)).then(|| chance.below(pool) as i32));
        documents.insert(key, Row { v, u, refers: refers.collect() });
    }
    touched
}

/// The same in one transaction of the source.
async fn change(stage: &Stage, documents: &Documents, touched: &BTreeSet<Id>) {
    let mut session = stage.source.client().start_session().await.expect("a session");
    loop {
        session.start_transaction().await.expect("a transaction");
        let mut outcome = Ok(());
        for id in touched {
            let collection = stage.source.collection::<Document>(&format!("c{}", id.0));
            let by_id = doc! { "_id": id.1 };
            outcome = match documents.get(id) {
                Some(row) => {
                    let replaced = collection.replace_one(by_id, row.document(id.1)).upsert(true);
                    replaced.session(&mut session).await.map(drop)
                }
                None => collection.delete_one(by_id).session(&mut session).await.map(drop),
            };
            if outcome.is_err() {
                break;
            }
        }
        if outcome.is_ok() && session.commit_transaction().await.is_ok() {
            return;
        }
        let _ = session.abort_transaction().await;
    }
}

/// The most rows of which each finds what it requires.
fn standing(made: &[Made], documents: &Documents) -> BTreeSet<Id> {
    let mut standing: BTreeSet<Id> = documents.keys().copied().collect();
    loop {
        let lacks = |id: &Id| {
            let wants = made[id.0].references.iter().zip(&documents[id].refers);
            wants
                .into_iter()
                .any(|(one, to)| one.required && to.is_none_or(|to| !standing.contains(&(one.to, to))))
        };
        let lost: Vec<Id> = standing.iter().filter(|id| lacks(id)).copied().collect();
        if lost.is_empty() {
            return standing;
        }
        lost.iter().for_each(|id| {
            standing.remove(id);
        });
    }
}

/// What the target should show.
fn expected(made: &[Made], documents: &BTreeMap<Id, Row>) -> BTreeMap<Id, Row> {
    let standing = standing(made, documents);
    let shown = |(id, row): (&Id, &Row)| {
        let mut row = row.clone();
        for (one, to) in made[id.0].references.iter().zip(&mut row.refers) {
            *to = to.filter(|to| standing.contains(&(one.to, *to)));
        }
        (*id, row)
    };
    documents.iter().filter(|(id, _)| standing.contains(id)).map(shown).collect()
}

/// What it shows, in one look.
async fn found(stage: &Stage, made: &[Made]) -> BTreeMap<Id, Row> {
    let mut parts = Vec::new();
    for (index, table) in made.iter().enumerate() {
        let refers = table.references.iter().enumerate();
        let refers: Vec<String> =
            refers.map(|(at, one)| format!("(select p.n from t{} p where p.id = t.r{at})", one.to)).collect();
        parts.push(format!(
            "select {index}, t.n, t.v, t.u, array[{}]::int[] from t{index} t",
            refers.join(", ")
        ));
    }
    let rows = stage.target.query(&parts.join(" union all "), &[]).await.expect("rows");
    rows.iter()
        .map(|row| {
            (
                (row.get::<_, i32>(0) as usize, row.get(1)),
                Row { v: row.get(2), u: row.get(3), refers: row.get(4) },
            )
        })
        .collect()
}

async fn one(seed: u64, kafka: bool) {
    let mut chance = Chance::new(seed);
    let made = generated(&mut chance);
    println!("seed {seed}, {}, {made:?}", if kafka { "Kafka" } else { "direct" });
    let stage = Stage::new(&format!("references_{}", if kafka { "kafka" } else { "direct" })).await;
    stage.target.batch_execute(&schema(&made)).await.expect("the tables can be created");
    let pool = 6 + chance.below(30);
    let mut documents = Documents::new();
    for (index, _) in made.iter().enumerate() {
        stage.source.create_collection(format!("c{index}")).await.expect("a collection");
    }
    for _ in 0..pool / 2 {
        let touched = changed(&mut chance, &made, pool, &mut documents);
        change(&stage, &documents, &touched).await;
    }
    let (pipeline, alone) = if kafka {
        let log = Log { partitions: 3, ..Log::at(&shared()) };
        (Some(Pipeline::on(stage, &file(&made), &log).await), None)
    } else {
        (None, Some(stage))
    };
    let stage = pipeline.as_ref().map(|pipeline| &pipeline.stage).or(alone.as_ref()).expect("a stage");
    let path = stage.file("migration.yaml", &file(&made));
    let start = |which: usize| match (&pipeline, which) {
        (None, _) => stage.run(&path),
        (Some(pipeline), 0) => pipeline.capture("capture"),
        (Some(pipeline), 1) => pipeline.apply("one", Some("one")),
        (Some(pipeline), _) => pipeline.apply("two", Some("two")),
    };
    let mut processes: Vec<Slackwater> = (0..if kafka { 3 } else { 1 }).map(start).collect();
    let kills = number("SLACKWATER_TEST_KILLS", 2);
    for round in 0..=kills {
        for _ in 0..chance.below(40) {
            let touched = changed(&mut chance, &made, pool, &mut documents);
            change(stage, &documents, &touched).await;
        }
        if round < kills {
            let which = chance.below(processes.len() as u64) as usize;
            processes.remove(which).kill().await;
            processes.insert(which, start(which));
        }
    }

    let expected = expected(&made, &documents);
    let mut last = BTreeMap::new();
    until("the target is equal", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let found = found(stage, &made).await;
        if found != last {
            println!(
                "{} of {} rows are as they should be",
                found.iter().filter(|row| expected.get(row.0) == Some(row.1)).count(),
                expected.len()
            );
            last = found.clone();
        }
        // What is not there is held, and nothing else is.
        let held = "select count(*) from slackwater.waiting_rows where held";
        let held: i64 = state::rows(&stage.target, held).await.first().map_or(0, |row| row.get(0));
        let equal = found == expected && held as usize == documents.len() - expected.len();
        (equal && letters(stage).await.is_empty()).then_some(())
    })
    .await;
    for process in processes {
        process.stop().await;
    }
    if let Some(pipeline) = pipeline {
        pipeline.clear().await;
    }
    if let Some(stage) = alone {
        stage.clear().await;
    }
}

async fn many(kafka: bool) {
    let first = number("SLACKWATER_TEST_SEED", 1);
    for seed in first..first + number("SLACKWATER_TEST_ROUNDS", 3) {
        Box::pin(one(seed, kafka)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_with_the_direct_log() {
    many(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_over_kafka() {
    many(true).await;
}
