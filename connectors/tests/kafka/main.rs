//! Kafka as the log, against real brokers.

mod admin;
mod broker;
mod producer;
mod tail;
mod topic;
mod trouble;
