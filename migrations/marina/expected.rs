//! The rows that the base and the payments have to become, written down a second time and without the mapping: from what the API of
//! NocoDB and MongoDB answer.

use std::collections::HashMap;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt as _;
use mongodb::Database;
use serde_json::Value;
use tokio_postgres::{Client, IsolationLevel};

use super::base::Base;
use super::fields::{Cell, Fields, collection};
use super::shapes::{
    AUDIT_LOGS, BERTH_MAP_DATA, BERTHS as BERTH_ROWS, CLIENT_CONTACTS, CLIENT_TAGS, CLIENTS,
    DOCUMENT_SIGNERS, DOCUMENTS, EXPENSES as EXPENSE_ROWS, FILES, INTEREST_BERTHS, INTEREST_NOTES,
    INTEREST_TAGS, INTERESTS as INTEREST_ROWS, INVOICE_EXPENSES, INVOICE_LINE_ITEMS,
    INVOICES as INVOICE_ROWS, PAYMENTS as PAYMENT_ROWS, SHAPES,
};
use super::tables::titles;
use super::{
    BERTH, BERTHS, BERTHS_OF_INTEREST, EXPENSES, EXPENSES_OF_INVOICE, INTEREST, INTERESTS, INVOICES,
    MIGRATION, PAYMENTS,
};
use crate::json::Json;
use crate::oracle::{Expected, Report, Shape};
use crate::rendering::{numeric, timestamp};
use crate::{Error, Ids, Result};

const STAGES: &[(&str, &str)] = &[
    ("General Qualified Interest", "open"),
    ("Specific Qualified Interest", "details_sent"),
    ("EOI and NDA Sent", "in_communication"),
    ("Signed EOI and NDA", "signed_eoi_nda"),
    ("Made Reservation", "deposit_10pct"),
    ("Contract Negotiation", "contract"),
    ("Contract Negotiations Finalized", "contract"),
    ("Contract Signed", "completed"),
];
const LEADS: &[(&str, &str)] = &[("General", "general"), ("Friends and Family", "friends_and_family")];
const BERTH_STATES: &[(&str, &str)] =
    &[("Available", "available"), ("Under Offer", "under_offer"), ("Sold", "sold")];
const CATEGORIES: &[(&str, &str)] =
    &[("Food/Drinks", "food_drinks"), ("Shop", "shop"), ("Online", "online"), ("Boat Fuel", "boat_fuel")];
const METHODS: &[(&str, &str)] = &[("Card", "card"), ("Cash", "cash")];
const INVOICE_STATES: &[(&str, &str)] =
    &[("Draft", "draft"), ("Sent", "sent"), ("Paid", "paid"), ("Void", "void")];

/// An address of nobody, as Postgres casts an `inet` to text.
const NOWHERE: &str = "0.0.0.0/32";

/// What a record is linked to, by its number.
type Links = HashMap<i64, Vec<i64>>;

/// The rows of all tables.
struct Rows {
    ids: Ids,
    tables: Vec<(&'static str, Expected)>,
}

fn row(ids: &Ids, table: &str, id: i64) -> Result<Cell> {
    Ok(Some(ids.document(&collection(table), &Bson::Int64(id))?.to_string()))
}

impl Rows {
    fn new() -> Self {
        let tables = SHAPES.iter().map(|shape| (shape.table, Expected::new(*shape))).collect();
        Self { ids: Ids::new(MIGRATION), tables }
    }

    fn put(&mut self, shape: &Shape, cells: &[Cell]) -> Result<()> {
        match self.tables.iter_mut().find(|(table, _)| *table == shape.table) {
            Some((_, rows)) => rows.put(cells),
            None => Err(Error::Unexpected(format!("there is no table {}", shape.table))),
        }
    }

    /// The identifier of a record's row.
    fn id(&self, table: &str, id: i64) -> Result<Cell> {
        row(&self.ids, table, id)
    }

    fn linked(&self, to: &str, id: Option<i64>) -> Result<Cell> {
        id.map_or(Ok(None), |id| self.id(to, id))
    }

