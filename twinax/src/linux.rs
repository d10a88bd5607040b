//! The kernel: every effect on it, and every look at it. Decides nothing.

pub mod listeners;
pub mod netlink;
pub mod nft;
pub mod task;
