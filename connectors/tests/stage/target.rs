//! A Postgres of a test's own, which may be ended without a farewell and started again, and speaks TLS if it is told to.

use std::fs::{File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio_postgres::{Client, NoTls};

use super::ports::free_ports;

/// Postgres does not run as root; `dev/services` has made this user then.
const USER: &str = "slackwater-pg";
const PATIENCE: Duration = Duration::from_secs(120);
/// The superuser gets in from here in any case.
const ALWAYS: &str =
    "host all slackwater 127.0.0.1/32 trust\nhost replication slackwater 127.0.0.1/32 trust\n";

/// A server that ends with the test.
pub(crate) struct Target {
    child: Option<Child>,
    folder: PathBuf,
    port: u16,
    /// Whom its processes belong to, where that is not us.
    user: Option<u32>,
}

async fn said(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().await.expect("the program is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

async fn id(arguments: &[&str]) -> u32 {
    let output = said(Command::new("id").args(arguments)).await;
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `eval \"$(dev/services env)\"` first"))
}

async fn answer<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

#[allow(dead_code, reason = "each test binary uses a part")]
impl Target {
    /// Starts one and waits until it answers.
    pub(crate) async fn start(name: &str) -> Self {
        let mut target = Self::made(name).await;
        let mut initdb = target.command("initdb");
        said(initdb.args(["-U", "slackwater", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])).await;
        target.again().await;
        target
    }

    /// A standby of this one, which follows it.
    pub(crate) async fn standby(&self, name: &str) -> Self {
        let mut standby = Self::made(name).await;
        let mut copy = standby.program("pg_basebackup");
        let port = self.port.to_string();
        copy.arg("-D").arg(standby.folder.join("data"));
        said(copy.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "slackwater",
            "-R",
            "-c",
            "fast",
            "--no-sync",
        ]))
        .await;
        standby.again().await;
        standby
    }

    async fn made(name: &str) -> Self {
        // The folder of the build may be closed to others.
        let folder = std::env::temp_dir().join(format!("slackwater_{name}_{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let user = if id(&["-u"]).await == 0 { Some(id(&["-u", USER]).await) } else { None };
        chown(&folder, user, None).expect("a folder can be given away");
        let [port] = free_ports();
        Self { child: None, folder, port, user }
    }

    /// A program that runs as the server does, in its folder.
    pub(crate) fn beside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user);
        }
        command
    }

    fn program(&self, program: &str) -> Command {
        self.beside(Path::new(&variable("SLACKWATER_PG_BIN")).join(program))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.program(program);
        command.arg("-D").arg(self.folder.join("data"));
        command
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("postgres://slackwater@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A connection of the superuser.
    pub(crate) async fn client(&self) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.url(), NoTls).await.expect("the server is up");
        tokio::spawn(connection);
        client
    }

    pub(crate) async fn sql(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.expect(sql);
    }

    /// Writes a file that the server may read, and nobody else: a key has to be like that.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, bytes).expect("a file can be written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a file can be closed");
        chown(&path, self.user, None).expect("a file can be given away");
        path
    }

    /// Who gets in, and how; the superuser does anyway. In force after [`Target::reload`].
    pub(crate) fn lets_in(&self, lines: &str) {
        self.file("data/pg_hba.conf", format!("{ALWAYS}{lines}").as_bytes());
    }

    /// Sets these, lets the server read its files again, and waits until it has.
    pub(crate) async fn reload(&self, settings: &[(&str, &str)]) {
        let client = self.client().await;
        for (name, value) in settings {
            client.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).await.expect(name);
        }
        let loaded = "SELECT extract(epoch FROM pg_conf_load_time())::text";
        let before: String = client.query_one(loaded, &[]).await.expect("a row").get(0);
        client.batch_execute("SELECT pg_reload_conf()").await.expect("reloaded");
        // The server's other processes read after the first one, so those that are there now prove nothing: a new one does.
        answer("the files are read again", async || {
            let now: String = self.client().await.query_one(loaded, &[]).await.expect("a row").get(0);
            (now != before).then_some(())
        })
        .await;
    }

    /// Makes the standby a primary.
    pub(crate) async fn promote(&self) {
        self.sql("SELECT pg_promote()").await;
    }

    /// Starts the process that was ended, with the same port and data, and waits until it answers.
    pub(crate) async fn again(&mut self) {
        assert!(self.child.is_none(), "the server runs");
        let log = File::options().create(true).append(true).open(self.folder.join("log"));
        let log = log.expect("a log file");
        let port = self.port.to_string();
        let mut command = self.command("postgres");
        command
            .args(["-p", &port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            // The default from 14 on.
            .args(["-c", "password_encryption=scram-sha-256"])
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .kill_on_drop(true);
        self.child = Some(command.spawn().expect("postgres starts"));
        let url = self.url();
        answer("postgres answers", async || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child process"));
            assert!(ended.is_none(), "postgres ended by itself: {ended:?}, see {:?}", self.folder);
            tokio_postgres::connect(&url, NoTls).await.ok().map(drop)
        })
        .await;
    }

    /// Ends it at once, as `pg_ctl stop -m immediate` does.
    pub(crate) async fn stop(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        let id = child.id().expect("a process that runs").to_string();
        let sent = Command::new("kill").args(["-QUIT", &id]).status().await;
        assert!(sent.expect("`kill` is there").success(), "SIGQUIT could be sent");
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        ended.expect("it ends when told").expect("a child process");
    }
}

impl Drop for Target {
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
