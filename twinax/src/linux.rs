//! The kernel: every effect on it, and every look at it.

pub mod listeners;
pub mod netlink;
pub mod nft;
