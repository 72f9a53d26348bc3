//! The SQL for rows whose referenced rows are not there. Pure: text made of the tables and of what is watched.
//!
//! As in [`super::statements`], only names out of the catalogue get in, quoted; every value is bound. Each statement answers with
//! rows of (what, how many, key); see [`What`].
//!
//! Keys travel as text; see [`text`].

use std::fmt::Write as _;

use self::text::{
    by_parameters, columns, content, equal, key, key_of_parameters, keys, on_conflict, overriding, owner,
    place_of, place_of_row, refers, texts,
};
use self::value::{comparable, lateral, same_value, value_text};
use super::references::{Mapped, Reference, References, Unique, ident_of};
use super::rows::TableSpec;
use super::statements::{qualified, quote, source, table_name};

mod claims;
mod going;
mod text;
mod value;

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
    /// The row is held. Only said of tables whose rows may wait for each other, or be refused for what they are.
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
    /// Of each unique value, as in [`References::uniques`]; none if it is not watched.
    pub(super) uniques: Vec<Option<i32>>,
    /// Of each table, as in [`References::tables`]; none if no reference from or to it is watched.
    pub(super) tables: Vec<Option<i32>>,
}

/// Writes statements.
pub(super) struct Writer<'a> {
    pub(super) references: &'a References,
    pub(super) numbers: &'a Numbers,
}

/// Something that a row may lack, as its statement sees it.
struct Wish<'a> {
    number: i32,
    what: Wanted<'a>,
    /// The column of the statement with the wanted key or value; null if nothing is missing.
    name: String,
}

/// Where a statement finds its rows.
struct Look<'a> {
    /// What is selected beside what they lack: name and value.
    base: &'a [(&'a str, String)],
    /// Gives each row as `r`.
    source: String,
    /// What to ask of a reference of the table to itself, if not only whether it is the row itself.
    with_it: &'a dyn Fn(&Reference) -> Option<String>,
    /// Exclusion constraints are asked about the rows among each other too; that is for few rows.
    pairwise: bool,
}

