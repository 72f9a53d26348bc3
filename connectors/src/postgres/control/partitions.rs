//! The progress of a log with partitions (Kafka): what capture knows of it, and how far each partition is applied.
//!
//! **Invariant**: only the newest owner of a partition advances it, from the stored offset, in the transaction of the rows
//! (`slackwater.advance_partitions`). A process that raises its epoch ([`Control::claim`], or a recopy that skips) waits for
//! the running transaction that locks the partition, and keeps later ones of the old owner out. A process that locks several
//! partitions locks them in the order of topic and number.
//!
//! **Crash**: each call takes effect as a whole or not at all, and can be repeated. A repeated claim only raises the epoch again.

use std::sync::Arc;

use postgres_types::Type;
use slackwater_topics::{Moment, Position};
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::doing::Doing as _;
use super::id::Id;
use super::{Control, Owner, WAIT_FOR_OWNER, must_match, unless_switched};
use crate::error::{Error, Kind, Result};
use crate::postgres::progress::{Answer, count_of, moment_of, of_bigint, position_of, to_bigint};

/// What became of an attempt to take a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is ours, with this epoch.
    Ours(i64),
    /// No capture has started the migration.
    NotBegun,
    /// The capture goes on with another mapping.
    OtherMapping,
}

/// A partition that capture is going to write to.
#[derive(Clone, Debug)]
pub struct NewPartition {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
    /// The collection whose records it holds.
    pub collection: String,
    /// The source of that collection.
    pub source: String,
    /// The offset of the first record.
    pub begin: i64,
}

/// A partition as capture knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPartition {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
    /// The collection whose records it holds.
    pub collection: String,
    /// Records before this offset do not count.
    pub begin_offset: i64,
    /// The highest offset that was acknowledged when a position was saved; `None` if there is none yet.
    pub acked_offset: Option<i64>,
}

/// How far a partition is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRow {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
    /// The collection whose records it holds.
    pub collection: String,
    /// The source of that collection.
    pub source: String,
    /// The epoch of its owner.
    pub epoch: i64,
    /// Its owner; `None` if no applier has claimed it, or none since a recopy of its collection began.
    pub member: Option<String>,
    /// The offset to read next.
    pub next_offset: i64,
    /// Records of captures with a lower epoch are dropped.
    pub capture_epoch: i64,
    /// Everything of the source up to this position is applied.
    pub position: Option<Position>,
    /// Everything up to this operation time is applied.
    pub applied_through: Option<Moment>,
    /// When the newest applied change happened at the source, milliseconds since 1970.
    pub source_time: Option<i64>,
    /// The target shows the source as of this time of the source's clock, milliseconds since 1970.
    pub as_of: Option<i64>,
    /// Events applied so far.
    pub events: u64,
    /// Events dropped because they had already been applied.
    pub duplicates: u64,
    /// Records dropped because a superseded capture had sent them.
    pub superseded: u64,
    /// Why its next records cannot be read.
    pub lost: Option<String>,
    /// The highest offset that was acknowledged when a position was saved.
    pub acked_offset: Option<i64>,
    /// Milliseconds since its last change, by the server's clock.
    pub idle_ms: i64,
}

/// A partition that we have claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
    /// Our epoch as its owner.
    pub epoch: i64,
    /// The offset to start at.
    pub next_offset: i64,
    /// Records of captures with a lower epoch have to be dropped.
    pub capture_epoch: i64,
    /// Events of the stream up to this position have been applied.
    pub position: Option<Position>,
    /// Everything up to this operation time is applied.
    pub applied_through: Option<Moment>,
    /// It must not be read before capture has started to recopy its collection.
    pub lost: bool,
}

/// A partition that lost records before they were applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPartition {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
    /// The collection to recopy.
    pub collection: String,
    /// What happened.
    pub text: String,
}

/// How far a source was read into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedRow {
    /// The source's name.
    pub source: String,
    /// Everything up to this moment is in the log.
    pub time: Moment,
    /// Milliseconds since it was saved, by the server's clock. A running capture saves every second.
    pub idle_ms: i64,
}

