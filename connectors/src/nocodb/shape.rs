//! How a table is read: which columns are asked for, what becomes of them, and where the ids of its links stand.
//!
//! Columns are asked for by id, because a title may hold any character; answers name them by title. A column that changes its title
//! or type shows as another shape.

use super::meta::{Described, DescribedColumn};
use super::settings::Settings;

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) id: String,
    pub(super) title: String,
}

/// What a record is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyShape {
    /// A whole number, which the server sorts as we do.
    Number(Column),
    /// Anything else, in the order of the server's database, which we do not know. A record is found by the values of these columns.
    Other(Vec<Column>),
}

/// What a value becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// What the JSON says.
    Plain,
    /// Decimal128, digit by digit.
    Decimal,
    DateTime,
    Boolean,
    /// Text with commas: an array of text.
    Choices,
    /// The first of a list.
    First,
    /// Without what changes each time it is asked for.
    Files,
}

/// A column that a document has a field for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) column: Column,
    /// The type that people chose.
    pub(super) kind: String,
    pub(super) form: Form,
}

/// Where the ids of a link stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// In a column of the record itself.
    Here(Column),
    /// In another table: that of the linked records, or one that holds nothing but links.
    There {
        table: String,
        /// Refers to our record.
        own: Column,
        /// The linked record's id.
        other: Column,
        /// The record tells how many there are.
        counted: Option<Column>,
    },
}

/// A link to records of another table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) title: String,
    /// One id, not an array.
    pub(super) single: bool,
    pub(super) stands: Stands,
}

/// How a table is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) table: String,
    pub(super) title: String,
    pub(super) key: KeyShape,
    /// Sorted by title, so that the same content is the same bytes.
    pub(super) fields: Vec<Field>,
    pub(super) links: Vec<Link>,
    /// Links that cannot be read, and why.
    pub(super) unreadable: Vec<(String, String)>,
    pub(super) created: Option<Column>,
    pub(super) updated: Option<Column>,
}

/// What becomes of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// A document has a field for it.
    Read,
    /// It would be read if it were named.
    Unless,
    /// It cannot be read.
    Never(&'static str),
}

/// Tables that links lead to.
pub(super) type Related<'a> = &'a dyn Fn(&str) -> Option<&'a Described>;

/// The tables that have to be known to read the links of this one.
pub(super) fn leads_to(table: &Described) -> Vec<&str> {
    let elsewhere = table.columns.iter().filter(|column| is_link(column) && !is_here(column));
    let mut ids: Vec<&str> =
        elsewhere.filter(|column| used(column) == Use::Read).filter_map(holder).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.retain(|id| *id != table.id);
    ids
}

fn is_link(column: &DescribedColumn) -> bool {
    matches!(column.uidt.as_str(), "Links" | "LinkToAnotherRecord")
}

/// A belongs-to, or the side of a one-to-one that holds the id.
fn is_here(column: &DescribedColumn) -> bool {
    let kind = column.option("type");
    kind == Some("bt") || (kind == Some("oo") && column.is_belonging())
}

/// The table that holds the ids of a link.
fn holder(column: &DescribedColumn) -> Option<&str> {
    column.option("fk_mm_model_id").or_else(|| column.option("fk_related_model_id"))
}

/// What becomes of a column that is no link.
fn form(column: &DescribedColumn) -> Form {
    match column.uidt.as_str() {
        "Decimal" | "Currency" => Form::Decimal,
        "DateTime" | "CreatedTime" | "LastModifiedTime" => Form::DateTime,
        "Checkbox" => Form::Boolean,
        "MultiSelect" => Form::Choices,
        "User" if !column.is_multi() => Form::First,
        "Attachment" => Form::Files,
        _ => Form::Plain,
    }
}

/// What becomes of a column, unless it is named.
pub(super) fn used(column: &DescribedColumn) -> Use {
    match column.uidt.as_str() {
        "Button" | "QrCode" | "Barcode" => Use::Never("it shows what stands elsewhere"),
        _ if column.title == "_id" && !column.is_key() => Use::Never("`_id` is the record's key"),
        _ if column.is_key() => Use::Read,
        "CreatedTime" | "LastModifiedTime" => Use::Read,
        _ if column.is_system() => Use::Unless,
        "Formula" | "Rollup" | "Lookup" | "ForeignKey" | "Order" | "Deleted" | "Meta" => Use::Unless,
        _ => Use::Read,
    }
}

/// How a table is read, or why it cannot be.
pub(super) fn shape<'a>(
    table: &Described,
    related: Related<'a>,
    settings: &Settings,
) -> Result<Shape, String> {
    let wanted = |column: &DescribedColumn| match used(column) {
        Use::Read => true,
        Use::Never(_) => false,
        Use::Unless => settings.include.iter().any(|(of, name)| {
            (*of == table.title || *of == table.id) && (*name == column.title || *name == column.id)
        }),
    };
    let mut shape = Shape {
        table: table.id.clone(),
        title: table.title.clone(),
        key: key(table)?,
        fields: Vec::new(),
        links: Vec::new(),
        unreadable: Vec::new(),
        created: stamp(table, "CreatedTime"),
        updated: stamp(table, "LastModifiedTime"),
    };
    for column in table.columns.iter().filter(|column| wanted(column)) {
        if is_link(column) {
            match link(table, column, related) {
                Ok(link) => shape.links.push(link),
                Err(why) => shape.unreadable.push((column.title.clone(), why)),
            }
        } else {
            shape.fields.push(Field { column: plain(column), kind: column.uidt.clone(), form: form(column) });
        }
    }
    shape.fields.sort_by(|a, b| a.column.title.cmp(&b.column.title));
    shape.links.sort_by(|a, b| a.title.cmp(&b.title));
    Ok(shape)
}

