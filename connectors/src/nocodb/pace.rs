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
        let at = self.state().take(Instant::now());
        sleep_until(at).await;
    }

    /// The server has refused: nobody asks again for a while. It grows with each refusal, unless the server says how long.
    pub(super) fn refused(&self, wait: Option<Duration>) -> Duration {
        self.state().refused(Instant::now(), wait)
    }

    /// The server has answered.
    pub(super) fn answered(&self) {
        self.state().pauses.reset();
    }
}

impl State {
    /// When the next request may go.
    fn take(&mut self, now: Instant) -> Instant {
        // A second's worth may go at once after a rest.
        let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let due = self.next.max(earliest);
        self.next = due + self.apart;
        due.max(self.not_before)
    }

    fn refused(&mut self, now: Instant, wait: Option<Duration>) -> Duration {
        let wait = wait.map(|wait| wait.min(LONGEST)).unwrap_or_else(|| self.pauses.next_pause());
        self.not_before = self.not_before.max(now + wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_second_has_no_more_than_its_share() {
        let pace = Pace::new(5);
        let mut state = pace.state();
        // After a rest.
        let now = state.next + 100 * SECOND;
        let turns: Vec<Instant> = (0..21).map(|_| state.take(now)).collect();
        assert!(turns[5] <= now, "a second's worth goes at once");
        for pair in turns[5..].windows(2) {
            assert_eq!(pair[1] - pair[0], SECOND / 5);
        }
        assert_eq!(turns[20], now + 3 * SECOND);
    }

    #[test]
    fn nobody_asks_while_the_server_wants_rest() {
        let pace = Pace::new(1_000);
        let mut state = pace.state();
        let now = state.next;
        assert_eq!(state.refused(now, Some(7 * SECOND)), 7 * SECOND);
        assert_eq!(state.take(now), now + 7 * SECOND);
        assert_eq!(state.refused(now, Some(10_000 * SECOND)), LONGEST, "it may have made a mistake");
    }

    #[test]
    fn a_server_that_goes_on_refusing_is_asked_seldom() {
        let pace = Pace::new(1_000);
        let first = pace.refused(None);
        let last = (0..30).map(|_| pace.refused(None)).last();
        assert!(first < 4 * SECOND && last > Some(60 * SECOND), "{first:?} {last:?}");
        pace.answered();
        assert!(pace.refused(None) < 4 * SECOND, "it was back in between");
    }
}
