//! From the log into the target: reduce, map, write.

pub(crate) mod chunks;
pub(crate) mod desk;
pub(crate) mod intake;
pub(crate) mod lane;
mod parked;
pub(crate) mod reader;
pub(crate) mod stream;
pub(crate) mod sweeper;
mod transaction;
