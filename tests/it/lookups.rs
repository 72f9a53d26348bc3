//! Values of other documents: whichever comes first, changes, moves or goes, and whoever is killed, each row has what the books say.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};
use slackwater_migrations::Chance;

use crate::letters::set;
use crate::stage::ground::Ground;
use crate::stage::rounds::{Shown, change_and_kill, ends_as};
use crate::stage::{PATIENCE, Stage, number, until};

const SCHEMA: &str = "
CREATE TABLE public.people (id uuid PRIMARY KEY, email text NOT NULL);
CREATE TABLE public.items (id uuid PRIMARY KEY, n bigint NOT NULL, type_name varchar(20), rank integer NOT NULL, town text NOT NULL, tags text[],
                           twin_id uuid REFERENCES public.items, person_id uuid REFERENCES public.people);
CREATE TABLE public.lines (item_id uuid REFERENCES public.items, place integer, price numeric(10,2) NOT NULL, PRIMARY KEY (item_id, place));
CREATE TABLE public.notes (id uuid PRIMARY KEY, n bigint NOT NULL, item_id uuid NOT NULL REFERENCES public.items);
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = %L', current_database(), 'repeatable read'); END $$;";

const FILE: &str = r#"migration: lookups
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.types: []
  legacy.products: []
  legacy.contacts:
    into: people
    merge: any
    columns: { id: { identity: email, lower: true }, email: { text: email, lower: true } }
  legacy.items:
    - into: items
      columns:
        id: { uuid: _id }
        n: { integer: n }
        type_name: { lookup: type, of: legacy.types, take: about.name }
        rank: { lookup: code, of: legacy.types, by: code, lower: true, take: rank }
        town: { lookup: type, of: legacy.types, take: town, default: nowhere }
        tags: { lookup: type, of: legacy.types, take: tags }
        twin_id: { ref: twin, to: legacy.items, by: n }
        person_id: { ref: contact, to: legacy.contacts }
    - into: lines
      each: lines[]
      columns: { item_id: { parent: id }, place: { index: 0 }, price: { lookup: sku, of: legacy.products, by: sku, take: price, default: -1 } }
  legacy.notes: { into: notes, columns: { id: { uuid: _id }, n: { integer: n }, item_id: { ref: item, to: legacy.items } } }
"#;

const COLLECTIONS: [&str; 5] = ["types", "products", "contacts", "items", "notes"];

