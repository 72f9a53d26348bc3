//! How far one source is in the log. Shared by the tasks of its capture; values only grow, but for `copied`.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use slackwater_topics::Moment;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    copied: AtomicBool,
    through: AtomicU64,
    as_of: AtomicI64,
}

impl Reach {
    /// Whether every collection of the source is copied.
    pub(crate) fn is_copied(&self) -> bool {
        self.copied.load(Ordering::Acquire)
    }

    pub(crate) fn set_copied(&self, copied: bool) {
        self.copied.store(copied, Ordering::Release);
    }

    /// The log holds all that the source had at this time of its clock, which is everything through this moment.
    pub(crate) fn read(&self, as_of: i64, through: Moment) {
        self.as_of.fetch_max(as_of, Ordering::Relaxed);
        self.through.fetch_max(through.0, Ordering::Relaxed);
    }

    /// Milliseconds since 1970 by the source's clock; none before anything is known.
    pub(crate) fn as_of(&self) -> Option<i64> {
        Some(self.as_of.load(Ordering::Relaxed)).filter(|as_of| *as_of > 0)
    }

    /// None before anything is known.
    pub(crate) fn through(&self) -> Option<Moment> {
        Some(Moment(self.through.load(Ordering::Relaxed))).filter(|through| *through > Moment::default())
    }
}
