//! The Postgres connector against a real server; each test has a database of its own.

mod control;
mod database;
mod faults;
mod introspect;
mod log;
mod partitions;
mod secrecy;
mod write;
