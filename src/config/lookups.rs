//! What is looked up in the documents of a collection.

use std::collections::{BTreeMap, BTreeSet};

use super::migration::{Collection, Column, Convert, Rule};

/// The fields of a collection's documents that other rules look up, by collection. Rows depend on them, so a collection of which more is
/// looked up than before is copied again.
pub(super) fn taken(collections: &[Collection]) -> BTreeMap<String, BTreeSet<String>> {
    let mut taken: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let tables = collections.iter().flat_map(|collection| &collection.tables);
    for column in tables.flat_map(|table| &table.columns) {
        if let Some((of, fields)) = of_column(column) {
            taken.entry(of.to_owned()).or_default().extend(fields);
        }
    }
    taken
}

fn of_column(column: &Column) -> Option<(&str, Vec<String>)> {
    let Rule::Value(value) = &column.rule.value else { return None };
    let found_by = |path: &super::At<super::Path>| {
        format!("by {} trim {} lower {}", path.value, value.trim, value.lower)
    };
    match &value.convert {
        Convert::Lookup { of, by, take, .. } => {
            let mut fields = vec![format!("take {}", take.value)];
            fields.extend(by.as_deref().map(found_by));
            Some((&of.value, fields))
        }
        Convert::Ref { to, by: Some(by), .. } => Some((&to.value, vec![found_by(by)])),
        _ => None,
    }
}
