//! The other system while it is replicated: payments come, change and go.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Document, doc};
use futures_util::TryStreamExt as _;
use mongodb::Database;
use mongodb::error::Error as DriverError;
use tokio::sync::watch;

use super::PAYMENTS;
use super::payments::{For, new_id, payment};
use crate::collection::is_blocked;
use crate::{Chance, Error, Result};

/// How often it is tried again where all writers are refused.
const AGAIN: Duration = Duration::from_millis(5);

/// Records of the base that stay: payments may refer to them. The office adds to it.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<Stays>>);

#[derive(Debug, Default)]
struct Stays {
    interests: Vec<i64>,
    invoices: Vec<i64>,
}

impl Known {
    fn with<T>(&self, what: impl FnOnce(&mut Stays) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn interests(&self, ids: impl IntoIterator<Item = i64>) {
        self.with(|stays| stays.interests.extend(ids));
    }

    pub(super) fn invoices(&self, ids: impl IntoIterator<Item = i64>) {
        self.with(|stays| stays.invoices.extend(ids));
    }

    /// One of them; those that came last more often than others.
    fn any(&self, chance: &mut Chance) -> Option<For> {
        self.with(|stays| {
            let pick = |chance: &mut Chance, ids: &[i64]| {
                let newest = if chance.percent(30) { ids.len().saturating_sub(5) } else { 0 };
                (!ids.is_empty()).then(|| *chance.pick(&ids[newest..]))
            };
            let interest = pick(chance, &stays.interests)?;
            let invoice = if chance.percent(50) { pick(chance, &stays.invoices) } else { None };
            Some(For { interest, invoice })
        })
    }
}

/// Who writes payments.
pub struct Till {
    database: Database,
    known: Known,
    chance: Chance,
    payments: Vec<ObjectId>,
    inserted: u64,
    updated: u64,
    deleted: u64,
}

/// One change.
enum Change {
    Insert(Document),
    Update(ObjectId, Document),
    Delete(ObjectId),
}

impl Till {
    /// Reads which payments there are.
    pub async fn open(database: &Database, seed: u64, known: Known) -> Result<Self> {
        let mut all = database.collection::<Document>(PAYMENTS).find(doc! {}).sort(doc! {"_id": 1}).await?;
        let mut payments = Vec::new();
        while let Some(payment) = all.try_next().await? {
            payments.extend(payment.get_object_id("_id").ok());
        }
        // Others than those of a run before.
        let chance = Chance::of(seed, payments.len() as u64, 3);
        let (inserted, updated, deleted) = (0, 0, 0);
        Ok(Self { database: database.clone(), known, chance, payments, inserted, updated, deleted })
    }

    /// Writes until `stop` says so, so many times a second.
    pub async fn write(mut self, rate: f64, stop: watch::Receiver<bool>) -> Result<Self> {
        let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / rate.max(0.01)));
        while !*stop.borrow() {
            pace.tick().await;
            let Some(change) = self.plan()? else { continue };
            while let Err(error) = self.carry_out(&change).await {
                if !is_blocked(&error) {
                    return Err(Error::Source(error));
                }
                if *stop.borrow() {
                    return Ok(self);
                }
                tokio::time::sleep(AGAIN).await;
            }
            match change {
                Change::Insert(payment) => {
                    self.inserted += 1;
                    self.payments.extend(payment.get_object_id("_id").ok());
                }
                Change::Update(..) => self.updated += 1,
                Change::Delete(id) => {
                    self.deleted += 1;
                    self.payments.retain(|payment| *payment != id);
                }
            }
        }
        Ok(self)
    }

    fn plan(&mut self) -> Result<Option<Change>> {
        let chance = &mut self.chance;
        let kind = chance.below(10);
        if kind < 5 || self.payments.is_empty() {
            let Some(of) = self.known.any(chance) else { return Ok(None) };
            let id = new_id(chance);
            return Ok(Some(Change::Insert(payment(chance, id, &of)?)));
        }
        let id = *chance.pick(&self.payments);
        if kind == 9 {
            return Ok(Some(Change::Delete(id)));
        }
        let Some(of) = self.known.any(chance) else { return Ok(None) };
        let mut new = payment(chance, id, &of)?;
        new.remove("_id");
        if chance.percent(30) {
            new.remove("interest");
        }
        Ok(Some(Change::Update(id, doc! {"$set": new})))
    }

    async fn carry_out(&self, change: &Change) -> std::result::Result<(), DriverError> {
        let payments = self.database.collection::<Document>(PAYMENTS);
        match change {
            Change::Insert(payment) => {
                payments.insert_one(payment).await?;
            }
            Change::Update(id, update) => {
                payments.update_one(doc! {"_id": id}, update.clone()).await?;
            }
            Change::Delete(id) => {
                payments.delete_one(doc! {"_id": id}).await?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Till {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "payments: {} inserted, {} updated, {} deleted", self.inserted, self.updated, self.deleted)
    }
}
