//! Generated targets whose tables refer to each other in every way and have unique values of every kind, over sources whose references are late, dangle and go, and whose unique values change places. Processes
//! are killed meanwhile. In the end the target has what follows from the documents alone, no document is a dead letter, and what
//! waits is what the source does not have. The same where the collections are in two sources: references know nothing of that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bson::{Document, doc};
use mongodb::Database;
use slackwater_migrations::Chance;
use slackwater_migrations::tangle::{self, Id, Key, Row, Rows, Table};

use crate::letters::letters;
use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::state;
use crate::stage::{PATIENCE, Slackwater, Stage, followed, number, until};

/// What tables are called that nobody had in mind: words of SQL, letters that are not small, names of ours, marks.
const TABLES: [&str; 14] = [
    "Order",
    "group",
    "t",
    "r",
    "m0",
    "keep",
    "waiting_rows",
    "watched",
    "Überträge",
    "we ird",
    "quo\"te",
    "back\\slash",
    "dollar$1",
    "a_name_that_is_as_long_as_names_may_be_in_postgres_63_bytes_lon",
];

/// The same of columns.
const COLUMNS: [&str; 30] = [
    "key",
    "new",
    "old",
    "was",
    "held",
    "owner",
    "content",
    "Id",
    "ID",
    "createdAt",
    "order",
    "user",
    "select",
    "w0",
    "u0",
    "t_u0",
    "b_u0",
    "r",
    "m",
    "t",
    "b",
    "what",
    "count",
    "relation",
    "wanted",
    "naïve",
    "with space",
    "quo\"te",
    "per%cent",
    "slackwater document id2",
];

/// What the tables and columns of [`tangle`] are called.
struct Names {
    tables: Vec<String>,
    columns: Vec<BTreeMap<String, String>>,
}

impl Names {
    /// As they are.
    fn plain(made: &[Table]) -> Self {
        let tables = (0..made.len()).map(|index| format!("t{index}")).collect();
        Self { tables, columns: vec![BTreeMap::new(); made.len()] }
    }

    fn odd(made: &[Table], chance: &mut Chance) -> Self {
        let mut tables = TABLES.to_vec();
        chance.shuffle(&mut tables);
        let columns = made.iter().map(|table| {
            let mut columns = COLUMNS.to_vec();
            chance.shuffle(&mut columns);
            let refers = (0..table.references.len()).map(|at| format!("r{at}"));
            let own = ["id", "n", "v", "u", "number", "note", "twice"].map(str::to_owned);
            let all = own.into_iter().chain(table.range.then(|| "w".to_owned())).chain(refers);
            all.zip(columns).map(|(name, odd)| (name, odd.to_owned())).collect()
        });
        Self {
            columns: columns.collect(),
            tables: tables.into_iter().take(made.len()).map(str::to_owned).collect(),
        }
    }

    fn column<'n>(&'n self, table: usize, name: &'n str) -> &'n str {
        self.columns[table].get(name).map_or(name, String::as_str)
    }

    /// The statements that rename what [`tangle::sql`] makes.
    fn sql(&self) -> String {
        let mut sql = String::new();
        for (index, columns) in self.columns.iter().enumerate() {
            for (name, odd) in columns {
                let _ = write!(sql, "alter table t{index} rename column {name} to {};", quote(odd));
            }
        }
        for (index, table) in
            self.tables.iter().enumerate().filter(|(index, table)| **table != format!("t{index}"))
        {
            let _ = write!(sql, "alter table t{index} rename to {};", quote(table));
        }
        sql
    }
}

/// As an identifier of SQL.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The source of a collection, of so many.
fn source_of(index: usize, sources: usize) -> String {
    format!("s{}", index % sources)
}

/// The database of a collection.
fn database_of(stage: &Stage, index: usize, sources: usize) -> Database {
    match index % sources {
        0 => stage.source.clone(),
        more => stage.source.client().database(&format!("{}_{more}", stage.name)),
    }
}

