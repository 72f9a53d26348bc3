//! This process: its name, its clock, and unique ids.

use std::hash::{BuildHasher as _, RandomState};

use uuid::Uuid;

/// The host that the process runs on, if the environment names it.
pub(crate) fn host() -> String {
    std::env::var("HOSTNAME").ok().filter(|host| !host.is_empty()).unwrap_or_else(|| "host".to_owned())
}

/// The name of the process; no other process has it at the same time.
pub(crate) fn name() -> String {
    format!("{}-{}", host(), std::process::id())
}

/// The time, milliseconds since 1970.
pub(crate) fn now_millis() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Random bytes for ids: the trace of a batch, a fence.
pub(crate) fn unique() -> [u8; 16] {
    let half = || u128::from(RandomState::new().hash_one(now_millis()));
    (half() << 64 | half()).to_ne_bytes()
}

/// A random id.
pub(crate) fn unique_id() -> Uuid {
    Uuid::from_bytes(unique())
}