type Documents = BTreeMap<(&'static str, i64), Document>;

async fn change(stage: &Stage, chance: &mut Chance, documents: &mut Documents) {
    let name = ["types", "types", "products", "contacts", "items", "items", "items", "notes"]
        [chance.below(8) as usize];
    let some = |name: &str| match name {
        "types" | "products" | "contacts" => 6,
        _ => 25,
    };
    let id = chance.below(some(name)) as i64;
    let collection = stage.source.collection::<Document>(name);
    if chance.percent(20) {
        collection.delete_one(doc! {"_id": id}).await.expect("it can be deleted");
        documents.remove(&(name, id));
        return;
    }
    let v = chance.below(1_000) as i64;
    let document = match name {
        // No two have the same code.
        "types" => {
            let mut of = doc! {
                "_id": id, "code": format!("{}{id}", ["C", "c", "c", "d"][(v % 4) as usize]), "about": {"name": format!("type {v}")}, "rank": v,
                "tags": (0..v % 3).map(|n| format!("t{n}")).collect::<Vec<_>>(), "town": format!("town {v}"),
            };
            if chance.percent(20) {
                of.insert("town", Bson::Null);
            }
            of
        }
        "products" => doc! {"_id": id, "sku": format!("s{}", id * 2 + v % 2), "price": v as f64 / 4.0},
        "contacts" => doc! {"_id": id, "email": format!("{}{}", ["Ann", "ann"][(v % 2) as usize], v % 4)},
        "items" => {
            let lines = (0..v % 4).map(|n| doc! {"sku": format!("s{}", (v + n) % 14)});
            doc! {
                "_id": id, "n": id * 1_000 + v % 3, "type": chance.below(7) as i64, "code": format!("{}{}", ["c", "C", "c", "d"][(v % 4) as usize], v % 6),
                "twin": chance.below(25) as i64 * 1_000 + v % 3, "contact": chance.below(7) as i64, "lines": lines.collect::<Vec<_>>(),
            }
        }
        _ => doc! {"_id": id, "n": v, "item": chance.below(25) as i64},
    };
    collection.replace_one(doc! {"_id": id}, &document).upsert(true).await.expect("it can be replaced");
    documents.insert((name, id), document);
}

fn integer(document: &Document, name: &str) -> i64 {
    document.get_i64(name).expect("a number")
}

fn null<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

/// What the tables must show, and how many rows must wait.
fn wanted(documents: &Documents) -> Shown {
    let of = |name: &'static str| documents.iter().filter(move |((of, _), _)| *of == name);
    let text = |document: &Document, name: &str| document.get_str(name).expect("text").to_lowercase();
    let rank = |item: &Document| {
        let code = text(item, "code");
        of("types").find(|(_, of)| text(of, "code") == code).map(|(_, of)| integer(of, "rank"))
    };
    let mut rows = Vec::new();
    let (mut held, mut lacking) = (0, 0);
    let mut emails: Vec<String> = of("contacts").map(|(_, contact)| text(contact, "email")).collect();
    emails.sort();
    emails.dedup();
    rows.extend(emails.into_iter().map(|email| format!("people {email}")));
    for (_, item) in of("items") {
        let lines = item.get_array("lines").expect("lines");
        let Some(rank) = rank(item) else {
            // Without a rank there is no row, and what belongs to it waits.
            held += lines.len();
            lacking += 1;
            continue;
        };
        let kind = documents.get(&("types", integer(item, "type")));
        let twin = of("items").find(|(_, other)| integer(other, "n") == integer(item, "twin"));
        let twin = twin.map(|(_, twin)| twin).filter(|twin| self::rank_of(documents, twin));
        let person = documents.get(&("contacts", integer(item, "contact")));
        rows.push(format!(
            "item {}|{}|{rank}|{}|{}|{}|{}",
            integer(item, "n"),
            null(
                kind.map(|kind| kind.get_document("about").expect("about").get_str("name").expect("a name"))
            ),
            kind.and_then(|kind| kind.get_str("town").ok()).unwrap_or("nowhere"),
            null(kind.map(|kind| kind.get_array("tags").expect("tags").len())),
            null(twin.map(|twin| integer(twin, "n"))),
            null(person.map(|person| text(person, "email"))),
        ));
        for (place, line) in lines.iter().filter_map(Bson::as_document).enumerate() {
            let product = of("products").find(|(_, product)| text(product, "sku") == text(line, "sku"));
            let price = product.map_or(-1.0, |(_, product)| product.get_f64("price").expect("a price"));
            rows.push(format!("line {} {place} {price:.2}", integer(item, "n")));
        }
    }
    for (_, note) in of("notes") {
        let item = documents.get(&("items", integer(note, "item"))).filter(|item| rank_of(documents, item));
        match item {
            Some(item) => rows.push(format!("note {} {}", integer(note, "n"), integer(item, "n"))),
            None => held += 1,
        }
    }
    rows.push(format!("lacking {lacking}"));
    rows.sort();
    (rows, held)
}

fn rank_of(documents: &Documents, item: &Document) -> bool {
    let code = item.get_str("code").expect("a code").to_lowercase();
    documents.iter().any(|((of, _), other)| {
        *of == "types" && other.get_str("code").expect("a code").to_lowercase() == code
    })
}

async fn shown(stage: &Stage) -> Vec<String> {
    const SHOWN: &str = "
SELECT 'people ' || email FROM people
UNION ALL SELECT format('item %s|%s|%s|%s|%s|%s|%s', n, coalesce(type_name, 'null'), rank, town, coalesce(cardinality(tags)::text, 'null'),
    coalesce((SELECT t.n::text FROM items t WHERE t.id = items.twin_id), 'null'),
    coalesce((SELECT email FROM people p WHERE p.id = person_id), 'null')) FROM items
UNION ALL SELECT format('line %s %s %s', (SELECT n FROM items i WHERE i.id = item_id), place, price) FROM lines
UNION ALL SELECT format('note %s %s', n, (SELECT n FROM items i WHERE i.id = item_id)) FROM notes";
    let rows = stage.target.query(SHOWN, &[]).await.expect("rows");
    let mut rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let lacking = "SELECT FROM slackwater.lacking WHERE column_name = 'rank' AND wanted_in = 'legacy.types'";
    // Our schema may not be there yet.
    let lacking = stage.target.query(lacking, &[]).await.map_or(0, |lacking| lacking.len());
    rows.push(format!("lacking {lacking}"));
    rows
}

/// More is looked up than before: what is known of the other documents is read again, and the rows are made anew.
#[tokio::test(flavor = "multi_thread")]
async fn more_is_looked_up_than_before() {
    let stage = Stage::new("lookups_changed").await;
    let schema = "CREATE TABLE t (id uuid PRIMARY KEY, name text, rank integer, town text); CREATE TABLE u (id uuid PRIMARY KEY)";
    stage.target.batch_execute(schema).await.expect("tables");
    for id in 0..200_i64 {
        set(
            &stage,
            "types",
            id,
            doc! {"code": format!("c{id}"), "name": format!("n{id}"), "rank": id, "town": format!("t{id}")},
        )
        .await;
        set(&stage, "things", id, doc! {"type": (id * 7) % 200, "code": format!("C{}", (id * 3) % 250)})
            .await;
    }
    let file = |columns: &str, others: &str| {
        let text = format!(
            "migration: changed\nsources:\n  legacy: {{ mongodb: {{ uri: \"${{SLACKWATER_MONGODB_URI}}\", database: \"${{SOURCE_DATABASE}}\" }} }}\n\
             target: {{ postgres: {{ uri: \"${{SLACKWATER_POSTGRES_URL}}\", schema: public }} }}\ncollections:\n  legacy.types: {{ into: u, columns: {{ id: {{ uuid: _id }} }} }}\n  \
             legacy.things:\n    into: t\n    columns: {{ id: {{ uuid: _id }}, {columns} }}\n{others}"
        );
        stage.file("migration.yaml", &text)
    };
    let shown = async |column: &str| -> i64 {
        let sql = format!("SELECT count({column}) FROM t");
        stage.target.query_one(&sql, &[]).await.expect("a row").get(0)
    };
    let first = file("name: { lookup: type, of: legacy.types, take: name }", "");
    let mut process = stage.run(&first);
    until("the first is there", PATIENCE, async || {
        process.still_runs();
        (shown("name").await == 200).then_some(())
    })
    .await;
    process.stop().await;
    stage.source.collection::<Document>("things").delete_one(doc! {"_id": 5}).await.expect("deleted");
    set(&stage, "types", 7, doc! {"code": "c7", "name": "other", "rank": 7, "town": Bson::Null}).await;
    let more = "name: { lookup: type, of: legacy.types, take: town, default: none }, rank: { lookup: code, of: legacy.types, by: code, lower: true, take: rank }";
    let second = file(more, "");
    let output = stage.output(&["check", second.to_str().expect("UTF-8")]).await;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(said.contains("legacy.types") && output.status.success(), "{said}");
    let mut process = stage.run(&second);
    until("the second is there", PATIENCE, async || {
        process.still_runs();
        let wrong = "SELECT count(*) FILTER (WHERE name <> 'none' AND name !~ '^t'), count(*) FILTER (WHERE name = 'none'), count(*), count(rank) FROM t";
        let row = stage.target.query_one(wrong, &[]).await.expect("a row");
        let now: [i64; 4] = [row.get(0), row.get(1), row.get(2), row.get(3)];
        let ranks = (0..200).filter(|id| *id != 5 && (id * 3) % 250 < 200).count() as i64;
        (now == [0, 1, 199, ranks]).then_some(())
    })
    .await;
    process.stop().await;
    // Until now each row had one part, and was found by its id. When documents are merged parts are found by the key.
    let by_key = async || -> i64 {
        let sql = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'slackwater' AND indexname LIKE 'parts%\\_key'";
        stage.target.query_one(sql, &[]).await.expect("a row").get(0)
    };
    assert_eq!(by_key().await, 0);
    let merged = file(more, "    merge: any\n    order: { integer: type }\n");
    let mut process = stage.run(&merged);
    set(&stage, "things", 1000, doc! {"type": 8, "code": "C3"}).await;
    until("merged rows are made", PATIENCE, async || {
        process.still_runs();
        (shown("rank").await > 0 && shown("*").await == 200).then_some(())
    })
    .await;
    assert_eq!(by_key().await, 1);
    process.stop().await;
    // Rows that were made of parts cannot be written as if they were not.
    let third = file("name: { const: x }", "");
    let output = stage.output(&["check", third.to_str().expect("UTF-8")]).await;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("look something up, until now, and would not any more") && !output.status.success(),
        "{said}"
    );
    stage.clear().await;
}

async fn histories(kafka: bool) {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let ground = Ground::set("lookups", kafka, SCHEMA, FILE, &COLLECTIONS).await;
    let mut documents = Documents::new();
    for _ in 0..150 {
        change(ground.stage(), &mut chance, &mut documents).await;
    }
    let mut processes = ground.processes();
    let start = |which: usize| ground.start(which);
    let change = async |chance: &mut Chance| change(ground.stage(), chance, &mut documents).await;
    change_and_kill(ground.stage(), &mut chance, &mut processes, start, change).await;
    let stage = ground.stage();
    ends_as(&wanted(&documents), stage, &mut processes, async || shown(stage).await).await;
    ground.end(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_direct() {
    histories(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_over_kafka() {
    histories(true).await;
}
