//! The documents: what each holds, how one is made from chance, and how one is changed by an update.
//!
//! Every document has `team`: references never leave a team, so a writer that owns a team knows everything that
//! its documents point to. And `v`, which grows with every change of an `_id`.

use bson::oid::ObjectId;
use bson::{Binary, Bson, DateTime, Document, doc, spec::BinarySubtype};

use super::Kind;
use crate::Chance;

/// Teams in a generated database.
const TEAMS: u64 = 64;
const DAY: i64 = 86_400_000;
/// 2015 to 2026 or so.
const SPAN: (i64, i64) = (1_420_070_400_000, 1_780_000_000_000);

const WORDS: &[&str] = &[
    "Harbour",
    "Lantern",
    "Ålesund",
    "Workshop",
    "Yard",
    "Müller",
    "Quay",
    "Tide",
    "Anchor",
    "Zoë",
    "Buoy",
    "Ferry",
    "Mast",
    "Keel",
    "Rope & Sons",
    "O'Neil",
    "Sail",
    "Pier",
    "Dock",
    "Łódź",
];
const CITIES: &[&str] = &["Bergen", "Porto", "Zürich", "Gdańsk", "Leith", "Cork", "Trieste"];
const LABELS: &[&str] =
    &["vip", "late payer", "board", "night owl", "{curly}", "a,b", "say \"hi\"", "null", "été"];

/// A database that is the same for the same seed and size.
#[derive(Clone, Copy, Debug)]
pub struct World {
    seed: u64,
    documents: u64,
}

impl World {
    /// Of so many documents in all collections together.
    pub fn new(seed: u64, documents: u64) -> Self {
        Self { seed, documents }
    }

    /// Documents of a kind.
    pub fn len(&self, kind: Kind) -> u64 {
        let share = self.documents / 5;
        share + u64::from((kind as u64) < self.documents % 5)
    }

    /// True where a database of this size has no document of a kind, so that others cannot refer to one.
    pub fn is_empty(&self) -> bool {
        self.documents < 5
    }

    fn teams(&self) -> u64 {
        TEAMS.min((self.documents / 5 / 4).max(1))
    }

    /// The `_id` of the document number `index`.
    pub fn id(&self, kind: Kind, index: u64) -> Bson {
        match kind {
            Kind::Organisation => Bson::String(match index % 8 {
                7 => format!("örg/{index}"),
                _ => format!("org-{index:06}"),
            }),
            Kind::Ledger if index.is_multiple_of(2) => Bson::Int32(index as i32 + 1),
            Kind::Ledger => Bson::Int64(5_000_000_000 + index as i64 * 1_000_003),
            _ => object_id(1_600_000_000 + index as u32 * 7, kind, 0, 0, index as u32).into(),
        }
    }

    /// The document number `index`.
    pub fn document(&self, kind: Kind, index: u64) -> Document {
        let mut chance = Chance::of(self.seed, kind as u64, index);
        let teams = self.teams();
        let team = index % teams;
        // Somebody of the same team, among those that every collection has.
        let share = self.documents / 5;
        let mates = share / teams + u64::from(team < share % teams);
        let mate = |chance: &mut Chance, kind| self.id(kind, team + teams * chance.below(mates));
        let head = Head { id: self.id(kind, index), team: team as i32, v: 1 };
        match kind {
            Kind::Organisation => organisation(&mut chance, head),
            Kind::User => {
                let organisation = (!chance.percent(5)).then(|| mate(&mut chance, Kind::Organisation));
                user(&mut chance, head, organisation)
            }
            Kind::Booking => {
                let organiser = mate(&mut chance, Kind::User);
                let organisation = mate(&mut chance, Kind::Organisation);
                let guests = (0..chance.below(5)).map(|_| mate(&mut chance, Kind::User)).collect();
                let slots = (0..chance.below(3)).map(|at| slot(&mut chance, &format!("S{at}"))).collect();
                booking(&mut chance, head, Booking { organiser, organisation, guests, slots })
            }
            Kind::Invoice => {
                let organisation = mate(&mut chance, Kind::Organisation);
                let user = chance.percent(70).then(|| mate(&mut chance, Kind::User));
                let lines =
                    (0..1 + chance.below(3)).map(|at| line(&mut chance, &format!("SKU-{at}"))).collect();
                invoice(&mut chance, head, Invoice { organisation, user, lines })
            }
            Kind::Ledger => {
                let invoice = chance.percent(70).then(|| mate(&mut chance, Kind::Invoice));
                let user = chance.percent(60).then(|| mate(&mut chance, Kind::User));
                ledger(&mut chance, head, invoice, user)
            }
        }
    }
}

