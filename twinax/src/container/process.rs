//! Ends containers, and signals what runs in them.

use std::{io, time::Duration};

use rustix::process::Signal;

use crate::linux::process::{Task, ends, send};

/// How a container came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It had ended before.
    Already,
    /// It heeded `SIGTERM`.
    Itself,
    /// It did not within the grace.
    Killed,
}

/// How long the kernel may take to end a killed container.
const TEARDOWN: Duration = Duration::from_secs(30);

/// Asks the command of the container of `init` to end, and kills every process in it `grace`
/// later. Returns when all are gone; the supervisor may still be at work, see [`Task::wait_gone`].
///
/// # Errors
/// The kernel's refusal to signal; `TimedOut` if even `SIGKILL` has not ended it in 30 s
/// (a process of it hangs in the kernel).
pub fn stop(init: &Task, grace: Duration) -> io::Result<Stopped> {
    let Some(fd) = init.open() else {
        return Ok(Stopped::Already);
    };
    if !send(&fd, Signal::TERM)? {
        return Ok(Stopped::Already);
    }
    if ends(&fd, grace)? {
        return Ok(Stopped::Itself);
    }
    send(&fd, Signal::KILL)?;
    match ends(&fd, TEARDOWN)? {
        true => Ok(Stopped::Killed),
        false => Err(io::Error::new(io::ErrorKind::TimedOut, "a process hangs in the kernel")),
    }
}

/// Sends `signal` to the command of the container of `init`; `SIGKILL` ends every process in
/// it, and `SIGSTOP`, which init cannot pass on, stops only init. `false` if it has ended.
///
/// # Errors
/// The kernel's refusal.
pub fn kill(init: &Task, signal: Signal) -> io::Result<bool> {
    init.signal(signal)
}
