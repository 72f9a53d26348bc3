//! Live writers: what applications do to the source while it is copied and followed.
//!
//! Each writer owns whole teams, so no two of them touch one document and each knows what it wrote. What the server
//! acknowledged (by a majority) is kept by row: the target must show it in the end, whatever was killed.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use bson::{Bson, Document, Timestamp, doc};
use futures_util::TryStreamExt as _;
use mongodb::action::Action as _;
use mongodb::error::{Error as DriverError, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT};
use mongodb::options::{Acknowledgment, ReturnDocument, WriteConcern};
use mongodb::{ClientSession, Collection, Database};
use tokio::sync::watch;
use tokio_postgres::Client;
use uuid::Uuid;

use super::operation::{Change, Operation, Step};
use super::team::Team;
use super::{Kind, MIGRATION};
use crate::collection::is_blocked;
use crate::{Chance, Error, Ids, Result};

/// Tries of a transaction that the server asks to try again.
const TRIES: u32 = 20;
/// How often a writer that is refused tries again.
const AGAIN: Duration = Duration::from_millis(5);

/// How many writers, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Writers side by side.
    pub writers: u8,
    /// Operations a second of all writers together; none: as fast as it goes.
    pub rate: Option<f64>,
}

/// The newest thing that the source acknowledged about a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its version; of a deleted one the last it had.
    pub v: i64,
    /// It is gone.
    pub deleted: bool,
}

/// What writers have done.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Operations by name.
    pub operations: BTreeMap<&'static str, u64>,
    /// Changes of documents.
    pub changes: u64,
    /// What is known of each document that was touched, by the identifier of its row.
    pub acknowledged: HashMap<(Kind, Uuid), Acknowledged>,
    /// The source's operation time after the last write.
    pub until: Option<Timestamp>,
    /// How long a writer was refused at most, because the source was frozen.
    pub refused: Duration,
}

impl Written {
    fn note(&mut self, ids: &Ids, operation: &Operation, steps: &[Step]) -> Result<()> {
        *self.operations.entry(operation.name).or_default() += 1;
        for step in steps {
            self.changes += 1;
            let deleted = matches!(step.change, Change::Delete);
            let row = ids.document(step.kind.name(), &step.id)?;
            self.acknowledged.insert((step.kind, row), Acknowledged { v: step.v, deleted });
        }
        Ok(())
    }

    fn join(&mut self, other: Self) {
        for (name, count) in other.operations {
            *self.operations.entry(name).or_default() += count;
        }
        self.changes += other.changes;
        self.refused = self.refused.max(other.refused);
        self.acknowledged.extend(other.acknowledged);
    }

    /// Looks for everything acknowledged in a target that has caught up; says what is not there.
    pub async fn lost(&self, target: &Client) -> Result<Vec<String>> {
        let mut lost = Vec::new();
        for kind in Kind::ALL {
            let table = kind.table();
            let statement = format!("SELECT id::text, version FROM \"{table}\"");
            let mut rows = HashMap::new();
            for row in target.query(&statement, &[]).await? {
                let (id, version): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
                rows.insert(id, version);
            }
            for ((of, id), known) in &self.acknowledged {
                if *of != kind {
                    continue;
                }
                match rows.get(&id.to_string()) {
                    None if !known.deleted => {
                        lost.push(format!("{table} {id}: version {} is not there", known.v))
                    }
                    Some(_) if known.deleted => lost.push(format!("{table} {id}: deleted and still there")),
                    Some(version) if *version != known.v => {
                        lost.push(format!("{table} {id}: version {} instead of {}", version, known.v));
                    }
                    _ => {}
                }
            }
        }
        Ok(lost)
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.operations.values().sum();
        write!(f, "{total} operations, {} changes of {} documents:", self.changes, self.acknowledged.len())?;
        let counts: Vec<_> = self.operations.iter().map(|(name, count)| format!("{name} {count}")).collect();
        write!(f, " {}", counts.join(", "))?;
        if self.refused > Duration::ZERO {
            write!(f, "; refused by a frozen source for {} ms at most", self.refused.as_millis())?;
        }
        Ok(())
    }
}

