//! The names of lanes. The name of a capture's lane contains its source, the name of an applier's lane the applier.

/// The lane of a source's stream, in a direct log.
pub fn stream(source: &str) -> String {
    format!("capture/{source}/stream")
}

/// The lane of one worker of the copy, in a direct log.
pub fn copy(source: &str, worker: usize) -> String {
    format!("capture/{source}/copy/{worker}")
}

/// The capture's own lane, if the log is Kafka. No event comes through it; it guards the sweep of the target.
pub fn own(source: &str) -> String {
    format!("capture/{source}")
}

/// The lane of one writer of an applier.
pub fn apply(member: &str, writer: usize) -> String {
    format!("apply/{member}/{writer}")
}
