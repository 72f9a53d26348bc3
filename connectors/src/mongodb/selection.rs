//! Why no server could be chosen, out of what the driver says of each. Pure.
//!
//! The driver has one text for all of it: a list of servers with the error of each. Addresses are named, everything else is in our words.

use crate::error::Kind;

/// What the driver knows of one server.
struct Server<'a> {
    address: &'a str,
    kind: &'a str,
    error: Option<&'a str>,
}

/// Why no server could be chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Each of these has its own reason.
    Servers(Vec<Reason>),
    /// Members of another set are struck from the list.
    AnotherSet(String),
    Nobody,
    /// They are well, and none is what the read preference asks for.
    NoneFits,
    Slow,
    NoPrimary,
}

/// What stands between us and one server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) address: String,
    pub(super) cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    UnknownName,
    NobodyListens,
    /// It closes the connection once TLS is agreed on: most often for want of a certificate of ours.
    HangsUp,
    /// It wants a certificate of ours.
    WantsCertificate,
    /// It hangs up on the one that it was shown, and does not say why.
    HangsUpOnCertificate,
    /// Its authorities have not signed ours, or it is too old for it, or is revoked.
    RefusesCertificate(&'static str),
    /// It refuses our side of TLS otherwise.
    RefusesTls,
    UnknownAuthority,
    Expired,
    NotYet,
    AnotherName,
    /// Of a kind that is not accepted: of the first version, or an authority's own.
    OddCertificate,
    BadCertificate,
    /// It closed the connection instead of answering our first message of TLS.
    EndsHandshake,
    /// It speaks MongoDB in the clear, where TLS was asked for.
    HasNoTls,
    /// It closed the connection, or sent something else.
    NoMongodb,
    /// It speaks TLS, where none was asked for.
    WantsTls,
    Silent,
    Unknown,
}

/// What stands in the way.
pub(super) fn why(message: &str) -> Why {
    let servers = servers(message);
    if servers.is_empty() {
        return match between(message, "Set Name: ", &[",", " }"]) {
            Some(set) => Why::AnotherSet(set.to_owned()),
            None => Why::Nobody,
        };
    }
    let reasons: Vec<Reason> = servers
        .iter()
        .filter_map(|server| Some(Reason { address: server.address.to_owned(), cause: cause(server.error?) }))
        .collect();
    if !reasons.is_empty() {
        return Why::Servers(reasons);
    }
    let primary = |kind| matches!(kind, "RsPrimary" | "Standalone" | "Mongos" | "LoadBalancer");
    let asked = ["ReadPreference(Secondary {", "ReadPreference(Nearest {"];
    if asked.iter().any(|mode| message.contains(mode)) {
        Why::NoneFits
    } else if servers.iter().any(|server| primary(server.kind)) {
        Why::Slow
    } else {
        Why::NoPrimary
    }
}

impl Why {
    /// Who is not let in waits for a person; who is not there may come back.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Servers(reasons) if reasons.iter().all(|reason| reason.cause.is_refusal()) => Kind::Denied,
            _ => Kind::Unreachable,
        }
    }

    /// For a person, with what to do.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Servers(reasons) => {
                let mut words: Vec<String> =
                    reasons.iter().map(|reason| reason.cause.words(&reason.address)).collect();
                words.dedup();
                words.join("; ")
            }
            Self::AnotherSet(set) => format!(
                "no server of the connection string is a member of the replica set `{set}`; check `replicaSet` in the connection string"
            ),
            Self::Nobody => {
                "no server of the connection string answers; check address, port and firewall".into()
            }
            Self::NoneFits => "no member of the replica set is what `readPreference` and its tags ask for; start one, or \
                 use secondaryPreferred"
                .into(),
            Self::Slow => "no server answers in time; look at its load, or try again".into(),
            Self::NoPrimary => {
                "the replica set has no primary now; wait for the election to end, or look at the health of its members"
                    .into()
            }
        }
    }
}

/// Texts of the driver, and of rustls inside them.
fn cause(error: &str) -> Cause {
    let has = |needles: &[&str]| needles.iter().any(|needle| error.contains(needle));
    if has(&["failed to lookup address", "Name or service not known", "nodename nor servname"]) {
        Cause::UnknownName
    } else if has(&["Connection refused"]) {
        Cause::NobodyListens
    } else if has(&["CertificateRequired"]) {
        Cause::WantsCertificate
    } else if has(&["close_notify"]) {
        Cause::HangsUp
    } else if has(&["fatal alert"]) {
        of_alert(error)
    } else if has(&["UnknownIssuer", "unknown issuer"]) {
        Cause::UnknownAuthority
    } else if has(&["NotValidYet", "not valid yet"]) {
        Cause::NotYet
    } else if has(&["Expired", "expired"]) {
        Cause::Expired
    } else if has(&["NotValidForName", "not valid for name"]) {
        Cause::AnotherName
    } else if has(&["UnsupportedCertVersion", "CaUsedAsEndEntity"]) {
        Cause::OddCertificate
    } else if has(&["invalid peer certificate", "InvalidCertificate"]) {
        Cause::BadCertificate
    } else if has(&["tls handshake eof", "InvalidContentType", "corrupt message"]) {
        Cause::EndsHandshake
    } else if has(&[
        "unexpected end of file",
        "invalid reply",
        "wire protocol",
        "reset by peer",
        "Broken pipe",
    ]) {
        Cause::NoMongodb
    } else if has(&["timed out", "timeout", "unreachable"]) {
        Cause::Silent
    } else {
        Cause::Unknown
    }
}

