//! The changes of a database's collections, in the server's order, followed for as long as they are wanted.
//!
//! A task of its own holds the cursor, because the driver's futures must not be cancelled (see [`super::fetch`]); a second
//! one reads what it brings and feeds a bounded channel, so a slow reader makes the server wait and not the memory grow. When the connection breaks or a new primary is elected
//! the task opens the stream again behind the last batch that went into the channel: nothing is left out, nothing
//! comes twice. Nothing is kept here: after a crash the reader starts from the position that it has saved.
//!
//! An event that is too large for a reply stops MongoDB's cursor. Servers that can cut such an event are asked to. With the
//! others, and where an event cannot be cut, events are asked for one by one up to it, it is fetched without what its update
//! changed and at last without its document, and the stream goes on (see [`Pace`]).

use std::time::Duration;

use bson::{RawDocumentBuf, Timestamp, doc};
use bytes::Bytes;
use slackwater_topics::{CollectionId, Moment, Position};
use tokio::sync::{mpsc, watch};

use super::change::{self, Watched};
use super::client::Mongo;
use super::error::{TOO_LARGE, cleaned, code_of, resumable};
use super::fetch::{Fetched, Next};
use super::reply::Reply;
use super::token::{is_high_water_mark, resume_document, token_time};
use crate::error::{Error, Kind, Result};
use crate::retry::Pauses;
use crate::source::{Change, ChangeBatch};

/// How long the server may hold an answer back while nothing happens: how often an idle stream's token moves.
const AWAIT: Duration = Duration::from_millis(500);
/// Replies of a few megabytes, where the server could send sixteen: it gathers the next while we work on this one.
const MOST_EVENTS: i32 = 8_000;
/// A reply has at most 16 MB; past this the large event must have been behind us.
const PAST_LARGE: usize = 48 << 20;

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first change at or after this time.
    At(Moment),
    /// Behind this position, be it of an event, of a batch or of an invalidation.
    After(Position),
}

/// A running change stream. Dropping it ends its task.
#[derive(Debug)]
pub struct ChangeStream {
    batches: mpsc::Receiver<Result<ChangeBatch>>,
    connected: watch::Receiver<bool>,
    idle: watch::Sender<Duration>,
}

impl ChangeStream {
    /// The next batch. May be cancelled. After an error the stream has ended.
    pub async fn next(&mut self) -> Result<ChangeBatch> {
        let ended = || Error::new(Kind::Bug, "following the changes", "the stream has ended");
        self.batches.recv().await.unwrap_or_else(|| Err(ended()))
    }

    /// False from the moment the connection breaks until the stream is open again.
    pub fn connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// How long the server may be silent from now on while nothing happens. A frozen source changes nothing that
    /// would wake the stream, and the switch must not wait half a second to see that all has passed.
    pub fn hurry(&self, idle: Duration) {
        self.idle.send_replace(idle.max(Duration::from_millis(1)));
    }

    /// To wait for a change of [`Self::connected`].
    pub fn connection(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

impl Mongo {
    /// Follows these collections. At most `buffer` batches wait for the reader, and three more are on their way; each
    /// has at most 16 MB, and where an event is larger than that, what is before it in fragments.
    pub fn stream(&self, start: Start, watched: Vec<(CollectionId, String)>, buffer: usize) -> ChangeStream {
        self.follow(start, watched, buffer, Pace::Full)
    }

    /// The same without documents: which ones change.
    pub fn stream_of_keys(
        &self,
        start: Start,
        watched: Vec<(CollectionId, String)>,
        buffer: usize,
    ) -> ChangeStream {
        self.follow(start, watched, buffer, Pace::Keys)
    }

    fn follow(
        &self,
        start: Start,
        watched: Vec<(CollectionId, String)>,
        buffer: usize,
        pace: Pace,
    ) -> ChangeStream {
        let (sender, batches) = mpsc::channel(buffer.max(1));
        let (link, connected) = watch::channel(false);
        let (idle, idle_seen) = watch::channel(AWAIT);
        let follower = Follower {
            mongo: self.clone(),
            watched: Watched { database: self.database().to_owned(), collections: watched },
            place: start,
            passed: Moment::default(),
            pace,
            fragments: Vec::new(),
            out: sender,
            link,
            idle: idle_seen,
        };
        tokio::spawn(follower.run());
        ChangeStream { batches, connected, idle }
    }
}

/// How events are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As many as a reply holds.
    Full,
    /// The same, with one that is too large in fragments; with the bytes that came since. The server writes each event down once
    /// more for it, which makes it slower by a tenth, so it is asked for where there is need.
    Cut(usize),
    /// One a reply, because one of the next is too large; with the bytes that came since.
    Single(usize),
    /// One, without its document: this is the large one.
    WithoutDocument,
    /// As many as a reply holds, all without their documents.
    Keys,
}

impl Pace {
    fn is_single(self) -> bool {
        matches!(self, Self::Single(_) | Self::WithoutDocument)
    }
}

/// Why a cursor is done with.
enum End {
    /// Nobody listens.
    ReaderGone,
    /// Open the next one right away.
    Again,
    /// Open the next one after a pause.
    Broken(Error),
    /// Tell the reader and stop.
    Failed(Error),
}

/// The task behind a [`ChangeStream`].
struct Follower {
    mongo: Mongo,
    watched: Watched,
    place: Start,
    passed: Moment,
    pace: Pace,
    /// Of an event whose rest is still to come; `place` is before it.
    fragments: Vec<Bytes>,
    out: mpsc::Sender<Result<ChangeBatch>>,
    link: watch::Sender<bool>,
    idle: watch::Receiver<Duration>,
}

impl Follower {
    async fn run(mut self) {
        let mut pauses = Pauses::for_server();
        let mut warned = false;
        loop {
            let end = self.follow(&mut pauses, &mut warned).await;
            if !matches!(end, End::Again) {
                self.link.send_replace(false);
            }
            match end {
                End::ReaderGone => return,
                End::Again => {}
                End::Failed(error) => {
                    // Nobody listens any more if this cannot be sent.
                    let _ = self.out.send(Err(error)).await;
                    return;
                }
                End::Broken(error) => {
                    if warned {
                        tracing::debug!(%error, "the change stream is still broken");
                    } else {
                        tracing::warn!(%error, "the change stream broke; trying again until it is back");
                        warned = true;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(pauses.next_pause()) => {}
                        () = self.out.closed() => return,
                    }
                }
            }
        }
    }

