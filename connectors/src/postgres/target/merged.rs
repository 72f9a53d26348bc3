//! The SQL of rows that several documents make together, as text made of specifications.
//!
//! What each document, or element, gives to such a row is a *part*, and stands in a table of ours: one for each rule of the file. A row
//! is computed of all parts with its key, by one statement for all keys that a transaction has touched. Pure.

use uuid::Uuid;

use crate::postgres::target::catalog::Type;
use crate::postgres::target::rows::{DOCUMENT, How, LookUp, ORDER, PART, TableSpec, Whole};
use crate::postgres::target::statements::{element_type, literal, quote, source, table_name};

/// The type that a column has in a table of parts: what is under a domain, without a length. What the column of the
/// application asks for is asked when the row is written.
pub fn part_type(kind: &Type) -> Type {
    let base = Type { oid: kind.base_oid, name: kind.base_name.clone(), ..kind.clone() };
    Type { name: element_type(&base), modifier: -1, ..base }
}

/// What has to be there for the parts of one rule: the table.
pub(super) fn create(part: &TableSpec) -> String {
    let table = table_name(part);
    let columns: Vec<String> = part
        .table
        .columns
        .iter()
        .map(|column| format!("{} {}", quote(&column.name), element_type(&column.kind)))
        .collect();
    let mut sql =
        format!("CREATE TABLE IF NOT EXISTS {table} ({}, PRIMARY KEY ({}))", columns.join(", "), quote(PART));
    for column in &part.table.columns {
        sql += &format!(
            "; ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {} {}",
            quote(&column.name),
            element_type(&column.kind)
        );
    }
    sql
}

/// Its indexes: name, and columns.
pub(super) fn indexes(
    part: &TableSpec,
    whole: Option<&TableSpec>,
    found_by: &[&str],
) -> Vec<(String, String)> {
    let mut indexes = Vec::new();
    let mut index =
        |what: &str, columns: String| indexes.push((format!("{}_{what}", part.table.name), columns));
    // Where the key is the part's own id, there is the primary key.
    if let Some(whole) = whole.filter(|whole| !is_by_part(whole)) {
        index("key", keys(whole, ""));
    }
    if part.owner.is_some() {
        index("document", quote(DOCUMENT));
    }
    for column in found_by.iter().filter(|column| **column != PART) {
        // Names of such columns end with a hash.
        let end: String = column.chars().rev().take(8).collect();
        index(&end, quote(column));
    }
    indexes
}

/// The key of the rows is the id of their parts.
pub(super) fn is_by_part(whole: &TableSpec) -> bool {
    whole.whole().is_some_and(|merging| merging.by_part)
}

/// A column of parts has another type than it had.
pub(super) fn retype(part: &TableSpec, column: &str, kind: &Type) -> String {
    let (name, cast) = (quote(column), element_type(kind));
    format!("ALTER TABLE {} ALTER COLUMN {name} TYPE {cast} USING {name}::text::{cast}", table_name(part))
}

/// The keys, as text, of the rows that a batch of parts touches; see [`now_and_before`].
pub(super) fn touched(part: &TableSpec, whole: &TableSpec) -> String {
    now_and_before(part, &key_names(whole).collect::<Vec<_>>())
}

/// What documents of a batch are found by, as text; `by`: the column. See [`now_and_before`].
pub(super) fn found(known: &TableSpec, by: &str) -> String {
    now_and_before(known, &[by])
}

/// The values of these columns that the rows `$1` of a table of ours have now, and that those had which they overwrite, which are deleted
/// (`$2`), or which are of documents whose elements are replaced (`$3`).
fn now_and_before(part: &TableSpec, columns: &[&str]) -> String {
    let (table, rows, id) = (table_name(part), source(part, 1), quote(PART));
    let as_text = |prefix: &str| {
        let names = columns.iter().map(|name| format!("{prefix}{}::text", quote(name)));
        names.collect::<Vec<_>>().join(", ")
    };
    // Without elements nothing is asked for; the parameter is there all the same.
    let owned = match part.owner {
        Some(_) => format!("t.{} = ANY($3::uuid[])", quote(DOCUMENT)),
        None => "cardinality($3::uuid[]) < 0".to_owned(),
    };
    format!(
        "SELECT {new} FROM {rows} AS r \
         UNION SELECT {old} FROM {table} AS t JOIN {rows} AS r ON r.{id} = t.{id} \
         UNION SELECT {old} FROM {table} AS t WHERE t.{id} = ANY($2::uuid[]) \
         UNION SELECT {old} FROM {table} AS t WHERE {owned}",
        new = as_text("r."),
        old = as_text("t."),
    )
}

