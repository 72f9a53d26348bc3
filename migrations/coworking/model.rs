//! The kinds of documents and of columns.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::specs::SPECS;

/// A collection, by its name.
pub(super) type Model = &'static str;

/// A collection and the table with a row for each of its documents.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) name: Model,
    /// Empty where documents are only looked up.
    pub(super) table: &'static str,
    pub(super) ids: Form,
    pub(super) key: Key,
    /// Columns that are the same in all rows.
    pub(super) set: &'static [(&'static str, &'static str)],
    /// All other columns but those of the key.
    pub(super) columns: &'static [Column],
    /// Tables that are made of its arrays of ids.
    pub(super) junctions: &'static [Junction],
    /// Nobody updates or deletes them, except by mistake.
    pub(super) append_only: bool,
}

/// What `_id`s are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Object,
    /// What came from two older systems has numbers and text.
    Mixed,
    Text(&'static str),
    Long,
    Double,
}

/// How rows are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// `id`, made of `_id`.
    Uuid,
    /// The `_id` is in this column.
    Own(&'static str),
    /// `(scope, key)`, and this is the key; none: the `_id` is.
    Setting(Option<&'static str>),
}

/// A column and the field that it comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) field: &'static str,
    pub(super) kind: Kind,
}

/// An array of ids and the table that it becomes: first the own id, then the other's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Junction {
    pub(super) table: &'static str,
    pub(super) field: &'static str,
    pub(super) columns: [&'static str; 2],
    pub(super) to: Model,
}

/// What is written and the label that it means.
pub(super) type Labels = &'static [(&'static str, &'static str)];

/// What a column takes from its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text; may be missing, as all that says nothing else.
    Text,
    /// Text that is always there.
    Required,
    /// Text without outer white space; nothing where nothing is left.
    Trimmed,
    /// Always there, unique, and one in capitals and small letters.
    Email,
    /// Always there, unique, never changed, and begins like this. Some are odd, and have to stay so.
    Fixed(&'static str),
    /// A whole number in whatever form.
    Whole,
    /// The same, with a number instead of none.
    WholeOr(&'static str),
    /// The same, or what is no number, which is nothing.
    Loose,
    /// A whole number from 0 to 100.
    Percent,
    /// One from 0 to 6; 2 where there is none.
    Digit,
    /// One from 0 to 100 with two digits after the point.
    Rate,
    /// A whole number; what `smallint` does not hold becomes the nearest that it does.
    Clamped,
    /// `numeric` with so many digits after the point.
    Decimal(usize),
    /// The same, with a number instead of none.
    DecimalOr(usize, &'static str),
    /// An amount that is summed up by checks: always there, and no more than two digits after the point.
    Amount,
    /// Yes or no in whatever form, and what none means.
    FlagOr(&'static str),
    /// A moment.
    Time,
    /// The same, or what is no moment, which is nothing.
    LooseTime,
    /// One that is always there.
    TimeRequired,
    /// A day.
    Day,
    /// Anything, as jsonb.
    Json,
    /// An address of the network.
    Inet,
    /// A list of texts.
    Texts,
    /// One of these, or something else. Of documents that are only looked up.
    OneOf(&'static [&'static str]),
    /// What unknown labels mean; what none means.
    Label(Labels, Option<&'static str>, Option<&'static str>),
    /// The id of another document.
    Ref(Model, Needs),
    /// The document of the same number in another collection: always named, and never changed.
    Peer(Model),
    /// The id of a document of one of two collections; the word in the field beside it tells which this column is for.
    Subject(Model, &'static str),
    /// Many ids, as an array.
    Refs(Model),
    /// The code of a currency.
    Currency,
    /// A field of the document with this id: text, and what stands for none.
    Look(Model, &'static str, Option<&'static str>),
    /// The same, of labels; none of these is as good as nothing. Without a default there is no row.
    LookLabel(Model, &'static str, &'static [&'static str], Option<&'static str>),
    /// The same, as jsonb.
    LookJson(Model, &'static str),
    /// The same, of the document whose field is this `_id`: collection, field, the field with the value.
    LookBack(Model, &'static str, &'static str),
    /// What the target makes of the type's name.
    SpaceType(Model, &'static str),
    /// Encrypted by the old application, sometimes broken where it may be null. Compared apart.
    Sealed(bool),
    /// Text that is to be encrypted. Compared apart.
    Token,
    /// All fields that nobody names.
    Rest,
}

/// What a column needs of the row that it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Without it the column is null.
    May,
    /// Without it there is no row.
    Must,
    /// The same, and nobody refers to what never was.
    Sure,
}

static PLACES: LazyLock<HashMap<Model, usize>> =
    LazyLock::new(|| SPECS.iter().enumerate().map(|(place, spec)| (spec.name, place)).collect());

/// The place of a collection among all.
pub(super) fn place(model: Model) -> usize {
    PLACES[model]
}

pub(super) fn spec(model: Model) -> &'static Spec {
    &SPECS[place(model)]
}

impl Spec {
    pub(super) const fn set(mut self, set: &'static [(&'static str, &'static str)]) -> Self {
        self.set = set;
        self
    }

    pub(super) const fn ids(mut self, ids: Form) -> Self {
        self.ids = ids;
        self
    }

    pub(super) const fn key(mut self, key: Key) -> Self {
        self.key = key;
        self
    }

    pub(super) const fn junctions(mut self, junctions: &'static [Junction]) -> Self {
        self.junctions = junctions;
        self
    }

    pub(super) const fn append_only(mut self) -> Self {
        self.append_only = true;
        self
    }
}

/// A collection that becomes a table.
pub(super) const fn table(name: Model, table: &'static str, columns: &'static [Column]) -> Spec {
    Spec {
        name,
        table,
        ids: Form::Object,
        key: Key::Uuid,
        set: &[],
        columns,
        junctions: &[],
        append_only: false,
    }
}

/// A collection whose documents are only looked up.
pub(super) const fn known(name: Model, columns: &'static [Column]) -> Spec {
    table(name, "", columns)
}

/// A column that is called like its field.
pub(super) const fn same(name: &'static str, kind: Kind) -> Column {
    named(name, name, kind)
}

/// One that is not.
pub(super) const fn named(name: &'static str, field: &'static str, kind: Kind) -> Column {
    Column { name, field, kind }
}

pub(super) const fn junction(
    table: &'static str,
    field: &'static str,
    columns: [&'static str; 2],
    to: Model,
) -> Junction {
    Junction { table, field, columns, to }
}
