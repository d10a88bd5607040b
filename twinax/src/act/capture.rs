//! `capture`: packets of whatever interfaces are meant, into a file or told a line each.
//!
//! Every interface has a socket of its own, opened by a thread that has entered its namespace. The
//! packets of all are put in the order of their times before they are written; for that they wait
//! a moment ([`ORDER`]) where there are several.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use twinax_core::{
    capture::{Tap, Untapped, taps},
    map::shown,
    model::Netns,
    pcapng::{self, Direction, Interface, Packet, Statistics},
};

use super::{Done, failed::Failed, inspect::several, shown::style, target_file::TargetFile};
use crate::{
    container::Task,
    front::{
        cli::Capture,
        packets::{Counted, Told, counts, line},
        print::Style,
    },
    linux::{
        packets::{LATENCY_MS, Tapped, Wanted, tap},
        task::Signals,
    },
    look::{Depth, Opened, look_and_hold},
    place::{self, Need},
};

/// How long packets of several interfaces wait for each other.
const ORDER: Duration = Duration::from_millis(3 * LATENCY_MS as u64);
/// How often an interface that is down is looked at: that it goes away is not told then.
const DOWN: Duration = Duration::from_millis(200);
/// How many interfaces are opened and closed at once. The kernel waits at each until nobody can be
/// looking at it, and for all that wait at once it waits once.
const AT_ONCE: usize = 32;
/// How long a ring takes, at the end, to give out what is in it.
const LAST: Duration = Duration::from_millis(2 * LATENCY_MS as u64);

