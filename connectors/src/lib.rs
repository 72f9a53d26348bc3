//! Between whom: the only crate that knows drivers. One folder a system, the same set of files in each.

pub mod error;
pub mod kafka;
pub mod mongodb;
pub mod postgres;
pub mod retry;
pub mod secret;
pub mod source;
