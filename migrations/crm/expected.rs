//! What the documents foretell: every row of every table, and what waits for which other row.
//!
//! A row stands if its document is there and everything that it requires stands. Rows that require each other stand together, so
//! the answer is the largest set in which nothing lacks anything.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

use bson::{Bson, Document};
use futures_util::TryStreamExt as _;
use mongodb::Database;
use mongodb::bson::oid::ObjectId;
use tokio_postgres::{Client, IsolationLevel};
use uuid::Uuid;

use super::MIGRATION;
use super::model::{Junction, Kind, Model, Needs, Spec};
use super::specs::SPECS;
use crate::json::Json;
use crate::oracle::{Expected, Report, Shape};
use crate::rendering::{array, date, numeric, timestamp};
use crate::{Error, Ids, Result};

/// A column that refers to a row that does not stand, and the identifier of that row.
pub type Want = (&'static str, Uuid);

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
}

type Cell = Option<String>;

/// The tables' shapes: of each model its own, then those of its arrays.
static SHAPES: LazyLock<Vec<Vec<Shape>>> = LazyLock::new(|| {
    let of = |spec: &'static Spec| {
        let names = std::iter::once("id").chain(spec.columns.iter().map(|column| column.name));
        let json = spec.columns.iter().filter(|column| column.kind == Kind::Json).map(|column| column.name);
        let (columns, json) = (names.collect::<Vec<_>>().leak(), json.collect::<Vec<_>>().leak());
        let own = Shape { table: spec.table, columns, key: 1, json };
        let junctions = spec.junctions.iter();
        let junctions =
            junctions.map(|one| Shape { table: one.table, columns: &one.columns, key: 2, json: &[] });
        std::iter::once(own).chain(junctions).collect()
    };
    SPECS.iter().map(of).collect()
});

/// Identifiers of rows by what documents have in their references.
struct Names {
    ids: Ids,
    collections: Vec<String>,
}

impl Names {
    fn new() -> Self {
        Self { ids: Ids::new(MIGRATION), collections: SPECS.iter().map(|spec| spec.model.name()).collect() }
    }

    /// Text of 24 hexadecimal digits is the id that it shows.
    fn of(&self, model: Model, id: &Bson) -> Result<Uuid> {
        let shown = match id {
            Bson::String(text) => ObjectId::parse_str(text).ok().map(Bson::ObjectId),
            _ => None,
        };
        self.ids.document(&self.collections[model as usize], shown.as_ref().unwrap_or(id))
    }

    fn own(&self, spec: &Spec, document: &Document) -> Result<Uuid> {
        let id = document.get("_id").ok_or_else(|| wrong(spec, "_id", "is not there"))?;
        self.ids.document(&self.collections[spec.model as usize], id)
    }

    /// What a reference names; none where it is empty.
    fn reference(&self, document: &Document, field: &str, to: Model, needs: Needs) -> Result<Option<Uuid>> {
        match present(document, field) {
            Some(Bson::String(text)) if needs == Needs::May && text.trim().is_empty() => Ok(None),
            value => value.map(|id| self.of(to, id)).transpose(),
        }
    }

    /// The ids of an array, each once.
    fn array(&self, document: &Document, junction: &Junction) -> Result<BTreeSet<Uuid>> {
        let items = match present(document, junction.field) {
            Some(Bson::Array(items)) => items.as_slice(),
            _ => &[],
        };
        items.iter().map(|id| self.of(junction.to, id)).collect()
    }
}

fn wrong(spec: &Spec, field: &str, what: &str) -> Error {
    Error::Unexpected(format!("{}: `{field}` {what}", spec.table))
}

/// Null and absent are one.
fn present<'a>(document: &'a Document, field: &str) -> Option<&'a Bson> {
    document.get(field).filter(|value| **value != Bson::Null)
}

