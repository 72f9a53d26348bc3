//! The event model: events, their keys and positions, and the bytes they take in a log.
//!
//! This crate knows no driver and does no I/O. Everything in it is a value or a pure function, so
//! that the same bytes mean the same thing in `capture`, in a topic, and in `apply`.

#![warn(missing_docs)]

mod ascii;
pub mod catalog;
pub mod debezium;
mod decimal;
mod envelope;
mod event;
pub mod extjson;
mod format;
mod hash;
mod headers;
mod id;
mod json;
mod key;
mod mark;
mod order;
mod part;
mod partition;
mod position;
mod range;
mod record;
mod stamp;
mod value;
mod wire;

pub use ascii::from_base64;
pub use decimal::{Decimal, Magnitude};
pub use envelope::{EnvelopeError, decode, encode};
pub use event::{CollectionId, Event, Op};
pub use format::Format;
pub use headers::{Headers, Occasion};
pub use id::Namespace;
pub use key::Key;
pub use mark::Mark;
pub use order::compare;
pub use part::Part;
pub use partition::partition_of;
pub use position::{Moment, Position};
pub use range::{Bound, Range};
pub use record::Record;
pub use stamp::Stamp;
pub use value::{Document, Elements, Malformed, Value};
