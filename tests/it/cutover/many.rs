//! Switch after switch under live writers: what the gap is made of, and that nothing is lost in it.

use std::collections::BTreeMap;

use super::{Scene, Way, spread};
use crate::stage::broker::shared;
use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::number;

async fn many(way: Way) {
    let seed = number("SLACKWATER_TEST_SEED", 31);
    let rounds = number("SLACKWATER_TEST_CUTOVERS", 2);
    println!("{way:?}: {rounds} cutovers, seed {seed}");
    let mongod = Mongod::start(&format!("many_{way:?}"), Flavour::Replica).await;
    let (mut gaps, mut verified) = (Vec::new(), Vec::new());
    let mut steps: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let (mut changes, mut refused) = (0, 0);
    for round in 0..rounds {
        let name = format!("cutover_{way:?}").to_lowercase();
        // Every other one verifies in the frozen second what has changed last.
        let verifies = round % 2 == 1;
        let more = if verifies { "verify: { throttle: 50000 }" } else { "" };
        let mut scene = Scene::set(&name, way, &mongod.uri(), &shared(), seed + round, more).await;
        let (code, report) = scene.switch().await;
        assert_eq!((code, &report["state"]), (Some(0), &"open".into()), "{report:#}");
        let written = scene.is_switched().await;
        assert!(scene.is_frozen().await, "nobody may write to the source any more");
        let gap = report["gap_ms"].as_f64().expect("a gap");
        if verifies { &mut verified } else { &mut gaps }.push(gap);
        let did = report["steps"].as_array().expect("steps").iter().any(|step| step["step"] == "verified");
        assert_eq!(did, verifies, "{report:#}");
        changes += written.changes;
        refused += scene.refused.get();
        for step in report["steps"]
            .as_array()
            .expect("steps")
            .iter()
            .filter(|step| step["at_ms"].as_f64() >= Some(0.0))
        {
            let name = step["step"].as_str().expect("a name").to_owned();
            steps.entry(name).or_default().push(step["took_ms"].as_f64().expect("a time"));
        }
        let counted = report["counts"].as_array().expect("counts").len();
        assert!(counted >= 4, "{report:#}");
        let shares: Vec<String> =
            steps.iter().map(|(name, took)| format!("{name} {}", took[took.len() - 1])).collect();
        println!(
            "{round}: {gap} ms ({}), refused for {:?}, {} changes",
            shares.join(", "),
            written.refused,
            written.changes
        );
        scene.clear().await;
    }
    println!("{way:?}: {rounds} cutovers, {refused} refused for want of time before, {changes} changes");
    for (how, gaps) in [("without", gaps), ("with", verified)] {
        if !gaps.is_empty() {
            let (p50, p99, max) = spread(gaps);
            println!("{how} verification: freeze to open p50 {p50} ms, p99 {p99} ms, max {max} ms");
        }
    }
    for (name, took) in steps {
        let (p50, p99, max) = spread(took);
        println!("  {name:<10} p50 {p50:6.1} ms, p99 {p99:6.1} ms, max {max:6.1} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_direct_log() {
    many(Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_kafka() {
    many(Way::Kafka).await;
}
