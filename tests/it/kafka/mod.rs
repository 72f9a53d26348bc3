//! Kafka as the log: capture and appliers as processes of their own, brokers that die, and what stands in topics.

mod broker;
mod debezium;
mod kill;
mod large;
mod missing;
mod outage;
mod pipeline;
mod rebalance;
mod records;
mod replay;
mod target;
mod zombie;
