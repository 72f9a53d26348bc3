//! The log in Kafka of a capture: the producer and what sends with it, and what hears from appliers.

use std::sync::Arc;

use slackwater_connectors::kafka::{self, Admin, Producer, Right, Ticket};
use slackwater_connectors::postgres::control::partitions::{LogPartition, NewPartition};
use slackwater_connectors::postgres::control::{Control, Owner, lanes};
use slackwater_connectors::secret::Secret;
use slackwater_topics::{CollectionId, Moment, Position, debezium};
use tokio::sync::{mpsc, watch};

use super::Process;
use super::capture::{Joined, Origin, in_time, take_over};
use crate::apply::sweeper::Sweeper;
use crate::config::{KafkaLog, Values};
use crate::failure::Failure;
use crate::letters::Letters;
use crate::log::kafka::outgoing::{Outgoing, Topic};
use crate::log::kafka::publisher::Publisher;
use crate::log::kafka::rights;
use crate::log::kafka::topics::{Ready, topics_ready};
use crate::log::kafka::watcher::Watcher;
use crate::log::kafka::{ChunkSender, Topics};
use crate::log::{ChunkLog, Filling, Log};
use crate::mapping::Plan;
use crate::ops::persist::Stopped;
use crate::ops::stop::Stop;
use crate::ops::store::Store;

/// Batches between router and publisher; each may have 16 MB.
const BUFFER: usize = 1;
/// No document of MongoDB needs more, in whatever form.
const MOST_IN_ONE: usize = 64 << 20;

/// Takes the source over and starts what sends into its topics.
pub(super) async fn join(process: &mut Process, origin: &Origin, log: &KafkaLog) -> Result<Joined, Failure> {
    let mut settings = process.kafka(log, "capture");
    kafka::check(&settings)?;
    let admin = Admin::open(&settings)?;
    let ready = topics_ready(&admin, &process.migration, log).await?;
    let names: Vec<String> =
        origin.collections.iter().map(|id| ready[usize::from(id.0)].name.clone()).collect();
    rights::require(&settings, &names, &log.group, &[Right::Write]).await?;
    let largest = largest_record(&ready);
    let limit = "message.max.bytes";
    if !settings.producer.iter().chain(&settings.options).any(|(name, _)| name == limit) {
        settings.producer.push((limit.to_owned(), Secret::new(largest.to_string())));
    }

    let plan = Arc::clone(&process.plan);
    let (name, source) = (&origin.named.name, &origin.named.source);
    let (mut control, takeover) = take_over(process, origin, "kafka", &[&lanes::own(name)]).await?;
    let owner = takeover.owner;
    let known = control.log_partitions(&plan.migration).await?;
    let counts = partitions(&plan, &ready, &known)?;
    let before = control.position(&plan.migration, name).await?;
    let first = before.is_none();
    let position = match before {
        Some(position) => position,
        None => Position::new(source.now().await?, Vec::new()),
    };
    register(&plan, &admin, &mut control, &ready, &counts, &known, &position).await?;
    let lost = lost(&plan, origin, &admin, &known).await?;

    let sizes: Vec<(String, u32)> =
        ready.iter().zip(&counts).map(|(topic, count)| (topic.name.clone(), *count)).collect();
    let producer = Producer::open(&settings, &sizes)?;
    let most = largest.min(producer.largest_record());
    let topics = topics(&plan, log, origin, &ready, &counts, most);
    let outgoing = Arc::new(Outgoing::new(producer, topics, owner.epoch, (&plan.migration, name)));
    announce_epoch(&outgoing, &origin.collections, position.moment, &mut process.stop.clone()).await?;
    // Nothing more of captures before us is taken, so all that they have sent is from before this.
    let now = source.now().await?;
    // Their look-ups may have seen as far. Where every change brings its document there were none.
    let horizon = if first || origin.fitness.is_exact() { Moment::default() } else { now };

    let (log, chunks, letters) = start(process, origin, &owner, outgoing, admin);
    Ok(Joined { owner, first_run: takeover.first_run, log, chunks, letters, position, now, horizon, lost })
}

