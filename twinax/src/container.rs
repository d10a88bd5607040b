//! Runs commands in containers: a supervisor and a small init for each, no daemon.
//!
//! # Theory of operation
//!
//! ```text
//! twinax run ──spawn──▶ supervisor ──clone3(new pid)──────▶ init (PID 1) ──spawn──▶ command
//!     │  Spec ───────────▶ │ ── Spec ─────────────────────▶ │ unshares net, mnt, uts, ipc
//!     │ ◀──── Born ─────── │ ◀──── Ready ────────────────── │
//!     │ records, wires the network                          │
//!     │  Go ─────────────▶ │ ── Go ───────────────────────▶ │ mounts, hostname, command
//!     │ ◀─── Running ───── │ ◀──── Running ──────────────── │
//!     │ ◀─── Exited ────── │ (the process ends)             │
//! ```
//!
//! All of them are this very program, executed again with a hidden first argument, so nothing
//! runs on after a fork. The arrows are one socket on standard input; who finds it closed
//! before `Go` ends without a trace. Later, each end has one who sees it:
//!
//! * the command ends: init exits with its code, and the kernel ends every other process of the
//!   pid namespace; the supervisor tells [`OnExit`].
//! * the supervisor is killed: init finds the socket closed, leaves a note named after the
//!   container in [`Spec::notes`], and exits. So the next command knows without a search.
//! * the client dies: before `Go` as if nothing had been asked (but a note is left, for the
//!   record may have been stored); after it the container goes on.
//!
//! Nothing here knows of networks; the caller wires the namespace between `Born` and `Go`.

mod channel;
pub mod exec;
mod init;
pub mod logs;
pub mod mounts;
mod supervisor;

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::Signal,
};
use serde::{Deserialize, Serialize};

use crate::{container::channel::Channel, linux::task::Signals};

pub use crate::linux::process::Task;

/// What the first process of a container calls itself.
pub(crate) const INIT_NAME: &std::ffi::CStr = c"twinax-init";

/// What to run, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The container's name: a file name, shown in the processes' arguments.
    pub name: String,
    /// The program and its arguments. Looked for in the `PATH` of [`Spec::env`].
    pub command: Vec<OsString>,
    /// The whole environment of the command.
    pub env: Vec<(OsString, OsString)>,
    /// The command's working directory.
    pub cwd: PathBuf,
    /// A directory of the container's own; the log is kept in it.
    pub dir: PathBuf,
    /// Where init leaves a file named [`Spec::name`] if its supervisor was killed.
    pub notes: PathBuf,
    pub net: Net,
    /// The caller stays: output goes to its standard output and error as well as to the log,
    /// and the command reads its standard input.
    pub attached: bool,
}

/// In which network namespace a container runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Net {
    /// One of its own.
    New,
    /// The one that Twinax runs in.
    Host,
    /// That of another process.
    Of(Task),
    /// One that is mounted on a file.
    Path(PathBuf),
}

/// A container that waits for [`Waiting::go`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Born {
    pub supervisor: Task,
    /// PID 1 of the container, by its number outside.
    pub init: Task,
    /// `SO_NETNS_COOKIE` of the container's network namespace.
    pub cookie: u64,
}

/// What the command sees that was not known before its network was wired.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Go {
    /// Shown as `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// Shown as `/etc/resolv.conf`.
    pub resolv: Option<PathBuf>,
    pub hostname: Option<String>,
}

/// Why a container did not start. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Exit code 127 as in Docker: there is no such program.
    #[error("cannot run {command:?}: {why}")]
    NotFound { command: OsString, why: String },
    /// Exit code 126 as in Docker: the program cannot be executed.
    #[error("cannot run {command:?}: {why}")]
    NotExecutable { command: OsString, why: String },
    /// A step before the command failed.
    #[error("cannot start container {name}: {step}: {why}")]
    Step { name: String, step: String, why: String },
    #[error("cannot start container {name}: cannot execute this program again")]
    Spawn {
        name: String,
        #[source]
        cause: io::Error,
    },
    /// Supervisor or init ended without a word: somebody killed them.
    #[error("cannot start container {name}: its supervisor ended unexpectedly; try again")]
    Died { name: String },
}

