<<<<<<< HEAD
//! The kernel: every effect on it, and every look at it.

pub mod listeners;
pub mod netlink;
pub mod nft;
=======
//! The kernel's interfaces that need `unsafe` or speak its own formats; decides nothing.

pub mod task;
>>>>>>> containers
