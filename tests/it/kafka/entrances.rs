//! Every way to be let in by a broker, and every way to be refused: with its reason and remedy, soon, and without the words of Kafka's
//! own library.

use std::fmt::Write as _;
use std::path::Path;

use futures_util::future::join_all;
use serde_json::Value;
use slackwater_migrations::crm_demo;

use crate::stage::authority::Wish;
use crate::stage::broker::PASSWORD;
use crate::stage::entrances::Entrances;
use crate::stage::{PATIENCE, Stage, acl, until};

/// A migration file for this entrance, with these options.
fn file(stage: &Stage, name: &str, brokers: &str, options: &[(&str, &str)]) -> String {
    let mut log = format!(
        "log:\n  kafka:\n    brokers: \"{brokers}\"\n    group: entrances\n    \
         topics: {{ prefix: entrances, partitions: 1, replication: 1 }}\n    options:\n"
    );
    for (option, value) in options {
        let _ = writeln!(log, "      {option}: \"{value}\"");
    }
    let path = stage.file(&format!("{name}.yaml"), &format!("{}\n{log}", crm_demo::mapping()));
    path.to_str().expect("a path in UTF-8").to_owned()
}

async fn said(stage: &Stage, arguments: &[&str]) -> (Option<i32>, String) {
    let output = stage.output(arguments).await;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains(PASSWORD) && !said.contains("wrong-word"), "a password is shown: {said}");
    (output.status.code(), said)
}

/// Its name, an entrance, options, the exit code, and what is said.
type Case<'a> = (&'a str, &'a str, Vec<(String, String)>, i32, &'a [&'a str]);

/// Every command refuses, with this code, and says this.
async fn refused(stage: &Stage, file: &str, name: &str, code: i32, words: &[&str]) {
    let commands: [&[&str]; 5] = [
        &["check", file],
        &["topics", "plan", file],
        &["topics", "apply", file],
        &["capture", file],
        &["apply", file],
    ];
    let answers = join_all(commands.iter().map(|command| said(stage, command))).await;
    for (command, (ended, said)) in commands.iter().zip(answers) {
        println!("{name}: {command:?} ({ended:?})\n{said}");
        // The text of a check is broken into lines.
        let flat = said.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(flat.contains(word), "{name}: {command:?} does not say `{word}`:\n{said}");
        }
        assert_eq!(ended, Some(code), "{name}: {command:?}:\n{said}");
        for own in ["[thrd:", "rdkafka#", "SSL routines", "error:0"] {
            assert!(!said.contains(own), "{name}: {command:?} shows a line of Kafka's library:\n{said}");
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_let_in_and_who_is_not() {
    let entrances = Entrances::start("entrances").await;
    let (stage, _) = Stage::crm("entrances", 73, 100).await;
    let (authority, stranger) = (entrances.authority.file(), entrances.stranger.file());
    let (ours, theirs) = (text(&authority), text(&stranger));
    let by_password = |mechanism: &'static str, password: &'static str| {
        [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", ours),
            ("sasl.mechanisms", mechanism),
            ("sasl.username", "app"),
            ("sasl.password", password),
        ]
    };
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] {
        let good = file(&stage, mechanism, &entrances.password, &by_password(mechanism, PASSWORD));
        let (code, answer) = said(&stage, &["topics", "plan", &good]).await;
        assert_eq!(code, Some(0), "{mechanism}: {answer}");
        let wrong = format!("wrong {mechanism}");
        let file = file(&stage, &wrong, &entrances.password, &by_password(mechanism, "wrong-word"));
        refused(&stage, &file, &wrong, 6, &["refuses this user or password"]).await;
    }

    let with = |change: &[(&str, &str)]| {
        let mut options: Vec<(String, String)> = by_password("SCRAM-SHA-512", PASSWORD)
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        for (name, value) in change {
            options
                .iter_mut()
                .filter(|(known, _)| known == name)
                .for_each(|(_, old)| *old = (*value).to_owned());
        }
        options
    };
    let tls = [("security.protocol", "SSL"), ("ssl.ca.location", ours)];
    let owned = |options: &[(&str, &str)]| -> Vec<(String, String)> {
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let bad = entrances.stranger.issue("client", Wish::named("client", "extendedKeyUsage=clientAuth")).await;
    let not_ours = [
        ("security.protocol", "SSL"),
        ("ssl.ca.location", ours),
        ("ssl.certificate.location", text(&bad.certificate)),
        ("ssl.key.location", text(&bad.key)),
    ];
    let open = entrances.broker.address();
    let cases: [Case<'_>; 8] = [
        (
            "wrong authority",
            &entrances.password,
            with(&[("ssl.ca.location", theirs)]),
            6,
            &["no authority that we trust has signed", "ssl.ca.location"],
        ),
        ("expired", &entrances.expired, owned(&tls), 6, &["has expired", "new certificate"]),
        (
            "another host",
            &entrances.misnamed,
            owned(&tls),
            6,
            &["is not for that name", "advertised.listeners"],
        ),
        (
            "no TLS where it is wanted",
            &entrances.password,
            with(&[("security.protocol", "SASL_PLAINTEXT")]),
            4,
            &["TLS", "security.protocol"],
        ),
        (
            "nothing where TLS is wanted",
            &entrances.certificate,
            owned(&[("security.protocol", "PLAINTEXT")]),
            4,
            &["TLS", "security.protocol"],
        ),
        ("TLS where there is none", &open, owned(&tls), 4, &["does not speak TLS", "security.protocol"]),
        (
            "no certificate",
            &entrances.certificate,
            owned(&tls),
            6,
            &["asks for a client certificate", "ssl.certificate.location"],
        ),
        (
            "a stranger's certificate",
            &entrances.certificate,
            owned(&not_ours),
            6,
            &["does not accept our certificate", "trust store"],
        ),
    ];
    for (name, brokers, options, code, words) in &cases {
        let options: Vec<(&str, &str)> =
            options.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        refused(&stage, &file(&stage, name, brokers, &options), name, *code, words).await;
    }

    // The name in the certificate is the user, with its own rights.
    let good =
        entrances.authority.issue("client", Wish::named("client", "extendedKeyUsage=clientAuth")).await;
    let mutual = [
        ("security.protocol", "SSL"),
        ("ssl.ca.location", ours),
        ("ssl.certificate.location", text(&good.certificate)),
        ("ssl.key.location", text(&good.key)),
    ];
    let mutual = file(&stage, "mutual", &entrances.certificate, &mutual);
    let (code, answer) = said(&stage, &["topics", "apply", &mutual]).await;
    assert!(code == Some(6) && answer.contains("lacks the right Describe"), "{code:?}: {answer}");
    let name = "CN=client";
    let arguments =
        ["grants", &mutual, "--json", "--capture-user", name, "--apply-user", name, "--topics-user", name];
    let output = stage.output(&arguments).await;
    let printed: Value = serde_json::from_slice(&output.stdout).expect("grants prints JSON");
    for entry in printed["kafka"]["acls"].as_array().expect("a list") {
        assert_eq!(entry["principal"], "User:CN=client");
        acl::add(&entrances.broker.address(), entry).await;
    }
    until("the topics are made", PATIENCE, async || {
        let (code, _) = said(&stage, &["topics", "apply", &mutual]).await;
        (code == Some(0)).then_some(())
    })
    .await;
    let (code, answer) = said(&stage, &["check", &mutual]).await;
    assert!(code == Some(0) && !answer.contains("lacks"), "{answer}");
    stage.clear().await;
}