/// A partition whose collection is going to be recopied.
#[derive(Clone, Debug)]
pub struct Skip {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
    /// Where it ends now; asked for when no record of ours is on its way into it.
    pub offset: i64,
}

impl Control {
    /// Becomes the owner of an applier's lane (`apply/<member>/<n>`), which is created if it does not exist. The capture stays
    /// the owner of the source. `mapping` is the digest of what we make rows by; a capture that goes on with another one waits
    /// until this has ended, and supersedes the lane.
    pub async fn take_lane(
        &mut self,
        migration: &str,
        lane: &str,
        namespace: Uuid,
        mapping: &str,
    ) -> Result<Taken> {
        let doing = format!("taking lane {lane} of migration {migration}");
        let transaction = self.client.transaction().await.doing(&doing)?;
        let begun = transaction
            .query_opt(
                "SELECT namespace, log, mapping FROM slackwater.migrations WHERE name = $1 FOR KEY SHARE",
                &[&migration],
            )
            .await
            .doing(&doing)?;
        let Some(begun) = begun else { return Ok(Taken::NotBegun) };
        let (stored, log): (Id, String) = (begun.try_get(0).doing(&doing)?, begun.try_get(1).doing(&doing)?);
        let made_by: Option<String> = begun.try_get(2).doing(&doing)?;
        must_match(&doing, (stored.0, &log), (namespace, "kafka"))?;
        unless_switched(&transaction, migration).await.doing(&doing)?;
        if made_by.is_some_and(|made_by| made_by != mapping) {
            return Ok(Taken::OtherMapping);
        }
        transaction.batch_execute(WAIT_FOR_OWNER).await.doing(&doing)?;
        let epoch = transaction
            .query_one(
                "INSERT INTO slackwater.lanes AS l (migration, lane, epoch) VALUES ($1, $2, 1)
                 ON CONFLICT (migration, lane) DO UPDATE SET epoch = l.epoch + 1 RETURNING epoch",
                &[&migration, &lane],
            )
            .await
            .and_then(|row| row.try_get(0))
            .doing(&doing)?;
        transaction.commit().await.doing(&doing)?;
        Ok(Taken::Ours(epoch))
    }

    /// Records the partitions of the log, and the position from which the source is read, in one transaction. Existing
    /// entries stay as they are.
    pub async fn register_partitions(&mut self, first: &Position, partitions: &[NewPartition]) -> Result<()> {
        let doing = "registering the log's partitions";
        let source = self.owner(doing)?.source;
        let (transaction, migration) = self.owned(doing).await?;
        transaction
            .execute(
                "INSERT INTO slackwater.positions (migration, source, position_time, position_token)
                 VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                &[&migration, &source, &to_bigint(first.moment), &&first.token[..]],
            )
            .await
            .doing(doing)?;
        let topics: Vec<&str> = partitions.iter().map(|partition| &*partition.topic).collect();
        let numbers: Vec<i32> = partitions.iter().map(|partition| partition.partition).collect();
        let begins: Vec<i64> = partitions.iter().map(|partition| partition.begin).collect();
        let collections: Vec<&str> =
            partitions.iter().map(|partition| partition.collection.as_str()).collect();
        let sources: Vec<&str> = partitions.iter().map(|partition| partition.source.as_str()).collect();
        transaction
            .execute(
                "INSERT INTO slackwater.log_partitions (migration, source, topic, partition, begin_offset, collection)
                 SELECT $1, n.* FROM unnest($6::text[], $2::text[], $3::int[], $4::bigint[], $5::text[])
                     AS n(source, topic, partition, begin, collection)
                 ON CONFLICT DO NOTHING",
                &[&migration, &topics, &numbers, &begins, &collections, &sources],
            )
            .await
            .doing(doing)?;
        transaction
            .execute(
                "INSERT INTO slackwater.partitions (migration, topic, partition, next_offset)
                 SELECT $1, n.* FROM unnest($2::text[], $3::int[], $4::bigint[]) AS n(topic, partition, begin)
                 ON CONFLICT DO NOTHING",
                &[&migration, &topics, &numbers, &begins],
            )
            .await
            .doing(doing)?;
        transaction.commit().await.doing(doing)
    }

