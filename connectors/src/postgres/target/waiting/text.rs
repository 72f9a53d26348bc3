//! Names, keys and values in the statements of waiting rows.
//!
//! Keys travel as text, one array a key column, and are written as text by one rule ([`text`]), so that equal keys are equal text.

use crate::postgres::target::catalog::{Table, Type};
use crate::postgres::target::references::{Mapped, Reference};
use crate::postgres::target::statements::{element_type, quote};

pub(super) fn overriding(table: &Table, columns: &[usize]) -> &'static str {
    if columns.iter().any(|at| table.columns[*at].identity_always) { " OVERRIDING SYSTEM VALUE" } else { "" }
}

pub(super) fn on_conflict(mapped: &Mapped, filled: &[usize]) -> String {
    let key = columns(&mapped.table, "", &mapped.key);
    let changed: Vec<usize> = filled
        .iter()
        .filter(|at| !mapped.key.contains(at) && !mapped.table.columns[**at].identity_always)
        .copied()
        .collect();
    if changed.is_empty() {
        return format!("ON CONFLICT ({key}) DO NOTHING");
    }
    let set: Vec<String> = changed
        .iter()
        .map(|at| quote(&mapped.table.columns[*at].name))
        .map(|name| format!("{name} = EXCLUDED.{name}"))
        .collect();
    format!(
        "ON CONFLICT ({key}) DO UPDATE SET {} WHERE ROW({})::record OPERATOR(pg_catalog.*<>) ROW({})::record",
        set.join(", "),
        columns(&mapped.table, "t.", &changed),
        columns(&mapped.table, "EXCLUDED.", &changed)
    )
}

/// A value as text, the same text for equal values.
pub(super) fn text(value: &str, kind: &Type) -> String {
    match kind.base_oid {
        NUMERIC => format!("pg_catalog.trim_scale({value})::text"),
        // Whatever the time zone of the session.
        TIMESTAMPTZ => format!(
            "CASE WHEN isfinite({value}) THEN ({value} AT TIME ZONE 'UTC')::text || '+00' ELSE {value}::text END"
        ),
        _ if kind.is_citext() => format!("lower({value}::text)"),
        _ => format!("{value}::text"),
    }
}

const NUMERIC: u32 = 1700;
const TIMESTAMPTZ: u32 = 1184;

pub(super) fn texts(table: &Table, prefix: &str, columns: &[usize]) -> String {
    let texts: Vec<String> = columns
        .iter()
        .map(|at| text(&format!("{prefix}{}", quote(&table.columns[*at].name)), &table.columns[*at].kind))
        .collect();
    format!("ARRAY[{}]::text[]", texts.join(", "))
}

pub(super) fn key(mapped: &Mapped, prefix: &str) -> String {
    texts(&mapped.table, prefix, &mapped.key)
}

pub(super) fn owner(mapped: &Mapped, prefix: &str) -> String {
    mapped.owner.map_or("NULL::text".to_owned(), |at| {
        let column = &mapped.table.columns[at];
        text(&format!("{prefix}{}", quote(&column.name)), &column.kind)
    })
}

pub(super) fn columns(table: &Table, prefix: &str, columns: &[usize]) -> String {
    let names: Vec<String> =
        columns.iter().map(|at| format!("{prefix}{}", quote(&table.columns[*at].name))).collect();
    names.join(", ")
}

pub(super) fn equal(mapped: &Mapped, one: &str, other: &str) -> String {
    let equal: Vec<String> = mapped
        .key
        .iter()
        .map(|at| quote(&mapped.table.columns[*at].name))
        .map(|name| format!("{one}{name} = {other}{name}"))
        .collect();
    equal.join(" AND ")
}

/// The row of `from` refers to the row of `to`.
pub(super) fn refers(one: &Reference, child: &Table, parent: &Table, from: &str, to: &str) -> String {
    let pairs = one.columns.iter().zip(&one.named);
    let equal: Vec<String> = pairs
        .map(|(column, named)| {
            format!(
                "{to}{} = {from}{}",
                quote(&parent.columns[*named].name),
                quote(&child.columns[*column].name)
            )
        })
        .collect();
    equal.join(" AND ")
}

/// The keys that are bound, from `$bound + 1` on: one array of text a key column.
pub(super) fn keys(mapped: &Mapped, bound: usize) -> String {
    let arrays: Vec<String> =
        (0..mapped.key.len()).map(|place| format!("${}::text[]", bound + place + 1)).collect();
    let names: Vec<String> = (0..mapped.key.len()).map(|place| format!("k{place}")).collect();
    format!("unnest({}) AS k({})", arrays.join(", "), names.join(", "))
}

pub(super) fn key_of_parameters(mapped: &Mapped) -> String {
    let names: Vec<String> = (0..mapped.key.len()).map(|place| format!("k.k{place}")).collect();
    format!("ARRAY[{}]::text[]", names.join(", "))
}

/// The row has the key that is bound.
pub(super) fn by_parameters(mapped: &Mapped, prefix: &str) -> String {
    let equal: Vec<String> = mapped
        .key
        .iter()
        .enumerate()
        .map(|(place, at)| {
            let column = &mapped.table.columns[*at];
            format!("{prefix}{} = k.k{place}::{}", quote(&column.name), element_type(&column.kind))
        })
        .collect();
    equal.join(" AND ")
}

/// A waiting row as a row of its table. The planner may look at this before it has looked whose row it is, and a row of another table
/// cannot be read as one of this.
pub(super) fn content(alias: &str, relation: i32, table: &str) -> String {
    format!("(CASE WHEN {alias}.relation = {relation} THEN {alias}.content END)::{table}")
}

pub(super) fn literal(text: &str) -> String {
    let plain = text.replace('\'', "''");
    if plain.contains('\\') { format!("E'{}'", plain.replace('\\', "\\\\")) } else { format!("'{plain}'") }
}

/// Where the entry of one of our tables is that belongs to a row of the statement, as `e.at`. `same`: a condition on `x`.
///
/// Each is looked up by itself: `OFFSET 0` leaves Postgres no choice. As a plain join it would be planned with statistics by which
/// the table is nearly empty, since the transaction that fills it is still open, and all entries would be compared with all rows.
pub(super) fn place_of(table: &str, relation: i32, same: &str) -> String {
    format!(
        "CROSS JOIN LATERAL (SELECT x.ctid AS at FROM slackwater.{table} AS x WHERE x.relation = {relation} AND {same} OFFSET 0) AS e"
    )
}

/// The same, for a waiting row by its key.
pub(super) fn place_of_row(relation: i32, key: &str) -> String {
    place_of("waiting_rows", relation, &format!("x.key = {key}"))
}
