//! Whether the target has reached a moment of a source.

use std::time::{Duration, Instant};

use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::source::Kind;
use slackwater_topics::Moment;

use super::{Cut, Verifier};
use crate::config::Migration;
use crate::ops::look::{Look, Named};
use crate::ops::persist::Stopped;
use crate::ops::stop::Stop;
use crate::ops::store::{Store, ask};
use crate::source::Source;

/// How often the target is asked how far it is, and how seldom where it takes long.
const EVERY: Duration = Duration::from_millis(30);
const SELDOM: Duration = Duration::from_millis(500);
/// A target that does not move for so long is not waited for by a verification.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Clocks are read by the second here and there.
const MARGIN: Duration = Duration::from_secs(2);

/// The present of a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Present {
    pub(crate) moment: Moment,
    pub(crate) at: Instant,
}

/// A source's present: what was acknowledged before is at or before it.
pub(crate) async fn present(source: &Source) -> slackwater_connectors::error::Result<Present> {
    let at = Instant::now();
    Ok(Present { moment: source.now().await?, at })
}

impl Verifier<'_> {
    /// Waits until the target shows everything of the source through its `present`. False where it does not move.
    pub(super) async fn reached(&mut self, source: &str, present: Present) -> Result<bool, Cut> {
        let of = self.source(source).kind();
        Ok(reached(self.migration, &mut self.store, &self.stop, (source, of), present, PATIENCE).await?)
    }
}

/// The same for others. A target that does not move for as long as `patience` is not waited for.
pub(crate) async fn reached(
    migration: &Migration,
    store: &mut Store,
    stop: &Stop,
    (source, kind): (&str, Kind),
    present: Present,
    patience: Duration,
) -> Result<bool, Stopped> {
    let mut stop = stop.clone();
    let mut last = (Instant::now(), None);
    let begun = Instant::now();
    loop {
        let about = Named::of(migration);
        let look = ask!(store, control => read(control, about.clone()))?;
        let through = look.applied_through_of(source);
        if has_reached(&look, source, kind.counts_by_itself(), present) {
            return Ok(true);
        }
        if through != last.1 {
            last = (Instant::now(), through);
        } else if last.0.elapsed() > patience {
            return Ok(false);
        }
        if !stop.sleep((begun.elapsed() / 8).clamp(EVERY, SELDOM)).await {
            return Err(Stopped::Asked);
        }
    }
}

/// Whether the target shows everything of the source through its `present`.
fn has_reached(look: &Look, source: &str, counts_by_itself: bool, present: Present) -> bool {
    if counts_by_itself {
        // Nobody but the process that reads it knows its moments, so times are compared.
        return look.lag_of(source).is_some_and(|lag| {
            let lag = Duration::from_millis(u64::try_from(lag).unwrap_or(u64::MAX));
            present.at.elapsed() > lag.saturating_add(MARGIN)
        });
    }
    look.applied_through_of(source).is_some_and(|through| through >= present.moment)
}

/// As much as is asked here.
async fn read(control: &Control, about: Named) -> slackwater_connectors::error::Result<Look> {
    let migration = about.migration;
    Ok(Look {
        expected: about.sources,
        lanes: control.lanes(&migration).await?,
        partitions: control.partitions(&migration).await?,
        clock: control.clock().await?,
        sources: control.sources(&migration).await?,
        migration,
        ..Look::default()
    })
}
