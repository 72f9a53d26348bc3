//! Whole migrations to try slackwater on, and what is needed to judge it.
//!
//! Nothing here knows slackwater: identifiers, numbers, dates and JSON are made a second time, from the
//! description of the migration file alone, so that a mistake in the mapping cannot hide in a shared function.

#![warn(missing_docs)]

mod chance;
pub mod collection;
pub mod command;
pub mod coworking;
pub mod crm;
pub mod crm_demo;
mod error;
mod identity;
mod json;
pub mod marina;
mod oracle;
mod rendering;
pub mod tangle;
mod watcher;

pub use chance::Chance;
pub use error::{Error, Result};
pub use identity::Ids;
pub use oracle::{Expected, Finding, Report, Shape, TableReport};
pub use watcher::{Backwards, Watched, Watcher};
