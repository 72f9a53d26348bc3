//! Verifies everything again and again, slowly, beside the other work of a process, if the migration file wants it.

use std::sync::Arc;
use std::time::Duration;

use slackwater_connectors::error::Result;

use super::{Cut, Progress, Wanted, verify};
use crate::config::{Migration, Verify};
use crate::mapping::Plan;
use crate::ops::look::{Look, Named as About};
use crate::ops::persist::{Stopped, ended};
use crate::ops::stop::Stop;
use crate::ops::store::{Store, ask};

/// How often it is asked whether one is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Works until it is to stop. `plan`: the plan as it is when one begins.
pub(crate) async fn patrol(
    migration: Arc<Migration>,
    wanted: Verify,
    plan: impl FnMut() -> Arc<Plan>,
    stop: Stop,
) -> Result<()> {
    ended(work(&migration, wanted, plan, stop).await)
}

async fn work(
    migration: &Migration,
    wanted: Verify,
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
        let all = Wanted { throttle: Some(wanted.throttle), ..Wanted::default() };
        match Box::pin(verify(migration, &plan(), all, &progress, &stop)).await {
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

/// The last one of everything began long enough ago, or there was none; and there is something to verify.
fn is_due(look: &Look, every: Duration) -> bool {
    let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
    let last = look.verified.filter(|verified| verified.whole).map(|verified| verified.began);
    look.copied() && look.opened_at().is_none() && last.is_none_or(|began| look.clock - began >= every)
}
