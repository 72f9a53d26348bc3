//! Identifiers of rows, computed from their public description with any UUID library.
//!
//! `uuid5(uuid5(uuid5(NAMESPACE_URL, "slackwater"), migration), collection + "\0" + key)`; for an element of an array
//! `+ "\0" + path + "\0" + key of the element`.

use bson::Bson;
use uuid::Uuid;

use crate::{Error, Result};

/// Makes the identifiers of one migration.
#[derive(Clone, Copy, Debug)]
pub struct Ids(Uuid);

impl Ids {
    /// For the migration of this name.
    pub fn new(migration: &str) -> Self {
        Self(Uuid::new_v5(&Uuid::new_v5(&Uuid::NAMESPACE_URL, b"slackwater"), migration.as_bytes()))
    }

    /// Of a document.
    pub fn document(&self, collection: &str, id: &Bson) -> Result<Uuid> {
        Ok(Uuid::new_v5(&self.0, &name(collection, id)?))
    }

    /// Of an element of an array in a document.
    pub fn element(&self, collection: &str, id: &Bson, path: &str, element: &Bson) -> Result<Uuid> {
        let mut name = name(collection, id)?;
        name.push(0);
        name.extend_from_slice(path.as_bytes());
        name.push(0);
        name.extend_from_slice(&key(element)?);
        Ok(Uuid::new_v5(&self.0, &name))
    }
}

fn name(collection: &str, id: &Bson) -> Result<Vec<u8>> {
    let mut name = collection.as_bytes().to_vec();
    name.push(0);
    name.extend_from_slice(&key(id)?);
    Ok(name)
}

/// Canonical bytes of the kinds of `_id` that the examples use.
fn key(id: &Bson) -> Result<Vec<u8>> {
    let whole = |number: i64| [&[0x10], number.to_be_bytes().as_slice()].concat();
    Ok(match id {
        Bson::ObjectId(id) => [&[0x50], id.bytes().as_slice()].concat(),
        Bson::Int32(number) => whole(i64::from(*number)),
        Bson::Int64(number) => whole(*number),
        Bson::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => whole(*number as i64),
        Bson::String(text) => {
            [&[0x20], (text.len() as u32).to_be_bytes().as_slice(), text.as_bytes()].concat()
        }
        other => {
            return Err(Error::Unexpected(format!(
                "no example has an _id of type {:?}",
                other.element_type()
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Taken from the description, computed with Python's uuid module.
    #[test]
    fn golden() {
        let ids = Ids::new("coworking");
        let id = ids.document("legacy.user", &Bson::Int32(42)).expect("an id");
        assert_eq!(id.to_string(), "269078e1-077f-5260-8064-de659a710b8a");
        assert_eq!(id, ids.document("legacy.user", &Bson::Double(42.0)).expect("an id"));
        assert!(ids.document("legacy.user", &Bson::Null).is_err());
    }
}
