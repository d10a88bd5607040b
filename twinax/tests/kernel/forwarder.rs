//! Published ports on the host's own loopback: every byte, every kind of end, every change.
//!
//! ```text
//! host: 127.0.0.1, ::1 ── forwarder ── cable ═══ eth0 10.1.0.2 ── container
//! ```

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    net::{SendAncillaryBuffer, SendAncillaryMessage},
    process::{Pid, Signal},
};
use twinax::{
    forwarder::{self, ForwarderError, Line},
    store::Store,
    world::Linux,
};
use twinax_core::{
    diff::Plan,
    engine::{Journal, Sandboxes, World},
    model::{FileId, Forward, HostsView, Op},
};

use crate::{
    harness::Outcome,
    sandbox::{Netns, PATIENCE, Reach, Sandbox, Talk},
    tests,
};

tests![
    both_ways_at_once_arrive_whole,
    each_side_may_end_first,
    a_refusing_target_resets_the_client,
    datagrams_are_answered,
    a_reload_touches_only_what_changed,
    ports_that_cannot_be_had_are_named,
    an_added_port_serves_before_the_forwarder_knows,
    what_was_never_taken_is_served_by_the_next,
    added_ports_that_cannot_be_had_are_named,
    a_port_left_by_a_killed_command_is_led_elsewhere,
    after_a_killed_command_the_list_is_served,
    a_removed_port_is_free_at_once,
    its_directory_may_have_a_long_name,
    a_plan_may_lead_a_port_elsewhere,
    malformed_messages_leak_nothing,
    killed_it_starts_again,
    a_thousand_ports_cost_little,
    without_ipv6_the_rest_is_served,
    out_of_descriptors_it_turns_clients_away_and_recovers,
    many_idle_connections_cost_no_time_and_little_memory,
];

const TARGET: &str = "10.1.0.2";

fn container(sandbox: &Sandbox) -> Netns {
    sandbox.outside("cable", &["10.1.0.1/24"], &["10.1.0.2/24"])
}

fn dir() -> &'static Path {
    Path::new("/run/home")
}

/// Writes down what is to be served, and nothing else.
fn forward(lines: &[&str]) {
    forwarder::clear(dir()).unwrap();
    fs::create_dir(dir().join("forwards")).unwrap();
    for line in lines {
        let (port, target) = line.rsplit_once(' ').unwrap();
        let entry = dir().join("forwards").join(port.replace(' ', "-"));
        std::os::unix::fs::symlink(target, entry).unwrap();
    }
}

fn parsed(lines: &[impl AsRef<str>]) -> Vec<Forward> {
    lines.iter().map(|line| line.as_ref().parse().unwrap()).collect()
}

fn add(lines: &[impl AsRef<str>]) -> Result<(), ForwarderError> {
    forwarder::add(dir(), &mut Line::default(), &parsed(lines).iter().collect::<Vec<_>>())
}

fn remove(lines: &[impl AsRef<str>]) {
    let asked =
        forwarder::remove(dir(), &mut Line::default(), &parsed(lines).iter().collect::<Vec<_>>())
            .unwrap();
    asked.answer().unwrap();
}

fn signal(signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid()).unwrap(), signal).unwrap();
}

fn ended() {
    let deadline = Instant::now() + PATIENCE;
    while forwarder::running(dir()) {
        assert!(Instant::now() < deadline);
    }
}

/// How many descriptors the forwarder has open.
fn descriptors() -> usize {
    fs::read_dir(format!("/proc/{}/fd", pid())).unwrap().count()
}

/// How many it has when it is at rest: those on which it has just answered are closed.
fn descriptors_at_rest() -> usize {
    let mut last = descriptors();
    loop {
        thread::sleep(Duration::from_millis(30));
        let now = descriptors();
        if now == last {
            return now;
        }
        last = now;
    }
}

/// The one on which it has just answered may be open for a moment longer.
#[track_caller]
fn has_descriptors(wanted: usize) {
    let mut found = descriptors();
    for _ in 0..200 {
        if found == wanted {
            return;
        }
        thread::sleep(Duration::from_millis(5));
        found = descriptors();
    }
    assert_eq!(found, wanted);
}

