//! Dispatches hidden roles; the front end comes with the engine.

use std::{ffi::OsString, path::Path, process::ExitCode};

use twinax::container::{OnExit, dispatch};

struct Nobody;

impl OnExit for Nobody {
    fn exited(&self, _: &str, _: &Path, _: Option<i32>) {}
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    dispatch(&args, &Nobody).unwrap_or_else(|| ExitCode::from(2))
}
