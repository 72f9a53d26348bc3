//! Canaries in every place where a secret can be: users and passwords of all servers, options of connection strings, the
//! environment, files, settings of Kafka's clients, addresses of webhooks. They are used, with everything logged that can be, and
//! are in nothing that slackwater says or leaves behind: output, logs, metrics, its tables, reports, topics. Values of fields that are
//! `sensitive` are in none of that either, but for the topics, which hold documents.
//!
//! How files are shown that are broken at the place of a secret is tested in `src/config/tests/secrecy.rs`.

use std::path::{Path, PathBuf};

use bson::doc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::lag::{address, ask};
use crate::stage::broker::{self, Broker, Guarded};
use crate::stage::items;
use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::records::Topics;
use crate::stage::{PATIENCE, Slackwater, Stage, postgres, state, until, variable};

/// All canaries begin like that.
const CANARY: &str = "kanari";

/// Everything that every crate logs. The drivers' directives are there because they are more exact than those of the program.
pub(crate) const EVERYTHING: &str = "trace,mongodb=trace,tokio_postgres=trace,tokio_postgres::query=trace,tokio_postgres::connection=trace,\
                          hyper=trace,hyper_util=trace,reqwest=trace,rdkafka=trace,kafka=trace";

/// What was said and left behind.
#[derive(Default)]
pub(crate) struct Traces(Vec<(String, Vec<u8>)>);

impl Traces {
    fn add(&mut self, what: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((what.into(), bytes.into()));
    }

    /// Runs a command to its end; its code and all that it says.
    pub(crate) async fn command(&mut self, stage: &Stage, arguments: &[&str]) -> (Option<i32>, String) {
        let output = stage.output(arguments).await;
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        self.add(format!("{arguments:?}"), said.clone());
        (output.status.code(), said)
    }

    /// All files of a folder.
    pub(crate) fn folder(&mut self, folder: &Path, extensions: &[&str]) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.folder(&path, extensions);
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|e| *e == extension)) {
                self.add(path.display().to_string(), std::fs::read(&path).expect("a file"));
            }
        }
    }

    /// The whole state in the target.
    pub(crate) async fn state(&mut self, stage: &Stage) {
        let tables = "SELECT c.oid::regclass::text FROM pg_class c
                      WHERE relnamespace = 'slackwater'::regnamespace AND relkind IN ('r', 'v')";
        for table in state::rows(&stage.target, tables).await {
            let table: String = table.get(0);
            let rows = stage.target.query(&format!("SELECT t::text FROM {table} t"), &[]).await;
            let rows: Vec<String> = rows.expect("a table").iter().map(|row| row.get(0)).collect();
            // Bytes are shown in hexadecimal; they are read as text, too.
            let bytes: Vec<u8> = rows.iter().flat_map(|row| unhex(row)).collect();
            self.add(table.clone(), rows.join("\n"));
            self.add(format!("{table}, bytes"), bytes);
        }
    }

    pub(crate) fn all(&self, what: &str) -> usize {
        self.0.iter().filter(|(name, _)| name.contains(what)).map(|(_, bytes)| bytes.len()).sum()
    }

    /// No canary is in any of it.
    pub(crate) fn verdict(self) {
        let found = |bytes: &[u8]| {
            let small = bytes.to_ascii_lowercase();
            let at = small.windows(CANARY.len()).position(|part| part == CANARY.as_bytes())?;
            let around = &bytes[at.saturating_sub(160)..bytes.len().min(at + 80)];
            Some(String::from_utf8_lossy(around).into_owned())
        };
        let leaks: Vec<String> = self
            .0
            .iter()
            .filter_map(|(what, bytes)| Some(format!("--- {what}\n{}", found(bytes)?)))
            .collect();
        let size: usize = self.0.iter().map(|(_, bytes)| bytes.len()).sum();
        println!("{} traces, {size} bytes", self.0.len());
        assert!(leaks.is_empty(), "secrets are shown in {} places:\n{}", leaks.len(), leaks.join("\n"));
    }
}

/// The bytes that a text shows as `\x…`.
fn unhex(text: &str) -> Vec<u8> {
    let parts = text.split("\\x").skip(1);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    parts.flat_map(|part| part.as_bytes().chunks(2).map_while(byte).collect::<Vec<_>>()).collect()
}

