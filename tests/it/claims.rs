//! Keys of which nothing is made of `_id`: a row belongs to the document that came first with its key, moves when the document's key
//! changes, and goes with the document. Kills change nothing.

use std::collections::BTreeMap;

use bson::{Document, doc};
use slackwater_migrations::Chance;

use crate::letters::letters;
use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::rounds::{Shown, change_and_kill, ends_as};
use crate::stage::{PATIENCE, Slackwater, Stage, followed, number, until};

const SCHEMA: &str = "
CREATE TABLE public.currencies (code text PRIMARY KEY, v bigint);
CREATE TABLE public.prices (id uuid PRIMARY KEY, v bigint, currency text NOT NULL REFERENCES public.currencies);
CREATE TABLE public.settings (scope text, n numeric, v bigint, own text DEFAULT 'theirs', PRIMARY KEY (scope, n));";

const FILE: &str = r#"migration: claims
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.currencies: { into: currencies, columns: { code: code, v: v } }
  legacy.prices: { into: prices, columns: { id: { uuid: _id }, v: v, currency: currency } }
  legacy.settings: { into: settings, columns: { scope: scope, n: n, v: v } }
"#;

const NAMES: [&str; 3] = ["currencies", "prices", "settings"];

type Documents = BTreeMap<(&'static str, i64), Document>;

fn key(document: &Document) -> String {
    let of = |name: &str| document.get(name).map(ToString::to_string).unwrap_or_default();
    format!("{}{}{}", of("code"), of("scope"), of("n"))
}

/// What the table needs of a document: whole numbers are written in different types, and are one key.
fn made(name: &str, id: i64, chance: &mut Chance) -> Document {
    let mut document = doc! {"_id": id, "v": chance.below(1_000) as i64};
    let code = format!("C{}", chance.below(20));
    match name {
        "currencies" => document.insert("code", code),
        "prices" => document.insert("currency", code),
        _ => {
            document.insert("scope", if chance.below(2) == 0 { "a" } else { "b" });
            let n = chance.below(10);
            document.insert(
                "n",
                if chance.below(2) == 0 { bson::Bson::Double(n as f64) } else { (n as i64).into() },
            )
        }
    };
    document
}

/// Changes some documents, in the source and in our books. No two documents of the source have the same key.
async fn change(stage: &Stage, chance: &mut Chance, documents: &mut Documents) {
    let name = NAMES[chance.below(3) as usize];
    let id = chance.below(14) as i64;
    let collection = stage.source.collection::<Document>(name);
    match chance.below(5) {
        0 => {
            collection.delete_one(doc! {"_id": id}).await.expect("it can be deleted");
            documents.remove(&(name, id));
        }
        // Two documents change their keys with each other.
        1 if name != "prices" => {
            let other = chance.below(14) as i64;
            let (Some(one), Some(two)) = (documents.get(&(name, id)), documents.get(&(name, other))) else {
                return;
            };
            if id == other {
                return;
            }
            let (mut one, mut two) = (one.clone(), two.clone());
            std::mem::swap(&mut one, &mut two);
            one.insert("_id", id);
            two.insert("_id", other);
            let mut session = collection.client().start_session().await.expect("a session");
            session.start_transaction().await.expect("a transaction");
            for document in [&one, &two] {
                let this = doc! {"_id": document.get_i64("_id").expect("an id")};
                let replaced = collection.replace_one(this, document).session(&mut session).await;
                replaced.expect("it can be replaced");
            }
            session.commit_transaction().await.expect("it can be committed");
            documents.insert((name, id), one);
            documents.insert((name, other), two);
        }
        _ => {
            let document = made(name, id, chance);
            let mine = number_of(&document);
            let taken = documents.iter().any(|((of, other), theirs)| {
                *of == name && *other != id && name != "prices" && number_of(theirs) == mine
            });
            if taken {
                return;
            }
            let replaced = collection.replace_one(doc! {"_id": id}, document.clone()).upsert(true).await;
            replaced.expect("it can be replaced");
            documents.insert((name, id), document);
        }
    }
}

/// The key, the same for 1 and 1.0.
fn number_of(document: &Document) -> String {
    let mut document = document.clone();
    if let Ok(n) = document.get_f64("n") {
        document.insert("n", n as i64);
    }
    key(&document)
}

/// What the tables must show, and how many rows must wait.
fn wanted(documents: &Documents) -> Shown {
    let text = |document: &Document, name: &str| document.get_str(name).expect("a text").to_owned();
    let (mut rows, mut held) = (Vec::new(), 0);
    for ((name, _), document) in documents {
        let v = document.get_i64("v").expect("v");
        match *name {
            "currencies" => rows.push(format!("currencies {} {v}", text(document, "code"))),
            "prices" => {
                let currency = text(document, "currency");
                let there = documents
                    .iter()
                    .any(|((of, _), one)| *of == "currencies" && text(one, "code") == currency);
                if there { rows.push(format!("prices {currency} {v}")) } else { held += 1 }
            }
            _ => {
                let n =
                    document.get_i64("n").unwrap_or_else(|_| document.get_f64("n").expect("a number") as i64);
                rows.push(format!("settings {} {n} {v}", text(document, "scope")));
            }
        }
    }
    rows.sort();
    (rows, held)
}

async fn shown(stage: &Stage) -> Vec<String> {
    const SHOWN: &str = "
SELECT concat_ws(' ', 'currencies', code, v) FROM currencies
UNION ALL SELECT concat_ws(' ', 'prices', currency, v) FROM prices
UNION ALL SELECT concat_ws(' ', 'settings', scope, n, v) FROM settings";
    let rows = stage.target.query(SHOWN, &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn play(
    stage: &Stage,
    documents: &mut Documents,
    chance: &mut Chance,
    processes: &mut Vec<Slackwater>,
    start: impl Fn(usize) -> Slackwater,
) {
    change_and_kill(stage, chance, processes, start, async |chance| change(stage, chance, documents).await)
        .await;
    ends_as(&wanted(documents), stage, processes, async || shown(stage).await).await;
    let claims = stage.target.query("SELECT FROM slackwater.claims", &[]).await.expect("rows").len();
    let claiming = documents.keys().filter(|(name, _)| *name != "prices").count();
    assert_eq!(claims, claiming, "one claim a document");
}

async fn begin(stage: &Stage, chance: &mut Chance) -> Documents {
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    for name in NAMES {
        stage.source.create_collection(name).await.expect("a collection");
    }
    let mut documents = Documents::new();
    for _ in 0..100 {
        change(stage, chance, &mut documents).await;
    }
    documents
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_direct() {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let stage = Stage::new("claims_direct").await;
    let mut documents = begin(&stage, &mut chance).await;
    let file = stage.file("migration.yaml", &followed(FILE));
    let mut processes = vec![stage.run(&file)];
    play(&stage, &mut documents, &mut chance, &mut processes, |_| stage.run(&file)).await;
    stage.verifies(&file).await;
    for process in processes {
        process.stop().await;
    }
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_over_kafka() {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let stage = Stage::new("claims_kafka").await;
    let mut documents = begin(&stage, &mut chance).await;
    let log = Log { partitions: 3, ..Log::at(&shared()) };
    let pipeline = Pipeline::on(stage, &followed(FILE), &log).await;
    let start = |which: usize| match which {
        0 => pipeline.capture("capture"),
        1 => pipeline.apply("one", Some("one")),
        _ => pipeline.apply("two", Some("two")),
    };
    let mut processes: Vec<Slackwater> = (0..3).map(start).collect();
    play(&pipeline.stage, &mut documents, &mut chance, &mut processes, start).await;
    pipeline.stage.verifies(&pipeline.file).await;
    for process in processes {
        process.stop().await;
    }
    pipeline.clear().await;
}

/// Of two documents with the same key the first has the row. The other's letter names it, and comes by itself.
#[tokio::test(flavor = "multi_thread")]
async fn real_duplicates() {
    let stage = Stage::new("claims_duplicates").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    stage.target.batch_execute("INSERT INTO currencies VALUES ('TEAM', 7)").await.expect("a row of the team");
    for name in NAMES {
        stage.source.create_collection(name).await.expect("a collection");
    }
    let currencies = stage.source.collection::<Document>("currencies");
    currencies.insert_one(doc! {"_id": 1, "code": "EUR", "v": 1_i64}).await.expect("a document");
    let file = stage.file("migration.yaml", &followed(FILE));
    let process = stage.run(&file);
    let rows = async |wanted: &[&str]| {
        until("the rows are there", PATIENCE, async || {
            let mut rows = shown(&stage).await;
            rows.sort();
            (rows == wanted).then_some(())
        })
        .await;
    };
    rows(&["currencies EUR 1", "currencies TEAM 7"]).await;
    currencies.insert_one(doc! {"_id": 2, "code": "EUR", "v": 2_i64}).await.expect("a document");
    let text = until("the second is a letter", PATIENCE, async || {
        let letter =
            stage.target.query_opt("SELECT reason FROM slackwater.dead_letters", &[]).await.ok()??;
        Some(letter.get::<_, String>(0))
    })
    .await;
    assert!(text.contains("taken by another document: legacy.currencies 1"), "{text}");
    rows(&["currencies EUR 1", "currencies TEAM 7"]).await;
    currencies.delete_one(doc! {"_id": 1}).await.expect("it can be deleted");
    rows(&["currencies EUR 2", "currencies TEAM 7"]).await;
    until("no letter is left", PATIENCE, async || letters(&stage).await.is_empty().then_some(())).await;
    process.stop().await;
    stage.clear().await;
}
