//! The names of lanes. A lane of a capture bears its source's name; an applier's lane bears the applier's.

/// The lane of the stream, where the log is direct.
pub fn stream(source: &str) -> String {
    format!("capture/{source}/stream")
}

/// A lane of the copy, where the log is direct.
pub fn copy(source: &str, worker: usize) -> String {
    format!("capture/{source}/copy/{worker}")
}

/// The capture's own lane, where the log is Kafka: no event comes through it, but a sweep of the target is guarded by it.
pub fn own(source: &str) -> String {
    format!("capture/{source}")
}

/// A lane of an applier.
pub fn apply(member: &str, writer: usize) -> String {
    format!("apply/{member}/{writer}")
}
