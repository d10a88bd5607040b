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
mod forwarder;
mod matrix;
mod published;
mod names;
mod addresses;
mod lifecycle;
mod foreign;
mod crash;
mod first_packet;
mod route;

use std::{ffi::OsString, process::ExitCode};

use harness::Test;

/// Every test, by file.
const ALL: &[&[Test]] = &[
    matrix::TESTS,
    crash::TESTS,
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
    forwarder::TESTS,
    route::TESTS,
];

fn main() -> ExitCode {
    // Tests that use the library have it run this program again, as it would its own.
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    twinax::forwarder::dispatch(&args).unwrap_or_else(|| harness::main(ALL))
}
