//! A coworking application of ten years: 88 collections into 53 tables. Several collections share a table, types become labels, PINs and
//! tokens are encrypted anew, the ledger is append only, and a cached balance is not believed.

mod ciphers;
mod documents;
mod editor;
mod expected;
mod labels;
mod load;
mod model;
mod specs;

pub use ciphers::variables;
pub use documents::World;
pub use editor::Editor;
pub use expected::{Verdict, Waiting, Want, compare};
pub use load::{collections, load};

/// The name of the migration, which its identifiers are made of.
pub const MIGRATION: &str = "coworking";
/// The tables.
pub const SCHEMA: &str = include_str!("target.sql");
/// The migration file.
pub const MIGRATION_FILE: &str = include_str!("slackwater.yaml");
/// The files that it includes, by name.
pub const INCLUDED: [(&str, &str); 5] = [
    ("people.yaml", include_str!("people.yaml")),
    ("places.yaml", include_str!("places.yaml")),
    ("money.yaml", include_str!("money.yaml")),
    ("sales.yaml", include_str!("sales.yaml")),
    ("house.yaml", include_str!("house.yaml")),
];
