//! The SQL that compares mapped rows with those that stand, as text made of a [`TableSpec`]. Pure. It writes nothing but lists of ours.
//!
//! Rows are compared by their image, as a write compares them: `=` would miss a changed scale of a numeric, and json has none.

use crate::postgres::target::rows::TableSpec;
use crate::postgres::target::statements::{qualified, quote, source, table_name};

/// Where the row is in the parameter, from one. No table has such a name.
const PLACE: &str = "\"slackwater place\"";

/// Keys of rows that are made of parts, compared at once.
pub(super) const MADE_AT_ONCE: usize = 5_000;

/// The lists of one verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lists(pub i64);

impl Lists {
    /// The keys that documents make in the table of this specification.
    pub(super) fn seen(self, spec: usize) -> String {
        format!("slackwater.proof_{}_seen_{spec}", self.0)
    }

    /// The keys of rows that no document seems to make, of the table of this specification: the first one of its table.
    pub(super) fn extra(self, spec: usize) -> String {
        format!("slackwater.proof_{}_extra_{spec}", self.0)
    }
}

/// Those of the rows `$1` that are missing, or differ: place, key as text, whether it is missing, and which columns differ. With a list, the
/// keys of all rows are kept in it.
pub(super) fn compare(spec: &TableSpec, list: Option<&str>) -> String {
    let compared: Vec<usize> = (0..spec.columns.len()).filter(|at| !spec.key.contains(at)).collect();
    let old = |at: &usize| format!("d.c{at}");
    let rows = format!("SELECT row_number() OVER () AS {PLACE}, q.* FROM {} AS q", source(spec, 1));
    let keep = list.map(|list| {
        let keys: Vec<String> = spec.key.iter().map(|at| name(spec, *at)).collect();
        let kept: Vec<String> = (0..keys.len()).map(|place| format!("k{place}")).collect();
        format!(", kept AS (INSERT INTO {list} ({}) SELECT {} FROM r)", kept.join(", "), keys.join(", "))
    });
    // Only where it is used twice; the rows of a batch are some megabytes.
    let materialized = if list.is_some() { "MATERIALIZED " } else { "" };
    let fetched: String = compared.iter().map(|at| format!(", t.{} AS c{at}", name(spec, *at))).collect();
    let (differs, columns) = if compared.is_empty() {
        (String::new(), "ARRAY[]::int[]".to_owned())
    } else {
        let olds: Vec<String> = compared.iter().map(old).collect();
        let news: Vec<String> = compared.iter().map(|at| new(spec, *at)).collect();
        let cases: Vec<String> = compared
            .iter()
            .map(|at| {
                let (old, new) = (old(at), new(spec, *at));
                format!(
                    "CASE WHEN ROW({old})::record OPERATOR(pg_catalog.*<>) ROW({new})::record THEN {at} END"
                )
            })
            .collect();
        (
            format!(
                " OR ROW({})::record OPERATOR(pg_catalog.*<>) ROW({})::record",
                olds.join(", "),
                news.join(", ")
            ),
            format!(
                "CASE WHEN d.at IS NULL THEN ARRAY[]::int[] ELSE array_remove(ARRAY[{}], NULL) END",
                cases.join(", ")
            ),
        )
    };
    format!(
        "WITH r AS {materialized}({rows}){keep} SELECT r.{PLACE}, {key}, d.at IS NULL, {columns} FROM r \
         LEFT JOIN LATERAL (SELECT t.ctid AS at{fetched} FROM {table} AS t WHERE {same} LIMIT 1) AS d ON true \
         WHERE d.at IS NULL{differs}",
        keep = keep.unwrap_or_default(),
        key = key_as_text(spec, "r"),
        table = table_name(spec),
        same = same(spec, "r"),
    )
}

/// Makes the list of the keys that documents make.
pub(super) fn make_seen(spec: &TableSpec, list: &str) -> String {
    let keys: Vec<String> =
        spec.key.iter().enumerate().map(|(place, at)| format!("t.{} AS k{place}", name(spec, *at))).collect();
    format!(
        "CREATE UNLOGGED TABLE IF NOT EXISTS {list} AS SELECT {} FROM {} AS t WHERE false",
        keys.join(", "),
        table_name(spec)
    )
}

/// Makes the list of rows whose keys are in no list of those that fill the table: `specs`, with their lists.
pub(super) fn make_extra(specs: &[(&TableSpec, String)], extra: &str) -> Option<String> {
    let (first, _) = specs.first()?;
    let keys: Vec<String> = first
        .key
        .iter()
        .enumerate()
        .map(|(place, at)| format!("t.{} AS k{place}", name(first, *at)))
        .collect();
    let none: Vec<String> = specs
        .iter()
        .map(|(spec, list)| {
            let same: Vec<String> = spec
                .key
                .iter()
                .enumerate()
                .map(|(place, at)| format!("s.k{place} = t.{}", name(spec, *at)))
                .collect();
            format!("NOT EXISTS (SELECT FROM {list} AS s WHERE {})", same.join(" AND "))
        })
        .collect();
    Some(format!(
        "CREATE UNLOGGED TABLE IF NOT EXISTS {extra} AS SELECT {} FROM {} AS t WHERE {}",
        keys.join(", "),
        table_name(first),
        none.join(" AND ")
    ))
}

