//! A source, as everything above a connector sees it: what it can be asked for, whichever system it is.
//!
//! - **Order**: a source numbers what happens in it by [`Moment`]s. They are opaque and compared within one source only.
//! - **Follow**: changes come in that order, from a position on, and say through which moment everything has come.
//! - **Read**: a range of a collection, or documents by key, as they are at a moment or later; the answer says after which moment it
//!   shows nothing.
//! - **Freeze**: writers are stopped, and a moment is known that nothing they wrote comes after.
//!
//! A kind of system is a variant here and a folder in `connectors`. `docs/design/house.md` says what a new kind has to answer.

mod fitness;
mod mongodb;
mod nocodb;

use std::time::Duration;

use futures_util::future::join_all;
use slackwater_connectors::error::{self, Error, Result};
use slackwater_connectors::mongodb::{ChangeStream, Mongo, Privileges, Start};
use slackwater_connectors::nocodb::{Glance, Noco, Settings};
use slackwater_connectors::secret::Secret;
use slackwater_connectors::source::{ChangeBatch, ChunkRead, FreezeRight, Heard, Kind, Lookup, Split};
use slackwater_topics::{CollectionId, Key, Moment, Position, Range};
use tokio::sync::watch;

pub(crate) use fitness::{Finding, Fitness, Presence};

use crate::config::{self, Migration, System};
use crate::mapping::Plan;
use crate::ops::store::Store;

/// Batches of changes that wait for their reader; each may have 16 MB.
const BUFFER: usize = 1;

/// A source that takes longer to let us in counts as away, where the others are not to wait for it.
const ANSWERS_WITHIN: Duration = Duration::from_secs(4);

/// How large chunks are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunking {
    pub(crate) bytes: u64,
    pub(crate) documents: u64,
}

/// Of these collections of a source those that the migration neither maps nor leaves behind on purpose.
pub(crate) fn unmapped(migration: &Migration, source: &str, there: &[String]) -> Vec<String> {
    let names = there.iter().filter(|collection| {
        let name = format!("{source}.{collection}");
        !migration.collections.iter().any(|mapped| mapped.name.value == name)
            && !migration.leaves_behind(&name)
    });
    names.cloned().collect()
}

/// A source. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Mongodb(Mongo),
    Nocodb(Noco),
}

/// A source, and what it is called.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    /// In the migration file.
    pub(crate) name: String,
    /// The database that it reads, for people.
    pub(crate) database: String,
    pub(crate) source: Source,
}

impl Named {
    /// Connects: a wrong address or password shows here.
    pub(crate) async fn connect(source: &config::Source) -> Result<Self> {
        let name = source.name.value.clone();
        match &source.system {
            System::Mongodb { uri, database } => {
                let source = Source::Mongodb(Mongo::connect(uri, database).await?);
                Ok(Self { name, database: database.clone(), source })
            }
            System::Nocodb(nocodb) => {
                let settings = Settings {
                    include: nocodb.include.clone(),
                    every: nocodb.every,
                    sweep: nocodb.sweep,
                    requests_per_second: nocodb.requests_per_second,
                    ..Settings::new(nocodb.url.expose(), nocodb.token.clone(), nocodb.base.clone())
                };
                let noco = Noco::connect(&settings).await?;
                Ok(Self { name, database: nocodb.base.clone(), source: Source::Nocodb(noco) })
            }
        }
    }

    /// Connects to those that answer, side by side.
    pub(crate) async fn connect_to_those_that_answer<'s>(
        sources: impl IntoIterator<Item = &'s config::Source>,
    ) -> Vec<Self> {
        let asked =
            sources.into_iter().map(|source| tokio::time::timeout(ANSWERS_WITHIN, Self::connect(source)));
        join_all(asked).await.into_iter().flatten().flatten().collect()
    }

    /// Connects to all sources of a migration.
    pub(crate) async fn connect_all(sources: &[config::Source]) -> Result<Vec<Self>> {
        let mut named = Vec::with_capacity(sources.len());
        for source in sources {
            named.push(Self::connect(source).await?);
        }
        Ok(named)
    }
}