fn listen(container: &Netns, port: u16) -> TcpListener {
    container.run(|| TcpListener::bind((TARGET, port))).unwrap()
}

fn connect(addr: &str) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends `total` bytes that count on, modulo a prime.
fn send_pattern(mut to: &TcpStream, total: usize, seed: usize) {
    let pattern: Vec<u8> = (0..251 * 400).map(|at| (at % 251) as u8).collect();
    let mut sent = 0;
    while sent < total {
        let from = (sent + seed) % 251;
        let length = (total - sent).min(pattern.len() - 251);
        to.write_all(&pattern[from..from + length]).unwrap();
        sent += length;
    }
    to.shutdown(Shutdown::Write).unwrap();
}

/// Reads to the end and checks each byte.
fn check_pattern(mut from: &TcpStream, total: usize, seed: usize) {
    let pattern: Vec<u8> = (0..251 * 400).map(|at| (at % 251) as u8).collect();
    let (mut got, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        let length = from.read(&mut buffer).unwrap();
        if length == 0 {
            break;
        }
        let start = (got + seed) % 251;
        assert!(buffer[..length] == pattern[start..start + length], "wrong bytes near {got}");
        got += length;
    }
    assert_eq!(got, total);
}

fn both_ways_at_once_arrive_whole(sandbox: &mut Sandbox) -> Outcome {
    const TOTAL: usize = 64 << 20;
    let container = container(sandbox);
    let listener = listen(&container, 80);
    forward(&["tcp 127.0.0.1:8080 10.1.0.2:80"]);
    forwarder::start(dir()).unwrap();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| send_pattern(&stream, TOTAL, 7));
            // Slow at first, so that the forwarder must hold the client back.
            thread::sleep(Duration::from_millis(200));
            check_pattern(&stream, TOTAL, 0);
        });
    });
    let client = connect("127.0.0.1:8080");
    thread::scope(|scope| {
        scope.spawn(|| send_pattern(&client, TOTAL, 0));
        check_pattern(&client, TOTAL, 7);
    });
    server.join().unwrap();
    Outcome::Passed
}

fn each_side_may_end_first(sandbox: &mut Sandbox) -> Outcome {
    let container = container(sandbox);
    let listener = listen(&container, 80);
    forward(&["tcp [::1]:8080 10.1.0.2:80"]);
    forwarder::start(dir()).unwrap();
    // The client ends first and is answered after.
    let mut client = connect("[::1]:8080");
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "question");
    server.write_all(b"answer").unwrap();
    drop(server);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "answer");
    // The server ends first and still hears.
    let mut client = connect("[::1]:8080");
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"banner").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "banner");
    client.write_all(b"late").unwrap();
    drop(client);
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "late");
    Outcome::Passed
}

fn a_refusing_target_resets_the_client(sandbox: &mut Sandbox) -> Outcome {
    let container = container(sandbox);
    forward(&["tcp 127.0.0.1:8080 10.1.0.2:80"]);
    forwarder::start(dir()).unwrap();
    let reset = connect("127.0.0.1:8080").read(&mut [0]).unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    // A reset on one side is one on the other.
    let listener = listen(&container, 80);
    let mut client = connect("127.0.0.1:8080");
    let (server, _) = listener.accept().unwrap();
    rustix::net::sockopt::set_socket_linger(&server, Some(Duration::ZERO)).unwrap();
    drop(server);
    let reset = client.read(&mut [0]).unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    Outcome::Passed
}

