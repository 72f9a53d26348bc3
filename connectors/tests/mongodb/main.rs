//! MongoDB as a source, against real servers.

mod access;
mod lookup;
#[path = "../stage/ports.rs"]
mod ports;
mod server;
mod snapshot;
mod stream;
mod trouble;