/// The rows that stand, those of junction tables apart.
async fn standing(names: &Names, source: &Database) -> Result<HashSet<Uuid>> {
    let mut standing = HashSet::new();
    let mut required_by: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    for spec in &SPECS {
        let mut documents = source.collection::<Document>(spec.table).find(Document::new()).await?;
        while let Some(document) = documents.try_next().await? {
            let id = names.own(spec, &document)?;
            standing.insert(id);
            for column in spec.columns {
                if let Kind::Ref(to, Needs::Must) = column.kind {
                    let wanted = names.reference(&document, column.field, to, Needs::Must)?;
                    let wanted = wanted.ok_or_else(|| wrong(spec, column.field, "is empty"))?;
                    required_by.entry(wanted).or_default().push(id);
                }
            }
        }
    }
    // What is not there takes with it what requires it, and so on.
    let mut fallen: Vec<Uuid> = required_by.keys().filter(|id| !standing.contains(id)).copied().collect();
    while let Some(id) = fallen.pop() {
        let lost = required_by.get(&id).into_iter().flatten();
        fallen.extend(lost.copied().filter(|id| standing.remove(id)));
    }
    Ok(standing)
}

fn instead(text: &str) -> Cell {
    Some(text.to_owned())
}

/// What Postgres prints for a field's value, but for references.
fn cell(spec: &Spec, kind: Kind, field: &str, value: Option<&Bson>) -> Result<Cell> {
    let fails = |what: &str| Err(wrong(spec, field, what));
    let Some(value) = value else {
        return match kind {
            Kind::WholeOr(text) | Kind::FlagOr(text) => Ok(instead(text)),
            Kind::Label(_, _, absent) => Ok(absent.and_then(instead)),
            Kind::Required | Kind::Email | Kind::Slug | Kind::TimeRequired => fails("is empty"),
            _ => Ok(None),
        };
    };
    let text = || match value {
        Bson::String(text) => Ok(text.clone()),
        Bson::Int32(number) => Ok(number.to_string()),
        Bson::ObjectId(id) => Ok(id.to_hex()),
        _ => Err(wrong(spec, field, "is no text")),
    };
    Ok(match kind {
        Kind::Text | Kind::Required | Kind::Slug => Some(text()?),
        Kind::Trimmed => Some(text()?.trim().to_owned()).filter(|text| !text.is_empty()),
        Kind::Email => Some(text()?.trim().to_lowercase()),
        Kind::Whole | Kind::WholeOr(_) => Some(numeric(value, Some(0))?),
        Kind::Decimal => Some(numeric(value, Some(2))?),
        Kind::Flag | Kind::FlagOr(_) => match value {
            Bson::Boolean(true) | Bson::Int32(1) => instead("true"),
            Bson::Boolean(false) | Bson::Int32(0) => instead("false"),
            Bson::Double(number) => instead(if *number == 1.0 { "true" } else { "false" }),
            Bson::String(text) => match text.trim().to_lowercase().as_str() {
                "yes" | "true" | "on" | "1" => instead("true"),
                "no" | "false" | "0" => instead("false"),
                _ => return fails("is neither yes nor no"),
            },
            _ => return fails("is neither yes nor no"),
        },
        Kind::Time | Kind::TimeRequired => match value {
            Bson::DateTime(time) => Some(timestamp(time.timestamp_millis())),
            Bson::String(text) => match text.trim_end_matches('Z').split_once('T') {
                None => Some(format!("{text} 00:00:00+00")),
                Some((day, clock)) => {
                    Some(format!("{day} {}+00", clock.trim_end_matches('0').trim_end_matches('.')))
                }
            },
            _ => return fails("is no time"),
        },
        Kind::Day => match value {
            Bson::DateTime(time) => Some(date(time.timestamp_millis())),
            Bson::String(text) => Some(text.clone()),
            _ => return fails("is no day"),
        },
        Kind::Json => Some(Json::of(value).canonical()),
        Kind::Texts => {
            let Bson::Array(items) = value else { return fails("is no array") };
            let text = |item: &Bson| match item {
                Bson::String(text) => Ok(text.clone()),
                Bson::ObjectId(id) => Ok(id.to_hex()),
                _ => Err(wrong(spec, field, "has an element that is no text")),
            };
            let texts = items.iter().map(text).collect::<Result<Vec<_>>>()?;
            Some(array(texts.iter().map(String::as_str)))
        }
        Kind::Label(labels, unknown, _) => {
            let text = text()?;
            let label = labels.iter().find(|(written, _)| *written == text.trim()).map(|(_, label)| *label);
            label.or(unknown).and_then(instead)
        }
        Kind::Ref(..) => return fails("is a reference"),
    })
}

