//! The kinds of documents and of columns.

use std::fmt;

use super::specs::SPECS;

/// A collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Model {
    Organisations,
    Users,
    IndustryTypes,
    Accounts,
    Leads,
    Campaigns,
    SalesStages,
    OpportunityTypes,
    Contacts,
    Opportunities,
    Contracts,
    Boards,
    Sections,
    Tasks,
    AccountsTasks,
    TasksComments,
    InvoiceStates,
    Invoices,
    DocumentTypes,
    Documents,
    ModulStatus,
    SystemModulesEnabled,
    SystemServices,
    MyAccount,
    SecondBrainNotions,
    OpenAiKeys,
    Employees,
    ImageUpload,
    TodoList,
    GptModels,
}

impl Model {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        SPECS.iter().map(|spec| spec.model)
    }

    pub(super) fn spec(self) -> &'static Spec {
        &SPECS[self as usize]
    }

    /// Its name in the database, and that of the table with one row for each document.
    pub fn collection(self) -> &'static str {
        self.spec().table
    }

    /// Its name in the migration file.
    pub(super) fn name(self) -> String {
        format!("legacy.{}", self.collection())
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.collection())
    }
}

/// A collection and its tables.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) model: Model,
    pub(super) table: &'static str,
    /// All columns but `id`.
    pub(super) columns: &'static [Column],
    /// Tables that are made of its arrays of ids.
    pub(super) junctions: &'static [Junction],
}

/// A column and the field that it comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) field: &'static str,
    pub(super) kind: Kind,
}

/// A field and its column have one name.
pub(super) const fn same(name: &'static str, kind: Kind) -> Column {
    named(name, name, kind)
}

/// They have two.
pub(super) const fn named(name: &'static str, field: &'static str, kind: Kind) -> Column {
    Column { name, field, kind }
}

/// An array of ids and the table that it becomes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Junction {
    pub(super) table: &'static str,
    pub(super) field: &'static str,
    /// The columns, in the order of the key.
    pub(super) columns: [&'static str; 2],
    /// Which of them is the document that has the array.
    pub(super) own: usize,
    pub(super) to: Model,
}

pub(super) const fn junction(
    table: &'static str,
    field: &'static str,
    columns: [&'static str; 2],
    own: usize,
    to: Model,
) -> Junction {
    Junction { table, field, columns, own, to }
}

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
    /// Always there, unique, and never changed.
    Slug,
    /// A whole number in whatever form.
    Whole,
    /// The same, with a number instead of none.
    WholeOr(&'static str),
    /// `numeric(14, 2)`.
    Decimal,
    /// Yes or no in whatever form.
    Flag,
    /// The same, with an answer instead of none.
    FlagOr(&'static str),
    /// A moment.
    Time,
    /// One that is always there.
    TimeRequired,
    /// A day.
    Day,
    /// Anything, as jsonb.
    Json,
    /// A list of texts.
    Texts,
    /// What is written and the label that it means; what unknown ones mean; what none means.
    Label(&'static [(&'static str, &'static str)], Option<&'static str>, Option<&'static str>),
    /// The id of another document.
    Ref(Model, Needs),
}

/// What a column needs of the row that it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// There is no foreign key.
    Nothing,
    /// Without it the column is null.
    May,
    /// Without it there is no row.
    Must,
}