fn file(made: &[Table], names: &Names, sources: usize) -> String {
    let mut text = String::from("migration: references\nsources:\n");
    for source in 0..sources {
        let more = if source == 0 { String::new() } else { format!("_{source}") };
        let _ = writeln!(
            text,
            "  s{source}: {{ mongodb: {{ uri: \"${{SLACKWATER_MONGODB_URI}}\", database: \"${{SOURCE_DATABASE}}{more}\" }} }}"
        );
    }
    text += "target: { postgres: { uri: \"${SLACKWATER_POSTGRES_URL}\", schema: public } }\ncollections:\n";
    for (index, table) in made.iter().enumerate() {
        let of = source_of(index, sources);
        // Names as JSON writes them: YAML reads that, and `${` in them is no variable.
        let json = |name: &str| serde_json::Value::from(name).to_string();
        let _ =
            writeln!(text, "  {of}.c{index}:\n    - into: {}\n      columns:", json(&names.tables[index]));
        let mut column = |name: &str, rule: &str| {
            let _ = writeln!(text, "        {}: {rule}", json(names.column(index, name)));
        };
        column("id", if table.key == Key::Serial { "{ serial: _id }" } else { "{ uuid: _id }" });
        column("n", "{ integer: _id }");
        column("v", "{ integer: v }");
        column("u", "{ integer: u }");
        if table.range {
            column("w", "w");
        }
        for (at, one) in table.references.iter().enumerate() {
            let rule = format!("{{ ref: r{at}, to: {}.c{} }}", source_of(one.to, sources), one.to);
            column(&format!("r{at}"), &rule);
        }
    }
    text
}

fn document(row: &Row, id: i32) -> Document {
    let mut document =
        doc! { "_id": id, "v": row.v, "u": row.u, "w": format!("[{},{}]", row.v, row.v + row.u) };
    for (at, to) in row.refers.iter().enumerate() {
        if let Some(to) = to {
            document.insert(format!("r{at}"), to);
        }
    }
    document
}

