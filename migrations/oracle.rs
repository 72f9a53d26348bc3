//! The judge: rows as they have to be, against rows as they are.
//!
//! All rows of a table are read in the text that Postgres prints for them, so nothing is taken on trust from any
//! encoder. The caller holds one REPEATABLE READ transaction for all tables, so that a look at a target that is
//! being written to is still one look.

use std::collections::HashMap;
use std::fmt;

use futures_util::TryStreamExt as _;
use tokio_postgres::Transaction;

use crate::json::Json;
use crate::{Error, Result};

/// Between the cells of a row; no example has it in a text.
const BORDER: char = '\u{1f}';
/// A null, which no text of Postgres can be.
const NULL: &str = "\0";
/// So many differences are kept with their values; all are counted.
const KEPT: usize = 20;

/// What the judge looks at in one table.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The table.
    pub table: &'static str,
    /// All its columns; the first ones identify a row.
    pub columns: &'static [&'static str],
    /// How many columns identify a row.
    pub key: usize,
    /// Columns that are compared as JSON values.
    pub json: &'static [&'static str],
}

/// The rows that a table has to have.
#[derive(Debug)]
pub struct Expected {
    shape: Shape,
    rows: HashMap<Box<str>, Box<str>>,
}

/// One row that is not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is not there.
    Missing {
        /// Its identifier.
        id: String,
    },
    /// It should not be there.
    Extra {
        /// Its identifier.
        id: String,
    },
    /// Columns differ.
    Different {
        /// Its identifier.
        id: String,
        /// Column, what it should be, what it is.
        columns: Vec<(&'static str, Option<String>, Option<String>)>,
    },
}

/// What was found in one table.
#[derive(Clone, Debug)]
pub struct TableReport {
    /// The table.
    pub table: &'static str,
    /// Rows as they have to be.
    pub equal: u64,
    /// Rows that are not there.
    pub missing: u64,
    /// Rows that should not be there.
    pub extra: u64,
    /// Rows of which columns differ.
    pub different: u64,
    /// How often each column differs.
    pub columns: Vec<(&'static str, u64)>,
    /// The first of them.
    pub findings: Vec<Finding>,
}

/// What was found in all tables.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Documents that were read.
    pub documents: u64,
    /// Table by table.
    pub tables: Vec<TableReport>,
}

impl Expected {
    /// No rows yet.
    pub fn new(shape: Shape) -> Self {
        Self { shape, rows: HashMap::new() }
    }

    /// A row: one cell for each column. Of two with the same key the later one counts.
    pub fn put(&mut self, cells: &[Option<String>]) -> Result<()> {
        if cells.len() != self.shape.columns.len() {
            return Err(Error::Unexpected(format!(
                "{}: {} cells for {} columns",
                self.shape.table,
                cells.len(),
                self.shape.columns.len()
            )));
        }
        self.rows.insert(join(&cells[..self.shape.key]).into(), join(&cells[self.shape.key..]).into());
        Ok(())
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// No rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Looks at every row of the table.
    pub async fn compare(mut self, target: &Transaction<'_>, schema: &str) -> Result<TableReport> {
        let shape = self.shape;
        let columns: Vec<_> = shape.columns.iter().map(|column| format!("\"{column}\"::text")).collect();
        let statement = format!("SELECT {} FROM \"{schema}\".\"{}\"", columns.join(", "), shape.table);
        let mut rows = std::pin::pin!(target.query_raw(&statement, [] as [&str; 0]).await?);
        let mut report = TableReport {
            table: shape.table,
            equal: 0,
            missing: 0,
            extra: 0,
            different: 0,
            columns: Vec::new(),
            findings: Vec::new(),
        };
        while let Some(row) = rows.try_next().await? {
            let mut cells = Vec::with_capacity(shape.columns.len());
            for (index, column) in shape.columns.iter().enumerate() {
                let cell: Option<String> = row.try_get(index)?;
                cells.push(match cell {
                    Some(text) if shape.json.contains(column) => {
                        Some(Json::parse(&text).map_or(text, |json| json.canonical()))
                    }
                    cell => cell,
                });
            }
            let id = join(&cells[..shape.key]);
            let found = join(&cells[shape.key..]);
            match self.rows.remove(id.as_str()) {
                None => {
                    report.extra += 1;
                    report.keep(Finding::Extra { id: printed(&id) });
                }
                Some(wanted) if *wanted == found => report.equal += 1,
                Some(wanted) => report.differs(&shape, &id, &wanted, &found),
            }
        }
        let mut missing: Vec<_> = self.rows.into_keys().collect();
        missing.sort();
        report.missing = missing.len() as u64;
        missing.into_iter().take(KEPT).for_each(|id| report.keep(Finding::Missing { id: printed(&id) }));
        Ok(report)
    }
}

fn join(cells: &[Option<String>]) -> String {
    let mut joined = String::new();
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            joined.push(BORDER);
        }
        joined.push_str(cell.as_deref().unwrap_or(NULL));
    }
    joined
}

fn printed(id: &str) -> String {
    id.replace(BORDER, "/")
}

impl TableReport {
    fn keep(&mut self, finding: Finding) {
        if self.findings.len() < KEPT {
            self.findings.push(finding);
        }
    }

    fn differs(&mut self, shape: &Shape, id: &str, wanted: &str, found: &str) {
        self.different += 1;
        let value = |cell: &str| (cell != NULL).then(|| cell.to_owned());
        let columns: Vec<_> = shape.columns[shape.key..]
            .iter()
            .zip(wanted.split(BORDER).zip(found.split(BORDER)))
            .filter(|(_, (wanted, found))| wanted != found)
            .map(|(column, (wanted, found))| (*column, value(wanted), value(found)))
            .collect();
        for (column, ..) in &columns {
            match self.columns.iter_mut().find(|(name, _)| name == column) {
                Some((_, count)) => *count += 1,
                None => self.columns.push((column, 1)),
            }
        }
        self.keep(Finding::Different { id: printed(id), columns });
    }

    /// Every row is as it has to be, and there is no other.
    pub fn is_equal(&self) -> bool {
        self.missing + self.extra + self.different == 0
    }
}

impl Report {
    /// Every row of every table is as it has to be, and there is no other.
    pub fn is_equal(&self) -> bool {
        self.tables.iter().all(TableReport::is_equal)
    }

    /// How many rows are as they have to be.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.equal).sum()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { id } => write!(f, "missing {id}"),
            Self::Extra { id } => write!(f, "extra {id}"),
            Self::Different { id, columns } => {
                write!(f, "different {id}:")?;
                columns.iter().try_for_each(|(column, ..)| write!(f, " {column}"))
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} documents read", self.documents)?;
        writeln!(
            f,
            "{:<18} {:>9} {:>9} {:>9} {:>9}  columns that differ",
            "table", "equal", "missing", "extra", "different"
        )?;
        for table in &self.tables {
            let columns: Vec<_> =
                table.columns.iter().map(|(column, count)| format!("{column} {count}")).collect();
            writeln!(
                f,
                "{:<18} {:>9} {:>9} {:>9} {:>9}  {}",
                table.table,
                table.equal,
                table.missing,
                table.extra,
                table.different,
                columns.join(", ")
            )?;
        }
        for table in &self.tables {
            for finding in &table.findings {
                writeln!(f, "{}: {finding}", table.table)?;
            }
        }
        Ok(())
    }
}
