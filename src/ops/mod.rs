//! What operators see and decide by.

pub(crate) mod gauges;
pub(crate) mod json;
pub(crate) mod look;
pub(crate) mod policy;
pub(crate) mod preflight;
pub(crate) mod stop;
pub(crate) mod text;
