//! Records from a seed, with what people type: names in any case with blanks around them, dimensions and budgets as text, columns that
//! are empty, e-mail addresses that occur in many records.

use serde_json::{Value, json};

use super::tables::{
    AREAS, BERTH_STATES, CATEGORIES, CLIENT_TYPES, CONTACT_BY, CURRENCIES, DEPOSITS, EOI, INVOICE_STATES,
    LEADS, MOORINGS, PAID_BY, SOURCES, STAGES, TAGS,
};
use crate::Chance;

const FIRST: &[&str] =
    &["Anna", "Björn", "Chloé", "David", "Eva", "François", "Giulia", "Hans", "Inès", "José"];
const LAST: &[&str] =
    &["Smith", "de Vries", "O'Brien", "Müller", "Rossi", "Dubois", "Ångström", "Lee", "Novák"];
const HONORIFICS: &[&str] = &["Mr. ", "Mrs ", "Dr. ", "Capt. "];
const PLACES: &[&str] = &["Monaco", "London ", "  Antibes", "Genève", "Palma de Mallorca", "Anguilla"];
const YACHTS: &[&str] =
    &["Sea Breeze", "La \"Belle\"", "Wind, Wave & Wine", "Ōkami", "M/Y Serenity", " Nauti Buoy "];
const SHOPS: &[&str] = &["Café du Port", "Chandlery & Co", "  Harbour Shop", "ONLINE STORE", "Fuel Dock 7"];
const COMMENTS: &[&str] = &[
    "Wants to be near the club.\nCall after 6 pm.",
    "said: \"maybe next year\"",
    "   ",
    "prefers port side; draught 2,5 m — check!",
    "\tasked for a discount",
];

/// One of these, or nothing so many times in a hundred.
fn maybe(chance: &mut Chance, empty: u64, some: &[&str]) -> Value {
    if chance.percent(empty) { Value::Null } else { json!(chance.pick(some)) }
}

/// Some of these, with commas between them.
fn several(chance: &mut Chance, some: &[&str]) -> Value {
    let chosen: Vec<&str> = some.iter().copied().filter(|_| chance.percent(35)).collect();
    if chosen.is_empty() { Value::Null } else { json!(chosen.join(",")) }
}

/// An amount with two digits, as a number of JSON.
fn money(chance: &mut Chance, most: u64) -> Value {
    json!(chance.below(most * 100) as f64 / 100.0)
}

fn day(chance: &mut Chance) -> String {
    format!("20{:02}-{:02}-{:02}", chance.between(22, 26), chance.between(1, 12), chance.between(1, 28))
}

fn clock(chance: &mut Chance) -> String {
    format!("{:02}:{:02}:{:02}", chance.below(24), chance.below(60), chance.below(60))
}

/// A moment, as the API takes it: with a zone of its own now and then.
fn moment(chance: &mut Chance) -> Value {
    let zone = chance.pick(&["+00:00", "+02:00", "-07:00"]);
    json!(format!("{} {}{zone}", day(chance), clock(chance)))
}

/// A moment inside JSON.
fn instant(chance: &mut Chance) -> Value {
    json!(format!("{}T{}Z", day(chance), clock(chance)))
}

fn name(chance: &mut Chance) -> String {
    let honorific = if chance.percent(20) { chance.pick(HONORIFICS) } else { "" };
    let name = format!("{honorific}{} {}", chance.pick(FIRST), chance.pick(LAST));
    match chance.below(6) {
        0 => name.to_uppercase(),
        1 => name.to_lowercase(),
        2 => format!("  {name} "),
        _ => name,
    }
}

fn email(chance: &mut Chance) -> String {
    let address =
        format!("{}{}@example.com", chance.pick(&["anna", "bob", "office", "captain"]), chance.below(90));
    match chance.below(5) {
        0 => address.to_uppercase(),
        1 => format!(" {address} "),
        _ => address,
    }
}

fn phone(chance: &mut Chance) -> String {
    let number = 100_000 + chance.below(900_000);
    match chance.below(3) {
        0 => format!("+33 6 {number}"),
        1 => format!("0044-{number} "),
        _ => format!("({number})"),
    }
}

