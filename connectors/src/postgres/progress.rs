//! What a transaction carries besides rows: the lane's progress, and what is remembered with it.

use std::sync::Arc;

use bytes::Bytes;
use slackwater_topics::{Moment, Op, Position};
use tokio_postgres::Row;
use uuid::Uuid;

/// What the driver answers.
pub(super) type Answer<T> = std::result::Result<T, tokio_postgres::Error>;

/// The committed progress of a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of transactions so far; each adds one.
    pub sequence: i64,
    /// Everything up to this position is applied.
    pub position: Option<Position>,
    /// When the newest applied change happened at the source, milliseconds since 1970.
    pub source_time: Option<i64>,
    /// Everything up to this operation time is applied.
    pub applied_through: Option<Moment>,
    /// As the writer last set it.
    pub horizon: Moment,
    /// Events applied so far.
    pub events: u64,
    /// Rows inserted, changed or deleted so far. The newest transaction is not counted yet.
    pub rows_written: u64,
    /// The target shows the source as of this time of the source's clock, milliseconds since 1970.
    pub as_of: Option<i64>,
}

/// How one transaction advances its lane.
#[derive(Clone, Debug, Default)]
pub struct Advance {
    /// The stored sequence before the transaction; the commit adds one.
    pub sequence: i64,
    /// The new position; `None` keeps the stored one.
    pub position: Option<Position>,
    /// When the newest applied change happened, milliseconds since 1970; `None` keeps the stored one.
    pub source_time: Option<i64>,
    /// The new operation time that is applied; `None` keeps the stored one.
    pub applied_through: Option<Moment>,
    /// Stored as given.
    pub horizon: Moment,
    /// With this transaction the target shows the source as of this time of the source's clock, milliseconds since 1970;
    /// `None` or an older time keeps the stored one.
    pub as_of: Option<i64>,
    /// Events in this transaction.
    pub events: u64,
    /// The chunk that this transaction completes.
    pub chunk: Option<ChunkDone>,
    /// Tables (indices into the specs) that are being recopied: the transaction notes the keys of their rows.
    pub seen: Vec<usize>,
    /// The partitions of the log that the events came from, each once.
    pub partitions: Vec<PartitionAdvance>,
}

/// How one transaction advances one partition of the log.
#[derive(Clone, Debug)]
pub struct PartitionAdvance {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
    /// Our epoch as its owner.
    pub epoch: i64,
    /// The offset that must be stored before the transaction; any other is an error ([`crate::error::Kind::Revoked`]).
    pub from_offset: i64,
    /// The offset to read next.
    pub next_offset: i64,
    /// The epoch of the newest capture whose records were read.
    pub capture_epoch: i64,
    /// The newest position; `None` or an older one keeps the stored one.
    pub position: Option<Position>,
    /// The new operation time that is applied; `None` or an older one keeps the stored one.
    pub applied_through: Option<Moment>,
    /// When the newest applied change happened, milliseconds since 1970; `None` keeps the stored one.
    pub source_time: Option<i64>,
    /// As in [`Advance`].
    pub as_of: Option<i64>,
    /// Events in this transaction.
    pub events: u64,
    /// Events dropped because they had already been applied.
    pub duplicates: u64,
    /// Records dropped because a superseded capture had sent them.
    pub superseded: u64,
}

/// The bounds of a chunk (see [`slackwater_topics::Bound`]); `None` is open.
pub type Bounds = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A chunk that has been copied.
#[derive(Clone, Debug)]
pub struct ChunkDone {
    /// Its collection, for messages only: the id identifies the chunk.
    pub collection: String,
    /// Its id.
    pub id: i64,
    /// Documents in it.
    pub documents: u64,
    /// The part that was not read; it becomes a new chunk.
    pub rest: Option<Bounds>,
}

/// What a transaction records besides rows and progress.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Documents that could not be written.
    pub dead_letters: Vec<DeadLetter>,
    /// Documents (collection, key) that this transaction writes: their dead letters are deleted.
    pub settled: Vec<(String, Vec<u8>)>,
    /// What policies did.
    pub tallies: Vec<Tally>,
    /// Fences that this transaction passes.
    pub fences: Vec<FencePass>,
    /// What is known from now on of documents of which the first version stands.
    pub versions: Vec<VersionNote>,
    /// Changes of such documents, which are not applied.
    pub breaches: Vec<Breach>,
}

impl Notes {
    /// True if there is nothing to record.
    pub fn is_empty(&self) -> bool {
        self.dead_letters.is_empty()
            && self.settled.is_empty()
            && self.tallies.is_empty()
            && self.fences.is_empty()
            && self.versions.is_empty()
            && self.breaches.is_empty()
    }
}

