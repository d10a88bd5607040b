//! Chooses what to be: one of Twinax's own processes, or the command line.
#![no_main]

use std::{ffi::OsString, process::ExitCode};

twinax::program!(run);

fn run(args: Vec<OsString>) -> ExitCode {
    if let Some(code) = twinax::act::role(args.get(1..).unwrap_or_default()) {
        return code;
    }
    match twinax::front::cli::parse(args) {
        Ok(command) => twinax::act::act(command),
        Err(error) => {
            let _ = error.print();
            ExitCode::from(error.exit_code() as u8)
        }
    }
}
