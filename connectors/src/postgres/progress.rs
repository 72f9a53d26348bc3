//! What a transaction carries beside rows: how far the lane comes with it, and what is to be remembered.

use std::sync::Arc;

use bytes::Bytes;
use slackwater_topics::{Moment, Op, Position};
use tokio_postgres::Row;
use uuid::Uuid;

/// How far a lane is, as committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of transactions so far; each adds one.
    pub sequence: i64,
    /// Everything up to here is applied.
    pub position: Option<Position>,
    /// When the newest applied change happened at the source, milliseconds since 1970.
    pub source_time: Option<i64>,
    /// Applied through this operation time.
    pub applied_through: Option<Moment>,
    /// As the writer gave it last.
    pub horizon: Moment,
    /// Events taken so far.
    pub events: u64,
    /// Rows inserted, changed or deleted so far, one transaction behind.
    pub rows_written: u64,
    /// The source as of this moment of its own clock is applied, milliseconds since 1970.
    pub as_of: Option<i64>,
}

/// The step that a transaction is for its lane.
#[derive(Clone, Debug, Default)]
pub struct Advance {
    /// The sequence we start from; after the commit one more is stored.
    pub sequence: i64,
    /// The new position; `None` keeps the stored one.
    pub position: Option<Position>,
    /// When the newest applied change happened, milliseconds since 1970; `None` keeps the stored one.
    pub source_time: Option<i64>,
    /// Applied through; `None` keeps the stored one.
    pub applied_through: Option<Moment>,
    /// Stored as given.
    pub horizon: Moment,
    /// The source as of this moment of its own clock is applied with it, milliseconds since 1970; `None` or an older one
    /// keeps the stored one.
    pub as_of: Option<i64>,
    /// Events in this transaction.
    pub events: u64,
    /// The chunk that is complete with this transaction.
    pub chunk: Option<ChunkDone>,
    /// Tables (indices into the specs) that are being reloaded: the keys of the rows written are noted.
    pub seen: Vec<usize>,
    /// The partitions of the log that the events were taken from, each once.
    pub partitions: Vec<PartitionAdvance>,
}

/// The step that a transaction is for one partition of the log.
#[derive(Clone, Debug)]
pub struct PartitionAdvance {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
    /// Our epoch as its owner.
    pub epoch: i64,
    /// The offset we start from; anything else there is an error ([`crate::error::Kind::Revoked`]).
    pub from_offset: i64,
    /// The offset to go on at.
    pub next_offset: i64,
    /// The newest capture whose records were met.
    pub capture_epoch: i64,
    /// The newest place in the source's order; `None` or an older one keeps the stored one.
    pub position: Option<Position>,
    /// Applied through; `None` or an older one keeps the stored one.
    pub applied_through: Option<Moment>,
    /// When the newest applied change happened, milliseconds since 1970; `None` keeps the stored one.
    pub source_time: Option<i64>,
    /// As in [`Advance`].
    pub as_of: Option<i64>,
    /// Events in this transaction.
    pub events: u64,
    /// Events that were dropped because they had been applied.
    pub duplicates: u64,
    /// Records that were dropped because a superseded capture had sent them.
    pub superseded: u64,
}

/// The bounds of a chunk (see [`slackwater_topics::Bound`]); `None` is open.
pub type Bounds = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A chunk that has been copied.
#[derive(Clone, Debug)]
pub struct ChunkDone {
    /// Its collection, for the reader; the id says it all.
    pub collection: String,
    /// Its id.
    pub id: i64,
    /// Documents it had.
    pub documents: u64,
    /// What was not read of it becomes a new chunk.
    pub rest: Option<Bounds>,
}

/// What is remembered with a transaction.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Documents that could not be written.
    pub dead_letters: Vec<DeadLetter>,
    /// Documents (collection, key) that are written now: their dead letters go.
    pub settled: Vec<(String, Vec<u8>)>,
    /// What policies did.
    pub tallies: Vec<Tally>,
    /// Fences that were passed with this transaction.
    pub fences: Vec<FencePass>,
}

impl Notes {
    /// Nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.dead_letters.is_empty()
            && self.settled.is_empty()
            && self.tallies.is_empty()
            && self.fences.is_empty()
    }
}

/// A fence that was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencePass {
    /// The fence.
    pub id: Uuid,
    /// Where: `topic/partition` for a partition of the log, `None` for the lane itself.
    pub lane: Option<String>,
}

/// A document that could not be written, with all that is needed to try again.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its collection as the migration file names it.
    pub collection: String,
    /// Its key's canonical bytes.
    pub key: Vec<u8>,
    /// What had happened to it.
    pub op: Op,
    /// The kind of reason, for counting: `null`, `unknown_label`, `unique`…
    pub kind: String,
    /// The reason, for a person; holds no value.
    pub text: String,
    /// The table it was for.
    pub table: Option<String>,
    /// The column.
    pub column: Option<String>,
    /// The document; empty for a delete.
    pub document: Bytes,
}

/// How often a policy did something.
#[derive(Clone, Debug)]
pub struct Tally {
    /// The collection.
    pub collection: String,
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// What the policy did.
    pub policy: String,
    /// How often, since the last note.
    pub count: u64,
    /// The key of one document it happened to.
    pub sample_key: Vec<u8>,
}

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows inserted or really changed.
    pub upserted: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Rows that were sent.
    pub received: u64,
    /// The same by table, in the order of the specs.
    pub tables: Vec<TableCounts>,
}

/// What a transaction did to one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Rows inserted or really changed.
    pub upserted: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Rows that were sent.
    pub received: u64,
}

impl Counts {
    pub(in crate::postgres) fn of(tables: Vec<TableCounts>) -> Self {
        let mut counts = Self::default();
        for table in &tables {
            counts.upserted += table.upserted;
            counts.deleted += table.deleted;
            counts.received += table.received;
        }
        counts.tables = tables;
        counts
    }
}

pub(super) fn op_name(op: Op) -> &'static str {
    match op {
        Op::Snapshot => "snapshot",
        Op::Upsert => "upsert",
        Op::Delete => "delete",
    }
}

pub(super) fn op_of(name: &str) -> Op {
    match name {
        "snapshot" => Op::Snapshot,
        "delete" => Op::Delete,
        _ => Op::Upsert,
    }
}

/// Two columns from `first` on: time and token.
pub(super) fn position_of(
    row: &Row,
    first: usize,
) -> std::result::Result<Option<Position>, tokio_postgres::Error> {
    let time: Option<i64> = row.try_get(first)?;
    let token: Option<Vec<u8>> = row.try_get(first + 1)?;
    Ok(time.map(|time| Position::new(Moment(time as u64), token.unwrap_or_default())))
}

/// Nine columns from `first` on: see the SELECT in `read_progress`.
pub(super) fn progress_of(row: &Row, first: usize) -> std::result::Result<Progress, tokio_postgres::Error> {
    Ok(Progress {
        sequence: row.try_get(first)?,
        position: position_of(row, first + 1)?,
        source_time: row.try_get(first + 3)?,
        applied_through: row.try_get::<_, Option<i64>>(first + 4)?.map(|time| Moment(time as u64)),
        horizon: Moment(row.try_get::<_, i64>(first + 5)? as u64),
        events: row.try_get::<_, i64>(first + 6)? as u64,
        rows_written: row.try_get::<_, i64>(first + 7)? as u64,
        as_of: row.try_get(first + 8)?,
    })
}
