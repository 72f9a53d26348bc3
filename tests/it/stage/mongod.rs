//! A MongoDB of a test's own: standalone, with a tiny oplog, or with passwords.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bson::{Document, Timestamp, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};
use tokio::process::{Child, Command};

use crate::stage::ports::free_ports;
use crate::stage::{PATIENCE, until, variable};

/// What kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// No replica set, so no change streams.
    Standalone,
    /// A replica set.
    Replica,
    /// A replica set whose oplog holds a megabyte.
    TinyOplog,
    /// A replica set that asks for passwords; `admin` has `secret`.
    Passwords,
    /// One of several, of which somebody else makes a replica set; test commands are on.
    Member,
}

/// A server that ends with the test.
pub(crate) struct Mongod {
    child: Child,
    folder: PathBuf,
    port: u16,
    flavour: Flavour,
}

impl Mongod {
    /// Starts one and waits until it can be written to.
    pub(crate) async fn start(name: &str, flavour: Flavour) -> Self {
        Self::with(name, flavour, &[]).await
    }

    /// Likewise, with more arguments; it has to take connections without TLS.
    pub(crate) async fn with(name: &str, flavour: Flavour, more: &[&str]) -> Self {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mongod_{name}_{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("data")).expect("a folder");
        let [port] = free_ports();
        let mut command = Command::new(variable("SLACKWATER_MONGOD"));
        command
            .args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--port"])
            .arg(port.to_string())
            .arg("--dbpath")
            .arg(folder.join("data"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(folder.join("log")).expect("a log file"))
            .kill_on_drop(true);
        match flavour {
            Flavour::Standalone => {}
            Flavour::Replica => {
                command.args(["--replSet", "rs0"]);
            }
            Flavour::Member => {
                command.args(["--replSet", "rs0", "--setParameter", "enableTestCommands=1"]);
            }
            // The oplog is cut only up to the last checkpoint, so there must be one every second.
            Flavour::TinyOplog => {
                command.args(["--replSet", "rs0", "--oplogSize", "1", "--syncdelay", "1"]);
            }
            Flavour::Passwords => {
                let key = folder.join("key");
                std::fs::write(&key, "a key that only this one member has").expect("a key file");
                let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                std::fs::set_permissions(&key, private).expect("a key file");
                command.args(["--replSet", "rs0", "--auth", "--keyFile"]).arg(key);
            }
        }
        let child = command.spawn().expect("mongod starts");
        let server = Self { child, folder, port, flavour };
        server.initiate().await;
        server
    }

    async fn initiate(&self) {
        let admin = self.direct().await;
        until("mongod answers", PATIENCE, async || admin.run_command(doc! {"ping": 1}).await.ok()).await;
        if matches!(self.flavour, Flavour::Standalone | Flavour::Member) {
            return;
        }
        let member = doc! {"_id": 0, "host": format!("127.0.0.1:{}", self.port)};
        let initiate = doc! {"replSetInitiate": {"_id": "rs0", "members": [member]}};
        admin.run_command(initiate).await.expect("the replica set can be made");
        until("mongod is primary", PATIENCE, async || {
            let hello = admin.run_command(doc! {"hello": 1}).await.ok()?;
            hello.get_bool("isWritablePrimary").ok().filter(|primary| *primary)
        })
        .await;
        if self.flavour == Flavour::Passwords {
            let user = doc! {"createUser": "admin", "pwd": "secret", "roles": ["root"]};
            admin.run_command(user).await.expect("the first user can be made from this machine");
        }
    }

    /// The `admin` database by a connection that looks for no replica set.
    async fn direct(&self) -> Database {
        let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port);
        let mut options = ClientOptions::parse(uri).await.expect("a URI");
        options.server_selection_timeout = Some(Duration::from_secs(2));
        Client::with_options(options).expect("options that fit").database("admin")
    }

