//! Starts, tells and stops the one process that serves published ports on the host's own loopback.
//!
//! # Theory of operation
//!
//! NAT cannot serve `::1`, and for `127.0.0.1` only by a switch that lays the host's loopback open
//! whenever the rules that guard it are gone. So one process accepts there and connects on.
//! It is this program run again as `twinax --forwarder RUN_DIR`, in the network namespace of who
//! started it, and lives in four entries of the run directory:
//!
//! ```text
//! forwards/        what to serve, a link a port:  tcp-127.0.0.1:8080 -> 10.1.0.2:80
//! forwarder        its pid and start time; locked (flock) as long as it lives
//! forwarder.sock   takes messages: to reload, to change, to stop; answers when that is done
//! forwarder.log    what it could not do; starts anew when it grows too long
//! ```
//!
//! **A port is added without waiting.** Who publishes writes the link, opens the port's socket
//! itself, and hands it over by a message that nobody waits to be answered. From the moment the
//! socket listens the kernel takes connections and datagrams for it, so the port serves although
//! the forwarder may not have run since; and if that dies before it takes the message, the kernel
//! closes the socket with it, and the next forwarder opens what the links say. A port that cannot
//! be opened (above all because the forwarder still has it, told by a command that was killed
//! midway) is left to the forwarder, and its answer waited for.
//!
//! **A port is removed at once, but others' work goes on meanwhile**: [`remove`] asks, and
//! [`Asked::answer`] returns when the port is free.
//!
//! A message is a datagram, whole or not there: `r`, `s`, or `d` and lines such as
//! `+tcp 127.0.0.1:8080 10.1.0.2:80` and `-tcp …`, with a descriptor (`SCM_RIGHTS`) for each `+` or
//! none at all. After a `?` in front, the first descriptor is where it is to be answered. Messages
//! are done in the order they were sent. The link is written before the forwarder is told, and struck out before, too: after
//! a command killed in between, [`reload`] makes the two agree.

mod flows;
mod forwards;
mod handover;
mod list;
mod relay;
mod serve;

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    mem::take,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::{UnixDatagram, UnixStream},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    process::Signal,
};

use twinax_core::model::Forward;

use crate::linux::process::Task;

/// The hidden word that makes this program the forwarder.
const WORD: &str = "--forwarder";
const FORWARDS: &str = "forwards";
const LISTING: &str = "writing down what the loopback forwarder serves";
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

