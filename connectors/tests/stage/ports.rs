//! Ports for servers of a test's own.

use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;

/// Ports that nobody listens on, below those that the system gives to clients: one of these may take the port before the
/// server does, or while it is away.
pub(crate) fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let mut kept = Vec::new();
    while kept.len() < COUNT {
        let port = 12_000 + (RandomState::new().hash_one(COUNT) % 8_000) as u16;
        kept.extend(TcpListener::bind(("127.0.0.1", port)).map(|listener| (port, listener)));
    }
    std::array::from_fn(|place| kept[place].0)
}
