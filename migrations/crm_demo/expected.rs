//! The rows that the CRM's documents have to become, written down a second time and without the mapping.

use bson::{Bson, Document};
use futures_util::TryStreamExt as _;
use mongodb::Database;
use tokio_postgres::{Client, IsolationLevel};

use super::{Kind, MIGRATION};
use crate::json::Json;
use crate::oracle::{Expected, Report, Shape};
use crate::rendering::{array, date, numeric, timestamp};
use crate::{Error, Ids, Result};

/// All tables, in the order of [`expected`]'s result: first the document's own, then those made of its arrays.
pub const SHAPES: [Shape; 8] =
    [ORGANISATIONS, USERS, BOOKINGS, BOOKING_GUESTS, BOOKING_SLOTS, INVOICES, INVOICE_LINES, LEDGER_ENTRIES];

const ORGANISATIONS: Shape = Shape {
    table: "organisations",
    columns: &[
        "id",
        "code",
        "team",
        "name",
        "kind",
        "address_street",
        "address_city",
        "address_zip",
        "address_country",
        "founded_on",
        "vat_id",
        "credit_limit",
        "domains",
        "active",
        "created_at",
        "meta",
        "extra",
        "version",
    ],
    key: 1,
    json: &["meta", "extra"],
};
const USERS: Shape = Shape {
    table: "users",
    columns: &[
        "id",
        "kind",
        "team",
        "email",
        "phone",
        "full_name",
        "age",
        "balance",
        "active",
        "created_at",
        "born_on",
        "status",
        "organisation_id",
        "tags",
        "settings",
        "extra",
        "version",
    ],
    key: 1,
    json: &["settings", "extra"],
};
const BOOKINGS: Shape = Shape {
    table: "bookings",
    columns: &[
        "id",
        "team",
        "title",
        "organiser_id",
        "organisation_id",
        "state",
        "starts_at",
        "ends_at",
        "all_day",
        "note",
        "data",
        "version",
    ],
    key: 1,
    json: &["data"],
};
const BOOKING_GUESTS: Shape = Shape {
    table: "booking_guests",
    columns: &["booking_id", "user_id", "position", "version"],
    key: 2,
    json: &[],
};
const BOOKING_SLOTS: Shape = Shape {
    table: "booking_slots",
    columns: &["id", "booking_id", "code", "position", "room", "starts_at", "seats", "price", "version"],
    key: 1,
    json: &[],
};
const INVOICES: Shape = Shape {
    table: "invoices",
    columns: &[
        "id",
        "team",
        "number",
        "organisation_id",
        "user_id",
        "currency",
        "issued_at",
        "due_on",
        "paid",
        "total",
        "tax",
        "discount",
        "extra",
        "version",
    ],
    key: 1,
    json: &["extra"],
};
const INVOICE_LINES: Shape = Shape {
    table: "invoice_lines",
    columns: &["id", "invoice_id", "sku", "position", "title", "quantity", "price", "taxed", "version"],
    key: 1,
    json: &[],
};
const LEDGER_ENTRIES: Shape = Shape {
    table: "ledger_entries",
    columns: &[
        "id",
        "number",
        "team",
        "account",
        "invoice_id",
        "user_id",
        "kind",
        "amount",
        "booked_at",
        "memo",
        "flags",
        "version",
    ],
    key: 1,
    json: &["flags"],
};

type Cell = Option<String>;
type Row = Vec<Cell>;

/// Reads one document, a field at a time.
struct Reader<'a> {
    ids: &'a Ids,
    kind: Kind,
    document: &'a Document,
}

impl<'a> Reader<'a> {
    fn wrong(&self, path: &str, what: &str) -> Error {
        Error::Unexpected(format!("{}: `{path}` {what}", self.kind))
    }

