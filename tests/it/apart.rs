//! Contributors of one row, and the documents that a row looks up, are in two sources. Each source has a stream, a lane and a position of its own, so
//! nothing says which of two changes comes first. Whoever is killed, each row is what the books say.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, Document, doc};
use mongodb::Database;
use slackwater_migrations::Chance;

use crate::stage::ground::Ground;
use crate::stage::rounds::{Shown, change_and_kill, ends_as};
use crate::stage::{Slackwater, Stage, number};

const SCHEMA: &str = "
CREATE TABLE people (id uuid PRIMARY KEY, email text NOT NULL, name text, score numeric(10,2), visits bigint, tags text[], kind text);
CREATE TABLE items (id uuid PRIMARY KEY, n bigint NOT NULL, type_name text, rank integer NOT NULL, town text NOT NULL, person_id uuid REFERENCES people);
CREATE TABLE lines (item_id uuid REFERENCES items, place integer, price numeric(10,2) NOT NULL, PRIMARY KEY (item_id, place));
CREATE TABLE notes (id uuid PRIMARY KEY, n bigint NOT NULL, item_id uuid NOT NULL REFERENCES items, person_id uuid NOT NULL REFERENCES people);
CREATE TABLE papers (id uuid PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE bills (id uuid PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE connected (paper_id uuid REFERENCES papers, bill_id uuid REFERENCES bills, PRIMARY KEY (paper_id, bill_id));
CREATE TABLE agreed (paper_id uuid, bill_id uuid, PRIMARY KEY (paper_id, bill_id));";

const FILE: &str = r#"migration: apart
sources:
  a: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
  b: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}_b" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  a.sorts: []
  b.types: []
  b.products: []
  a.contacts:
    into: people
    merge: any
    when: { email: { exists: true } }
    order: { integer: at }
    columns:
      id: { identity: email, lower: true }
      email: { text: email, lower: true }
      name: { text: name, merge: longest }
      score: { numeric: score, merge: max }
      visits: { integer: visits, merge: sum }
      tags: { array: "tags[]", merge: union }
      kind: { lookup: kind, of: b.types, take: about.name }
  b.leads:
    into: people
    merge: any
    order: { integer: at }
    columns:
      id: { identity: mail, lower: true }
      email: { text: mail, lower: true }
      name: { text: name, merge: longest }
      score: { numeric: points, merge: max }
      visits: { integer: visits, merge: sum }
      tags: { array: "tags[]", merge: union }
      kind: { lookup: sort, of: a.sorts, take: name }
  a.items:
    - into: items
      columns:
        id: { uuid: _id }
        n: { integer: n }
        type_name: { lookup: type, of: b.types, take: about.name }
        rank: { lookup: code, of: b.types, by: code, lower: true, take: rank }
        town: { lookup: type, of: b.types, take: town, default: nowhere }
        person_id: { ref: lead, to: b.leads }
    - into: lines
      each: lines[]
      columns: { item_id: { parent: id }, place: { index: 0 }, price: { lookup: sku, of: b.products, by: sku, take: price, default: -1 } }
  b.notes:
    into: notes
    columns:
      id: { uuid: _id }
      n: { integer: n }
      item_id: { ref: item, to: a.items }
      person_id: { identity: email, lower: true, of: people }
  a.papers:
    - { into: papers, columns: { id: { uuid: _id }, n: { integer: n } } }
    - { into: connected, each: "bills[]", merge: any, columns: { paper_id: { parent: id }, bill_id: { ref: ., to: b.bills } } }
    - { into: agreed, each: "bills[]", merge: all, columns: { paper_id: { parent: id }, bill_id: { ref: ., to: b.bills } } }
  b.bills:
    - { into: bills, columns: { id: { uuid: _id }, n: { integer: n } } }
    - { into: connected, each: "papers[]", merge: any, columns: { bill_id: { parent: id }, paper_id: { ref: ., to: a.papers } } }
    - { into: agreed, each: "papers[]", merge: all, columns: { bill_id: { parent: id }, paper_id: { ref: ., to: a.papers } } }
"#;

/// Of each source.
const COLLECTIONS: [(&str, &[&str]); 2] = [
    ("a", &["sorts", "contacts", "items", "papers"]),
    ("b", &["types", "products", "leads", "notes", "bills"]),
];

type Documents = BTreeMap<(&'static str, i64), Document>;

/// Both sources, and what is in them. `at` counts up over both, so no two documents of a row are equally late.
struct Books {
    a: Database,
    b: Database,
    documents: Documents,
    at: i64,
}

async fn change(chance: &mut Chance, books: &mut Books) {
    const OFTEN: [&str; 14] = [
        "contacts", "contacts", "contacts", "leads", "leads", "leads", "types", "sorts", "products", "items",
        "items", "notes", "papers", "bills",
    ];
    let name = OFTEN[chance.below(OFTEN.len() as u64) as usize];
    let some = if matches!(name, "types" | "sorts" | "products") { 6 } else { 20 };
    let id = chance.below(some) as i64;
    let database = if COLLECTIONS[0].1.contains(&name) { &books.a } else { &books.b };
    let collection = database.collection::<Document>(name);
    if chance.percent(25) {
        collection.delete_one(doc! {"_id": id}).await.expect("it can be deleted");
        books.documents.remove(&(name, id));
        return;
    }
    books.at += 1;
    let v = chance.below(1_000) as i64;
    // Few, so that contacts and leads often have one in common.
    let email = |chance: &mut Chance| {
        format!("{}{}", ["Ann", "ann", "ANN"][chance.below(3) as usize], chance.below(8))
    };
    let some_of =
        |chance: &mut Chance, count: i64| -> Vec<i64> { (0..count).filter(|_| chance.percent(15)).collect() };
    let tags = (0..v % 4).map(|n| format!("t{}", (v + n) % 6)).collect::<Vec<_>>();
    let mut document = match name {
        "contacts" => {
            let name = format!("c{}", "x".repeat((v % 11) as usize));
            let mut contact = doc! {
                "_id": id, "at": books.at, "name": name, "score": (v % 50) as f64 / 4.0, "visits": v % 9, "tags": tags, "kind": v % 8,
            };
            if chance.percent(85) {
                contact.insert("email", email(chance));
            }
            contact
        }
        "leads" => {
            let name = format!("l{}", "y".repeat((v % 12) as usize));
            doc! {
                "_id": id, "at": books.at, "mail": email(chance), "name": name, "points": v % 13, "visits": v % 7, "tags": tags, "sort": v % 8,
            }
        }
        // No two have the same code.
        "types" => {
            let code = format!("{}{id}", ["C", "c", "c", "d"][(v % 4) as usize]);
            doc! {"_id": id, "code": code, "about": {"name": format!("type {v}")}, "rank": v, "town": format!("town {v}")}
        }
        "sorts" => doc! {"_id": id, "name": format!("sort {v}")},
        "products" => doc! {"_id": id, "sku": format!("s{}", id * 2 + v % 2), "price": v as f64 / 4.0},
        "items" => {
            let lines = (0..v % 4).map(|n| doc! {"sku": format!("s{}", (v + n) % 14)});
            doc! {
                "_id": id, "n": id * 1_000 + v, "type": chance.below(8) as i64, "code": format!("{}{}", ["c", "C", "c", "d"][(v % 4) as usize], v % 6),
                "lead": chance.below(22) as i64, "lines": lines.collect::<Vec<_>>(),
            }
        }
        "notes" => {
            doc! {"_id": id, "n": id * 1_000 + v, "item": chance.below(20) as i64, "email": email(chance)}
        }
        "papers" => doc! {"_id": id, "n": id * 1_000 + v, "bills": some_of(chance, 20)},
        _ => doc! {"_id": id, "n": id * 1_000 + v, "papers": some_of(chance, 20)},
    };
    for field in ["score", "points", "visits", "name", "town"] {
        if document.contains_key(field) && name != "sorts" && chance.percent(15) {
            document.insert(field, Bson::Null);
        }
    }
    collection.replace_one(doc! {"_id": id}, &document).upsert(true).await.expect("it can be replaced");
    books.documents.insert((name, id), document);
}

fn integer(document: &Document, name: &str) -> i64 {
    document.get_i64(name).expect("a number")
}

fn plain(document: &Document, name: &str) -> Option<String> {
    document.get_str(name).ok().map(str::to_lowercase)
}

fn null<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

/// A number, of whatever type.
fn amount(document: &Document, name: &str) -> Option<f64> {
    document.get_f64(name).ok().or_else(|| document.get_i64(name).ok().map(|number| number as f64))
}

fn name_of_type(kind: &Document) -> &str {
    kind.get_document("about").expect("about").get_str("name").expect("a name")
}

/// What the tables must show, and how many rows must wait.
fn wanted(documents: &Documents) -> Shown {
    let of = |name: &'static str| documents.iter().filter(move |((of, _), _)| *of == name);
    let mut rows = Vec::new();
    let (mut held, mut lacking) = (0, 0);

    let mut people: BTreeMap<String, Vec<(bool, &Document)>> = BTreeMap::new();
    for (_, contact) in of("contacts") {
        if let Some(email) = plain(contact, "email") {
            people.entry(email).or_default().push((true, contact));
        }
    }
    for (_, lead) in of("leads") {
        people.entry(plain(lead, "mail").expect("an address")).or_default().push((false, lead));
    }
    for (email, parts) in &mut people {
        parts.sort_by_key(|(_, part)| integer(part, "at"));
        let names: Vec<&str> = parts.iter().filter_map(|(_, part)| part.get_str("name").ok()).collect();
        let longest = names.iter().map(|name| name.len()).max();
        let name = names.iter().rfind(|name| Some(name.len()) == longest);
        let scores = parts
            .iter()
            .filter_map(|(contact, part)| amount(part, if *contact { "score" } else { "points" }));
        let score =
            scores.fold(None, |most: Option<f64>, score| Some(most.map_or(score, |most| most.max(score))));
        let visits: Vec<i64> = parts.iter().filter_map(|(_, part)| part.get_i64("visits").ok()).collect();
        let tags = parts.iter().flat_map(|(_, part)| part.get_array("tags").expect("tags"));
        let tags: BTreeSet<&str> = tags.filter_map(Bson::as_str).collect();
        let mut kinds = parts.iter().filter_map(|(contact, part)| match contact {
            true => documents.get(&("types", integer(part, "kind"))).map(name_of_type),
            false => documents
                .get(&("sorts", integer(part, "sort")))
                .map(|sort| sort.get_str("name").expect("a name")),
        });
        rows.push(format!(
            "person {email}|{}|{}|{}|{}|{}",
            null(name),
            null(score.map(|score| format!("{score:.2}"))),
            null((!visits.is_empty()).then(|| visits.iter().sum::<i64>())),
            if tags.is_empty() { "null".to_owned() } else { tags.into_iter().collect::<Vec<_>>().join(",") },
            null(kinds.next_back()),
        ));
    }

    let rank = |item: &Document| {
        let code = plain(item, "code");
        of("types").find(|(_, kind)| plain(kind, "code") == code).map(|(_, kind)| integer(kind, "rank"))
    };
    for (_, item) in of("items") {
        let lines = item.get_array("lines").expect("lines");
        let Some(rank) = rank(item) else {
            // Without a rank there is no row, and what belongs to it waits.
            held += lines.len();
            lacking += 1;
            continue;
        };
        let kind = documents.get(&("types", integer(item, "type")));
        let person = documents.get(&("leads", integer(item, "lead")));
        rows.push(format!(
            "item {}|{}|{rank}|{}|{}",
            integer(item, "n"),
            null(kind.map(name_of_type)),
            kind.and_then(|kind| kind.get_str("town").ok()).unwrap_or("nowhere"),
            null(person.and_then(|person| plain(person, "mail"))),
        ));
        for (place, line) in lines.iter().filter_map(Bson::as_document).enumerate() {
            let product = of("products").find(|(_, product)| plain(product, "sku") == plain(line, "sku"));
            let price = product.map_or(-1.0, |(_, product)| product.get_f64("price").expect("a price"));
            rows.push(format!("line {} {place} {price:.2}", integer(item, "n")));
        }
    }
    for (_, note) in of("notes") {
        let item = documents.get(&("items", integer(note, "item"))).filter(|item| rank(item).is_some());
        let email = plain(note, "email").filter(|email| people.contains_key(email));
        match (item, email) {
            (Some(item), Some(email)) => {
                rows.push(format!("note {} {} {email}", integer(note, "n"), integer(item, "n")));
            }
            _ => held += 1,
        }
    }

    let pairs = |name: &'static str, field: &'static str| -> BTreeSet<(i64, i64)> {
        let all = of(name).flat_map(|((_, id), document)| {
            document.get_array(field).expect("ids").iter().filter_map(Bson::as_i64).map(|other| (*id, other))
        });
        all.collect()
    };
    let papers = pairs("papers", "bills");
    let bills: BTreeSet<(i64, i64)> =
        pairs("bills", "papers").into_iter().map(|(bill, paper)| (paper, bill)).collect();
    for name in ["papers", "bills"] {
        rows.extend(of(name).map(|(_, document)| format!("{name} {}", integer(document, "n"))));
    }
    for (paper, bill) in papers.union(&bills) {
        match (documents.get(&("papers", *paper)), documents.get(&("bills", *bill))) {
            (Some(paper), Some(bill)) => {
                rows.push(format!("connected {} {}", integer(paper, "n"), integer(bill, "n")))
            }
            _ => held += 1,
        }
    }
    rows.push(format!("agreed {}", papers.intersection(&bills).count()));
    rows.push(format!("lacking {lacking}"));
    rows.sort();
    (rows, held)
}

async fn shown(stage: &Stage) -> Vec<String> {
    const SHOWN: &str = "
SELECT format('person %s|%s|%s|%s|%s|%s', email, coalesce(name, 'null'), coalesce(score::text, 'null'), coalesce(visits::text, 'null'),
    coalesce(array_to_string(tags, ','), 'null'), coalesce(kind, 'null')) FROM people
UNION ALL SELECT format('item %s|%s|%s|%s|%s', n, coalesce(type_name, 'null'), rank, town,
    coalesce((SELECT email FROM people p WHERE p.id = person_id), 'null')) FROM items
UNION ALL SELECT format('line %s %s %s', (SELECT n FROM items i WHERE i.id = item_id), place, price) FROM lines
UNION ALL SELECT format('note %s %s %s', n, (SELECT n FROM items i WHERE i.id = item_id), (SELECT email FROM people p WHERE p.id = person_id)) FROM notes
UNION ALL SELECT format('papers %s', n) FROM papers
UNION ALL SELECT format('bills %s', n) FROM bills
UNION ALL SELECT format('connected %s %s', (SELECT n FROM papers p WHERE p.id = paper_id), (SELECT n FROM bills b WHERE b.id = bill_id)) FROM connected
UNION ALL SELECT format('agreed %s', count(*)) FROM agreed";
    let rows = stage.target.query(SHOWN, &[]).await.expect("rows");
    let mut rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let lacking = "SELECT FROM slackwater.lacking WHERE column_name = 'rank' AND wanted_in = 'b.types'";
    // Our schema may not be there yet.
    let lacking = stage.target.query(lacking, &[]).await.map_or(0, |lacking| lacking.len());
    rows.push(format!("lacking {lacking}"));
    rows
}

/// With Kafka each source has a capture of its own, so one may be away while the other goes on.
fn start(ground: &Ground, which: usize) -> Slackwater {
    let capture = |source: &str| {
        let arguments = ["capture", ground.path(), "--source", source];
        ground.stage().start(&arguments, &format!("capture_{source}"))
    };
    match (ground, which) {
        (Ground::Direct(..), _) => ground.start(which),
        (Ground::Kafka(_), 0) => capture("a"),
        (Ground::Kafka(_), 1) => capture("b"),
        (Ground::Kafka(_), which) => ground.start(which - 1),
    }
}

async fn one(seed: u64, kafka: bool) {
    println!("seed {seed}, {}", if kafka { "Kafka" } else { "direct" });
    let mut chance = Chance::new(seed);
    let ground = Ground::set("apart", kafka, SCHEMA, FILE, COLLECTIONS[0].1).await;
    let a = ground.stage().source.clone();
    let b = a.client().database(&format!("{}_b", ground.stage().name));
    // What a run before has left, which failed.
    b.drop().await.expect("a database can go");
    for collection in COLLECTIONS[1].1 {
        b.create_collection(*collection).await.expect("a collection");
    }
    let mut books = Books { a, b: b.clone(), documents: Documents::new(), at: 0 };
    for _ in 0..200 {
        change(&mut chance, &mut books).await;
    }
    let count = if kafka { 4 } else { 1 };
    let mut processes: Vec<Slackwater> = (0..count).map(|which| start(&ground, which)).collect();
    let changes = async |chance: &mut Chance| change(chance, &mut books).await;
    change_and_kill(ground.stage(), &mut chance, &mut processes, |which| start(&ground, which), changes)
        .await;
    let stage = ground.stage();
    ends_as(&wanted(&books.documents), stage, &mut processes, async || shown(stage).await).await;
    ground.end(processes).await;
    b.drop().await.expect("a source can be dropped");
}

async fn many(kafka: bool) {
    let first = number("SLACKWATER_TEST_SEED", 1);
    for seed in first..first + number("SLACKWATER_TEST_ROUNDS", 2) {
        Box::pin(one(seed, kafka)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_of_two_sources_direct() {
    many(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_of_two_sources_over_kafka() {
    many(true).await;
}