/// Takes out of the list of extra rows what the rows `$1` of this specification are. `first`: the one that the list is of.
pub(super) fn strike_rows(spec: &TableSpec, first: &TableSpec, extra: &str) -> String {
    format!(
        "DELETE FROM {extra} AS e USING {} AS r, {} AS t WHERE {} AND {}",
        source(spec, 1),
        table_name(spec),
        same(spec, "r"),
        is_of_list(first)
    )
}

/// The same for rows that a document could have: by the keys that a delete brings, one array a column, or by the ids of documents.
pub(super) fn strike_deletes(spec: &TableSpec, first: &TableSpec, extra: &str, migration: &str) -> String {
    let table = table_name(spec);
    if spec.claimed {
        return format!(
            "DELETE FROM {extra} AS e USING {table} AS t, slackwater.claims AS c JOIN slackwater.relations AS n ON n.id = c.relation \
             WHERE (n.migration, n.schema_name, n.table_name) = ({}, {}, {}) AND c.id = ANY($1::uuid[]) AND c.key = {} AND {}",
            super::statements::literal(migration),
            super::statements::literal(&spec.table.schema),
            super::statements::literal(&spec.table.name),
            key_as_text(spec, "t"),
            is_of_list(first)
        );
    }
    let (mut arrays, mut names, mut equal) = (Vec::new(), Vec::new(), Vec::new());
    for (place, at) in spec.found_by().iter().enumerate() {
        let kind = &spec.table.columns[spec.columns[*at]].kind;
        arrays.push(format!("${}::{}[]", place + 1, super::statements::element_type(kind)));
        names.push(format!("k{place}"));
        equal.push(format!("t.{} = d.k{place}", name(spec, *at)));
    }
    format!(
        "DELETE FROM {extra} AS e USING unnest({}) AS d({}), {table} AS t WHERE {} AND {}",
        arrays.join(", "),
        names.join(", "),
        equal.join(" AND "),
        is_of_list(first)
    )
}

/// The same for the rows of elements of these owners.
pub(super) fn strike_owned(spec: &TableSpec, first: &TableSpec, extra: &str) -> Option<String> {
    let owner = spec.owner?;
    Some(format!(
        "DELETE FROM {extra} AS e USING {} AS t, {} WHERE t.{} = o.id AND {}",
        table_name(spec),
        super::statements::owners(spec)?,
        name(spec, owner),
        is_of_list(first)
    ))
}

/// Takes out of the list what is not in its table.
pub(super) fn strike_absent(first: &TableSpec, extra: &str) -> String {
    format!(
        "DELETE FROM {extra} AS e WHERE NOT EXISTS (SELECT FROM {} AS t WHERE {})",
        table_name(first),
        is_of_list(first)
    )
}

/// What is left of the list and still in its table: the keys, as text.
pub(super) fn left(first: &TableSpec, extra: &str) -> String {
    format!(
        "SELECT {} FROM {extra} AS e JOIN {} AS t ON {}",
        key_as_text(first, "t"),
        table_name(first),
        is_of_list(first)
    )
}

/// How many of these keys stand: those that should not.
pub(super) fn standing(spec: &TableSpec) -> String {
    let (mut arrays, mut names, mut equal) = (Vec::new(), Vec::new(), Vec::new());
    for (place, at) in spec.key.iter().enumerate() {
        let kind = &spec.table.columns[spec.columns[*at]].kind;
        arrays.push(format!("${}::{}[]", place + 1, super::statements::element_type(kind)));
        names.push(format!("k{place}"));
        equal.push(format!("t.{} = d.k{place}", name(spec, *at)));
    }
    format!(
        "SELECT {} FROM unnest({}) AS d({}) JOIN {} AS t ON {}",
        key_as_text(spec, "t"),
        arrays.join(", "),
        names.join(", "),
        table_name(spec),
        equal.join(" AND ")
    )
}

/// The row `t` is the one of the list's entry `e`.
fn is_of_list(first: &TableSpec) -> String {
    let same: Vec<String> = first
        .key
        .iter()
        .enumerate()
        .map(|(place, at)| format!("t.{} = e.k{place}", name(first, *at)))
        .collect();
    same.join(" AND ")
}

fn same(spec: &TableSpec, rows: &str) -> String {
    let same: Vec<String> =
        spec.key.iter().map(|at| name(spec, *at)).map(|key| format!("t.{key} = {rows}.{key}")).collect();
    same.join(" AND ")
}

