//! Removes rows that a recopy has not seen, where the log is Kafka: on the capture's own lane, because no lane of an applier belongs
//! to one source alone. A direct log sweeps on the lane of its stream.

use std::sync::Arc;

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::{Owner, lanes};
use slackwater_connectors::postgres::target::sink::Sink;
use slackwater_connectors::secret::Secret;
use tokio::sync::mpsc;

use super::lane::Lane;
use super::schema_watch::Schema;
use crate::letters::Letters;
use crate::log::kafka::watcher::SweepRequest;
use crate::mapping::Plan;
use crate::ops::gauges::Gauges;
use crate::ops::persist::{Stopped, ended, persist};
use crate::ops::stop::Stop;

/// What the sweeper works with.
pub(crate) struct Sweeper {
    pub(crate) plan: Arc<Plan>,
    pub(crate) target: Secret,
    pub(crate) owner: Owner,
    pub(crate) letters: Arc<Letters>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) requests: mpsc::Receiver<SweepRequest>,
    pub(crate) stop: Stop,
    pub(crate) schema: Schema,
}

impl Sweeper {
    /// Works until nobody can ask any more or it is to stop.
    pub(crate) async fn run(self) -> Result<()> {
        ended(self.work().await)
    }

    async fn work(mut self) -> std::result::Result<(), Stopped> {
        let name = lanes::own(&self.owner.source);
        while let Some((collections, answer)) = self.requests.recv().await {
            let (target, Owner { migration, epoch, .. }) = (&self.target, &self.owner);
            let mut schema = self.schema.clone();
            let (plan, sink) = loop {
                let plan = schema.newest();
                let tables = &plan.tables;
                let sink =
                    persist(&self.stop, || Sink::open(target, migration, &name, *epoch, Arc::clone(tables)));
                match sink.await {
                    Ok(sink) => break (plan, sink),
                    // A table has changed since the plan was made.
                    Err(Stopped::Failed(error)) if schema.explains(&error).await => {}
                    Err(stopped) => return Err(stopped),
                }
            };
            let mut lane = Lane::new(
                name.clone(),
                sink,
                plan,
                Arc::clone(&self.letters),
                Arc::clone(&self.gauges),
                self.stop.clone(),
                schema,
            );
            let rows = lane.sweep(&self.plan, &collections).await?;
            // The watcher may have been told to stop meanwhile.
            let _ = answer.send(rows);
        }
        Ok(())
    }
}
