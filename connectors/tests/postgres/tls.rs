//! What `sslmode` and its companions mean, against a real server in each situation that people have.

use std::fmt::Write as _;
use std::path::Path;

use slackwater_connectors::error::Kind;
use slackwater_connectors::postgres::client::{Verified, look};
use slackwater_connectors::secret::Secret;

use super::authority::{Authority, ED25519, Issued, LOCAL, RSA, Wish};
use super::target::Target;

const LETS_IN: &str = "\
hostssl all only_tls 127.0.0.1/32 scram-sha-256
hostnossl all only_plain 127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
hostssl all twofold 127.0.0.1/32 scram-sha-256 clientcert=verify-ca
host all old 127.0.0.1/32 md5
host all app,sleeper,nobody 127.0.0.1/32 scram-sha-256
host all trusted,stranger 127.0.0.1/32 trust
";

const ROLES: &str = "
    CREATE ROLE app LOGIN PASSWORD 'a-secret';
    CREATE ROLE only_tls LOGIN PASSWORD 'a-secret';
    CREATE ROLE only_plain LOGIN PASSWORD 'a-secret';
    CREATE ROLE twofold LOGIN PASSWORD 'a-secret';
    CREATE ROLE certified LOGIN;
    CREATE ROLE sleeper NOLOGIN PASSWORD 'a-secret';
    SET password_encryption = md5;
    CREATE ROLE old LOGIN PASSWORD 'a-secret';
";

/// A server with its certificates, and those of others.
struct Scene {
    target: Target,
    authority: Authority,
    /// One that has signed nothing of this server.
    stranger: Authority,
}

/// What came of it: who answered by which means, or the error with its text and remedy.
#[derive(Debug)]
enum Outcome {
    In(Option<&'static str>, Verified),
    Out(Kind, String),
}

impl Scene {
    async fn new(name: &str) -> Self {
        let target = Target::start(name).await;
        let authority = Authority::new(target.folder(), "authority").await;
        let stranger = Authority::new(target.folder(), "stranger").await;
        target.sql(ROLES).await;
        target.lets_in(LETS_IN);
        let scene = Self { target, authority, stranger };
        let issued = scene.authority.issue("server", Wish::named("localhost", LOCAL)).await;
        scene.serves(&issued, &[("ssl", "on")]).await;
        scene
    }

    /// The server has this certificate from now on.
    async fn serves(&self, issued: &Issued, settings: &[(&str, &str)]) {
        let read = |path: &Path| std::fs::read(path).expect("a file");
        self.serves_bytes(&read(&issued.certificate), &read(&issued.key), settings).await;
    }

    async fn serves_bytes(&self, certificate: &[u8], key: &[u8], settings: &[(&str, &str)]) {
        self.target.file("data/server.crt", certificate);
        self.target.file("data/server.key", key);
        self.target.file("data/ca.crt", &std::fs::read(self.authority.file()).expect("a file"));
        let all: Vec<_> = settings.iter().copied().chain([("ssl_ca_file", "ca.crt")]).collect();
        self.target.reload(&all).await;
    }

    fn ca(&self) -> String {
        format!("sslrootcert={}", self.authority.file().display())
    }

    fn other_ca(&self) -> String {
        format!("sslrootcert={}", self.stranger.file().display())
    }

    async fn connect(&self, who: &str, host: &str, parameters: &str) -> Outcome {
        let port = self.target.port();
        self.ask(&format!("postgres://{who}@{host}:{port}/postgres?{parameters}")).await
    }

    async fn ask(&self, url: &str) -> Outcome {
        match look(&Secret::new(url)).await {
            Ok(server) => Outcome::In(server.tls, server.verified),
            Err(error) => {
                let shown = format!("{error} {error:?}");
                assert!(!shown.contains("a-secret") && !shown.contains("wrong-one"), "{shown}");
                Outcome::Out(error.kind, format!("{error}\n    {}", error.help.as_deref().unwrap_or("-")))
            }
        }
    }

    /// `app` gets in from `host`, by these means.
    async fn lets(&self, host: &str, parameters: &str, tls: bool, verified: Verified) {
        let outcome = self.connect("app:a-secret", host, parameters).await;
        match outcome {
            Outcome::In(found, sure) if found.is_some() == tls && sure == verified => {}
            other => panic!("{host} {parameters}: {other:?}"),
        }
    }

