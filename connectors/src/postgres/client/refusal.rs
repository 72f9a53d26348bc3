//! Why a server did not let us in, for a person: what happened, and what to do about it.
//!
//! While a connection is made no record is on its way, but a server's text is shown here no more than elsewhere: it may be in any
//! language. The SQLSTATE, the server's function that refused (`routine`), and what TLS says tell the cases apart.

use std::error::Error as _;
use std::io;

use rustls::{AlertDescription, CertificateError};
use tokio_postgres::error::DbError;

use super::address::Mode;
use crate::error::{Error, Kind};
use crate::postgres::error::{explain, named};

/// What was tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<'a> {
    /// For a person: host, port, database, user.
    pub(super) doing: &'a str,
    pub(super) host: &'a str,
    pub(super) user: &'a str,
    pub(super) mode: Mode,
    /// TLS was agreed on before it failed.
    pub(super) encrypted: bool,
    pub(super) has_certificate: bool,
    pub(super) has_password: bool,
}

/// Why it failed, and what may be tried next.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: Error,
    /// The same server may let us in another way: with TLS, or without.
    pub(super) otherwise: bool,
    /// Who we are was not accepted, which the other servers would say, too.
    pub(super) of_login: bool,
}

const FRESH: &str =
    "files of passwords and certificates are read again at each connection, so nothing has to be restarted";

pub(super) fn of(attempt: &Attempt<'_>, error: &tokio_postgres::Error) -> Refusal {
    if let Some(error) = error.as_db_error() {
        return of_server(attempt, error);
    }
    if let Some(tls) = tls_error(error) {
        let refusal = |error| Refusal { error, otherwise: true, of_login: false };
        return match tls {
            rustls::Error::InvalidCertificate(why) => {
                // Who names roots does not want to go on without them.
                Refusal { otherwise: false, ..refusal(of_certificate(attempt, why)) }
            }
            rustls::Error::AlertReceived(alert) => refusal(of_alert(attempt, *alert)),
            _ => refusal(of_handshake(attempt)),
        };
    }
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    let denied = |what: &str, help: &str| Refusal {
        error: Error::new(Kind::Denied, attempt.doing, what).help(help),
        otherwise: false,
        of_login: true,
    };
    match cause.as_str() {
        "server does not support TLS" => denied(
            &format!("the server does not speak TLS, and `sslmode={}` asks for it", attempt.mode.word()),
            "turn `ssl` on at the server; where everybody on the way can be trusted, sslmode=disable does without",
        ),
        "server did not use channel binding" => denied(
            "`channel_binding=require`, and the server did not bind the password to the connection",
            "it needs TLS and a password kept as scram-sha-256 with that method in pg_hba.conf; or use channel_binding=prefer",
        ),
        "password missing" => denied(
            "the server asks for a password, and the connection string has none",
            "write it into the `uri`: postgres://user:${file:/run/secrets/password}@host/database",
        ),
        "unsupported authentication method" | "unsupported SASL mechanism" => denied(
            "the server asks for a way to log in that slackwater does not know (Kerberos, GSSAPI, SSPI)",
            "let this user in by scram-sha-256 or by certificate: a line in pg_hba.conf",
        ),
        _ if error.to_string().starts_with("authentication error") => denied(
            "the server does not prove that it knows the password: it is another server, or somebody is in between",
            "find out who answers at this address; use sslmode=verify-full",
        ),
        _ => of_transport(attempt, error),
    }
}

/// What TLS has said, however deep it is.
fn tls_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let io = error.source()?.downcast_ref::<io::Error>()?;
    io.get_ref()?.downcast_ref()
}

