//! Decides what container networks look like; never touches the machine.
//!
//! The modules are listed in the order the data flows, and each may use only those above it
//! (`tests/tidy.rs` checks that):
//!
//! ```text
//! Request ──decide──▶ State ──lower──▶ Topology ┐
//!                                               ├─diff──▶ Plan ──apply──▶ kernel
//! kernel ──observe────────────────▶ Topology    ┘
//! ```

pub mod name;
pub mod ruleset;
pub mod model;
pub mod pool;
pub mod state;
pub mod gateway;
pub mod decide;
pub mod lower;
pub mod diff;
mod touched;
pub mod engine;
pub mod fake;
pub mod firewall;
pub mod interior;
pub mod sight;
pub mod published;
pub mod rate;
pub mod handle;
pub mod map;
pub mod peer;
pub mod inspect;
pub mod doctor;
pub mod pace;
pub mod snapshot;
pub mod changes;
pub mod watch;
pub mod top;
pub mod draw;
pub mod pcapng;
pub mod filter;
pub mod packet;
pub mod capture;
