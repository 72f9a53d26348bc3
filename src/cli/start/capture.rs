//! From the source into Kafka.

use std::collections::HashSet;
use std::sync::Arc;

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::kafka::{self, Admin, Producer, Ticket};
use slackwater_connectors::mongodb::{Mongo, Preflight, Presence};
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::partitions::{LogPartition, NewPartition};
use slackwater_connectors::postgres::target::introspect;
use slackwater_connectors::secret::Secret;
use slackwater_topics::{CollectionId, Moment, Position, debezium};
use tokio::sync::{mpsc, watch};

use super::{Loaded, Tasks, announce, beside, most_bytes};
use crate::apply::letters::Letters;
use crate::capture::LANE;
use crate::capture::copier::{Copier, Logging, Outlet};
use crate::capture::outgoing::{Outgoing, Topic};
use crate::capture::publisher::Publisher;
use crate::capture::router::{Chunking, Log, Parts, Router, Wires};
use crate::capture::watcher::Watcher;
use crate::cli::exit::Failure;
use crate::cli::topics::{Ready, topics_ready};
use crate::config::{KafkaLog, Values};
use crate::cutover;
use crate::ops::gauges::Gauges;
use crate::ops::stop::Stop;

/// Batches between router and publisher; each may have 16 MB.
const LOG_BUFFER: usize = 1;
/// No document of MongoDB needs more, in whatever form.
const MOST_IN_ONE: usize = 64 << 20;

