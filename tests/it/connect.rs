//! Servers as people have them: with TLS and passwords that change, behind a pooler, one of several.

use std::path::{Path, PathBuf};
use std::process::Output;

use slackwater_migrations::crm_demo::{self, Pace};

use crate::stage::authority::{Authority, LOCAL, Wish};
use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::pooler::Pooler;
use crate::stage::target::Target;
use crate::stage::trial::{CATCH_UP, Load};
use crate::stage::{PATIENCE, Slackwater, Stage, items, number, postgres, state, until, variable};

/// A stage on a Postgres of its own, with one item.
async fn small(name: &str, target: &Target) -> (Stage, PathBuf) {
    let stage = Stage::between(name, &variable("SLACKWATER_MONGODB_URI"), &target.url()).await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..1).await;
    (stage, file)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The command ends with this code and says each of the words.
async fn ends(stage: &Stage, command: &str, file: &Path, code: i32, words: &[&str]) {
    let output = stage.output(&[command, file.to_str().expect("a path in UTF-8")]).await;
    let text = said(&output);
    println!("--- {command}: {}\n{text}", output.status);
    assert_eq!(output.status.code(), Some(code), "{command}: {text}");
    // What is shown at its line in the file is broken into lines, with a frame beside them.
    let flat = text.replace(['│', '×', '⚠'], " ");
    let flat = flat.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(flat.contains(word), "{command} does not say `{word}`:\n{text}");
    }
    assert!(!text.contains("a-secret") && !text.contains("panicked"), "{command}:\n{text}");
}

/// A server with a certificate by `authority`, whose users need a password.
async fn guarded(target: &Target, authority: &Authority, issue: &str) {
    let issued = authority.issue(issue, Wish::named("localhost", LOCAL)).await;
    target.file("data/server.crt", &std::fs::read(issued.certificate).expect("a file"));
    target.file("data/server.key", &std::fs::read(issued.key).expect("a file"));
    target.reload(&[("ssl", "on")]).await;
}

/// What is in force is said, and each refusal has its exit code.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_force_is_said() {
    let target = Target::start("said").await;
    let authority = Authority::new(target.folder(), "authority").await;
    target.sql("CREATE ROLE app SUPERUSER LOGIN PASSWORD 'a-secret'").await;
    target.lets_in("host all app 127.0.0.1/32 scram-sha-256\n");
    guarded(&target, &authority, "server").await;
    let (mut stage, file) = small("said", &target).await;
    let whole = stage.postgres.clone();
    let place = whole.replace("slackwater@127.0.0.1", "app:a-secret@localhost");
    let root = authority.file();
    let root = root.display();
    for (parameters, code, words) in [
        (
            format!("?sslmode=verify-full&sslrootcert={root}"),
            0,
            &["TLS 1.3, certificate and host name verified"][..],
        ),
        ("?sslmode=require".into(), 0, &["TLS 1.3, certificate not verified"]),
        ("?sslmode=disable".into(), 0, &["user app, not encrypted"]),
        ("?sslmode=verify-full".into(), 4, &["whose certificates to trust", "sslrootcert=system"]),
        (
            "?sslmode=verify-full&sslrootcert=system".into(),
            6,
            &["was not signed by an authority", "localhost:"],
        ),
        ("?sslmode=verify-ca&sslrootcert=/no/such.pem".into(), 6, &["/no/such.pem", "help:"]),
        ("?sslcrl=/x".into(), 4, &["sslcrl"]),
    ] {
        stage.postgres = format!("{place}{parameters}");
        ends(&stage, "check", &file, code, words).await;
        if code != 0 {
            ends(&stage, "run", &file, code, words).await;
            ends(&stage, "status", &file, code, words).await;
            assert!(!state::exists(&stage.target).await, "something was written");
        }
    }
    stage.postgres = place.replace("a-secret", "no-secret");
    ends(&stage, "check", &file, 6, &["password of app is not accepted", "help: correct it"]).await;
    stage.postgres = place.replace(&format!(":{}/", target.port()), ":1/");
    ends(&stage, "check", &file, 5, &["localhost:1", "nobody listens there"]).await;

    stage.postgres = format!("{place}?sslmode=verify-full&sslrootcert={root}");
    let mut process = stage.run(&file);
    items::equal(&stage, &mut process, PATIENCE).await;
    assert!(process.said("TLS 1.3, certificate and host name verified"), "{}", process.tail());
    // All of its connections are like that.
    let sql = "SELECT count(*), count(*) FILTER (WHERE s.ssl) FROM pg_stat_activity AS a JOIN pg_stat_ssl AS s USING (pid)
               WHERE a.application_name = 'slackwater'";
    let row = stage.target.query_one(sql, &[]).await.expect("a row");
    let (all, encrypted) = (row.get::<_, i64>(0), row.get::<_, i64>(1));
    assert!(all > 2 && all == encrypted, "{encrypted} of {all} are encrypted");
    process.stop().await;
    stage.clear().await;
}

