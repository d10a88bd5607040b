//! The shell of Twinax: every effect, and every dialect people and programs speak to it.

pub mod demo;
pub mod forwarder;
pub mod linux;
