//! How it travels: capture, mapping, apply, and the commands around them.

mod apply;
mod capture;
mod cli;
pub mod config;
mod cutover;
pub mod mapping;
mod ops;

pub use cli::main;
