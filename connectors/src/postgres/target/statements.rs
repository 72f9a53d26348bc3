//! The SQL that writes one table, as text made of its [`TableSpec`].
//!
//! Pure. Only names out of the catalogue get in, quoted; every value is bound. A row that is already as it should be is
//! not touched: it is compared by its *image* (`*<>`), not by `=`, because equal is not the same: a citext `Ann`
//! equals `ann`, a numeric `1.0` equals `1.00`, and json has no `=` at all.

use std::fmt::Write as _;

use crate::postgres::target::catalog::{Rival, Type};
use crate::postgres::target::rows::{HELD, PART, TableSpec};

/// A name, quoted.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Schema and table, quoted.
pub fn table_name(spec: &TableSpec) -> String {
    qualified(&spec.table.schema, &spec.table.name)
}

/// The rows of parameter `number`: an array of the table's row type, or of its shape.
pub(super) fn source(spec: &TableSpec, number: usize) -> String {
    match &spec.shape {
        Some(shape) => shape.source(&spec.table, &spec.columns, number),
        None => format!("unnest(${number}::{}[])", table_name(spec)),
    }
}

/// Schema and table, quoted.
pub(super) fn qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", quote(schema), quote(table))
}

/// Inserts the rows of `$1` (an array of the table's row type) or updates those that differ.
pub fn upsert(spec: &TableSpec) -> String {
    let table = table_name(spec);
    let columns = list(spec, "", 0..spec.columns.len());
    let values = list(spec, "r.", 0..spec.columns.len());
    let identity = spec.columns.iter().any(|column| spec.table.columns[*column].identity_always);
    let overriding = if identity { " OVERRIDING SYSTEM VALUE" } else { "" };
    let key = list(spec, "", spec.key.iter().copied());
    // An identity may be given when the row is made, never changed.
    let updated: Vec<usize> = (0..spec.columns.len())
        .filter(|index| !spec.key.contains(index))
        .filter(|index| !spec.table.columns[spec.columns[*index]].identity_always)
        .collect();
    let mut sql = format!(
        "INSERT INTO {table} AS t ({columns}){overriding} SELECT {values} FROM {source} AS r \
         ON CONFLICT ({key}) DO ",
        source = source(spec, 1),
    );
    if updated.is_empty() {
        sql.push_str("NOTHING");
        return sql;
    }
    let set: Vec<String> = updated
        .iter()
        .map(|index| column(spec, *index))
        .map(|name| format!("{name} = EXCLUDED.{name}"))
        .collect();
    let old = list(spec, "t.", updated.iter().copied());
    let new = list(spec, "EXCLUDED.", updated.iter().copied());
    let _ = write!(
        sql,
        "UPDATE SET {} WHERE ROW({old})::record OPERATOR(pg_catalog.*<>) ROW({new})::record",
        set.join(", ")
    );
    sql
}

/// Gives the rows of `$1` that are there under another key the one that they have now, before they are written: a partition key that
/// changes moves its row. None where a row cannot change its key.
pub fn relocate(spec: &TableSpec) -> Option<String> {
    let found = spec.found.as_deref()?;
    let set: Vec<String> =
        moved(spec, found).map(|at| column(spec, at)).map(|name| format!("{name} = r.{name}")).collect();
    let (rows, same) = under_another_key(spec)?;
    Some(format!("UPDATE {} AS t SET {} FROM {rows} WHERE {same}", table_name(spec), set.join(", ")))
}

/// The rows of the table, `t`, that are there for rows of `$1`, `r`, under another key.
pub(super) fn moving(spec: &TableSpec) -> Option<String> {
    let (rows, same) = under_another_key(spec)?;
    Some(format!("{} AS t JOIN {rows} ON {same}", table_name(spec)))
}

fn under_another_key(spec: &TableSpec) -> Option<(String, String)> {
    let found = spec.found.as_deref()?;
    let rest = || spec.key.iter().copied().filter(|key| !found.contains(key));
    let same: Vec<String> =
        found.iter().map(|at| column(spec, *at)).map(|name| format!("t.{name} = r.{name}")).collect();
    let same = format!(
        "{} AND ({}) IS DISTINCT FROM ({})",
        same.join(" AND "),
        list(spec, "t.", rest()),
        list(spec, "r.", rest()),
    );
    Some((format!("{} AS r", source(spec, 1)), same))
}

