//! What operators see and decide by.

pub(crate) mod gauges;
pub(crate) mod policy;
pub(crate) mod stop;
