//! This process: its name, its clock, and bytes that nobody else has.

use std::hash::{BuildHasher as _, RandomState};

use uuid::Uuid;

/// The host that it runs on, as far as the environment says.
pub(crate) fn host() -> String {
    std::env::var("HOSTNAME").ok().filter(|host| !host.is_empty()).unwrap_or_else(|| "host".to_owned())
}

/// Its name, which no other process has at the same time.
pub(crate) fn name() -> String {
    format!("{}-{}", host(), std::process::id())
}

/// Milliseconds since 1970.
pub(crate) fn now_millis() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Random bytes, to tell things apart: the trace of a batch, a fence.
pub(crate) fn unique() -> [u8; 16] {
    let half = || u128::from(RandomState::new().hash_one(now_millis()));
    (half() << 64 | half()).to_ne_bytes()
}

/// The same as an id.
pub(crate) fn unique_id() -> Uuid {
    Uuid::from_bytes(unique())
}
