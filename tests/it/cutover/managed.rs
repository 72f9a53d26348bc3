//! A source that gives nobody the right to refuse all writers, as managed servers do: its writers lose their role instead.

use std::fmt::Write as _;

use bson::doc;
use mongodb::{Client, Database};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Scene, Way, section};
use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::{PATIENCE, Stage};

/// Takes the writers' role away, ends what they have begun, and gives it back: what the command of a team does, here on behalf of a
/// shell that has no client of MongoDB. Every word it is told is answered once that is done.
fn operator(listener: TcpListener, admin: Database) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("somebody calls");
            let mut stream = BufReader::new(stream);
            let mut word = String::new();
            stream.read_line(&mut word).await.expect("a word");
            let role = vec![doc! {"role": "readWriteAnyDatabase", "db": "admin"}];
            match word.trim() {
                "freeze" => {
                    let revoke = doc! {"revokeRolesFromUser": "app", "roles": role};
                    admin.run_command(revoke).await.expect("revoked");
                    // A transaction that has written could still be committed.
                    let end = doc! {"killAllSessions": [{"user": "app", "db": "admin"}]};
                    admin.run_command(end).await.expect("ended");
                }
                "unfreeze" => {
                    let grant = doc! {"grantRolesToUser": "app", "roles": role};
                    admin.run_command(grant).await.expect("granted");
                }
                word => panic!("what is {word}?"),
            }
            stream.into_inner().write_all(b"done\n").await.expect("an answer can be sent");
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_taken_away_holds() {
    let mongod = Mongod::start("managed", Flavour::Passwords).await;
    let admin = Client::with_uri_str(mongod.uri()).await.expect("a client").database("admin");
    let mut stage = Stage::at("managed", &mongod.uri()).await;
    stage.fill(53, 1_500).await;
    let read = doc! {"role": "read", "db": &stage.name};
    for (user, role) in [("app", doc! {"role": "readWriteAnyDatabase", "db": "admin"}), ("replicator", read)]
    {
        let create = doc! {"createUser": user, "pwd": "secret", "roles": [role]};
        admin.run_command(create).await.expect("a user");
    }
    // The least rights there are.
    stage.mongodb = mongod.uri_as("replicator", "secret");
    let app = Client::with_uri_str(mongod.uri_as("app", "secret")).await.expect("a client");
    let writing = app.database(&stage.name);

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let operator = operator(listener, admin.clone());
    let tell = |word: &str| {
        format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port}; echo {word} >&3; read answer <&3; test \\\"$answer\\\" = done"
        )
    };
    let more = |deadline: &str| {
        let mut more = format!("  deadline: {deadline}\n");
        let words = ["freeze", "unfreeze"].map(|word| format!("{word}: [ bash, -c, \"{}\" ]", tell(word)));
        let _ = write!(more, "  freeze: {{ command: {{ {} }} }}", words.join(", "));
        more
    };
    let mut scene = Scene::written(stage, &writing, Way::Direct, "", 53, &more("60s")).await;

    // What will not do is said long before the switch.
    let good = scene.file.clone();
    for (section, words) in [
        (section(""), &["setUserWriteBlockMode", "freeze: by_hand"][..]),
        (section(&more("5s")), &["`appendOplogNote`", "deadline: 30s"]),
        (section(&more("60s")), &[]),
    ] {
        scene.with("other.yaml", &section);
        let output = scene.stage.output(&["check", scene.path()]).await;
        let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
        // Without the right that its own freeze needs, the file is not fit; with a note that comes late it is.
        let fit = !words.contains(&"setUserWriteBlockMode");
        assert_eq!(output.status.code(), Some(if fit { 0 } else { 6 }), "{said}");
        let flat = said.replace(['│', '×', '⚠'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(flat.contains(word), "`check` does not say `{word}`:\n{said}");
        }
        let slow = flat.contains("the switch may take longer");
        assert_eq!(slow, words.contains(&"deadline: 30s"), "{said}");
    }
    scene.file = good;

    // A transaction that has written and is open when the roles go.
    let mut session = app.start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    let late = writing.collection("users");
    late.insert_one(doc! {"_id": "late"}).session(&mut session).await.expect("written");

    let (code, report) = scene.switch().await;
    assert_eq!((code, &report["state"]), (Some(0), &"open".into()), "{report:#}");
    session.commit_transaction().await.expect_err("it was ended");
    let refused = writing.collection("users").insert_one(doc! {"_id": "later"}).await;
    refused.expect_err("the writers may not write any more");
    let written = tokio::time::timeout(PATIENCE, scene.end_writers()).await.expect("they end");
    scene.is_switched_with(written).await;
    operator.abort();
    scene.clear().await;
}