/// Why the server ended TLS, as far as it says.
fn of_alert(error: &str) -> Cause {
    let known = [
        ("UnknownC", "is signed by an authority that it does not know"),
        ("CertificateExpired", "has expired"),
        ("CertificateRevoked", "is revoked"),
        ("BadCertificate", "is not accepted"),
        (
            "UnsupportedCertificate",
            "is of a kind that it does not accept; `extendedKeyUsage` has to allow clientAuth",
        ),
        ("CertificateUnknown", "is not accepted"),
    ];
    let found = known.iter().find(|(alert, _)| error.contains(alert));
    found.map_or(Cause::RefusesTls, |(_, why)| Cause::RefusesCertificate(why))
}

impl Cause {
    fn is_refusal(self) -> bool {
        !matches!(
            self,
            Self::UnknownName
                | Self::NobodyListens
                | Self::EndsHandshake
                | Self::NoMongodb
                | Self::Silent
                | Self::Unknown
        )
    }

    fn words(self, address: &str) -> String {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        match self {
            Self::UnknownName => format!("the name `{host}` cannot be resolved; check it for mistakes"),
            Self::NobodyListens => {
                format!("nothing listens at {address}; check host and port, and that the server is up")
            }
            Self::HangsUp => format!(
                "{address} closes the connection once TLS is agreed on; if it asks for client certificates, name ours by `tlsCertificateKeyFile`"
            ),
            Self::HangsUpOnCertificate => format!(
                "{address} does not accept our client certificate: it has expired, is revoked, or is signed by an authority that the \
                 server does not know; name another one by `tlsCertificateKeyFile` (the server's log says more)"
            ),
            Self::WantsCertificate => format!(
                "{address} asks for a client certificate; name the file of ours, certificate and key, by `tlsCertificateKeyFile`"
            ),
            Self::RefusesCertificate(why) => format!(
                "{address} does not accept our client certificate: it {why}; name another one by `tlsCertificateKeyFile`, or \
                 change what the server trusts"
            ),
            Self::RefusesTls => format!(
                "{address} refuses our side of TLS; if it asks for client certificates, name ours by `tlsCertificateKeyFile`"
            ),
            Self::UnknownAuthority => format!(
                "the certificate of {address} is signed by an authority that we do not know; name its file by `tlsCAFile`"
            ),
            Self::Expired => format!("the certificate of {address} has expired; renew it"),
            Self::NotYet => format!(
                "the certificate of {address} is not valid yet; look at the clocks of both machines, or wait"
            ),
            Self::AnotherName => format!(
                "the certificate of {address} is for another host name; use the name that it has, or a certificate for this one"
            ),
            Self::OddCertificate => format!(
                "the certificate of {address} is of a kind that TLS no longer accepts (version 1, or an authority's own used as a \
                 server's); make one of version 3 with the host in subjectAltName, signed by the authority"
            ),
            Self::BadCertificate => {
                format!("the certificate of {address} is not valid; `openssl x509 -text` shows what it says")
            }
            Self::EndsHandshake => format!(
                "{address} ends the TLS handshake; if it does not speak TLS, take `tls` out of the connection string, or turn \
                 TLS on at the server"
            ),
            Self::HasNoTls => format!(
                "{address} does not speak TLS; turn it on at the server (`net.tls.mode`), or take `tls` out of the connection string"
            ),
            Self::NoMongodb => {
                format!(
                    "{address} does not answer as MongoDB; if it wants TLS, add `tls=true`, otherwise check the port"
                )
            }
            Self::WantsTls => format!(
                "{address} speaks TLS only; add `tls=true` to the connection string, and `tlsCAFile` where its authority is your own"
            ),
            Self::Silent => {
                format!("{address} does not answer; check the address, the network and the firewall")
            }
            Self::Unknown => format!("{address} cannot be used now"),
        }
    }
}

