//! Gathers the facts that a plan needs. Reads only.

use std::time::{Duration, Instant};

use slackwater_connectors::error::{Kind, Result};
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::accepted::Accepted;
use slackwater_connectors::postgres::target::finish::Finisher;

use super::accept::sift;
use super::plan::{Blocker, Checked, Facts, SourceFacts, blockers, may_pass};
use crate::config::{Check, Freeze, Migration};
use crate::ops::look::{self, Look};
use crate::source::{Named, unmapped};

/// How long is waited for blockers that may soon be gone, and how often is looked.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// A check counts at most this many rows.
const MOST_ROWS: u32 = 1_000;

/// Gathers the facts. A source that is missing in `sources` does not answer. `busy`: the other process that leads a cutover now,
/// if any.
pub(crate) async fn gather(
    migration: &Migration,
    control: &Control,
    sources: &[Named],
    busy: Option<String>,
) -> Result<Facts> {
    let look = Look::read(control, &look::Named::of(migration)).await?;
    let mut asked = Vec::with_capacity(migration.sources.len());
    for source in &migration.sources {
        let named = sources.iter().find(|named| named.name == source.name.value);
        let blocks = *migration.freeze_of(source) == Freeze::BlockWrites;
        let mut facts = SourceFacts { name: source.name.value.clone(), blocks, ..SourceFacts::default() };
        if let Some(named) = named {
            // If it does not answer, that is a fact too.
            facts.answers = named.source.hear().await.is_ok();
            let there = named.source.collections().await.unwrap_or_default();
            facts.unmapped = unmapped(migration, &named.name, &there);
        }
        if let Some(named) = named
            && blocks
        {
            facts.right = named.source.freeze_right().await.ok();
            facts.frozen = named.source.is_frozen().await.ok().flatten();
            facts.writer = named.source.oldest_writer().await.ok().flatten();
        }
        asked.push(facts);
    }
    let finisher = Finisher::open(&migration.target.uri, &migration.target.schema).await?;
    let checks = check(&finisher, &migration.checks).await?;
    Ok(Facts { look, sources: asked, checks, busy })
}

/// Gathers facts until nothing blocks any more, or something that does not pass by itself, or for as long as is waited at most. What is
/// `accepted` is noted there, and does not block.
pub(crate) async fn settled(
    migration: &Migration,
    control: &Control,
    sources: &[Named],
    busy: Option<String>,
    accepted: &mut Accepted,
) -> Result<(Facts, Vec<Blocker>)> {
    let begun = Instant::now();
    loop {
        let facts = gather(migration, control, sources, busy.clone()).await?;
        let mut noted = accepted.clone();
        let found = sift(blockers(migration, &facts), &mut noted);
        if found.is_empty() || !may_pass(&facts, &found) || begun.elapsed() > SETTLE_WITHIN {
            *accepted = noted;
            return Ok((facts, found));
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
}

/// Runs the team's checks one after another. A check that cannot run is a finding; an unreachable target is an error.
pub(super) async fn check(finisher: &Finisher, checks: &[Check]) -> Result<Vec<Checked>> {
    let mut found = Vec::with_capacity(checks.len());
    for check in checks {
        let name = check.name.value.clone();
        match finisher.finds(&name, &check.sql, MOST_ROWS).await {
            Ok(rows) => found.push(Checked { name, found: Ok(rows) }),
            Err(error) if error.kind == Kind::Unreachable => return Err(error),
            Err(error) => found.push(Checked { name, found: Err(error.what) }),
        }
    }
    Ok(found)
}
