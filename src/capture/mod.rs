//! From one source into the log: the copy beside the stream, in one order.

mod clock;
pub(crate) mod copier;
mod horizons;
mod merge;
pub(crate) mod pulse;
pub(crate) mod router;
