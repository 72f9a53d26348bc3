//! What travels: events, their keys and positions, and the bytes they take in a log.
//!
//! This crate knows no driver and does no I/O. Everything in it is a value or a pure function, so
//! that the same bytes mean the same thing in `capture`, in a topic, and in `apply`.

#![warn(missing_docs)]

mod decimal;
mod envelope;
mod event;
mod id;
mod key;
mod order;
mod position;
mod value;

pub use decimal::{Decimal, Magnitude};
pub use envelope::{EnvelopeError, decode, encode};
pub use event::{Barrier, CollectionId, Event, Op};
pub use id::Namespace;
pub use key::Key;
pub use order::compare;
pub use position::{ClusterTime, Position};
pub use value::{Document, Elements, Malformed, Value};
