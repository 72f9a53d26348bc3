//! The presence: the task that writes this process's beat, its sign of life, into the control store once a second.

use std::sync::Arc;
use std::time::Duration;

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::pulse::Beat;

use super::board::Place;
use super::gauges::Gauges;
use super::health::{About, Health, ProcessRole};
use super::process;
use super::stop::Stop;

/// How often the beat is written.
const EVERY: Duration = Duration::from_secs(1);
/// After this the connection is given up, and the next beat opens another.
const WRITE_WITHIN: Duration = Duration::from_secs(3);
/// A stop waits at most this long for the last beat.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);
/// Rows of processes whose last beat is older than this are deleted at the next start.
const FORGET_MS: i64 = 3_600_000;

/// Writes the beat until a stop is requested. An outage of the control store does not end the task; it goes on afterwards.
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
        health.report();
        let beat = beat(&health, &gauges);
        let writing = tokio::time::timeout(WRITE_WITHIN, write(&mut control, about, &beat, first));
        let written = tokio::select! {
            biased;
            () = stop.wait() => return Ok(()),
            written = writing => written,
        };
        match written {
            Ok(Ok(())) => {
                first = false;
                gauges.board.set(Place::Control, None);
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the beat cannot be written");
                gauges.board.set(Place::Control, Some(format!("the target does not answer ({error})")));
            }
            Err(_) => {
                tracing::debug!("the beat was not written in time");
                gauges.board.set(Place::Control, Some("the target does not answer in time".to_owned()));
            }
        }
    }
}

async fn write(control: &mut Option<Control>, about: &About, beat: &Beat, first: bool) -> Result<()> {
    // If this fails or is cancelled, the next beat opens a new connection.
    let mut open = match control.take() {
        Some(open) => open,
        None => Control::open(&about.target).await?,
    };
    if first {
        open.forget_processes(&about.named.migration, FORGET_MS).await?;
    }
    open.beat(&about.named.migration, beat, first).await?;
    *control = Some(open);
    Ok(())
}

/// Writes the last beat of a process that ends on request. A killed process writes none, so its silence shows.
pub(crate) async fn farewell(health: &Health, gauges: &Gauges) {
    let Some(about) = health.about() else { return };
    let writing = async {
        let mut control = Control::open(&about.target).await?;
        control.farewell(&about.named.migration, &beat(health, gauges)).await
    };
    match tokio::time::timeout(FAREWELL_WITHIN, writing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the last beat cannot be written"),
        Err(_) => tracing::debug!("the last beat was not written in time"),
    }
}

fn beat(health: &Health, gauges: &Gauges) -> Beat {
    let events = if health.role == ProcessRole::Capture { &gauges.sent } else { &gauges.events };
    Beat {
        name: health.name.clone(),
        instance: health.instance,
        role: health.role.word().to_owned(),
        host: process::host(),
        events: Gauges::get(events),
        rows: Gauges::get(&gauges.rows),
        bytes: Gauges::get(&gauges.bytes),
        documents: Gauges::get(&gauges.copied),
        trouble: gauges.board.text(),
    }
}
