//! The control store as a long-lived task uses it: a connection that is made again when it is gone, and questions that are asked
//! until they are answered.

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::postgres::control::{Control, Owner};
use slackwater_connectors::secret::Secret;

use super::persist::{Patience, Stopped};
use super::stop::Stop;

/// One connection at a time.
pub(crate) struct Store {
    target: Secret,
    /// The capture that changes are made for.
    owner: Option<Owner>,
    control: Option<Control>,
    patience: Patience,
}

/// Asks the store until it answers: a target that is away must not end the process. Gives an answer or [`Stopped`].
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
    /// Not connected yet. An owner is needed for changes that belong to a source.
    pub(crate) fn new(target: &Secret, owner: Option<&Owner>, stop: &Stop) -> Self {
        Self { target: target.clone(), owner: owner.cloned(), control: None, patience: Patience::new(stop) }
    }

    /// The connection, made again where it is gone. For a question that is asked once.
    pub(crate) async fn control(&mut self) -> Result<&mut Control> {
        if self.control.as_ref().is_none_or(|control| !control.is_connected()) {
            let mut control = Control::open(&self.target).await?;
            if let Some(owner) = &self.owner {
                control.act_as(owner);
            }
            self.control = Some(control);
        }
        let missing = || Error::new(Kind::Bug, "asking the control store", "there is no connection");
        self.control.as_mut().ok_or_else(missing)
    }

    /// Gives a connection up that does not answer in time.
    pub(crate) fn hang_up(&mut self) {
        self.control = None;
    }

    /// For [`ask`]: waits after a failed try.
    pub(crate) async fn failed(&mut self, error: Error) -> std::result::Result<(), Stopped> {
        self.patience.after(error).await.map(drop)
    }

    /// For [`ask`].
    pub(crate) fn answered(&mut self) {
        self.patience.over();
    }
}
