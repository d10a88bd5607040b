//! What is printed on standard output, and in which style. Decides nothing about its content.

use std::{env, io};

use super::failed::Failed;
use crate::front::{json, print::Style};

/// How tables are printed to standard output.
pub(super) fn style() -> Style {
    Style::of(io::stdout(), env::var_os("NO_COLOR").is_some())
}

/// Prints `body` as JSON.
pub(super) fn show<T: serde::Serialize>(body: T) -> Result<(), Failed> {
    let text = json::text(body).map_err(|cause| Failed::Output(cause.into()))?;
    print!("{text}");
    Ok(())
}
