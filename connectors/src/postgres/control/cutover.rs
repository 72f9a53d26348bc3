//! The record of a migration's cutover.
//!
//! **Invariant**: one conditional update ends each state. So if two processes want different next states, one succeeds and the
//! other learns that it did not. `freezing` is written before the source is asked to freeze, and `reverting` before it is asked
//! to unfreeze. Only the process that holds the lease asks the source for either.
//!
//! **Crash**: the lease ends with the connection. The record stays and tells the next process what may have happened.

use postgres_types::ToSql;
use slackwater_topics::Moment;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Control;
use super::accepted::Accepted;
use super::doing::Doing as _;
use super::id::Id;
use crate::error::Result;
use crate::postgres::error::LATE;
use crate::postgres::progress::{Answer, of_bigint, to_bigint};

/// How far a cutover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutoverState {
    /// Started; the source is untouched.
    Armed,
    /// The source is being frozen, or is frozen.
    Freezing,
    /// The source is frozen, and the moment that everything has to reach is known.
    Frozen,
    /// The target is the one to write to. Final.
    Open,
    /// It is being reverted; the source may still be frozen.
    Reverting,
    /// It was reverted; the source is as before. Final.
    Reverted,
}

impl CutoverState {
    fn of(word: &str) -> Self {
        match word {
            "armed" => Self::Armed,
            "freezing" => Self::Freezing,
            "frozen" => Self::Frozen,
            "open" => Self::Open,
            "reverting" => Self::Reverting,
            // The column allows no other word.
            _ => Self::Reverted,
        }
    }

    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Armed => "armed",
            Self::Freezing => "freezing",
            Self::Frozen => "frozen",
            Self::Open => "open",
            Self::Reverting => "reverting",
            Self::Reverted => "reverted",
        }
    }
}

/// A cutover, as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutoverRow {
    /// Its own id.
    pub id: Uuid,
    /// How far it is.
    pub state: CutoverState,
    /// The process that leads it.
    pub owner: Uuid,
    /// Where that process runs.
    pub host: String,
    /// How the source is frozen.
    pub freeze: String,
    /// When it was armed, milliseconds since 1970.
    pub armed_at: i64,
    /// Milliseconds since then, by the server's clock.
    pub armed_for_ms: i64,
    /// The fence that every capture is to send.
    pub fence: Option<Uuid>,
    /// What is known of each source.
    pub sources: Vec<CutoverSource>,
    /// Milliseconds until the deadline, negative after it; `None` if the source was never asked to freeze.
    pub left_ms: Option<i64>,
    /// When the target was opened, milliseconds since 1970.
    pub open_at: Option<i64>,
    /// Why it was reverted.
    pub reason: Option<String>,
    /// The team was told, by its command or webhook.
    pub told: bool,
    /// The report, once there is one.
    pub report: Option<String>,
    /// What does not block it, because an operator has accepted it.
    pub accepted: Accepted,
}

/// One source's part in a cutover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutoverSource {
    /// Its name.
    pub source: String,
    /// Its capture has answered: it follows closely.
    pub answered: bool,
    /// Its capture sends the fence after it has passed this moment.
    pub fence_moment: Option<Moment>,
}

impl CutoverRow {
    /// Whether this source's capture has answered.
    pub fn answered(&self, source: &str) -> bool {
        self.sources.iter().any(|row| row.source == source && row.answered)
    }

    /// The last fence that was asked for, with the moment of each source.
    pub fn fence(self) -> Option<Fence> {
        let moments = self.sources.into_iter().filter_map(|row| Some((row.source, row.fence_moment?)));
        Some(Fence { id: self.fence?, moments: moments.collect() })
    }

    /// The fence that this source's capture has to send after it has passed the moment.
    pub fn fence_of(&self, source: &str) -> Option<(Uuid, Moment)> {
        let row = self.sources.iter().find(|row| row.source == source)?;
        Some((self.fence?, row.fence_moment?))
    }
}

