//! Moments of the source's clock that wait until the stream has passed them.
//!
//! The source says: at this moment of my clock, everything was at or before this operation time. Once the stream has brought
//! all up to that time, what was brought is the source as of that moment. No write to the source is needed: an idle
//! stream passes the time as well.

use std::collections::VecDeque;

use slackwater_connectors::source::Heard;
use slackwater_topics::Moment;

/// More than this many moments are not kept one by one: a stream that is hours behind needs none of each second.
const MOST: usize = 4_096;

/// Moments on their way.
#[derive(Debug, Default)]
pub(crate) struct SourceClock {
    waiting: VecDeque<Heard>,
    passed: Moment,
    /// Moments that are nearer to the last one than this, in milliseconds, are not kept.
    apart: i64,
}

impl SourceClock {
    /// A moment was heard of; given back where the stream has passed it already.
    pub(crate) fn hear(&mut self, heard: Heard) -> Option<i64> {
        if heard.moment <= self.passed {
            // What waits has a later time and an earlier moment only where a primary's clock was set back.
            return Some(heard.clock);
        }
        let Some(last) = self.waiting.back() else {
            self.apart = 0;
            self.waiting.push_back(heard);
            return None;
        };
        if heard.clock.saturating_sub(last.clock) < self.apart {
            return None;
        }
        self.waiting.push_back(heard);
        if self.waiting.len() > MOST {
            self.thin();
        }
        None
    }

    /// Keeps half of them, evenly spread.
    fn thin(&mut self) {
        self.apart = (2 * self.apart).max(2_000);
        let (apart, mut kept) = (self.apart, None);
        self.waiting.retain(|heard| {
            let far = kept.is_none_or(|kept| heard.clock.saturating_sub(kept) >= apart);
            if far {
                kept = Some(heard.clock);
            }
            far
        });
    }

    /// The stream has brought everything up to here; the newest moment that it has passed with that.
    pub(crate) fn pass(&mut self, passed: Moment) -> Option<i64> {
        self.passed = self.passed.max(passed);
        let mut newest = None;
        self.waiting.retain(|heard| {
            let over = heard.moment <= self.passed;
            if over {
                newest = newest.max(Some(heard.clock));
            }
            !over
        });
        newest
    }

    /// How far the stream has brought it.
    pub(crate) fn passed(&self) -> Moment {
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(time: u64, clock: i64) -> Heard {
        Heard { moment: Moment(time), clock }
    }

    #[test]
    fn a_moment_counts_when_the_stream_has_passed_its_time() {
        let mut clock = SourceClock::default();
        assert_eq!(clock.hear(heard(5, 500)), None);
        assert_eq!(clock.hear(heard(9, 900)), None);
        assert_eq!(clock.pass(Moment(4)), None);
        assert_eq!(clock.pass(Moment(8)), Some(500));
        assert_eq!(clock.pass(Moment(8)), None, "each counts once");
        assert_eq!(clock.pass(Moment(20)), Some(900));
    }

    #[test]
    fn an_idle_source_is_current_at_once() {
        let mut clock = SourceClock::default();
        clock.pass(Moment(7));
        assert_eq!(clock.hear(heard(7, 700)), Some(700));
        assert_eq!(clock.hear(heard(7, 1_700)), Some(1_700));
    }

    #[test]
    fn a_stream_that_is_days_behind_takes_no_memory() {
        let mut clock = SourceClock::default();
        for second in 0..500_000 {
            assert_eq!(clock.hear(heard(second + 10, second as i64 * 1_000)), None);
        }
        assert!(clock.waiting.len() <= MOST);
        let found = clock.pass(Moment(300_000)).expect("a moment");
        assert!((299_000_000..=299_990_000).contains(&found), "{found} is not too old");
        assert!(clock.pass(Moment(600_000)).is_some());
    }
}
