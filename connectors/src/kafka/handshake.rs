//! Why TLS with a broker failed. Kafka's library says that a certificate could not be verified, and not why; so we ask the broker for
//! its certificate once more with our own TLS, after it has failed, and look. Nothing is sent but the handshake.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rdkafka::ClientConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::report::Hint;
use crate::error::{Error, Kind};

/// One broker that says nothing is enough to wait for.
const ANSWER: Duration = Duration::from_secs(5);
/// What a broker says of our certificate comes right behind the handshake.
const LATER: Duration = Duration::from_secs(3);

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

/// The error with its reason, where there is a better one than Kafka's library gives.
pub(super) async fn explained(error: Error, hint: Option<Hint>, config: &ClientConfig) -> Error {
    let reason = match hint {
        Some(Hint::Mechanism) => Some(Reason::Mechanism),
        Some(Hint::ClientCertificate) => Some(Reason::WantsCertificate),
        Some(Hint::WantsTls) => Some(Reason::WantsTls),
        Some(Hint::Verification | Hint::NoTls) => ask(config).await,
        // Often a broker just hangs up on somebody who speaks TLS, or does not, or has no certificate.
        None if error.kind == Kind::Unreachable => ask(config).await,
        None => None,
    };
    let Some(reason) = reason else { return error };
    let (kind, what, help) = reason.words(has_certificate(config));
    let better = Error::new(kind, &error.doing, what).help(help);
    match &error.code {
        // That no broker answers is no longer what is known.
        Some(code) if error.kind != Kind::Unreachable => better.code(code.clone()),
        _ => better,
    }
}

/// Why we are not let in.
enum Reason {
    NoTls(String),
    WantsTls,
    WantsCertificate,
    Mechanism,
    Certificate(String, CertificateError),
}

impl Reason {
    fn words(&self, has_certificate: bool) -> (Kind, String, &'static str) {
        match self {
            Self::NoTls(broker) => (
                Kind::Unsuitable,
                format!("the broker at {broker} does not speak TLS there, and security.protocol asks for it"),
                "name the port of its TLS listener, or use security.protocol PLAINTEXT or SASL_PLAINTEXT",
            ),
            Self::WantsTls => (
                Kind::Unsuitable,
                "the broker speaks TLS at this port, and security.protocol does not ask for it".into(),
                "use security.protocol SSL, or SASL_SSL for a user with a password, with ssl.ca.location",
            ),
            Self::WantsCertificate if has_certificate => (
                Kind::Denied,
                "the broker does not accept our certificate".into(),
                "ssl.certificate.location has to be signed by an authority of the broker's trust store, and valid now",
            ),
            Self::WantsCertificate => (
                Kind::Denied,
                "the broker asks for a client certificate, and the options have none".into(),
                "set ssl.certificate.location and ssl.key.location",
            ),
            Self::Mechanism => (
                Kind::Unsuitable,
                "the broker does not offer the way to log in that sasl.mechanisms names".into(),
                "ask who runs the broker: usual are PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512",
            ),
            Self::Certificate(broker, why) => {
                let (what, help) = certificate(broker, why);
                (Kind::Denied, what, help)
            }
        }
    }
}

fn has_certificate(config: &ClientConfig) -> bool {
    ["ssl.certificate.location", "ssl.certificate.pem", "ssl.keystore.location"]
        .iter()
        .any(|name| config.get(name).is_some_and(|value| !value.is_empty()))
}

/// Asks the first broker that answers. `None` where our own handshake shows nothing that stands in the way.
async fn ask(config: &ClientConfig) -> Option<Reason> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots(config))
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(tls));
    let wanted = config.get("security.protocol").unwrap_or("plaintext").to_ascii_lowercase().ends_with("ssl");
    for broker in config.get("bootstrap.servers").unwrap_or_default().split(',').map(str::trim) {
        let address = broker.rsplit("://").next().unwrap_or(broker);
        let Some((host, _)) = address.rsplit_once(':') else { continue };
        let Ok(name) = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()) else { continue };
        let Ok(Ok(stream)) = timeout(ANSWER, TcpStream::connect(address)).await else { continue };
        let failed = match timeout(ANSWER, connector.connect(name, stream)).await {
            Err(_) => return None,
            Ok(Err(error)) => Some(error),
            // Whether our lack of a certificate matters comes later than the handshake.
            Ok(Ok(mut stream)) => match timeout(LATER, stream.read_u8()).await {
                // Only what TLS itself says: a broker may hang up on somebody who says nothing.
                Ok(Err(error)) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                    Some(error)
                }
                _ => None,
            },
        };
        let said = failed.as_ref().and_then(|error| error.get_ref()?.downcast_ref::<rustls::Error>());
        return match (wanted, failed.is_some(), said) {
            (true, _, Some(rustls::Error::InvalidCertificate(why))) => {
                Some(Reason::Certificate(address.to_owned(), why.clone()))
            }
            (true, _, Some(rustls::Error::AlertReceived(_))) => Some(Reason::WantsCertificate),
            // It answers with something else, or hangs up on what it does not understand.
            (true, true, Some(rustls::Error::InvalidMessage(_)) | None) => {
                Some(Reason::NoTls(address.to_owned()))
            }
            (false, false, _)
            | (false, _, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))) => {
                Some(Reason::WantsTls)
            }
            _ => None,
        };
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
