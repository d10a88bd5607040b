//! Which flow is allowed on which type of network: every cell of the document's tables is derived
//! from real packets.
//!
//! ```text
//!   container a ┐
//!   container b ┴─ network of each type ─┐
//!                                        ├─ host 192.0.2.1 ═══ 192.0.2.2 outside
//!   container o ── network other ────────┘     198.51.100.1
//! ```

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    thread,
};

use crate::{
    harness::Outcome,
    product::{Inside, answer},
    sandbox::{Netns, PATIENCE, Reach, Sandbox, Talk},
    tests, wire,
};

tests![every_cell_is_as_documented, with_br_netfilter_too];

const DOCUMENT: &str = include_str!("../../../docs/networks.md");
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/networks.md");

/// The columns: a short name, and the options of `network create`; the default network has none.
const TYPES: [(&str, &str); 10] = [
    ("default", ""),
    ("bridge", "--ipv6"),
    ("no icc", "--ipv6 --no-icc"),
    ("internal", "--ipv6 --internal"),
    ("routed mode", "--ipv6 --gateway-mode-ipv4 routed --gateway-mode-ipv6 routed"),
    ("isolated", "--ipv6 --gateway-mode-ipv4 isolated --gateway-mode-ipv6 isolated"),
    ("routed driver", "--ipv6 --driver routed"),
    (
        "routed driver, routed mode",
        "--ipv6 --driver routed --gateway-mode-ipv4 routed --gateway-mode-ipv6 routed",
    ),
    ("routed driver, no icc", "--ipv6 --driver routed --no-icc"),
    ("routed driver, internal", "--ipv6 --driver routed --internal"),
];

/// Published leads to it.
const OPEN: u16 = 80;
/// Something listens here that was never published.
const PRIVATE: u16 = 81;
/// Where the host and the outside listen.
const PLAIN: u16 = 7000;
/// Host ports: this and the number of the column; the last is that of the other network.
const FIRST: u16 = 8000;
const OTHER: u16 = FIRST + TYPES.len() as u16;

#[derive(Clone, Copy)]
enum Flow {
    SameNetwork,
    OtherNetwork,
    OtherPublished,
    OwnPublished,
    NeighbourPublished,
    Gateway,
    HostOther,
    Outside,
    FromOther,
    FromOtherOpen,
    FromOtherPublished,
    FromHost,
    FromHostPublished,
    FromHostLoopback,
    FromOutside,
    FromOutsideOpen,
    FromOutsidePublished,
    PingFromOther,
    PingFromOutside,
}

/// The rows.
const FLOWS: [(Flow, &str); 19] = [
    (Flow::SameNetwork, "to a container of the same network"),
    (Flow::OtherNetwork, "to a container of another network"),
    (Flow::OtherPublished, "to another network's published port, at the host's address"),
    (Flow::OwnPublished, "to its own published port, at the host's address"),
    (Flow::NeighbourPublished, "to a neighbour's published port, at the host's address"),
    (Flow::Gateway, "to the gateway's address"),
    (Flow::HostOther, "to another address of the host"),
    (Flow::Outside, "to the outside"),
    (Flow::FromOther, "from a container of another network"),
    (Flow::FromOtherOpen, "from a container of another network, to a published port directly"),
    (Flow::FromOtherPublished, "from a container of another network, at the host's address"),
    (Flow::FromHost, "from the host"),
    (Flow::FromHostPublished, "from the host, to a published port at the host's address"),
    (Flow::FromHostLoopback, "from the host, to a published port at 127.0.0.1 or ::1"),
    (Flow::PingFromOther, "from a container of another network, a ping"),
    (Flow::FromOutside, "from outside"),
    (Flow::FromOutsideOpen, "from outside, to a published port directly"),
    (Flow::FromOutsidePublished, "from outside, to a published port at the host's address"),
    (Flow::PingFromOutside, "from outside, a ping"),
];