    /// Its address as anybody.
    pub(crate) fn uri(&self) -> String {
        match self.flavour {
            Flavour::Standalone => format!("mongodb://127.0.0.1:{}/", self.port),
            Flavour::Replica | Flavour::TinyOplog | Flavour::Member => {
                format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", self.port)
            }
            Flavour::Passwords => self.uri_as("admin", "secret"),
        }
    }

    /// Sends it a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("a server that runs").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().await;
        assert!(sent.expect("`kill` is there").success(), "{name} could be sent");
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its address as this user.
    pub(crate) fn uri_as(&self, user: &str, password: &str) -> String {
        format!("mongodb://{user}:{password}@127.0.0.1:{}/?replicaSet=rs0&authSource=admin", self.port)
    }

    async fn oplog_edge(&self, order: i32) -> Timestamp {
        let oplog = self.direct().await.client().database("local").collection::<Document>("oplog.rs");
        let entry =
            oplog.find_one(doc! {}).sort(doc! {"$natural": order}).await.expect("the oplog can be read");
        entry.and_then(|entry| entry.get_timestamp("ts").ok()).expect("the oplog has entries")
    }

    /// The oldest operation time that the oplog still has.
    pub(crate) async fn oplog_start(&self) -> u64 {
        let start = self.oplog_edge(1).await;
        u64::from(start.time) << 32 | u64::from(start.increment)
    }

    /// Writes to another database until everything that is in the oplog now has fallen out of it.
    pub(crate) async fn roll_oplog(&self) {
        let mark = self.oplog_edge(-1).await;
        let filler = self.direct().await.client().database("elsewhere").collection::<Document>("filler");
        until("the oplog has rolled over", PATIENCE, async || {
            let documents = (0..20).map(|_| doc! {"text": "x".repeat(20_000)});
            filler.insert_many(documents).await.expect("the filler can be written");
            (self.oplog_edge(1).await > mark).then_some(())
        })
        .await;
    }
}

/// A replica set of three, of which the third one never leads and can be made to stand still.
pub(crate) struct Three {
    members: [Mongod; 3],
}

impl Three {
    pub(crate) async fn start(name: &str) -> Self {
        Self::led_by(name, [1, 0, 0]).await
    }

    /// Any of the three may lead.
    pub(crate) async fn equal(name: &str) -> Self {
        Self::led_by(name, [1, 1, 1]).await
    }

    async fn led_by(name: &str, priorities: [i32; 3]) -> Self {
        let start = async |at: usize| Mongod::start(&format!("{name}{at}"), Flavour::Member).await;
        let members = [start(0).await, start(1).await, start(2).await];
        let hosts: Vec<Document> = (0..3)
            .map(|at| {
                let (priority, speed) = (priorities[at], if at == 2 { "slow" } else { "quick" });
                let host = format!("127.0.0.1:{}", members[at].port);
                doc! {"_id": at as i32, "host": host, "priority": priority, "tags": {"speed": speed}}
            })
            .collect();
        let first = members[0].direct().await;
        // Where more than one can lead they take turns soon.
        let patience = if priorities[1] > 0 { 2_000 } else { 10_000 };
        let settings = doc! {"electionTimeoutMillis": patience};
        let initiate = doc! {"replSetInitiate": {"_id": "rs0", "members": hosts, "settings": settings}};
        first.run_command(initiate).await.expect("the replica set can be made");
        let three = Self { members };
        until("all members follow", PATIENCE, async || {
            let status = first.run_command(doc! {"replSetGetStatus": 1}).await.ok()?;
            let states = status
                .get_array("members")
                .ok()?
                .iter()
                .filter_map(|member| member.as_document()?.get_i32("state").ok());
            let mut states: Vec<i32> = states.collect();
            states.sort_unstable();
            (states == [1, 2, 2]).then_some(())
        })
        .await;
        three
    }