fn servers(message: &str) -> Vec<Server<'_>> {
    let parts = message.split("{ Address: ").skip(1);
    parts
        .map(|part| Server {
            address: part.split(", ").next().unwrap_or_default().trim_end_matches(" }"),
            kind: between(part, "Type: ", &[",", " }"]).unwrap_or_default(),
            error: part
                .split_once("Error: ")
                .map(|(_, error)| error.split(", labels: ").next().unwrap_or_default()),
        })
        .collect()
}

fn between<'a>(text: &'a str, start: &str, ends: &[&str]) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    let end = ends.iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "Server selection timeout: No available servers. Topology: { Type: ReplicaSetNoPrimary, Set Name: rs0";

    fn of(server: &str) -> String {
        why(&format!("{START}, Servers: [ {server} ] }}")).words()
    }

    fn error(text: &str) -> String {
        of(&format!(
            "{{ Address: db.example:27017, Type: Unknown, Error: Kind: {text}, labels: {{\"A\", \"B\"}}, source: None, server response: None }}"
        ))
    }

    #[test]
    fn names_what_stands_in_the_way() {
        let cases = [
            (
                "I/O error: failed to lookup address information: Name or service not known",
                "`db.example` cannot be resolved",
            ),
            ("I/O error: Connection refused (os error 111)", "nothing listens at db.example:27017"),
            ("I/O error: tls handshake eof", "ends the TLS handshake"),
            ("I/O error: invalid peer certificate: UnknownIssuer", "tlsCAFile"),
            ("I/O error: invalid peer certificate: Expired", "has expired"),
            (
                "I/O error: invalid peer certificate: certificate not valid for name \"x\"",
                "another host name",
            ),
            ("I/O error: received fatal alert: CertificateRequired", "tlsCertificateKeyFile"),
            (
                "I/O error: peer closed connection without sending TLS close_notify: https://x",
                "once TLS is agreed on",
            ),
            ("I/O error: received fatal alert: CertificateExpired", "our client certificate: it has expired"),
            ("I/O error: received fatal alert: UnknownCA", "an authority that it does not know"),
            ("I/O error: received fatal alert: HandshakeFailure", "our side of TLS"),
            ("I/O error: invalid peer certificate: Other(OtherError(UnsupportedCertVersion))", "version 1"),
            ("I/O error: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "subjectAltName"),
            ("I/O error: unexpected end of file", "does not answer as MongoDB"),
            ("I/O error: connection timed out", "firewall"),
            ("something new", "cannot be used now"),
        ];
        for (text, expected) in cases {
            let said = error(text);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn a_wrong_name_of_the_set_leaves_no_server() {
        assert!(why(&format!("{START} }}")).words().contains("replica set `rs0`"));
        assert!(
            why("Server selection timeout: No available servers. Topology: { Type: Unknown }")
                .words()
                .contains("no server")
        );
    }

    #[test]
    fn an_election_is_called_so() {
        let said = of(
            "{ Address: a:1, Type: RsSecondary, Max Wire Version: 17 }, { Address: b:1, Type: RsSecondary }",
        );
        assert!(said.contains("no primary now"), "{said}");
    }

    #[test]
    fn who_is_not_let_in_is_not_away() {
        let of = |texts: &[&str]| {
            let server = |text: &&str| {
                format!("{{ Address: a:1, Type: Unknown, Error: Kind: I/O error: {text}, labels: {{}} }}")
            };
            let servers: Vec<String> = texts.iter().map(server).collect();
            why(&format!("{START}, Servers: [ {} ] }}", servers.join(", "))).kind()
        };
        let (authority, away) =
            ("invalid peer certificate: UnknownIssuer", "Connection refused (os error 111)");
        assert_eq!(of(&[authority]), Kind::Denied);
        assert_eq!(of(&["received fatal alert: CertificateRequired", authority]), Kind::Denied);
        assert_eq!(of(&[authority, away]), Kind::Unreachable, "the one that is away may let us in");
        assert_eq!(of(&["unexpected end of file"]), Kind::Unreachable);
    }

    #[test]
    fn a_read_preference_that_nobody_fits() {
        let text = "Server selection timeout: None of the available servers suitable for criteria ReadPreference(Secondary { options: None }). \
                    Topology: { Type: ReplicaSetWithPrimary, Set Name: rs0, Servers: [ { Address: a:1, Type: RsPrimary } ] }";
        assert_eq!(why(text), Why::NoneFits);
        assert!(why(text).words().contains("`readPreference`"));
    }

    #[test]
    fn every_server_says_its_own() {
        let said =
            of("{ Address: a:1, Type: Unknown, Error: Kind: I/O error: Connection refused, labels: {} }, \
             { Address: b:2, Type: Unknown, Error: Kind: I/O error: timed out, labels: {} }");
        assert!(said.contains("listens at a:1") && said.contains("b:2 does not answer"), "{said}");
    }
}