/// The same for the source.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_force_at_the_source_is_said() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("said_source");
    let _ = std::fs::remove_dir_all(&folder);
    let authority = Authority::new(&folder, "authority").await;
    let stranger = Authority::new(&folder, "stranger").await;
    let certificate = authority.issue("server", Wish::named("localhost", LOCAL)).await.together();
    let root = authority.file();
    let path = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let arguments = [
        "--tlsMode",
        "preferTLS",
        "--tlsCertificateKeyFile",
        &path(&certificate),
        "--tlsCAFile",
        &path(&root),
    ];
    let more = [&arguments[..], &["--tlsAllowConnectionsWithoutCertificates"]].concat();
    let mongod = Mongod::with("said", Flavour::Passwords, &more).await;
    let mut stage = Stage::at("said_source", &mongod.uri()).await;
    let file = items::prepare(&stage).await;
    // So that reading is all that is needed.
    let text =
        std::fs::read_to_string(&file).expect("the file") + "cutover: { deadline: 30s, freeze: by_hand }\n";
    std::fs::write(&file, text).expect("the file");
    items::insert(&stage, 0..1).await;
    let admin = stage.source.client().database("admin");
    let role = bson::doc! {"role": "read", "db": &stage.name};
    let create = bson::doc! {"createUser": "app", "pwd": "a-secret", "roles": [role.clone()]};
    admin.run_command(create).await.expect("a user");
    let place = mongod.uri_as("app", "a-secret");
    let tls = format!("&tls=true&tlsCAFile={}", root.display());
    let other = format!("&tls=true&tlsCAFile={}", stranger.file().display());
    let plain = "user app by SCRAM-SHA-256, not encrypted";
    for (parameters, code, words) in [
        ("", 0, &[plain][..]),
        (&*tls, 0, &["user app by SCRAM-SHA-256, TLS, certificate and host name verified"]),
        (&*format!("{tls}&compressors=zstd"), 0, &["verified, compressed by zstd"]),
        ("&readPreference=secondaryPreferred", 0, &["copied from secondaryPreferred"]),
        (&*other, 6, &["is signed by an authority that we do not know", "`tlsCAFile`"]),
        ("&tls=true&tlsCAFile=/no/such.pem", 6, &["/no/such.pem", "cannot be read"]),
        ("&compressors=zlib", 4, &["`compressors`", "zstd"]),
        ("&authMechanism=GSSAPI", 4, &["`authMechanism`"]),
    ] {
        stage.mongodb = format!("{place}{parameters}");
        ends(&stage, "check", &file, code, words).await;
        if code != 0 {
            ends(&stage, "run", &file, code, words).await;
        }
    }
    stage.mongodb = mongod.uri_as("app", "a-secret-no");
    ends(&stage, "check", &file, 6, &["does not let app in", "admin has no such user", "authSource=…"]).await;
    stage.mongodb = place.replace(&format!(":{}/", mongod.port()), ":1/");
    ends(&stage, "check", &file, 5, &["nothing listens at 127.0.0.1:1"]).await;
    stage.mongodb = format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", mongod.port());
    ends(&stage, "check", &file, 6, &["asks for a user, and the connection string names none"]).await;

    stage.mongodb = format!("{place}{tls}");
    let output = stage.output(&["check", &path(&file), "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let source = &report["source"];
    assert_eq!(source["hosts"], serde_json::json!([format!("127.0.0.1:{}", mongod.port())]), "{source:#}");
    for (key, value) in [("user", "app"), ("mechanism", "SCRAM-SHA-256"), ("read_preference", "primary")] {
        assert_eq!(source[key], value, "{source:#}");
    }
    assert!(
        source["tls"] == true && source["verified"] == true && source["database"] == *stage.name,
        "{source:#}"
    );
    let mut process = stage.run(&file);
    items::equal(&stage, &mut process, PATIENCE).await;
    assert!(process.said("source legacy: MongoDB"), "{}", process.tail());
    assert!(
        process.said("user app by SCRAM-SHA-256, TLS, certificate and host name verified"),
        "{}",
        process.tail()
    );
    process.stop().await;
    let revoke = bson::doc! {"revokeRolesFromUser": "app", "roles": [role]};
    admin.run_command(revoke).await.expect("revoked");
    ends(&stage, "check", &file, 6, &["lacks the right `find`", "`slackwater grants FILE`"]).await;
    ends(&stage, "run", &file, 6, &["refuses us", "role `read`"]).await;
    stage.clear().await;
    let _ = std::fs::remove_dir_all(&folder);
}

/// A pooler that lends sessions out is refused by every command, whatever its order, and nothing of ours is left in its sessions.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_lends_sessions_out() {
    let target = Target::start("lent").await;
    let (mut stage, file) = small("lent", &target).await;
    let straight = stage.postgres.clone();
    for (settings, several) in [
        ("pool_mode = transaction", true),
        ("pool_mode = transaction\nserver_round_robin = 1\nmin_pool_size = 5", true),
        ("pool_mode = transaction\ndefault_pool_size = 1", false),
        ("pool_mode = statement", false),
    ] {
        let pooler = Pooler::start(&target, settings).await;
        let url = pooler.before(&target, &straight);
        stage.postgres = url.clone();
        println!("{settings}");
        // Others use the pool, too.
        let crowd: Vec<_> = (0..if several { 6 } else { 0 })
            .map(|_| {
                let url = url.clone();
                tokio::spawn(async move {
                    let client = postgres(&url).await;
                    loop {
                        client.simple_query("SELECT pg_sleep(0.002)").await.expect("the pool works");
                    }
                })
            })
            .collect();
        for command in ["check", "run", "status", "cutover"] {
            ends(&stage, command, &file, 4, &["a pooler is in between", "pool_mode=session"]).await;
        }
        crowd.iter().for_each(tokio::task::JoinHandle::abort);
        let others: Vec<_> = futures_util::future::join_all((0..8).map(|_| postgres(&url))).await;
        for client in &others {
            let sql = "SELECT name FROM pg_settings WHERE source = 'session' AND name NOT IN ('application_name', 'client_encoding')";
            let messages = client.simple_query(sql).await.expect("the pool works");
            let left: Vec<_> = messages
                .iter()
                .filter_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                })
                .collect();
            assert!(left.is_empty(), "{settings}: left behind are {left:?}");
        }
        assert!(!state::exists(&stage.target).await, "something was written");
        pooler.stop().await;
    }
    stage.clear().await;
}

