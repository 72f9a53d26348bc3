//! The migration file, read and checked as far as that goes without a server.

use std::fmt;
use std::time::Duration;

use slackwater_connectors::postgres::target::rows::{How, Missing};
use slackwater_connectors::secret::Secret;
use slackwater_topics::Namespace;

use super::checks::Check;
use super::ciphers::Cipher;
use super::cutover::{Cutover, Freeze};
use super::diagnostics::{At, FileText, Place};
use super::form::Form;
use super::path::{Levels, Path};
use super::predicate::Predicate;
use super::read::ReadFile;
use super::tree::Scalar;

/// A whole migration.
#[derive(Clone, Debug)]
pub struct Migration {
    /// Its name.
    pub name: String,
    /// What its identifiers are made with.
    pub namespace: Namespace,
    /// Where documents come from.
    pub sources: Vec<Source>,
    /// Where rows go.
    pub target: Target,
    /// What lies between capture and apply.
    pub log: Log,
    /// How the copy is made.
    pub snapshot: Snapshot,
    /// With what values are decrypted and encrypted.
    pub ciphers: Vec<Cipher>,
    /// What becomes of each collection, in the order of the file.
    pub collections: Vec<Collection>,
    /// Collections that stay behind on purpose, as `source.collection`; `*` stands for any letters.
    pub not_migrated: Vec<At<String>>,
    /// What has to hold, whatever the mapping says.
    pub checks: Vec<Check>,
    /// How everything is verified again and again, if that is wanted.
    pub verify: Option<Verify>,
    /// How the switch is made.
    pub cutover: Cutover,
    pub(crate) file: FileText,
    /// Changes when the text of the file does, or that of one which it includes.
    pub(crate) fingerprint: String,
    /// The migration file, and those that it includes.
    pub(crate) files: Vec<ReadFile>,
}

/// How everything is verified again and again, beside the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verify {
    /// From the beginning of one to that of the next.
    pub every: Duration,
    /// No more documents a second.
    pub throttle: u64,
}

impl Default for Verify {
    fn default() -> Self {
        Self { every: Duration::from_secs(24 * 3600), throttle: 5_000 }
    }
}

impl Migration {
    /// How the writers of a source are stopped.
    pub(crate) fn freeze_of<'m>(&'m self, source: &'m Source) -> &'m Freeze {
        source.freeze.as_ref().unwrap_or(&self.cutover.freeze)
    }

    /// The tables that it names, with their schemas.
    pub(crate) fn tables(&self) -> Vec<(String, String)> {
        let tables = self.collections.iter().flat_map(|collection| &collection.tables);
        tables
            .map(|table| {
                let schema = table.schema.clone().unwrap_or_else(|| self.target.schema.clone());
                (schema, table.into.value.clone())
            })
            .collect()
    }

    /// The collection (`source.collection`) stays behind on purpose.
    pub(crate) fn leaves_behind(&self, name: &str) -> bool {
        self.not_migrated.iter().any(|pattern| fits(name, &pattern.value))
    }
}

/// `*` stands for any letters, none included.
pub(super) fn fits(name: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(last)
}

/// Where documents come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The name that collections are prefixed with.
    pub name: At<String>,
    /// What it is, and where.
    pub system: System,
    /// How its writers are stopped, where that is not as the section `cutover` says.
    pub freeze: Option<Freeze>,
    /// Rows go as soon as their collection is gone. Otherwise a person is asked.
    pub follows_drops: bool,
    /// The place of its address.
    pub place: Place,
    /// It has mistakes, and cannot be reached.
    pub unread: bool,
}

/// A system that documents come from.
#[derive(Clone, Debug)]
pub enum System {
    /// A database of MongoDB.
    Mongodb {
        /// Connection string.
        uri: Secret,
        /// Its database.
        database: String,
    },
    /// A base of NocoDB.
    Nocodb(Box<NocodbSource>),
}