    /// The partitions of the log, as capture knows them.
    pub async fn log_partitions(&self, migration: &str) -> Result<Vec<LogPartition>> {
        let sql = "SELECT topic, partition, collection, begin_offset, acked_offset FROM slackwater.log_partitions \
                   WHERE migration = $1 ORDER BY topic, partition";
        self.rows("reading the log's partitions", sql, &[&migration], |row| {
            Ok(LogPartition {
                topic: row.try_get::<_, &str>(0)?.into(),
                partition: row.try_get(1)?,
                collection: row.try_get(2)?,
                begin_offset: row.try_get(3)?,
                acked_offset: row.try_get(4)?,
            })
        })
        .await
    }

    /// How far each partition is applied.
    pub async fn partitions(&self, migration: &str) -> Result<Vec<PartitionRow>> {
        let sql = "SELECT p.topic, p.partition, l.collection, p.epoch, p.member, p.next_offset, p.capture_epoch, \
             p.position_time, p.position_token, p.applied_through, p.source_time, p.events, p.duplicates, \
             p.superseded, p.lost, l.acked_offset, \
             (extract(epoch FROM clock_timestamp() - p.updated_at) * 1000)::bigint, p.as_of, l.source \
             FROM slackwater.partitions p JOIN slackwater.log_partitions l USING (migration, topic, partition) \
             WHERE p.migration = $1 ORDER BY p.topic, p.partition";
        self.rows("reading how far partitions are applied", sql, &[&migration], |row| {
            Ok(PartitionRow {
                topic: row.try_get::<_, &str>(0)?.into(),
                partition: row.try_get(1)?,
                collection: row.try_get(2)?,
                epoch: row.try_get(3)?,
                member: row.try_get(4)?,
                next_offset: row.try_get(5)?,
                capture_epoch: row.try_get(6)?,
                position: position_of(row, 7)?,
                applied_through: moment_of(row, 9)?,
                source_time: row.try_get(10)?,
                events: count_of(row, 11)?,
                duplicates: count_of(row, 12)?,
                superseded: count_of(row, 13)?,
                lost: row.try_get(14)?,
                acked_offset: row.try_get(15)?,
                idle_ms: row.try_get(16)?,
                as_of: row.try_get(17)?,
                source: row.try_get(18)?,
            })
        })
        .await
    }

    /// Saves how far a source was read into the log and acknowledged there, and the highest acknowledged offset of the given
    /// partitions; a lower one is ignored. One round trip, one transaction.
    pub async fn save_position(&mut self, position: &Position, acked: &[(Arc<str>, i32, i64)]) -> Result<()> {
        let doing = "saving the position";
        let Owner { migration, source, epoch } = self.owner(doing)?;
        let topics: Vec<&str> = acked.iter().map(|(topic, ..)| &**topic).collect();
        let numbers: Vec<i32> = acked.iter().map(|(_, number, _)| *number).collect();
        let offsets: Vec<i64> = acked.iter().map(|(.., offset)| *offset).collect();
        self.client
            .execute_typed(
                "SELECT slackwater.save_position($1, $2, $3, $4, $5, $6, $7, $8)",
                &[
                    (&migration, Type::TEXT),
                    (&epoch, Type::INT8),
                    (&source, Type::TEXT),
                    (&to_bigint(position.moment), Type::INT8),
                    (&&position.token[..], Type::BYTEA),
                    (&topics, Type::TEXT_ARRAY),
                    (&numbers, Type::INT4_ARRAY),
                    (&offsets, Type::INT8_ARRAY),
                ],
            )
            .await
            .doing(doing)?;
        Ok(())
    }

    /// How far a source was read.
    pub async fn position(&self, migration: &str, source: &str) -> Result<Option<Position>> {
        let sql = "SELECT position_time, position_token FROM slackwater.positions WHERE migration = $1 AND source = $2";
        let read = |row: &Row| position_of(row, 0);
        let found = self.rows("reading a position", sql, &[&migration, &source], read).await?;
        Ok(found.into_iter().next().flatten())
    }