/// An ObjectId that no other part makes.
pub(super) fn object_id(seconds: u32, kind: Kind, run: u16, writer: u8, count: u32) -> ObjectId {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&seconds.to_be_bytes());
    bytes[4] = kind as u8;
    bytes[5..7].copy_from_slice(&run.to_be_bytes());
    bytes[7] = writer;
    bytes[8..].copy_from_slice(&count.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// What every document begins with.
pub(super) struct Head {
    pub(super) id: Bson,
    pub(super) team: i32,
    pub(super) v: i64,
}

impl Head {
    fn document(self) -> Document {
        doc! {"_id": self.id, "v": self.v, "team": self.team}
    }
}

/// What a booking refers to and is made of.
pub(super) struct Booking {
    pub(super) organiser: Bson,
    pub(super) organisation: Bson,
    pub(super) guests: Vec<Bson>,
    pub(super) slots: Vec<Document>,
}

/// What an invoice refers to and is made of.
pub(super) struct Invoice {
    pub(super) organisation: Bson,
    pub(super) user: Option<Bson>,
    pub(super) lines: Vec<Document>,
}

fn words(chance: &mut Chance, count: u64) -> String {
    (0..count).map(|_| *chance.pick(WORDS)).collect::<Vec<_>>().join(" ")
}

fn time(chance: &mut Chance) -> DateTime {
    DateTime::from_millis(chance.between(SPAN.0, SPAN.1))
}

fn day(chance: &mut Chance) -> DateTime {
    DateTime::from_millis(chance.between(-3_000, 20_000) * DAY)
}

fn decimal(chance: &mut Chance, scale: usize) -> Bson {
    let units = chance.between(-9_999_999, 99_999_999);
    let sign = if units < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", units.abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    let text = format!("{sign}{whole}{point}{fraction}");
    text.parse().map_or(Bson::Null, Bson::Decimal128)
}

fn decimal_text(chance: &mut Chance) -> Bson {
    Bson::String(format!("{}.{:02}", chance.between(0, 99_999), chance.below(100)))
}

/// Quarters are exact in a double, so there is one right answer for the digits.
fn quarters(chance: &mut Chance) -> Bson {
    Bson::Double(chance.between(-4_000, 40_000) as f64 / 4.0)
}

/// Money as old systems keep it: today like this, last year like that.
fn money(chance: &mut Chance) -> Bson {
    match chance.below(4) {
        0 => decimal(chance, 2),
        1 => decimal_text(chance),
        2 => quarters(chance),
        _ => Bson::Int32(chance.between(0, 10_000) as i32),
    }
}

/// A field that has another type in each document.
fn mixed(chance: &mut Chance) -> Bson {
    match chance.below(9) {
        0 => words(chance, 2).into(),
        1 => Bson::Int64(chance.between(i64::MIN / 4, i64::MAX / 4)),
        2 => quarters(chance),
        3 => decimal(chance, 3),
        4 => chance.percent(50).into(),
        5 => time(chance).into(),
        6 => Bson::Binary(Binary {
            subtype: BinarySubtype::Generic,
            bytes: chance.next().to_be_bytes()[..chance.below(9) as usize].to_vec(),
        }),
        7 => Bson::Array(vec![chance.between(0, 9).into(), words(chance, 1).into(), Bson::Null]),
        _ => doc! {
            "by": ObjectId::from_bytes([chance.below(256) as u8; 12]), "a.b": "dots", "quote\"": "line\nbreak\t\\",
            "deep": { "list": [{ "n": chance.between(0, 99) }, []], "none": {} },
        }
        .into(),
    }
}

fn kind_of_organisation(chance: &mut Chance) -> &'static str {
    chance.pick::<&str>(&["company", "company", "coop", "charity", "guild"])
}

fn email(chance: &mut Chance) -> String {
    let local = chance.pick(&["Ada", "bob", "Chloé", "dan.o", "EVE"]);
    let padded = if chance.percent(10) { "  " } else { "" };
    format!("{padded}{local}.{}@Example.com{padded}", chance.below(1_000_000))
}

fn age(chance: &mut Chance) -> Bson {
    match chance.below(20) {
        0 => Bson::Int64(70_000 + chance.between(0, 9)),
        1 => Bson::Int64(-5_000_000_000),
        2 => Bson::Double(chance.between(18, 90) as f64),
        3 => Bson::String(chance.between(18, 90).to_string()),
        _ => Bson::Int32(chance.between(18, 90) as i32),
    }
}

fn state_of_user(chance: &mut Chance) -> &'static str {
    chance.pick::<&str>(&["A", "A", "A", "B", "I", "X"])
}

fn tag(chance: &mut Chance) -> Document {
    doc! {"name": *chance.pick(LABELS), "weight": chance.between(0, 9) as i32}
}

