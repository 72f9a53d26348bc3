//! The payments of another system, which keeps them in MongoDB and knows the marina's records by their numbers.

use bson::{DateTime, Decimal128, Document, doc, oid::ObjectId};
use mongodb::Database;

use super::PAYMENTS;
use crate::collection::create;
use crate::{Chance, Error, Result};

/// What a payment is for.
pub(super) struct For {
    pub(super) interest: i64,
    pub(super) invoice: Option<i64>,
}

/// An id whose place among the others is anywhere.
pub(super) fn new_id(chance: &mut Chance) -> ObjectId {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&chance.next().to_be_bytes());
    bytes[8..].copy_from_slice(&chance.next().to_be_bytes()[..4]);
    ObjectId::from_bytes(bytes)
}

/// A payment, as old and new versions of that system write it.
pub(super) fn payment(chance: &mut Chance, id: ObjectId, of: &For) -> Result<Document> {
    let amount = format!("{}.{:02}", chance.below(50_000), chance.below(100));
    let mut payment = doc! {"_id": id, "interest": of.interest};
    if let Some(invoice) = of.invoice {
        payment.insert("invoice", invoice as i32);
    }
    if chance.percent(70) {
        let amount: Decimal128 =
            amount.parse().map_err(|_| Error::Unexpected(format!("{amount} is no decimal")))?;
        payment.insert("amount", amount);
    } else {
        payment.insert("amount", amount);
    }
    if chance.percent(80) {
        payment.insert("currency", *chance.pick(&["EUR", "USD"]));
    }
    if chance.percent(90) {
        payment.insert("method", *chance.pick(&["bank", "card", "cash", "barter"]));
    }
    payment.insert("at", DateTime::from_millis(chance.between(1_600_000_000_000, 1_790_000_000_000)));
    if chance.percent(60) {
        payment.insert("reference", *chance.pick(&["RF18 5390", "  deposit", "", "10 % berth"]));
    }
    if chance.percent(70) {
        payment.insert("settled", chance.percent(50));
    }
    if chance.percent(40) {
        payment.insert("meta", doc! {"batch": chance.below(99) as i32, "tags": ["a", "b"], "fee": 0.25});
    }
    Ok(payment)
}

/// Fills the collection, which must not exist yet. `interests` and `invoices`: how many there are, numbered from one.
pub async fn load(database: &Database, seed: u64, count: u64, interests: u64, invoices: u64) -> Result<()> {
    create(database, PAYMENTS, false).await?;
    let mut chance = Chance::of(seed, 0, 2);
    let mut payments = Vec::new();
    for _ in 0..count {
        let interest = 1 + chance.below(interests) as i64;
        let invoice = chance.percent(50).then(|| 1 + chance.below(invoices) as i64);
        let id = new_id(&mut chance);
        payments.push(payment(&mut chance, id, &For { interest, invoice })?);
    }
    database.collection::<Document>(PAYMENTS).insert_many(payments).await?;
    Ok(())
}
