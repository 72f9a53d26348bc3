//! Statements for rows that go: what refers to them waits from then on.

use std::fmt::Write as _;

use super::text::{
    by_parameters, columns, content, equal, key, key_of_parameters, keys, literal, overriding, owner,
    place_of, place_of_row, refers, text, texts,
};
use super::{Writer, waiting_row};
use crate::postgres::target::rows::TableSpec;
use crate::postgres::target::statements::{
    element_type, moving, owners, qualified, quote, source, table_name, unseen,
};

impl Writer<'_> {
    /// Rows with these keys are about to go: those that refer to them are noted, and lose the reference or have to leave. A row
    /// that is held already is on its way out of its table, and its content may be newer than what is there.
    pub(in crate::postgres::target) fn let_go(&self, reference: usize) -> String {
        let one = &self.references.all[reference];
        let (child, parent) = (self.mapped(one.from), self.mapped(one.to));
        let name = qualified(&child.table.schema, &child.table.name);
        let (number, relation) =
            (self.numbers.references[reference].unwrap_or_default(), self.number(one.from));
        let mut sql = format!(
            "WITH c AS MATERIALIZED (SELECT {key} AS key, {wanted} AS wanted, {owner} AS owner, t.*::{name} AS now, o.content AS old FROM {keys} \
             JOIN {parent_name} AS p ON {same} JOIN {name} AS t ON {refers} \
             LEFT JOIN {waits} ON true WHERE o.held IS NOT TRUE), \
             note AS (INSERT INTO slackwater.waiting_for (reference, wanted, relation, key) \
             SELECT {number}, c.wanted, {relation}, c.key FROM c ON CONFLICT DO NOTHING), ",
            key = key(child, "t."),
            waits = waiting_row(relation, &key(child, "t."), "o"),
            wanted = texts(&parent.table, "p.", &one.named),
            owner = owner(child, "t."),
            keys = keys(parent, 0),
            parent_name = qualified(&parent.table.schema, &parent.table.name),
            same = by_parameters(parent, "p."),
            refers = refers(one, &child.table, &parent.table, "t.", "p."),
        );
        if one.required() {
            let content = self.as_it_stands(one.from, "(c.now)", &format!("((c.old)::{name})"));
            let _ = write!(
                sql,
                "keep AS (INSERT INTO slackwater.waiting_rows AS w (relation, key, owner, held, content) \
                 SELECT {relation}, c.key, c.owner, true, ROW({content})::{name}::text FROM c \
                 ON CONFLICT (relation, key) DO UPDATE SET held = true, content = EXCLUDED.content) \
                 SELECT 'l' AS what, 1::bigint AS count, c.key FROM c",
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

    /// The keys of the rows that are there for rows of `$1` under another key.
    pub(in crate::postgres::target) fn keys_of_moved(
        &self,
        spec: &TableSpec,
        table: usize,
    ) -> Option<String> {
        Some(format!(
            "SELECT 'l' AS what, 1::bigint AS count, {} AS key FROM {}",
            key(self.mapped(table), "t."),
            moving(spec)?
        ))
    }

    /// Tries whether rows of `$1` could be in their table if only what they refer to were there: those with the keys that are bound behind them.
    /// What this writes is never kept.
    pub(in crate::postgres::target) fn probe(&self, spec: &TableSpec, table: usize) -> String {
        let mapped = self.mapped(table);
        let listed: Vec<String> =
            spec.columns.iter().map(|at| quote(&mapped.table.columns[*at].name)).collect();
        let values: Vec<String> = listed.iter().map(|name| format!("r.{name}")).collect();
        format!(
            "WITH p AS (INSERT INTO {name} ({listed}){overriding} SELECT {values} FROM {source} AS r JOIN {keys} ON {same} \
             ON CONFLICT ({key}) DO NOTHING) SELECT 'w' AS what, 0::bigint AS count, NULL::text[] AS key LIMIT 0",
            name = table_name(spec),
            listed = listed.join(", "),
            overriding = overriding(&mapped.table, &spec.columns),
            values = values.join(", "),
            source = source(spec, 1),
            key = columns(&mapped.table, "", &mapped.key),
            keys = keys(mapped, 1),
            same = by_parameters(mapped, "r."),
        )
    }

    /// Deletes the rows with these keys, of several tables at once: Postgres looks at the references when all are gone.
    pub(in crate::postgres::target) fn remove(&self, tables: &[usize]) -> String {
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
    pub(in crate::postgres::target) fn lock(&self, table: usize) -> String {
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
    pub(in crate::postgres::target) fn ask(&self, reference: usize) -> String {
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
    pub(in crate::postgres::target) fn forget(&self, table: usize) -> String {
        let mapped = self.mapped(table);
        let number = self.number(table);
        format!(
            "WITH gone AS (DELETE FROM slackwater.waiting_rows AS w USING {keys} {at} WHERE w.ctid = e.at RETURNING w.key), \
             {entries} SELECT 'd' AS what, 0::bigint AS count, NULL::text[] AS key LIMIT 0",
            keys = keys(mapped, 0),
            at = place_of_row(number, &key_of_parameters(mapped)),
            entries = Self::entries_of_gone(number),
        )
    }

    /// Forgets what waits of the owners in `$1`, less the rows of `$2`.
    pub(in crate::postgres::target) fn forget_owned(&self, spec: &TableSpec, table: usize) -> Option<String> {
        let mapped = self.mapped(table);
        let owner = spec.owner?;
        let kind = &mapped.table.columns[spec.columns[owner]].kind;
        let number = self.number(table);
        Some(format!(
            "WITH gone AS (DELETE FROM slackwater.waiting_rows AS w USING {owners} {at} \
             WHERE w.ctid = e.at AND w.key NOT IN (SELECT {key} FROM {source} AS r) \
             RETURNING w.key), {entries} SELECT 'd' AS what, 0::bigint AS count, NULL::text[] AS key LIMIT 0",
            owners = owners(spec)?,
            at = place_of("waiting_rows", number, &format!("x.owner = {}", text("o.id", kind))),
            entries = Self::entries_of_gone(number),
            key = key(mapped, "r."),
            source = source(spec, 2),
        ))
    }

    /// What the rows of `gone` waited for.
    fn entries_of_gone(relation: i32) -> String {
        format!(
            "entries AS (DELETE FROM slackwater.waiting_for AS f USING gone {} WHERE f.ctid = e.at)",
            place_of("waiting_for", relation, "x.key = gone.key")
        )
    }

    /// Where in a key as text a column of the spec is, from 1.
    fn place_in_key(spec: &TableSpec, column: usize) -> usize {
        spec.key.iter().position(|key| *key == column).unwrap_or_default() + 1
    }

    /// Forgets what waits of the rows of `$1` under another key.
    pub(in crate::postgres::target) fn forget_moved(&self, spec: &TableSpec, table: usize) -> String {
        let mapped = self.mapped(table);
        let same: Vec<String> = spec
            .found_by()
            .iter()
            .map(|at| {
                let column = &spec.table.columns[spec.columns[*at]];
                let value = text(&format!("r.{}", quote(&column.name)), &column.kind);
                format!("w.key[{}] = {value}", Self::place_in_key(spec, *at))
            })
            .collect();
        format!(
            "WITH gone AS (DELETE FROM slackwater.waiting_rows AS w USING {source} AS r WHERE w.relation = {number} AND {same} \
             AND w.key <> {key} RETURNING w.key), {entries} \
             SELECT 'd' AS what, 0::bigint AS count, NULL::text[] AS key LIMIT 0",
            source = source(spec, 1),
            number = self.number(table),
            entries = Self::entries_of_gone(self.number(table)),
            same = same.join(" AND "),
            key = key(mapped, "r."),
        )
    }

    /// The keys of rows to delete (one array a key column, as for a delete), as text.
    pub(in crate::postgres::target) fn keys_of_deletes(&self, spec: &TableSpec, table: usize) -> String {
        if spec.claimed {
            return self.claims_of_deletes(table);
        }
        let kinds = spec.found_by().iter().map(|at| &spec.table.columns[spec.columns[*at]].kind);
        let arrays: Vec<String> = kinds
            .clone()
            .enumerate()
            .map(|(place, kind)| format!("${}::{}[]", place + 1, element_type(kind)))
            .collect();
        let names: Vec<String> = (0..spec.found_by().len()).map(|place| format!("k{place}")).collect();
        let texts: Vec<String> =
            kinds.enumerate().map(|(place, kind)| text(&format!("d.k{place}"), kind)).collect();
        let given = format!("unnest({}) AS d({})", arrays.join(", "), names.join(", "));
        let Some(found) = &spec.found else {
            return format!(
                "SELECT 'l' AS what, 1::bigint AS count, ARRAY[{}]::text[] AS key FROM {given}",
                texts.join(", ")
            );
        };
        // The rest of the key is in the table, or in what waits.
        let mapped = self.mapped(table);
        let there: Vec<String> = found
            .iter()
            .enumerate()
            .map(|(place, at)| {
                let name = quote(&spec.table.columns[spec.columns[*at]].name);
                format!("t.{name} = d.k{place}")
            })
            .collect();
        let held: Vec<String> = found
            .iter()
            .zip(&texts)
            .map(|(at, text)| format!("w.key[{}] = {text}", Self::place_in_key(spec, *at)))
            .collect();
        format!(
            "SELECT 'l' AS what, 1::bigint AS count, {} AS key FROM {given} JOIN {} AS t ON {} \
             UNION SELECT 'l', 1::bigint, w.key FROM {given} JOIN slackwater.waiting_rows AS w ON w.relation = {} AND {}",
            key(mapped, "t."),
            table_name(spec),
            there.join(" AND "),
            self.number(table),
            held.join(" AND ")
        )
    }

    /// The keys of the rows in the table that belong to the owners in `$1` and are not among the rows of `$2`.
    pub(in crate::postgres::target) fn keys_of_owned(
        &self,
        spec: &TableSpec,
        table: usize,
    ) -> Option<String> {
        let mapped = self.mapped(table);
        let owner = spec.columns[spec.owner?];
        let column = &mapped.table.columns[owner];
        Some(format!(
            "SELECT 'l' AS what, 1::bigint AS count, {key} AS key FROM {owners} JOIN {name} AS t \
             ON t.{owner} = o.id WHERE ({theirs}) NOT IN (SELECT {ours} FROM {source} AS r)",
            key = key(mapped, "t."),
            owners = owners(spec)?,
            name = table_name(spec),
            source = source(spec, 2),
            owner = quote(&column.name),
            theirs = columns(&mapped.table, "t.", &mapped.key),
            ours = columns(&mapped.table, "r.", &mapped.key),
        ))
    }

    /// The keys of the rows that a reload has not met and that could be ours.
    pub(in crate::postgres::target) fn keys_of_unseen(
        &self,
        spec: &TableSpec,
        table: usize,
        seen: &str,
        constants: &[&str],
    ) -> String {
        format!(
            "SELECT 'l' AS what, 1::bigint AS count, {} AS key FROM {} AS t WHERE {}{}",
            key(self.mapped(table), "t."),
            table_name(spec),
            unseen(spec, seen, constants),
            if spec.claimed { self.is_claimed(table) } else { String::new() }
        )
    }

    /// Forgets what waits of rows that a reload has not met and that could be ours.
    pub(in crate::postgres::target) fn forget_unseen(
        &self,
        spec: &TableSpec,
        table: usize,
        seen: &str,
        constants: &[&str],
    ) -> String {
        let (number, name) = (self.number(table), table_name(spec));
        format!(
            "WITH gone AS (DELETE FROM slackwater.waiting_rows AS w WHERE w.relation = {number} AND EXISTS \
             (SELECT FROM (SELECT {content} AS n) AS o CROSS JOIN LATERAL (SELECT (o.n).*) AS t WHERE {unseen}) \
             RETURNING w.key), {entries} SELECT",
            entries = Self::entries_of_gone(number),
            content = content("w", number, &name),
            unseen = unseen(spec, seen, constants)
                + &if spec.claimed { self.is_claimed(table) } else { String::new() }
        )
    }
}
