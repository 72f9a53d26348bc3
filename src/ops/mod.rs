//! What operators see and decide by.

pub(crate) mod gauges;
pub(crate) mod policy;
pub(crate) mod preflight;
pub(crate) mod status;
pub(crate) mod stop;