/// Starts the tasks behind the log: one that sends, one that hears from appliers, one that sweeps.
fn start(
    process: &mut Process,
    origin: &Origin,
    owner: &Owner,
    outgoing: Arc<Outgoing>,
    admin: Admin,
) -> (Log, Vec<ChunkLog>, Arc<Letters>) {
    // Other processes write dead letters, so there may always be some.
    let letters = Arc::new(Letters::new(true));
    let (batches, batches_out) = mpsc::channel(BUFFER);
    let (safe_in, safe) = watch::channel(Moment::default());
    let (news_in, news) = mpsc::unbounded_channel();
    let (watcher, watched) = mpsc::unbounded_channel();
    let (sweeper, requests) = mpsc::channel(1);
    let store = |stop: &Stop| Store::new(&process.migration.target.uri, Some(owner), stop);
    let publisher = Publisher {
        outgoing: Arc::clone(&outgoing),
        plan: Arc::clone(&process.plan),
        collections: origin.collections.clone(),
        store: store(&process.stop),
        batches: batches_out,
        safe: safe_in,
        news: news_in.clone(),
        watcher: watcher.clone(),
        reach: Arc::clone(&origin.reach),
        gauges: Arc::clone(&process.gauges),
        stop: process.stop.clone(),
    };
    let hears = Watcher {
        plan: Arc::clone(&process.plan),
        source: owner.source.clone(),
        store: store(&process.stop),
        watched,
        news: news_in,
        sweeper,
        stop: process.stop.clone(),
    };
    let sweeps = Sweeper {
        plan: Arc::clone(&process.plan),
        target: process.migration.target.uri.clone(),
        owner: owner.clone(),
        letters: Arc::clone(&letters),
        gauges: Arc::clone(&process.gauges),
        requests,
        stop: process.stop.clone(),
        schema: process.schema.clone(),
    };
    let chunks = (0..process.migration.snapshot.workers)
        .map(|_| ChunkSender::new(&outgoing, store(&process.stop), &process.stop))
        .map(|sender| ChunkLog::Kafka(Box::new(sender)))
        .collect();
    process.spawn("publish", publisher.run());
    process.spawn("watch", hears.run());
    process.spawn("sweep", sweeps.run());
    let filling = Filling::Kafka(Topics { outgoing, admin, watcher, stop: process.stop.clone() });
    (Log { batches, safe, news, filling }, chunks, letters)
}

/// The topics as the producer knows them, in the plan's order.
fn topics(
    plan: &Plan,
    log: &KafkaLog,
    origin: &Origin,
    ready: &[Ready],
    counts: &[u32],
    most: usize,
) -> Vec<Topic> {
    let described = ready.iter().zip(&plan.collections).zip(counts);
    described
        .map(|((topic, collection), partitions)| Topic {
            name: topic.name.as_str().into(),
            partitions: *partitions,
            collection: collection.name.clone(),
            most,
            tombstones: topic.compacted,
            travel: collection.travel.clone(),
            debezium: match log.values {
                Values::Bson => None,
                Values::Debezium { schemas } => Some(debezium::Writer::new(debezium::WriterOptions {
                    name: &plan.migration,
                    topic: &topic.name,
                    database: &origin.named.database,
                    collection: &collection.collection,
                    schemas,
                })),
            },
        })
        .collect()
}

/// What every topic takes in one record, and in one batch of them: a producer knows only one limit, and the frame around a
/// batch is not in its count. Larger events travel in parts.
fn largest_record(ready: &[Ready]) -> usize {
    let least = ready.iter().map(|topic| topic.largest).min().unwrap_or(usize::MAX);
    (least - least / 20).min(MOST_IN_ONE)
}