fn datagrams_are_answered(sandbox: &mut Sandbox) -> Outcome {
    let container = container(sandbox);
    forward(&["udp 127.0.0.1:5353 10.1.0.2:53", "udp [::1]:5353 10.1.0.2:53"]);
    forwarder::start(dir()).unwrap();
    let host = sandbox.host();
    let target: SocketAddr = (TARGET.parse::<std::net::IpAddr>().unwrap(), 53).into();
    for listen in ["127.0.0.1:5353", "[::1]:5353"] {
        let listen: SocketAddr = listen.parse().unwrap();
        let reach = host.reach(Talk::Udp, &container, target, listen);
        assert_eq!(reach, Reach::Reached("10.1.0.1".parse().unwrap()), "{listen}");
    }
    // Two clients keep apart, in one flow each, the largest datagram included.
    let server = container.run(|| UdpSocket::bind(target)).unwrap();
    let clients = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let text = vec![b'x'; 65_000];
    let mut buffer = vec![0; 65_535];
    for _ in 0..2 {
        for (number, client) in clients.iter().enumerate() {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send_to(&text[..65_000 - number], "127.0.0.1:5353").unwrap();
        }
        for _ in &clients {
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..length], from).unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            assert_eq!(client.recv(&mut buffer).unwrap(), 65_000 - number);
        }
    }
    Outcome::Passed
}

fn a_reload_touches_only_what_changed(sandbox: &mut Sandbox) -> Outcome {
    let container = container(sandbox);
    sandbox.serve(&container, &["echo", "--tcp", "--port", "80"]);
    let (kept, gone, new) = (
        "tcp 127.0.0.1:8080 10.1.0.2:80",
        "tcp 127.0.0.1:8081 10.1.0.2:80",
        "tcp [::1]:8080 10.1.0.2:80",
    );
    forward(&[kept, gone]);
    forwarder::start(dir()).unwrap();
    let talk = |stream: &TcpStream| {
        { stream }.write_all(b"hello\n").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).map(|_| answer)
    };
    let (live, doomed) = (connect("127.0.0.1:8080"), connect("127.0.0.1:8081"));
    let before = talk(&live).unwrap();
    talk(&doomed).unwrap();
    forward(&[kept, new]);
    forwarder::reload(dir()).unwrap();
    assert_eq!(talk(&live).unwrap(), before, "the same connection, seen from the same port");
    let reset = { &doomed }.read(&mut [0]).unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    assert!(TcpStream::connect("127.0.0.1:8081").is_err());
    talk(&connect("[::1]:8080")).unwrap();
    // A port led elsewhere keeps listening and lets go of its connections.
    forward(&["tcp 127.0.0.1:8080 10.1.0.2:9", new]);
    forwarder::reload(dir()).unwrap();
    assert!({ &live }.read(&mut [0]).is_err());
    forwarder::stop(dir()).unwrap();
    assert!(!forwarder::running(dir()) && TcpStream::connect("[::1]:8080").is_err());
    Outcome::Passed
}

fn ports_that_cannot_be_had_are_named(_: &mut Sandbox) -> Outcome {
    let holder = TcpListener::bind("127.0.0.1:8081").unwrap();
    forward(&["tcp 127.0.0.1:8080 10.1.0.2:80", "tcp 127.0.0.1:8081 10.1.0.2:80"]);
    assert!(matches!(forwarder::reload(dir()), Err(ForwarderError::NotRunning)));
    let error = forwarder::start(dir()).unwrap_err().to_string();
    assert!(error.contains("tcp 127.0.0.1:8081 (Address already in use"), "{error}");
    assert!(!error.contains("8080"), "{error}");
    TcpStream::connect("127.0.0.1:8080").unwrap();
    drop(holder);
    forwarder::reload(dir()).unwrap();
    TcpStream::connect("127.0.0.1:8081").unwrap();
    // What says nothing sensible is named, and in nobody's way.
    fs::write(dir().join("forwards/tcp-nonsense"), "").unwrap();
    let error = forwarder::reload(dir()).unwrap_err().to_string();
    assert!(error.contains("forwards/tcp-nonsense") && !error.contains("808"), "{error}");
    TcpStream::connect("127.0.0.1:8081").unwrap();
    Outcome::Passed
}

