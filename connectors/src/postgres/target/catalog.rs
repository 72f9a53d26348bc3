//! What the target looks like: tables, columns, types, keys, references.
//!
//! Plain data, so that a migration is compiled and tested without a server.

use std::collections::BTreeMap;

/// The tables that were looked at, by `schema.name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Tables by schema and name.
    pub tables: BTreeMap<(String, String), Table>,
    /// What is wrong with expressions of the file, by schema, table, column and expression.
    pub complaints: BTreeMap<[String; 4], Complaint>,
}

/// Something that the server has against an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its OID: a table that was made again has another.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Live columns (dropped ones left out), in the order of the table.
    pub columns: Vec<Column>,
    /// Columns of the primary key, as indices into `columns`, in the key's order; empty where there is none.
    pub primary_key: Vec<usize>,
    /// The primary key is DEFERRABLE: rows that are there already are not found by it.
    pub deferrable_key: bool,
    /// Columns of each unique constraint or full unique index (no predicate, no expression, primary key not repeated).
    pub uniques: Vec<Vec<usize>>,
    /// Everything that lets only one of two rows be there, the primary key included.
    pub rivals: Vec<Rival>,
    /// Leading columns of every usable index, primary key included: tells whether a look-up by a column is cheap.
    pub indexes: Vec<Vec<usize>>,
    /// References to other tables.
    pub foreign_keys: Vec<ForeignKey>,
    /// Triggers that run for rows that are written, by name.
    pub triggers: Vec<String>,
    /// It may refuse a row for what it is, whatever the row refers to: by a check, a trigger, or because no partition takes it.
    pub judges: bool,
    /// Rules that rewrite what is written to it, by name.
    pub rules: Vec<String>,
    /// True for an ordinary or partitioned table; views and foreign tables are refused.
    pub is_table: bool,
    /// Which of the rights that writing its rows needs the connected role has not: `INSERT`, `USAGE` of its schema, or `BYPASSRLS` where
    /// policies hide rows from it.
    pub lacks: Vec<String>,
    /// Rows known to the planner's statistics; -1 where never analysed.
    pub estimated_rows: i64,
}

/// A column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Type,
    /// NOT NULL.
    pub not_null: bool,
    /// Has a default (or is an identity): may be left out of an insert.
    pub has_default: bool,
    /// The default as SQL, of a domain or an identity as well.
    pub default: Option<String>,
    /// The sequence of the default begins again when it has no number left.
    pub cycles: bool,
    /// GENERATED ALWAYS AS (…) STORED: may not be written.
    pub generated: bool,
    /// A check constraint asks whether it is null.
    pub null_checked: bool,
    /// GENERATED ALWAYS AS IDENTITY: written only with OVERRIDING SYSTEM VALUE.
    pub identity_always: bool,
}

/// A type of a column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Type {
    /// OID as it has to be named on the wire: a domain's own.
    pub oid: u32,
    /// As a person writes it, with modifiers: `numeric(20,2)`, `text[]`, `public.mood`.
    pub name: String,
    /// OID of what is under it, domains resolved (the same as `oid` for a plain type).
    pub base_oid: u32,
    /// Name of what is under it, without a domain's own: the OID of an extension's type is another in every database.
    pub base_name: String,
    /// Modifier as Postgres keeps it, -1 for none; domains resolved.
    pub modifier: i32,
    /// Labels where it is an enum.
    pub enum_labels: Option<Vec<String>>,
    /// The element's type where it is an array.
    pub element: Option<Box<Type>>,
    /// True where the type can be compared (has a default btree operator class): json, xml, point cannot.
    pub comparable: bool,
}

/// A reference to another table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// Name of the constraint.
    pub name: String,
    /// Columns here, as indices into `columns`.
    pub columns: Vec<usize>,
    /// Schema and table it points to.
    pub table: (String, String),
    /// The columns there that it names.
    pub referenced: Vec<String>,
    /// MATCH FULL: all of its columns are null, or none.
    pub full: bool,
    /// What becomes of the row here when the one there is deleted.
    pub on_delete: OnDelete,
    /// All names that errors may have for it: it has others in and for partitions.
    pub names: Vec<String>,
}

/// A unique index or an exclusion constraint, whatever it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its name, and those that it has in partitions.
    pub names: Vec<String>,
    /// What is compared: columns, quoted where they have to be, or expressions over columns.
    pub values: Vec<String>,
    /// The operators of an exclusion constraint, one for each value; empty where all are compared by `=`.
    pub operators: Vec<String>,
    /// Only rows for which this holds are compared.
    pub predicate: Option<String>,
    /// Two nulls are equal.
    pub nulls_equal: bool,
}

/// ON DELETE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelete {
    /// NO ACTION or RESTRICT: the delete fails.
    Refuse,
    /// It is deleted too.
    Cascade,
    /// The columns become null.
    SetNull,
    /// The columns get their defaults.
    SetDefault,
}

impl Type {
    /// Text that is compared without regard to case, or a domain over it.
    pub fn is_citext(&self) -> bool {
        self.base_name == "citext" || self.base_name.ends_with(".citext")
    }
}

impl Table {
    /// A right that is lacking, for a person.
    pub fn named(&self, right: &str) -> String {
        if right == "USAGE" { format!("USAGE of the schema `{}`", self.schema) } else { right.to_owned() }
    }

    /// The statements that give what is lacking.
    pub fn grant(&self) -> String {
        let (usage, rights): (Vec<&String>, Vec<&String>) =
            self.lacks.iter().partition(|right| *right == "USAGE");
        let hidden = rights.iter().any(|right| *right == "BYPASSRLS");
        let rights: Vec<&str> =
            rights.into_iter().map(String::as_str).filter(|right| *right != "BYPASSRLS").collect();
        let mut grants = Vec::new();
        if !usage.is_empty() {
            grants.push(format!("GRANT USAGE ON SCHEMA {} TO the role in `target`", self.schema));
        }
        if hidden {
            grants.push("ALTER ROLE the role in `target` BYPASSRLS, or let it own the table: policies (row level security) hide rows from it".to_owned());
        }
        if !rights.is_empty() {
            let rights = rights.join(", ");
            grants.push(format!("GRANT {rights} ON {}.{} TO the role in `target`", self.schema, self.name));
        }
        grants.join("; ")
    }

    /// Index of the column of this name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}