/// Prepares everything and starts the tasks.
pub(super) async fn start(
    loaded: &Loaded,
    kafka: &KafkaLog,
    (mongo, preflight): (Mongo, &Preflight),
    tasks: &mut Tasks,
    gauges: &Arc<Gauges>,
    stop: &Stop,
) -> Result<(), Failure> {
    let Loaded { migration, plan, fingerprint } = loaded;
    let target = &migration.target.uri;
    let Some(source) = migration.sources.first() else {
        return Err(Failure::Unsuitable(vec!["the migration file names no source".to_owned()]));
    };
    let mut settings = kafka.settings("capture");
    kafka::check(&settings)?;
    let admin = Admin::open(&settings)?;
    let ready = topics_ready(&admin, migration, kafka).await?;
    let largest = largest_record(&ready);
    let limit = "message.max.bytes";
    if !settings.producer.iter().chain(&settings.options).any(|(name, _)| name == limit) {
        settings.producer.push((limit.to_owned(), Secret::new(largest.to_string())));
    }

    let mut control = Control::open(target).await?;
    let namespace = plan.namespace.as_uuid();
    let takeover = control.take_over(&plan.migration, fingerprint, namespace, "kafka", &[LANE]).await?;
    if takeover.previous_file_hash.as_ref().is_some_and(|before| before != fingerprint) {
        tracing::warn!(
            "the migration file has changed since the last run; rows written before are as it said then"
        );
    }
    let known = control.log_partitions(&plan.migration).await?;
    let counts = partitions(loaded, &ready, &known)?;
    let first = match control.position(&plan.migration, &source.name.value).await? {
        Some(position) => position,
        None => Position::new(mongo.operation_time().await?, Vec::new()),
    };
    register(loaded, &admin, &mut control, &ready, &counts, &known, (&source.name.value, &first)).await?;
    let lost = lost(loaded, &admin, &known).await?;

    let named: Vec<(String, u32)> =
        ready.iter().zip(&counts).map(|(topic, count)| (topic.name.clone(), *count)).collect();
    let producer = Producer::open(&settings, &named)?;
    let producer_takes = producer.largest_record();
    let topics = ready
        .iter()
        .zip(&plan.collections)
        .zip(&counts)
        .map(|((topic, collection), partitions)| Topic {
            name: topic.name.as_str().into(),
            partitions: *partitions,
            collection: collection.name.clone(),
            most: largest.min(producer_takes),
            tombstones: topic.compacted,
            debezium: match kafka.values {
                Values::Bson => None,
                Values::Debezium { schemas } => Some(debezium::Writer::new(debezium::WriterOptions {
                    name: &plan.migration,
                    topic: &topic.name,
                    database: &source.database,
                    collection: &collection.collection,
                    schemas,
                })),
            },
        })
        .collect();
    let names = (plan.migration.as_str(), source.name.value.as_str());
    let outgoing = Arc::new(Outgoing::new(producer, topics, takeover.epoch, names));
    first_word(&outgoing, first.moment, &mut stop.clone()).await?;
    // Nothing more of captures before us is taken, so all that they have sent is from before this.
    let now = mongo.operation_time().await?;
    let horizon = horizon(now, preflight, !known.is_empty());

    let names: Vec<(String, String)> =
        plan.tables.iter().map(|spec| (spec.table.schema.clone(), spec.table.name.clone())).collect();
    let empty_tables: HashSet<usize> = introspect::empty(target, &names).await?.into_iter().collect();
    // Other processes write dead letters, so there may always be some.
    let letters = Arc::new(Letters::new(true));
    let (log_in, log_out) = mpsc::channel(LOG_BUFFER);
    let (applied_in, applied_out) = watch::channel(Moment::default());
    let (say, words) = mpsc::unbounded_channel();
    let (report, reports) = mpsc::unbounded_channel();
    let (watch_in, watched) = mpsc::unbounded_channel();
    let (heard_in, heard) = watch::channel(None);
    let chunking =
        Chunking { bytes: migration.snapshot.chunk_bytes, documents: migration.snapshot.chunk_documents };
    let acting = async || -> Result<Control, Error> {
        let mut control = Control::open(target).await?;
        control.act_as(&plan.migration, takeover.epoch);
        Ok(control)
    };
    let parts = Parts {
        mongo: mongo.clone(),
        plan: Arc::clone(plan),
        control,
        target: target.clone(),
        epoch: takeover.epoch,
        chunking,
        letters: Arc::clone(&letters),
        gauges: Arc::clone(gauges),
        stop: stop.clone(),
        empty_tables,
        position: first,
        now,
        horizon,
        log: Log::Kafka { outgoing: Arc::clone(&outgoing), admin, watcher: watch_in.clone() },
        lost,
    };
    let (phase_in, phase) = cutover::watch::channel();
    let wires = Wires { log: log_in, applied: applied_out, words, say: say.clone(), reports, heard, phase };
    let router = Router::new(parts, wires).await?;
    let publisher = Publisher {
        outgoing: Arc::clone(&outgoing),
        plan: Arc::clone(plan),
        control: acting().await?,
        target: target.clone(),
        source: source.name.value.clone(),
        log: log_out,
        applied: applied_in,
        reports: report.clone(),
        watcher: watch_in,
        gauges: Arc::clone(gauges),
        stop: stop.clone(),
    };
    tasks.spawn(async move { ("publish", publisher.run().await) });
    let watcher = Watcher {
        plan: Arc::clone(plan),
        target: target.clone(),
        epoch: takeover.epoch,
        watched,
        reports: report,
        letters,
        gauges: Arc::clone(gauges),
        stop: stop.clone(),
    };
    tasks.spawn(async move { ("watch", watcher.run().await) });
    for _ in 0..migration.snapshot.workers {
        let logging = Logging {
            outgoing: Arc::clone(&outgoing),
            pen: outgoing.pen(),
            control: acting().await?,
            target: target.clone(),
            stop: stop.clone(),
        };
        let copier = Copier {
            mongo: mongo.clone(),
            plan: Arc::clone(plan),
            outlet: Outlet::Log(Box::new(logging)),
            router: say.clone(),
            most_bytes: most_bytes(migration),
            gauges: Arc::clone(gauges),
            stop: stop.clone(),
        };
        tasks.spawn(async move { ("copy", copier.run().await) });
    }
    let source = (source.name.value.as_str(), mongo);
    beside::start(loaded, source, takeover.epoch, (heard_in, phase_in), tasks, (gauges, stop)).await?;
    tasks.spawn(async move { ("capture", router.run().await) });
    announce(plan, takeover.first_run);
    Ok(())
}

