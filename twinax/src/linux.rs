//! Everything that talks to the Linux kernel.

pub mod listeners;
