//! Kafka as the log between capture and apply.
//!
//! librdkafka does the talking. What it logs goes to `tracing`, what it answers becomes one of our errors, and the
//! options that our guarantees rest on cannot be set from outside.

mod admin;
mod batch;
mod consumer;
mod error;
mod group;
mod handshake;
mod producer;
mod renewal;
mod report;
mod rights;
mod settings;
mod shares;
mod tail;
mod ticket;

pub use admin::{Admin, NewTopic, Observed};
pub use consumer::{Claims, Delivery, Desk, Handle, Membership, Partition, Raw, Wishes, handle, start};
pub use error::is_refusal;
pub use producer::{Producer, Record};
pub use renewal::{Refusals, Renewal};
pub use rights::{Right, lacking};
pub use settings::{Settings, check, reserved};
pub use tail::{Found, Start, Tail};
pub use ticket::Ticket;

/// The version of librdkafka. Which one the brokers have cannot be asked.
pub fn client_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
