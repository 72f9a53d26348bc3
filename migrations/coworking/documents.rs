//! Documents from a seed, as an application of some years has them: fields that came later, numbers and dates that are text, ids of
//! three types in one collection, ids that are written as text, ids twice in an array, and ids of documents that are not there.

use bson::oid::ObjectId;
use bson::{Bson, Decimal128, Document, doc};

use super::ciphers;
use super::model::{Form, Kind, Model, Needs, place, spec};
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
/// Fields that nobody has asked for; one has no path.
pub(super) const MORE: [&str; 5] = ["legacyId", "mixed", "history", "with.a.dot", ""];
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
    pub(super) fn id(model: Model, index: u32) -> Bson {
        let number = place(model);
        let object = || {
            let mut bytes = [0; 12];
            bytes[..4].copy_from_slice(&(0x6400_0000 + index / 8).to_be_bytes());
            bytes[4] = number as u8;
            bytes[8..].copy_from_slice(&index.to_be_bytes());
            Bson::ObjectId(ObjectId::from_bytes(bytes))
        };
        match spec(model).ids {
            Form::Mixed if index % 9 == 4 => Bson::Int32(index as i32),
            Form::Mixed if index % 9 == 7 => format!("old-{index}").into(),
            Form::Object | Form::Mixed => object(),
            Form::Text(start) => format!("{start}{index}").into(),
            Form::Long => Bson::Int64((1 << 40) + i64::from(index)),
            Form::Double => Bson::Double(f64::from(index)),
        }
    }

    /// A document. `round` tells how often it was made again; `email` is the number of a user's address.
    pub(super) fn document(&self, model: Model, index: u32, round: u64, email: u32) -> Document {
        let mut chance = Chance::of(self.seed, (place(model) as u64) << 32 | round, u64::from(index));
        let mut document = doc! {"_id": Self::id(model, index)};
        for column in spec(model).columns {
            let value = match column.kind {
                Kind::Email => Some(address(&mut chance, email)),
                Kind::Rest => {
                    for field in MORE {
                        if chance.percent(40) {
                            document.insert(field, anything(&mut chance));
                        }
                    }
                    None
                }
                Kind::Subject(_, word) => {
                    if let Some(kind) = subject(index) {
                        document.insert("subjectType", kind);
                    }
                    (subject(index) == Some(word))
                        .then(|| self.value(&mut chance, model, index, column.kind))
                        .flatten()
                }
                kind => self.value(&mut chance, model, index, kind),
            };
            let Some(value) = value else { continue };
            match column.field.split_once('.') {
                None => {
                    document.insert(column.field, value);
                }
                Some((outer, inner)) => {
                    if document.get_document(outer).is_err() {
                        document.insert(outer, Document::new());
                    }
                    if let Ok(within) = document.get_document_mut(outer) {
                        within.insert(inner, value);
                    }
                }
            }
        }
        for junction in spec(model).junctions {
            if let Some(ids) = self.ids(&mut chance, junction.to) {
                document.insert(junction.field, ids);
            }
        }
        document
    }

    /// An array of ids, or what is there instead of one.
    pub(super) fn ids(&self, chance: &mut Chance, to: Model) -> Option<Bson> {
        match chance.below(100) {
            0..20 => return None,
            20..30 => return Some(Bson::Null),
            30..45 => return Some(Bson::Array(Vec::new())),
            _ => {}
        }
        let mut ids: Vec<Bson> = (0..=chance.below(4)).map(|_| self.some(chance, to, Needs::May)).collect();
        if chance.percent(25) {
            // Once as an id and once as text is twice the same too.
            let again = chance.pick(&ids).clone();
            ids.push(match again {
                Bson::ObjectId(id) if chance.percent(50) => id.to_hex().into(),
                again => again,
            });
        }
        if chance.percent(10) {
            ids.push(Bson::Null);
        }
        chance.shuffle(&mut ids);
        Some(Bson::Array(ids))
    }

    /// The id of some document of a model; of two in a hundred there is none.
    pub(super) fn some(&self, chance: &mut Chance, model: Model, needs: Needs) -> Bson {
        let more = if needs == Needs::Sure { 0 } else { (self.documents / 50).max(1) };
        let index = chance.below(u64::from(self.documents + more)) as u32;
        written(chance, Self::id(model, index))
    }

    fn refer(&self, chance: &mut Chance, to: Model, needs: Needs) -> Option<Bson> {
        match chance.below(100) {
            _ if needs != Needs::May => {}
            0..12 => return None,
            12..20 => return Some(Bson::Null),
            20..25 => return Some(if chance.percent(50) { "" } else { "  " }.into()),
            25..27 => return Some("nobody".into()),
            _ => {}
        }
        Some(self.some(chance, to, needs))
    }

    /// A field's value; none where the document does not have the field.
    pub(super) fn value(&self, chance: &mut Chance, model: Model, index: u32, kind: Kind) -> Option<Bson> {
        let needed = matches!(
            kind,
            Kind::Required
                | Kind::Fixed(_)
                | Kind::Email
                | Kind::Amount
                | Kind::TimeRequired
                | Kind::Ref(..)
                | Kind::Peer(_)
                | Kind::Token
                | Kind::Sealed(false)
                | Kind::Refs(_)
                | Kind::LookBack(..)
        );
        if !needed {
            match chance.below(100) {
                0..12 => return None,
                12..20 => return Some(Bson::Null),
                _ => {}
            }
        }
        let looked_up = |chance: &mut Chance, of: Model| match chance.below(20) {
            0 => "".into(),
            _ => self.some(chance, of, Needs::May),
        };
        Some(match kind {
            Kind::Text if chance.percent(5) => Bson::Int32(chance.below(100_000) as i32),
            Kind::Text | Kind::Required => text(chance).into(),
            Kind::Trimmed => match chance.below(4) {
                0 => " \t ".into(),
                1 => format!("  {} ", text(chance)).into(),
                _ => text(chance).into(),
            },
            Kind::Email => address(chance, index),
            Kind::Fixed(start) => fixed(start, index).into(),
            Kind::Loose if chance.percent(15) => (*chance.pick(&["n/a", "", "about ten"])).into(),
            Kind::Whole | Kind::WholeOr(_) | Kind::Loose => whole(chance, -50, 100_000),
            Kind::Percent => whole(chance, 0, 100),
            Kind::Digit => whole(chance, 0, 6),
            Kind::Clamped => whole(chance, -40_000, 40_000),
            Kind::Decimal(_) | Kind::DecimalOr(..) => money(chance, -5_000, 90_000_000, true),
            Kind::Rate => money(chance, 0, 9_999, true),
            Kind::Amount => money(chance, if model == "ledger" { -50_000 } else { 0 }, 90_000, false),
            Kind::FlagOr(_) => flag(chance),
            Kind::LooseTime if chance.percent(15) => {
                (*chance.pick(&["0000-00-00", "soon", "31/12/2019"])).into()
            }
            Kind::Time | Kind::TimeRequired | Kind::LooseTime => time(chance),
            Kind::Day => day(chance),
            Kind::Json => json(chance),
            Kind::Inet => match chance.below(6) {
                0 => "unknown".into(),
                _ => format!("10.0.{}.{}", chance.below(256), chance.below(256)).into(),
            },
            Kind::Texts => Bson::Array(
                (0..chance.below(4))
                    .map(|_| match chance.percent(20) {
                        true => Self::id("location", chance.below(1_000) as u32),
                        false => text(chance).into(),
                    })
                    .collect(),
            ),
            Kind::OneOf(names) => match chance.below(10) {
                0 => "something else".into(),
                _ => (*chance.pick(names)).into(),
            },
            Kind::Label(labels, ..) => match chance.below(10) {
                0 => "neither of these".into(),
                1 => format!("{}  ", chance.pick(labels).0).into(),
                _ => chance.pick(labels).0.into(),
            },
            Kind::Ref(to, needs) => return self.refer(chance, to, needs),
            Kind::Subject(to, _) => return self.refer(chance, to, Needs::May),
            Kind::Peer(to) => match Self::id(to, index) {
                Bson::ObjectId(id) if chance.percent(30) => id.to_hex().into(),
                id => id,
            },
            Kind::Refs(to) => return self.ids(chance, to),
            Kind::Currency => match chance.below(12) {
                0 => " ".into(),
                1 => "ZZZ".into(),
                2 => format!(" C{} ", chance.below(u64::from(self.documents))).into(),
                _ => format!("C{}", chance.below(u64::from(self.documents))).into(),
            },
            Kind::Look(of, ..) | Kind::LookLabel(of, ..) | Kind::LookJson(of, _) | Kind::SpaceType(of, _) => {
                looked_up(chance, of)
            }
            Kind::Sealed(true) if chance.percent(8) => "not encrypted".into(),
            Kind::Sealed(_) => ciphers::seal(&plain(chance)).into(),
            Kind::Token => plain(chance).into(),
            Kind::LookBack(..) | Kind::Rest => return None,
        })
    }
}

