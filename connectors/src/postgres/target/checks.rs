//! The target's side of a check: the values that a query of the team gives, and how far the target was when it gave them.
//!
//! Values come as text, with the kind of each, so that numbers stay exact. Where the log is direct the query and the progress of the
//! stream are read in one snapshot: rows and progress are committed together, so the rows are as of that progress.

use slackwater_topics::Moment;
use tokio_postgres::Column;
use tokio_postgres::types::Type;

use super::finish::Finisher;
use crate::error::{Error, Kind, Result};
use crate::postgres::error::explain;
use crate::postgres::progress::progress_of;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellKind {
    /// An exact number.
    Exact,
    /// A floating-point number.
    Float,
    /// True or false.
    Boolean,
    /// A date or a time: microseconds since 1970, or a word (`infinity`).
    Time,
    /// Anything else, as text.
    Text,
}

/// A value; no text is NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What it is.
    pub kind: CellKind,
    /// The value.
    pub text: Option<String>,
}

/// How far the stream of a source was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The rows are those of this moment, as far as is known.
    pub through: Moment,
    /// It is known: all of that moment is in them, and nothing that is later.
    pub exact: bool,
}

/// What a query has given.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The key, where one was wanted, and the value of each row.
    pub rows: Vec<(Option<Cell>, Cell)>,
    /// How far the lane was, if one was named and has begun.
    pub standing: Option<Standing>,
}

/// A query of the team.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The check's name, for messages.
    pub name: &'a str,
    /// The query.
    pub sql: &'a str,
    /// The column with the key.
    pub by: Option<&'a str>,
    /// It gives at most so many rows.
    pub most: usize,
}

impl Finisher {
    /// Asks. `lane`: migration and lane whose progress is read in the same snapshot.
    pub async fn ask(&self, question: Question<'_>, lane: Option<(&str, &str)>) -> Result<Asked> {
        let doing = format!("running the check `{}`", question.name);
        let fail = |error: tokio_postgres::Error| explain(doing.as_str(), &error);
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.client.batch_execute(begin).await.map_err(fail)?;
        let asked = self.asked(question, lane, &doing).await;
        let ended = self.client.batch_execute("ROLLBACK").await;
        let asked = asked?;
        ended.map_err(fail)?;
        Ok(asked)
    }

    async fn asked(&self, question: Question<'_>, lane: Option<(&str, &str)>, doing: &str) -> Result<Asked> {
        let fail = |error: tokio_postgres::Error| explain(doing, &error);
        let standing = match lane {
            Some(lane) => self.standing(lane).await?,
            None => None,
        };
        let sql = question.sql.trim().trim_end_matches(';');
        let shape = self.client.prepare(&format!("SELECT * FROM ({sql}\n) AS q")).await.map_err(fail)?;
        let (key, value) =
            places(shape.columns(), question.by).map_err(|what| Error::new(Kind::Unsuitable, doing, what))?;
        let names: Vec<String> = (0..shape.columns().len()).map(|place| format!("c{place}")).collect();
        let wanted: Vec<String> = key
            .iter()
            .chain([&value])
            .map(|place| as_text(&names[*place], shape.columns()[*place].type_()))
            .collect();
        let most = question.most.saturating_add(1);
        let wrapped =
            format!("SELECT {} FROM ({sql}\n) AS q({}) LIMIT {most}", wanted.join(", "), names.join(", "));
        let rows = self.client.query(&wrapped, &[]).await.map_err(fail)?;
        if rows.len() > question.most {
            let what = match question.by {
                Some(_) => format!("it gives more than {} rows", question.most),
                None => "it gives more than one row: without `by` it has to give one value".to_owned(),
            };
            return Err(Error::new(Kind::Unsuitable, doing, what));
        }
        let cell = |row: &tokio_postgres::Row, at: usize, place: usize| {
            Ok(Cell { kind: kind(shape.columns()[place].type_()), text: row.try_get(at)? })
        };
        let read = rows.iter().map(|row| match key {
            Some(place) => Ok((Some(cell(row, 0, place)?), cell(row, 1, value)?)),
            None => Ok((None, cell(row, 0, value)?)),
        });
        let rows = read.collect::<std::result::Result<Vec<_>, _>>().map_err(fail)?;
        Ok(Asked { rows, standing })
    }

    /// How far a lane is; `None` if it has not begun.
    pub async fn standing(&self, (migration, lane): (&str, &str)) -> Result<Option<Standing>> {
        let fail = |error: tokio_postgres::Error| explain("reading how far the target is", &error);
        let sql = "SELECT sequence, position_time, position_token, source_time, applied_through, horizon, events, rows_written, as_of \
                   FROM slackwater.lanes WHERE migration = $1 AND lane = $2";
        let Some(row) = self.client.query_opt(sql, &[&migration, &lane]).await.map_err(fail)? else {
            return Ok(None);
        };
        let progress = progress_of(&row, 0).map_err(fail)?;
        Ok(progress.applied_through.map(|through| {
            // A change that shares its time with others may be there without them, and a document that was looked up may be newer.
            let last = progress.position.map_or(through, |position| position.moment);
            Standing { through: through.max(last), exact: last <= through && progress.horizon <= through }
        }))
    }
}

/// The places of the key and of the value.
fn places(columns: &[Column], by: Option<&str>) -> std::result::Result<(Option<usize>, usize), String> {
    let count = columns.len();
    let Some(by) = by else {
        return match count {
            1 => Ok((None, 0)),
            _ => Err(format!("it gives {count} columns: without `by` it has to give one value")),
        };
    };
    let key = columns.iter().position(|column| column.name() == by);
    let key = key.ok_or_else(|| format!("it gives no column `{by}`, which `by` names"))?;
    match count {
        2 => Ok((Some(key), 1 - key)),
        _ => Err(format!("it gives {count} columns: beside `{by}` it has to give one value")),
    }
}

fn kind(of: &Type) -> CellKind {
    match *of {
        Type::INT2 | Type::INT4 | Type::INT8 | Type::NUMERIC | Type::OID => CellKind::Exact,
        Type::FLOAT4 | Type::FLOAT8 => CellKind::Float,
        Type::BOOL => CellKind::Boolean,
        Type::DATE | Type::TIMESTAMP | Type::TIMESTAMPTZ => CellKind::Time,
        _ => CellKind::Text,
    }
}

fn as_text(name: &str, of: &Type) -> String {
    match kind(of) {
        // A time without a zone is one of UTC.
        CellKind::Time => format!(
            "CASE WHEN pg_catalog.isfinite({name}) THEN round(extract(epoch FROM {name})::numeric * 1000000)::bigint::text \
             ELSE {name}::text END"
        ),
        _ => format!("{name}::text"),
    }
}
