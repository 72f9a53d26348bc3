//! Several documents make one row: in whatever order they come, change and go, and whoever is killed, each row is what the books say.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, Document, doc};
use slackwater_migrations::Chance;

use crate::stage::ground::Ground;
use crate::stage::rounds::{Shown, change_and_kill, ends_as};
use crate::stage::{PATIENCE, Slackwater, Stage, number, until};

const SCHEMA: &str = "
CREATE TABLE public.industries (id uuid PRIMARY KEY, name text NOT NULL UNIQUE, people bigint NOT NULL);
CREATE TABLE public.people (id uuid PRIMARY KEY, email text NOT NULL, name varchar(40), first_name text, industry_id uuid REFERENCES public.industries,
                            score numeric(10,2), visits bigint, seen timestamptz, tags text[], vip boolean, loyal boolean, stay interval);
CREATE TABLE public.phones (person_id uuid REFERENCES public.people, number text, label text, PRIMARY KEY (person_id, number));
CREATE TABLE public.orders (id uuid PRIMARY KEY, n bigint NOT NULL, person_id uuid NOT NULL REFERENCES public.people);
CREATE TABLE public.papers (id uuid PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE public.bills (id uuid PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE public.connected (paper_id uuid REFERENCES public.papers, bill_id uuid REFERENCES public.bills, PRIMARY KEY (paper_id, bill_id));
CREATE TABLE public.agreed (paper_id uuid, bill_id uuid, PRIMARY KEY (paper_id, bill_id));";

const FILE: &str = r#"migration: merged
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.contacts:
    - into: people
      merge: any
      when: { email: { exists: true } }
      order: { integer: at }
      columns:
        id: { identity: email, trim: true, lower: true }
        email: { text: email, trim: true, lower: true }
        name: { text: name, merge: longest }
        first_name: { sql: "split_part(name, ' ', 1)", with: { name: name }, merge: first }
        industry_id: { identity: industry, trim: true, lower: true, of: industries }
        score: { numeric: score, merge: max }
        visits: { integer: visits, merge: sum }
        seen: { timestamp: seen, merge: earliest }
        tags: { array: "tags[]", merge: union }
        vip: { boolean: vip, merge: any }
        loyal: { boolean: vip, merge: all }
        stay: { text: stay }
    - into: industries
      merge: any
      when: { industry: { exists: true } }
      columns:
        id: { identity: industry, trim: true, lower: true }
        name: { text: industry, trim: true, lower: true }
        people: { const: 1, merge: sum }
    - into: phones
      each: phones[]
      merge: any
      when: { ^.email: { exists: true } }
      order: { integer: ^.at }
      columns: { person_id: { identity: ^.email, trim: true, lower: true, of: people }, number: number, label: label }
  legacy.leads:
    - into: people
      merge: any
      order: { integer: at }
      columns:
        id: { identity: mail, trim: true, lower: true }
        email: { text: mail, trim: true, lower: true }
        name: { text: name, merge: longest }
        tags: { array: "tags[]", merge: union }
  legacy.orders: { into: orders, columns: { id: { uuid: _id }, n: { integer: n }, person_id: { identity: email, trim: true, lower: true, of: people } } }
  legacy.papers:
    - { into: papers, columns: { id: { uuid: _id }, n: { integer: n } } }
    - { into: connected, each: "bills[]", merge: any, columns: { paper_id: { parent: id }, bill_id: { ref: ., to: legacy.bills } } }
    - { into: agreed, each: "bills[]", merge: all, columns: { paper_id: { parent: id }, bill_id: { ref: ., to: legacy.bills } } }
  legacy.bills:
    - { into: bills, columns: { id: { uuid: _id }, n: { integer: n } } }
    - { into: connected, each: "papers[]", merge: any, columns: { bill_id: { parent: id }, paper_id: { ref: ., to: legacy.papers } } }
    - { into: agreed, each: "papers[]", merge: all, columns: { bill_id: { parent: id }, paper_id: { ref: ., to: legacy.papers } } }
"#;

const COLLECTIONS: [&str; 5] = ["contacts", "leads", "orders", "papers", "bills"];

type Documents = BTreeMap<(&'static str, i64), Document>;

/// Counts up, so no two documents of a row are equally late.
struct Books {
    documents: Documents,
    at: i64,
}

async fn change(stage: &Stage, chance: &mut Chance, books: &mut Books) {
    let name = ["contacts", "contacts", "contacts", "leads", "leads", "orders", "papers", "bills"]
        [chance.below(8) as usize];
    let id = chance.below(25) as i64;
    let collection = stage.source.collection::<Document>(name);
    if chance.percent(25) {
        collection.delete_one(doc! {"_id": id}).await.expect("it can be deleted");
        books.documents.remove(&(name, id));
        return;
    }
    books.at += 1;
    let v = chance.below(1_000) as i64;
    let email = |chance: &mut Chance| {
        let letters = ["Ann", " ann", "ANN "][chance.below(3) as usize];
        format!("{letters}{}", chance.below(6)).replace(' ', " ")
    };
    let some =
        |chance: &mut Chance, count: i64| -> Vec<i64> { (0..count).filter(|_| chance.percent(15)).collect() };
    let document = match name {
        "contacts" => {
            let mut contact = doc! {
                "_id": id, "at": books.at, "name": format!("F{} {}", v % 7, "x".repeat((v % 11) as usize)),
                "score": (v % 50) as f64 / 4.0, "visits": v % 9, "seen": bson::DateTime::from_millis(v * 1_000),
                "tags": (0..v % 3).map(|n| format!("t{}", (v + n) % 5)).collect::<Vec<_>>(), "vip": v % 3 == 0, "stay": format!("{} days", v % 4 + 1),
                "phones": (0..v % 3).map(|n| doc! {"number": format!("+{}", (v + n) % 4), "label": format!("l{v}")}).collect::<Vec<_>>(),
            };
            if chance.percent(85) {
                contact.insert("email", email(chance));
            }
            if chance.percent(70) {
                contact.insert(
                    "industry",
                    [" Steel", "steel", "Wood ", "WOOD", "Tea"][chance.below(5) as usize],
                );
            }
            for field in ["score", "visits", "seen", "vip", "stay", "name"] {
                if chance.percent(20) {
                    contact.insert(field, Bson::Null);
                }
            }
            contact
        }
        "leads" => {
            let tags: Vec<String> = (0..v % 4).map(|n| format!("t{}", (v + n) % 6)).collect();
            doc! {"_id": id, "at": books.at, "mail": email(chance), "name": format!("L{}", "y".repeat((v % 12) as usize)), "tags": tags}
        }
        "orders" => doc! {"_id": id, "n": v, "email": email(chance)},
        "papers" => doc! {"_id": id, "n": v, "bills": some(chance, 25)},
        _ => doc! {"_id": id, "n": v, "papers": some(chance, 25)},
    };
    collection.replace_one(doc! {"_id": id}, &document).upsert(true).await.expect("it can be replaced");
    books.documents.insert((name, id), document);
}

fn text(document: &Document, name: &str) -> Option<String> {
    document.get_str(name).ok().map(str::to_owned)
}

fn plain(text: &str) -> String {
    text.trim().to_lowercase()
}

fn null<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

/// What the tables must show, and how many rows must wait.
fn wanted(documents: &Documents) -> Shown {
    let of = |name: &'static str| documents.iter().filter(move |((of, _), _)| *of == name);
    let mut rows = Vec::new();
    let mut held = 0;
    let mut people: BTreeMap<String, Vec<(&str, &Document)>> = BTreeMap::new();
    let mut industries: BTreeMap<String, usize> = BTreeMap::new();
    let mut phones: BTreeMap<(String, String), (i64, String)> = BTreeMap::new();
    for (_, contact) in of("contacts") {
        if let Some(industry) = text(contact, "industry") {
            *industries.entry(plain(&industry)).or_default() += 1;
        }
        let Some(email) = text(contact, "email") else { continue };
        people.entry(plain(&email)).or_default().push(("contacts", contact));
        for phone in contact.get_array("phones").expect("phones").iter().filter_map(Bson::as_document) {
            let at = contact.get_i64("at").expect("a time");
            let number = text(phone, "number").expect("a number");
            let last = phones.entry((plain(&email), number)).or_insert((at, String::new()));
            if at >= last.0 {
                *last = (at, text(phone, "label").expect("a label"));
            }
        }
    }
    for (_, lead) in of("leads") {
        people.entry(plain(&text(lead, "mail").expect("an address"))).or_default().push(("leads", lead));
    }
    for (name, people) in &industries {
        rows.push(format!("industry {name} {people}"));
    }
    for ((email, number), (_, label)) in &phones {
        rows.push(format!("phone {email} {number} {label}"));
    }
    for (email, parts) in &people {
        let mut parts = parts.clone();
        parts.sort_by_key(|(_, part)| part.get_i64("at").expect("a time"));
        let contacts = || parts.iter().filter(|(of, _)| *of == "contacts").map(|(_, part)| *part);
        let names = || parts.iter().filter_map(|(_, part)| text(part, "name"));
        let longest = names().map(|name| name.len()).max();
        let name = names().rfind(|name| Some(name.len()) == longest);
        let first = contacts().find_map(|part| text(part, "name"));
        let industry = contacts().filter_map(|part| text(part, "industry")).next_back();
        let score = contacts()
            .filter_map(|part| part.get_f64("score").ok())
            .fold(None, |most: Option<f64>, score| Some(most.map_or(score, |most| most.max(score))));
        let visits: Vec<i64> = contacts().filter_map(|part| part.get_i64("visits").ok()).collect();
        let seen = contacts()
            .filter_map(|part| part.get_datetime("seen").ok())
            .map(|seen| seen.timestamp_millis() / 1_000)
            .min();
        let tags: Vec<String> = parts
            .iter()
            .flat_map(|(_, part)| {
                part.get_array("tags").expect("tags").iter().filter_map(Bson::as_str).map(str::to_owned)
            })
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let vips: Vec<bool> = contacts().filter_map(|part| part.get_bool("vip").ok()).collect();
        let some = |value: bool| (!vips.is_empty()).then_some(if value { "t" } else { "f" });
        let stay = contacts().filter_map(|part| text(part, "stay")).next_back();
        rows.push(format!(
            "person {email}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
            null(name),
            null(first.map(|name| name.split(' ').next().unwrap_or_default().to_owned())),
            null(industry.map(|industry| plain(&industry))),
            null(score.map(|score| format!("{score:.2}"))),
            null((!visits.is_empty()).then(|| visits.iter().sum::<i64>())),
            null(seen),
            if tags.is_empty() { "null".to_owned() } else { tags.join(",") },
            null(some(vips.contains(&true))),
            null(some(!vips.contains(&false))),
            null(stay.map(|stay| stay.replace("1 days", "1 day"))),
        ));
    }
    for (_, order) in of("orders") {
        let email = plain(&text(order, "email").expect("an address"));
        match people.contains_key(&email) {
            true => rows.push(format!("order {} {email}", order.get_i64("n").expect("a number"))),
            false => held += 1,
        }
    }
    let pairs = |name: &'static str, field: &'static str| -> BTreeSet<(i64, i64)> {
        of(name)
            .flat_map(|((_, id), document)| {
                let others = document.get_array(field).expect("ids").iter().filter_map(Bson::as_i64);
                others.map(|other| (*id, other)).collect::<Vec<_>>()
            })
            .collect()
    };
    let papers = pairs("papers", "bills");
    let bills: BTreeSet<(i64, i64)> =
        pairs("bills", "papers").into_iter().map(|(bill, paper)| (paper, bill)).collect();
    for name in ["papers", "bills"] {
        rows.extend(
            of(name).map(|(_, document)| format!("{name} {}", document.get_i64("n").expect("a number"))),
        );
    }
    for (paper, bill) in papers.union(&bills) {
        match (documents.get(&("papers", *paper)), documents.get(&("bills", *bill))) {
            (Some(paper), Some(bill)) => {
                let n = |document: &Document| document.get_i64("n").expect("a number");
                rows.push(format!("connected {} {}", n(paper), n(bill)));
            }
            _ => held += 1,
        }
    }
    rows.push(format!("agreed {}", papers.intersection(&bills).count()));
    rows.sort();
    (rows, held)
}

async fn shown(stage: &Stage) -> Vec<String> {
    const SHOWN: &str = "
SELECT format('industry %s %s', name, people) FROM industries
UNION ALL SELECT format('person %s|%s|%s|%s|%s|%s|%s|%s|%s|%s|%s', email, coalesce(name, 'null'), coalesce(first_name, 'null'),
    coalesce((SELECT i.name FROM industries i WHERE i.id = industry_id), 'null'), coalesce(score::text, 'null'), coalesce(visits::text, 'null'),
    coalesce(extract(epoch FROM seen)::bigint::text, 'null'), coalesce(array_to_string(tags, ','), 'null'),
    coalesce(left(vip::text, 1), 'null'), coalesce(left(loyal::text, 1), 'null'), coalesce(stay::text, 'null')) FROM people
UNION ALL SELECT format('phone %s %s %s', (SELECT email FROM people p WHERE p.id = person_id), number, label) FROM phones
UNION ALL SELECT format('order %s %s', n, (SELECT email FROM people p WHERE p.id = person_id)) FROM orders
UNION ALL SELECT format('papers %s', n) FROM papers
UNION ALL SELECT format('bills %s', n) FROM bills
UNION ALL SELECT format('connected %s %s', (SELECT n FROM papers p WHERE p.id = paper_id), (SELECT n FROM bills b WHERE b.id = bill_id)) FROM connected
UNION ALL SELECT format('agreed %s', count(*)) FROM agreed";
    let rows = stage.target.query(SHOWN, &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn histories(kafka: bool) {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let ground = Ground::set("merged", kafka, SCHEMA, FILE, &COLLECTIONS).await;
    let mut books = Books { documents: Documents::new(), at: 0 };
    for _ in 0..150 {
        change(ground.stage(), &mut chance, &mut books).await;
    }
    let mut processes = ground.processes();
    let start = |which: usize| ground.start(which);
    let change = async |chance: &mut Chance| change(ground.stage(), chance, &mut books).await;
    change_and_kill(ground.stage(), &mut chance, &mut processes, start, change).await;
    let stage = ground.stage();
    ends_as(&wanted(&books.documents), stage, &mut processes, async || shown(stage).await).await;
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

/// Documents of two collections, in several partitions, have few rows in common, and look up what changes at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn two_appliers_meet_ten_thousand_times() {
    const SCHEMA: &str = "
CREATE TABLE public.sums (id uuid PRIMARY KEY, name text NOT NULL, total bigint NOT NULL, documents bigint NOT NULL);
CREATE TABLE public.things (id uuid PRIMARY KEY, n bigint NOT NULL, version bigint NOT NULL, sum_id uuid NOT NULL REFERENCES public.sums);";
    const FILE: &str = r#"migration: meet
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.a:
    - { into: sums, merge: any, columns: { id: { identity: name }, name: name, total: { integer: n, merge: sum }, documents: { const: 1, merge: count } } }
  legacy.b:
    - { into: sums, merge: any, columns: { id: { identity: name }, name: name, total: { integer: n, merge: sum }, documents: { const: 1, merge: count } } }
  legacy.kinds: []
  legacy.things:
    into: things
    columns:
      id: { uuid: _id }
      n: { integer: n }
      version: { lookup: kind, of: legacy.kinds, take: version }
      sum_id: { ref: of, to: legacy.a }
"#;
    const EACH: i64 = 60;
    let rounds = number("SLACKWATER_TEST_MEETINGS", 10_000) as i64 / (3 * EACH);
    let ground = Ground::set("meet", true, SCHEMA, FILE, &["a", "b", "kinds", "things"]).await;
    let source = &ground.stage().source;
    for id in 0..EACH {
        let of = |name: &str| source.collection::<Document>(name);
        of("a")
            .insert_one(doc! {"_id": id, "name": format!("s{}", id % 3), "n": 0_i64})
            .await
            .expect("a document");
        of("b")
            .insert_one(doc! {"_id": id, "name": format!("s{}", id % 4), "n": 0_i64})
            .await
            .expect("a document");
        of("things")
            .insert_one(doc! {"_id": id, "n": 0_i64, "kind": id % 2, "of": id})
            .await
            .expect("a document");
    }
    for id in 0..2_i64 {
        source
            .collection::<Document>("kinds")
            .insert_one(doc! {"_id": id, "version": 0_i64})
            .await
            .expect("a document");
    }
    let mut processes = ground.processes();
    for round in 1..=rounds {
        for name in ["a", "kinds", "b", "things"] {
            let field = if name == "kinds" { "version" } else { "n" };
            let more = doc! {"$inc": {field: 1_i64}};
            source
                .collection::<Document>(name)
                .update_many(doc! {}, more)
                .await
                .expect("they can be updated");
        }
        // Some move from one row to another.
        let moved = doc! {"$set": {"name": format!("s{}", round % 5)}};
        source
            .collection::<Document>("b")
            .update_many(doc! {"_id": {"$mod": [7, round % 7]}}, moved)
            .await
            .expect("moved");
    }
    let wanted = [EACH * rounds * 2, EACH * 2, EACH, rounds * EACH, rounds * EACH];
    let sql = "SELECT (SELECT sum(total)::bigint FROM sums), (SELECT sum(documents)::bigint FROM sums), count(*), sum(n)::bigint, sum(version)::bigint FROM things";
    until("all that was added is there", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let row = ground.stage().target.query_one(sql, &[]).await.expect("a row");
        let now: Vec<Option<i64>> = (0..5).map(|at| row.get(at)).collect();
        (now == wanted.map(Some)).then_some(())
    })
    .await;
    ground.end(processes).await;
}
