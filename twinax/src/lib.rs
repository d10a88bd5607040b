//! Acts on the machine: everything of Twinax that is not a decision.

pub mod container;
pub mod holder;
pub mod linux;
