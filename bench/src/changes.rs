//! Changes to `flat` that every candidate replays.
//!
//! They go in groups of 100, so that inserts, updates and deletes are as close together in the log as they do in a
//! live system. Within a group the three commands run side by side; that is why an update never names a document
//! that its own group inserts or deletes: the end is the same in whatever order they land.

use std::collections::HashSet;
use std::time::Instant;

use bson::{Bson, DateTime, Document, RawDocumentBuf, Timestamp, doc};
use futures_util::future::try_join3;
use mongodb::Database;
use mongodb::error::{Error, Result};

use crate::documents::{EPOCH, STATES, Shape, amount, id, marker, spread};

const GROUP: u64 = 100;
const INSERTS: u64 = 20;
const DELETES: u64 = 5;

/// The first documents are owners of all others and stay.
pub(crate) const OWNERS: u64 = 1_000;

/// Which documents live, and what the next group does to them.
struct Plan {
    /// Documents that were ever inserted: numbers below this.
    known: u64,
    deleted: HashSet<u64>,
    random: u64,
}

#[derive(Default)]
struct Group {
    inserts: Vec<u64>,
    updates: Vec<u64>,
    deletes: Vec<u64>,
}

impl Plan {
    fn next(&mut self, size: u64) -> Group {
        let mut group = Group::default();
        let before = self.known;
        for _ in 0..size * DELETES / GROUP {
            let index = self.living(before);
            self.deleted.insert(index);
            group.deletes.push(index);
        }
        for _ in 0..size * INSERTS / GROUP {
            group.inserts.push(self.known);
            self.known += 1;
        }
        while group.len() < size {
            let index = self.living(before);
            group.updates.push(index);
        }
        group
    }

    fn living(&mut self, below: u64) -> u64 {
        loop {
            self.random = spread(self.random);
            let index = OWNERS + self.random % (below - OWNERS);
            if !self.deleted.contains(&index) {
                return index;
            }
        }
    }
}

impl Group {
    fn len(&self) -> u64 {
        (self.inserts.len() + self.updates.len() + self.deletes.len()) as u64
    }
}

/// Causes exactly `changes` events and tells the operation time that a stream of them starts at.
pub(crate) async fn run(database: &Database, documents: u64, changes: u64, images: bool) -> Result<String> {
    if documents < 10 * OWNERS || changes == 0 || changes > documents * 10 {
        return Err(Error::custom("too few documents for so many changes: 10 000 at least"));
    }
    database
        .run_command(doc! { "collMod": "flat", "changeStreamPreAndPostImages": { "enabled": images } })
        .await?;
    let start = operation_time(database).await?;
    let started = Instant::now();
    let mut plan = Plan { known: documents, deleted: HashSet::new(), random: 1 };
    let mut done = 0;
    let (mut inserts, mut updates, mut deletes) = (1, 0, 0);
    while done + 1 < changes {
        let group = plan.next(GROUP.min(changes - 1 - done));
        write(database, &group, done).await?;
        done += group.len();
        inserts += group.inserts.len();
        updates += group.updates.len();
        deletes += group.deletes.len();
    }
    insert(database, vec![marker()]).await?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(format!(
        r#"{{"events": {}, "inserts": {inserts}, "updates": {updates}, "deletes": {deletes}, "start": [{}, {}], "seconds": {seconds:.3}}}"#,
        done + 1,
        start.time,
        start.increment,
    ))
}

async fn write(database: &Database, group: &Group, done: u64) -> Result<()> {
    let updates: Vec<Document> = group
        .updates
        .iter()
        .zip(done..)
        .map(|(index, number)| {
            let random = spread(number ^ 0x5eed);
            // The time differs from change to change: an update that changes nothing would cause no event.
            let set = doc! {
                "status": STATES[random as usize % STATES.len()],
                "amount": amount(random >> 8),
                "quantity": (random >> 40) as i32 & 0xff,
                "updatedAt": DateTime::from_millis(EPOCH + 40_000_000_000 + number as i64),
            };
            doc! { "q": { "_id": id(*index) }, "u": { "$set": set } }
        })
        .collect();
    let deletes: Vec<Document> =
        group.deletes.iter().map(|index| doc! { "q": { "_id": id(*index) }, "limit": 1 }).collect();
    let inserts = group.inserts.iter().map(|index| Shape::Flat.document(*index)).collect();
    try_join3(
        insert(database, inserts),
        change(database, "update", "updates", updates, "nModified"),
        change(database, "delete", "deletes", deletes, "n"),
    )
    .await?;
    Ok(())
}

async fn insert(database: &Database, documents: Vec<RawDocumentBuf>) -> Result<()> {
    if !documents.is_empty() {
        database.collection::<RawDocumentBuf>("flat").insert_many(documents).await?;
    }
    Ok(())
}

/// One command with many statements, each of which must have done something.
async fn change(
    database: &Database,
    command: &str,
    field: &str,
    statements: Vec<Document>,
    counted: &str,
) -> Result<()> {
    if statements.is_empty() {
        return Ok(());
    }
    let expected = statements.len() as i32;
    let reply = database.run_command(doc! { command: "flat", field: statements }).await?;
    match reply.get_i32(counted) {
        Ok(count) if count == expected => Ok(()),
        _ => Err(Error::custom(format!(
            "{command}: not all of {expected} statements changed a document; load the collection again"
        ))),
    }
}

/// Just after the last operation that the server knows of.
async fn operation_time(database: &Database) -> Result<Timestamp> {
    match database.run_command(doc! { "ping": 1 }).await?.get("operationTime") {
        Some(Bson::Timestamp(at)) => Ok(Timestamp { time: at.time, increment: at.increment + 1 }),
        _ => Err(Error::custom("the server tells no operation time: it must be a member of a replica set")),
    }
}