/// What the rows `$1` of parts look for, as text; where they travel as they are, `$1` are the values of that column alone.
pub(super) fn looked_for(part: &TableSpec, wanted: &str) -> String {
    if part.shape.is_some() {
        return format!("SELECT DISTINCT r.{}::text FROM {} AS r", quote(wanted), source(part, 1));
    }
    format!("SELECT DISTINCT x.v::text FROM unnest($1::{}[]) AS x(v)", kind_of(part, wanted))
}

/// The keys, as text, of rows that have parts which look for one of `$1`.
pub(super) fn looking(part: &TableSpec, whole: &TableSpec, wanted: &str) -> String {
    let kind = kind_of(part, wanted);
    let names: Vec<String> = key_names(whole).map(|name| format!("t.{}::text", quote(name))).collect();
    format!(
        "SELECT DISTINCT {} FROM unnest($1::text[]) AS x(v) JOIN {} AS t ON t.{} = x.v::{kind}",
        names.join(", "),
        table_name(part),
        quote(wanted)
    )
}

fn kind_of(part: &TableSpec, column: &str) -> String {
    part.table.column(column).map(|at| element_type(&part.table.columns[at].kind)).unwrap_or_default()
}

/// The rows of the keys that are bound, one array of text a column: whether there is one, the key, and its columns as they travel.
pub(super) fn rows(whole: &TableSpec, merging: &Whole, specs: &[TableSpec]) -> String {
    let parts: Vec<&TableSpec> = merging.parts.iter().map(|part| &specs[*part]).collect();
    let kinds: Vec<Type> =
        whole.columns.iter().map(|column| part_type(&whole.table.columns[*column].kind)).collect();
    let key_places = 0..whole.key.len();
    let arrays: Vec<String> = key_places.clone().map(|place| format!("${}::text[]", place + 1)).collect();
    let names: Vec<String> = key_places.clone().map(|place| format!("k{place}")).collect();
    let typed: Vec<String> = whole
        .key
        .iter()
        .enumerate()
        .map(|(place, at)| format!("x.k{place}::{} AS k{place}", kinds[*at].name))
        .collect();
    let wanted = format!(
        "(SELECT DISTINCT {} FROM unnest({}) AS x({})) AS w",
        typed.join(", "),
        arrays.join(", "),
        names.join(", ")
    );
    let ordered = parts.iter().find_map(|part| order_of(part));
    let sides: Vec<String> = parts
        .iter()
        .enumerate()
        .map(|(side, part)| {
            let lookups = merging.lookups.iter().filter(|lookup| lookup.part == merging.parts[side]);
            of_side(whole, &kinds, (side, part), ordered.as_ref(), &lookups.collect::<Vec<_>>(), specs)
        })
        .collect();
    let key: Vec<String> = key_places.map(|place| format!("w.k{place}")).collect();
    let stands = match merging.all {
        true => format!("count(DISTINCT p.side) = {}", parts.len()),
        false => "count(p.part) > 0".to_owned(),
    };
    let made: Vec<String> = kinds
        .iter()
        .enumerate()
        .map(|(at, kind)| match merging.single {
            true => format!("p.c{at}"),
            false => format!("{} AS c{at}", made(whole, merging, at, kind)),
        })
        .collect();
    // Nothing has to be chosen where a row has one part.
    let (stands, all) = match merging.single {
        true => ("p.part IS NOT NULL".to_owned(), String::new()),
        false => (stands, format!(" GROUP BY {}", key.join(", "))),
    };
    let required: String =
        merging.required.iter().map(|(at, _)| format!(" AND a.c{at} IS NOT NULL")).collect();
    let lacks: String = match merging.required.is_empty() {
        true => String::new(),
        false => {
            let cases: String =
                merging.required.iter().map(|(at, _)| format!(" WHEN a.c{at} IS NULL THEN {at}")).collect();
            let keys: String = names.iter().map(|name| format!(", a.{name}::text")).collect();
            format!(", CASE WHEN NOT a.stands THEN NULL{cases} END{keys}")
        }
    };
    let outer: Vec<String> =
        kinds.iter().enumerate().map(|(at, kind)| travels(whole, merging, at, kind)).collect();
    format!(
        "SELECT a.stands{required}, {outer_key}, {outer}{lacks} FROM (SELECT {key}, {stands} AS stands, {made} \
         FROM {wanted} LEFT JOIN LATERAL ({sides}) AS p ON true{all}) AS a",
        sides = sides.join(" UNION ALL "),
        outer_key = names.iter().map(|name| format!("a.{name}")).collect::<Vec<_>>().join(", "),
        outer = outer.join(", "),
        key = key.join(", "),
        made = made.join(", "),
    )
}