    /// Opens a cursor and passes on what it brings, for as long as it lives.
    async fn follow(&mut self, pauses: &mut Pauses, warned: &mut bool) -> End {
        let command = match self.command() {
            Ok(command) => command,
            Err(error) => return End::Failed(error),
        };
        // They come again from their first one.
        self.fragments.clear();
        let idle = *self.idle.borrow_and_update();
        let batch_size = self.pace.is_single().then_some(1);
        let mut fetched = Fetched::start(&self.mongo, command, idle, batch_size);
        loop {
            let batch = tokio::select! {
                batch = fetched.next() => batch,
                () = self.out.closed() => return End::ReaderGone,
            };
            let batch = match batch {
                Next::Batch(batch) => batch,
                Next::Failed(error) => return self.ended(&error),
                Next::TimedOut(what) => {
                    return End::Broken(Error::new(Kind::Unreachable, "following the changes", what));
                }
            };
            if !*self.link.borrow() {
                self.link.send_replace(true);
                if std::mem::take(warned) {
                    tracing::info!("the change stream is open again");
                }
            }
            pauses.reset();
            let passed_on = match self.read(batch) {
                Ok(Some(batch)) => self.pass_on(batch).await,
                Ok(None) => None,
                Err(error) => Some(End::Failed(error)),
            };
            if let Some(end) = passed_on {
                return end;
            }
            // How long a cursor waits is fixed when it is opened.
            if self.idle.has_changed().unwrap_or(false) {
                return End::Again;
            }
        }
    }

    /// What an error of the driver means for the stream.
    fn ended(&mut self, error: &mongodb::error::Error) -> End {
        let cleaned = cleaned("following the changes", error);
        let too_large = code_of(error) == Some(TOO_LARGE);
        self.pace = match self.pace {
            _ if resumable(error) => return End::Broken(cleaned),
            Pace::Full if too_large && self.mongo.cuts_large_events() => Pace::Cut(0),
            // It cannot be cut at its fields, a new primary is too old to cut, or `place` is an event that was not cut and would be
            // now: whatever it is, the old way can do without.
            Pace::Cut(_) => Pace::Single(0),
            Pace::Full if too_large => Pace::Single(0),
            Pace::Single(_) if too_large => Pace::WithoutDocument,
            _ => return End::Failed(cleaned),
        };
        End::Again
    }

