//! What a process runs: sources × log × lanes, built in one place. Everything is prepared first, and only then does anything run.
//!
//! - `load`: the migration file, the plan, the sources.
//! - `capture`: one capture for each source, whichever the log is.
//! - `direct`, `kafka`: what each log puts between that capture and the target.
//! - `apply`: appliers of Kafka.

mod adopt;
mod apply;
mod capture;
mod direct;
mod kafka;
pub(crate) mod load;

use std::sync::Arc;

use slackwater_connectors::error::Error;
use slackwater_connectors::kafka::{Refusals, Renewal, Settings};
use tokio::task::JoinSet;

use crate::apply::schema_watch::{Schema, SchemaWatch};
use crate::checks;
use crate::config::{KafkaLog, Log, Migration, Source, System};
use crate::failure::Failure;
use crate::mapping::Plan;
use crate::ops::gauges::Gauges;
use crate::ops::health::{About, Health, ProcessRole};
use crate::ops::look::Named;
use crate::ops::stop::Stop;
use crate::ops::{presence, process};
use crate::verify;

/// The tasks of a process: they live and die together.
pub(crate) type Tasks = JoinSet<(&'static str, Result<(), Error>)>;

/// What a process does.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// Everything.
    Run,
    /// From the sources into Kafka, or from one of them.
    Capture { source: Option<String> },
    /// From Kafka into the target. The name stays the same over restarts, where there is one.
    Apply { member: Option<String> },
}

impl Role {
    /// How healthy a process with this role is, before anything is known of it.
    pub(crate) fn health(&self) -> Health {
        let (role, name) = match self {
            Self::Run => (ProcessRole::Run, "run".to_owned()),
            Self::Capture { source: None } => (ProcessRole::Capture, "capture".to_owned()),
            Self::Capture { source: Some(source) } => (ProcessRole::Capture, format!("capture/{source}")),
            Self::Apply { member } => {
                (ProcessRole::Apply, format!("apply/{}", apply::named(member.as_deref())))
            }
        };
        Health::new(role, name, process::now_millis())
    }
}

/// A process that is being put together.
struct Process {
    migration: Arc<Migration>,
    plan: Arc<Plan>,
    /// Changes when the migration file does.
    fingerprint: String,
    /// The sources that it captures.
    captured: Vec<String>,
    gauges: Arc<Gauges>,
    health: Arc<Health>,
    stop: Stop,
    /// Tells lanes when the target's tables have changed.
    schema: Schema,
    /// Of Kafka's clients.
    refusals: Refusals,
    tasks: Tasks,
}

impl Process {
    /// The same process, with tasks of its own.
    fn part(&self) -> Self {
        Self {
            migration: Arc::clone(&self.migration),
            plan: Arc::clone(&self.plan),
            fingerprint: self.fingerprint.clone(),
            captured: self.captured.clone(),
            gauges: Arc::clone(&self.gauges),
            health: Arc::clone(&self.health),
            stop: self.stop.clone(),
            schema: self.schema.clone(),
            refusals: self.refusals.clone(),
            tasks: JoinSet::new(),
        }
    }

    /// How to reach Kafka, for one of our parts.
    fn kafka(&self, log: &KafkaLog, part: &str) -> Settings {
        Settings { refusals: self.refusals.clone(), ..log.settings(part) }
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<(), Error>> + Send + 'static) {
        self.tasks.spawn(async move { (name, task.await) });
    }
}

/// The task that ends when a broker has refused us and would let us in with what the files of its options hold now: everything is to be
/// started again then.
pub(crate) const RENEWAL: &str = "renewal";

async fn renewal(renewal: Renewal, mut stop: Stop) -> Result<(), Error> {
    tokio::select! {
        () = stop.wait() => Ok(()),
        due = renewal.due() => due,
    }
}