#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// The row that it refers to.
    Row(&'a Reference),
    /// A value that no other row has.
    Value(&'a Unique),
}

impl<'a> Wish<'a> {
    /// Without it the row cannot be in its table.
    fn required(&self) -> bool {
        match self.what {
            Wanted::Row(one) => one.required(),
            Wanted::Value(_) => true,
        }
    }

    fn nulls(&self) -> &'a [usize] {
        match self.what {
            Wanted::Row(one) => &one.nulls,
            Wanted::Value(_) => &[],
        }
    }

    fn is_value(&self) -> bool {
        matches!(self.what, Wanted::Value(_))
    }
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
            let what = Wanted::Row(&self.references.all[place]);
            Some(Wish { number, what, name: format!("w{place}") })
        });
        let unique = self.references.uniques_of(table).filter_map(|place| {
            let number = self.numbers.uniques[place]?;
            let what = Wanted::Value(&self.references.uniques[place]);
            Some(Wish { number, what, name: format!("u{place}") })
        });
        watched.chain(unique).collect()
    }

    /// Writes the rows of `$1` (an array of the table's row type): those that lack something become partial or are held.
    pub(super) fn guard(&self, spec: &TableSpec, table: usize) -> String {
        let mapped = self.mapped(table);
        let name = table_name(spec);
        let wishes = self.wishes(table);
        let number = self.number(table);
        let (held, any) = (held(&wishes, "m"), any(&wishes, "m"));
        // A parent in the same statement is there when Postgres looks, unless it is held itself.
        let all_come = wishes.iter().all(|wish| !wish.required());
        let with_it = |one: &Reference| {
            let filled = one.named.iter().all(|column| spec.columns.contains(column));
            (all_come && filled).then(|| {
                let mine = columns(&mapped.table, "r.", &one.columns);
                let theirs = columns(&mapped.table, "b.", &one.named);
                format!(" AND ({mine}) NOT IN (SELECT {theirs} FROM {} AS b)", source(spec, 1))
            })
        };
        let base = [
            ("key", key(mapped, "r.")),
            ("owner", owner(mapped, "r.")),
            ("new", new_row(spec)),
            ("was", "o.held".to_owned()),
            ("old", "o.content".to_owned()),
        ];
        let source = format!(
            "{} AS r LEFT JOIN {} ON true",
            source(spec, 1),
            waiting_row(number, &key(mapped, "r."), "o")
        );
        let m = self.looked_at(
            "m",
            table,
            &wishes,
            &Look { base: &base, source, with_it: &with_it, pairwise: false },
        );
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
        let listed: Vec<String> =
            spec.columns.iter().map(|at| quote(&mapped.table.columns[*at].name)).collect();
        let values: Vec<String> = spec.columns.iter().map(|at| nulled(mapped, &wishes, "m", *at)).collect();
        let key_of_new = equal(mapped, "t.", "(m.new).");
        let mut sql = format!(
            "WITH {m}, keep AS (INSERT INTO slackwater.waiting_rows AS w (relation, key, owner, held, content) \
             SELECT {number}, m.key, m.owner, ({held}) OR m.was IS TRUE, ROW({content})::{name}::text \
             FROM m LEFT JOIN {name} AS t ON {key_of_new} WHERE ({any}) OR m.was IS TRUE \
             ON CONFLICT (relation, key) DO UPDATE SET owner = EXCLUDED.owner, held = EXCLUDED.held, content = EXCLUDED.content), \
             drop_row AS (DELETE FROM slackwater.waiting_rows AS w USING m {at} \
             WHERE w.ctid = e.at AND m.was IS FALSE AND NOT ({any})), {entries}, \
             put AS (INSERT INTO {name} AS t ({listed}){overriding} SELECT {values} FROM m WHERE NOT ({held}) AND m.was IS NOT TRUE \
             {conflict} RETURNING 1) \
             SELECT 'w' AS what, (SELECT count(*) FROM put) AS count, NULL::text[] AS key \
             UNION ALL SELECT 'r', 1, m.key FROM m WHERE m.was IS TRUE AND NOT ({held}) \
             UNION ALL SELECT 'l', 1, m.key FROM m WHERE ({held}) AND EXISTS (SELECT FROM {name} AS t WHERE {key_of_new})",
            content = content.join(", "),
            at = place_of_row(number, "m.key"),
            entries = entries(&wishes, number, "m.was IS NOT NULL", "m"),
            listed = listed.join(", "),
            overriding = overriding(&mapped.table, &spec.columns),
            values = values.join(", "),
            conflict = on_conflict(mapped, &spec.columns),
        );
        if mapped.circular || mapped.table.judges {
            let _ = write!(sql, " UNION ALL SELECT 'h', 1, m.key FROM m WHERE {held}");
        }
        // Who has the value may lose it in the same batch.
        for wish in wishes.iter().filter(|wish| wish.is_value()) {
            let _ = write!(sql, " UNION ALL SELECT 'r', 1, m.key FROM m WHERE m.{} IS NOT NULL", wish.name);
        }
        sql
    }

    /// The statement's first part, `m`: each row with what it lacks.
    fn looked_at(&self, m: &str, table: usize, wishes: &[Wish<'_>], look: &Look<'_>) -> String {
        let mapped = self.mapped(table);
        let (mut wanted, mut laterals, mut upper) = (String::new(), String::new(), String::new());
        for wish in wishes {
            let column = &wish.name;
            match wish.what {
                Wanted::Row(one) => {
                    let beside = beside(one, mapped);
                    let beside =
                        if beside.is_empty() { beside } else { (look.with_it)(one).unwrap_or(beside) };
                    let _ = write!(wanted, ", {} AS {column}", self.wanted(one, &beside));
                    let _ = write!(upper, ", b.{column}");
                }
                Wanted::Value(one) => {
                    let v = format!("v_{column}");
                    laterals.push_str(&lateral(one, &v, "r"));
                    let set = comparable(one, &v);
                    let theirs = format!(
                        "{} AS t WHERE {}",
                        qualified(&mapped.table.schema, &mapped.table.name),
                        same_value(one, &v)
                    );
                    let other = format!(
                        "ROW({}) IS DISTINCT FROM ROW({})",
                        columns(&mapped.table, "t.", &mapped.key),
                        columns(&mapped.table, "r.", &mapped.key)
                    );
                    let _ = write!(
                        wanted,
                        ", CASE WHEN {set} THEN {} END AS t_{column}, \
                         CASE WHEN {set} THEN (SELECT {} FROM {theirs} AND {other} LIMIT 1) END AS b_{column}, \
                         {set} AND EXISTS (SELECT FROM {theirs} AND NOT {other}) AS s_{column}",
                        value_text(one, mapped, &v),
                        key(mapped, "t."),
                    );
                    if look.pairwise {
                        for place in 0..one.rival.operators.len() {
                            let _ = write!(wanted, ", {v}.a{place} AS x_{column}_{place}");
                        }
                    }
                    upper.push_str(&taken(
                        one,
                        column,
                        wishes,
                        mapped,
                        look.pairwise.then(|| format!("{m}_all")).as_deref(),
                    ));
                }
            }
        }
        let listed: Vec<String> =
            look.base.iter().map(|(name, value)| format!("{value} AS {name}")).collect();
        let first = format!("SELECT {}{wanted} FROM {}{laterals}", listed.join(", "), look.source);
        if laterals.is_empty() {
            return format!("{m} AS MATERIALIZED ({first})");
        }
        let names: Vec<String> = look.base.iter().map(|(name, _)| format!("b.{name}")).collect();
        format!(
            "{m}_all AS MATERIALIZED ({first}), {m} AS MATERIALIZED (SELECT {}{upper} FROM {m}_all AS b)",
            names.join(", ")
        )
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
            wishes.retain(|wish| !wish.required());
        }
        let (held, any) = (held(&wishes, &m), any(&wishes, &m));
        let base = [
            ("key", "o.key".to_owned()),
            ("owner", "o.owner".to_owned()),
            ("was", "o.held".to_owned()),
            ("new", "o.n".to_owned()),
        ];
        let looked = self.looked_at(
            &m,
            table,
            &wishes,
            &Look { base: &base, source: self.waiting(table, bound, ""), with_it: &|_| None, pairwise: true },
        );
        let all: Vec<usize> =
            (0..mapped.table.columns.len()).filter(|at| !mapped.table.columns[*at].generated).collect();
        let listed: Vec<String> = all.iter().map(|at| quote(&mapped.table.columns[*at].name)).collect();
        let values: Vec<String> = all.iter().map(|at| nulled(mapped, &wishes, &m, *at)).collect();
        let mut changed: Vec<usize> = wishes.iter().flat_map(|wish| wish.nulls().to_vec()).collect();
        // A row may be there with a null from before a check made its reference required.
        for wish in &wishes {
            if let Wanted::Row(one) = wish.what {
                let may = |at: &&usize| !mapped.table.columns[**at].not_null && !mapped.key.contains(at);
                changed.extend(one.columns.iter().filter(may));
            }
        }
        changed.sort_unstable();
        changed.dedup();
        let mut parts = format!(
            "{looked}, \
             drop_row_{m} AS (DELETE FROM slackwater.waiting_rows AS w USING {m} {at} WHERE w.ctid = e.at AND NOT ({any})), \
             partly_{m} AS (UPDATE slackwater.waiting_rows AS w SET held = false FROM {m} {at} \
             WHERE w.ctid = e.at AND {m}.was AND NOT ({held}) AND ({any})), {entries}, \
             put_{m} AS (INSERT INTO {name} AS t ({listed}){overriding} SELECT {values} FROM {m} WHERE {m}.was AND NOT ({held}) \
             {conflict} RETURNING 1)",
            at = place_of_row(number, &format!("{m}.key")),
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
                ", fix_{m} AS (UPDATE {name} AS t SET {} FROM {m} WHERE {} AND NOT {m}.was AND NOT ({held}) RETURNING 1)",
                set.join(", "),
                equal(mapped, "t.", &format!("({m}.new)."))
            );
            let _ = write!(wrote, " + (SELECT count(*) FROM fix_{m})");
        }
        let mut answers = format!(
            "SELECT 'w' AS what, {wrote} AS count, NULL::text[] AS key, {place} AS place \
             UNION ALL SELECT 'p', 1, {m}.key, {place} FROM {m} WHERE {m}.was AND NOT ({held})"
        );
        if wishes.iter().any(Wish::is_value) {
            // A row that was there with a null has now a value that another one has.
            let content = self.as_it_stands(table, "t", &format!("({m}.new)"));
            let _ = write!(
                parts,
                ", hold_{m} AS (UPDATE slackwater.waiting_rows AS w SET held = true, content = ROW({content})::{name}::text \
                 FROM {m} JOIN {name} AS t ON {} {} WHERE w.ctid = e.at AND NOT {m}.was AND ({held}))",
                equal(mapped, "t.", &format!("({m}.new).")),
                place_of_row(number, &format!("{m}.key"))
            );
            let _ = write!(
                answers,
                " UNION ALL SELECT 'l', 1, {m}.key, {place} FROM {m} WHERE NOT {m}.was AND ({held})"
            );
        }
        if mapped.circular {
            let _ = write!(answers, " UNION ALL SELECT 'h', 1, {m}.key, {place} FROM {m} WHERE {held}");
        }
        (parts, answers)
    }

    /// The columns of a row as it is in its table, with the references that it should have. `now`: the row there; `wanted`: as it
    /// should be.
    fn as_it_stands(&self, table: usize, now: &str, wanted: &str) -> String {
        let mapped = self.mapped(table);
        let nullable: Vec<usize> =
            self.references.out_of(table).flat_map(|at| self.references.all[at].nulls.clone()).collect();
        let columns = mapped.table.columns.iter().enumerate().map(|(index, column)| {
            let quoted = quote(&column.name);
            match nullable.contains(&index) {
                true => format!("COALESCE({now}.{quoted}, {wanted}.{quoted})"),
                false => format!("{now}.{quoted}"),
            }
        });
        columns.collect::<Vec<_>>().join(", ")
    }

    /// The rows of `$1` are about to be written over what is in the table or waits: what waits for a value that a row has there.
    pub(super) fn frees(&self, unique: usize, spec: &TableSpec) -> String {
        let mapped = self.mapped(self.references.uniques[unique].table);
        let source = format!("{} AS r", source(spec, 1));
        self.freed(unique, &source, &equal(mapped, "t.", "r."), &key(mapped, "r."))
    }

    /// The same, for rows with these keys that are about to go.
    pub(super) fn frees_by_key(&self, unique: usize) -> String {
        let mapped = self.mapped(self.references.uniques[unique].table);
        self.freed(unique, &keys(mapped, 0), &by_parameters(mapped, "t."), &key_of_parameters(mapped))
    }

    fn freed(&self, unique: usize, source: &str, same: &str, key: &str) -> String {
        let one = &self.references.uniques[unique];
        let mapped = self.mapped(one.table);
        let name = qualified(&mapped.table.schema, &mapped.table.name);
        let waits = format!(
            "{lateral} CROSS JOIN LATERAL (SELECT f.key FROM slackwater.waiting_for AS f WHERE f.reference = {number} \
             AND f.wanted = {value} OFFSET 0) AS w WHERE {set}",
            lateral = lateral(one, "v", "t"),
            number = self.numbers.uniques[unique].unwrap_or_default(),
            value = value_text(one, mapped, "v"),
            set = comparable(one, "v"),
        );
        format!(
            "SELECT 'r' AS what, 1::bigint AS count, w.key FROM {source} JOIN {name} AS t ON {same}{waits} \
             UNION ALL SELECT 'r', 1, w.key FROM {source} JOIN {held} ON h.held \
             CROSS JOIN LATERAL (SELECT ({content}).*) AS t{waits}",
            held = waiting_row(self.number(one.table), key, "h"),
            content = content("h", self.number(one.table), &name),
        )
    }

    /// Of held rows with these keys: those that cannot come together with the others, or with what is in the table.
    pub(super) fn rivals(&self, table: usize) -> String {
        let mut wishes = self.wishes(table);
        wishes.retain(Wish::is_value);
        let m = self.held_rows(table, &wishes, true);
        let lose: Vec<String> = wishes.iter().map(|wish| format!("m.{} IS NOT NULL", wish.name)).collect();
        format!(
            "WITH {m}, {} SELECT 'l' AS what, 1::bigint AS count, m.key FROM m WHERE {}",
            keep_entries(&wishes, self.number(table), "m"),
            lose.join(" OR ")
        )
    }

    /// What waits for the rows of `$1` (an array of the row type of the table referred to), which have just been written.
    pub(super) fn arrive(&self, reference: usize, spec: &TableSpec) -> String {
        let parent = self.mapped(self.references.all[reference].to);
        self.met(reference, &format!("{} AS r", source(spec, 1)), &equal(parent, "t.", "r."))
    }

    /// The same, for rows with these keys.
    pub(super) fn arrive_by_key(&self, reference: usize) -> String {
        let parent = self.mapped(self.references.all[reference].to);
        self.met(reference, &keys(parent, 0), &by_parameters(parent, "t."))
    }

    /// What waits for the rows that are the same as those of `given`.
    ///
    /// Each row is looked up by its key, and so is what waits for it: `OFFSET 0` leaves Postgres no choice. A transaction that has
    /// just filled both tables is planned with statistics by which they are empty, and a join would compare all with all.
    fn met(&self, reference: usize, given: &str, same: &str) -> String {
        let one = &self.references.all[reference];
        let parent = self.mapped(one.to);
        format!(
            "SELECT 'r' AS what, 1::bigint AS count, w.key FROM {given} \
             CROSS JOIN LATERAL (SELECT {wanted} AS wanted FROM {name} AS t WHERE {same} OFFSET 0) AS p \
             CROSS JOIN LATERAL (SELECT f.key FROM slackwater.waiting_for AS f WHERE f.reference = {number} \
             AND f.wanted = p.wanted OFFSET 0) AS w",
            name = qualified(&parent.table.schema, &parent.table.name),
            number = self.numbers.references[reference].unwrap_or_default(),
            wanted = texts(&parent.table, "t.", &one.named),
        )
    }

    /// What held rows with these keys require and lack: reference, wanted key, own key. Rows that are not held are left out. None if
    /// the table's rows require nothing.
    ///
    /// It is looked for again: what was there when the row was held may have gone since. And it is noted: the row may lack something for
    /// a reference that was not watched when it was held, and nobody else would know whom to tell when that comes.
    pub(super) fn wants(&self, table: usize) -> Option<String> {
        let mut wishes = self.wishes(table);
        wishes.retain(Wish::required);
        let m = self.held_rows(table, &wishes, false);
        let listed = wishes.iter().map(|Wish { number, name, .. }| {
            format!("SELECT {number}, m.{name}, m.key FROM m WHERE m.{name} IS NOT NULL")
        });
        let listed: Vec<String> = listed.collect();
        let keep = keep_entries(&wishes, self.number(table), "m");
        (!listed.is_empty()).then(|| format!("WITH {m}, {keep} {}", listed.join(" UNION ALL ")))
    }

    /// As [`Writer::looked_at`], for held rows with the keys that are bound.
    fn held_rows(&self, table: usize, wishes: &[Wish<'_>], pairwise: bool) -> String {
        let source = self.waiting(table, 0, " AND w.held");
        let look = Look { base: &[("key", "o.key".to_owned())], source, with_it: &|_| None, pairwise };
        self.looked_at("m", table, wishes, &look)
    }

    /// The waiting rows with the keys that are bound, as `o`, and what they should be, as `r`.
    fn waiting(&self, table: usize, bound: usize, only: &str) -> String {
        let mapped = self.mapped(table);
        format!(
            "(SELECT w.key, w.owner, w.held, {content} AS n FROM {keys} JOIN {waits} ON true{only}) AS o \
             CROSS JOIN LATERAL (SELECT (o.n).*) AS r",
            content = content("w", self.number(table), &qualified(&mapped.table.schema, &mapped.table.name)),
            keys = keys(mapped, bound),
            waits = waiting_row(self.number(table), &key_of_parameters(mapped), "w"),
        )
    }

    /// The wanted key, or null if there is nothing to want or it is there. The limit keeps Postgres from reading the whole table once
    /// instead of looking each key up.
    fn wanted(&self, one: &Reference, beside: &str) -> String {
        let (child, parent) = (self.mapped(one.from), self.mapped(one.to));
        let set: Vec<String> = one
            .columns
            .iter()
            .map(|at| format!("r.{} IS NOT NULL", quote(&child.table.columns[*at].name)))
            .collect();
        format!(
            "CASE WHEN {} AND (SELECT true FROM {} AS p WHERE {} LIMIT 1) IS NULL{beside} THEN {} END",
            set.join(" AND "),
            qualified(&parent.table.schema, &parent.table.name),
            refers(one, &child.table, &parent.table, "r.", "p."),
            texts(&child.table, "r.", &one.columns)
        )
    }
}

