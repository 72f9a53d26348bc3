//! Postgres in two roles: the target that rows go to, and the store of our own state beside them.

pub mod client;
pub mod control;
mod error;
pub mod progress;
pub mod target;

pub use error::{lost, wants_no_transaction, was_cut, was_lost};