/// What a row takes with it when the rest of its key changes: a check may compare that with other columns. What a reference or a unique value is
/// made of follows afterwards, when it is known whether it can be there.
pub(super) fn moved<'s>(spec: &'s TableSpec, found: &'s [usize]) -> impl Iterator<Item = usize> + 's {
    let table = &spec.table;
    let settled = |at: usize| {
        let (place, name) = (spec.columns[at], &table.columns[spec.columns[at]].name);
        let refers = table.foreign_keys.iter().any(|key| key.columns.contains(&place));
        let texts = |rival: &'s Rival| rival.values.iter().chain(&rival.predicate);
        !refers && !table.rivals.iter().flat_map(texts).any(|text| text.contains(&name.replace('"', "\"\"")))
    };
    (0..spec.columns.len()).filter(move |at| !found.contains(at) && (spec.key.contains(at) || settled(*at)))
}

/// Deletes by key: one array a column that rows are found by.
pub fn delete(spec: &TableSpec) -> String {
    let table = table_name(spec);
    if let [key] = spec.found_by() {
        return format!("DELETE FROM {table} AS t WHERE t.{} = ANY($1)", column(spec, *key));
    }
    let mut arrays = Vec::new();
    let mut names = Vec::new();
    let mut equal = Vec::new();
    for (place, key) in spec.found_by().iter().enumerate() {
        arrays.push(format!("${}::{}[]", place + 1, element_type(&kind(spec, *key))));
        names.push(format!("k{place}"));
        equal.push(format!("t.{} = d.k{place}", column(spec, *key)));
    }
    format!(
        "DELETE FROM {table} AS t USING unnest({}) AS d({}) WHERE {}",
        arrays.join(", "),
        names.join(", "),
        equal.join(" AND ")
    )
}

/// The owners in `$1` as `o(id)`; of rows that belong to elements, those that the documents in `$1` had.
pub(super) fn owners(spec: &TableSpec) -> Option<String> {
    let kind = element_type(&kind(spec, spec.owner?));
    Some(match &spec.holder {
        None => format!("unnest($1::{kind}[]) AS o(id)"),
        Some(holder) => format!(
            "(SELECT u.id::{kind} AS id FROM {holder} AS h, unnest(h.{}) AS u(id) WHERE h.{} = ANY($1::uuid[])) AS o",
            quote(HELD),
            quote(PART)
        ),
    })
}

/// Deletes all rows of the owners in `$1`.
pub fn delete_owned(spec: &TableSpec) -> Option<String> {
    Some(format!(
        "DELETE FROM {} AS t USING {} WHERE t.{} = o.id",
        table_name(spec),
        owners(spec)?,
        column(spec, spec.owner?)
    ))
}

/// Deletes those rows of the owners in `$1` whose keys are not among the rows of `$2`.
///
/// NOT IN, because it is hashed whatever number of rows the planner guesses for `unnest`; an anti join may become
/// a nested loop over 5 000 × 5 000.
pub fn delete_others(spec: &TableSpec) -> Option<String> {
    let owned = delete_owned(spec)?;
    let present: Vec<String> = spec
        .key
        .iter()
        .filter(|key| !spec.table.columns[spec.columns[**key]].not_null)
        .map(|key| format!("r.{} IS NOT NULL", column(spec, *key)))
        .collect();
    let present =
        if present.is_empty() { String::new() } else { format!(" WHERE {}", present.join(" AND ")) };
    Some(format!(
        "{owned} AND ({}) NOT IN (SELECT {} FROM {} AS r{present})",
        list(spec, "t.", spec.key.iter().copied()),
        list(spec, "r.", spec.key.iter().copied()),
        source(spec, 2)
    ))
}

/// Takes rows in the framing of a binary COPY.
pub fn copy(spec: &TableSpec) -> String {
    format!(
        "COPY {} ({}) FROM STDIN (FORMAT binary)",
        table_name(spec),
        list(spec, "", 0..spec.columns.len())
    )
}

