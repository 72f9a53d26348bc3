//! Why TLS with a broker failed. Kafka's library says that a certificate could not be verified, and not why; so we ask the broker for
//! its certificate once more with our own TLS, after it has failed, and look. Nothing is sent but the handshake.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rdkafka::ClientConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::report::Hint;
use crate::error::{Error, Kind};

/// One broker that says nothing is enough to wait for.
const ANSWER: Duration = Duration::from_secs(3);

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

/// The error with its reason, where there is a better one than Kafka's library gives.
pub(super) async fn explained(error: Error, hint: Option<Hint>, config: &ClientConfig) -> Error {
    let Some(hint) = hint else { return error };
    let denied = |what: &str, help: &str| Some(Error::new(Kind::Denied, &error.doing, what).help(help));
    let unsuitable =
        |what: &str, help: &str| Some(Error::new(Kind::Unsuitable, &error.doing, what).help(help));
    let better = match hint {
        Hint::Verification | Hint::NoTls => match ask(config).await {
            Some((broker, Answer::NoTls)) => unsuitable(
                &format!(
                    "the broker at {broker} does not speak TLS there, and security.protocol asks for it"
                ),
                "name the port of its TLS listener, or use security.protocol PLAINTEXT or SASL_PLAINTEXT",
            ),
            Some((broker, Answer::Certificate(why))) => {
                let (what, help) = certificate(&broker, &why);
                denied(&what, help)
            }
            None => None,
        },
        Hint::WantsTls => unsuitable(
            "the broker speaks TLS at this port, and security.protocol does not ask for it",
            "use security.protocol SSL, or SASL_SSL for a user with a password, with ssl.ca.location",
        ),
        Hint::ClientCertificate if has_certificate(config) => denied(
            "the broker does not accept our certificate",
            "ssl.certificate.location has to be signed by an authority of the broker's trust store, and valid now",
        ),
        Hint::ClientCertificate => denied(
            "the broker asks for a client certificate, and the options have none",
            "set ssl.certificate.location and ssl.key.location",
        ),
        Hint::Mechanism => unsuitable(
            "the broker does not offer the way to log in that sasl.mechanisms names",
            "ask who runs the broker: usual are PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512",
        ),
    };
    match (better, &error.code) {
        (Some(better), Some(code)) => better.code(code.clone()),
        (better, _) => better.unwrap_or(error),
    }
}

fn has_certificate(config: &ClientConfig) -> bool {
    ["ssl.certificate.location", "ssl.certificate.pem", "ssl.keystore.location"]
        .iter()
        .any(|name| config.get(name).is_some_and(|value| !value.is_empty()))
}

/// What our own handshake brought.
enum Answer {
    NoTls,
    Certificate(CertificateError),
}

/// Asks the first broker that answers.
async fn ask(config: &ClientConfig) -> Option<(String, Answer)> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots(config))
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(tls));
    for broker in config.get("bootstrap.servers").unwrap_or_default().split(',').map(str::trim) {
        let address = broker.rsplit("://").next().unwrap_or(broker);
        let Some((host, _)) = address.rsplit_once(':') else { continue };
        let Ok(name) = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()) else { continue };
        let Ok(Ok(stream)) = timeout(ANSWER, TcpStream::connect(address)).await else { continue };
        let answer = match timeout(ANSWER, connector.connect(name, stream)).await {
            Ok(Err(error)) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(rustls::Error::InvalidCertificate(why)) => Some(Answer::Certificate(why.clone())),
                Some(rustls::Error::InvalidMessage(_)) => Some(Answer::NoTls),
                // It hangs up on what it does not understand.
                None => Some(Answer::NoTls),
                Some(_) => None,
            },
            Ok(Ok(_)) | Err(_) => None,
        };
        return answer.map(|answer| (address.to_owned(), answer));
    }
    None
}

/// Whom Kafka's library was told to trust.
fn roots(config: &ClientConfig) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let given = match (config.get("ssl.ca.pem"), config.get("ssl.ca.location")) {
        (Some(text), _) => Some(text.as_bytes().to_vec()),
        (None, Some(path)) => std::fs::read(path).ok(),
        (None, None) => None,
    };
    match given {
        Some(given) => {
            let read = CertificateDer::pem_slice_iter(&given).filter_map(Result::ok);
            roots.add_parsable_certificates(read);
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    roots
}

fn certificate(broker: &str, why: &CertificateError) -> (String, &'static str) {
    use CertificateError as Why;
    match why {
        Why::Expired | Why::ExpiredContext { .. } => (
            format!("the certificate of the broker at {broker} has expired"),
            "give the broker a new certificate; look at this machine's clock",
        ),
        Why::NotValidYet | Why::NotValidYetContext { .. } => (
            format!("the certificate of the broker at {broker} is not valid yet"),
            "look at this machine's clock, and at the broker's certificate",
        ),
        Why::NotValidForName | Why::NotValidForNameContext { .. } => (
            format!("the certificate of the broker at {broker} is not for that name"),
            "name the broker as its certificate does, in `brokers` and in its advertised.listeners",
        ),
        _ => (
            format!("no authority that we trust has signed the certificate of the broker at {broker}"),
            "ssl.ca.location has to name a file with the certificate of the authority (PEM)",
        ),
    }
}
