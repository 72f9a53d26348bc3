//! Columns that the target computes, and documents that go where they fit: random histories end as the books say, whatever is killed,
//! and what cannot be computed is invalid for its document alone.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};
use slackwater_migrations::Chance;

use crate::letters::{letters, set};
use crate::stage::ground::Ground;
use crate::stage::rounds::{Shown, change_and_kill, ends_as};
use crate::stage::{PATIENCE, Stage, number, until};

const SCHEMA: &str = "
CREATE FUNCTION public.cents(price text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT (regexp_replace(price, '[^0-9.]', '', 'g')::numeric * 100)::bigint $$;
CREATE TABLE public.teams (id uuid PRIMARY KEY, name text NOT NULL);
CREATE TABLE public.people (id uuid PRIMARY KEY, n bigint NOT NULL, full_name text NOT NULL, initials varchar(3), share integer,
                            team_id uuid NOT NULL REFERENCES public.teams, boss_id uuid REFERENCES public.people,
                            stay interval, friends uuid[]);
CREATE TABLE public.companies (id uuid PRIMARY KEY, n bigint NOT NULL, size text NOT NULL, worth bigint);
CREATE TABLE public.phones (person_id uuid REFERENCES public.people, place integer, label text NOT NULL, PRIMARY KEY (person_id, place));
CREATE TABLE public.prices (company_id uuid REFERENCES public.companies, code text, cents bigint NOT NULL, PRIMARY KEY (company_id, code));
CREATE TYPE public.trait AS ENUM ('big', 'old');
CREATE TABLE public.towns (name text PRIMARY KEY, n bigint NOT NULL, traits public.trait[], since text NOT NULL);
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET TimeZone = %L', current_database(), 'Asia/Tokyo'); END $$;";

const FILE: &str = r#"migration: computed
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.teams: { into: teams, columns: { id: { uuid: _id }, name: name } }
  legacy.parties:
    - into: people
      when: { kind: person, gone: { exists: false } }
      columns:
        id: { uuid: _id }
        n: { integer: n }
        full_name: { sql: "concat_ws(' ', first, nullif(last, ''))", with: { first: name.first, last: { text: name.last, trim: true } } }
        initials: { sql: "left(first, 1) || left(last, 1)", with: { first: name.first, last: { text: name.last, trim: true } } }
        share: { sql: a / b, with: { a: { integer: n }, b: { integer: b } }, invalid: null }
        team_id: { ref: team, to: legacy.teams }
        boss_id: { ref: boss, to: legacy.parties }
        stay: { sql: "make_interval(days => d::int)", with: { d: { integer: days } } }
        friends: { ref: "friends[]", to: legacy.parties }
    - into: companies
      when: { kind: company, staff: { at_least: 50 } }
      columns: { id: { uuid: _id }, n: { integer: n }, size: { const: large }, worth: { sql: "public.cents(w)", with: { w: worth }, default: -1, invalid: default } }
    - into: companies
      when: { kind: company }
      columns: { id: { uuid: _id }, n: { integer: n }, size: { sql: "'small ' || s", with: { s: { integer: staff } } }, worth: { const: null } }
    - into: phones
      each: phones[]
      when: { hidden: { not: true } }
      columns: { person_id: { parent: id }, place: { index: 0 }, label: { sql: "name || ': ' || number", with: { name: ^.name.first, number: number } } }
    - into: prices
      each: prices{}
      columns: { company_id: { parent: companies.id }, code: { key: each }, cents: { sql: "public.cents(price)", with: { price: . } } }
  legacy.towns: { into: towns, columns: { name: { sql: "lower(btrim(name))", with: { name: name } }, n: { integer: _id }, traits: { array: traits },
                           since: { sql: "to_char(at, 'YYYY-MM-DD HH24')", with: { at: { timestamp: at } } } } }
"#;

const COLLECTIONS: [&str; 3] = ["teams", "parties", "towns"];

type Documents = BTreeMap<(&'static str, i64), Document>;

async fn change(stage: &Stage, chance: &mut Chance, documents: &mut Documents) {
    let name = ["teams", "parties", "parties", "parties", "towns"][chance.below(5) as usize];
    let id = chance.below(if name == "teams" { 8 } else { 30 }) as i64;
    let collection = stage.source.collection::<Document>(name);
    if chance.percent(20) {
        collection.delete_one(doc! {"_id": id}).await.expect("it can be deleted");
        documents.remove(&(name, id));
        return;
    }
    let v = chance.below(1_000) as i64;
    let document = match name {
        "teams" => doc! {"_id": id, "name": format!("team {v}")},
        // No two are the same, however they are written.
        "towns" => {
            let letters = ["Town", " TOWN", "town  "][chance.below(3) as usize];
            let space = if v % 2 == 0 { " " } else { "" };
            let name = format!("{} {id}/{}{space}", letters.trim_end(), v % 3);
            let at = bson::DateTime::from_millis(v * 3_600_000);
            doc! {"_id": id, "name": name, "traits": ["old", "big"], "at": at}
        }
        _ if chance.percent(55) => {
            let last = ["", " Lee ", "Öz"][(v % 3) as usize];
            let mut person = doc! {
                "_id": id, "kind": "person", "n": v, "b": (v % 4), "days": (v % 9), "team": (v % 8), "boss": chance.below(30) as i64,
                "name": {"first": format!("F{v}"), "last": last},
                "friends": (0..v % 3).collect::<Vec<i64>>(),
                "phones": (0..v % 4).map(|n| doc! {"number": format!("+{n}"), "hidden": n == 2}).collect::<Vec<_>>(),
            };
            if chance.percent(15) {
                person.insert("gone", true);
            }
            person
        }
        _ if chance.percent(85) => {
            let prices = (0..v % 4).map(|n| (format!("c{n}"), Bson::from(format!("US$ 1,{n}50.5"))));
            let worth = if v % 5 == 0 { "priceless".to_owned() } else { format!("$ {v}.10") };
            doc! {"_id": id, "kind": "company", "n": v, "staff": v % 100, "worth": worth, "prices": prices.collect::<Document>()}
        }
        _ => doc! {"_id": id, "kind": "ghost", "n": v, "prices": {"c": "1"}},
    };
    collection.replace_one(doc! {"_id": id}, &document).upsert(true).await.expect("it can be replaced");
    documents.insert((name, id), document);
}

/// What the tables must show, and how many rows must wait.
fn wanted(documents: &Documents) -> Shown {
    let of = |name: &'static str| documents.iter().filter(move |((of, _), _)| *of == name);
    let number = |document: &Document, name: &str| document.get_i64(name).expect("a number");
    let team = |document: &Document| documents.get(&("teams", number(document, "team")));
    let is_person = |document: &Document| {
        document.get_str("kind").is_ok_and(|kind| kind == "person") && !document.contains_key("gone")
    };
    let first = |document: &Document| {
        document.get_document("name").expect("a name").get_str("first").expect("a name").to_owned()
    };
    let mut rows: Vec<String> =
        of("teams").map(|(_, team)| format!("teams {}", team.get_str("name").expect("a name"))).collect();
    let mut held = 0;
    for (_, document) in of("parties") {
        let n = number(document, "n");
        if is_person(document) {
            let phones = document.get_array("phones").expect("phones").iter().enumerate();
            let phones = phones.filter_map(|(place, phone)| Some((place, phone.as_document()?)));
            let phones: Vec<_> =
                phones.filter(|(_, phone)| !phone.get_bool("hidden").unwrap_or(false)).collect();
            let Some(team) = team(document) else {
                held += 1 + phones.len();
                continue;
            };
            let name = first(document);
            let last = document.get_document("name").expect("a name").get_str("last").expect("a name").trim();
            let boss = documents.get(&("parties", number(document, "boss")));
            // A boss who waits for a team is not there either.
            let boss = boss.filter(|boss| is_person(boss) && self::has_team(documents, boss));
            let boss = boss.map(|boss| number(boss, "n").to_string());
            rows.push(format!(
                "people {n}|{}|F{}|{}|{}|{}|{}|{}",
                [name.as_str(), last].join(" ").trim_end(),
                last.chars().next().map(String::from).unwrap_or_default(),
                match number(document, "b") {
                    0 => "null".to_owned(),
                    b => (n / b).to_string(),
                },
                team.get_str("name").expect("a name"),
                boss.unwrap_or_else(|| "null".to_owned()),
                number(document, "days"),
                document.get_array("friends").expect("friends").len(),
            ));
            for (place, phone) in phones {
                let number = phone.get_str("number").expect("a number");
                rows.push(format!("phones {n} {place} {name}: {number}"));
            }
        } else if document.get_str("kind").is_ok_and(|kind| kind == "company") {
            let staff = number(document, "staff");
            let worth = document.get_str("worth").expect("worth");
            let large = match worth.strip_prefix("$ ") {
                Some(_) => (n * 100 + 10).to_string(),
                None => "-1".to_owned(),
            };
            rows.push(match staff >= 50 {
                true => format!("companies {n}|large|{large}"),
                false => format!("companies {n}|small {staff}|null"),
            });
            for (place, (code, _)) in document.get_document("prices").expect("prices").iter().enumerate() {
                rows.push(format!("prices {n} {code} {}", 100_000 + place * 10_000 + 5_050));
            }
        }
    }
    for ((_, id), document) in of("towns") {
        let name = document.get_str("name").expect("a name").trim().to_lowercase();
        let hours = document.get_datetime("at").expect("a time").timestamp_millis() / 3_600_000;
        let (month, day) = (1 + hours / 744, 1 + hours / 24 % 31);
        rows.push(format!("towns {name} {id} {{old,big}} 1970-0{month}-{day:02} {:02}", hours % 24));
    }
    rows.sort();
    (rows, held)
}

fn has_team(documents: &Documents, person: &Document) -> bool {
    documents.contains_key(&("teams", person.get_i64("team").expect("a team")))
}

async fn shown(stage: &Stage) -> Vec<String> {
    const SHOWN: &str = "
SELECT 'teams ' || name FROM teams
UNION ALL SELECT format('people %s|%s|%s|%s|%s|%s|%s|%s', n, full_name, initials, coalesce(share::text, 'null'),
                        (SELECT name FROM teams WHERE teams.id = team_id),
                        coalesce((SELECT b.n::text FROM people b WHERE b.id = people.boss_id), 'null'), extract(day FROM stay)::int,
                        cardinality(friends)) FROM people
UNION ALL SELECT format('companies %s|%s|%s', n, size, coalesce(worth::text, 'null')) FROM companies
UNION ALL SELECT format('phones %s %s %s', (SELECT n FROM people WHERE people.id = person_id), place, label) FROM phones
UNION ALL SELECT format('prices %s %s %s', (SELECT n FROM companies WHERE companies.id = company_id), code, cents) FROM prices
UNION ALL SELECT format('towns %s %s %s %s', name, n, traits, since) FROM towns";
    let rows = stage.target.query(SHOWN, &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn histories(kafka: bool) {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let ground = Ground::set("computed", kafka, SCHEMA, FILE, &COLLECTIONS).await;
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

/// Of a batch with many documents of which an expression fails, those alone are refused, and come when they are mended.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_computed_is_a_letter() {
    let stage = Stage::new("computed_letters").await;
    let table =
        "CREATE TABLE t (id uuid PRIMARY KEY, n bigint NOT NULL, code varchar(3), half integer NOT NULL)";
    stage.target.batch_execute(table).await.expect("a table");
    let text = r#"migration: letters
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.t:
    - into: t
      columns:
        id: { uuid: _id }
        n: { integer: _id }
        code: { sql: upper(code), with: { code: code }, invalid: null }
        half: { sql: 100 / v::int, with: { v: v } }
"#;
    let file = stage.file("migration.yaml", text);
    for id in 0..300_i64 {
        let v = [Bson::from("x"), "0".into(), Bson::Null, "5".into()][(id % 4) as usize].clone();
        let code = ["ab", "long"][(id % 2) as usize];
        set(&stage, "t", id, doc! {"v": v, "code": code}).await;
    }
    let process = stage.run(&file);
    let numbers = async || -> (i64, i64) {
        let row = stage.target.query_one("SELECT count(*), count(code) FROM t", &[]).await.expect("a row");
        (row.get(0), row.get(1))
    };
    until("the others are there", PATIENCE, async || {
        let letters = letters(&stage).await.iter().map(|(_, _, count)| count).sum::<i64>();
        (letters == 225).then_some(())
    })
    .await;
    // What is too long for the column is as invalid as what cannot be computed.
    assert_eq!(numbers().await, (75, 0));
    for id in (0..300).filter(|id| id % 4 != 3) {
        set(&stage, "t", id, doc! {"v": "7", "code": "x"}).await;
    }
    until("all are there", PATIENCE, async || {
        (letters(&stage).await.is_empty() && numbers().await == (300, 225)).then_some(())
    })
    .await;
    process.stop().await;
    stage.clear().await;
}

/// Each expression that is not a function of its document, or does not fit its column, is told at its place; the others pass.
#[tokio::test(flavor = "multi_thread")]
async fn expressions_are_tried_before_the_first_row() {
    const CASES: [(&str, &str); 17] = [
        ("concat_ws(' ', a, upper(b))", ""),
        ("public.mine(a) -- a comment", ""),
        ("to_char(at, 'YYYY-MM') || extract(year FROM at)", ""),
        ("case when a ~ '^x' then null else a end", ""),
        ("jsonb_build_object('a', a)->>'a'", ""),
        ("c || a", "column \"c\" does not exist"),
        ("a || b", "is of type integer but expression is of type text"),
        ("a || now()", "`now` is stable"),
        ("a || random()", "`random` is volatile"),
        ("a || current_date", "depends on the clock or the session"),
        ("(select name from others limit 1)", "a subquery reads more than the document"),
        ("max(a)", "an expression is made of one document"),
        ("regexp_split_to_table(a, ',')", "gives more than one value"),
        ("nextval('numbers')::text", "`nextval` is volatile"),
        ("a) , (b", "this is not one expression"),
        ("public.theirs(a)", "`theirs` is volatile"),
        ("a ||", "Postgres cannot read this expression: syntax error"),
    ];
    let stage = Stage::new("computed_check").await;
    let kind = |at: usize| if CASES[at].1.contains("type integer") { "integer" } else { "text" };
    let columns: Vec<String> = (0..CASES.len()).map(|at| format!("c{at} {}", kind(at))).collect();
    let schema = format!(
        "CREATE TABLE t (id uuid PRIMARY KEY, {}); CREATE TABLE others (name text); CREATE SEQUENCE numbers;
         CREATE FUNCTION mine(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT reverse($1)';
         CREATE FUNCTION theirs(text) RETURNS text LANGUAGE sql AS 'SELECT reverse($1)';",
        columns.join(", ")
    );
    stage.target.batch_execute(&schema).await.expect("the table can be created");
    set(&stage, "t", 1, doc! {"a": "x"}).await;
    let rules: Vec<String> = CASES
        .iter()
        .enumerate()
        .map(|(at, (sql, _))| {
            let sql = sql.replace('\'', "''");
            format!("        c{at}: {{ sql: '{sql}', with: {{ a: a, b: b, at: {{ timestamp: at }} }} }}\n")
        })
        .collect();
    let text = format!(
        "migration: check\nsources:\n  legacy: {{ mongodb: {{ uri: \"${{SLACKWATER_MONGODB_URI}}\", database: \"${{SOURCE_DATABASE}}\" }} }}\n\
         target: {{ postgres: {{ uri: \"${{SLACKWATER_POSTGRES_URL}}\", schema: public }} }}\ncollections:\n  legacy.t:\n    \
         - into: t\n      columns:\n        id: {{ uuid: _id }}\n{}",
        rules.concat()
    );
    let file = stage.file("migration.yaml", &text);
    let output = stage.output(&["check", file.to_str().expect("a path in UTF-8"), "--json"]).await;
    assert_eq!(output.status.code(), Some(3));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = report["diagnostics"].as_array().expect("mistakes");
    let first = text.lines().position(|line| line.contains("c0: ")).expect("the first rule") + 1;
    for (at, (sql, expected)) in CASES.iter().enumerate() {
        let line = first + at;
        let mine: Vec<&serde_json::Value> = found.iter().filter(|one| one["line"] == line).collect();
        let said: Vec<String> =
            mine.iter().map(|one| one["message"].to_string().replace("\\\"", "\"")).collect();
        assert_eq!(said.len(), usize::from(!expected.is_empty()), "{sql}: {said:?} of {found:#?}");
        assert!(said.iter().all(|said| said.contains(expected)), "{sql}: {said:?}");
    }
    stage.clear().await;
}
