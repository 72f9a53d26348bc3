//! Makes the base and fills it.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use super::base::{Base, Server};
use super::tables::{LINKS, TABLES, described};
use super::{
    BERTHS, BERTHS_OF_INTEREST, EXPENSES, EXPENSES_OF_INVOICE, INTERESTS, INTERESTS_OF_BERTH, INVOICES,
    INVOICES_OF_INTEREST, records,
};
use crate::{Chance, Error, Result};

/// Requests for links at once.
const AT_ONCE: usize = 4;

/// How many records each table has.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Size {
    pub interests: u64,
    pub berths: u64,
    pub expenses: u64,
    pub invoices: u64,
}

impl Size {
    /// The real one's, so many times.
    pub fn times(factor: u64) -> Self {
        Self {
            interests: 500 * factor,
            berths: 200 * factor,
            expenses: 2_000 * factor,
            invoices: 500 * factor,
        }
    }
}

/// Takes the base with this title away, if there is one.
pub async fn drop_base(server: &Server, title: &str) -> Result<()> {
    server.drop_bases(title).await
}

/// Makes a base with this title and fills it. `progress` hears what is done.
pub async fn build(
    server: &Server,
    title: &str,
    seed: u64,
    size: Size,
    progress: impl Fn(&str),
) -> Result<Base> {
    let mut base = Base::create(server, title).await?;
    for (table, columns) in TABLES {
        base.add_table(table, described(columns)).await?;
    }
    for (table, link, kind, to) in LINKS {
        base.add_link(table, link, kind, to).await?;
    }
    base.look().await?;
    progress("a base of 4 tables and 4 links");
    let made = |kind, table, count: u64, make: fn(&mut Chance, u64) -> Value| {
        let base = &base;
        async move {
            let mut chance = Chance::of(seed, kind, 0);
            let records: Vec<Value> = (1..=count).map(|number| make(&mut chance, number)).collect();
            base.create_records(table, &records).await
        }
    };
    // Each table in its own order, so that the same seed gives the same numbers.
    let (interests, berths, expenses, invoices) = tokio::try_join!(
        made(1, INTERESTS, size.interests, |chance, _| records::interest(chance)),
        made(2, BERTHS, size.berths, records::berth),
        made(3, EXPENSES, size.expenses, |chance, _| records::expense(chance)),
        made(4, INVOICES, size.invoices, records::invoice),
    )?;
    let count = interests.len() + berths.len() + expenses.len() + invoices.len();
    progress(&format!("{count} records"));
    let mut chance = Chance::of(seed, 0, 1);
    let mut links = Links::default();
    // A call connects one record with many others and takes its time, so few records have many links. What belongs to one
    // record only is given to one, as calls are made side by side.
    for interest in &interests {
        if chance.percent(70) {
            links.add(BERTHS, INTERESTS_OF_BERTH, *chance.pick(&berths), *interest);
        }
    }
    let buyers = &interests[..interests.len().div_ceil(5)];
    for invoice in &invoices {
        if chance.percent(60) {
            links.add(INTERESTS, INVOICES_OF_INTEREST, *chance.pick(buyers), *invoice);
        }
    }
    let mut many = |table, link, to: &[i64], from: &[i64], share, most| {
        for id in from {
            let count = if chance.percent(share) { 1 + chance.below(most) } else { 0 };
            (0..count).for_each(|_| links.add(table, link, *id, *chance.pick(to)));
        }
    };
    many(INTERESTS, BERTHS_OF_INTEREST, &berths, &interests, 40, 6);
    many(INVOICES, EXPENSES_OF_INVOICE, &expenses, &invoices, 35, 12);
    let count = links.make(&base).await?;
    progress(&format!("{count} links"));
    Ok(base)
}

/// Links, by the record that one call connects with many others.
#[derive(Default)]
struct Links(BTreeMap<(&'static str, &'static str, i64), Vec<i64>>);

impl Links {
    fn add(&mut self, table: &'static str, link: &'static str, from: i64, to: i64) {
        let linked = self.0.entry((table, link, from)).or_default();
        if !linked.contains(&to) {
            linked.push(to);
        }
    }

    async fn make(self, base: &Base) -> Result<usize> {
        let calls = self.0.into_iter().map(|((table, link, from), to)| async move {
            base.connect(table, link, from, &to).await?;
            Ok::<_, Error>(to.len())
        });
        let counts: Vec<usize> = stream::iter(calls).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(counts.into_iter().sum())
    }
}