/// A pooler that keeps sessions is as good as the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_keeps_sessions() {
    let seed = number("SLACKWATER_TEST_SEED", 31);
    println!("seed {seed}");
    let target = Target::start("kept").await;
    let pooler = Pooler::start(&target, "pool_mode = session\ndefault_pool_size = 60").await;
    let stage = Stage::between("kept", &variable("SLACKWATER_MONGODB_URI"), &target.url()).await;
    stage.fill(seed, 2_000).await;
    let through = pooler.before(&target, &stage.postgres);
    let text = crm_demo::mapping().replace("${SLACKWATER_POSTGRES_URL}", &through);
    let file = stage.file("pooled.yaml", &text);
    let load = Load::start(&stage, seed, Pace { writers: 2, rate: Some(200.0) }).await;
    let mut processes = [stage.run(&file)];
    load.end(&stage, &file, &mut processes).await;
    let [process] = processes;
    process.stop().await;
    stage.clear().await;
}

/// How often slackwater has written, as its lanes count.
async fn written(stage: &Stage) -> i64 {
    let rows =
        state::rows(&stage.target, "SELECT coalesce(sum(sequence), 0)::bigint FROM slackwater.lanes").await;
    rows.first().map_or(0, |row| row.get(0))
}

/// Waits until slackwater writes again.
async fn writes(stage: &Stage, process: &mut Slackwater) {
    let before = written(stage).await;
    until("slackwater writes", CATCH_UP, async || {
        process.still_runs();
        (written(stage).await > before + 3).then_some(())
    })
    .await;
}

