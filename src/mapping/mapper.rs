//! Events to rows.
//!
//! A document is walked once, values go into slots, and every column is written from its slot straight into the row's
//! bytes. A document whose last column fails leaves nothing behind: the rows go back to where they were before it.
//! All memory is kept from one document to the next.

use std::collections::HashMap;
use std::sync::Arc;

use slackwater_connectors::postgres::target::rows::{TableWrite, WriteSet};
use slackwater_topics::{CollectionId, Document, Event, Key, Op, Value};
use uuid::Uuid;

use super::change::What;
use super::elements::{Elements, Memory};
use super::encode::{Inputs, Scratch, Texts};
use super::plan::{Code, CollectionPlan, HolderCode, Owned, Plan, RowCode, Take};
use super::rejection::{Adjustment, Reason, Rejection, Tally, of_document, unreadable};
use super::row::Row;
use super::trie::{Slots, recycle};

/// Numbers of sequences that are kept; each takes some forty bytes.
const MOST_NUMBERS: usize = 500_000;

/// Documents that a tally names.
const SAMPLES: usize = 3;

/// Collection, table, column, what a policy did there.
type Counted = (u16, usize, usize, Adjustment);

/// Follows a plan. One for each thread that maps.
#[derive(Debug)]
pub struct Mapper {
    plan: Arc<Plan>,
    slots: Slots<'static>,
    rest: Vec<(&'static [u8], Value<'static>)>,
    scratch: Scratch,
    parents: Vec<Vec<u8>>,
    /// The document's id, as a field.
    own: Vec<u8>,
    /// Rows of the document's elements, of each table.
    elements: Vec<Elements>,
    memory: Memory,
    id: Vec<u8>,
    /// Which of the document's rows are written; of collections with conditions only.
    fits: Vec<bool>,
    /// Where the fields of the row at hand that are computed, or inputs, begin.
    places: Places,
    marks: Vec<Mark>,
    /// What policies did to the document at hand: table, column, what.
    adjusted: Vec<(usize, usize, Adjustment)>,
    tallies: HashMap<Counted, (u64, Vec<Key>)>,
}

/// Where fields of a row are, in the bytes of all rows.
#[derive(Debug, Default)]
struct Places {
    flags: Vec<usize>,
    /// Where each input begins, and where the last one ends.
    inputs: Vec<(usize, usize)>,
}

/// Where a table's rows, deletes and owners ended before the document at hand.
#[derive(Debug)]
struct Mark {
    table: usize,
    rows: (usize, usize),
    owners: (usize, usize),
    deletes: Vec<(usize, usize)>,
}

