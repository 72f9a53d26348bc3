//! What operators see and decide by.

pub(crate) mod policy;
