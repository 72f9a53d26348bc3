//! From Kafka into the target.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::kafka::{self, Admin, Membership, Right, Settings};
use slackwater_connectors::postgres::control::partitions::Taken;
use slackwater_connectors::postgres::control::{Control, lanes};
use slackwater_connectors::postgres::target::sink::Sink;
use slackwater_topics::CollectionId;
use tokio::sync::mpsc;

use super::Process;
use super::capture::in_time;
use crate::apply::desk::Claims;
use crate::apply::lane::Lane;
use crate::apply::reader::{Reader, Topic};
use crate::changes::digest_of;
use crate::config::{self, KafkaLog, Migration};
use crate::failure::Failure;
use crate::letters::Letters;
use crate::log::kafka::rights;
use crate::mapping::Plan;
use crate::ops::board::Place;
use crate::ops::gauges::Gauges;
use crate::ops::persist::Stopped;
use crate::ops::process;
use crate::ops::stop::Stop;
use crate::ops::store::Store;

/// Deliveries between the consumer and a reader; each may have 1 MB.
const BUFFER: usize = 4;
/// While no capture has begun the migration it is asked again this often.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How often the consumer is asked whether it hears from Kafka.
const LISTEN_EVERY: Duration = Duration::from_secs(1);

/// Prepares everything and starts the tasks.
pub(super) async fn start(
    process: &mut Process,
    log: &KafkaLog,
    member: Option<&str>,
) -> Result<(), Failure> {
    let (plan, target, stop) =
        (Arc::clone(&process.plan), process.migration.target.uri.clone(), process.stop.clone());
    let settings = process.kafka(log, "apply");
    kafka::check(&settings)?;
    let answers = let_in(&settings).await?;
    let mut control = Control::open(&target).await?;
    let name = named(member);
    let mapping = digest_of(&process.migration);
    let mut lanes = Vec::new();
    for writer in 0..log.writers {
        let lane = lanes::apply(&name, writer);
        let epoch = begun(&mut control, &plan, &mapping, &lane, &mut stop.clone()).await?;
        lanes.push((lane, epoch));
    }
    let topics = Arc::new(registered(&control, &process.migration, &plan, &mut stop.clone()).await?);
    // Looked for with each claim.
    let letters = Arc::new(Letters::new(false));
    let names: Vec<Arc<str>> = topics.iter().map(|topic| Arc::clone(&topic.name)).collect();
    if answers {
        let asked: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        rights::require(&settings, &asked, &log.group, &[Right::Read, Right::Group]).await?;
    }
    let own = lanes.first().cloned().unwrap_or_default();
    let store = || Store::new(&target, None, &stop);
    let claims = Claims::new(store(), (&plan.migration, &name), own, names, Arc::clone(&letters));
    let (handle, wishes) = kafka::handle(&settings);
    let mut readers = Vec::new();
    for (lane, epoch) in lanes {
        let sink = Sink::open(&target, &plan.migration, &lane, epoch, Arc::clone(&plan.tables)).await?;
        let (sender, deliveries) = mpsc::channel(BUFFER);
        readers.push(sender);
        let (letters, gauges) = (Arc::clone(&letters), Arc::clone(&process.gauges));
        let reader = Reader {
            lane: Lane::new(
                lane,
                sink,
                Arc::clone(&plan),
                letters,
                Arc::clone(&gauges),
                stop.clone(),
                process.schema.clone(),
            ),
            plan: Arc::clone(&plan),
            topics: Arc::clone(&topics),
            deliveries,
            consumer: handle.clone(),
            store: store(),
            member: name.clone(),
            gauges,
            stop: stop.clone(),
        };
        process.spawn("apply", reader.run());
    }
    let membership = Membership {
        group: log.group.clone(),
        member: member.map(str::to_owned),
        topics: topics.iter().map(|topic| (Arc::clone(&topic.name), topic.partitions)).collect(),
    };
    process.spawn("listen", listen(handle, Arc::clone(&process.gauges), stop));
    let thread = kafka::start(&settings, membership, claims, readers, wishes)?;
    process.tasks.spawn_blocking(move || {
        let ended = thread.join();
        let panicked = |_| Err(Error::new(Kind::Bug, "reading from Kafka", "the consumer's thread panicked"));
        ("consume", ended.unwrap_or_else(panicked))
    });
    tracing::info!(migration = plan.migration, member = name, topics = topics.len(), "applying");
    Ok(())
}

