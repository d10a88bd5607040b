//! Container networking for Linux that can explain itself: the shell around the core.

pub mod linux;
