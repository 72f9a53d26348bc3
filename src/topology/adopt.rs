//! What the rows are made by, at a start: it is compared with what they were made by, and what that means is said and asked for.
//! `docs/design/changed-mapping.md` has the reasons.

use std::time::Duration;

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::control::mapping::{Adoption, Recorded};
use slackwater_connectors::postgres::control::{Control, Takeover};

use super::Process;
use super::capture::in_time;
use crate::changes::{Changes, compare, count, digest_of, kept};
use crate::config::{Findings, Migration};
use crate::failure::Failure;
use crate::mapping::Plan;
use crate::ops::look::is_up;
use crate::ops::persist::Stopped;

/// How often it is looked whether the captures of other sources have ended.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How often it is tried again where another process was first.
const TRIES: usize = 5;

/// Before a source is taken over: a change that is not possible ends the start, and the captures of other sources have to end first where
/// they make rows by other rules.
pub(super) async fn ready(process: &Process, control: &Control) -> Result<(), Failure> {
    let (migration, digest) = (&process.migration, digest_of(&process.migration));
    let mut told = false;
    loop {
        let Some(before) = control.mapping(&migration.name).await? else { return Ok(()) };
        let is_other = before.digest.as_ref().is_some_and(|before| *before != digest);
        if is_other {
            judge(migration, &process.plan, &before)?;
        }
        let others = if is_other { others(process, control).await? } else { Vec::new() };
        if others.is_empty() {
            return Ok(());
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                processes = others.join(", "),
                "waiting for processes that make rows by other rules: the migration file has changed. Start them with this file too, \
                 or stop them"
            );
        }
        if !process.stop.clone().sleep(LOOK_EVERY).await {
            return Err(in_time(Stopped::Asked).into());
        }
    }
}

/// Whether our file is the one that rows are made by.
pub(super) async fn holds(process: &Process, control: &Control) -> Result<bool, Error> {
    let recorded = control.mapping(&process.migration.name).await?;
    Ok(recorded.is_some_and(|recorded| recorded.digest == Some(digest_of(&process.migration))))
}

/// What the file changes; a change that is not possible is a mistake in it.
fn judge(migration: &Migration, plan: &Plan, before: &Recorded) -> Result<Changes, Failure> {
    let changes = compare(migration, plan, Some(before));
    if changes.refused.is_empty() {
        return Ok(changes);
    }
    let mut findings = Findings::new(migration.file.clone());
    changes.complain(&mut findings);
    Err(Failure::Mistakes(findings.finish()))
}

/// Processes that are at work for sources that are not ours.
async fn others(process: &Process, control: &Control) -> Result<Vec<String>, Error> {
    if process.captured.len() == process.migration.sources.len() {
        return Ok(Vec::new());
    }
    let rows = control.processes(&process.migration.name).await?;
    let others = rows.into_iter().filter(|row| {
        row.name != process.health.name && matches!(row.role.as_str(), "capture" | "run") && is_up(row)
    });
    Ok(others.map(|row| row.name).collect())
}

/// Goes on with this file, as the capture that has just taken its source over.
pub(super) async fn adopt(
    process: &Process,
    control: &mut Control,
    takeover: &Takeover,
) -> Result<(), Failure> {
    let (migration, plan) = (&process.migration, &process.plan);
    let digest = digest_of(migration);
    let sources: Vec<&str> = process.captured.iter().map(String::as_str).collect();
    let mut tries = 1;
    loop {
        let before = control.mapping(&migration.name).await?;
        let Some(before) = before else { return Ok(()) };
        let changes = judge(migration, plan, &before)?;
        let other_file =
            takeover.previous_file_hash.as_ref().is_some_and(|hash| *hash != process.fingerprint);
        if changes.unknown && other_file {
            tracing::warn!(
                "the migration file has changed since the last run, which a version did that kept nothing of it: rows written before \
                 are as it said then. `slackwater recopy FILE` copies them again"
            );
        }
        let counts = count::count(&migration.target.uri, &changes).await;
        let lines: Vec<String> = changes
            .list
            .iter()
            .map(|change| change.text(change.table.as_ref().and_then(|table| counts.get(table)).copied()))
            .collect();
        let collections = kept(migration, plan, Some(&before));
        let (recopies, out) = (changes.recopies(), changes.out());
        let standing = migration.collections.iter().filter(|collection| collection.append_only.is_some());
        let standing: Vec<&str> = standing.map(|collection| collection.name.value.as_str()).collect();
        let adoption = Adoption {
            digest: &digest,
            before: before.digest.as_deref(),
            sources: &sources,
            collections: &collections,
            recopies: &recopies,
            out: &out,
            left: &changes.left,
            append_only: &standing,
            text: &lines.join("; "),
        };
        match control.adopt(&adoption).await {
            Ok(()) => {
                for line in lines {
                    tracing::info!("the migration file has changed: {line}");
                }
                return Ok(());
            }
            Err(error) if error.kind == Kind::Contention && tries < TRIES => tries += 1,
            Err(error) => return Err(error.into()),
        }
    }
}
