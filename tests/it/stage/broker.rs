//! A Kafka of a test's own: processes that are broker and controller, which the test may kill and start again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::process::{Child, Command};

use crate::stage::ports::free_ports;
use crate::stage::records::ANSWER;
use crate::stage::{LOOK, PATIENCE, until, variable};

/// The broker that tests share which leave it alone.
pub(crate) fn shared() -> String {
    variable("SLACKWATER_KAFKA_BROKERS")
}

/// A second entrance to a broker, where clients speak TLS and say who they are by SCRAM: `app` may do everything, and so may
/// [`CANARY`]; `guest`, `capture`, `apply` and `topics` may do nothing.
pub(crate) struct Guarded {
    pub(crate) address: String,
    /// Whom to trust.
    pub(crate) certificate: PathBuf,
}

/// What all of them say.
pub(crate) const PASSWORD: &str = "pass-word-1";
/// A user whose name is a secret.
pub(crate) const CANARY: &str = "kanariuser";

/// A broker with the settings that Kafka brings along. It ends with the test.
pub(crate) struct Broker {
    child: Option<Child>,
    folder: PathBuf,
    port: u16,
    /// How many there are in its cluster.
    cluster: usize,
}

/// What makes a broker differ from others.
#[derive(Default)]
struct Setting<'s> {
    port: u16,
    /// Which of the controllers it is.
    place: usize,
    /// The controllers' ports, one for each broker of the cluster.
    controllers: &'s [u16],
    entrance: &'s str,
    protocol: &'s str,
    more: &'s str,
    users: &'s [&'s str],
}

impl Broker {
    /// Starts one and waits until it can be written to.
    pub(crate) async fn start(name: &str) -> Self {
        let [port, controller] = free_ports();
        let setting = Setting { port, controllers: &[controller], ..Setting::default() };
        let mut broker = Self::with(Self::folder(name), setting).await;
        broker.again().await;
        broker
    }

    /// Starts three that copy for each other, so that any one may be away.
    pub(crate) async fn start_three(name: &str) -> [Self; 3] {
        let [a, b, c, controllers @ ..] = free_ports::<6>();
        let mut brokers = Vec::new();
        for (place, port) in [a, b, c].into_iter().enumerate() {
            let folder = Self::folder(&format!("{name}_{place}"));
            let setting = Setting { port, place, controllers: &controllers, ..Setting::default() };
            let mut broker = Self::with(folder, setting).await;
            broker.launch();
            brokers.push(broker);
        }
        for broker in &mut brokers {
            broker.ready().await;
        }
        brokers.try_into().unwrap_or_else(|_| unreachable!("there are three"))
    }

    /// Starts one that has a guarded entrance too.
    pub(crate) async fn start_guarded(name: &str) -> (Self, Guarded) {
        let folder = Self::folder(name);
        let [port, controller, guarded] = free_ports();
        let (store, certificate) = (folder.join("broker.p12"), folder.join("broker.pem"));
        let of_store = [
            "-alias",
            "broker",
            "-storepass",
            PASSWORD,
            "-keystore",
            store.to_str().expect("a path in UTF-8"),
        ];
        let made =
            "-genkeypair -keyalg EC -validity 365 -dname CN=broker -ext san=ip:127.0.0.1 -storetype PKCS12";
        keytool(made, &of_store).await;
        let file = certificate.to_str().expect("a path in UTF-8");
        keytool("-exportcert -rfc", &[&of_store[..], &["-file", file]].concat()).await;
        let more = format!(
            "sasl.enabled.mechanisms=SCRAM-SHA-512\n\
             listener.name.guarded.scram-sha-512.sasl.jaas.config=\
             org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             ssl.keystore.type=PKCS12\n\
             ssl.keystore.location={}\n\
             ssl.keystore.password={PASSWORD}\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS;User:app;User:{CANARY}\n",
            store.display()
        );
        let address = format!("127.0.0.1:{guarded}");
        let users = ["app", "guest", CANARY, "capture", "apply", "topics"]
            .map(|name| format!("SCRAM-SHA-512=[name={name},password={PASSWORD}]"));
        let users: Vec<&str> = users.iter().flat_map(|user| ["--add-scram", user]).collect();
        let entrance = format!(",GUARDED://{address}");
        let setting = Setting {
            port,
            controllers: &[controller],
            entrance: &entrance,
            protocol: ",GUARDED:SASL_SSL",
            more: &more,
            users: &users,
            ..Setting::default()
        };
        let mut broker = Self::with(folder, setting).await;
        broker.again().await;
        (broker, Guarded { address, certificate })
    }

