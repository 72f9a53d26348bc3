//! Rows as the bytes that Postgres takes, written once by the mapping and sent as they are.
//!
//! Two framings of the same fields. **Record**: an element of an array of the table's row type, one parameter for a
//! whole batch, so that array columns and any other type pass unchanged through `unnest`. **Copy**: a tuple of
//! `COPY … (FORMAT binary)`. A field is always its length (-1 for null) and its bytes in Postgres' binary form.

use std::sync::Arc;

use crate::postgres::target::catalog::Table;
use crate::postgres::target::shape::Shape;

/// The bytes before, between and after the fields of one row.
#[derive(Debug, PartialEq, Eq)]
pub struct RowFormat {
    /// Room for the row's own length, patched when the row is complete (records only).
    sized: bool,
    /// Before each field, by column of the mapping.
    before: Vec<Vec<u8>>,
    /// After the last field.
    after: Vec<u8>,
}

impl RowFormat {
    /// Elements of an array of the table's row type. `columns`: the mapped columns as indices into `table.columns`,
    /// ascending; the others are sent as null and not read.
    pub fn record(table: &Table, columns: &[usize]) -> Self {
        let mut before = Vec::with_capacity(columns.len());
        let mut pending = (table.columns.len() as i32).to_be_bytes().to_vec();
        for (index, column) in table.columns.iter().enumerate() {
            pending.extend_from_slice(&column.kind.oid.to_be_bytes());
            if columns.contains(&index) {
                before.push(std::mem::take(&mut pending));
            } else {
                pending.extend_from_slice(&(-1_i32).to_be_bytes());
            }
        }
        Self { sized: true, before, after: pending }
    }

    /// Elements of an array of a shape, which has the mapped columns and no other.
    pub fn shaped(shape: &Shape) -> Self {
        let mut before: Vec<Vec<u8>> = shape.oids().map(|oid| oid.to_be_bytes().to_vec()).collect();
        let count = (before.len() as i32).to_be_bytes();
        if let Some(first) = before.first_mut() {
            first.splice(0..0, count);
        }
        Self { sized: true, before, after: Vec::new() }
    }

    /// Tuples of a binary COPY of these many columns.
    pub fn copy(columns: usize) -> Self {
        let mut before = vec![Vec::new(); columns];
        if let Some(first) = before.first_mut() {
            first.extend_from_slice(&(columns as i16).to_be_bytes());
        }
        Self { sized: false, before, after: Vec::new() }
    }
}

/// Rows of one table, complete ones only once [`Rows::end`] was called for the last.
#[derive(Debug)]
pub struct Rows {
    format: Arc<RowFormat>,
    bytes: Vec<u8>,
    count: usize,
    start: usize,
    /// The column to sort by, and where its field of the started row is.
    key: usize,
    key_at: usize,
    /// Of each complete row: the first bytes of its key, where it begins and where it ends.
    order: Vec<(u128, u32, u32)>,
}

impl Rows {
    /// No rows yet. `key`: the column of the mapping that [`Rows::sort`] goes by.
    pub fn new(format: Arc<RowFormat>, key: usize) -> Self {
        Self { format, bytes: Vec::new(), count: 0, start: 0, key, key_at: 0, order: Vec::new() }
    }

    /// Starts a row; fields follow in the order of the mapped columns.
    pub fn begin(&mut self) {
        self.start = self.bytes.len();
        if self.format.sized {
            self.bytes.extend_from_slice(&[0; 4]);
        }
    }

    /// The buffer to append the field of column `index` to: length and bytes.
    pub fn field(&mut self, index: usize) -> &mut Vec<u8> {
        self.bytes.extend_from_slice(&self.format.before[index]);
        if index == self.key {
            self.key_at = self.bytes.len();
        }
        &mut self.bytes
    }

