//! The people of the office, who edit the base while it is replicated: through the API, one piece of work at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::base::{Base, number};
use super::door::Door;
use super::till::Known;
use super::{
    BERTH, BERTHS, BERTHS_OF_INTEREST, EXPENSES, EXPENSES_OF_INVOICE, INTEREST, INTERESTS,
    INTERESTS_OF_BERTH, INVOICES, records,
};
use crate::{Chance, Result};

/// How often is looked whether a closed door is open again.
const LOOK: Duration = Duration::from_millis(50);
/// Fewer berths are not left.
const LEAST: usize = 50;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    NewInterest,
    NewExpenses,
    NewInvoice,
    EditInterest,
    EditMany,
    EditJson,
    MoveToBerth,
    LeaveBerth,
    LinkBerths,
    UnlinkBerths,
    LinkExpenses,
    UnlinkExpenses,
    DeleteInterest,
    DeleteExpenses,
    DeleteBerth,
}

const WORK: [(Work, u64, &str); 15] = [
    (Work::NewInterest, 8, "interests created"),
    (Work::NewExpenses, 6, "times expenses created"),
    (Work::NewInvoice, 6, "invoices created"),
    (Work::EditInterest, 16, "interests edited"),
    (Work::EditMany, 6, "times many edited at once"),
    (Work::EditJson, 8, "times notes, lines or files replaced"),
    (Work::MoveToBerth, 8, "interests moved to a berth"),
    (Work::LeaveBerth, 4, "taken off their berth"),
    (Work::LinkBerths, 8, "times berths linked"),
    (Work::UnlinkBerths, 6, "times berths unlinked"),
    (Work::LinkExpenses, 8, "times expenses linked"),
    (Work::UnlinkExpenses, 6, "times expenses unlinked"),
    (Work::DeleteInterest, 4, "interests deleted"),
    (Work::DeleteExpenses, 5, "times expenses deleted"),
    (Work::DeleteBerth, 1, "berths deleted"),
];

/// Who edits the base.
pub struct Office {
    base: Base,
    door: Door,
    known: Known,
    chance: Chance,
    /// Nobody refers to them from outside, so they may be deleted.
    loose: Vec<i64>,
    interests: Vec<i64>,
    berths: Vec<i64>,
    expenses: Vec<i64>,
    invoices: Vec<i64>,
    count: u64,
    done: BTreeMap<Work, u64>,
}

impl Office {
    /// Reads what there is; all of it stays, as far as payments may refer to it.
    pub async fn open(base: Base, door: Door, seed: u64, known: Known) -> Result<Self> {
        let mut ids = Vec::new();
        for table in [INTERESTS, BERTHS, EXPENSES, INVOICES] {
            let records = base.read(table, &["Id"]).await?;
            ids.push(records.iter().map(number).collect::<Result<Vec<_>>>()?);
        }
        let mut ids = ids.into_iter();
        let mut next = || ids.next().unwrap_or_default();
        let (interests, berths, expenses, invoices) = (next(), next(), next(), next());
        known.interests(interests.iter().copied());
        known.invoices(invoices.iter().copied());
        // Others than those of a run before.
        let chance = Chance::of(seed, expenses.len() as u64, 4);
        let (loose, count, done) = (Vec::new(), 0, BTreeMap::new());
        Ok(Self { base, door, known, chance, loose, interests, berths, expenses, invoices, count, done })
    }

