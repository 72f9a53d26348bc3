//! Says once a second, in a row of its own, that this process lives, what it did, and what it waits for.

use std::sync::Arc;
use std::time::Duration;

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::pulse::Beat;

use super::board::Place;
use super::gauges::Gauges;
use super::health::{About, Health, Part};
use super::process;
use super::stop::Stop;

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// The control store gets this long; then another connection is made.
const WRITE_WITHIN: Duration = Duration::from_secs(3);
/// A stop waits no longer for the last word.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);
/// Rows of processes that are gone for so long are forgotten at the next start.
const FORGET_MS: i64 = 3_600_000;

/// Says so until it is to stop. A control store that is away is no reason to end: it hears of us when it is back.
pub(crate) async fn run(health: Arc<Health>, gauges: Arc<Gauges>, mut stop: Stop) -> Result<()> {
    let Some(about) = health.about() else { return Ok(()) };
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut control = None;
    let mut first = true;
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => return Ok(()),
            _ = ticks.tick() => {}
        }
        health.turn();
        let beat = beat(&health, &gauges);
        let saying = tokio::time::timeout(WRITE_WITHIN, say(&mut control, about, &beat, first));
        let said = tokio::select! {
            biased;
            () = stop.wait() => return Ok(()),
            said = saying => said,
        };
        match said {
            Ok(Ok(())) => {
                first = false;
                gauges.board.set(Place::Control, None);
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the control store does not hear that we live");
                gauges.board.set(Place::Control, Some(format!("the target does not answer ({error})")));
            }
            Err(_) => {
                tracing::debug!("the control store does not hear in time that we live");
                gauges.board.set(Place::Control, Some("the target does not answer in time".to_owned()));
            }
        }
    }
}

async fn say(control: &mut Option<Control>, about: &About, beat: &Beat, first: bool) -> Result<()> {
    // Where this is cut short or fails, the next one makes a new connection.
    let mut open = match control.take() {
        Some(open) => open,
        None => Control::open(&about.target).await?,
    };
    if first {
        open.forget_processes(&about.migration, FORGET_MS).await?;
    }
    open.beat(&about.migration, beat, first).await?;
    *control = Some(open);
    Ok(())
}

/// The last word of a process that ends because it was asked to. One that is cut off says nothing and is missed.
pub(crate) async fn farewell(health: &Health, gauges: &Gauges) {
    let Some(about) = health.about() else { return };
    let saying = async {
        let mut control = Control::open(&about.target).await?;
        control.farewell(&about.migration, &beat(health, gauges)).await
    };
    match tokio::time::timeout(FAREWELL_WITHIN, saying).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the control store does not hear that we end"),
        Err(_) => tracing::debug!("the control store does not hear in time that we end"),
    }
}

fn beat(health: &Health, gauges: &Gauges) -> Beat {
    let events = if health.part == Part::Capture { &gauges.sent } else { &gauges.events };
    Beat {
        name: health.name.clone(),
        instance: health.instance,
        role: health.part.word().to_owned(),
        host: process::host(),
        events: Gauges::get(events),
        rows: Gauges::get(&gauges.rows),
        bytes: Gauges::get(&gauges.bytes),
        documents: Gauges::get(&gauges.copied),
        trouble: gauges.board.text(),
    }
}
