//! Certificates and keys in files, for every connector; and in words for people why a file will not do.

use std::path::Path;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A file that cannot be used, and what to do.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) what: String,
    pub(crate) help: &'static str,
}

/// All certificates of a file. `parameter` is what the connection string calls it; `help` says when it is read.
pub(crate) fn certificates(
    path: &Path,
    parameter: &str,
    help: &'static str,
) -> Result<Vec<CertificateDer<'static>>, Unreadable> {
    let fail = |why: String| Unreadable { what: format!("{} (`{parameter}`) {why}", path.display()), help };
    let bytes = std::fs::read(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
    let read: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    match read {
        Ok(read) if !read.is_empty() => Ok(read),
        _ => Err(fail("holds no certificate in PEM form".into())),
    }
}

/// The private key in a file.
pub(crate) fn private_key(path: &Path, parameter: &str) -> Result<PrivateKeyDer<'static>, Unreadable> {
    let fail =
        |why: String, help| Unreadable { what: format!("{} (`{parameter}`) {why}", path.display()), help };
    let bytes = std::fs::read(path).map_err(|error| {
        fail(format!("cannot be read: {error}"), "name a file in PEM form that slackwater may read")
    })?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        if bytes.windows(9).any(|part| part == b"ENCRYPTED") {
            let help =
                "write it without a password (openssl pkey -in KEY -out NEW) and let nobody else read it";
            fail("is encrypted with a password".into(), help)
        } else {
            fail("holds no private key in PEM form".into(), "name the file of the key in PEM form")
        }
    })
}
