//! Container networking for Linux that can explain itself: every effect, every dialect.

pub mod front;
pub mod container;
pub mod demo;
pub mod forwarder;
pub mod holder;
pub mod lab;
pub mod linux;
pub mod store;
