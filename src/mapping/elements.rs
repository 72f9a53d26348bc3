//! Rows made of elements of arrays, and of arrays inside them.
//!
//! They are written aside first: where two elements give the same key, the last one's row is the only one, and rows that
//! went into the write set cannot be taken out of its middle. Rows of elements inside them take over from what was written aside.

use std::collections::HashMap;

use slackwater_connectors::postgres::target::rows::TableWrite;
use slackwater_topics::Value;

use super::encode::Problem;
use super::plan::EachCode;
use super::rejection::{Reason, Rejection};
use super::row::{Element, Frame, Row};
use super::trie::{Slots, recycle};

/// The rows of one table that are made of one document.
#[derive(Debug, Default)]
pub(super) struct Elements {
    bytes: Vec<u8>,
    /// Where each field begins, row by row, and where the last ends.
    bounds: Vec<usize>,
    /// How many bounds a row has.
    width: usize,
    count: usize,
    /// The last row of each key.
    last: HashMap<Vec<u8>, usize>,
    key: Vec<u8>,
    /// The columns of the key.
    key_columns: Vec<usize>,
    /// Where the element of each row is: its place in each array on the way. Only where other rows are made inside of it.
    places: Vec<u32>,
    depth: usize,
}

/// Memory for a walk: frames, and slots of each level.
#[derive(Debug, Default)]
pub(super) struct Memory {
    frames: Vec<Frame<'static>>,
    slots: Vec<Slots<'static>>,
}

/// What a walk goes by.
struct Walk<'w> {
    code: &'w EachCode,
    parents: &'w [Vec<u8>],
    /// Rows of the tables before this one.
    before: &'w [Elements],
}

