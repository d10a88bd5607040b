//! The kernel: every effect on it, and every look at it. Decides nothing.

pub mod addr;
pub mod apply;
pub mod conntrack;
pub mod link;
pub mod listeners;
pub mod neighbour;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod observe;
pub mod route;
pub mod socket;
pub mod survey;
pub mod sysctl;
pub mod task;