/// Nothing is lost, and no password is in the log.
async fn ends_equal(stage: Stage, file: &Path, load: Load, process: Slackwater) {
    let mut processes = [process];
    load.end(&stage, file, &mut processes).await;
    let [process] = processes;
    let log = std::fs::read_to_string(process.log()).expect("a log");
    assert!(!log.contains("a-secret"), "a password is in the log");
    process.stop().await;
    stage.clear().await;
}

/// The password, the authority and the server's certificate change while writers write: no restart, nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_certificates_that_change() {
    let seed = number("SLACKWATER_TEST_SEED", 32);
    println!("seed {seed}");
    let target = Target::start("rotated").await;
    target.sql("CREATE ROLE app SUPERUSER LOGIN PASSWORD 'a-secret-0'").await;
    target.lets_in("hostssl all app 127.0.0.1/32 scram-sha-256\n");
    let stage = Stage::between("rotated", &variable("SLACKWATER_MONGODB_URI"), &target.url()).await;
    stage.fill(seed, 2_000).await;
    let password = stage.file("password", "a-secret-0\n");
    let root = stage.folder.join("root.pem");
    let trust = async |turn: usize| {
        let authority = Authority::new(target.folder(), &format!("authority{turn}")).await;
        guarded(&target, &authority, "server").await;
        std::fs::copy(authority.file(), &root).expect("copied");
    };
    trust(0).await;
    let uri = stage
        .postgres
        .replace("slackwater@127.0.0.1", &format!("app:${{file:{}}}@localhost", password.display()));
    let uri = format!("{uri}?sslmode=verify-full&channel_binding=require&sslrootcert={}", root.display());
    let text = crm_demo::mapping().replace("${SLACKWATER_POSTGRES_URL}", &uri);
    let file = stage.file("rotated.yaml", &text);
    let load = Load::start(&stage, seed, Pace { writers: 2, rate: Some(200.0) }).await;
    let mut process = stage.run(&file);
    writes(&stage, &mut process).await;
    for turn in 1..=5 {
        let change = format!("ALTER ROLE app PASSWORD 'a-secret-{turn}'");
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
        // In one order and in the other: for a while the file is ahead of the server, or behind it.
        if turn % 2 == 0 {
            stage.target.batch_execute(&change).await.expect(&change);
            stage.target.batch_execute(cut).await.expect(cut);
            std::fs::write(&password, format!("a-secret-{turn}")).expect("a file");
        } else {
            std::fs::write(&password, format!("a-secret-{turn}\n")).expect("a file");
            stage.target.batch_execute(&change).await.expect(&change);
        }
        if turn == 3 {
            trust(turn).await;
        }
        stage.target.batch_execute(cut).await.expect(cut);
        writes(&stage, &mut process).await;
    }
    ends_equal(stage, &file, load, process).await;
}

