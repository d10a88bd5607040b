//! Runs one more command in a container, or in any network namespace.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
    thread::{
        LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space,
        move_into_thread_name_spaces,
    },
};

use crate::{
    container::{FORWARDED, Task, missing},
    linux::{
        netns,
        task::{self, Signals},
    },
};

/// Where a command runs.
#[derive(Debug)]
pub enum Target {
    /// In every namespace of a container of ours, whose init this is.
    Container(Task),
    /// In the network namespace of a process.
    NetOf(Task),
    /// In the network namespace that is mounted on a file.
    NetPath(PathBuf),
    /// In a network namespace that is held open; `what` says to people whose it is.
    Net { fd: OwnedFd, what: String },
}

/// What to run there.
#[derive(Debug)]
pub struct Exec {
    pub target: Target,
    pub command: Vec<OsString>,
    /// Added to this process's environment.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory inside; `None` is `/` in a container, and here otherwise.
    pub cwd: Option<PathBuf>,
    /// Do not wait; standard input, output and error are `/dev/null`.
    pub detach: bool,
}

/// Why a command was not run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("cannot enter {what}: its process has ended")]
    Gone { what: String },
    #[error("cannot enter {what}")]
    Enter {
        what: String,
        #[source]
        cause: io::Error,
    },
    #[error("cannot run {command:?}: no such program in PATH")]
    NotFound { command: OsString },
    #[error("cannot run {command:?}")]
    NotExecutable {
        command: OsString,
        #[source]
        cause: io::Error,
    },
    #[error("cannot run {command:?}: there is no directory {path} inside", path = .path.display())]
    NoDirectory { command: OsString, path: PathBuf },
}

impl ExecError {
    /// The exit code Docker's users expect: 127, 126 or 125.
    pub fn code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } | Self::NoDirectory { .. } => 126,
            Self::Gone { .. } | Self::Enter { .. } => 125,
        }
    }
}

/// Moves this process, which must be single-threaded, into the namespaces of the target for good
/// and runs a command there. Returns its exit code, 128 + the signal that ended it, or 0 at once
/// with [`Exec::detach`].
///
/// # Errors
/// See [`ExecError`]. The process may be left in other namespaces; it should end.
pub fn exec(exec: &Exec) -> Result<i32, ExecError> {
    let Some((program, arguments)) = exec.command.split_first() else {
        return Err(ExecError::NotFound { command: OsString::new() });
    };
    enter(&exec.target)?;
    // Where only the network is another's, the directory stays the caller's, even one that has no
    // path any more.
    let whole = matches!(exec.target, Target::Container(_));
    let cwd = exec.cwd.clone().or_else(|| whole.then(|| "/".into()));
    let mut command = Command::new(program);
    command.args(arguments).envs(exec.env.iter().map(|(key, value)| (key, value)));
    if let Some(path) = cwd {
        if !path.is_dir() {
            return Err(ExecError::NoDirectory { command: program.clone(), path });
        }
        command.current_dir(path);
    }
    if exec.detach {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }
    let given = exec.env.iter().rfind(|(key, _)| key == "PATH").map(|(_, path)| path.clone());
    let path = given.or_else(|| std::env::var_os("PATH"));
    let refused = |cause: io::Error| match missing(program, path.as_deref(), &cause) {
        true => ExecError::NotFound { command: program.clone() },
        false => ExecError::NotExecutable { command: program.clone(), cause },
    };
    // Blocked before the command is there, so that none is lost between.
    let signals = Signals::block(&FORWARDED).map_err(refused)?;
    let child = task::unblocked(&mut command).spawn().map_err(refused)?;
    match exec.detach {
        true => Ok(0),
        false => wait(child, &signals).map_err(refused),
    }
}

fn enter(target: &Target) -> Result<(), ExecError> {
    let gone = |what: String| ExecError::Gone { what };
    let failed = |what: String| move |cause: Errno| ExecError::Enter { what, cause: cause.into() };
    match target {
        Target::Container(of) => {
            let what = format!("the namespaces of process {}", of.pid);
            let fd = of.open().ok_or_else(|| gone(what.clone()))?;
            let all = ThreadNameSpaceType::NETWORK
                | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
                | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
                | ThreadNameSpaceType::PROCESS_ID
                | ThreadNameSpaceType::MOUNT;
            move_into_thread_name_spaces(fd.as_fd(), all).map_err(failed(what))
        }
        Target::NetOf(of) => {
            let what = format!("the network namespace of process {}", of.pid);
            let opened = File::open(format!("/proc/{}/ns/net", of.pid));
            // After the opening: if it is that process now, it was it then.
            if !of.alive() {
                return Err(gone(what));
            }
            let fd = opened.map_err(|cause| ExecError::Enter { what: what.clone(), cause })?;
            enter_network(fd.as_fd()).map_err(failed(what))
        }
        Target::NetPath(path) => {
            let what = format!("the network namespace {}", path.display());
            let file =
                File::open(path).map_err(|cause| ExecError::Enter { what: what.clone(), cause })?;
            enter_network(file.as_fd()).map_err(failed(what))
        }
        Target::Net { fd, what } => enter_network(fd.as_fd()).map_err(failed(what.clone())),
    }
}

/// Enters a network namespace; where that is not allowed, by way of the user namespace that it
/// belongs to, which whoever made that one may enter.
fn enter_network(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let network = Some(LinkNameSpaceType::Network);
    match move_into_link_name_space(fd, network) {
        Err(Errno::PERM) => {}
        done => return done,
    }
    let user = netns::owner(fd).map_err(|_| Errno::PERM)?;
    // A thread that has ended is counted for a moment more, and only who is alone may enter.
    for _ in 0..50 {
        match move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User)) {
            Ok(()) => return move_into_link_name_space(fd, network),
            Err(Errno::INVAL) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => break,
        }
    }
    Err(Errno::PERM)
}

fn wait(mut child: Child, signals: &Signals) -> io::Result<i32> {
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    loop {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            done => done?,
        };
        let ended = !fds[0].revents().is_empty();
        while let Some(caught) = signals.next() {
            // A terminal's signals reach the command too: it is in our process group.
            let signal = Signal::from_named_raw(caught.number).filter(|_| !caught.by_kernel);
            if let Some(signal) = signal {
                let _ = pidfd_send_signal(&pidfd, signal);
            }
        }
        if ended {
            let status = child.wait()?;
            return Ok(status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(128));
        }
    }
}
