//! What works beside whatever reads the source: the beat of its clock, and the watch for a cutover.

use std::sync::Arc;

use slackwater_connectors::error::Error;
use slackwater_connectors::mongodb::Mongo;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::source::Heard;
use tokio::sync::watch;

use super::{Loaded, Tasks};
use crate::capture::pulse::Pulse;
use crate::cutover::watch::{Phase, Watch};
use crate::ops::gauges::Gauges;
use crate::ops::stop::Stop;

/// What they tell the router.
pub(super) type Told = (watch::Sender<Option<Heard>>, watch::Sender<Phase>);

/// Starts both, for the process that has this epoch.
pub(super) async fn start(
    loaded: &Loaded,
    (source, mongo): (&str, Mongo),
    epoch: i64,
    (heard, phase): Told,
    tasks: &mut Tasks,
    (gauges, stop): (&Arc<Gauges>, &Stop),
) -> Result<(), Error> {
    let target = &loaded.migration.target.uri;
    let mut control = Control::open(target).await?;
    control.act_as(&loaded.plan.migration, epoch);
    let pulse = Pulse {
        mongo: mongo.clone(),
        control,
        target: target.clone(),
        migration: loaded.plan.migration.clone(),
        source: source.to_owned(),
        epoch,
        heard,
        gauges: Arc::clone(gauges),
        stop: stop.clone(),
    };
    tasks.spawn(async move { ("pulse", pulse.run().await) });
    let watch = Watch {
        migration: loaded.plan.migration.clone(),
        target: target.clone(),
        mongo,
        freeze: loaded.migration.cutover.freeze.clone(),
        phase,
        stop: stop.clone(),
    };
    tasks.spawn(async move { ("cutover", watch.run().await) });
    Ok(())
}
