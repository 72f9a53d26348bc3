use super::super::look::tests::{look, partition, process, stream};
use super::names::Kind;
use super::*;
use slackwater_connectors::postgres::control::ledger::DeadLetterCount;
use slackwater_connectors::postgres::control::pulse::ProcessRow;
use slackwater_connectors::postgres::control::{CollectionRow, CopyState};
use slackwater_connectors::postgres::progress::Tally;

const HERE: Here = Here { control_store_up: true, ready: true, age: Some(Duration::from_millis(250)) };

fn whole() -> Look {
    let collection = CollectionRow {
        collection: "legacy.users".into(),
        state: CopyState::Copying,
        generation: 1,
        documents_estimate: 1_000,
        documents_copied: 400,
        chunks_total: 5,
        chunks_done: 2,
        fresh: true,
        reload: false,
        started_at: None,
        finished_at: None,
    };
    let tally = Tally {
        collection: "legacy.users".into(),
        table: "users".into(),
        column: "name".into(),
        policy: "strip".into(),
        count: 3,
        sample_key: Vec::new(),
    };
    Look {
        partitions: vec![partition("crm.users", 0, Some(101_200)), partition("crm.users", 1, None)],
        processes: vec![
            process("capture", "capture", 200),
            ProcessRow { trouble: Some("waiting".into()), ..process("apply/one", "apply", 4_500) },
            ProcessRow { ended: true, ..process("apply/two", "apply", 100) },
        ],
        collections: vec![collection],
        letters: vec![DeadLetterCount {
            collection: "legacy.users".into(),
            kind: "a \"quoted\" one".into(),
            count: 2,
        }],
        tallies: vec![tally],
        incidents_total: 7,
        ..look()
    }
}

#[test]
fn golden() {
    insta::assert_snapshot!(exposition(Some(&whole()), HERE));
}

#[test]
fn unknown_values_are_not_shown() {
    let text = exposition(Some(&whole()), HERE);
    assert!(!text.contains("slackwater_lag_seconds"), "one partition has applied nothing");
    let text = exposition(Some(&Look { lanes: vec![stream(Some(101_200))], ..look() }), HERE);
    assert!(text.contains("slackwater_lag_seconds{migration=\"crm\"} 0.8\n"), "{text}");
}

#[test]
fn without_a_control_store() {
    let text = exposition(None, Here { control_store_up: false, ready: false, age: None });
    assert!(text.contains("slackwater_control_store_up 0\n"), "{text}");
    assert!(!text.contains("migration="), "{text}");
}

#[test]
fn names_follow_the_conventions() {
    for (place, metric) in METRICS.iter().enumerate() {
        assert!(metric.name.starts_with("slackwater_"), "{}", metric.name);
        assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
        assert!(METRICS[..place].iter().all(|other| other.name != metric.name), "{} twice", metric.name);
        assert!(!metric.help.contains('\n') && metric.help.ends_with('.'), "{}", metric.name);
    }
}

/// The tables of `docs/metrics.md`.
fn markdown(origin: Origin) -> String {
    let mut text = "| Metric | Type | Labels | |\n|---|---|---|---|\n".to_owned();
    for metric in METRICS.iter().filter(|metric| metric.origin == origin) {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        text += &format!(
            "| `{}` | {} | {} | {} |\n",
            metric.name,
            metric.kind.word(),
            labels.join(", "),
            metric.help
        );
    }
    text
}

#[test]
fn the_document_has_the_same_tables() {
    let document = include_str!("../../../docs/metrics.md");
    for origin in [Origin::Pipeline, Origin::Process] {
        let table = markdown(origin);
        assert!(document.contains(&table), "docs/metrics.md has to hold this table:\n\n{table}");
    }
}
