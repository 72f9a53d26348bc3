//! A Postgres of a test's own, which may be ended without a farewell and started again.

use std::fs::File;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::process::{Child, Command};
use tokio_postgres::NoTls;

use crate::stage::ports::free_ports;
use crate::stage::{PATIENCE, until, variable};

/// Postgres does not run as root; `dev/services` has made this user then.
const USER: &str = "slackwater-pg";

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

impl Target {
    /// Starts one and waits until it answers.
    pub(crate) async fn start(name: &str) -> Self {
        // The folder of the build may be closed to others.
        let folder = std::env::temp_dir().join(format!("slackwater_{name}_{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let user = if id(&["-u"]).await == 0 { Some(id(&["-u", USER]).await) } else { None };
        chown(&folder, user, None).expect("a folder can be given away");
        let [port] = free_ports();
        let mut target = Self { child: None, folder, port, user };
        let mut initdb = target.command("initdb");
        said(initdb.args(["-U", "slackwater", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])).await;
        target.again().await;
        target
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(Path::new(&variable("SLACKWATER_PG_BIN")).join(program));
        command.arg("-D").arg(self.folder.join("data")).current_dir(&self.folder).stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user);
        }
        command
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("postgres://slackwater@127.0.0.1:{}/postgres", self.port)
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
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .kill_on_drop(true);
        self.child = Some(command.spawn().expect("postgres starts"));
        let url = self.url();
        until("postgres answers", PATIENCE, async || {
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
