//! The forwarder itself: one thread, one epoll, every port. Trusts only its run directory.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, Write},
    net::SocketAddr,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{Timespec, epoll},
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
    net::SocketFlags,
    process::{Resource, Rlimit},
};
use twinax_core::name::Proto;

use super::{
    FORWARDS, LOG, RECORD, SOCKET,
    flows::Flows,
    forwards::{self, Change, Port},
    handover, list, open_for_lock,
    relay::{Next, Relay},
};
use crate::linux::process::Task;

/// The size a log starts anew at, in bytes.
const LOG_MAX: u64 = 64 << 10;
/// Bytes moved at a time; also the largest datagram.
const SCRATCH: usize = 64 << 10;
/// Connections or datagrams taken from one socket before others get their turn.
const BUDGET: usize = 64;
/// How often silent UDP flows are looked for, while there are any.
const SWEEP: Duration = Duration::from_secs(5);
const CONTROL: u64 = 0;

/// Serves until told to stop. Standard output is where readiness is told; it is closed then.
pub(super) fn main(run_dir: &Path) -> ExitCode {
    let (mut server, _record) = match Server::new(run_dir) {
        Ok(both) => both,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            // If it cannot be told, the starter hears of our end.
            let _ = io::stdout().write_all(super::ANOTHER.as_bytes());
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("the loopback forwarder cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let served = server.tell_ready(server.answer()).and_then(|()| server.run());
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            server.log(&format!("ended: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug)]
enum Source {
    Port(Port),
    /// Either side of a relay, which is kept by this token.
    Relay(u64),
    Flow,
}

#[derive(Debug)]
struct Listening {
    socket: OwnedFd,
    token: u64,
    target: SocketAddr,
}

struct Server {
    run_dir: PathBuf,
    epoll: OwnedFd,
    control: UnixDatagram,
    /// Given up for a moment when descriptors run out, so that a client can be turned away, and
    /// for each message.
    spare: Option<File>,
    /// Tokens are never used twice: an event of something just closed finds nothing.
    next_token: u64,
    sources: HashMap<u64, Source>,
    ports: BTreeMap<Port, Listening>,
    relays: HashMap<u64, (Relay, u64)>,
    flows: Flows,
    /// Relays that had more to do than one turn.
    again: Vec<u64>,
    scratch: Vec<u8>,
    /// What the last message could not have done.
    failed: Vec<String>,
    stop: bool,
}

/// Sees to as many open files as may be: each port takes two, each connection as many. Root may
/// go beyond the limit it was started with; the kernel's own is `fs.nr_open`, by default this.
fn allow_files() {
    const MANY: u64 = 1 << 20;
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let maximum = limit.maximum.map(|maximum| maximum.max(MANY));
    let beyond = Rlimit { current: maximum, maximum };
    if rustix::process::setrlimit(Resource::Nofile, beyond).is_err() {
        let within = Rlimit { current: limit.maximum, ..limit };
        let _ = rustix::process::setrlimit(Resource::Nofile, within);
    }
}

impl Server {
    /// Detaches, takes the lock of the run directory, binds; the file returned holds the lock.
    fn new(run_dir: &Path) -> io::Result<(Self, File)> {
        // Fails for a leader of a group, which then has left its terminal already.
        let _ = rustix::process::setsid();
        rustix::thread::set_name(c"twinax-forward")?;
        allow_files();
        let mut record = open_for_lock(&run_dir.join(RECORD))?;
        lock(&record)?;
        record.set_len(0)?;
        let own = Task::own().ok_or(io::ErrorKind::NotFound)?;
        writeln!(record, "{} {}", own.pid, own.start)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let control = listen_control(run_dir)?;
        epoll::add(&epoll, &control, epoll::EventData::new_u64(CONTROL), epoll::EventFlags::IN)?;
        let mut server = Self {
            run_dir: run_dir.to_owned(),
            epoll,
            control,
            spare: File::open("/dev/null").ok(),
            next_token: CONTROL + 1,
            sources: HashMap::new(),
            ports: BTreeMap::new(),
            relays: HashMap::new(),
            flows: Flows::default(),
            again: Vec::new(),
            scratch: vec![0; SCRATCH],
            failed: Vec::new(),
            stop: false,
        };
        server.reload();
        Ok((server, record))
    }

    /// Tells the starter. One that was killed meanwhile has asked for nothing: nobody would know
    /// of a forwarder that went on.
    fn tell_ready(&self, answer: String) -> io::Result<()> {
        io::stdout().write_all(answer.as_bytes())?;
        io::stdout().flush()?;
        rustix::stdio::dup2_stdout(File::open("/dev/null")?)?;
        Ok(())
    }

    fn log(&self, line: &str) {
        let path = self.run_dir.join(LOG);
        if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_MAX) {
            let _ = File::create(&path);
        }
        eprintln!("{line}");
    }

    fn answer(&self) -> String {
        self.failed.iter().map(|line| format!("{line}\n")).collect::<String>() + "ok\n"
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(256);
        let mut swept = Instant::now();
        while !self.stop {
            let wait = match (self.again.is_empty(), self.flows.is_empty()) {
                (false, _) => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
                (true, false) => Some(Timespec { tv_sec: SWEEP.as_secs() as i64, tv_nsec: 0 }),
                (true, true) => None,
            };
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for relay in std::mem::take(&mut self.again) {
                self.advance(relay);
            }
            for event in &events {
                let (token, flags) = (event.data.u64(), event.flags);
                self.handle(token, flags);
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.flows.drop_expired(swept);
                self.forget_flows();
            }
        }
        Ok(())
    }

    fn handle(&mut self, token: u64, flags: epoll::EventFlags) {
        if token == CONTROL {
            return self.obey();
        }
        match self.sources.get(&token) {
            Some(Source::Port(port)) if port.proto == Proto::Udp => self.read_clients(*port),
            Some(Source::Port(port)) => self.accept(*port),
            Some(Source::Flow) => self.read_target(token),
            // With a reset nothing more can pass, also while the other side is too slow to take
            // what came before.
            Some(&Source::Relay(relay)) if flags.contains(epoll::EventFlags::ERR) => {
                self.drop_relay(relay, true);
            }
            Some(&Source::Relay(relay)) => self.advance(relay),
            None => {}
        }
    }

    fn watch(
        &mut self,
        fd: impl AsFd,
        source: Source,
        flags: epoll::EventFlags,
    ) -> io::Result<u64> {
        let token = self.next_token;
        self.next_token += 1;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)?;
        self.sources.insert(token, source);
        Ok(token)
    }
}

/// Takes the lock, or finds that another forwarder has it: one whose starter was killed before it
/// could tell. Whoever only looks holds the lock for a moment, so one try is not enough.
fn lock(record: &File) -> io::Result<()> {
    for _ in 0..20 {
        match rustix::fs::flock(record, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(5)),
            outcome => return Ok(outcome?),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// The control socket and the set of ports.
impl Server {
    fn obey(&mut self) {
        // Where to answer takes a descriptor, also when clients have all the others.
        self.spare = None;
        let received = handover::receive(&self.control, &mut self.scratch);
        let question = received.ok().and_then(|(text, handed)| self.do_as_told(&text, handed));
        self.spare = File::open("/dev/null").ok();
        let Some(mut stream) = question.map(UnixStream::from) else { return };
        // Fails for what is no socket, and then nothing is written there.
        if stream.set_write_timeout(Some(Duration::from_secs(1))).is_ok() {
            let _ = stream.write_all(self.answer().as_bytes());
        }
    }

    /// Returns where to answer, if an answer is wanted.
    fn do_as_told(&mut self, text: &str, mut handed: Vec<OwnedFd>) -> Option<OwnedFd> {
        let (question, message) = match text.strip_prefix('?') {
            Some(message) if !handed.is_empty() => (Some(handed.remove(0)), message),
            _ => (None, text),
        };
        match message.as_bytes().first() {
            Some(b's') => self.stop = true,
            Some(b'd') => self.change(forwards::parse_changes(&message[1..]), handed),
            Some(b'r') => self.reload(),
            _ => {}
        }
        question
    }

    /// Serves what the list says now; if it cannot be read, what it said before.
    fn reload(&mut self) {
        self.failed.clear();
        match list::read(&self.run_dir) {
            Ok((wanted, wrong)) => {
                self.failed = wrong;
                self.serve(&wanted);
            }
            Err(error) => {
                self.failed.push(format!("{FORWARDS}, which cannot be read ({error})"));
            }
        }
        for line in &self.failed {
            self.log(line);
        }
    }

    /// Serves a few ports more or less; the others are not looked at, however many there are.
    ///
    /// Sockets handed over belong to the ports that are added, in order. If they are not as many
    /// (we had no descriptors left to take them with) they are closed, and opened here.
    fn change(&mut self, changes: Result<Vec<Change>, String>, handed: Vec<OwnedFd>) {
        self.failed.clear();
        match changes {
            Ok(changes) => {
                let added = changes.iter().filter(|change| matches!(change, Change::Add(..)));
                let fit = handed.is_empty() || handed.len() == added.count();
                if !fit {
                    self.log(&format!("{} sockets that do not fit were handed over", handed.len()));
                }
                let mut handed = if fit { handed } else { Vec::new() }.into_iter();
                for change in changes {
                    match change {
                        Change::Add(port, target) => self.add(port, target, handed.next()),
                        Change::Del(port) => self.redirect(port, None),
                    }
                }
            }
            Err(error) => self.failed.push(error),
        }
        for line in &self.failed {
            self.log(line);
        }
    }

    fn add(&mut self, port: Port, target: SocketAddr, handed: Option<OwnedFd>) {
        match handed.filter(|socket| handover::is_of(socket, port)) {
            Some(socket) => {
                if self.ports.contains_key(&port) {
                    self.redirect(port, None);
                }
                if let Err(error) = self.take(port, target, socket) {
                    self.failed.push(format!("{port} ({error})"));
                }
            }
            None if self.ports.contains_key(&port) => self.redirect(port, Some(target)),
            None => self.begin(port, target),
        }
    }

    fn serve(&mut self, wanted: &BTreeMap<Port, SocketAddr>) {
        let ports: Vec<Port> = self.ports.keys().copied().collect();
        for port in ports {
            let target = self.ports.get(&port).map(|listening| listening.target);
            if wanted.get(&port) == target.as_ref() {
                continue;
            }
            self.redirect(port, wanted.get(&port).copied());
        }
        for (&port, &target) in wanted {
            if !self.ports.contains_key(&port) {
                self.begin(port, target);
            }
        }
    }

    /// Leads a port elsewhere, or nowhere: what was connected the old way ends.
    fn redirect(&mut self, port: Port, target: Option<SocketAddr>) {
        self.drop_connections(port);
        match (target, self.ports.get_mut(&port)) {
            (Some(target), Some(listening)) => listening.target = target,
            _ => {
                if let Some(listening) = self.ports.remove(&port) {
                    self.sources.remove(&listening.token);
                }
            }
        }
    }

    fn begin(&mut self, port: Port, target: SocketAddr) {
        let socket = handover::open(port);
        if let Err(error) = socket.and_then(|socket| self.take(port, target, socket))
            && !handover::is_needless(port, &error)
        {
            self.failed.push(format!("{port} ({error})"));
        }
    }

    fn take(&mut self, port: Port, target: SocketAddr, socket: OwnedFd) -> io::Result<()> {
        let token = self.watch(&socket, Source::Port(port), epoll::EventFlags::IN)?;
        self.ports.insert(port, Listening { socket, token, target });
        Ok(())
    }

    fn drop_connections(&mut self, port: Port) {
        let relays = self.relays.iter().filter(|(_, (relay, _))| relay.port == port);
        let relays: Vec<u64> = relays.map(|(&id, _)| id).collect();
        for relay in relays {
            self.drop_relay(relay, true);
        }
        if !self.flows.is_empty() {
            self.flows.drop_port(port);
            self.forget_flows();
        }
    }
}

/// TCP.
impl Server {
    fn accept(&mut self, port: Port) {
        for _ in 0..BUDGET {
            let Some(listening) = self.ports.get(&port) else { return };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let client = match rustix::net::accept_with(&listening.socket, flags) {
                Ok(client) => client,
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(Errno::MFILE | Errno::NFILE) => return self.turn_away(port),
                Err(_) => return,
            };
            let relay = Relay::new(port, client, listening.target);
            if let Err(error) = relay.map_err(io::Error::from).and_then(|new| self.relay(new)) {
                self.log(&format!("{port}: a connection: {error}"));
            }
        }
    }

    fn relay(&mut self, relay: Relay) -> io::Result<()> {
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        let id = self.next_token;
        let client = self.watch(&relay.client, Source::Relay(id), flags)?;
        debug_assert_eq!(client, id);
        let target = self.watch(&relay.target, Source::Relay(id), flags);
        match target {
            Ok(target) => drop(self.relays.insert(id, (relay, target))),
            Err(error) => {
                self.sources.remove(&id);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes one client only to close it: it would else be waiting, and waking us, for ever.
    fn turn_away(&mut self, port: Port) {
        self.spare = None;
        if let Some(listening) = self.ports.get(&port) {
            drop(rustix::net::accept(&listening.socket));
        }
        self.spare = File::open("/dev/null").ok();
        self.log(&format!("{port}: a connection was closed: no descriptor is left"));
    }

    fn advance(&mut self, id: u64) {
        let Some((relay, _)) = self.relays.get_mut(&id) else { return };
        match relay.advance(&mut self.scratch) {
            Next::Wait => {}
            Next::Again => self.again.push(id),
            Next::Done => self.drop_relay(id, false),
            Next::Broken => self.drop_relay(id, true),
        }
    }

    fn drop_relay(&mut self, id: u64, abort: bool) {
        let Some((relay, target)) = self.relays.remove(&id) else { return };
        self.sources.remove(&id);
        self.sources.remove(&target);
        if abort {
            relay.abort();
        }
    }
}

/// UDP.
impl Server {
    fn read_clients(&mut self, port: Port) {
        for _ in 0..BUDGET {
            let Some(Listening { socket, target, .. }) = self.ports.get(&port) else { return };
            let target = *target;
            let received =
                rustix::net::recvfrom(socket, &mut self.scratch, rustix::net::RecvFlags::empty());
            let (length, client) = match received {
                Ok((length, _, Some(from))) => match SocketAddr::try_from(from) {
                    Ok(client) => (length, client),
                    Err(_) => continue,
                },
                Ok((_, _, None)) | Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            if self.flows.of_client(port, client).is_none()
                && let Err(error) = self.open_flow(port, client, target)
            {
                self.log(&format!("{port}: a flow: {error}"));
                continue;
            }
            let Some(flow) = self.flows.of_client(port, client) else { continue };
            let datagram = &self.scratch[..length];
            // An ICMP error of the datagram before is told here once, and this one not sent.
            if flow.socket.send(datagram).is_err() {
                let _ = flow.socket.send(datagram);
            }
        }
    }

    fn open_flow(&mut self, port: Port, client: SocketAddr, to: SocketAddr) -> io::Result<()> {
        let token = self.next_token;
        self.next_token += 1;
        let flow = self.flows.open(token, port, client, to)?;
        let data = epoll::EventData::new_u64(token);
        epoll::add(&self.epoll, &flow.socket, data, epoll::EventFlags::IN)?;
        self.sources.insert(token, Source::Flow);
        Ok(())
    }

    fn read_target(&mut self, token: u64) {
        for _ in 0..BUDGET {
            let Some(flow) = self.flows.get(token) else { return };
            let Ok(length) = flow.socket.recv(&mut self.scratch) else { return };
            if let Some(listening) = self.ports.get(&flow.port) {
                let datagram = &self.scratch[..length];
                let flags = rustix::net::SendFlags::empty();
                let _ = rustix::net::sendto(&listening.socket, datagram, flags, &flow.client);
            }
            self.flows.answered(token);
        }
    }

    /// Events of flows that were dropped find nothing meanwhile.
    fn forget_flows(&mut self) {
        let flows = &self.flows;
        let kept = |token, source: &Source| !matches!(source, Source::Flow) || flows.has(token);
        self.sources.retain(|&token, source| kept(token, source));
    }
}

fn listen_control(run_dir: &Path) -> io::Result<UnixDatagram> {
    let dir = rustix::fs::open(run_dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // Left by one that was killed; the lock is ours, so nobody listens there.
    let _ = rustix::fs::unlinkat(&dir, SOCKET, rustix::fs::AtFlags::empty());
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let control = UnixDatagram::bind(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))?;
    control.set_nonblocking(true)?;
    Ok(control)
}
