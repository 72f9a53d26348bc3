//! Changes at a pace, each to a document of its own, with the moment at which the server had acknowledged it.
//!
//! The schedule does not wait for answers: a server that is slow for a moment gets the same load as a quick one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bson::{DateTime, Document, doc};
use mongodb::Database;
use mongodb::error::{Error, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::changes::OWNERS;
use crate::documents::{EPOCH, id};

/// The numbers of changes, as `quantity` has them, begin here: no document has so much from the start.
const BASE: u64 = 1_000_000;
/// More commands a second would measure the writer: then several changes go in one command.
const COMMANDS: f64 = 1_000.0;

/// An acknowledged command: its first change, how many there are, and when, in microseconds since 1970.
struct Ack(u64, u64, u128);

/// Makes `changes` changes, `rate` a second, the first one after a pause. `first` is the number of the first.
pub(crate) async fn run(database: &Database, rate: f64, changes: u64, first: u64) -> Result<String> {
    let together = (rate / COMMANDS).ceil().max(1.0) as u64;
    let pause = Duration::from_secs_f64(together as f64 / rate);
    let start = Instant::now();
    let (mut running, mut acks, mut late) = (JoinSet::new(), Vec::new(), Duration::ZERO);
    for (step, from) in (0..changes).step_by(together as usize).enumerate() {
        let due = start + pause * (step as u32 + 1);
        sleep_until(due).await;
        late = late.max(due.elapsed());
        let count = together.min(changes - from);
        running.spawn(write(database.clone(), first + from, count));
        while let Some(done) = running.try_join_next() {
            acks.push(done.map_err(Error::custom)??);
        }
    }
    while let Some(done) = running.join_next().await {
        acks.push(done.map_err(Error::custom)??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let acks: Vec<String> =
        acks.iter().map(|Ack(from, count, at)| format!("[{from},{count},{at}]")).collect();
    Ok(format!(
        r#"{{"base": {BASE}, "seconds": {seconds:.3}, "late_ms": {:.1}, "acks": [{}]}}"#,
        late.as_secs_f64() * 1e3,
        acks.join(",")
    ))
}

async fn write(database: Database, from: u64, count: u64) -> Result<Ack> {
    let updates: Vec<Document> = (from..from + count)
        .map(|number| {
            let set = doc! {
                "quantity": (BASE + number) as i32,
                "updatedAt": DateTime::from_millis(EPOCH + 40_000_000_000 + number as i64),
            };
            doc! { "q": { "_id": id(OWNERS + number) }, "u": { "$set": set } }
        })
        .collect();
    let command = doc! { "update": "flat", "updates": updates, "writeConcern": { "w": "majority" } };
    let reply = database.run_command(command).await?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Error::custom)?.as_micros();
    let modified = reply.get_i32("nModified").ok();
    if modified != Some(count as i32) || reply.contains_key("writeConcernError") {
        return Err(Error::custom("a change was not made; load the collection again"));
    }
    Ok(Ack(from, count, at))
}
