//! Retries. This is the only place that asks the table of errors ([`super::policy`]) whether another try can help.
//!
//! A pipeline that gives up at night has lost data by the morning. So work that failed for a reason that passes is retried without
//! end, after growing pauses; every other error is returned to the caller at once.

use std::sync::Arc;
use std::time::Duration;

use slackwater_connectors::error::{Error, Result};
use slackwater_connectors::retry::Pauses;

use super::board::Place;
use super::gauges::Gauges;
use super::policy::{Action, action, remedy};
use super::stop::Stop;

/// The pause after losing against another transaction.
const SOON: Duration = Duration::from_millis(5);

/// Why work ended before it was done.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// On request; the next start does the work again.
    Asked,
    /// For a reason that does not pass.
    Failed(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The result of a task: an end on request is a success.
pub(crate) fn ended(outcome: std::result::Result<(), Stopped>) -> Result<()> {
    match outcome {
        Ok(()) | Err(Stopped::Asked) => Ok(()),
        Err(Stopped::Failed(error)) => Err(error),
    }
}

/// When another try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// At once: another transaction was in the way.
    Soon,
    /// After a pause: the server was away or full, or refused us, and the connection may be closed.
    Later(Duration),
}

/// Whether the error passes, by itself or with the operator's help, so that the same work may succeed later.
pub(crate) fn passes(error: &Error) -> bool {
    matches!(action(error.kind), Action::Retry | Action::Wait)
}

/// Retries the work until it is done, it fails for a reason that does not pass, or a stop is requested.
pub(crate) async fn persist<T, F: Future<Output = Result<T>>>(
    stop: &Stop,
    mut work: impl FnMut() -> F,
) -> std::result::Result<T, Stopped> {
    let mut patience = Patience::new(stop);
    loop {
        match work().await {
            Ok(done) => return Ok(done),
            Err(error) => {
                patience.after(error).await?;
            }
        }
    }
}

/// The state between tries, for work that does something of its own between them.
#[derive(Debug)]
pub(crate) struct Patience {
    stop: Stop,
    pauses: Pauses,
    waits: u32,
    place: Option<(Arc<Gauges>, Place)>,
}

impl Patience {
    pub(crate) fn new(stop: &Stop) -> Self {
        Self { stop: stop.clone(), pauses: Pauses::for_server(), waits: 0, place: None }
    }

    /// Shows on the board which server is waited for.
    pub(crate) fn shown(mut self, gauges: &Arc<Gauges>, place: Place) -> Self {
        self.place = Some((Arc::clone(gauges), place));
        self
    }

    /// When to try again; the error itself if another try cannot help.
    pub(crate) fn judge(&mut self, error: Error) -> Result<Again> {
        match action(error.kind) {
            Action::Retry => {
                tracing::debug!(%error, "trying again");
                Ok(Again::Soon)
            }
            Action::Wait => {
                self.waits += 1;
                let what = self.place.as_ref().map_or("a server", |(_, place)| place.word());
                if let Some((gauges, place)) = &self.place {
                    gauges.board.set(*place, Some(format!("waiting for {what}: {error}")));
                }
                // A connection that breaks once is not worth a warning.
                if self.waits == 2 {
                    tracing::warn!(%error, remedy = remedy(&error), "waiting for {what}, trying again until it answers");
                } else {
                    tracing::debug!(%error, "waiting for {what}");
                }
                Ok(Again::Later(self.pauses.next_pause()))
            }
            Action::Quarantine | Action::Recopy | Action::Yield | Action::Halt => Err(error),
        }
    }

    /// Waits before the next try.
    pub(crate) async fn after(&mut self, error: Error) -> std::result::Result<Again, Stopped> {
        let again = self.judge(error)?;
        let pause = match again {
            Again::Soon => SOON,
            Again::Later(pause) => pause,
        };
        if self.stop.sleep(pause).await { Ok(again) } else { Err(Stopped::Asked) }
    }

    /// The work succeeded.
    pub(crate) fn over(&mut self) {
        if self.waits == 0 {
            return;
        }
        let what = self.place.as_ref().map_or("the server", |(_, place)| place.word());
        if self.waits > 1 {
            tracing::info!("{what} answers again");
        }
        if let Some((gauges, place)) = &self.place {
            gauges.board.set(*place, None);
        }
        self.waits = 0;
        self.pauses.reset();
    }
}

#[cfg(test)]
mod tests {
    use slackwater_connectors::error::Kind;

    use super::*;
    use crate::ops::stop;

    fn error(kind: Kind) -> Error {
        Error::new(kind, "testing", "it failed")
    }

    #[tokio::test]
    async fn work_is_done_again_until_it_succeeds() {
        let (_stopper, stop) = stop::channel();
        let mut tries = 0;
        let done = persist(&stop, || {
            tries += 1;
            std::future::ready(if tries < 3 { Err(error(Kind::Contention)) } else { Ok(tries) })
        })
        .await;
        assert!(matches!(done, Ok(3)));
    }

    #[tokio::test]
    async fn what_does_not_pass_comes_back_at_once() {
        let (_stopper, stop) = stop::channel();
        for kind in [Kind::Data, Kind::Fenced, Kind::HistoryLost, Kind::Revoked, Kind::Unsuitable, Kind::Bug]
        {
            let failed: std::result::Result<(), Stopped> =
                persist(&stop, || async { Err(error(kind)) }).await;
            assert!(matches!(failed, Err(Stopped::Failed(error)) if error.kind == kind), "{kind:?}");
        }
    }

    #[tokio::test]
    async fn a_stop_ends_the_waiting() {
        let (stopper, stop) = stop::channel();
        stopper.stop();
        let failed: std::result::Result<(), Stopped> =
            persist(&stop, || async { Err(error(Kind::Unreachable)) }).await;
        assert!(matches!(failed, Err(Stopped::Asked)));
    }

    #[test]
    fn what_is_waited_for_is_shown_until_it_is_back() {
        let (_stopper, stop) = stop::channel();
        let gauges = Arc::new(Gauges::default());
        let mut patience = Patience::new(&stop).shown(&gauges, Place::Target);
        assert!(matches!(patience.judge(error(Kind::Exhausted)), Ok(Again::Later(_))));
        assert_eq!(gauges.board.text().as_deref(), Some("waiting for the target: testing: it failed"));
        patience.over();
        assert_eq!(gauges.board.text(), None);
    }
}
