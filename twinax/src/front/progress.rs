//! Tells how far a long command is: one line that changes on a terminal, plain lines elsewhere.

use std::io::{self, Write};

use super::print::Style;

const BAR: usize = 20;

/// The progress of a known number of steps.
pub struct Progress<W: Write> {
    out: W,
    style: Style,
    total: usize,
    done: usize,
    shown: bool,
}

impl<W: Write> Progress<W> {
    /// Nothing is written before the first step, and nothing at all where there is none.
    pub fn new(out: W, style: Style, total: usize) -> Self {
        Self { out, style, total, done: 0, shown: false }
    }

    /// Says what is being done now; the step before it counts as done.
    pub fn step(&mut self, what: &str) -> io::Result<()> {
        self.done = (self.done + usize::from(self.shown)).min(self.total);
        self.shown = true;
        let (done, total) = (self.done, self.total);
        let Some(width) = self.style.width else {
            return writeln!(self.out, "{}/{total} {what}", (done + 1).min(total));
        };
        let filled = (done * BAR).checked_div(total).unwrap_or(0).min(BAR);
        let bar = "#".repeat(filled) + &"-".repeat(BAR - filled);
        let line = format!("[{bar}] {done}/{total} {what}");
        // The last column stays free: some terminals wrap when it is written.
        let line: String = line.chars().take(width.saturating_sub(1)).collect();
        write!(self.out, "\r{line}\x1b[K")?;
        self.out.flush()
    }

    /// Takes the line off the terminal, so that what is printed next stands on its own.
    pub fn clear(&mut self) -> io::Result<()> {
        if self.shown && self.style.width.is_some() {
            write!(self.out, "\r\x1b[K")?;
            self.out.flush()?;
        }
        self.shown = false;
        Ok(())
    }
}

impl<W: Write> Drop for Progress<W> {
    /// An error that ends the command early is printed below, not on, the progress line.
    fn drop(&mut self) {
        // There is nobody left to tell that the terminal does not take what is written.
        let _ = self.clear();
    }
}
