//! The Postgres connector against a real server; each test has a database of its own.

#[path = "postgres/control.rs"]
mod control;
#[path = "postgres/database.rs"]
mod database;
#[path = "postgres/faults.rs"]
mod faults;
#[path = "postgres/introspect.rs"]
mod introspect;
#[path = "postgres/log.rs"]
mod log;
#[path = "postgres/partitions.rs"]
mod partitions;
#[path = "postgres/secrecy.rs"]
mod secrecy;
#[path = "postgres/write.rs"]
mod write;