pub(super) fn organisation(chance: &mut Chance, head: Head) -> Document {
    let mut document = head.document();
    let founded: Bson = match chance.percent(30) {
        true => format!(
            "{}-{:02}-{:02}",
            chance.between(1901, 2024),
            chance.between(1, 12),
            chance.between(1, 28)
        )
        .into(),
        false => day(chance).into(),
    };
    let domains: Vec<Bson> =
        (0..chance.below(3)).map(|at| format!("d{at}.{}.example", chance.below(9_999)).into()).collect();
    document.extend(doc! {
        "name": words(chance, 3),
        "kind": kind_of_organisation(chance),
        "address": {
            "street": format!("{} {}", chance.pick(WORDS), chance.below(200)),
            "city": *chance.pick(CITIES),
            "zip": format!("{:05}", chance.below(100_000)),
            "country": "NO",
        },
        "founded": founded,
        "vat": *chance.pick(&["  ", "", " DE811907980 ", "NO916634773"]),
        "credit": money(chance),
        "domains": domains,
        "active": chance.percent(90),
        "createdAt": time(chance),
        "source": "import-2019",
        "size": chance.between(1, 5_000) as i32,
        "remarks": words(chance, 14),
    });
    if chance.percent(80) {
        document.insert("meta", mixed(chance));
    }
    document
}

pub(super) fn user(chance: &mut Chance, head: Head, organisation: Option<Bson>) -> Document {
    let mut document = head.document();
    let tags: Vec<_> = (0..chance.below(4)).map(|_| Bson::Document(tag(chance))).collect();
    let scale = chance.below(5) as usize;
    document.extend(doc! {
        "name": words(chance, 2),
        "contact": { "email": email(chance), "phone": *chance.pick(&["", " +47 555 01 23 ", "+41 44 668 18 00"]) },
        "age": age(chance),
        "balance": decimal(chance, scale),
        "active": chance.percent(90),
        "createdAt": time(chance),
        "born": day(chance),
        "state": state_of_user(chance),
        "settings": {
            "theme": *chance.pick(&["dark", "light"]), "pageSize": chance.between(10, 100) as i32,
            "seen": time(chance), "ratio": quarters(chance),
        },
        "source": "signup",
        "about": words(chance, 9),
        "score": quarters(chance),
    });
    if let Some(organisation) = organisation {
        document.insert("organisation", organisation);
    }
    if chance.percent(80) {
        document.insert("tags", tags);
    }
    if chance.percent(50) {
        document.insert("nick", words(chance, 1));
    }
    document
}

/// One slot of a booking. Its code is its key.
pub(super) fn slot(chance: &mut Chance, code: &str) -> Document {
    doc! {
        "code": code, "room": *chance.pick(WORDS), "from": time(chance), "seats": chance.between(1, 20) as i32,
        "price": money(chance),
    }
}

pub(super) fn booking(chance: &mut Chance, head: Head, parts: Booking) -> Document {
    let mut document = head.document();
    document.extend(doc! {
        "title": words(chance, 3),
        "organiser": parts.organiser,
        "organisation": parts.organisation,
        "state": *chance.pick(&["open", "confirmed", "cancelled"]),
        "from": time(chance),
        "to": time(chance),
        "allDay": chance.percent(20),
        "guests": parts.guests,
        "slots": parts.slots,
    });
    if chance.percent(50) {
        document.insert("note", words(chance, 5));
    }
    if chance.percent(70) {
        document.insert("data", mixed(chance));
    }
    document
}

/// One line of an invoice. Its sku is its key.
pub(super) fn line(chance: &mut Chance, sku: &str) -> Document {
    doc! {
        "sku": sku, "title": words(chance, 2), "qty": chance.between(1, 9) as i32, "price": money(chance),
        "taxed": chance.percent(80),
    }
}

pub(super) fn invoice(chance: &mut Chance, head: Head, parts: Invoice) -> Document {
    let mut document = head.document();
    document.extend(doc! {
        "number": format!("INV-{}", chance.below(10_000_000)),
        "organisation": parts.organisation,
        "currency": *chance.pick(&["EUR", "USD", "CHF"]),
        "issued": time(chance),
        "due": day(chance),
        "paid": chance.percent(60),
        "total": decimal(chance, 2),
        "tax": decimal_text(chance),
        "lines": parts.lines,
        "terms": format!("30 days, {}", words(chance, 7)),
    });
    if let Some(user) = parts.user {
        document.insert("user", user);
    }
    if chance.percent(50) {
        document.insert("discount", quarters(chance));
    }
    if chance.percent(30) {
        document.insert("remark", words(chance, 4));
    }
    document
}

