//! The replicator. From above to below: the command line, the topology that it starts, capture, cutover, apply, the log between
//! them, sources, dead letters, what a changed file means, the mapping, and what everything uses.

mod apply;
mod candidates;
mod capture;
mod changes;
mod check;
mod checks;
mod cli;
pub mod config;
mod cutover;
mod decimal;
mod failure;
mod grants;
mod judging;
mod letters;
mod log;
pub mod mapping;
mod ops;
mod report;
mod source;
mod topology;
mod verify;

pub use cli::main;