fn an_added_port_serves_before_the_forwarder_knows(sandbox: &mut Sandbox) -> Outcome {
    let container = container(sandbox);
    let listener = listen(&container, 80);
    let server = container.run(|| UdpSocket::bind((TARGET, 53))).unwrap();
    forward(&[]);
    forwarder::start(dir()).unwrap();
    signal(Signal::STOP);
    let started = Instant::now();
    add(&["tcp 127.0.0.1:8080 10.1.0.2:80", "udp [::1]:53 10.1.0.2:53"]).unwrap();
    assert!(started.elapsed() < Duration::from_secs(1), "it waited");
    let mut early = connect("127.0.0.1:8080");
    early.write_all(b"early").unwrap();
    early.shutdown(Shutdown::Write).unwrap();
    let client = UdpSocket::bind("[::1]:0").unwrap();
    client.send_to(b"early", "[::1]:53").unwrap();
    signal(Signal::CONT);
    let (mut stream, _) = listener.accept().unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "early");
    let mut datagram = [0; 16];
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = server.recv(&mut datagram).unwrap();
    assert_eq!(&datagram[..length], b"early");
    Outcome::Passed
}

fn what_was_never_taken_is_served_by_the_next(_: &mut Sandbox) -> Outcome {
    let line = "tcp 127.0.0.1:8080 10.1.0.2:80";
    forward(&[]);
    forwarder::start(dir()).unwrap();
    signal(Signal::STOP);
    add(&[line]).unwrap();
    TcpStream::connect("127.0.0.1:8080").unwrap();
    signal(Signal::KILL);
    ended();
    assert!(TcpStream::connect("127.0.0.1:8080").is_err(), "the socket outlives the forwarder");
    assert!(forwarder::is_listed(dir(), &parsed(&[line])[0]).unwrap());
    forwarder::start(dir()).unwrap();
    TcpStream::connect("127.0.0.1:8080").unwrap();
    // With none at all it is only written down.
    signal(Signal::KILL);
    ended();
    add(&["tcp 127.0.0.1:8081 10.1.0.2:80"]).unwrap();
    forwarder::start(dir()).unwrap();
    TcpStream::connect("127.0.0.1:8081").unwrap();
    Outcome::Passed
}

fn added_ports_that_cannot_be_had_are_named(_: &mut Sandbox) -> Outcome {
    forward(&[]);
    forwarder::start(dir()).unwrap();
    let _holder = TcpListener::bind("127.0.0.1:8081").unwrap();
    let lines = ["8080", "8081", "8082"].map(|port| format!("tcp 127.0.0.1:{port} 10.1.0.2:80"));
    let error = add(&lines).unwrap_err().to_string();
    assert!(error.contains("tcp 127.0.0.1:8081 (Address already in use"), "{error}");
    assert!(!error.contains("8080") && !error.contains("8082"), "{error}");
    for served in ["127.0.0.1:8080", "127.0.0.1:8082"] {
        TcpStream::connect(served).unwrap();
    }
    // Also when nobody is there to ask.
    signal(Signal::KILL);
    ended();
    let error = add(&lines).unwrap_err().to_string();
    assert!(error.contains("8081 (Address") && !error.contains("8080"), "{error}");
    Outcome::Passed
}

fn a_port_left_by_a_killed_command_is_led_elsewhere(sandbox: &mut Sandbox) -> Outcome {
    let container = container(sandbox);
    let (old, new) = (listen(&container, 80), listen(&container, 81));
    forward(&["tcp 127.0.0.1:8080 10.1.0.2:80"]);
    forwarder::start(dir()).unwrap();
    let before = connect("127.0.0.1:8080");
    let _server = old.accept().unwrap();
    forward(&[]); // Struck out, and nobody told.
    add(&["tcp 127.0.0.1:8080 10.1.0.2:81"]).unwrap();
    assert!({ &before }.read(&mut [0]).is_err());
    let _client = connect("127.0.0.1:8080");
    new.accept().unwrap();
    Outcome::Passed
}

fn after_a_killed_command_the_list_is_served(_: &mut Sandbox) -> Outcome {
    let store = Store::open(dir().to_owned(), "/run/data".into(), "here").unwrap();
    forward(&["tcp 127.0.0.1:8080 10.1.0.2:80"]);
    forwarder::start(dir()).unwrap();
    forward(&["tcp 127.0.0.1:8081 10.1.0.2:80"]); // And nobody told.
    let mut linux = Linux::new(store);
    linux.pending().unwrap();
    TcpStream::connect("127.0.0.1:8080").unwrap(); // Nothing was left undone.
    linux.begin(&Journal::default()).unwrap();
    linux.pending().unwrap();
    TcpStream::connect("127.0.0.1:8081").unwrap();
    drop(TcpListener::bind("127.0.0.1:8080").unwrap());
    Outcome::Passed
}

