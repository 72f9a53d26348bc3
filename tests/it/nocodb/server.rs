//! A NocoDB of a test's own: it can be killed, and its database can be away.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::stage::ports::free_ports;
use crate::stage::{named, postgres, until, variable};

/// It is slow to start where other tests have the machine.
const LONG: Duration = Duration::from_secs(300);

/// A server that ends with the test.
pub(super) struct Server {
    child: Child,
    folder: PathBuf,
    port: u16,
    /// Its database, on the shared Postgres.
    database: String,
    token: String,
    http: reqwest::Client,
}

impl Server {
    /// Starts one and makes its first user and a token.
    pub(super) async fn start(name: &str) -> Self {
        let database = named(&format!("{name}_nocodb"));
        let admin = postgres(&variable("SLACKWATER_POSTGRES_URL")).await;
        let drop = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)");
        admin.batch_execute(&drop).await.expect("the database of a run before can go");
        admin.batch_execute(&format!("CREATE DATABASE {database}")).await.expect("a database");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&database);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let [port] = free_ports();
        let child = spawn(&folder, port, &database);
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().expect("a client");
        let mut server = Self { child, folder, port, database, token: String::new(), http };
        until("NocoDB answers", LONG, async || server.ask("GET", "v1/health", ("", ""), Value::Null).await)
            .await;
        let who = json!({"email": "test@slackwater.example", "password": "Slack-Water-1"});
        let signed = server.ask("POST", "v1/auth/user/signup", ("", ""), who).await.expect("the first user");
        let user = signed["token"].as_str().expect("a user's token");
        let made = server.ask("POST", "v1/tokens", ("xc-auth", user), json!({"description": "test"})).await;
        server.token = made.expect("a token can be made")["token"].as_str().expect("a token").to_owned();
        server
    }

    async fn ask(&self, method: &str, path: &str, (name, value): (&str, &str), body: Value) -> Option<Value> {
        let request =
            self.http.request(method.parse().expect("a method"), format!("{}/api/{path}", self.url()));
        let mut request = if name.is_empty() { request } else { request.header(name, value) };
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.ok()?;
        let answer = answer.error_for_status().ok()?.text().await.ok()?;
        Some(serde_json::from_str(&answer).unwrap_or(Value::Null))
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// It answers, and reaches its database. Where it has ended by itself it is started again, as by whoever watches it.
    async fn back(&mut self) {
        until("NocoDB answers again", LONG, async || {
            if self.child.try_wait().expect("a child process").is_some() {
                self.child = spawn(&self.folder, self.port, &self.database);
            }
            self.ask("GET", "v2/meta/bases", ("xc-token", &self.token), Value::Null).await
        })
        .await;
    }

    /// SIGKILL, and started again.
    pub(super) async fn restart(&mut self) {
        self.child.kill().await.expect("a server can be killed");
        self.child = spawn(&self.folder, self.port, &self.database);
        self.back().await;
    }

    /// Its database lets nobody in for a while, and ends the sessions that it has. NocoDB ends now and then when it loses a session.
    pub(super) async fn lose_database(&mut self, pause: Duration) {
        let admin = postgres(&variable("SLACKWATER_POSTGRES_URL")).await;
        let let_in = async |yes: bool| {
            let sql = format!("ALTER DATABASE {} ALLOW_CONNECTIONS {yes}", self.database);
            admin.batch_execute(&sql).await.expect("a database can be closed and opened");
        };
        let_in(false).await;
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1";
        admin.query_one(end, &[&self.database]).await.expect("sessions can be ended");
        // The random time is the fault; nothing is waited for.
        tokio::time::sleep(pause).await;
        let_in(true).await;
        self.back().await;
    }

    /// Ends it and takes its database away.
    pub(super) async fn clear(mut self) {
        self.child.kill().await.expect("a server can be killed");
        let admin = postgres(&variable("SLACKWATER_POSTGRES_URL")).await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        admin.batch_execute(&drop).await.expect("its database can be dropped");
        std::fs::remove_dir_all(&self.folder).expect("its folder can be removed");
    }
}

/// As `dev/servicelib/nocodb.py` starts it.
fn spawn(folder: &Path, port: u16, database: &str) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log"));
    let out = log.expect("a log file");
    let error = out.try_clone().expect("a log file");
    Command::new(variable("SLACKWATER_NODE"))
        .arg(variable("SLACKWATER_NOCODB_SERVER"))
        .env("PORT", port.to_string())
        .env("NC_DB", address(database))
        .env("NC_TOOL_DIR", format!("{}/", folder.display()))
        .env("NC_DISABLE_TELE", "true")
        .env("NODE_ENV", "production")
        .env("NO_COLOR", "1")
        .env("NC_PUBLIC_URL", format!("http://127.0.0.1:{port}"))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(error)
        .kill_on_drop(true)
        .spawn()
        .expect("NocoDB starts")
}

/// A database of the shared Postgres, in NocoDB's own form.
fn address(database: &str) -> String {
    let config: Config = variable("SLACKWATER_POSTGRES_URL").parse().expect("a URL of Postgres");
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        _ => "127.0.0.1".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let password = config.get_password().map(String::from_utf8_lossy).unwrap_or("none".into());
    format!("pg://{host}:{port}?u={}&p={password}&d={database}", config.get_user().unwrap_or("postgres"))
}