    fn audit(&mut self, entity: &str, of: &Fields<'_>) -> Result<()> {
        let id = of.id()?;
        let cells = [
            self.id(of.table, id)?,
            Some(entity.into()),
            Some(collection(of.table)),
            Some(id.to_string()),
            Some("migration".into()),
            Some(NOWHERE.into()),
            of.moment("CreatedAt")?,
        ];
        self.put(&AUDIT_LOGS, &cells)
    }

    /// A junction table: one row for each link.
    fn junction(&mut self, shape: &Shape, from: &Cell, to: &str, linked: Option<&Vec<i64>>) -> Result<()> {
        for id in linked.into_iter().flatten() {
            let to = self.id(to, *id)?;
            self.put(shape, &[from.clone(), to])?;
        }
        Ok(())
    }

    fn client(&mut self, of: &Fields<'_>) -> Result<()> {
        let id = self.id(of.table, of.id()?)?;
        let cells = [
            id.clone(),
            of.filled("Full Name")?,
            of.address("Email")?,
            of.filled("Phone")?,
            of.filled("Place of Residence")?,
            of.lower("Preferred Contact")?,
            of.lower("Source")?,
            of.moment("CreatedAt")?,
            of.moment("UpdatedAt")?,
        ];
        self.put(&CLIENTS, &cells)?;
        for (contact, contact_id, position) in of.children(&self.ids, "Contacts", "value")? {
            let kind = contact.or("kind", "other")?.map(|kind| kind.to_lowercase());
            self.put(&CLIENT_CONTACTS, &[contact_id, id.clone(), kind, contact.trimmed("value")?, position])?;
        }
        for tag in of.choices("Client Type")? {
            self.put(&CLIENT_TAGS, &[id.clone(), Some(tag)])?;
        }
        Ok(())
    }

    fn interest(&mut self, of: &Fields<'_>, berths: &Links) -> Result<()> {
        self.client(of)?;
        let number = of.id()?;
        let id = self.id(of.table, number)?;
        let cells = [
            id.clone(),
            Some(number.to_string()),
            id.clone(),
            self.linked(BERTHS, of.link(BERTH)?)?,
            of.label("Sales Process Level", STAGES, Some("open"))?.or_else(|| Some("open".into())),
            of.label("Lead Category", LEADS, None)?,
            of.filled("Yacht Name")?,
            of.filled("Length")?,
            of.filled("Width")?,
            of.filled("Depth")?,
            of.filled("Budget")?,
            of.filled("Berth Size Desired")?,
            of.lower("EOI Status")?,
            of.moment("EOI Sent")?,
            of.text("Contract Sent")?,
            of.lower("Deposit 10% Status")?,
            of.boolean("Request Form Sent")?,
            of.filled("Extra Comments")?,
            of.json("Submission")?,
            of.moment("CreatedAt")?,
            of.moment("UpdatedAt")?,
        ];
        self.put(&INTEREST_ROWS, &cells)?;
        self.junction(&INTEREST_BERTHS, &id, BERTHS, berths.get(&number))?;
        for (note, note_id, _) in of.children(&self.ids, "Notes", "id")? {
            let cells =
                [note_id, id.clone(), note.filled("author")?, note.trimmed("text")?, note.moment("at")?];
            self.put(&INTEREST_NOTES, &cells)?;
        }
        for tag in of.choices("Tags")? {
            self.put(&INTEREST_TAGS, &[id.clone(), Some(tag)])?;
        }
        for (file, file_id, position) in of.children(&self.ids, "Documents", "id")? {
            let [title, url, kind, size] = attachment(&file)?;
            self.put(&DOCUMENTS, &[file_id, id.clone(), title, url, kind, size, position])?;
        }
        for (signer, signer_id, _) in of.children(&self.ids, "Signers", "key")? {
            let cells = [
                signer_id,
                id.clone(),
                signer.text("document")?,
                signer.trimmed("email")?.map(|address| address.to_lowercase()),
                signer.or("role", "signer")?,
                signer.boolean("signed")?,
                signer.moment("signed_at")?,
            ];
            self.put(&DOCUMENT_SIGNERS, &cells)?;
        }
        self.audit("interest", of)
    }

