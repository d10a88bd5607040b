//! The supervisor: starts a container's init, keeps its output, tells when it has ended.
//!
//! One process, one thread, one poll loop. It stays in the namespaces that Twinax runs in.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::ExitCode,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};

use crate::{
    container::{
        Born, Failure, Message, OnExit, Spec, Task,
        channel::Channel,
        init::leave_note,
        logs::{self, BODY, Chunk, Log, Stream},
    },
    linux::task::{self, First},
};

/// The life of a supervisor. Its standard input is the socket to the caller.
pub(super) fn supervise(on_exit: &dyn OnExit) -> ExitCode {
    task::close_inherited();
    let _ = rustix::process::setsid(); // Fails only if we lead a session already.
    let _ = rustix::thread::set_name(c"twinax-supervisor");
    let Ok(client) = Channel::take_stdin() else {
        return ExitCode::FAILURE;
    };
    let Ok(Some((Message::Spec(spec), stdin))) = client.receive() else {
        return ExitCode::FAILURE;
    };
    let brood = match bear(&spec, &client, stdin) {
        Ok(Some(brood)) => brood,
        Ok(None) => {
            logs::forget(&spec.dir);
            return ExitCode::FAILURE;
        }
        Err(failure) => {
            logs::forget(&spec.dir);
            let _ = client.send(&Message::Failed(failure), &[]);
            return ExitCode::FAILURE;
        }
    };
    if let Err(failure) = let_go(&client, &brood) {
        drop(brood.init);
        let told = failure.is_none_or(|f| client.send(&Message::Failed(f), &[]).is_ok());
        if !told {
            leave_note(&spec.notes, &spec.name);
        }
        brood.child.wait();
        logs::forget(&spec.dir);
        return ExitCode::FAILURE;
    }
    let Spec { name, dir, attached, .. } = spec;
    watch(brood, client, &Kept { name, dir, attached }, on_exit)
}

/// What is still needed of a [`Spec`] once the command runs.
struct Kept {
    name: String,
    dir: PathBuf,
    attached: bool,
}

/// An init and our ends of its pipes.
struct Brood {
    init: Channel,
    child: First,
    out: OwnedFd,
    err: OwnedFd,
    log: Log,
}

/// Starts the init and tells the caller of it; `None` if the caller is gone.
fn bear(spec: &Spec, client: &Channel, stdin: Vec<OwnedFd>) -> Result<Option<Brood>, Failure> {
    // Made here rather than by the caller, who may be killed before there is one to remove it.
    let log = std::fs::create_dir_all(&spec.dir)
        .and_then(|()| Log::create(&spec.dir))
        .map_err(|e| Failure::step(format!("open the log in {}", spec.dir.display()), e))?;
    let pipes = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| Failure::step("make a pipe", e));
    let ((out, out_end), (err, err_end)) = (pipes()?, pipes()?);
    let (init, end) = Channel::pair().map_err(|e| Failure::step("make a socket", e))?;
    let child = spawn_init(&spec.name, [end.into_fd(), out_end, err_end])?;
    let handed: Vec<BorrowedFd<'_>> = stdin.iter().map(AsFd::as_fd).take(1).collect();
    // If it cannot be sent, init has ended, and the answer will be missing too.
    let _ = init.send(&Message::Spec(spec.clone()), &handed);
    drop(stdin);
    let cookie = match init.receive() {
        Ok(Some((Message::Ready { cookie }, _))) => cookie,
        Ok(Some((Message::Failed(failure), _))) => return Err(failure),
        _ => return Err(Failure::step("start the container's init", "it was killed")),
    };
    let (Some(supervisor), Some(first)) =
        (Task::own(), Task::of(child.pid.as_raw_nonzero().get().cast_unsigned()))
    else {
        return Err(Failure::step("read the start times of processes", "/proc is not mounted"));
    };
    let born = Born { supervisor, init: first, cookie };
    if client.send(&Message::Born(born), &[]).is_err() {
        return Ok(None);
    }
    Ok(Some(Brood { init, child, out, err, log }))
}

/// Starts ourselves as PID 1 of a new pid namespace.
fn spawn_init(name: &str, stdio: [OwnedFd; 3]) -> Result<First, Failure> {
    let name = CString::new(name).map_err(|e| Failure::step("name the container's init", e))?;
    let role = CString::new(super::INIT).expect("a constant without a zero byte");
    task::spawn_first(&[super::INIT_NAME.to_owned(), role, name], stdio)
        .map_err(|e| Failure::step("start a first process in a pid namespace", e))
}

/// Passes the caller's word on to init, and init's answer back. `Err(None)`: the caller does not
/// wait for an answer.
fn let_go(client: &Channel, brood: &Brood) -> Result<(), Option<Failure>> {
    let died = || Some(Failure::step("start the command", "the container's init was killed"));
    match client.receive() {
        Ok(Some((go @ Message::Go(_), _))) => {
            brood.init.send(&go, &[]).map_err(|_| died())?;
        }
        Ok(Some((Message::Quit, _))) => {
            let _ = brood.init.send(&Message::Quit, &[]);
            return Err(None);
        }
        // The caller died: init finds us gone, and leaves a note.
        _ => return Err(None),
    }
    match brood.init.receive() {
        Ok(Some((running @ Message::Running { .. }, _))) => {
            // A caller that died just now has left a container that goes on.
            let _ = client.send(&running, &[]);
            Ok(())
        }
        Ok(Some((Message::Failed(failure), _))) => Err(Some(failure)),
        _ => Err(died()),
    }
}