    /// The value at a path; null and absent are one.
    fn value(&self, path: &str) -> Option<&'a Bson> {
        let (parents, name) =
            path.rsplit_once('.').map_or((None, path), |(parents, name)| (Some(parents), name));
        let mut document = self.document;
        for parent in parents.into_iter().flat_map(|parents| parents.split('.')) {
            document = document.get_document(parent).ok()?;
        }
        document.get(name).filter(|value| **value != Bson::Null)
    }

    fn text(&self, path: &str) -> Result<Cell> {
        match self.value(path) {
            None => Ok(None),
            Some(Bson::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(path, "is not text")),
        }
    }

    /// Trimmed, and null where nothing is left.
    fn trimmed(&self, path: &str) -> Result<Cell> {
        Ok(self.text(path)?.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    fn whole(&self, path: &str) -> Result<Option<i64>> {
        match self.value(path) {
            None => Ok(None),
            Some(Bson::Int32(number)) => Ok(Some(i64::from(*number))),
            Some(Bson::Int64(number)) => Ok(Some(*number)),
            Some(Bson::Double(number)) if number.fract() == 0.0 => Ok(Some(*number as i64)),
            Some(Bson::String(text)) => {
                text.parse().map(Some).map_err(|_| self.wrong(path, "is not a whole number"))
            }
            Some(_) => Err(self.wrong(path, "is not a whole number")),
        }
    }

    fn integer(&self, path: &str) -> Result<Cell> {
        Ok(self.whole(path)?.map(|number| number.to_string()))
    }

    fn numeric(&self, path: &str, scale: Option<usize>) -> Result<Cell> {
        self.value(path).map(|value| numeric(value, scale)).transpose()
    }

    fn boolean(&self, path: &str) -> Result<Cell> {
        match self.value(path) {
            None => Ok(None),
            Some(Bson::Boolean(value)) => Ok(Some(value.to_string())),
            Some(_) => Err(self.wrong(path, "is not a boolean")),
        }
    }

    fn timestamp(&self, path: &str) -> Result<Cell> {
        match self.value(path) {
            None => Ok(None),
            Some(Bson::DateTime(time)) => Ok(Some(timestamp(time.timestamp_millis()))),
            Some(_) => Err(self.wrong(path, "is not a date")),
        }
    }

    fn date(&self, path: &str) -> Result<Cell> {
        match self.value(path) {
            None => Ok(None),
            Some(Bson::DateTime(time)) => Ok(Some(date(time.timestamp_millis()))),
            Some(Bson::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(path, "is not a date")),
        }
    }

    fn jsonb(&self, path: &str) -> Cell {
        self.value(path).map(|value| Json::of(value).canonical())
    }

    fn reference(&self, path: &str, to: Kind) -> Result<Cell> {
        self.value(path).map(|id| Ok(self.ids.document(to.name(), id)?.to_string())).transpose()
    }

    /// One label for another; what is not in the table becomes `unknown`.
    fn label(&self, path: &str, table: &[(&str, &str)], unknown: Option<&str>) -> Result<Cell> {
        let found = self.text(path)?.map(|text| {
            table.iter().find(|(from, _)| *from == text).map(|(_, to)| *to).or(unknown).map(str::to_owned)
        });
        Ok(found.flatten())
    }

    /// All top-level fields but these.
    fn rest(&self, used: &[&str]) -> Cell {
        let rest = self.document.iter().filter(|(name, _)| !used.contains(&name.as_str()));
        let rest: Document = rest.map(|(name, value)| (name.clone(), value.clone())).collect();
        Some(Json::document(&rest).canonical())
    }

    fn items(&self, path: &str) -> &'a [Bson] {
        match self.value(path) {
            Some(Bson::Array(items)) => items,
            _ => &[],
        }
    }

    fn texts(&self, path: &str, field: Option<&str>) -> Result<Cell> {
        if self.value(path).is_none() {
            return Ok(None);
        }
        let text = |item: &'a Bson| match (item, field) {
            (Bson::String(text), None) => Ok(text.as_str()),
            (Bson::Document(item), Some(field)) => {
                item.get_str(field).map_err(|_| self.wrong(path, "has an element without its text"))
            }
            _ => Err(self.wrong(path, "has an element of another type")),
        };
        Ok(Some(array(self.items(path).iter().map(text).collect::<Result<Vec<_>>>()?)))
    }

    fn id(&self) -> Result<&'a Bson> {
        self.document.get("_id").ok_or_else(|| self.wrong("_id", "is not there"))
    }

    fn row_id(&self) -> Result<Cell> {
        Ok(Some(self.ids.document(self.kind.name(), self.id()?)?.to_string()))
    }

    /// Sub-documents of an array, each with its place and the identifier that its own key gives it.
    fn children(&self, path: &str, by: &str) -> Result<Vec<(Reader<'a>, Cell, Cell)>> {
        let mut children = Vec::new();
        for (position, item) in self.items(path).iter().enumerate() {
            let document = item.as_document().ok_or_else(|| self.wrong(path, "has no sub-documents"))?;
            let key = document.get(by).ok_or_else(|| self.wrong(path, "has an element without its key"))?;
            let id = self.ids.element(self.kind.name(), self.id()?, path, key)?;
            let reader = Reader { ids: self.ids, kind: self.kind, document };
            children.push((reader, Some(id.to_string()), Some(position.to_string())));
        }
        Ok(children)
    }
}

