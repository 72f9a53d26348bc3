//! What processes may say in their logs. A warning or an error that is not listed here fails the test that brought it about: either
//! something went wrong unseen, or an operator would be alarmed for nothing.

use std::path::Path;

/// Parts of lines that are expected, and what brings them about.
const EXPECTED: &[(&str, &str)] = &[
    // Of a calm migration.
    ("the oplog reaches back", "the MongoDB of a test is young"),
    ("the oplog's window is unknown", "a user of the least rights"),
    ("` leaves `", "the CRM's file takes single fields out of objects"),
    ("that have the same key become one row", "a file in which they are meant to"),
    ("and tells rows apart, but", "keys that are text in the source already, and other values of ids"),
    ("does not exist (yet)", "a collection that a test makes later"),
    ("enable.gapless.guarantee is experimental", "librdkafka says so of a setting that exactness needs"),
    ("the migration file has changed since the last run", "a test that mends its file"),
    // History that a test takes away.
    ("history was lost; copying again", "a drop, a rename, an oplog or a topic that was cut"),
    ("the log lost what was not applied yet", "a topic that was cut"),
    ("partitions were added to this topic", "a test adds some"),
    ("this partition was added later", "a test adds some"),
    (", described are ", "a test adds partitions or changes settings"),
    ("it is gone at the source; its rows stay", "a collection that was dropped"),
    ("the target has lost what it had confirmed", "a standby that was behind"),
    // Several sources.
    ("it is away; the others begin", "a source is stopped"),
    ("nothing tells their rows apart", "a table that two sources fill, without a constant"),
    ("beginning anew; nothing is lost", "a password that changes"),
    ("put it back, or change the migration file", "columns of NocoDB that a test deletes"),
    (" was deleted table=", "a table of NocoDB that a test deletes"),
    ("NocoDB does not answer", "the way to it is shut"),
    ("the connection broke", "the way to it is shut"),
    ("NocoDB's own database has failed", "its database is busy: it is asked again"),
    // Documents that do not fit.
    ("documents went to the dead letters", "a test writes such documents, or parents that come late"),
    ("a change is larger than a reply may be", "a document of 16 MB"),
    ("has no post-images, so", "a test of versions without them"),
    (
        "changes were not applied: the collection is append only",
        "a test changes documents of such a collection",
    ),
    ("a row is not what its document makes", "a target that does not do what it is told"),
    ("changes cannot be verified now", "a table that has changed"),
    ("verified: not everything is as its documents make it", "a target that does not do what it is told"),
    // Tables that a test changes.
    ("its documents wait, the others go on", "a table that cannot be written"),
    ("waiting, trying again until it is free", "a table that somebody has locked"),
    ("; to undo it: ", "a table that has changed"),
    ("has a new constraint", "a table that has changed"),
    ("has lost its constraint", "a table that has changed"),
    ("; `slackwater checks` shows both sides", "a check that a test lets fail"),
    // Servers and processes that a test stops.
    ("waiting for", "a server is stopped, or refuses us"),
    ("the change stream broke", "connections to MongoDB are cut"),
    ("some tasks did not stop in time", "a stop while a server is away"),
    ("the consumer group has removed this member", "an applier that slept"),
    (
        "has given these partitions to nobody",
        "an applier that keeps its name is killed while it lets partitions go",
    ),
    ("Failed to close consumer queue on drop", "librdkafka of a member whose name another process took"),
    ("[thrd:", "librdkafka tells of brokers that are stopped"),
    ("the report of this run cannot be written", "a folder that is a file"),
    // Cutovers that a test hinders.
    ("resuming a cutover", "the leader was killed"),
    ("the cutover cannot be reverted yet", "a session was ended"),
    ("reverting the cutover", "the deadline passed"),
    ("the cutover is reverted", "the deadline passed"),
    ("the source is unfrozen", "the deadline passed"),
    ("the source is frozen and cannot be unfrozen", "MongoDB was stopped while it was frozen"),
    ("the source was unfrozen from outside", "a test does so"),
];

/// Fails where a log in the folder has a warning or an error that is not expected, or a panic.
pub(crate) fn check(folder: &Path) {
    let mut unexpected = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the test's folder").flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let text = String::from_utf8_lossy(&std::fs::read(&path).expect("a log")).into_owned();
        unexpected
            .extend(text.lines().filter(|line| is_unexpected(line)).map(|line| format!("{name}: {line}")));
    }
    assert!(
        unexpected.is_empty(),
        "lines that no test expects (tests/it/stage/logs.rs):\n{}",
        unexpected.join("\n")
    );
}

/// A line begins with its time and its level.
fn is_unexpected(line: &str) -> bool {
    let level = line.split_whitespace().nth(1);
    let loud = matches!(level, Some("WARN" | "ERROR")) || line.contains("panicked at");
    loud && !EXPECTED.iter().any(|(part, _)| line.contains(part))
}

#[test]
fn only_unlisted_warnings_and_errors_are_found() {
    assert!(!is_unexpected("2026-11-26T22:18:16Z  INFO copied"));
    assert!(is_unexpected("2026-11-26T22:18:16Z  WARN something new"));
    assert!(is_unexpected("2026-11-26T22:18:16Z ERROR something new"));
    assert!(is_unexpected("thread 'main' (7) panicked at src/lib.rs:1:1:"));
    assert!(!is_unexpected("  help: a WARN in the middle"));
    for (part, why) in EXPECTED {
        assert!(!part.is_empty() && !why.is_empty());
        assert!(!is_unexpected(&format!("2026-11-26T22:18:16Z  WARN {part}")));
    }
}