/// The same with MongoDB's password. It asks for one only where a connection begins, so connections are cut.
#[tokio::test(flavor = "multi_thread")]
async fn passwords_of_the_source_that_change() {
    let seed = number("SLACKWATER_TEST_SEED", 34);
    println!("seed {seed}");
    let mongod =
        Mongod::with("rotating", Flavour::Passwords, &["--setParameter", "enableTestCommands=1"]).await;
    let stage = Stage::at("rotating_source", &mongod.uri()).await;
    stage.fill(seed, 2_000).await;
    let admin = stage.source.client().database("admin");
    let roles = bson::doc! {"role": "read", "db": &stage.name};
    let user = bson::doc! {"createUser": "app", "pwd": "a-secret-0", "roles": [roles]};
    admin.run_command(user).await.expect("a user");
    let password = stage.file("password", "a-secret-0\n");
    let uri = mongod.uri_as("app", &format!("${{file:{}}}", password.display()));
    let text = crm_demo::mapping().replace("${SLACKWATER_MONGODB_URI}", &uri);
    let file = stage.file("rotating.yaml", &text);
    let load = Load::start(&stage, seed, Pace { writers: 2, rate: Some(200.0) }).await;
    let mut process = stage.run(&file);
    writes(&stage, &mut process).await;
    for turn in 1..=5 {
        let secret = format!("a-secret-{turn}");
        let change = bson::doc! {"updateUser": "app", "pwd": &secret};
        let cuts = |mode: bson::Bson| {
            let data = bson::doc! {
                "failCommands": ["getMore", "find", "hello"], "closeConnection": true, "appName": "slackwater",
            };
            admin.run_command(bson::doc! {"configureFailPoint": "failCommand", "mode": mode, "data": data})
        };
        // In one order and in the other: for a while the file is ahead of the server, or behind it.
        if turn % 2 == 0 {
            admin.run_command(change).await.expect("a new password");
            cuts("alwaysOn".into()).await.expect("connections are cut");
            std::fs::write(&password, &secret).expect("a file");
        } else {
            std::fs::write(&password, &secret).expect("a file");
            admin.run_command(change).await.expect("a new password");
            cuts("alwaysOn".into()).await.expect("connections are cut");
        }
        until("it connects with what the file holds now", CATCH_UP, async || {
            process.still_runs();
            let log = std::fs::read_to_string(process.log()).expect("a log");
            (log.matches("has changed; connecting anew").count() >= turn).then_some(())
        })
        .await;
        cuts("off".into()).await.expect("connections hold");
        writes(&stage, &mut process).await;
    }
    ends_equal(stage, &file, load, process).await;
}

/// The primary goes away, and the standby takes its place under live writers.
#[tokio::test(flavor = "multi_thread")]
async fn the_other_host_takes_over() {
    let seed = number("SLACKWATER_TEST_SEED", 33);
    println!("seed {seed}");
    let mut primary = Target::start("first_host").await;
    let mut stage = Stage::between("hosts", &variable("SLACKWATER_MONGODB_URI"), &primary.url()).await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..2_000).await;
    let standby = primary.standby("second_host").await;
    primary.reload(&[("synchronous_standby_names", "*")]).await;
    let one = format!("127.0.0.1:{}", primary.port());
    let other = format!("127.0.0.1:{}", standby.port());
    let alone = stage.postgres.clone();
    stage.postgres = alone.replace(&one, &format!("{other},{one}")) + "?target_session_attrs=read-write";
    let mut process = stage.run(&file);
    items::equal(&stage, &mut process, PATIENCE).await;
    primary.stop().await;
    items::insert(&stage, 2_000..3_000).await;
    standby.promote().await;
    stage.moved(&one, &other).await;
    items::equal(&stage, &mut process, PATIENCE).await;
    process.stop().await;
    stage.clear().await;
}