fn organisation(of: &Reader<'_>) -> Result<Row> {
    let kinds = [("company", "company"), ("coop", "cooperative"), ("charity", "charity")];
    Ok(vec![
        of.row_id()?,
        of.text("_id")?,
        of.integer("team")?,
        of.text("name")?.map(|name| name.trim().to_owned()),
        of.label("kind", &kinds, Some("other"))?,
        of.text("address.street")?,
        of.text("address.city")?,
        of.text("address.zip")?,
        of.text("address.country")?,
        of.date("founded")?,
        of.trimmed("vat")?,
        of.numeric("credit", Some(2))?,
        of.texts("domains", None)?,
        of.boolean("active")?,
        of.timestamp("createdAt")?,
        of.jsonb("meta"),
        of.rest(&[
            "_id",
            "team",
            "name",
            "kind",
            "address",
            "founded",
            "vat",
            "credit",
            "domains",
            "active",
            "createdAt",
            "meta",
            "v",
        ]),
        of.integer("v")?,
    ])
}

fn user(of: &Reader<'_>) -> Result<Row> {
    let small = |age: i64| age.clamp(i64::from(i16::MIN), i64::from(i16::MAX)).to_string();
    Ok(vec![
        of.row_id()?,
        Some("person".into()),
        of.integer("team")?,
        of.trimmed("contact.email")?.map(|email| email.to_lowercase()),
        of.trimmed("contact.phone")?,
        of.text("name")?,
        of.whole("age")?.map(small),
        of.numeric("balance", None)?,
        of.boolean("active")?,
        of.timestamp("createdAt")?,
        of.date("born")?,
        of.label("state", &[("A", "active"), ("B", "blocked"), ("I", "invited")], None)?,
        of.reference("organisation", Kind::Organisation)?,
        of.texts("tags", Some("name"))?,
        of.jsonb("settings"),
        of.rest(&[
            "_id",
            "team",
            "contact",
            "name",
            "age",
            "balance",
            "active",
            "createdAt",
            "born",
            "state",
            "organisation",
            "tags",
            "settings",
            "v",
        ]),
        of.integer("v")?,
    ])
}

fn booking(of: &Reader<'_>) -> Result<[Vec<Row>; 3]> {
    let states = [("open", "open"), ("confirmed", "confirmed"), ("cancelled", "cancelled")];
    let (id, version) = (of.row_id()?, of.integer("v")?);
    let row = vec![
        id.clone(),
        of.integer("team")?,
        of.text("title")?,
        of.reference("organiser", Kind::User)?,
        of.reference("organisation", Kind::Organisation)?,
        of.label("state", &states, None)?,
        of.timestamp("from")?,
        of.timestamp("to")?,
        of.boolean("allDay")?,
        of.text("note")?,
        of.jsonb("data"),
        version.clone(),
    ];
    let mut guests = Vec::new();
    for (position, guest) in of.items("guests").iter().enumerate() {
        let user = of.ids.document(Kind::User.name(), guest)?.to_string();
        guests.push(vec![id.clone(), Some(user), Some(position.to_string()), version.clone()]);
    }
    let mut slots = Vec::new();
    for (slot, slot_id, position) in of.children("slots", "code")? {
        slots.push(vec![
            slot_id,
            id.clone(),
            slot.text("code")?,
            position,
            slot.text("room")?,
            slot.timestamp("from")?,
            slot.integer("seats")?,
            slot.numeric("price", Some(2))?,
            version.clone(),
        ]);
    }
    Ok([vec![row], guests, slots])
}