/// Brings these documents to the source, in one transaction.
async fn change(stage: &Stage, sources: usize, documents: &Rows, touched: &BTreeSet<Id>) {
    let mut session = stage.source.client().start_session().await.expect("a session");
    loop {
        session.start_transaction().await.expect("a transaction");
        let mut outcome = Ok(());
        for id in touched {
            let collection = database_of(stage, id.0, sources).collection::<Document>(&format!("c{}", id.0));
            let by_id = doc! { "_id": id.1 };
            outcome = match documents.get(id) {
                Some(row) => {
                    let replaced = collection.replace_one(by_id, document(row, id.1)).upsert(true);
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

/// What the target shows, in one look.
async fn found(stage: &Stage, made: &[Table], names: &Names) -> Rows {
    let mut parts = Vec::new();
    for (index, table) in made.iter().enumerate() {
        // A role that is called like our schema would look there first.
        let name = |table: usize| format!("public.{}", quote(&names.tables[table]));
        let of = |table: usize, column: &str| quote(names.column(table, column));
        let own = |column: &str| of(index, column);
        let refers = table.references.iter().enumerate();
        let refers: Vec<String> = refers
            .map(|(at, one)| {
                let (n, id, r) = (of(one.to, "n"), of(one.to, "id"), own(&format!("r{at}")));
                format!("(select p.{n} from {} p where p.{id} = t.{r})", name(one.to))
            })
            .collect();
        let v = own("v");
        parts.push(format!(
            "select {index}, t.{}, {}, t.{}, array[{}]::int[] from {} t",
            own("n"),
            if table.range {
                format!("case when lower(t.{}) = t.{v} then t.{v} else -1 end", own("w"))
            } else {
                format!("t.{v}")
            },
            own("u"),
            refers.join(", "),
            name(index),
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

async fn one(seed: u64, kafka: bool, sources: usize) {
    let mut chance = Chance::new(seed);
    let made = tangle::tables_of_every_key(&mut chance);
    // A chance of its own, so that the rest of the history stays what the seed has made before.
    let mut naming = Chance::of(seed, 1, 0);
    let odd = naming.percent(40);
    let names = if odd { Names::odd(&made, &mut naming) } else { Names::plain(&made) };
    println!(
        "seed {seed}, {}, {sources} sources, odd names: {odd}, {made:?}",
        if kafka { "Kafka" } else { "direct" }
    );
    let way = if kafka { "kafka" } else { "direct" };
    let stage = Stage::new(&format!("references_{way}_{sources}")).await;
    stage
        .target
        .batch_execute(&(tangle::sql(&made) + &names.sql()))
        .await
        .expect("the tables can be created");
    let pool = 6 + chance.below(30);
    let mut documents = Rows::new();
    for source in 1..sources {
        // What a run before has left, which failed.
        database_of(&stage, source, sources).drop().await.expect("a database can go");
    }
    for (index, _) in made.iter().enumerate() {
        let database = database_of(&stage, index, sources);
        database.create_collection(format!("c{index}")).await.expect("a collection");
    }
    for _ in 0..pool / 2 {
        let touched = tangle::change(&mut chance, &made, pool, 6, &mut documents);
        change(&stage, sources, &documents, &touched).await;
    }
    let (pipeline, alone) = if kafka {
        let log = Log { partitions: 3, ..Log::at(&shared()) };
        (Some(Pipeline::on(stage, &followed(&file(&made, &names, sources)), &log).await), None)
    } else {
        (None, Some(stage))
    };
    let stage = pipeline.as_ref().map(|pipeline| &pipeline.stage).or(alone.as_ref()).expect("a stage");
    let path = stage.file("migration.yaml", &followed(&file(&made, &names, sources)));
    let start = |which: usize| match (&pipeline, which) {
        (None, _) => stage.run(&path),
        (Some(pipeline), 0) => pipeline.capture("capture"),
        (Some(pipeline), 1) => pipeline.apply("one", Some("one")),
        (Some(pipeline), _) => pipeline.apply("two", Some("two")),
    };
    let mut processes: Vec<Slackwater> = (0..if kafka { 3 } else { 1 }).map(start).collect();
    let kills = number("SLACKWATER_TEST_KILLS", 2);
    for round in 0..=kills {
        if round == kills / 2 {
            stage.follows(&mut processes).await;
        }
        for _ in 0..chance.below(40) {
            let touched = tangle::change(&mut chance, &made, pool, 6, &mut documents);
            change(stage, sources, &documents, &touched).await;
        }
        if round < kills {
            let which = chance.below(processes.len() as u64) as usize;
            processes.remove(which).kill().await;
            processes.insert(which, start(which));
        }
    }

    let expected = tangle::shown(&made, &documents);
    let mut last = Rows::new();
    until("the target is equal", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let found = found(stage, &made, &names).await;
        if found != last {
            println!(
                "{} of {} rows are as they should be",
                found.iter().filter(|row| expected.get(row.0) == Some(row.1)).count(),
                expected.len()
            );
            let wrong = expected.iter().find(|row| found.get(row.0) != Some(row.1));
            let too_much = found.iter().find(|row| expected.get(row.0) != Some(row.1));
            println!("  should be {wrong:?}, is {too_much:?}");
            last = found.clone();
        }
        // What is not there is held, and nothing else is.
        let held = "select count(*) from slackwater.waiting_rows where held";
        let held: i64 = state::rows(&stage.target, held).await.first().map_or(0, |row| row.get(0));
        let equal = found == expected && held as usize == documents.len() - expected.len();
        (equal && letters(stage).await.is_empty()).then_some(())
    })
    .await;
    stage.verifies(pipeline.as_ref().map_or(&path, |pipeline| &pipeline.file)).await;
    for process in processes {
        process.stop().await;
    }
    for source in 1..sources {
        database_of(stage, source, sources).drop().await.expect("a source can be dropped");
    }
    if let Some(pipeline) = pipeline {
        pipeline.clear().await;
    }
    if let Some(stage) = alone {
        stage.clear().await;
    }
}

async fn many(kafka: bool, sources: usize) {
    let first = number("SLACKWATER_TEST_SEED", 1);
    for seed in first..first + number("SLACKWATER_TEST_ROUNDS", 3) {
        Box::pin(one(seed, kafka, sources)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_with_the_direct_log() {
    many(false, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_over_kafka() {
    many(true, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_of_two_sources_with_the_direct_log() {
    many(false, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_of_two_sources_over_kafka() {
    many(true, 2).await;
}

/// A check that wants a reference comes over a table in which a row waits for it, with the null that was fine until then. The row is completed
/// like any other; rows that come later are held.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_comes_later() {
    let schema = "CREATE TABLE posts (id uuid PRIMARY KEY, n int);
                  CREATE TABLE notes (id uuid PRIMARY KEY, n int, draft boolean, post_id uuid REFERENCES posts);";
    let file = r#"migration: later
sources: { s: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  s.posts: { into: posts, columns: { id: { uuid: _id }, n: { integer: _id } } }
  s.notes: { into: notes, columns: { id: { uuid: _id }, n: { integer: _id }, draft: draft, post_id: { ref: post, to: s.posts } } }
"#;
    let stage = Stage::new("references_later").await;
    stage.target.batch_execute(schema).await.expect("the tables can be created");
    let file = stage.file("migration.yaml", &followed(file));
    let (posts, notes) =
        (stage.source.collection::<Document>("posts"), stage.source.collection::<Document>("notes"));
    posts.insert_one(doc! {"_id": 1}).await.expect("a post");
    notes.insert_one(doc! {"_id": 10, "draft": true, "post": 2}).await.expect("a note");
    let mut run = stage.run(&file);
    let shown = async |sql: &str| -> Vec<String> {
        state::rows(&stage.target, sql).await.iter().map(|row| row.get(0)).collect()
    };
    let all = "SELECT concat_ws(' ', c.n, p.n) FROM notes c LEFT JOIN posts p ON p.id = c.post_id ORDER BY 1";
    let until_shown = async |run: &mut Slackwater, what: &str, wanted: &[&str]| {
        until(what, PATIENCE, async || {
            run.still_runs();
            (shown(all).await == wanted).then_some(())
        })
        .await;
    };
    until_shown(&mut run, "the note is there without its post", &["10"]).await;
    run.stop().await;
    let check = "ALTER TABLE notes ADD CHECK (post_id IS NOT NULL OR draft)";
    stage.target.batch_execute(check).await.expect("it holds");
    let mut run = stage.run(&file);
    notes.insert_one(doc! {"_id": 11, "draft": false, "post": 3}).await.expect("a note");
    until("the second note is held", PATIENCE, async || {
        run.still_runs();
        let held = "SELECT table_name FROM slackwater.waiting_rows w JOIN slackwater.relations r ON r.id = w.relation WHERE held";
        (shown(held).await == ["notes"]).then_some(())
    })
    .await;
    posts.insert_many([doc! {"_id": 2}, doc! {"_id": 3}]).await.expect("posts");
    until_shown(&mut run, "both notes have their posts", &["10 2", "11 3"]).await;
    assert_eq!(letters(&stage).await, Vec::new());
    stage.verifies(&file).await;
    run.stop().await;
    stage.clear().await;
}

/// A migration that is at work: file, process, and what its rows look like.
struct AtWork {
    stage: Stage,
    file: std::path::PathBuf,
    run: Slackwater,
    all: &'static str,
}

impl AtWork {
    async fn set(name: &str, schema: &str, collections: &str, all: &'static str) -> Self {
        let stage = Stage::new(name).await;
        stage.target.batch_execute(schema).await.expect("the tables can be created");
        let text = format!(
            "migration: {name}\nsources: {{ s: {{ mongodb: {{ uri: \"${{SLACKWATER_MONGODB_URI}}\", database: \"${{SOURCE_DATABASE}}\" }} }} }}\n\
             target: {{ postgres: {{ uri: \"${{SLACKWATER_POSTGRES_URL}}\", schema: public }} }}\ncollections:\n{collections}"
        );
        let file = stage.file("migration.yaml", &text);
        let run = stage.run(&file);
        let mut at_work = Self { stage, file, run, all };
        until("it follows", PATIENCE, async || {
            at_work.run.still_runs();
            state::copied(&at_work.stage.target).await.then_some(())
        })
        .await;
        at_work
    }

    async fn insert(&self, name: &str, documents: impl IntoIterator<Item = Document>) {
        let collection = self.stage.source.collection::<Document>(name);
        collection.insert_many(documents).await.expect("documents can be inserted");
    }

    async fn shows(&mut self, what: &str, wanted: &[&str]) {
        let (run, stage, all) = (&mut self.run, &self.stage, self.all);
        until(what, PATIENCE, async || {
            run.still_runs();
            let rows: Vec<String> =
                state::rows(&stage.target, all).await.iter().map(|row| row.get(0)).collect();
            (rows == wanted).then_some(())
        })
        .await;
    }

    async fn end(self, wanted: Vec<(String, String, i64)>) {
        assert_eq!(letters(&self.stage).await, wanted);
        self.run.stop().await;
        self.stage.clear().await;
    }
}

/// A row that a check refuses waits for another one. Its own document is the dead letter, at once, and never that of the row which comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_can_never_be_there_does_not_wait() {
    let schema = "CREATE TABLE orders (id uuid PRIMARY KEY, n int);
                  CREATE TABLE lines (id uuid PRIMARY KEY, n int, qty int CHECK (qty > 0), order_id uuid NOT NULL REFERENCES orders);";
    let collections = "  s.orders: { into: orders, columns: { id: { uuid: _id }, n: { integer: _id } } }\n  \
        s.lines: { into: lines, columns: { id: { uuid: _id }, n: { integer: _id }, qty: { integer: qty }, order_id: { ref: order, to: s.orders } } }\n";
    let all = "SELECT concat_ws(' ', l.n, o.n) FROM lines l JOIN orders o ON o.id = l.order_id ORDER BY 1";
    let mut work = AtWork::set("references_refused", schema, collections, all).await;
    let held = async |stage: &Stage| -> i64 {
        let sql = "SELECT count(*) FROM slackwater.waiting_rows WHERE held";
        state::rows(&stage.target, sql).await[0].get(0)
    };
    work.insert("lines", [doc! {"_id": 10, "qty": 1, "order": 1}]).await;
    until("the first waits", PATIENCE, async || (held(&work.stage).await == 1).then_some(())).await;
    let more = [
        doc! {"_id": 11, "qty": -1, "order": 2},
        doc! {"_id": 12, "qty": 5, "order": 2},
        doc! {"_id": 13, "qty": 7, "order": 3},
    ];
    work.insert("lines", more).await;
    until("those that can be there wait, and the other is a letter", PATIENCE, async || {
        (held(&work.stage).await == 3 && letters(&work.stage).await.len() == 1).then_some(())
    })
    .await;
    work.insert("orders", [doc! {"_id": 1}, doc! {"_id": 2}]).await;
    work.shows("what waited is there", &["10 1", "12 2"]).await;
    let kinds = letters(&work.stage).await;
    let [(collection, _, count)] = &kinds[..] else { panic!("{kinds:?}") };
    assert_eq!((collection.as_str(), *count), ("s.lines", 1));
    work.end(kinds).await;
}

const PARTED: &str = "
CREATE TABLE events (id uuid, k int NOT NULL, n int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2);
CREATE TABLE notes (id uuid PRIMARY KEY, n int, event_id uuid, event_k int, FOREIGN KEY (event_id, event_k) REFERENCES events);
CREATE TABLE pins (id uuid PRIMARY KEY, n int, event_id uuid NOT NULL, event_k int NOT NULL,
                   FOREIGN KEY (event_id, event_k) REFERENCES events ON UPDATE CASCADE);";

const OF_PARTED: &str = "SELECT concat_ws(' ', 'note', t.n, e.n, t.event_k) FROM notes t LEFT JOIN events e ON (e.id, e.k) = (t.event_id, t.event_k)
    UNION ALL SELECT concat_ws(' ', 'pin', t.n, e.n, t.event_k) FROM pins t LEFT JOIN events e ON (e.id, e.k) = (t.event_id, t.event_k)
    UNION ALL SELECT concat_ws(' ', 'event', n, k) FROM events ORDER BY 1";

fn parted(k: &str) -> String {
    let event = "s.events: { into: events, key: [ id, k ], columns: { id: { uuid: _id }, k: { integer: k }, n: { integer: _id } } }";
    let refers = |table: &str| {
        format!(
            "s.{table}: {{ into: {table}, columns: {{ id: {{ uuid: _id }}, n: {{ integer: _id }}, event_id: {{ ref: event, to: s.events }}, event_k: {k} }} }}"
        )
    };
    format!("  {event}\n  {}\n  {}\n", refers("notes"), refers("pins"))
}

/// For a partitioned table Postgres names the reference of each partition in its errors, and not the one that the team has written.
#[tokio::test(flavor = "multi_thread")]
async fn what_refers_to_a_partition_waits_when_its_row_goes() {
    let mut work = AtWork::set("references_parted", PARTED, &parted("{ integer: k }"), OF_PARTED).await;
    work.insert("events", [doc! {"_id": 1, "k": 1}, doc! {"_id": 2, "k": 2}]).await;
    work.insert("notes", [doc! {"_id": 11, "event": 1, "k": 1}, doc! {"_id": 12, "event": 2, "k": 2}]).await;
    work.insert("pins", [doc! {"_id": 21, "event": 1, "k": 1}, doc! {"_id": 22, "event": 2, "k": 2}]).await;
    let whole = ["event 1 1", "event 2 2", "note 11 1 1", "note 12 2 2", "pin 21 1 1", "pin 22 2 2"];
    work.shows("all is there", &whole).await;
    let events = work.stage.source.collection::<Document>("events");
    events.delete_one(doc! {"_id": 1}).await.expect("deleted");
    work.shows("what referred to it waits", &["event 2 2", "note 11", "note 12 2 2", "pin 22 2 2"]).await;
    work.insert("events", [doc! {"_id": 1, "k": 1}]).await;
    work.shows("it is back", &whole).await;
    work.end(Vec::new()).await;
}

/// A row moves to another partition while others refer to it by the key that it had; they look the new one up.
#[tokio::test(flavor = "multi_thread")]
async fn what_refers_to_a_row_that_moves_follows_it() {
    let k = "{ lookup: event, of: s.events, take: k }";
    let mut work = AtWork::set("references_moved", PARTED, &parted(k), OF_PARTED).await;
    work.insert("events", [doc! {"_id": 1, "k": 1}, doc! {"_id": 2, "k": 2}]).await;
    work.insert("notes", [doc! {"_id": 11, "event": 1}, doc! {"_id": 12, "event": 2}]).await;
    work.insert("pins", [doc! {"_id": 21, "event": 1}, doc! {"_id": 22, "event": 2}]).await;
    work.shows(
        "all is there",
        &["event 1 1", "event 2 2", "note 11 1 1", "note 12 2 2", "pin 21 1 1", "pin 22 2 2"],
    )
    .await;
    let events = work.stage.source.collection::<Document>("events");
    events.update_one(doc! {"_id": 1}, doc! {"$set": {"k": 2}}).await.expect("changed");
    work.shows(
        "they have followed",
        &["event 1 2", "event 2 2", "note 11 1 2", "note 12 2 2", "pin 21 1 2", "pin 22 2 2"],
    )
    .await;
    work.stage.verifies(&work.file).await;
    work.end(Vec::new()).await;
}