/// A cutover that starts.
#[derive(Clone, Copy, Debug)]
pub struct NewCutover<'a> {
    /// Its own id.
    pub id: Uuid,
    /// The process that starts it.
    pub owner: Uuid,
    /// Where that process runs.
    pub host: &'a str,
    /// How the source is frozen.
    pub freeze: &'a str,
    /// How long the source may stay frozen.
    pub deadline_ms: i64,
    /// What does not block it.
    pub accepted: &'a Accepted,
}

/// A fence in a cutover. Each capture sends it after it has passed the moment of its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Lanes and partitions record that they passed this id.
    pub id: Uuid,
    /// The moment of each source, by the source's name.
    pub moments: Vec<(String, Moment)>,
}

/// How far a fence has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceProgress {
    /// The lanes or partitions that have not passed it.
    pub missing: Vec<String>,
    /// The number of all lanes or partitions.
    pub all: usize,
    /// The sources of those that have not passed it, each once.
    pub late: Vec<String>,
}

const COLUMNS: &str = "id, state, owner, host, way, (extract(epoch FROM armed_at) * 1000)::bigint, \
    (extract(epoch FROM clock_timestamp() - armed_at) * 1000)::bigint, fence_id, \
    ARRAY(SELECT s.source FROM slackwater.cutover_sources s WHERE s.cutover = id ORDER BY s.source), \
    ARRAY(SELECT s.heard_at IS NOT NULL FROM slackwater.cutover_sources s WHERE s.cutover = id ORDER BY s.source), \
    ARRAY(SELECT s.fence_moment FROM slackwater.cutover_sources s WHERE s.cutover = id ORDER BY s.source), \
    deadline_ms - (extract(epoch FROM clock_timestamp() - freezing_at) * 1000)::bigint, \
    (extract(epoch FROM open_at) * 1000)::bigint, reason, told_at IS NOT NULL, report, \
    accepted, accepted_texts, accepted_reason";

impl Control {
    /// Becomes the only process that works on a migration's cutover, for as long as this connection lasts. False if another
    /// process is.
    pub async fn lease_cutover(&self, migration: &str) -> Result<bool> {
        let sql = "SELECT pg_try_advisory_lock(hashtext('slackwater.cutover'), hashtext($1))";
        let taken = self.rows("taking the cutover's lease", sql, &[&migration], |row| row.try_get(0)).await?;
        Ok(taken.first() == Some(&true))
    }

    /// Gives the lease up.
    pub async fn end_lease(&self, migration: &str) -> Result<()> {
        let sql = "SELECT pg_advisory_unlock(hashtext('slackwater.cutover'), hashtext($1))";
        self.change("ending the cutover's lease", sql, &[&migration]).await.map(drop)
    }