/// What notes are about by their number. One in ten is about something that has no table.
pub(super) fn subject(index: u32) -> Option<&'static str> {
    match index % 20 {
        0..=11 => Some("contact"),
        12..=17 => Some("organisation"),
        18 => Some("spaceship"),
        _ => None,
    }
}

/// As an id, or in another form of the same.
fn written(chance: &mut Chance, id: Bson) -> Bson {
    match (chance.below(20), id) {
        (0 | 1, Bson::ObjectId(id)) => id.to_hex().into(),
        (2, Bson::ObjectId(id)) => id.to_hex().to_uppercase().into(),
        (0..5, Bson::Int32(number)) => Bson::Int64(number.into()),
        (5..10, Bson::Int32(number)) => Bson::Double(number.into()),
        (0..10, Bson::Double(number)) => Bson::Int32(number as i32),
        (_, id) => id,
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

/// What other systems call it: leading zeros, outer space and letters of both sizes are a part of it.
fn fixed(start: &str, index: u32) -> String {
    match index % 4 {
        0 => format!("{start}-{index:08}"),
        1 => format!("{start}-{index}a"),
        2 => format!("{start}-{index}A"),
        _ => format!(" {start}/{index} "),
    }
}

/// A secret, which is to be seen nowhere.
fn plain(chance: &mut Chance) -> String {
    format!("kanari-{:04}", chance.below(10_000))
}

fn text(chance: &mut Chance) -> String {
    let words: Vec<&str> = (0..=chance.below(3)).map(|_| *chance.pick(&WORDS)).collect();
    words.join(" ")
}

fn whole(chance: &mut Chance, low: i64, high: i64) -> Bson {
    let number = chance.between(low, high);
    match chance.below(4) {
        0 => Bson::Int64(number),
        1 => Bson::Double(number as f64),
        2 => number.to_string().into(),
        _ => Bson::Int32(number as i32),
    }
}

fn money(chance: &mut Chance, low: i64, high: i64, more_digits: bool) -> Bson {
    let cents = chance.between(low, high);
    let digits =
        format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100);
    let decimal = |digits: String| digits.parse::<Decimal128>().map_or(Bson::Null, Bson::Decimal128);
    match chance.below(5) {
        0 => digits.into(),
        1 => Bson::Int32((cents / 100) as i32),
        // More digits than the column has.
        2 if more_digits => decimal(format!("{digits}4")),
        3 => decimal(digits),
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

/// Of the field that is one thing here and another there.
pub(super) fn anything(chance: &mut Chance) -> Bson {
    match chance.below(4) {
        0 => whole(chance, -9, 99),
        1 => flag(chance),
        _ => json(chance),
    }
}

fn json(chance: &mut Chance) -> Bson {
    match chance.below(4) {
        0 => text(chance).into(),
        1 => Bson::Array(
            (0..chance.below(3)).map(|_| doc! {"id": whole(chance, 0, 9), "text": text(chance)}.into()).collect(),
        ),
        2 => Bson::Array(Vec::new()),
        _ => doc! {
            "at": bson::DateTime::from_millis(chance.between(0, 50 * YEAR)), "by": World::id("location", 1), "none": Bson::Null,
            "amounts": [money(chance, 0, 9_999, true), money(chance, -9, 9, true)], "deep": {"": text(chance), "flag": flag(chance)},
        }
        .into(),
    }
}