    /// The row is complete.
    pub fn end(&mut self) {
        self.bytes.extend_from_slice(&self.format.after);
        if self.format.sized {
            let length = (self.bytes.len() - self.start - 4) as i32;
            self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_be_bytes());
        }
        let key = prefix(self.bytes.get(self.key_at..).unwrap_or_default());
        // A write set has some ten megabytes, so places fit.
        self.order.push((key, self.start as u32, self.bytes.len() as u32));
        self.count += 1;
    }

    /// Changes one byte of what was written.
    pub fn set(&mut self, place: usize, byte: u8) {
        self.bytes[place] = byte;
    }

    /// Takes the started row back.
    pub fn abandon(&mut self) {
        self.bytes.truncate(self.start);
    }

    /// Where the rows written so far end; see [`Rows::rewind`].
    pub fn mark(&self) -> (usize, usize) {
        (self.bytes.len(), self.count)
    }

    /// Takes back everything after the mark: a document that fails in its third table leaves nothing in the first two.
    pub fn rewind(&mut self, mark: (usize, usize)) {
        self.bytes.truncate(mark.0);
        self.count = mark.1;
        self.order.truncate(mark.1);
    }

    /// Puts the rows in the order of their keys, as far as the first bytes tell: neighbours fall on the same page of the
    /// index, and transactions lock rows in one order. Only their order is kept, the bytes stay where they are; marks
    /// from before are void.
    pub fn sort(&mut self) {
        if !self.order.is_sorted() {
            self.order.sort_unstable();
        }
    }

    /// The framed rows, each by itself, in the order that was asked for.
    pub fn in_order(&self) -> impl Iterator<Item = &[u8]> {
        self.order.iter().map(|(_, start, end)| &self.bytes[*start as usize..*end as usize])
    }

    /// Where the n-th row of that order begins in [`Rows::as_bytes`].
    pub fn place_of(&self, n: usize) -> Option<usize> {
        self.order.get(n).map(|(_, start, _)| *start as usize)
    }

    /// Of each row the first bytes of its key: all of them where that is a UUID.
    pub(super) fn keys(&self) -> impl Iterator<Item = [u8; 16]> {
        self.order.iter().map(|(key, _, _)| key.to_be_bytes())
    }

    /// The fields of one column: length and bytes.
    pub(super) fn column(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        self.order.iter().filter_map(move |(_, start, end)| {
            let mut rest = self.bytes.get(*start as usize..*end as usize)?;
            rest = rest.get(if self.format.sized { 4 } else { 0 }..)?;
            for (at, before) in self.format.before.iter().enumerate().take(index + 1) {
                rest = rest.get(before.len()..)?;
                let length = i32::from_be_bytes(*rest.first_chunk()?).max(0) as usize;
                let (field, after) = rest.split_at_checked(4 + length)?;
                if at == index {
                    return Some(field);
                }
                rest = after;
            }
            None
        })
    }

    /// How many complete rows.
    pub fn len(&self) -> usize {
        self.count
    }

    /// No rows.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The framed rows as they were written; see [`Rows::in_order`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the rows and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.order.clear();
        self.count = 0;
    }
}

/// The first bytes of a field's value, as a number that sorts as they do.
fn prefix(field: &[u8]) -> u128 {
    let value = field.first_chunk::<4>().map_or(0, |length| i32::from_be_bytes(*length).max(0) as usize);
    let mut first = [0; 16];
    let taken = field.get(4..).unwrap_or_default();
    let taken = &taken[..value.min(16).min(taken.len())];
    first[..taken.len()].copy_from_slice(taken);
    u128::from_be_bytes(first)
}

/// Values of one column, to be sent as an array: keys to delete, owners whose children are replaced.
#[derive(Debug, Default)]
pub struct Values {
    bytes: Vec<u8>,
    count: usize,
}

impl Values {
    /// The buffer to append one value to: length and bytes.
    pub fn push(&mut self) -> &mut Vec<u8> {
        self.count += 1;
        &mut self.bytes
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.count
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Lengths and bytes, one after the other.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The values, where all are UUIDs.
    pub(super) fn uuids(&self) -> impl Iterator<Item = [u8; 16]> {
        let (values, _) = self.bytes.as_chunks::<20>();
        values.iter().filter_map(|value| value.last_chunk().copied())
    }

    /// Where the values written so far end.
    pub fn mark(&self) -> (usize, usize) {
        (self.bytes.len(), self.count)
    }

    /// Takes back everything after the mark.
    pub fn rewind(&mut self, mark: (usize, usize)) {
        self.bytes.truncate(mark.0);
        self.count = mark.1;
    }

    /// Forgets the values and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }
}

/// What becomes of a row whose referenced row is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// It waits, and blocks the switch.
    #[default]
    Wait,
    /// It is written without the reference until the other row comes. The switch does not wait for that.
    Null,
    /// The document becomes a dead letter.
    Reject,
}

