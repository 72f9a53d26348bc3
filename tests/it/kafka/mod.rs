//! Kafka as the log: capture and appliers as processes of their own, brokers that die, and what stands in topics.

pub(crate) mod broker;
mod debezium;
mod kill;
mod large;
mod letters;
mod lost;
mod missing;
mod offsets;
mod outage;
pub(crate) mod pipeline;
mod rebalance;
pub(crate) mod records;
mod replay;
mod secure;
mod several;
mod target;
mod zombie;
