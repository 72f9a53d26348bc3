//! What the documents foretell: every row of every table, and what waits for which other row.
//!
//! A row stands if its document is there and everything that it requires stands, so the answer is the largest set in which nothing lacks
//! anything.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bson::{Bson, Document};
use futures_util::TryStreamExt as _;
use mongodb::Database;
use mongodb::bson::oid::ObjectId;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::MIGRATION;
use super::ciphers::{opened, opened_old, unhex};
use super::model::{Column, Key, Kind, Labels, Model, Needs, Spec, place};
use super::specs::SPECS;
use crate::json::Json;
use crate::oracle::{Expected, Report, Shape};
use crate::rendering::{array, date, numeric, timestamp};
use crate::{Error, Ids, Result};

/// A column that refers to a row that does not stand, and the key of that row.
pub type Want = (&'static str, String);

/// A row that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// It is not in its table. Otherwise it is there, with nulls.
    pub held: bool,
    /// All that it lacks.
    pub lacks: BTreeSet<Want>,
    /// What of it keeps it out of its table.
    pub requires: BTreeSet<Want>,
}

/// What was found, and what has to wait, by table and key.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The tables.
    pub report: Report,
    /// The key's columns, in their order.
    pub waiting: BTreeMap<(String, Vec<String>), Waiting>,
    /// Rows that lack a value of another document.
    pub lacking: usize,
    /// Documents that no table takes.
    pub refused: usize,
    /// Secrets that are not what the documents hold.
    pub secrets: Vec<String>,
    /// Secrets that are.
    pub opened: usize,
}

type Cell = Option<String>;

/// All documents, and what is found by them.
struct World {
    ids: Ids,
    documents: Vec<Vec<Document>>,
    /// Of what is looked up: by collection and identifier, or the text of a field.
    known: HashMap<(Model, String), Document>,
    /// Identifiers of rows that stand, and codes of currencies.
    standing: HashSet<String>,
}

fn wrong(spec: &Spec, field: &str, what: &str) -> Error {
    Error::Unexpected(format!("{}: `{field}` {what}", spec.name))
}

/// Null and absent are one.
fn present<'a>(document: &'a Document, field: &str) -> Option<&'a Bson> {
    match field.split_once('.') {
        Some((outer, inner)) => present(document.get_document(outer).ok()?, inner),
        None => document.get(field).filter(|value| **value != Bson::Null),
    }
}

fn blank(value: &Bson) -> bool {
    matches!(value, Bson::String(text) if text.trim().is_empty())
}

impl World {
    async fn read(source: &Database, firsts: &[&Document]) -> Result<Self> {
        let mut world = Self {
            ids: Ids::new(MIGRATION),
            documents: Vec::new(),
            known: HashMap::new(),
            standing: HashSet::new(),
        };
        for spec in SPECS {
            let found = source.collection::<Document>(spec.name).find(Document::new()).await?;
            let mut documents: Vec<Document> = found.try_collect().await?;
            if spec.append_only {
                // The first version stands, whatever became of it.
                let changed: HashSet<String> =
                    firsts.iter().map(|first| format!("{:?}", first.get("_id"))).collect();
                documents.retain(|document| !changed.contains(&format!("{:?}", document.get("_id"))));
                documents.extend(firsts.iter().map(|first| (*first).clone()));
            }
            world.documents.push(documents);
        }
        for spec in SPECS.iter().filter(|spec| spec.table.is_empty()) {
            for document in &world.documents[place(spec.name)] {
                let mut names = vec![world.id(spec.name, own(spec, document)?)?];
                names.extend(present(document, "owner").map(plain_id).filter(|_| spec.name == "link"));
                for name in names {
                    world.known.insert((spec.name, name), document.clone());
                }
            }
        }
        world.stand()?;
        Ok(world)
    }