/// A socket's own path takes 107 bytes.
fn its_directory_may_have_a_long_name(_: &mut Sandbox) -> Outcome {
    for length in [90, 91, 92, 93, 150] {
        let dir = std::path::PathBuf::from(format!("/run/{}", "d".repeat(length - 5)));
        fs::create_dir(&dir).unwrap();
        forwarder::start(&dir).unwrap();
        let forwards = parsed(&["tcp 127.0.0.1:8080 10.1.0.2:80"]);
        let forwards: Vec<_> = forwards.iter().collect();
        forwarder::add(&dir, &mut Line::default(), &forwards).unwrap();
        TcpStream::connect("127.0.0.1:8080").unwrap();
        forwarder::stop(&dir).unwrap();
    }
    Outcome::Passed
}

fn a_removed_port_is_free_at_once(_: &mut Sandbox) -> Outcome {
    let lines = ["tcp 127.0.0.1:8080 10.1.0.2:80", "udp 127.0.0.1:8080 10.1.0.2:80"];
    forward(&[]);
    forwarder::start(dir()).unwrap();
    for _ in 0..200 {
        add(&lines).unwrap();
        TcpStream::connect("127.0.0.1:8080").unwrap();
        remove(&lines);
        drop(TcpListener::bind("127.0.0.1:8080").unwrap());
        drop(UdpSocket::bind("127.0.0.1:8080").unwrap());
    }
    Outcome::Passed
}

fn a_plan_may_lead_a_port_elsewhere(sandbox: &mut Sandbox) -> Outcome {
    let container = container(sandbox);
    let targets = [listen(&container, 80), listen(&container, 81)];
    let forwards = parsed(&["tcp 127.0.0.1:8080 10.1.0.2:80", "tcp 127.0.0.1:8080 10.1.0.2:81"]);
    forward(&[]);
    forwarder::start(dir()).unwrap();
    let store = Store::open(dir().to_owned(), "/run/data".into(), "here").unwrap();
    forwarder::start(dir()).unwrap();
    let mut linux = Linux::new(store);
    let mut apply = |ops: Vec<Op>| linux.apply(&Plan(ops), &Sandboxes::default()).unwrap();
    apply(vec![Op::AddForward { forward: forwards[0].clone() }]);
    for round in 1..50 {
        let client = connect("127.0.0.1:8080");
        let _server = targets[(round - 1) % 2].accept().unwrap();
        let view = HostsView(["web".parse().unwrap()].into());
        let (old, new) = (forwards[(round - 1) % 2].clone(), forwards[round % 2].clone());
        let mut plan = vec![Op::DelForward { forward: old }, Op::AddForward { forward: new }];
        if round % 3 == 0 {
            // With something between, too.
            plan.insert(1, Op::AddHostsView { view });
        }
        apply(plan);
        assert!({ &client }.read(&mut [0]).is_err(), "round {round}");
    }
    // What fails between hides no port that is not free.
    let file = FileId::Hosts("absent".parse().unwrap());
    let plan = [
        Op::DelForward { forward: forwards[1].clone() },
        Op::PutFile { file, text: String::new() },
    ];
    linux.apply(&Plan(plan.to_vec()), &Sandboxes::default()).unwrap_err();
    drop(TcpListener::bind("127.0.0.1:8080").unwrap());
    Outcome::Passed
}

/// Sends a message as it is, with descriptors.
fn say(text: &[u8], handed: &[OwnedFd]) {
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(dir().join("forwarder.sock")).unwrap();
    let fds: Vec<_> = handed.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(&fds)));
    let flags = rustix::net::SendFlags::empty();
    rustix::net::sendmsg(&socket, &[io::IoSlice::new(text)], &mut control, flags).unwrap();
}

/// Asks something, with descriptors, and returns the answer.
fn question(text: &str, handed: Vec<OwnedFd>) -> String {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut all = vec![OwnedFd::from(theirs)];
    all.extend(handed);
    say(format!("?{text}").as_bytes(), &all);
    drop(all);
    let mut answer = String::new();
    ours.read_to_string(&mut answer).unwrap();
    answer
}

