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

/// Whoever wants an answer within this is about to switch: every pass reads everything then.
const NEAR: Duration = Duration::from_millis(10);

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

/// How quiet the source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calm {
    /// So many passes over all tables in a row have found nothing new.
    pub passes: u32,
    /// When the first of them began.
    pub since: Moment,
}

/// A running stream of changes. Dropping it ends its task.
#[derive(Debug)]
pub struct ChangeStream {
    batches: mpsc::Receiver<Result<ChangeBatch>>,
    near: watch::Sender<Option<Duration>>,
    troubles: watch::Receiver<Vec<Trouble>>,
    calm: watch::Receiver<Calm>,
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

    /// How long an answer may take from now on while nothing happens. Ten milliseconds or less mean that a switch is near: passes over
    /// everything follow each other then, as fast as requests may be sent.
    pub fn hurry(&self, idle: Duration) {
        let near = (idle <= NEAR).then_some(idle.max(Duration::from_millis(1)));
        self.near.send_if_modified(|known| std::mem::replace(known, near) != near);
    }

    /// Tables that stand still.
    pub fn troubles(&self) -> watch::Receiver<Vec<Trouble>> {
        self.troubles.clone()
    }

    /// Passes that found nothing: two of them, begun after the writers were stopped, prove that they are.
    pub fn calm(&self) -> watch::Receiver<Calm> {
        self.calm.clone()
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
        let (near, near_seen) = watch::channel(None);
        let (troubles_sender, troubles) = watch::channel(Vec::new());
        let (calm_sender, calm) = watch::channel(Calm::default());
        let follower =
            Follower::new(self.clone(), memory.clone(), sender, near_seen, troubles_sender, calm_sender);
        tokio::spawn(follower.run());
        Ok(ChangeStream { batches, near, troubles, calm, memory })
    }
}
