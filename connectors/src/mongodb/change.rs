//! One event of a change stream, read where it lies.
//!
//! A server can cut an event that is too large for a reply at its fields. Its fragments come one after the other, in one
//! reply or in several, and are one event again here. A position is never one of a fragment: the server takes that only
//! where it cuts again in the same way, and the same change would have two positions.

use bytes::Bytes;
use slackwater_topics::{CollectionId, Document, Key, Malformed, Moment, Position, Value};

use super::token::{of_event, token_of};
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
    key: Option<Part<'a>>,
    document: Option<Part<'a>>,
    fragment: Option<Fragment>,
}

/// A document, and the memory that it lies in.
#[derive(Clone, Copy)]
struct Part<'a> {
    document: Document<'a>,
    memory: &'a Bytes,
}

impl Part<'_> {
    fn bytes(self) -> Bytes {
        self.memory.slice_ref(self.document.as_bytes())
    }
}

/// Which one of how many, counted from one.
#[derive(Clone, Copy)]
struct Fragment {
    number: i32,
    of: i32,
}

/// What a document of a reply tells.
pub(super) struct Read {
    /// `None` where no watched collection is concerned, and where more of the event is to come.
    pub(super) change: Option<Change>,
    /// It was a fragment of an event.
    pub(super) fragment: bool,
}

/// Reads a document of a reply. `fragments` are those of the event that has begun; it keeps what is not complete.
pub(super) fn read(
    event: Document<'_>,
    reply: &Bytes,
    watched: &Watched,
    fragments: &mut Vec<Bytes>,
) -> Result<Read> {
    let mut fields = Fields::default();
    fields.read(event, reply)?;
    let Some(Fragment { number, of }) = fields.fragment else {
        return Ok(Read { change: change(fields, watched)?, fragment: false });
    };
    if usize::try_from(number) != Ok(fragments.len() + 1) || number > of {
        return Err(broken_event(&fields, "fragments of an event that are not in their order"));
    }
    if number < of {
        fragments.push(reply.slice_ref(event.as_bytes()));
        return Ok(Read { change: None, fragment: true });
    }
    let before = std::mem::take(fragments);
    let mut fields = Fields::default();
    for fragment in &before {
        let known = Document::new(fragment).map_err(|broken| broken_event(&fields, &broken.to_string()))?;
        fields.read(known, fragment)?;
    }
    fields.read(event, reply)?;
    fields.token = of_event(&fields.token, number.unsigned_abs() - 1).ok_or_else(|| {
        Error::new(
            Kind::Unsuitable,
            "following the changes",
            "the server's resume tokens have an unknown form",
        )
    })?;
    Ok(Read { change: change(fields, watched)?, fragment: true })
}

/// What the event says. `None` where no watched collection is concerned.
fn change(fields: Fields<'_>, watched: &Watched) -> Result<Option<Change>> {
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
    let key = id.document.get(b"_id").and_then(|id| Key::of(id.ok_or(Malformed { at: 4 })?));
    let key = key.map_err(|broken| broken_event(&fields, &broken.to_string()))?;
    Ok(Some(Change::Document(DocumentChange {
        collection,
        kind,
        key,
        id: id.bytes(),
        document: fields.document.map(Part::bytes),
        position,
        wall: fields.wall.unwrap_or(i64::from(fields.time.upper()) * 1000),
    })))
}

impl<'a> Fields<'a> {
    fn read(&mut self, event: Document<'a>, memory: &'a Bytes) -> Result<()> {
        // What could be read before the break tells the operator where to look.
        self.fill(event, memory).map_err(|broken| broken_event(self, &broken.to_string()))
    }

