//! Rows made of an array's elements.
//!
//! They are written aside first: where two elements give the same key, the last one's row is the only one, and rows that
//! went into the write set cannot be taken out of its middle.

use std::collections::HashMap;

use slackwater_connectors::postgres::target::rows::TableWrite;
use slackwater_topics::Value;

use super::encode::Problem;
use super::plan::EachCode;
use super::rejection::{Reason, Rejection};
use super::row::{Element, Row};
use super::trie::{Slots, recycle};

/// Memory for the rows of one array.
#[derive(Debug, Default)]
pub(super) struct Elements {
    bytes: Vec<u8>,
    /// Where each field begins, row by row, and where the last ends.
    bounds: Vec<usize>,
    /// The last row of each key.
    last: HashMap<Vec<u8>, usize>,
    key: Vec<u8>,
}

impl Elements {
    pub(super) fn write<'a>(
        &mut self,
        code: &EachCode,
        row: &mut Row<'_, 'a>,
        parents: &[Vec<u8>],
        slots: &mut Slots<'static>,
        write: &mut TableWrite,
    ) -> Result<(), Rejection> {
        let array = match row.slot(code.array) {
            None | Some(Value::Null | Value::Undefined) => return Ok(()),
            Some(Value::Array(array)) if !code.fields => array,
            Some(Value::Document(object)) if code.fields => object,
            Some(other) => {
                let wanted = if code.fields { "an object" } else { "an array" };
                let text = format!("a value of type {} is not {wanted}", other.type_name());
                return Err(self.refuse(code, row, Problem::new(Reason::Type, text)));
            }
        };
        let columns = code.row.columns.len() + code.row.made.inputs.len();
        let table = code.row.table;
        self.bytes.clear();
        self.bounds.clear();
        self.last.clear();
        let mut element_slots: Slots<'a> = recycle(std::mem::take(slots));
        let mut count = 0;
        for (index, element) in array.elements().enumerate() {
            let (name, value) = element.map_err(|_| self.refuse(code, row, Problem::malformed()))?;
            let filled = match value {
                Value::Document(inner) | Value::Array(inner) => code.element.fill(inner, &mut element_slots),
                _ => {
                    element_slots.clear();
                    element_slots.resize(code.element.slots(), None);
                    Ok(())
                }
            };
            filled.map_err(|_| self.refuse(code, row, Problem::malformed()))?;
            let element =
                Element { value, slots: &element_slots, index, name, path: &code.path, told: &code.told };
            let fits = row.element_fits(code.row.when.as_ref(), element);
            if !fits.map_err(|_| self.refuse(code, row, Problem::malformed()))? {
                continue;
            }
            let first = self.bounds.len();
            let inputs = code.row.made.inputs.iter().map(|(at, input)| (*at, input));
            for (at, column) in code.row.columns.iter().enumerate().chain(inputs) {
                self.bounds.push(self.bytes.len());
                row.element_column(table, at, column, parents, Some(element), &mut self.bytes)?;
            }
            self.bounds.push(self.bytes.len());
            for (at, inputs) in &code.row.made.computed {
                let place = |input: &usize| first + code.row.columns.len() + input;
                let fields = inputs
                    .iter()
                    .map(place)
                    .map(|place| &self.bytes[self.bounds[place]..self.bounds[place + 1]]);
                if !row.computes(table, *at, &code.row.columns[*at], fields)? {
                    self.bytes[self.bounds[first + at] + 4] = 0;
                }
            }
            self.key.clear();
            for at in &code.row.key {
                let start = self.bounds[count * (columns + 1) + at];
                let end = self.bounds[count * (columns + 1) + at + 1];
                self.key.extend_from_slice(&self.bytes[start..end]);
            }
            match self.last.get_mut(&self.key) {
                Some(last) => *last = count,
                None => {
                    self.last.insert(self.key.clone(), count);
                }
            }
            count += 1;
        }
        let all = self.last.len() == count;
        for index in 0..count {
            let bounds = &self.bounds[index * (columns + 1)..(index + 1) * (columns + 1)];
            if !all {
                self.key.clear();
                for at in &code.row.key {
                    self.key.extend_from_slice(&self.bytes[bounds[*at]..bounds[at + 1]]);
                }
                if self.last.get(&self.key) != Some(&index) {
                    continue;
                }
            }
            write.rows.begin();
            for at in 0..columns {
                write.rows.field(at).extend_from_slice(&self.bytes[bounds[at]..bounds[at + 1]]);
            }
            write.rows.end();
        }
        *slots = recycle(element_slots);
        Ok(())
    }

    fn refuse(&self, code: &EachCode, row: &Row<'_, '_>, problem: Problem) -> Rejection {
        let mut rejection = row.refuse(code.row.table, &code.row.columns[code.owner], problem);
        rejection.path = format!("{}{}", code.path, if code.fields { "{}" } else { "[]" });
        rejection
    }
}