/// The keys, as text, of all rows that parts make and of all rows that stand.
pub(super) fn all_keys(whole: &TableSpec, parts: &[&TableSpec]) -> String {
    let keys = |prefix: &str| {
        let names: Vec<String> =
            key_names(whole).map(|name| format!("{prefix}{}::text", quote(name))).collect();
        names.join(", ")
    };
    let tables = parts.iter().copied().chain(std::iter::once(whole));
    let sides: Vec<String> =
        tables.map(|spec| format!("SELECT ARRAY[{}] FROM {} AS t", keys("t."), table_name(spec))).collect();
    sides.join(" UNION ")
}

/// Notes which of the keys `$1` … lack the value of which column (its place, the last parameter; null: none).
pub(super) fn note_lacking(whole: &TableSpec, merging: &Whole, migration: &str) -> String {
    let width = whole.key.len();
    let arrays: Vec<String> = (1..=width).map(|place| format!("${place}::text[]")).collect();
    let names: Vec<String> = (0..width).map(|place| format!("u.k{place}")).collect();
    let aliases: Vec<String> = (0..width).map(|place| format!("k{place}")).collect();
    let columns: Vec<String> = merging
        .required
        .iter()
        .map(|(at, of)| {
            let name = &whole.table.columns[whole.columns[*at]].name;
            format!("({at}, {}, {})", literal(name), literal(of))
        })
        .collect();
    let of = [migration, &whole.table.schema, &whole.table.name].map(literal).join(", ");
    format!(
        "WITH x AS (SELECT ARRAY[{names}] AS key, u.c FROM unnest({arrays}, ${last}::int[]) AS u({aliases}, c)), \
         gone AS (DELETE FROM slackwater.lacking AS l USING x \
                  WHERE (l.migration, l.schema_name, l.table_name) = ({of}) AND l.key = x.key AND x.c IS NULL) \
         INSERT INTO slackwater.lacking AS l (migration, schema_name, table_name, key, column_name, wanted_in) \
         SELECT {of}, x.key, c.name, c.wanted_in FROM x JOIN (VALUES {columns}) AS c(place, name, wanted_in) ON c.place = x.c \
         ON CONFLICT (migration, schema_name, table_name, key) DO UPDATE \
         SET column_name = EXCLUDED.column_name, wanted_in = EXCLUDED.wanted_in \
         WHERE l.column_name <> EXCLUDED.column_name",
        names = names.join(", "),
        arrays = arrays.join(", "),
        aliases = aliases.join(", "),
        columns = columns.join(", "),
        last = width + 1,
    )
}

/// The parts of one rule with the keys that are wanted. `ordered`: the type of what parts are ordered by.
fn of_side(
    whole: &TableSpec,
    kinds: &[Type],
    (side, part): (usize, &TableSpec),
    ordered: Option<&Type>,
    lookups: &[&LookUp],
    specs: &[TableSpec],
) -> String {
    let value = |(at, kind): (usize, &Type)| {
        if let Some(lookup) = lookups.iter().find(|lookup| lookup.column == at) {
            return format!("{} AS c{at}", looked_up(lookup, &specs[lookup.known], kind));
        }
        let name = &whole.table.columns[whole.columns[at]].name;
        match part.table.column(name) {
            Some(_) => format!("t.{} AS c{at}", quote(name)),
            None => format!("NULL::{} AS c{at}", kind.name),
        }
    };
    let values: Vec<String> = kinds.iter().enumerate().map(value).collect();
    let order = match (ordered, order_of(part)) {
        (_, Some(_)) => format!("t.{}", quote(ORDER)),
        (Some(kind), None) => format!("NULL::{}", kind.name),
        (None, None) => "NULL::bigint".to_owned(),
    };
    let by_part = is_by_part(whole);
    let same: Vec<String> = key_names(whole)
        .enumerate()
        .map(|(place, name)| format!("t.{} = w.k{place}", quote(if by_part { PART } else { name })))
        .collect();
    format!(
        "SELECT {}, {side} AS side, t.{} AS part, {order} AS o FROM {} AS t WHERE {}",
        values.join(", "),
        quote(PART),
        table_name(part),
        same.join(" AND ")
    )
}