#[test]
fn a_canary_is_found_wherever_it_is() {
    for text in ["a Kanari-1", "KANARI", "\\x6b616e617269"] {
        let mut traces = Traces::default();
        traces.add("a trace", unhex(text));
        traces.add("a trace", text);
        assert!(std::panic::catch_unwind(|| traces.verdict()).is_err(), "{text}");
    }
    Traces::default().verdict();
}

/// A MongoDB and a Postgres role whose passwords and options are canaries, and everything logged. Names of users, hosts and
/// databases are no secrets: what is said of a server names them.
async fn stage(name: &str) -> (Stage, Mongod) {
    let server = Mongod::start(name, Flavour::Passwords).await;
    let admin = mongodb::Client::with_uri_str(server.uri()).await.expect("a URI").database("admin");
    let user = doc! {"createUser": "dora", "pwd": "kanari@pass", "roles": ["root"]};
    admin.run_command(user).await.expect("a user can be made");
    let uri = format!("{}&appName=kanarioption", server.uri_as("dora", "kanari%40pass"));
    let mut stage = Stage::at(name, &uri).await;
    let role = role(&stage);
    let make =
        format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'kanaripass'");
    stage.target.batch_execute(&make).await.expect("a role can be made");
    let whole = stage.postgres.clone();
    let (_, place) = whole.rsplit_once('@').expect("a URL with a user");
    stage.postgres =
        format!("postgres://{role}:kanari%20pass@{place}?options=-c%20kanari.option%3Dkanarioption");
    stage.variables = vec![("RUST_LOG", EVERYTHING.into()), ("RUST_BACKTRACE", "full".into())];
    (stage, server)
}

fn role(stage: &Stage) -> String {
    format!("{}_dora", stage.name)
}

async fn clear(stage: Stage) {
    let role = role(&stage);
    stage.clear().await;
    let admin = postgres(&variable("SLACKWATER_POSTGRES_URL")).await;
    admin.batch_execute(&format!("DROP ROLE {role}")).await.expect("a role can be dropped");
}

/// What a process shows to everybody who asks.
pub(crate) async fn listen(traces: &mut Traces, address: &str) {
    for path in ["/metrics", "/healthz", "/readyz", "/kanari-is-not-a-path"] {
        let (code, body) = ask(address, path).await.expect("it listens");
        assert!(!body.is_empty() || code == 404, "{path}");
        traces.add(path, body);
    }
}

/// Answers every request with this code; what was sent.
async fn webhook(code: u16) -> (u16, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("a port").port();
    let (send, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let whole = |request: &[u8]| {
                let text = String::from_utf8_lossy(request).to_lowercase();
                let (head, body) = text.split_once("\r\n\r\n")?;
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
                (body.len() >= length.parse().ok()?).then_some(())
            };
            while whole(&request).is_none() {
                match stream.read_buf(&mut request).await {
                    Ok(read) if read > 0 => {}
                    _ => break,
                }
            }
            let answer =
                format!("HTTP/1.1 {code} Whatever\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = send.send(String::from_utf8_lossy(&request).into_owned());
        }
    });
    (port, requests)
}

