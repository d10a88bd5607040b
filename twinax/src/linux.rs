//! The kernel: every effect on it, and every look at it. Decides nothing.

pub mod start;
mod parting;
pub mod module;
pub mod netlink;
pub mod socket;
pub mod process;
pub mod netns;
pub mod task;
pub mod spaces;
pub mod tape;
pub mod link;
pub mod addr;
pub mod route;
pub mod neighbour;
pub mod apply;
pub mod observe;
pub mod survey;
pub mod sysctl;
pub mod conntrack;
pub mod listeners;
pub mod nft;
pub mod wires;
pub mod interior;
pub mod packets;
pub mod events;

#[cfg(test)]
mod golden;