    /// The identifier of a document. Text of 24 hexadecimal digits is the id that it shows.
    fn id(&self, model: Model, id: &Bson) -> Result<String> {
        let shown = match id {
            Bson::String(text) => ObjectId::parse_str(text).ok().map(Bson::ObjectId),
            _ => None,
        };
        let name = format!("legacy.{model}");
        Ok(self.ids.document(&name, shown.as_ref().unwrap_or(id))?.to_string())
    }

    /// What stands: all, without what lacks something by itself, without what requires that, and so on.
    fn stand(&mut self) -> Result<()> {
        let mut standing = HashSet::new();
        let mut required_by: HashMap<String, Vec<String>> = HashMap::new();
        for spec in SPECS.iter().filter(|spec| !spec.table.is_empty()) {
            for document in &self.documents[place(spec.name)] {
                let id = self.id(spec.name, own(spec, document)?)?;
                if let Key::Own(_) = spec.key {
                    standing.insert(text_of(own(spec, document)?));
                }
                if !self.refused(spec, document) && !self.lacks_value(spec, document)? {
                    standing.insert(id.clone());
                }
                for column in spec.columns {
                    if let Some((to, true)) = reference(column.kind) {
                        let wanted = present(document, column.field);
                        let wanted = wanted.ok_or_else(|| wrong(spec, column.field, "is empty"))?;
                        required_by.entry(self.id(to, wanted)?).or_default().push(id.clone());
                    }
                }
            }
        }
        let mut fallen: Vec<String> =
            required_by.keys().filter(|id| !standing.contains(*id)).cloned().collect();
        while let Some(id) = fallen.pop() {
            let lost = required_by.get(&id).into_iter().flatten();
            fallen.extend(lost.filter(|id| standing.remove(*id)).cloned());
        }
        self.standing = standing;
        Ok(())
    }

    /// No table takes it.
    fn refused(&self, spec: &Spec, document: &Document) -> bool {
        spec.name == "crmnote" && !matches!(document.get_str("subjectType"), Ok("contact" | "organisation"))
    }

