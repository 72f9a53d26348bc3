//! TLS, users and compression on real servers: what works, and that each refusal says why and what to do.

use std::path::{Path, PathBuf};

use bson::doc;
use mongodb::Database;
use slackwater_connectors::error::Kind;
use slackwater_connectors::mongodb::{Mongo, Presence, Server, Start};
use slackwater_connectors::secret::Secret;
use slackwater_topics::{CollectionId, Moment, Range};

use crate::authority::{Authority, Issued, LOCAL, Wish};
use crate::server::{Mongod, variable};

const CLIENT: &str = "extendedKeyUsage=clientAuth";

async fn ask(uri: &str) -> Result<Server, slackwater_connectors::error::Error> {
    Mongo::connect(&Secret::new(uri), "x").await?.server().await
}

async fn lets(uri: &str) -> Server {
    ask(uri).await.unwrap_or_else(|error| panic!("{uri}: {error} {:?}", error.help))
}

/// Refused for a person to mend, with these words, and with no word of a secret.
async fn refuses(uri: &str, words: &[&str]) {
    let error = ask(uri).await.expect_err(uri);
    let text = format!("{error}; {}", error.help.as_deref().unwrap_or_default());
    assert!(matches!(error.kind, Kind::Denied | Kind::Unsuitable), "{uri}: {:?} {text}", error.kind);
    for word in words {
        assert!(text.contains(word), "{uri} does not say `{word}`: {text}");
    }
    assert!(!format!("{text} {error:?}").contains("a-secret"), "{text}");
}

/// Authorities and a folder for their files.
struct Papers {
    folder: PathBuf,
    authority: Authority,
    stranger: Authority,
}

impl Papers {
    async fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("slackwater_mongo_{name}_{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (authority, stranger) =
            (Authority::new(&folder, "authority").await, Authority::new(&folder, "stranger").await);
        Self { folder, authority, stranger }
    }

    fn ca(&self) -> String {
        format!("tls=true&tlsCAFile={}", self.authority.file().display())
    }

    async fn local(&self) -> Issued {
        self.authority.issue("server", Wish::named("localhost", LOCAL)).await
    }
}

impl Drop for Papers {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Speaks TLS to those who want it.
fn shows<'a>(certificate: &'a Path, root: &'a Path) -> [&'a str; 7] {
    [
        "--tlsMode",
        "preferTLS",
        "--tlsCertificateKeyFile",
        text(certificate),
        "--tlsCAFile",
        text(root),
        "--tlsAllowConnectionsWithoutCertificates",
    ]
}

/// A replica set that speaks TLS to those who want it, and asks who they are.
struct Scene {
    papers: Papers,
    mongod: Mongod,
    certificate: PathBuf,
    admin: Database,
}