/// A broker that refuses us ends the start; one that is away is waited for. Whether any answers.
async fn let_in(settings: &Settings) -> Result<bool, Failure> {
    match Admin::open(settings)?.brokers().await {
        Err(error) if matches!(error.kind, Kind::Denied | Kind::Unsuitable) => Err(error.into()),
        answer => Ok(answer.is_ok()),
    }
}

/// Shows when Kafka does not answer the consumer.
async fn listen(consumer: kafka::Handle, gauges: Arc<Gauges>, mut stop: Stop) -> Result<(), Error> {
    while stop.sleep(LISTEN_EVERY).await {
        let trouble = consumer.trouble().map(|error| format!("Kafka does not answer ({error})"));
        gauges.board.set(Place::Consumer, trouble);
    }
    Ok(())
}

/// The name of a process; one is made for a process that was given none.
pub(super) fn named(member: Option<&str>) -> String {
    member.map_or_else(process::name, str::to_owned)
}

/// Takes a lane, as soon as a capture has begun the migration.
async fn begun(
    control: &mut Control,
    plan: &Plan,
    mapping: &str,
    lane: &str,
    stop: &mut Stop,
) -> Result<i64, Failure> {
    let (mut said, mut told) = (false, false);
    loop {
        match control.take_lane(&plan.migration, lane, plan.namespace.as_uuid(), mapping).await? {
            Taken::Ours(epoch) => return Ok(epoch),
            Taken::NotBegun => wait(&mut said, stop).await?,
            Taken::OtherMapping => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(
                        "waiting for a capture with this migration file: the one that works, or worked last, makes rows by other \
                         rules. Nothing is lost meanwhile; start both with the same file"
                    );
                }
                pause(stop).await?;
            }
        }
    }
}

/// The topics of the migration, as soon as a capture has written all of them down.
async fn registered(
    control: &Control,
    migration: &Migration,
    plan: &Plan,
    stop: &mut Stop,
) -> Result<Vec<Topic>, Failure> {
    let kind_of = |name: &str| {
        let source = migration.sources.iter().find(|source| source.name.value == name);
        source.map(config::Source::kind).unwrap_or_default()
    };
    let mut said = false;
    loop {
        let mut found: HashMap<String, (Arc<str>, u32)> = HashMap::new();
        for partition in control.log_partitions(&plan.migration).await? {
            found.entry(partition.collection).or_insert((partition.topic, 0)).1 += 1;
        }
        let topics: Option<Vec<Topic>> = plan
            .collections
            .iter()
            .enumerate()
            .map(|(place, collection)| {
                let (name, partitions) = found.get(&collection.name)?;
                Some(Topic {
                    name: Arc::clone(name),
                    collection: CollectionId(place as u16),
                    collection_name: collection.name.as_str().into(),
                    partitions: *partitions,
                    kind: kind_of(&collection.source),
                })
            })
            .collect();
        if let Some(topics) = topics {
            return Ok(topics);
        }
        wait(&mut said, stop).await?;
    }
}

async fn wait(said: &mut bool, stop: &mut Stop) -> Result<(), Failure> {
    if !*said {
        tracing::info!("no capture has begun this migration yet; waiting for one");
        *said = true;
    }
    pause(stop).await
}

async fn pause(stop: &mut Stop) -> Result<(), Failure> {
    if stop.sleep(ASK_EVERY).await { Ok(()) } else { Err(in_time(Stopped::Asked).into()) }
}
