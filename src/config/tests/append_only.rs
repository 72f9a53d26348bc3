//! `append_only`: what has to go with it.

use super::*;

fn mistakes(collections: &str, log: &str) -> Vec<(usize, String)> {
    let text = format!(
        "migration: m
sources: {{ legacy: {{ mongodb: {{ uri: \"${{MONGO}}\", database: d }} }} }}
target: {{ postgres: {{ uri: \"${{PG}}\" }} }}
log: {log}
collections:
{collections}"
    );
    match read(&text) {
        Ok(_) => Vec::new(),
        Err(found) => found.list().iter().map(|one| (one.line, one.message.clone())).collect(),
    }
}

const ONE: &str = "  legacy.a: { into: a, append_only: true, columns: { id: { uuid: _id } } }\n";
const TWO: &str = "  legacy.b:
    - { into: b, append_only: true, columns: { id: { uuid: _id } } }
    - { into: c, each: \"l[]\", append_only: true, columns: { b: { parent: id }, i: { index: 0 } } }\n";

#[test]
fn all_tables_of_a_collection_say_it_or_none() {
    assert_eq!(mistakes(&format!("{ONE}{TWO}"), "direct"), []);
    let found = mistakes(&TWO.replacen("append_only: true", "append_only: false", 1), "direct");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0 == 7 && found[0].1.contains("`b` is filled by the same ones without it"), "{found:?}");
}

#[test]
fn no_other_collection_fills_the_table() {
    let both = format!("{ONE}  legacy.z: {{ into: public.a, columns: {{ id: {{ uuid: _id }} }} }}\n");
    let found = mistakes(&both, "direct");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0 == 7 && found[0].1.contains("filled by `legacy.a` as well"), "{found:?}");
    assert_eq!(mistakes(&both.replace("public.a,", "public.a, append_only: true,"), "direct"), []);
}

#[test]
fn topics_keep_every_version() {
    let kafka = |topics: &str| format!("{{ kafka: {{ brokers: one, topics: {topics} }} }}");
    assert_eq!(mistakes(ONE, &kafka("{ compact: false }")), []);
    for topics in ["{ compact: true }", "{ config: { cleanup.policy: \"compact,delete\" } }"] {
        let found = mistakes(ONE, &kafka(topics));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].1.contains("would lose versions"), "{found:?}");
    }
}
