//! PID 1 of a container: makes its namespaces, starts the command, reaps, forwards signals.
//!
//! It reads nothing but its socket and its signals. When it exits, the kernel ends every other
//! process of the container.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{CWD, Mode, OFlags, open, openat},
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use crate::{
    container::{Failure, Go, Message, Net, Spec, channel::Channel, missing, mounts},
    linux::{
        netns,
        task::{self, Signals},
    },
};

/// Every signal that a process may catch and that does not tell of its own fault.
const PASSED: [i32; 19] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGURG,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGWINCH,
    libc::SIGIO,
];

/// The exit code of a container whose supervisor was killed; nobody reads it.
const ORPHANED: u8 = 137;

/// The life of an init. Its standard input is the socket to the supervisor.
pub(super) fn init() -> ExitCode {
    task::close_inherited();
    let _ = rustix::thread::set_name(super::INIT_NAME);
    let Ok(supervisor) = Channel::take_stdin() else {
        return ExitCode::FAILURE;
    };
    let Ok(Some((Message::Spec(spec), stdin))) = supervisor.receive() else {
        return ExitCode::FAILURE;
    };
    let post = match Post::prepare(&spec) {
        Ok(post) => post,
        Err(failure) => return refuse(&supervisor, failure),
    };
    if supervisor.send(&Message::Ready { cookie: post.cookie }, &[]).is_err() {
        return post.orphaned(&spec.name);
    }
    let go = match supervisor.receive() {
        Ok(Some((Message::Go(go), _))) => go,
        Ok(Some((Message::Quit, _))) => return ExitCode::FAILURE,
        _ => return post.orphaned(&spec.name),
    };
    let warnings = match mounts::furnish(&go, spec.net != Net::Host) {
        Ok(warnings) => warnings,
        Err(failure) => return refuse(&supervisor, failure),
    };
    let command = match launch(&spec, &go, stdin) {
        Ok(command) => command,
        Err(failure) => return refuse(&supervisor, failure),
    };
    if supervisor.send(&Message::Running { warnings }, &[]).is_err() {
        return post.orphaned(&spec.name);
    }
    let name = spec.name.clone();
    drop((spec, go));
    task::trim_memory();
    post.serve(&supervisor, command, &name)
}

fn refuse(supervisor: &Channel, failure: Failure) -> ExitCode {
    let _ = supervisor.send(&Message::Failed(failure), &[]);
    ExitCode::FAILURE
}

/// What init works with, opened while it still sees the host.
struct Post {
    signals: Signals,
    notes: OwnedFd,
    cookie: u64,
}

impl Post {
    /// Leaves the host's namespaces.
    fn prepare(spec: &Spec) -> Result<Self, Failure> {
        // Blocked first of all: PID 1 loses what it neither handles nor blocks.
        let numbers: Vec<i32> = PASSED.iter().copied().chain([libc::SIGCHLD]).collect();
        let signals =
            Signals::block(&numbers).map_err(|e| Failure::step("take signals as a file", e))?;
        let notes = open_notes(&spec.notes)
            .map_err(|e| Failure::step(format!("open {}", spec.notes.display()), e))?;
        let new_net = join_net(&spec.net)?;
        let others = UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC;
        task::unshare(others | new_net).map_err(|e| Failure::step("make namespaces", e))?;
        // At once: from `Ready` on its hosts file may be mounted from outside.
        mounts::keep_apart()?;
        if spec.net == Net::New {
            task::raise_loopback().map_err(|e| Failure::step("set lo up", e))?;
        }
        let cookie = netns::own_cookie()
            .map_err(|e| Failure::step("read the network namespace's cookie", e))?;
        Ok(Self { signals, notes, cookie })
    }

    /// Reaps and forwards until the command has ended, and returns its exit code.
    fn serve(&self, supervisor: &Channel, command: Pid, name: &str) -> ExitCode {
        loop {
            let mut fds =
                [PollFd::new(&self.signals, PollFlags::IN), PollFd::new(supervisor, PollFlags::IN)];
            if poll(&mut fds, None).is_err() {
                continue;
            }
            // The supervisor says nothing more, so this is its end.
            let orphaned = !fds[1].revents().is_empty();
            while let Some(caught) = self.signals.next() {
                match Signal::from_named_raw(caught.number) {
                    Some(Signal::CHILD) | None => {}
                    Some(signal) => {
                        let _ = kill_process(command, signal);
                    }
                }
            }
            if let Some(code) = reap(command) {
                return ExitCode::from(code);
            }
            if orphaned {
                return self.orphaned(name);
            }
        }
    }

    /// Leaves word that nobody watched the end of this container.
    fn orphaned(&self, name: &str) -> ExitCode {
        let _ = write_note(&self.notes, name);
        ExitCode::from(ORPHANED)
    }
}

/// Leaves a note for the next command; a directory that cannot be written leaves none.
pub(super) fn leave_note(notes: &Path, name: &str) {
    if let Ok(notes) = open_notes(notes) {
        let _ = write_note(&notes, name);
    }
}

fn open_notes(notes: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(notes, flags, Mode::empty()).map_err(io::Error::from)
}

fn write_note(notes: &OwnedFd, name: &str) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(notes, name, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(())
}

/// Enters an existing network namespace, or says that a new one is to be made.
fn join_net(net: &Net) -> Result<UnshareFlags, Failure> {
    let path = match net {
        Net::New => return Ok(UnshareFlags::NEWNET),
        Net::Host => return Ok(UnshareFlags::empty()),
        Net::Of(task) => Path::new("/proc").join(task.pid.to_string()).join("ns/net"),
        Net::Path(path) => path.clone(),
    };
    let failed = |why: &dyn ToString| {
        Failure::step(format!("join the network namespace {}", path.display()), why.to_string())
    };
    let fd = openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed(&e))?;
    // Only now is it sure that the number means the process we were told of.
    if let Net::Of(task) = net
        && !task.alive()
    {
        return Err(failed(&"its process has ended"));
    }
    move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|e| failed(&e))?;
    Ok(UnshareFlags::empty())
}

/// Starts the command, and lets go of its standard input, output and error.
fn launch(spec: &Spec, go: &Go, stdin: Vec<OwnedFd>) -> Result<Pid, Failure> {
    let Some((program, arguments)) = spec.command.split_first() else {
        return Err(Failure::NotFound("no command was given".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(spec.env.iter().cloned()).current_dir(&spec.cwd);
    if let Some(hostname) = &go.hostname {
        command.env("HOSTNAME", OsStr::from_bytes(hostname.as_bytes()));
    }
    command.stdin(stdin.into_iter().next().map_or_else(Stdio::null, Stdio::from));
    if !spec.cwd.is_dir() {
        return Err(Failure::step(
            format!("enter the working directory {}", spec.cwd.display()),
            "there is no such directory",
        ));
    }
    let path = spec.env.iter().rfind(|(key, _)| key == "PATH").map(|(_, path)| path.as_os_str());
    let child = task::unblocked(&mut command).spawn().map_err(|error| {
        match missing(program, path, &error) {
            true => Failure::NotFound("no such program in PATH".to_owned()),
            false => Failure::NotExecutable(error.to_string()),
        }
    })?;
    drop(command);
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    Ok(Pid::from_child(&child))
}

/// Reaps every child that has ended; the command's exit code if it is among them.
fn reap(command: Pid) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == command {
            code = Some(exit_code(status));
        }
    }
    code
}

fn exit_code(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 128,
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}
