//! A connection string, with the meanings that libpq gives to it.
//!
//! The driver knows fewer parameters than libpq and refuses the others, so ours are taken out before it sees the rest. What is
//! said of a mistake never repeats a piece of the string: it could be a piece of the password.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{
    ChannelBinding, Host, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs,
};

use crate::error::{Error, Kind, Result};

/// How long one server may take to let us in, unless `connect_timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Parameters of libpq that we refuse, since leaving them out would mean something else; and what to do.
const REFUSED: [(&[&str], &str); 7] = [
    (
        &["sslcrl", "sslcrldir"],
        "certificates of servers are not looked up in lists of revoked ones: leave it out",
    ),
    (
        &["sslpassword"],
        "a key with a password cannot be read: write it without one (openssl pkey -in KEY -out NEW)",
    ),
    (&["ssl_min_protocol_version", "ssl_max_protocol_version"], "TLS 1.2 and 1.3 are spoken: leave it out"),
    (&["requiressl"], "write sslmode=require"),
    (
        &["passfile", "service", "servicefile"],
        "write the values themselves, or `${file:/path}` in the place of the password",
    ),
    (
        &["require_auth", "requirepeer", "sslcertmode", "sslsni", "scram_client_key", "scram_server_key"],
        "leave it out",
    ),
    (&["krbsrvname", "gsslib", "gssdelegation", "replication"], "leave it out"),
];

/// See the module.
#[derive(Debug)]
pub(super) struct Address {
    /// Whom to ask, in this order.
    pub(super) places: Vec<Place>,
    pub(super) mode: Mode,
    pub(super) trust: Trust,
    pub(super) negotiation: SslNegotiation,
    /// Only a server that takes writes will do.
    pub(super) writable: bool,
    /// Long enough for one server.
    pub(super) timeout: Duration,
    /// User, password, database, options.
    config: Config,
}

/// What TLS takes out of files, and what it verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trust {
    pub(super) root: Root,
    /// The certificate has to be for the host that was asked for.
    pub(super) checks_name: bool,
    /// Files of our own certificate and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

/// One server of the string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: Option<Host>,
    /// Given, so that the name need not be looked up.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

/// `sslmode`, as libpq means it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Whose signatures a server's certificate may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Unset,
    System,
    File(PathBuf),
}

impl Mode {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// What the driver does not know.
#[derive(Default)]
struct Ours {
    mode: Option<Mode>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    writable: bool,
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(Kind::Unsuitable, super::CONNECTING, what)
}

fn not_known(parameter: &str, words: &str) -> Error {
    wrong(format!("the connection string has a value for `{parameter}` that is not known"))
        .help(format!("use one of {words}"))
}

impl Address {
    pub(super) fn read(text: &str) -> Result<Self> {
        let (rest, ours) = split(text)?;
        let given: Config = rest.parse().map_err(|_| {
            wrong(
                "the connection string is not one that Postgres knows: \
                 postgres://user:password@host:port/database?sslmode=…, with special characters percent-encoded",
            )
        })?;
        let mode = ours.mode.or(match given.get_ssl_mode() {
            SslMode::Disable => Some(Mode::Disable),
            SslMode::Require => Some(Mode::Require),
            _ => None,
        });
        let (mode, root) = verified(mode, ours.root)?;
        let identity = match (ours.certificate, ours.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            _ => {
                return Err(wrong("the connection string has only one of `sslcert` and `sslkey`")
                    .help("name the file of the certificate and the file of its key"));
            }
        };
        let weak = matches!(mode, Mode::Disable | Mode::Allow | Mode::Prefer);
        if mode == Mode::Disable && given.get_channel_binding() == ChannelBinding::Require {
            return Err(wrong("`channel_binding=require` needs TLS, and `sslmode=disable` forbids it")
                .help("leave one of them out"));
        }
        if weak && given.get_ssl_negotiation() == SslNegotiation::Direct {
            return Err(wrong(format!(
                "`sslnegotiation=direct` needs TLS, and `sslmode={}` does not",
                mode.word()
            ))
            .help("use sslmode=require, verify-ca or verify-full"));
        }
        Ok(Self {
            places: places(&given)?,
            mode,
            trust: Trust { root, checks_name: mode == Mode::VerifyFull, identity },
            negotiation: given.get_ssl_negotiation(),
            writable: ours.writable || given.get_target_session_attrs() == TargetSessionAttrs::ReadWrite,
            timeout: given.get_connect_timeout().copied().filter(|given| !given.is_zero()).unwrap_or(TIMEOUT),
            config: given,
        })
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.config.get_user()
    }

    /// The server takes the user's name where none is given.
    pub(super) fn database(&self) -> Option<&str> {
        self.config.get_dbname().or_else(|| self.user())
    }

    pub(super) fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// For the driver, without a server.
    pub(super) fn settings(&self) -> Config {
        let mut config = Config::new();
        let given = &self.config;
        given.get_user().map(|user| config.user(user));
        given.get_password().map(|password| config.password(password));
        given.get_dbname().map(|database| config.dbname(database));
        given.get_options().map(|options| config.options(options));
        config
            .channel_binding(given.get_channel_binding())
            .application_name("slackwater")
            .connect_timeout(self.timeout)
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(45));
        config
    }
}