/// How many partitions of each topic count: as many as were written down when it was first used.
fn partitions(plan: &Plan, ready: &[Ready], known: &[LogPartition]) -> Result<Vec<u32>, Failure> {
    let mut complaints = Vec::new();
    let mut counts = Vec::with_capacity(ready.len());
    for (topic, collection) in ready.iter().zip(&plan.collections) {
        let mine = known.iter().filter(|partition| partition.collection == collection.name);
        let (mut registered, mut name) = (0, None);
        for partition in mine {
            registered += 1;
            name = Some(&partition.topic);
        }
        if let Some(name) = name.filter(|name| ***name != *topic.name) {
            complaints.push(format!(
                "{} went through topic {name} until now and would go through {}: put the old prefix back, or give the migration \
                 a new name",
                collection.name, topic.name
            ));
        }
        if registered > topic.partitions {
            complaints.push(format!(
                "topic {} has {} partitions, and {registered} are in use: give it back the missing ones (`kafka-topics --alter \
                 --partitions {registered}`)",
                topic.name, topic.partitions
            ));
        }
        if registered > 0 && registered < topic.partitions {
            tracing::warn!(
                topic = topic.name,
                in_use = registered,
                partitions = topic.partitions,
                "partitions were added to this topic; they stay empty, since keys would change places"
            );
        }
        counts.push(if registered > 0 { registered } else { topic.described });
    }
    if complaints.is_empty() { Ok(counts) } else { Err(Failure::Unsuitable(complaints)) }
}

/// Writes down the partitions that are new, those of other sources too: appliers begin when all are known, also where a source is
/// away. What they hold already is not ours.
async fn register(
    plan: &Plan,
    admin: &Admin,
    control: &mut Control,
    ready: &[Ready],
    counts: &[u32],
    known: &[LogPartition],
    first: &Position,
) -> Result<(), Failure> {
    let mut new = Vec::new();
    for ((topic, collection), count) in ready.iter().zip(&plan.collections).zip(counts) {
        if known.iter().any(|partition| partition.collection == collection.name) {
            continue;
        }
        for partition in 0..*count as i32 {
            let (_, begin) = admin.watermarks(&topic.name, partition).await?;
            new.push(NewPartition {
                topic: topic.name.as_str().into(),
                partition,
                collection: collection.name.clone(),
                source: collection.source.clone(),
                begin,
            });
        }
    }
    control.register_partitions(first, &new).await?;
    Ok(())
}

/// Collections whose topics end before what was acknowledged: they were re-created, or cut, while no capture ran.
async fn lost(
    plan: &Plan,
    origin: &Origin,
    admin: &Admin,
    known: &[LogPartition],
) -> Result<Vec<(Vec<CollectionId>, String)>, Failure> {
    let mut lost = Vec::new();
    for id in &origin.collections {
        let collection = plan.collection(*id);
        for partition in known.iter().filter(|partition| partition.collection == collection.name) {
            let (_, high) = admin.watermarks(&partition.topic, partition.partition).await?;
            let least = partition.acked_offset.map_or(partition.begin_offset, |acked| acked + 1);
            if high < least {
                let text = format!(
                    "{}/{} ends at {high}, and the record before {least} had been acknowledged: the topic was re-created or cut",
                    partition.topic, partition.partition
                );
                lost.push((vec![*id], text));
                break;
            }
        }
    }
    Ok(lost)
}

/// A mark into every partition: what a capture before us still sends comes behind it, and is dropped.
async fn announce_epoch(
    outgoing: &Outgoing,
    collections: &[CollectionId],
    moment: Moment,
    stop: &mut Stop,
) -> Result<(), Failure> {
    let ticket = Ticket::new();
    outgoing.marks(collections, (moment, None), None, &ticket).await?;
    ticket.close();
    tokio::select! {
        acknowledged = ticket.acknowledged() => Ok(acknowledged?),
        () = stop.wait() => Err(in_time(Stopped::Asked).into()),
    }
}
