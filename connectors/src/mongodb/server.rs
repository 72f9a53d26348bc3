//! Who answers, and what protects the connection.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use bson::{Document, doc};
use mongodb::options::{ClientOptions, ServerAddress, Tls};

use super::address;
use super::client::Mongo;
use super::error::cleaned;
use crate::error::Result;

/// A MongoDB, as far as people want to know whom they talk to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// As the server says it: `6.0.5`.
    pub version: String,
    /// As the connection string has them; those of an SRV record by their names.
    pub hosts: Vec<String>,
    /// The replica set; `None` for a router, and for a server of its own.
    pub replica_set: Option<String>,
    /// It is a sharded cluster's router.
    pub sharded: bool,
    /// The database.
    pub database: String,
    /// Who we are to the server; `None` where it knows nobody.
    pub user: Option<String>,
    /// How that was proved: `SCRAM-SHA-256`.
    pub mechanism: Option<String>,
    /// It is encrypted.
    pub tls: bool,
    /// The server's certificate and its name were verified.
    pub verified: bool,
    /// Replies are compressed like this.
    pub compression: Option<String>,
    /// What the copy reads from, where that is not the primary.
    pub read_preference: Option<&'static str>,
    /// It is on this machine.
    pub is_local: bool,
}

/// What is known before anybody was asked.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    hosts: Vec<String>,
    is_local: bool,
    user: Option<String>,
    pub(super) source: String,
    mechanism: Option<&'static str>,
    pub(super) tls: bool,
    verified: bool,
    /// The file of our client certificate.
    pub(super) certificate: Option<PathBuf>,
    read_preference: Option<&'static str>,
}

impl Wanted {
    pub(super) fn of(options: &ClientOptions) -> Self {
        let credential = options.credential.as_ref();
        let mechanism = credential.and_then(|credential| credential.mechanism.as_ref());
        let insecure = match &options.tls {
            Some(Tls::Enabled(tls)) => Some(tls.allow_invalid_certificates == Some(true)),
            _ => None,
        };
        Self {
            hosts: options.hosts.iter().map(ToString::to_string).collect(),
            is_local: options.hosts.iter().all(is_local),
            user: credential.and_then(|credential| credential.username.clone()),
            source: credential
                .and_then(|credential| credential.source.clone())
                .unwrap_or_else(|| "admin".into()),
            mechanism: mechanism.map(mongodb::options::AuthMechanism::as_str),
            tls: insecure.is_some(),
            verified: insecure == Some(false),
            certificate: match &options.tls {
                Some(Tls::Enabled(tls)) => tls.cert_key_file_path.clone(),
                _ => None,
            },
            read_preference: address::read_preference(options),
        }
    }

    pub(super) fn hosts(&self) -> String {
        self.hosts.join(",")
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(super) fn mechanism(&self) -> Option<&'static str> {
        self.mechanism
    }
}

fn is_local(address: &ServerAddress) -> bool {
    match address {
        ServerAddress::Tcp { host, .. } => {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        _ => true,
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alone = if self.sharded { "sharded cluster" } else { "standalone" };
        let set = self.replica_set.as_deref().unwrap_or(alone);
        write!(
            f,
            "MongoDB {} at {}, {set}, database {}, ",
            self.version,
            self.hosts.join(","),
            self.database
        )?;
        match (&self.user, &self.mechanism) {
            (Some(user), Some(mechanism)) => write!(f, "user {user} by {mechanism}, ")?,
            (Some(user), None) => write!(f, "user {user}, ")?,
            (None, _) => f.write_str("no user, ")?,
        }
        f.write_str(match (self.tls, self.verified) {
            (false, _) => "not encrypted",
            (true, false) => "TLS, certificate not verified",
            (true, true) => "TLS, certificate and host name verified",
        })?;
        if let Some(compression) = &self.compression {
            write!(f, ", compressed by {compression}")?;
        }
        if let Some(preference) = self.read_preference {
            write!(f, ", copied from {preference}")?;
        }
        Ok(())
    }
}

impl Server {
    /// What somebody should look at.
    pub fn warning(&self) -> Option<String> {
        (!self.tls && !self.is_local).then(|| {
            format!(
                "the connection to MongoDB at {} is not encrypted: documents can be read on the way; use tls=true with \
                 tlsCAFile=… in the source's `uri`",
                self.hosts.join(",")
            )
        })
    }
}

impl Mongo {
    /// Asks who answers, and what is in force. Needs no right.
    pub async fn server(&self) -> Result<Server> {
        let doing = "asking the server what it is";
        let wanted = self.wanted();
        let admin = self.other("admin");
        let mut hello = doc! {"hello": 1};
        if let Some(user) = wanted.user() {
            hello.insert("saslSupportedMechs", format!("{}.{user}", wanted.source));
        }
        let hello = admin.run_command(hello).await.map_err(|error| cleaned(doing, &error))?;
        let status = admin.run_command(doc! {"connectionStatus": 1}).await;
        let status = status.map_err(|error| cleaned(doing, &error))?;
        let (major, minor, patch) = self.version();
        let user = user_of(&status);
        let mechanism = wanted.mechanism().map(str::to_owned).or_else(|| negotiated(&hello));
        Ok(Server {
            version: format!("{major}.{minor}.{patch}"),
            hosts: wanted.hosts.clone(),
            replica_set: hello.get_str("setName").ok().map(str::to_owned),
            sharded: hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid"),
            database: self.database().to_owned(),
            mechanism: mechanism.filter(|_| user.is_some()),
            user,
            tls: wanted.tls,
            verified: wanted.verified,
            compression: first(&hello, "compression"),
            read_preference: wanted.read_preference,
            is_local: wanted.is_local,
        })
    }
}

/// Who we are, as the server says.
fn user_of(status: &Document) -> Option<String> {
    let users = status.get_document("authInfo").ok()?.get_array("authenticatedUsers").ok()?;
    users.first()?.as_document()?.get_str("user").ok().map(str::to_owned)
}

/// The driver takes the stronger of the two, if the user has it.
fn negotiated(hello: &Document) -> Option<String> {
    let known = hello.get_array("saslSupportedMechs").ok()?;
    let strong = known.iter().any(|word| word.as_str() == Some("SCRAM-SHA-256"));
    Some(if strong { "SCRAM-SHA-256" } else { "SCRAM-SHA-1" }.into())
}

fn first(reply: &Document, name: &str) -> Option<String> {
    Some(reply.get_array(name).ok()?.first()?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_is_said() {
        let mut server = Server {
            version: "6.0.5".into(),
            hosts: vec!["a:1".into(), "b:2".into()],
            replica_set: Some("rs0".into()),
            sharded: false,
            database: "crm".into(),
            user: Some("app".into()),
            mechanism: Some("SCRAM-SHA-256".into()),
            tls: true,
            verified: true,
            compression: Some("zstd".into()),
            read_preference: Some("secondary"),
            is_local: false,
        };
        assert_eq!(
            server.to_string(),
            "MongoDB 6.0.5 at a:1,b:2, rs0, database crm, user app by SCRAM-SHA-256, TLS, certificate and host name \
             verified, compressed by zstd, copied from secondary"
        );
        assert_eq!(server.warning(), None);
        server.verified = false;
        assert!(server.to_string().contains("TLS, certificate not verified"));
        (server.tls, server.user) = (false, None);
        assert!(server.to_string().contains("database crm, no user, not encrypted"));
        assert!(server.warning().expect("a warning").contains("at a:1,b:2"));
        server.is_local = true;
        assert_eq!(server.warning(), None);
    }
}
