//! Fields that travel encrypted: what lies in a topic is read by whoever may read the topic.
//!
//! The value is sealed where the record is made and opened before anything looks at the document, so whatever is behind it (rows, digests of
//! versions, letters) knows the document as the source has it. In its place stands binary data of a subtype of ours.
//!
//! **Invariant**: a sealed value opens only in the place that it was sealed for: collection, document, field. Sealing is deterministic
//! ([`super::encode`] says how, and `docs/design/ciphers.md` what it costs), so the place is looked at by sealing once more.

use std::sync::Arc;

use bytes::Bytes;
use slackwater_topics::{Document, Event, Malformed, Value};

use super::encode::{Opener, Sealer, place_part};
use super::rejection::{Reason, Rejection, of_document};
use super::sensitive::{begin, closed};
use crate::config::{Cipher, Collection, Rule, Step, is_on};

/// Of binary data that is a sealed value: from 0x80 on subtypes are the user's own.
const SUBTYPE: u8 = 0xf5;
/// What it begins with, so that other data of this subtype is not taken for it.
const MAGIC: &[u8] = b"sw1";
const BINARY: u8 = 5;

/// The fields of a collection that travel encrypted.
#[derive(Clone, Debug)]
pub(crate) struct Travel {
    collection: String,
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Field {
    /// The names that lead to it; none for everything but `_id`.
    way: Vec<Step>,
    sealer: Arc<Sealer>,
    opener: Arc<Opener>,
}

/// Why a document does not open.
enum Trouble {
    Malformed,
    Sealed(String),
}

impl From<Malformed> for Trouble {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A way, or what is left of it, and its field.
type Way<'w> = (&'w [Step], &'w Field);

impl Travel {
    /// None where all fields travel as they are.
    pub(crate) fn of(collection: &Collection, ciphers: &[Cipher]) -> Option<Self> {
        let mut fields = Vec::new();
        for table in &collection.tables {
            for column in table.columns.iter().flat_map(|column| column.parts()) {
                let Some(name) = &column.travels else { continue };
                // Whether there is such a cipher was looked at when the file was read.
                let Some(cipher) = ciphers.iter().find(|cipher| cipher.name == name.value) else { continue };
                let (Some(sealer), Some(opener)) = (Sealer::new(cipher), Opener::new(cipher)) else {
                    continue;
                };
                let way = match &column.rule.value {
                    Rule::Value(value) => value.path.value.way(table.each.as_ref().map(|each| &each.value)),
                    _ => Vec::new(),
                };
                fields.push(Field { way, sealer: Arc::new(sealer), opener: Arc::new(opener) });
            }
        }
        (!fields.is_empty()).then(|| Self { collection: collection.name.value.clone(), fields })
    }

    /// The document as it travels.
    pub(crate) fn seal(&self, event: &Event) -> Result<Bytes, Malformed> {
        match self.walk(event, true) {
            Ok(document) => Ok(document),
            // Sealing fails for nothing else.
            Err(Trouble::Malformed | Trouble::Sealed(_)) => Err(Malformed { at: 0 }),
        }
    }

    /// The document as it was.
    pub(crate) fn open(&self, event: &Event) -> Result<Bytes, Rejection> {
        self.walk(event, false).map_err(|trouble| match trouble {
            Trouble::Malformed => of_document(Reason::Malformed, "the document's bytes are broken"),
            Trouble::Sealed(text) => of_document(Reason::Cipher, &text),
        })
    }

    fn walk(&self, event: &Event, seals: bool) -> Result<Bytes, Trouble> {
        if event.document.is_empty() {
            return Ok(event.document.clone());
        }
        let mut place = Vec::new();
        place_part(self.collection.as_bytes(), &mut place);
        place_part(event.key.as_bytes(), &mut place);
        place_part(&[], &mut place);
        let ways: Vec<Way<'_>> = self.fields.iter().map(|field| (field.way.as_slice(), field)).collect();
        let walk = Walk { place, seals };
        let document = Document::new(&event.document)?;
        Ok(walk.document(document, &ways, "", true)?.into())
    }
}

struct Walk {
    /// As nonces know it.
    place: Vec<u8>,
    seals: bool,
}

impl Walk {
    /// `top`: it is the document itself, whose `_id` is in every record's key.
    fn document(
        &self,
        document: Document<'_>,
        ways: &[Way<'_>],
        path: &str,
        top: bool,
    ) -> Result<Vec<u8>, Trouble> {
        let bytes = document.as_bytes();
        let mut out = vec![0; 4];
        let mut elements = document.elements();
        loop {
            let start = elements.offset();
            let Some(element) = elements.next() else { break };
            let (name, value) = element?;
            let element = &bytes[start..elements.offset()];
            let behind: Vec<Way<'_>> = if top && name == b"_id" {
                Vec::new()
            } else {
                let named = ways.iter().filter_map(|(way, field)| match way.split_first() {
                    None => Some((*way, *field)),
                    Some((first, rest)) => is_on(first, name).then_some((rest, *field)),
                });
                named.collect()
            };
            self.element(name, value, element, &behind, path, &mut out)?;
        }
        Ok(closed(out))
    }

