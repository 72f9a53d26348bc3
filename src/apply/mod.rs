//! From the log into the target: reduce, map, write.

pub(crate) mod batch;