    /// How far each source was read, if the log is Kafka.
    pub async fn captured(&self, migration: &str) -> Result<Vec<CapturedRow>> {
        let sql = "SELECT source, position_time, \
             (extract(epoch FROM clock_timestamp() - saved_at) * 1000)::bigint \
             FROM slackwater.positions WHERE migration = $1 ORDER BY source";
        self.rows("reading how far sources were read", sql, &[&migration], |row| {
            Ok(CapturedRow {
                source: row.try_get(0)?,
                time: of_bigint(row.try_get(1)?),
                idle_ms: row.try_get(2)?,
            })
        })
        .await
    }

    /// Becomes the owner of partitions. Waits for a running transaction of an old owner; that owner's next one fails.
    /// Returns only partitions that are registered.
    pub async fn claim(
        &mut self,
        migration: &str,
        member: &str,
        wanted: &[(Arc<str>, i32)],
    ) -> Result<Vec<Claimed>> {
        let doing = format!("claiming partitions for {member}");
        let topics: Vec<&str> = wanted.iter().map(|(topic, _)| &**topic).collect();
        let numbers: Vec<i32> = wanted.iter().map(|(_, number)| *number).collect();
        let transaction = self.client.transaction().await.doing(&doing)?;
        transaction.batch_execute(WAIT_FOR_OWNER).await.doing(&doing)?;
        let rows = transaction
            .query(
                "WITH held AS MATERIALIZED (
                     SELECT p.topic, p.partition FROM slackwater.partitions AS p
                     JOIN unnest($3::text[], $4::int[]) AS w(topic, partition)
                         ON p.topic = w.topic AND p.partition = w.partition
                     WHERE p.migration = $1 ORDER BY p.topic, p.partition FOR NO KEY UPDATE OF p
                 )
                 UPDATE slackwater.partitions AS p SET epoch = p.epoch + 1, member = $2, updated_at = now()
                 FROM held
                 WHERE p.migration = $1 AND p.topic = held.topic AND p.partition = held.partition
                 RETURNING p.topic, p.partition, p.epoch, p.next_offset, p.capture_epoch, p.position_time,
                     p.position_token, p.applied_through, p.lost IS NOT NULL",
                &[&migration, &member, &topics, &numbers],
            )
            .await
            .doing(&doing)?;
        unless_switched(&transaction, migration).await.doing(&doing)?;
        transaction.commit().await.doing(&doing)?;
        rows.iter().map(|row| claimed(row).doing(&doing)).collect()
    }

    /// Marks a partition as lost: its next records cannot be read. False if another applier owns it now.
    pub async fn mark_lost(
        &mut self,
        migration: &str,
        topic: &str,
        partition: i32,
        epoch: i64,
        text: &str,
    ) -> Result<bool> {
        let marked = self
            .client
            .execute(
                "UPDATE slackwater.partitions SET lost = $5, updated_at = now()
                 WHERE migration = $1 AND topic = $2 AND partition = $3 AND epoch = $4",
                &[&migration, &topic, &partition, &epoch, &text],
            )
            .await
            .doing(&format!("marking partition {topic}/{partition} as lost"))?;
        Ok(marked == 1)
    }

    /// Marks all partitions of a topic as lost; only their source's capture may. Appliers that have read from them can no
    /// longer write what they read.
    pub async fn mark_topic_lost(&mut self, topic: &str, text: &str) -> Result<()> {
        let doing = format!("marking topic {topic} as lost");
        let (transaction, migration) = self.owned(&doing).await?;
        transaction.batch_execute(WAIT_FOR_OWNER).await.doing(&doing)?;
        transaction
            .execute(
                "WITH held AS MATERIALIZED (
                     SELECT topic, partition FROM slackwater.partitions
                     WHERE migration = $1 AND topic = $2 ORDER BY topic, partition FOR NO KEY UPDATE
                 )
                 UPDATE slackwater.partitions AS p
                 SET lost = coalesce(p.lost, $3), epoch = p.epoch + 1, member = NULL, updated_at = now()
                 FROM held
                 WHERE p.migration = $1 AND p.topic = held.topic AND p.partition = held.partition",
                &[&migration, &topic, &text],
            )
            .await
            .doing(&doing)?;
        transaction.commit().await.doing(&doing)
    }

    /// The partitions that are marked as lost.
    pub async fn lost_partitions(&self, migration: &str) -> Result<Vec<LostPartition>> {
        let sql = "SELECT topic, partition, collection, lost \
             FROM slackwater.partitions JOIN slackwater.log_partitions USING (migration, topic, partition) \
             WHERE migration = $1 AND lost IS NOT NULL ORDER BY topic, partition";
        self.rows("looking for lost partitions", sql, &[&migration], |row| {
            Ok(LostPartition {
                topic: row.try_get::<_, &str>(0)?.into(),
                partition: row.try_get(1)?,
                collection: row.try_get(2)?,
                text: row.try_get(3)?,
            })
        })
        .await
    }
}

