//! Looks at the control store for whoever asks, once a second at the most, and never makes anybody wait for long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::postgres::control::Control;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::health::About;
use super::look::Look;

/// A look that is younger is given again.
const FRESH: Duration = Duration::from_secs(1);
/// A control store that needs longer is down as far as we are concerned.
const WITHIN: Duration = Duration::from_secs(2);

/// The last look, and whether it could be taken.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) look: Option<Arc<Look>>,
    pub(crate) at: Option<Instant>,
    pub(crate) up: bool,
}

/// Shared by all who ask.
#[derive(Default)]
pub(crate) struct Looker(Mutex<State>);

#[derive(Default)]
struct State {
    control: Option<Control>,
    seen: Seen,
    tried: Option<Instant>,
}

impl Looker {
    /// The newest look there is; a new one where the last is old.
    pub(crate) async fn seen(&self, about: Option<&About>) -> Seen {
        let Some(about) = about else { return Seen::default() };
        let mut state = self.0.lock().await;
        if state.tried.is_some_and(|tried| tried.elapsed() < FRESH) {
            return state.seen.clone();
        }
        match timeout(WITHIN, state.look(about)).await {
            Ok(Ok(look)) => {
                state.seen = Seen { look: Some(Arc::new(look)), at: Some(Instant::now()), up: true };
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the control store cannot be looked at");
                state.control = None;
                state.seen.up = false;
            }
            Err(_) => {
                state.control = None;
                state.seen.up = false;
            }
        }
        state.tried = Some(Instant::now());
        state.seen.clone()
    }
}

impl State {
    async fn look(&mut self, about: &About) -> Result<Look> {
        let control = match self.control.take() {
            Some(control) => control,
            None => Control::peek(&about.target).await?.ok_or_else(|| {
                Error::new(Kind::Unsuitable, "looking at the control store", "nothing has run here yet")
            })?,
        };
        let look = Look::read(&control, &about.migration, about.named).await?;
        self.control = Some(control);
        Ok(look)
    }
}
