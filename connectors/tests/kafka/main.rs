//! Kafka as the log, against real brokers.

mod admin;
mod broker;
#[path = "../stage/ports.rs"]
mod ports;
mod producer;
mod tail;
mod topic;
mod trouble;
