//! How fast requests follow each other: so many a second, and none while the server wants to be left alone.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::retry::Pauses;

/// One for all requests to a server, whoever makes them.
#[derive(Debug)]
pub(super) struct Pace(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Between two requests.
    apart: Duration,
    /// When the next one would go if all had come evenly. It may lie in the past, by a second at the most: so many may go at once.
    next: Instant,
    /// Not before this.
    not_before: Instant,
    /// How long the next refusal counts.
    pauses: Pauses,
}

/// The longest time that we leave a server alone that does not say how long it wants to be.
const LONGEST: Duration = Duration::from_secs(300);

impl Pace {
    pub(super) fn new(per_second: u32) -> Self {
        let now = Instant::now();
        Self(Mutex::new(State {
            apart: Duration::from_secs(1) / per_second.max(1),
            next: now,
            not_before: now,
            pauses: Pauses::new(Duration::from_secs(2), LONGEST),
        }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request may go. May be cancelled; the turn is lost then.
    pub(super) async fn turn(&self) {
        let at = {
            let mut state = self.state();
            let now = Instant::now();
            // A second's worth may go at once after a rest.
            let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
            let due = state.next.max(earliest);
            state.next = due + state.apart;
            due.max(state.not_before)
        };
        sleep_until(at).await;
    }

    /// The server has refused: nobody asks again for a while. It grows with each refusal, unless the server says how long.
    pub(super) fn refused(&self, wait: Option<Duration>) -> Duration {
        let mut state = self.state();
        let wait = wait.map(|wait| wait.min(LONGEST)).unwrap_or_else(|| state.pauses.next_pause());
        state.not_before = state.not_before.max(Instant::now() + wait);
        wait
    }

    /// The server has answered.
    pub(super) fn answered(&self) {
        self.state().pauses.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_has_no_more_than_its_share() {
        let pace = Pace::new(5);
        let start = Instant::now();
        for _ in 0..20 {
            pace.turn().await;
        }
        let taken = start.elapsed();
        assert!(taken >= Duration::from_secs(2), "{taken:?}: five at once, the others five a second");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_while_the_server_wants_rest() {
        let pace = Pace::new(1_000);
        let start = Instant::now();
        assert_eq!(pace.refused(Some(Duration::from_secs(7))), Duration::from_secs(7));
        pace.turn().await;
        assert!(start.elapsed() >= Duration::from_secs(7));
        let (first, mut last) = (pace.refused(None), Duration::ZERO);
        for _ in 0..30 {
            last = pace.refused(None);
        }
        assert!(first < Duration::from_secs(4) && last > Duration::from_secs(60), "{first:?} {last:?}");
        pace.answered();
        assert!(pace.refused(None) < Duration::from_secs(4), "it was back in between");
    }
}
