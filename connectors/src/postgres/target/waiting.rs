//! The SQL for rows whose referenced rows are not there. Pure: text made of the tables and of what is watched.
//!
//! As in [`super::statements`], only names out of the catalogue get in, quoted; every value is bound. Each statement answers with
//! rows of (what, how many, key); see [`What`].
//!
//! Keys travel as text, one array a key column, and are written as text by one rule ([`text`]), so that equal keys are equal text.

use std::fmt::Write as _;

use super::catalog::{Table, Type};
use super::references::{Mapped, Reference, References};
use super::rows::TableSpec;
use super::statements::{element_type, qualified, quote, table_name};

/// What an answer says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// No key: so many rows were inserted or changed.
    Wrote,
    /// No key: so many rows were deleted.
    Deleted,
    /// The row is in its table and has to leave it.
    Leaves,
    /// The row may be in its table now: try it again.
    Ready,
    /// The row is held. Only said of tables whose rows may wait for each other.
    Held,
    /// The row is in its table since this statement.
    Placed,
}

impl What {
    /// As the SQL says it.
    pub(super) fn of(letter: &str) -> Option<Self> {
        Some(match letter {
            "w" => Self::Wrote,
            "d" => Self::Deleted,
            "l" => Self::Leaves,
            "r" => Self::Ready,
            "h" => Self::Held,
            "p" => Self::Placed,
            _ => return None,
        })
    }
}

/// What is watched, with the numbers that the control store gave.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Of each reference, as in [`References::all`]; none if it is not watched.
    pub(super) references: Vec<Option<i32>>,
    /// Of each table, as in [`References::tables`]; none if no reference from or to it is watched.
    pub(super) tables: Vec<Option<i32>>,
}

/// Writes statements.
pub(super) struct Writer<'a> {
    pub(super) references: &'a References,
    pub(super) numbers: &'a Numbers,
}

/// A reference that may be missing, as a row's statement sees it.
struct Wish<'a> {
    number: i32,
    reference: &'a Reference,
    /// The column of the statement with the wanted key; null if nothing is missing.
    name: String,
}

