//! Container networking for Linux that can explain itself: every effect, every dialect.

pub mod demo;
pub mod front;
pub mod linux;
pub mod store;