/// The row `r` as one of its table. Through text, where it has to be made: that is how its columns' lengths are looked at.
fn new_row(spec: &TableSpec) -> String {
    if spec.shape.is_none() {
        // Not `r` alone: a table may have a column of that name.
        return format!("r.*::{}", table_name(spec));
    }
    let columns = spec.table.columns.iter().enumerate().map(|(index, column)| {
        if spec.columns.contains(&index) { format!("r.{}", quote(&column.name)) } else { "NULL".to_owned() }
    });
    format!("ROW({})::text::{}", columns.collect::<Vec<_>>().join(", "), table_name(spec))
}

/// A row that refers to itself lacks nothing.
fn beside(one: &Reference, mapped: &Mapped) -> String {
    if one.from != one.to {
        return String::new();
    }
    let mine = columns(&mapped.table, "r.", &one.columns);
    let own = columns(&mapped.table, "r.", &one.named);
    format!(" AND (({mine}) = ({own})) IS NOT TRUE")
}

/// The wanted value, or null if no other row has it: none in the table, and of those that come none before it.
fn taken(one: &Unique, column: &str, wishes: &[Wish<'_>], mapped: &Mapped, among: Option<&str>) -> String {
    let missing = |of: &dyn Fn(&Wish<'_>) -> bool| {
        let rows = wishes.iter().filter(|wish| !wish.is_value() && of(wish));
        let missing: Vec<String> = rows.map(|wish| format!("b.{} IS NOT NULL", wish.name)).collect();
        if missing.is_empty() { "false".to_owned() } else { missing.join(" OR ") }
    };
    let held = missing(&|wish| wish.required());
    // While a column of the value is null for want of a row, the value is nobody's.
    let names: Vec<String> = one.rival.values.iter().map(|value| ident_of(value)).collect();
    let nulled =
        missing(&|wish| wish.nulls().iter().any(|at| names.contains(&mapped.table.columns[*at].name)));
    let beside = if one.rival.operators.is_empty() {
        format!(
            " OR row_number() OVER (PARTITION BY ({held}), ({nulled}), b.t_{column} ORDER BY b.s_{column} DESC, b.key) > 1"
        )
    } else if let Some(all) = among {
        let operators = one.rival.operators.iter().enumerate();
        let meet: Vec<String> = operators
            .map(|(place, operator)| format!("e.x_{column}_{place} {operator} b.x_{column}_{place}"))
            .collect();
        format!(
            " OR EXISTS (SELECT FROM {all} AS e WHERE e.t_{column} IS NOT NULL AND e.b_{column} IS NULL AND e.key < b.key AND {})",
            meet.join(" AND ")
        )
    } else {
        String::new()
    };
    format!(
        ", CASE WHEN NOT ({nulled}) AND b.t_{column} IS NOT NULL AND (b.b_{column} IS NOT NULL{beside}) \
         THEN b.t_{column} END AS {column}, b.b_{column}"
    )
}

/// A row of `m` lacks something that is required.
fn held(wishes: &[Wish<'_>], m: &str) -> String {
    let held: Vec<String> = wishes
        .iter()
        .filter(|wish| wish.required())
        .map(|wish| format!("{m}.{} IS NOT NULL", wish.name))
        .collect();
    if held.is_empty() { "false".into() } else { held.join(" OR ") }
}

/// The waiting row with this key, looked up by its key whatever the statistics say, as in [`Writer::met`].
fn waiting_row(relation: i32, key: &str, name: &str) -> String {
    format!(
        "LATERAL (SELECT h.* FROM slackwater.waiting_rows AS h WHERE h.relation = {relation} AND h.key = {key} OFFSET 0) AS {name}"
    )
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
        "drop_entry_{m} AS (DELETE FROM slackwater.waiting_for AS f USING {m} {} WHERE {known} AND f.ctid = e.at \
         AND ({still}) IS NOT TRUE)",
        place_of("waiting_for", number, &format!("x.key = {m}.key"))
    );
    if !wishes.is_empty() {
        let _ = write!(sql, ", {}", keep_entries(wishes, number, m));
    }
    sql
}

fn keep_entries(wishes: &[Wish<'_>], number: i32, m: &str) -> String {
    let new: Vec<String> = wishes
        .iter()
        .map(|wish| {
            let Wish { number: reference, name, .. } = wish;
            let beside = if wish.is_value() { format!("{m}.b_{name}") } else { "NULL::text[]".to_owned() };
            format!("SELECT {reference}, {m}.{name}, {number}, {m}.key, {beside} FROM {m} WHERE {m}.{name} IS NOT NULL")
        })
        .collect();
    format!(
        "keep_entry_{m} AS (INSERT INTO slackwater.waiting_for (reference, wanted, relation, key, beside) {} \
         ON CONFLICT DO NOTHING)",
        new.join(" UNION ALL ")
    )
}

/// The value of a column of `m`'s row, or null if a reference that uses it is missing.
fn nulled(mapped: &Mapped, wishes: &[Wish<'_>], m: &str, column: usize) -> String {
    let value = format!("({m}.new).{}", quote(&mapped.table.columns[column].name));
    let missing: Vec<String> = wishes
        .iter()
        .filter(|wish| wish.nulls().contains(&column))
        .map(|wish| format!("{m}.{} IS NULL", wish.name))
        .collect();
    if missing.is_empty() { value } else { format!("CASE WHEN {} THEN {value} END", missing.join(" AND ")) }
}