impl Writer<'_> {
    fn mapped(&self, table: usize) -> &Mapped {
        &self.references.tables[table]
    }

    fn number(&self, table: usize) -> i32 {
        self.numbers.tables[table].unwrap_or_default()
    }

    fn wishes(&self, table: usize) -> Vec<Wish<'_>> {
        let watched = self.references.out_of(table).filter_map(|place| {
            let number = self.numbers.references[place]?;
            Some(Wish { number, reference: &self.references.all[place], name: format!("w{place}") })
        });
        watched.collect()
    }

    /// Writes the rows of `$1` (an array of the table's row type): those that lack something become partial or are held.
    pub(super) fn guard(&self, spec: &TableSpec, table: usize) -> String {
        let mapped = self.mapped(table);
        let name = table_name(spec);
        let wishes = self.wishes(table);
        let number = self.number(table);
        let (held, any) = (held(&wishes, "m"), any(&wishes, "m"));
        // A parent in the same statement is there when Postgres looks, unless it is held itself.
        let all_come = wishes.iter().all(|wish| !wish.reference.required());
        let mut wanted = String::new();
        for wish in &wishes {
            let mut beside = String::new();
            if wish.reference.from == wish.reference.to {
                let filled =
                    |columns: &[usize]| columns.iter().all(|column| spec.columns.contains(column));
                let mine = columns(&mapped.table, "r.", &wish.reference.columns);
                if all_come && filled(&wish.reference.named) {
                    let theirs = columns(&mapped.table, "b.", &wish.reference.named);
                    let _ = write!(beside, " AND ({mine}) NOT IN (SELECT {theirs} FROM unnest($1::{name}[]) AS b)");
                } else {
                    let own = columns(&mapped.table, "r.", &wish.reference.named);
                    let _ = write!(beside, " AND (({mine}) = ({own})) IS NOT TRUE");
                }
            }
            let _ = write!(wanted, ", {} AS {}", self.wanted(wish, &beside), wish.name);
        }
        let mut content = Vec::new();
        for (index, column) in mapped.table.columns.iter().enumerate() {
            let quoted = quote(&column.name);
            content.push(if column.generated {
                "NULL".to_owned()
            } else if spec.columns.contains(&index) {
                format!("(m.new).{quoted}")
            } else {
                let default = column.default.as_deref().map(|text| format!(", {text}")).unwrap_or_default();
                format!("COALESCE(t.{quoted}, ((m.old)::{name}).{quoted}{default})")
            });
        }
        let listed: Vec<String> = spec.columns.iter().map(|at| quote(&mapped.table.columns[*at].name)).collect();
        let values: Vec<String> =
            spec.columns.iter().map(|at| nulled(mapped, &wishes, "m", *at)).collect();
        let key_of_new = equal(mapped, "t.", "(m.new).");
        let mut sql = format!(
            "WITH m AS MATERIALIZED (SELECT {key} AS key, {owner} AS owner, r AS new, o.held AS was, o.content AS old{wanted} \
             FROM unnest($1::{name}[]) AS r LEFT JOIN slackwater.waiting_rows AS o ON o.relation = {number} AND o.key = {key}), \
             keep AS (INSERT INTO slackwater.waiting_rows AS w (relation, key, owner, held, content) \
             SELECT {number}, m.key, m.owner, ({held}) OR m.was IS TRUE, ROW({content})::{name}::text \
             FROM m LEFT JOIN {name} AS t ON {key_of_new} WHERE ({any}) OR m.was IS TRUE \
             ON CONFLICT (relation, key) DO UPDATE SET owner = EXCLUDED.owner, held = EXCLUDED.held, content = EXCLUDED.content), \
             drop_row AS (DELETE FROM slackwater.waiting_rows AS w USING m \
             WHERE w.relation = {number} AND w.key = m.key AND m.was IS FALSE AND NOT ({any})), {entries}, \
             put AS (INSERT INTO {name} AS t ({listed}){overriding} SELECT {values} FROM m WHERE NOT ({held}) AND m.was IS NOT TRUE \
             {conflict} RETURNING 1) \
             SELECT 'w' AS what, (SELECT count(*) FROM put) AS count, NULL::text[] AS key \
             UNION ALL SELECT 'r', 1, m.key FROM m WHERE m.was IS TRUE AND NOT ({held}) \
             UNION ALL SELECT 'l', 1, m.key FROM m WHERE ({held}) AND EXISTS (SELECT FROM {name} AS t WHERE {key_of_new})",
            key = key(mapped, "r."),
            owner = owner(mapped, "r."),
            content = content.join(", "),
            entries = entries(&wishes, number, "m.was IS NOT NULL", "m"),
            listed = listed.join(", "),
            overriding = overriding(&mapped.table, &spec.columns),
            values = values.join(", "),
            conflict = on_conflict(mapped, &spec.columns),
        );
        if mapped.circular {
            let _ = write!(sql, " UNION ALL SELECT 'h', 1, m.key FROM m WHERE {held}");
        }
        sql
    }

    /// Tries rows again that wait, with these keys.
    pub(super) fn retry(&self, table: usize) -> String {
        let (parts, answers) = self.again(table, 0, 0, false);
        format!("WITH {parts} {answers}")
    }

    /// Writes rows that wait only for each other, with these keys: of each table in turn.
    pub(super) fn place(&self, tables: &[usize]) -> String {
        let (mut parts, mut answers) = (Vec::new(), Vec::new());
        let mut bound = 0;
        for (place, table) in tables.iter().enumerate() {
            let (part, answer) = self.again(*table, place, bound, true);
            bound += self.mapped(*table).key.len();
            parts.push(part);
            answers.push(answer);
        }
        format!("WITH {} {}", parts.join(", "), answers.join(" UNION ALL "))
    }

    /// The parts of a statement that tries rows of one table again, and what it answers. `place`: which of the statement's tables
    /// it is. `together`: required references need not be looked for, because the same statement brings what they want.
    fn again(&self, table: usize, place: usize, bound: usize, together: bool) -> (String, String) {
        let mapped = self.mapped(table);
        let name = qualified(&mapped.table.schema, &mapped.table.name);
        let number = self.number(table);
        let m = format!("m{place}");
        let mut wishes = self.wishes(table);
        if together {
            wishes.retain(|wish| !wish.reference.required());
        }
        let mut wanted = String::new();
        for wish in &wishes {
            let mut beside = String::new();
            if wish.reference.from == wish.reference.to {
                let mine = columns(&mapped.table, "r.", &wish.reference.columns);
                let own = columns(&mapped.table, "r.", &wish.reference.named);
                let _ = write!(beside, " AND (({mine}) = ({own})) IS NOT TRUE");
            }
            let _ = write!(wanted, ", {} AS {}", self.wanted(wish, &beside), wish.name);
        }
        let (held, any) = (held(&wishes, &m), any(&wishes, &m));
        let all: Vec<usize> =
            (0..mapped.table.columns.len()).filter(|at| !mapped.table.columns[*at].generated).collect();
        let listed: Vec<String> = all.iter().map(|at| quote(&mapped.table.columns[*at].name)).collect();
        let values: Vec<String> = all.iter().map(|at| nulled(mapped, &wishes, &m, *at)).collect();
        let mut changed: Vec<usize> = wishes.iter().flat_map(|wish| wish.reference.nulls.clone()).collect();
        changed.sort_unstable();
        changed.dedup();
        let mut parts = format!(
            "{m} AS MATERIALIZED (SELECT o.key, o.owner, o.held AS was, o.n AS new{wanted} FROM (SELECT w.key, w.owner, w.held, \
             w.content::{name} AS n FROM {keys} JOIN slackwater.waiting_rows AS w ON w.relation = {number} \
             AND w.key = {wanted_key}) AS o CROSS JOIN LATERAL (SELECT (o.n).*) AS r), \
             drop_row_{m} AS (DELETE FROM slackwater.waiting_rows AS w USING {m} WHERE w.relation = {number} AND w.key = {m}.key \
             AND NOT ({any})), \
             partly_{m} AS (UPDATE slackwater.waiting_rows AS w SET held = false FROM {m} WHERE w.relation = {number} \
             AND w.key = {m}.key AND {m}.was AND NOT ({held}) AND ({any})), {entries}, \
             put_{m} AS (INSERT INTO {name} AS t ({listed}){overriding} SELECT {values} FROM {m} WHERE {m}.was AND NOT ({held}) \
             {conflict} RETURNING 1)",
            keys = keys(mapped, bound),
            wanted_key = key_of_parameters(mapped),
            entries = entries(&wishes, number, "true", &m),
            listed = listed.join(", "),
            overriding = overriding(&mapped.table, &all),
            values = values.join(", "),
            conflict = on_conflict(mapped, &all),
        );
        let mut wrote = format!("(SELECT count(*) FROM put_{m})");
        if !changed.is_empty() {
            let set: Vec<String> = changed
                .iter()
                .map(|at| {
                    let column = quote(&mapped.table.columns[*at].name);
                    format!("{column} = {}", nulled(mapped, &wishes, &m, *at))
                })
                .collect();
            let _ = write!(
                parts,
                ", fix_{m} AS (UPDATE {name} AS t SET {} FROM {m} WHERE {} AND NOT {m}.was RETURNING 1)",
                set.join(", "),
                equal(mapped, "t.", &format!("({m}.new)."))
            );
            let _ = write!(wrote, " + (SELECT count(*) FROM fix_{m})");
        }
        let mut answers = format!(
            "SELECT 'w' AS what, {wrote} AS count, NULL::text[] AS key, {place} AS place \
             UNION ALL SELECT 'p', 1, {m}.key, {place} FROM {m} WHERE {m}.was AND NOT ({held})"
        );
        if mapped.circular {
            let _ = write!(answers, " UNION ALL SELECT 'h', 1, {m}.key, {place} FROM {m} WHERE {held}");
        }
        (parts, answers)
    }

    /// What waits for the rows of `$1` (an array of the row type of the table referred to), which have just been written.
    pub(super) fn arrive(&self, reference: usize, spec: &TableSpec) -> String {
        let one = &self.references.all[reference];
        let parent = self.mapped(one.to);
        format!(
            "SELECT 'r' AS what, 1::bigint AS count, w.key FROM unnest($1::{name}[]) AS r JOIN {name} AS t ON {same} \
             JOIN slackwater.waiting_for AS w ON w.reference = {number} AND w.wanted = {wanted}",
            name = table_name(spec),
            same = equal(parent, "t.", "r."),
            number = self.numbers.references[reference].unwrap_or_default(),
            wanted = texts(&parent.table, "t.", &one.named),
        )
    }

    /// The same, for rows with these keys.
    pub(super) fn arrive_by_key(&self, reference: usize) -> String {
        let one = &self.references.all[reference];
        let parent = self.mapped(one.to);
        format!(
            "SELECT 'r' AS what, 1::bigint AS count, w.key FROM {keys} JOIN {name} AS t ON {same} \
             JOIN slackwater.waiting_for AS w ON w.reference = {number} AND w.wanted = {wanted}",
            keys = keys(parent, 0),
            name = qualified(&parent.table.schema, &parent.table.name),
            same = by_parameters(parent, "t."),
            number = self.numbers.references[reference].unwrap_or_default(),
            wanted = texts(&parent.table, "t.", &one.named),
        )
    }

    /// Rows with these keys are about to go: those that refer to them are noted, and lose the reference or have to leave.
    pub(super) fn let_go(&self, reference: usize) -> String {
        let one = &self.references.all[reference];
        let (child, parent) = (self.mapped(one.from), self.mapped(one.to));
        let name = qualified(&child.table.schema, &child.table.name);
        let (number, relation) = (self.numbers.references[reference].unwrap_or_default(), self.number(one.from));
        let mut sql = format!(
            "WITH c AS MATERIALIZED (SELECT {key} AS key, {wanted} AS wanted, {owner} AS owner, t AS now FROM {keys} \
             JOIN {parent_name} AS p ON {same} JOIN {name} AS t ON {refers}), \
             note AS (INSERT INTO slackwater.waiting_for (reference, wanted, relation, key) \
             SELECT {number}, c.wanted, {relation}, c.key FROM c ON CONFLICT DO NOTHING), ",
            key = key(child, "t."),
            wanted = texts(&parent.table, "p.", &one.named),
            owner = owner(child, "t."),
            keys = keys(parent, 0),
            parent_name = qualified(&parent.table.schema, &parent.table.name),
            same = by_parameters(parent, "p."),
            refers = refers(one, &child.table, &parent.table, "t.", "p."),
        );
        if one.required() {
            let mut content = Vec::new();
            let nullable: Vec<usize> =
                self.references.out_of(one.from).flat_map(|at| self.references.all[at].nulls.clone()).collect();
            for (index, column) in child.table.columns.iter().enumerate() {
                let quoted = quote(&column.name);
                content.push(if nullable.contains(&index) {
                    format!("COALESCE((c.now).{quoted}, ((o.content)::{name}).{quoted})")
                } else {
                    format!("(c.now).{quoted}")
                });
            }
            let _ = write!(
                sql,
                "keep AS (INSERT INTO slackwater.waiting_rows AS w (relation, key, owner, held, content) \
                 SELECT {relation}, c.key, c.owner, true, ROW({content})::{name}::text FROM c \
                 LEFT JOIN slackwater.waiting_rows AS o ON o.relation = {relation} AND o.key = c.key \
                 ON CONFLICT (relation, key) DO UPDATE SET held = true, content = EXCLUDED.content) \
                 SELECT 'l' AS what, 1::bigint AS count, c.key FROM c",
                content = content.join(", ")
            );
            return sql;
        }
        let set: Vec<String> =
            one.nulls.iter().map(|at| format!("{} = NULL", quote(&child.table.columns[*at].name))).collect();
        let _ = write!(
            sql,
            "keep AS (INSERT INTO slackwater.waiting_rows (relation, key, owner, held, content) \
             SELECT {relation}, c.key, c.owner, false, c.now::text FROM c ON CONFLICT DO NOTHING), \
             loses AS (UPDATE {name} AS t SET {set} FROM c WHERE {same} RETURNING 1) \
             SELECT 'w' AS what, count(*) AS count, NULL::text[] AS key FROM loses",
            set = set.join(", "),
            same = equal(child, "t.", "(c.now)."),
        );
        sql
    }

    /// Deletes the rows with these keys, of several tables at once: Postgres looks at the references when all are gone.
    pub(super) fn remove(&self, tables: &[usize]) -> String {
        let mut sql = String::from("WITH ");
        let mut bound = 0;
        for (place, table) in tables.iter().enumerate() {
            let mapped = self.mapped(*table);
            let comma = if place == 0 { "" } else { ", " };
            let _ = write!(
                sql,
                "{comma}d{place} AS (DELETE FROM {name} AS t USING {keys} WHERE {same} RETURNING 1)",
                name = qualified(&mapped.table.schema, &mapped.table.name),
                keys = keys(mapped, bound),
                same = by_parameters(mapped, "t."),
            );
            bound += mapped.key.len();
        }
        let counts: Vec<String> = (0..tables.len())
            .map(|place| format!("SELECT 'd' AS what, count(*) AS count, NULL::text[] AS key, {place} AS place FROM d{place}"))
            .collect();
        let _ = write!(sql, " {}", counts.join(" UNION ALL "));
        sql
    }

    /// Locks the rows with these keys, so that no new reference to them can be committed.
    pub(super) fn lock(&self, table: usize) -> String {
        let mapped = self.mapped(table);
        format!(
            "SELECT 'd' AS what, 0::bigint AS count, NULL::text[] AS key FROM (SELECT FROM {keys} JOIN {name} AS t ON {same} \
             ORDER BY {order} FOR UPDATE OF t) AS locked LIMIT 0",
            keys = keys(mapped, 0),
            name = qualified(&mapped.table.schema, &mapped.table.name),
            same = by_parameters(mapped, "t."),
            order = columns(&mapped.table, "t.", &mapped.key),
        )
    }

    /// Raises an error if rows refer to those with these keys through a reference that is not watched and would cascade.
    pub(super) fn ask(&self, reference: usize) -> String {
        let one = &self.references.all[reference];
        let (child, parent) = (self.mapped(one.from), self.mapped(one.to));
        format!(
            "SELECT 'd' AS what, slackwater.refuse({table}, {constraint}) AS count, NULL::text[] AS key FROM {keys} \
             JOIN {parent_name} AS p ON {same} WHERE EXISTS (SELECT FROM {name} AS t WHERE {refers}) LIMIT 1",
            table = literal(&child.table.name),
            constraint = literal(&one.name),
            keys = keys(parent, 0),
            parent_name = qualified(&parent.table.schema, &parent.table.name),
            same = by_parameters(parent, "p."),
            name = qualified(&child.table.schema, &child.table.name),
            refers = refers(one, &child.table, &parent.table, "t.", "p."),
        )
    }

    /// Forgets what waits of rows with these keys.
    pub(super) fn forget(&self, table: usize) -> String {
        let mapped = self.mapped(table);
        let number = self.number(table);
        format!(
            "WITH gone AS (DELETE FROM slackwater.waiting_rows AS w USING {keys} WHERE w.relation = {number} AND w.key = {key} \
             RETURNING w.key), entries AS (DELETE FROM slackwater.waiting_for AS f USING gone \
             WHERE f.relation = {number} AND f.key = gone.key) SELECT 'd' AS what, 0::bigint AS count, NULL::text[] AS key LIMIT 0",
            keys = keys(mapped, 0),
            key = key_of_parameters(mapped),
        )
    }

    /// Forgets what waits of the owners in `$1`, less the rows of `$2`.
    pub(super) fn forget_owned(&self, spec: &TableSpec, table: usize) -> Option<String> {
        let mapped = self.mapped(table);
        let owner = spec.owner?;
        let kind = &mapped.table.columns[spec.columns[owner]].kind;
        let number = self.number(table);
        Some(format!(
            "WITH gone AS (DELETE FROM slackwater.waiting_rows AS w USING unnest($1::{kind}[]) AS o(id) \
             WHERE w.relation = {number} AND w.owner = {text} AND w.key NOT IN (SELECT {key} FROM unnest($2::{name}[]) AS r) \
             RETURNING w.key), entries AS (DELETE FROM slackwater.waiting_for AS f USING gone \
             WHERE f.relation = {number} AND f.key = gone.key) SELECT 'd' AS what, 0::bigint AS count, NULL::text[] AS key LIMIT 0",
            kind = element_type(kind),
            text = text("o.id", kind),
            key = key(mapped, "r."),
            name = table_name(spec),
        ))
    }

    /// The keys of rows to delete (one array a key column, as for a delete), as text.
    pub(super) fn keys_of_deletes(&self, spec: &TableSpec) -> String {
        let kinds = spec.key.iter().map(|at| &spec.table.columns[spec.columns[*at]].kind);
        let arrays: Vec<String> =
            kinds.clone().enumerate().map(|(place, kind)| format!("${}::{}[]", place + 1, element_type(kind))).collect();
        let names: Vec<String> = (0..spec.key.len()).map(|place| format!("k{place}")).collect();
        let texts: Vec<String> =
            kinds.enumerate().map(|(place, kind)| text(&format!("d.k{place}"), kind)).collect();
        format!(
            "SELECT 'l' AS what, 1::bigint AS count, ARRAY[{}]::text[] AS key FROM unnest({}) AS d({})",
            texts.join(", "),
            arrays.join(", "),
            names.join(", ")
        )
    }

    /// The keys of the rows in the table that belong to the owners in `$1` and are not among the rows of `$2`.
    pub(super) fn keys_of_owned(&self, spec: &TableSpec, table: usize) -> Option<String> {
        let mapped = self.mapped(table);
        let owner = spec.columns[spec.owner?];
        let column = &mapped.table.columns[owner];
        Some(format!(
            "SELECT 'l' AS what, 1::bigint AS count, {key} AS key FROM unnest($1::{kind}[]) AS o(id) JOIN {name} AS t \
             ON t.{owner} = o.id WHERE ({theirs}) NOT IN (SELECT {ours} FROM unnest($2::{name}[]) AS r)",
            key = key(mapped, "t."),
            kind = element_type(&column.kind),
            name = table_name(spec),
            owner = quote(&column.name),
            theirs = columns(&mapped.table, "t.", &mapped.key),
            ours = columns(&mapped.table, "r.", &mapped.key),
        ))
    }

    /// What held rows with these keys wait for: reference, wanted key, own key. Rows that are not held are left out.
    pub(super) fn wants(&self, table: usize) -> String {
        let mapped = self.mapped(table);
        format!(
            "SELECT f.reference, f.wanted, f.key FROM {keys} JOIN slackwater.waiting_rows AS w \
             ON w.relation = {number} AND w.key = {key} AND w.held \
             JOIN slackwater.waiting_for AS f ON f.relation = w.relation AND f.key = w.key",
            keys = keys(mapped, 0),
            number = self.number(table),
            key = key_of_parameters(mapped),
        )
    }

    /// The wanted key, or null if there is nothing to want or it is there.
    fn wanted(&self, wish: &Wish<'_>, beside: &str) -> String {
        let one = wish.reference;
        let (child, parent) = (self.mapped(one.from), self.mapped(one.to));
        let set: Vec<String> =
            one.columns.iter().map(|at| format!("r.{} IS NOT NULL", quote(&child.table.columns[*at].name))).collect();
        format!(
            "CASE WHEN {} AND NOT EXISTS (SELECT FROM {} AS p WHERE {}){beside} THEN {} END",
            set.join(" AND "),
            qualified(&parent.table.schema, &parent.table.name),
            refers(one, &child.table, &parent.table, "r.", "p."),
            texts(&child.table, "r.", &one.columns)
        )
    }
}

