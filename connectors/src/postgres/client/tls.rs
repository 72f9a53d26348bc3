//! TLS as libpq speaks it: what is verified depends on `sslmode`, and files are read again for each connection.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use super::address::{Root, Trust};
use super::certificate::Certificate;
use crate::pem::{Unreadable, certificates, private_key};

/// The one that MongoDB's driver and the HTTP client have, too.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

const AGAIN: &str = "name a file in PEM form that slackwater may read; it is read again at each connection";

/// Makes the TLS of one connection.
#[derive(Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    /// What the handshake agreed on; unset while there was none.
    agreed: Arc<OnceLock<ProtocolVersion>>,
}

impl Tls {
    /// Reads the files. This waits for the disk.
    pub(super) fn prepare(trust: &Trust) -> Result<Self, Unreadable> {
        let judge = Judge {
            roots: roots(&trust.root)?,
            checks_name: trust.checks_name,
            algorithms: PROVIDER.signature_verification_algorithms,
        };
        let building = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_safe_default_protocol_versions()
            .map_err(|_| Unreadable { what: "TLS cannot be set up".into(), help: "please report it" })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(judge));
        let mut config = match &trust.identity {
            None => building.with_no_client_auth(),
            Some((certificate, key)) => {
                let (chain, secret) =
                    (certificates(certificate, "sslcert", AGAIN)?, private_key(key, "sslkey")?);
                building.with_client_auth_cert(chain, secret).map_err(|_| Unreadable {
                    what: format!(
                        "the key in {} (`sslkey`) does not belong to the certificate in {} (`sslcert`), or is of a kind that is \
                         not known",
                        key.display(),
                        certificate.display()
                    ),
                    help: "name the key that the certificate was made with: RSA, ECDSA (P-256, P-384, P-521) or Ed25519",
                })?
            }
        };
        // Postgres wants this name where TLS comes without a request for it, and takes it otherwise.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), agreed: Arc::default() })
    }

    /// The version that was agreed on, where TLS is spoken.
    pub(super) fn version(&self) -> Option<&'static str> {
        self.agreed.get().map(|version| match version {
            ProtocolVersion::TLSv1_3 => "TLS 1.3",
            _ => "TLS 1.2",
        })
    }
}

fn roots(root: &Root) -> Result<Option<Roots>, Unreadable> {
    let certificates = match root {
        Root::Unset => return Ok(None),
        Root::File(path) => certificates(path, "sslrootcert", AGAIN)?,
        Root::System => rustls_native_certs::load_native_certs().certs,
    };
    let mut store = RootCertStore::empty();
    // Of the system's roots a few may be too old to be read.
    let (added, _) = store.add_parsable_certificates(certificates.iter().cloned());
    match (root, added) {
        (Root::System, 0) => Err(Unreadable {
            what: "this machine has no trusted roots (`sslrootcert=system`)".into(),
            help: "install the package ca-certificates, set SSL_CERT_FILE, or name a file: sslrootcert=/path/of/the/ca.pem",
        }),
        (Root::File(path), 0) => Err(Unreadable {
            what: format!("{} (`sslrootcert`) holds no certificate that can be read", path.display()),
            help: "name the certificate of the authority that signed the server's, in PEM form",
        }),
        _ => Ok(Some(Roots { store, certificates })),
    }
}

#[derive(Debug)]
struct Roots {
    store: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

/// Judges the server's certificate.
#[derive(Debug)]
struct Judge {
    /// Without them any certificate will do.
    roots: Option<Roots>,
    checks_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

type Verdict<T> = Result<T, rustls::Error>;

impl Judge {
    fn is_trusted(
        &self,
        roots: &Roots,
        given: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Verdict<()> {
        let refusal = match ParsedCertificate::try_from(given) {
            Ok(parsed) => {
                let algorithms = self.algorithms.all;
                match verify_server_cert_signed_by_trust_anchor(
                    &parsed,
                    &roots.store,
                    intermediates,
                    now,
                    algorithms,
                ) {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        let Some(certificate) = Certificate::read(given) else { return Err(refusal) };
        // A certificate that signs itself is often the very one in the file. And one of the first version is trusted if a root
        // has signed it; it has no extensions that could limit what it is for.
        let is_root = || roots.certificates.iter().any(|root| root[..] == given[..]);
        let is_signed = || {
            roots.certificates.iter().any(|root| {
                Certificate::read(root)
                    .is_some_and(|root| certificate.is_signed_by(&root, self.algorithms.all))
            })
        };
        if is_root() || certificate.is_first_version && is_signed() {
            return certificate.is_current(now).map_err(rustls::Error::InvalidCertificate);
        }
        // Whatever else the web's rules say of these, the reason is that nobody known has signed them.
        let unknown = certificate.is_first_version || certificate.has_signed_itself();
        Err(if unknown { CertificateError::UnknownIssuer.into() } else { refusal })
    }

    fn is_for(&self, given: &CertificateDer<'_>, name: &ServerName<'_>) -> Verdict<()> {
        let refusal =
            match ParsedCertificate::try_from(given).and_then(|parsed| verify_server_name(&parsed, name)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
        let Some(certificate) = Certificate::read(given) else { return Err(refusal) };
        if certificate.is_named(&name.to_str()) {
            return Ok(());
        }
        Err(if certificate.is_first_version { CertificateError::NotValidForName.into() } else { refusal })
    }

    /// The same as rustls does, for a certificate of the first version, which it cannot read.
    fn has_signed(
        &self,
        message: &[u8],
        given: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Option<HandshakeSignatureValid> {
        let certificate = Certificate::read(given).filter(|certificate| certificate.is_first_version)?;
        let mut algorithms = self.algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
        let valid = algorithms.any(|(_, algorithms)| {
            algorithms.iter().any(|algorithm| certificate.has_signed(*algorithm, message, signed.signature()))
        });
        valid.then(HandshakeSignatureValid::assertion)
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        given: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Verdict<ServerCertVerified> {
        if let Some(roots) = &self.roots {
            self.is_trusted(roots, given, intermediates, now)?;
            if self.checks_name {
                self.is_for(given, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        given: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Verdict<HandshakeSignatureValid> {
        verify_tls12_signature(message, given, signed, &self.algorithms)
            .or_else(|refusal| self.has_signed(message, given, signed).ok_or(refusal))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        given: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Verdict<HandshakeSignatureValid> {
        verify_tls13_signature(message, given, signed, &self.algorithms)
            .or_else(|refusal| self.has_signed(message, given, signed).ok_or(refusal))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Infallible> {
        // The driver asks this of plain connections, too. In the place of a name that no certificate can have comes an address that
        // none has: it is not sent, and cannot be verified.
        let nobody = || ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
        let name = ServerName::try_from(host.to_owned()).unwrap_or_else(|_| nobody());
        Ok(Handshake { tls: self.clone(), name })
    }
}

/// A handshake that is yet to begin.
pub(super) struct Handshake {
    tls: Tls,
    name: ServerName<'static>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let stream = TlsConnector::from(self.tls.config).connect(self.name, socket).await?;
            if let Some(version) = stream.get_ref().1.protocol_version() {
                // It is set once: one handshake, one connection.
                let _ = self.tls.agreed.set(version);
            }
            Ok(Stream(stream))
        })
    }
}

/// A connection with TLS.
pub(super) struct Stream(tokio_rustls::client::TlsStream<Socket>);

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        let given = self.0.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let end_point = given.and_then(|given| Certificate::read(given)?.end_point(given));
        end_point.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