    fn read(&mut self, batch: mongodb::raw_batch_cursor::RawBatch) -> Result<Option<ChangeBatch>> {
        let doing = "following the changes";
        let unreadable = |broken| Error::new(Kind::Data, doing, format!("the server's reply: {broken}"));
        let reply = Reply::new(batch).map_err(unreadable)?;
        let mut changes = Vec::new();
        let (mut any, mut fragment) = (false, false);
        let before: usize = self.fragments.iter().map(Bytes::len).sum();
        for event in reply.documents() {
            any = true;
            let event = event.map_err(unreadable)?;
            let read = change::read(event, reply.bytes(), &self.watched, &mut self.fragments)?;
            fragment = read.fragment;
            changes.extend(read.change);
        }
        if self.pace == Pace::WithoutDocument {
            self.warn_oversized(&changes);
        }
        let token = if fragment {
            // The reply's own would be that of the fragment.
            let Some(last) = changes.last() else { return Ok(None) };
            Some(last.position().token.clone())
        } else {
            reply.token().cloned()
        };
        let Some(token) = token else {
            return Err(Error::new(
                Kind::Unsuitable,
                doing,
                "the server sends no resume tokens; it is too old",
            ));
        };
        let time = token_time(&token).ok_or_else(|| {
            Error::new(Kind::Unsuitable, doing, "the server's resume tokens have an unknown form")
        })?;
        // With events, the reply may have been full in the middle of a transaction. Without any, the server has
        // read its log to the end, and what shares the token's time is behind us.
        let whole = !any || is_high_water_mark(&token);
        let passed = if whole { time } else { Moment(time.0.saturating_sub(1)) };
        let batch = ChangeBatch {
            changes,
            position: Position { moment: time, token },
            passed: passed.max(self.passed),
            now: reply.operation_time,
            bytes: before + reply.len(),
        };
        let known = matches!(&self.place, Start::After(place) if *place == batch.position);
        Ok((any || !known || batch.passed > self.passed).then_some(batch))
    }

    async fn pass_on(&mut self, batch: ChangeBatch) -> Option<End> {
        self.place = Start::After(batch.position.clone());
        self.passed = batch.passed;
        let (bytes, empty) = (batch.bytes, batch.changes.is_empty());
        let invalidated = matches!(batch.changes.last(), Some(Change::Invalidated { .. }));
        if self.out.send(Ok(batch)).await.is_err() {
            return Some(End::ReaderGone);
        }
        let pace = match self.pace {
            Pace::Cut(before) if !self.fragments.is_empty() => Pace::Cut(before + bytes),
            Pace::Cut(before) | Pace::Single(before) if empty || before + bytes > PAST_LARGE => Pace::Full,
            Pace::Cut(before) => Pace::Cut(before + bytes),
            Pace::Single(before) => Pace::Single(before + bytes),
            Pace::Full | Pace::WithoutDocument => Pace::Full,
            Pace::Keys => Pace::Keys,
        };
        let again = invalidated || (pace == Pace::Full && self.pace != Pace::Full);
        self.pace = pace;
        again.then_some(End::Again)
    }

    fn warn_oversized(&self, changes: &[Change]) {
        for change in changes {
            if let Change::Document(change) = change {
                let collection = self.watched.name(change.collection);
                tracing::warn!(
                    collection, key = %change.key, at = %change.position.moment,
                    "a change is larger than a reply may be; it is passed on without its document"
                );
            }
        }
    }

    fn command(&self) -> Result<RawDocumentBuf> {
        let doing = "opening the change stream";
        let mut options = doc! {};
        // Post-images exist since 6.0; the option alone is an error before.
        let without = matches!(self.pace, Pace::WithoutDocument | Pace::Keys);
        if !without && self.mongo.version() >= (6, 0, 0) {
            options.insert("fullDocument", "whenAvailable");
        }
        match &self.place {
            // `startAfter` takes every token, that of an invalidation too.
            Start::After(place) if !place.token.is_empty() => {
                let token = resume_document(&place.token).and_then(|raw| bson::Document::try_from(raw).ok());
                let token = token.ok_or_else(|| {
                    Error::new(Kind::Unsuitable, doing, "the saved position is not one of a change stream")
                })?;
                options.insert("startAfter", token);
            }
            Start::At(time) | Start::After(Position { moment: time, .. }) => {
                let time = Timestamp { time: time.upper(), increment: time.lower() };
                options.insert("startAtOperationTime", time);
            }
        }
        let names: Vec<&str> = self.watched.collections.iter().map(|(_, name)| name.as_str()).collect();
        let mut pipeline = vec![
            doc! {"$changeStream": options},
            doc! {"$match": {"$or": [
                {"ns.coll": {"$in": &names}},
                {"to.coll": {"$in": &names}},
                {"operationType": {"$in": ["dropDatabase", "invalidate"]}},
            ]}},
        ];
        // What an update changed is never used. It is left out only where there is no room, so that the server has no
        // stage more to run for each event.
        match self.pace {
            Pace::Full => {}
            // It has to be the last one.
            Pace::Cut(_) => pipeline.push(doc! {"$changeStreamSplitLargeEvent": {}}),
            Pace::Single(_) => pipeline.push(doc! {"$project": {"updateDescription": 0}}),
            Pace::WithoutDocument | Pace::Keys => {
                pipeline.push(doc! {"$project": {"updateDescription": 0, "fullDocument": 0}})
            }
        }
        let command = doc! {
            "aggregate": 1,
            "cursor": {"batchSize": if self.pace.is_single() { 1 } else { MOST_EVENTS }},
            "pipeline": pipeline,
            "readConcern": {"level": "majority"},
        };
        RawDocumentBuf::try_from(&command).map_err(|_| Error::new(Kind::Bug, doing, "the command is no BSON"))
    }
}
