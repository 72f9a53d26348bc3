//! From a source into the log: the copy beside the stream, in one order.

mod lookup;
mod merge;
