//! Columns of types that only the database can read: every value is the one that it makes of the text itself, what it refuses is
//! invalid for that document alone, and rows that have to wait keep them whole.

use std::sync::OnceLock;

use bson::{Bson, Document, doc};

use crate::letters::{letters, set};
use crate::stage::{PATIENCE, Stage, followed, until};

/// Type; what documents have; a text that it refuses.
type Type = (&'static str, &'static [&'static str], &'static str);

const TYPES: [Type; 30] = [
    ("interval", &["1 day 02:03:04", "P1Y2M", "-3 mons"], "soon"),
    ("interval(0)", &["1.6 seconds"], "x"),
    ("money", &["12.34", "-5", "$1,000.50"], "much"),
    ("int4range", &["[1,5)", "(,7]", "empty"], "[5,1)"),
    ("tstzrange", &["[2024-01-01 00:00+00,2024-02-01 00:00+02)"], "[x,y]"),
    ("nummultirange", &["{[1.5,2],[7,9)}"], "{1}"),
    ("bit(5)", &["10101"], "102"),
    ("bit varying(5)", &["101", ""], "2"),
    ("tsvector", &["a fat cat", "'x':1A,2 'y'"], "'open"),
    ("tsquery", &["a & !b"], "a &"),
    ("point", &["(1,2.5)"], "1;2"),
    ("box", &["(2,2),(1,1)"], "(1"),
    ("path", &["[(0,0),(1,1)]"], "no"),
    ("macaddr", &["08:00:2b:01:02:03"], "08:00"),
    ("oid", &["12"], "-x"),
    ("pg_lsn", &["16/B374D848"], "16-B"),
    ("timetz", &["04:05:06+02"], "25:99"),
    ("xml", &["<a>1</a>"], "<a>"),
    ("jsonpath", &["$.a[*] ? (@ > 1)"], "$."),
    ("ltree", &["Top.Science", "a"], "a..b"),
    ("lquery", &["*.a"], "a..b"),
    ("hstore", &["a=>1, b=>NULL"], "a=>"),
    ("cube", &["(1,2),(3,4)"], "(x)"),
    ("name", &["short"], ""),
    ("place", &["(Bern,3000)", "(\"a, b\",)"], "(x"),
    ("shout", &["Loud"], ""),
    ("positive", &["(1,)"], "[0,5)"),
    ("interval[]", &["{1 day,NULL,\"2 days\"}"], "{x}"),
    ("ltree[]", &["{a.b,c}"], "{a..b}"),
    ("mood[]", &[], ""),
];

/// Those of them that the server has, set when the tables are made.
static THERE: OnceLock<Vec<Type>> = OnceLock::new();

fn types() -> &'static [Type] {
    THERE.get().expect("the tables are made")
}

const BEFORE: &str = "
CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION hstore; CREATE EXTENSION cube;
CREATE TYPE place AS (town text, code integer);
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN shout AS citext;
CREATE DOMAIN positive AS int4range CHECK (lower(VALUE) > 0);
CREATE DOMAIN small AS integer CHECK (VALUE < 100);
";

fn columns(form: impl Fn(usize, &str) -> String) -> String {
    let columns = types().iter().enumerate().map(|(at, (kind, ..))| form(at, kind));
    columns.collect::<Vec<_>>().join(", ")
}

/// The value of a column for a document.
fn value(at: usize, id: i64) -> Bson {
    let (kind, texts, _) = types()[at];
    match texts {
        [] => Bson::from(vec![["good", "bad"][id as usize % 2]]),
        _ => {
            let text = texts[id as usize % texts.len()];
            match kind {
                // Arrays are arrays at the source.
                "interval[]" => Bson::Array(vec!["1 day".into(), Bson::Null, "2 days".into()]),
                "ltree[]" => Bson::Array(vec!["a.b".into(), "c".into()]),
                _ => text.into(),
            }
        }
    }
}

/// What the database itself makes of it.
fn literal(at: usize, id: i64) -> String {
    let (kind, texts, _) = types()[at];
    let text = match texts {
        [] => ["{good}", "{bad}"][id as usize % 2],
        _ => texts[id as usize % texts.len()],
    };
    format!("'{}'::{kind}::text", text.replace('\'', "''"))
}

fn file(invalid: &str) -> String {
    format!(
        r#"migration: types
sources:
  legacy: {{ mongodb: {{ uri: "${{SLACKWATER_MONGODB_URI}}", database: "${{SOURCE_DATABASE}}" }} }}
target: {{ postgres: {{ uri: "${{SLACKWATER_POSTGRES_URL}}", schema: public }} }}
defaults: {{ invalid: {invalid} }}
collections:
  legacy.all_of_them:
    - into: all_of_them
      columns: {{ id: {{ uuid: _id }}, n: {{ integer: _id }}, little: {{ integer: little }}, {} }}
  legacy.owners: {{ into: owners, columns: {{ id: {{ uuid: _id }}, n: {{ integer: _id }} }} }}
  legacy.held:
    - into: held
      columns: {{ id: {{ uuid: _id }}, n: {{ integer: _id }}, owner_id: {{ ref: owner, to: legacy.owners }}, way: way, takes: {{ from: takes, unit: ms }}, bits: bits, mood: mood }}
"#,
        columns(|at, _| format!("c{at}: c{at}"))
    )
}

