//! The one place that connects to Postgres, with the settings that everything here relies on.
//!
//! The string has libpq's meanings ([`address`]). Its files, of passwords and of certificates, are read again for each connection:
//! what was rotated is in force at the next one, without a restart. Each host's addresses are tried in turn, and nothing takes longer
//! than the timeout for one.
//!
//! Names are always written with their schema, so the search path holds the system's own only. A peer that is gone
//! without a word is noticed within a minute, by us through keep-alives and by the server through its timeouts.
//! What is set here belongs to the session, so before the first one it is found out whether we have one ([`sessions`]).

use std::collections::HashSet;
use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, SimpleQueryMessage};

use self::address::{Address, Mode, Place, Root};
use self::refusal::{Attempt, Refusal, silent};
use self::tls::Tls;
use super::error::explain;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

mod address;
mod certificate;
mod refusal;
mod sessions;
mod tls;

const CONNECTING: &str = "connecting to Postgres";

/// What a role or a database sets for its sessions is replaced where it would do harm. A timeout may be shorter than a first copy takes, or end a
/// session that waits for changes. Who has waited for a lock has to see what its holder has committed. Rows that a policy hides are an error: a
/// delete or a comparison that does not see them would be wrong in silence. How text and arrays are read, and how names are shown, is what our
/// statements count on.
const SESSION: &str = "SET TIME ZONE 'UTC'; SET default_transaction_isolation = 'read committed'; SET lock_timeout = '30s'; \
    SET idle_in_transaction_session_timeout = '60s'; SET statement_timeout = 0; SET row_security = off; \
    SET standard_conforming_strings = on; SET array_nulls = on; SET transform_null_equals = off; SET quote_all_identifiers = off; \
    SET client_min_messages = warning; SET search_path = pg_catalog; \
    SELECT set_config(name, '0', false) FROM unnest(ARRAY['idle_session_timeout', 'transaction_timeout']) AS name \
    WHERE current_setting(name, true) <> '0'; \
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// Where sessions are known to be ours: asked once by each process.
static KEEPS_SESSIONS: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Connects. The task drives the connection and ends with it.
pub async fn connect(url: &Secret) -> Result<(Client, JoinHandle<()>)> {
    let (client, task, _) = open(url).await?;
    Ok((client, task))
}

/// The database that the string names, without a server.
pub fn database(url: &Secret) -> Result<String> {
    let address = Address::read(url.expose())?;
    Ok(address.database().unwrap_or("postgres").to_owned())
}

/// Connects to a server that is to be written to, and says who answers and what protects the connection.
pub async fn look(url: &Secret) -> Result<Server> {
    let (client, _task, server) = open(url).await?;
    let doing =
        format!("{CONNECTING} at {}, database {}, user {}", server.place(), server.database, server.user);
    let standby = client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await;
    match standby.and_then(|row| row.try_get(0)) {
        Ok(false) => Ok(server),
        Ok(true) => Err(Error::new(Kind::Unreachable, doing, "the server takes no writes: it is a standby").help(
            "name the primary in the `uri`, or all of them: postgres://user@host1,host2/database?target_session_attrs=read-write",
        )),
        Err(error) => Err(explain(doing, &error)),
    }
}

/// Who answers, and what protects the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// As the server says it: `15.8`.
    pub version: String,
    /// A name, an address, or the folder of a socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The user.
    pub user: String,
    /// `TLS 1.3`; `None` where the connection is not encrypted.
    pub tls: Option<&'static str>,
    /// What was verified of the server's certificate.
    pub verified: Verified,
    /// It is on this machine.
    pub is_local: bool,
}

/// What was verified of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Anybody could have answered.
    Nothing,
    /// That an authority we trust has signed it.
    Authority,
    /// That, and that it is for this host.
    AuthorityAndName,
}

impl Verified {
    /// For a person and for machines.
    pub fn words(self) -> &'static str {
        match self {
            Self::Nothing => "certificate not verified",
            Self::Authority => "certificate verified",
            Self::AuthorityAndName => "certificate and host name verified",
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, database, user, .. } = self;
        write!(f, "Postgres {version} at {}, database {database}, user {user}, ", self.place())?;
        match self.tls {
            Some(tls) => write!(f, "{tls}, {}", self.verified.words()),
            None => f.write_str("not encrypted"),
        }
    }
}