/// Starts another forwarder where one ended without an answer; it serves what is written down.
pub fn succeed(run_dir: &Path) -> Result<(), ForwarderError> {
    const ENDING: Duration = Duration::from_secs(1);
    if !gone_within(run_dir, ENDING) {
        return Err(ForwarderError::Silent(LOG));
    }
    let (left, _) = list::read(run_dir).map_err(system(LISTING))?;
    if left.is_empty() { Ok(()) } else { start(run_dir) }
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

/// Has the forwarder serve what is written down, and nothing else; returns when it does.
///
/// Connections of ports that are gone, or lead elsewhere, are closed; others are not touched. With
/// [`ForwarderError::Refused`] it serves all but the ports named.
pub fn reload(run_dir: &Path) -> Result<(), ForwarderError> {
    judge(&hear(question(run_dir, "r")?)?)
}

/// What a process that sends many messages keeps between them.
#[derive(Debug, Default)]
pub struct Line {
    /// Leads to the forwarder, or to one that was there before.
    socket: Option<UnixDatagram>,
    /// The file that a forwarder locks as long as it lives.
    record: Option<File>,
    /// Nobody was there to be told something.
    missed: bool,
}

impl Line {
    /// Whether since the last time somebody was to be told something and was not there: where a
    /// forwarder was seen before, it has died, and another has to be started.
    pub fn take_missed(&mut self) -> bool {
        take(&mut self.missed)
    }
}

/// Ports that are written down, with their sockets: they take connections and datagrams already.
#[derive(Debug, Default)]
pub struct Opened {
    lines: Vec<String>,
    sockets: Vec<OwnedFd>,
    /// Those that could not be opened, for the forwarder to open itself.
    left: Vec<String>,
    /// Why not.
    refused: Vec<String>,
    /// How many ports it is about.
    count: usize,
}

impl Opened {
    /// Whether [`open`] was told of just these, or of as many at least.
    pub fn is_about(&self, forwards: &[&Forward]) -> bool {
        self.count == forwards.len()
    }
}

/// Writes ports down and has the forwarder serve them; if it does not run, the next one will.
///
/// They take connections and datagrams when this returns. With [`ForwarderError::Refused`] all do
/// but the ports named.
pub fn add(run_dir: &Path, line: &mut Line, forwards: &[&Forward]) -> Result<(), ForwarderError> {
    let mut left = Opened::default();
    for some in forwards.chunks(handover::MOST) {
        let mut opened = open(run_dir, some)?;
        pass_on(run_dir, line, &mut opened)?;
        left.left.append(&mut opened.left);
        left.refused.append(&mut opened.refused);
    }
    ask_for_the_rest(run_dir, line, left)
}

/// How many ports [`open`] takes.
pub const OPEN_MOST: usize = handover::MOST;

/// The first half of [`add`]: writes ports down and opens them. They are to be handed over when all
/// is there that they lead to; until then a client waits.
pub fn open(run_dir: &Path, forwards: &[&Forward]) -> Result<Opened, ForwarderError> {
    for forward in forwards {
        let (port, target) = forwards::split(forward);
        list::put(run_dir, port, target).map_err(system(LISTING))?;
    }
    let mut opened = Opened { count: forwards.len(), ..Opened::default() };
    for forward in forwards {
        let (port, _) = forwards::split(forward);
        match handover::open(port) {
            Ok(socket) => {
                opened.lines.push(format!("+{forward}\n"));
                opened.sockets.push(socket);
            }
            Err(error) if handover::is_needless(port, &error) => {}
            Err(error) => {
                opened.left.push(format!("+{forward}\n"));
                opened.refused.push(format!("{port} ({error})"));
            }
        }
    }
    Ok(opened)
}

/// The second half of [`add`].
pub fn hand_over(
    run_dir: &Path,
    line: &mut Line,
    mut opened: Opened,
) -> Result<(), ForwarderError> {
    pass_on(run_dir, line, &mut opened)?;
    ask_for_the_rest(run_dir, line, opened)
}

/// Sends sockets to the forwarder.
fn pass_on(run_dir: &Path, line: &mut Line, opened: &mut Opened) -> Result<(), ForwarderError> {
    let (lines, sockets) = (take(&mut opened.lines), take(&mut opened.sockets));
    if sockets.is_empty() {
        return Ok(());
    }
    match send(run_dir, line, &format!("d{}", lines.concat()), sockets) {
        Ok(()) | Err(ForwarderError::NotRunning) => {}
        // Such as too many descriptors on their way (ETOOMANYREFS).
        Err(ForwarderError::Silent(_)) => opened.left.extend(lines),
        Err(other) => return Err(other),
    }
    Ok(())
}

fn ask_for_the_rest(
    run_dir: &Path,
    line: &mut Line,
    Opened { left, refused, .. }: Opened,
) -> Result<(), ForwarderError> {
    if left.is_empty() {
        return Ok(());
    }
    match ask(run_dir, line, &left)? {
        Asked(told) if told.is_empty() && !refused.is_empty() => {
            Err(ForwarderError::Refused(refused))
        }
        asked => asked.answer(),
    }
}

/// Strikes ports out and has the forwarder let go of them, and of their connections.
///
/// They are free when [`Asked::answer`] returns.
pub fn remove(
    run_dir: &Path,
    line: &mut Line,
    forwards: &[&Forward],
) -> Result<Asked, ForwarderError> {
    for forward in forwards {
        list::strike(run_dir, forwards::split(forward).0).map_err(system(LISTING))?;
    }
    ask(run_dir, line, &forwards.iter().map(|forward| format!("-{forward}\n")).collect::<Vec<_>>())
}

/// Returns when the forwarder has taken all that it was handed.
pub fn settle(run_dir: &Path) -> Result<(), ForwarderError> {
    judge(&hear(question(run_dir, "d")?)?)
}

/// Whether it is written down that this port is served.
pub fn is_listed(run_dir: &Path, forward: &Forward) -> Result<bool, ForwarderError> {
    let (port, target) = forwards::split(forward);
    list::says(run_dir, port, target).map_err(system(LISTING))
}

/// Strikes all ports out, for the next forwarder; one that runs is not told.
pub fn clear(run_dir: &Path) -> Result<(), ForwarderError> {
    list::clear(run_dir).map_err(system(LISTING))
}

/// Changes that the forwarder was told of; what does not run needs no telling.
#[derive(Debug, Default)]
#[must_use = "the change is made only when it is answered"]
pub struct Asked(Vec<UnixStream>);

impl Asked {
    /// Waits until it is done.
    pub fn answer(self) -> Result<(), ForwarderError> {
        self.0.into_iter().try_for_each(|stream| judge(&hear(stream)?))
    }
}

fn ask(run_dir: &Path, line: &mut Line, lines: &[String]) -> Result<Asked, ForwarderError> {
    let mut asked = Asked::default();
    for some in lines.chunks(handover::MOST) {
        match question_by(run_dir, line, &format!("d{}", some.concat())) {
            Ok(stream) => asked.0.push(stream),
            Err(ForwarderError::NotRunning) => break,
            Err(other) => return Err(other),
        }
    }
    Ok(asked)
}

/// Whether the forwarder of this run directory lives.
pub fn running(run_dir: &Path) -> bool {
    running_by(run_dir, &mut Line::default())
}

/// As [`running`], with what is kept.
pub fn running_by(run_dir: &Path, line: &mut Line) -> bool {
    let locked = |record: &File| {
        let free = rustix::fs::flock(record, FlockOperation::NonBlockingLockShared);
        free == Err(rustix::io::Errno::WOULDBLOCK)
    };
    if line.record.as_ref().is_some_and(locked) {
        return true;
    }
    // Nobody has that one; it is closed, which lets go of the lock that we may have now.
    line.record = File::open(run_dir.join(RECORD)).ok().filter(locked);
    line.record.is_some()
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
    if question(run_dir, "s").and_then(hear).is_err() || !gone_within(run_dir, PATIENCE) {
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

/// Sends a message; its answer will come by the stream returned.
fn question(run_dir: &Path, message: &str) -> Result<UnixStream, ForwarderError> {
    question_by(run_dir, &mut Line::default(), message)
}

fn question_by(
    run_dir: &Path,
    line: &mut Line,
    message: &str,
) -> Result<UnixStream, ForwarderError> {
    let (ours, theirs) = UnixStream::pair().map_err(system("making a pair of sockets"))?;
    send(run_dir, line, &format!("?{message}"), vec![theirs.into()])?;
    Ok(ours)
}

/// Sends a message and closes our copies of what it hands over.
fn send(
    run_dir: &Path,
    line: &mut Line,
    message: &str,
    handed: Vec<OwnedFd>,
) -> Result<(), ForwarderError> {
    let gone = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    };
    // One that is gone may have a successor.
    if let Some(socket) = line.socket.take() {
        match handover::send(&socket, message.as_bytes(), &handed) {
            Ok(()) => {
                line.socket = Some(socket);
                return Ok(());
            }
            Err(error) if gone(&error) => {}
            Err(_) => return Err(ForwarderError::Silent(LOG)),
        }
    }
    let sent = connect(run_dir).map_err(|error| match gone(&error) {
        true => ForwarderError::NotRunning,
        false => system("reaching the loopback forwarder")(error),
    });
    let sent = sent.and_then(|socket| {
        let sent = handover::send(&socket, message.as_bytes(), &handed);
        sent.map(|()| socket).map_err(|error| match gone(&error) {
            true => ForwarderError::NotRunning,
            false => ForwarderError::Silent(LOG),
        })
    });
    line.missed |= matches!(sent, Err(ForwarderError::NotRunning));
    line.socket = Some(sent?);
    Ok(())
}

/// Reads a whole answer; it ends early if the forwarder does.
fn hear(mut stream: UnixStream) -> Result<String, ForwarderError> {
    let mut answer = String::new();
    let heard =
        stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.read_to_string(&mut answer));
    heard.map_err(|_| ForwarderError::Silent(LOG))?;
    Ok(answer)
}

/// A socket's path is limited to 107 bytes; by way of a descriptor the run directory's is not.
fn connect(run_dir: &Path) -> io::Result<UnixDatagram> {
    const LONGEST: usize = 107;
    let socket = UnixDatagram::unbound()?;
    // One that hangs leaves no room, after some messages.
    socket.set_write_timeout(Some(PATIENCE))?;
    let path = run_dir.join(SOCKET);
    if path.as_os_str().len() <= LONGEST {
        socket.connect(path)?;
        return Ok(socket);
    }
    let dir = rustix::fs::open(run_dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    socket.connect(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))?;
    Ok(socket)
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
