//! From the log into the target: reduce, map, write.

pub(crate) mod batch;
pub(crate) mod desk;
pub(crate) mod intake;
pub(crate) mod lane;
pub(crate) mod letters;
pub(crate) mod parked;
pub(crate) mod reader;
pub(crate) mod stream;
