//! One column of one row: the value, the policies, the bytes.

use slackwater_connectors::postgres::target::rows::TableSpec;
use slackwater_topics::{Key, Value};
use uuid::Uuid;

use super::change::{Change, ChangeKind};
use super::condition::Condition;
use super::elements::Elements;
use super::encode::{Conv, Fit, IdForm, Problem, Scratch, append_id, place_part};
use super::plan::{ById, CollectionPlan, ColumnCode, EachCode, Plan, Take};
use super::rejection::{Adjustment, Reason, Rejection, unreadable};
use super::trie::Slots;
use crate::config::{InvalidPolicy, NullPolicy};

/// Stands in the place of a path in what ids of versions are made of; no path is so.
const VERSION: &str = "\0version";
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// The field of a computed column: yes, compute it.
const COMPUTE: [u8; 5] = [0, 0, 0, 1, 1];

/// An element that is looked at.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) value: Value<'a>,
    pub(super) slots: Slots<'a>,
    pub(super) index: usize,
    /// The name of the field that it is, in an object or an array.
    pub(super) name: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(super) fn slot(&self, slot: usize) -> Option<Value<'a>> {
        self.slots.get(slot).copied().flatten()
    }
}

/// The element that a row is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'e, 'a> {
    pub(super) code: &'e EachCode,
    /// The elements around it and itself, the outermost first; one a level.
    pub(super) frames: &'e [Frame<'a>],
    /// Rows of the tables before this one.
    pub(super) elements: &'e [Elements],
    /// Which of those rows enclose this one, as `EachCode::above` has them.
    pub(super) rows: &'e [usize],
}

impl<'a> Element<'_, 'a> {
    /// The element, or one so many levels further out.
    fn frame(&self, up: usize) -> Option<&Frame<'a>> {
        self.frames.iter().nth_back(up)
    }

    /// A field of the row of an enclosing element.
    fn above(&self, above: usize, column: usize) -> Option<&[u8]> {
        let each = self.code.above.get(above)?.each;
        self.elements.get(each)?.field(*self.rows.get(above)?, column)
    }

    /// What it is told apart by.
    fn key(&self, by: &[ById]) -> Result<Key, Problem> {
        match (by, self.frames) {
            ([by], [frame]) => key_of(by, frame),
            _ => {
                // The elements around it, each behind its length, and then its own.
                let mut bytes = Vec::new();
                for (level, (by, frame)) in by.iter().zip(self.frames).enumerate() {
                    let key = key_of(by, frame)?;
                    if level + 1 < self.frames.len() {
                        bytes.extend_from_slice(&(key.as_bytes().len() as u32).to_be_bytes());
                    }
                    bytes.extend_from_slice(key.as_bytes());
                }
                Ok(Key::from_bytes(&bytes))
            }
        }
    }
}

/// The document at hand.
pub(super) struct Row<'r, 'a> {
    plan: &'r Plan,
    collection: &'r CollectionPlan,
    key: &'r Key,
    slots: &'r Slots<'a>,
    rest: &'r [(&'a [u8], Value<'a>)],
    scratch: &'r mut Scratch,
    adjusted: &'r mut Vec<(usize, usize, Adjustment)>,
    /// Made when it is first asked for.
    own: Option<Uuid>,
    /// The change that made this version, where it is a row of its own.
    change: Option<Change>,
}

impl<'r, 'a> Row<'r, 'a> {
    pub(super) fn new(
        plan: &'r Plan,
        collection: &'r CollectionPlan,
        key: &'r Key,
        slots: &'r Slots<'a>,
        rest: &'r [(&'a [u8], Value<'a>)],
        scratch: &'r mut Scratch,
        adjusted: &'r mut Vec<(usize, usize, Adjustment)>,
    ) -> Self {
        Self { plan, collection, key, slots, rest, scratch, adjusted, own: None, change: None }
    }

    /// The same document as a version of it.
    pub(super) fn of_version(self, change: Option<Change>) -> Self {
        Self { change, ..self }
    }

