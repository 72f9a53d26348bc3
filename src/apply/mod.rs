//! From the log into the target: reduce, map, write.

pub(crate) mod chunks;
pub(crate) mod desk;
mod drift;
pub(crate) mod intake;
pub(crate) mod lane;
mod parked;
pub(crate) mod reader;
pub(crate) mod schema_watch;
pub(crate) mod stream;
pub(crate) mod sweeper;
mod transaction;
mod versions;
