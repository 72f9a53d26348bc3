//! Fills a database with the application's documents, and keeps its books.

use std::collections::BTreeMap;

use bson::oid::ObjectId;
use bson::{Bson, Decimal128, Document, doc};
use mongodb::Database;

use super::World;
use super::specs::SPECS;
use crate::collection::create;
use crate::rendering::numeric;
use crate::{Error, Result};

const BATCH: u32 = 1_000;
/// What is not carried, but for the balances.
const LEFT: [&str; 9] = [
    "countries",
    "language",
    "i18n",
    "appupdate",
    "schedule",
    "apikey",
    "token",
    "refreshtoken",
    "handovertoken",
];

/// How many collections are carried.
pub fn collections() -> usize {
    SPECS.len()
}

/// Creates the collections and fills them. They must not exist yet. How many documents.
pub async fn load(database: &Database, world: World) -> Result<u64> {
    for (place, spec) in SPECS.iter().enumerate() {
        // Some with images, the others looked up.
        create(database, spec.name, spec.append_only || place.is_multiple_of(3)).await?;
    }
    for name in LEFT {
        database.collection::<Document>(name).insert_one(doc! {"_id": 1, "name": name}).await?;
    }
    let mut documents = 0;
    let mut balances: BTreeMap<String, (Bson, i64)> = BTreeMap::new();
    for spec in SPECS {
        let collection = database.collection::<Document>(spec.name);
        for start in (0..world.documents).step_by(BATCH as usize) {
            let end = world.documents.min(start + BATCH);
            let batch: Vec<Document> =
                (start..end).map(|index| world.document(spec.name, index, 0, index)).collect();
            if spec.append_only {
                for entry in &batch {
                    let (user, cents) = booked(entry)?;
                    balances.entry(user.to_string()).or_insert((user, 0)).1 += cents;
                }
            }
            documents += batch.len() as u64;
            collection.insert_many(batch).ordered(false).await?;
        }
    }
    let balances = balances
        .into_values()
        .map(|(user, cents)| Ok::<_, Error>(doc! {"user": user, "amount": amount(cents)?}));
    let balances: Vec<Document> = balances.collect::<Result<_>>()?;
    database.collection::<Document>("balance").insert_many(balances).await?;
    Ok(documents)
}

/// The change of a balance that belongs to an entry of the ledger: which one, and the update.
pub(super) fn balance(entry: &Document) -> Result<(Document, Document)> {
    let (user, cents) = booked(entry)?;
    Ok((doc! {"user": user}, doc! {"$inc": {"amount": amount(cents)?}}))
}

/// Whose entry it is, as that user's `_id` is, and of how much.
fn booked(entry: &Document) -> Result<(Bson, i64)> {
    let wrong = || Error::Unexpected("an entry of the ledger lacks its user or its amount".into());
    let user = match entry.get("user").ok_or_else(wrong)? {
        Bson::String(text) => ObjectId::parse_str(text).map_or(Bson::String(text.clone()), Bson::ObjectId),
        Bson::Int64(number) => Bson::Int32(*number as i32),
        Bson::Double(number) => Bson::Int32(*number as i32),
        user => user.clone(),
    };
    let digits = numeric(entry.get("amount").ok_or_else(wrong)?, Some(2))?.replace('.', "");
    Ok((user, digits.parse().map_err(|_| wrong())?))
}

fn amount(cents: i64) -> Result<Decimal128> {
    let sign = if cents < 0 { "-" } else { "" };
    let digits = format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100);
    digits.parse().map_err(|_| Error::Unexpected(format!("{digits} is no number")))
}