/// A row, and what it lacks.
fn row(
    names: &Names,
    standing: &HashSet<Uuid>,
    spec: &Spec,
    document: &Document,
) -> Result<(Vec<Cell>, Waiting)> {
    let mut waiting = Waiting::default();
    let mut cells = vec![Some(names.own(spec, document)?.to_string())];
    for column in spec.columns {
        let Kind::Ref(to, needs) = column.kind else {
            cells.push(cell(spec, column.kind, column.field, present(document, column.field))?);
            continue;
        };
        let mut wanted = names.reference(document, column.field, to, needs)?;
        if let Some(id) = wanted
            && needs != Needs::Nothing
            && !standing.contains(&id)
        {
            waiting.lacks.insert((column.name, id));
            if needs == Needs::Must {
                waiting.requires.insert((column.name, id));
            }
            wanted = None;
        }
        cells.push(wanted.map(|id| id.to_string()));
    }
    waiting.held = !waiting.requires.is_empty();
    Ok((cells, waiting))
}

/// Compares every row of every table with what the documents say now, and tells what has to wait.
pub async fn compare(source: &Database, target: &mut Client) -> Result<Verdict> {
    target.batch_execute("SET TIME ZONE 'UTC'; SET DateStyle = 'ISO, YMD'").await?;
    let isolation = IsolationLevel::RepeatableRead;
    let transaction = target.build_transaction().isolation_level(isolation).read_only(true).start().await?;
    let names = Names::new();
    let standing = standing(&names, source).await?;
    let mut verdict = Verdict::default();
    for (spec, shapes) in SPECS.iter().zip(SHAPES.iter()) {
        let mut tables: Vec<Expected> = shapes.iter().copied().map(Expected::new).collect();
        let mut documents = source.collection::<Document>(spec.table).find(Document::new()).await?;
        while let Some(document) = documents.try_next().await? {
            verdict.report.documents += 1;
            let id = names.own(spec, &document)?;
            let (cells, waiting) = row(&names, &standing, spec, &document)?;
            if !waiting.held {
                tables[0].put(&cells)?;
            }
            if !waiting.lacks.is_empty() {
                verdict.waiting.insert((spec.table.to_owned(), vec![id.to_string()]), waiting);
            }
            for (junction, table) in spec.junctions.iter().zip(&mut tables[1..]) {
                for other in names.array(&document, junction)? {
                    let mut ends = [other; 2];
                    ends[junction.own] = id;
                    let key = ends.map(|end| end.to_string());
                    let lacks = junction.columns.iter().copied().zip(ends);
                    let lacks: BTreeSet<Want> = lacks.filter(|(_, end)| !standing.contains(end)).collect();
                    if lacks.is_empty() {
                        table.put(&key.map(Some))?;
                    } else {
                        let waiting = Waiting { held: true, requires: lacks.clone(), lacks };
                        verdict.waiting.insert((junction.table.to_owned(), key.into()), waiting);
                    }
                }
            }
        }
        for table in tables {
            verdict.report.tables.push(table.compare(&transaction, "public").await?);
        }
    }
    transaction.commit().await?;
    Ok(verdict)
}
