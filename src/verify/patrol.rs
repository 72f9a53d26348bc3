//! Verifies beside the other work of a process, if the migration file wants it: what changes, soon after it was applied, and everything again
//! and again, slowly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::proofs::FindingRow;

use super::pace::Pace;
use super::report::sentence;
use super::{Cut, Follower, Progress, Wanted, verify};
use crate::config::{Migration, Source, Verify};
use crate::mapping::Plan;
use crate::ops::look::{Look, Named as About};
use crate::ops::persist::{Stopped, ended, persist};
use crate::ops::stop::Stop;
use crate::ops::store::{Store, ask};
use crate::source::Named;

/// How often it is asked whether one is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// No more findings of one look are told one by one.
const MOST_TOLD: usize = 20;
/// How soon one steps aside for somebody who waits.
const ASIDE_EVERY: Duration = Duration::from_millis(500);
/// Between two looks at what has changed.
const BETWEEN_STEPS: Duration = Duration::from_millis(200);
/// How often it is asked which collections can be followed, where none can yet, and otherwise.
const UNCOVERED: Duration = Duration::from_millis(500);
const COVER_EVERY: Duration = Duration::from_secs(2);

/// Works until it is to stop. `plan`: the plan as it is when one begins.
pub(crate) async fn patrol(
    migration: Arc<Migration>,
    wanted: Verify,
    pace: Arc<Pace>,
    plan: impl FnMut() -> Arc<Plan>,
    stop: Stop,
) -> Result<()> {
    ended(work(&migration, wanted, &pace, plan, stop).await)
}

/// Verifies what changes in a source, until it is to stop.
pub(crate) async fn follow(
    migration: Arc<Migration>,
    (source, wanted): (Source, Verify),
    pace: Arc<Pace>,
    plan: impl FnMut() -> Arc<Plan>,
    stop: Stop,
) -> Result<()> {
    let mut plan = plan;
    let mut paused = stop.clone();
    let mut warned = false;
    loop {
        let failure = match work_on_changes(&migration, (&source, wanted), &pace, &mut plan, &stop).await {
            Ok(()) | Err(Cut::Asked) => return Ok(()),
            Err(Cut::Failed(failure)) => failure.into_error(),
        };
        // The stream goes on whatever becomes of its verification. A table that has changed is another one with the next plan.
        if std::mem::replace(&mut warned, true) {
            tracing::debug!(error = %failure, "changes cannot be verified");
        } else {
            tracing::warn!(error = %failure, "changes cannot be verified now; trying again");
        }
        if !paused.sleep(LOOK_EVERY).await {
            return Ok(());
        }
    }
}

async fn work_on_changes(
    migration: &Migration,
    (source, wanted): (&Source, Verify),
    pace: &Arc<Pace>,
    plan: &mut impl FnMut() -> Arc<Plan>,
    stop: &Stop,
) -> std::result::Result<(), Cut> {
    let named = persist(stop, || Named::connect(source)).await?;
    let follower = Follower::new(migration, &plan(), named, (1, true), stop).await?;
    let mut follower = follower.at_pace(pace);
    let mut store = Store::new(&migration.target.uri, None, stop);
    let mut stop = stop.clone();
    let mut covered: Option<Instant> = None;
    loop {
        let mut pause = BETWEEN_STEPS;
        follower.plan_is(&plan()).await?;
        let due = covered.is_none_or(|at| at.elapsed() > COVER_EVERY);
        if due {
            covered = follower.cover().await?.then(Instant::now);
        }
        if covered.is_some() {
            let begun = Instant::now();
            match follower.step().await? {
                Some(step) => {
                    let rest = follower.rest(&step, begun.elapsed(), wanted.throttle);
                    if !step.found.is_empty() {
                        tell(migration, &mut store, &step.found).await?;
                    }
                    pause = pause.max(rest);
                }
                None => covered = None,
            }
        }
        if !stop.sleep(if covered.is_some() { pause } else { UNCOVERED }).await {
            return Err(Cut::Asked);
        }
    }
}

async fn work(
    migration: &Migration,
    wanted: Verify,
    pace: &Arc<Pace>,
    mut plan: impl FnMut() -> Arc<Plan>,
    mut stop: Stop,
) -> std::result::Result<(), Stopped> {
    let mut store = Store::new(&migration.target.uri, None, &stop);
    let progress = Arc::new(Progress::default());
    loop {
        if !stop.sleep(LOOK_EVERY).await {
            return Err(Stopped::Asked);
        }
        let look = ask!(store, control => Look::read(control, &About::of(migration)))?;
        if !is_due(&look, wanted.every) {
            continue;
        }
        let all = Wanted {
            throttle: Some(wanted.throttle),
            pace: Some(Arc::clone(pace)),
            aside: true,
            ..Wanted::default()
        };
        let plan = plan();
        let verified = tokio::select! {
            verified = Box::pin(verify(migration, &plan, all, &progress, &stop)) => verified,
            somebody = somebody_waits(migration, &stop) => {
                somebody?;
                continue;
            }
        };
        match verified {
            Ok(report) if report.is_equal() => tracing::info!("verified: everything is equal"),
            Ok(report) => {
                tracing::warn!(
                    "verified: not everything is as its documents make it; `slackwater status` and `slackwater verify` say more"
                );
                if report.has_findings() {
                    let (name, text) = (&migration.name, report.line());
                    ask!(store, control => control.note_incident(name, "findings", &text))?;
                }
            }
            Err(Cut::Asked) => return Err(Stopped::Asked),
            // Another process verifies, or something is in the way that others tell of: later.
            Err(Cut::Failed(failure)) => {
                tracing::debug!(error = %failure.into_error(), "no verification now")
            }
        }
    }
}

/// Tells of what was found of changes.
async fn tell(
    migration: &Migration,
    store: &mut Store,
    found: &[FindingRow],
) -> std::result::Result<(), Stopped> {
    const REMEDY: &str = "`slackwater repair` sends the document again";
    for finding in found.iter().take(MOST_TOLD) {
        tracing::warn!(remedy = REMEDY, "a row is not what its document makes: {}", sentence(finding));
    }
    let name = &migration.name;
    let first = found.first().map(sentence).unwrap_or_default();
    let text = match found.len() {
        1 => first,
        more => format!("{first}, and {} more", more - 1),
    };
    ask!(store, control => control.note_incident(name, "findings", &text))
}

/// Ends when somebody waits for a verification: theirs goes on where this one is.
async fn somebody_waits(migration: &Migration, stop: &Stop) -> std::result::Result<(), Stopped> {
    let mut store = Store::new(&migration.target.uri, None, stop);
    let mut stop = stop.clone();
    let name = &migration.name;
    loop {
        if ask!(store, control => control.is_proof_wanted(name))? {
            return Ok(());
        }
        if !stop.sleep(ASIDE_EVERY).await {
            return Err(Stopped::Asked);
        }
    }
}

/// The last one of everything began long enough ago, or there was none; and there is something to verify.
fn is_due(look: &Look, every: Duration) -> bool {
    let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
    let last = look.verified.filter(|verified| verified.whole).map(|verified| verified.began);
    // Changes that are followed are of use together with one of everything only.
    let lacks_one = look.followed.iter().any(|row| !row.based);
    look.copied()
        && look.opened_at().is_none()
        && (lacks_one || last.is_none_or(|began| look.clock - began >= every))
}
