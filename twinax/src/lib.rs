//! Container networking for Linux that can explain itself: every effect, every dialect.
//!
//! The modules stand in an order in which each uses only those above it (a test in
//! `core/tests/tidy.rs` reads the imports).

pub mod demo;
pub mod front;
pub mod lab;
pub mod store;
pub mod linux;
pub mod runtimes;
pub mod forwarder;
pub mod holder;
pub mod container;
pub mod world;
pub mod place;
pub mod look;
pub mod live;
pub mod act;