    /// A value that some ways lead to or into. Where it is neither a document nor an array it may be the secret itself.
    fn element(
        &self,
        name: &[u8],
        value: Value<'_>,
        element: &[u8],
        ways: &[Way<'_>],
        path: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), Trouble> {
        let Some((_, first)) = ways.first() else {
            out.extend_from_slice(element);
            return Ok(());
        };
        let path = format!("{path}/{}", String::from_utf8_lossy(name));
        let field = ways.iter().find(|way| way.0.is_empty()).map(|(_, field)| *field);
        if !self.seals
            && let Some(sealed) = sealed(value)
        {
            let (kind, plain) = self.opened(field.unwrap_or(first), &path, sealed)?;
            begin(kind, name, out);
            out.extend_from_slice(&plain);
            return Ok(());
        }
        let (kind, bytes) = match (value, field) {
            (Value::Document(document), None) => (3, self.document(document, ways, &path, false)?),
            (Value::Array(array), None) => (4, self.array(array, ways, &path)?),
            _ if self.seals => (BINARY, self.sealed(field.unwrap_or(first), &path, name, element)?),
            // It was written before the field was to travel encrypted.
            _ => {
                out.extend_from_slice(element);
                return Ok(());
            }
        };
        begin(kind, name, out);
        out.extend_from_slice(&bytes);
        Ok(())
    }

    /// A way may name a place in the array, or go on in each of its elements.
    fn array(&self, array: Document<'_>, ways: &[Way<'_>], path: &str) -> Result<Vec<u8>, Trouble> {
        let bytes = array.as_bytes();
        let mut out = vec![0; 4];
        let mut elements = array.elements();
        loop {
            let start = elements.offset();
            let Some(element) = elements.next() else { break };
            let (name, value) = element?;
            let named = ways.iter().filter_map(|(way, field)| {
                let (first, rest) = way.split_first()?;
                is_on(first, name).then_some((rest, *field))
            });
            let behind: Vec<Way<'_>> = ways.iter().copied().chain(named).collect();
            self.element(name, value, &bytes[start..elements.offset()], &behind, path, &mut out)?;
        }
        Ok(closed(out))
    }

    /// As the content of binary data.
    fn sealed(&self, field: &Field, path: &str, name: &[u8], element: &[u8]) -> Result<Vec<u8>, Trouble> {
        // The type, and the value behind the name.
        let plain = [&element[..1], &element[name.len() + 2..]].concat();
        let sealed = self.seal(field, path, &plain)?;
        let length = (MAGIC.len() + sealed.len()) as i32;
        Ok([&length.to_le_bytes()[..], &[SUBTYPE], MAGIC, &sealed].concat())
    }

    fn seal(&self, field: &Field, path: &str, plain: &[u8]) -> Result<Vec<u8>, Trouble> {
        let sealed = field.sealer.seal(&format!("travels {path}"), &self.place, plain);
        sealed.map_err(|problem| Trouble::Sealed(problem.text.into_owned()))
    }

