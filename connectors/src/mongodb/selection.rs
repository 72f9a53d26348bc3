//! Why no server could be chosen, out of what the driver says of each. Pure.
//!
//! The driver has one text for all of it: a list of servers with the error of each. Addresses are named, everything else is in our words.

/// What the driver knows of one server.
struct Server<'a> {
    address: &'a str,
    kind: &'a str,
    error: Option<&'a str>,
}

/// What stands in the way, and what to do.
pub(super) fn reason(message: &str) -> String {
    let servers = servers(message);
    if servers.is_empty() {
        // Members of another set are struck from the list.
        return match between(message, "Set Name: ", &[",", " }"]) {
            Some(set) => format!(
                "no server of the connection string is a member of the replica set `{set}`; check `replicaSet` in the connection string"
            ),
            None => "no server of the connection string answers; check address, port and firewall".to_owned(),
        };
    }
    let mut reasons: Vec<String> =
        servers.iter().filter_map(|server| Some(of_one(server.address, server.error?))).collect();
    reasons.dedup();
    if reasons.is_empty() {
        let primary = servers
            .iter()
            .any(|server| matches!(server.kind, "RsPrimary" | "Standalone" | "Mongos" | "LoadBalancer"));
        return match primary {
            true => "no server answers in time; look at its load, or try again".to_owned(),
            false => "the replica set has no primary now; wait for the election to end, or look at the health of its members".to_owned(),
        };
    }
    reasons.join("; ")
}

fn of_one(address: &str, error: &str) -> String {
    let has = |needles: &[&str]| needles.iter().any(|needle| error.contains(needle));
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    if has(&["failed to lookup address", "Name or service not known", "nodename nor servname"]) {
        format!("the name `{host}` cannot be resolved; check it for mistakes")
    } else if has(&["Connection refused"]) {
        format!("nothing listens at {address}; check host and port, and that the server is up")
    } else if has(&["UnknownIssuer", "unknown issuer"]) {
        format!(
            "the certificate of {address} is signed by an authority that we do not know; name its file by `tlsCAFile`"
        )
    } else if has(&["Expired", "expired"]) {
        format!("the certificate of {address} has expired; renew it")
    } else if has(&["NotValidForName", "not valid for name"]) {
        format!(
            "the certificate of {address} is for another host name; use the name that it has, or a certificate for this one"
        )
    } else if has(&["invalid peer certificate", "InvalidCertificate"]) {
        format!("the certificate of {address} is not valid")
    } else if has(&["fatal alert", "CertificateRequired"]) {
        format!(
            "{address} refuses our side of TLS; if it asks for client certificates, name ours by `tlsCertificateKeyFile`"
        )
    } else if has(&["tls handshake eof", "InvalidContentType", "corrupt message"]) {
        format!(
            "{address} does not speak TLS; take `tls` out of the connection string, or turn TLS on at the server"
        )
    } else if has(&[
        "unexpected end of file",
        "invalid reply",
        "wire protocol",
        "reset by peer",
        "Broken pipe",
    ]) {
        format!(
            "{address} does not answer as MongoDB; if it wants TLS, add `tls=true`, otherwise check the port"
        )
    } else if has(&["timed out", "timeout", "unreachable"]) {
        format!("{address} does not answer; check the address, the network and the firewall")
    } else {
        format!("{address} cannot be used now")
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
        reason(&format!("{START}, Servers: [ {server} ] }}"))
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
            ("I/O error: tls handshake eof", "does not speak TLS"),
            ("I/O error: invalid peer certificate: UnknownIssuer", "tlsCAFile"),
            ("I/O error: invalid peer certificate: Expired", "has expired"),
            (
                "I/O error: invalid peer certificate: certificate not valid for name \"x\"",
                "another host name",
            ),
            ("I/O error: received fatal alert: CertificateRequired", "tlsCertificateKeyFile"),
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
        assert!(reason(&format!("{START} }}")).contains("replica set `rs0`"));
        assert!(
            reason("Server selection timeout: No available servers. Topology: { Type: Unknown }")
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
    fn every_server_says_its_own() {
        let said =
            of("{ Address: a:1, Type: Unknown, Error: Kind: I/O error: Connection refused, labels: {} }, \
             { Address: b:2, Type: Unknown, Error: Kind: I/O error: timed out, labels: {} }");
        assert!(said.contains("listens at a:1") && said.contains("b:2 does not answer"), "{said}");
    }
}
