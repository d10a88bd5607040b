//! The doors: each parses what it is given into the core's vocabulary and prints what comes back.
//!
//! Nothing here reads or changes the network, the store or a process; the only thing asked of
//! the machine is whether standard output is a terminal, and how wide.

pub mod spelling;
pub mod cli;
pub mod lab;
pub mod print;
pub mod json;
pub mod tree;
pub mod doctor;
pub mod packets;
pub mod words;
pub mod keys;
pub mod top;
pub mod progress;
pub mod report;
