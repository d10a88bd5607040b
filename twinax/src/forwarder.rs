//! Starts, tells and stops the one process that serves published ports on the host's own loopback.
//!
//! # Theory of operation
//!
//! NAT cannot serve `::1`, and for `127.0.0.1` only by a switch that lays the host's loopback open
//! whenever the rules that guard it are gone. So one process accepts there and connects on.
//! It is this program run again as `twinax --forwarder RUN_DIR`, in the network namespace of who
//! started it, and lives in four files of the run directory:
//!
//! ```text
//! forwards         what to serve, a line a port:  tcp 127.0.0.1:8080 10.1.0.2:80
//! forwarder        its pid and start time; locked (flock) as long as it lives
//! forwarder.sock   a byte tells it to reload, to change or to stop; it answers when that is done
//! forwarder.log    what it could not do; starts anew when it grows too long
//! ```

mod flows;
mod forwards;
mod relay;
mod serve;

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::AsRawFd, unix::net::UnixStream, unix::process::CommandExt},
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    process::Signal,
};

use crate::linux::process::Task;

/// The hidden word that makes this program the forwarder.
const WORD: &str = "--forwarder";
const FORWARDS: &str = "forwards";
const RECORD: &str = "forwarder";
const START_LOCK: &str = "forwarder.lock";
const SOCKET: &str = "forwarder.sock";
const LOG: &str = "forwarder.log";
/// How long the forwarder may take to answer; 2,000 ports were bound in 40 ms,
/// unoptimised.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first few of what may be thousands.
fn some(refused: &[String]) -> String {
    match refused.len().saturating_sub(3) {
        0 => refused.join(", "),
        more => format!("{} and {more} more", refused[..3].join(", ")),
    }
}

/// Why the forwarder is not as asked.
#[derive(Debug, thiserror::Error)]
pub enum ForwarderError {
    #[error("the loopback forwarder cannot serve {}", some(.0))]
    Refused(Vec<String>),
    #[error("the loopback forwarder does not run; any command that changes a network starts it")]
    NotRunning,
    #[error(
        "the loopback forwarder ended or hung before it answered; see {0} in the run directory"
    )]
    Silent(&'static str),
    #[error("{what}")]
    System { what: &'static str, source: io::Error },
}

/// Turns an error of the system into ours.
fn system(what: &'static str) -> impl Fn(io::Error) -> ForwarderError {
    move |source| ForwarderError::System { what, source }
}

/// Becomes the forwarder if the arguments (without the program's name) say so.
///
/// Must be called before threads are started. Returns the code to exit with, at the very end.
pub fn dispatch(args: &[OsString]) -> Option<ExitCode> {
    match args {
        [word, run_dir] if word == WORD => Some(serve::main(Path::new(run_dir))),
        _ => None,
    }
}

/// What a forwarder tells its starter that finds another one there.
const ANOTHER: &str = "another\n";

/// Starts the forwarder, unless it runs, in the network namespace of the calling thread.
///
/// Returns once it serves all of `forwards`; with [`ForwarderError::Refused`] it runs and serves
/// the rest. If it runs already, this changes nothing (see [`reload`]).
pub fn start(run_dir: &Path) -> Result<(), ForwarderError> {
    let lock = open_for_lock(&run_dir.join(START_LOCK)).map_err(system("opening a lock file"))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .map_err(|error| system("locking the start of the loopback forwarder")(error.into()))?;
    if running(run_dir) {
        return Ok(());
    }
    let run_dir = std::path::absolute(run_dir).map_err(system("finding the run directory"))?;
    let (mut ready, theirs) = io::pipe().map_err(system("making a pipe"))?;
    let log = File::options().create(true).append(true).open(run_dir.join(LOG));
    let mut command = Command::new("/proc/self/exe");
    command.arg0("twinax").arg(WORD).arg(&run_dir).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(theirs);
    command.stderr(log.map_err(system("opening the log of the loopback forwarder"))?);
    command.spawn().map_err(system("starting the loopback forwarder"))?;
    drop(command); // Our copy of the pipe, so that its end is seen.
    let mut answer = String::new();
    ready.read_to_string(&mut answer).map_err(system("hearing of the loopback forwarder"))?;
    if answer == ANOTHER {
        return found(&run_dir);
    }
    judge(&answer)
}

/// Has a forwarder that came first, and may not listen yet, serve what is wanted.
fn found(run_dir: &Path) -> Result<(), ForwarderError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match reload(run_dir) {
            Err(ForwarderError::NotRunning) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome,
        }
    }
}

