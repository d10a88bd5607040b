//! Captured packets for people: a line each, and how many there were.

use std::fmt::Write as _;

use twinax_core::{packet::summary, pcapng::Direction, pcapng::LinkType};

use super::print::Style;

/// A packet that is told.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Of the interface, and how wide the names of all are.
    pub name: &'a str,
    pub width: usize,
    pub direction: Direction,
    pub link_type: LinkType,
    pub bytes: &'a [u8],
    /// What it had on the wire.
    pub length: u32,
}

/// Returns a packet's line: when (UTC), where, which way, what; cut at the terminal's edge.
pub fn line(told: &Told<'_>, style: Style) -> String {
    let seconds = told.time_ns / 1_000_000_000;
    let micros = told.time_ns / 1_000 % 1_000_000;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let time = format!("{hour:02}:{minute:02}:{second:02}.{micros:06}");
    let (way, colour) = match told.direction {
        Direction::In => ("in ", "32"),
        Direction::Out => ("out", "36"),
    };
    let name = format!("{:<1$}", told.name, told.width);
    let mut what = summary(told.link_type, told.bytes, told.length);
    if let Some(width) = style.width {
        let room = width.saturating_sub(time.len() + name.chars().count() + way.len() + 4);
        if what.chars().count() > room {
            what = what.chars().take(room.saturating_sub(1)).chain(['…']).collect();
        }
    }
    let mut line = String::new();
    // Writing to a string does not fail.
    let _ = match style.colour {
        true => write!(line, "\x1b[2m{time}\x1b[0m  {name} \x1b[{colour}m{way}\x1b[0m {what}"),
        false => write!(line, "{time}  {name} {way} {what}"),
    };
    line.push('\n');
    line
}

/// How many packets of an interface there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub name: String,
    pub written: u64,
    pub dropped: u64,
}

/// Returns a line for each interface.
pub fn counts(counted: &[Counted]) -> String {
    let line = |one: &Counted| {
        let packets = if one.written == 1 { "packet" } else { "packets" };
        let dropped = match one.dropped {
            0 => "none dropped".to_owned(),
            some => format!("{some} dropped by the kernel for lack of room"),
        };
        format!("{}: {} {packets}, {dropped}\n", one.name, one.written)
    };
    counted.iter().map(line).collect()
}
