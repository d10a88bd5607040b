//! How the program is linked: at a fixed address.
//!
//! A command lives for milliseconds, and to be moved costs it a thirtieth of them: three thousand
//! addresses are put right, and the pages they are in copied, before `main`. docs/decisions.md says
//! what is given up.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Elsewhere the start files that fit are chosen before this argument is read.
    if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