fn of_server(attempt: &Attempt<'_>, error: &DbError) -> Refusal {
    let code = error.code().code();
    let routine = error.routine().unwrap_or_default();
    let text = error.message();
    let user = attempt.user;
    let role = format!("{user:?}");
    let (kind, what, help) = match code {
        "28P01" if !attempt.has_password => (
            Kind::Denied,
            "the server asks for a password, and the connection string has none".into(),
            "write it into the `uri`: postgres://user:${file:/run/secrets/password}@host/database".into(),
        ),
        "28P01" => {
            (Kind::Denied, format!("the password of {user} is not accepted"), format!("correct it in the `uri`; {FRESH}"))
        }
        "28000" if routine == "InitializeSessionUserId" && text.contains("not permitted") => {
            (Kind::Denied, format!("the role {user} may not log in"), format!("ALTER ROLE {role} LOGIN"))
        }
        "28000" if routine == "InitializeSessionUserId" && text.contains("not exist") => {
            (Kind::Denied, format!("there is no role {user}"), format!("CREATE ROLE {role} LOGIN PASSWORD …"))
        }
        "28000" if routine == "InitializeSessionUserId" => (
            Kind::Denied,
            format!("there is no role {user}, or it may not log in"),
            format!("CREATE ROLE {role} LOGIN PASSWORD …, or ALTER ROLE {role} LOGIN"),
        ),
        "28000" if routine == "ClientAuthentication" && text.contains("certificate") => {
            let what = if attempt.has_certificate {
                "the server does not accept the client certificate (`sslcert`)"
            } else {
                "the server wants a client certificate, and the connection string names none"
            };
            (
                Kind::Denied,
                what.into(),
                "name one that the server's authority (`ssl_ca_file`) has signed: sslcert=…&sslkey=…".into(),
            )
        }
        "28000" if routine == "ClientAuthentication" && !attempt.encrypted => (
            Kind::Denied,
            format!("the server lets {user} in from here only with TLS, or not at all (pg_hba.conf)"),
            if attempt.mode == Mode::Disable {
                "use sslmode=verify-full with sslrootcert=…, or sslmode=require".into()
            } else {
                format!("add a line for {user}, this database and this machine to pg_hba.conf")
            },
        ),
        "28000" if routine == "ClientAuthentication" => (
            Kind::Denied,
            format!("no line of the server's pg_hba.conf lets {user} in from here"),
            "add a line for this user, database and machine to pg_hba.conf; a line that asks for a client certificate needs \
             sslcert=…&sslkey=…"
                .into(),
        ),
        "28000" if text.contains("certificate") => (
            Kind::Denied,
            format!("the client certificate (`sslcert`) is not one of {user}"),
            format!("its name (CN) has to be {user}, or pg_ident.conf has to map it to {user}"),
        ),
        "28000" => (
            Kind::Denied,
            format!("the server does not let {user} in"),
            "see the server's log: its pg_hba.conf says how this user has to prove who it is".into(),
        ),
        "3D000" => (Kind::Denied, "there is no such database".into(), "create it, or correct its name in the `uri`".into()),
        "42501" => {
            (Kind::Denied, format!("{user} may not connect to this database"), format!("GRANT CONNECT ON DATABASE … TO {role}"))
        }
        // Poolers say this of everything: a user, a server behind them that is away, a time that was too long.
        "08P01" => (
            Kind::Unreachable,
            "the pooler in between does not let us through".into(),
            "see its log: it does not know the user or the database, or does not reach its server".into(),
        ),
        _ => {
            return Refusal { error: named(attempt.doing, error), otherwise: false, of_login: false };
        }
    };
    Refusal {
        error: Error::new(kind, attempt.doing, what).code(code).help(help),
        otherwise: code == "28000" && routine == "ClientAuthentication",
        of_login: code.starts_with("28"),
    }
}

fn of_certificate(attempt: &Attempt<'_>, why: &CertificateError) -> Error {
    use CertificateError as Why;
    let host = attempt.host;
    let (what, help) = match why {
        Why::Expired | Why::ExpiredContext { .. } => (
            "the server's certificate has expired".into(),
            "give the server a new certificate; look at this machine's clock",
        ),
        Why::NotValidYet | Why::NotValidYetContext { .. } => (
            "the server's certificate is not valid yet".into(),
            "look at this machine's clock, and at the server's certificate",
        ),
        Why::NotValidForName => (
            format!("the server's certificate is not for {host}"),
            "connect by a name that the certificate has, or use sslmode=verify-ca, which does not look at names",
        ),
        Why::NotValidForNameContext { presented, .. } => (
            match &presented[..] {
                [] => format!("the server's certificate is not for {host}"),
                names => {
                    // They come as `DnsName("db.example.com")`.
                    let names: Vec<&str> =
                        names.iter().map(|name| name.split('"').nth(1).unwrap_or(name)).collect();
                    format!("the server's certificate is not for {host}, but for {}", names.join(", "))
                }
            },
            "connect by a name that the certificate has, or use sslmode=verify-ca, which does not look at names",
        ),
        Why::UnknownIssuer | Why::BadSignature => (
            "the server's certificate was not signed by an authority that `sslrootcert` trusts".into(),
            "name the certificate of the authority that signed it: sslrootcert=/path/of/the/ca.pem. If nothing was changed at \
             the server, somebody may be in between",
        ),
        Why::Revoked => ("the server's certificate was revoked".into(), "give the server a new certificate"),
        Why::InvalidPurpose | Why::InvalidPurposeContext { .. } => (
            "the server's certificate is not made for servers".into(),
            "give the server a certificate whose extended key usage has serverAuth",
        ),
        _ => (
            "the server's certificate cannot be verified".into(),
            "give the server a certificate of version 3 with SHA-256 and RSA (2048 bits or more) or ECDSA",
        ),
    };
    Error::new(Kind::Denied, attempt.doing, what).help(help)
}