pub(super) fn key_as_text(spec: &TableSpec, row: &str) -> String {
    let keys: Vec<String> = spec.key.iter().map(|at| format!("{row}.{}::text", name(spec, *at))).collect();
    format!("ARRAY[{}]", keys.join(", "))
}

/// A column as it will be in the table. What travels in a shape has no length yet.
fn new(spec: &TableSpec, at: usize) -> String {
    let kind = &spec.table.columns[spec.columns[at]].kind;
    match spec.shape {
        Some(_) => format!("r.{}::{}", name(spec, at), kind.name),
        None => format!("r.{}", name(spec, at)),
    }
}

fn name(spec: &TableSpec, at: usize) -> String {
    quote(&spec.table.columns[spec.columns[at]].name)
}

/// All lists of a verification, dropped.
pub fn drop_lists(names: &[String]) -> String {
    let all: Vec<String> = names.iter().map(|name| qualified("slackwater", name)).collect();
    format!("DROP TABLE IF EXISTS {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::postgres::target::catalog::{Column, Table, Type};
    use crate::postgres::target::rows::{Apart, Merging, Missing, RowFormat};

    fn spec(key: &[usize]) -> TableSpec {
        let column = |name: &str, oid: u32, kind: &str| Column {
            name: name.into(),
            kind: Type { oid, name: kind.into(), base_oid: oid, base_name: kind.into(), ..Type::default() },
            ..Column::default()
        };
        let table = Table {
            schema: "public".into(),
            name: "people".into(),
            columns: vec![column("id", 2950, "uuid"), column("Name", 25, "text"), column("n", 20, "bigint")],
            ..Table::default()
        };
        let columns: Vec<usize> = (0..3).collect();
        TableSpec {
            record: Arc::new(RowFormat::record(&table, &columns)),
            copy: Arc::new(RowFormat::copy(3)),
            table: Arc::new(table),
            missing: vec![Missing::Wait; 3],
            shape: None,
            found: None,
            claimed: false,
            ordered: false,
            serial: None,
            stands: false,
            source: "shop".into(),
            apart: Apart::Alone,
            merging: Merging::None,
            columns,
            key: key.to_vec(),
            owner: None,
            holder: None,
        }
    }

    #[test]
    fn rows_are_compared_by_their_image_and_their_keys_are_kept() {
        assert_eq!(
            compare(&spec(&[0]), Some("slackwater.proof_1_seen_0")),
            "WITH r AS MATERIALIZED (SELECT row_number() OVER () AS \"slackwater place\", q.* FROM \
             unnest($1::\"public\".\"people\"[]) AS q), kept AS (INSERT INTO slackwater.proof_1_seen_0 (k0) SELECT \"id\" FROM r) \
             SELECT r.\"slackwater place\", ARRAY[r.\"id\"::text], d.at IS NULL, CASE WHEN d.at IS NULL THEN ARRAY[]::int[] ELSE \
             array_remove(ARRAY[CASE WHEN ROW(d.c1)::record OPERATOR(pg_catalog.*<>) ROW(r.\"Name\")::record THEN 1 END, \
             CASE WHEN ROW(d.c2)::record OPERATOR(pg_catalog.*<>) ROW(r.\"n\")::record THEN 2 END], NULL) END FROM r \
             LEFT JOIN LATERAL (SELECT t.ctid AS at, t.\"Name\" AS c1, t.\"n\" AS c2 FROM \"public\".\"people\" AS t WHERE \
             t.\"id\" = r.\"id\" LIMIT 1) AS d ON true WHERE d.at IS NULL OR ROW(d.c1, d.c2)::record OPERATOR(pg_catalog.*<>) \
             ROW(r.\"Name\", r.\"n\")::record"
        );
    }

    #[test]
    fn a_row_that_is_all_key_is_there_or_not() {
        let sql = compare(&spec(&[0, 1, 2]), None);
        assert!(sql.ends_with("LIMIT 1) AS d ON true WHERE d.at IS NULL"), "{sql}");
        assert!(sql.starts_with("WITH r AS (SELECT"), "{sql}");
    }

    #[test]
    fn a_row_is_extra_if_no_rule_that_fills_the_table_has_met_its_key() {
        let (one, other) = (spec(&[0]), spec(&[1]));
        let lists = [(&one, "slackwater.a".to_owned()), (&other, "slackwater.b".to_owned())];
        assert_eq!(
            make_extra(&lists, "slackwater.x").expect("a table"),
            "CREATE UNLOGGED TABLE IF NOT EXISTS slackwater.x AS SELECT t.\"id\" AS k0 FROM \"public\".\"people\" AS t WHERE \
             NOT EXISTS (SELECT FROM slackwater.a AS s WHERE s.k0 = t.\"id\") AND \
             NOT EXISTS (SELECT FROM slackwater.b AS s WHERE s.k0 = t.\"Name\")"
        );
    }
}