/// How one table is written: made by the mapping's compiler, used by the sink.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// The table.
    pub table: Arc<Table>,
    /// Columns that the mapping fills, ascending, as indices into `table.columns`.
    pub columns: Vec<usize>,
    /// Columns that identify a row (primary key or a unique constraint), as indices into `columns`.
    pub key: Vec<usize>,
    /// Of the key's columns those that tell which row is a document's, where the others can change. None where that is the whole key.
    pub found: Option<Vec<usize>>,
    /// Nothing of the key is made of the document's id: which row is whose stands in a table of ours, and rows travel with the id.
    pub claimed: bool,
    /// For rows made of an array's elements: the column (index into `columns`) with the id of the row they belong to.
    pub owner: Option<usize>,
    /// The table of ours that says which such ids a document has (schema and name, quoted), where rows belong to elements: owners
    /// are ids of documents then.
    pub holder: Option<Arc<str>>,
    /// What becomes of a row whose referenced row is not there, for each of `columns`.
    pub missing: Vec<Missing>,
    /// How the rows travel where some column is written as text.
    pub shape: Option<Shape>,
    /// Our UUIDs may be of version 8, and not of version 5 alone.
    pub ordered: bool,
    /// The column (index into `columns`) whose numbers come from a sequence, and which is the key.
    pub serial: Option<usize>,
    /// It cannot be written at present, and nobody tries.
    pub stands: bool,
    /// The source of the collection whose rows these are. Each source has its own list of rows that a recopy has seen.
    pub source: Arc<str>,
    /// What tells these rows from those that other sources put into the same table.
    pub apart: Apart,
    /// Whether several documents make one row.
    pub merging: Merging,
    /// Framing for upserts.
    pub record: Arc<RowFormat>,
    /// Framing for COPY.
    pub copy: Arc<RowFormat>,
}

/// What a table has to do with rows that several documents make together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Merging {
    /// Nothing: each row is of one document.
    #[default]
    None,
    /// A table of ours with what one rule of the file gives to such rows: a row for each document, or element.
    Part {
        /// The table that they are made for, as an index into the specifications.
        of: usize,
    },
    /// A table of ours with what others look up in the documents of a collection: a row a document.
    Known,
    /// A table of ours with the ids of the elements that rows of elements inside them belong to: a row a document.
    Holder,
    /// The application's table: each row is made of the parts with its key.
    Whole(Whole),
}

/// How rows are made of parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// The tables of the parts, as indices into the specifications.
    pub parts: Vec<usize>,
    /// How each of the columns is made.
    pub how: Vec<How>,
    /// A row stands as long as each of the tables has a part of it; otherwise as long as one has.
    pub all: bool,
    /// Each row has one part, and each part one row: the key is made of the document's id.
    pub single: bool,
    /// The key is the id of the part.
    pub by_part: bool,
    /// What is looked up for columns.
    pub lookups: Vec<LookUp>,
    /// Columns, as indices into those that are filled, without whose value no row stands; and the collection in which each is looked up.
    pub required: Vec<(usize, String)>,
}

/// A column whose value is in another document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookUp {
    /// The column, as an index into those that are filled.
    pub column: usize,
    /// The table of the parts that look it up, as an index into the specifications.
    pub part: usize,
    /// Its column with what is looked for.
    pub wanted: String,
    /// The table of ours with what is known, as an index into the specifications.
    pub known: usize,
    /// Its column by which a row is found, and the one with the value.
    pub by: String,
    /// Likewise.
    pub take: String,
    /// What stands in the place of a null, as SQL.
    pub for_null: Option<String>,
}

/// How a column is made of the values that documents give for it. Nulls do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// The value of the last document that has one.
    #[default]
    Last,
    /// Of the first one.
    First,
    /// The longest text.
    Longest,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The sum.
    Sum,
    /// How many there are.
    Count,
    /// The elements of all arrays, each once, in their order.
    Union,
    /// Some is true.
    Any,
    /// All are true.
    All,
}

/// How the rows that one source puts into a table are told from those of other sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Apart {
    /// No other source fills the table.
    #[default]
    Alone,
    /// By constants, column and value, which no row of another source has.
    By(Vec<(String, String)>),
    /// By nothing: rows that are gone from the source cannot be swept.
    Not,
}

/// Columns of a table of parts beside those of the application's table. No table of theirs has such names.
pub const PART: &str = "slackwater part";
/// The document of which a part is, where an element made it.
pub const DOCUMENT: &str = "slackwater document";
/// The elements of a document, in a table that says which it has.
pub const HELD: &str = "slackwater elements";
/// What parts are ordered by, where the file says so.
pub const ORDER: &str = "slackwater order";

/// The column of a table of parts with what is looked up for a column.
pub fn wanted(column: &str) -> String {
    // As long a name as the column's own would be cut.
    let short: String = column.chars().take(20).collect();
    let hash = column.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    format!("slackwater wants {short} {hash:08x}")
}

impl TableSpec {
    /// Rows are made of what is in it.
    pub fn is_part(&self) -> bool {
        matches!(self.merging, Merging::Part { .. } | Merging::Known)
    }

    /// A table of ours, which the application does not know.
    pub fn is_ours(&self) -> bool {
        self.is_part() || self.merging == Merging::Holder
    }

    /// How its rows are made of parts, if they are.
    pub fn whole(&self) -> Option<&Whole> {
        match &self.merging {
            Merging::Whole(whole) => Some(whole),
            Merging::None | Merging::Part { .. } | Merging::Known | Merging::Holder => None,
        }
    }

