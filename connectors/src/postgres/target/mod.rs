//! The target: its catalogue, and how rows are written to it.

pub mod catalog;
pub mod checks;
pub mod compare;
pub mod comparer;
pub mod drift;
pub mod expressions;
pub mod finish;
pub mod introspect;
pub mod judge;
pub mod merged;
mod notes;
pub mod orphans;
mod parameter;
mod pipeline;
mod references;
pub mod removal;
pub mod rights;
pub mod rows;
pub mod serial;
pub mod shape;
pub mod sink;
pub mod statements;
pub mod surplus;
pub mod trial;
mod waiting;
