//! Chooses what to be by the first word.

use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.split_first() {
        Some((word, rest)) if word == "demo" => twinax::demo::main(rest),
        _ => ExitCode::from(2),
    }
}
