//! Log lines on stderr, as text or JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Below this level the drivers log the values of statements and commands. Those lines are never shown, even if RUST_LOG asks
/// for them.
const NEVER_FINER: [&str; 4] =
    ["mongodb=warn", "tokio_postgres=warn", "postgres_types=warn", "hickory_net=warn"];

/// Starts logging. Log lines contain counts, names and ids, never values of records. `brief`: the command ends with an answer, and says
/// in it what librdkafka would say meanwhile.
pub(super) fn start(json: bool, brief: bool) {
    let usual = if brief { "info,kafka=error" } else { "info" };
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
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
