//! The Postgres connector against a real server; each test has a database of its own.

#![allow(clippy::print_stdout, reason = "tests tell their seeds")]

mod control;
mod database;
mod faults;
mod introspect;
mod log;
mod partitions;
mod references;
mod secrecy;
mod write;