    /// Starts one with these settings, and entrances beside the open one: their names, ports and protocols.
    pub(crate) async fn start_beside(
        folder: PathBuf,
        entrances: &[(&str, u16, &str)],
        more: &str,
        users: &[&str],
    ) -> Self {
        let [port, controller] = free_ports();
        let entrance: String =
            entrances.iter().map(|(name, port, _)| format!(",{name}://127.0.0.1:{port}")).collect();
        let protocol: String =
            entrances.iter().map(|(name, _, protocol)| format!(",{name}:{protocol}")).collect();
        let setting = Setting {
            port,
            controllers: &[controller],
            entrance: &entrance,
            protocol: &protocol,
            more,
            users,
            ..Setting::default()
        };
        let mut broker = Self::with(folder, setting).await;
        broker.again().await;
        broker
    }

    pub(crate) fn folder(name: &str) -> PathBuf {
        let folder = format!("kafka_{name}_{}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// Makes its data folder.
    async fn with(folder: PathBuf, setting: Setting<'_>) -> Self {
        let Setting { port, place, controllers, entrance, protocol, more, users } = setting;
        let (cluster, controller) = (controllers.len(), controllers[place]);
        let voters = controllers.iter().zip(0..).map(|(port, node)| format!("{node}@127.0.0.1:{port}"));
        let properties = format!(
            "process.roles=broker,controller\n\
             node.id={place}\n\
             controller.quorum.voters={}\n\
             controller.listener.names=CONTROLLER\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{entrance}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{entrance}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocol}\n\
             log.dirs={}\n\
             offsets.topic.replication.factor={cluster}\n\
             offsets.topic.num.partitions=3\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             log.cleaner.dedupe.buffer.size=8388608\n\
             group.initial.rebalance.delay.ms=0\n{more}",
            voters.collect::<Vec<_>>().join(","),
            folder.join("data").display()
        );
        std::fs::write(folder.join("server.properties"), properties).expect("a file can be written");
        let broker = Self { child: None, folder, port, cluster };
        let format = [&["format", "-t", "c2xhY2t3YXRlci10ZXN0cw"], users, &["-c"]].concat();
        let formatted = broker.java_with_properties("kafka.tools.StorageTool", &format).status().await;
        let formatted = formatted.expect("java is there: JAVA_HOME, or the path");
        assert!(formatted.success(), "a data folder can be made: {}", broker.tail());
        broker
    }

    /// For clients.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts the process, with the same ports and data as before, and waits until every partition has its leader and copies.
    pub(crate) async fn again(&mut self) {
        self.launch();
        self.ready().await;
    }

    /// Starts the process, and does not wait for it.
    pub(crate) fn launch(&mut self) {
        assert!(self.child.is_none(), "the broker runs");
        let child = self.java_with_properties("kafka.Kafka", &[]).spawn();
        self.child = Some(child.expect("java is there: JAVA_HOME, or the path"));
    }

    /// Waits until the whole cluster is there, and every partition has its leader and copies.
    pub(crate) async fn ready(&mut self) {
        let (mut end, mut again) = (Instant::now() + PATIENCE, false);
        loop {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().expect("a child")) {
                panic!("the broker ended by itself ({status}):\n{}", self.tail());
            }
            let (address, cluster) = (self.address(), self.cluster);
            let ready = tokio::task::spawn_blocking(move || leads(&address, cluster, cluster)).await;
            let Err(lacks) = ready.expect("a task") else { break };
            // Seen on a busy machine: a broker that has come back never follows one of its partitions again.
            if Instant::now() >= end && !again {
                println!("{lacks}, for {PATIENCE:?}: the broker is started once more");
                self.kill().await;
                self.launch();
                (end, again) = (Instant::now() + PATIENCE, true);
                continue;
            }
            assert!(
                Instant::now() < end,
                "the broker at {}: {lacks}, for {PATIENCE:?}:\n{}",
                self.address(),
                self.tail()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until it knows that one other is away and another leads in its place.
    pub(crate) async fn misses_one(&self) {
        until("the others do without it", PATIENCE, async || {
            let (address, others) = (self.address(), self.cluster - 1);
            let lead = tokio::task::spawn_blocking(move || leads(&address, others, 1)).await;
            lead.expect("a task").ok()
        })
        .await;
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().expect("the broker runs");
        child.kill().await.expect("a child process can be killed");
    }

    /// Sends a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.as_ref().and_then(Child::id).expect("the broker runs").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().await;
        assert!(sent.expect("`kill` is there").success(), "{name} could be sent");
    }

    /// Ends it as an operator does.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM").await;
        let mut child = self.child.take().expect("the broker runs");
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        ended.expect("it ends when told").expect("a child process")
    }

    /// Gives a user of SCRAM another password. Connections that are open stay.
    pub(crate) async fn set_password(&self, user: &str, password: &str) {
        let (address, change) = (self.address(), format!("SCRAM-SHA-512=[password={password}]"));
        let words =
            ["--bootstrap-server", &address, "--alter", "--entity-type", "users", "--entity-name", user];
        let arguments = [&words[..], &["--add-config", &change]].concat();
        let changed = self.java("kafka.admin.ConfigCommand", &arguments).status().await;
        let changed = changed.expect("java is there: JAVA_HOME, or the path");
        assert!(changed.success(), "a password can be changed: {}", self.tail());
    }

    fn java_with_properties(&self, class: &str, arguments: &[&str]) -> Command {
        let mut command = self.java(class, arguments);
        command.arg(self.folder.join("server.properties"));
        command
    }

    fn java(&self, class: &str, arguments: &[&str]) -> Command {
        let log = File::options().create(true).append(true).open(self.log()).expect("a log file");
        let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
        let mut command = Command::new(home.unwrap_or_else(|| "java".into()));
        command
            .args(["-Xms128m", "-Xmx384m", "-Dlog4j2.level=INFO", "-cp"])
            .arg(Path::new(&variable("SLACKWATER_KAFKA_LIB")).join("*"))
            .arg(class)
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .kill_on_drop(true);
        command
    }

    /// Where its topics are.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// Java's own tool for keys, which is where Java is.
async fn keytool(words: &str, more: &[&str]) {
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/keytool"));
    let mut command = Command::new(home.unwrap_or_else(|| "keytool".into()));
    let output = command.args(words.split(' ')).args(more).stdin(Stdio::null()).output().await;
    let output = output.expect("keytool is there: JAVA_HOME, or the path");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// What it lacks until it answers and knows of so many brokers, and every partition can be written to and has so many
/// copies, or all.
fn leads(address: &str, brokers: usize, copies: usize) -> Result<(), String> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("log_level", "0")
        .create()
        .expect("options that fit");
    let metadata = client.fetch_metadata(None, ANSWER).map_err(|error| error.to_string())?;
    let known: Vec<i32> = metadata.brokers().iter().map(rdkafka::metadata::MetadataBroker::id).collect();
    if known.len() != brokers {
        return Err(format!("it knows of the brokers {known:?}"));
    }
    for topic in metadata.topics() {
        for partition in topic.partitions() {
            let wanted = copies.min(partition.replicas().len());
            if partition.leader() < 0 || partition.isr().len() < wanted {
                return Err(format!(
                    "partition {} of {} has the leader {} and the copies {:?} of {:?}",
                    partition.id(),
                    topic.name(),
                    partition.leader(),
                    partition.isr(),
                    partition.replicas()
                ));
            }
        }
    }
    Ok(())
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.start_kill();
        }
        // After a failure its data stay, to be looked at.
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_ones_own_comes_back_with_its_records() {
    let mut broker = Broker::start("again").await;
    let topics = crate::stage::records::Topics::new(&broker.address(), "again");
    topics.make("again.one", 2).await;
    topics.send("again.one", 1, b"key", b"before").await;
    broker.kill().await;
    broker.again().await;
    topics.send("again.one", 1, b"key", b"after").await;
    assert!(broker.stop().await.code().is_some_and(|code| code == 0 || code == 143), "SIGTERM ends it");
    broker.again().await;
    let found = topics.read().await;
    let found: Vec<(&[u8], &[u8])> =
        found.iter().map(|found| (&*found.key, found.value.as_deref().expect("a value"))).collect();
    assert_eq!(found, [(&b"key"[..], &b"before"[..]), (b"key", b"after")]);
}
