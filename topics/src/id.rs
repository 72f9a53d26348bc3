//! Identifiers of rows: a UUIDv5 of namespace, collection and canonical key.
//!
//! The same document gives the same identifier on any machine, in any order, so a reference is resolved without a
//! look-up and a replay writes the same row. Anyone can compute it with any UUID library:
//! `uuid5(uuid5(uuid5(NAMESPACE_URL, "slackwater"), migration), collection + "\0" + key bytes)`.

use sha1::{Digest, Sha1};
use uuid::Uuid;

use crate::key::Key;

/// The namespace of one migration's identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace(Uuid);

impl Namespace {
    /// The namespace that a migration of this name has.
    pub fn of_migration(name: &str) -> Self {
        let root = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"slackwater");
        Self(Uuid::new_v5(&root, name.as_bytes()))
    }

    /// A namespace that the migration file states itself.
    pub fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The namespace as a UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }

    /// The identifier of a document. `collection` is the name it has in the migration file (`legacy.user`).
    pub fn id(self, collection: &str, key: &Key) -> Uuid {
        self.hash(&[collection.as_bytes(), &[0], key.as_bytes()])
    }

    /// The identifier of an element of an array in a document: the document's name, the path and the element's own key.
    pub fn element_id(self, collection: &str, key: &Key, path: &str, element: &Key) -> Uuid {
        self.hash(&[
            collection.as_bytes(),
            &[0],
            key.as_bytes(),
            &[0],
            path.as_bytes(),
            &[0],
            element.as_bytes(),
        ])
    }

    fn hash(self, parts: &[&[u8]]) -> Uuid {
        let mut hash = Sha1::new();
        hash.update(self.0.as_bytes());
        for part in parts {
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_sha1_bytes(bytes).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn is_what_any_uuid_library_says() {
        let namespace = Namespace::of_migration("coworking");
        let key = Key::of(Value::ObjectId(&[7; 12])).expect("a key");
        let mut name = b"legacy.user\0".to_vec();
        name.extend_from_slice(key.as_bytes());
        assert_eq!(namespace.id("legacy.user", &key), Uuid::new_v5(&namespace.as_uuid(), &name));
    }

    /// These must never change: they are in people's databases.
    #[test]
    fn golden() {
        let namespace = Namespace::of_migration("coworking");
        let key = Key::of(Value::Int32(42)).expect("a key");
        assert_eq!(namespace.as_uuid().to_string(), "1e04a5af-9362-5666-85df-7b5c6a68796e");
        assert_eq!(namespace.id("legacy.user", &key).to_string(), "269078e1-077f-5260-8064-de659a710b8a");
    }
}
