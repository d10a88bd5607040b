//! What is printed on standard output, and in which style. Decides nothing about its content.

use std::{
    env,
    io::{self, Write},
};

use super::failed::Failed;
use crate::front::{json, print::Style};

/// How tables are printed to standard output.
pub(super) fn style() -> Style {
    Style::of(io::stdout(), env::var_os("NO_COLOR").is_some())
}

/// Prints `body` as JSON.
pub(super) fn show<T: serde::Serialize>(body: T) -> Result<(), Failed> {
    let text = json::text(body).map_err(|cause| Failed::Output(cause.into()))?;
    tell(text)
}

/// Writes `text` to standard output at once. Who closed it has read enough: that is no failure.
pub(super) fn tell(text: impl AsRef<[u8]>) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => Err(Failed::Output(cause)),
        _ => Ok(()),
    }
}

/// Writes each name on a line of its own.
pub(super) fn tell_names<T: ToString>(names: &[T]) -> Result<(), Failed> {
    tell(names.iter().map(|name| format!("{}\n", name.to_string())).collect::<String>())
}
