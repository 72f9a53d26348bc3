//! Kafka as the log: capture and appliers as processes of their own, brokers that die, and what topics hold.

mod debezium;
mod entrances;
mod halfway;
mod kill;
mod large;
mod letters;
mod lost;
mod missing;
mod offsets;
mod outage;
mod rebalance;
mod replay;
mod rotation;
mod secure;
mod several;
mod travels;
mod zombie;