/// What libpq makes of the two.
fn verified(mode: Option<Mode>, root: Option<String>) -> Result<(Mode, Root)> {
    let root = match root.as_deref() {
        None | Some("") => Root::Unset,
        Some("system") => Root::System,
        Some(path) => Root::File(path.into()),
    };
    let mode = match (mode, &root) {
        (None | Some(Mode::VerifyFull), Root::System) => Mode::VerifyFull,
        (Some(mode), Root::System) => {
            return Err(wrong(format!(
                "`sslrootcert=system` asks for the certificate to be verified, and `sslmode={}` does not",
                mode.word()
            ))
            .help("use sslmode=verify-full: anybody can have a certificate that the system trusts, so its name counts"));
        }
        (Some(mode @ (Mode::VerifyCa | Mode::VerifyFull)), Root::Unset) => {
            return Err(wrong(format!(
                "`sslmode={}` needs to know whose certificates to trust",
                mode.word()
            ))
            .help(
                "add sslrootcert=/path/of/the/ca.pem, or sslrootcert=system for the roots of this machine",
            ));
        }
        (Some(Mode::Require), Root::File(_)) => Mode::VerifyCa,
        (mode, _) => mode.unwrap_or(Mode::Prefer),
    };
    Ok((mode, root))
}

/// Takes our parameters out; the rest is for the driver.
fn split(text: &str) -> Result<(String, Ours)> {
    let mut ours = Ours::default();
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    // The driver ends the user and the password at the first `@`, so a `?` before it belongs to them.
    let from = text.find('@').unwrap_or_default();
    let Some(query) = text[from..].find('?').map(|at| from + at).filter(|_| is_url) else {
        return Ok((text.to_owned(), ours));
    };
    let mut kept = Vec::new();
    for pair in text[query + 1..].split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value =
            decoded(value).ok_or_else(|| wrong("the connection string is not percent-encoded text"))?;
        if let Some((_, help)) = REFUSED.iter().find(|(names, _)| names.contains(&name)) {
            return Err(
                wrong(format!("the connection string has `{name}`, which is not supported")).help(*help)
            );
        }
        match name {
            "sslmode" => ours.mode = Some(mode_of(&value)?),
            "sslrootcert" => ours.root = Some(value),
            "sslcert" => ours.certificate = Some(value).filter(|path| !path.is_empty()),
            "sslkey" => ours.key = Some(value).filter(|path| !path.is_empty()),
            "target_session_attrs" => ours.writable = writable(&value)?,
            "gssencmode" if value == "require" => {
                return Err(wrong("`gssencmode=require` cannot be met: GSSAPI is not spoken")
                    .help("use TLS: sslmode"));
            }
            "client_encoding" if !matches!(value.to_lowercase().as_str(), "utf8" | "utf-8" | "auto") => {
                return Err(wrong("`client_encoding` can only be UTF8").help("leave it out"));
            }
            // These change nothing here.
            "gssencmode" | "client_encoding" | "fallback_application_name" | "sslcompression" => {}
            _ => kept.push(pair),
        }
    }
    let rest = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    Ok((format!("{}{rest}", &text[..query]), ours))
}

fn mode_of(word: &str) -> Result<Mode> {
    Ok(match word {
        "disable" => Mode::Disable,
        "allow" => Mode::Allow,
        "prefer" => Mode::Prefer,
        "require" => Mode::Require,
        "verify-ca" => Mode::VerifyCa,
        "verify-full" => Mode::VerifyFull,
        _ => return Err(not_known("sslmode", "disable, allow, prefer, require, verify-ca, verify-full")),
    })
}

fn writable(word: &str) -> Result<bool> {
    match word {
        "any" => Ok(false),
        // A primary that is read-only by a setting takes our transactions, which say that they write.
        "read-write" | "primary" => Ok(true),
        "read-only" | "standby" | "prefer-standby" => {
            Err(wrong(format!("`target_session_attrs={word}` asks for a server that takes no writes"))
                .help("use read-write: slackwater writes into its target"))
        }
        _ => Err(not_known("target_session_attrs", "any, read-write, primary")),
    }
}

fn places(config: &Config) -> Result<Vec<Place>> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = hosts.len().max(addresses.len());
    // What is behind a `@` that was not encoded would be shown as a part of the host.
    let odd = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
    if hosts.iter().any(odd) {
        return Err(wrong("the connection string has more than one `@`")
            .help("percent-encode that of the password: %40"));
    }
    if count == 0 {
        return Err(wrong(
            "the connection string names no host; it looks like postgres://user:password@host:5432/database",
        ));
    }
    let fits = |length: usize| length == 0 || length == count;
    if !fits(hosts.len()) || !fits(addresses.len()) || !(fits(ports.len()) || ports.len() == 1) {
        return Err(wrong("the connection string has another number of hosts than of addresses or ports"));
    }
    let mut places: Vec<Place> = (0..count)
        .map(|index| Place {
            host: hosts.get(index).cloned(),
            address: addresses.get(index).copied(),
            port: ports.get(index).or(ports.first()).copied().unwrap_or(5432),
        })
        .collect();
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        shuffle(&mut places);
    }
    Ok(places)
}

