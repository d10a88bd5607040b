//! Container networking for Linux that can explain itself: every effect, every dialect.

pub mod front;
pub mod lab;
pub mod store;
pub mod linux;
pub mod container;
pub mod forwarder;
pub mod holder;
pub mod place;
pub mod act;
pub mod demo;