    fn fill(&mut self, event: Document<'a>, memory: &'a Bytes) -> std::result::Result<(), Malformed> {
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
                (b"documentKey", Value::Document(document)) => self.key = Some(Part { document, memory }),
                (b"fullDocument", Value::Document(document)) => {
                    self.document = Some(Part { document, memory });
                }
                (b"splitEvent", Value::Document(split)) => {
                    if let (Some(Value::Int32(number)), Some(Value::Int32(of))) =
                        (split.get(b"fragment")?, split.get(b"of")?)
                    {
                        self.fragment = Some(Fragment { number, of });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn broken_event(fields: &Fields<'_>, what: &str) -> Error {
    let key =
        fields.key.and_then(|key| key.document.get(b"_id").ok().flatten()).and_then(|id| Key::of(id).ok());
    let key = key.map_or_else(|| "an unreadable key".to_owned(), |key| format!("key {key}"));
    let collection = String::from_utf8_lossy(fields.collection);
    Error::new(
        Kind::Data,
        format!("reading a change of `{collection}`, {key}, at {}", fields.time),
        format!("{what}; repair or remove the document, then copy the collection again"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn token(fragment: Option<&str>) -> bson::Document {
        doc! {"_data": format!("8200000005000000012B042C0100296E{}04", fragment.unwrap_or_default())}
    }

    fn fragments() -> [bson::Document; 3] {
        let split = |fragment: i32| doc! {"fragment": fragment, "of": 3};
        [
            doc! {"_id": token(Some("29")), "splitEvent": split(1), "operationType": "update", "ns": {"db": "d", "coll": "c"}},
            doc! {"_id": token(Some("2B02")), "splitEvent": split(2), "documentKey": {"_id": 7},
            "clusterTime": bson::Timestamp { time: 5, increment: 1 }},
            doc! {"_id": token(Some("2B04")), "splitEvent": split(3), "fullDocument": {"_id": 7, "a": "b"}},
        ]
    }

    fn watched() -> Watched {
        Watched { database: "d".into(), collections: vec![(CollectionId(0), "c".into())] }
    }

    fn read_all(events: &[bson::Document]) -> Result<Vec<(Option<Change>, bool)>> {
        let mut kept = Vec::new();
        let read_one = |event: &bson::Document| {
            // Each in a reply of its own, which nobody else keeps.
            let reply = Bytes::from(event.to_vec().expect("a document"));
            let event = Document::new(&reply).expect("well formed");
            read(event, &reply, &watched(), &mut kept).map(|read| (read.change, read.fragment))
        };
        events.iter().map(read_one).collect()
    }

    #[test]
    fn fragments_are_one_event_with_its_own_place() {
        let [one, two, three] = fragments();
        let mut whole = doc! {};
        for fragment in [&one, &two, &three] {
            whole.extend(fragment.clone());
        }
        whole.remove("splitEvent");
        whole.insert("_id", token(None));
        let read = read_all(&[whole.clone(), one, two, three, whole]).expect("readable");
        let fragment: Vec<bool> = read.iter().map(|(_, fragment)| *fragment).collect();
        assert_eq!(fragment, [false, true, true, true, false]);
        let changes: Vec<_> = read.into_iter().map(|(change, _)| change).collect();
        let [Some(Change::Document(before)), None, None, Some(Change::Document(made)), Some(_)] =
            &changes[..]
        else {
            panic!("{changes:?}");
        };
        assert_eq!(format!("{made:?}"), format!("{before:?}"));
        assert_eq!(made.document, Some(doc! {"_id": 7, "a": "b"}.to_vec().expect("a document").into()));
    }

    #[test]
    fn fragments_that_are_not_in_their_order_are_an_error() {
        let [one, two, three] = fragments();
        let refused = |events: &[&bson::Document]| {
            let events: Vec<_> = events.iter().map(|event| (*event).clone()).collect();
            assert!(read_all(&events).expect_err("not readable").what.contains("not in their order"));
        };
        refused(&[&two]);
        refused(&[&one, &three]);
        refused(&[&one, &one]);
        refused(&[&one, &two, &two]);
        let mut beyond = three.clone();
        beyond.insert("splitEvent", doc! {"fragment": 3, "of": 2});
        refused(&[&one, &two, &beyond]);
        // A token of another form is not guessed at.
        let mut strange = three;
        strange.insert("_id", token(Some("2B06")));
        let error = read_all(&[one, two, strange]).expect_err("not readable");
        assert!(error.what.contains("unknown form"), "{error}");
    }
}