    /// Another document has no value for a column that needs one.
    fn lacks_value(&self, spec: &Spec, document: &Document) -> Result<bool> {
        for column in spec.columns {
            if matches!(column.kind, Kind::LookLabel(_, _, _, None))
                && self.cell(spec, column, document)?.is_none()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn look(&self, of: Model, id: Option<&Bson>, take: &str) -> Result<Option<&Bson>> {
        let Some(id) = id else { return Ok(None) };
        let found = self.known.get(&(of, self.id(of, id)?));
        Ok(found.and_then(|document| present(document, take)))
    }

    /// What a reference names; none where it is empty.
    fn wanted(&self, column: &Column, document: &Document) -> Result<Option<(String, bool)>> {
        let value = present(document, column.field).filter(|value| !blank(value));
        Ok(match (column.kind, value) {
            (Kind::Currency, Some(value)) => Some((text_of(value).trim().to_owned(), false)),
            (Kind::Subject(to, word), Some(value)) if document.get_str("subjectType").ok() == Some(word) => {
                Some((self.id(to, value)?, false))
            }
            (Kind::Subject(..), _) => None,
            (kind, value) => match (reference(kind), value) {
                (Some((to, must)), Some(value)) => Some((self.id(to, value)?, must)),
                _ => None,
            },
        })
    }

    /// What Postgres prints for a field's value, but for references and secrets.
    fn cell(&self, spec: &Spec, column: &Column, document: &Document) -> Result<Cell> {
        let value = present(document, column.field);
        let some = |text: &str| Some(text.to_owned());
        let kind = column.kind;
        // What other documents say comes first: there, no value means something else.
        match kind {
            Kind::Look(of, take, default) => {
                return Ok(self.look(of, value, take)?.map(text_of).or(default.and_then(some)));
            }
            Kind::LookLabel(of, take, labels, default) => {
                let found = self.look(of, value, take)?.map(text_of);
                return Ok(found.filter(|text| labels.contains(&text.as_str())).or(default.and_then(some)));
            }
            Kind::LookJson(of, take) => {
                return Ok(self.look(of, value, take)?.map(|value| Json::of(value).canonical()));
            }
            Kind::LookBack(of, _, take) => {
                let found = self.known.get(&(of, plain_id(own(spec, document)?)));
                return Ok(found.and_then(|document| present(document, take)).map(text_of));
            }
            Kind::SpaceType(of, take) => {
                let name = self.look(of, value, take)?.map(text_of).unwrap_or_default();
                return Ok(some(match name.trim().to_lowercase().as_str() {
                    "hot desk" | "hotdesk" => "hot_desk",
                    "dedicated desk" => "dedicated_desk",
                    "private office" => "private_office",
                    _ => "other",
                }));
            }
            Kind::Rest => return Ok(Some(rest(spec, document).canonical())),
            _ => {}
        }
        let fails = |what: &str| Err(wrong(spec, column.field, what));
        let Some(value) = value else {
            return match kind {
                Kind::WholeOr(text) | Kind::FlagOr(text) | Kind::DecimalOr(_, text) => Ok(some(text)),
                Kind::Digit => Ok(some("2")),
                Kind::Label(_, _, absent) => Ok(absent.and_then(some)),
                Kind::Required | Kind::Email | Kind::Fixed(_) | Kind::TimeRequired | Kind::Amount => {
                    fails("is empty")
                }
                _ => Ok(None),
            };
        };
        Ok(match kind {
            Kind::Text | Kind::Required | Kind::Fixed(_) => Some(text_of(value)),
            Kind::Trimmed => Some(text_of(value).trim().to_owned()).filter(|text| !text.is_empty()),
            Kind::Email => Some(text_of(value).trim().to_lowercase()),
            Kind::Whole | Kind::WholeOr(_) | Kind::Percent | Kind::Digit => Some(numeric(value, Some(0))?),
            Kind::Loose => numeric(value, Some(0)).ok(),
            Kind::Clamped => {
                let number: i64 = numeric(value, Some(0))?
                    .parse()
                    .map_err(|_| wrong(spec, column.field, "is no number"))?;
                Some(number.clamp(i64::from(i16::MIN), i64::from(i16::MAX)).to_string())
            }
            Kind::Decimal(scale) | Kind::DecimalOr(scale, _) => Some(numeric(value, Some(scale))?),
            Kind::Rate | Kind::Amount => Some(numeric(value, Some(2))?),
            Kind::FlagOr(_) => {
                flag(value).ok_or_else(|| wrong(spec, column.field, "is neither yes nor no")).map(some)?
            }
            Kind::Time | Kind::TimeRequired | Kind::LooseTime => match (moment(value), kind) {
                (None, Kind::LooseTime) => None,
                (None, _) => return fails("is no time"),
                (time, _) => time,
            },
            Kind::Day => match value {
                Bson::DateTime(time) => Some(date(time.timestamp_millis())),
                Bson::String(text) => Some(text.clone()),
                _ => return fails("is no day"),
            },
            Kind::Json => Some(Json::of(value).canonical()),
            Kind::Inet => Some(text_of(value)).filter(|text| text.contains('.')).map(|text| text + "/32"),
            Kind::Texts => {
                let Bson::Array(items) = value else { return fails("is no array") };
                let texts: Vec<String> = items.iter().map(text_of).collect();
                Some(array(texts.iter().map(String::as_str)))
            }
            Kind::Refs(to) => {
                let Bson::Array(items) = value else { return fails("is no array") };
                let one = |item: &Bson| match item {
                    Bson::Null => Ok("NULL".to_owned()),
                    id => self.id(to, id),
                };
                Some(format!("{{{}}}", items.iter().map(one).collect::<Result<Vec<_>>>()?.join(",")))
            }
            Kind::Label(labels, unknown, _) => label(labels, &text_of(value)).or(unknown).and_then(some),
            _ => return fails("is no value of its own"),
        })
    }

    /// A row's cells by column, and what it lacks.
    fn row(&self, spec: &Spec, document: &Document) -> Result<(BTreeMap<&'static str, Cell>, Waiting)> {
        let mut waiting = Waiting::default();
        let mut cells = BTreeMap::new();
        let id = own(spec, document)?;
        match spec.key {
            Key::Uuid => {
                cells.insert("id", Some(self.id(spec.name, id)?));
            }
            Key::Own(column) => {
                cells.insert(column, Some(text_of(id)));
            }
            Key::Setting(None) => {
                cells.insert("key", Some(text_of(id)));
            }
            Key::Setting(Some(_)) => {}
        }
        cells.extend(spec.set.iter().map(|(column, value)| (*column, Some((*value).to_owned()))));
        for column in spec.columns {
            let refers =
                reference(column.kind).is_some() || matches!(column.kind, Kind::Currency | Kind::Subject(..));
            if !refers {
                if !is_secret(column.kind) {
                    cells.insert(column.name, self.cell(spec, column, document)?);
                }
                continue;
            }
            let mut wanted = self.wanted(column, document)?;
            if let Some((id, must)) = wanted.clone().filter(|(id, _)| !self.standing.contains(id)) {
                waiting.lacks.insert((column.name, id.clone()));
                if must {
                    waiting.requires.insert((column.name, id));
                }
                wanted = None;
            }
            cells.insert(column.name, wanted.map(|(id, _)| id));
        }
        waiting.held = !waiting.requires.is_empty();
        Ok((cells, waiting))
    }
}

fn own<'a>(spec: &Spec, document: &'a Document) -> Result<&'a Bson> {
    document.get("_id").ok_or_else(|| wrong(spec, "_id", "is not there"))
}

