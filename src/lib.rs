//! How it travels: capture, mapping, apply, and the commands around them.

mod apply;
mod capture;
mod ops;
