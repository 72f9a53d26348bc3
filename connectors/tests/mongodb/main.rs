//! MongoDB as a source, against real servers.

mod access;
#[path = "../stage/authority.rs"]
mod authority;
mod large;
mod lookup;
#[path = "../stage/ports.rs"]
mod ports;
mod secondaries;
mod server;
mod snapshot;
mod stream;
mod tls;
mod trouble;
