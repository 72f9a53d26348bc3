//! What tells the rows of one source from those that other sources put into the same table.

use slackwater_connectors::postgres::target::rows::Apart;

use crate::config::{Findings, Migration, Rule, Scalar, Table};

/// `claimed`: nothing of the key is made of the document's id.
pub(super) fn of(
    file: &Migration,
    source: &str,
    rule: &Table,
    claimed: bool,
    findings: &mut Findings,
) -> Apart {
    let schema = |rule: &Table| rule.schema.clone().unwrap_or_else(|| file.target.schema.clone());
    let same = |other: &&Table| other.into.value == rule.into.value && schema(other) == schema(rule);
    let elsewhere = file.collections.iter().filter(|collection| collection.source != source);
    let others: Vec<(&str, &Table)> = elsewhere
        .flat_map(|collection| {
            let tables = collection.tables.iter().filter(same);
            tables.map(|table| (collection.source.as_str(), table))
        })
        .collect();
    if others.is_empty() {
        return Apart::Alone;
    }
    let apart = constants(rule).find(|(column, value)| {
        others.iter().all(|(_, other)| {
            constants(other).any(|(theirs, other)| theirs == *column && differ(&value.text, &other.text))
        })
    });
    match apart.filter(|_| !claimed) {
        Some((column, value)) => Apart::By(vec![(column.to_owned(), value.text.clone())]),
        None => {
            let name = format!("{}.{}", schema(rule), rule.into.value);
            let other = others[0].0;
            let message = format!(
                "sources `{source}` and `{other}` both fill `{name}`, and nothing tells their rows apart: if history is lost, rows \
                 of documents that are gone stay"
            );
            let help = format!("give each a constant of its own, such as `tenant: {{ const: {source} }}`");
            findings.warning(rule.into.place, message, help);
            Apart::Not
        }
    }
}

fn constants(rule: &Table) -> impl Iterator<Item = (&str, &Scalar)> {
    rule.columns.iter().filter_map(|column| match &column.rule.value {
        Rule::Const(scalar) if !scalar.value.is_null() => Some((column.name.value.as_str(), &scalar.value)),
        _ => None,
    })
}

/// Whether no type of Postgres can hold the two to be equal, as far as texts tell: capitals, spaces and zeros do not count.
fn differ(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim().to_lowercase(), other.trim().to_lowercase());
    match (one.parse::<f64>(), other.parse::<f64>()) {
        (Ok(one), Ok(other)) => one != other,
        _ => one != other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_looks_different_is_the_same() {
        assert!(differ("a", "b") && differ("1", "2") && differ("1", "a"));
        assert!(!differ("A", " a") && !differ("5", "5.00"));
    }
}
