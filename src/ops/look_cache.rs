//! The newest [`Look`], for requests over HTTP: read from the control store at most once a second, and never waited for long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::postgres::control::Control;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::health::About;
use super::look::Look;

/// A younger look is returned again.
const FRESH: Duration = Duration::from_secs(1);
/// A control store that needs longer counts as down.
const WITHIN: Duration = Duration::from_secs(2);

/// The newest look, and whether the control store answered the last question.
#[derive(Clone, Default)]
pub(crate) struct Latest {
    pub(crate) look: Option<Arc<Look>>,
    pub(crate) at: Option<Instant>,
    pub(crate) up: bool,
}

/// Shared by all connections.
#[derive(Default)]
pub(crate) struct LookCache(Mutex<State>);

#[derive(Default)]
struct State {
    control: Option<Control>,
    latest: Latest,
    tried: Option<Instant>,
}

impl LookCache {
    /// The newest look; reads a new one if the last is old.
    pub(crate) async fn latest(&self, about: Option<&About>) -> Latest {
        let Some(about) = about else { return Latest::default() };
        let mut state = self.0.lock().await;
        if state.tried.is_some_and(|tried| tried.elapsed() < FRESH) {
            return state.latest.clone();
        }
        match timeout(WITHIN, state.look(about)).await {
            Ok(Ok(look)) => {
                state.latest = Latest { look: Some(Arc::new(look)), at: Some(Instant::now()), up: true };
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the control store cannot be read");
                state.control = None;
                state.latest.up = false;
            }
            Err(_) => {
                state.control = None;
                state.latest.up = false;
            }
        }
        state.tried = Some(Instant::now());
        state.latest.clone()
    }
}

impl State {
    async fn look(&mut self, about: &About) -> Result<Look> {
        let control = match self.control.take() {
            Some(control) => control,
            None => Control::peek(&about.target).await?.ok_or_else(|| {
                Error::new(Kind::Unsuitable, "reading the control store", "slackwater has not run here yet")
            })?,
        };
        let look = Look::read(&control, &about.named).await?;
        self.control = Some(control);
        Ok(look)
    }
}
