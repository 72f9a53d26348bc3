//! From a source into the log: the copy beside the stream, in one order.

mod beats;
pub(crate) mod copier;
mod lookup;
mod merge;
pub(crate) mod outgoing;
pub(crate) mod publisher;
pub(crate) mod pulse;
pub(crate) mod router;
pub(crate) mod watcher;

/// The capture's own lane, where the log is Kafka: no events come through it, but what it does to rows is guarded by it.
pub(crate) const LANE: &str = "capture";