/// Host and port; an address of IPv6 in brackets.
fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Server {
    fn place(&self) -> String {
        place(&self.host, self.port)
    }

    /// What somebody should look at.
    pub fn warning(&self) -> Option<String> {
        (self.tls.is_none() && !self.is_local).then(|| {
            format!(
                "the connection to Postgres at {} is not encrypted: passwords and rows can be read on the way; use \
                 sslmode=verify-full with sslrootcert=… in the target's `uri`",
                self.place()
            )
        })
    }
}

/// A connection that was let in, without settings.
struct Entered {
    client: Client,
    task: JoinHandle<()>,
    server: Server,
}

/// What is the same for all hosts of a string.
struct Wanted {
    address: Address,
    database: String,
    user: String,
}

async fn open(url: &Secret) -> Result<(Client, JoinHandle<()>, Server)> {
    let text = url.expose_fresh().map_err(|(path, error)| {
        Error::new(Kind::Denied, CONNECTING, format!("the file {} cannot be read: {error}", path.display()))
            .help("the connection string needs it; it is read again at each connection")
    })?;
    let address = Address::read(&text)?;
    let named = |name: Option<&str>| name.unwrap_or("of this system's user").to_owned();
    let wanted = Wanted { database: named(address.database()), user: named(address.user()), address };
    let several = wanted.address.places.len() > 1;
    let mut refusals = Vec::new();
    for place in &wanted.address.places {
        match wanted.try_place(place).await {
            Ok(entered) => return Ok((entered.client, entered.task, entered.server)),
            Err(refusal) => {
                let over = refusal.of_login || refusal.error.kind == Kind::Unsuitable;
                refusals.push((place.label(), refusal.error));
                if over {
                    break;
                }
            }
        }
    }
    Err(summed_up(refusals, several, &wanted))
}

/// One error for all servers that were asked.
fn summed_up(mut refusals: Vec<(String, Error)>, several: bool, wanted: &Wanted) -> Error {
    if (!several || refusals.len() == 1)
        && let Some((_, error)) = refusals.pop()
    {
        return error;
    }
    // The server that is away may come back, whatever the others say.
    let first = refusals.iter().position(|(_, error)| error.kind == Kind::Unreachable).unwrap_or_default();
    let listed: Vec<String> =
        refusals.iter().map(|(place, error)| format!("{place}: {}", error.what)).collect();
    let what = format!("none of the servers can be used: {}", listed.join("; "));
    let doing = format!("{CONNECTING}, database {}, user {}", wanted.database, wanted.user);
    let mut error = Error::new(Kind::Unreachable, doing, what);
    if let Some((_, chosen)) = refusals.into_iter().nth(first) {
        error.kind = chosen.kind;
        error.help = chosen.help;
    }
    error
}

impl Place {
    fn host(&self) -> String {
        match (&self.host, self.address) {
            (Some(Host::Tcp(name)), _) => name.clone(),
            #[cfg(unix)]
            (Some(Host::Unix(folder)), _) => folder.display().to_string(),
            (None, address) => address.map(|address| address.to_string()).unwrap_or_default(),
        }
    }

    fn label(&self) -> String {
        place(&self.host(), self.port)
    }

    fn is_socket(&self) -> bool {
        !matches!(self.host, Some(Host::Tcp(_)) | None)
    }
}

impl Wanted {
    fn doing(&self, place: &str) -> String {
        format!("{CONNECTING} at {place}, database {}, user {}", self.database, self.user)
    }

    /// Asks all addresses of a host, until one lets us in and fits.
    async fn try_place(&self, place: &Place) -> std::result::Result<Entered, Refusal> {
        let doing = self.doing(&place.label());
        let failed = |error| Refusal { error, otherwise: false, of_login: false };
        let mut addresses = vec![place.address];
        if let (Some(Host::Tcp(name)), None) = (&place.host, place.address) {
            let looked =
                timeout(self.address.timeout, tokio::net::lookup_host((name.as_str(), place.port))).await;
            let unknown = || {
                Error::new(Kind::Unreachable, doing.clone(), "the name of the host is not known")
                    .help("correct it in the `uri`, or look at this machine's DNS")
            };
            let found = looked.map_err(|_| failed(silent(&doing)))?.map_err(|_| failed(unknown()))?;
            addresses = found.map(|socket| Some(socket.ip())).collect();
            addresses.dedup();
            if addresses.is_empty() {
                return Err(failed(unknown()));
            }
        }
        let mut refusals = Vec::new();
        for address in &addresses {
            match Box::pin(self.enter_and_settle(place, *address, &doing)).await {
                Ok(entered) => return Ok(entered),
                Err(refusal) if refusal.of_login || refusal.error.kind == Kind::Unsuitable => {
                    return Err(refusal);
                }
                Err(refusal) => {
                    let label = address.map_or_else(|| place.label(), |address| address.to_string());
                    refusals.push((label, refusal.error));
                }
            }
        }
        let mut error = summed_up(refusals, addresses.len() > 1, self);
        error.doing = doing;
        Err(failed(error))
    }

