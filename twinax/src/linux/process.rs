//! Processes of others: found again by number and start time, signalled, waited for. Starts none.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};
use twinax_core::state::Container;

/// A process, told from a later one of the same number by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Task {
    pub pid: u32,
    /// Clock ticks after boot: field 22 of `/proc/PID/stat` (proc(5)).
    pub start: u64,
}

impl From<(u32, u64)> for Task {
    fn from((pid, start): (u32, u64)) -> Self {
        Self { pid, start }
    }
}

impl From<Task> for (u32, u64) {
    fn from(task: Task) -> Self {
        (task.pid, task.start)
    }
}

/// The first process of a container that Twinax runs, as far as it is recorded as running.
pub fn init_of(container: &Container) -> Option<Task> {
    container.run.as_ref()?.init().map(Task::from)
}

/// The process that keeps a container's log and records its end.
pub fn supervisor_of(container: &Container) -> Option<Task> {
    container.run.as_ref()?.supervisor().map(Task::from)
}

impl Task {
    /// The process that has the number `pid` now; `None` if there is none or it has ended and only
    /// waits to be reaped.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start: start_time(pid)? })
    }

    /// The calling process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether the process is there and not just a zombie.
    pub fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }

    /// Opens the process, so that its number cannot come to mean another; `None` once it is gone.
    pub fn open(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Only now: the descriptor holds whoever has the number from here on.
        self.alive().then_some(fd)
    }

    /// Sends `signal`; `false` if the process is gone.
    ///
    /// # Errors
    /// The kernel's: `EPERM` for a process of somebody else.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(fd) = self.open() else {
            return Ok(false);
        };
        send(&fd, signal)
    }

    /// Waits until the process has ended; `false` if it has not within `limit`.
    ///
    /// # Errors
    /// The kernel's, if it cannot be waited for.
    pub fn wait_gone(&self, limit: Duration) -> io::Result<bool> {
        match self.open() {
            Some(fd) => ends(&fd, limit),
            None => Ok(true),
        }
    }
}

/// Signals the process of a descriptor; `false` if it is gone.
pub(crate) fn send(fd: &OwnedFd, signal: Signal) -> io::Result<bool> {
    match pidfd_send_signal(fd, signal) {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits for the end of the process of a descriptor; `false` if that is not within `limit`.
pub(crate) fn ends(fd: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn start_time(pid: u32) -> Option<u64> {
    // The name of a command is any bytes, so this is no UTF-8.
    parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The name stands in parentheses and may hold any of them, so the last one counts.
fn parse_stat(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The random id of this boot: numbers of processes and cookies of namespaces mean nothing in
/// another one.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    line("/proc/sys/kernel/random/boot_id")
}

/// Reads a line of the kernel's, which comes at once: without asking for its size and its end.
pub(crate) fn line(path: &str) -> io::Result<String> {
    let mut line = [0; 256];
    let len = io::Read::read(&mut std::fs::File::open(path)?, &mut line)?;
    match str::from_utf8(&line[..len]) {
        Ok(text) if len < line.len() => Ok(text.trim_end().to_owned()),
        _ => Ok(std::fs::read_to_string(path)?.trim_end().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = "1 5 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 6 7";

    #[test]
    fn a_name_with_parentheses_and_spaces_is_skipped() {
        assert_eq!(parse_stat(format!("5 (a) S 9 (b)) S {REST}").as_bytes()), Some(12345));
        assert_eq!(parse_stat(format!("5 (x) R {REST}").as_bytes()), Some(12345));
        let mut stat = b"5 (\xff\xfe) S ".to_vec();
        stat.extend(REST.as_bytes());
        assert_eq!(parse_stat(&stat), Some(12345));
    }

    #[test]
    fn a_zombie_is_not_alive() {
        assert_eq!(parse_stat(format!("5 (x) Z {REST}").as_bytes()), None);
        assert_eq!(parse_stat(b""), None);
        assert_eq!(parse_stat(b"5 (x) S 1 2"), None);
    }

    #[test]
    fn a_number_used_again_is_another_process() {
        let own = Task::own().unwrap();
        assert!(own.alive() && own.open().is_some());
        let other = Task { start: own.start + 1, ..own };
        assert!(!other.alive() && other.open().is_none());
        assert!(!other.signal(Signal::KILL).unwrap());
        assert!(other.wait_gone(Duration::ZERO).unwrap());
    }
}