pub(super) fn capture(asked: &Capture) -> Done {
    let to_stdout = asked.write.as_deref().is_some_and(|path| path.as_os_str() == "-");
    if to_stdout && io::stdout().is_terminal() {
        return Err(Failed::told("standard output is a terminal, which cannot show pcapng")
            .hint("pipe it on: twinax capture … -w - | wireshark -k -i -"));
    }
    let file = asked.write.as_deref().filter(|_| !to_stdout).map(TargetFile::find).transpose()?;
    // Before any thread, so that none of them is ended by what we read.
    let signals = Signals::block(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP]);
    let signals = signals.map_err(|e| Failed::told(format!("cannot wait for signals: {e}")))?;
    place::enter(Need::IfRunning)?;
    let points = points(asked)?;
    let to = match &file {
        Some(file) => match opened(file, &signals)? {
            Some(file) => file,
            None => return Ok(ExitCode::SUCCESS),
        },
        None => stdout()?,
    };
    let reader = to.try_clone().map_err(Failed::output)?;
    let mut out = BufWriter::new(Patient { to, signals: &signals });
    let sink = match asked.write {
        Some(_) => Sink::Blocks,
        None => Sink::Lines { style: style(), width: widest(&points) },
    };
    if matches!(sink, Sink::Blocks) {
        out.write_all(&header(asked, &points)).map_err(Failed::output)?;
        out.flush().map_err(Failed::output)?;
    }
    let names: Vec<&str> = points.iter().map(|point| point.tap.name.as_str()).collect();
    tell_people(&format!("capturing at {}; Ctrl-C ends it\n", names.join(", ")));
    let mut running = Running {
        points,
        waiting: Vec::new(),
        out,
        sink,
        reader,
        left: asked.count,
        unfiltered: asked.filter.is_none(),
        start_ns: now_ns(),
    };
    // Where no clock goes so far it has no end.
    let until = asked.seconds.and_then(|s| Instant::now().checked_add(Duration::from_secs(s)));
    let ended = running.run(&signals, until).and_then(|()| running.finish());
    let counted = running.counted();
    tell_people(&counts(&counted));
    close(running.points);
    match ended {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => Err(Failed::Output(cause)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The file that is to be written. A named pipe is waited for until somebody reads it; `None`: a
/// signal came first.
fn opened(file: &TargetFile, signals: &Signals) -> Result<Option<File>, Failed> {
    /// How often it is tried: the kernel tells nobody that a reader came.
    const TRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let mut told = false;
    loop {
        if let Some(file) = file.create()? {
            return Ok(Some(file));
        }
        if !std::mem::replace(&mut told, true) {
            tell_people("waiting for somebody to read the named pipe; Ctrl-C ends it\n");
        }
        let mut fds = [PollFd::new(signals, PollFlags::IN)];
        if poll(&mut fds, Some(&TRY)).is_ok_and(|ready| ready > 0) {
            return Ok(None);
        }
    }
}

/// Standard output without the buffer that ends each line: blocks are no lines.
fn stdout() -> Result<File, Failed> {
    let fd = io::stdout().as_fd().try_clone_to_owned();
    fd.map(File::from).map_err(Failed::output)
}

/// Maybe a pipe, whose reader may have stopped reading: who waits for it can be ended by a signal.
struct Patient<'a> {
    to: File,
    signals: &'a Signals,
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut fds =
                [PollFd::new(&self.to, PollFlags::OUT), PollFd::new(self.signals, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                done => done?,
            };
            if !fds[0].revents().is_empty() {
                // So much a pipe takes at once where it takes anything (pipe(7), `PIPE_BUF`).
                return self.to.write(&bytes[..bytes.len().min(4096)]);
            }
            // Left where it is, so that what is written last does not wait either.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Tells what is not what was asked for: on standard error. Where nobody reads it is no failure.
fn tell_people(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn widest(points: &[Point]) -> usize {
    points.iter().map(|point| point.tap.name.chars().count()).max().unwrap_or(0)
}

/// An interface that is listened at.
struct Point {
    tap: Tap,
    /// `None` once it is gone.
    tapped: Option<Tapped>,
    /// Its processes: with the last of them it is over, though our socket would keep it.
    processes: Vec<OwnedFd>,
    counted: Statistics,
    link_type: pcapng::LinkType,
}

/// Finds out what is meant, and listens there.
fn points(asked: &Capture) -> Result<Vec<Point>, Failed> {
    let (sight, opened) = look_and_hold(Depth::default());
    let found = taps(&sight, &asked.handle, asked.both);
    let found = found.map_err(|why| untapped(&asked.handle, why, &sight.unseen))?;
    let wanted =
        Wanted { filter: asked.filter.as_ref(), keep: asked.keep, interfaces: found.len() };
    let mut points = Vec::new();
    for some in found.chunks(AT_ONCE) {
        let (opened, wanted) = (&opened, &wanted);
        let tapped = thread::scope(|scope| {
            let begin = |at| scope.spawn(move || listen(at, opened, wanted));
            let begun: Vec<_> = some.iter().map(begin).collect();
            let end = |thread: thread::ScopedJoinHandle<'_, _>| thread.join();
            begun.into_iter().map(|thread| end(thread).unwrap_or(Err(Errno::IO))).collect()
        });
        let tapped: Vec<Result<Tapped, Errno>> = tapped;
        for (at, tapped) in some.iter().zip(tapped) {
            points.push(point(at.clone(), tapped)?);
        }
    }
    // All at the same time, when each can be read: rings of many are short.
    for point in &points {
        let begun = point.tapped.as_ref().map_or(Ok(()), Tapped::begin);
        begun.map_err(|errno| cannot(&point.tap, errno))?;
    }
    Ok(points)
}

fn close(points: Vec<Point>) {
    let mut open: Vec<Tapped> = points.into_iter().filter_map(|point| point.tapped).collect();
    while !open.is_empty() {
        let some = open.split_off(open.len().saturating_sub(AT_ONCE));
        thread::scope(|scope| {
            some.into_iter().for_each(|one| drop(scope.spawn(move || drop(one))));
        });
    }
}

/// To be called in a thread that ends after it: it may be left in another namespace.
fn listen(at: &Tap, opened: &Opened, wanted: &Wanted<'_>) -> Result<Tapped, Errno> {
    if at.link.netns != Netns::Host {
        let fd = opened.get(&at.link.netns).ok_or(Errno::PERM)?;
        move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    tap(at.index, wanted)
}

fn cannot(at: &Tap, errno: Errno) -> Failed {
    let failed = Failed::told(format!("cannot capture at {}: {errno}", at.name));
    match errno {
        Errno::PERM | Errno::ACCESS => failed.hint(
            "that takes CAP_NET_RAW over its network namespace, and CAP_SYS_ADMIN to enter it: run \
             it as root",
        ),
        Errno::OPNOTSUPP => failed.hint("its packets are neither Ethernet's nor plain IP"),
        Errno::MFILE => failed.hint("each interface takes a descriptor or two: raise ulimit -n"),
        _ => failed,
    }
}

fn point(at: Tap, tapped: Result<Tapped, Errno>) -> Result<Point, Failed> {
    let tapped = tapped.map_err(|errno| cannot(&at, errno))?;
    let processes = at.processes.iter().filter_map(|pid| Task::of(*pid)?.open());
    Ok(Point {
        processes: processes.collect(),
        link_type: tapped.link_type,
        tapped: Some(tapped),
        counted: Statistics::default(),
        tap: at,
    })
}

fn untapped(handle: &str, why: Untapped, unseen: &[String]) -> Failed {
    let handle = shown(handle);
    match why {
        Untapped::Unknown => {
            Failed::told(format!("nothing on this host that has packets is called {handle}"))
                .hint("twinax map lists interfaces, containers and addresses")
        }
        Untapped::Unseen(label) => {
            let failed = Failed::told(format!("the interfaces of {label} could not be seen"));
            failed.hint(&unseen.join("\n"))
        }
        Untapped::NoMembers => Failed::told(format!("bridge {handle} has no members")),
        Untapped::Ambiguous(many, choices) => several(&handle, many, &choices),
    }
}

/// The blocks that a file begins with.
fn header(asked: &Capture, points: &[Point]) -> Vec<u8> {
    let interface = |point: &Point| {
        pcapng::interface(&Interface {
            name: point.tap.name.clone(),
            description: point.tap.description.clone(),
            comment: point.tap.comment.clone(),
            link_type: point.link_type,
            snap_length: asked.keep,
            filter: asked.words.clone(),
        })
    };
    [pcapng::section()].into_iter().chain(points.iter().map(interface)).flatten().collect()
}

/// How packets are written.
enum Sink {
    Blocks,
    Lines { style: Style, width: usize },
}

/// A packet that waits for its turn.
struct Waiting {
    time_ns: u64,
    /// The place of its interface.
    point: usize,
    direction: Direction,
    length: u32,
    bytes: Vec<u8>,
}

struct Running<'a> {
    points: Vec<Point>,
    waiting: Vec<Waiting>,
    out: BufWriter<Patient<'a>>,
    sink: Sink,
    /// What is written to: a pipe tells when nobody reads it any more.
    reader: File,
    /// How many packets are wanted still.
    left: Option<u64>,
    unfiltered: bool,
    start_ns: u64,
}

impl Running<'_> {
    /// Goes on until a signal comes, or enough has, or nothing more can, or nobody reads.
    fn run(&mut self, signals: &Signals, until: Option<Instant>) -> io::Result<()> {
        loop {
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) || signals.next().is_some() {
                return Ok(());
            }
            let is_down = |point: &Point| point.tapped.as_ref().is_some_and(|t| t.is_down);
            let turns = [
                until.map(|until| until - now),
                (!self.waiting.is_empty()).then_some(ORDER),
                self.points.iter().any(is_down).then_some(DOWN),
            ];
            let wait = turns.into_iter().flatten().min();
            if self.pause(signals, wait)? {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.read()?;
            let ordered = self.points.len() == 1;
            let before = if ordered { u64::MAX } else { now_ns() - ORDER.as_nanos() as u64 };
            self.write(before)?;
            self.part()?;
            let is_over = self.points.iter().all(|point| point.tapped.is_none());
            if is_over || self.left == Some(0) {
                return Ok(());
            }
        }
    }

    /// Waits until something happens, or for so long. Whether nobody reads any more.
    fn pause(&self, signals: &Signals, wait: Option<Duration>) -> io::Result<bool> {
        let mut fds = vec![
            PollFd::new(signals, PollFlags::IN),
            // Asked for nothing, it tells when the other end of a pipe is closed.
            PollFd::new(&self.reader, PollFlags::empty()),
        ];
        for point in self.points.iter().filter(|point| point.tapped.is_some()) {
            fds.extend(point.tapped.iter().map(|tapped| PollFd::new(tapped, PollFlags::IN)));
            fds.extend(point.processes.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        }
        let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
        match poll(&mut fds, wait.as_ref()) {
            Err(Errno::INTR) | Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        // A socket hangs up where a pipe has an error.
        Ok(fds[1].revents().intersects(PollFlags::ERR | PollFlags::HUP))
    }

    fn read(&mut self) -> io::Result<()> {
        let waiting = &mut self.waiting;
        for (number, point) in self.points.iter_mut().enumerate() {
            let Some(tapped) = &mut point.tapped else { continue };
            tapped.read(|seen| {
                let bytes = seen.whole();
                let tag = (bytes.len() - seen.bytes.len()) as u32;
                waiting.push(Waiting {
                    time_ns: seen.time_ns,
                    point: number,
                    direction: seen.direction,
                    length: seen.length + tag,
                    bytes,
                });
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Writes what came before that time, in order.
    fn write(&mut self, before_ns: u64) -> io::Result<()> {
        self.waiting.sort_by_key(|packet| packet.time_ns);
        let ripe = self.waiting.partition_point(|packet| packet.time_ns < before_ns);
        let ripe: Vec<Waiting> = self.waiting.drain(..ripe).collect();
        for packet in &ripe {
            if self.left == Some(0) {
                break;
            }
            self.left = self.left.map(|left| left - 1);
            let point = &mut self.points[packet.point];
            let text = match &self.sink {
                Sink::Blocks => pcapng::packet(&Packet {
                    interface: packet.point as u32,
                    time_ns: packet.time_ns,
                    direction: packet.direction,
                    length: packet.length,
                    bytes: &packet.bytes,
                }),
                Sink::Lines { style, width } => {
                    let told = Told {
                        time_ns: packet.time_ns,
                        name: &point.tap.name,
                        width: *width,
                        direction: packet.direction,
                        link_type: point.link_type,
                        bytes: &packet.bytes,
                        length: packet.length,
                    };
                    line(&told, *style).into_bytes()
                }
            };
            self.out.write_all(&text)?;
            point.counted.written += 1;
        }
        match ripe.is_empty() {
            true => Ok(()),
            false => self.out.flush(),
        }
    }

    /// Closes what is over: its interface is gone, or the last of its processes.
    fn part(&mut self) -> io::Result<()> {
        let has_ended = |fd: &OwnedFd| {
            let mut fds = [PollFd::new(fd, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
        };
        let over = |point: &mut Point| {
            let was_empty = point.processes.is_empty();
            point.processes.retain(|fd| !has_ended(fd));
            let ended = !was_empty && point.processes.is_empty();
            point.tapped.as_mut().is_some_and(|tapped| tapped.is_gone() || ended)
        };
        let over: Vec<bool> = self.points.iter_mut().map(over).collect();
        if over.contains(&true) {
            thread::sleep(LAST);
            self.read()?;
            for (point, _) in self.points.iter_mut().zip(over).filter(|(_, over)| *over) {
                point.count();
                point.tapped = None;
                tell_people(&format!("{} is gone\n", point.tap.name));
            }
        }
        Ok(())
    }

    /// Takes in what is on its way, and closes the file.
    fn finish(&mut self) -> io::Result<()> {
        for tapped in self.points.iter().filter_map(|point| point.tapped.as_ref()) {
            tapped.close();
        }
        if self.left != Some(0) {
            thread::sleep(LAST);
            self.read()?;
        }
        self.write(u64::MAX)?;
        let end_ns = now_ns();
        for (number, point) in self.points.iter_mut().enumerate() {
            point.count();
            let counted = Statistics {
                start_ns: self.start_ns,
                end_ns,
                all: self.unfiltered,
                ..point.counted
            };
            if matches!(self.sink, Sink::Blocks) {
                self.out.write_all(&pcapng::statistics(number as u32, &counted))?;
            }
        }
        self.out.flush()
    }

    fn counted(&self) -> Vec<Counted> {
        let of = |point: &Point| Counted {
            name: point.tap.name.clone(),
            written: point.counted.written,
            dropped: point.counted.dropped,
        };
        self.points.iter().map(of).collect()
    }
}

impl Point {
    fn count(&mut self) {
        if let Some(tapped) = &mut self.tapped {
            (self.counted.accepted, self.counted.dropped) = tapped.counted();
        }
    }
}
