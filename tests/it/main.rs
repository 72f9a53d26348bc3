//! One binary of integration tests against real servers; each module says what it is for.
//!
//! The environment names the servers: `eval "$(dev/services env)"`.

#![allow(clippy::print_stdout, reason = "tests tell their seeds and what they counted")]

mod cut;
mod cutover;
mod harness;
mod history;
mod idle;
mod ids;
mod items;
mod judge;
mod kafka;
mod kill;
mod lag;
mod letters;
mod mongod;
#[path = "../../connectors/tests/common/ports.rs"]
mod ports;
mod refusals;
mod resume;
mod state;
mod stop;
mod takeover;
mod topics;
mod trial;
mod upgrade;