    async fn enter_and_settle(
        &self,
        place: &Place,
        address: Option<IpAddr>,
        doing: &str,
    ) -> std::result::Result<Entered, Refusal> {
        let entered = self.enter(place, address, doing).await?;
        match self.settle(&entered, place, address, doing).await {
            Ok(()) => Ok(entered),
            Err(refusal) => {
                entered.task.abort();
                Err(refusal)
            }
        }
    }

    /// Logs in, with TLS or without, in the order that the mode says.
    async fn enter(
        &self,
        place: &Place,
        address: Option<IpAddr>,
        doing: &str,
    ) -> std::result::Result<Entered, Refusal> {
        // As in libpq: a socket of this machine needs no TLS, whatever the mode.
        let ways: &[SslMode] = match self.address.mode {
            _ if place.is_socket() => &[SslMode::Disable],
            Mode::Disable => &[SslMode::Disable],
            Mode::Allow => &[SslMode::Disable, SslMode::Require],
            Mode::Prefer => &[SslMode::Prefer, SslMode::Disable],
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => &[SslMode::Require],
        };
        let mut refused: Option<Refusal> = None;
        for way in ways {
            match self.enter_by(*way, place, address, doing).await {
                Ok(entered) => return Ok(entered),
                Err(refusal) if refused.is_none() && refusal.otherwise => refused = Some(refusal),
                // The first answer is the one to the way that was preferred.
                Err(refusal) => return Err(refused.unwrap_or(refusal)),
            }
        }
        Err(refused.unwrap_or_else(|| Refusal { error: silent(doing), otherwise: false, of_login: false }))
    }

    async fn enter_by(
        &self,
        way: SslMode,
        place: &Place,
        address: Option<IpAddr>,
        doing: &str,
    ) -> std::result::Result<Entered, Refusal> {
        let failed = |error| Refusal { error, otherwise: false, of_login: false };
        let tls = self.tls(doing).await.map_err(failed)?;
        let mut config = self.address.settings();
        config.port(place.port).ssl_mode(way);
        if way == SslMode::Require {
            config.ssl_negotiation(self.address.negotiation);
        }
        match &place.host {
            Some(Host::Tcp(name)) => config.host(name),
            #[cfg(unix)]
            Some(Host::Unix(folder)) => config.host_path(folder),
            None => config.host(place.host()),
        };
        address.map(|address| config.hostaddr(address));
        let connected = timeout(self.address.timeout, config.connect(tls.clone())).await;
        let (client, mut connection) = connected.map_err(|_| failed(silent(doing)))?.map_err(|error| {
            let attempt = Attempt {
                doing,
                host: &place.host(),
                user: &self.user,
                mode: self.address.mode,
                encrypted: tls.version().is_some(),
                has_certificate: self.address.trust.identity.is_some(),
                has_password: self.address.has_password(),
            };
            refusal::of(&attempt, &error)
        })?;
        let version = connection.parameter("server_version").unwrap_or("of an unknown version");
        let server = Server {
            version: version.split(' ').next().unwrap_or_default().to_owned(),
            host: place.host(),
            port: place.port,
            database: self.database.clone(),
            user: self.user.clone(),
            tls: tls.version(),
            verified: match (&self.address.trust.root, self.address.mode) {
                _ if tls.version().is_none() => Verified::Nothing,
                (Root::Unset, _) => Verified::Nothing,
                (_, Mode::VerifyFull) => Verified::AuthorityAndName,
                _ => Verified::Authority,
            },
            is_local: place.is_socket() || address.is_some_and(|address| address.is_loopback()),
        };
        let task = tokio::spawn(async move {
            // Notices are dropped: triggers write values into them, and the driver would log them.
            while let Some(Ok(_)) = poll_fn(|context| connection.poll_message(context)).await {}
        });
        Ok(Entered { client, task, server })
    }

