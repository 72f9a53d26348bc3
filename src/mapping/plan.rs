//! A compiled migration.

use std::sync::Arc;

use slackwater_connectors::postgres::target::catalog::Type;
use slackwater_connectors::postgres::target::rows::{Merging, PART, TableSpec};
use slackwater_connectors::postgres::target::serial::Series;
use slackwater_topics::{CollectionId, Namespace};

use super::compile::{Part, Places};
use super::condition::Condition;
use super::encode::{Conv, IdForm, Json, Lenient};
use super::sensitive::Sensitive;
use super::travel::Travel;
use super::trie::Trie;
use crate::config::{ChangeOf, Diagnostics, InvalidPolicy, NullPolicy};

/// A migration, checked against the target's catalogue and ready to run.
#[derive(Debug)]
pub struct Plan {
    /// The migration's name.
    pub migration: String,
    /// What its identifiers are made with.
    pub namespace: Namespace,
    /// Its collections; the index is the `CollectionId`.
    pub collections: Vec<CollectionPlan>,
    /// Every table that is written, once for each place in the file that writes it; referenced tables first.
    pub tables: Arc<Vec<TableSpec>>,
    /// Keys that come from sequences.
    pub series: Vec<Series>,
    /// Rules that give parts of rows.
    pub(super) parts: Vec<Part>,
    pub(super) places: Places,
    /// What somebody should have looked at.
    pub warnings: Diagnostics,
}

impl Plan {
    /// All collections.
    pub(crate) fn ids(&self) -> impl Iterator<Item = CollectionId> + use<> {
        (0..self.collections.len()).map(|index| CollectionId(index as u16))
    }

    /// What becomes of a collection.
    pub(crate) fn collection(&self, id: CollectionId) -> &CollectionPlan {
        &self.collections[usize::from(id.0)]
    }

    /// The application's table that is written in the end: tables of parts are ours.
    pub(crate) fn written(&self, table: usize) -> &TableSpec {
        match self.tables[table].merging {
            Merging::Part { of } => &self.tables[of],
            Merging::None | Merging::Known | Merging::Holder | Merging::Whole(_) => &self.tables[table],
        }
    }

    /// Each version of a document is a row of its own there.
    pub(crate) fn is_history(&self, table: usize) -> bool {
        self.collections
            .iter()
            .any(|collection| collection.code.rows.iter().any(|row| row.history && row.table == table))
    }

    /// The collection that the migration file calls so.
    pub(crate) fn id_of(&self, name: &str) -> Option<CollectionId> {
        self.ids().find(|id| self.collection(*id).name == name)
    }

    /// Every version of this collection's documents counts, not only the last one of a batch.
    pub(crate) fn keeps_versions(&self, id: CollectionId) -> bool {
        let collection = self.collection(id);
        collection.append_only || collection.has_history()
    }

    /// The tables from which rows go that a recopy of these collections has not met.
    pub(crate) fn swept_tables(&self, collections: &[CollectionId]) -> Vec<usize> {
        let swept = collections.iter().copied().filter(|id| !self.collection(*id).append_only);
        let mut tables = self.tables_of(&swept.collect::<Vec<_>>());
        // No version goes.
        let rows = || collections.iter().flat_map(|id| &self.collection(*id).code.rows);
        tables.retain(|table| !rows().any(|row| row.history && row.table == *table));
        tables
    }

    /// The collections of a source.
    pub(crate) fn of_source(&self, source: &str) -> Vec<CollectionId> {
        self.ids().filter(|id| self.collection(*id).source == source).collect()
    }

    /// These collections stand still: nothing of them is written.
    pub(crate) fn stand(&mut self, collections: &[usize]) {
        let mut tables = Vec::clone(&self.tables);
        for index in collections {
            let collection = &mut self.collections[*index];
            collection.stands = true;
            for table in &collection.tables {
                tables[*table].stands = true;
            }
        }
        // Nobody gives parts of it any more.
        for at in 0..tables.len() {
            let parts = tables[at].whole().map(|whole| whole.parts.clone()).unwrap_or_default();
            tables[at].stands |= !parts.is_empty() && parts.iter().all(|part| tables[*part].stands);
        }
        self.tables = Arc::new(tables);
    }

    /// The type of a column that is written.
    pub(crate) fn kind(&self, oid: u32) -> Option<&Type> {
        let columns =
            self.tables.iter().flat_map(|spec| spec.columns.iter().map(|at| &spec.table.columns[*at]));
        columns.map(|column| &column.kind).find(|kind| kind.oid == oid)
    }