/// The server has ended the handshake.
fn of_alert(attempt: &Attempt<'_>, alert: AlertDescription) -> Error {
    use AlertDescription as Alert;
    let (what, help) = match alert {
        Alert::CertificateRevoked => (
            "the server does not accept the client certificate (`sslcert`): it was revoked",
            "name another one; files are read again at each connection",
        ),
        Alert::CertificateExpired => (
            "the server does not accept the client certificate (`sslcert`): it has expired",
            "put a new one into the file; it is read again at each connection",
        ),
        Alert::CertificateRequired => (
            "the server wants a client certificate, and the connection string names none",
            "name one that the server's authority (`ssl_ca_file`) has signed: sslcert=…&sslkey=…",
        ),
        Alert::UnknownCA
        | Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateUnknown
        | Alert::DecryptError
        | Alert::AccessDenied
            if attempt.has_certificate =>
        {
            (
                "the server does not accept the client certificate (`sslcert`)",
                "name one that the server's authority (`ssl_ca_file`) has signed and not revoked",
            )
        }
        _ => return of_handshake(attempt),
    };
    Error::new(Kind::Denied, attempt.doing, what).help(help)
}

fn of_handshake(attempt: &Attempt<'_>) -> Error {
    Error::new(Kind::Denied, attempt.doing, "the server and slackwater do not find a kind of TLS that both speak")
        .help("slackwater speaks TLS 1.2 and 1.3: see `ssl_min_protocol_version`, `ssl_max_protocol_version` and `ssl_ciphers` of the server")
}

/// Nothing was heard from the server itself.
fn of_transport(attempt: &Attempt<'_>, error: &tokio_postgres::Error) -> Refusal {
    let io = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let closed = error.is_closed()
        || matches!(
            io,
            Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof)
        );
    let unreachable =
        |what: String, help: &str| Error::new(Kind::Unreachable, attempt.doing, what).help(help);
    let error = match io {
        _ if closed && attempt.encrypted && attempt.has_certificate => unreachable(
            "the server ended the connection after the TLS handshake".into(),
            "most often it does not accept the client certificate (`sslcert`); its log says why",
        ),
        _ if closed => unreachable(
            "the server ended the connection before it let us in".into(),
            "is it Postgres that listens at this port? Its log may say why",
        ),
        Some(io::ErrorKind::ConnectionRefused) => unreachable(
            "nobody listens there".into(),
            "start the server, or correct host and port in the `uri`",
        ),
        Some(io::ErrorKind::TimedOut) => silent(attempt.doing),
        Some(io::ErrorKind::NotFound) => unreachable(
            "there is no such socket".into(),
            "start the server, or correct the folder in the `uri`",
        ),
        Some(kind) => unreachable(
            format!("no connection to the server: {kind}"),
            "check that the server is up, that its address in the `uri` is right, and that a firewall lets us through",
        ),
        None => explain(attempt.doing, error),
    };
    Refusal { error, otherwise: closed && !attempt.encrypted, of_login: false }
}

/// Nobody has answered in time.
pub(super) fn silent(doing: &str) -> Error {
    Error::new(Kind::Unreachable, doing, "no answer in time").help(
        "check that the server is up, that its address in the `uri` is right, that a firewall lets us through, and that a pooler \
         in between has connections left; connect_timeout=SECONDS in the `uri` waits longer",
    )
}