fn malformed_messages_leak_nothing(_: &mut Sandbox) -> Outcome {
    forward(&[]);
    forwarder::start(dir()).unwrap();
    let before = descriptors_at_rest();
    let null = || OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let socket = |port: u16| OwnedFd::from(TcpListener::bind(("127.0.0.1", port)).unwrap());
    let many: Vec<OwnedFd> = (0..253).map(|_| null()).collect();
    let line = |port: u16| format!("+tcp 127.0.0.1:{port} 10.1.0.2:80\n");
    for text in [
        "",
        "r",
        "x",
        "d",
        "?",
        "?r",
        "?x",
        "?d",
        "dgarbage\n",
        "?dgarbage\n",
        "d+\n",
        "d\n\n",
        "d+tcp 127.0.0.1:8080 10.1.0.2:8",
    ] {
        say(text.as_bytes(), &many);
        say(text.as_bytes(), &[]);
        // So many descriptors at once may be on their way, of all that a user has sent.
        forwarder::settle(dir()).unwrap();
    }
    say(b"\xff", &many);
    say(&[b'\n'; 70_000], &many);
    assert!(question("d+tcp 127.0.0.1:8080 10.1.0.2:8", vec![socket(8080)]).contains("midway"));
    drop(TcpListener::bind("127.0.0.1:8080").unwrap());
    forwarder::settle(dir()).unwrap();
    has_descriptors(before);
    // Too few sockets, or none of the port's: it opens its own.
    let two = format!("d{}{}", line(8080), line(8081));
    assert_eq!(question(&two, vec![null()]), "ok\n");
    assert_eq!(question(&format!("d{}", line(8082)), vec![null()]), "ok\n");
    assert_eq!(question(&format!("d{}", line(8083)), vec![socket(9999)]), "ok\n");
    assert_eq!(question(&format!("d{}", line(8084)), vec![socket(8084)]), "ok\n");
    for port in 8080..=8084 {
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
    forwarder::settle(dir()).unwrap();
    forwarder::reload(dir()).unwrap(); // Nothing of that is written down.
    has_descriptors(before);
    Outcome::Passed
}

fn pid() -> i32 {
    let record = fs::read_to_string(dir().join("forwarder")).unwrap();
    record.split(' ').next().unwrap().parse().unwrap()
}

fn killed_it_starts_again(_: &mut Sandbox) -> Outcome {
    forward(&["tcp 127.0.0.1:8080 10.1.0.2:80"]);
    assert!(!forwarder::running(dir()));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| forwarder::start(dir()).unwrap());
        }
    });
    let first = pid();
    forwarder::start(dir()).unwrap();
    assert_eq!(pid(), first);
    signal(Signal::KILL);
    ended();
    assert!(matches!(forwarder::reload(dir()), Err(ForwarderError::NotRunning)));
    forwarder::start(dir()).unwrap();
    assert_ne!(pid(), first);
    TcpStream::connect("127.0.0.1:8080").unwrap();
    Outcome::Passed
}

/// Resident memory of the forwarder, in kB.
fn resident() -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Processor time the forwarder has used, in clock ticks (10 ms).
fn ticks() -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn a_thousand_ports_cost_little(_: &mut Sandbox) -> Outcome {
    forward(&[]);
    forwarder::start(dir()).unwrap();
    let none = resident();
    let lines: Vec<String> = (10_000..11_000)
        .flat_map(|port| {
            ["127.0.0.1", "[::1]"].map(|addr| format!("tcp {addr}:{port} {TARGET}:{port}"))
        })
        .collect();
    forward(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let started = Instant::now();
    forwarder::reload(dir()).unwrap();
    println!("{none} kB with no port, {} kB with 1,000 on both addresses", resident());
    println!("all bound in {:?}", started.elapsed());
    forward(&lines.iter().skip(1).map(String::as_str).collect::<Vec<_>>());
    let started = Instant::now();
    forwarder::reload(dir()).unwrap();
    println!("one fewer in {:?}", started.elapsed());
    assert!(resident() < none + 2048);
    forward(&[]);
    forwarder::reload(dir()).unwrap();
    let before = descriptors_at_rest();
    let started = Instant::now();
    add(&lines).unwrap();
    println!("all added in {:?}", started.elapsed());
    forwarder::settle(dir()).unwrap();
    has_descriptors(before + lines.len());
    TcpStream::connect("[::1]:10999").unwrap();
    let started = Instant::now();
    remove(&lines[1..]);
    println!("all but one removed in {:?}", started.elapsed());
    assert_eq!(fs::read_dir(dir().join("forwards")).unwrap().count(), 1);
    let _all: Vec<_> =
        (10_001..11_000).map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap()).collect();
    Outcome::Passed
}

