//! Gathers the facts that a plan needs. Reads only.

use std::time::{Duration, Instant};

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::accepted::Accepted;
use slackwater_connectors::postgres::target::finish::Finisher;

use super::accept::sift;
use super::plan::{Blocker, Facts, SourceFacts, blockers, may_pass};
use crate::checks;
use crate::config::{Freeze, Migration};
use crate::ops::look::{self, Look};
use crate::source::{Named, unmapped};

/// How long is waited for blockers that may soon be gone, and how often is looked.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// While one of these blocks, the target does not follow, and what both sides say cannot be compared.
const NOT_FOLLOWING: [&str; 8] = [
    "snapshot_unfinished",
    "capture_stopped",
    "applier_stopped",
    "applier_joining",
    "trouble",
    "lag",
    "source_away",
    "another_cutover",
];

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
            // While a cutover is under way it is that one which has frozen it.
            if busy.is_none() {
                facts.frozen = named.source.is_frozen().await.ok().flatten();
            }
            facts.writer = named.source.oldest_writer().await.ok().flatten();
        }
        asked.push(facts);
    }
    let finisher = Finisher::open(&migration.target.uri, &migration.target.schema).await?;
    let checks = checks::queries(&finisher, migration).await?;
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
    let (mut facts, found, noted) = loop {
        let facts = gather(migration, control, sources, busy.clone()).await?;
        let mut noted = accepted.clone();
        let found = sift(blockers(migration, &facts), &mut noted);
        if found.is_empty() || !may_pass(&facts, &found) || begun.elapsed() > SETTLE_WITHIN {
            break (facts, found, noted);
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    };
    if found.iter().any(|blocker| NOT_FOLLOWING.contains(&blocker.name)) {
        *accepted = noted;
        return Ok((facts, found));
    }
    // Once, because both sides are read several times for it.
    facts.checks.extend(Box::pin(checks::at_gate(migration, sources)).await?);
    let found = sift(blockers(migration, &facts), accepted);
    Ok((facts, found))
}