    /// The type and the bytes of the value.
    fn opened(&self, field: &Field, path: &str, sealed: &[u8]) -> Result<(u8, Vec<u8>), Trouble> {
        let trouble = |text: &str| Trouble::Sealed(format!("a field that travels encrypted {text}"));
        let plain = field
            .opener
            .open(sealed)
            .map_err(|problem| trouble(&format!("does not open: {}", problem.text)))?;
        if self.seal(field, path, &plain)? != sealed {
            return Err(trouble("was sealed for another document or field"));
        }
        let (kind, bytes) = plain.split_first().ok_or_else(|| trouble("is empty"))?;
        Ok((*kind, bytes.to_vec()))
    }
}

fn sealed(value: Value<'_>) -> Option<&[u8]> {
    match value {
        Value::Binary { subtype: SUBTYPE, bytes } => bytes.strip_prefix(MAGIC),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bson::{Bson, doc};
    use slackwater_topics::{CollectionId, Key, Op, Position};

    use super::*;
    use crate::config;

    const FILE: &str = "migration: m
sources: { m: { mongodb: { uri: x, database: d } } }
target: { postgres: { uri: x } }
ciphers: { wire: { aes-256-gcm: { key: \"${KEY}\" } } }
collections:
  m.a:
    - into: a
      columns:
        id: { uuid: _id }
        mail: { text: contact.mail, travels: wire }
        pins: { array: pins[], travels: wire }
        first: { text: name.first, travels: wire }
    - { into: b, each: lines[], columns: { a: { parent: id }, price: { numeric: price, travels: wire }, n: { integer: n } } }
";

    fn travel(key: char, file: &str) -> Travel {
        let environment = |name: &str| (name == "KEY").then(|| key.to_string().repeat(64));
        let file = config::parse("m.yaml", file, &environment).unwrap_or_else(|found| panic!("{found}"));
        Travel::of(&file.collections[0], &file.ciphers).expect("fields that travel encrypted")
    }

    fn event(document: &bson::Document) -> Event {
        let raw = document.to_vec().expect("a document");
        let id = Document::new(&raw).expect("a document").get(b"_id").expect("well formed").expect("an id");
        Event {
            collection: CollectionId(0),
            key: Key::of(id).expect("a key"),
            op: Op::Upsert,
            document: raw.into(),
            position: Position::default(),
            time: 0,
        }
    }

    fn document() -> bson::Document {
        doc! {
            "_id": 7, "contact": {"mail": "kanari@x", "phone": "1"}, "pins": ["kanari1", 2, Bson::Null], "name": "kanari2",
            "lines": [{"price": 4.5, "n": 1}, {"price": "kanari3"}, {"n": 2}], "other": "seen",
        }
    }

    fn holds(bytes: &[u8], text: &str) -> bool {
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    }

    #[test]
    fn what_is_sealed_is_not_seen_and_opens_as_it_was() {
        let (travel, event) = (travel('a', FILE), event(&document()));
        let sealed = travel.seal(&event).expect("sealed");
        assert!(!holds(&sealed, "kanari") && holds(&sealed, "seen") && holds(&sealed, "phone"));
        let read = bson::Document::from_reader(&*sealed).expect("a document");
        assert!(matches!(read.get("name"), Some(Bson::Binary(_))), "{read}");
        assert_eq!(travel.seal(&event).expect("sealed"), sealed, "the same bytes each time");
        let travelled = Event { document: sealed, ..event.clone() };
        assert_eq!(travel.open(&travelled).expect("opened"), event.document);
        // What was written before the field was to travel encrypted is taken as it is.
        assert_eq!(travel.open(&event).expect("opened"), event.document);
    }

    #[test]
    fn the_rest_travels_encrypted_too() {
        let file = FILE
            .replace("first: { text: name.first, travels: wire }", "first: { rest: jsonb, travels: wire }");
        let (travel, event) = (travel('a', &file), event(&document()));
        let sealed = travel.seal(&event).expect("sealed");
        assert!(!holds(&sealed, "kanari") && !holds(&sealed, "seen") && holds(&sealed, "_id"));
        assert_eq!(
            travel.open(&Event { document: sealed, ..event.clone() }).expect("opened"),
            event.document
        );
    }

    #[test]
    fn another_key_or_another_place_opens_nothing() {
        let (right, event) = (travel('a', FILE), event(&document()));
        let sealed = Event { document: right.seal(&event).expect("sealed"), ..event.clone() };
        let refused = travel('b', FILE).open(&sealed).expect_err("another key");
        assert!(refused.kind == Reason::Cipher && refused.text.contains("`wire`"), "{refused:?}");
        let moved = Event { key: Key::of(Value::Int32(8)).expect("a key"), ..sealed.clone() };
        let refused = right.open(&moved).expect_err("another document");
        assert!(refused.text.contains("for another document"), "{refused:?}");
        let mut read = bson::Document::from_reader(&*sealed.document).expect("a document");
        let name = read.get("name").cloned().expect("a name");
        read.get_document_mut("contact").expect("an object").insert("mail", name);
        let swapped = Event { document: read.to_vec().expect("bytes").into(), ..sealed };
        assert!(right.open(&swapped).is_err(), "another field");
    }
}
