//! Documents from a seed, as an application of some years has them: fields that came later, numbers that are text, ids that are
//! text, ids twice in an array, and ids of documents that are not there.

use bson::oid::ObjectId;
use bson::{Bson, Decimal128, Document, doc};

use super::model::{Kind, Model, Needs};
use crate::Chance;

const WORDS: [&str; 12] = [
    "Žižkov",
    "O'Hara",
    "north",
    "a \"quoted\" one",
    "line\nbreak",
    "back\\slash",
    "Müller & Söhne",
    "日本",
    "42",
    "null",
    "x",
    "long ago",
];
const YEAR: i64 = 31_557_600_000;

/// How many documents of each model there are, and from which seed they are made.
#[derive(Clone, Copy, Debug)]
pub struct World {
    pub(super) seed: u64,
    /// Of each model.
    pub(super) documents: u32,
}

impl World {
    /// So many documents of each model.
    pub fn new(seed: u64, documents: u32) -> Self {
        Self { seed, documents: documents.max(1) }
    }

    /// The `_id` of a model's document by its number.
    pub(super) fn id(model: Model, index: u32) -> ObjectId {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&(0x6400_0000 + index / 8).to_be_bytes());
        bytes[4] = model as u8;
        bytes[8..].copy_from_slice(&index.to_be_bytes());
        ObjectId::from_bytes(bytes)
    }

    /// A document. `round` tells how often it was made again; `email` is the number of a user's address.
    pub(super) fn document(&self, model: Model, index: u32, round: u64, email: u32) -> Document {
        let mut chance = Chance::of(self.seed, (model as u64) << 32 | round, u64::from(index));
        let mut document = doc! {"_id": Self::id(model, index)};
        for column in model.spec().columns {
            let value = match column.kind {
                Kind::Email => Some(address(&mut chance, email)),
                kind => self.value(&mut chance, model, index, kind),
            };
            if let Some(value) = value {
                document.insert(column.field, value);
            }
        }
        for junction in model.spec().junctions {
            if let Some(ids) = self.ids(&mut chance, junction.to) {
                document.insert(junction.field, ids);
            }
        }
        document
    }

    /// An array of ids, or what is there instead of one.
    fn ids(&self, chance: &mut Chance, to: Model) -> Option<Bson> {
        match chance.below(100) {
            0..20 => return None,
            20..30 => return Some(Bson::Null),
            30..45 => return Some(Bson::Array(Vec::new())),
            _ => {}
        }
        let mut ids: Vec<Bson> = (0..=chance.below(4)).map(|_| self.some(chance, to)).collect();
        if chance.percent(25) {
            // Once as an id and once as text is twice the same too.
            let again = chance.pick(&ids).clone();
            ids.push(match again {
                Bson::ObjectId(id) if chance.percent(50) => id.to_hex().into(),
                again => again,
            });
            chance.shuffle(&mut ids);
        }
        Some(Bson::Array(ids))
    }

    /// The id of some document of a model; of two in a hundred there is none.
    pub(super) fn some(&self, chance: &mut Chance, model: Model) -> Bson {
        let more = (self.documents / 50).max(1);
        let index = chance.below(u64::from(self.documents + more)) as u32;
        written(chance, Self::id(model, index))
    }

    fn refer(&self, chance: &mut Chance, from: Model, index: u32, to: Model, needs: Needs) -> Option<Bson> {
        // Who owns an organisation mostly belongs to it. Otherwise what each requires would be a way without an end, and one
        // that is missing would hide nearly all.
        let mutual =
            matches!((from, to), (Model::Users, Model::Organisations) | (Model::Organisations, Model::Users));
        if needs == Needs::Must && mutual && chance.percent(90) {
            return Some(written(chance, Self::id(to, index)));
        }
        match chance.below(100) {
            _ if needs == Needs::Must => {}
            0..12 => return None,
            12..20 => return Some(Bson::Null),
            20..25 if needs == Needs::May => return Some(if chance.percent(50) { "" } else { "  " }.into()),
            25..27 => return Some("nobody".into()),
            _ => {}
        }
        Some(self.some(chance, to))
    }

    /// A field's value; none where the document does not have the field.
    pub(super) fn value(&self, chance: &mut Chance, model: Model, index: u32, kind: Kind) -> Option<Bson> {
        let needed =
            matches!(kind, Kind::Required | Kind::Slug | Kind::Email | Kind::TimeRequired | Kind::Ref(..));
        if !needed {
            match chance.below(100) {
                0..12 => return None,
                12..20 => return Some(Bson::Null),
                _ => {}
            }
        }
        Some(match kind {
            Kind::Text if chance.percent(5) => Bson::Int32(chance.below(100_000) as i32),
            Kind::Text | Kind::Required => text(chance).into(),
            Kind::Trimmed => match chance.below(4) {
                0 => " \t ".into(),
                1 => format!("  {} ", text(chance)).into(),
                _ => text(chance).into(),
            },
            Kind::Email => address(chance, index),
            Kind::Slug => format!("organisation-{index}").into(),
            Kind::Whole | Kind::WholeOr(_) => whole(chance),
            Kind::Decimal => money(chance),
            Kind::Flag | Kind::FlagOr(_) => flag(chance),
            Kind::Time | Kind::TimeRequired => time(chance),
            Kind::Day => day(chance),
            Kind::Json => json(chance),
            Kind::Texts => {
                let item = |chance: &mut Chance| match chance.percent(20) {
                    true => Self::id(Model::Users, chance.below(1_000) as u32).into(),
                    false => text(chance).into(),
                };
                Bson::Array((0..chance.below(4)).map(|_| item(chance)).collect())
            }
            Kind::Label(labels, ..) => match chance.below(10) {
                0 => "neither of these".into(),
                1 => format!("{}  ", chance.pick(labels).0).into(),
                _ => chance.pick(labels).0.into(),
            },
            Kind::Ref(to, needs) => return self.refer(chance, model, index, to, needs),
        })
    }
}

