//! What every process needs to run and to be operated: retries, the control store, health, metrics, status.

pub(crate) mod board;
pub(crate) mod gauges;
pub(crate) mod health;
pub(crate) mod http;
pub(crate) mod json;
pub(crate) mod look;
mod look_cache;
pub(crate) mod metrics;
pub(crate) mod persist;
pub(crate) mod policy;
pub(crate) mod presence;
pub(crate) mod process;
pub(crate) mod stop;
pub(crate) mod store;
pub(crate) mod text;
pub(crate) mod underway;