impl Mapper {
    /// A mapper for this plan.
    pub fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            slots: Vec::new(),
            rest: Vec::new(),
            scratch: Scratch::default(),
            parents: Vec::new(),
            own: Vec::new(),
            elements: Vec::new(),
            memory: Memory::default(),
            id: Vec::new(),
            fits: Vec::new(),
            places: Places::default(),
            marks: Vec::new(),
            adjusted: Vec::new(),
            tallies: HashMap::new(),
        }
    }

    /// Appends what the event does to the tables. Refused documents leave `out` as it was. The same `_id` must not come
    /// twice in one write set.
    pub fn map(&mut self, event: &Event, out: &mut WriteSet) -> Result<(), Rejection> {
        self.map_version(event, What::CURRENT, out)
    }

    /// The same, where versions are rows. Rows that show the document as it is may come once in a write set.
    pub(crate) fn map_version(
        &mut self,
        event: &Event,
        what: What,
        out: &mut WriteSet,
    ) -> Result<(), Rejection> {
        let plan = Arc::clone(&self.plan);
        let Some(collection) = plan.collections.get(usize::from(event.collection.0)) else {
            return Err(unreadable("the event's collection is not in the plan"));
        };
        self.mark(collection, event.op, out);
        let done = match event.op {
            Op::Snapshot | Op::Upsert => self.upsert(&plan, collection, event, what, out),
            Op::Delete => self.delete(&plan, collection, event, what, out),
        };
        match &done {
            Ok(()) => {
                for (table, column, what) in self.adjusted.drain(..) {
                    let entry = self.tallies.entry((event.collection.0, table, column, what)).or_default();
                    entry.0 += 1;
                    if entry.1.len() < SAMPLES {
                        entry.1.push(event.key.clone());
                    }
                }
            }
            Err(_) => {
                self.rewind(out);
                self.adjusted.clear();
            }
        }
        done
    }

    /// What policies did since this was last asked.
    pub fn take_tallies(&mut self) -> Vec<Tally> {
        let plan = &self.plan;
        let mut tallies: Vec<Tally> = self
            .tallies
            .drain()
            .map(|((collection, table, column, what), (count, samples))| {
                let spec = &plan.tables[table];
                let column = spec.table.columns[spec.columns[column]].name.clone();
                Tally { collection: CollectionId(collection), table, column, what, count, samples }
            })
            .collect();
        tallies.sort_by(|a, b| {
            let order = |tally: &Tally| (tally.collection, tally.table);
            let names = |a: &Tally, b: &Tally| (&a.column, a.what.word()).cmp(&(&b.column, b.what.word()));
            order(a).cmp(&order(b)).then_with(|| names(a, b))
        });
        tallies
    }

    /// From now on what only the database can judge is kept: texts of its types, and what its expressions are made of.
    pub(crate) fn keep_texts(&mut self) {
        self.scratch.reading.written = Some(Texts::new());
        self.scratch.computing.written = Some(Inputs::new());
    }

    /// What was kept; no more is.
    pub(crate) fn take_texts(&mut self) -> (Texts, Inputs) {
        let Scratch { reading, computing, .. } = &mut self.scratch;
        (reading.written.take().unwrap_or_default(), computing.written.take().unwrap_or_default())
    }

    /// The database refuses these: they are invalid, until this is said again.
    pub(crate) fn refuse(&mut self, texts: Texts, inputs: Inputs) {
        self.scratch.reading.refused = texts;
        self.scratch.computing.refused = inputs;
    }

    /// The ids whose numbers were asked for and not known, by series. If there are any, what was mapped is void.
    pub(crate) fn take_wanted(&mut self) -> HashMap<u16, Vec<Uuid>> {
        let mut wanted: HashMap<u16, Vec<Uuid>> = HashMap::new();
        for (series, id) in self.scratch.numbers.wanted.drain() {
            wanted.entry(series).or_default().push(id);
        }
        wanted
    }

    /// The numbers of these ids.
    pub(crate) fn learn(&mut self, series: u16, numbers: HashMap<Uuid, i64>) {
        let known = numbers.into_iter().map(|(id, number)| ((series, id), number));
        self.scratch.numbers.known.extend(known);
    }

    /// The target gives no numbers for these ids, until this is forgotten.
    pub(crate) fn refuse_numbers(&mut self, series: u16, ids: impl Iterator<Item = Uuid>, why: &str) {
        let why: Arc<str> = why.into();
        self.scratch.numbers.refused.extend(ids.map(|id| ((series, id), Arc::clone(&why))));
    }

    /// Forgets all numbers: another server may not know of them.
    pub(crate) fn forget_numbers(&mut self) {
        self.scratch.numbers.known.clear();
        self.scratch.numbers.refused.clear();
    }

    /// Forgets numbers if there are too many to keep, and for which ids there were none: by now there may be one.
    pub(crate) fn tidy(&mut self) {
        self.scratch.numbers.refused.clear();
        if self.scratch.numbers.known.len() > MOST_NUMBERS {
            self.scratch.numbers.known.clear();
        }
    }

    fn mark(&mut self, collection: &CollectionPlan, op: Op, out: &WriteSet) {
        self.marks.clear();
        self.marks.extend(collection.tables.iter().map(|table| {
            let write = &out.tables[*table];
            let deletes = match op {
                Op::Snapshot | Op::Upsert
                    if !collection.code.routed && collection.code.holders.is_empty() =>
                {
                    Vec::new()
                }
                // Nothing else writes them; an empty list costs nothing.
                _ => write.deletes.iter().map(|values| values.mark()).collect(),
            };
            Mark { table: *table, rows: write.rows.mark(), owners: write.owners.mark(), deletes }
        }));
    }

    fn rewind(&self, out: &mut WriteSet) {
        for mark in &self.marks {
            let write = &mut out.tables[mark.table];
            write.rows.rewind(mark.rows);
            write.owners.rewind(mark.owners);
            for (values, mark) in write.deletes.iter_mut().zip(&mark.deletes) {
                values.rewind(*mark);
            }
        }
    }

    fn upsert(
        &mut self,
        plan: &Plan,
        collection: &CollectionPlan,
        event: &Event,
        what: What,
        out: &mut WriteSet,
    ) -> Result<(), Rejection> {
        let broken = |_| unreadable("the document's bytes are broken");
        let code = &collection.code;
        let document = Document::new(&event.document).map_err(broken)?;
        let mut id = std::mem::take(&mut self.id);
        id.clear();
        // Keys are written from the canonical id, as a delete has it: 1.0 and 1 are one document and one row.
        let exact = matches!(event.key.as_bytes().first(), Some(&(OBJECT_ID | STRING)));
        if code.id_values && !exact {
            id_document(&event.key, &mut id).map_err(broken)?;
        }
        let mut slots = recycle(std::mem::take(&mut self.slots));
        let mut rest: Vec<(&[u8], Value<'_>)> =
            std::mem::take(&mut self.rest).into_iter().map(|_| (&[][..], Value::Null)).collect();
        let filled = match code.rest {
            true => code.document.fill_and_rest(document, &mut slots, &mut rest),
            false => code.document.fill(document, &mut slots),
        };
        filled.map_err(broken)?;
        if !id.is_empty() {
            let canonical = Document::new(&id).map_err(broken)?;
            code.document.overlay(canonical, &mut slots).map_err(broken)?;
        }
        let mut row =
            Row::new(plan, collection, &event.key, &slots, &rest, &mut self.scratch, &mut self.adjusted)
                .of_version(what.version);
        if code.routed {
            route(code, &row, &mut self.fits)?;
        }
        for (index, own) in code.rows.iter().enumerate() {
            let is_due = if own.history { what.version.is_some() } else { what.current };
            if !is_due {
                continue;
            }
            if !code.routed || self.fits[index] {
                write_row(own, &mut row, &mut self.parents, &mut self.places, out)?;
                continue;
            }
            let stands = own.rivals.iter().any(|rival| self.fits[*rival]);
            if stands {
                continue;
            }
            // Rows of elements go by the id of the row that they belong to, whether that stands or not.
            keep_parents(own, &mut row, &mut self.parents);
            let first = own.rivals.iter().all(|rival| *rival > index);
            if first && !out.copy {
                take_row(own, &mut row, &self.parents, out)?;
            }
        }
        self.elements.resize_with(self.elements.len().max(code.each.len()), Elements::default);
        for (index, each) in code.each.iter().enumerate().filter(|_| what.current) {
            let copy = out.copy;
            let write = &mut out.tables[each.row.table];
            let owner = match each.owned {
                Owned::Row { parent, .. } => &self.parents[parent],
                Owned::Document { .. } | Owned::Element => row.own_field(&mut self.own),
            };
            let stands = || match each.owned {
                Owned::Row { row, .. } | Owned::Document { row: Some(row) } => {
                    let rivals = &code.rows[row].rivals;
                    self.fits[row] || rivals.iter().any(|rival| self.fits[*rival])
                }
                // Rows that are named by `parent` are looked for with the elements that they are of.
                Owned::Document { row: None } | Owned::Element => true,
            };
            let (before, here) = self.elements.split_at_mut(index);
            let elements = &mut here[0];
            if !code.routed || stands() {
                elements.make(each, &mut row, &self.parents, before, &mut self.memory)?;
                elements.write(write);
            } else {
                elements.clear();
                if owner.len() <= 4 {
                    continue;
                }
            }
            if !copy {
                write.owners.push().extend_from_slice(owner);
            }
        }
        for holder in code.holders.iter().filter(|_| what.current) {
            let copy = out.copy;
            hold(
                holder,
                &self.elements[holder.each],
                row.own_field(&mut self.own),
                copy,
                &mut out.tables[holder.table],
            );
        }
        self.slots = recycle(slots);
        rest.clear();
        self.rest = rest.into_iter().map(|_| (&[][..], Value::Null)).collect();
        self.id = id;
        Ok(())
    }

    /// A delete knows the `_id` and nothing else. Where a key cannot be made of it, no row was ever written.
    fn delete(
        &mut self,
        plan: &Plan,
        collection: &CollectionPlan,
        event: &Event,
        what: What,
        out: &mut WriteSet,
    ) -> Result<(), Rejection> {
        let broken = |_| unreadable("the event's key is broken");
        let code = &collection.code;
        let mut id = std::mem::take(&mut self.id);
        id.clear();
        id_document(&event.key, &mut id).map_err(broken)?;
        let mut slots = recycle(std::mem::take(&mut self.slots));
        let document = Document::new(&id).map_err(broken)?;
        code.document.fill(document, &mut slots).map_err(broken)?;
        let mut row =
            Row::new(plan, collection, &event.key, &slots, &[], &mut self.scratch, &mut self.adjusted)
                .of_version(what.version);
        let mut reached = true;
        for (index, code) in collection.code.rows.iter().enumerate() {
            if code.history {
                if what.version.is_some() {
                    write_row(code, &mut row, &mut self.parents, &mut self.places, out)?;
                }
                continue;
            }
            if !what.current {
                continue;
            }
            if take_row(code, &mut row, &self.parents, out).is_err() {
                // A document that was refused for its key has no rows of elements either.
                reached &= index != 0;
            }
            keep_parents(code, &mut row, &mut self.parents);
        }
        for code in collection.code.each.iter().filter(|_| what.current) {
            let owner = match code.owned {
                Owned::Row { parent, .. } if reached => &self.parents[parent],
                Owned::Row { .. } => continue,
                Owned::Document { .. } | Owned::Element => row.own_field(&mut self.own),
            };
            if owner.len() > 4 {
                out.tables[code.row.table].owners.push().extend_from_slice(owner);
            }
        }
        for holder in code.holders.iter().filter(|_| what.current) {
            row.document_id(out.tables[holder.table].deletes[0].push());
        }
        self.adjusted.clear();
        self.slots = recycle(slots);
        self.id = id;
        Ok(())
    }
}

