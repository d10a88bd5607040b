//! What a test works with: the product, other hosts, and questions asked with real packets.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::wire;

/// How long a probe waits for an answer; the drop of a packet is told by nothing else.
pub const PATIENCE: Duration = Duration::from_millis(700);

/// The namespaces of one test. It runs as root in them; `/run`, `/tmp` and `/var/lib` are its own.
pub struct Sandbox {
    host: Netns,
    servers: Vec<Child>,
}

/// A network namespace, kept by a descriptor.
#[derive(Debug)]
pub struct Netns(OwnedFd);

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Output {
    /// `None`: ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// What became of an attempt to talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Answered; the client as the server saw it.
    Reached(IpAddr),
    /// Nobody listens (TCP reset, ICMP port unreachable).
    Refused,
    /// An ICMP error, or no route, or a local refusal.
    Unreachable,
    /// Silence.
    Timeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    Tcp,
    Udp,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let host = Netns::current().expect("a process has a network namespace");
        Self { host, servers: Vec::new() }
    }

    /// The namespace the test and the product run in.
    pub fn host(&self) -> &Netns {
        &self.host
    }

    /// A new network namespace with `lo` up: another host.
    pub fn namespace(&self) -> Netns {
        thread::spawn(|| {
            unshare_network().unwrap();
            wire::loopback_up().unwrap();
            Netns::current().unwrap()
        })
        .join()
        .unwrap()
    }

    /// A new namespace behind a cable: `uplink` here, `eth0` there, addressed, up, and routed by
    /// default to our end. Addresses as `192.0.2.1/24`.
    pub fn outside(&self, uplink: &str, ours: &[&str], theirs: &[&str]) -> Netns {
        let outside = self.namespace();
        wire::add_veth(uplink, "eth0", outside.0.as_raw_fd()).unwrap();
        put_addrs(uplink, ours);
        outside.run(|| {
            put_addrs("eth0", theirs);
            for (gateway, _) in ours.iter().map(|addr| parse(addr)) {
                let zero: IpAddr =
                    if gateway.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
                wire::add_route("eth0", zero, 0, Some(gateway)).unwrap();
            }
            settle("eth0", theirs);
        });
        settle(uplink, ours);
        outside
    }

    /// Runs the product and waits for it.
    pub fn twinax(&self, args: &[&str]) -> Output {
        self.command(args).output().map(Output::from).expect("twinax can be started")
    }

    /// Starts a server of `twinax demo` in a namespace, as `http --port 80`; returns once it
    /// listens. It ends with the sandbox.
    pub fn serve(&mut self, netns: &Netns, args: &[&str]) {
        let mut command = self.command(&[&["demo"], args].concat());
        command.stdout(Stdio::piped());
        let mut server = netns.run(|| command.spawn()).unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        assert!(first.contains("serving"), "the server {args:?} does not start: {first}");
        thread::spawn(move || io::copy(&mut lines, &mut io::sink()));
        self.servers.push(server);
    }

    /// The product, ready to be started with descriptors or input of the test's choice.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twinax"));
        command.args(args).env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LANG", "C.UTF-8");
        command.env("HOME", "/run/home").env("XDG_RUNTIME_DIR", "/run/user");
        command.env("TMPDIR", "/run/tmp");
        command
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Output {
    /// Returns what was printed; panics with all of it unless the exit code is 0.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Netns {
    /// The calling thread's.
    pub fn current() -> io::Result<Self> {
        Ok(Self(File::open("/proc/thread-self/ns/net")?.into()))
    }

    /// That of a process.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Ok(Self(File::open(format!("/proc/{pid}/ns/net"))?.into()))
    }

    /// Runs `work` on a thread inside, and returns what it returns; a panic goes on here.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("a namespace of ours can be entered");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Has a server listen at `listen` in `server` and tries to talk to it at `target` from here.
    pub fn reach(
        &self,
        talk: Talk,
        server: &Self,
        listen: SocketAddr,
        target: SocketAddr,
    ) -> Reach {
        match talk {
            Talk::Tcp => {
                let listener = server.run(|| TcpListener::bind(listen)).expect("a free address");
                let answering = thread::spawn(move || answer_tcp(&listener));
                let reach = self.run(|| ask_tcp(target));
                // Wakes the server if the question never came.
                server.run(|| drop(TcpStream::connect_timeout(&wake(listen), PATIENCE)));
                answering.join().unwrap();
                reach
            }
            Talk::Udp => {
                let socket = server.run(|| UdpSocket::bind(listen)).expect("a free address");
                socket.set_read_timeout(Some(PATIENCE + PATIENCE / 2)).unwrap();
                let answering = thread::spawn(move || answer_udp(&socket));
                let reach = self.run(|| ask_udp(target));
                answering.join().unwrap();
                reach
            }
        }
    }

    /// Tries to talk, from here, to a server that answers with the client's address as it sees it
    /// (`twinax demo echo`), or to find nobody there.
    pub fn ask(&self, talk: Talk, target: SocketAddr) -> Reach {
        self.run(|| match talk {
            Talk::Tcp => ask_tcp(target),
            Talk::Udp => ask_udp(target),
        })
    }
}

