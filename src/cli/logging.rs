//! Log lines on stderr, as text or JSON.

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

/// Below a warning these crates log the values of statements and commands, addresses with what is in them, or requests with their
/// headers. Those lines are never shown, whatever RUST_LOG asks for.
const NEVER_FINER: [&str; 7] =
    ["mongodb", "tokio_postgres", "postgres_types", "hickory_", "hyper", "reqwest", "h2"];

/// Starts logging. Log lines contain counts, names and ids, never values of records. `brief`: the command ends with an answer, and says
/// in it what librdkafka would say meanwhile.
pub(super) fn start(json: bool, brief: bool) {
    let usual = if brief { "info,kafka=error" } else { "info" };
    let asked = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    // Without the hint, lines that nobody asked for would be made and then dropped.
    let never = filter_fn(may_be_shown).with_max_level_hint(LevelFilter::TRACE);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let lines = if json { lines.json().flatten_event(true).boxed() } else { lines.boxed() };
    let lines: Box<dyn tracing_subscriber::Layer<Registry> + Send + Sync> =
        lines.with_filter(asked.and(never)).boxed();
    tracing_subscriber::registry().with(lines).init();
}

/// A directive of RUST_LOG that is more exact than ours would have the last word in its filter, so this is one of its own.
fn may_be_shown(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::WARN || !NEVER_FINER.iter().any(|name| metadata.target().starts_with(name))
}
