//! The switch: from a source that is written to, to a target that is.
//!
//! - `plan`: what would be done and what stands in the way. Pure.
//! - `resume`: what a process does with a cutover that another one has left. Pure.
//! - `lead`: the process that makes the switch.
//! - `freeze`: stopping the writers, and letting them go on.
//! - `proof`: that both sides count the same.
//! - `watch`: what capture does: it follows closely, sends fences, and unfreezes a source that everybody has forgotten.
//! - `report`: what is left to read.

pub(crate) mod facts;
mod freeze;
pub(crate) mod lead;
pub(crate) mod notice;
pub(crate) mod plan;
mod proof;
pub(crate) mod report;
pub(crate) mod resume;
pub(crate) mod watch;