    /// The tables that these collections fill, as indices into `tables`, in their order.
    pub(crate) fn tables_of(&self, collections: &[CollectionId]) -> Vec<usize> {
        let tables = collections.iter().flat_map(|id| self.collection(*id).tables.iter().copied());
        let mut tables: Vec<usize> = tables.collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }
}

/// What becomes of one collection.
#[derive(Debug)]
pub struct CollectionPlan {
    /// As in the file: `legacy.users`.
    pub name: String,
    /// The source.
    pub source: String,
    /// The collection's name there.
    pub collection: String,
    /// One of its tables cannot be written as it is now: its documents wait.
    pub stands: bool,
    /// The first version of a document stands; what becomes of it afterwards is reported, and not applied.
    pub append_only: bool,
    /// When it is copied: collections of a lower level first, those of one level side by side.
    pub level: usize,
    /// Collections of other sources whose rows its rows refer to: they are copied first, if they can be.
    pub after: Vec<CollectionId>,
    /// Its tables, as indices into `Plan::tables`, the document's own first.
    pub tables: Vec<usize>,
    /// What of its documents is shown to nobody.
    pub(crate) sensitive: Sensitive,
    /// What of them travels encrypted.
    pub(crate) travel: Option<Arc<Travel>>,
    pub(super) code: Code,
}

impl CollectionPlan {
    /// Every version of its documents is a row of some table.
    pub(crate) fn has_history(&self) -> bool {
        self.code.rows.iter().any(|row| row.history)
    }

    /// The names of the document's own fields that are read, without `_id`.
    pub(crate) fn fields(&self) -> Vec<String> {
        self.code.document.names().filter(|name| name != "_id").collect()
    }

    /// The tables, as indices into `Plan::tables`, in which each document is one row of its own, whatever other collections bring.
    pub(crate) fn own_tables(&self) -> Vec<usize> {
        self.tables_by(|column| matches!(column.take, Take::Own { .. }))
    }

    /// The same of tables whose key has the value of `_id`: other collections may have the same ids.
    pub(crate) fn tables_by_id(&self) -> Vec<usize> {
        self.tables_by(ColumnCode::is_id)
    }

    /// The tables with a row for each document, and with such a column in the key.
    fn tables_by(&self, tells: impl Fn(&ColumnCode) -> bool) -> Vec<usize> {
        let own = |row: &&RowCode| {
            // Of a table with a condition nobody knows how many documents fit.
            // What several documents make is compared in another way.
            row.when.is_none()
                && !row.history
                && !row.columns.iter().any(|column| column.name == PART)
                && row.key.iter().any(|column| tells(&row.columns[*column]))
        };
        self.code.rows.iter().filter(own).map(|row| row.table).collect()
    }
}

/// What the mapper does with a document.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) document: Trie,
    /// Tables with a row a document.
    pub(super) rows: Vec<RowCode>,
    /// Tables with a row an element of an array; those of enclosing elements first.
    pub(super) each: Vec<EachCode>,
    /// Tables of ours that say which elements a document has, where rows of elements in them belong to those.
    pub(super) holders: Vec<HolderCode>,
    /// Some column takes the fields that no rule reads.
    pub(super) rest: bool,
    /// Some key is made of the value of `_id`, not of its hash.
    pub(super) id_values: bool,
    /// Some table takes some documents only.
    pub(super) routed: bool,
    /// A document that fits no table is refused.
    pub(super) reject_others: bool,
}

#[derive(Debug)]
pub(super) struct RowCode {
    /// Index into `Plan::tables`.
    pub(super) table: usize,
    pub(super) columns: Vec<ColumnCode>,
    /// As in `TableSpec::key`.
    pub(super) key: Vec<usize>,
    /// As `TableSpec::found_by` has them.
    pub(super) found: Vec<usize>,
    /// As in `TableSpec`: the row ends with the document's id and name.
    pub(super) claimed: bool,
    /// Columns whose value rows of elements take over, each with its place among all parents of the collection.
    pub(super) parents: Vec<(usize, usize)>,
    pub(super) made: Made,
    /// Only documents, or elements, of which this holds.
    pub(super) when: Option<Condition>,
    /// Other rows of the document for the same table: the first one that fits is written.
    pub(super) rivals: Vec<usize>,
    /// What others look up in the document: it is there whether the document fits a table or not.
    pub(super) aside: bool,
    /// A row a version of the document.
    pub(super) history: bool,
}

/// What the target computes of a row.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// What it is made of: a column that takes it, and the input as if it were a column.
    pub(super) inputs: Vec<(usize, ColumnCode)>,
    /// Columns that are computed, and which of the inputs each takes.
    pub(super) computed: Vec<(usize, Vec<usize>)>,
}

