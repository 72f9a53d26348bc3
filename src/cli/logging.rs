//! Log lines, to stderr, as text or JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// The drivers write the values of statements and commands into their finer lines; those are never shown, whatever
/// RUST_LOG says.
const NEVER_FINER: [&str; 4] =
    ["mongodb=warn", "tokio_postgres=warn", "postgres_types=warn", "hickory_net=warn"];

/// Starts logging. Lines hold counts, names and ids, never values of records.
pub(super) fn start(json: bool) {
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    for directive in NEVER_FINER.iter().filter_map(|directive| directive.parse().ok()) {
        filter = filter.add_directive(directive);
    }
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if json {
        lines.json().flatten_event(true).init();
    } else {
        lines.init();
    }
}