/// What every topic takes in one record, and in one batch of them: a producer knows only one limit, and the frame around a
/// batch is not in its count. Larger events travel in parts.
fn largest_record(ready: &[Ready]) -> usize {
    let least = ready.iter().map(|topic| topic.largest).min().unwrap_or(usize::MAX);
    (least - least / 20).min(MOST_IN_ONE)
}

/// How many partitions of each topic count: as many as were written down when it was first used.
fn partitions(loaded: &Loaded, ready: &[Ready], known: &[LogPartition]) -> Result<Vec<u32>, Failure> {
    let mut complaints = Vec::new();
    let mut counts = Vec::with_capacity(ready.len());
    for (topic, collection) in ready.iter().zip(&loaded.plan.collections) {
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

/// Writes down the partitions that are new. What stands in them already belongs to somebody else.
async fn register(
    loaded: &Loaded,
    admin: &Admin,
    control: &mut Control,
    ready: &[Ready],
    counts: &[u32],
    known: &[LogPartition],
    (source, first): (&str, &Position),
) -> Result<(), Failure> {
    let mut new = Vec::new();
    for ((topic, collection), count) in ready.iter().zip(&loaded.plan.collections).zip(counts) {
        if known.iter().any(|partition| partition.collection == collection.name) {
            continue;
        }
        for partition in 0..*count as i32 {
            let (_, begin) = admin.watermarks(&topic.name, partition).await?;
            new.push(NewPartition {
                topic: topic.name.as_str().into(),
                partition,
                collection: collection.name.clone(),
                begin,
            });
        }
    }
    control.register_partitions(source, first, &new).await?;
    Ok(())
}

/// Collections whose topics end before what was acknowledged: they were made anew, or cut, while no capture ran.
async fn lost(
    loaded: &Loaded,
    admin: &Admin,
    known: &[LogPartition],
) -> Result<Vec<(Vec<CollectionId>, String)>, Failure> {
    let mut lost = Vec::new();
    for (place, collection) in loaded.plan.collections.iter().enumerate() {
        for partition in known.iter().filter(|partition| partition.collection == collection.name) {
            let (_, high) = admin.watermarks(&partition.topic, partition.partition).await?;
            let least = partition.acked_offset.map_or(partition.begin_offset, |acked| acked + 1);
            if high < least {
                let text = format!(
                    "{}/{} ends at {high}, and the record before {least} had been acknowledged: the topic was made anew or cut",
                    partition.topic, partition.partition
                );
                lost.push((vec![CollectionId(place as u16)], text));
                break;
            }
        }
    }
    Ok(lost)
}

/// A mark into every partition: what a capture before us still sends stands behind it, and is dropped.
async fn first_word(outgoing: &Outgoing, time: Moment, stop: &mut Stop) -> Result<(), Failure> {
    let ticket = Ticket::new();
    outgoing.marks(&outgoing.all(), (time, None), None, &ticket).await?;
    ticket.close();
    tokio::select! {
        acknowledged = ticket.acknowledged() => Ok(acknowledged?),
        () = stop.wait() => {
            Err(Error::new(Kind::Fenced, "starting", "stopped before it had begun").into())
        }
    }
}

/// How far look-ups of captures before us may have seen: up to now. With post-images on there were none.
fn horizon(now: Moment, preflight: &Preflight, before: bool) -> Moment {
    let exact = preflight.collections.iter().all(|collection| match &collection.presence {
        Presence::Present(info) => info.post_images,
        _ => false,
    });
    if !before || exact { Moment::default() } else { now }
}
