//! A broker that speaks TLS, asks who is there, and lets not everybody do everything.

use serde_json::Value;
use slackwater_migrations::crm_demo;

use crate::stage::broker::{Broker, Guarded, PASSWORD};
use crate::stage::trial::CATCH_UP;
use crate::stage::{Slackwater, Stage, until};

/// The migration file of somebody who says this to the broker.
fn file(stage: &Stage, name: &str, guarded: &Guarded, user: &str, password: &str) -> String {
    let secret = stage.file(&format!("{name}.password"), password);
    let (address, certificate) = (&guarded.address, guarded.certificate.display());
    let log = format!(
        "log:\n  kafka:\n    brokers: \"{address}\"\n    group: {name}\n    \
         topics: {{ prefix: {name}, partitions: 2, replication: 1 }}\n    options:\n      \
         security.protocol: SASL_SSL\n      ssl.ca.location: {certificate}\n      sasl.mechanisms: SCRAM-SHA-512\n      \
         sasl.username: {user}\n      sasl.password: \"${{file:{}}}\"\n",
        secret.display()
    );
    let path = stage.file(&format!("{name}.yaml"), &format!("{}\n{log}", crm_demo::mapping()));
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// A command that cannot succeed; what it says.
async fn refused(stage: &Stage, arguments: &[&str]) -> String {
    let output = stage.output(arguments).await;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{arguments:?} {}\n{said}", output.status);
    assert!(!output.status.success(), "{said}");
    assert!(!said.contains(PASSWORD) && !said.contains("wrong-word"), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tls_and_scram() {
    let (_broker, guarded) = Broker::start_guarded("guarded").await;
    let (stage, _) = Stage::crm("kafka_guarded", 61, 600).await;

    let wrong = file(&stage, "wrong", &guarded, "app", "wrong-word");
    let said = refused(&stage, &["topics", "apply", &wrong]).await;
    assert!(said.contains("refuses this user or password"), "{said}");
    let guest = file(&stage, "guest", &guarded, "guest", PASSWORD);
    let said = refused(&stage, &["topics", "apply", &guest]).await;
    assert!(said.contains("lacks the right Describe on the topic"), "{said}");
    let open = std::fs::read_to_string(&guest).expect("the file").replace("SASL_SSL", "PLAINTEXT");
    let open = stage.file("open.yaml", &open);
    let said = refused(&stage, &["topics", "apply", open.to_str().expect("a path in UTF-8")]).await;
    assert!(said.contains("broker") && said.contains("TLS"), "{said}");

    let good = file(&stage, "good", &guarded, "app", PASSWORD);
    let made = stage.output(&["topics", "apply", &good]).await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut processes =
        [stage.start(&["capture", &good], "capture"), stage.start(&["apply", &good], "apply")];
    until("it is copied and follows", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let output = stage.output(&["status", &good, "--json"]).await;
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        (status["copied"] == true && status["lag_ms"].as_i64()? < 3_000).then_some(())
    })
    .await;
    for process in processes {
        process.stop().await;
    }
    let report = stage.crm_compare().await;
    assert!(report.is_equal(), "{report}");
    stage.clear().await;
}
