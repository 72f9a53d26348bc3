//! Rows of elements inside elements: what they are found by, and what they take over from.
//!
//! **Invariant**: a table of ours, the *holder*, has a row for each document with the ids of all its elements that such rows may belong to, as
//! they stand in the target. It is written with them, and read before it is written: so a delete, which knows nothing but the `_id`, and an
//! element that is gone, find all rows that there are.

use std::sync::Arc;

use slackwater_connectors::postgres::target::catalog::{self, Type};
use slackwater_connectors::postgres::target::merged::prefix;
use slackwater_connectors::postgres::target::rows::{
    Apart, HELD, Merging, Missing, PART, RowFormat, TableSpec,
};
use slackwater_connectors::postgres::target::shape::carrier;
use slackwater_connectors::postgres::target::statements::table_name;

use super::super::plan::{Above, ById, ColumnCode, EachCode, HolderCode, LevelCode, RowCode, Take};
use super::super::trie::Trie;
use super::{Compiler, Own};
use crate::config::{Collection, Levels, digest};

impl Compiler<'_, '_> {
    /// The table of ours with the elements that rows belong to: by which rows of elements, by which of their columns. Made where it is new.
    pub(super) fn holder(
        &mut self,
        collection: &Collection,
        (each, around): (usize, &Own<'_>),
        column: usize,
        holders: &mut Vec<HolderCode>,
    ) -> Arc<str> {
        if let Some(known) = holders.iter().find(|known| (known.each, known.column) == (each, column)) {
            return table_name(&self.specs[known.table]).into();
        }
        let kind = &around.table.columns[around.built[column].column].kind;
        let carrier = carrier(kind);
        let plain = |oid: u32, name: &str| Type {
            oid,
            base_oid: oid,
            name: name.to_owned(),
            base_name: name.to_owned(),
            modifier: -1,
            ..Type::default()
        };
        let column_of =
            |name: &str, kind: Type| catalog::Column { name: name.to_owned(), kind, ..Default::default() };
        let path = around.rule.each.as_ref().map(|each| each.value.to_string()).unwrap_or_default();
        let named = &around.built[column].code.name;
        let text = format!(
            "{}\0{}.{}\0{path}\0{named}\0elements",
            collection.name.value, around.table.schema, around.table.name
        );
        let table = catalog::Table {
            schema: "slackwater".into(),
            name: format!("{}{}", prefix(&self.file.name), &digest(&text)[..12]),
            columns: vec![
                column_of(HELD, plain(carrier.array, &format!("{}[]", carrier.name))),
                column_of(PART, plain(2950, "uuid")),
            ],
            primary_key: vec![1],
            is_table: true,
            ..catalog::Table::default()
        };
        let columns = vec![0, 1];
        holders.push(HolderCode { table: self.specs.len(), each, column, oid: carrier.oid });
        self.specs.push(TableSpec {
            record: Arc::new(RowFormat::record(&table, &columns)),
            copy: Arc::new(RowFormat::copy(columns.len())),
            table: Arc::new(table),
            missing: vec![Missing::default(); columns.len()],
            columns,
            key: vec![1],
            shape: None,
            found: None,
            claimed: false,
            owner: None,
            holder: None,
            ordered: self.around.namespace.is_ordered(),
            serial: None,
            stands: false,
            source: collection.source.as_str().into(),
            apart: Apart::Alone,
            merging: Merging::Holder,
        });
        table_name(&self.specs[self.specs.len() - 1]).into()
    }
}

/// The way to the elements. `tries`: what is read at each level.
pub(super) fn levels(each: &Levels, document: &mut Trie, mut tries: Vec<Trie>) -> Vec<LevelCode> {
    let mut arrays = Vec::with_capacity(tries.len());
    for (at, level) in each.0.iter().enumerate() {
        arrays.push(match at.checked_sub(1) {
            None => Some(document.slot(&level.names)),
            Some(_) if level.names.is_empty() => None,
            Some(around) => Some(tries[around].slot(&level.names)),
        });
    }
    let codes = each.0.iter().zip(arrays).zip(tries).enumerate();
    codes
        .map(|(at, ((level, array), element))| LevelCode {
            array,
            fields: level.fields,
            element,
            path: Levels(each.0[..=at].to_vec()).to_string(),
        })
        .collect()
}

/// The rows of enclosing elements that have to be there: those that a row takes over from, and those that these need. `before`: the tables
/// of elements so far.
pub(super) fn above(row: &mut Own<'_>, before: &[EachCode]) -> Vec<Above> {
    let named = row.built.iter().filter_map(|column| match column.code.take {
        Take::Above { above, .. } => Some(above),
        _ => None,
    });
    let mut all: Vec<Above> = Vec::new();
    for each in named {
        all.extend(&before[each].above);
        all.push(Above { each, depth: before[each].levels.len() });
    }
    // The walk comes upon the outer ones first.
    all.sort_by_key(|above| (above.depth, above.each));
    all.dedup();
    for column in &mut row.built {
        if let Take::Above { above, .. } = &mut column.code.take {
            *above = all.iter().position(|known| known.each == *above).unwrap_or_default();
        }
    }
    all
}

/// Tells the tables from which others take over.
pub(super) fn mark(codes: &mut [EachCode], holders: &[HolderCode]) {
    let above = codes.iter().flat_map(|code| code.above.iter().map(|above| above.each));
    let all: Vec<usize> = above.chain(holders.iter().map(|holder| holder.each)).collect();
    for each in all {
        codes[each].encloses = true;
    }
}

/// What tells elements apart: what the id of a row is made of, so that a value stays as it is when elements before it come and go.
pub(super) fn told_by(row: &RowCode, each: &Levels) -> Vec<ById> {
    let by = |column: &ColumnCode| match &column.take {
        Take::ElementId { by, .. } => Some(by.to_vec()),
        _ => None,
    };
    let plain = || each.0.iter().map(|level| if level.fields { ById::Name } else { ById::Index });
    row.columns.iter().find_map(by).unwrap_or_else(|| plain().collect())
}
