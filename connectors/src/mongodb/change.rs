//! One event of a change stream, read where it lies.

use bytes::Bytes;
use slackwater_topics::{ClusterTime, Document, Key, Malformed, Position, Value};

use super::reply::Reply;
use super::token::token_of;
use crate::error::{Error, Kind, Result};

/// What happened to a document, as MongoDB tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A new document.
    Insert,
    /// Some fields.
    Update,
    /// All fields.
    Replace,
    /// Gone.
    Delete,
}

/// A change of one document.
#[derive(Clone, Debug)]
pub struct DocumentChange {
    /// Index in the list of watched collections.
    pub collection: u16,
    /// What happened.
    pub op: Op,
    /// Which document.
    pub key: Key,
    /// The server's document key, raw: `{_id: …}`.
    pub id: Bytes,
    /// The document right after the change. `None` for a delete, for an update without a post-image, and for
    /// an event that was too large to be sent whole: look it up then.
    pub document: Option<Bytes>,
    /// Its own place.
    pub position: Position,
    /// When, in milliseconds since 1970.
    pub wall: i64,
    /// One of several changes that were committed together; they share one time.
    pub in_transaction: bool,
}

/// What a change stream tells.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Change {
    /// A document changed.
    Document(DocumentChange),
    /// The collection is gone with all documents; no delete is sent for them.
    Dropped { collection: u16, position: Position },
    /// A collection changed its name. What stood under `to` before is gone.
    Renamed { from: Option<u16>, to: Option<u16>, to_name: String, position: Position },
    /// The database is gone. Drops of its collections came before.
    DatabaseDropped { position: Position },
    /// The server closed the stream; it was opened again behind this.
    Invalidated { position: Position },
}

impl Change {
    /// Its place in the stream.
    pub fn position(&self) -> &Position {
        match self {
            Self::Document(change) => &change.position,
            Self::Dropped { position, .. }
            | Self::Renamed { position, .. }
            | Self::DatabaseDropped { position }
            | Self::Invalidated { position } => position,
        }
    }
}

/// The collections that are followed, in the order of their numbers.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) database: String,
    pub(super) names: Vec<String>,
}

impl Watched {
    fn find(&self, name: &[u8]) -> Option<u16> {
        let at = self.names.iter().position(|watched| watched.as_bytes() == name)?;
        u16::try_from(at).ok()
    }
}

/// The event's fields, before it is known what it is.
#[derive(Default)]
struct Fields<'a> {
    kind: &'a [u8],
    token: Bytes,
    time: ClusterTime,
    wall: Option<i64>,
    collection: &'a [u8],
    to: &'a [u8],
    to_database: &'a [u8],
    key: Option<Document<'a>>,
    document: Option<Document<'a>>,
    in_transaction: bool,
}

/// Reads an event of a reply. `None` where no watched collection is concerned.
pub(super) fn read(event: Document<'_>, reply: &Reply, watched: &Watched) -> Result<Option<Change>> {
    let mut fields = Fields::default();
    // What could be read before the break tells the operator where to look.
    if let Err(broken) = fields.fill(event) {
        return Err(broken_event(&fields, &broken.to_string()));
    }
    let position = Position { time: fields.time, token: fields.token.clone() };
    let collection = watched.find(fields.collection);
    let op = match (fields.kind, collection) {
        (b"insert", _) => Op::Insert,
        (b"update", _) => Op::Update,
        (b"replace", _) => Op::Replace,
        (b"delete", _) => Op::Delete,
        (b"drop", collection) => {
            return Ok(collection.map(|collection| Change::Dropped { collection, position }));
        }
        (b"rename", from) => {
            let here = fields.to_database == watched.database.as_bytes();
            let to = watched.find(fields.to).filter(|_| here);
            let to_name = String::from_utf8_lossy(fields.to).into_owned();
            return Ok((from.is_some() || to.is_some()).then_some(Change::Renamed {
                from,
                to,
                to_name,
                position,
            }));
        }
        (b"dropDatabase", _) => return Ok(Some(Change::DatabaseDropped { position })),
        (b"invalidate", _) => return Ok(Some(Change::Invalidated { position })),
        (kind, _) => {
            let what = format!("an event of the unknown kind `{}`", String::from_utf8_lossy(kind));
            return Err(broken_event(&fields, &what));
        }
    };
    let Some(collection) = collection else { return Ok(None) };
    let Some(id) = fields.key else { return Err(broken_event(&fields, "an event without a document key")) };
    let key = id.get(b"_id").and_then(|id| Key::of(id.ok_or(Malformed { at: 4 })?));
    let key = key.map_err(|broken| broken_event(&fields, &broken.to_string()))?;
    Ok(Some(Change::Document(DocumentChange {
        collection,
        op,
        key,
        id: reply.slice(id.as_bytes()),
        document: fields.document.map(|document| reply.slice(document.as_bytes())),
        position,
        wall: fields.wall.unwrap_or(i64::from(fields.time.seconds()) * 1000),
        in_transaction: fields.in_transaction,
    })))
}

impl<'a> Fields<'a> {
    fn fill(&mut self, event: Document<'a>) -> std::result::Result<(), Malformed> {
        for element in event.elements() {
            match element? {
                (b"_id", Value::Document(resume)) => self.token = token_of(resume)?,
                (b"operationType", Value::String(kind)) => self.kind = kind,
                (b"clusterTime", Value::Timestamp { seconds, increment }) => {
                    self.time = ClusterTime::new(seconds, increment);
                }
                (b"wallTime", Value::DateTime(millis)) => self.wall = Some(millis),
                (b"ns", Value::Document(ns)) => {
                    if let Some(Value::String(name)) = ns.get(b"coll")? {
                        self.collection = name;
                    }
                }
                (b"to", Value::Document(to)) => {
                    if let (Some(Value::String(database)), Some(Value::String(name))) =
                        (to.get(b"db")?, to.get(b"coll")?)
                    {
                        (self.to_database, self.to) = (database, name);
                    }
                }
                (b"documentKey", Value::Document(key)) => self.key = Some(key),
                (b"fullDocument", Value::Document(document)) => self.document = Some(document),
                (b"txnNumber", _) => self.in_transaction = true,
                _ => {}
            }
        }
        Ok(())
    }
}

fn broken_event(fields: &Fields<'_>, what: &str) -> Error {
    let key = fields.key.and_then(|key| key.get(b"_id").ok().flatten()).and_then(|id| Key::of(id).ok());
    let key = key.map_or_else(|| "an unreadable key".to_owned(), |key| format!("key {key}"));
    let collection = String::from_utf8_lossy(fields.collection);
    Error::new(
        Kind::Data,
        format!("reading a change of `{collection}`, {key}, at {}", fields.time),
        format!("{what}; repair or remove the document, then copy the collection again"),
    )
}
