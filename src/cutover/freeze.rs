//! Stops the writers of the sources, and lets them write again: each source in its own way, side by side.
//!
//! **Invariant**: a call ends when every source has answered, also where one of them failed. A request that is given up halfway
//! could still take effect after the sources were unfrozen, and would freeze one for good.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_topics::Moment;

use crate::config::{Freeze, Migration};
use crate::source::Named;

/// A source whose writers are stopped.
pub(super) struct Stopped {
    pub(super) source: String,
    /// At or after every write that it acknowledged.
    pub(super) moment: Moment,
    /// After so long it was known.
    pub(super) after: Duration,
}

/// Stops the writers of all sources.
pub(super) async fn freeze(
    migration: &Migration,
    sources: &[Named],
    within: Duration,
) -> Result<Vec<Stopped>> {
    let begun = Instant::now();
    let stopped = async |named: &Named, way: &Freeze| {
        let moment = stopped(named, way, within).await?;
        Ok(Stopped { source: named.name.clone(), moment, after: begun.elapsed() })
    };
    let (own, shared) = by_way(migration, sources);
    let own = own.into_iter().map(async |(named, way)| {
        if let Freeze::Command { freeze, .. } = way {
            run(&format!("freezing source {}", named.name), freeze).await?;
        }
        stopped(named, way).await
    });
    let shared = async {
        let way = &migration.cutover.freeze;
        if let (Freeze::Command { freeze, .. }, false) = (way, shared.is_empty()) {
            run("freezing the source", freeze).await?;
        }
        let moments = shared.iter().map(|named| stopped(named, way));
        join_all(moments).await.into_iter().collect::<Result<Vec<_>>>()
    };
    let (own, shared) = tokio::join!(join_all(own), shared);
    let mut moments = shared?;
    for moment in own {
        moments.push(moment?);
    }
    Ok(moments)
}

/// The moment at which the writers of a source are stopped; we stop them, if nobody has.
async fn stopped(named: &Named, way: &Freeze, within: Duration) -> Result<Moment> {
    match way {
        Freeze::BlockWrites => named.source.freeze(within).await,
        // The writers are stopped already: by the command, or by hand before the deadline began.
        Freeze::Command { .. } | Freeze::ByHand => named.source.mark("cutover").await,
    }
}

/// Lets the writers of all sources write again. Can be repeated. Where one of them fails the others have been let go all the same.
/// `connected`: the sources that answer.
pub(super) async fn unfreeze(migration: &Migration, connected: &[Named]) -> Result<()> {
    let shared = &migration.cutover.freeze;
    let uses_shared = migration.sources.iter().any(|source| source.freeze.is_none());
    let all = migration.sources.iter().map(async |source| {
        let name = &source.name.value;
        match migration.freeze_of(source) {
            Freeze::BlockWrites => match connected.iter().find(|named| named.name == *name) {
                Some(named) => named.source.unfreeze().await,
                None => Err(Error::new(
                    Kind::Unreachable,
                    format!("unfreezing source {name}"),
                    "it does not answer",
                )),
            },
            Freeze::Command { unfreeze, .. } if source.freeze.is_some() => {
                run(&format!("unfreezing source {name}"), unfreeze).await
            }
            Freeze::Command { .. } => Ok(()),
            Freeze::ByHand => {
                tracing::warn!("the cutover is reverted: let the writers of source {name} write again");
                Ok(())
            }
        }
    });
    let shared = async {
        match shared {
            Freeze::Command { unfreeze, .. } if uses_shared => run("unfreezing the source", unfreeze).await,
            _ => Ok(()),
        }
    };
    let (all, shared) = tokio::join!(join_all(all), shared);
    all.into_iter().chain([shared]).collect()
}

/// Sources that are frozen in a way of their own, and those that are frozen as the section `cutover` says.
fn by_way<'a>(
    migration: &'a Migration,
    sources: &'a [Named],
) -> (Vec<(&'a Named, &'a Freeze)>, Vec<&'a Named>) {
    let (mut own, mut shared) = (Vec::new(), Vec::new());
    for named in sources {
        let configured = migration.sources.iter().find(|source| source.name.value == named.name);
        match configured.and_then(|source| source.freeze.as_ref()) {
            Some(way) => own.push((named, way)),
            None => shared.push(named),
        }
    }
    (own, shared)
}

/// The sources whose writers we stop ourselves.
pub(super) fn frozen_by_us<'a>(migration: &'a Migration, sources: &'a [Named]) -> Vec<&'a Named> {
    let (own, shared) = by_way(migration, sources);
    let way = &migration.cutover.freeze;
    let all = own.into_iter().chain(shared.into_iter().map(|named| (named, way)));
    all.filter(|(_, way)| **way == Freeze::BlockWrites).map(|(named, _)| named).collect()
}

/// The names of the sources whose writers a person stops.
pub(super) fn by_hand(migration: &Migration) -> Vec<&str> {
    let all = migration.sources.iter().filter(|source| *migration.freeze_of(source) == Freeze::ByHand);
    all.map(|source| source.name.value.as_str()).collect()
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

/// Asks a person to stop the writers of these sources, and waits for the answer.
pub(super) async fn ask(sources: &[&str]) -> Result<()> {
    let fail = |what: &str| Error::new(Kind::Unsuitable, "asking for the freeze", what);
    if !std::io::stdin().is_terminal() {
        return Err(fail("`freeze: by_hand` needs a person at a terminal"));
    }
    let of = match sources {
        [_] => "the source".to_owned(),
        several => several.join(" and of "),
    };
    let asked = tokio::task::spawn_blocking(move || {
        let mut stderr = std::io::stderr().lock();
        // If stderr is closed, no answer can come either.
        let _ = write!(stderr, "Stop the writers of {of} now, then press Enter (Ctrl-C gives up): ");
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