/// Which rows of the document are written: of several for one table the first that fits.
fn route(code: &Code, row: &Row<'_, '_>, fits: &mut Vec<bool>) -> Result<(), Rejection> {
    fits.clear();
    for own in &code.rows {
        let taken = own.rivals.iter().any(|rival| fits.get(*rival) == Some(&true));
        fits.push(!taken && row.fits(own.when.as_ref())?);
    }
    let fits_some = code.rows.iter().zip(&*fits).any(|(own, fits)| *fits && !own.aside && !own.history);
    if code.reject_others && !fits_some {
        return Err(of_document(Reason::Route, "it fits none of the collection's tables"));
    }
    Ok(())
}

/// Writes the document's row of one table.
fn write_row(
    code: &RowCode,
    row: &mut Row<'_, '_>,
    parents: &mut Vec<Vec<u8>>,
    places: &mut Places,
    out: &mut WriteSet,
) -> Result<(), Rejection> {
    let write = &mut out.tables[code.table];
    write.rows.begin();
    places.flags.clear();
    for (at, column) in code.columns.iter().enumerate() {
        let bytes = write.rows.field(at);
        let start = bytes.len();
        row.column(code.table, at, column, parents, bytes)?;
        if let Some((_, parent)) = code.parents.iter().find(|(parent, _)| *parent == at) {
            keep(parents, *parent, &bytes[start..]);
        }
        if matches!(column.take, Take::Computed) {
            places.flags.push(start);
        }
    }
    let mut behind = code.columns.len();
    if !code.made.computed.is_empty() {
        places.inputs.clear();
        for (at, input) in &code.made.inputs {
            let bytes = write.rows.field(behind);
            let start = bytes.len();
            row.column(code.table, *at, input, parents, bytes)?;
            places.inputs.push((start, bytes.len()));
            behind += 1;
        }
        for ((at, inputs), flag) in code.made.computed.iter().zip(&places.flags) {
            let bytes = write.rows.as_bytes();
            let fields =
                inputs.iter().map(|input| places.inputs[*input]).map(|(start, end)| &bytes[start..end]);
            if !row.computes(code.table, *at, &code.columns[*at], fields)? {
                write.rows.set(flag + 4, 0);
            }
        }
    }
    if code.claimed {
        row.document_id(write.rows.field(behind));
        row.document_name(write.rows.field(behind + 1));
    }
    write.rows.end();
    Ok(())
}