fn every_cell_is_as_documented(sandbox: &mut Sandbox) -> Outcome {
    bridged_frames(false);
    let found = World::new(sandbox).document();
    if std::env::var_os("UPDATE_EXPECT").is_some() && found != DOCUMENT {
        fs::write(PATH, &found).unwrap();
    } else {
        compare(&found);
    }
    Outcome::Passed
}

fn with_br_netfilter_too(sandbox: &mut Sandbox) -> Outcome {
    if !bridged_frames(true) {
        return Outcome::Skip("br_netfilter is not loaded".to_owned());
    }
    compare(&World::new(sandbox).document());
    Outcome::Passed
}

/// Has frames that a bridge carries pass the chains for IP, or not; returns whether it can be set.
fn bridged_frames(on: bool) -> bool {
    ["iptables", "ip6tables"].iter().all(|name| {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{name}");
        Path::new(&path).exists() && {
            fs::write(path, if on { "1" } else { "0" }).unwrap();
            true
        }
    })
}

#[track_caller]
fn compare(found: &str) {
    let expected = DOCUMENT;
    assert!(
        found == expected,
        "docs/networks.md differs from what real packets do (UPDATE_EXPECT=1 rewrites it):\n{}",
        crate::product::difference(expected, found)
    );
}

struct World<'a> {
    host: &'a Netns,
    outside: Netns,
    columns: Vec<Column>,
    other: Inside,
}

/// A network of one type, with two containers.
struct Column {
    a: Inside,
    b: Inside,
    gateways: Vec<IpAddr>,
    /// Whether publishing from `a` was refused.
    closed: bool,
}

/// One question asked with packets.
struct Probe<'a> {
    from: &'a Netns,
    to: SocketAddr,
    /// What the client may be seen as, to say that its source was kept.
    own: Vec<IpAddr>,
    /// Whether the answering server speaks udp too.
    udp: bool,
}