/// A row of `m` lacks something that is required.
fn held(wishes: &[Wish<'_>], m: &str) -> String {
    let held: Vec<String> = wishes
        .iter()
        .filter(|wish| wish.reference.required())
        .map(|wish| format!("{m}.{} IS NOT NULL", wish.name))
        .collect();
    if held.is_empty() { "false".into() } else { held.join(" OR ") }
}

/// A row of `m` lacks something.
fn any(wishes: &[Wish<'_>], m: &str) -> String {
    let any: Vec<String> = wishes.iter().map(|wish| format!("{m}.{} IS NOT NULL", wish.name)).collect();
    if any.is_empty() { "false".into() } else { any.join(" OR ") }
}

/// Brings the entries of the rows of `m` up to date. `known`: which rows may have entries already.
fn entries(wishes: &[Wish<'_>], number: i32, known: &str, m: &str) -> String {
    let still: Vec<String> = wishes
        .iter()
        .map(|wish| format!("f.reference = {} AND f.wanted = {m}.{}", wish.number, wish.name))
        .collect();
    let still = if still.is_empty() { "false".to_owned() } else { still.join(" OR ") };
    let mut sql = format!(
        "drop_entry_{m} AS (DELETE FROM slackwater.waiting_for AS f USING {m} WHERE {known} AND f.relation = {number} \
         AND f.key = {m}.key AND ({still}) IS NOT TRUE)"
    );
    if !wishes.is_empty() {
        let new: Vec<String> = wishes
            .iter()
            .map(|wish| {
                let Wish { number: reference, name, .. } = wish;
                format!("SELECT {reference}, {m}.{name}, {number}, {m}.key FROM {m} WHERE {m}.{name} IS NOT NULL")
            })
            .collect();
        let _ = write!(
            sql,
            ", keep_entry_{m} AS (INSERT INTO slackwater.waiting_for (reference, wanted, relation, key) {} \
             ON CONFLICT DO NOTHING)",
            new.join(" UNION ALL ")
        );
    }
    sql
}

/// The value of a column of `m`'s row, or null if a reference that uses it is missing.
fn nulled(mapped: &Mapped, wishes: &[Wish<'_>], m: &str, column: usize) -> String {
    let value = format!("({m}.new).{}", quote(&mapped.table.columns[column].name));
    let missing: Vec<String> = wishes
        .iter()
        .filter(|wish| wish.reference.nulls.contains(&column))
        .map(|wish| format!("{m}.{} IS NULL", wish.name))
        .collect();
    if missing.is_empty() { value } else { format!("CASE WHEN {} THEN {value} END", missing.join(" AND ")) }
}

fn overriding(table: &Table, columns: &[usize]) -> &'static str {
    if columns.iter().any(|at| table.columns[*at].identity_always) { " OVERRIDING SYSTEM VALUE" } else { "" }
}

fn on_conflict(mapped: &Mapped, filled: &[usize]) -> String {
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
fn text(value: &str, kind: &Type) -> String {
    match kind.base_oid {
        NUMERIC => format!("pg_catalog.trim_scale({value})::text"),
        _ if kind.name == "citext" || kind.name.ends_with(".citext") => format!("lower({value}::text)"),
        _ => format!("{value}::text"),
    }
}

const NUMERIC: u32 = 1700;

fn texts(table: &Table, prefix: &str, columns: &[usize]) -> String {
    let texts: Vec<String> = columns
        .iter()
        .map(|at| text(&format!("{prefix}{}", quote(&table.columns[*at].name)), &table.columns[*at].kind))
        .collect();
    format!("ARRAY[{}]::text[]", texts.join(", "))
}

fn key(mapped: &Mapped, prefix: &str) -> String {
    texts(&mapped.table, prefix, &mapped.key)
}

fn owner(mapped: &Mapped, prefix: &str) -> String {
    mapped.owner.map_or("NULL::text".to_owned(), |at| {
        let column = &mapped.table.columns[at];
        text(&format!("{prefix}{}", quote(&column.name)), &column.kind)
    })
}

fn columns(table: &Table, prefix: &str, columns: &[usize]) -> String {
    let names: Vec<String> =
        columns.iter().map(|at| format!("{prefix}{}", quote(&table.columns[*at].name))).collect();
    names.join(", ")
}

fn equal(mapped: &Mapped, one: &str, other: &str) -> String {
    let equal: Vec<String> = mapped
        .key
        .iter()
        .map(|at| quote(&mapped.table.columns[*at].name))
        .map(|name| format!("{one}{name} = {other}{name}"))
        .collect();
    equal.join(" AND ")
}

/// The row of `from` refers to the row of `to`.
fn refers(one: &Reference, child: &Table, parent: &Table, from: &str, to: &str) -> String {
    let pairs = one.columns.iter().zip(&one.named);
    let equal: Vec<String> = pairs
        .map(|(column, named)| {
            format!("{to}{} = {from}{}", quote(&parent.columns[*named].name), quote(&child.columns[*column].name))
        })
        .collect();
    equal.join(" AND ")
}

/// The keys that are bound, from `$bound + 1` on: one array of text a key column.
fn keys(mapped: &Mapped, bound: usize) -> String {
    let arrays: Vec<String> =
        (0..mapped.key.len()).map(|place| format!("${}::text[]", bound + place + 1)).collect();
    let names: Vec<String> = (0..mapped.key.len()).map(|place| format!("k{place}")).collect();
    format!("unnest({}) AS k({})", arrays.join(", "), names.join(", "))
}

fn key_of_parameters(mapped: &Mapped) -> String {
    let names: Vec<String> = (0..mapped.key.len()).map(|place| format!("k.k{place}")).collect();
    format!("ARRAY[{}]::text[]", names.join(", "))
}

/// The row has the key that is bound.
fn by_parameters(mapped: &Mapped, prefix: &str) -> String {
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

fn literal(text: &str) -> String {
    let plain = text.replace('\'', "''");
    if plain.contains('\\') { format!("E'{}'", plain.replace('\\', "\\\\")) } else { format!("'{plain}'") }
}
