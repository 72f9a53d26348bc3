//! Kafka as the log: capture and appliers as processes of their own, brokers that die, and what stands in topics.

mod broker;
mod kill;
mod pipeline;
mod rebalance;
mod records;
mod replay;
mod zombie;