impl Scene {
    async fn new(name: &str) -> Self {
        let papers = Papers::new(name).await;
        let (certificate, root) = (papers.folder.join("shown.pem"), papers.authority.file());
        std::fs::copy(papers.local().await.together(), &certificate).expect("copied");
        let key = papers.folder.join("key");
        std::fs::write(&key, "c2xhY2t3YXRlcg==").expect("a key file");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&key, private).expect("rights");
        let mechanisms = "authenticationMechanisms=SCRAM-SHA-1,SCRAM-SHA-256,MONGODB-X509";
        let own = ["--keyFile", text(&key), "--setParameter", mechanisms];
        let mongod = Mongod::replica_set(&[&own[..], &shows(&certificate, &root)].concat()).await;
        let first = mongod.client(&mongod.uri()).await.database("admin");
        let create = doc! {"createUser": "root", "pwd": "a-secret", "roles": ["root"]};
        first.run_command(create).await.expect("the first user is let in from this machine");
        let uri = format!("mongodb://root:a-secret@127.0.0.1:{}/?replicaSet=own", mongod.port);
        let admin = mongod.client(&uri).await.database("admin");
        let scene = Self { papers, mongod, certificate, admin };
        scene.user("admin", "app", "a-secret", &["SCRAM-SHA-1", "SCRAM-SHA-256"]).await;
        scene
    }

    async fn user(&self, database: &str, name: &str, password: &str, mechanisms: &[&str]) {
        let role = doc! {"role": "read", "db": "x"};
        let create = doc! {"createUser": name, "pwd": password, "roles": [role], "mechanisms": mechanisms};
        self.admin.client().database(database).run_command(create).await.expect("a user");
    }

    /// With the user and password as they stand there.
    fn uri(&self, who: &str, parameters: &str) -> String {
        let who = if who.is_empty() { String::new() } else { format!("{who}@") };
        let more = if parameters.is_empty() { String::new() } else { format!("&{parameters}") };
        format!("mongodb://{who}127.0.0.1:{}/?replicaSet=own{more}", self.mongod.port)
    }

    /// It shows another certificate from now on.
    async fn shows(&self, issued: &Issued) {
        std::fs::copy(issued.together(), &self.certificate).expect("copied");
        self.admin.run_command(doc! {"rotateCertificates": 1}).await.expect("it takes another certificate");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_the_server() {
    let scene = Scene::new("servers").await;
    let ca = scene.papers.ca();
    let server = lets(&scene.uri("app:a-secret", &ca)).await;
    assert!(server.tls && server.verified && server.is_local, "{server:?}");
    assert_eq!(server.user.as_deref(), Some("app"));
    assert_eq!(server.mechanism.as_deref(), Some("SCRAM-SHA-256"));
    let server = lets(&scene.uri("app:a-secret", "tls=true&tlsAllowInvalidCertificates=true")).await;
    assert!(server.tls && !server.verified);
    let server = lets(&scene.uri("app:a-secret", "")).await;
    assert!(!server.tls && server.to_string().contains("user app by SCRAM-SHA-256, not encrypted"));

    let other = format!("tls=true&tlsCAFile={}", scene.papers.stranger.file().display());
    let unknown = ["is signed by an authority that we do not know", "tlsCAFile"];
    refuses(&scene.uri("app:a-secret", &other), &unknown).await;
    refuses(&scene.uri("app:a-secret", "tls=true"), &unknown).await;
    refuses(
        &scene.uri("app:a-secret", "tls=true&tlsCAFile=/no/such.pem"),
        &["/no/such.pem", "cannot be read"],
    )
    .await;
    let key = scene.papers.authority.file().with_file_name("ca.key");
    let nothing = format!("tls=true&tlsCAFile={}", key.display());
    refuses(&scene.uri("app:a-secret", &nothing), &["ca.key", "holds no certificate"]).await;

    let elsewhere = Wish::named("db.example.com", "subjectAltName=DNS:db.example.com");
    scene.shows(&scene.papers.authority.issue("elsewhere", elsewhere).await).await;
    refuses(&scene.uri("app:a-secret", &ca), &["another host name", "use the name that it has"]).await;
    // Without a name of its own kind, and of the first version: what `openssl x509 -req` makes unless it is told otherwise.
    scene.shows(&scene.papers.authority.issue("first", Wish::named("127.0.0.1", "")).await).await;
    refuses(&scene.uri("app:a-secret", &ca), &["version 1", "subjectAltName"]).await;
    scene.shows(&scene.papers.local().await).await;
    lets(&scene.uri("app:a-secret", &ca)).await;

    scene.admin.run_command(doc! {"setParameter": 1, "tlsMode": "requireTLS"}).await.expect("TLS only");
    refuses(&scene.uri("app:a-secret", ""), &["speaks TLS only", "add `tls=true`"]).await;
    lets(&scene.uri("app:a-secret", &ca)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_without_tls() {
    let uri = variable("SLACKWATER_MONGODB_URI");
    let papers = Papers::new("without").await;
    refuses(&format!("{uri}&{}", papers.ca()), &["does not speak TLS", "take `tls` out"]).await;
    refuses(&format!("{uri}&tls=true"), &["does not speak TLS", "net.tls.mode"]).await;
    let server = lets(&uri).await;
    assert!(server.user.is_none() && server.mechanism.is_none() && !server.tls, "{server:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends() {
    let papers = Papers::new("ends").await;
    let issued = papers.authority.issue_for("ends", Wish::named("localhost", LOCAL), 8).await;
    let (certificate, root) = (issued.together(), papers.authority.file());
    let mongod = Mongod::start(&shows(&certificate, &root));
    mongod.client(&mongod.direct()).await;
    let uri = format!("{}&{}", mongod.direct(), papers.ca());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while ask(&uri).await.is_ok() {
        assert!(std::time::Instant::now() < deadline, "its certificate does not end");
    }
    refuses(&uri, &["has expired", "renew it"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_clients() {
    let scene = Scene::new("clients").await;
    let ca = scene.papers.ca();
    let authority = &scene.papers.authority;
    let mine = authority.issue("mine", Wish::named("certified", CLIENT)).await;
    let role = doc! {"role": "read", "db": "x"};
    let create = doc! {"createUser": "CN=certified", "roles": [role]};
    scene.admin.client().database("$external").run_command(create).await.expect("a user");
    let with = |issued: &Issued| format!("{ca}&tlsCertificateKeyFile={}", issued.together().display());
    let by = |issued: &Issued| format!("{}&authMechanism=MONGODB-X509", with(issued));

    let server = lets(&scene.uri("", &by(&mine))).await;
    assert_eq!(
        (server.user.as_deref(), server.mechanism.as_deref()),
        (Some("CN=certified"), Some("MONGODB-X509"))
    );
    lets(&scene.uri("app:a-secret", &with(&mine))).await;
    let theirs = authority.issue("theirs", Wish::named("somebody", CLIENT)).await;
    refuses(&scene.uri("", &by(&theirs)), &["knows no user with the subject", "$external", "openssl x509"])
        .await;
    refuses(&scene.uri("", &format!("{ca}&authMechanism=MONGODB-X509")), &["tlsCertificateKeyFile"]).await;
    let mixed = Issued { certificate: mine.certificate.clone(), key: theirs.key.clone() };
    refuses(&scene.uri("", &by(&mixed)), &["does not belong to the certificate"]).await;
    let locked = Issued { certificate: mine.certificate.clone(), key: authority.locked(&mine).await };
    refuses(&scene.uri("", &by(&locked)), &["encrypted with a password", "openssl pkey"]).await;

    // A server that lets nobody in without a certificate.
    let (certificate, root) = (scene.papers.local().await.together(), authority.file());
    let gone = authority.issue("gone", Wish::named("gone", CLIENT)).await;
    let mutual = Mongod::start(&[
        "--tlsMode",
        "preferTLS",
        "--tlsCertificateKeyFile",
        text(&certificate),
        "--tlsCAFile",
        text(&root),
        "--tlsCRLFile",
        text(&authority.revoke(&gone).await),
    ]);
    mutual.client(&mutual.direct()).await;
    let uri = |parameters: &str| format!("{}&{parameters}", mutual.direct());
    lets(&uri(&with(&mine))).await;
    refuses(&uri(&ca), &["asks for a client certificate", "tlsCertificateKeyFile"]).await;
    let odd = scene.papers.stranger.issue("odd", Wish::named("certified", CLIENT)).await;
    let late = authority.issue("late", Wish { days: -1, ..Wish::named("certified", CLIENT) }).await;
    // It does not say why.
    for issued in [&odd, &late, &gone] {
        refuses(&uri(&with(issued)), &["does not accept our client certificate", "expired", "revoked"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_mechanisms() {
    let scene = Scene::new("users").await;
    scene.user("admin", "old", "a-secret", &["SCRAM-SHA-1"]).await;
    scene.user("x", "local", "a-secret", &["SCRAM-SHA-256"]).await;
    scene.user("x", "locold", "a-secret", &["SCRAM-SHA-1"]).await;
    for (who, parameters, mechanism) in [
        ("app", "", "SCRAM-SHA-256"),
        ("app", "authMechanism=SCRAM-SHA-256", "SCRAM-SHA-256"),
        ("app", "authMechanism=SCRAM-SHA-1", "SCRAM-SHA-1"),
        ("old", "", "SCRAM-SHA-1"),
        ("local", "authSource=x", "SCRAM-SHA-256"),
        ("locold", "authSource=x", "SCRAM-SHA-1"),
    ] {
        let server = lets(&scene.uri(&format!("{who}:a-secret"), parameters)).await;
        assert_eq!(server.mechanism.as_deref(), Some(mechanism), "{who} {parameters}");
        assert_eq!(server.user.as_deref(), Some(who));
    }
    for (who, parameters, words) in [
        ("app:a-secret-no", "", ["does not let app in", "the password is not right"]),
        ("nobody:a-secret", "", ["does not let nobody in", "has no such user"]),
        ("local:a-secret", "", ["admin has no such user", "authSource="]),
        (
            "local:a-secret-no",
            "authSource=x",
            ["does not let local in by SCRAM-SHA-256", "x has no such user"],
        ),
        (
            "old:a-secret",
            "authMechanism=SCRAM-SHA-256",
            ["does not let old in by SCRAM-SHA-256", "authSource="],
        ),
        ("app:a-secret", "authMechanism=GSSAPI", ["`authMechanism`", "SCRAM-SHA-256"]),
    ] {
        refuses(&scene.uri(who, parameters), &words).await;
    }
    // Who says nothing is let in, and may do nothing.
    let nobody = Mongo::connect(&Secret::new(scene.uri("", "")), "x").await.expect("a connection");
    assert_eq!(nobody.server().await.expect("it answers").user, None);
    let error = nobody.read_chunk("a", &Range::all(), Moment::default(), 1).await.expect_err("denied");
    assert!(error.kind == Kind::Denied && error.what.contains("asks for a user"), "{error}");

    // A role that is taken away.
    let app = Mongo::connect(&Secret::new(scene.uri("app:a-secret", "")), "x").await.expect("a connection");
    let x = scene.admin.client().database("x");
    x.collection("a").insert_one(doc! {"_id": 1}).await.expect("inserted");
    let facts = app.preflight(&["a".into()]).await.expect("facts");
    assert!(
        facts.no_change_stream.is_none() && matches!(facts.collections[0].presence, Presence::Present(_))
    );
    let revoke = doc! {"revokeRolesFromUser": "app", "roles": [{"role": "read", "db": "x"}]};
    scene.admin.run_command(revoke).await.expect("revoked");
    let facts = app.preflight(&["a".into()]).await.expect("facts");
    for error in [facts.no_change_stream.as_ref(), facts.collections[0].unreadable.as_ref()] {
        let error = error.expect("refused");
        assert!(error.kind == Kind::Denied && error.what.contains("role `read`"), "{error}");
    }
    let mut stream = app.stream(Start::At(Moment::of_halves(1, 1)), vec![(CollectionId(0), "a".into())], 1);
    assert_eq!(stream.next().await.expect_err("denied").kind, Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn compressors() {
    let uri = variable("SLACKWATER_MONGODB_URI");
    for (compressors, taken) in [("zstd", "zstd"), ("snappy", "snappy"), ("zstd,snappy", "zstd")] {
        let uri = format!("{uri}&compressors={compressors}");
        let server = lets(&uri).await;
        assert_eq!(server.compression.as_deref(), Some(taken), "{server:?}");
        let scratch = crate::server::Scratch::at(&uri).await;
        let documents = (0..3).map(|n| doc! {"_id": n, "text": "x".repeat(1 << 20)});
        scratch.collection("a").insert_many(documents).await.expect("inserted");
        let now = scratch.mongo.operation_time().await.expect("a time");
        let chunk = scratch.mongo.read_chunk("a", &Range::all(), now, usize::MAX).await.expect("a chunk");
        assert!(chunk.documents.len() == 3 && chunk.bytes > 3 << 20, "{} bytes", chunk.bytes);
    }
    assert_eq!(lets(&uri).await.compression, None);
    refuses(&format!("{uri}&compressors=zlib"), &["`compressors`", "compressors=zstd,snappy"]).await;
}
