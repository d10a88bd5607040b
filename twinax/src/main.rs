//! Chooses what to be: one of Twinax's own processes, or the command line.

use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
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
