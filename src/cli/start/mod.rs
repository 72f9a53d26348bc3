//! What `run`, `capture` and `apply` start: everything is prepared first, and only then does anything run.

mod apply;
mod beside;
mod capture;
mod direct;

use std::path::Path;
use std::sync::Arc;

use slackwater_connectors::error::Error;
use slackwater_connectors::mongodb::{Mongo, Preflight};
use tokio::task::JoinSet;

use super::check::findings_or_failure;
use super::exit::Failure;
use super::load;
use crate::apply::stream::now_millis;
use crate::config::{Log, Migration};
use crate::mapping::Plan;
use crate::ops::gauges::Gauges;
use crate::ops::health::{About, Health, Part};
use crate::ops::presence;
use crate::ops::stop::Stop;

/// The tasks of a process: they live and die together.
pub(super) type Tasks = JoinSet<(&'static str, Result<(), Error>)>;

/// What a process does.
#[derive(Clone, Debug)]
pub(super) enum Role {
    /// Everything.
    Run,
    /// From the source into Kafka.
    Capture,
    /// From Kafka into the target. The name stays the same over restarts, where there is one.
    Apply { member: Option<String> },
}

impl Role {
    /// How a process with this role is called, before anything is known of it.
    pub(super) fn health(&self) -> Health {
        let (part, name) = match self {
            Self::Run => (Part::Run, "run".to_owned()),
            Self::Capture => (Part::Capture, "capture".to_owned()),
            Self::Apply { member } => (Part::Apply, format!("apply/{}", apply::named(member.as_deref()))),
        };
        Health::new(part, name, now_millis())
    }
}

/// A migration file and what it was compiled to.
struct Loaded {
    migration: Migration,
    plan: Arc<Plan>,
    fingerprint: String,
}

/// Prepares everything and starts the tasks.
pub(super) async fn start(
    path: &Path,
    role: &Role,
    (gauges, health): (&Arc<Gauges>, &Arc<Health>),
    stop: &Stop,
) -> Result<Tasks, Failure> {
    let migration = load::migration(path)?;
    health.is_about(About {
        migration: migration.name.clone(),
        named: migration.collections.len(),
        target: migration.target.uri.clone(),
        kafka: matches!(migration.log, Log::Kafka(_)),
    });
    let plan = load::plan(&migration).await?;
    let loaded = Loaded { migration, plan, fingerprint: load::fingerprint(path)? };
    let mut tasks = JoinSet::new();
    // An applier may have to wait for a capture; others are there once they own the migration.
    let present = |tasks: &mut Tasks| {
        let presence = presence::run(Arc::clone(health), Arc::clone(gauges), stop.clone());
        tasks.spawn(async move { ("presence", presence.await) });
    };
    match (role, &loaded.migration.log) {
        (Role::Run, Log::Direct) => {
            let (mongo, _) = source(&loaded).await?;
            direct::start(&loaded, mongo, &mut tasks, gauges, stop).await?;
            present(&mut tasks);
        }
        (Role::Run, Log::Kafka(kafka)) => {
            let (mongo, preflight) = source(&loaded).await?;
            capture::start(&loaded, kafka, (mongo, &preflight), &mut tasks, gauges, stop).await?;
            apply::start(&loaded, kafka, None, &mut tasks, gauges, stop).await?;
            present(&mut tasks);
        }
        (Role::Capture, Log::Kafka(kafka)) => {
            let (mongo, preflight) = source(&loaded).await?;
            capture::start(&loaded, kafka, (mongo, &preflight), &mut tasks, gauges, stop).await?;
            present(&mut tasks);
        }
        (Role::Apply { member }, Log::Kafka(kafka)) => {
            present(&mut tasks);
            apply::start(&loaded, kafka, member.as_deref(), &mut tasks, gauges, stop).await?;
        }
        (Role::Capture | Role::Apply { .. }, Log::Direct) => {
            let line = "the migration file has no Kafka between capture and apply: use `slackwater run`, or write \
                        `log: { kafka: { brokers: … } }`";
            return Err(Failure::Unsuitable(vec![line.to_owned()]));
        }
    }
    Ok(tasks)
}

/// Connects to the source and sees whether it is fit.
async fn source(loaded: &Loaded) -> Result<(Mongo, Preflight), Failure> {
    let (mongo, preflight, findings) = load::source(&loaded.migration, &loaded.plan).await?;
    findings_or_failure(&findings)?;
    for warning in load::warnings(&loaded.plan, &findings) {
        tracing::warn!("{warning}");
    }
    Ok((mongo, preflight))
}

/// A piece that turns out larger than planned is cut here.
fn most_bytes(migration: &Migration) -> usize {
    usize::try_from(migration.snapshot.chunk_bytes.saturating_mul(2)).unwrap_or(usize::MAX)
}

fn announce(plan: &Plan, first_run: bool) {
    let (collections, tables) = (plan.collections.len(), plan.tables.len());
    if first_run {
        tracing::info!(migration = plan.migration, collections, tables, "started");
    } else {
        tracing::info!(migration = plan.migration, collections, tables, "going on where it stopped");
    }
}