impl Elements {
    /// Makes the rows. `before`: those of the tables before this one.
    pub(super) fn make<'a>(
        &mut self,
        code: &EachCode,
        row: &mut Row<'_, 'a>,
        parents: &[Vec<u8>],
        before: &[Self],
        memory: &mut Memory,
    ) -> Result<(), Rejection> {
        self.clear();
        // What encloses them is not there at all.
        if code.above.iter().any(|above| before[above.each].count == 0) {
            return Ok(());
        }
        self.width = code.row.columns.len() + code.row.made.inputs.len() + 1;
        self.key_columns.clone_from(&code.row.key);
        self.depth = code.levels.len();
        let Memory { frames: kept, slots } = memory;
        slots.resize_with(slots.len().max(self.depth), Vec::new);
        let mut frames: Vec<Frame<'a>> = empty(std::mem::take(kept));
        let walk = Walk { code, parents, before };
        let walked = self.walk(&walk, row, &mut frames, &mut Vec::new(), slots);
        *kept = empty(frames);
        walked
    }

    /// There are none.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bounds.clear();
        self.last.clear();
        self.places.clear();
        self.count = 0;
    }

    /// Goes through the elements of the level behind `frames`. `rows`: which rows enclose them so far.
    fn walk<'a>(
        &mut self,
        walk: &Walk<'_>,
        row: &mut Row<'_, 'a>,
        frames: &mut Vec<Frame<'a>>,
        rows: &mut Vec<usize>,
        memory: &mut [Slots<'static>],
    ) -> Result<(), Rejection> {
        let depth = frames.len();
        let level = &walk.code.levels[depth];
        let array = match (frames.last(), level.array) {
            (None, Some(slot)) => row.slot(slot),
            (Some(around), Some(slot)) => around.slot(slot),
            (around, None) => around.map(|around| around.value),
        };
        let array = match array {
            None | Some(Value::Null | Value::Undefined) => return Ok(()),
            Some(Value::Array(array)) if !level.fields => array,
            Some(Value::Document(object)) if level.fields => object,
            Some(other) => {
                let wanted = if level.fields { "an object" } else { "an array" };
                let text = format!("a value of type {} is not {wanted}", other.type_name());
                return Err(refuse(walk.code, depth, row, Problem::new(Reason::Type, text)));
            }
        };
        let malformed =
            |row: &Row<'_, 'a>| -> Rejection { refuse(walk.code, depth, row, Problem::malformed()) };
        let mut slots: Slots<'a> = recycle(std::mem::take(&mut memory[depth]));
        let before = rows.len();
        for (index, element) in array.elements().enumerate() {
            let (name, value) = element.map_err(|_| malformed(row))?;
            let filled = match value {
                Value::Document(inner) | Value::Array(inner) => level.element.fill(inner, &mut slots),
                _ => {
                    slots.clear();
                    slots.resize(level.element.slots(), None);
                    Ok(())
                }
            };
            filled.map_err(|_| malformed(row))?;
            frames.push(Frame { value, slots, index, name });
            if self.encloses(walk, frames, rows) {
                if depth + 1 < walk.code.levels.len() {
                    self.walk(walk, row, frames, rows, memory)?;
                } else if row.element_fits(walk.code.row.when.as_ref(), frames).map_err(|_| malformed(row))? {
                    self.row(walk, row, frames, rows)?;
                }
            }
            rows.truncate(before);
            slots = frames.pop().map(|frame| frame.slots).unwrap_or_default();
        }
        memory[depth] = recycle(slots);
        Ok(())
    }

    /// Adds the rows that the innermost of the elements has in tables that have to have one. False where one is not there.
    fn encloses(&self, walk: &Walk<'_>, frames: &[Frame<'_>], rows: &mut Vec<usize>) -> bool {
        let here = walk.code.above.iter().filter(|above| above.depth == frames.len());
        for above in here {
            let Some(row) = walk.before[above.each].row_of(frames) else { return false };
            rows.push(row);
        }
        true
    }

    /// Writes the row of an element aside.
    fn row<'a>(
        &mut self,
        walk: &Walk<'_>,
        row: &mut Row<'_, 'a>,
        frames: &[Frame<'a>],
        rows: &[usize],
    ) -> Result<(), Rejection> {
        let code = walk.code;
        let (columns, made, table) = (&code.row.columns, &code.row.made, code.row.table);
        let element = Element { code, frames, elements: walk.before, rows };
        let first = self.bounds.len();
        let inputs = made.inputs.iter().map(|(at, input)| (*at, input));
        for (at, column) in columns.iter().enumerate().chain(inputs) {
            self.bounds.push(self.bytes.len());
            row.element_column(table, at, column, walk.parents, Some(element), &mut self.bytes)?;
        }
        self.bounds.push(self.bytes.len());
        for (at, inputs) in &made.computed {
            let place = |input: &usize| first + columns.len() + input;
            let fields =
                inputs.iter().map(place).map(|place| &self.bytes[self.bounds[place]..self.bounds[place + 1]]);
            if !row.computes(table, *at, &columns[*at], fields)? {
                self.bytes[self.bounds[first + at] + 4] = 0;
            }
        }
        self.take_key(self.count);
        match self.last.get_mut(&self.key) {
            Some(last) => *last = self.count,
            None => {
                self.last.insert(self.key.clone(), self.count);
            }
        }
        if code.encloses {
            self.places.extend(frames.iter().map(|frame| frame.index as u32));
        }
        self.count += 1;
        Ok(())
    }

    fn take_key(&mut self, row: usize) {
        self.key.clear();
        for at in &self.key_columns {
            let start = row * self.width + at;
            self.key.extend_from_slice(&self.bytes[self.bounds[start]..self.bounds[start + 1]]);
        }
    }

    /// No later element has the same key.
    fn is_last(&self, row: usize) -> bool {
        if self.last.len() == self.count {
            return true;
        }
        let fields = self.key_columns.iter().filter_map(|at| self.field(row, *at));
        self.last.get(&fields.collect::<Vec<_>>().concat()) == Some(&row)
    }

    /// The length and the bytes of a field.
    pub(super) fn field(&self, row: usize, column: usize) -> Option<&[u8]> {
        let place = row * self.width + column;
        Some(&self.bytes[*self.bounds.get(place)?..*self.bounds.get(place + 1)?])
    }

    /// The row of this element, if it has one.
    fn row_of(&self, frames: &[Frame<'_>]) -> Option<usize> {
        let wanted = frames.iter().map(|frame| frame.index as u32);
        let place = |row: usize| self.places[row * self.depth..(row + 1) * self.depth].iter().copied();
        // Rows are in the order of their elements.
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if place(middle).lt(wanted.clone()) { low = middle + 1 } else { high = middle }
        }
        (low < self.count && place(low).eq(wanted) && self.is_last(low)).then_some(low)
    }

    /// Appends the rows.
    pub(super) fn write(&mut self, write: &mut TableWrite) {
        let all = self.last.len() == self.count;
        for row in 0..self.count {
            if !all {
                self.take_key(row);
                if self.last.get(&self.key) != Some(&row) {
                    continue;
                }
            }
            let bounds = &self.bounds[row * self.width..(row + 1) * self.width];
            write.rows.begin();
            for (at, pair) in bounds.windows(2).enumerate() {
                write.rows.field(at).extend_from_slice(&self.bytes[pair[0]..pair[1]]);
            }
            write.rows.end();
        }
    }

    /// No element has a row.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends the values that the rows have in a column, as an array in Postgres' binary form with its length.
    pub(super) fn write_array(&self, column: usize, oid: u32, out: &mut Vec<u8>) {
        let fields: Vec<&[u8]> = (0..self.count)
            .filter(|row| self.is_last(*row))
            .filter_map(|row| self.field(row, column))
            .collect();
        let length: usize = fields.iter().map(|field| field.len()).sum();
        // One dimension, no nulls, from 1.
        for number in [20 + length as u32, 1, 0, oid, fields.len() as u32, 1] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        fields.iter().for_each(|field| out.extend_from_slice(field));
    }
}

/// The same memory, for elements of another document.
fn empty<'b>(mut frames: Vec<Frame<'_>>) -> Vec<Frame<'b>> {
    frames.clear();
    frames.into_iter().map(|_| Frame { value: Value::Null, slots: Vec::new(), index: 0, name: &[] }).collect()
}

fn refuse(code: &EachCode, level: usize, row: &Row<'_, '_>, problem: Problem) -> Rejection {
    let mut rejection = row.refuse(code.row.table, &code.row.columns[code.owner], problem);
    rejection.path.clone_from(&code.levels[level].path);
    // It is about the array, and not about any column of its rows.
    rejection.column.clear();
    rejection
}
