//! NocoDB as a source, against the real server and against one that behaves badly.

mod base;
mod copy;
mod edits;
mod faults;
mod store;
mod stub;
mod target;
mod trouble;
mod types;