/// The value that a part `t` looks up. Of several documents with one value one is taken, always the same one.
fn looked_up(lookup: &LookUp, known: &TableSpec, kind: &Type) -> String {
    let value = format!(
        "(SELECT k.{}::{} FROM {} AS k WHERE k.{} = t.{} ORDER BY k.{} LIMIT 1)",
        quote(&lookup.take),
        kind.name,
        table_name(known),
        quote(&lookup.by),
        quote(&lookup.wanted),
        quote(PART)
    );
    match &lookup.for_null {
        Some(default) => format!("coalesce({value}, {default})"),
        None => value,
    }
}

fn order_of(part: &TableSpec) -> Option<Type> {
    part.table.column(ORDER).map(|at| part.table.columns[at].kind.clone())
}

/// One column, of the parts of one key.
fn made(whole: &TableSpec, merging: &Whole, at: usize, kind: &Type) -> String {
    let value = format!("p.c{at}");
    let cast = &kind.name;
    let chosen = |order: &str| {
        // An array of arrays is no array of values, so they go as text.
        let (taken, back) = match kind.element {
            Some(_) => (format!("{value}::text"), format!("::{cast}")),
            None => (value.clone(), String::new()),
        };
        format!("(array_agg({taken} ORDER BY {order}) FILTER (WHERE {value} IS NOT NULL))[1]{back}")
    };
    const FIRST: &str = "p.o ASC NULLS LAST, p.side, p.part";
    const LAST: &str = "p.o DESC NULLS LAST, p.side, p.part";
    if whole.key.contains(&at) {
        // All are equal, which is not the same: of `Ann` and `ann` one is taken, always the same one.
        return chosen(&format!("{value}::text COLLATE \"C\", p.side, p.part"));
    }
    match merging.how.get(at).copied().unwrap_or_default() {
        How::Last => chosen(LAST),
        How::First => chosen(FIRST),
        How::Longest => chosen(&format!("length({value}::text) DESC, {LAST}")),
        How::Min => chosen(&format!("{value}, {LAST}")),
        How::Max => chosen(&format!("{value} DESC, {LAST}")),
        How::Sum => format!("sum({value})::{cast}"),
        How::Count => format!("count({value})::{cast}"),
        How::Union => format!("array_agg({value}::text) FILTER (WHERE {value} IS NOT NULL)"),
        How::Any => format!("bool_or({value})"),
        How::All => format!("bool_and({value})"),
    }
}

/// One column as it is written into a row that travels.
fn travels(whole: &TableSpec, merging: &Whole, at: usize, kind: &Type) -> String {
    let mut value = format!("a.c{at}");
    let is_key = whole.key.contains(&at);
    if !is_key && merging.how.get(at) == Some(&How::Union) {
        value = format!(
            "(SELECT array_agg(DISTINCT u.e ORDER BY u.e) FROM unnest({value}) AS x(t), unnest(x.t::{}) AS u(e) \
             WHERE u.e IS NOT NULL)",
            kind.name
        );
    }
    match whole.shape.as_ref().and_then(|shape| shape.carried_as(at)) {
        Some(carrier) => format!("{value}::{carrier}"),
        None => value,
    }
}

fn key_names(whole: &TableSpec) -> impl Iterator<Item = &str> {
    whole.key.iter().map(|at| whole.table.columns[whole.columns[*at]].name.as_str())
}

fn keys(whole: &TableSpec, prefix: &str) -> String {
    let names: Vec<String> = key_names(whole).map(|name| format!("{prefix}{}", quote(name))).collect();
    names.join(", ")
}

/// What the names of all tables of parts of a migration begin with.
pub fn prefix(migration: &str) -> String {
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, migration.as_bytes()).simple().to_string();
    format!("parts_{}_", &digest[..12])
}

/// Deletes the rows that these parts make.
pub(crate) fn delete_made(whole: &TableSpec, parts: &[&TableSpec]) -> String {
    let made: Vec<String> = parts
        .iter()
        .map(|part| {
            let same: Vec<String> =
                key_names(whole).map(quote).map(|name| format!("p.{name} = t.{name}")).collect();
            format!("EXISTS (SELECT FROM {} AS p WHERE {})", table_name(part), same.join(" AND "))
        })
        .collect();
    format!("DELETE FROM {} AS t WHERE {}", table_name(whole), made.join(" OR "))
}