    /// The columns by which a document's row is found, as indices into `columns`.
    pub fn found_by(&self) -> &[usize] {
        self.found.as_deref().unwrap_or(&self.key)
    }

    /// How many lists of values a delete brings: one a column that rows are found by, or the ids of documents.
    fn delete_lists(&self) -> usize {
        if self.claimed { 1 } else { self.found_by().len() }
    }
}

/// What a batch does to one table.
#[derive(Debug)]
pub struct TableWrite {
    /// Rows to insert or update; no key twice.
    pub rows: Rows,
    /// Keys of rows to delete, one list a column of `TableSpec::found_by`; of a table with claims the ids of documents.
    pub deletes: Vec<Values>,
    /// Owners whose rows are replaced: rows of theirs that are not in `rows` go.
    pub owners: Values,
}

impl TableWrite {
    /// Nothing to do yet.
    pub fn new(spec: &TableSpec, copy: bool) -> Self {
        let format = if copy { &spec.copy } else { &spec.record };
        Self {
            rows: Rows::new(Arc::clone(format), spec.key.first().copied().unwrap_or(0)),
            deletes: (0..spec.delete_lists()).map(|_| Values::default()).collect(),
            owners: Values::default(),
        }
    }

    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.owners.is_empty() && self.deletes.iter().all(Values::is_empty)
    }
}

/// What a batch does to all tables, in the order of the plan's [`TableSpec`]s: referenced tables first.
#[derive(Debug)]
pub struct WriteSet {
    /// One entry a table of the plan.
    pub tables: Vec<TableWrite>,
    /// Rows are framed for COPY: a first copy, with nothing there that would have to go.
    pub copy: bool,
}

impl WriteSet {
    /// Nothing to do yet. `copy`: rows are framed for COPY, which a first copy into an empty table takes.
    pub fn new(specs: &[TableSpec], copy: bool) -> Self {
        Self { tables: specs.iter().map(|spec| TableWrite::new(spec, copy)).collect(), copy }
    }

    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(TableWrite::is_empty)
    }

    /// Puts the rows of each table in the order of their keys.
    pub fn sort(&mut self) {
        self.tables.iter_mut().for_each(|table| table.rows.sort());
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        for table in &mut self.tables {
            table.rows.clear();
            table.owners.clear();
            table.deletes.iter_mut().for_each(Values::clear);
        }
    }

    /// Rows and deletes, in bytes.
    pub fn byte_len(&self) -> usize {
        self.tables.iter().map(|table| table.rows.as_bytes().len() + table.owners.as_bytes().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rows: &mut Rows, key: &[u8], rest: &[u8]) {
        rows.begin();
        for (index, field) in [rest, key].into_iter().enumerate() {
            let out = rows.field(index);
            out.extend_from_slice(&(field.len() as i32).to_be_bytes());
            out.extend_from_slice(field);
        }
        rows.end();
    }

    #[test]
    fn a_column_is_found_among_fields_of_any_length() {
        let mut rows = Rows::new(
            Arc::new(RowFormat { sized: true, before: vec![vec![7; 3], vec![8; 5]], after: vec![9] }),
            1,
        );
        row(&mut rows, b"key", b"");
        rows.begin();
        rows.field(0).extend_from_slice(&(-1_i32).to_be_bytes());
        rows.field(1).extend_from_slice(&[0, 0, 0, 1, b'k']);
        rows.end();
        let column = |index| rows.column(index).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(column(0), [vec![0, 0, 0, 0], (-1_i32).to_be_bytes().to_vec()]);
        assert_eq!(column(1), [b"\0\0\0\x03key".to_vec(), b"\0\0\0\x01k".to_vec()]);
        assert_eq!(column(2), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn sorts_whole_rows_by_key_and_forgets_what_was_taken_back() {
        let mut rows = Rows::new(Arc::new(RowFormat::copy(2)), 1);
        row(&mut rows, b"cc", b"first");
        row(&mut rows, b"a", b"second");
        let mark = rows.mark();
        row(&mut rows, b"0", b"taken back");
        rows.rewind(mark);
        row(&mut rows, b"b", b"third, and longer");
        rows.sort();
        let mut wanted = Rows::new(Arc::new(RowFormat::copy(2)), 1);
        row(&mut wanted, b"a", b"second");
        row(&mut wanted, b"b", b"third, and longer");
        row(&mut wanted, b"cc", b"first");
        assert_eq!(
            (rows.len(), rows.in_order().collect::<Vec<_>>().concat()),
            (3, wanted.as_bytes().to_vec())
        );
        assert_eq!(rows.as_bytes().len(), wanted.as_bytes().len());
    }
}
