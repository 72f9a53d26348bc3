//! Which tables have a row for each document, so that they can be counted at the switch.

use super::*;
use crate::cutover::proof::uncountable;

/// The table `t` with this key cannot be counted.
fn is_uncountable(collections: &str, key: &str) -> bool {
    let tables = vec![table("t", &[&format!("id {key} key"), "name text"])];
    let names = uncountable(&plan(collections, tables), &[]);
    assert!(names.is_empty() || names == ["public.t"], "{names:?}");
    !names.is_empty()
}

#[test]
fn a_key_that_is_one_to_one_with_the_id_is_counted() {
    let with = |rule: &str| format!("  m.a: {{ into: t, columns: {{ id: {rule}, name: name }} }}\n");
    for (key, rule) in [
        ("uuid", "{ uuid: _id }"),
        ("uuid", "_id"),
        ("text", "_id"),
        ("text", "{ text: _id }"),
        ("bigint", "{ integer: _id }"),
        ("numeric", "_id"),
        ("uuid", "{ ref: _id, to: m.a }"),
    ] {
        assert!(!is_uncountable(&with(rule), key), "{rule} in {key}");
    }
    for (key, rule) in [
        ("text", "{ text: _id, lower: true }"),
        ("text", "{ text: _id, trim: true }"),
        ("bigint", "{ integer: _id, invalid: clamp }"),
        ("text", "name"),
    ] {
        assert!(is_uncountable(&with(rule), key), "{rule} in {key}");
    }
}

#[test]
fn the_same_ids_of_two_collections_are_not_counted() {
    let both = |rule: &str| {
        format!(
            "  m.a: {{ into: t, columns: {{ id: {rule} }} }}\n  m.b: {{ into: t, columns: {{ id: {rule}, name: name }} }}\n"
        )
    };
    assert!(is_uncountable(&both("{ integer: _id }"), "bigint"));
    assert!(!is_uncountable(&both("{ uuid: _id }"), "uuid"));
}
