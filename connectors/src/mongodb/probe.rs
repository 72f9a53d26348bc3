//! What speaks at an address, where the driver could only tell that the connection broke: TLS, or MongoDB in the clear.
//! Asked only after a failure, without a secret, and no answer is believed for anything but a text.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::pem::{certificates, private_key};

const WITHIN: Duration = Duration::from_secs(3);
/// The kind of message that all servers since 3.6 speak.
const MESSAGE: i32 = 2013;

/// Whether it answers a first message of TLS with the server's.
pub(super) async fn speaks_tls(address: &str) -> bool {
    timeout(WITHIN, handshake(address, None)).await.ok().flatten().is_some()
}

/// Whether it answers `hello` in the clear.
pub(super) async fn speaks_clearly(address: &str) -> bool {
    let asked = async { greets(&mut TcpStream::connect(address).await.ok()?).await };
    timeout(WITHIN, asked).await.ok().flatten().is_some()
}

/// Whether it agrees on TLS, with this certificate of ours, and then answers nothing. With TLS 1.3 a client believes to be let
/// in before the server has looked at its certificate.
pub(super) async fn hangs_up(address: &str, certificate: Option<&Path>) -> bool {
    let asked = async {
        let mut stream = handshake(address, certificate).await?;
        Some(greets(&mut stream).await.is_none())
    };
    timeout(WITHIN, asked).await.ok().flatten() == Some(true)
}

async fn handshake(address: &str, certificate: Option<&Path>) -> Option<TlsStream<TcpStream>> {
    let building = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let building = building
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let config = match certificate {
        None => building.with_no_client_auth(),
        Some(path) => {
            let chain = certificates(path, "", "").ok()?;
            building.with_client_auth_cert(chain, private_key(path, "").ok()?).ok()?
        }
    };
    let stream = TcpStream::connect(address).await.ok()?;
    let (host, _) = address.rsplit_once(':')?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
}

async fn greets(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<()> {
    let command = doc! {"hello": 1, "$db": "admin"}.to_vec().ok()?;
    let length = i32::try_from(21 + command.len()).ok()?;
    let mut message = Vec::new();
    for number in [length, 1, 0, MESSAGE, 0] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(&command);
    stream.write_all(&message).await.ok()?;
    stream.flush().await.ok()?;
    let mut head = [0; 16];
    stream.read_exact(&mut head).await.ok()?;
    (head[12..] == MESSAGE.to_le_bytes()).then_some(())
}

/// No secret is sent over this connection, so anybody may answer.
#[derive(Debug)]
struct Anybody;

type Verdict<T> = Result<T, rustls::Error>;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Verdict<ServerCertVerified> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Verdict<HandshakeSignatureValid> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Verdict<HandshakeSignatureValid> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
