use super::super::look::CheckState;
use super::super::look::tests::{look, partition, process, stream};
use super::names::Kind;
use super::*;
use slackwater_connectors::postgres::control::checks::CheckRow;
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
            example: String::new(),
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
fn checks_are_shown_by_name() {
    let state = |name: &str, failing, rollback| {
        let row = CheckRow {
            name: name.into(),
            failing,
            settled_at: failing.map(|_| 9_500),
            ..CheckRow::default()
        };
        CheckState { row, rollback }
    };
    let checks =
        vec![state("total", Some(true), true), state("users", Some(false), false), state("new", None, false)];
    let text = exposition(Some(&Look { checks, ..look() }), HERE);
    for line in [
        "slackwater_check_holds{migration=\"crm\",check=\"total\"} 0\n",
        "slackwater_check_holds{migration=\"crm\",check=\"users\"} 1\n",
        "slackwater_check_timestamp_seconds{migration=\"crm\",check=\"users\"} 9.5\n",
        "slackwater_rollback_criteria_failing{migration=\"crm\"} 1\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("\"new\""), "{text}");
    assert!(!exposition(Some(&look()), HERE).contains("slackwater_rollback"), "nobody named a criterion");
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

/// The words of an expression that may name something.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
}

/// The metric with this name, as Prometheus shows it: a histogram has three names.
fn known(name: &str) -> Option<&'static Metric> {
    let parts = ["_bucket", "_sum", "_count"];
    METRICS.iter().copied().find(|metric| {
        let part = name.strip_prefix(metric.name);
        part == Some("") || metric.kind == Kind::Histogram && part.is_some_and(|part| parts.contains(&part))
    })
}

/// Whether all metrics of an expression exist, and have the labels by which it groups and that the legend shows.
fn queries(expression: &str, legend: &str) -> Result<(), String> {
    let metrics: Vec<_> = words(expression)
        .filter(|word| word.starts_with("slackwater_"))
        .map(|word| known(word).ok_or_else(|| format!("no metric `{word}`: {expression}")))
        .collect::<Result<_, _>>()?;
    if metrics.is_empty() {
        return Err(format!("no metric at all: {expression}"));
    }
    let groups = expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    let shown = legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
    for label in groups.chain(shown).flat_map(words).filter(|word| !word.is_empty()) {
        let has = |metric: &&Metric| match metric.kind {
            Kind::Histogram => label == "le",
            _ => label == "migration" && metric.origin == Origin::Pipeline || metric.labels.contains(&label),
        };
        if !metrics.iter().all(has) {
            return Err(format!("no label `{label}`: {expression} {legend}"));
        }
    }
    Ok(())
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let text = include_str!("../../../dev/metrics/dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut asked = std::collections::BTreeSet::new();
    for panel in panels {
        for target in panel["targets"].as_array().expect("targets") {
            let expression = target["expr"].as_str().expect("an expression");
            let legend = target["legendFormat"].as_str().expect("a legend");
            queries(expression, legend).unwrap_or_else(|error| panic!("{}: {error}", panel["title"]));
            asked.extend(words(expression).filter_map(known).map(|metric| metric.name));
        }
    }
    let needed = [
        &names::LAG,
        &names::EVENTS,
        &names::WAITING_ROWS,
        &names::DEAD_LETTERS,
        &names::STANDING,
        &names::SNAPSHOT_DOCUMENTS,
    ];
    for metric in needed {
        assert!(asked.contains(metric.name), "{} is on no panel", metric.name);
    }
    let variable = dashboard["templating"]["list"][1]["definition"].as_str().expect("the migrations");
    queries(&variable.replace("label_values", ""), "").expect("a metric that every migration has");
}

#[test]
fn a_query_of_what_there_is_not_is_found() {
    for (expression, legend) in [
        ("slackwater_lag_second", ""),
        ("slackwater_lag_seconds_bucket", ""),
        ("max by (collection) (slackwater_lag_seconds)", ""),
        ("slackwater_dead_letters", "{{table}}"),
        ("sum by (migration) (slackwater_ready)", ""),
        ("up", ""),
    ] {
        assert!(queries(expression, legend).is_err(), "{expression} {legend}");
    }
    queries("max by (collection) (slackwater_dead_letters)", "{{kind}}").expect("all of it exists");
}
