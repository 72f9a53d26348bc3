//! MongoDB as a source.
//!
//! Everything is read with majority from the primary, so what was read is never rolled back. Replies are kept
//! as they came off the wire: a document is a slice of the reply that brought it.

mod address;
mod aggregate;
mod change;
mod client;
mod error;
mod fetch;
mod freeze;
mod lookup;
mod preflight;
mod probe;
mod pulse;
mod reply;
mod rights;
mod selection;
mod server;
mod snapshot;
mod stream;
mod token;

pub use aggregate::{Aggregated, AsOf, PIPELINE};
pub use client::{CollectionInfo, CollectionKind, Mongo};
pub use preflight::{Preflight, Presence, WatchedCollection};
pub use rights::{Privileges, Resource};
pub use server::Server;
pub use stream::{ChangeStream, Start};
pub use token::{is_high_water_mark, resume_document, token_time};