/// To what a column refers, and whether there is no row without it.
fn reference(kind: Kind) -> Option<(Model, bool)> {
    match kind {
        Kind::Ref(to, needs) => Some((to, needs != Needs::May)),
        Kind::Peer(to) => Some((to, true)),
        _ => None,
    }
}

fn is_secret(kind: Kind) -> bool {
    matches!(kind, Kind::Sealed(_) | Kind::Token)
}

fn text_of(value: &Bson) -> String {
    match value {
        Bson::String(text) => text.clone(),
        Bson::ObjectId(id) => id.to_hex(),
        Bson::Int32(number) => number.to_string(),
        Bson::Int64(number) => number.to_string(),
        other => format!("no text: {other}"),
    }
}

/// An id as the text that look-ups by a field compare.
fn plain_id(id: &Bson) -> String {
    format!("the text {}", text_of(id))
}

fn label(labels: Labels, text: &str) -> Option<&'static str> {
    labels.iter().find(|(written, _)| *written == text.trim()).map(|(_, label)| *label)
}

fn flag(value: &Bson) -> Option<&'static str> {
    let yes = match value {
        Bson::Boolean(yes) => *yes,
        Bson::Int32(number) => *number == 1,
        Bson::Double(number) => *number == 1.0,
        Bson::String(text) => match text.trim().to_lowercase().as_str() {
            "yes" | "true" | "on" | "1" => true,
            "no" | "false" | "0" => false,
            _ => return None,
        },
        _ => return None,
    };
    Some(if yes { "true" } else { "false" })
}

fn moment(value: &Bson) -> Option<String> {
    match value {
        Bson::DateTime(time) => Some(timestamp(time.timestamp_millis())),
        Bson::String(text) if text.starts_with("19") || text.starts_with("20") => {
            Some(match text.trim_end_matches('Z').split_once('T') {
                None => format!("{text} 00:00:00+00"),
                Some((day, clock)) => {
                    format!("{day} {}+00", clock.trim_end_matches('0').trim_end_matches('.'))
                }
            })
        }
        _ => None,
    }
}