/// Notes which elements the document has, or that it has none.
fn hold(holder: &HolderCode, elements: &Elements, document: &[u8], copy: bool, write: &mut TableWrite) {
    if !elements.is_empty() {
        write.rows.begin();
        elements.write_array(holder.column, holder.oid, write.rows.field(0));
        write.rows.field(1).extend_from_slice(document);
        write.rows.end();
    } else if !copy {
        write.deletes[0].push().extend_from_slice(document);
    }
}

/// Takes the document's row of one table away. Where its key cannot be made, there is none.
fn take_row(
    code: &RowCode,
    row: &mut Row<'_, '_>,
    parents: &[Vec<u8>],
    out: &mut WriteSet,
) -> Result<(), Rejection> {
    let write = &mut out.tables[code.table];
    if code.claimed {
        write.deletes.iter_mut().for_each(|values| row.document_id(values.push()));
        return Ok(());
    }
    let marks: Vec<_> = write.deletes.iter().map(|values| values.mark()).collect();
    for (values, at) in write.deletes.iter_mut().zip(&code.found) {
        if let Err(refused) = row.column(code.table, *at, &code.columns[*at], parents, values.push()) {
            write.deletes.iter_mut().zip(&marks).for_each(|(values, mark)| values.rewind(*mark));
            return Err(refused);
        }
    }
    Ok(())
}

/// What rows of elements take over of a row that is not written. Columns other than the id need the document; nobody reads those here.
fn keep_parents(code: &RowCode, row: &mut Row<'_, '_>, parents: &mut Vec<Vec<u8>>) {
    for (at, parent) in &code.parents {
        let mut bytes = Vec::new();
        let made = row.column(code.table, *at, &code.columns[*at], parents, &mut bytes);
        keep(parents, *parent, if made.is_ok() { &bytes } else { &[] });
    }
}

/// First bytes of the canonical keys whose value is the same however the document writes it.
const OBJECT_ID: u8 = 0x50;
const STRING: u8 = 0x20;

fn id_document(key: &Key, out: &mut Vec<u8>) -> Result<(), slackwater_topics::Malformed> {
    out.extend_from_slice(&[0; 4]);
    key.write_element("_id", out)?;
    out.push(0);
    let length = out.len() as i32;
    out[..4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn keep(parents: &mut Vec<Vec<u8>>, index: usize, bytes: &[u8]) {
    if parents.len() <= index {
        parents.resize(index + 1, Vec::new());
    }
    parents[index].clear();
    parents[index].extend_from_slice(bytes);
}