impl Shape {
    /// Whether documents have this field.
    pub(super) fn has(&self, name: &str) -> bool {
        name == "_id"
            || self.fields.iter().any(|field| field.column.title == name)
            || self.links.iter().any(|link| link.title == name)
    }

    /// The columns to ask for, by their ids.
    pub(super) fn asked(&self) -> String {
        let mut ids: Vec<&str> = self.key_columns().iter().map(|column| column.id.as_str()).collect();
        ids.extend(self.fields.iter().map(|field| field.column.id.as_str()));
        ids.extend([&self.created, &self.updated].into_iter().flatten().map(|column| column.id.as_str()));
        for link in &self.links {
            match &link.stands {
                Stands::Here(column) | Stands::There { counted: Some(column), .. } => ids.push(&column.id),
                Stands::There { .. } => {}
            }
        }
        ids.sort_unstable();
        ids.dedup();
        ids.join(",")
    }

    /// The columns of its key.
    pub(super) fn key_columns(&self) -> &[Column] {
        match &self.key {
            KeyShape::Number(column) => std::slice::from_ref(column),
            KeyShape::Other(columns) => columns,
        }
    }
}

fn plain(column: &DescribedColumn) -> Column {
    Column { id: column.id.clone(), title: column.title.clone() }
}

/// The table's own time, not a column of that type that somebody has added: those show the same, and cannot always be filtered by.
fn stamp(table: &Described, kind: &str) -> Option<Column> {
    let of_kind = || table.columns.iter().filter(|column| column.uidt == kind);
    of_kind().find(|column| column.is_system()).or_else(|| of_kind().next()).map(plain)
}

fn key(table: &Described) -> Result<KeyShape, String> {
    let keys: Vec<&DescribedColumn> = table.columns.iter().filter(|column| column.is_key()).collect();
    match keys.as_slice() {
        [] => Err("it has no primary key, so its records cannot be told apart".into()),
        [one] if is_whole(one) => Ok(KeyShape::Number(plain(one))),
        more => Ok(KeyShape::Other(more.iter().map(|column| plain(column)).collect())),
    }
}

fn is_whole(column: &DescribedColumn) -> bool {
    let kind = column.dt.as_deref().unwrap_or_default().to_ascii_lowercase();
    (kind.contains("int") && !kind.contains("interval")) || kind.contains("serial")
}

fn link<'a>(table: &Described, column: &DescribedColumn, related: Related<'a>) -> Result<Link, String> {
    let title = column.title.clone();
    let missing = |what: &str| what.to_owned();
    let kind = column.option("type").unwrap_or_default();
    let option =
        |name: &str| column.option(name).ok_or_else(|| missing("the server does not tell where it stands"));
    let counted =
        (column.uidt == "Links" && column.option("fk_target_view_id").is_none()).then(|| plain(column));
    if kind == "mm" {
        let table = option("fk_mm_model_id")?;
        let junction =
            related(table).ok_or_else(|| missing("the token's user may not read the table of its links"))?;
        let find =
            |name| column_of(junction, option(name)?).ok_or_else(|| missing("a column of its links is gone"));
        let (own, other) = (find("fk_mm_child_column_id")?, find("fk_mm_parent_column_id")?);
        let stands = Stands::There { table: table.to_owned(), own, other, counted };
        return Ok(Link { title, single: false, stands });
    }
    let foreign = option("fk_child_column_id")?;
    if is_here(column) {
        let here =
            column_of(table, foreign).ok_or_else(|| missing("the column that holds its id is gone"))?;
        return Ok(Link { title, single: true, stands: Stands::Here(here) });
    }
    let child = option("fk_related_model_id")?;
    let child = if child == table.id {
        table
    } else {
        related(child).ok_or_else(|| missing("the token's user may not read the table that it leads to"))?
    };
    let own = column_of(child, foreign).ok_or_else(|| missing("the column that holds its id is gone"))?;
    let other = match key(child)? {
        KeyShape::Number(column) => column,
        KeyShape::Other(mut columns) if columns.len() == 1 => columns.remove(0),
        KeyShape::Other(_) => return Err(missing("the linked records have a key of several columns")),
    };
    let stands = Stands::There { table: child.id.clone(), own, other, counted };
    Ok(Link { title, single: kind == "oo", stands })
}

fn column_of(table: &Described, id: &str) -> Option<Column> {
    table.columns.iter().find(|column| column.id == id).map(plain)
}