    fn berth(&mut self, of: &Fields<'_>) -> Result<()> {
        let id = self.id(of.table, of.id()?)?;
        let cells = [
            id.clone(),
            of.trimmed("Number")?,
            of.text("Area")?,
            of.label("Status", BERTH_STATES, Some("available"))?.or_else(|| Some("available".into())),
            of.numeric("Price", 2)?,
            of.whole("Nominal Boat Size")?,
            of.filled("Length")?,
            of.filled("Width")?,
            of.numeric("Water Depth", 2)?,
            of.boolean("Depth Approved")?,
            of.lower("Mooring Type")?,
            of.whole("Power Capacity")?,
            of.moment("CreatedAt")?,
            of.moment("UpdatedAt")?,
        ];
        self.put(&BERTH_ROWS, &cells)?;
        let map = of.inside("Map Data");
        let cells = [
            id,
            map.text("path")?,
            map.numeric("x", 3)?,
            map.numeric("y", 3)?,
            map.whole("fontSize")?,
            of.json("Map Data")?,
        ];
        self.put(&BERTH_MAP_DATA, &cells)?;
        self.audit("berth", of)
    }

    fn expense(&mut self, of: &Fields<'_>) -> Result<()> {
        let id = self.id(of.table, of.id()?)?;
        let cells = [
            id.clone(),
            of.filled("Establishment Name")?,
            of.numeric("Price", 2)?,
            of.or("Currency", "EUR")?,
            of.label("Category", CATEGORIES, Some("other"))?.or_else(|| Some("other".into())),
            of.filled("Payer")?,
            of.label("Payment Method", METHODS, Some("other"))?,
            of.moment("Time")?,
            of.boolean("Paid")?,
            of.filled("Contents")?,
            of.json("Details")?,
            of.moment("CreatedAt")?,
            of.moment("UpdatedAt")?,
        ];
        self.put(&EXPENSE_ROWS, &cells)?;
        for (file, file_id, _) in of.children(&self.ids, "Receipt", "id")? {
            let [title, url, kind, size] = attachment(&file)?;
            self.put(&FILES, &[file_id, id.clone(), None, title, url, kind, size])?;
        }
        self.audit("expense", of)
    }

    fn invoice(&mut self, of: &Fields<'_>, expenses: &Links) -> Result<()> {
        let number = of.id()?;
        let id = self.id(of.table, number)?;
        let cells = [
            id.clone(),
            of.trimmed("Number")?,
            self.linked(INTERESTS, of.link(INTEREST)?)?,
            of.label("Status", INVOICE_STATES, Some("draft"))?.or_else(|| Some("draft".into())),
            of.text("Issued")?,
            of.text("Due")?,
            of.numeric("Total", 2)?,
            of.numeric("Tax", 2)?,
            of.boolean("Paid")?,
            of.address("Billing Email")?,
            of.moment("CreatedAt")?,
            of.moment("UpdatedAt")?,
        ];
        self.put(&INVOICE_ROWS, &cells)?;
        for (line, line_id, position) in of.children(&self.ids, "Lines", "code")? {
            let cells = [
                line_id,
                id.clone(),
                line.text("code")?,
                line.filled("title")?,
                line.whole("quantity")?,
                line.numeric("price", 2)?,
                position,
            ];
            self.put(&INVOICE_LINE_ITEMS, &cells)?;
        }
        self.junction(&INVOICE_EXPENSES, &id, EXPENSES, expenses.get(&number))?;
        for (file, file_id, _) in of.children(&self.ids, "PDF", "id")? {
            let [title, url, kind, size] = attachment(&file)?;
            self.put(&FILES, &[file_id, None, id.clone(), title, url, kind, size])?;
        }
        self.audit("invoice", of)
    }