impl StartError {
    /// The exit code Docker's users expect: 127, 126 or 125.
    pub fn code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            Self::Step { .. } | Self::Spawn { .. } | Self::Died { .. } => 125,
        }
    }
}

/// Told by a supervisor that its container has ended.
pub trait OnExit {
    /// Detaches the container, records `code`, removes it if asked to. `dir` is [`Spec::dir`];
    /// `code` is the command's, or 128 + the signal that ended it; `None` if it is not known.
    /// Runs in the supervisor, in the namespaces that Twinax runs in, single-threaded.
    fn exited(&self, container: &str, dir: &Path, code: Option<i32>);
}

const SUPERVISE: &str = "--supervise";
const INIT: &str = "--init";

/// Takes over if this process was started to be a supervisor or an init (or the holder of a
/// user's namespaces). `args` are those after the program's name. To be called first in `main`.
pub fn dispatch(args: &[OsString], on_exit: &dyn OnExit) -> Option<ExitCode> {
    let role = args.first().and_then(|role| role.to_str())?;
    match role {
        SUPERVISE => Some(supervisor::supervise(on_exit)),
        INIT => Some(init::init()),
        crate::holder::HOLD => Some(crate::holder::hold(args.get(1).map(OsString::as_os_str))),
        _ => None,
    }
}