#[derive(Debug)]
pub(super) struct EachCode {
    pub(super) row: RowCode,
    /// From the document to the elements that become rows; one at least.
    pub(super) levels: Vec<LevelCode>,
    /// Its path, which ids of elements are made with.
    pub(super) path: String,
    /// What tells its elements apart where their values are encrypted; of each level.
    pub(super) told: Vec<ById>,
    /// The column with the id of what the rows belong to.
    pub(super) owner: usize,
    pub(super) owned: Owned,
    /// Rows of enclosing elements that are named by `parent`: without one of them there is no row either.
    pub(super) above: Vec<Above>,
    /// It is one of those for another table.
    pub(super) encloses: bool,
}

/// An array, or an object, on the way to elements.
#[derive(Debug)]
pub(super) struct LevelCode {
    /// Its slot in the document, or in the element of the level before; none where that element is it.
    pub(super) array: Option<usize>,
    /// The elements are the fields of an object.
    pub(super) fields: bool,
    /// What is read in each element.
    pub(super) element: Trie,
    /// As in the file, for messages.
    pub(super) path: String,
}

/// The row of an enclosing element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Above {
    /// Its table, as an index into `Code::each`.
    pub(super) each: usize,
    /// How many arrays its elements are in.
    pub(super) depth: usize,
}

/// A table of ours with a row for each document: the ids of elements that other rows belong to.
#[derive(Debug)]
pub(super) struct HolderCode {
    /// Index into `Plan::tables`.
    pub(super) table: usize,
    /// The rows with those ids, as an index into `Code::each`, and their column.
    pub(super) each: usize,
    pub(super) column: usize,
    /// Type of an id.
    pub(super) oid: u32,
}

/// What rows of elements belong to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owned {
    /// One of the document's rows, by one of the parents.
    Row { row: usize, parent: usize },
    /// The row of an enclosing element: they are found by the document, through a table of ours.
    Element,
    /// The document itself; and the one of its rows that is named by `parent`, if one is.
    Document { row: Option<usize> },
}

#[derive(Debug)]
pub(super) struct ColumnCode {
    pub(super) name: String,
    /// As in the file, for messages.
    pub(super) path: String,
    pub(super) take: Take,
    pub(super) null: NullPolicy,
    pub(super) invalid: InvalidPolicy,
    /// Length and bytes.
    pub(super) default: Vec<u8>,
    pub(super) empty_is_null: bool,
    /// NOT NULL, or part of the key.
    pub(super) required: bool,
}

impl ColumnCode {
    /// The value of the whole `_id`, and two ids are two values: none is changed on its way. Ids of two types with the same value are one
    /// row, and a document less is in the target.
    fn is_id(&self) -> bool {
        let Take::Document { conv, .. } = &self.take else { return false };
        let keeps_apart = match conv {
            Conv::Text(text) => !text.trim && !text.lower,
            Conv::Integer { .. } | Conv::Numeric(_) | Conv::Uuid | Conv::Bytea | Conv::Ref(_) => true,
            _ => false,
        };
        keeps_apart && self.path == "_id" && matches!(self.invalid, InvalidPolicy::Reject)
    }

    pub(super) fn lenient(&self) -> Lenient {
        match self.invalid {
            InvalidPolicy::Clamp => Lenient::Clamp,
            InvalidPolicy::Strip => Lenient::Strip,
            InvalidPolicy::Reject | InvalidPolicy::Null | InvalidPolicy::Default => Lenient::No,
        }
    }
}

/// Where a column's value comes from.
#[derive(Debug)]
pub(super) enum Take {
    /// A slot of the document.
    Document { slot: usize, conv: Conv },
    /// A slot of the element, or of one so many levels further out; none for the element itself.
    Element { up: usize, slot: Option<usize>, conv: Conv },
    /// The document's own id.
    Own { form: IdForm },
    /// The element's id. `by`: of each level.
    ElementId { by: Box<[ById]>, form: IdForm },
    /// One of the parents of the document's row.
    Parent(usize),
    /// A column of the row of an enclosing element; which of `EachCode::above`.
    Above { above: usize, column: usize },
    /// Fields that no rule reads.
    Rest(Json),
    /// Length and bytes.
    Const(Vec<u8>),
    /// Place in the array.
    Index { from: i64, conv: Conv },
    /// Name of the field that the element is, or one so many levels further out.
    Name { up: usize, conv: Conv },
    /// It is computed there, unless its inputs are known to fail.
    Computed,
    /// Something of the change that made this version.
    Change { of: ChangeOf, conv: Conv },
    /// The id of this version.
    ChangeId { form: IdForm },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ById {
    Index,
    Name,
    Itself,
    Slot(usize),
}
