//! The kernel's interfaces that need `unsafe` or speak its own formats; decides nothing.

pub mod task;