/// A base of NocoDB, and how it is asked.
#[derive(Clone, Debug)]
pub struct NocodbSource {
    /// Address of the server.
    pub url: Secret,
    /// A token of its API.
    pub token: Secret,
    /// The base, by title or id.
    pub base: String,
    /// How often is asked what was created or updated.
    pub every: Duration,
    /// How often each table is read whole.
    pub sweep: Duration,
    /// Requests that are sent in a second at the most.
    pub requests_per_second: u32,
    /// What an address of ours has to end with, so that NocoDB may call it when something changes.
    pub webhook: Option<Secret>,
    /// Columns, with their tables, that are read although the server computes them.
    pub include: Vec<(String, String)>,
}

/// The database that rows go to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Connection string.
    pub uri: Secret,
    /// Schema of tables that are named without one.
    pub schema: String,
    /// The place of the connection string.
    pub place: Place,
    /// It has mistakes, and cannot be reached.
    pub unread: bool,
}

/// What lies between capture and apply.
#[derive(Clone, Debug)]
pub enum Log {
    /// Nothing: both are one process.
    Direct,
    /// Topics of Kafka, each a process of its own.
    Kafka(Box<KafkaLog>),
}

/// Kafka as the log.
#[derive(Clone, Debug)]
pub struct KafkaLog {
    /// `host:port`, with commas between.
    pub brokers: String,
    /// How events are written.
    pub values: Values,
    /// What topics' names begin with, where it is not `slackwater.` and the migration's name.
    pub prefix: Option<String>,
    /// Partitions of each topic, where it is not the catalogue's number.
    pub partitions: Option<u32>,
    /// Copies of each partition, where it is not the catalogue's number.
    pub replication: Option<u16>,
    /// How long records are kept, where it is not the catalogue's time; -1 is for ever.
    pub retention_ms: Option<i64>,
    /// Whether only the last record of each key is kept for long.
    pub compact: bool,
    /// More settings of the topics, by Kafka's names.
    pub config: Vec<(String, String)>,
    /// The consumer group.
    pub group: String,
    /// Transactions side by side in one applier.
    pub writers: usize,
    /// Settings of all clients, by librdkafka's names.
    pub options: Vec<(At<String>, Secret)>,
    /// Settings of producers.
    pub producer: Vec<(At<String>, Secret)>,
    /// Settings of consumers.
    pub consumer: Vec<(At<String>, Secret)>,
    /// The place of the brokers.
    pub place: Place,
}

/// How events are written to topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// The envelope as BSON: nothing is lost, nothing is converted.
    Bson,
    /// Debezium's envelope as JSON, for other readers.
    Debezium {
        /// With the schema in every record.
        schemas: bool,
    },
}

/// How the copy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Chunks read side by side.
    pub workers: usize,
    /// A chunk ends at about this size …
    pub chunk_bytes: u64,
    /// … or after so many documents.
    pub chunk_documents: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { workers: 4, chunk_bytes: 6 << 20, chunk_documents: 12_000 }
    }
}

/// What becomes of one collection.
#[derive(Clone, Debug)]
pub struct Collection {
    /// As in the file: `source.collection`.
    pub name: At<String>,
    /// Name of the source.
    pub source: String,
    /// Name in the source; it may hold dots.
    pub collection: String,
    /// The tables that its documents become rows of.
    pub tables: Vec<Table>,
    /// A document that fits none of the tables is refused.
    pub reject_others: Option<Place>,
    /// The first version of a document stands: what becomes of it afterwards is reported, and not applied.
    pub append_only: Option<Place>,
    /// What its rows are made by.
    pub form: Form,
    /// Some table has mistakes, and is left out above.
    pub incomplete: bool,
}

impl Collection {
    /// Every version of some table of it is a row.
    pub(crate) fn history(&self) -> Option<Place> {
        self.tables.iter().find_map(|table| table.history)
    }
}

/// One table that documents, or elements of an array in them, become rows of.
#[derive(Clone, Debug)]
pub struct Table {
    /// The schema, where it is named.
    pub schema: Option<String>,
    /// The table.
    pub into: At<String>,
    /// The arrays whose elements become rows; none for a row a document.
    pub each: Option<At<Levels>>,
    /// Only documents, or elements, of which this holds.
    pub when: Option<At<Predicate>>,
    /// The columns that identify a row, where it is not the primary key.
    pub key: Vec<At<String>>,
    /// Documents that give the same key make one row.
    pub merge: Option<At<Merge>>,
    /// Which of them is first, and which is last.
    pub order: Option<Box<Column>>,
    /// The rows of a document stay as they are first written.
    pub append_only: Option<Place>,
    /// Every version of a document is a row.
    pub history: Option<Place>,
    /// Which of its rows may mean the same.
    pub candidates: Option<Candidates>,
    /// What fills the columns.
    pub columns: Vec<Column>,
    /// Columns whose rules have mistakes, and are left out above.
    pub unread: Vec<String>,
}

