//! The connection string of MongoDB: what it may say, and why it will not do.
//!
//! The driver reads it. What the driver says of a mistake repeats parts of the text, so its words are not shown: what is
//! known to go wrong is looked for by the names of the options. Files are looked at here, because the driver says too little of them.

use std::path::Path;

use mongodb::options::{AuthMechanism, ClientOptions, Credential, ReadPreference, SelectionCriteria, Tls};

use super::error::cleaned;
use crate::error::{Error, Kind, Result};
use crate::pem::{Unreadable, certificates, private_key};

const CONNECTING: &str = "connecting to MongoDB";
const READ: &str = "name a file in PEM form that slackwater may read";

/// Options that the driver refuses or would pass by, with what to do. Small letters, as they are compared.
const REFUSED: [(&[&str], &str); 6] = [
    (
        &["tlscertificatekeyfilepassword", "sslpemkeypassword"],
        "write the key without a password (openssl pkey -in KEY -out NEW) and let nobody else read it",
    ),
    (
        &["tlsallowinvalidhostnames"],
        "the name is checked wherever the certificate is: use a name that the certificate has, or a certificate with this name",
    ),
    (
        &["tlscrlfile", "tlsdisablecertificaterevocationcheck", "tlsdisableocspendpointcheck"],
        "leave it out: lists of revoked certificates are not looked at",
    ),
    (&["zlibcompressionlevel"], "leave it out, and use compressors=zstd or compressors=snappy"),
    (
        &["proxyhost", "proxyport", "proxyusername", "proxypassword"],
        "connect without a proxy, or by a tunnel",
    ),
    (&["ssl_ca_certs", "sslcertificateauthorityfile"], "it is called `tlsCAFile`"),
];

/// Reads it, and looks at the files that it names.
pub(super) async fn read(text: &str) -> Result<ClientOptions> {
    refuse(text)?;
    let options = ClientOptions::parse(text).await.map_err(|error| match &*error.kind {
        mongodb::error::ErrorKind::DnsResolve { .. } => cleaned(CONNECTING, &error),
        _ => wrong(
            "the connection string cannot be read; it looks like mongodb://user:password@host:27017/?replicaSet=name, \
             with special characters of the password percent-encoded",
        ),
    })?;
    let certificate = match &options.tls {
        Some(Tls::Enabled(tls)) => {
            if let Some(path) = &tls.ca_file_path {
                certificates(path, "tlsCAFile", READ).map_err(unreadable)?;
            }
            if let Some(path) = &tls.cert_key_file_path {
                identity(path).map_err(unreadable)?;
            }
            tls.cert_key_file_path.is_some()
        }
        _ => false,
    };
    let mechanism = options.credential.as_ref().and_then(|credential| credential.mechanism.as_ref());
    if mechanism == Some(&AuthMechanism::MongoDbX509) && !certificate {
        return Err(wrong("`authMechanism=MONGODB-X509` needs a client certificate").help(
            "name the file of certificate and key: tls=true&tlsCertificateKeyFile=/path/of/the/client.pem",
        ));
    }
    Ok(options)
}

/// Certificate and key are in one file.
fn identity(path: &Path) -> std::result::Result<(), Unreadable> {
    certificates(path, "tlsCertificateKeyFile", READ)?;
    private_key(path, "tlsCertificateKeyFile").map(drop)
}

fn unreadable(unreadable: Unreadable) -> Error {
    Error::new(Kind::Denied, CONNECTING, unreadable.what).help(unreadable.help)
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(Kind::Unsuitable, CONNECTING, what)
}

/// Finds what cannot work, by the names of the options. Pure.
fn refuse(text: &str) -> Result<()> {
    let Some((_, rest)) = text.split_once("://") else { return Ok(()) };
    let Some((_, query)) = rest.split_once('?') else { return Ok(()) };
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (name.to_lowercase(), value.to_lowercase());
        for (names, help) in REFUSED {
            if let Some(known) = names.iter().find(|known| **known == name) {
                return Err(
                    wrong(format!("the connection string has `{known}`, which is not supported")).help(help)
                );
            }
        }
        let fits = |words: &[&str]| words.contains(&value.as_str());
        match name.as_str() {
            "compressors" if !value.split(',').all(|word| matches!(word, "zstd" | "snappy")) => {
                return Err(wrong("the connection string has a value for `compressors` that is not known")
                    .help("use zstd or snappy, or both: compressors=zstd,snappy"));
            }
            "authmechanism" if !fits(&["scram-sha-256", "scram-sha-1", "mongodb-x509", "plain"]) => {
                return Err(wrong(
                    "the connection string has a value for `authMechanism` that is not supported",
                )
                .help("use one of SCRAM-SHA-256, SCRAM-SHA-1, MONGODB-X509, PLAIN"));
            }
            "readpreference"
                if !fits(&["primary", "primarypreferred", "secondary", "secondarypreferred", "nearest"]) =>
            {
                return Err(wrong(
                    "the connection string has a value for `readPreference` that is not known",
                )
                .help("use one of primary, primaryPreferred, secondary, secondaryPreferred, nearest"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Where a user was made whose mechanism is not named. The driver asks the server for the mechanisms of a user in `admin`,
/// and would take SCRAM-SHA-1 for all others.
pub(super) fn asks_elsewhere(credential: &Credential) -> bool {
    let source = credential.source.as_deref();
    credential.mechanism.is_none()
        && credential.username.is_some()
        && source.is_some_and(|source| source != "admin")
}

/// What the copy reads from, in the words of the connection string; `None` where that is the primary.
pub(super) fn read_preference(options: &ClientOptions) -> Option<&'static str> {
    let Some(SelectionCriteria::ReadPreference(preference)) = &options.selection_criteria else {
        return None;
    };
    match preference {
        ReadPreference::Secondary { .. } => Some("secondary"),
        ReadPreference::PrimaryPreferred { .. } => Some("primaryPreferred"),
        ReadPreference::SecondaryPreferred { .. } => Some("secondaryPreferred"),
        ReadPreference::Nearest { .. } => Some("nearest"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_says_what_to_do_and_nothing_of_itself() {
        for (options, what, help) in [
            ("compressors=zlib", "`compressors`", "zstd"),
            ("compressors=zstd,hunter2", "`compressors`", "snappy"),
            ("authMechanism=GSSAPI", "`authMechanism`", "SCRAM-SHA-256"),
            ("readPreference=hunter2", "`readPreference`", "secondaryPreferred"),
            (
                "tls=true&tlsCertificateKeyFilePassword=hunter2",
                "tlscertificatekeyfilepassword",
                "openssl pkey",
            ),
            ("tls=true&tlsAllowInvalidHostnames=true", "tlsallowinvalidhostnames", "certificate"),
            ("tlsCRLFile=/x", "tlscrlfile", "leave it out"),
        ] {
            let error = refuse(&format!("mongodb://ann:hunter2@host/db?{options}")).expect_err(options);
            let said = error.help.as_deref().unwrap_or_default();
            assert!(error.what.contains(what) && said.contains(help), "{options}: {error:?}");
            assert!(error.kind == Kind::Unsuitable && !format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        for options in
            ["", "compressors=zstd", "compressors=Snappy,zstd&tls=true", "authMechanism=SCRAM-SHA-1"]
        {
            refuse(&format!("mongodb://ann:x@host/db?{options}")).expect(options);
        }
    }
}
