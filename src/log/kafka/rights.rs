//! The rights that a part of slackwater needs at the brokers: asked for before it begins, so that it does not begin what it cannot do.

use slackwater_connectors::error::Error;
use slackwater_connectors::kafka::{Right, Settings, lacking};

use crate::failure::Failure;

/// A right that is lacking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    pub(crate) right: Right,
    /// Topics, or the group.
    on: Vec<String>,
}

impl Lack {
    /// For a person: the right, on what, and what it is for.
    pub(crate) fn text(&self) -> String {
        let on = match self.on.as_slice() {
            [one] => one.clone(),
            many => many.join(", "),
        };
        match self.right {
            Right::Write => {
                format!("Kafka: the user lacks the right Write on the topic {on}: `capture` sends events")
            }
            Right::Read => {
                format!("Kafka: the user lacks the right Read on the topic {on}: `apply` reads events")
            }
            Right::Group => {
                format!("Kafka: the user lacks the right Read on the group {on}: appliers join it")
            }
        }
    }
}

/// What to do about it.
pub(crate) const REMEDY: &str =
    "`slackwater grants FILE` prints the commands that give each user what is needed";

/// Which of the rights are lacking.
pub(crate) async fn lacks(
    settings: &Settings,
    topics: &[String],
    group: &str,
    rights: &[Right],
) -> Result<Vec<Lack>, Error> {
    let asked = rights.iter().map(|right| async move {
        let on = lacking(settings, topics, group, *right).await?;
        Ok::<Lack, Error>(Lack { right: *right, on })
    });
    let found = futures_util::future::try_join_all(asked).await?;
    Ok(found.into_iter().filter(|lack| !lack.on.is_empty()).collect())
}

/// Refuses to begin without them. What could not be found out is no reason.
pub(crate) async fn require(
    settings: &Settings,
    topics: &[String],
    group: &str,
    rights: &[Right],
) -> Result<(), Failure> {
    match lacks(settings, topics, group, rights).await {
        Ok(lacks) if lacks.is_empty() => Ok(()),
        Ok(lacks) => {
            Err(Failure::Denied(lacks.iter().map(|lack| format!("{}; {REMEDY}", lack.text())).collect()))
        }
        Err(error) => {
            tracing::debug!("{error}");
            Ok(())
        }
    }
}
