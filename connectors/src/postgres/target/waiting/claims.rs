//! Whose row is whose, in tables in which nothing of the key is made of the document's id. Pure.
//!
//! A document's claim names the key of its row. It is taken before the row is written, in the same transaction, and no two documents
//! have the same. Who is refused is named, with the other; `docs/design/keys.md` has the reasons.

use super::Writer;
use super::text::key;
use crate::postgres::target::catalog::Table;
use crate::postgres::target::rows::TableSpec;
use crate::postgres::target::shape::{DOCUMENT_ID, DOCUMENT_NAME};
use crate::postgres::target::statements::{element_type, moved, quote, source, table_name};

impl Writer<'_> {
    /// The keys of the rows of the documents in `$1`.
    pub(super) fn claims_of_deletes(&self, table: usize) -> String {
        format!(
            "SELECT 'l' AS what, 1::bigint AS count, c.key FROM slackwater.claims AS c WHERE c.relation = {} AND c.id = ANY ($1::uuid[])",
            self.number(table)
        )
    }

    /// The documents in `$1` claim nothing any more.
    pub(in crate::postgres::target) fn disclaim(&self, table: usize) -> String {
        format!(
            "DELETE FROM slackwater.claims AS c WHERE c.relation = {} AND c.id = ANY ($1::uuid[]) \
             RETURNING 'd' AS what, 0::bigint AS count, NULL::text[] AS key",
            self.number(table)
        )
    }

    /// Who has a key that a row of `$1` wants, if somebody has.
    pub(in crate::postgres::target) fn claimed_by_another(&self, spec: &TableSpec, table: usize) -> String {
        format!(
            "SELECT c.document FROM {} AS r {} WHERE c.id <> r.{DOCUMENT_ID} LIMIT 1",
            source(spec, 1),
            self.claim_with(table, &format!("x.key = {}", key(self.mapped(table), "r."))),
        )
    }

    /// The keys that documents of `$1` had until now, and have no more.
    pub(in crate::postgres::target) fn claims_left(&self, spec: &TableSpec, table: usize) -> String {
        format!(
            "SELECT 'l' AS what, 1::bigint AS count, c.key FROM {} AS r {} WHERE c.key <> {}",
            source(spec, 1),
            self.claim_with(table, &format!("x.id = r.{DOCUMENT_ID}")),
            key(self.mapped(table), "r.")
        )
    }

    /// Gives rows the key that their documents in `$1` have now.
    pub(in crate::postgres::target) fn relocate_claimed(&self, spec: &TableSpec, table: usize) -> String {
        let mapped = self.mapped(table);
        let set: Vec<String> = moved(spec, &[])
            .map(|at| quote(&mapped.table.columns[spec.columns[at]].name))
            .map(|name| format!("{name} = r.{name}"))
            .collect();
        let old: Vec<String> =
            mapped.key.iter().enumerate().map(|(place, at)| old(&mapped.table, place, *at)).collect();
        format!(
            "UPDATE {} AS t SET {} FROM {} AS r {} WHERE c.key <> {} AND {}",
            table_name(spec),
            set.join(", "),
            source(spec, 1),
            self.claim_with(table, &format!("x.id = r.{DOCUMENT_ID}")),
            key(mapped, "r."),
            old.join(" AND ")
        )
    }

    /// The documents of `$1` claim the keys of their rows.
    pub(in crate::postgres::target) fn claim(&self, spec: &TableSpec, table: usize) -> String {
        let number = self.number(table);
        format!(
            "INSERT INTO slackwater.claims AS c (relation, id, key, document) \
             SELECT {number}, r.{DOCUMENT_ID}, {}, r.{DOCUMENT_NAME} FROM {} AS r \
             ON CONFLICT (relation, id) DO UPDATE SET key = EXCLUDED.key WHERE c.key <> EXCLUDED.key",
            key(self.mapped(table), "r."),
            source(spec, 1),
        )
    }

    /// The claim of a row of the statement, as `c`, looked up as in [`super::text::place_of`].
    fn claim_with(&self, table: usize, same: &str) -> String {
        format!(
            "CROSS JOIN LATERAL (SELECT x.* FROM slackwater.claims AS x WHERE x.relation = {} AND {same} OFFSET 0) AS c",
            self.number(table)
        )
    }

    /// The row `t` is that of a document.
    pub(super) fn is_claimed(&self, table: usize) -> String {
        format!(
            " AND EXISTS (SELECT FROM slackwater.claims AS c WHERE c.relation = {} AND c.key = {})",
            self.number(table),
            key(self.mapped(table), "t.")
        )
    }

    /// Documents whose rows a reload has not met claim nothing any more.
    pub(in crate::postgres::target) fn disclaim_unseen(&self, table: usize, seen: &str) -> String {
        let mapped = self.mapped(table);
        format!(
            "DELETE FROM slackwater.claims AS c WHERE c.relation = {} AND NOT EXISTS \
             (SELECT FROM slackwater.{} AS s WHERE c.key = {})",
            self.number(table),
            quote(seen),
            key(mapped, "s.")
        )
    }
}

/// The row `t` has the claimed key, in this place.
fn old(table: &Table, place: usize, at: usize) -> String {
    let column = &table.columns[at];
    format!("t.{} = c.key[{}]::{}", quote(&column.name), place + 1, element_type(&column.kind))
}