/// As an id, or as its text.
fn written(chance: &mut Chance, id: ObjectId) -> Bson {
    match chance.below(20) {
        0 | 1 => id.to_hex().into(),
        2 => id.to_hex().to_uppercase().into(),
        _ => id.into(),
    }
}

/// A user's address: no two numbers give the same, however it is written.
pub(super) fn address(chance: &mut Chance, number: u32) -> Bson {
    match chance.below(3) {
        0 => format!("Person.{number}@Example.COM").into(),
        1 => format!(" person.{number}@example.com ").into(),
        _ => format!("person.{number}@example.com").into(),
    }
}

fn text(chance: &mut Chance) -> String {
    let words: Vec<&str> = (0..=chance.below(3)).map(|_| *chance.pick(&WORDS)).collect();
    words.join(" ")
}

fn whole(chance: &mut Chance) -> Bson {
    let number = chance.between(-50, 100_000);
    match chance.below(4) {
        0 => Bson::Int64(number),
        1 => Bson::Double(number as f64),
        2 => number.to_string().into(),
        _ => Bson::Int32(number as i32),
    }
}

fn money(chance: &mut Chance) -> Bson {
    let cents = chance.between(-5_000, 90_000_000);
    let digits =
        format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100);
    match chance.below(4) {
        0 => digits.into(),
        1 => Bson::Int32((cents / 100) as i32),
        // More digits than the column has.
        2 => format!("{digits}5").parse::<Decimal128>().map_or(Bson::Null, Bson::Decimal128),
        _ => Bson::Double(cents as f64 / 100.0),
    }
}

fn flag(chance: &mut Chance) -> Bson {
    match chance.below(5) {
        0 => Bson::Int32(chance.below(2) as i32),
        1 => Bson::Double(chance.below(2) as f64),
        2 => (*chance.pick(&["yes", "No", "TRUE", "false", "on", "0", " 1 "])).into(),
        _ => Bson::Boolean(chance.percent(50)),
    }
}

fn time(chance: &mut Chance) -> Bson {
    match chance.below(6) {
        0 => format!("{}T{:02}:08:09.{:03}Z", date(chance), chance.below(24), chance.below(1_000)).into(),
        1 => date(chance).into(),
        _ => bson::DateTime::from_millis(chance.between(10 * YEAR, 55 * YEAR)).into(),
    }
}

fn day(chance: &mut Chance) -> Bson {
    match chance.below(2) {
        0 => date(chance).into(),
        _ => bson::DateTime::from_millis(chance.between(-40 * YEAR, 55 * YEAR)).into(),
    }
}

fn date(chance: &mut Chance) -> String {
    format!("{}-{:02}-{:02}", chance.between(1980, 2026), chance.between(1, 12), chance.between(1, 28))
}

fn json(chance: &mut Chance) -> Bson {
    match chance.below(4) {
        0 => text(chance).into(),
        1 => Bson::Array((0..chance.below(3)).map(|_| doc! {"id": whole(chance), "text": text(chance)}.into()).collect()),
        2 => Bson::Array(Vec::new()),
        _ => doc! {
            "at": bson::DateTime::from_millis(chance.between(0, 50 * YEAR)), "by": World::id(Model::Users, 1), "none": Bson::Null,
            "amounts": [money(chance), money(chance)], "deep": {"": text(chance), "flag": flag(chance)},
        }
        .into(),
    }
}