/// Prepares everything and starts the tasks.
pub(crate) async fn start(
    file: &load::Loaded,
    role: &Role,
    (gauges, health): (&Arc<Gauges>, &Arc<Health>),
    stop: &Stop,
) -> Result<Tasks, Failure> {
    let migration = Arc::clone(&file.migration);
    health.is_about(About {
        named: Named::of(&migration),
        target: migration.target.uri.clone(),
        kafka: matches!(migration.log, Log::Kafka(_)),
    });
    let plan = load::plan_at_start(&migration).await?;
    load::sequences(&migration, &plan).await?;
    let (watch, schema) = SchemaWatch::new(Arc::clone(&migration), &plan, Arc::clone(gauges), stop.clone());
    let (fingerprint, refusals) = (file.fingerprint.clone(), Refusals::default());
    let (gauges, stop) = (Arc::clone(gauges), stop.clone());
    let mut process = Process {
        migration,
        plan,
        fingerprint,
        captured: Vec::new(),
        gauges,
        health: Arc::clone(health),
        stop,
        schema,
        refusals,
        tasks: JoinSet::new(),
    };
    if let Log::Kafka(log) = &file.migration.log {
        let due = renewal(Renewal::of(&process.kafka(log, "renewal")), process.stop.clone());
        process.spawn(RENEWAL, due);
    }
    let present = presence::run(Arc::clone(health), Arc::clone(&process.gauges), process.stop.clone());
    match (role, process.migration.log.clone()) {
        (Role::Run, Log::Direct) => {
            capture::start(&mut process, None, None).await?;
            process.spawn("presence", present);
        }
        (Role::Run, Log::Kafka(log)) => {
            capture::start(&mut process, None, Some(&log)).await?;
            apply::start(&mut process, &log, None).await?;
            process.spawn("presence", present);
        }
        (Role::Capture { source }, Log::Kafka(log)) => {
            capture::start(&mut process, source.as_deref(), Some(&log)).await?;
            process.spawn("presence", present);
        }
        (Role::Apply { member }, Log::Kafka(log)) => {
            // An applier may have to wait for a capture; the others are there once they own their sources.
            process.spawn("presence", present);
            apply::start(&mut process, &log, member.as_deref()).await?;
        }
        (Role::Capture { .. } | Role::Apply { .. }, Log::Direct) => {
            let line = "the migration file has no Kafka between capture and apply: use `slackwater run`, or write \
                        `log: { kafka: { brokers: … } }`";
            return Err(Failure::Unsuitable(vec![line.to_owned()]));
        }
    }
    if let Some(wanted) = process.migration.verify.filter(|_| !matches!(role, Role::Apply { .. })) {
        let mut schema = process.schema.clone();
        let pace = Arc::new(verify::Pace::default());
        let patrol = verify::patrol(
            Arc::clone(&process.migration),
            wanted,
            Arc::clone(&pace),
            move || schema.newest(),
            process.stop.clone(),
        );
        process.spawn("verify", patrol);
        let only = match role {
            Role::Capture { source } => source.as_deref(),
            Role::Run | Role::Apply { .. } => None,
        };
        let sources = process.migration.sources.clone();
        // Of others only the process that copies them knows what changes.
        let ours = |source: &&Source| {
            only.is_none_or(|only| only == source.name.value)
                && matches!(source.system, System::Mongodb { .. })
        };
        for source in sources.iter().filter(ours) {
            let mut schema = process.schema.clone();
            let follow = verify::follow(
                Arc::clone(&process.migration),
                (source.clone(), wanted),
                Arc::clone(&pace),
                move || schema.newest(),
                process.stop.clone(),
            );
            process.spawn("verify changes", follow);
        }
    }
    let scheduled = process.migration.checks.iter().any(|check| check.schedule.is_some());
    if scheduled && !matches!(role, Role::Apply { .. }) {
        let patrol = checks::patrol(Arc::clone(&process.migration), process.stop.clone());
        process.spawn("checks", patrol);
    }
    // Not before: it writes into our schema, and a start that is refused has to leave no trace. Who asks it waits until then.
    process.spawn("watch the tables", watch.run());
    Ok(process.tasks)
}