/// Writers that know the database and have not begun.
#[derive(Debug)]
pub struct Writers {
    database: Database,
    seed: u64,
    run: u16,
    pace: Pace,
    teams: Vec<Vec<Team>>,
}

impl Writers {
    /// Reads what the database holds. Nobody else may write to it from now on.
    pub async fn learn(database: &Database, seed: u64, pace: Pace) -> Result<Self> {
        let run = next_run(database).await?;
        let teams = teams(database, run, pace.writers.max(1)).await?;
        Ok(Self { database: database.clone(), seed, run, pace, teams })
    }

    /// Writes until `stop` says so. Repeats itself from the seed, but for the timing of the writers among themselves.
    pub async fn write(self, stop: watch::Receiver<bool>) -> Result<Written> {
        let writers = self.teams.len();
        let mut tasks = tokio::task::JoinSet::new();
        for (writer, teams) in self.teams.into_iter().enumerate() {
            let task = Writer {
                database: self.database.clone(),
                ids: Ids::new(MIGRATION),
                chance: Chance::of(self.seed, u64::from(self.run), writer as u64),
                teams,
                count: 0,
                written: Written::default(),
            };
            let rate = self.pace.rate.map(|rate| rate / writers as f64);
            tasks.spawn(task.run(rate, stop.clone()));
        }
        let mut written = Written::default();
        while let Some(done) = tasks.join_next().await {
            let done = done.map_err(|error| Error::Unexpected(format!("a writer ended early: {error}")))?;
            written.join(done?);
        }
        let hello = self.database.run_command(doc! {"hello": 1}).await?;
        let last = hello.get_document("lastWrite").and_then(|last| last.get_document("opTime"));
        written.until = last.and_then(|time| time.get_timestamp("ts")).ok();
        Ok(written)
    }
}

/// Each run numbers its new documents from the start, so that they never meet those of a run before.
async fn next_run(database: &Database) -> Result<u16> {
    let runs = database.collection::<Document>("writer_runs");
    let counted = runs
        .find_one_and_update(doc! {"_id": "runs"}, doc! {"$inc": {"count": 1}})
        .upsert(true)
        .return_document(ReturnDocument::After)
        .await?;
    let count = counted.and_then(|document| document.get_i32("count").ok()).unwrap_or(1);
    u16::try_from(count).map_err(|_| Error::Unexpected("too many runs on one database".into()))
}

/// Reads what the database holds: teams by writer.
async fn teams(database: &Database, run: u16, writers: u8) -> Result<Vec<Vec<Team>>> {
    let mut teams: BTreeMap<i32, Team> = BTreeMap::new();
    for kind in Kind::ALL {
        let fields = doc! {
            "v": 1, "team": 1, "organisation": 1, "organiser": 1, "user": 1, "invoice": 1, "guests": 1,
            "slots.code": 1, "lines.sku": 1,
        };
        let collection = database.collection::<Document>(kind.collection());
        let mut documents = collection.find(doc! {}).sort(doc! {"_id": 1}).projection(fields).await?;
        while let Some(document) = documents.try_next().await? {
            let number = document.get_i32("team").unwrap_or_default();
            let writer = (number.unsigned_abs() % u32::from(writers)) as u8;
            teams.entry(number).or_insert_with(|| Team::new(number, run, writer)).learn(kind, &document);
        }
    }
    let mut shares: Vec<Vec<Team>> = (0..writers).map(|_| Vec::new()).collect();
    for (number, team) in teams {
        shares[(number.unsigned_abs() % u32::from(writers)) as usize].push(team);
    }
    Ok(shares)
}

struct Writer {
    database: Database,
    ids: Ids,
    chance: Chance,
    teams: Vec<Team>,
    count: u32,
    written: Written,
}

