//! How long to wait before trying again.
//!
//! `backoff` is used for the policy alone (its futures and `instant` are not): growing pauses with jitter, and no end,
//! because a pipeline that gives up at night has lost somebody's data by the morning.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// Growing pauses between tries.
#[derive(Debug)]
pub struct Pauses(ExponentialBackoff);

impl Pauses {
    /// From `first`, growing by half with jitter, never longer than `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self(ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            max_interval: longest,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// For a server that is away.
    pub fn for_server() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(10))
    }

    /// How long to wait now.
    pub fn next_pause(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// It worked: start again with short ones.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}