    /// Files are read again for each connection, on a thread that may wait for the disk.
    async fn tls(&self, doing: &str) -> Result<Tls> {
        let mut trust = self.address.trust.clone();
        if self.address.mode == Mode::Disable {
            (trust.root, trust.identity) = (Root::Unset, None);
        }
        match tokio::task::spawn_blocking(move || Tls::prepare(&trust)).await {
            Ok(Ok(tls)) => Ok(tls),
            Ok(Err(unreadable)) => {
                Err(Error::new(Kind::Denied, doing, unreadable.what).help(unreadable.help))
            }
            Err(_) => Err(Error::new(Kind::Bug, doing, "reading the files of TLS ended in a panic")),
        }
    }

    /// Looks whether the server fits and the session is ours, and makes the settings.
    async fn settle(
        &self,
        entered: &Entered,
        place: &Place,
        address: Option<IpAddr>,
        doing: &str,
    ) -> std::result::Result<(), Refusal> {
        let failed = |error| Refusal { error, otherwise: false, of_login: false };
        let settling = async {
            let broken = |error: tokio_postgres::Error| failed(explain(doing, &error));
            if self.address.writable && !takes_writes(&entered.client).await.map_err(broken)? {
                let error = Error::new(
                    Kind::Unreachable,
                    doing,
                    "the server takes no writes: it is a standby, or read-only",
                )
                .help("name the primary in the `uri`, too; it is looked for at each connection");
                return Err(failed(error));
            }
            self.find_out_about_sessions(entered, place, address, doing).await?;
            entered.client.batch_execute(SESSION).await.map_err(broken)
        };
        // The question about sessions may take as long as another connection.
        match timeout(self.address.timeout * 2, settling).await {
            Ok(outcome) => outcome,
            Err(_) => Err(failed(silent(doing))),
        }
    }

    async fn find_out_about_sessions(
        &self,
        entered: &Entered,
        place: &Place,
        address: Option<IpAddr>,
        doing: &str,
    ) -> std::result::Result<(), Refusal> {
        let whom = format!("{}/{}/{}", place.label(), self.database, self.user);
        let known = || KEEPS_SESSIONS.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&whom) {
            return Ok(());
        }
        let second = self.enter(place, address, doing).await?;
        let ours = sessions::is_ours(&entered.client, &second.client).await;
        drop(second);
        let failed = |error| Refusal { error, otherwise: false, of_login: false };
        match ours {
            Ok(true) => {
                known().insert(whom);
                Ok(())
            }
            Ok(false) => Err(failed(
                Error::new(
                    Kind::Unsuitable,
                    doing,
                    "a pooler is in between that lends a session for one transaction only: slackwater needs one to itself \
                     (prepared statements, locks, settings)",
                )
                .help(
                    "use the address of the server itself, or a port of the pooler that keeps sessions (PgBouncer: \
                     pool_mode=session)",
                ),
            )),
            Err(error) => Err(failed(explain(doing, &error))),
        }
    }
}

/// Whether the server is a primary that is not read-only by its settings.
async fn takes_writes(client: &Client) -> std::result::Result<bool, tokio_postgres::Error> {
    const SQL: &str = "SELECT NOT pg_catalog.pg_is_in_recovery() \
        AND pg_catalog.current_setting('default_transaction_read_only') = 'off'";
    let messages = client.simple_query(SQL).await?;
    Ok(messages
        .iter()
        .any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_is_said() {
        let mut server = Server {
            version: "15.8".into(),
            host: "db.example.com".into(),
            port: 5432,
            database: "crm".into(),
            user: "app".into(),
            tls: Some("TLS 1.3"),
            verified: Verified::AuthorityAndName,
            is_local: false,
        };
        assert_eq!(
            server.to_string(),
            "Postgres 15.8 at db.example.com:5432, database crm, user app, TLS 1.3, certificate and host name verified"
        );
        assert_eq!(server.warning(), None);
        server.tls = None;
        assert!(server.to_string().ends_with(", not encrypted"));
        assert!(server.warning().expect("a warning").contains("db.example.com:5432"));
        server.is_local = true;
        assert_eq!(server.warning(), None);
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let url = Secret::new(
            "postgres://hunter2:hunter2@127.0.0.1:1/db?sslmode=verify-full&sslrootcert=/no/such/ca.pem",
        );
        let error = connect(&url).await.expect_err("no such file");
        let shown = format!("{error} {:?}", error.help);
        assert!(shown.contains("/no/such/ca.pem") && shown.contains("sslrootcert"), "{shown}");
        assert_eq!(error.kind, Kind::Denied);
    }
}
