//! `slackwater topics`: from the description to the brokers, and a look at what is there.
//!
//! None of it needs source or target: the files name servers that do not exist.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Instant;

use bson::doc;
use serde_json::Value as Json;
use slackwater_connectors::kafka::{Admin, NewTopic, Observed, Producer, Record, Refusals, Settings, Ticket};
use slackwater_topics::{
    CollectionId, Document, Event, Key, Mark, Moment, Op, Part, Position, Stamp, debezium, encode,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::stage::items;
use crate::stage::{PATIENCE, Stage, variable};

/// Topics with names of their own.
#[derive(Clone)]
struct Desk {
    prefix: String,
    folder: PathBuf,
    settings: Settings,
    admin: Admin,
}

/// The values of the documents in topics: none may be shown unasked.
const SECRET: &str = "hush-hush";

impl Desk {
    /// The migration file, with something more under `topics` and beside it.
    fn file(&self, topics: &str, kafka: &str) -> String {
        let text = format!(
            r#"migration: topics
sources:
  legacy: {{ mongodb: {{ uri: "mongodb://127.0.0.1:1", database: none }} }}
target: {{ postgres: {{ uri: "postgres://127.0.0.1:1/none" }} }}
log:
  kafka:
    brokers: "${{SLACKWATER_KAFKA_BROKERS}}"
    topics: {{ prefix: {}, replication: 1, {topics} }}
    {kafka}
collections:
  legacy.users: {{ into: users, columns: {{ id: {{ uuid: _id }} }} }}
  legacy.orders: {{ into: orders, columns: {{ id: {{ uuid: _id }} }} }}
"#,
            self.prefix
        );
        let path = self.folder.join("migration.yaml");
        std::fs::write(&path, text).expect("a file can be written");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    fn topics(&self) -> [String; 2] {
        ["users", "orders"].map(|collection| format!("{}.legacy.{collection}", self.prefix))
    }

    async fn observe(&self) -> Vec<Option<Observed>> {
        let topics = self.topics();
        self.admin.observe(&[&topics[0], &topics[1]]).await.expect("the broker is up")
    }

    async fn make(&self, partitions: u32, config: &[(&str, &str)]) {
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let topics = self.topics();
        let new = |name: &String| NewTopic {
            name: name.clone(),
            partitions,
            replication: 1,
            config: BTreeMap::clone(&config),
        };
        let wanted: Vec<NewTopic> = topics.iter().map(new).collect();
        for (name, made) in self.admin.create(&wanted).await.expect("the broker is up") {
            made.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

/// Runs a test with topics of its own and takes them away, also when it fails.
async fn with<F>(name: &str, test: impl FnOnce(Desk) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let random = uuid::Uuid::from_u128(
        std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos()
            ^ u128::from(std::process::id()) << 96,
    );
    let prefix = format!("slackwater-it-{name}-{}", random.simple());
    println!("prefix: {prefix}");
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(&prefix);
    std::fs::create_dir_all(&folder).expect("a folder");
    let settings = Settings {
        brokers: variable("SLACKWATER_KAFKA_BROKERS"),
        options: Vec::new(),
        producer: Vec::new(),
        consumer: Vec::new(),
        client_id: "slackwater-it".into(),
        refusals: Refusals::default(),
    };
    let admin = Admin::open(&settings).expect("an admin");
    let desk = Desk { prefix, folder, settings, admin };
    let ended = tokio::spawn(test(desk.clone())).await;
    for topic in desk.topics() {
        // The test may not have made it.
        let _ = desk.admin.delete(&topic).await;
    }
    std::fs::remove_dir_all(&desk.folder).expect("the folder can be removed");
    if let Err(error) = ended {
        std::panic::resume_unwind(error.into_panic());
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slackwater"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn output(arguments: &[&str]) -> Output {
    let ended = tokio::time::timeout(PATIENCE, command(arguments).output()).await;
    ended.expect("it ends").expect("it starts")
}

/// Runs it to its end: code, and what it said on both channels.
async fn said(arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = output(arguments).await;
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    println!("--- {}: {status}\n{text}", arguments.join(" "));
    assert!(!text.contains("panicked"), "{text}");
    (status.code().expect("no signal"), text)
}

/// Runs it to its end: code and the JSON on stdout.
async fn told(arguments: &[&str]) -> (i32, Json) {
    let output = output(arguments).await;
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)));
    (output.status.code().expect("no signal"), json)
}

fn all_in(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not said:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn planned_made_checked() {
    with("made", async |desk: Desk| {
        let file = desk.file("partitions: 2, config: { segment.bytes: 1048576 }", "");
        let topics = desk.topics();
        let (code, text) = said(&["topics", "plan", &file]).await;
        assert_eq!(code, 0);
        all_in(
            &text,
            &[&topics[0], &topics[1], "legacy.users", "create", "partitions: 2", "nothing was changed"],
        );
        let (code, text) = said(&["topics", "check", &file]).await;
        assert_eq!(code, 4);
        all_in(&text, &[&topics[0], &topics[1], "is missing", "slackwater topics apply FILE"]);
        assert_eq!(desk.observe().await, [None, None], "neither changes anything");

        let (code, text) = said(&["topics", "apply", &file]).await;
        assert_eq!(code, 0);
        all_in(&text, &[&topics[0], &topics[1], "created with partitions: 2, replication: 1"]);
        for observed in desk.observe().await {
            let observed = observed.expect("it is there");
            assert_eq!((observed.partitions, observed.replication), (2, 1));
            assert_eq!(observed.config["segment.bytes"], "1048576");
            assert_eq!(observed.config["retention.ms"], "604800000");
        }
        let (code, text) = said(&["topics", "check", &file]).await;
        assert_eq!(code, 0);
        all_in(&text, &["2 topics as described"]);
        let (code, plan) = told(&["topics", "plan", &file, "--json"]).await;
        assert_eq!((code, plan["topics"].as_array().map(Vec::len)), (0, Some(2)));
        for (topic, name) in plan["topics"].as_array().expect("topics").iter().zip(&topics) {
            assert_eq!(
                (topic["name"].as_str(), &topic["observed"]["partitions"]),
                (Some(&**name), &2.into())
            );
            assert!(
                topic["steps"] == Json::Array(vec![]) && topic["problems"] == Json::Array(vec![]),
                "{topic}"
            );
        }
        let before = desk.observe().await;
        let (code, text) = said(&["topics", "apply", &file]).await;
        assert_eq!(code, 0);
        all_in(&text, &["nothing to do"]);
        assert_eq!(desk.observe().await, before);

        let file = desk.file("partitions: 2, retention: 1d", "");
        let (code, plan) = told(&["topics", "plan", &file, "--json"]).await;
        let step = serde_json::json!({
            "do": "change", "setting": "retention.ms", "from": "604800000", "to": "86400000",
        });
        assert_eq!((code, &plan["topics"][0]["steps"]), (0, &Json::Array(vec![step])));
        let (code, check) = told(&["topics", "check", &file, "--json"]).await;
        assert_eq!((code, &check["fit"]), (4, &Json::Bool(false)));
        let (code, text) = said(&["topics", "apply", &file]).await;
        assert_eq!(code, 0);
        all_in(&text, &["changed retention.ms from 604800000 to 86400000"]);
        for observed in desk.observe().await {
            let config = observed.expect("it is there").config;
            // What is no longer described is left as it is.
            assert_eq!((&*config["retention.ms"], &*config["segment.bytes"]), ("86400000", "1048576"));
        }
        let (code, check) = told(&["topics", "check", &file, "--json"]).await;
        assert_eq!((code, &check["fit"]), (0, &Json::Bool(true)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_to_a_person() {
    with("left", async |desk: Desk| {
        desk.make(2, &[("max.message.bytes", "60000")]).await;
        let file = desk.file("partitions: 4", "");
        let before = desk.observe().await;
        for (command, more) in
            [("plan", "nothing was changed"), ("check", "nothing was written"), ("apply", "error")]
        {
            let (code, text) = said(&["topics", command, &file]).await;
            assert_eq!(code, 4, "{command}");
            for topic in desk.topics() {
                let partitions = format!("{topic}: it has partitions: 2, described are 4");
                let size = format!("{topic}: max.message.bytes is 60000, which is too small");
                all_in(&text, &[&partitions, &size, "65536", more]);
            }
        }
        let now = desk.observe().await;
        for (now, before) in now.iter().zip(&before) {
            let (now, before) = (now.as_ref().expect("a topic"), before.as_ref().expect("a topic"));
            assert_eq!(
                (now.partitions, &now.config["max.message.bytes"]),
                (before.partitions, &before.config["max.message.bytes"])
            );
        }
        // Where the description says a size, it is applied; more partitions than described are no reason to stop.
        let file = desk.file("partitions: 1, config: { max.message.bytes: 2000000 }", "");
        let (code, text) = said(&["topics", "apply", &file]).await;
        assert_eq!(code, 0);
        all_in(
            &text,
            &["changed max.message.bytes from 60000 to 2000000", "warning: ", "the others stay empty"],
        );
        let (code, check) = told(&["topics", "check", &file, "--json"]).await;
        let differences = check["topics"][0]["differences"].as_array().expect("a list");
        assert_eq!((code, differences.len()), (4, 1));
        all_in(differences[0].as_str().expect("text"), &[&desk.topics()[0], "events go to the first 1"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_copies_than_brokers() {
    with("copies", async |desk: Desk| {
        let brokers = desk.admin.brokers().await.expect("the broker is up");
        let file = desk.file("partitions: 1", "");
        let text = std::fs::read_to_string(&file).expect("the file");
        let many = format!("replication: {}", brokers + 1);
        std::fs::write(&file, text.replace("replication: 1", &many)).expect("a file can be written");
        for command in ["plan", "apply"] {
            let (code, text) = said(&["topics", command, &file]).await;
            assert_eq!(code, 4);
            all_in(&text, &[&desk.topics()[0], &many, &format!("the cluster has brokers: {brokers}")]);
        }
        assert_eq!(desk.observe().await, [None, None]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked() {
    with("asked", async |desk: Desk| {
        let file = desk.file("partitions: 1", "");
        let text = std::fs::read_to_string(&file).expect("the file");
        let put = |text: String| std::fs::write(&file, text).expect("a file can be written");
        let (code, said_now) = said(&["topics", "tail", &file, "legacy.usres"]).await;
        assert_eq!(code, 4);
        all_in(&said_now, &["did you mean `legacy.users`?"]);
        let (code, said_now) = said(&["topics", "tail", &file, "legacy.users"]).await;
        assert_eq!(code, 4);
        all_in(&said_now, &[&desk.topics()[0], "slackwater topics apply FILE"]);
        desk.file("partitions: 1", "options: { sasl.pasword: hush-hush }");
        let (code, said_now) = said(&["topics", "check", &file]).await;
        assert_eq!(code, 3);
        all_in(&said_now, &["migration.yaml:9:16", "sasl.pasword", "librdkafka"]);
        assert!(!said_now.contains(SECRET), "{said_now}");
        put(text.replace("${SLACKWATER_KAFKA_BROKERS}", "127.0.0.1:1"));
        let (plan, apply, check, tail) = (
            ["topics", "plan", &file],
            ["topics", "apply", &file],
            ["topics", "check", &file],
            ["topics", "tail", &file, "legacy.users"],
        );
        let (plan, apply, check, tail) = tokio::join!(said(&plan), said(&apply), said(&check), said(&tail));
        assert_eq!([plan.0, apply.0, check.0, tail.0], [5; 4]);
        let (head, rest) = text.split_once("log:\n").expect("a log");
        let (_, rest) = rest.split_once("collections:").expect("collections");
        put(format!("{head}collections:{rest}"));
        let (code, said_now) = said(&["topics", "plan", &file]).await;
        assert_eq!(code, 4);
        all_in(&said_now, &["the log of this migration is direct", "kafka: { brokers"]);
        assert_eq!(said(&["topics", "plan", "nothing.yaml"]).await.0, 3);
        assert_eq!(said(&["topics", "tail", &file, "legacy.users", "--from", "-1"]).await.0, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn help() {
    for command in ["plan", "apply", "check", "tail"] {
        let (code, text) = said(&["topics", command, "--help"]).await;
        assert_eq!(code, 0);
        all_in(&text, &["Example: slackwater topics ", command]);
        let (_, all) = said(&["topics", "--help"]).await;
        all_in(&all, &[command]);
    }
}

/// `slackwater check` looks at the topics too.
#[tokio::test(flavor = "multi_thread")]
async fn check_wants_the_topics() {
    let stage = Stage::new("topics").await;
    items::prepare(&stage).await;
    items::insert(&stage, 0..1).await;
    with("check", async move |desk: Desk| {
        let log = format!(
            "log: {{ kafka: {{ brokers: \"${{SLACKWATER_KAFKA_BROKERS}}\", topics: {{ prefix: {}, partitions: 1, replication: 1 }} }} }}\nnot_migrated: [ \"legacy.*\" ]\ncollections:",
            desk.prefix
        );
        let text = items::FILE.replace("collections:", &log).replace("legacy.items", "legacy.users");
        let file = stage.file("migration.yaml", &text);
        let file = file.to_str().expect("a path in UTF-8");
        let output = stage.output(&["check", file]).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{told}");
        all_in(&told, &[&desk.topics()[0], "is missing"]);
        assert!(stage.output(&["topics", "apply", file]).await.status.success());
        let output = stage.output(&["check", file, "--json"]).await;
        let json: Json = serde_json::from_slice(&output.stdout).expect("JSON");
        let topic = &json["topics"][0];
        assert_eq!((topic["name"].as_str(), &topic["partitions"]), (Some(&*desk.topics()[0]), &1.into()));
        assert!(topic["largest_record"].as_u64() >= Some(65_536) && topic["compacted"] == Json::Bool(false), "{topic}");
        stage.clear().await;
    })
    .await;
}

fn event(op: Op, id: i32, increment: u32) -> Event {
    let document = doc! { "_id": id, "name": SECRET, "long": 5_i64 };
    let bytes = document.to_vec().expect("a document");
    let key = Document::new(&bytes).expect("BSON").get(b"_id").expect("BSON").expect("an id");
    Event {
        collection: CollectionId(0),
        key: Key::of(key).expect("a key"),
        op,
        document: if op == Op::Delete { Vec::new() } else { bytes.clone() }.into(),
        position: Position::new(Moment::of_halves(1_700_000_000, increment), vec![1]),
        time: 1_700_000_000_123,
    }
}

/// Sends to the topic of the users.
struct Pen {
    producer: Producer,
    ticket: Arc<Ticket>,
}

impl Pen {
    fn new(desk: &Desk) -> Self {
        let topics = [(desk.topics()[0].clone(), 2)];
        Self { producer: Producer::open(&desk.settings, &topics).expect("a producer"), ticket: Ticket::new() }
    }

    async fn send(&self, partition: i32, key: &[u8], value: Option<&[u8]>, headers: &[(&str, &[u8])]) {
        let record = Record { key, value, headers, timestamp: 0 };
        self.producer.send(0, partition, record, &self.ticket).await.expect("sent");
    }

    async fn event(&self, partition: i32, event: &Event) {
        let mut value = Vec::new();
        encode(event, "legacy.users", Stamp { epoch: 3, ..Stamp::default() }, &mut value);
        self.send(partition, event.key.as_bytes(), Some(&value), &[]).await;
    }

    async fn done(self) {
        self.ticket.close();
        self.ticket.acknowledged().await.expect("acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_into_a_topic() {
    with("tail", async |desk: Desk| {
        desk.make(2, &[]).await;
        let file = desk.file("partitions: 2", "");
        let pen = Pen::new(&desk);
        pen.event(1, &event(Op::Upsert, 7, 1)).await;
        let mut mark = Vec::new();
        let time = Moment::of_halves(1_700_000_000, 1);
        Mark { epoch: 3, time, at: 1_700_000_000_500, as_of: None, fence: None }.encode(&mut mark);
        pen.send(1, Mark::KEY, None, &[(Mark::HEADER, &mark)]).await;
        pen.event(1, &event(Op::Delete, 7, 2)).await;
        pen.send(1, event(Op::Delete, 7, 2).key.as_bytes(), None, &[]).await;
        let mut part = Vec::new();
        Part::encode((3, 9), (0, 2), Moment::default(), SECRET.as_bytes(), &mut part);
        pen.send(1, b"\0part", Some(&part), &[]).await;
        let writer = debezium::Writer::new(debezium::WriterOptions {
            name: "topics",
            topic: &desk.topics()[0],
            database: "none",
            collection: "users",
            schemas: true,
        });
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let foreign = event(Op::Upsert, 8, 3);
        writer.key(&foreign.key, &mut key);
        writer.value(&foreign, Stamp::default(), 1, &mut value);
        pen.send(1, &key, Some(&value), &[]).await;
        pen.send(1, b"x", Some(SECRET.as_bytes()), &[]).await;
        pen.event(0, &event(Op::Snapshot, 9, 4)).await;
        pen.done().await;

        let tail = ["topics", "tail", &file, "legacy.users", "--from", "beginning"];
        let (code, text) = said(&[&tail[..], &["--partition", "1", "--limit", "7"]].concat()).await;
        assert_eq!(code, 0);
        let lines: Vec<&str> = text.lines().collect();
        for (line, words) in lines.iter().zip([
            ["1/0 ", "2023-11-14T22:13:20.123Z  upsert ", " 7  "],
            ["1/1 ", "2023-11-14T22:13:20.500Z  mark ", " all up to 1700000000.1, epoch 3"],
            ["1/2 ", "2023-11-14T22:13:20.123Z  delete ", " 7  "],
            ["1/3 ", " -  ", " tombstone  7"],
            ["1/4 ", " part ", " 1 of 2, group 9  "],
            ["1/5 ", "2023-11-14T22:13:20.123Z  upsert ", " 8  "],
            ["1/6 ", " unknown ", "not an event"],
        ]) {
            all_in(line, &words);
        }
        assert!(lines.len() == 7 && !text.contains(SECRET), "{text}");

        let (code, text) = said(&[&tail[..], &["--limit", "8", "--documents"]].concat()).await;
        assert_eq!((code, text.lines().count()), (0, 8));
        all_in(&text, &[r#"{"_id": 7,"name": "hush-hush","long": 5}"#, "0/0 "]);
        assert_eq!(text.matches(SECRET).count(), 3, "in two changes and a copy, not in the part: {text}");

        let more = ["--limit", "3", "--partition", "1", "--json", "--documents"];
        let from = ["topics", "tail", &file, "legacy.users", "--from", "4"];
        let (code, text) = said(&[&from[..], &more[..]].concat()).await;
        let objects: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((code, objects.len()), (0, 3));
        let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().expect("a kind")).collect();
        assert_eq!(kinds, ["part", "event", "unknown"]);
        assert_eq!(objects[1]["offset"], 5);
        assert_eq!(objects[1]["document"]["long"]["$numberLong"], "5");

        let (code, text) = said(&[&tail[..], &["--partition", "5"]].concat()).await;
        assert_eq!(code, 4);
        all_in(&text, &["0 to 1"]);
    })
    .await;
}

/// Without a word it begins at the end and follows, until it is told to stop.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_is_followed() {
    with("follow", async |desk: Desk| {
        desk.make(2, &[]).await;
        let file = desk.file("partitions: 2", "");
        let pen = Pen::new(&desk);
        pen.event(0, &event(Op::Upsert, 1, 1)).await;
        pen.done().await;
        let mut child = command(&["topics", "tail", &file, "legacy.users"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let next = tokio::spawn(async move {
            let line = lines.next_line().await.expect("text").expect("a line");
            (line, lines)
        });
        // It says nothing before it reads, so there is always one more until one is seen.
        let end = Instant::now() + PATIENCE;
        while !next.is_finished() {
            assert!(Instant::now() < end, "no line within {PATIENCE:?}");
            let pen = Pen::new(&desk);
            pen.event(1, &event(Op::Upsert, 2, 2)).await;
            pen.done().await;
        }
        let (first, _open) = next.await.expect("no panic");
        all_in(&first, &["1/", "upsert", " 2  "]);
        let id = child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status().await.expect("`kill` is there");
        assert!(sent.success());
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends").expect("a child");
        assert_eq!(ended.code(), Some(0));
    })
    .await;
}