impl<'a> World<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        let outside = sandbox.outside(
            "uplink",
            &["192.0.2.1/24", "2001:db8::1/64"],
            &["192.0.2.2/24", "2001:db8::2/64"],
        );
        for (addr, prefix) in [("198.51.100.1", 32), ("2001:db8:1::1", 128)] {
            wire::add_addr("lo", addr.parse().unwrap(), prefix).unwrap();
        }
        sandbox.done("network create --ipv6 other");
        let other = sandbox.start("o", &format!("--network other -p {OTHER}:{OPEN}"));
        sandbox.done(&format!("publish o {OTHER}:{OPEN}/udp"));
        let columns = (0..TYPES.len()).map(|n| Column::new(sandbox, n)).collect();
        let any = |port| SocketAddr::new("::".parse().unwrap(), port);
        answer(sandbox.host(), any(PLAIN));
        answer(&outside, any(PLAIN));
        let world = Self { host: sandbox.host(), outside, columns, other };
        let inside = world.columns.iter().flat_map(|column| [&column.a, &column.b]);
        for container in inside.chain([&world.other]) {
            answer(&container.netns, any(OPEN));
            answer(&container.netns, any(PRIVATE));
        }
        world
    }

    /// The document with its tables derived anew.
    fn document(&self) -> String {
        let mut document = DOCUMENT.to_owned();
        for (word, v6) in [("IPv4", false), ("IPv6", true)] {
            let (begin, end) = (format!("<!-- derived: {word} -->\n"), "<!-- end -->");
            let start = document.find(&begin).expect("the document has its marks") + begin.len();
            let length = document[start..].find(end).expect("the document has its marks");
            document.replace_range(start..start + length, &self.table(v6));
        }
        document
    }

    fn table(&self, v6: bool) -> String {
        let cells = self.cells(v6);
        let mut text = String::from("| flow |");
        for (name, _) in TYPES {
            _ = write!(text, " {name} |");
        }
        _ = write!(text, "\n|---|{}", "---|".repeat(TYPES.len()));
        for (row, (_, name)) in FLOWS.iter().enumerate() {
            _ = write!(text, "\n| {name} |");
            for cell in &cells[row] {
                _ = write!(text, " {cell} |");
            }
        }
        text + "\n"
    }

    /// All cells, by row; every probe at once, as most of what is dropped is only waited for.
    fn cells(&self, v6: bool) -> Vec<Vec<String>> {
        thread::scope(|scope| {
            let rows: Vec<Vec<_>> = FLOWS
                .iter()
                .map(|(flow, _)| {
                    let cell = |n| scope.spawn(move || self.cell(*flow, n, v6));
                    (0..TYPES.len()).map(cell).collect()
                })
                .collect();
            let cell = |cell: thread::ScopedJoinHandle<'_, String>| cell.join().unwrap();
            rows.into_iter().map(|row| row.into_iter().map(cell).collect()).collect()
        })
    }

    fn cell(&self, flow: Flow, n: usize, v6: bool) -> String {
        let column = &self.columns[n];
        let Some(target) = column.a.of(v6) else {
            return "–".to_owned();
        };
        match flow {
            Flow::PingFromOther => return pinged(&self.other.netns, target),
            Flow::PingFromOutside => return pinged(&self.outside, target),
            _ => {}
        }
        let Some(probe) = self.probe(flow, n, v6) else {
            return "refused by twinax".to_owned();
        };
        let tcp = self.ask(&probe, Talk::Tcp, column);
        if probe.udp {
            let udp = self.ask(&probe, Talk::Udp, column);
            if udp != tcp {
                return format!("{tcp}; udp: {udp}");
            }
        }
        tcp
    }

    /// What is to be asked for a cell; none where Twinax refuses what it needs.
    fn probe(&self, flow: Flow, n: usize, v6: bool) -> Option<Probe<'_>> {
        let Column { a, b, gateways, closed } = &self.columns[n];
        let parse =
            |v4: &str, text6: &str| -> IpAddr { if v6 { text6 } else { v4 }.parse().unwrap() };
        let uplink = parse("192.0.2.1", "2001:db8::1");
        let port = FIRST + n as u16;
        let addr = |inside: &Inside| inside.of(v6).expect("asked before");
        let gateway = gateways.iter().copied().find(|addr| addr.is_ipv6() == v6);
        let own = vec![addr(a)];
        let (from, own, to, udp) = match flow {
            Flow::SameNetwork => (&a.netns, own, (addr(b), PRIVATE), true),
            Flow::OtherNetwork => (&a.netns, own, (addr(&self.other), PRIVATE), true),
            Flow::OtherPublished => (&a.netns, own, (uplink, OTHER), true),
            Flow::OwnPublished => (&a.netns, own, (uplink, port), true),
            Flow::NeighbourPublished => (&b.netns, vec![addr(b)], (uplink, port), true),
            Flow::Gateway => (&a.netns, own, (gateway?, PLAIN), false),
            Flow::HostOther => {
                (&a.netns, own, (parse("198.51.100.1", "2001:db8:1::1"), PLAIN), false)
            }
            Flow::Outside => (&a.netns, own, (parse("192.0.2.2", "2001:db8::2"), PLAIN), false),
            Flow::FromOther | Flow::FromOtherOpen | Flow::FromOtherPublished => {
                let to = match flow {
                    Flow::FromOther => (addr(a), PRIVATE),
                    Flow::FromOtherOpen => (addr(a), OPEN),
                    _ => (uplink, port),
                };
                (&self.other.netns, vec![addr(&self.other)], to, true)
            }
            Flow::FromHost => (self.host, self.host_addrs(), (addr(a), PRIVATE), true),
            Flow::FromHostPublished => (self.host, self.host_addrs(), (uplink, port), true),
            Flow::FromHostLoopback => {
                (self.host, self.host_addrs(), (parse("127.0.0.1", "::1"), port), true)
            }
            _ => {
                let to = match flow {
                    Flow::FromOutside => (addr(a), PRIVATE),
                    Flow::FromOutsideOpen => (addr(a), OPEN),
                    _ => (uplink, port),
                };
                (&self.outside, vec![parse("192.0.2.2", "2001:db8::2")], to, true)
            }
        };
        let needs_port = matches!(
            flow,
            Flow::OwnPublished
                | Flow::NeighbourPublished
                | Flow::FromOtherOpen
                | Flow::FromOtherPublished
                | Flow::FromHostPublished
                | Flow::FromHostLoopback
                | Flow::FromOutsideOpen
                | Flow::FromOutsidePublished
        );
        let probe = Probe { from, to: to.into(), own, udp };
        (!(needs_port && *closed)).then_some(probe)
    }

    fn host_addrs(&self) -> Vec<IpAddr> {
        let texts = ["192.0.2.1", "2001:db8::1", "198.51.100.1", "2001:db8:1::1"];
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ask(&self, probe: &Probe<'_>, talk: Talk, column: &Column) -> String {
        let mut reach = probe.from.ask(talk, probe.to);
        if reach == Reach::Timeout {
            // A busy machine may be slow once.
            reach = probe.from.ask(talk, probe.to);
        }
        match reach {
            Reach::Reached(client) if probe.own.contains(&client) => "yes".to_owned(),
            Reach::Reached(client) if column.gateways.contains(&client) => {
                "yes, as gateway".to_owned()
            }
            Reach::Reached(client) if self.host_addrs().contains(&client) => {
                "yes, as host".to_owned()
            }
            Reach::Reached(client) => format!("yes, as {client}"),
            Reach::Refused => "no (refused)".to_owned(),
            // Which of the two depends on how many errors the kernel cares to tell.
            Reach::Unreachable | Reach::Timeout => "no".to_owned(),
        }
    }
}