    /// Who leads, as one that is asked through the driver says it.
    async fn leader(&self, source: &Database) -> &Mongod {
        let admin = source.client().database("admin");
        until("somebody leads", PATIENCE, async || {
            let hello = admin.run_command(doc! {"hello": 1}).await.ok()?;
            let leads = hello.get_bool("isWritablePrimary").is_ok_and(|leads| leads);
            let me = hello.get_str("me").ok().filter(|_| leads)?;
            self.members.iter().find(|member| me.ends_with(&format!(":{}", member.port)))
        })
        .await
    }

    /// Whoever leads steps down, and another one leads then.
    pub(crate) async fn step_down(&self, source: &Database) {
        let leader = self.leader(source).await.port;
        // It answers, or it cuts the connection first.
        let down = doc! {"replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 4, "force": true};
        let _ = source.client().database("admin").run_command(down).await;
        self.another_leads(source, leader).await;
    }

    /// Whoever leads stands still until another one leads, and then goes on as if nothing had been.
    pub(crate) async fn freeze_leader(&self, source: &Database) {
        let leader = self.leader(source).await;
        leader.signal("STOP").await;
        self.another_leads_of_two(leader.port).await;
        leader.signal("CONT").await;
    }

    async fn another_leads(&self, source: &Database, than: u16) {
        until("another one leads", PATIENCE, async || (self.leader(source).await.port != than).then_some(()))
            .await;
    }

    /// The others are asked directly: the driver may still wait for the one that stands still.
    async fn another_leads_of_two(&self, than: u16) {
        until("another one leads", PATIENCE, async || {
            for member in self.members.iter().filter(|member| member.port != than) {
                let hello = member.direct().await.run_command(doc! {"hello": 1}).await.ok()?;
                if hello.get_bool("isWritablePrimary").is_ok_and(|leads| leads) {
                    return Some(());
                }
            }
            None
        })
        .await;
    }

    /// The address of all three.
    pub(crate) fn uri(&self, parameters: &str) -> String {
        let hosts: Vec<String> =
            self.members.iter().map(|member| format!("127.0.0.1:{}", member.port)).collect();
        format!("mongodb://{}/?replicaSet=rs0{parameters}", hosts.join(","))
    }

    /// The slow one applies nothing of what others write, or goes on.
    pub(crate) async fn stall(&self, stalled: bool) {
        let admin = self.members[2].direct().await;
        let mode = if stalled { "alwaysOn" } else { "off" };
        admin
            .run_command(doc! {"configureFailPoint": "rsSyncApplyStop", "mode": mode})
            .await
            .expect("a fail point");
    }

    /// How often the slow one was asked for documents.
    pub(crate) async fn asked(&self) -> i64 {
        let status =
            self.members[2].direct().await.run_command(doc! {"serverStatus": 1}).await.expect("it answers");
        let commands = status.get_document("metrics").and_then(|metrics| metrics.get_document("commands"));
        let find = commands.expect("commands").get_document("find").expect("it counts what it is asked");
        find.get_i64("total").expect("a number")
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_what_they_are_called() {
    let tiny = Mongod::start("tiny", Flavour::TinyOplog).await;
    let start = tiny.oplog_edge(1).await;
    tiny.roll_oplog().await;
    assert!(tiny.oplog_edge(1).await > start, "the oplog has not moved");

    let alone = Mongod::start("alone", Flavour::Standalone).await;
    let client = Client::with_uri_str(alone.uri()).await.expect("a URI");
    let hello = client.database("admin").run_command(doc! {"hello": 1}).await.expect("it answers");
    assert!(hello.get("setName").is_none(), "it is not a replica set");

    let locked = Mongod::start("locked", Flavour::Passwords).await;
    for (password, opens) in [("secret", true), ("wrong", false)] {
        let client = Client::with_uri_str(locked.uri_as("admin", password)).await.expect("a URI");
        assert_eq!(client.list_database_names().await.is_ok(), opens, "{password}");
    }
}