/// Where a server that listens on `listen` is reached from its own namespace.
fn wake(listen: SocketAddr) -> SocketAddr {
    let addr: IpAddr = match listen.ip() {
        IpAddr::V4(addr) if addr.is_unspecified() => "127.0.0.1".parse().unwrap(),
        IpAddr::V6(addr) if addr.is_unspecified() => "::1".parse().unwrap(),
        addr => addr,
    };
    SocketAddr::new(addr, listen.port())
}

fn answer_tcp(listener: &TcpListener) {
    if let Ok((mut stream, client)) = listener.accept() {
        // Closing with the question unread would reset the connection under the answer.
        drop(stream.set_read_timeout(Some(PATIENCE)));
        drop(stream.read(&mut [0; 2]));
        drop(stream.write_all(format!("{client}\n").as_bytes()));
    }
}

fn answer_udp(socket: &UdpSocket) {
    let mut question = [0; 2048];
    if let Ok((_, client)) = socket.recv_from(&mut question) {
        drop(socket.send_to(format!("{client}\n").as_bytes(), client));
    }
}

fn ask_tcp(target: SocketAddr) -> Reach {
    let answer = TcpStream::connect_timeout(&target, PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"?\n")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer)
    });
    judge(answer)
}

fn ask_udp(target: SocketAddr) -> Reach {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let answer = UdpSocket::bind(any).and_then(|socket| {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(target)?;
        socket.send(b"?\n")?;
        let mut answer = [0; 256];
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    });
    judge(answer)
}

fn judge(answer: io::Result<String>) -> Reach {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, TimedOut, WouldBlock};
    match answer {
        Ok(text) => {
            let client = text.split_whitespace().next().and_then(|word| word.parse().ok());
            let client: SocketAddr =
                client.unwrap_or_else(|| panic!("the server should tell the client: {text:?}"));
            Reach::Reached(client.ip().to_canonical())
        }
        Err(error) => match error.kind() {
            ConnectionRefused | ConnectionReset => Reach::Refused,
            TimedOut | WouldBlock => Reach::Timeout,
            _ => Reach::Unreachable,
        },
    }
}

fn put_addrs(link: &str, addrs: &[&str]) {
    for (addr, prefix) in addrs.iter().map(|addr| parse(addr)) {
        wire::add_addr(link, addr, prefix).unwrap();
    }
    wire::set_up(link).unwrap();
}

/// Waits until nothing sent to the link is dropped for being early: its carrier must have been
/// seen, and, as a worker of the kernel does that later, the group in which an IPv6 address is
/// solicited must have been joined.
fn settle(link: &str, addrs: &[&str]) {
    wire::settle(link).unwrap();
    for (addr, _) in addrs.iter().map(|addr| parse(addr)) {
        let IpAddr::V6(addr) = addr else { continue };
        let [.., a, b, c] = addr.octets();
        let group = format!("ff0200000000000000000001ff{a:02x}{b:02x}{c:02x}");
        let joined = |line: &str| line.contains(&group) && line.split(' ').any(|it| it == link);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !fs::read_to_string("/proc/thread-self/net/igmp6").unwrap().lines().any(joined) {
            assert!(Instant::now() < deadline, "{link} does not join {group}");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn parse(addr: &str) -> (IpAddr, u8) {
    let (addr, prefix) = addr.split_once('/').expect("an address with its prefix length");
    (addr.parse().unwrap(), prefix.parse().unwrap())
}

#[allow(unsafe_code, reason = "rustix marks unshare so for the sake of CLONE_FILES")]
fn unshare_network() -> io::Result<()> {
    // SAFETY: CLONE_FILES is not among the flags.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?)
}