impl Writer {
    async fn run(mut self, rate: Option<f64>, stop: watch::Receiver<bool>) -> Result<Written> {
        if self.teams.is_empty() {
            return Ok(self.written);
        }
        let mut pace = rate.map(|rate| tokio::time::interval(Duration::from_secs_f64(1.0 / rate.max(0.01))));
        let mut session = self.database.client().start_session().await?;
        while !*stop.borrow() && stop.has_changed().is_ok() {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            let team = self.chance.below(self.teams.len() as u64) as usize;
            let Some(operation) = self.teams[team].next(&mut self.chance, &mut self.count) else {
                return Err(Error::Unexpected("a team has nothing left that could be changed".into()));
            };
            let all = &operation.steps;
            let mut refused = self.written.refused;
            let mut done = 0;
            let at_once = if operation.transaction { all.len() } else { 1 };
            for steps in all.chunks(at_once) {
                if !self.patiently(&mut session, steps, operation.transaction, &stop, &mut refused).await? {
                    break;
                }
                done += steps.len();
            }
            self.written.refused = refused;
            self.written.note(&self.ids, &operation, &all[..done])?;
        }
        Ok(self.written)
    }

    /// Tries again for as long as the source refuses all writers; false where it was to stop first. Notes the longest such
    /// time.
    async fn patiently(
        &self,
        session: &mut ClientSession,
        steps: &[Step],
        transaction: bool,
        stop: &watch::Receiver<bool>,
        longest: &mut Duration,
    ) -> Result<bool> {
        let mut since: Option<Instant> = None;
        loop {
            let outcome = match steps {
                [step] if !transaction => self.carry_out(None, step).await,
                steps => self.transaction(session, steps).await,
            };
            let blocked = matches!(&outcome, Err(Error::Source(error)) if is_blocked(error));
            if blocked {
                since.get_or_insert_with(Instant::now);
            }
            *longest = since.map_or(*longest, |since| since.elapsed().max(*longest));
            if !blocked {
                return outcome.map(|()| true);
            }
            if *stop.borrow() || stop.has_changed().is_err() {
                return Ok(false);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn collection(&self, kind: Kind) -> Collection<Document> {
        self.database.collection(kind.collection())
    }

    async fn carry_out(&self, session: Option<&mut ClientSession>, step: &Step) -> Result<()> {
        let collection = self.collection(step.kind);
        let id: Bson = step.id.clone();
        let filter = doc! {"_id": id};
        let touched = match &step.change {
            Change::Insert(document) => {
                collection
                    .insert_one(document)
                    .optional(session, |insert, session| insert.session(session))
                    .await?;
                1
            }
            Change::Update(update) => {
                let update = collection.update_one(filter, update.clone());
                update.optional(session, |update, session| update.session(session)).await?.matched_count
            }
            Change::Replace(document) => {
                let replace = collection.replace_one(filter, document);
                replace.optional(session, |replace, session| replace.session(session)).await?.matched_count
            }
            Change::Delete => {
                let delete = collection.delete_one(filter);
                delete.optional(session, |delete, session| delete.session(session)).await?.deleted_count
            }
        };
        match touched {
            1 => Ok(()),
            _ => Err(Error::Unexpected(format!("{}: a document that was written is not there", step.kind))),
        }
    }

    /// All steps or none. Nobody else touches these documents, so what the server asks to try again can be.
    async fn transaction(&self, session: &mut ClientSession, steps: &[Step]) -> Result<()> {
        let asks = |error: &DriverError, label| error.contains_label(label);
        for _ in 0..TRIES {
            let majority = WriteConcern::builder().w(Acknowledgment::Majority).build();
            session.start_transaction().write_concern(majority).await?;
            let mut outcome = Ok(());
            for step in steps {
                outcome = self.carry_out(Some(&mut *session), step).await;
                if outcome.is_err() {
                    break;
                }
            }
            if outcome.is_ok() {
                let mut commit = session.commit_transaction().await;
                for _ in 0..TRIES {
                    match &commit {
                        Err(error) if asks(error, UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                            commit = session.commit_transaction().await;
                        }
                        _ => break,
                    }
                }
                outcome = commit.map_err(Error::from);
            } else {
                // The server has ended a transaction that failed; what is left is told to forget it.
                let _ = session.abort_transaction().await;
            }
            match outcome {
                Err(Error::Source(error)) if asks(&error, TRANSIENT_TRANSACTION_ERROR) => {}
                outcome => return outcome,
            }
        }
        Err(Error::Unexpected(format!("a transaction failed {TRIES} times")))
    }
}
