//! The control store, for tasks that run for long: the connection is reopened after it broke, and a question is asked until it is
//! answered.

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::postgres::control::{Control, Owner};
use slackwater_connectors::secret::Secret;

use super::persist::{Patience, Stopped};
use super::stop::Stop;

/// The control store with at most one connection.
pub(crate) struct Store {
    target: Secret,
    /// The capture on whose behalf changes are made.
    owner: Option<Owner>,
    control: Option<Control>,
    /// How many connections there were.
    opened: u64,
    patience: Patience,
}

/// Asks the store until it answers, because an outage of the target must not end the process. Gives the answer or [`Stopped`].
macro_rules! ask {
    ($store:expr, $control:ident => $question:expr) => {
        loop {
            let answer = match $store.control().await {
                Ok($control) => $question.await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => {
                    $store.answered();
                    break Ok(answer);
                }
                Err(error) => {
                    if let Err(stopped) = $store.failed(error).await {
                        break Err(stopped);
                    }
                }
            }
        }
    };
}
pub(crate) use ask;

impl Store {
    /// Does not connect yet. Changes that belong to a source need an owner.
    pub(crate) fn new(target: &Secret, owner: Option<&Owner>, stop: &Stop) -> Self {
        Self {
            target: target.clone(),
            owner: owner.cloned(),
            control: None,
            opened: 0,
            patience: Patience::new(stop),
        }
    }

    /// The connection, reopened if it is closed. For a question that is asked only once.
    pub(crate) async fn control(&mut self) -> Result<&mut Control> {
        if self.control.as_ref().is_none_or(|control| !control.is_connected()) {
            let mut control = Control::open(&self.target).await?;
            if let Some(owner) = &self.owner {
                control.act_as(owner);
            }
            self.control = Some(control);
            self.opened += 1;
        }
        let missing = || Error::new(Kind::Bug, "asking the control store", "there is no connection");
        self.control.as_mut().ok_or_else(missing)
    }

    /// How many connections there were until now: behind a new one may be another server.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// Drops a connection that does not answer in time.
    pub(crate) fn hang_up(&mut self) {
        self.control = None;
    }

    /// For [`ask`]: waits before the next try.
    pub(crate) async fn failed(&mut self, error: Error) -> std::result::Result<(), Stopped> {
        self.patience.after(error).await.map(drop)
    }

    /// For [`ask`]: the store has answered.
    pub(crate) fn answered(&mut self) {
        self.patience.over();
    }
}