    /// Ends the session of the process that works on a cutover, and thereby its lease.
    pub async fn end_leaseholder(&self, id: Uuid) -> Result<()> {
        let sql = "SELECT pg_terminate_backend(backend) FROM slackwater.cutovers \
                   WHERE id = $1 AND backend <> pg_backend_pid() AND EXISTS (
                       SELECT FROM pg_stat_activity WHERE pid = backend AND application_name = 'slackwater'
                   )";
        self.change("ending the session of a cutover's leader", sql, &[&Id(id)]).await.map(drop)
    }

    /// Ends sessions of ours, and with them what they have in hand.
    pub async fn end_sessions(&self, pids: &[i32]) -> Result<()> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE pid = ANY($1) AND pid <> pg_backend_pid() AND application_name = 'slackwater' AND usename = current_user";
        self.change("ending what the cutover has in hand", sql, &[&pids]).await.map(drop)
    }

    /// The newest cutover of a migration.
    pub async fn cutover(&self, migration: &str) -> Result<Option<CutoverRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM slackwater.cutovers WHERE migration = $1 \
             ORDER BY state <> 'reverted' DESC, armed_at DESC LIMIT 1"
        );
        Ok(self.rows("reading the cutover", &sql, &[&migration], read).await?.pop())
    }

    /// Whether the cutover of a migration has opened the target.
    pub async fn switched(&self, migration: &str) -> Result<bool> {
        let sql = "SELECT slackwater.switched($1)";
        let open =
            self.rows("asking whether the target is open", sql, &[&migration], |row| row.try_get(0)).await?;
        Ok(open.first() == Some(&true))
    }

    /// Starts a cutover. Fails if the migration has one that was not reverted.
    pub async fn arm_cutover(&self, migration: &str, new: NewCutover<'_>) -> Result<()> {
        let sql = "INSERT INTO slackwater.cutovers (id, migration, owner, host, way, deadline_ms, \
                       accepted, accepted_texts, accepted_reason, accepted_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text, CASE WHEN $9::text IS NOT NULL THEN clock_timestamp() END)";
        let NewCutover { id, owner, host, freeze, deadline_ms, accepted } = new;
        let (names, texts, why) = (accepted.names(), accepted.texts(), accepted.why());
        let parameters = [
            &Id(id) as &(dyn ToSql + Sync),
            &migration,
            &Id(owner),
            &host,
            &freeze,
            &deadline_ms,
            &names,
            &texts,
            &why,
        ];
        self.change("arming the cutover", sql, &parameters).await.map(drop)
    }

    /// Takes the lead of a cutover from another process. False if the cutover has ended in the meantime.
    pub async fn adopt_cutover(&self, id: Uuid, owner: Uuid, host: &str) -> Result<bool> {
        let sql = "WITH adopted AS (
                       UPDATE slackwater.cutovers SET owner = $2, host = $3, backend = pg_backend_pid(),
                           armed_at = CASE state WHEN 'armed' THEN clock_timestamp() ELSE armed_at END
                       WHERE id = $1 AND state IN ('armed', 'freezing', 'frozen') RETURNING id
                   ), unheard AS (
                       UPDATE slackwater.cutover_sources AS s SET heard_at = NULL FROM adopted
                       WHERE s.cutover = adopted.id
                   )
                   SELECT count(*) FROM adopted";
        let doing = "resuming the cutover";
        let count = |row: &Row| row.try_get::<_, i64>(0);
        let parameters = [&Id(id) as &(dyn ToSql + Sync), &Id(owner), &host];
        Ok(self.rows(doing, sql, &parameters, count).await?.first() == Some(&1))
    }

    /// Records that the capture of a source follows closely.
    pub async fn answer_cutover(&self, id: Uuid, source: &str) -> Result<()> {
        let sql = "INSERT INTO slackwater.cutover_sources (cutover, source, heard_at) \
                   VALUES ($1, $2, clock_timestamp()) \
                   ON CONFLICT (cutover, source) DO UPDATE SET heard_at = EXCLUDED.heard_at";
        self.change("answering the cutover", sql, &[&Id(id), &source]).await.map(drop)
    }

    /// Asks every capture for a fence while the sources are still untouched.
    pub async fn rehearse_cutover(&self, id: Uuid, owner: Uuid, fence: &Fence) -> Result<bool> {
        self.ask_for_fence("asking for a fence", ("armed", "armed"), id, owner, fence).await
    }

    /// Records that the source is about to be frozen. The deadline counts from the first such call. False if the cutover
    /// is no longer ours, or was reverted.
    pub async fn freeze_cutover(&self, id: Uuid, owner: Uuid) -> Result<bool> {
        let sql = "UPDATE slackwater.cutovers SET state = 'freezing', \
                       freezing_at = coalesce(freezing_at, clock_timestamp()) \
                   WHERE id = $1 AND owner = $2 AND state IN ('armed', 'freezing', 'frozen')";
        self.moved("recording that the source is about to be frozen", sql, &[&Id(id), &Id(owner)]).await
    }

    /// Records that the sources are frozen, and asks every capture for a fence at the moment of its freeze. False as above.
    pub async fn frozen_cutover(&self, id: Uuid, owner: Uuid, fence: &Fence) -> Result<bool> {
        let doing = "recording that the source is frozen";
        self.ask_for_fence(doing, ("freezing", "frozen"), id, owner, fence).await
    }

    async fn ask_for_fence(
        &self,
        doing: &str,
        (from, to): (&str, &str),
        id: Uuid,
        owner: Uuid,
        fence: &Fence,
    ) -> Result<bool> {
        let sql = "WITH asked AS (
                       UPDATE slackwater.cutovers SET state = $4, fence_id = $5,
                           frozen_at = CASE $4 WHEN 'frozen' THEN clock_timestamp() END
                       WHERE id = $1 AND owner = $2 AND state = $3 RETURNING id
                   ), moments AS (
                       INSERT INTO slackwater.cutover_sources AS s (cutover, source, fence_moment)
                       SELECT asked.id, m.source, m.moment
                       FROM asked, unnest($6::text[], $7::bigint[]) AS m(source, moment)
                       ON CONFLICT (cutover, source) DO UPDATE SET fence_moment = EXCLUDED.fence_moment
                   )
                   SELECT count(*) FROM asked";
        let sources: Vec<&str> = fence.moments.iter().map(|(source, _)| source.as_str()).collect();
        let moments: Vec<i64> = fence.moments.iter().map(|(_, moment)| to_bigint(*moment)).collect();
        let count = |row: &Row| row.try_get::<_, i64>(0);
        let parameters =
            [&Id(id) as &(dyn ToSql + Sync), &Id(owner), &from, &to, &Id(fence.id), &sources, &moments];
        Ok(self.rows(doing, sql, &parameters, count).await?.first() == Some(&1))
    }

    /// Which lanes or partitions have not passed a fence.
    pub async fn fence_progress(&self, migration: &str, fence: &Fence) -> Result<FenceProgress> {
        // With Kafka every partition counts, in a direct log the lane of every stream. Each has passed if two things are true:
        // the fence has arrived, and everything up to the source's moment is applied. Lanes of a source that has left the migration file
        // wait for nothing: the fence has no moment of it.
        let sql = "WITH wanted AS (
                SELECT topic || '/' || partition AS lane, coalesce(p.applied_through, 0) AS through, l.source
                FROM slackwater.partitions AS p
                JOIN slackwater.log_partitions AS l USING (migration, topic, partition)
                WHERE migration = $1
                UNION ALL
                SELECT lane, coalesce(applied_through, 0), source FROM slackwater.lanes
                WHERE migration = $1 AND lane = 'capture/' || source || '/stream'
            )
            SELECT lane, through >= m.moment AND EXISTS (
                SELECT FROM slackwater.fence_passes AS p
                WHERE p.migration = $1 AND p.id = $2 AND p.lane = wanted.lane
            ), wanted.source FROM wanted JOIN unnest($3::text[], $4::bigint[]) AS m(source, moment) ON m.source = wanted.source
            ORDER BY 1";
        let sources: Vec<&str> = fence.moments.iter().map(|(source, _)| source.as_str()).collect();
        let moments: Vec<i64> = fence.moments.iter().map(|(_, moment)| to_bigint(*moment)).collect();
        let parameters = [&migration as &(dyn ToSql + Sync), &Id(fence.id), &sources, &moments];
        let lanes = self
            .rows("looking for the fence", sql, &parameters, |row| {
                Ok((row.try_get::<_, String>(0)?, row.try_get::<_, bool>(1)?, row.try_get::<_, String>(2)?))
            })
            .await?;
        let all = lanes.len();
        let (mut missing, mut late) = (Vec::new(), Vec::new());
        for (lane, _, source) in lanes.into_iter().filter(|(_, passed, _)| !passed) {
            missing.push(lane);
            if !late.contains(&source) {
                late.push(source);
            }
        }
        Ok(FenceProgress { missing, all, late })
    }

    /// The last step: from here on the target is the one to write to, and no process writes for the migration any more.
    /// False if the deadline has passed, or the cutover was reverted.
    pub async fn open_cutover(&self, id: Uuid, owner: Uuid) -> Result<bool> {
        let sql = "SELECT slackwater.open_cutover($1, $2)";
        match self.change("opening the target", sql, &[&Id(id), &Id(owner)]).await {
            Ok(_) => Ok(true),
            Err(error) if error.code.as_deref() == Some(LATE) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts to take a cutover back; with `late_ms` only if its deadline passed longer ago than that. False if it has
    /// ended, or is already being reverted.
    pub async fn revert_cutover(&self, id: Uuid, reason: &str, late_ms: Option<i64>) -> Result<bool> {
        let sql = "UPDATE slackwater.cutovers SET state = 'reverting', reason = $2 \
                   WHERE id = $1 AND state IN ('armed', 'freezing', 'frozen') AND ($3::bigint IS NULL OR \
                       clock_timestamp() > freezing_at + (deadline_ms + $3) * interval '1 millisecond')";
        self.moved("reverting the cutover", sql, &[&Id(id), &reason, &late_ms]).await
    }

    /// Records that the source is as before.
    pub async fn reverted_cutover(&self, id: Uuid) -> Result<bool> {
        let sql = "UPDATE slackwater.cutovers SET state = 'reverted', ended_at = clock_timestamp() \
                   WHERE id = $1 AND state = 'reverting'";
        self.moved("ending the cutover", sql, &[&Id(id)]).await
    }

    /// Records that the team was told.
    pub async fn told_cutover(&self, id: Uuid) -> Result<()> {
        let sql = "UPDATE slackwater.cutovers SET told_at = clock_timestamp() WHERE id = $1";
        self.change("recording that the team was told", sql, &[&Id(id)]).await.map(drop)
    }

    /// Stores the report.
    pub async fn report_cutover(&self, id: Uuid, report: &str) -> Result<()> {
        let sql = "UPDATE slackwater.cutovers SET report = $2 WHERE id = $1";
        self.change("storing the report", sql, &[&Id(id), &report]).await.map(drop)
    }

    async fn moved(&self, doing: &str, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<bool> {
        Ok(self.change(doing, sql, parameters).await? == 1)
    }

    async fn change(&self, doing: &str, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        self.client.execute(sql, parameters).await.doing(doing)
    }
}

fn read(row: &Row) -> Answer<CutoverRow> {
    let sources: Vec<String> = row.try_get(8)?;
    let answered: Vec<bool> = row.try_get(9)?;
    let moments: Vec<Option<i64>> = row.try_get(10)?;
    let sources = sources.into_iter().zip(answered).zip(moments).map(|((source, answered), moment)| {
        CutoverSource { source, answered, fence_moment: moment.map(of_bigint) }
    });
    Ok(CutoverRow {
        id: row.try_get::<_, Id>(0)?.0,
        state: CutoverState::of(row.try_get(1)?),
        owner: row.try_get::<_, Id>(2)?.0,
        host: row.try_get(3)?,
        freeze: row.try_get(4)?,
        armed_at: row.try_get(5)?,
        armed_for_ms: row.try_get(6)?,
        fence: row.try_get::<_, Option<Id>>(7)?.map(|id| id.0),
        sources: sources.collect(),
        left_ms: row.try_get(11)?,
        open_at: row.try_get(12)?,
        reason: row.try_get(13)?,
        told: row.try_get(14)?,
        report: row.try_get(15)?,
        accepted: Accepted::stored(row.try_get(16)?, row.try_get(17)?, row.try_get(18)?),
    })
}
