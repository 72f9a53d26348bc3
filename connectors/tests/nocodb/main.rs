//! NocoDB as a source, against the real server and against one that behaves badly.

#![allow(clippy::print_stdout, reason = "random tests print their seed")]

mod base;
mod copy;
mod edits;
mod faults;
mod store;
mod stub;
mod target;
mod trouble;
mod types;