impl Table {
    /// Some rule is for this column, if only a wrong one.
    pub(crate) fn names(&self, column: &str) -> bool {
        self.columns.iter().any(|rule| rule.name.value == column)
            || self.unread.iter().any(|name| name == column)
    }
}

/// Which rows of a table are listed for a person, who judges whether they mean the same.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// The column with their names.
    pub near: At<String>,
    /// So many edits apart at the most: 1 or 2.
    pub within: usize,
    /// Columns whose values are the same.
    pub same: Vec<At<String>>,
}

/// When a row stands that several rules of the file have a part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// As long as one has.
    Any,
    /// As long as all have.
    All,
}

/// What fills one column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name in the table.
    pub name: At<String>,
    /// Where the value comes from.
    pub rule: At<Rule>,
    /// What happens where there is none, or none that fits.
    pub policies: Policies,
    /// The value is shown to nobody, and kept nowhere but in the table and the topic.
    pub sensitive: bool,
    /// How the values of several documents become one.
    pub merge: Option<At<How>>,
    /// With what the field is encrypted while it is in a topic.
    pub travels: Option<At<String>>,
}

impl Column {
    /// Itself, and what it is computed from.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Self> {
        let inputs = match &self.rule.value {
            Rule::Sql(sql) => &sql.with[..],
            _ => &[],
        };
        std::iter::once(self).chain(inputs)
    }
}

/// Where a column's value comes from.
#[derive(Clone, Debug)]
pub enum Rule {
    /// A value of the document, converted.
    Value(Value),
    /// This document's own id.
    Own {
        /// The number that the column's sequence gives to it.
        serial: bool,
    },
    /// This element's id.
    Element {
        /// As above.
        serial: bool,
        /// What tells elements apart: of the innermost array, or of each level, the outermost first.
        by: Vec<By>,
    },
    /// The value of a column of a row that the element belongs to.
    Parent(At<String>),
    /// Top-level fields that no other rule of the collection uses.
    Rest,
    /// Always the same.
    Const(At<Scalar>),
    /// The element's place in its array.
    Index {
        /// 0 or 1.
        from: i64,
    },
    /// The name under which an element stands in its object.
    Key {
        /// How many levels further out that element is.
        up: usize,
    },
    /// An expression that the target computes.
    Sql(Box<Sql>),
    /// Something of the change that made this version of the document.
    Change(ChangeOf),
}

/// What of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOf {
    /// An id of this version.
    Id,
    /// When it happened at the source.
    Time,
    /// What happened, as a word.
    Kind,
    /// Which version of the document it made: 1, 2, 3 …
    Number,
}

/// An expression of SQL over values of the document.
#[derive(Clone, Debug)]
pub struct Sql {
    /// The expression.
    pub text: At<String>,
    /// What its names stand for, as if each were a column.
    pub with: Vec<Column>,
}

/// What tells the elements of an array apart.
#[derive(Clone, Debug)]
pub enum By {
    /// Their place in the array.
    Index,
    /// A value in the element, or the element itself.
    Path(At<Path>),
}

/// A value of the document and how it is converted.
#[derive(Clone, Debug)]
pub struct Value {
    /// Its place.
    pub path: At<Path>,
    /// Into what.
    pub convert: Convert,
    /// Cut white space at both ends of text.
    pub trim: bool,
    /// Text in lower case.
    pub lower: bool,
    /// Empty text counts as no value.
    pub empty_is_null: bool,
    /// What a number is when a time is wanted.
    pub unit: Option<Unit>,
}

