//! Postgres as the target, and as the store of our own state.

pub mod catalog;
pub mod client;
mod error;
pub mod introspect;
pub mod rows;
pub mod statements;
