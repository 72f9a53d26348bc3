//! Which documents change while they are looked at: a change stream of a verification's own.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::source::Change;
use slackwater_topics::{CollectionId, Key, Moment};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::source::Source;

/// An idle source is heard this often.
pub(super) const IDLE: Duration = Duration::from_millis(50);
/// No more documents are remembered; whoever asks then hears that all may have changed.
const MOST: usize = 2_000_000;

/// A document.
pub(super) type Which = (CollectionId, Key);

#[derive(Debug, Default)]
struct State {
    changed: HashMap<Which, Moment>,
    /// Whole collections did, or there are too many documents.
    all: Option<Moment>,
}

/// What is watched; dropping it ends the stream.
#[derive(Debug)]
pub(super) struct Watch {
    state: Arc<Mutex<State>>,
    passed: watch::Receiver<Option<Moment>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Watches from behind the moment. `None` where a source can only be followed by the process that copies it. `wanted`: only these
    /// documents; otherwise all.
    pub(super) fn begin(
        source: &Source,
        after: Moment,
        collections: Vec<(CollectionId, String)>,
        wanted: Option<HashSet<Which>>,
    ) -> Option<Self> {
        let mut changes = source.watch(after, collections)?;
        changes.answer_within(IDLE);
        let state = Arc::new(Mutex::new(State::default()));
        let (sender, passed) = watch::channel(Some(Moment::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let batch = match changes.next().await {
                    Ok(batch) => batch,
                    Err(error) => {
                        tracing::debug!(%error, "what changes cannot be watched any more");
                        sender.send_replace(None);
                        return;
                    }
                };
                let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                for change in batch.changes {
                    match change {
                        Change::Document(change) => {
                            let which = (change.collection, change.key);
                            if state.changed.len() >= MOST {
                                state.all = Some(change.position.moment);
                            } else if wanted.as_ref().is_none_or(|wanted| wanted.contains(&which)) {
                                state.changed.insert(which, change.position.moment);
                            }
                        }
                        other => state.all = Some(other.position().moment),
                    }
                }
                drop(state);
                sender.send_replace(Some(batch.passed));
            }
        });
        Some(Self { state, passed, task })
    }

    /// Waits until everything through the moment was heard.
    pub(super) async fn through(&mut self, moment: Moment) -> Result<()> {
        let gone = || Error::new(Kind::Unreachable, "watching what changes", "the stream has ended");
        let heard = self.passed.wait_for(|passed| passed.is_none_or(|passed| passed >= moment)).await;
        match heard {
            Ok(passed) if passed.is_some() => Ok(()),
            _ => Err(gone()),
        }
    }

    /// Whether a document may have changed after the moment.
    pub(super) fn changed(&self, which: &Which, after: Moment) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let later = |moment: &Moment| *moment > after;
        state.all.as_ref().is_some_and(later) || state.changed.get(which).is_some_and(later)
    }

    /// The documents that have changed since this was last asked; `None` where not all of them are known.
    pub(super) fn take(&self) -> Option<Vec<Which>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = std::mem::take(&mut state.changed).into_keys().collect();
        state.all.take().is_none().then_some(changed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
