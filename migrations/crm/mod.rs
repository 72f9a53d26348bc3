//! A CRM that grew: 30 collections into 40 tables, ten of them out of arrays of ids. Most rows refer to others, some cannot be without
//! them, users and organisations cannot be without each other, and the source checks none of it.

mod documents;
mod editor;
mod expected;
mod load;
mod model;
mod specs;

pub use documents::World;
pub use editor::Editor;
pub use expected::{Verdict, Waiting, Want, compare};
pub use load::load;
pub use model::Model;

/// The name of the migration, which its identifiers are made of.
pub const MIGRATION: &str = "crm";
/// The tables.
pub const SCHEMA: &str = include_str!("target.sql");
/// The migration file.
pub const MIGRATION_FILE: &str = include_str!("slackwater.yaml");