/// Whether an echo request is answered (RFC 792, RFC 4443).
fn pinged(from: &Netns, to: IpAddr) -> String {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sockopt};
    let (family, protocol, kind) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
    };
    let answered = from.run(|| {
        // Who may ping without privilege, of the namespace that the thread is in.
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
        let socket = rustix::net::socket(family, SocketType::DGRAM, Some(protocol)).unwrap();
        let patience = Some(PATIENCE);
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, patience).unwrap();
        rustix::net::connect(&socket, &SocketAddr::new(to, 0)).is_ok()
            && rustix::net::send(&socket, &[kind, 0, 0, 0, 0, 0, 0, 1], SendFlags::empty()).is_ok()
            && rustix::net::recv(&socket, &mut [0; 64], RecvFlags::empty()).is_ok()
    });
    if answered { "yes" } else { "no" }.to_owned()
}

impl Column {
    fn new(sandbox: &Sandbox, n: usize) -> Self {
        let (_, options) = TYPES[n];
        let network = if n == 0 {
            "default".to_owned()
        } else {
            sandbox.done(&format!("network create {options} n{n}"));
            format!("n{n}")
        };
        let a = sandbox.start(&format!("a{n}"), &format!("--network {network}"));
        let b = sandbox.start(&format!("b{n}"), &format!("--network {network}"));
        let port = FIRST + n as u16;
        let line = format!("publish a{n} {port}:{OPEN} {port}:{OPEN}/udp");
        let published = sandbox.try_line(&line);
        assert!(matches!(published.code, Some(0 | 1)), "{line}: {published:?}");
        let gateways = sandbox.gateways(&network);
        if options.contains("internal") || options.contains("isolated") {
            // A container may give itself a way out; that it has none is not what keeps it in.
            for gateway in &gateways {
                let any = if gateway.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
                for container in [&a, &b] {
                    let link = || wire::add_route("eth0", any, 0, Some(*gateway));
                    container.netns.run(link).unwrap();
                }
            }
        }
        Self { a, b, gateways, closed: published.code == Some(1) }
    }
}
