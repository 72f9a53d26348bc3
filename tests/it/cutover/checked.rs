//! Checks with a source side, in the frozen second: what could not be told before is exact then.

use super::{Scene, Way, section};
use crate::stage::broker::shared;
use crate::stage::mongod::{Flavour, Mongod};

const COUNT: &str = "source: { collection: legacy.users }, target: select count(*) from users";

/// The sum of all versions, which changes all the time.
fn versions(target: &str) -> String {
    let source = "{ collection: legacy.users, aggregate: [ { $group: { _id: null, v: { $sum: $v } } } ] }";
    format!("source: {source}, target: {target}")
}

async fn exact_in_the_frozen_second(way: Way) {
    let (mongod, name) = match way {
        Way::Direct => (Mongod::start("checked", Flavour::Replica).await, "cutover_checked"),
        Way::Kafka => (Mongod::start("checked_kafka", Flavour::Replica).await, "cutover_checked_kafka"),
    };
    let brokers = if way == Way::Kafka { shared() } else { String::new() };
    let mut scene = Scene::set(name, way, &mongod.uri(), &brokers, 61, "  deadline: 10s").await;
    let with = |target: &str| {
        let checks = format!(
            "checks:\n  - {{ name: users, {COUNT} }}\n  - {{ name: versions, {} }}\n  - ",
            versions(target)
        );
        section("  deadline: 10s").replace("checks:\n  - ", &checks)
    };
    scene.with("wrong.yaml", &with("select sum(version) + 1 from users"));
    let (code, report) = scene.switch().await;
    match code {
        // It changes too often to be told before.
        Some(9) => assert!(
            report["reason"].as_str().is_some_and(|why| why.starts_with("check_fails: `versions`")),
            "{report:#}"
        ),
        // Both sides could be read as of one moment.
        _ => assert!(report["blockers"].to_string().contains("`versions`"), "{report:#}"),
    }
    println!("{code:?}");
    assert!(!scene.is_frozen().await);
    scene.with("right.yaml", &with("select sum(version) from users"));
    let (code, report) = scene.switch().await;
    assert_eq!((code, &report["state"]), (Some(0), &"open".into()), "{report:#}");
    let checks = report["checks"].as_array().expect("checks");
    let versions = checks.iter().find(|check| check["check"] == "versions").expect("it");
    assert!(versions["source"].is_string() && versions["source"] == versions["target"], "{versions:#}");
    assert_eq!(versions["holds"], true);
    scene.is_switched().await;
    scene.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_in_the_frozen_second_direct() {
    exact_in_the_frozen_second(Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_in_the_frozen_second_over_kafka() {
    exact_in_the_frozen_second(Way::Kafka).await;
}
