//! Stops the writers of the source, and lets them write again.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use futures_util::future::try_join_all;
use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_topics::Moment;

use crate::config::Freeze;
use crate::source::Named;

/// Stops the writers of all sources, side by side. Gives a moment of each source, at or after every write that it acknowledged.
pub(super) async fn freeze(
    way: &Freeze,
    sources: &[Named],
    within: Duration,
) -> Result<Vec<(String, Moment)>> {
    if let Freeze::Command { freeze, .. } = way {
        run("freezing the source", freeze).await?;
    }
    try_join_all(sources.iter().map(|named| async move {
        let moment = match way {
            Freeze::BlockWrites => named.source.freeze(within).await?,
            // The writers are stopped already: by the command, or by hand before the deadline began.
            Freeze::Command { .. } | Freeze::ByHand => named.source.mark("cutover").await?,
        };
        Ok((named.name.clone(), moment))
    }))
    .await
}

/// Lets the writers of all sources write again. Can be repeated.
pub(super) async fn unfreeze(way: &Freeze, sources: &[Named]) -> Result<()> {
    match way {
        Freeze::BlockWrites => {
            try_join_all(sources.iter().map(|named| named.source.unfreeze())).await.map(drop)
        }
        Freeze::Command { unfreeze, .. } => run("unfreezing the source", unfreeze).await,
        Freeze::ByHand => {
            tracing::warn!("the cutover is reverted: let the writers of the source write again");
            Ok(())
        }
    }
}

/// Runs a command of the team and waits for its end.
pub(super) async fn run(doing: &str, words: &[String]) -> Result<()> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let fail = |what: String| Error::new(Kind::Unsuitable, format!("{doing} with `{program}`"), what);
    let status = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| fail(format!("it cannot be started: {error}")))?;
    if status.success() { Ok(()) } else { Err(fail(format!("it ended with {status}"))) }
}

/// Asks a person to stop the writers, and waits for the answer.
pub(super) async fn ask() -> Result<()> {
    let fail = |what: &str| Error::new(Kind::Unsuitable, "asking for the freeze", what);
    if !std::io::stdin().is_terminal() {
        return Err(fail("`freeze: by_hand` needs a person at a terminal"));
    }
    let asked = tokio::task::spawn_blocking(|| {
        let mut stderr = std::io::stderr().lock();
        // If stderr is closed, no answer can come either.
        let _ = write!(stderr, "Stop the writers of the source now, then press Enter (Ctrl-C gives up): ");
        let _ = stderr.flush();
        drop(stderr);
        std::io::stdin().lock().read_line(&mut String::new())
    })
    .await;
    match asked {
        Ok(Ok(read)) if read > 0 => Ok(()),
        _ => Err(fail("nobody answered")),
    }
}
