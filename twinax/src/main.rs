//! Chooses what to be by the first word.

use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = twinax::forwarder::dispatch(&args) {
        return code;
    }
    match args.split_first() {
        Some((word, rest)) if word == "demo" => twinax::demo::main(rest),
        _ => ExitCode::from(2),
    }
}
