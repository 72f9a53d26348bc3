//! One event of a change stream, read where it lies.

use bytes::Bytes;
use slackwater_topics::{CollectionId, Document, Key, Malformed, Moment, Position, Value};

use super::reply::Reply;
use super::token::token_of;
use crate::error::{Error, Kind, Result};
use crate::source::{Change, ChangeKind, DocumentChange};

/// The collections that are followed.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) database: String,
    pub(super) collections: Vec<(CollectionId, String)>,
}

impl Watched {
    fn find(&self, name: &[u8]) -> Option<CollectionId> {
        self.collections.iter().find(|(_, watched)| watched.as_bytes() == name).map(|(id, _)| *id)
    }

    /// The collection's name.
    pub(super) fn name(&self, id: CollectionId) -> &str {
        self.collections.iter().find(|(watched, _)| *watched == id).map_or("", |(_, name)| name)
    }
}

/// The event's fields, before it is known what it is.
#[derive(Default)]
struct Fields<'a> {
    kind: &'a [u8],
    token: Bytes,
    time: Moment,
    wall: Option<i64>,
    collection: &'a [u8],
    to: &'a [u8],
    to_database: &'a [u8],
    key: Option<Document<'a>>,
    document: Option<Document<'a>>,
}

/// Reads an event of a reply. `None` where no watched collection is concerned.
pub(super) fn read(event: Document<'_>, reply: &Reply, watched: &Watched) -> Result<Option<Change>> {
    let mut fields = Fields::default();
    // What could be read before the break tells the operator where to look.
    if let Err(broken) = fields.fill(event) {
        return Err(broken_event(&fields, &broken.to_string()));
    }
    let position = Position { moment: fields.time, token: fields.token.clone() };
    let collection = watched.find(fields.collection);
    let kind = match (fields.kind, collection) {
        (b"insert", _) => ChangeKind::Insert,
        (b"update", _) => ChangeKind::Update,
        (b"replace", _) => ChangeKind::Replace,
        (b"delete", _) => ChangeKind::Delete,
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
        kind,
        key,
        id: reply.slice(id.as_bytes()),
        document: fields.document.map(|document| reply.slice(document.as_bytes())),
        position,
        wall: fields.wall.unwrap_or(i64::from(fields.time.upper()) * 1000),
    })))
}

impl<'a> Fields<'a> {
    fn fill(&mut self, event: Document<'a>) -> std::result::Result<(), Malformed> {
        for element in event.elements() {
            match element? {
                (b"_id", Value::Document(resume)) => self.token = token_of(resume)?,
                (b"operationType", Value::String(kind)) => self.kind = kind,
                (b"clusterTime", Value::Timestamp { seconds, increment }) => {
                    self.time = Moment::of_halves(seconds, increment);
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