/// Has the forwarder serve what `forwards` says now; returns when it does.
///
/// Connections of ports that are gone, or lead elsewhere, are closed; others are not touched. With
/// [`ForwarderError::Refused`] it serves all but the ports named.
pub fn reload(run_dir: &Path) -> Result<(), ForwarderError> {
    judge(&tell(run_dir, b"r")?)
}

/// Has the forwarder serve a few ports more (`+tcp 127.0.0.1:8080 10.1.0.2:80`) or less (`-…`),
/// one a line, whatever `forwards` says; returns when it does. As [`reload`] otherwise.
pub fn change(run_dir: &Path, lines: &str) -> Result<(), ForwarderError> {
    judge(&tell(run_dir, format!("d{lines}").as_bytes())?)
}

/// Whether the forwarder of this run directory lives.
pub fn running(run_dir: &Path) -> bool {
    let Ok(record) = File::open(run_dir.join(RECORD)) else { return false };
    let free = rustix::fs::flock(&record, FlockOperation::NonBlockingLockShared);
    free == Err(rustix::io::Errno::WOULDBLOCK)
}

/// The forwarder's process number, if it runs.
pub fn pid(run_dir: &Path) -> Option<u32> {
    let task = recorded(run_dir)?;
    running(run_dir).then_some(task.pid)
}

/// Ends the forwarder, if it runs, and its connections; returns when it is gone.
pub fn stop(run_dir: &Path) -> Result<(), ForwarderError> {
    if !running(run_dir) {
        return Ok(());
    }
    // The answer is its end; if it cannot be told, it is killed.
    if tell(run_dir, b"s").is_err() || !gone_within(run_dir, PATIENCE) {
        kill(run_dir).map_err(system("killing the loopback forwarder"))?;
        if !gone_within(run_dir, PATIENCE) {
            return Err(ForwarderError::Silent(LOG));
        }
    }
    Ok(())
}

fn gone_within(run_dir: &Path, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while running(run_dir) {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

fn kill(run_dir: &Path) -> io::Result<()> {
    let Some(task) = recorded(run_dir) else { return Ok(()) };
    task.signal(Signal::KILL).map(drop)
}

/// The forwarder that serves, or served last.
fn recorded(run_dir: &Path) -> Option<Task> {
    let record = fs::read_to_string(run_dir.join(RECORD)).ok()?;
    let (pid, start) = record.trim().split_once(' ')?;
    Some(Task { pid: pid.parse().ok()?, start: start.parse().ok()? })
}

fn open_for_lock(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).read(true).write(true).open(path)
}

/// Sends a byte, and lines that go with it, and returns the whole answer.
fn tell(run_dir: &Path, words: &[u8]) -> Result<String, ForwarderError> {
    let mut stream = connect(run_dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ForwarderError::NotRunning,
        _ => system("reaching the loopback forwarder")(error),
    })?;
    let mut answer = String::new();
    let exchange = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.write_all(words))
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .and_then(|()| stream.read_to_string(&mut answer));
    exchange.map_err(|_| ForwarderError::Silent(LOG))?;
    Ok(answer)
}

/// A socket's path is limited to 107 bytes; by way of a descriptor the run directory's is not.
fn connect(run_dir: &Path) -> io::Result<UnixStream> {
    let dir = rustix::fs::open(run_dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// An answer is the word `ok`, after a line for each thing that failed.
fn judge(answer: &str) -> Result<(), ForwarderError> {
    let Some(failed) = answer.strip_suffix("ok\n") else {
        return Err(ForwarderError::Silent(LOG));
    };
    if failed.is_empty() {
        return Ok(());
    }
    Err(ForwarderError::Refused(failed.lines().map(str::to_owned).collect()))
}
