//! Acknowledgements of a group of records, counted without allocating for each of them.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::error::{Error, Result};

/// Counts the records of a group until the broker has all of them.
///
/// It is made, given to each `send`, closed when the last one is sent, and waited for.
#[derive(Debug)]
pub struct Ticket {
    /// Records on their way, and one more until it is closed.
    open: AtomicU32,
    closed: AtomicBool,
    failure: Failure,
    changed: Notify,
}

impl Ticket {
    /// With no records yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            open: AtomicU32::new(1),
            closed: AtomicBool::new(false),
            failure: Failure::default(),
            changed: Notify::new(),
        })
    }

    /// No more records will be added.
    pub fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.done();
        }
    }

    /// How many records are on their way.
    pub fn outstanding(&self) -> u32 {
        let closed = self.closed.load(Ordering::Acquire);
        self.open.load(Ordering::Acquire).saturating_sub(u32::from(!closed))
    }

    /// Waits until it is closed and the broker has everything. An error as soon as one record cannot be sent any more.
    pub async fn acknowledged(&self) -> Result<()> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(error) = self.failure.get() {
                return Err(error);
            }
            if self.open.load(Ordering::Acquire) == 0 {
                return Ok(());
            }
            changed.await;
        }
    }

    pub(super) fn add(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn done(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_waiters();
        }
    }

    pub(super) fn fail(&self, error: Error, cause: bool) {
        self.failure.keep(error, cause);
        self.changed.notify_waiters();
    }
}

/// The first thing that went wrong. What only followed from it gives way when the cause is told later.
#[derive(Debug, Default)]
pub(super) struct Failure {
    there: AtomicBool,
    kept: Mutex<Option<(Error, bool)>>,
}

impl Failure {
    /// True where nothing had gone wrong before.
    pub(super) fn keep(&self, error: Error, cause: bool) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let first = kept.is_none();
        if first || (cause && kept.as_ref().is_some_and(|(_, cause)| !cause)) {
            *kept = Some((error, cause));
        }
        self.there.store(true, Ordering::Release);
        first
    }

    pub(super) fn get(&self) -> Option<Error> {
        // Asked for every record that is sent: no lock while all is well.
        if !self.there.load(Ordering::Acquire) {
            return None;
        }
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(error, _)| copy(error))
    }
}

pub(super) fn copy(error: &Error) -> Error {
    Error {
        kind: error.kind,
        doing: error.doing.clone(),
        what: error.what.clone(),
        code: error.code.clone(),
        constraint: None,
        help: error.help.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn error(what: &str) -> Error {
        Error::new(Kind::Unsuitable, "sending", what)
    }

    #[tokio::test]
    async fn done_when_closed_and_empty() {
        let ticket = Ticket::new();
        ticket.add();
        assert_eq!(ticket.outstanding(), 1);
        ticket.done();
        assert_eq!(ticket.outstanding(), 0);
        let mut waiting = pin!(ticket.acknowledged());
        // Not closed: a record may still come.
        assert!(futures_util::poll!(&mut waiting).is_pending());
        ticket.close();
        ticket.close();
        waiting.await.expect("all acknowledged");
        assert_eq!(ticket.outstanding(), 0);
    }

    #[tokio::test]
    async fn a_failure_is_told_at_once_and_stays() {
        let ticket = Ticket::new();
        ticket.add();
        let mut waiting = pin!(ticket.acknowledged());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        ticket.fail(error("followed"), false);
        assert_eq!(waiting.await.expect_err("failed").what, "followed");
        ticket.fail(error("cause"), true);
        ticket.fail(error("later"), true);
        ticket.fail(error("later"), false);
        ticket.done();
        ticket.close();
        assert_eq!(ticket.acknowledged().await.expect_err("failed").what, "cause");
    }
}
