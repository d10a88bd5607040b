//! What `map --watch` prints where there is no terminal: a line for each change.

use std::time::Duration;

use serde::Serialize;
use twinax_core::{changes::Change, map::Counts};

use super::{json, tree};

/// The first line: what there is when the watch begins.
pub fn start(counts: &Counts, time: Duration) -> String {
    format!("{} = {}", clock(time), tree::counts(counts))
}

/// A change, in a line.
pub fn change(change: &Change, time: Duration) -> String {
    format!("{} {change}\n", clock(time))
}

/// The time of the day in UTC, of a time since 1970.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[derive(Serialize)]
struct Start {
    time_ns: u64,
    change: &'static str,
    containers: usize,
    namespaces: usize,
    bridges: usize,
    cables: usize,
    orphans: usize,
}

#[derive(Serialize)]
struct Told<'a> {
    time_ns: u64,
    #[serde(flatten)]
    change: json::Change<'a>,
}

/// As [`start`], as JSON.
///
/// # Errors
///
/// As of [`serde_json::to_string`].
pub fn start_json(counts: &Counts, time: Duration) -> serde_json::Result<String> {
    json::line(&Start {
        time_ns: nanoseconds(time),
        change: "start",
        containers: counts.containers,
        namespaces: counts.namespaces,
        bridges: counts.bridges,
        cables: counts.cables,
        orphans: counts.orphans,
    })
}

/// As [`change`], as JSON.
///
/// # Errors
///
/// As of [`serde_json::to_string`].
pub fn change_json(change: &Change, time: Duration) -> serde_json::Result<String> {
    json::line(&Told { time_ns: nanoseconds(time), change: json::change(change) })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
