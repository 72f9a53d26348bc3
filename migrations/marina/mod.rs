//! A marina: a base of four tables in NocoDB, a collection in MongoDB beside it, and eighteen tables to bring them into.

mod base;
mod door;
mod expected;
mod fields;
mod load;
mod office;
mod payments;
mod records;
mod shapes;
mod tables;
mod till;

pub use base::{Base, Server};
pub use door::Door;
pub use expected::compare;
pub use load::{Size, build, drop_base};
pub use office::Office;
pub use payments::load as load_payments;
pub use shapes::SHAPES;
pub use till::{Known, Till};

/// The name of the migration, which its identifiers are made of.
pub const MIGRATION: &str = "marina";
/// The tables.
pub const SCHEMA: &str = include_str!("schema.sql");

/// A table of the base, by its title.
const INTERESTS: &str = "Interests";
const BERTHS: &str = "Berths";
const EXPENSES: &str = "Expenses";
const INVOICES: &str = "Invoices";

/// A link, by its title. The other side of one is called as its table is.
const BERTH: &str = "Berth";
const BERTHS_OF_INTEREST: &str = "Berths of Interest";
const INTEREST: &str = "Interest";
const INTERESTS_OF_BERTH: &str = "Interests";
const INVOICES_OF_INTEREST: &str = "Invoices";
const EXPENSES_OF_INVOICE: &str = "Expenses";

/// The collection of MongoDB.
const PAYMENTS: &str = "payments";
