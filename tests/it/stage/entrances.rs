//! A broker with an entrance for each way to be let in, and some that nobody should trust.

use std::path::{Path, PathBuf};

use super::authority::{Authority, Issued, LOCAL, Wish};
use super::broker::{Broker, PASSWORD};
use super::ports::free_ports;

/// The broker and where its entrances are.
pub(crate) struct Entrances {
    pub(crate) broker: Broker,
    /// TLS, and a password: `app` may do everything.
    pub(crate) password: String,
    /// TLS, and a certificate of the authority's: its name is the user's.
    pub(crate) certificate: String,
    /// TLS with a certificate that has expired.
    pub(crate) expired: String,
    /// TLS with a certificate for another host.
    pub(crate) misnamed: String,
    /// Whose signature counts.
    pub(crate) authority: Authority,
    /// Somebody else.
    pub(crate) stranger: Authority,
}

/// What Kafka reads a certificate and its key from.
fn store(folder: &Path, name: &str, issued: &Issued) -> PathBuf {
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
    let path = folder.join(format!("{name}.pem"));
    std::fs::write(&path, read(&issued.key) + &read(&issued.certificate)).expect("a file");
    path
}

impl Entrances {
    pub(crate) async fn start(name: &str) -> Self {
        let folder = Broker::folder(name);
        let authority = Authority::new(&folder, "authority").await;
        let stranger = Authority::new(&folder, "stranger").await;
        let good = authority.issue("good", Wish::named("broker", LOCAL)).await;
        let old = authority.issue("old", Wish { days: -1, ..Wish::named("broker", LOCAL) }).await;
        let other =
            authority.issue("other", Wish::named("broker", "subjectAltName=DNS:elsewhere.test")).await;
        let [password, certificate, expired, misnamed] = free_ports();
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
        let mut more = format!(
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS;User:app\n\
             listener.name.password.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN\n\
             listener.name.password.scram-sha-256.sasl.jaas.config={scram}\n\
             listener.name.password.scram-sha-512.sasl.jaas.config={scram}\n\
             listener.name.password.plain.sasl.jaas.config={plain} user_app=\"{PASSWORD}\";\n\
             listener.name.certificate.ssl.client.auth=required\n\
             listener.name.certificate.ssl.truststore.type=PEM\n\
             listener.name.certificate.ssl.truststore.location={}\n",
            authority.file().display()
        );
        for (entrance, issued) in
            [("password", &good), ("certificate", &good), ("expired", &old), ("misnamed", &other)]
        {
            let store = store(&folder, entrance, issued);
            more += &format!(
                "listener.name.{entrance}.ssl.keystore.type=PEM\nlistener.name.{entrance}.ssl.keystore.location={}\n",
                store.display()
            );
        }
        let users = ["SCRAM-SHA-256", "SCRAM-SHA-512"]
            .map(|mechanism| format!("{mechanism}=[name=app,password={PASSWORD}]"));
        let users: Vec<&str> = users.iter().flat_map(|user| ["--add-scram", user]).collect();
        let entrances = [
            ("PASSWORD", password, "SASL_SSL"),
            ("CERTIFICATE", certificate, "SSL"),
            ("EXPIRED", expired, "SSL"),
            ("MISNAMED", misnamed, "SSL"),
        ];
        let broker = Broker::start_beside(folder, &entrances, &more, &users).await;
        let at = |port: u16| format!("127.0.0.1:{port}");
        Self {
            broker,
            password: at(password),
            certificate: at(certificate),
            expired: at(expired),
            misnamed: at(misnamed),
            authority,
            stranger,
        }
    }
}
