//! Identifiers of rows: a UUIDv5 of namespace, collection and canonical key; or, where the file says `ids: time_ordered`, the time of an
//! ObjectId and the rest of that hash, in the shape of version 8.
//!
//! The same document gives the same identifier on any machine, in any order, so a reference is resolved without a
//! look-up and a replay writes the same row. Anyone can compute it with any UUID library:
//! `uuid5(uuid5(uuid5(NAMESPACE_URL, "slackwater"), migration), collection + "\0" + key bytes)`.

use sha1::{Digest, Sha1};
use uuid::Uuid;

use crate::key::Key;

/// The namespace of one migration's identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    uuid: Uuid,
    /// Identifiers begin with the time in the document's ObjectId, where it has one.
    ordered: bool,
}

/// First byte of the canonical key of an ObjectId.
const OBJECT_ID: u8 = 0x50;

impl Namespace {
    /// The namespace that a migration of this name has.
    pub fn of_migration(name: &str) -> Self {
        let root = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"slackwater");
        Self::new(Uuid::new_v5(&root, name.as_bytes()))
    }

    /// A namespace that the migration file states itself.
    pub fn new(uuid: Uuid) -> Self {
        Self { uuid, ordered: false }
    }

    /// Identifiers of documents with an ObjectId are ordered by the time in it, to the second.
    pub fn ordered(self) -> Self {
        Self { ordered: true, ..self }
    }

    /// Whether they are.
    pub fn is_ordered(self) -> bool {
        self.ordered
    }

    /// The namespace and the kind of its identifiers, as one UUID: neither may change while a migration runs.
    pub fn as_uuid(self) -> Uuid {
        if self.ordered { Uuid::new_v5(&self.uuid, b"time_ordered") } else { self.uuid }
    }

    /// The identifier of a document. `collection` is the name it has in the migration file (`legacy.user`).
    pub fn id(self, collection: &str, key: &Key) -> Uuid {
        self.timed(key, self.hash(&[collection.as_bytes(), &[0], key.as_bytes()]))
    }

    /// The identifier of an element of an array in a document: the document's name, the path and the element's own key.
    pub fn element_id(self, collection: &str, key: &Key, path: &str, element: &Key) -> Uuid {
        let hash = self.hash(&[
            collection.as_bytes(),
            &[0],
            key.as_bytes(),
            &[0],
            path.as_bytes(),
            &[0],
            element.as_bytes(),
        ]);
        self.timed(key, hash)
    }

    /// In the shape of version 8: milliseconds since 1970 as in version 7, then the hash. Elements are beside their document.
    fn timed(self, key: &Key, hash: Uuid) -> Uuid {
        let [kind, a, b, c, d, ..] = key.as_bytes() else { return hash };
        if !self.ordered || *kind != OBJECT_ID {
            return hash;
        }
        let millis = u64::from(u32::from_be_bytes([*a, *b, *c, *d])) * 1_000;
        let mut bytes = *hash.as_bytes();
        // Ids of one second differ in the ten bytes of the hash that are left.
        bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    fn hash(self, parts: &[&[u8]]) -> Uuid {
        let mut hash = Sha1::new();
        hash.update(self.uuid.as_bytes());
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

    #[test]
    fn ordered_ones_go_by_the_time_of_the_object_id() {
        let namespace = Namespace::of_migration("coworking").ordered();
        let object = |seconds: u32, rest: u8| {
            let mut id = [rest; 12];
            id[..4].copy_from_slice(&seconds.to_be_bytes());
            Key::of(Value::ObjectId(&id)).expect("a key")
        };
        let id = |key: &Key| namespace.id("legacy.user", key);
        let (first, second) = (id(&object(1_700_000_000, 255)), id(&object(1_700_000_001, 0)));
        assert!(first < second);
        assert_eq!(first.get_version_num(), 8);
        assert_eq!(first.to_string(), "018bcfe5-6800-8197-9179-ea5100cda4a4");
        assert_ne!(id(&object(1_700_000_000, 1)), id(&object(1_700_000_000, 2)));
        let element = namespace.element_id("legacy.user", &object(1_700_000_000, 1), "tags", &object(9, 9));
        assert!(element < second && element.get_version_num() == 8);
        // Other ids have no time.
        assert_eq!(id(&Key::of(Value::Int32(42)).expect("a key")).get_version_num(), 5);
        assert_ne!(namespace.as_uuid(), Namespace::of_migration("coworking").as_uuid());
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