/// The fields that nobody names.
fn rest(spec: &Spec, document: &Document) -> Json {
    let mut used: HashSet<&str> =
        spec.columns.iter().filter_map(|column| column.field.split('.').next()).collect();
    used.extend(spec.junctions.iter().map(|junction| junction.field));
    // The column is called so, the document has no such field.
    let rest = spec.columns.iter().find(|column| column.kind == Kind::Rest).map(|column| column.field);
    used.retain(|field| Some(*field) != rest);
    used.insert("_id");
    let left = document.iter().filter(|(field, _)| !used.contains(field.as_str()));
    Json::document(&left.map(|(field, value)| (field.clone(), value.clone())).collect())
}

/// The tables' shapes, each with all columns that any collection gives.
fn shapes() -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    for spec in SPECS.iter().filter(|spec| !spec.table.is_empty()) {
        let key: Vec<&'static str> = match spec.key {
            Key::Uuid => vec!["id"],
            Key::Own(column) => vec![column],
            Key::Setting(_) => vec!["scope", "key"],
        };
        let found = shapes.iter().position(|shape| shape.table == spec.table);
        let at = found.unwrap_or_else(|| {
            let length = key.len();
            shapes.push(Shape { table: spec.table, columns: key.leak(), key: length, json: &[] });
            shapes.len() - 1
        });
        let mut columns = shapes[at].columns.to_vec();
        let mut json = shapes[at].json.to_vec();
        let plain = spec.columns.iter().filter(|column| !is_secret(column.kind));
        for name in spec.set.iter().map(|(name, _)| *name).chain(plain.clone().map(|column| column.name)) {
            if !columns.contains(&name) {
                columns.push(name);
            }
        }
        for column in plain {
            if matches!(column.kind, Kind::Json | Kind::LookJson(..) | Kind::Rest)
                && !json.contains(&column.name)
            {
                json.push(column.name);
            }
        }
        shapes[at].columns = columns.leak();
        shapes[at].json = json.leak();
        shapes.extend(spec.junctions.iter().map(|junction| Shape {
            table: junction.table,
            columns: &junction.columns,
            key: 2,
            json: &[],
        }));
    }
    shapes
}

/// Compares every row of every table with what the documents say now, and tells what has to wait. `firsts`: entries of the ledger that
/// somebody has changed, as they were first.
pub async fn compare(source: &Database, target: &mut Client, firsts: &[&Document]) -> Result<Verdict> {
    target.batch_execute("SET TIME ZONE 'UTC'; SET DateStyle = 'ISO, YMD'").await?;
    let isolation = IsolationLevel::RepeatableRead;
    let transaction = target.build_transaction().isolation_level(isolation).read_only(true).start().await?;
    let world = World::read(source, firsts).await?;
    let mut verdict = Verdict::default();
    let mut tables: Vec<(Shape, Expected)> =
        shapes().into_iter().map(|shape| (shape, Expected::new(shape))).collect();
    for spec in SPECS.iter().filter(|spec| !spec.table.is_empty()) {
        let at = tables.iter().position(|(shape, _)| shape.table == spec.table);
        let (shape, _) = tables[at.ok_or_else(|| wrong(spec, "_id", "has no table"))?];
        let mut secrets: BTreeMap<String, BTreeMap<&'static str, Option<String>>> = BTreeMap::new();
        for document in &world.documents[place(spec.name)] {
            verdict.report.documents += 1;
            let id = world.id(spec.name, own(spec, document)?)?;
            if world.refused(spec, document) {
                verdict.refused += 1;
                continue;
            }
            let (cells, waiting) = world.row(spec, document)?;
            if world.lacks_value(spec, document)? {
                verdict.lacking += 1;
            } else if !waiting.held {
                let row: Vec<Cell> =
                    shape.columns.iter().map(|column| cells.get(column).cloned().flatten()).collect();
                put(&mut tables, shape.table, &row)?;
                let sealed = spec.columns.iter().filter(|column| is_secret(column.kind));
                for column in sealed {
                    secrets.entry(id.clone()).or_default().insert(column.name, secret(column, document));
                }
            }
            if !waiting.lacks.is_empty() && !world.lacks_value(spec, document)? {
                let key = shape.columns[..shape.key]
                    .iter()
                    .filter_map(|column| cells.get(column).cloned().flatten());
                verdict.waiting.insert((spec.table.to_owned(), key.collect()), waiting);
            }
            for junction in spec.junctions {
                let items = match present(document, junction.field) {
                    Some(Bson::Array(items)) => items.as_slice(),
                    _ => &[],
                };
                let others =
                    items.iter().filter(|item| **item != Bson::Null).map(|item| world.id(junction.to, item));
                for other in others.collect::<Result<BTreeSet<String>>>()? {
                    let ends = [id.clone(), other];
                    let lacks = junction.columns.iter().copied().zip(ends.clone());
                    let lacks: BTreeSet<Want> =
                        lacks.filter(|(_, end)| !world.standing.contains(end)).collect();
                    if lacks.is_empty() {
                        put(&mut tables, junction.table, &ends.map(Some))?;
                    } else {
                        let waiting = Waiting { held: true, requires: lacks.clone(), lacks };
                        verdict.waiting.insert((junction.table.to_owned(), ends.into()), waiting);
                    }
                }
            }
        }
        open(&transaction, spec, secrets, &mut verdict).await?;
    }
    for (_, table) in tables {
        verdict.report.tables.push(table.compare(&transaction, "public").await?);
    }
    transaction.commit().await?;
    Ok(verdict)
}

