//! The tables of the base: what columns they have, and what may be chosen in them.

use serde_json::{Value, json};

use super::{
    BERTH, BERTHS, BERTHS_OF_INTEREST, EXPENSES, EXPENSES_OF_INVOICE, INTEREST, INTERESTS, INVOICES,
};

/// A column: title, type, and for a choice what there is to choose.
type Column = (&'static str, &'static str, &'static [&'static str]);
/// A link: table, title, `bt` (to one) or `mm` (to many), and where it leads.
type Link = (&'static str, &'static str, &'static str, &'static str);

/// The stages of a sale. The last one is no step of it, and the mapping does not know it.
pub(super) const STAGES: &[&str] = &[
    "General Qualified Interest",
    "Specific Qualified Interest",
    "EOI and NDA Sent",
    "Signed EOI and NDA",
    "Made Reservation",
    "Contract Negotiation",
    "Contract Negotiations Finalized",
    "Contract Signed",
    "On Hold",
];
pub(super) const CONTACT_BY: &[&str] = &["Email", "Phone", "WhatsApp"];
pub(super) const SOURCES: &[&str] = &["Website", "Form", "Referral", "Boat Show"];
pub(super) const CLIENT_TYPES: &[&str] = &["Broker", "Owner", "Charter", "Investor"];
pub(super) const LEADS: &[&str] = &["General", "Friends and Family", "Staff"];
pub(super) const TAGS: &[&str] = &["VIP", "Hot", "Cold", "Follow Up", "Press"];
pub(super) const EOI: &[&str] = &["Waiting for Signatures", "Signed"];
pub(super) const DEPOSITS: &[&str] = &["Pending", "Received"];
pub(super) const AREAS: &[&str] = &["A", "B", "C", "D", "E"];
pub(super) const BERTH_STATES: &[&str] = &["Available", "Under Offer", "Sold", "Reserved for Club"];
pub(super) const MOORINGS: &[&str] = &["Side Pier", "Med Mooring", "2x Med Mooring", "Finger"];
pub(super) const CURRENCIES: &[&str] = &["EUR", "USD", "GBP"];
pub(super) const CATEGORIES: &[&str] = &["Food/Drinks", "Shop", "Online", "Boat Fuel", "Gifts"];
pub(super) const PAID_BY: &[&str] = &["Card", "Cash", "Crypto"];
pub(super) const INVOICE_STATES: &[&str] = &["Draft", "Sent", "Paid", "Void", "Disputed"];

const OF_INTERESTS: &[Column] = &[
    ("Full Name", "SingleLineText", &[]),
    ("Email", "Email", &[]),
    ("Phone", "PhoneNumber", &[]),
    ("Place of Residence", "SingleLineText", &[]),
    ("Preferred Contact", "SingleSelect", CONTACT_BY),
    ("Source", "SingleSelect", SOURCES),
    ("Client Type", "MultiSelect", CLIENT_TYPES),
    ("Contacts", "JSON", &[]),
    ("Sales Process Level", "SingleSelect", STAGES),
    ("Lead Category", "SingleSelect", LEADS),
    ("Tags", "MultiSelect", TAGS),
    ("Yacht Name", "SingleLineText", &[]),
    ("Length", "SingleLineText", &[]),
    ("Width", "SingleLineText", &[]),
    ("Depth", "SingleLineText", &[]),
    ("Budget", "SingleLineText", &[]),
    ("Berth Size Desired", "SingleLineText", &[]),
    ("EOI Status", "SingleSelect", EOI),
    ("EOI Sent", "DateTime", &[]),
    ("Contract Sent", "Date", &[]),
    ("Deposit 10% Status", "SingleSelect", DEPOSITS),
    ("Request Form Sent", "Checkbox", &[]),
    ("Extra Comments", "LongText", &[]),
    ("Notes", "JSON", &[]),
    ("Documents", "Attachment", &[]),
    ("Signers", "JSON", &[]),
    ("Submission", "JSON", &[]),
];
const OF_BERTHS: &[Column] = &[
    ("Number", "SingleLineText", &[]),
    ("Area", "SingleSelect", AREAS),
    ("Status", "SingleSelect", BERTH_STATES),
    ("Price", "Currency", &[]),
    ("Nominal Boat Size", "Number", &[]),
    ("Length", "SingleLineText", &[]),
    ("Width", "SingleLineText", &[]),
    ("Water Depth", "Decimal", &[]),
    ("Depth Approved", "Checkbox", &[]),
    ("Mooring Type", "SingleSelect", MOORINGS),
    ("Power Capacity", "Number", &[]),
    ("Map Data", "JSON", &[]),
];
const OF_EXPENSES: &[Column] = &[
    ("Establishment Name", "SingleLineText", &[]),
    ("Price", "Currency", &[]),
    ("Currency", "SingleSelect", CURRENCIES),
    ("Category", "SingleSelect", CATEGORIES),
    ("Payer", "SingleLineText", &[]),
    ("Payment Method", "SingleSelect", PAID_BY),
    ("Time", "DateTime", &[]),
    ("Paid", "Checkbox", &[]),
    ("Contents", "LongText", &[]),
    ("Receipt", "Attachment", &[]),
    ("Details", "JSON", &[]),
];
const OF_INVOICES: &[Column] = &[
    ("Number", "SingleLineText", &[]),
    ("Status", "SingleSelect", INVOICE_STATES),
    ("Issued", "Date", &[]),
    ("Due", "Date", &[]),
    ("Total", "Currency", &[]),
    ("Tax", "Decimal", &[]),
    ("Paid", "Checkbox", &[]),
    ("Billing Email", "Email", &[]),
    ("Lines", "JSON", &[]),
    ("PDF", "Attachment", &[]),
];

/// All tables with their columns.
pub(super) const TABLES: [(&str, &[Column]); 4] =
    [(INTERESTS, OF_INTERESTS), (BERTHS, OF_BERTHS), (EXPENSES, OF_EXPENSES), (INVOICES, OF_INVOICES)];

/// All links.
pub(super) const LINKS: [Link; 4] = [
    (INTERESTS, BERTH, "bt", BERTHS),
    (INTERESTS, BERTHS_OF_INTEREST, "mm", BERTHS),
    (INVOICES, INTEREST, "bt", INTERESTS),
    (INVOICES, EXPENSES_OF_INVOICE, "mm", EXPENSES),
];

/// The columns as the API takes them.
pub(super) fn described(columns: &[Column]) -> Value {
    let name = |title: &str| -> String {
        let letters =
            title.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
        letters.collect()
    };
    let columns = columns.iter().map(|(title, kind, choices)| {
        let mut column = json!({"title": title, "column_name": name(title), "uidt": kind});
        if !choices.is_empty() {
            let choices: Value = choices.iter().map(|choice| json!({"title": choice})).collect();
            column["colOptions"] = json!({"options": choices});
        }
        column
    });
    columns.collect()
}

/// The titles of a table's columns, with its number and its times.
pub(super) fn titles(table: &str) -> Vec<&'static str> {
    let mut titles = vec!["Id", "CreatedAt", "UpdatedAt"];
    let of = TABLES.iter().filter(|(title, _)| *title == table);
    titles.extend(of.flat_map(|(_, columns)| columns.iter().map(|(title, ..)| *title)));
    titles
}