/// Notes the keys of the rows of `$1` as met by the reload that is going on.
pub fn note_seen(spec: &TableSpec, relation: &str) -> String {
    format!(
        "INSERT INTO slackwater.{} ({}) SELECT {} FROM {} AS r ON CONFLICT DO NOTHING",
        quote(relation),
        list(spec, "", spec.key.iter().copied()),
        list(spec, "r.", spec.key.iter().copied()),
        source(spec, 1)
    )
}

/// Deletes rows that the reload has not met and that could be ours: of `uuid` keys those of our versions, and those that
/// hold the constants (column names; their values are bound as text, in this order).
pub fn sweep(spec: &TableSpec, relation: &str, constants: &[&str]) -> String {
    format!("DELETE FROM {} AS t WHERE {}", table_name(spec), unseen(spec, relation, constants))
}

/// The row `t` is one that a sweep deletes.
pub(super) fn unseen(spec: &TableSpec, relation: &str, constants: &[&str]) -> String {
    let mut sql = format!("NOT EXISTS (SELECT FROM slackwater.{} AS s WHERE ", quote(relation));
    let equal: Vec<String> =
        spec.key.iter().map(|key| column(spec, *key)).map(|name| format!("s.{name} = t.{name}")).collect();
    sql.push_str(&equal.join(" AND "));
    sql.push(')');
    for condition in could_be_ours(spec, constants, 0) {
        let _ = write!(sql, " AND {condition}");
    }
    sql
}

/// What holds of each row `t` that the mapping could have made. The constants are bound after so many other values.
fn could_be_ours(spec: &TableSpec, constants: &[&str], bound: usize) -> Vec<String> {
    let mut conditions = Vec::new();
    for key in &spec.key {
        if kind(spec, *key).base_oid == UUID {
            let versions = if spec.ordered { "IN ('5', '8')" } else { "= '5'" };
            conditions.push(format!("substr(t.{}::text, 15, 1) {versions}", column(spec, *key)));
        }
    }
    // Of the numbers of a sequence those that were taken for documents.
    if let Some(serial) = spec.serial {
        conditions.push(format!(
            "EXISTS (SELECT FROM slackwater.numbers AS n JOIN slackwater.series AS e ON e.id = n.series \
             WHERE e.schema_name = {} AND e.table_name = {} AND n.number = t.{})",
            literal(&spec.table.schema),
            literal(&spec.table.name),
            column(spec, serial)
        ));
    }
    for (place, name) in constants.iter().enumerate() {
        let kind = spec.table.column(name).map(|column| &spec.table.columns[column].kind);
        let cast = kind.map(|kind| format!("::{}", element_type(kind))).unwrap_or_default();
        conditions.push(format!("t.{} = ${}::text{cast}", quote(name), bound + place + 1));
    }
    conditions
}

/// Deletes all rows that the mapping could have made; the values of the constants are bound as in [`sweep`], after
/// so many others.
pub(crate) fn ours(spec: &TableSpec, migration: &str, constants: &[&str], bound: usize) -> String {
    let mut conditions = could_be_ours(spec, constants, bound);
    if spec.claimed {
        let key: Vec<String> = spec.key.iter().map(|key| format!("t.{}::text", column(spec, *key))).collect();
        conditions.push(format!(
            "EXISTS (SELECT FROM slackwater.claims AS c JOIN slackwater.relations AS r ON r.id = c.relation \
             WHERE r.migration = {} AND r.schema_name = {} AND r.table_name = {} AND c.key = ARRAY[{}])",
            literal(migration),
            literal(&spec.table.schema),
            literal(&spec.table.name),
            key.join(", ")
        ));
    }
    let all = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") };
    format!("DELETE FROM {} AS t WHERE {all}", table_name(spec))
}

/// Text as SQL has it.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

const UUID: u32 = 2950;

fn column(spec: &TableSpec, index: usize) -> String {
    quote(&spec.table.columns[spec.columns[index]].name)
}

fn kind(spec: &TableSpec, index: usize) -> Type {
    spec.table.columns[spec.columns[index]].kind.clone()
}

