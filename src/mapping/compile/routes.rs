//! Several rules of one collection for one table: alternatives, of which the first that fits is written.

use std::collections::BTreeSet;

use super::super::plan::Take;
use super::Own;
use crate::config::Findings;
use crate::config::spelling::list;

/// The other rows that are an alternative to this one.
pub(super) fn rivals(rows: &[Own<'_>], at: usize) -> Vec<usize> {
    (0..rows.len()).filter(|other| *other != at && are_rivals(&rows[at], &rows[*other])).collect()
}

fn are_rivals(one: &Own<'_>, other: &Own<'_>) -> bool {
    one.when.is_some() && other.when.is_some() && are_one_row(one, other)
}

/// For the same row of the same table: no constant of the key tells them apart.
fn are_one_row(one: &Own<'_>, other: &Own<'_>) -> bool {
    let same = one.table.schema == other.table.schema && one.table.name == other.table.name;
    let constants = |own: &Own<'_>| -> BTreeSet<(usize, Vec<u8>)> {
        let columns = own.key.iter().map(|at| &own.built[*at]);
        columns
            .filter_map(|built| match &built.code.take {
                Take::Const(field) => Some((built.column, field.clone())),
                _ => None,
            })
            .collect()
    };
    // Each has its part of a row that is merged.
    let parts = |own: &Own<'_>| own.built.iter().any(|built| built.column >= own.table.columns.len());
    let merged = parts(one) || parts(other);
    let (ours, theirs) = (constants(one), constants(other));
    let apart = |(column, value): &(usize, Vec<u8>)| {
        theirs.iter().any(|(other, theirs)| other == column && theirs != value)
    };
    same && !merged && !ours.iter().any(apart)
}

/// Alternatives fill the same columns and find their rows by the same ones: a row would otherwise keep what another rule wrote.
pub(super) fn check(rows: &[Own<'_>], findings: &mut Findings) {
    for (at, row) in rows.iter().enumerate() {
        let both = |other: &&Own<'_>| row.when.is_some() && other.when.is_some();
        if let Some(other) = rows[..at].iter().find(|other| are_one_row(row, other) && !both(other)) {
            let line = other.rule.into.place.line;
            let message =
                format!("`{}` is filled twice with the same rows, first in line {line}", row.table.name);
            let help = "use one rule, `when` in both, or a constant in the key that tells the rows apart";
            findings.error(row.rule.into.place, message, help);
        }
        let Some(first) = rivals(rows, at).into_iter().find(|other| *other < at) else { continue };
        let first = &rows[first];
        let columns =
            |own: &Own<'_>| -> BTreeSet<usize> { own.built.iter().map(|built| built.column).collect() };
        let (ours, theirs) = (columns(row), columns(first));
        let name = |column: &usize| row.table.columns[*column].name.as_str();
        let place = row.rule.into.place;
        let table = &row.table.name;
        let lacking: Vec<&str> = theirs.difference(&ours).map(name).collect();
        if !lacking.is_empty() {
            let message = format!(
                "the rule for `{table}` in line {} fills {} as well, and a row that changes from one rule to the other would keep it",
                first.rule.into.place.line,
                list(lacking.iter().copied())
            );
            findings.error(place, message, format!("add `{}: {{ const: null }}`, or a rule", lacking[0]));
        }
        let lacking: Vec<&str> = ours.difference(&theirs).map(name).collect();
        if !lacking.is_empty() {
            let message = format!(
                "the rule for `{table}` in line {} fills {} as well, and a row that changes from one rule to the other would keep it",
                place.line,
                list(lacking.iter().copied())
            );
            let help = format!("add `{}: {{ const: null }}`, or a rule", lacking[0]);
            findings.error(first.rule.into.place, message, help);
        }
        let found = |own: &Own<'_>| -> (BTreeSet<usize>, bool) {
            (own.found.iter().map(|at| own.built[*at].column).collect(), own.claimed)
        };
        if found(row) != found(first) {
            let message = format!("the rules for `{table}` find their rows by different columns");
            findings.error(place, message, "give both the same `key`, made in the same way");
        }
    }
}
