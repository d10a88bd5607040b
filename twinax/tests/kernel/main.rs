//! Tests against the real kernel, each in fresh namespaces of its own; needs no root and no program.
//!
//! A test is a function `fn(&mut Sandbox) -> Outcome` named in its file's `tests![…]`; a new file
//! is a module here and a line in `ALL`. `cargo test --test kernel NAME` runs those that match.

#![allow(unreachable_pub, reason = "`pub` says what tests may use; nothing is outside")]
#![allow(dead_code, reason = "a tool stays when the last test that used it goes")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where and stop")]

mod harness;
mod sandbox;
mod wire;
mod tables;
mod product;
mod isolation;
mod demo;
mod listeners;
mod nft;
mod matrix;
mod published;
mod names;
mod addresses;
mod lifecycle;
mod foreign;
mod crash;
mod resident;
mod first_packet;
mod route;
mod conntrack;
mod forwarder;
mod container;
mod holder;
mod spaces;
mod unanswered;
mod wires;
mod doctor;
mod anybody;
mod capture;
mod snapshot;
mod looking;
mod interior;
mod live;

use std::{ffi::OsString, process::ExitCode};

use harness::Test;

/// Every test, by file.
#[rustfmt::skip]
const ALL: &[&[Test]] = &[
    matrix::TESTS,
    crash::TESTS,
    resident::TESTS,
    lifecycle::TESTS,
    first_packet::TESTS,
    published::TESTS,
    names::TESTS,
    addresses::TESTS,
    foreign::TESTS,
    isolation::TESTS,
    product::TESTS,
    demo::TESTS,
    listeners::TESTS,
    nft::TESTS,
    route::TESTS,
    conntrack::TESTS,
    forwarder::TESTS,
    container::TESTS,
    holder::TESTS,
    spaces::TESTS,
    unanswered::TESTS,
    wires::TESTS,
    doctor::TESTS,
    anybody::TESTS,
    capture::TESTS,
    snapshot::TESTS,
    looking::TESTS,
    interior::TESTS,
    live::TESTS,
];

fn main() -> ExitCode {
    // Tests that use the library have it run this program again, as it would its own.
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    role(&args).unwrap_or_else(|| harness::main(ALL))
}

/// What this program is when the library, or a test, starts it for something else than tests.
fn role(args: &[OsString]) -> Option<ExitCode> {
    let trial = container::role(args).or_else(|| holder::role(args)).or_else(|| spaces::role(args));
    trial.or_else(|| twinax::act::role(args))
}
