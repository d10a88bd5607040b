//! The forwarder itself: one thread, one epoll, every port. Trusts only its run directory.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, Read, Write},
    net::SocketAddr,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixListener,
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
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
    process::{Resource, Rlimit},
};
use twinax_core::name::Proto;

use super::{
    FORWARDS, LOG, RECORD, SOCKET,
    flows::Flows,
    forwards::{self, Change, Port},
    open_for_lock,
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
    control: UnixListener,
    /// Given up for a moment when descriptors run out, so that a client can be turned away.
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
    /// What the last reload could not do.
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
        let Ok((mut stream, _)) = self.control.accept() else { return };
        // Only commands of our own user come here, and they have written already.
        let limit = Some(Duration::from_secs(1));
        let mut byte = [0];
        let told = stream.set_read_timeout(limit).and_then(|()| stream.set_write_timeout(limit));
        if told.and_then(|()| stream.read_exact(&mut byte)).is_err() {
            return;
        }
        match byte[0] {
            b's' => self.stop = true,
            b'd' => {
                let mut text = String::new();
                let read = stream.read_to_string(&mut text);
                let changes = read.map_err(|error| error.to_string());
                self.change(changes.and_then(|_| forwards::parse_changes(&text)));
            }
            _ => self.reload(),
        }
        let _ = stream.write_all(self.answer().as_bytes());
    }

    /// Serves what the file says now; if it says nothing sensible, what it said before.
    fn reload(&mut self) {
        self.failed.clear();
        let text = match fs::read_to_string(self.run_dir.join(FORWARDS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            text => text.map_err(|error| format!("{FORWARDS}, which cannot be read ({error})")),
        };
        match text.and_then(|text| forwards::parse(&text)) {
            Ok(wanted) => self.serve(&wanted),
            Err(error) => self.failed.push(error),
        }
        for line in &self.failed {
            self.log(line);
        }
    }

    /// Serves a few ports more or less; the others are not looked at, however many there are.
    fn change(&mut self, changes: Result<Vec<Change>, String>) {
        self.failed.clear();
        match changes {
            Ok(changes) => {
                for change in changes {
                    match change {
                        Change::Add(port, target) if !self.ports.contains_key(&port) => {
                            self.begin(port, target);
                        }
                        Change::Add(port, target) => self.redirect(port, Some(target)),
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
        if let Err(error) = self.listen(port, target)
            && !(port.listen.is_ipv6() && is_no_ipv6(&error))
        {
            self.failed.push(format!("{port} ({error})"));
        }
    }

    fn listen(&mut self, port: Port, target: SocketAddr) -> io::Result<()> {
        let family = if port.listen.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let tcp = port.proto == Proto::Tcp;
        let kind = if tcp { SocketType::STREAM } else { SocketType::DGRAM };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, kind, flags, None)?;
        if tcp {
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        if port.listen.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        rustix::net::bind(&socket, &port.listen)?;
        if tcp {
            rustix::net::listen(&socket, 1024)?;
        }
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
        self.flows.drop_port(port);
        self.forget_flows();
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

/// Where IPv6 is off nobody can come by it, so nobody misses the port.
fn is_no_ipv6(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn listen_control(run_dir: &Path) -> io::Result<UnixListener> {
    let dir = rustix::fs::open(run_dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // Left by one that was killed; the lock is ours, so nobody listens there.
    let _ = rustix::fs::unlinkat(&dir, SOCKET, rustix::fs::AtFlags::empty());
    rustix::process::umask(Mode::from_raw_mode(0o077));
    UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}
