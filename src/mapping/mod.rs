//! From documents to rows: the plan compiled from file and catalogue, and the mapper that follows it.
//!
//! Mapping is a pure function of the file, the catalogue and the document: the same event gives the same bytes on any
//! machine, so a replay after a crash writes the same rows again. A document is mapped whole or not at all.

mod asks;
mod change;
mod compile;
mod condition;
mod elements;
mod encode;
mod mapper;
mod plan;
mod rejection;
mod row;
mod sensitive;
mod travel;
mod trie;

pub(crate) use asks::{Ask, of as asks};
pub(crate) use change::{Change, ChangeKind, What};
pub use compile::compile;
pub(crate) use compile::{expressions, follow, judge};
pub(crate) use encode::{Inputs, Texts};
pub use mapper::Mapper;
pub use plan::{CollectionPlan, Plan};
pub use rejection::{Adjustment, Reason, Rejection, Tally};
pub(crate) use sensitive::Sensitive;
pub(crate) use travel::Travel;

#[cfg(test)]
pub(crate) mod tests;
