//! Container networking for Linux that can explain itself: every effect, every dialect.
//!
//! The modules stand in an order in which each uses only those above it (a test in
//! `core/tests/tidy.rs` reads the imports). One part stands lower than its file says:
//! [`linux::world`] puts store, forwarder, containers and kernel together as the engine's world, so
//! it may use all that stands above [`place`]; nothing else in [`linux`] may.

pub mod demo;
pub mod front;
pub mod lab;
pub mod store;
pub mod linux;
pub mod forwarder;
pub mod holder;
pub mod container;
pub mod place;
pub mod act;
