//! One binary of integration tests against real servers; each module says what it is for. What they are staged with (databases,
//! servers of a test's own, the `slackwater` process) is in `stage`.
//!
//! The environment names the servers: `eval "$(dev/services env)"`.

#![allow(clippy::print_stdout, reason = "tests tell their seeds and what they counted")]

mod apart;
mod append_only;
mod behind;
mod broken;
mod candidates;
mod changes;
mod checks;
mod ciphers;
mod claims;
mod computed;
mod connect;
mod coworking;
mod crm;
mod cut;
mod cutover;
mod drift;
mod examples;
mod followed;
mod gone;
mod grants;
mod history;
mod idle;
mod ids;
mod judge;
mod kafka;
mod keys;
mod kill;
mod lag;
mod letters;
mod long;
mod lookups;
mod merged;
mod mistakes;
mod nested;
mod nocodb;
mod numbers;
mod odd_role;
mod oversized;
mod planted;
mod references;
mod refusals;
mod resume;
mod secondaries;
mod secrets;
mod shell;
mod sources;
mod stage;
mod stop;
mod takeover;
mod topics;
mod types;
mod upgrade;
mod verify;
mod versions;
