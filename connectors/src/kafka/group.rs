//! A member of a consumer group: hears what the group decides, and lets its thread act on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::consumer::Membership;
use super::report::{Trouble, log};
use super::settings::Settings;
use crate::error::Result;

/// What the group has decided.
#[derive(Debug)]
pub(super) enum Change {
    /// These are ours to read; the answer (`assign`) is still to be given.
    Assigned(Vec<(String, i32)>),
    /// These are somebody else's; already answered.
    Revoked(Vec<(String, i32)>),
    /// The group could not agree.
    Failed(KafkaError),
}

/// Hears the group. The callbacks run inside of `poll`, on the consumer's own thread.
#[derive(Default)]
pub(super) struct Group {
    any: AtomicBool,
    changes: Mutex<Vec<Change>>,
    /// The last that went wrong, shared with whoever asks.
    pub(super) trouble: Arc<Trouble>,
}

impl Group {
    pub(super) fn open(
        settings: &Settings,
        membership: &Membership,
        trouble: Arc<Trouble>,
    ) -> Result<BaseConsumer<Self>> {
        let mut config = settings.consuming();
        config
            .set("group.id", &membership.group)
            // A member that joins takes partitions over one by one; the others read on meanwhile.
            .set("partition.assignment.strategy", "cooperative-sticky");
        for (name, value) in [
            ("session.timeout.ms", "10000"),
            ("heartbeat.interval.ms", "2000"),
            // Fetched ahead: with what readers hold this bounds the memory.
            ("queued.max.messages.kbytes", "24576"),
            ("fetch.message.max.bytes", "2097152"),
            ("fetch.max.bytes", "16777216"),
            // A full queue is fetched into again as soon as there is room; the default waits for a second.
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.wait.max.ms", "200"),
            // Who has no partition of a topic learns only so that it is gone or has grown; the default is five minutes.
            ("topic.metadata.refresh.interval.ms", "20000"),
        ] {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        }
        if let Some(member) = &membership.member {
            config.set("group.instance.id", member);
        }
        settings.open(&config, Self { trouble, ..Self::default() })
    }

    /// Whether something was decided that nobody has looked at.
    pub(super) fn changed(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self) -> Vec<Change> {
        self.any.store(false, Ordering::Relaxed);
        self.changes.lock().map(|mut changes| std::mem::take(&mut *changes)).unwrap_or_default()
    }

    fn note(&self, change: Change) {
        if let Ok(mut changes) = self.changes.lock() {
            changes.push(change);
        }
        self.any.store(true, Ordering::Relaxed);
    }
}

/// Answers the group: these are read from these offsets on.
pub(super) fn assign(consumer: &BaseConsumer<Group>, places: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(places),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(places),
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.note(&error);
        tracing::debug!(target: "kafka", %error, reason, "consumer");
    }
}

impl ConsumerContext for Group {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let names = |partitions: &TopicPartitionList| {
            let elements = partitions.elements();
            elements.iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
        };
        match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.note(Change::Assigned(names(partitions)));
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                let answered = match consumer.rebalance_protocol() {
                    RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
                    RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
                };
                if let Err(error) = answered {
                    tracing::debug!(target: "kafka", %error, "letting partitions go");
                }
                self.note(Change::Revoked(names(partitions)));
            }
            other => self.note(Change::Failed(KafkaError::Rebalance(other.into()))),
        }
    }
}