    /// Works until `stop` says so, so many times a second at the most, and not while the door is closed.
    pub async fn work(mut self, rate: f64, stop: watch::Receiver<bool>) -> Result<Self> {
        let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / rate.max(0.01)));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !*stop.borrow() {
            pace.tick().await;
            let Some(inside) = self.door.enter()? else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let work = self.next();
            self.carry_out(work).await?;
            *self.done.entry(work).or_default() += 1;
            drop(inside);
        }
        Ok(self)
    }

    fn next(&mut self) -> Work {
        let mut at = self.chance.below(WORK.iter().map(|(_, weight, _)| weight).sum());
        for (work, weight, _) in WORK {
            if at < weight {
                return work;
            }
            at -= weight;
        }
        Work::EditInterest
    }

    fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Some of these, each once.
    fn some(chance: &mut Chance, ids: &[i64], most: u64) -> Vec<i64> {
        let count = 1 + chance.below(most);
        let mut some: Vec<i64> = (0..count).map(|_| *chance.pick(ids)).collect();
        some.sort_unstable();
        some.dedup();
        some
    }

    async fn carry_out(&mut self, work: Work) -> Result<()> {
        let chance = &mut self.chance;
        let (interest, berth) = (*chance.pick(&self.interests), *chance.pick(&self.berths));
        let invoice = *chance.pick(&self.invoices);
        let base = &self.base;
        match work {
            Work::NewInterest => return self.new_interest(berth).await,
            Work::NewExpenses => {
                let count = 1 + chance.below(25);
                let new: Vec<Value> = (0..count).map(|_| records::expense(chance)).collect();
                self.expenses.extend(base.create_records(EXPENSES, &new).await?);
            }
            Work::NewInvoice => return self.new_invoice(interest).await,
            Work::EditInterest => {
                let titles: &[&str] = chance.pick::<&[&str]>(&[
                    &["Sales Process Level", "EOI Status"][..],
                    &["Email", "Phone", "Full Name"],
                    &["Tags", "Client Type"],
                    &["Length", "Budget", "Extra Comments", "Contract Sent"],
                ]);
                let new = part(&records::interest(chance), interest, titles);
                base.update(INTERESTS, &[new]).await?;
            }
            Work::EditMany => {
                let berths = Self::some(chance, &self.berths, 30);
                let new = |id: &i64| part(&records::berth(chance, 0), *id, &["Status", "Price", "Map Data"]);
                base.update(BERTHS, &berths.iter().map(new).collect::<Vec<_>>()).await?;
                let expenses = Self::some(&mut self.chance, &self.expenses, 60);
                let new = |id: &i64| json!({"Id": id, "Paid": true, "Payer": "Matt"});
                base.update(EXPENSES, &expenses.iter().map(new).collect::<Vec<_>>()).await?;
            }
            Work::EditJson => {
                let titles = ["Notes", "Contacts", "Signers", "Submission", "Documents"];
                let new = part(&records::interest(chance), interest, &titles);
                base.update(INTERESTS, &[new]).await?;
                let new = part(&records::invoice(chance, 0), invoice, &["Lines", "Total", "PDF", "Status"]);
                base.update(INVOICES, &[new]).await?;
            }
            Work::MoveToBerth => base.connect(BERTHS, INTERESTS_OF_BERTH, berth, &[interest]).await?,
            Work::LeaveBerth => {
                // Whoever is there now; the link leads to one record, so the berth's side is asked.
                let there = base.linked(BERTHS, INTERESTS_OF_BERTH, berth).await?;
                if let Some(interest) = there.first() {
                    base.disconnect(INTERESTS, BERTH, *interest, &[berth]).await?;
                }
            }
            Work::LinkBerths => {
                let some = Self::some(chance, &self.berths, 5);
                base.connect(INTERESTS, BERTHS_OF_INTEREST, interest, &some).await?;
            }
            Work::UnlinkBerths => self.unlink(INTERESTS, BERTHS_OF_INTEREST, interest).await?,
            Work::LinkExpenses => {
                let some = Self::some(chance, &self.expenses, 8);
                base.connect(INVOICES, EXPENSES_OF_INVOICE, invoice, &some).await?;
            }
            Work::UnlinkExpenses => self.unlink(INVOICES, EXPENSES_OF_INVOICE, invoice).await?,
            Work::DeleteInterest => {
                if let Some(interest) = self.loose.pop() {
                    base.delete(INTERESTS, &[interest]).await?;
                    self.interests.retain(|id| *id != interest);
                }
            }
            Work::DeleteExpenses => {
                let gone = Self::some(chance, &self.expenses, 12);
                base.delete(EXPENSES, &gone).await?;
                self.expenses.retain(|id| !gone.contains(id));
            }
            Work::DeleteBerth if self.berths.len() > LEAST => {
                base.delete(BERTHS, &[berth]).await?;
                self.berths.retain(|id| *id != berth);
            }
            Work::DeleteBerth => {}
        }
        Ok(())
    }

    async fn new_interest(&mut self, berth: i64) -> Result<()> {
        let new = records::interest(&mut self.chance);
        let ids = self.base.create_records(INTERESTS, &[new]).await?;
        let some = Self::some(&mut self.chance, &self.berths, 3);
        for id in &ids {
            self.base.connect(INTERESTS, BERTHS_OF_INTEREST, *id, &some).await?;
            self.base.connect(INTERESTS, BERTH, *id, &[berth]).await?;
        }
        self.interests.extend(&ids);
        // Somebody may pay for it at once, before slackwater has seen it.
        if self.chance.percent(50) {
            self.known.interests(ids)
        } else {
            self.loose.extend(ids)
        }
        Ok(())
    }

    async fn new_invoice(&mut self, interest: i64) -> Result<()> {
        let number = 90_000 + self.number();
        let new = records::invoice(&mut self.chance, number);
        let ids = self.base.create_records(INVOICES, &[new]).await?;
        let some = Self::some(&mut self.chance, &self.expenses, 5);
        for id in &ids {
            self.base.connect(INVOICES, INTEREST, *id, &[interest]).await?;
            self.base.connect(INVOICES, EXPENSES_OF_INVOICE, *id, &some).await?;
        }
        self.invoices.extend(&ids);
        self.known.invoices(ids);
        Ok(())
    }

    /// Takes away about half of what a record is linked to.
    async fn unlink(&mut self, table: &str, link: &str, id: i64) -> Result<()> {
        let mut linked = self.base.linked(table, link, id).await?;
        linked.retain(|_| self.chance.percent(50));
        if linked.is_empty() { Ok(()) } else { self.base.disconnect(table, link, id, &linked).await }
    }
}

/// Some columns of a record, for an update of another.
fn part(record: &Value, id: i64, titles: &[&str]) -> Value {
    let mut part = json!({"Id": id});
    titles.iter().for_each(|title| part[*title] = record[*title].clone());
    part
}

impl fmt::Display for Office {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = WORK.iter().filter_map(|(work, _, name)| Some(format!("{} {name}", self.done.get(work)?)));
        write!(f, "the office: {}", done.collect::<Vec<_>>().join(", "))
    }
}