/// A message to or from a supervisor.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// Comes with a descriptor for the command's standard input if it is attached.
    Spec(Spec),
    Ready {
        cookie: u64,
    },
    Born(Born),
    Go(Go),
    /// The caller changed its mind: end without leaving a note.
    Quit,
    Running {
        warnings: Vec<String>,
    },
    Failed(Failure),
    Exited {
        code: Option<i32>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
enum Failure {
    NotFound(String),
    NotExecutable(String),
    Step { step: String, why: String },
}

impl Failure {
    fn step(step: impl Into<String>, why: impl ToString) -> Self {
        Self::Step { step: step.into(), why: why.to_string() }
    }

    fn of(self, spec: &Spec) -> StartError {
        let command = spec.command.first().cloned().unwrap_or_default();
        match self {
            Self::NotFound(why) => StartError::NotFound { command, why },
            Self::NotExecutable(why) => StartError::NotExecutable { command, why },
            Self::Step { step, why } => StartError::Step { name: spec.name.clone(), step, why },
        }
    }
}

/// Prepares a container: its processes and namespaces stand, its command does not run yet.
///
/// # Errors
/// See [`StartError`]; nothing is left behind.
pub fn start(spec: &Spec) -> Result<Waiting, StartError> {
    let failed = |cause| StartError::Spawn { name: spec.name.clone(), cause };
    let (ours, theirs) = Channel::pair().map_err(failed)?;
    let mut command = again(SUPERVISE, "twinax-supervisor");
    command.arg(&spec.name).stdin(theirs.into_fd());
    if !spec.attached {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    let child = command.spawn().map_err(failed)?;
    drop(command); // It holds the other end of the socket.
    let stdin = io::stdin();
    let handed = spec.attached.then(|| stdin.as_fd());
    let sent = ours.send(&Message::Spec(spec.clone()), handed.as_slice());
    let mut link = Link { channel: ours, child, spec: spec.clone() };
    if sent.is_err() {
        return Err(link.died());
    }
    match link.receive() {
        Some(Message::Born(born)) => Ok(Waiting { link, born }),
        Some(Message::Failed(failure)) => Err(link.failed(failure)),
        _ => Err(link.died()),
    }
}

/// This program again, in another role.
fn again(role: &str, name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(OsStr::new(name)).arg(role).current_dir("/");
    command
}

/// Whether there is no such program. A directory in `PATH` that may not be entered makes the kernel
/// say "permission denied" of a program that is nowhere; users expect to hear of the latter.
fn missing(program: &OsStr, path: Option<&OsStr>, error: &io::Error) -> bool {
    let plain = !program.as_encoded_bytes().contains(&b'/');
    let there = |path| std::env::split_paths(path).any(|dir| dir.join(program).is_file());
    match error.kind() {
        io::ErrorKind::NotFound => true,
        io::ErrorKind::PermissionDenied => plain && !path.is_some_and(there),
        _ => false,
    }
}

/// The caller's end.
#[derive(Debug)]
struct Link {
    channel: Channel,
    child: Child,
    spec: Spec,
}

impl Link {
    fn receive(&self) -> Option<Message> {
        self.channel.receive().ok().flatten().map(|(message, _)| message)
    }

    fn failed(&mut self, failure: Failure) -> StartError {
        self.end();
        failure.of(&self.spec)
    }

    fn died(&mut self) -> StartError {
        self.end();
        StartError::Died { name: self.spec.name.clone() }
    }

    /// Waits until the supervisor is gone, and with it all that it started.
    fn end(&mut self) {
        let _ = self.channel.send(&Message::Quit, &[]);
        let _ = self.child.wait();
    }
}

/// A container whose command waits. Dropped, it ends as if this process had died.
#[derive(Debug)]
pub struct Waiting {
    link: Link,
    born: Born,
}

impl Waiting {
    /// Returns who its processes are.
    pub fn born(&self) -> &Born {
        &self.born
    }

    /// Lets the command run.
    ///
    /// # Errors
    /// See [`StartError`]; the container is gone, the caller undoes what it did for it.
    pub fn go(mut self, go: &Go) -> Result<Running, StartError> {
        if self.link.channel.send(&Message::Go(go.clone()), &[]).is_err() {
            return Err(self.link.died());
        }
        match self.link.receive() {
            Some(Message::Running { warnings }) => {
                Ok(Running { link: self.link, warnings, born: self.born })
            }
            Some(Message::Failed(failure)) => Err(self.link.failed(failure)),
            _ => Err(self.link.died()),
        }
    }

    /// Ends the container without leaving a note, and returns when it is gone.
    pub fn abandon(mut self) {
        self.link.end();
    }
}

/// A container whose command runs. Dropped, it goes on without this process.
#[derive(Debug)]
pub struct Running {
    link: Link,
    born: Born,
    /// What could not be shown to the command as asked, though it runs.
    pub warnings: Vec<String>,
}

/// Which signals a caller in the foreground passes on.
const FORWARDED: [i32; 7] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
];

impl Running {
    /// Returns who its processes are.
    pub fn born(&self) -> &Born {
        &self.born
    }

    /// Passes signals on until the container has ended and [`OnExit`] is done; returns its exit
    /// code, 137 if it or its supervisor was killed.
    ///
    /// # Errors
    /// The kernel's, if signals cannot be read; the container goes on.
    pub fn wait(mut self) -> io::Result<i32> {
        let signals = Signals::block(&FORWARDED)?;
        loop {
            let mut fds = [
                PollFd::new(&signals, PollFlags::IN),
                PollFd::new(&self.link.channel, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                done => done?,
            };
            let told = !fds[1].revents().is_empty();
            while let Some(signal) = signals.next().and_then(|s| Signal::from_named_raw(s.number)) {
                // Gone already: its exit is on the way to us.
                let _ = self.born.init.signal(signal);
            }
            if told {
                let code = match self.link.receive() {
                    Some(Message::Exited { code }) => code,
                    _ => None,
                };
                let _ = self.link.child.wait();
                return Ok(code.unwrap_or(128 + libc::SIGKILL));
            }
        }
    }
}
