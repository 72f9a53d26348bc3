//! How it travels: capture, mapping, apply, and the commands around them.

mod capture;
