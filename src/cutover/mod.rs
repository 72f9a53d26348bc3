//! The cutover: writers stop writing to the source, and from then on the target is the one to write to.
//!
//! - `facts`: reads what the plan needs to know.
//! - `accept`: what an operator may accept although it blocks. Pure.
//! - `plan`: the steps, and what blocks them. Pure.
//! - `resume`: how a process resumes a cutover that another process has left. Pure.
//! - `lead`: the process that makes the cutover.
//! - `freeze`: stops the writers, and lets them write again.
//! - `proof`: compares the numbers of documents and rows.
//! - `watch`: capture's part: it follows closely, sends fences, and unfreezes a source whose leader is gone.
//! - `notice`: tells the team that the target is open.
//! - `report`: what is known of it in the end. `crate::report` makes a folder of it.

pub(crate) mod accept;
pub(crate) mod facts;
mod freeze;
pub(crate) mod lead;
pub(crate) mod notice;
pub(crate) mod plan;
pub(crate) mod proof;
pub(crate) mod report;
pub(crate) mod resume;
pub(crate) mod watch;