    /// Nobody gets in, and the reason has these words, besides the place and the user.
    async fn refuses(&self, who: &str, host: &str, parameters: &str, words: &[&str]) {
        let outcome = self.connect(who, host, parameters).await;
        let Outcome::Out(kind, text) = outcome else { panic!("{who} {host} {parameters}: {outcome:?}") };
        assert_eq!(kind, Kind::Denied, "{text}");
        let user = who.split(':').next().unwrap_or_default();
        let place = format!("{host}:{}, database postgres, user {user}", self.target.port());
        println!("{text}");
        for word in words.iter().copied().chain([place.as_str()]) {
            assert!(text.contains(word), "{who} {host} {parameters}: no `{word}` in {text}");
        }
    }
}

const APP: &str = "app:a-secret";

#[tokio::test(flavor = "multi_thread")]
async fn every_mode_against_a_server_with_tls() {
    let scene = Scene::new("tls_modes").await;
    let (ca, other) = (scene.ca(), scene.other_ca());
    use Verified::{Authority as Signed, AuthorityAndName as Named, Nothing};
    for (parameters, tls, verified) in [
        ("", true, Nothing),
        ("sslmode=disable", false, Nothing),
        ("sslmode=allow", false, Nothing),
        ("sslmode=prefer", true, Nothing),
        ("sslmode=require", true, Nothing),
        (&*format!("sslmode=prefer&{ca}"), true, Signed),
        (&*format!("sslmode=require&{ca}"), true, Signed),
        (&*format!("sslmode=verify-ca&{ca}"), true, Signed),
        (&*format!("sslmode=verify-full&{ca}"), true, Named),
        ("channel_binding=require", true, Nothing),
        (&*format!("sslmode=verify-full&channel_binding=require&{ca}"), true, Named),
        (&*format!("sslmode=verify-full&channel_binding=disable&{ca}"), true, Named),
    ] {
        scene.lets("localhost", parameters, tls, verified).await;
        scene.lets("127.0.0.1", parameters, tls, verified).await;
    }
    // Roots that have not signed it: never, and never without TLS in their place.
    for mode in ["prefer", "require", "verify-ca", "verify-full"] {
        let parameters = format!("sslmode={mode}&{other}");
        scene
            .refuses(APP, "localhost", &parameters, &["was not signed by an authority", "sslrootcert"])
            .await;
    }
    scene
        .refuses(
            APP,
            "localhost",
            "sslmode=verify-full&sslrootcert=system",
            &["was not signed by an authority"],
        )
        .await;
    let nothing = format!(
        "sslmode=verify-full&sslrootcert={}",
        scene.authority.file().with_file_name("ca.key").display()
    );
    scene.refuses(APP, "localhost", &nothing, &["holds no certificate", "ca.key"]).await;

    // The newest version that the server allows.
    scene.target.reload(&[("ssl_max_protocol_version", "TLSv1.2")]).await;
    let outcome =
        scene.connect(APP, "localhost", &format!("sslmode=verify-full&channel_binding=require&{ca}")).await;
    assert!(matches!(outcome, Outcome::In(Some("TLS 1.2"), Verified::AuthorityAndName)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls() {
    let scene = Scene::new("tls_off").await;
    let ca = scene.ca();
    scene.target.reload(&[("ssl", "off")]).await;
    for parameters in
        ["", "sslmode=disable", "sslmode=allow", "sslmode=prefer", &*format!("sslmode=prefer&{ca}")]
    {
        scene.lets("localhost", parameters, false, Verified::Nothing).await;
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        let parameters = format!("sslmode={mode}&{ca}");
        scene.refuses(APP, "localhost", &parameters, &["does not speak TLS", "turn `ssl` on"]).await;
    }
    scene.refuses(APP, "localhost", "sslmode=require", &["does not speak TLS", "sslmode=require"]).await;
    // A password that is not bound to a connection is not sent.
    scene.refuses(APP, "localhost", "channel_binding=require", &["channel_binding=require"]).await;
    scene.refuses("only_tls:a-secret", "localhost", "", &["only with TLS, or not at all"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_every_kind() {
    let scene = Scene::new("tls_kinds").await;
    let (ca, other) = (scene.ca(), scene.other_ca());
    let full = format!("sslmode=verify-full&{ca}");
    let signed = format!("sslmode=verify-ca&{ca}");
    use Verified::{Authority as Signed, AuthorityAndName as Named, Nothing};

    let expired =
        scene.authority.issue("expired", Wish { days: -1, ..Wish::named("localhost", LOCAL) }).await;
    scene.serves(&expired, &[]).await;
    scene.refuses(APP, "localhost", &full, &["has expired"]).await;
    scene.refuses(APP, "localhost", &signed, &["has expired"]).await;
    scene.lets("localhost", "sslmode=require", true, Nothing).await;

    let elsewhere = Wish::named("db.example.com", "subjectAltName=DNS:db.example.com");
    scene.serves(&scene.authority.issue("elsewhere", elsewhere).await, &[]).await;
    scene.refuses(APP, "localhost", &full, &["not for localhost, but for db.example.com", "verify-ca"]).await;
    scene.lets("localhost", &signed, true, Signed).await;

    // As the manual of Postgres makes them: the name in the subject only, of version 3 and of version 1.
    let in_subject = Wish::named("localhost", "basicConstraints=CA:FALSE");
    for (file, wish) in [("subject", in_subject), ("first", Wish::named("localhost", ""))] {
        for key in [RSA, super::authority::P256] {
            scene.serves(&scene.authority.issue(file, Wish { key, ..wish }).await, &[]).await;
            for most in ["TLSv1.2", "TLSv1.3"] {
                scene.target.reload(&[("ssl_max_protocol_version", most)]).await;
                scene.lets("localhost", "sslmode=require&channel_binding=require", true, Nothing).await;
                scene.lets("localhost", &signed, true, Signed).await;
                scene.lets("localhost", &full, true, Named).await;
                scene.refuses(APP, "127.0.0.1", &full, &["not for 127.0.0.1"]).await;
                scene
                    .refuses(APP, "localhost", &format!("sslmode=require&{other}"), &["was not signed"])
                    .await;
            }
        }
        let expired = scene.authority.issue(file, Wish { days: -1, ..wish }).await;
        scene.serves(&expired, &[]).await;
        scene.refuses(APP, "localhost", &signed, &["has expired"]).await;
    }

    // A certificate that signs itself is its own root.
    let alone = scene.authority.alone("alone", "localhost", RSA).await;
    scene.serves(&alone, &[]).await;
    let own = format!("sslrootcert={}", alone.certificate.display());
    scene.lets("localhost", &format!("sslmode=verify-full&{own}"), true, Named).await;
    scene.refuses(APP, "localhost", &full, &["was not signed"]).await;

    // Through an authority in between, which the server sends along.
    let between = scene.authority.below("between").await;
    let leaf = between.issue("leaf", Wish::named("localhost", LOCAL)).await;
    scene.serves(&leaf, &[]).await;
    scene.refuses(APP, "localhost", &full, &["was not signed"]).await;
    let mut chain = std::fs::read(&leaf.certificate).expect("a file");
    chain.extend(std::fs::read(between.file()).expect("a file"));
    scene.serves_bytes(&chain, &std::fs::read(&leaf.key).expect("a file"), &[]).await;
    scene.lets("localhost", &full, true, Named).await;

    // How it was signed says how a password is bound to the connection; for Ed25519 that is not defined.
    let bound = format!("{full}&channel_binding=require");
    let ed25519 = Wish { key: ED25519, ..Wish::named("localhost", LOCAL) };
    scene.serves(&scene.authority.issue("ed25519", ed25519).await, &[]).await;
    scene.lets("localhost", &bound, true, Named).await;
    let alone = scene.authority.alone("alone", "localhost", ED25519).await;
    scene.serves(&alone, &[]).await;
    scene.lets("localhost", "channel_binding=prefer", true, Nothing).await;
    scene.refuses(APP, "localhost", "channel_binding=require", &["did not bind"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_clients() {
    let scene = Scene::new("tls_clients").await;
    let ca = scene.ca();
    let client = "extendedKeyUsage=clientAuth";
    let mine = scene.authority.issue("mine", Wish::named("certified", client)).await;
    let theirs = scene.authority.issue("theirs", Wish::named("somebody", client)).await;
    let odd = scene.stranger.issue("odd", Wish::named("certified", client)).await;
    let late = scene.authority.issue("late", Wish { days: -1, ..Wish::named("certified", client) }).await;
    let gone = scene.authority.issue("gone", Wish::named("certified", client)).await;
    let with = |issued: &Issued| format!("sslmode=verify-full&{ca}&{}", issued.parameters());

    for (who, parameters) in [("certified", with(&mine)), ("twofold:a-secret", with(&theirs))] {
        let outcome = scene.connect(who, "localhost", &parameters).await;
        assert!(matches!(outcome, Outcome::In(Some(_), Verified::AuthorityAndName)), "{outcome:?}");
    }
    let full = format!("sslmode=verify-full&{ca}");
    scene.refuses("certified", "localhost", &full, &["wants a client certificate", "sslcert="]).await;
    scene.refuses("twofold:a-secret", "localhost", &full, &["wants a client certificate", "sslcert="]).await;
    scene.refuses("certified", "localhost", &with(&theirs), &["is not one of certified", "pg_ident"]).await;

    let revoked = scene.authority.revoke(&gone).await;
    scene.target.file("data/revoked.crl", &std::fs::read(revoked).expect("a file"));
    scene.target.reload(&[("ssl_crl_file", "revoked.crl")]).await;
    let refused = ["does not accept the client certificate", "sslcert"];
    for issued in [&odd, &late, &gone] {
        scene.refuses("certified", "localhost", &with(issued), &refused).await;
    }
    scene.refuses("certified", "localhost", &with(&gone), &["revoked"]).await;
    scene.refuses("certified", "localhost", &with(&late), &["expired"]).await;
    assert!(matches!(scene.connect("certified", "localhost", &with(&mine)).await, Outcome::In(..)));

    // Files that will not do, and one that is put right without anything else.
    let mixed = Issued { certificate: mine.certificate.clone(), key: theirs.key.clone() };
    scene.refuses("certified", "localhost", &with(&mixed), &["does not belong to the certificate"]).await;
    let locked = Issued { certificate: mine.certificate.clone(), key: scene.authority.locked(&mine).await };
    scene
        .refuses("certified", "localhost", &with(&locked), &["encrypted with a password", "openssl pkey"])
        .await;
    let late = Issued { certificate: mine.certificate.with_file_name("new.pem"), key: mine.key.clone() };
    scene.refuses("certified", "localhost", &with(&late), &["new.pem", "cannot be read"]).await;
    std::fs::copy(&mine.certificate, &late.certificate).expect("copied");
    assert!(matches!(scene.connect("certified", "localhost", &with(&late)).await, Outcome::In(..)));
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_passwords() {
    let scene = Scene::new("tls_users").await;
    for (who, parameters, words) in [
        ("app:wrong-one", "", &["password of app is not accepted"][..]),
        ("app:wrong-one", "sslmode=disable", &["password of app is not accepted"]),
        ("app", "", &["asks for a password", "has none"]),
        ("nobody:a-secret", "", &["password of nobody is not accepted"]),
        ("sleeper:a-secret", "", &["the role sleeper may not log in", "ALTER ROLE \"sleeper\" LOGIN"]),
        ("stranger", "", &["there is no role stranger", "CREATE ROLE"]),
        ("only_tls:a-secret", "sslmode=disable", &["only with TLS", "sslmode=verify-full"]),
        ("only_plain:a-secret", "sslmode=require", &["pg_hba.conf"]),
        ("unlisted:a-secret", "", &["pg_hba.conf"]),
        ("old:a-secret", "channel_binding=require", &["channel_binding=require", "scram-sha-256"]),
        ("trusted", "channel_binding=require", &["channel_binding=require"]),
    ] {
        scene.refuses(who, "127.0.0.1", parameters, words).await;
    }
    // A line for one of the two is found in the other way round.
    for (who, parameters, tls) in [
        ("only_tls:a-secret", "", true),
        ("only_tls:a-secret", "sslmode=allow", true),
        ("only_plain:a-secret", "", false),
        ("only_plain:a-secret", "sslmode=prefer", false),
        ("old:a-secret", "", true),
    ] {
        let outcome = scene.connect(who, "127.0.0.1", parameters).await;
        assert!(
            matches!(outcome, Outcome::In(found, _) if found.is_some() == tls),
            "{who} {parameters}: {outcome:?}"
        );
    }
    scene.target.sql("CREATE DATABASE closed").await;
    scene.target.sql("REVOKE CONNECT ON DATABASE closed FROM public").await;
    let port = scene.target.port();
    for (database, words) in [("missing", "no such database"), ("closed", "may not connect to this database")]
    {
        let outcome = scene.ask(&format!("postgres://app:a-secret@127.0.0.1:{port}/{database}")).await;
        let Outcome::Out(Kind::Denied, text) = outcome else { panic!("{database}: {outcome:?}") };
        assert!(text.contains(words) && text.contains(&format!("database {database}")), "{text}");
    }
    let full = "ALTER ROLE app CONNECTION LIMIT 0";
    scene.target.sql(full).await;
    let Outcome::Out(Kind::Exhausted, text) = scene.connect(APP, "127.0.0.1", "").await else {
        panic!("{full}")
    };
    assert!(text.contains("user app"), "{text}");
}

/// Ports where nobody listens, or where somebody does who never says a word, keep nobody waiting.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_and_the_silent() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = silent.local_addr().expect("an address").port();
    for (url, words) in [
        ("postgres://u:a-secret@127.0.0.1:1/db".to_owned(), "nobody listens there"),
        ("postgres://u:a-secret@no-such-host.invalid:1/db".into(), "name of the host is not known"),
        (format!("postgres://u:a-secret@127.0.0.1:{port}/db?connect_timeout=1"), "no answer in time"),
        (
            format!("postgres://u:a-secret@127.0.0.1:{port}/db?connect_timeout=1&sslmode=disable"),
            "no answer in time",
        ),
        ("postgres://u:a-secret@%2Fno%2Fsuch/db".into(), "no such socket"),
    ] {
        let error = look(&Secret::new(url)).await.expect_err("nobody");
        assert!(error.kind == Kind::Unreachable && error.what.contains(words), "{error}");
        assert!(error.doing.contains("database db, user u"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_hosts() {
    let mut primary = Target::start("hosts_primary").await;
    let standby = primary.standby("hosts_standby").await;
    let (first, second) = (primary.port(), standby.port());
    let to = |hosts: &[u16], parameters: &str| {
        let mut url = "postgres://slackwater@".to_owned();
        for (place, port) in hosts.iter().enumerate() {
            let _ = write!(url, "{}127.0.0.1:{port}", if place == 0 { "" } else { "," });
        }
        Secret::new(format!("{url}/postgres?{parameters}"))
    };
    for (hosts, parameters, expected) in [
        (&[1, second, first][..], "target_session_attrs=read-write", first),
        (&[second, first], "target_session_attrs=primary", first),
        (&[1, first, second], "", first),
        (&[first, second], "target_session_attrs=any", first),
    ] {
        let server = look(&to(hosts, parameters)).await.expect("one of them will do");
        assert_eq!(server.port, expected, "{hosts:?} {parameters}");
    }
    let standby_only =
        look(&to(&[1, second, first], "")).await.expect_err("any will do, and the first is a standby");
    assert!(standby_only.what.contains("it is a standby"), "{standby_only}");
    let nobody = look(&to(&[1, second], "target_session_attrs=read-write")).await.expect_err("no primary");
    assert_eq!(nobody.kind, Kind::Unreachable, "{nobody}");
    let text = nobody.to_string();
    for word in ["127.0.0.1:1: nobody listens there", "takes no writes", &second.to_string()] {
        assert!(text.contains(word), "{text}");
    }
    // A primary that is read-only by a setting is no better.
    primary.reload(&[("default_transaction_read_only", "on")]).await;
    look(&to(&[first, second], "target_session_attrs=read-write")).await.expect_err("read-only");
    primary.stop().await;
    standby.promote().await;
    let server = look(&to(&[first, second], "target_session_attrs=read-write")).await.expect("promoted");
    assert_eq!(server.port, second);
}
