//! Drivers: one folder for each system. The only crate that knows them.

pub mod error;
pub mod kafka;
pub mod mongodb;
pub mod nocodb;
mod pem;
pub mod postgres;
pub mod retry;
pub mod secret;
pub mod source;