impl config::Source {
    /// What kind of system it is.
    pub(crate) fn kind(&self) -> Kind {
        match self.system {
            System::Mongodb { .. } => Kind::Mongodb,
            System::Nocodb(_) => Kind::Nocodb,
        }
    }

    /// The end of the address that may be called when something has changed.
    pub(crate) fn webhook(&self) -> Option<&Secret> {
        match &self.system {
            System::Mongodb { .. } => None,
            System::Nocodb(nocodb) => nocodb.webhook.as_ref(),
        }
    }

    /// How often everything is read, where deletes are found by that alone.
    pub(crate) fn reads_all_every(&self) -> Option<Duration> {
        match &self.system {
            System::Mongodb { .. } => None,
            System::Nocodb(nocodb) => Some(nocodb.sweep),
        }
    }

    /// What it reads of its server: the name of the database or the base.
    pub(crate) fn database(&self) -> &str {
        match &self.system {
            System::Mongodb { database, .. } => database,
            System::Nocodb(nocodb) => &nocodb.base,
        }
    }
}

/// The changes of a source, from a position on. Dropping them ends the stream.
#[derive(Debug)]
pub(crate) enum Changes {
    Mongodb(ChangeStream),
    Nocodb(nocodb::Changes),
}

impl Source {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Mongodb(_) => Kind::Mongodb,
            Self::Nocodb(_) => Kind::Nocodb,
        }
    }

    /// Looks whether the source is fit for what the migration does with these collections.
    pub(crate) async fn fitness(&self, collections: &[String]) -> Result<Fitness> {
        match self {
            Self::Mongodb(mongo) => mongodb::fitness(mongo, collections).await,
            Self::Nocodb(noco) => nocodb::fitness(noco, collections).await,
        }
    }

    /// What our user may do; `None` where nobody is asked who he is, or it is not told.
    pub(crate) async fn privileges(&self) -> Option<Privileges> {
        match self {
            Self::Mongodb(mongo) => mongo.privileges().await.ok().flatten(),
            Self::Nocodb(_) => None,
        }
    }

    /// The names of everything that holds documents; `None` where we may not ask.
    pub(crate) async fn collections(&self) -> Option<Vec<String>> {
        match self {
            Self::Mongodb(mongo) => {
                let collections = mongo.collections().await.ok()?;
                let holding = collections.into_iter().filter(|info| info.holds_documents());
                Some(holding.map(|info| info.name).collect())
            }
            Self::Nocodb(noco) => noco.collections().await.ok(),
        }
    }

    /// Whether a collection is there; `None` where nobody can say.
    pub(crate) async fn has(&self, collection: &str) -> Option<bool> {
        match self {
            Self::Mongodb(_) => Some(self.collections().await?.iter().any(|name| name == collection)),
            Self::Nocodb(noco) => noco.has(collection).await.ok(),
        }
    }

    /// A hint that something has changed.
    pub(crate) fn poke(&self) {
        match self {
            Self::Mongodb(_) => {}
            Self::Nocodb(noco) => noco.poke(),
        }
    }

    /// The source's present: what was acknowledged before this call is at or before the moment.
    pub(crate) async fn now(&self) -> Result<Moment> {
        match self {
            Self::Mongodb(mongo) => mongo.operation_time().await,
            Self::Nocodb(noco) => Ok(noco.now()),
        }
    }

    /// The source's clock, and a moment that everything acknowledged before it is at or before.
    pub(crate) async fn hear(&self) -> Result<Heard> {
        match self {
            Self::Mongodb(mongo) => mongo.hello().await,
            Self::Nocodb(noco) => noco.hear(),
        }
    }

    /// Somebody waits for what was written before now: where everything has to be read for that, it begins at once.
    pub(crate) fn begin_afresh(&self) {
        match self {
            Self::Mongodb(_) => {}
            Self::Nocodb(noco) => noco.begin_afresh(),
        }
    }

    /// The oldest change that it still has, where it says so.
    pub(crate) async fn history_from(&self) -> Option<Moment> {
        match self {
            Self::Mongodb(mongo) => mongo.oplog_from().await,
            Self::Nocodb(_) => None,
        }
    }

    /// The same source for the process that copies and follows it: what it sends is kept, where the source has no log of its own.
    pub(crate) async fn remembering(&self, store: Store, plan: &Plan, name: &str) -> Result<Self> {
        match self {
            Self::Mongodb(_) => Ok(self.clone()),
            Self::Nocodb(noco) => Ok(Self::Nocodb(nocodb::remembering(noco, store, plan, name).await?)),
        }
    }

    /// Follows these collections from behind the position. `safe`: through which moment the log has everything for good.
    pub(crate) fn follow(
        &self,
        from: Position,
        collections: Vec<(CollectionId, String)>,
        safe: watch::Receiver<Moment>,
    ) -> Changes {
        match self {
            Self::Mongodb(mongo) => Changes::Mongodb(mongo.stream(Start::After(from), collections, BUFFER)),
            Self::Nocodb(noco) => Changes::Nocodb(nocodb::Changes::follow(noco, &from, BUFFER, safe)),
        }
    }

    /// The changes of these collections from behind the moment, for one who only wants to know of them. `None` where only the process that
    /// copies a source can follow it.
    pub(crate) fn watch(&self, after: Moment, collections: Vec<(CollectionId, String)>) -> Option<Changes> {
        match self {
            Self::Mongodb(mongo) => {
                Some(Changes::Mongodb(mongo.stream_of_keys(Start::At(after), collections, BUFFER)))
            }
            Self::Nocodb(_) => None,
        }
    }

    /// Cuts a collection into chunks.
    pub(crate) async fn split(&self, collection: &str, size: Chunking) -> Result<Split> {
        match self {
            Self::Mongodb(mongo) => mongo.split(collection, size.bytes, size.documents).await,
            Self::Nocodb(noco) => {
                let split = noco.split(collection, size.bytes, size.documents).await;
                nocodb::or_gone(noco, collection, split, || Split { documents: 0, bounds: Vec::new() }).await
            }
        }
    }

    /// Reads a range as it is at `since` or later, or as much of it as `most_bytes` allow.
    pub(crate) async fn read(
        &self,
        collection: &str,
        range: &Range,
        since: Moment,
        most_bytes: usize,
    ) -> Result<ChunkRead> {
        match self {
            Self::Mongodb(mongo) => mongo.read_chunk(collection, range, since, most_bytes).await,
            Self::Nocodb(noco) => {
                let read = noco.read_chunk(collection, range, since, most_bytes).await;
                let none = || ChunkRead {
                    documents: Vec::new(),
                    from: since,
                    until: noco.now(),
                    rest: None,
                    bytes: 0,
                };
                nocodb::or_gone(noco, collection, read, none).await
            }
        }
    }

    /// The chunk whose read ended at `until` is in the log, with these documents of it.
    pub(crate) async fn copied(&self, collection: &str, keys: &[Key], until: Moment) -> Result<()> {
        match self {
            Self::Mongodb(_) => Ok(()),
            Self::Nocodb(noco) => noco.copied(collection, keys, until).await,
        }
    }

    /// Reads the documents of these keys as they are at `since` or later.
    pub(crate) async fn look_up(&self, collection: &str, keys: &[Key], since: Moment) -> Result<Lookup> {
        match self {
            Self::Mongodb(mongo) => mongo.lookup(collection, keys, since).await,
            Self::Nocodb(noco) => {
                let found = noco.lookup(collection, keys, since).await;
                let none = || Lookup { found: Vec::new(), at: noco.now().max(since) };
                nocodb::or_gone(noco, collection, found, none).await
            }
        }
    }

    /// Whether we may stop its writers.
    pub(crate) async fn freeze_right(&self) -> Result<FreezeRight> {
        match self {
            Self::Mongodb(mongo) => mongo.freeze_right().await,
            Self::Nocodb(noco) => Ok(noco.freeze_right()),
        }
    }

    /// Whether a moment that we mark at an idle source passes at once.
    pub(crate) async fn may_mark(&self) -> Result<bool> {
        match self {
            Self::Mongodb(mongo) => mongo.may_note().await,
            Self::Nocodb(_) => Ok(true),
        }
    }

    /// How long the oldest transaction that has written is open; a freeze would wait for it. `None` where there is none, or we may
    /// not ask.
    pub(crate) async fn oldest_writer(&self) -> Result<Option<Duration>> {
        match self {
            Self::Mongodb(mongo) => mongo.oldest_writer().await,
            Self::Nocodb(_) => Ok(None),
        }
    }

    /// Stops its writers. Everything that was acknowledged to them is at or before the moment.
    pub(crate) async fn freeze(&self, within: Duration) -> Result<Moment> {
        match self {
            Self::Mongodb(mongo) => mongo.block_writes(within).await,
            Self::Nocodb(_) => Err(unable()),
        }
    }

    /// Lets its writers write again. May be done twice.
    pub(crate) async fn unfreeze(&self) -> Result<()> {
        match self {
            Self::Mongodb(mongo) => mongo.unblock_writes().await,
            Self::Nocodb(_) => Err(unable()),
        }
    }

    /// Whether its writers are stopped; `None` where we may not ask.
    pub(crate) async fn is_frozen(&self) -> Result<Option<bool>> {
        match self {
            Self::Mongodb(mongo) => mongo.writes_blocked().await,
            Self::Nocodb(_) => Ok(None),
        }
    }

    /// What writers leave behind in these collections, where the source cannot refuse them: two looks that differ prove that somebody wrote
    /// in between. `None` where it can.
    pub(crate) async fn glance(
        &self,
        collections: &[String],
        first: Option<&Glance>,
    ) -> Result<Option<Glance>> {
        match self {
            Self::Mongodb(_) => Ok(None),
            Self::Nocodb(noco) => noco.glance(collections, first).await.map(Some),
        }
    }

    /// A moment after everything that writers were told is done, for writers that somebody else has stopped. It is marked in the
    /// source's own history, so that an idle source passes it too.
    pub(crate) async fn mark(&self, text: &str) -> Result<Moment> {
        match self {
            Self::Mongodb(mongo) => mongo.note(text).await,
            Self::Nocodb(noco) => Ok(noco.mark()),
        }
    }

    /// How many documents it believes to hold: at once, and nearly always right.
    pub(crate) async fn count_quickly(&self, collection: &str) -> Result<u64> {
        match self {
            Self::Mongodb(mongo) => mongo.count_quickly(collection).await,
            Self::Nocodb(noco) => noco.count_quickly(collection).await,
        }
    }

    /// How many documents there are, one by one.
    pub(crate) async fn count_exactly(&self, collection: &str) -> Result<u64> {
        match self {
            Self::Mongodb(mongo) => mongo.count_exactly(collection).await,
            Self::Nocodb(noco) => noco.count_exactly(collection).await,
        }
    }
}

impl Changes {
    /// The next batch. May be cancelled. After an error the stream has ended.
    pub(crate) async fn next(&mut self) -> Result<ChangeBatch> {
        match self {
            Self::Mongodb(stream) => stream.next().await,
            Self::Nocodb(changes) => changes.next().await,
        }
    }

    /// How long the source may hold its answer back from now on while nothing happens.
    pub(crate) fn answer_within(&self, idle: Duration) {
        match self {
            Self::Mongodb(stream) => stream.hurry(idle),
            Self::Nocodb(changes) => changes.hurry(idle),
        }
    }

    /// What stands in the way of single collections, which stand still.
    pub(crate) fn trouble(&self) -> Option<String> {
        match self {
            Self::Mongodb(_) => None,
            Self::Nocodb(changes) => changes.trouble(),
        }
    }
}

fn unable() -> Error {
    Error::new(error::Kind::Unsuitable, "stopping the writers", "NocoDB cannot refuse them")
}
