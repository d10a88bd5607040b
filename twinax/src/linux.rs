//! The kernel side of the shell: sees and changes links, addresses, routes and neighbours.
//!
//! Makes no choices: what is to be done comes as operations of `twinax_core::model`.

pub mod addr;
pub mod apply;
pub mod conntrack;
pub mod link;
pub mod neighbour;
pub mod netns;
pub mod observe;
pub mod route;
pub mod socket;
pub mod survey;
pub mod sysctl;