    /// The document is deleted, and only what is made of its id has values.
    fn is_gone(&self) -> bool {
        self.change.is_some_and(|change| change.kind == ChangeKind::Delete)
    }

    fn own(&mut self) -> Uuid {
        *self.own.get_or_insert_with(|| self.plan.namespace.id(&self.collection.name, self.key))
    }

    /// Appends the id that is made of the document's, with its length.
    pub(super) fn document_id(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&16_i32.to_be_bytes());
        out.extend_from_slice(self.own().as_bytes());
    }

    /// The same as a field of its own.
    pub(super) fn own_field<'o>(&mut self, field: &'o mut Vec<u8>) -> &'o Vec<u8> {
        field.clear();
        self.document_id(field);
        field
    }

    /// Appends what people call the document, with its length.
    pub(super) fn document_name(&self, out: &mut Vec<u8>) {
        let name = format!("{} {}", self.collection.name, self.key);
        out.extend_from_slice(&(name.len() as i32).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
    }

    /// The array in this slot.
    pub(super) fn slot(&self, slot: usize) -> Option<Value<'a>> {
        self.slots.get(slot).copied().flatten()
    }

    /// Appends a column of the document's own row.
    pub(super) fn column(
        &mut self,
        table: usize,
        at: usize,
        code: &ColumnCode,
        parents: &[Vec<u8>],
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        self.element_column(table, at, code, parents, None, out)
    }

    /// Appends a column's length and bytes.
    pub(super) fn element_column(
        &mut self,
        table: usize,
        at: usize,
        code: &ColumnCode,
        parents: &[Vec<u8>],
        element: Option<Element<'_, 'a>>,
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        let (value, conv) = match &code.take {
            Take::Const(field) => {
                out.extend_from_slice(field);
                return Ok(());
            }
            Take::Parent(parent) => {
                out.extend_from_slice(parents.get(*parent).map_or(&NULL[..], Vec::as_slice));
                return Ok(());
            }
            Take::Above { above, column } => {
                let field = element.as_ref().and_then(|element| element.above(*above, *column));
                out.extend_from_slice(field.unwrap_or(&NULL));
                return Ok(());
            }
            Take::Own { form } => {
                let own = self.own();
                let written = id_field(own, *form, self.scratch, out);
                return written.map_err(|problem| self.refuse(table, code, problem));
            }
            Take::ElementId { by, form } => {
                let id = self.element_id(by, element).map_err(|problem| self.refuse(table, code, problem))?;
                let written = id_field(id, *form, self.scratch, out);
                return written.map_err(|problem| self.refuse(table, code, problem));
            }
            Take::ChangeId { form } => {
                let number = self.change.map_or(0, |change| change.number);
                let id = Key::of(Value::Int64(number)).map(|number| {
                    self.plan.namespace.element_id(&self.collection.name, self.key, VERSION, &number)
                });
                let written = id.map_err(Problem::from).and_then(|id| id_field(id, *form, self.scratch, out));
                return written.map_err(|problem| self.refuse(table, code, problem));
            }
            Take::Rest(_) if self.is_gone() => {
                out.extend_from_slice(&NULL);
                return Ok(());
            }
            Take::Rest(json) => {
                let start = open(out);
                let written = json.write_object(self.rest.iter().copied(), code.lenient(), out);
                return self.close(table, at, code, written, start, out);
            }
            Take::Computed => {
                // Whether it is computed is told when its inputs are written.
                out.extend_from_slice(&COMPUTE);
                return Ok(());
            }
            Take::Name { up, conv } => {
                let frame = element.as_ref().and_then(|element| element.frame(*up));
                (frame.map(|frame| Value::String(frame.name)), conv)
            }
            Take::Index { from, conv } => {
                let frame = element.as_ref().and_then(|element| element.frame(0));
                (Some(Value::Int64(frame.map_or(0, |frame| frame.index as i64) + from)), conv)
            }
            Take::Change { of, conv } => (self.change.and_then(|change| change.value(*of)), conv),
            Take::Document { slot, .. } if self.is_gone() && self.slot(*slot).is_none() => {
                out.extend_from_slice(&NULL);
                return Ok(());
            }
            Take::Document { slot, conv } => (self.slot(*slot), conv),
            Take::Element { up, slot, conv } => {
                let frame = element.as_ref().and_then(|element| element.frame(*up));
                let value = frame.and_then(|frame| match slot {
                    Some(slot) => frame.slot(*slot),
                    None => Some(frame.value),
                });
                (value, conv)
            }
        };
        if conv.is_ciphered() {
            self.remember_place(element);
        }
        self.value(table, at, code, value, conv, out)
    }

    /// Where in the source the value is that is encrypted next.
    fn remember_place(&mut self, element: Option<Element<'_, 'a>>) {
        // Where its id cannot be made, the document is refused by the column that it is for.
        let told = element.and_then(|element| element.key(&element.code.told).ok());
        let place = &mut self.scratch.place;
        place.clear();
        place_part(self.collection.name.as_bytes(), place);
        place_part(self.key.as_bytes(), place);
        place_part(told.as_ref().map_or(&[], Key::as_bytes), place);
    }

    fn value(
        &mut self,
        table: usize,
        at: usize,
        code: &ColumnCode,
        value: Option<Value<'_>>,
        conv: &Conv,
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        let present = value.filter(|value| match value {
            Value::Null | Value::Undefined => false,
            Value::String(text) => !(code.empty_is_null && is_blank(text)),
            _ => true,
        });
        let Some(value) = present else {
            match code.null {
                NullPolicy::Keep => out.extend_from_slice(&NULL),
                NullPolicy::Default => {
                    self.adjusted.push((table, at, Adjustment::NullToDefault));
                    out.extend_from_slice(&code.default);
                }
                NullPolicy::Reject => {
                    let problem = Problem::new(Reason::Null, "there is no value");
                    return Err(self.refuse(table, code, problem));
                }
            }
            return Ok(());
        };
        let start = open(out);
        let written = conv.write(value, code.lenient(), out, self.scratch);
        self.close(table, at, code, written, start, out)
    }

    /// Puts the length in, or lets the policy for invalid values decide.
    fn close(
        &mut self,
        table: usize,
        at: usize,
        code: &ColumnCode,
        written: Result<Fit, Problem>,
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        let adjustment = match written {
            Ok(Fit::Exact) => None,
            Ok(Fit::Clamped) => Some(Adjustment::Clamped),
            Ok(Fit::Stripped) => Some(Adjustment::Stripped),
            Ok(Fit::Quoted) => Some(Adjustment::Quoted),
            Ok(Fit::UnknownLabel) => Some(Adjustment::UnknownToDefault),
            Ok(Fit::UnknownNull) if !code.required => {
                out.truncate(start);
                out.extend_from_slice(&NULL);
                self.adjusted.push((table, at, Adjustment::UnknownToNull));
                return Ok(());
            }
            Ok(Fit::UnknownNull) => {
                let problem = Problem::new(Reason::Label, "no label is known for this value");
                return Err(self.refuse(table, code, problem));
            }
            Err(problem) => {
                out.truncate(start);
                // No policy applies to malformed BSON.
                let policy = match problem.reason {
                    Reason::Malformed => InvalidPolicy::Reject,
                    _ if problem.blameless => InvalidPolicy::Reject,
                    _ => code.invalid,
                };
                match policy {
                    InvalidPolicy::Null if !code.required => {
                        out.extend_from_slice(&NULL);
                        self.adjusted.push((table, at, Adjustment::InvalidToNull));
                    }
                    InvalidPolicy::Default => {
                        out.extend_from_slice(&code.default);
                        self.adjusted.push((table, at, Adjustment::InvalidToDefault));
                    }
                    _ => return Err(self.refuse(table, code, problem)),
                }
                return Ok(());
            }
        };
        if let Some(adjustment) = adjustment {
            self.adjusted.push((table, at, adjustment));
        }
        let length = (out.len() - start - 4) as i32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn element_id(&self, by: &[ById], element: Option<Element<'_, 'a>>) -> Result<Uuid, Problem> {
        let element = element.ok_or_else(no_key)?;
        let key = element.key(by)?;
        Ok(self.plan.namespace.element_id(&self.collection.name, self.key, &element.code.path, &key))
    }

    /// Whether a computed column of this row can be computed, as far as is known. `inputs` are the fields that it takes.
    pub(super) fn computes<'f>(
        &mut self,
        table: usize,
        at: usize,
        code: &ColumnCode,
        inputs: impl Iterator<Item = &'f [u8]> + Clone,
    ) -> Result<bool, Rejection> {
        let reading = &mut self.scratch.computing;
        if let Some(written) = &mut reading.written {
            written.entry((table, at)).or_default().insert(inputs.clone().map(<[u8]>::to_vec).collect());
        }
        if reading.refused.is_empty() {
            return Ok(true);
        }
        let fields: Vec<Vec<u8>> = inputs.map(<[u8]>::to_vec).collect();
        if !reading.refused.get(&(table, at)).is_some_and(|refused| refused.contains(&fields)) {
            return Ok(true);
        }
        match code.invalid {
            InvalidPolicy::Null if !code.required => {
                self.adjusted.push((table, at, Adjustment::InvalidToNull));
                Ok(false)
            }
            InvalidPolicy::Default => {
                self.adjusted.push((table, at, Adjustment::InvalidToDefault));
                Ok(false)
            }
            _ => {
                let problem = Problem::new(Reason::Range, "the target cannot compute it of these inputs");
                Err(self.refuse(table, code, problem))
            }
        }
    }

    /// The condition holds of the document.
    pub(super) fn fits(&self, when: Option<&Condition>) -> Result<bool, Rejection> {
        let broken = |_| unreadable("the document's bytes are broken");
        when.map_or(Ok(true), |when| when.holds(self.slots, &[])).map_err(broken)
    }

    /// The condition holds of an element.
    pub(super) fn element_fits(
        &self,
        when: Option<&Condition>,
        frames: &[Frame<'a>],
    ) -> Result<bool, slackwater_topics::Malformed> {
        when.map_or(Ok(true), |when| when.holds(self.slots, frames))
    }

    /// A complaint that names the place, never the value.
    pub(super) fn refuse(&self, table: usize, code: &ColumnCode, problem: Problem) -> Rejection {
        let TableSpec { table, .. } = self.plan.written(table);
        Rejection {
            table: format!("{}.{}", table.schema, table.name),
            column: code.name.clone(),
            path: code.path.clone(),
            kind: problem.reason,
            text: problem.text.into_owned(),
        }
    }
}

fn no_key() -> Problem {
    Problem::new(Reason::Null, "the element has no value to be told apart by")
}

/// What an element is told apart by from others of its array.
fn key_of(by: &ById, frame: &Frame<'_>) -> Result<Key, Problem> {
    let value = match by {
        ById::Index => Some(Value::Int64(frame.index as i64)),
        ById::Name => Some(Value::String(frame.name)),
        ById::Itself => Some(frame.value),
        ById::Slot(slot) => frame.slot(*slot),
    };
    let value = value.filter(|value| !matches!(value, Value::Null | Value::Undefined)).ok_or_else(no_key)?;
    Ok(Key::of(value)?)
}

fn is_blank(text: &[u8]) -> bool {
    text.is_empty() || std::str::from_utf8(text).is_ok_and(|text| text.trim().is_empty())
}

fn open(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&NULL);
    out.len() - 4
}

fn id_field(id: Uuid, form: IdForm, scratch: &mut Scratch, out: &mut Vec<u8>) -> Result<(), Problem> {
    out.extend_from_slice(&form.length().to_be_bytes());
    append_id(id, form, scratch, out)
}