    fn payment(&mut self, payment: &Document) -> Result<()> {
        let wrong = |what: &str| Error::Unexpected(format!("a payment without {what}"));
        let key = payment.get("_id").ok_or_else(|| wrong("an id"))?;
        let id = Some(self.ids.document("legacy.payments", key)?.to_string());
        let number = |name: &str| match payment.get(name) {
            Some(Bson::Int32(number)) => Some(i64::from(*number)),
            Some(Bson::Int64(number)) => Some(*number),
            _ => None,
        };
        let text = |name: &str| payment.get_str(name).ok();
        let at = payment.get_datetime("at").map_err(|_| wrong("a time"))?;
        let at = Some(timestamp(at.timestamp_millis()));
        let method = match text("method") {
            Some("bank") => "transfer",
            Some(known @ ("card" | "cash")) => known,
            _ => "other",
        };
        let reference = text("reference").map(str::trim).filter(|text| !text.is_empty());
        let cells = [
            id.clone(),
            self.linked(INTERESTS, number("interest"))?,
            self.linked(INVOICES, number("invoice"))?,
            Some(numeric(payment.get("amount").ok_or_else(|| wrong("an amount"))?, Some(2))?),
            Some(text("currency").unwrap_or("EUR").into()),
            Some(method.into()),
            at.clone(),
            reference.map(str::to_owned),
            Some(payment.get_bool("settled").unwrap_or(false).to_string()),
            payment.get("meta").map(|meta| Json::of(meta).canonical()),
        ];
        self.put(&PAYMENT_ROWS, &cells)?;
        let origin = payment.get_object_id("_id").map_err(|_| wrong("an id"))?.to_hex();
        let constant = |text: &str| Some(text.to_owned());
        let cells = [
            id,
            constant("payment"),
            constant("legacy.payments"),
            Some(origin),
            constant("migration"),
            constant(NOWHERE),
            at,
        ];
        self.put(&AUDIT_LOGS, &cells)
    }
}

/// Title, address, type and size.
fn attachment(file: &Fields<'_>) -> Result<[Cell; 4]> {
    Ok([file.text("title")?, file.text("url")?, file.text("mimetype")?, file.whole("size")?])
}

/// The columns of a table, and the link to one record that stands beside them.
async fn read(base: &Base, table: &str, link: &[&str]) -> Result<Vec<Value>> {
    let mut columns = titles(table);
    columns.extend_from_slice(link);
    base.read(table, &columns).await
}

/// Compares every row of every table with what the base and the payments say now.
pub async fn compare(base: &Base, payments: &Database, target: &mut Client) -> Result<Report> {
    let mut rows = Rows::new();
    let mut report = Report::default();
    let berths = base.read_links(INTERESTS, BERTHS_OF_INTEREST).await?;
    for value in &read(base, INTERESTS, &[BERTH]).await? {
        report.documents += 1;
        rows.interest(&Fields { table: INTERESTS, value }, &berths)?;
    }
    for value in &read(base, BERTHS, &[]).await? {
        report.documents += 1;
        rows.berth(&Fields { table: BERTHS, value })?;
    }
    for value in &read(base, EXPENSES, &[]).await? {
        report.documents += 1;
        rows.expense(&Fields { table: EXPENSES, value })?;
    }
    let expenses = base.read_links(INVOICES, EXPENSES_OF_INVOICE).await?;
    for value in &read(base, INVOICES, &[INTEREST]).await? {
        report.documents += 1;
        rows.invoice(&Fields { table: INVOICES, value }, &expenses)?;
    }
    let mut all = payments.collection::<Document>(PAYMENTS).find(doc! {}).await?;
    while let Some(payment) = all.try_next().await? {
        report.documents += 1;
        rows.payment(&payment)?;
    }
    target.batch_execute("SET TIME ZONE 'UTC'; SET DateStyle = 'ISO, YMD'").await?;
    let isolation = IsolationLevel::RepeatableRead;
    let transaction = target.build_transaction().isolation_level(isolation).read_only(true).start().await?;
    for (_, table) in rows.tables {
        report.tables.push(table.compare(&transaction, "public").await?);
    }
    transaction.commit().await?;
    Ok(report)
}