fn put(tables: &mut [(Shape, Expected)], table: &str, row: &[Cell]) -> Result<()> {
    tables.iter_mut().filter(|(shape, _)| shape.table == table).try_for_each(|(_, table)| table.put(row))
}

/// What a secret is in plain text.
fn secret(column: &Column, document: &Document) -> Option<String> {
    let text = present(document, column.field).map(text_of)?;
    match column.kind {
        Kind::Token => Some(text),
        _ => opened_old(&text),
    }
}

/// Decrypts the secrets of a collection's rows, as the new application does.
async fn open(
    target: &Transaction<'_>,
    spec: &Spec,
    secrets: BTreeMap<String, BTreeMap<&'static str, Option<String>>>,
    verdict: &mut Verdict,
) -> Result<()> {
    for column in spec.columns.iter().filter(|column| is_secret(column.kind)) {
        let name = column.name;
        let bytes =
            if column.kind == Kind::Token { name.to_owned() } else { format!("convert_to({name}, 'UTF8')") };
        let statement = format!("SELECT id::text, {bytes} FROM {}", spec.table);
        for row in target.query(&statement, &[]).await? {
            let (id, sealed): (String, Option<Vec<u8>>) = (row.get(0), row.get(1));
            // Rows of other collections are compared with theirs, and those that nobody expects are found as such.
            let Some(wanted) = secrets.get(&id).and_then(|columns| columns.get(name)) else { continue };
            let sealed = match (sealed, column.kind) {
                (Some(text), Kind::Sealed(_)) => unhex(&String::from_utf8_lossy(&text)),
                (sealed, _) => sealed,
            };
            let empty = sealed.is_none();
            let found = sealed.and_then(|sealed| opened(&sealed));
            if found == *wanted && empty == wanted.is_none() {
                verdict.opened += 1;
            } else {
                verdict.secrets.push(format!("{}.{name} of {id}", spec.table));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::documents::subject;
    use super::*;

    #[test]
    fn every_table_has_one_shape() {
        let shapes = shapes();
        let names: HashSet<&str> = shapes.iter().map(|shape| shape.table).collect();
        assert_eq!((names.len(), shapes.len()), (53, 53));
        assert_eq!(SPECS.len() + 10, 88, "ten are not carried");
        assert_eq!(subject(18), Some("spaceship"));
    }
}