/// Moves partitions to their present ends, in the transaction that starts to recopy their collections.
///
/// - The lock waits for a running transaction of an applier, and the new epoch keeps the next one out. So each record before
///   the new offset is in the target already, or never will be.
/// - The mark of the capture that does this may come before the new offset, and would then be skipped. That capture is the
///   owner, so its epoch is stored here instead: records that an older capture still has in its queue must not count as new.
/// - The high-water mark stays, because the source's order does not depend on the topic. An event at or below the mark was
///   applied, and is a duplicate if it comes again.
/// - The offsets of a re-created topic start at 0, so the new offset may be lower than the one acknowledged in the old topic.
///   That would look like a loss forever, so the acknowledged offset is removed; the next saved position stores a new one.
///   Removing it is harmless in an intact topic: the new offset still reveals a loss.
pub(super) async fn skip_partitions(
    transaction: &Transaction<'_>,
    doing: &str,
    owner: &Owner,
    skip: &[Skip],
) -> Result<()> {
    if skip.is_empty() {
        return Ok(());
    }
    let Owner { migration, epoch, .. } = owner;
    let topics: Vec<&str> = skip.iter().map(|skip| &*skip.topic).collect();
    let numbers: Vec<i32> = skip.iter().map(|skip| skip.partition).collect();
    let offsets: Vec<i64> = skip.iter().map(|skip| skip.offset).collect();
    transaction.batch_execute(WAIT_FOR_OWNER).await.doing(doing)?;
    let moved = transaction
        .execute(
            "WITH held AS MATERIALIZED (
                 SELECT p.topic, p.partition, s.next_offset FROM slackwater.partitions AS p
                 JOIN unnest($2::text[], $3::int[], $4::bigint[]) AS s(topic, partition, next_offset)
                     ON p.topic = s.topic AND p.partition = s.partition
                 WHERE p.migration = $1 ORDER BY p.topic, p.partition FOR NO KEY UPDATE OF p
             )
             UPDATE slackwater.partitions AS p SET
                 epoch = p.epoch + 1, member = NULL, next_offset = held.next_offset, lost = NULL,
                 capture_epoch = greatest(p.capture_epoch, $5), updated_at = now()
             FROM held
             WHERE p.migration = $1 AND p.topic = held.topic AND p.partition = held.partition",
            &[migration, &topics, &numbers, &offsets, epoch],
        )
        .await
        .doing(doing)?;
    if moved != skip.len() as u64 {
        return Err(Error::new(Kind::Bug, doing, "a partition to skip is not registered, or is given twice"));
    }
    transaction
        .execute(
            "UPDATE slackwater.log_partitions AS p SET begin_offset = s.next_offset,
                 acked_offset = CASE WHEN p.acked_offset < s.next_offset THEN p.acked_offset END
             FROM unnest($2::text[], $3::int[], $4::bigint[]) AS s(topic, partition, next_offset)
             WHERE p.migration = $1 AND p.topic = s.topic AND p.partition = s.partition",
            &[migration, &topics, &numbers, &offsets],
        )
        .await
        .doing(doing)?;
    Ok(())
}

fn claimed(row: &Row) -> Answer<Claimed> {
    Ok(Claimed {
        topic: row.try_get::<_, &str>(0)?.into(),
        partition: row.try_get(1)?,
        epoch: row.try_get(2)?,
        next_offset: row.try_get(3)?,
        capture_epoch: row.try_get(4)?,
        position: position_of(row, 5)?,
        applied_through: moment_of(row, 7)?,
        lost: row.try_get(8)?,
    })
}