fn invoice(of: &Reader<'_>) -> Result<[Vec<Row>; 2]> {
    let (id, version) = (of.row_id()?, of.integer("v")?);
    let row = vec![
        id.clone(),
        of.integer("team")?,
        of.text("number")?,
        of.reference("organisation", Kind::Organisation)?,
        of.reference("user", Kind::User)?,
        of.text("currency")?,
        of.timestamp("issued")?,
        of.date("due")?,
        of.boolean("paid")?,
        of.numeric("total", None)?,
        of.numeric("tax", Some(2))?,
        of.numeric("discount", Some(2))?,
        of.rest(&[
            "_id",
            "team",
            "number",
            "organisation",
            "user",
            "currency",
            "issued",
            "due",
            "paid",
            "total",
            "tax",
            "discount",
            "lines",
            "v",
        ]),
        version.clone(),
    ];
    let mut lines = Vec::new();
    for (line, line_id, position) in of.children("lines", "sku")? {
        lines.push(vec![
            line_id,
            id.clone(),
            line.text("sku")?,
            position,
            line.text("title")?,
            line.integer("qty")?,
            line.numeric("price", Some(2))?,
            line.boolean("taxed")?,
            version.clone(),
        ]);
    }
    Ok([vec![row], lines])
}

fn ledger(of: &Reader<'_>) -> Result<Row> {
    Ok(vec![
        of.row_id()?,
        of.integer("_id")?,
        of.integer("team")?,
        of.text("account")?,
        of.reference("invoice", Kind::Invoice)?,
        of.reference("user", Kind::User)?,
        of.label("kind", &[("D", "debit"), ("C", "credit")], None)?,
        of.numeric("amount", Some(2))?,
        of.timestamp("at")?,
        of.text("memo")?,
        of.jsonb("flags"),
        of.integer("v")?,
    ])
}

/// The rows of one document: for each table that its collection goes to, the shape and the rows.
pub fn expected(kind: Kind, document: &Document) -> Result<Vec<(Shape, Vec<Row>)>> {
    let ids = Ids::new(MIGRATION);
    let of = Reader { ids: &ids, kind, document };
    Ok(match kind {
        Kind::Organisation => vec![(ORGANISATIONS, vec![organisation(&of)?])],
        Kind::User => vec![(USERS, vec![user(&of)?])],
        Kind::Booking => [BOOKINGS, BOOKING_GUESTS, BOOKING_SLOTS].into_iter().zip(booking(&of)?).collect(),
        Kind::Invoice => [INVOICES, INVOICE_LINES].into_iter().zip(invoice(&of)?).collect(),
        Kind::Ledger => vec![(LEDGER_ENTRIES, vec![ledger(&of)?])],
    })
}

/// Compares every row of every table with what the documents say now.
pub async fn compare(source: &Database, target: &mut Client) -> Result<Report> {
    target.batch_execute("SET TIME ZONE 'UTC'; SET DateStyle = 'ISO, YMD'").await?;
    let isolation = IsolationLevel::RepeatableRead;
    let transaction = target.build_transaction().isolation_level(isolation).read_only(true).start().await?;
    let mut report = Report::default();
    for kind in Kind::ALL {
        let mut tables: Vec<Expected> = match kind {
            Kind::Organisation => vec![Expected::new(ORGANISATIONS)],
            Kind::User => vec![Expected::new(USERS)],
            Kind::Booking => [BOOKINGS, BOOKING_GUESTS, BOOKING_SLOTS].map(Expected::new).into(),
            Kind::Invoice => [INVOICES, INVOICE_LINES].map(Expected::new).into(),
            Kind::Ledger => vec![Expected::new(LEDGER_ENTRIES)],
        };
        let mut documents = source.collection::<Document>(kind.collection()).find(Document::new()).await?;
        while let Some(document) = documents.try_next().await? {
            report.documents += 1;
            for (table, (_, rows)) in tables.iter_mut().zip(expected(kind, &document)?) {
                rows.iter().try_for_each(|row| table.put(row))?;
            }
        }
        for table in tables {
            report.tables.push(table.compare(&transaction, "public").await?);
        }
    }
    transaction.commit().await?;
    Ok(report)
}