/// Feet, feet and inches, metres, or no unit at all.
fn dimension(chance: &mut Chance, feet: i64) -> Value {
    let feet = chance.between(feet / 2, feet);
    json!(match chance.below(6) {
        0 => format!("{feet}'{}\"", chance.below(12)),
        1 => format!("{feet} ft"),
        2 => format!("{}.{}m", feet * 3 / 10, chance.below(10)),
        3 => format!(" {feet}"),
        4 => return Value::Null,
        _ => String::new(),
    })
}

fn files(chance: &mut Chance, what: &str, most: u64) -> Value {
    let count = chance.below(most + 1);
    if count == 0 {
        return Value::Null;
    }
    let file = |at: u64| {
        let (number, size) = (chance.below(1_000_000), chance.between(1_000, 9_000_000));
        let title = format!("{what} {at} ({number}).pdf");
        json!({"url": format!("https://files.example.com/{what}/{number}.pdf"), "title": title,
            "mimetype": "application/pdf", "size": size})
    };
    (1..=count).map(file).collect()
}

/// Who else can be reached. A value may occur twice: the last one counts.
fn contacts(chance: &mut Chance) -> Value {
    if chance.percent(40) {
        return Value::Null;
    }
    let contact = |_| {
        let kind = maybe(chance, 15, &["Assistant", "captain", "LAWYER"]);
        let value =
            if chance.percent(50) { phone(chance) } else { format!("crew{}@example.com", chance.below(3)) };
        json!({"kind": kind, "value": value})
    };
    (0..3).map(contact).collect()
}

fn notes(chance: &mut Chance) -> Value {
    let count = chance.below(4);
    if count == 0 {
        return if chance.percent(50) { Value::Null } else { json!([]) };
    }
    let note = |at| {
        json!({"id": format!("n{at}"), "author": maybe(chance, 20, &["Claire", " Matt ", ""]),
            "text": chance.pick(COMMENTS), "at": instant(chance)})
    };
    (1..=count).map(note).collect()
}

fn signers(chance: &mut Chance) -> Value {
    if chance.percent(60) {
        return Value::Null;
    }
    let signer = |at: u64| {
        let signed = chance.percent(60);
        json!({"key": format!("eoi/{at}"), "document": "EOI", "email": email(chance),
            "role": maybe(chance, 30, &["client", "seller", "approver"]), "signed": signed,
            "signed_at": if signed { instant(chance) } else { Value::Null }})
    };
    (1..=2).map(signer).collect()
}

/// What the form of the website sent: another shape in each record.
fn submission(chance: &mut Chance) -> Value {
    match chance.below(4) {
        0 => Value::Null,
        1 => json!({"utm": {"source": "google", "campaign": null}, "score": chance.below(100), "ok": true}),
        2 => json!(["a", 1.5, {"deep": [[], {}]}, null]),
        _ => {
            json!({"message": chance.pick(COMMENTS), "ip": "203.0.113.7", "ratio": chance.below(1000) as f64 / 8.0})
        }
    }
}

/// An interest, without its links.
pub(super) fn interest(chance: &mut Chance) -> Value {
    json!({
        "Full Name": if chance.percent(4) { json!(" ") } else { json!(name(chance)) },
        "Email": if chance.percent(12) { Value::Null } else { json!(email(chance)) },
        "Phone": if chance.percent(25) { Value::Null } else { json!(phone(chance)) },
        "Place of Residence": maybe(chance, 20, PLACES),
        "Preferred Contact": maybe(chance, 30, CONTACT_BY),
        "Source": maybe(chance, 10, SOURCES),
        "Client Type": several(chance, CLIENT_TYPES),
        "Contacts": contacts(chance),
        "Sales Process Level": maybe(chance, 10, STAGES),
        "Lead Category": maybe(chance, 20, LEADS),
        "Tags": several(chance, TAGS),
        "Yacht Name": maybe(chance, 30, YACHTS),
        "Length": dimension(chance, 120),
        "Width": dimension(chance, 30),
        "Depth": dimension(chance, 14),
        "Budget": maybe(chance, 30, &["US$ 1,250,000.00", "€ 500.000,-", "2m", "ask him", " 750000 "]),
        "Berth Size Desired": dimension(chance, 130),
        "EOI Status": maybe(chance, 50, EOI),
        "EOI Sent": if chance.percent(50) { Value::Null } else { moment(chance) },
        "Contract Sent": if chance.percent(70) { Value::Null } else { json!(day(chance)) },
        "Deposit 10% Status": maybe(chance, 60, DEPOSITS),
        "Request Form Sent": chance.percent(50),
        "Extra Comments": maybe(chance, 40, COMMENTS),
        "Notes": notes(chance),
        "Documents": files(chance, "eoi", 2),
        "Signers": signers(chance),
        "Submission": submission(chance),
    })
}

