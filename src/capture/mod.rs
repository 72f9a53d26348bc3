//! From one source into the log: the copy beside the stream, in one order.

mod beats;
pub(crate) mod copier;
mod lookup;
mod merge;
pub(crate) mod pulse;
pub(crate) mod router;
