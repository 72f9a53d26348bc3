//! Certificates for tests, made by `openssl`.

use std::path::{Path, PathBuf};

use tokio::process::Command;

/// Somebody who signs certificates; its files are in a folder of its own.
pub(crate) struct Authority {
    folder: PathBuf,
}

/// What a certificate is to be like.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// The common name.
    pub(crate) name: &'a str,
    /// Extensions, one a line. Without any it is a certificate of the first version.
    pub(crate) extensions: &'a str,
    pub(crate) days: i32,
    /// For `openssl genpkey`.
    pub(crate) key: &'a [&'a str],
}

pub(crate) const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
pub(crate) const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
#[allow(dead_code, reason = "each test binary uses a part")]
pub(crate) const ED25519: &[&str] = &["-algorithm", "ED25519"];
pub(crate) const LOCAL: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1";

impl<'a> Wish<'a> {
    pub(crate) fn named(name: &'a str, extensions: &'a str) -> Self {
        Self { name, extensions, days: 2, key: P256 }
    }
}

/// Files of a certificate and its key.
pub(crate) struct Issued {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

#[allow(dead_code, reason = "each test binary uses a part")]
impl Issued {
    pub(crate) fn parameters(&self) -> String {
        format!("sslcert={}&sslkey={}", self.certificate.display(), self.key.display())
    }

    /// Certificate and key in one file, as MongoDB wants them.
    pub(crate) fn together(&self) -> PathBuf {
        let both = [&self.certificate, &self.key].map(|file| std::fs::read(file).expect("a file")).concat();
        let file = self.certificate.with_extension("both");
        std::fs::write(&file, both).expect("a file");
        file
    }
}

async fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().await;
    let output = output.expect("openssl is installed");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[allow(dead_code, reason = "each test binary uses a part")]
impl Authority {
    /// A new one, in a folder below this one.
    pub(crate) async fn new(above: &Path, name: &str) -> Self {
        let folder = above.join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let subject = format!("/CN={name}");
        openssl(&folder, &["genpkey", "-algorithm", "RSA", "-out", "ca.key"]).await;
        openssl(
            &folder,
            &["req", "-x509", "-new", "-key", "ca.key", "-subj", &subject, "-days", "3", "-out", "ca.pem"],
        )
        .await;
        std::fs::write(folder.join("index.txt"), "").expect("a file");
        std::fs::write(folder.join("number"), "01").expect("a file");
        let settings = "[ca]\ndefault_ca=this\n[this]\ndatabase=index.txt\ncrlnumber=number\ndefault_md=sha256\n\
            default_crl_days=2\nprivate_key=ca.key\ncertificate=ca.pem\n";
        std::fs::write(folder.join("ca.conf"), settings).expect("a file");
        Self { folder }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Signs a certificate; `file` is the name of its files.
    pub(crate) async fn issue(&self, file: &str, wish: Wish<'_>) -> Issued {
        let folder = &self.folder;
        let (key, request, certificate) =
            (format!("{file}.key"), format!("{file}.csr"), format!("{file}.pem"));
        let (subject, days) = (format!("/CN={}", wish.name), wish.days.to_string());
        let mut making = vec!["genpkey", "-out", &key];
        making.extend(wish.key);
        openssl(folder, &making).await;
        openssl(folder, &["req", "-new", "-key", &key, "-subj", &subject, "-out", &request]).await;
        let mut signing =
            vec!["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        signing.extend(["-days", &days, "-out", &certificate]);
        let extensions = format!("{file}.ext");
        if !wish.extensions.is_empty() {
            std::fs::write(folder.join(&extensions), wish.extensions).expect("a file");
            signing.extend(["-extfile", &extensions]);
        }
        openssl(folder, &signing).await;
        Issued { certificate: folder.join(certificate), key: folder.join(key) }
    }

    /// Signs a certificate that ends so many seconds from now: servers that look at their own do not start with one that has ended.
    pub(crate) async fn issue_for(&self, file: &str, wish: Wish<'_>, seconds: u32) -> Issued {
        let issued = self.issue(file, wish).await;
        let (request, certificate) = (format!("{file}.csr"), format!("{file}.pem"));
        let settings = "[ca]\ndefault_ca=this\n[this]\ndatabase=index.txt\nnew_certs_dir=.\nserial=serial\ndefault_md=sha256\n\
            private_key=ca.key\ncertificate=ca.pem\nunique_subject=no\npolicy=any\n[any]\ncommonName=supplied\n";
        std::fs::write(self.folder.join("until.conf"), settings).expect("a file");
        std::fs::write(self.folder.join("serial"), "1000").expect("a file");
        let end = Command::new("date")
            .args(["-u", "-d", &format!("+{seconds} seconds"), "+%Y%m%d%H%M%SZ"])
            .output()
            .await;
        let end = String::from_utf8(end.expect("`date` is there").stdout).expect("text");
        let extensions = format!("{file}.ext");
        openssl(
            &self.folder,
            &[
                "ca",
                "-batch",
                "-notext",
                "-config",
                "until.conf",
                "-in",
                &request,
                "-out",
                &certificate,
                "-extfile",
                &extensions,
                "-enddate",
                end.trim(),
            ],
        )
        .await;
        issued
    }

    /// A certificate that has signed itself.
    pub(crate) async fn alone(&self, file: &str, name: &str, kind: &[&str]) -> Issued {
        let (key, certificate) = (format!("{file}.key"), format!("{file}.pem"));
        let subject = format!("/CN={name}");
        openssl(&self.folder, &[&["genpkey", "-out", &key], kind].concat()).await;
        openssl(
            &self.folder,
            &["req", "-x509", "-new", "-key", &key, "-subj", &subject, "-days", "2", "-out", &certificate],
        )
        .await;
        Issued { certificate: self.folder.join(certificate), key: self.folder.join(key) }
    }

    /// Another authority that this one has signed.
    pub(crate) async fn below(&self, name: &str) -> Self {
        let extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign";
        let signed = self.issue(name, Wish { key: RSA, ..Wish::named(name, extensions) }).await;
        let below = Self::new(&self.folder, &format!("{name}_folder")).await;
        std::fs::copy(signed.certificate, below.folder.join("ca.pem")).expect("copied");
        std::fs::copy(signed.key, below.folder.join("ca.key")).expect("copied");
        below
    }

    /// The list of revoked certificates, with this one in it.
    pub(crate) async fn revoke(&self, issued: &Issued) -> PathBuf {
        let certificate = issued.certificate.to_str().expect("a path in UTF-8");
        openssl(&self.folder, &["ca", "-config", "ca.conf", "-revoke", certificate]).await;
        openssl(&self.folder, &["ca", "-config", "ca.conf", "-gencrl", "-out", "revoked.pem"]).await;
        self.folder.join("revoked.pem")
    }

    /// The key with a password.
    pub(crate) async fn locked(&self, issued: &Issued) -> PathBuf {
        let key = issued.key.to_str().expect("a path in UTF-8");
        let arguments = ["pkey", "-in", key, "-aes256", "-passout", "pass:a-secret", "-out", "locked.key"];
        openssl(&self.folder, &arguments).await;
        self.folder.join("locked.key")
    }
}
