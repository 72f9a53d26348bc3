//! The Postgres connector against a real server; each test has a database of its own.

#![allow(clippy::print_stdout, reason = "tests tell their seeds")]

#[path = "../stage/authority.rs"]
mod authority;
mod control;
mod database;
mod faults;
mod introspect;
mod log;
mod partitions;
#[path = "../stage/ports.rs"]
mod ports;
mod references;
mod secrecy;
#[path = "../stage/target.rs"]
mod target;
mod tls;
mod write;
