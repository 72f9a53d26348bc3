//! The proof: as many rows as documents, in every table that can be counted in the time of a freeze.
//!
//! A document makes one row in each of its own tables. The source's own figure is asked first, which takes no time; if it differs
//! from the number of rows, the documents are counted one by one. Other tables are not counted, such as those
//! with rows of arrays: their number of rows is known only by mapping every document.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::nocodb::Glance;
use slackwater_connectors::postgres::control::gone::GoneRow;
use slackwater_connectors::postgres::target::finish::Finisher;
use slackwater_connectors::postgres::target::rows::TableSpec;

use crate::mapping::{CollectionPlan, Plan};
use crate::source::{Named, Source};

/// A table, and the collections whose documents are its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) schema: String,
    pub(super) table: String,
    /// Indices into the plan.
    pub(super) collections: Vec<usize>,
}

/// The numbers of rows and documents of one table.
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

    /// Both figures, where they differ.
    pub(super) fn complaint(&self) -> String {
        let of = self.collections.join(", ");
        format!("{} has {} rows for {} documents of {of}", self.table, self.rows, self.documents)
    }
}

/// The tables that can be counted: those with a row for each document, and without rows that are kept for collections that are gone.
pub(super) fn tables(plan: &Plan, gone: &[GoneRow]) -> Vec<Counted> {
    let kept = |index: &usize| gone.iter().any(|row| row.collection == plan.collections[*index].name);
    let mut found: BTreeMap<(String, String), Option<Vec<usize>>> = BTreeMap::new();
    for (index, collection) in plan.collections.iter().enumerate() {
        let (own, by_id) = (collection.own_tables(), collection.tables_by_id());
        for table in &collection.tables {
            let spec = plan.written(*table);
            let entry = found.entry(name_of(spec)).or_insert_with(|| Some(Vec::new()));
            match entry {
                Some(collections) if own.contains(table) => collections.push(index),
                // Another collection with the same ids would bring the same rows.
                Some(collections) if by_id.contains(table) && is_alone(plan, &name_of(spec), index) => {
                    collections.push(index);
                }
                _ => *entry = None,
            }
        }
    }
    found
        .into_iter()
        .filter_map(|((schema, table), collections)| {
            let collections = collections.filter(|collections| !collections.iter().any(kept))?;
            Some(Counted { schema, table, collections })
        })
        .collect()
}

fn name_of(spec: &TableSpec) -> (String, String) {
    (spec.table.schema.clone(), spec.table.name.clone())
}

/// No other collection fills the table.
fn is_alone(plan: &Plan, table: &(String, String), collection: usize) -> bool {
    let others = plan.collections.iter().enumerate().filter(|(index, _)| *index != collection);
    let mut filled = others.flat_map(|(_, other)| &other.tables);
    !filled.any(|other| name_of(plan.written(*other)) == *table)
}

/// The application's tables that are not among those that are counted, by their names.
pub(crate) fn uncounted(plan: &Plan, counted: &[String]) -> Vec<String> {
    let written = plan.tables.iter().filter(|spec| !spec.is_ours());
    let names: BTreeSet<String> =
        written.map(|spec| format!("{}.{}", spec.table.schema, spec.table.name)).collect();
    names.into_iter().filter(|name| !counted.contains(name)).collect()
}

/// The same before anything is counted.
pub(crate) fn uncountable(plan: &Plan, gone: &[GoneRow]) -> Vec<String> {
    let counted = tables(plan, gone);
    let counted: Vec<String> =
        counted.iter().map(|table| format!("{}.{}", table.schema, table.table)).collect();
    uncounted(plan, &counted)
}

/// The number of documents of each collection, by the source's own figure.
pub(super) async fn documents(plan: &Plan, sources: &[Named]) -> Result<Vec<u64>> {
    try_join_all(plan.collections.iter().map(|collection| async move {
        source_of(collection, sources)?.count_quickly(&collection.collection).await
    }))
    .await
}

/// What writers have left behind in the sources that cannot refuse them, by the source's name.
pub(super) type Glances = Vec<(String, Glance)>;

/// Looks at those sources. `first`: the look that this one is compared with.
pub(super) async fn glance(plan: &Plan, sources: &[Named], first: &Glances) -> Result<Glances> {
    let looks = try_join_all(sources.iter().map(async |named| {
        let ours = plan.of_source(&named.name).into_iter().map(|id| plan.collection(id).collection.clone());
        let ours: Vec<String> = ours.collect();
        let before = first.iter().find(|(name, _)| *name == named.name).map(|(_, glance)| glance);
        let glance = named.source.glance(&ours, before).await?;
        Ok::<_, Error>(glance.map(|glance| (named.name.clone(), glance)))
    }));
    Ok(looks.await?.into_iter().flatten().collect())
}

/// What was written between two looks, in words. Pure.
pub(super) fn written(first: &Glances, later: &Glances) -> Option<String> {
    let pairs = first.iter().zip(later).filter(|(before, after)| before.0 == after.0);
    let texts: Vec<String> = pairs
        .filter_map(|(before, after)| {
            Some(format!("source {}: {}", before.0, before.1.written_until(&after.1)?))
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

fn source_of<'a>(collection: &CollectionPlan, sources: &'a [Named]) -> Result<&'a Source> {
    let found = sources.iter().find(|named| named.name == collection.source);
    let missing = || Error::new(Kind::Bug, "counting documents", "a collection has no source");
    found.map(|named| &named.source).ok_or_else(missing)
}

/// How many documents of each collection of the plan are deleted at the source while their rows stay, because it is append only. Pure.
pub(super) fn outlived(plan: &Plan, counts: &[(String, u64)]) -> Vec<u64> {
    let of = |name: &str| counts.iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count);
    plan.collections.iter().map(|collection| of(&collection.name)).collect()
}

/// Counts rows, each connection a share of the tables, and compares them with the documents; with those that rows have outlived, too.
pub(super) async fn compare(
    plan: &Plan,
    tables: &[Counted],
    sources: &[Named],
    finishers: &[Finisher],
    documents: &[u64],
    outlived: &[u64],
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
        let left: u64 = table.collections.iter().map(|index| outlived[*index]).sum();
        let quick: u64 = table.collections.iter().map(|index| documents[*index]).sum();
        let mut count = Count {
            table: format!("{}.{}", table.schema, table.table),
            collections: table
                .collections
                .iter()
                .map(|index| plan.collections[*index].name.clone())
                .collect(),
            documents: quick + left,
            rows,
        };
        if count.differs() {
            let exact = try_join_all(table.collections.iter().map(|index| async move {
                let collection = &plan.collections[*index];
                source_of(collection, sources)?.count_exactly(&collection.collection).await
            }))
            .await?;
            count.documents = exact.iter().sum::<u64>() + left;
        }
        Ok(count)
    }))
    .await
}
