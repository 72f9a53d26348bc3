//! The changes of a base's tables, found by asking.

use std::sync::Arc;
use std::time::Duration;

use slackwater_topics::{CollectionId, Moment, Position};
use tokio::sync::{mpsc, watch};

use super::client::Noco;
use super::follow::Follower;
use super::memory::Memory;
use crate::error::{Error, Kind, Result};
use crate::source::ChangeBatch;

/// Whoever wants an answer within this is about to switch: nothing counts as delivered then while a table stands still.
pub(super) const NEAR: Duration = Duration::from_millis(10);
/// Until somebody says otherwise.
const AT_LEISURE: Duration = Duration::from_secs(1);

/// A table that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Ours.
    pub collection: CollectionId,
    /// Its title or id, as the migration file has it. The store keeps what was sent under this name.
    pub table: String,
    /// Fields that documents must have. If one is missing, or its type is another than at the start, the table stands still.
    pub needs: Vec<String>,
}

/// Why a table stands still while the others go on. It is looked at again with every sweep, and goes on when it is mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which.
    pub collection: CollectionId,
    /// What kind of trouble it is.
    pub what: What,
    /// A sentence for people.
    pub text: String,
}

/// Kinds of trouble with one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// There was no such table when the stream began.
    Missing,
    /// It is gone. A [`crate::source::Change::Dropped`] says so in its place.
    Dropped,
    /// It has another title now, and is known by its title.
    Renamed,
    /// Columns that are needed are gone, or have another title or type.
    Columns,
    /// The token's user may not read it any more.
    Denied,
    /// The server does not answer as it should.
    Refused,
}

/// A running stream of changes. Dropping it ends its task.
#[derive(Debug)]
pub struct ChangeStream {
    batches: mpsc::Receiver<Result<ChangeBatch>>,
    idle: watch::Sender<Duration>,
    troubles: watch::Receiver<Vec<Trouble>>,
    memory: Arc<Memory>,
}

impl ChangeStream {
    /// The next batch. May be cancelled. After an error the stream has ended.
    ///
    /// The position's moment: whatever comes later was read after it. `passed`: everything that was written, deleted and linked before it
    /// has been delivered, which takes a pass over all tables; tables that stand still do not count, unless somebody hurries.
    pub async fn next(&mut self) -> Result<ChangeBatch> {
        let ended = || Error::new(Kind::Bug, "following the changes", "the stream has ended");
        self.batches.recv().await.unwrap_or_else(|| Err(ended()))
    }

    /// How long an answer may take from now on while nothing happens. Below a tenth of a second there is word all the time that time goes
    /// by, between what is asked at its usual pace. Ten milliseconds or less mean that a switch is near: tables that stand still hold
    /// `passed` back then.
    pub fn hurry(&self, idle: Duration) {
        self.idle.send_if_modified(|known| std::mem::replace(known, idle) != idle);
    }

    /// Tables that stand still.
    pub fn troubles(&self) -> watch::Receiver<Vec<Trouble>> {
        self.troubles.clone()
    }

    /// Whom to tell what is safe.
    pub fn keeper(&self) -> Keeper {
        Keeper { memory: self.memory.clone() }
    }
}

/// Hears what is safe. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keeper {
    memory: Arc<Memory>,
}

impl Keeper {
    /// Everything that the stream handed out at or before this moment is in the log for good.
    pub async fn safe(&self, through: Moment) -> Result<()> {
        self.memory.safe(through).await
    }
}

impl Noco {
    /// Follows the tables that are remembered, from behind this position: everything that has changed since, and all that was handed out
    /// and never called safe. At most `buffer` batches wait for the reader.
    pub fn stream(&self, from: &Position, buffer: usize) -> Result<ChangeStream> {
        let Some(memory) = self.memory.clone() else {
            return Err(Error::new(Kind::Bug, "following the changes", "nothing is remembered"));
        };
        self.server.clock.heard(from.moment);
        let (sender, batches) = mpsc::channel(buffer.max(1));
        let (idle, idle_seen) = watch::channel(AT_LEISURE);
        let (troubles_sender, troubles) = watch::channel(Vec::new());
        let follower = Follower::new(self.clone(), memory.clone(), sender, idle_seen, troubles_sender);
        tokio::spawn(follower.run());
        Ok(ChangeStream { batches, idle, troubles, memory })
    }
}
