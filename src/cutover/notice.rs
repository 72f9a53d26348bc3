//! Tells the team that the target is open. After a crash it may tell them again, so their command or webhook must bear repetition.

use std::time::Duration;

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::retry::Pauses;

use super::freeze::run;
use crate::config::Notice;

/// How often each notice is tried.
const TRIES: usize = 5;
/// How long each try may take.
const WITHIN: Duration = Duration::from_secs(20);

/// Sends all notices; returns the errors of those that failed.
pub(super) async fn tell(notices: &[Notice], report: &str) -> Vec<String> {
    let mut failed = Vec::new();
    for notice in notices {
        let mut pauses = Pauses::for_server();
        let mut tries = 1;
        loop {
            let told = tokio::time::timeout(WITHIN, once(notice, report)).await;
            let late =
                || Err(Error::new(Kind::Unreachable, "telling that the target is open", "no answer in time"));
            match told.unwrap_or_else(|_| late()) {
                Ok(()) => break,
                Err(error) if tries >= TRIES => {
                    failed.push(error.to_string());
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "the team was not told that the target is open; trying again");
                    tries += 1;
                    tokio::time::sleep(pauses.next_pause()).await;
                }
            }
        }
    }
    failed
}

async fn once(notice: &Notice, report: &str) -> Result<()> {
    match notice {
        Notice::Command(words) => run("telling that the target is open", words).await,
        Notice::Webhook(address) => {
            // The address may hold a secret, and the client's errors would show it.
            let fail = |what: String| Error::new(Kind::Unreachable, "telling the webhook", what);
            let sent = reqwest::Client::new()
                .post(address.expose())
                .header("content-type", "application/json")
                .body(report.to_owned())
                .send()
                .await
                .map_err(|error| fail(error.without_url().to_string()))?;
            let status = sent.status();
            if status.is_success() { Ok(()) } else { Err(fail(format!("it answered {status}"))) }
        }
    }
}
