//! A broker of one's own, for tests that start it late, kill it, or ask it for a password.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use slackwater_connectors::kafka::Admin;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::topic::{PATIENCE, settings, unique};
use crate::ports::free_ports;

/// It is killed at the end, with its data.
pub(crate) struct Broker {
    child: Option<Child>,
    folder: PathBuf,
    programs: PathBuf,
    port: u16,
    guarded: u16,
    wired: u16,
    wire: u16,
}

pub(crate) const PASSWORD: &str = "hunter2-right";

impl Broker {
    /// Made ready, and not started.
    pub(crate) fn prepare() -> Self {
        let folder = std::env::temp_dir().join(unique("slackwater-kafka"));
        std::fs::create_dir_all(&folder).expect("a directory");
        let [port, guarded, wired, wire, controller] = free_ports();
        let data = folder.join("data");
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
             listeners=PLAINTEXT://127.0.0.1:{port},GUARDED://127.0.0.1:{guarded},WIRED://127.0.0.1:{wired},\
             CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},GUARDED://127.0.0.1:{guarded},\
             WIRED://127.0.0.1:{wire}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,GUARDED:SASL_PLAINTEXT,WIRED:PLAINTEXT,\
             CONTROLLER:PLAINTEXT\n\
             listener.name.guarded.sasl.enabled.mechanisms=PLAIN\n\
             listener.name.guarded.plain.sasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required user_me=\"{PASSWORD}\";\n\
             log.dirs={}\noffsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             log.cleaner.dedupe.buffer.size=8388608\n",
            data.display()
        );
        std::fs::write(folder.join("server.properties"), properties).expect("written");
        let broker = Self { child: None, programs: programs(), folder, port, guarded, wired, wire };
        let file = broker.folder.join("server.properties");
        let formatted = broker
            .java("kafka.tools.StorageTool")
            .args(["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
            .arg(file)
            .status()
            .expect("java runs");
        assert!(formatted.success(), "the storage is not made");
        broker
    }

    pub(crate) async fn started() -> Self {
        let mut broker = Self::prepare();
        broker.start();
        broker.ready().await;
        broker
    }

    fn log(&self) -> File {
        let file = File::options().create(true).append(true).open(self.folder.join("log"));
        file.expect("a log file")
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where a password is asked for.
    pub(crate) fn guarded(&self) -> String {
        format!("127.0.0.1:{}", self.guarded)
    }

    /// A way to it that can be disturbed, and the only one that it tells those who come by it.
    pub(crate) async fn wire(&self) -> Wire {
        Wire::between(self.wire, self.wired).await
    }

    pub(crate) fn start(&mut self) {
        let file = self.folder.join("server.properties");
        self.child = Some(self.java("kafka.Kafka").arg(file).spawn().expect("java runs"));
    }

    /// Waits until it counts itself as there.
    pub(crate) async fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        let admin = Admin::open(&settings(&self.address())).expect("an admin");
        while !admin.brokers().await.is_ok_and(|brokers| brokers == 1) {
            assert!(Instant::now() < deadline, "the broker does not come up:\n{}", self.tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// At once, as with a power cut for the process.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn java(&self, class: &str) -> Command {
        let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
        let mut command = Command::new(home.unwrap_or_else(|| "java".into()));
        command
            .args(["-Xms128m", "-Xmx384m", "-cp"])
            .arg(self.programs.join("*"))
            .arg(class)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(self.log())
            .stderr(self.log());
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A way to a broker that can lose its answers, as a network does that breaks between a request and its answer.
pub(crate) struct Wire {
    pub(crate) address: String,
    silent: Arc<AtomicBool>,
    cut: watch::Sender<()>,
}

impl Wire {
    async fn between(port: u16, broker: u16) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        let silent = Arc::new(AtomicBool::new(false));
        let (cut, _) = watch::channel(());
        let (answers, cutting) = (silent.clone(), cut.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = tokio::net::TcpStream::connect(("127.0.0.1", broker)).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, None, cutting.subscribe()));
                tokio::spawn(carry(from_server, to_client, Some(answers.clone()), cutting.subscribe()));
            }
        });
        Self { address: format!("127.0.0.1:{port}"), silent, cut }
    }

    /// From now on requests arrive and answers do not.
    pub(crate) fn swallow_answers(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }

    /// All connections break; new ones work.
    pub(crate) fn cut(&self) {
        self.silent.store(false, Ordering::SeqCst);
        self.cut.send_replace(());
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    silent: Option<Arc<AtomicBool>>,
    mut cut: watch::Receiver<()>,
) {
    let mut buffer = vec![0; 1 << 16];
    // Once something was left out, nothing may follow on the same connection.
    let mut lost = false;
    loop {
        let length = tokio::select! {
            _ = cut.changed() => return,
            read = from.read(&mut buffer) => match read {
                Ok(length @ 1..) => length,
                _ => return,
            },
        };
        lost = lost || silent.as_ref().is_some_and(|silent| silent.load(Ordering::SeqCst));
        if !lost && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Kafka's programs, as `dev/services` has them.
fn programs() -> PathBuf {
    if let Some(given) = std::env::var_os("SLACKWATER_KAFKA_LIB") {
        return given.into();
    }
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/services");
    let status = Command::new(services).args(["status", "--json"]).output().expect("dev/services runs");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    let cache =
        status.lines().find_map(|line| line.trim().strip_prefix("\"cache\": \"")?.strip_suffix("\","));
    let cache = cache.expect("dev/services tells its folder");
    let found = std::fs::read_dir(cache).expect("the folder").filter_map(|entry| {
        let entry = entry.ok()?;
        let complete =
            entry.file_name().to_str()?.starts_with("kafka-") && entry.path().join(".complete").exists();
        complete.then(|| entry.path().join("lib"))
    });
    found.max().expect("Kafka's programs: dev/services up --bare kafka, or SLACKWATER_KAFKA_LIB")
}