/// A fence that was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencePass {
    /// The fence's id.
    pub id: Uuid,
    /// The partition of the log (`topic/partition`) that passed it; `None` for the lane itself.
    pub lane: Option<String>,
}

/// A document that could not be written, with everything needed to try again.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its collection, as named in the migration file.
    pub collection: String,
    /// The canonical bytes of its key.
    pub key: Vec<u8>,
    /// What happened to it at the source.
    pub op: Op,
    /// The kind of reason, for counting: `null`, `unknown_label`, `unique`…
    pub kind: String,
    /// The reason, for a person. It contains no value of the document.
    pub text: String,
    /// The table it was meant for.
    pub table: Option<String>,
    /// The column.
    pub column: Option<String>,
    /// The document; empty for a delete.
    pub document: Bytes,
}

/// How often a policy changed or dropped a value.
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
    /// How often, since the last tally.
    pub count: u64,
    /// The key of one document that was affected.
    pub sample_key: Vec<u8>,
}

/// Tells two versions of a document apart.
pub type VersionDigest = [u8; 16];

/// What is known of a document of which the first version stands, or every version is a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The version that stands.
    pub first: VersionDigest,
    /// The one that the source has; `None` if it has deleted the document.
    pub last: Option<VersionDigest>,
    /// How many versions are rows, where all are; otherwise 0.
    pub number: i64,
}

/// What a transaction learns of such a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionNote {
    /// Made of the document's id.
    pub id: Uuid,
    /// Its collection.
    pub collection: String,
    /// The canonical bytes of its key.
    pub key: Vec<u8>,
    /// What was known of it; any other is an error.
    pub before: Option<Version>,
    /// What is known from now on.
    pub after: Version,
}

/// What happened to a document of which the first version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreachKind {
    /// It was changed.
    Update,
    /// It was deleted.
    Delete,
    /// It was inserted again after that.
    Insert,
}

impl BreachKind {
    /// As it is stored.
    pub fn word(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Insert => "insert",
        }
    }
}

/// A change that is not applied, because the first version stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Made of the document's id.
    pub id: Uuid,
    /// What happened.
    pub kind: BreachKind,
    /// The collection.
    pub collection: String,
    /// The canonical bytes of the document's key.
    pub key: Vec<u8>,
    /// How often.
    pub count: u64,
}

/// The rows that a transaction sent and changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows inserted or actually changed.
    pub upserted: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Rows that were sent.
    pub received: u64,
    /// The same for each table, in the order of the specs.
    pub tables: Vec<TableCounts>,
}

/// The rows that a transaction sent to one table, and changed there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Rows inserted or actually changed.
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

    /// What was done in the same transaction as well, to the same tables.
    pub(in crate::postgres) fn add(&mut self, other: &Self) {
        self.upserted += other.upserted;
        self.deleted += other.deleted;
        self.received += other.received;
        for (one, other) in self.tables.iter_mut().zip(&other.tables) {
            one.upserted += other.upserted;
            one.deleted += other.deleted;
            one.received += other.received;
        }
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

/// A moment as Postgres stores it: the same 64 bits, signed.
pub(super) fn to_bigint(moment: Moment) -> i64 {
    moment.0.cast_signed()
}

/// The moment that a `bigint` holds.
pub(super) fn of_bigint(bits: i64) -> Moment {
    Moment(bits.cast_unsigned())
}

/// Reads a moment that may be null.
pub(super) fn moment_of(row: &Row, place: usize) -> Answer<Option<Moment>> {
    Ok(row.try_get::<_, Option<i64>>(place)?.map(of_bigint))
}

/// Reads a count.
pub(super) fn count_of(row: &Row, place: usize) -> Answer<u64> {
    row.try_get(place).map(i64::cast_unsigned)
}

/// Reads two columns from `first` on: moment and token.
pub(super) fn position_of(row: &Row, first: usize) -> Answer<Option<Position>> {
    let moment = moment_of(row, first)?;
    let token: Option<Vec<u8>> = row.try_get(first + 1)?;
    Ok(moment.map(|moment| Position::new(moment, token.unwrap_or_default())))
}

/// Reads nine columns from `first` on, in the order of the statement in [`super::control::Control::lanes`].
pub(super) fn progress_of(row: &Row, first: usize) -> Answer<Progress> {
    Ok(Progress {
        sequence: row.try_get(first)?,
        position: position_of(row, first + 1)?,
        source_time: row.try_get(first + 3)?,
        applied_through: moment_of(row, first + 4)?,
        horizon: of_bigint(row.try_get(first + 5)?),
        events: count_of(row, first + 6)?,
        rows_written: count_of(row, first + 7)?,
        as_of: row.try_get(first + 8)?,
    })
}
