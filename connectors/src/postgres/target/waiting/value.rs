//! Values that only one row may have: how a statement looks at them.
//!
//! Expressions of the catalogue name columns as they are, so the row is the only thing in their reach.

use super::text::text;
use crate::postgres::target::references::{Mapped, Unique, ident_of};

/// What of a row is compared, as columns of `v`; none where the rival does not look at the row.
pub(super) fn lateral(one: &Unique, v: &str, row: &str) -> String {
    let values = one.rival.values.iter().enumerate();
    let values: Vec<String> = values.map(|(place, value)| format!("({value}) AS a{place}")).collect();
    let only =
        one.rival.predicate.as_deref().map(|predicate| format!(" WHERE {predicate}")).unwrap_or_default();
    format!(
        " LEFT JOIN LATERAL (SELECT true AS here, {} FROM (SELECT {row}.*) AS x{only}) AS {v} ON true",
        values.join(", ")
    )
}

/// The row is compared with others.
pub(super) fn comparable(one: &Unique, v: &str) -> String {
    let mut set = vec![format!("{v}.here IS TRUE")];
    if !one.rival.nulls_equal {
        set.extend((0..one.rival.values.len()).map(|place| format!("{v}.a{place} IS NOT NULL")));
    }
    format!("({})", set.join(" AND "))
}

/// A row of the table, alone in reach, has the value of `v`, or gets in its way.
pub(super) fn same_value(one: &Unique, v: &str) -> String {
    let pairs = one.rival.values.iter().enumerate();
    let mut equal: Vec<String> = pairs
        .map(|(place, value)| match one.rival.operators.get(place) {
            Some(operator) => format!("({value}) {operator} {v}.a{place}"),
            None if one.rival.nulls_equal => format!("({value}) IS NOT DISTINCT FROM {v}.a{place}"),
            None => format!("({value}) = {v}.a{place}"),
        })
        .collect();
    equal.extend(one.rival.predicate.as_deref().map(|predicate| format!("({predicate})")));
    equal.join(" AND ")
}

/// The value as text. Of an exclusion constraint there is no such thing: whatever changes may make room.
pub(super) fn value_text(one: &Unique, mapped: &Mapped, v: &str) -> String {
    if !one.rival.operators.is_empty() {
        return "ARRAY['*']::text[]".to_owned();
    }
    let values = one.rival.values.iter().enumerate().map(|(place, value)| {
        let name = ident_of(value);
        let column = mapped.table.columns.iter().find(|column| column.name == name);
        column.map_or(format!("{v}.a{place}::text"), |column| text(&format!("{v}.a{place}"), &column.kind))
    });
    format!("ARRAY[{}]::text[]", values.collect::<Vec<_>>().join(", "))
}
