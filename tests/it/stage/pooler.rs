//! A PgBouncer in front of a test's own Postgres.

use std::process::Stdio;

use tokio::process::Child;
use tokio_postgres::NoTls;

use crate::stage::ports::free_ports;
use crate::stage::target::Target;
use crate::stage::{PATIENCE, until, variable};

/// It ends with the test.
pub(crate) struct Pooler {
    child: Child,
    port: u16,
}

impl Pooler {
    /// Starts one with these settings (of the section `pgbouncer`) and waits until it answers.
    pub(crate) async fn start(target: &Target, settings: &str) -> Self {
        let [port] = free_ports();
        let name = format!("pooler-{port}");
        target.file("pooler-users", b"\"slackwater\" \"\"\n");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = pooler-users\n{settings}\n",
            target.port()
        );
        let file = target.file(&format!("{name}.ini"), text.as_bytes());
        let log = std::fs::File::create(target.folder().join(format!("{name}.log"))).expect("a log file");
        let mut command = target.beside(variable("SLACKWATER_PGBOUNCER"));
        command.arg(file).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().expect("pgbouncer starts");
        let url = format!("postgres://slackwater@127.0.0.1:{port}/postgres");
        until("pgbouncer answers", PATIENCE, async || {
            let ended = child.try_wait().expect("a child process");
            assert!(ended.is_none(), "pgbouncer ended by itself: {ended:?}, see {:?}", target.folder());
            tokio_postgres::connect(&url, NoTls).await.ok().map(drop)
        })
        .await;
        Self { child, port }
    }

    /// The same address, through the pooler.
    pub(crate) fn before(&self, target: &Target, url: &str) -> String {
        url.replace(&format!(":{}/", target.port()), &format!(":{}/", self.port))
    }

    pub(crate) async fn stop(mut self) {
        self.child.kill().await.expect("a child process can be killed");
    }
}
