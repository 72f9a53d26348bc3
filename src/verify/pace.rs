//! How fast a verification goes that nobody waits for. What changes comes first: where the target is behind, there is no time to spare.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A target that takes longer to show the present is behind, or longer than the switch allows, if that is more.
pub(super) const LATE: Duration = Duration::from_secs(2);
/// Meanwhile one part in so many of the time goes to the verification of changes …
const PARTS: u32 = 30;
/// … with rests that are no longer than this, so that it is soon back once there is time again, …
const LONGEST_REST: Duration = Duration::from_secs(30);
/// … and a verification of everything goes so many times slower.
const SLOWER: u64 = 5;

/// What the verifications of a process know of each other.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicUsize);

impl Pace {
    /// Documents a second, where so many are allowed.
    pub(super) fn throttled(&self, most: u64) -> u64 {
        let behind = self.0.load(Ordering::Relaxed) > 0;
        (if behind { most / SLOWER } else { most }).max(1)
    }
}

/// The pace, as one who sees whether the target is behind a source.
#[derive(Debug)]
pub(super) struct Watching {
    pace: Arc<Pace>,
    behind: bool,
}

impl Watching {
    pub(super) fn new(pace: &Arc<Pace>) -> Self {
        Self { pace: Arc::clone(pace), behind: false }
    }

    /// Says whether it is behind.
    pub(super) fn is(&mut self, behind: bool) {
        match (std::mem::replace(&mut self.behind, behind), behind) {
            (false, true) => _ = self.pace.0.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = self.pace.0.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
    }

    /// How long to rest after so much work on so many documents.
    pub(super) fn rest(&self, work: Duration, documents: u64, throttle: u64) -> Duration {
        let throttled = Duration::from_secs_f64(documents as f64 / throttle.max(1) as f64);
        if self.behind { throttled.max((work * (PARTS - 1)).min(LONGEST_REST)) } else { throttled }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.is(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_comes_first() {
        let pace = Arc::new(Pace::default());
        let (mut one, mut other) = (Watching::new(&pace), Watching::new(&pace));
        let work = Duration::from_millis(500);
        assert_eq!((pace.throttled(5_000), one.rest(work, 5_000, 5_000)), (5_000, Duration::from_secs(1)));
        one.is(true);
        one.is(true);
        other.is(true);
        assert_eq!(pace.throttled(5_000), 1_000);
        assert_eq!(one.rest(work, 10, 5_000), work * 29);
        assert_eq!(one.rest(work * 10, 10, 5_000), LONGEST_REST);
        one.is(false);
        assert_eq!(pace.throttled(5_000), 1_000, "the other one still is");
        drop(other);
        assert_eq!((pace.throttled(5_000), pace.throttled(0)), (5_000, 1));
    }
}