/// One of the command's two outputs.
struct Flow {
    pipe: Option<OwnedFd>,
    stream: Stream,
    /// Copy what comes to our own standard output or error.
    tee: bool,
    /// The copy's reader is slow: nothing is read until it has room.
    stalled: bool,
}

/// Keeps the output until init has ended, then tells everybody.
fn watch(brood: Brood, client: Channel, kept: &Kept, on_exit: &dyn OnExit) -> ExitCode {
    let Brood { init, child, out, err, mut log } = brood;
    let flow = |pipe, stream| Flow { pipe: Some(pipe), stream, tee: kept.attached, stalled: false };
    let mut flows = [flow(out, Stream::Out), flow(err, Stream::Err)];
    // A caller that does not stay closes its end, which must not wake us forever.
    let mut client = kept.attached.then_some(client);
    task::trim_memory();
    let mut ended = false;
    while !ended || flows.iter().any(|flow| flow.pipe.is_some()) {
        let woken = turn(&mut flows, &mut log, &child.pidfd, client.as_ref(), ended);
        ended |= woken.ended;
        if woken.deserted {
            client = None;
            for flow in &mut flows {
                (flow.tee, flow.stalled) = (false, false);
            }
        }
    }
    drop(init);
    let code = child.wait();
    log.end(code);
    drop(log);
    on_exit.exited(&kept.name, &kept.dir, code);
    if let Some(client) = client {
        let _ = client.send(&Message::Exited { code }, &[]);
    }
    ExitCode::SUCCESS
}

struct Woken {
    ended: bool,
    deserted: bool,
}

/// Waits for something to do, and does it.
fn turn(
    flows: &mut [Flow; 2],
    log: &mut Log,
    pidfd: &OwnedFd,
    client: Option<&Channel>,
    ended: bool,
) -> Woken {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let tees = [stdout.as_fd(), stderr.as_fd()];
    let mut fds = Vec::with_capacity(4);
    for (flow, tee) in flows.iter().zip(tees) {
        match &flow.pipe {
            Some(_) if flow.stalled => fds.push(PollFd::from_borrowed_fd(tee, PollFlags::OUT)),
            Some(pipe) => fds.push(PollFd::new(pipe, PollFlags::IN)),
            None => fds.push(PollFd::new(pidfd, PollFlags::empty())),
        }
    }
    // Once seen, the end of init would wake us forever.
    let awaited = if ended { PollFlags::empty() } else { PollFlags::IN };
    fds.push(PollFd::new(pidfd, awaited));
    fds.extend(client.map(|client| PollFd::new(client, PollFlags::IN)));
    if poll(&mut fds, None).is_err() {
        return Woken { ended: false, deserted: false };
    }
    let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
    drop(fds);
    for ((flow, tee), ready) in flows.iter_mut().zip(tees).zip(&ready) {
        if flow.pipe.is_some() && !ready.is_empty() {
            flow.pump(tee, log);
        }
    }
    Woken {
        ended: !ready[2].is_empty(),
        deserted: ready.get(3).is_some_and(|ready| !ready.is_empty()),
    }
}

/// What a pipe takes without blocking once it says that it has room (`PIPE_BUF`, pipe(7)).
const ATOMIC: usize = 4096;

impl Flow {
    /// Moves what waits in the pipe to the log, and to `tee` if that has room.
    fn pump(&mut self, tee: BorrowedFd<'_>, log: &mut Log) {
        self.stalled = self.tee && !has_room(tee);
        if self.stalled {
            return;
        }
        let Some(pipe) = &self.pipe else {
            return;
        };
        let mut chunk = Chunk::new();
        let limit = if self.tee { ATOMIC } else { BODY };
        match rustix::io::read(pipe, chunk.room(limit)) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(0) | Err(_) => self.pipe = None,
            Ok(length) => {
                let told = if self.tee { write_all(tee, &chunk.body()[..length]) } else { Ok(()) };
                log.append(self.stream, chunk, length);
                if let Err(error) = told {
                    self.tee = false; // Nobody reads it any more; the log goes on.
                    if error.kind() == io::ErrorKind::BrokenPipe {
                        // As for any command that is piped to another: it hears of it.
                        self.pipe = None;
                    }
                }
            }
        }
    }
}

fn has_room(fd: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    // An error shows when we write.
    !matches!(poll(&mut fds, Some(&now)), Ok(0))
}

fn write_all(fd: BorrowedFd<'_>, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match rustix::io::write(fd, data) {
            Ok(written) => data = &data[written..],
            Err(Errno::INTR) => {}
            // Somebody made it non-blocking and full: wait, as a blocking write would.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
