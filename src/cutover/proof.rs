//! As many rows as documents: what can be counted while nobody writes, in the time that a freeze has.
//!
//! A document makes one row in each of its own tables. What the source believes to hold is asked first, which takes no time;
//! where that differs from the rows its documents are counted one by one. Rows of arrays are not counted here: how
//! many there are only the mapping of every document tells.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::postgres::target::finish::Finisher;

use crate::mapping::{CollectionPlan, Plan};
use crate::source::{Named, Source};

/// A table, and the collections of which each document is a row there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) schema: String,
    pub(super) table: String,
    /// Indices into the plan.
    pub(super) collections: Vec<usize>,
}

/// What was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) table: String,
    /// The collections' names.
    pub(crate) collections: Vec<String>,
    pub(crate) documents: u64,
    pub(crate) rows: u64,
}

impl Count {
    pub(crate) fn differs(&self) -> bool {
        self.documents != self.rows
    }
}

/// The tables that can be counted. One that rows of arrays go into as well cannot.
pub(super) fn tables(plan: &Plan) -> Vec<Counted> {
    let mut found: BTreeMap<(String, String), Option<Vec<usize>>> = BTreeMap::new();
    for (index, collection) in plan.collections.iter().enumerate() {
        let own = collection.own_tables();
        for table in &collection.tables {
            let spec = &plan.tables[*table];
            let name = (spec.table.schema.clone(), spec.table.name.clone());
            let entry = found.entry(name).or_insert_with(|| Some(Vec::new()));
            match entry {
                Some(collections) if own.contains(table) => collections.push(index),
                _ => *entry = None,
            }
        }
    }
    found
        .into_iter()
        .filter_map(|((schema, table), collections)| {
            Some(Counted { schema, table, collections: collections? })
        })
        .collect()
}

/// What the source believes to hold, by collection.
pub(super) async fn documents(plan: &Plan, sources: &[Named]) -> Result<Vec<u64>> {
    try_join_all(plan.collections.iter().map(|collection| async move {
        source_of(collection, sources)?.count_quickly(&collection.collection).await
    }))
    .await
}

fn source_of<'a>(collection: &CollectionPlan, sources: &'a [Named]) -> Result<&'a Source> {
    let found = sources.iter().find(|named| named.name == collection.source);
    let missing = || Error::new(Kind::Bug, "counting documents", "a collection has no source");
    found.map(|named| &named.source).ok_or_else(missing)
}

/// Counts rows, each connection its share of the tables, and compares.
pub(super) async fn compare(
    plan: &Plan,
    tables: &[Counted],
    sources: &[Named],
    finishers: &[Finisher],
    documents: &[u64],
) -> Result<Vec<Count>> {
    let share = |worker: usize| tables.iter().enumerate().skip(worker).step_by(finishers.len().max(1));
    let counted = try_join_all(finishers.iter().enumerate().map(|(worker, finisher)| async move {
        let mut counted = Vec::new();
        for (place, table) in share(worker) {
            counted.push((place, finisher.count(&table.schema, &table.table).await?));
        }
        Ok::<_, Error>(counted)
    }))
    .await?;
    let mut rows = vec![0; tables.len()];
    for (place, count) in counted.into_iter().flatten() {
        rows[place] = count;
    }
    try_join_all(tables.iter().zip(rows).map(|(table, rows)| async move {
        let believed: u64 = table.collections.iter().map(|index| documents[*index]).sum();
        let mut count = Count {
            table: format!("{}.{}", table.schema, table.table),
            collections: table
                .collections
                .iter()
                .map(|index| plan.collections[*index].name.clone())
                .collect(),
            documents: believed,
            rows,
        };
        if count.differs() {
            let exact = try_join_all(table.collections.iter().map(|index| async move {
                let collection = &plan.collections[*index];
                source_of(collection, sources)?.count_exactly(&collection.collection).await
            }))
            .await?;
            count.documents = exact.iter().sum();
        }
        Ok(count)
    }))
    .await
}