pub(crate) fn path(file: &Path) -> &str {
    file.to_str().expect("a path in UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_migration_leaves_behind_shows_a_secret() {
    let (mut stage, _server) = stage("secrets").await;
    items::prepare(&stage).await;
    items::insert(&stage, 0..500).await;
    let (port, mut requests) = webhook(500).await;
    // One by the environment, one by a file, one in the file itself.
    let secret = stage.file("target.secret", &stage.postgres);
    stage.variables.push(("KANARI_TOKEN", "kanaritoken".into()));
    let text = format!(
        "{}cutover:\n  max_lag: 10s\n  open:\n    - webhook: \"http://dora:kanaripass@127.0.0.1:{port}/kanaripath?token=${{KANARI_TOKEN}}\"\n",
        items::FILE.replace("${SLACKWATER_POSTGRES_URL}", &format!("${{file:{}}}", secret.display()))
    );
    let file = stage.file("migration.yaml", &text);
    let file = path(&file);
    let mut traces = Traces::default();

    for arguments in
        [&["check", file][..], &["check", file, "--json"], &["--log-format", "json", "check", file]]
    {
        assert_eq!(traces.command(&stage, arguments).await.0, Some(0), "{arguments:?}");
    }
    let listening = address();
    let mut run = stage.start(&["run", file, "--listen", &listening], "run");
    items::equal(&stage, &mut run, PATIENCE).await;
    // A letter, changes, and a server that is away.
    let strange = doc! {"_id": 1_000_i64, "n": "no number", "name": "strange", "v": 1_i64};
    items::collection(&stage).insert_one(strange).await.expect("a document");
    until("there is a letter", PATIENCE, async || {
        (state::dead_letters(&stage.target).await == 1).then_some(())
    })
    .await;
    let lock = |word: &str| {
        let role = role(&stage);
        format!(
            "ALTER ROLE {role} {word}; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
        )
    };
    stage.target.batch_execute(&lock("NOLOGIN")).await.expect("a role can be changed");
    until("it waits", PATIENCE, async || run.said("waiting for").then_some(())).await;
    listen(&mut traces, &listening).await;
    let (code, said) = traces.command(&stage, &["status", file]).await;
    assert_eq!(code, Some(6), "{said}");
    stage.target.batch_execute(&lock("LOGIN")).await.expect("a role can be changed");
    items::insert(&stage, 500..600).await;
    until("it goes on", PATIENCE, async || {
        run.still_runs();
        let row = stage.target.query_one("SELECT count(*) FROM items", &[]).await.expect("rows");
        (row.get::<_, i64>(0) == 600).then_some(())
    })
    .await;
    listen(&mut traces, &listening).await;
    for arguments in [&["status", file][..], &["status", file, "--json"], &["cutover", file, "--plan"]] {
        assert!(matches!(traces.command(&stage, arguments).await.0, Some(0 | 8)), "{arguments:?}");
    }
    let report = stage.folder.join("report");
    let report = path(&report);
    let (code, said) = traces.command(&stage, &["cutover", file, "--report", report]).await;
    assert_eq!(code, Some(8), "the letter blocks it: {said}");
    traces.state(&stage).await;
    let id = doc! {"_id": 1_000_i64};
    items::collection(&stage).delete_one(id).await.expect("it can be deleted");
    until("the letter is gone", PATIENCE, async || {
        (state::dead_letters(&stage.target).await == 0).then_some(())
    })
    .await;

    until("nothing is in the way of the switch", PATIENCE, async || {
        run.still_runs();
        let (code, _) = traces.command(&stage, &["cutover", file, "--plan"]).await;
        (code == Some(0)).then_some(())
    })
    .await;
    let (code, said) = traces.command(&stage, &["cutover", file, "--report", report, "--json"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("telling the webhook"), "the webhook has failed: {said}");
    let request = requests.recv().await.expect("the webhook was asked");
    let (head, body) = request.split_once("\r\n\r\n").expect("a request");
    assert!(head.contains("/kanaripath?token=kanaritoken"), "{head}");
    traces.add("what the webhook is sent", body);
    until("the process ends by itself", PATIENCE, async || run.ended()).await;
    for arguments in [&["run", file][..], &["status", file], &["cutover", file]] {
        assert_eq!(traces.command(&stage, arguments).await.0, Some(0), "{arguments:?}");
    }
    traces.state(&stage).await;
    traces.folder(&stage.folder, &["log", "json", "html", "csv"]);
    assert!(run.said("DEBUG"), "more than usual is logged");
    // The driver of Postgres logs every statement with its values below that name.
    assert!(!run.said("preparing query") && !run.said("executing statement"), "statements are logged");
    for what in [
        "run.log",
        "report.json",
        "report.html",
        "dead_letters.csv",
        "dead_letters",
        "/metrics",
        "/readyz",
        "the webhook",
    ] {
        assert!(traces.all(what) > 0, "there is no trace of {what}");
    }
    traces.verdict();
    clear(stage).await;
}

/// Log of a broker with passwords, whose client logs all that it can, and does not compress.
fn kafka(guarded: &Guarded, prefix: &str, user: &str, secret: &Path) -> String {
    let (address, certificate) = (&guarded.address, guarded.certificate.display());
    format!(
        "log:\n  kafka:\n    brokers: \"{address}\"\n    group: {prefix}\n    \
         topics: {{ prefix: {prefix}, partitions: 2, replication: 1 }}\n    options:\n      \
         security.protocol: SASL_SSL\n      ssl.ca.location: {certificate}\n      sasl.mechanisms: SCRAM-SHA-512\n      \
         sasl.username: {user}\n      sasl.password: \"${{file:{}}}\"\n      ssl.key.password: kanarikey\n      \
         debug: all\n    producer: {{ compression.type: none }}\n",
        secret.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_kafka_is_told_shows_a_secret() {
    let (broker, guarded) = Broker::start_guarded("secrets").await;
    let (stage, _server) = stage("kafka_secrets").await;
    items::prepare(&stage).await;
    items::insert(&stage, 0..300).await;
    let mut traces = Traces::default();
    let file = |name: &str, password: &str| {
        let secret = stage.file(&format!("{name}.secret"), password);
        let log = kafka(&guarded, "sw.secrets", broker::CANARY, &secret);
        stage.file(&format!("{name}.yaml"), &format!("{}{log}", items::FILE))
    };
    let wrong = file("wrong", "kanariwrong");
    for command in [&["topics", "apply", path(&wrong)][..], &["check", path(&wrong)]] {
        let (code, said) = traces.command(&stage, command).await;
        assert_eq!(code, Some(6), "{command:?}: {said}");
    }
    let file = file("good", broker::PASSWORD);
    let file = path(&file);
    for arguments in [
        &["topics", "plan", file][..],
        &["topics", "apply", file],
        &["topics", "check", file, "--json"],
        &["check", file],
    ] {
        let (code, said) = traces.command(&stage, arguments).await;
        assert!(code == Some(0) || arguments[1] == "plan", "{arguments:?}: {said}");
    }
    let (first, second) = (address(), address());
    let capture = stage.start(&["capture", file, "--listen", &first], "capture");
    let mut apply = stage.start(&["apply", file, "--listen", &second, "--member", "one"], "apply");
    items::equal(&stage, &mut apply, PATIENCE).await;
    items::insert(&stage, 300..400).await;
    items::equal(&stage, &mut apply, PATIENCE).await;
    listen(&mut traces, &first).await;
    listen(&mut traces, &second).await;
    let tail =
        ["topics", "tail", file, "legacy.items", "--from", "beginning", "--limit", "20", "--documents"];
    for arguments in [&["status", file][..], &["status", file, "--json"], &["cutover", file, "--plan"], &tail]
    {
        assert!(matches!(traces.command(&stage, arguments).await.0, Some(0 | 8)), "{arguments:?}");
    }
    traces.state(&stage).await;
    assert!(capture.said("SCRAM") && apply.said("TRACE"), "everything is logged");
    for process in [capture, apply] {
        process.stop().await;
    }
    traces.folder(&stage.folder, &["log"]);
    let topics = std::fs::read_dir(broker.data()).expect("the broker's data").flatten();
    for topic in topics.filter(|entry| entry.file_name().to_string_lossy().starts_with("sw.secrets")) {
        traces.folder(&topic.path(), &["log"]);
    }
    for what in ["capture.log", "apply.log", "/sw.secrets", "/metrics", "partitions"] {
        assert!(traces.all(what) > 0, "there is no trace of {what}");
    }
    traces.0.retain(|(what, bytes)| {
        // The password of the broker's users is one of its own kind.
        let shown = bytes.windows(broker::PASSWORD.len()).any(|part| part == broker::PASSWORD.as_bytes());
        assert!(!shown, "{what} shows the password of the broker");
        true
    });
    traces.verdict();
    drop(broker);
    clear(stage).await;
}

const PEOPLE: &str = "CREATE TABLE people (id uuid PRIMARY KEY, n integer, code varchar(8), mail text CHECK (mail NOT LIKE '%@no'), contact jsonb);
                      CREATE TABLE notes (id uuid PRIMARY KEY, person_id uuid, words text, at integer);
                      CREATE INDEX ON notes (person_id);";

const PEOPLE_FILE: &str = r#"migration: people
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.people:
    - into: people
      columns:
        id: { uuid: _id }
        n: { integer: n, sensitive: true }
        code: { text: code, sensitive: true }
        mail: { text: mail, sensitive: true }
        contact: { jsonb: contact, sensitive: true }
    - into: notes
      each: notes[]
      columns:
        id: { uuid: each, by: index }
        person_id: { parent: id }
        words: { text: words, sensitive: true }
        at: { integer: at }
"#;

/// Documents whose sensitive values are canaries: some go into the tables, each of the others is refused for another reason.
#[tokio::test(flavor = "multi_thread")]
async fn no_sensitive_value_is_shown() {
    let mut stage = Stage::new("sensitive").await;
    stage.variables = vec![("RUST_LOG", EVERYTHING.into()), ("RUST_BACKTRACE", "full".into())];
    stage.target.batch_execute(PEOPLE).await.expect("tables can be created");
    let person = |id: &str| {
        doc! {
            "_id": id, "n": 1, "code": "kanari", "mail": "kanari@yes", "contact": {"street": "kanari", "old": ["kanari"]},
            "notes": [{"words": "kanari", "at": 1}, {"words": "kanari kanari", "at": 2}],
        }
    };
    let with = |id: &str, field: &str, value: bson::Bson| {
        let mut person = person(id);
        person.insert(field, value);
        person
    };
    let people = [
        person("good"),
        with("kind", "n", "kanari".into()),
        with("length", "code", "kanari kanari".into()),
        with("check", "mail", "kanari@no".into()),
        with("text", "mail", "kanari\0".into()),
        with("shape", "mail", doc! {"kanari": "kanari"}.into()),
        with("array", "notes", "kanari".into()),
        with("element", "notes", vec![doc! {"words": "kanari", "at": "no number"}].into()),
        with("strange element", "notes", vec!["kanari"].into()),
    ];
    let collection = stage.source.collection::<bson::Document>("people");
    collection.insert_many(&people[..5]).await.expect("documents can be inserted");
    let prefix = format!("sw.{}", stage.name);
    let log = format!(
        "log:\n  kafka:\n    brokers: \"{}\"\n    group: {prefix}\n    \
         topics: {{ prefix: {prefix}, partitions: 1, replication: 1 }}\n",
        broker::shared()
    );
    let topics = Topics::new(&broker::shared(), &prefix);
    topics.delete().await;
    let file = stage.file("people.yaml", &format!("{PEOPLE_FILE}{log}"));
    let file = path(&file);
    let mut traces = Traces::default();
    assert_eq!(traces.command(&stage, &["topics", "apply", file]).await.0, Some(0));
    let listening = address();
    let mut run = stage.start(&["run", file, "--listen", &listening], "run");
    collection.insert_many(&people[5..]).await.expect("documents can be inserted");
    let letters = "SELECT encode(key, 'escape'), kind, document FROM slackwater.dead_letters";
    let refused = until("all are written or refused", PATIENCE, async || {
        run.still_runs();
        let letters = state::rows(&stage.target, letters).await;
        let there = stage.target.query_one("SELECT count(*) FROM people", &[]).await.expect("rows");
        (letters.len() + there.get::<_, i64>(0) as usize == people.len()).then_some(letters)
    })
    .await;
    let kinds: Vec<String> = refused.iter().map(|row| row.get(1)).collect();
    println!("{kinds:?}");
    assert!(kinds.len() >= 5, "{kinds:?}");
    for letter in &refused {
        let document = bson::Document::from_reader(letter.get::<_, &[u8]>(2)).expect("a document");
        assert_eq!(document.get_str("mail").ok(), Some("(sensitive)"), "{document}");
        assert_eq!(document.get_str("contact").ok(), Some("(sensitive)"), "{document}");
    }
    listen(&mut traces, &listening).await;
    let tail =
        ["topics", "tail", file, "legacy.people", "--from", "beginning", "--limit", "9", "--documents"];
    let tail_json = [&tail[..], &["--json"]].concat();
    for arguments in [&tail[..], &tail_json] {
        let (code, said) = traces.command(&stage, arguments).await;
        assert!(code == Some(0) && said.contains("(sensitive)"), "{said}");
    }
    let report = stage.folder.join("report");
    for arguments in [
        &["check", file][..],
        &["status", file],
        &["status", file, "--json"],
        &["cutover", file, "--plan"],
        &["cutover", file, "--report", path(&report)],
    ] {
        assert!(matches!(traces.command(&stage, arguments).await.0, Some(0 | 8)), "{arguments:?}");
    }
    traces.state(&stage).await;
    run.stop().await;
    traces.folder(&stage.folder, &["log", "json", "html", "csv"]);
    for what in ["run.log", "dead_letters", "/metrics", "tail"] {
        assert!(traces.all(what) > 0, "there is no trace of {what}");
    }
    traces.verdict();
    topics.delete().await;
    stage.clear().await;
}

/// Addresses that do not work, with the code of the commands that find it out.
fn wrong(server: &Mongod, good: (&str, &str)) -> Vec<(String, String, &'static [i32])> {
    let (mongodb, postgres) = good;
    let target = postgres.rsplit_once('@').map_or("", |(_, place)| place);
    let sources: Vec<(String, &[i32])> = vec![
        (server.uri_as("dora", "kanariwrong"), &[6]),
        (server.uri_as("nobody", "kanariwrong"), &[6]),
        ("mongodb://dora:kanaripass@127.0.0.1:1/?replicaSet=kanarioption".into(), &[5]),
        ("mongodb://dora:kanaripass@away.invalid/".into(), &[5]),
        ("mongodb+srv://dora:kanaripass@away.invalid/".into(), &[4, 5]),
        ("mongodb://dora:kanari@pass@127.0.0.1/".into(), &[4]),
        ("mongodb://dora:kanaripass@127.0.0.1:kanari/".into(), &[4]),
        ("mongodb://dora:kanaripass@127.0.0.1/?kanarioption=kanarivalue".into(), &[4, 5]),
        ("mongodb://dora:kanaripass@127.0.0.1:1/?authMechanism=kanarioption".into(), &[4]),
        (
            "mongodb://dora:kanaripass@127.0.0.1:1/?authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:kanaritoken"
                .into(),
            &[4, 5],
        ),
        ("mongodb://127.0.0.1:1/?tls=true&tlsCertificateKeyFile=/kanari&tlsCertificateKeyFilePassword=kanarikey".into(), &[4, 5]),
        ("kanariuri".into(), &[4]),
    ];
    let targets: Vec<(String, &[i32])> = vec![
        (format!("postgres://nobody:kanaripass@{target}"), &[6]),
        (format!("{}_nowhere", postgres.split('?').next().unwrap_or_default()), &[6]),
        ("postgres://dora:kanaripass@127.0.0.1:1/shop".into(), &[5]),
        ("postgres://dora:kanaripass@away.invalid/shop".into(), &[5]),
        ("postgres://dora:kanari@pass@127.0.0.1:kanari/x".into(), &[4]),
        (format!("postgres://dora:kanaripass@{target}&kanarioption=kanari"), &[4]),
        (format!("postgres://dora:kanaripass@{target}&sslmode=kanari"), &[4]),
        (format!("postgres://dora:kanaripass@{target}&sslmode=require"), &[6]),
        ("host=127.0.0.1 user=dora password='kanari pass".into(), &[4]),
        ("kanariuri".into(), &[4]),
    ];
    let sources = sources.into_iter().map(|(uri, codes)| (uri, postgres.to_owned(), codes));
    let targets = targets.into_iter().map(|(url, codes)| (mongodb.to_owned(), url, codes));
    sources.chain(targets).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_failure_shows_a_secret() {
    let (mut stage, server) = stage("wrong_secrets").await;
    let file: PathBuf = items::prepare(&stage).await;
    items::insert(&stage, 0..10).await;
    let mut traces = Traces::default();
    for (mongodb, postgres, codes) in wrong(&server, (&stage.mongodb.clone(), &stage.postgres.clone())) {
        let source_is_wrong = postgres == stage.postgres;
        let good = (
            std::mem::replace(&mut stage.mongodb, mongodb.clone()),
            std::mem::replace(&mut stage.postgres, postgres.clone()),
        );
        let (code, said) = traces.command(&stage, &["check", path(&file)]).await;
        println!("{mongodb} {postgres}: {code:?}");
        assert!(code.is_some_and(|code| codes.contains(&code)), "{mongodb} {postgres} {code:?}: {said}");
        // A start is tried again for a while where a server does not answer.
        if !codes.contains(&5) {
            for command in ["run", "status", "cutover"] {
                let (code, said) = traces.command(&stage, &[command, path(&file)]).await;
                let status_reads_the_target_only = command == "status" && source_is_wrong;
                assert!(code != Some(0) || status_reads_the_target_only, "{command}: {said}");
                assert!(!said.contains("panicked"), "{command}: {said}");
            }
        }
        (stage.mongodb, stage.postgres) = good;
    }
    // A process that starts while a server is away.
    stage.mongodb = "mongodb://dora:kanaripass@127.0.0.1:1/".into();
    let starting: Slackwater = stage.start(&["run", path(&file)], "away");
    until("it has tried", PATIENCE, async || starting.said("trying again").then_some(())).await;
    starting.kill().await;
    traces.folder(&stage.folder, &["log"]);
    traces.verdict();
    stage.mongodb = server.uri();
    clear(stage).await;
}
