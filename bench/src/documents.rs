//! The documents. Each follows from its number alone and has the same size as all of its shape.

use bson::oid::ObjectId;
use bson::{DateTime, RawDocumentBuf, rawdoc};

/// 2024-01-01, where the times of all documents start, in milliseconds.
pub(crate) const EPOCH: i64 = 1_704_067_200_000;

const FLAT_BYTES: usize = 366;
const TWO_BYTES: usize = 440;

const CITIES: [&str; 8] =
    ["Amsterdam", "Bergen", "Cluj-Napoca", "Dunkerque", "Esbjerg", "Fécamp", "Göteborg", "Hull"];
pub(crate) const STATES: [&str; 4] = ["active", "invited", "paused", "archived"];
const GIVEN: [&str; 8] = ["Ada", "Bao", "Chidi", "Dorota", "Émile", "Farah", "Goran", "Hanneke"];
const FAMILY: [&str; 8] = ["Andersen", "Bakker", "Costa", "Dubois", "Eriksen", "Fischer", "Gallo", "Haugen"];
const FILLER: &str = "came in with the tide, was counted twice on the quay, and waits for the pilot who takes it out \
     again before the water turns, whatever the weather may be on the other side of the harbour; nothing else is known";

/// Which documents.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// Twelve fields, none of them nested: one table.
    Flat,
    /// An array of two objects: two tables.
    Two,
}

impl Shape {
    /// The collection that holds them.
    pub(crate) fn collection(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Two => "two",
        }
    }

    /// Document number `index`.
    pub(crate) fn document(self, index: u64) -> RawDocumentBuf {
        match self {
            Self::Flat => flat(index),
            Self::Two => two(index),
        }
    }
}

/// The `_id` of document number `index`: ascending, as drivers make them.
pub(crate) fn id(index: u64) -> ObjectId {
    let mut bytes = *b"....slack...";
    bytes[..4].copy_from_slice(&((EPOCH / 1_000) as u32 + index as u32 / 64).to_be_bytes());
    bytes[9..].copy_from_slice(&(index as u32).to_be_bytes()[1..]);
    ObjectId::from_bytes(bytes)
}

/// Sebastiano Vigna's splitmix64: well spread numbers, the same ones everywhere.
pub(crate) fn spread(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An amount with two digits after the point.
pub(crate) fn amount(random: u64) -> f64 {
    (random % 1_000_000) as f64 / 100.0
}

/// The last document of all, to wait for: its name is `marker`.
pub(crate) fn marker() -> RawDocumentBuf {
    flat_with(ObjectId::from_bytes([0xff; 12]), "marker", 0)
}

fn pick<'a>(among: &[&'a str; 8], random: u64) -> &'a str {
    among[random as usize % among.len()]
}

fn flat(index: u64) -> RawDocumentBuf {
    let random = spread(index);
    let name = format!("{} {}", pick(&GIVEN, random), pick(&FAMILY, random >> 8));
    flat_with(id(index), &name, index)
}

fn flat_with(id: ObjectId, name: &str, index: u64) -> RawDocumentBuf {
    let random = spread(index);
    let created = EPOCH + (random % 31_536_000_000) as i64;
    let mut document = rawdoc! {
        "_id": id,
        "name": name,
        "email": format!("member.{index}@example.org"),
        "owner": self::id(random % 1_000),
        "status": STATES[(random >> 16) as usize % STATES.len()],
        "city": pick(&CITIES, random >> 24),
        "amount": amount(random >> 20),
        "quantity": (random >> 40) as i32 & 0xff,
        "active": random & 1 == 0,
        "createdAt": DateTime::from_millis(created),
        "updatedAt": DateTime::from_millis(created),
    };
    fill(&mut document, FLAT_BYTES);
    document
}

fn two(index: u64) -> RawDocumentBuf {
    let random = spread(index);
    let item = |line: u64| {
        rawdoc! {
            "sku": format!("SKU-{line}-{:05}", (random >> (8 * line)) % 100_000),
            "title": pick(&CITIES, random >> (16 + line)),
            "qty": (random >> (32 + line)) as i32 & 0x0f,
            "price": amount(random >> (4 * line)),
        }
    };
    let mut document = rawdoc! {
        "_id": id(index),
        "number": format!("2024-{index:08}"),
        "customer": format!("member.{}@example.org", random % 100_000),
        "status": STATES[(random >> 16) as usize % STATES.len()],
        "total": amount(random >> 20),
        "createdAt": DateTime::from_millis(EPOCH + (random % 31_536_000_000) as i64),
        "items": [item(1), item(2)],
    };
    fill(&mut document, TWO_BYTES);
    document
}

/// Appends `note` so that the document has exactly `bytes`.
fn fill(document: &mut RawDocumentBuf, bytes: usize) {
    // Type, name with its zero, length, and the text's own zero.
    const ELEMENT: usize = 1 + 5 + 4 + 1;
    let room = bytes.saturating_sub(document.as_bytes().len() + ELEMENT);
    document.append(bson::cstr!("note"), &FILLER[..room.min(FILLER.len())]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_of_a_shape_have_one_size() {
        for index in (0..5_000).chain([999_999, 1_000_000, 9_999_999]) {
            assert_eq!(flat(index).as_bytes().len(), FLAT_BYTES, "flat {index}");
            assert_eq!(two(index).as_bytes().len(), TWO_BYTES, "two {index}");
        }
        assert_eq!(marker().as_bytes().len(), FLAT_BYTES);
    }

    #[test]
    fn flat_has_twelve_fields() {
        assert_eq!(flat(7).iter().count(), 12);
    }

    #[test]
    fn ids_ascend() {
        assert!((0..200_000).all(|index| id(index) < id(index + 1)));
    }
}
