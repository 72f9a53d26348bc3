//! A stage for one test: databases of its own, the `slackwater` process, and waiting for a condition.

pub(crate) mod acl;
#[path = "../../../connectors/tests/stage/authority.rs"]
pub(crate) mod authority;
pub(crate) mod broker;
pub(crate) mod entrances;
pub(crate) mod gate;
pub(crate) mod ground;
pub(crate) mod items;
mod logs;
pub(crate) mod mongod;
pub(crate) mod pipeline;
pub(crate) mod pooler;
#[path = "../../../connectors/tests/stage/ports.rs"]
pub(crate) mod ports;
pub(crate) mod records;
pub(crate) mod rounds;
pub(crate) mod state;
#[path = "../../../connectors/tests/stage/target.rs"]
pub(crate) mod target;
pub(crate) mod trial;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use mongodb::Database;
use slackwater_migrations::{Report, crm_demo};
use tokio::process::{Child, Command};
use tokio_postgres::{Client, NoTls};

/// How long a test waits for what should come at once on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks while waiting.
const LOOK: Duration = Duration::from_millis(40);

/// What the environment says, or how to make it say it.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `eval \"$(dev/services env)\"` first"))
}

/// A number that the environment may change for a run by hand.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a whole number in the environment"))
}

/// Waits until `look` finds something; fails with `what` when the deadline has passed.
pub(crate) async fn until<T>(what: &str, deadline: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {deadline:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether `status --json` shows as its `verification` that everything was verified, and that what has changed until then is.
pub(crate) fn is_verified(shown: &serde_json::Value, then: i64) -> bool {
    let changes = shown["changes"].as_array();
    let reaches =
        |row: &serde_json::Value| row["whole"] == true && row["verified_through"].as_i64() >= Some(then);
    changes.is_some_and(|changes| !changes.is_empty() && changes.iter().all(reaches))
}

/// A migration file whose changes are verified beside everything else. That has to find nothing: [`Stage::verifies`].
pub(crate) fn followed(file: &str) -> String {
    let has = file.contains("\nverify:");
    if has { file.to_owned() } else { format!("{file}\nverify: {{ every: 1h, throttle: 50000 }}\n") }
}

/// Databases and a folder that belong to one test.
pub(crate) struct Stage {
    /// The test, as part of all names.
    pub(crate) name: String,
    /// Where MongoDB is.
    pub(crate) mongodb: String,
    /// The source.
    pub(crate) source: Database,
    /// Where Postgres is …
    server: String,
    /// … with the test's own database.
    pub(crate) postgres: String,
    /// A connection to it.
    pub(crate) target: Client,
    /// The test's own folder.
    pub(crate) folder: PathBuf,
    /// More of the environment of its processes.
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// A connection that ends with its client.
pub(crate) async fn postgres(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("Postgres is up");
    tokio::spawn(connection);
    client
}

/// The same server, another database.
fn database_of(url: &str, database: &str) -> String {
    let (server, _) = url.rsplit_once('/').expect("a URL that ends with a database");
    format!("{server}/{database}")
}

/// A name of ours on shared servers: two checkouts may run their tests on the same ones.
pub(crate) fn named(name: &str) -> String {
    let checkout = env!("CARGO_MANIFEST_DIR")
        .bytes()
        .fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    format!("it_{name}_{checkout:08x}")
}

impl Stage {
    /// Fresh databases on the shared servers.
    pub(crate) async fn new(name: &str) -> Self {
        Self::at(name, &variable("SLACKWATER_MONGODB_URI")).await
    }

    /// Fresh databases, the source on a MongoDB of the test's own.
    pub(crate) async fn at(name: &str, mongodb: &str) -> Self {
        Self::between(name, mongodb, &variable("SLACKWATER_POSTGRES_URL")).await
    }

    /// Processes that are started from now on add this option to the source's address.
    pub(crate) fn call_source_by(&mut self, option: &str) {
        let sign = if self.mongodb.contains('?') { '&' } else { '?' };
        self.mongodb = format!("{}{sign}{option}", self.mongodb);
    }

    /// Fresh databases on these servers.
    pub(crate) async fn between(name: &str, mongodb: &str, server: &str) -> Self {
        let name = named(name);
        let admin = postgres(server).await;
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        admin.batch_execute(&drop).await.expect("the database of a run before can go");
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database can be created");
        let postgres_url = database_of(server, &name);
        let client = mongodb::Client::with_uri_str(mongodb).await.expect("a MongoDB URI");
        let source = client.database(&name);
        source.drop().await.expect("MongoDB is up, and the database of a run before can go");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self {
            mongodb: mongodb.into(),
            source,
            target: postgres(&postgres_url).await,
            server: server.into(),
            postgres: postgres_url,
            folder,
            variables: Vec::new(),
            name,
        }
    }

    /// The stage of the CRM example: tables made, documents loaded, the migration file written.
    pub(crate) async fn crm(name: &str, seed: u64, documents: u64) -> (Self, PathBuf) {
        let stage = Self::new(name).await;
        let file = stage.fill(seed, documents).await;
        (stage, file)
    }

    /// Makes it the stage of the CRM example; its file.
    pub(crate) async fn fill(&self, seed: u64, documents: u64) -> PathBuf {
        self.target.batch_execute(crm_demo::SCHEMA).await.expect("the tables can be created");
        let world = crm_demo::World::new(seed, documents);
        crm_demo::load(&self.source, world, |_| {}).await.expect("the documents can be loaded");
        self.file("migration.yaml", crm_demo::mapping())
    }

    /// The target is at another address now.
    pub(crate) async fn moved(&mut self, from: &str, to: &str) {
        self.server = self.server.replace(from, to);
        self.target = postgres(&database_of(&self.server, &self.name)).await;
    }

    /// Writes a file into the test's folder.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("a file can be written");
        path
    }

    /// What the migration files of tests ask the environment for.
    pub(crate) fn environment(&self) -> [(&'static str, &str); 4] {
        [
            ("SLACKWATER_MONGODB_URI", &self.mongodb),
            ("SLACKWATER_POSTGRES_URL", &self.postgres),
            ("CRM_DATABASE", &self.name),
            ("SOURCE_DATABASE", &self.name),
        ]
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // Another build of it may be measured.
        let program = std::env::var("SLACKWATER_TEST_PROGRAM");
        let mut command = Command::new(program.as_deref().unwrap_or(env!("CARGO_BIN_EXE_slackwater")));
        command
            .args(arguments)
            .envs(self.environment())
            .envs(self.variables.iter().map(|(name, value)| (*name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn output(&self, arguments: &[&str]) -> Output {
        let running = self.command(arguments).output();
        let ended = tokio::time::timeout(PATIENCE, running).await;
        ended.expect("the command ends").expect("the command starts")
    }

    /// Starts `slackwater run FILE`. What it says is added to `run.log` in the test's folder.
    pub(crate) fn run(&self, file: &Path) -> Slackwater {
        self.start(&["run", file.to_str().expect("a path in UTF-8")], "run")
    }

    /// Starts a command that goes on until it is ended. What it says is added to `NAME.log` in the test's folder.
    pub(crate) fn start(&self, arguments: &[&str], name: &str) -> Slackwater {
        let log = self.folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).expect("a log file");
        let error = out.try_clone().expect("a log file");
        let child = self.command(arguments).stdout(out).stderr(error).spawn();
        Slackwater { child: child.expect("the command starts"), name: name.into(), log }
    }

    /// The target's clock, milliseconds since 1970.
    pub(crate) async fn clock(&self) -> i64 {
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        self.target.query_one(sql, &[]).await.expect("a row").get(0)
    }

    /// What `slackwater status FILE --json` says, as soon as there is something to say.
    pub(crate) async fn status(&self, file: &Path) -> serde_json::Value {
        let path = file.to_str().expect("a path in UTF-8");
        until("status has something to say", PATIENCE, async || {
            let output = self.output(&["status", path, "--json"]).await;
            let error = String::from_utf8_lossy(&output.stderr);
            // A start that is cut off again and again takes its time.
            if error.contains("has never run") {
                return None;
            }
            assert!(output.status.success(), "status failed: {error}");
            Some(serde_json::from_slice(&output.stdout).expect("status prints JSON"))
        })
        .await
    }

    /// What `slackwater verify FILE --json` says.
    pub(crate) async fn verify(&self, file: &Path, more: &[&str]) -> serde_json::Value {
        let mut arguments = vec!["verify", file.to_str().expect("a path in UTF-8"), "--json"];
        arguments.extend(more);
        let output = self.output(&arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("an answer: {said}"))
    }

    /// Waits until changes are verified from now on.
    pub(crate) async fn follows(&self, processes: &mut [Slackwater]) {
        until("what changes is verified from now on", PATIENCE, async || {
            processes.iter_mut().for_each(Slackwater::still_runs);
            let rows = self.target.query("SELECT FROM slackwater.followed", &[]).await.ok()?;
            (!rows.is_empty()).then_some(())
        })
        .await;
    }

    /// How many documents were verified when they had changed.
    pub(crate) async fn has_followed(&self) -> i64 {
        let sql = "SELECT coalesce(sum(documents), 0)::bigint FROM slackwater.followed";
        self.target.query_one(sql, &[]).await.expect("a row").get(0)
    }

    /// A verification finds nothing: what has come out right is known to be so. What waits and what is a dead letter is no finding.
    pub(crate) async fn verifies(&self, file: &Path) {
        let found = self.verify(file, &[]).await;
        let nothing = |name: &str| found[name].as_array().is_some_and(Vec::is_empty);
        let clean = nothing("findings")
            && nothing("left_out")
            && nothing("not_searched_for_extra_rows")
            && found["unsettled"] == 0
            && found["refused"] == 0;
        assert!(clean, "a false alarm: {found:#}");
        for entry in std::fs::read_dir(&self.folder).expect("a folder").flatten() {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let alarm = log.lines().find(|line| line.contains("a row is not what its document makes"));
            assert!(alarm.is_none(), "a false alarm while it was at work: {alarm:?}");
        }
        println!("{} documents were verified when they changed", self.has_followed().await);
    }

    /// Compares the CRM's rows with what its documents say.
    pub(crate) async fn crm_compare(&self) -> Report {
        let mut client = postgres(&self.postgres).await;
        crm_demo::compare(&self.source, &mut client).await.expect("both sides can be read")
    }

    /// Takes the databases away. After a failure they stay, to be looked at.
    pub(crate) async fn clear(self) {
        let Self { name, source, server, target, folder, .. } = self;
        logs::check(&folder);
        source.drop().await.expect("the source can be dropped");
        drop(target);
        let admin = postgres(&server).await;
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        admin.batch_execute(&drop).await.expect("the target can be dropped");
        std::fs::remove_dir_all(folder).expect("the folder can be removed");
    }
}

/// A running `slackwater`.
pub(crate) struct Slackwater {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Slackwater {
    /// What the test calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The end of what it said.
    pub(crate) fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Fails where it ended by itself.
    pub(crate) fn still_runs(&mut self) {
        if let Some(status) = self.ended() {
            panic!("slackwater ended by itself ({}, {status}):\n{}", self.name, self.tail());
        }
    }

    /// What it holds of the machine's memory, in megabytes.
    pub(crate) fn memory(&mut self) -> u64 {
        self.still_runs();
        let id = self.child.id().expect("a process that runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux tells of processes");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim_end_matches("kB").trim().parse::<u64>().expect("a number") >> 10
    }

    /// How many of its threads have this name.
    pub(crate) fn threads(&mut self, name: &str) -> usize {
        self.still_runs();
        let id = self.child.id().expect("a process that runs");
        let threads =
            std::fs::read_dir(format!("/proc/{id}/task")).expect("Linux tells of threads").flatten();
        let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        names.filter(|found| found.trim_end() == name).count()
    }

    /// Where what it says is written.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, where it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child process")
    }

    /// Whether it has said this.
    pub(crate) fn said(&self, text: &str) -> bool {
        std::fs::read_to_string(&self.log).unwrap_or_default().contains(text)
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.still_runs();
        self.child.kill().await.expect("a child process can be killed");
    }

    /// SIGKILL, if it has not ended by itself.
    pub(crate) async fn kill_anyhow(mut self) {
        self.child.kill().await.expect("a child process can be killed");
    }

    /// Sends a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("a process that runs").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().await;
        assert!(sent.expect("`kill` is there").success(), "{name} could be sent");
    }

    /// Sends a signal; how it ended, and after how long.
    pub(crate) async fn end(mut self, signal: &str) -> (ExitStatus, Duration) {
        self.still_runs();
        let start = Instant::now();
        self.signal(signal).await;
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        (ended.expect("it ends when told").expect("a child process"), start.elapsed())
    }

    /// Ends it as an operator does.
    pub(crate) async fn stop(self) {
        let (status, _) = self.end("TERM").await;
        assert!(status.success(), "SIGTERM ends with {status}");
    }
}
