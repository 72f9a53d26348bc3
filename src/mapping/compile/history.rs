//! Tables with a row for each version of a document: what their columns may be.

use slackwater_connectors::postgres::target::catalog;

use super::super::change::ChangeKind;
use super::super::plan::Take;
use super::conversions::Base;
use super::keys;
use super::table::{Built, Origin};
use crate::config::{ChangeOf, Findings, Table};

/// The key of a table of history, as indices into what is filled. It tells documents apart, and the versions of each.
pub(super) fn key(
    rule: &Table,
    table: &catalog::Table,
    built: &[Built],
    findings: &mut Findings,
) -> Option<Vec<usize>> {
    for built in built {
        column(table, built, findings);
    }
    for refers in table.foreign_keys.iter().flat_map(|key| &key.columns) {
        if let Some(built) = built.iter().find(|built| built.column == *refers) {
            let name = &table.columns[*refers].name;
            let message = format!(
                "`{name}` refers to another table, and versions of documents stay when the row goes that they refer to"
            );
            findings.error(built.place, message, "drop the foreign key");
        }
    }
    let key = keys::key(rule, table, built, findings)?;
    let take = |at: &usize| &built[*at].code.take;
    let is_id = key.iter().any(|at| matches!(take(at), Take::ChangeId { .. }));
    let is_number = key.iter().any(|at| matches!(take(at), Take::Change { of: ChangeOf::Number, .. }));
    let is_own =
        key.iter().any(|at| matches!(built[*at].origin, Origin::Own | Origin::Id { whole: true, .. }));
    let tells = is_id || (is_number && is_own);
    if !tells {
        let help = "a key of `{ uuid: change }`, or of `{ uuid: _id }` and `{ change: number }`";
        findings.error(rule.into.place, "the key does not tell the versions of a document apart", help);
        return None;
    }
    Some(key)
}

fn column(table: &catalog::Table, built: &Built, findings: &mut Findings) {
    let column = &table.columns[built.column];
    let name = &column.name;
    if built.expression.is_some() || built.wanted.is_some() {
        let message =
            format!("`{name}` is made by the target, of the document as it is now and not of one version");
        let help = "keep what it is made of, and compute it in a view or a generated column";
        findings.error(built.place, message, help);
        return;
    }
    let no_value = match &built.code.take {
        Take::Document { .. } if built.origin == Origin::Other => "the row of a delete has no value",
        Take::Rest(_) => "the row of a delete has no value",
        Take::Change { of: ChangeOf::Time, .. } => "of what was copied nobody knows the time",
        _ => return,
    };
    if column.not_null {
        findings.error(built.place, format!("`{name}` may not be null, and {no_value}"), "let it be null");
    }
}

/// Something of the change fills a column of this type.
pub(super) fn fits(of: ChangeOf, kind: &catalog::Type) -> bool {
    match of {
        ChangeOf::Id => true,
        ChangeOf::Time => matches!(Base::of(kind), Base::Timestamp | Base::Date),
        ChangeOf::Number => matches!(Base::of(kind), Base::Integer(_) | Base::Numeric),
        ChangeOf::Kind => match &kind.enum_labels {
            Some(labels) => ChangeKind::WORDS.iter().all(|word| labels.iter().any(|label| label == word)),
            None => {
                matches!(Base::of(kind), Base::Text { limit, .. } if limit.is_none_or(|limit| limit >= 6))
            }
        },
    }
}