pub(super) fn ledger(chance: &mut Chance, head: Head, invoice: Option<Bson>, user: Option<Bson>) -> Document {
    let mut document = head.document();
    document.extend(doc! {
        "account": format!("{:04}-{:02}", chance.below(10_000), chance.below(100)),
        "kind": *chance.pick(&["D", "C"]),
        "amount": money(chance),
        "at": time(chance),
    });
    if let Some(invoice) = invoice {
        document.insert("invoice", invoice);
    }
    if let Some(user) = user {
        document.insert("user", user);
    }
    if chance.percent(80) {
        document.insert("memo", words(chance, 30));
    }
    if chance.percent(80) {
        document.insert("flags", mixed(chance));
    }
    document
}

/// An update (`$set`, `$inc`, `$unset`) of fields that refer to nothing.
pub(super) fn change(chance: &mut Chance, kind: Kind) -> Document {
    let set = |name: &str, value: Bson| doc! {"$set": {name: value}};
    match (kind, chance.below(8)) {
        (Kind::Organisation, 0) => set("address.city", (*chance.pick(CITIES)).into()),
        (Kind::Organisation, 1) => set("credit", money(chance)),
        (Kind::Organisation, 2) => set("meta", mixed(chance)),
        (Kind::Organisation, 3) => doc! {"$unset": {"meta": "", "vat": ""}},
        (Kind::Organisation, 4) => doc! {"$inc": {"size": 1}, "$set": {"kind": kind_of_organisation(chance)}},
        (Kind::Organisation, 5) => doc! {"$push": {"domains": format!("new{}.example", chance.below(99))}},
        (Kind::Organisation, 6) => set("domains", Bson::Array(vec!["only.example".into()])),
        (Kind::Organisation, _) => set("name", words(chance, 2).into()),
        (Kind::User, 0) => set("contact.email", email(chance).into()),
        (Kind::User, 1) => doc! {"$inc": {"balance": decimal(chance, 2), "score": 0.25}},
        (Kind::User, 2) => doc! {"$unset": {"contact.phone": "", "settings": "", "born": ""}},
        (Kind::User, 3) => doc! {"$push": {"tags": tag(chance)}},
        (Kind::User, 4) => doc! {"$unset": {"tags": "", "nick": ""}, "$set": {"age": age(chance)}},
        (Kind::User, 5) => set("settings.theme", (*chance.pick(&["dark", "light", "sepia"])).into()),
        (Kind::User, 6) => doc! {"$set": {"state": state_of_user(chance), "born": day(chance)}},
        (Kind::User, _) => doc! {"$set": {"name": words(chance, 2), "nick": words(chance, 1)}},
        (Kind::Booking, 0 | 1) => set("data", mixed(chance)),
        (Kind::Booking, 2) => doc! {"$unset": {"data": "", "note": ""}},
        (Kind::Booking, 3 | 4) => set("state", (*chance.pick(&["open", "confirmed", "cancelled"])).into()),
        (Kind::Booking, 5) => set("note", words(chance, 3).into()),
        (Kind::Booking, _) => doc! {"$set": {"title": words(chance, 3), "to": time(chance)}},
        (Kind::Invoice, 0 | 1) => doc! {"$inc": {"total": decimal(chance, 2)}},
        (Kind::Invoice, 2) => doc! {"$unset": {"discount": "", "remark": ""}},
        (Kind::Invoice, 3) => doc! {"$set": {"discount": quarters(chance), "tax": decimal_text(chance)}},
        (Kind::Invoice, 4) => set("remark", words(chance, 2).into()),
        (Kind::Invoice, _) => doc! {"$set": {"paid": chance.percent(50), "due": day(chance)}},
        (Kind::Ledger, 0 | 1) => set("amount", money(chance)),
        (Kind::Ledger, 2) => doc! {"$unset": {"memo": "", "flags": ""}},
        (Kind::Ledger, 3) => set("flags", mixed(chance)),
        (Kind::Ledger, 4) => set("kind", (*chance.pick(&["D", "C"])).into()),
        (Kind::Ledger, _) => doc! {"$set": {"memo": words(chance, 4), "at": time(chance)}},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_database_of_the_promised_size() {
        let (world, again) = (World::new(3, 5_000), World::new(3, 5_000));
        let (mut bytes, mut count) = (0, 0);
        for kind in Kind::ALL {
            for index in 0..world.len(kind) {
                let document = world.document(kind, index);
                assert_eq!(document, again.document(kind, index));
                bytes += document.to_vec().expect("a document").len();
                count += 1;
            }
        }
        assert_eq!(count, 5_000);
        let mean = bytes / count;
        assert!((400..480).contains(&mean), "documents of {mean} bytes");
        assert_ne!(world.document(Kind::User, 1), World::new(4, 5_000).document(Kind::User, 1));
    }
}
