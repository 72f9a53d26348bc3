//! Moments of this process: milliseconds since 1970 that never go back and never come twice.
//!
//! NocoDB has no order of its changes that we could read, so the order is ours. What begins and ends (a page, a pass, a chunk) takes a
//! moment each, and the moments are in the order in which these things happened in this process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use slackwater_topics::Moment;

/// The clock. One for each source of a process.
#[derive(Debug, Default)]
pub(super) struct Clock(AtomicU64);

impl Clock {
    /// A moment after every one that was given out or heard of.
    pub(super) fn tick(&self) -> Moment {
        self.at(millis())
    }

    fn at(&self, now: u64) -> Moment {
        let next = |last: u64| now.max(last + 1);
        let last = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last)));
        Moment(next(last.unwrap_or_default()))
    }

    /// Moments up to this one were given out, maybe by another process whose clock was ahead.
    pub(super) fn heard(&self, moment: Moment) {
        self.0.fetch_max(moment.0, Ordering::SeqCst);
    }
}

/// Milliseconds since 1970.
pub(super) fn millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_forward_whatever_the_machine_says() {
        let clock = Clock::default();
        assert_eq!(clock.at(1_000), Moment(1_000));
        assert_eq!(clock.at(1_000), Moment(1_001), "within a millisecond");
        assert_eq!(clock.at(400), Moment(1_002), "the machine's clock was set back");
        clock.heard(Moment(5_000));
        assert_eq!(clock.at(2_000), Moment(5_001), "a process before us was ahead");
        clock.heard(Moment(3_000));
        assert_eq!(clock.at(9_000), Moment(9_000));
    }
}