/// Into what a value is converted.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Convert {
    /// Whatever the column's type asks for.
    Auto,
    Text,
    Integer,
    Numeric,
    Float,
    Boolean,
    Timestamp,
    Date,
    Time,
    Bytea,
    Jsonb,
    Array,
    /// A label of an enum.
    Enum {
        /// From what is written in the document to labels; none where they are the same.
        map: Option<Vec<(At<String>, At<String>)>>,
        unknown: Unknown,
    },
    /// The id of another document.
    Ref {
        /// Its collection, `source.collection`.
        to: At<String>,
        /// Text of 24 hexadecimal digits is an ObjectId.
        hex: bool,
        /// The document is found by this field, and not by its `_id`.
        by: Option<Box<At<Path>>>,
    },
    /// A value of another document.
    Lookup {
        /// Its collection, `source.collection`.
        of: At<String>,
        /// Text of 24 hexadecimal digits is an ObjectId.
        hex: bool,
        /// The field by which it is found, where it is not the `_id`.
        by: Option<Box<At<Path>>>,
        /// The field with the value.
        take: Box<At<Path>>,
    },
    /// The id of the row that all documents with this text make together.
    Identity {
        /// Its table, where it is not the one that the column is in.
        of: Option<At<String>>,
    },
    /// Decrypted, encrypted, or the one and then the other.
    Cipher {
        /// With what it was encrypted; none for plain text.
        from: Option<At<String>>,
        /// With what it is encrypted; none for plain text.
        to: Option<At<String>>,
    },
}

impl Convert {
    /// As it is written in the file.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Auto => "from",
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Numeric => "numeric",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Time => "time",
            Self::Bytea => "bytea",
            Self::Jsonb => "jsonb",
            Self::Array => "array",
            Self::Enum { .. } => "enum",
            Self::Ref { .. } => "ref",
            Self::Identity { .. } => "identity",
            Self::Lookup { .. } => "lookup",
            Self::Cipher { to: None, .. } => "decrypt",
            Self::Cipher { from: None, .. } => "encrypt",
            Self::Cipher { .. } => "reencrypt",
        }
    }
}

/// What happens to a value that no label is known for.
#[derive(Clone, Debug)]
pub enum Unknown {
    /// The document is refused.
    Reject,
    /// NULL.
    Null,
    /// This label.
    Default(At<String>),
}

/// What a number is when a time is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
}

/// What happens where there is no value, or none that fits.
#[derive(Clone, Debug)]
pub struct Policies {
    /// Missing, null or undefined.
    pub null: NullPolicy,
    /// The column's own words, where it has them, not the file's defaults.
    pub null_at: Option<Place>,
    /// Cannot be converted.
    pub invalid: InvalidPolicy,
    /// Likewise.
    pub invalid_at: Option<Place>,
    /// The value that `default` puts in.
    pub default: Option<At<Scalar>>,
    /// The column refers to a row that is not there.
    pub missing: Missing,
    /// The column's own word for it.
    pub missing_at: Option<Place>,
}

impl Policies {
    /// For a rule that needs none.
    pub(crate) const NONE: Self = Self {
        null: NullPolicy::Keep,
        null_at: None,
        invalid: InvalidPolicy::Reject,
        invalid_at: None,
        default: None,
        missing: Missing::Wait,
        missing_at: None,
    };
}

/// Missing, null or undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NullPolicy {
    /// The document is refused.
    Reject,
    /// NULL.
    Keep,
    /// The default given beside it.
    Default,
}

/// A value that cannot be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidPolicy {
    /// The document is refused.
    Reject,
    /// NULL.
    Null,
    /// The nearest value that fits.
    Clamp,
    /// What does not fit is taken out.
    Strip,
    /// The default given beside it.
    Default,
}

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reject => "reject",
            Self::Null => "null",
            Self::Clamp => "clamp",
            Self::Strip => "strip",
            Self::Default => "default",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_any_letters() {
        for (name, pattern, expected) in [
            ("legacy.logs", "legacy.logs", true),
            ("legacy.logs", "legacy.log", false),
            ("legacy.logs", "legacy.*", true),
            ("other.logs", "legacy.*", false),
            ("legacy.tmp_1_old", "legacy.tmp_*_old", true),
            ("legacy.tmp_old", "legacy.tmp_*_old", false),
            ("legacy.a_b_c", "legacy.*_*_*", true),
            ("legacy.a_b", "legacy.*_*_*", false),
        ] {
            assert_eq!(fits(name, pattern), expected, "{name} {pattern}");
        }
    }
}