/// A berth.
pub(super) fn berth(chance: &mut Chance, number: u64) -> Value {
    let area = *chance.pick(AREAS);
    let map = json!({"path": format!("M{} {}z", chance.below(900), chance.below(900)),
        "x": chance.below(1_000_000) as f64 / 1000.0, "y": chance.below(1_000_000) as f64 / 1000.0,
        "fontSize": chance.between(8, 16), "transform": "rotate(90)"});
    json!({
        "Number": format!("{area}{number}{}", chance.pick(&["", "", " "])),
        "Area": area,
        "Status": maybe(chance, 5, BERTH_STATES),
        "Price": if chance.percent(10) { Value::Null } else { money(chance, 5_000_000) },
        "Nominal Boat Size": if chance.percent(10) { Value::Null } else { json!(chance.between(30, 300)) },
        "Length": dimension(chance, 300),
        "Width": dimension(chance, 60),
        "Water Depth": if chance.percent(10) { Value::Null } else { json!(chance.below(1500) as f64 / 100.0) },
        "Depth Approved": chance.percent(60),
        "Mooring Type": maybe(chance, 10, MOORINGS),
        "Power Capacity": if chance.percent(30) { Value::Null } else { json!(chance.between(16, 630)) },
        "Map Data": if chance.percent(10) { Value::Null } else { map },
    })
}

/// An expense.
pub(super) fn expense(chance: &mut Chance) -> Value {
    json!({
        "Establishment Name": maybe(chance, 3, SHOPS),
        "Price": if chance.percent(3) { Value::Null } else { money(chance, 9_000) },
        "Currency": maybe(chance, 10, CURRENCIES),
        "Category": maybe(chance, 10, CATEGORIES),
        "Payer": maybe(chance, 10, &["Matt", "claire ", " ", "Office"]),
        "Payment Method": maybe(chance, 10, PAID_BY),
        "Time": if chance.percent(5) { Value::Null } else { moment(chance) },
        "Paid": chance.percent(70),
        "Contents": maybe(chance, 50, &["2 × espresso\n1 × water", "rope, 10 mm", "«diesel»", " "]),
        "Receipt": files(chance, "receipt", 1),
        "Details": if chance.percent(60) { Value::Null } else { json!({"vat": money(chance, 100), "lines": chance.below(9)}) },
    })
}

fn lines(chance: &mut Chance) -> Value {
    let count = chance.between(1, 5);
    let line = |at| {
        let price = money(chance, 20_000);
        // As a number, and as text.
        let price = if chance.percent(30) { json!(price.to_string()) } else { price };
        json!({"code": format!("L{at}"), "title": maybe(chance, 10, &["Mooring fee", " Water", "Électricité", ""]),
            "quantity": chance.between(1, 12), "price": price})
    };
    (1..=count).map(line).collect()
}

/// An invoice, without its links.
pub(super) fn invoice(chance: &mut Chance, number: u64) -> Value {
    json!({
        "Number": format!("INV-2026-{number:05}"),
        "Status": maybe(chance, 5, INVOICE_STATES),
        "Issued": if chance.percent(10) { Value::Null } else { json!(day(chance)) },
        "Due": if chance.percent(20) { Value::Null } else { json!(day(chance)) },
        "Total": money(chance, 100_000),
        "Tax": chance.pick(&[json!(0), json!(7.5), json!(20), Value::Null]),
        "Paid": chance.percent(50),
        "Billing Email": if chance.percent(20) { Value::Null } else { json!(email(chance)) },
        "Lines": lines(chance),
        "PDF": files(chance, "invoice", 1),
    })
}