/// Any of them may come first; the order among the others does not matter.
fn shuffle(places: &mut [Place]) {
    use std::hash::{BuildHasher as _, RandomState};
    let turn = RandomState::new().hash_one(places.len()) % places.len() as u64;
    places.rotate_left(turn as usize);
}

/// Without percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &str) -> Result<Address> {
        Address::read(&format!("postgresql://u:p?w@h/db?{parameters}"))
    }

    #[test]
    fn a_bad_string_shows_nothing_of_itself() {
        for url in [
            "postgres://u:hunter2@h/db?hunter2=1",
            "hunter2",
            "postgres://u:hunter2@h:port/db",
            "postgres://u:x@h/db?sslmode=hunter2",
            "postgres://u:x@h/db?sslmode=%hunter2",
            "postgres://u:x@h/db?target_session_attrs=hunter2",
            "postgres://u:hunter2@/db?sslcert=hunter2",
            "postgres://u:x@hunter2@h/db",
        ] {
            let error = Address::read(url).expect_err("not valid");
            assert_eq!(error.kind, Kind::Unsuitable);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    /// `sslmode` and `sslrootcert`, and what libpq makes of them.
    #[test]
    fn modes_and_roots() {
        let file = || Root::File("/a b.pem".into());
        for (parameters, mode, root) in [
            ("", Mode::Prefer, Root::Unset),
            ("sslmode=disable", Mode::Disable, Root::Unset),
            ("sslmode=allow", Mode::Allow, Root::Unset),
            ("sslmode=require", Mode::Require, Root::Unset),
            ("sslrootcert=/a%20b.pem", Mode::Prefer, file()),
            ("sslmode=require&sslrootcert=/a%20b.pem", Mode::VerifyCa, file()),
            ("sslrootcert=/a%20b.pem&sslmode=verify-full", Mode::VerifyFull, file()),
            ("sslmode=verify-ca&sslrootcert=/a%20b.pem", Mode::VerifyCa, file()),
            ("sslrootcert=system", Mode::VerifyFull, Root::System),
            ("sslrootcert=system&sslmode=verify-full", Mode::VerifyFull, Root::System),
        ] {
            let address = read(parameters).expect(parameters);
            assert_eq!((address.mode, address.trust.root), (mode, root), "{parameters}");
        }
        for (parameters, says) in [
            ("sslmode=verify-ca", "whose certificates to trust"),
            ("sslmode=verify-full", "whose certificates to trust"),
            ("sslmode=require&sslrootcert=system", "sslrootcert=system"),
            ("sslmode=verify-ca&sslrootcert=system", "sslrootcert=system"),
            ("sslmode=nonsense", "sslmode"),
            ("sslcert=/a", "sslkey"),
            ("sslmode=disable&channel_binding=require", "channel_binding"),
            ("sslnegotiation=direct", "sslnegotiation"),
            ("sslcrl=/a", "sslcrl"),
            ("passfile=/a", "passfile"),
            ("gssencmode=require", "gssencmode"),
            ("client_encoding=latin1", "client_encoding"),
            ("target_session_attrs=standby", "standby"),
            ("target_session_attrs=odd", "target_session_attrs"),
        ] {
            let error = read(parameters).expect_err(parameters);
            assert_eq!(error.kind, Kind::Unsuitable);
            assert!(error.what.contains(says), "{parameters}: {error}");
        }
    }

    #[test]
    fn the_rest_is_the_drivers() {
        let parameters = "sslmode=disable&options=-c%20a%3Db&connect_timeout=3&target_session_attrs=read-write&\
            gssencmode=disable&client_encoding=UTF8&channel_binding=disable";
        let address = read(parameters).expect("valid");
        assert!(address.writable);
        assert_eq!(address.timeout, Duration::from_secs(3));
        let config = address.settings();
        assert_eq!(config.get_options(), Some("-c a=b"));
        assert_eq!(config.get_password(), Some(&b"p?w"[..]));
        assert_eq!(config.get_channel_binding(), ChannelBinding::Disable);
        let words = Address::read("host=a,b port=1,2 user=u sslmode=require").expect("valid");
        assert_eq!((words.mode, words.places.len(), words.places[1].port), (Mode::Require, 2, 2));
    }

    #[test]
    fn several_hosts() {
        let ports = |url: &str| -> Vec<u16> {
            Address::read(url).expect(url).places.iter().map(|place| place.port).collect()
        };
        assert_eq!(ports("postgres://a:1,b:2,c/db"), [1, 2, 5432]);
        assert_eq!(ports("postgres://u@a,b/db?load_balance_hosts=random"), [5432, 5432]);
        assert!(Address::read("postgres://u@a,b/db?hostaddr=127.0.0.1").is_err());
    }
}
