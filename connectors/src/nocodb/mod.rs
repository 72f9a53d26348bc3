//! NocoDB as a source: a server that only answers questions.
//!
//! It has no log of its changes. So it is asked again and again, what it answers is compared with what was handed out before
//! ([`Remembers`]), and the differences are the changes. `docs/design/nocodb.md` says why nothing is missed.

mod client;
mod clock;
mod follow;
mod http;
mod json;
mod links;
mod memory;
mod meta;
mod mirror;
mod names;
mod pace;
mod pages;
mod pass;
mod record;
mod settings;
mod shape;
mod snapshot;
mod still;
mod stream;
mod table;
mod times;

pub use client::{ColumnInfo, Noco, Preflight, TableInfo, WatchedTable};
pub use memory::{Kept, Remembers};
pub use meta::Listed;
pub use record::Hash;
pub use settings::Settings;
pub use shape::Use;
pub use still::Glance;
pub use stream::{ChangeStream, Followed, Trouble, What};