fn without_ipv6_the_rest_is_served(_: &mut Sandbox) -> Outcome {
    fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    forward(&["tcp 127.0.0.1:8080 10.1.0.2:80", "tcp [::1]:8080 10.1.0.2:80"]);
    forwarder::start(dir()).unwrap();
    TcpStream::connect("127.0.0.1:8080").unwrap();
    add(&["tcp [::1]:8081 10.1.0.2:80", "tcp 127.0.0.1:8081 10.1.0.2:80"]).unwrap();
    TcpStream::connect("127.0.0.1:8081").unwrap();
    Outcome::Passed
}

fn out_of_descriptors_it_turns_clients_away_and_recovers(sandbox: &mut Sandbox) -> Outcome {
    let container = container(sandbox);
    sandbox.serve(&container, &["echo", "--tcp", "--port", "80"]);
    forward(&["tcp 127.0.0.1:8080 10.1.0.2:80"]);
    forwarder::start(dir()).unwrap();
    let limit = rustix::process::Rlimit { current: Some(40), maximum: Some(40) };
    let process = Pid::from_raw(pid());
    rustix::process::prlimit(process, rustix::process::Resource::Nofile, limit).unwrap();
    let clients: Vec<TcpStream> = (0..60).map(|_| connect("127.0.0.1:8080")).collect();
    let served = |mut client: &TcpStream| {
        client.write_all(b"hello\n").is_ok() && matches!(client.read(&mut [0; 64]), Ok(1..))
    };
    let count = clients.iter().filter(|client| served(client)).count();
    assert!((10..20).contains(&count), "{count} served");
    let before = ticks();
    thread::sleep(Duration::from_millis(300));
    assert!(ticks() <= before + 2, "it is busy doing nothing");
    // It still does what it is told.
    forwarder::settle(dir()).unwrap();
    remove(&["tcp 127.0.0.1:8080 10.1.0.2:80"]);
    add(&["tcp 127.0.0.1:8080 10.1.0.2:80"]).unwrap();
    drop(clients);
    thread::sleep(Duration::from_millis(100));
    assert!(served(&connect("127.0.0.1:8080")));
    Outcome::Passed
}

fn many_idle_connections_cost_no_time_and_little_memory(sandbox: &mut Sandbox) -> Outcome {
    let container = container(sandbox);
    let listener = listen(&container, 80);
    forward(&["tcp 127.0.0.1:8080 10.1.0.2:80"]);
    forwarder::start(dir()).unwrap();
    let none = resident();
    // Some idle, some half closed, and some stuck with a server that does not read.
    let mut pairs = Vec::new();
    for number in 0..150 {
        let client = connect("127.0.0.1:8080");
        let (server, _) = listener.accept().unwrap();
        match number % 3 {
            0 => client.shutdown(Shutdown::Write).unwrap(),
            1 if number < 30 => {
                client.set_nonblocking(true).unwrap();
                while { &client }.write(&[0; 65536]).is_ok() {}
            }
            _ => {}
        }
        pairs.push((client, server));
    }
    thread::sleep(Duration::from_millis(100));
    let before = ticks();
    thread::sleep(Duration::from_millis(300));
    assert!(ticks() <= before + 2, "it is busy doing nothing");
    println!("{none} kB before, {} kB with 150 connections, 10 of them stuck", resident());
    assert!(resident() < none + 2048);
    Outcome::Passed
}
