//! From a source into the log: the copy beside the stream, in one order.

pub(crate) mod copier;
mod lookup;
mod merge;
pub(crate) mod router;
