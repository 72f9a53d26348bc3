//! MongoDB as a source, against real servers.

mod access;
mod lookup;
mod server;
mod snapshot;
mod stream;
mod trouble;
