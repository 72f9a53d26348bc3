//! Which tables have keys that the database hands out: columns with a sequence, filled by `serial`, or by nothing at all.

use slackwater_connectors::postgres::target::catalog::{self, Catalog};
use slackwater_connectors::postgres::target::serial::Series;

use super::conversions::Base;
use crate::config::{Collection, Migration, Rule, Table};

/// Of all tables of the file.
pub(super) fn all(file: &Migration, catalog: &Catalog) -> Vec<Series> {
    let mut found: Vec<Series> = Vec::new();
    for rule in file.collections.iter().flat_map(|collection| &collection.tables) {
        let schema = rule.schema.as_deref().unwrap_or(&file.target.schema);
        let Some(table) = catalog.tables.get(&(schema.to_owned(), rule.into.value.clone())) else { continue };
        if let Some(series) = of(rule, table).filter(|series| !found.contains(series)) {
            found.push(series);
        }
    }
    found
}

fn of(rule: &Table, table: &catalog::Table) -> Option<Series> {
    let stated = rule.columns.iter().find(|column| {
        matches!(column.rule.value, Rule::Own { serial: true } | Rule::Element { serial: true, .. })
    });
    let column = match stated {
        Some(column) => table.column(&column.name.value)?,
        None => unstated(rule, table)?,
    };
    let column = &table.columns[column];
    Some(Series {
        schema: table.schema.clone(),
        table: table.name.clone(),
        column: column.name.clone(),
        next: next(column)?,
    })
}

/// The SQL that takes a number for the column, if it has a sequence.
pub(super) fn next(column: &catalog::Column) -> Option<String> {
    let whole = matches!(Base::of(&column.kind), Base::Integer(_));
    column.default.clone().filter(|default| whole && default.contains("nextval("))
}

/// The key that nothing fills: the database hands it out. Only of a row for each document; elements have to be told apart.
pub(super) fn unstated(rule: &Table, table: &catalog::Table) -> Option<usize> {
    let [column] = table.primary_key[..] else { return None };
    let name = &table.columns[column].name;
    let filled = rule.names(name);
    let free = rule.key.is_empty() && rule.each.is_none() && rule.merge.is_none() && !filled;
    (free && next(&table.columns[column]).is_some()).then_some(column)
}

/// The number of a table's series.
pub(super) fn number(series: &[Series], schema: &str, table: &str) -> Option<u16> {
    let place = series.iter().position(|one| one.schema == schema && one.table == table)?;
    u16::try_from(place).ok()
}

/// The number of the series that a collection's own rows have their keys from.
pub(super) fn of_collection(series: &[Series], collection: &Collection, schema: &str) -> Option<u16> {
    let own = collection.tables.iter().find(|rule| rule.each.is_none())?;
    number(series, own.schema.as_deref().unwrap_or(schema), &own.into.value)
}
