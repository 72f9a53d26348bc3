//! How many rows a change concerns.

use std::collections::BTreeMap;
use std::fmt;

use slackwater_connectors::postgres::target::introspect;
use slackwater_connectors::secret::Secret;

use super::Changes;
use crate::config::LOOKED_UP;

/// A number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Counted.
    Exactly(u64),
    /// As the target's statistics have it, where counting would take long.
    About(u64),
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (about, count) = match self {
            Self::Exactly(count) => ("", *count),
            Self::About(count) => ("about ", *count),
        };
        write!(f, "{about}{}", grouped(count))
    }
}

/// In groups of three digits.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let first = digits.len() % 3;
    let mut groups: Vec<&str> = Vec::new();
    if first > 0 {
        groups.push(&digits[..first]);
    }
    groups.extend((first..digits.len()).step_by(3).map(|at| &digits[at..at + 3]));
    groups.join(" ")
}

/// The rows of each table that is concerned. What cannot be counted is left out: it is said for information only.
pub(crate) async fn count(target: &Secret, changes: &Changes) -> BTreeMap<String, Rows> {
    let concerned = changes.list.iter().filter(|change| change.recopies() || change.from_now_on);
    let tables = concerned.filter_map(|change| change.table.clone());
    // What is looked up stands in no table of theirs.
    let mut names: Vec<String> = tables.filter(|table| table != LOOKED_UP).collect();
    names.sort();
    names.dedup();
    let tables: Vec<(String, String)> = names
        .iter()
        .filter_map(|name| name.split(" (").next()?.split_once('.'))
        .map(|(schema, table)| (schema.to_owned(), table.to_owned()))
        .collect();
    if tables.is_empty() {
        return BTreeMap::new();
    }
    match introspect::count_rows(target, &tables).await {
        Ok(counts) => names
            .into_iter()
            .zip(counts)
            .filter_map(|(name, count)| {
                let (count, exact) = count?;
                Some((name, if exact { Rows::Exactly(count) } else { Rows::About(count) }))
            })
            .collect(),
        Err(error) => {
            tracing::debug!(%error, "rows cannot be counted");
            BTreeMap::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        for (count, text) in
            [(0, "0"), (7, "7"), (1000, "1 000"), (20_417, "20 417"), (1_234_567, "1 234 567")]
        {
            assert_eq!(Rows::Exactly(count).to_string(), text);
        }
        assert_eq!(Rows::About(500_000).to_string(), "about 500 000");
    }
}