fn list(spec: &TableSpec, prefix: &str, indices: impl Iterator<Item = usize>) -> String {
    let names: Vec<String> = indices.map(|index| format!("{prefix}{}", column(spec, index))).collect();
    names.join(", ")
}

/// The type without its modifiers: a cast to `varchar(3)` would cut a key in silence and find another row by it.
pub fn element_type(kind: &Type) -> String {
    match kind.oid {
        // Without a modifier these names mean a length of one.
        1042 => return "pg_catalog.bpchar".into(),
        1014 => return "pg_catalog.bpchar[]".into(),
        1560 => return "pg_catalog.\"bit\"".into(),
        1561 => return "pg_catalog.\"bit\"[]".into(),
        1186 => return "pg_catalog.interval".into(),
        1187 => return "pg_catalog.interval[]".into(),
        _ => {}
    }
    let mut name = String::new();
    let mut quoted = false;
    let mut inside = false;
    for letter in kind.name.chars() {
        match letter {
            '"' => quoted = !quoted,
            '(' if !quoted => inside = true,
            ')' if !quoted => {
                inside = false;
                continue;
            }
            _ => {}
        }
        if !inside {
            name.push(letter);
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::postgres::target::catalog::{Column, Table};
    use crate::postgres::target::rows::{Apart, Merging, Missing, RowFormat};

    fn plain(oid: u32, name: &str) -> Type {
        Type {
            oid,
            name: name.into(),
            base_oid: oid,
            base_name: name.into(),
            modifier: -1,
            enum_labels: None,
            element: None,
            comparable: true,
        }
    }

    fn spec(columns: &[(&str, u32, &str)], key: &[usize], owner: Option<usize>) -> TableSpec {
        let columns: Vec<Column> = columns
            .iter()
            .map(|(name, oid, kind)| Column {
                name: (*name).into(),
                kind: plain(*oid, kind),
                not_null: true,
                has_default: false,
                default: None,
                cycles: false,
                generated: false,
                identity_always: false,
                null_checked: false,
            })
            .collect();
        let mapped: Vec<usize> = (0..columns.len()).collect();
        let table = Table {
            schema: "public".into(),
            name: "a\"b".into(),
            columns,
            primary_key: key.to_vec(),
            uniques: vec![],
            rivals: vec![],
            indexes: vec![],
            foreign_keys: vec![],
            judges: false,
            is_table: true,
            lacks: Vec::new(),
            estimated_rows: 0,
            triggers: Vec::new(),
            ..Table::default()
        };
        TableSpec {
            record: Arc::new(RowFormat::record(&table, &mapped)),
            copy: Arc::new(RowFormat::copy(mapped.len())),
            table: Arc::new(table),
            missing: vec![Missing::Wait; mapped.len()],
            shape: None,
            found: None,
            claimed: false,
            ordered: false,
            serial: None,
            stands: false,
            source: "shop".into(),
            apart: Apart::Alone,
            merging: Merging::None,
            columns: mapped,
            key: key.to_vec(),
            owner,
            holder: None,
        }
    }

    #[test]
    fn golden() {
        let people = spec(&[("id", 2950, "uuid"), ("Name", 25, "text"), ("x", 114, "json")], &[0], None);
        assert_eq!(
            upsert(&people),
            "INSERT INTO \"public\".\"a\"\"b\" AS t (\"id\", \"Name\", \"x\") SELECT r.\"id\", r.\"Name\", r.\"x\" FROM \
             unnest($1::\"public\".\"a\"\"b\"[]) AS r ON CONFLICT (\"id\") DO UPDATE SET \"Name\" = EXCLUDED.\"Name\", \
             \"x\" = EXCLUDED.\"x\" WHERE ROW(t.\"Name\", t.\"x\")::record OPERATOR(pg_catalog.*<>) \
             ROW(EXCLUDED.\"Name\", EXCLUDED.\"x\")::record"
        );
        assert_eq!(delete(&people), "DELETE FROM \"public\".\"a\"\"b\" AS t WHERE t.\"id\" = ANY($1)");
        assert_eq!(delete_owned(&people), None);
        assert_eq!(
            copy(&people),
            "COPY \"public\".\"a\"\"b\" (\"id\", \"Name\", \"x\") FROM STDIN (FORMAT binary)"
        );
        assert_eq!(
            sweep(&people, "seen_1", &["Name"]),
            "DELETE FROM \"public\".\"a\"\"b\" AS t WHERE NOT EXISTS (SELECT FROM slackwater.\"seen_1\" AS s WHERE \
             s.\"id\" = t.\"id\") AND substr(t.\"id\"::text, 15, 1) = '5' AND t.\"Name\" = $1::text::text"
        );
    }

    #[test]
    fn golden_junction() {
        let junction =
            spec(&[("user_id", 2950, "uuid"), ("code", 1043, "character varying(3)")], &[0, 1], Some(0));
        assert!(upsert(&junction).ends_with("ON CONFLICT (\"user_id\", \"code\") DO NOTHING"));
        assert_eq!(
            delete(&junction),
            "DELETE FROM \"public\".\"a\"\"b\" AS t USING unnest($1::uuid[], $2::character varying[]) AS d(k0, k1) \
             WHERE t.\"user_id\" = d.k0 AND t.\"code\" = d.k1"
        );
        assert_eq!(
            delete_others(&junction).expect("has an owner"),
            "DELETE FROM \"public\".\"a\"\"b\" AS t USING unnest($1::uuid[]) AS o(id) WHERE t.\"user_id\" = o.id AND \
             (t.\"user_id\", t.\"code\") NOT IN (SELECT r.\"user_id\", r.\"code\" FROM \
             unnest($2::\"public\".\"a\"\"b\"[]) AS r)"
        );
    }

    #[test]
    fn rows_of_elements_are_found_through_those_of_their_document() {
        let mut lines = spec(&[("order_id", 2950, "uuid"), ("sku", 25, "text")], &[0, 1], Some(0));
        lines.holder = Some("slackwater.\"parts_x\"".into());
        assert_eq!(
            delete_owned(&lines).expect("has an owner"),
            "DELETE FROM \"public\".\"a\"\"b\" AS t USING (SELECT u.id::uuid AS id FROM slackwater.\"parts_x\" AS h, \
             unnest(h.\"slackwater elements\") AS u(id) WHERE h.\"slackwater part\" = ANY($1::uuid[])) AS o \
             WHERE t.\"order_id\" = o.id"
        );
    }

    #[test]
    fn a_key_that_changes() {
        let mut events =
            spec(&[("id", 2950, "uuid"), ("at", 1184, "timestamp with time zone")], &[0, 1], None);
        assert_eq!(relocate(&events), None);
        events.found = Some(vec![0]);
        assert_eq!(
            relocate(&events).expect("it can"),
            "UPDATE \"public\".\"a\"\"b\" AS t SET \"at\" = r.\"at\" FROM unnest($1::\"public\".\"a\"\"b\"[]) AS r \
             WHERE t.\"id\" = r.\"id\" AND (t.\"at\") IS DISTINCT FROM (r.\"at\")"
        );
        assert_eq!(delete(&events), "DELETE FROM \"public\".\"a\"\"b\" AS t WHERE t.\"id\" = ANY($1)");
    }

    #[test]
    fn identity_is_given_once() {
        let mut numbers =
            spec(&[("id", 2950, "uuid"), ("number", 20, "bigint"), ("a", 25, "text")], &[0], None);
        let mut table = (*numbers.table).clone();
        table.columns[1].identity_always = true;
        numbers.table = Arc::new(table);
        let sql = upsert(&numbers);
        assert!(sql.contains(") OVERRIDING SYSTEM VALUE SELECT "), "{sql}");
        assert!(!sql.contains("\"number\" = EXCLUDED"), "{sql}");
    }

    #[test]
    fn types_lose_their_modifiers() {
        for (oid, name, expected) in [
            (1700, "numeric(20,2)", "numeric"),
            (1184, "timestamp(3) with time zone", "timestamp with time zone"),
            (1042, "character(3)", "pg_catalog.bpchar"),
            (90001, "public.\"odd(1)\"", "public.\"odd(1)\""),
        ] {
            assert_eq!(element_type(&plain(oid, name)), expected);
        }
    }
}
