//! MongoDB as a source, against real servers.

mod access;
mod lookup;
mod server;
mod snapshot;
mod speed;
mod stream;
mod trouble;
