//! Postgres as the target, and as the store of our own state.

pub mod catalog;
pub mod client;
pub mod control;
pub mod cutover;
mod error;
pub mod finish;
pub mod introspect;
pub mod ledger;
pub mod log;
mod notes;
mod parameter;
mod pipeline;
pub mod progress;
pub mod pulse;
pub mod rows;
mod schema;
pub mod sink;
pub mod statements;