fn document(id: i64) -> Document {
    let mut document = doc! {"_id": id, "little": id % 50};
    for at in 0..types().len() {
        document.insert(format!("c{at}"), value(at, id));
    }
    document
}

async fn check_rows(stage: &Stage, ids: &[i64]) {
    let read = format!("SELECT n, {} FROM all_of_them ORDER BY n", columns(|at, _| format!("c{at}::text")));
    let rows = stage.target.query(&read, &[]).await.expect("rows can be read");
    assert_eq!(rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), ids);
    for (row, id) in rows.iter().zip(ids) {
        let wanted = format!("SELECT {}", columns(|at, _| literal(at, *id)));
        let wanted = stage.target.query_one(&wanted, &[]).await.expect("the database reads its own");
        for (at, (kind, ..)) in types().iter().enumerate() {
            let (is, should): (Option<String>, Option<String>) = (row.get(at + 1), wanted.get(at));
            assert_eq!(is, should, "document {id}, {kind}");
        }
    }
}

async fn with_tables(name: &str) -> Stage {
    let stage = Stage::new(name).await;
    let version = stage.target.query_one("SELECT current_setting('server_version_num')::int", &[]).await;
    let has_multiranges = version.expect("a row").get::<_, i32>(0) >= 140_000;
    THERE.get_or_init(|| {
        TYPES.into_iter().filter(|(kind, ..)| has_multiranges || !kind.ends_with("multirange")).collect()
    });
    let table = format!(
        "{BEFORE} CREATE TABLE all_of_them (id uuid PRIMARY KEY, n bigint NOT NULL, little small, {});
         CREATE TABLE owners (id uuid PRIMARY KEY, n bigint NOT NULL);
         CREATE TABLE held (id uuid PRIMARY KEY, n bigint NOT NULL, owner_id uuid NOT NULL REFERENCES owners,
                            way ltree UNIQUE, takes interval, bits bit(3), mood mood);",
        columns(|at, kind| format!("c{at} {kind}"))
    );
    stage.target.batch_execute(&table).await.expect("the tables can be created");
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_read_by_the_database() {
    let stage = with_tables("types").await;
    let file = stage.file("migration.yaml", &followed(&file("reject")));
    let source = stage.source.collection::<Document>("all_of_them");
    source.insert_many((1..=60).map(document)).await.expect("they can be inserted");
    // One bad value for each type that refuses something, each in a document of its own.
    let bad: Vec<(usize, &str)> = types()
        .iter()
        .enumerate()
        .filter(|(_, (.., bad))| !bad.is_empty())
        .map(|(at, (.., bad))| (at, *bad))
        .collect();
    let mut broken = Vec::new();
    for (place, (at, text)) in bad.iter().enumerate() {
        let id = 100 + place as i64;
        let text = match types()[*at].0.ends_with("[]") {
            true => Bson::Array(vec![text.trim_matches(['{', '}']).into()]),
            false => Bson::from(*text),
        };
        let mut document = document(id);
        document.insert(format!("c{at}"), text);
        broken.push(document);
    }
    // Of the right type, and too long for its column.
    let bits = types().iter().position(|(kind, ..)| *kind == "bit(5)").expect("it is there");
    let mut long = document(99);
    long.insert(format!("c{bits}"), "101010");
    source.insert_one(long).await.expect("it can be inserted");
    source.insert_many(&broken[..10]).await.expect("they can be inserted");
    let mut process = stage.run(&file);
    let mut lie = async |what: &str, kinds: &[(&str, i64)]| {
        let wanted: Vec<_> = kinds
            .iter()
            .map(|(kind, count)| ("legacy.all_of_them".to_owned(), (*kind).to_owned(), *count))
            .collect();
        until(what, PATIENCE, async || {
            process.still_runs();
            (letters(&stage).await == wanted).then_some(())
        })
        .await;
    };
    lie("the copy", &[("22026", 1), ("type", 10)]).await;
    until("the rows of the copy", PATIENCE, async || {
        (count(&stage, "all_of_them").await == 60).then_some(())
    })
    .await;
    check_rows(&stage, &(1..=60).collect::<Vec<_>>()).await;

    // In the stream, good ones among them.
    source.insert_many(&broken[10..]).await.expect("they can be inserted");
    source.insert_many((61..=80).map(document)).await.expect("they can be inserted");
    lie("the stream", &[("22026", 1), ("type", broken.len() as i64)]).await;
    until("the rows of the stream", PATIENCE, async || {
        (count(&stage, "all_of_them").await == 80).then_some(())
    })
    .await;
    check_rows(&stage, &(1..=80).collect::<Vec<_>>()).await;
    let reasons =
        stage.target.query("SELECT reason FROM slackwater.dead_letters", &[]).await.expect("letters");
    for row in &reasons {
        let reason: String = row.get(0);
        assert!(
            !bad.iter().any(|(_, text)| text.len() > 2 && reason.contains(text)),
            "a value is shown: {reason}"
        );
    }

    // Mended, and changed.
    set(&stage, "all_of_them", 99, document(99)).await;
    for document in &broken {
        let id = document.get_i64("_id").expect("an id");
        source.replace_one(doc! {"_id": id}, self::document(id)).await.expect("it can be replaced");
    }
    lie("all are mended", &[]).await;
    let all: Vec<i64> =
        (1..=80).chain([99]).chain((0..broken.len() as i64).map(|place| 100 + place)).collect();
    check_rows(&stage, &all).await;
    stage.verifies(&file).await;
    process.stop().await;
    stage.clear().await;
}

async fn count(stage: &Stage, table: &str) -> i64 {
    let row = stage.target.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await;
    row.expect("rows can be counted").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_goes_by_the_columns_policy() {
    let stage = with_tables("types_policy").await;
    let file = stage.file("migration.yaml", &followed(&file("'null'")));
    let source = stage.source.collection::<Document>("all_of_them");
    let documents = (1..=40).map(|id| {
        let mut document = document(id);
        for at in (0..types().len()).filter(|at| id % 2 == 0 && !types()[*at].0.ends_with("[]")) {
            let bad = types()[at].2;
            if !bad.is_empty() {
                document.insert(format!("c{at}"), bad);
            }
        }
        document
    });
    source.insert_many(documents).await.expect("they can be inserted");
    let mut process = stage.run(&file);
    until("all rows", PATIENCE, async || {
        process.still_runs();
        (count(&stage, "all_of_them").await == 40).then_some(())
    })
    .await;
    for (at, (kind, _, bad)) in types().iter().enumerate() {
        let nulls = format!("SELECT count(*) FROM all_of_them WHERE c{at} IS NULL");
        let nulls: i64 = stage.target.query_one(&nulls, &[]).await.expect("counted").get(0);
        let wanted = if bad.is_empty() || kind.ends_with("[]") { 0 } else { 20 };
        assert_eq!(nulls, wanted, "{kind}");
    }
    assert_eq!(letters(&stage).await, []);
    let tallied = "SELECT count(*), sum(count)::bigint FROM slackwater.tallies";
    let tallied = stage.target.query_one(tallied, &[]).await.expect("tallies");
    println!("{} columns, {} values", tallied.get::<_, i64>(0), tallied.get::<_, i64>(1));
    process.stop().await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_keep_them() {
    let stage = with_tables("types_held").await;
    let file = stage.file("migration.yaml", &followed(&file("reject")));
    let held = stage.source.collection::<Document>("held");
    let documents = (1..=30_i64).map(|id| {
        doc! {"_id": id, "owner": id % 3, "way": format!("a.b{id}"), "takes": id * 1500, "bits": "101", "mood": "bad"}
    });
    held.insert_many(documents).await.expect("they can be inserted");
    let mut process = stage.run(&file);
    until("all wait", PATIENCE, async || {
        process.still_runs();
        let sql = "SELECT count(*) FROM slackwater.waiting_rows WHERE held";
        let waiting = stage.target.query_one(sql, &[]).await.map_or(0, |row| row.get::<_, i64>(0));
        (waiting == 30).then_some(())
    })
    .await;
    // Too long: it would be cut without a word by a cast that knows the length.
    set(&stage, "held", 31, doc! {"owner": 0_i64, "way": "z", "bits": "10101"}).await;
    for owner in 0..3_i64 {
        set(&stage, "owners", owner, doc! {"x": 1}).await;
    }
    until("all are there", PATIENCE, async || (count(&stage, "held").await == 30).then_some(())).await;
    // The values change places, with one that is new.
    for (id, way) in [(1_i64, "moved"), (2, "a.b1"), (3, "a.b2"), (1, "a.b3")] {
        set(&stage, "held", id, doc! {"way": way}).await;
    }
    let read = "SELECT n, way::text, takes::text, bits::text, mood::text FROM held ORDER BY n";
    until("they have changed places", PATIENCE, async || {
        process.still_runs();
        let rows = stage.target.query(read, &[]).await.expect("rows");
        let ways: Vec<String> = rows.iter().map(|row| row.get(1)).collect();
        (ways.len() == 30 && ways[..3] == ["a.b3", "a.b1", "a.b2"]).then_some(())
    })
    .await;
    let rows = stage.target.query(read, &[]).await.expect("rows");
    for row in &rows {
        let id: i64 = row.get(0);
        let takes = format!("SELECT (interval '1.5 seconds' * {id})::text");
        let takes: String = stage.target.query_one(&takes, &[]).await.expect("an interval").get(0);
        let is: [String; 3] = [row.get(2), row.get(3), row.get(4)];
        assert_eq!(is, [takes, "101".into(), "bad".into()], "document {id}");
    }
    assert_eq!(letters(&stage).await, [("legacy.held".to_owned(), "22026".to_owned(), 1)]);
    process.stop().await;
    stage.clear().await;
}
