//! Links of many namespaces and what they lead to, read by the crate's own API.

use std::{
    collections::BTreeSet,
    fs::File,
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    thread,
    time::Instant,
};

use rustix::thread::{CapabilitySet, CapabilitySets};
use twinax::linux::wires::{self, Wanted};
use twinax_core::{
    model::{LinkId, LinkKind, Netns},
    name::{IfName, Proto},
    sight::{Counters, LinkFacts, Sight},
};

use crate::{
    harness::{self, Outcome},
    sandbox::{self, Sandbox},
    tests, wire,
};

tests![
    cables_pair_where_indices_collide,
    cables_pair_inside_one_namespace_and_between_containers,
    a_far_end_in_a_namespace_nobody_gave_is_found,
    one_cable_is_told_as_among_all,
    kinds_are_told,
    kinds_that_a_kernel_may_lack_are_told,
    listeners_have_their_processes,
    hostile_names_are_kept,
    counters_count,
    nobody_gets_a_number,
    without_privileges_ones_own_links_are_seen,
    addresses_routes_and_neighbours_are_where_they_belong,
];

type Given<'a> = Vec<(Netns, BorrowedFd<'a>)>;

fn con(name: &str) -> Netns {
    Netns::Container(name.parse().unwrap())
}

fn id(netns: Netns, name: &str) -> LinkId {
    LinkId { netns, name: name.parse().unwrap() }
}

/// The host and containers `c0`, `c1`, ….
fn given<'a>(sandbox: &'a Sandbox, containers: &'a [sandbox::Netns]) -> Given<'a> {
    let containers = containers.iter().enumerate();
    let mut given: Given<'a> =
        containers.map(|(n, netns)| (con(&format!("c{n}")), netns.as_fd())).collect();
    given.push((Netns::Host, sandbox.host().as_fd()));
    given
}

fn look(given: &Given<'_>, wanted: &Wanted<'_>) -> Sight {
    let mut sight = Sight::default();
    wires::read(given, wanted, &mut sight);
    sight
}

fn facts<'a>(sight: &'a Sight, id: &LinkId) -> &'a LinkFacts {
    sight.links.get(id).unwrap_or_else(|| panic!("{id} is not seen: {:?}", sight.links.keys()))
}

#[track_caller]
fn assert_pair(sight: &Sight, a: &LinkId, b: &LinkId) {
    for (near, far) in [(a, b), (b, a)] {
        let facts = facts(sight, near);
        assert_eq!(facts.leads_to.as_ref(), Some(far), "{near}: {facts:?}");
        assert!(facts.proven, "{near}");
        let peer = match &sight.topology.links[near].kind {
            LinkKind::VethHost { peer, .. } | LinkKind::VethContainer { peer } => peer,
            other => panic!("{near} is {other:?}"),
        };
        assert_eq!(peer, far);
    }
}

const WITHIN: fn() -> Wanted<'static> = || Wanted { observatory: false, ..Wanted::default() };

/// Every container's eth0 has index 2, as has the host's first cable; `TWINAX_TRIALS=1000` makes as
/// many and prints how long it takes.
fn cables_pair_where_indices_collide(sandbox: &mut Sandbox) -> Outcome {
    let count = harness::trials(100);
    let containers: Vec<_> = (0..count).map(|_| sandbox.namespace()).collect();
    for (n, netns) in containers.iter().enumerate() {
        let (name, index) = (format!("v{n}"), 2 + (n as u32 * 7) % (7 * count as u32));
        let far = (&b"eth0"[..], 2, netns.as_fd().as_raw_fd());
        wire::add_cable((name.as_bytes(), index), far).unwrap();
        wire::set_up(&name).unwrap();
        netns.run(|| {
            wire::add_addr("eth0", [10, 9, (n >> 8) as u8, n as u8].into(), 16).unwrap();
            wire::set_up("eth0").unwrap();
            wire::add_route("eth0", [0; 4].into(), 0, Some([10, 9, 255, 254].into())).unwrap();
        });
    }
    let given = given(sandbox, &containers);
    if std::env::var_os(harness::TRIALS).is_some() {
        time(&given);
    }
    let sight = look(&given, &Wanted::default());
    assert_eq!(sight.unseen, Vec::<String>::new());
    for n in 0..count {
        let host = id(Netns::Host, &format!("v{n}"));
        assert_pair(&sight, &host, &id(con(&format!("c{n}")), "eth0"));
    }
    assert_eq!(sight.links.len(), 3 * count + 1);
    assert_eq!(sight.links.values().filter(|facts| facts.proven).count(), 2 * count);
    let within = look(&given, &WITHIN());
    assert_eq!(within.topology.links, sight.topology.links);
    // IPv6 has the kernel add routes of its own in the meantime.
    let routes = |sight: &Sight| -> Vec<_> {
        let routes = sight.topology.routes.iter().filter(|route| route.dst.addr().is_ipv4());
        routes.cloned().collect()
    };
    assert_eq!(routes(&within), routes(&sight));
    let ends = |sight: &Sight| -> Vec<_> {
        sight.links.iter().map(|(id, it)| (id.clone(), it.leads_to.clone(), it.proven)).collect()
    };
    assert_eq!(ends(&within), ends(&sight));
    Outcome::Passed
}

fn time(given: &Given<'_>) {
    let plain = Wanted::default();
    let ways = [
        ("observatory, 2 readers", plain),
        ("observatory, 1 reader", Wanted { readers: 1, ..plain }),
        ("within, 2 readers", Wanted { observatory: false, ..plain }),
        ("within, 1 reader", Wanted { observatory: false, readers: 1, ..plain }),
        ("with neighbours", Wanted { neighbours: true, ..plain }),
        ("with listeners", Wanted { listeners: true, ..plain }),
    ];
    let mut took = vec![Vec::new(); ways.len()];
    for _ in 0..15 {
        for (times, (_, wanted)) in took.iter_mut().zip(&ways) {
            let (start, spent) = (Instant::now(), spent());
            let sight = look(given, wanted);
            times.push((start.elapsed().as_secs_f64() * 1e3, self::spent() - spent));
            drop(sight);
        }
    }
    for (times, (what, _)) in took.into_iter().zip(ways) {
        let (mut wall, mut cpu): (Vec<f64>, Vec<f64>) = times.into_iter().unzip();
        wall.sort_by(f64::total_cmp);
        cpu.sort_by(f64::total_cmp);
        let (wall_median, cpu_median) = (wall[wall.len() / 2], cpu[cpu.len() / 2]);
        println!(
            "{what}: median {wall_median:.1} ms, least {:.1} ms; processor {cpu_median:.1} ms, \
             least {:.1} ms",
            wall[0], cpu[0]
        );
    }
}

/// Processor time of all threads so far, in milliseconds.
fn spent() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

/// ```text
/// c0 [7] ═══ [7] c1    c0 [8] ═══ [9] c2    c1 [8] ═══ [8] c2    c0 [9] ═══ [10] c0
/// ```
fn cables_pair_inside_one_namespace_and_between_containers(sandbox: &mut Sandbox) -> Outcome {
    let containers = [sandbox.namespace(), sandbox.namespace(), sandbox.namespace()];
    let cables = [
        (0, "to-c1", 7, 1, "to-c0", 7),
        (0, "to-c2", 8, 2, "to-c0", 9),
        (1, "to-c2", 8, 2, "to-c1", 8),
        (0, "here", 9, 0, "there", 10),
    ];
    for (near, name, index, far, far_name, far_index) in cables {
        let fd = containers[far].as_fd().as_raw_fd();
        containers[near].run(|| {
            let far = (far_name.as_bytes(), far_index, fd);
            wire::add_cable((name.as_bytes(), index), far).unwrap();
        });
    }
    let given = given(sandbox, &containers);
    for wanted in [Wanted::default(), WITHIN()] {
        let sight = look(&given, &wanted);
        for (near, name, _, far, far_name, _) in cables {
            let (near, far) = (con(&format!("c{near}")), con(&format!("c{far}")));
            assert_pair(&sight, &id(near, name), &id(far, far_name));
        }
    }
    Outcome::Passed
}

/// ```text
/// host ═══ c0     host ═══ nobody's ═══ nobody's
/// ```
fn a_far_end_in_a_namespace_nobody_gave_is_found(sandbox: &mut Sandbox) -> Outcome {
    let containers = [sandbox.namespace()];
    let (hidden, further) = (sandbox.namespace(), sandbox.namespace());
    wire::add_veth("v0", "eth0", containers[0].as_fd().as_raw_fd()).unwrap();
    wire::add_veth("v1", "inside", hidden.as_fd().as_raw_fd()).unwrap();
    let fd = further.as_fd().as_raw_fd();
    hidden.run(|| {
        wire::add_veth("onward", "end", fd).unwrap();
        wire::add_addr("inside", [10, 3, 0, 2].into(), 24).unwrap();
    });
    let given = given(sandbox, &containers);
    let sight = look(&given, &Wanted::default());
    let (first, second) = (con("netns:/dev/null/hidden-1"), con("netns:/dev/null/hidden-2"));
    assert_pair(&sight, &id(Netns::Host, "v0"), &id(con("c0"), "eth0"));
    assert_pair(&sight, &id(Netns::Host, "v1"), &id(first.clone(), "inside"));
    assert_pair(&sight, &id(first.clone(), "onward"), &id(second.clone(), "end"));
    let inside = facts(&sight, &id(first.clone(), "inside"));
    assert_eq!(inside.addrs, ["10.3.0.2/24".parse().unwrap()]);
    assert_eq!(sight.spaces.keys().collect::<Vec<_>>(), [&first, &second]);

    // From within it has no number that says whose it is.
    let sight = look(&given, &WITHIN());
    let v1 = facts(&sight, &id(Netns::Host, "v1"));
    assert!(v1.leads_to.is_none() && !v1.proven, "{v1:?}");
    assert!(v1.details.iter().any(|line| line.contains("not seen")), "{v1:?}");
    let kind = &sight.topology.links[&id(Netns::Host, "v1")].kind;
    assert_eq!(*kind, LinkKind::Other("veth".to_owned()));
    Outcome::Passed
}

/// ```text
/// br0 ── v0 ═══ eth0 c0: macvlan and vxlan on it
/// ```
/// Followed from the host's end, a cable is what the look at all namespaces has of it.
fn one_cable_is_told_as_among_all(sandbox: &mut Sandbox) -> Outcome {
    let containers = [sandbox.namespace(), sandbox.namespace(), sandbox.namespace()];
    wire::add_bridge("br0").unwrap();
    for (n, netns) in containers.iter().enumerate() {
        let (name, index) = (format!("v{n}"), 100 + n as u32);
        let far = (&b"eth0"[..], 2, netns.as_fd().as_raw_fd());
        wire::add_cable((name.as_bytes(), index), far).unwrap();
        wire::set_master(&name, "br0").unwrap();
        wire::set_up(&name).unwrap();
        netns.run(|| {
            wire::add_addr("eth0", [10, 9, 0, n as u8 + 1].into(), 24).unwrap();
            wire::set_up("eth0").unwrap();
            wire::add_route("eth0", [0; 4].into(), 0, Some([10, 9, 0, 254].into())).unwrap();
        });
    }
    let all = given(sandbox, &containers);
    let whole = look(&all, &Wanted::default());
    let fds: Vec<BorrowedFd<'_>> = all.iter().map(|(_, fd)| *fd).collect();
    let (home, host) = (sandbox.host().as_fd(), Netns::Host);
    let mut lead = wires::follow("v1", home).unwrap().expect("it leads somewhere");
    assert_eq!((lead.peer(), lead.place(&fds).unwrap()), (Some(2), Some(1)));
    assert_eq!(lead.place(&fds[2..]).unwrap(), None);
    let mut sight = Sight::default();
    assert!(wires::read_lead(lead, (&host, home), (&all[1].0, all[1].1), &mut sight).unwrap());
    let ends = [id(Netns::Host, "v1"), id(con("c1"), "eth0")];
    assert_pair(&sight, &ends[0], &ends[1]);
    for end in &ends {
        let calm = |sight: &Sight| LinkFacts {
            counters: Counters::default(),
            ..facts(sight, end).clone()
        };
        assert_eq!(calm(&sight), calm(&whole));
        assert_eq!(sight.topology.links[end], whole.topology.links[end]);
        let routes = |sight: &Sight| -> Vec<_> {
            sight.topology.routes.iter().filter(|route| route.link == *end).cloned().collect()
        };
        assert_eq!(routes(&sight), routes(&whole));
    }
    let bridge = id(Netns::Host, "br0");
    assert_eq!(sight.links.keys().collect::<Vec<_>>(), [&bridge, &ends[0], &ends[1]]);
    for name in ["lo", "br0", "none", "eth0"] {
        assert!(wires::follow(name, home).unwrap().is_none(), "{name}");
    }
    Outcome::Passed
}

fn kinds_are_told(sandbox: &mut Sandbox) -> Outcome {
    let containers = [sandbox.namespace()];
    wire::add_veth("v0", "eth0", containers[0].as_fd().as_raw_fd()).unwrap();
    wire::add_bridge("br0").unwrap();
    wire::set_master("v0", "br0").unwrap();
    containers[0].run(|| {
        let bridge_mode = 4u32.to_ne_bytes();
        wire::add_kind("mac0", "macvlan", Some("eth0"), &[(1, &bridge_mode)]).unwrap();
        let (id, lower) = (42u32.to_ne_bytes(), wire::index("eth0").unwrap().to_ne_bytes());
        let options = [(1, &id[..]), (2, &[192, 0, 2, 9]), (3, &lower), (15, &[0x12, 0xb5])];
        wire::add_kind("vx0", "vxlan", None, &options).unwrap();
    });
    let given = given(sandbox, &containers);
    for wanted in [Wanted::default(), WITHIN()] {
        let sight = look(&given, &wanted);
        let eth0 = id(con("c0"), "eth0");
        for (name, kind, detail) in
            [("mac0", "macvlan", "mode bridge"), ("vx0", "vxlan", "vxlan id 42 remote 192.0.2.9")]
        {
            let link = id(con("c0"), name);
            let facts = facts(&sight, &link);
            assert_eq!((facts.kind.as_str(), facts.proven), (kind, false));
            assert_eq!(facts.leads_to.as_ref(), Some(&eth0), "{facts:?}");
            assert!(facts.details.iter().any(|line| line == detail), "{facts:?}");
            assert_eq!(sight.topology.links[&link].kind, LinkKind::Other(kind.to_owned()));
        }
        assert_pair(&sight, &id(Netns::Host, "v0"), &eth0);
        let v0 = facts(&sight, &id(Netns::Host, "v0"));
        assert_eq!(v0.master, Some(id(Netns::Host, "br0")));
        assert!(v0.details.iter().any(|line| line == "port 1 disabled"), "{v0:?}");
        let LinkKind::VethHost { port: Some(port), .. } =
            &sight.topology.links[&id(Netns::Host, "v0")].kind
        else {
            panic!("v0 has a seat");
        };
        assert_eq!((port.bridge.as_str(), port.hairpin), ("br0", false));
        assert_eq!(sight.topology.links[&id(Netns::Host, "br0")].kind, LinkKind::Bridge);
        let lo = &sight.topology.links[&id(Netns::Host, "lo")];
        assert_eq!((&lo.kind, lo.up), (&LinkKind::Other("loopback".to_owned()), true));
    }
    Outcome::Passed
}

/// What it is called, what it lies on, its options, and what is said of it.
type Kind<'a> = (&'a str, Option<&'a str>, &'a [(u16, &'a [u8])], Option<&'a str>);

fn kinds_that_a_kernel_may_lack_are_told(sandbox: &mut Sandbox) -> Outcome {
    wire::add_bridge("br0").unwrap();
    let mut lacking = Vec::new();
    let (five, table) = (5u16.to_ne_bytes(), 77u32.to_ne_bytes());
    let kinds: [Kind; 5] = [
        ("vlan", Some("br0"), &[(1, &five)], Some("vlan id 5")),
        ("vrf", None, &[(1, &table)], Some("table 77")),
        ("ipvlan", Some("br0"), &[(1, &[2, 0])], Some("mode l3s")),
        ("dummy", None, &[], None),
        ("bond", None, &[(1, &[1])], Some("mode active-backup")),
    ];
    for (kind, on, options, detail) in kinds {
        let name = format!("a-{kind}");
        if wire::add_kind(&name, kind, on, options).is_err() {
            lacking.push(kind);
            continue;
        }
        let sight = look(&given(sandbox, &[]), &Wanted::default());
        let facts = facts(&sight, &id(Netns::Host, &name));
        assert_eq!(facts.kind, kind);
        assert_eq!(facts.leads_to, on.map(|on| id(Netns::Host, on)));
        let told = |detail: &str| facts.details.iter().any(|line| line == detail);
        assert!(detail.is_none_or(told), "{facts:?}");
    }
    match lacking.as_slice() {
        [] => Outcome::Passed,
        lacking => Outcome::Skip(format!("this kernel makes no {}", lacking.join(", no "))),
    }
}

fn listeners_have_their_processes(sandbox: &mut Sandbox) -> Outcome {
    let containers = [sandbox.namespace(), sandbox.namespace(), sandbox.namespace()];
    // The standard library's IPv6 sockets take IPv4 too.
    let _held = containers[0].run(|| {
        let tcp = ["127.0.0.1:80", "[::]:81", "[::1]:82"].map(|at| TcpListener::bind(at).unwrap());
        let udp = ["0.0.0.0:53", "[::]:54"].map(|at| UdpSocket::bind(at).unwrap());
        let connected = UdpSocket::bind("127.0.0.1:55").unwrap();
        connected.connect("127.0.0.1:53").unwrap();
        (tcp, udp, connected)
    });
    let _other = containers[1].run(|| TcpListener::bind("[::]:81").unwrap());
    let given = given(sandbox, &containers);
    let sight = look(&given, &Wanted { listeners: true, ..Wanted::default() });
    let in_it = |name: &str| {
        let of_it = sight.listeners.iter().filter(|listener| listener.netns == con(name));
        of_it.map(|it| (it.proto, it.at.to_string(), it.dual)).collect::<Vec<_>>()
    };
    let expected = [
        (Proto::Tcp, "127.0.0.1:80", false),
        (Proto::Tcp, "[::]:81", true),
        (Proto::Tcp, "[::1]:82", false),
        (Proto::Udp, "0.0.0.0:53", false),
        (Proto::Udp, "[::]:54", true),
    ];
    assert_eq!(in_it("c0"), expected.map(|(proto, at, dual)| (proto, at.to_owned(), dual)));
    assert_eq!(in_it("c1"), [(Proto::Tcp, "[::]:81".to_owned(), true)]);
    assert_eq!(in_it("c2"), []);
    let own = std::process::id();
    for listener in &sight.listeners {
        let pids: Vec<u32> = listener.processes.iter().map(|(pid, _)| *pid).collect();
        assert_eq!(pids, [own], "{listener:?}");
        assert!(!listener.processes[0].1.is_empty());
    }
    // Given by the caller, they are not looked up.
    let none = wires::Holders::new();
    let wanted = Wanted { listeners: true, holders: Some(&none), ..Wanted::default() };
    let sight = look(&given, &wanted);
    assert!(sight.listeners.len() == 6 && sight.listeners.iter().all(|it| it.processes.is_empty()));
    Outcome::Passed
}

/// The kernel refuses little in a name.
fn hostile_names_are_kept(sandbox: &mut Sandbox) -> Outcome {
    let containers = [sandbox.namespace()];
    let names: [&[u8]; 7] = [
        b"\x1b[31mred",
        b"\xff\xfe\xfd\xfc",
        b"\xff\xfe\xfd\xfb",
        "\u{202e}0hte".as_bytes(),
        b"\\xff\\xfe",
        b"\xc3\xa9th\xc3",
        "ünicode-ok".as_bytes(),
    ];
    for (n, name) in names.iter().enumerate() {
        let far = format!("e{n}");
        let far = (far.as_bytes(), 0, containers[0].as_fd().as_raw_fd());
        wire::add_cable((name, 0), far).unwrap();
    }
    let sight = look(&given(sandbox, &containers), &Wanted::default());
    let mut spelled = BTreeSet::new();
    for (n, name) in names.iter().enumerate() {
        let near = LinkId { netns: Netns::Host, name: IfName::spelled(name) };
        assert_pair(&sight, &near, &id(con("c0"), &format!("e{n}")));
        assert!(!near.name.as_str().chars().any(char::is_control), "{near}");
        spelled.insert(near.name);
    }
    assert_eq!(spelled.len(), names.len(), "{spelled:?}");
    assert_eq!(IfName::spelled(names[0]).as_str(), "\\x1b[31mred");
    assert_eq!(IfName::spelled(names[6]).as_str(), "ünicode-ok");
    Outcome::Passed
}

fn counters_count(sandbox: &mut Sandbox) -> Outcome {
    let outside = sandbox.outside("uplink", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    let given: Given<'_> =
        vec![(Netns::Host, sandbox.host().as_fd()), (con("out"), outside.as_fd())];
    let wanted = Wanted { neighbours: true, ..Wanted::default() };
    let (uplink, eth0) = (id(Netns::Host, "uplink"), id(con("out"), "eth0"));
    let before = look(&given, &wanted);
    let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
    for _ in 0..10 {
        socket.send_to(&[0; 1000], "192.0.2.2:9").unwrap();
    }
    let after = look(&given, &wanted);
    let grown =
        facts(&after, &uplink).counters.tx_bytes - facts(&before, &uplink).counters.tx_bytes;
    assert!(grown >= 10_000, "{grown}");
    let (far, far_before) = (facts(&after, &eth0), facts(&before, &eth0));
    assert!(far.counters.rx_packets >= far_before.counters.rx_packets + 10);
    let knows = facts(&after, &uplink).neighbours.iter();
    let mac = after.topology.links[&eth0].mac;
    let mut knows = knows.filter(|it| it.addr == Some([192, 0, 2, 2].into()));
    assert!(knows.any(|it| it.mac == Some(mac)), "{:?}", facts(&after, &uplink));
    Outcome::Passed
}

/// The kernel gives out numbers when it tells of a link: here it must be in the observatory alone.
fn nobody_gets_a_number(sandbox: &mut Sandbox) -> Outcome {
    let containers = [sandbox.namespace(), sandbox.namespace()];
    wire::add_veth("v0", "eth0", containers[0].as_fd().as_raw_fd()).unwrap();
    let fd = containers[1].as_fd().as_raw_fd();
    containers[0].run(|| wire::add_veth("v1", "eth1", fd).unwrap());
    let given = given(sandbox, &containers);
    let numbers = || {
        let mut numbers = vec![wire::numbers_of_namespaces().unwrap()];
        numbers
            .extend(containers.iter().map(|it| it.run(|| wire::numbers_of_namespaces().unwrap())));
        numbers
    };
    let before = numbers();
    let modules = std::fs::read_to_string("/proc/modules").ok();
    let wanted = Wanted { neighbours: true, listeners: true, ..Wanted::default() };
    look(&given, &wanted);
    assert_eq!(numbers(), before);
    assert_eq!(std::fs::read_to_string("/proc/modules").ok(), modules);
    let here = File::open("/proc/thread-self/ns/net").unwrap();
    let same = rustix::fs::fstat(&here).unwrap().st_ino;
    assert_eq!(same, rustix::fs::fstat(sandbox.host()).unwrap().st_ino);
    Outcome::Passed
}

fn without_privileges_ones_own_links_are_seen(sandbox: &mut Sandbox) -> Outcome {
    let containers = [sandbox.namespace()];
    wire::add_veth("v0", "eth0", containers[0].as_fd().as_raw_fd()).unwrap();
    wire::add_cable((b"near", 0), (b"far", 0, sandbox.host().as_fd().as_raw_fd())).unwrap();
    let given = given(sandbox, &containers);
    let sight = thread::scope(|scope| {
        let look = || {
            let none = CapabilitySet::empty();
            let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
            rustix::thread::set_capabilities(None, sets).unwrap();
            look(&given, &Wanted::default())
        };
        scope.spawn(look).join().unwrap()
    });
    assert_pair(&sight, &id(Netns::Host, "near"), &id(Netns::Host, "far"));
    let v0 = facts(&sight, &id(Netns::Host, "v0"));
    assert!(v0.leads_to.is_none() && !v0.proven, "{v0:?}");
    assert!(sight.links.keys().all(|link| link.netns == Netns::Host));
    assert_eq!(sight.unseen.len(), 1, "{:?}", sight.unseen);
    assert!(sight.unseen[0].starts_with("links of c0: "), "{:?}", sight.unseen);
    Outcome::Passed
}

fn addresses_routes_and_neighbours_are_where_they_belong(sandbox: &mut Sandbox) -> Outcome {
    let theirs = ["192.0.2.2/24", "2001:db8::2/64"];
    let outside = sandbox.outside("uplink", &["192.0.2.1/24", "2001:db8::1/64"], &theirs);
    let given: Given<'_> =
        vec![(Netns::Host, sandbox.host().as_fd()), (con("out"), outside.as_fd())];
    for wanted in [Wanted::default(), WITHIN()] {
        let sight = look(&given, &wanted);
        let eth0 = id(con("out"), "eth0");
        for addr in theirs {
            let net = addr.parse().unwrap();
            assert!(facts(&sight, &eth0).addrs.contains(&net), "{addr}");
            assert!(sight.topology.addrs.iter().any(|it| it.link == eth0 && it.net == net));
        }
        let routes = sight.topology.routes.iter().filter(|route| route.link == eth0);
        let routes: Vec<String> = routes.map(ToString::to_string).collect();
        for route in [
            "default via 192.0.2.1 dev out/eth0",
            "192.0.2.0/24 dev out/eth0 src 192.0.2.2",
            "default (IPv6) via 2001:db8::1 dev out/eth0",
            "2001:db8::/64 dev out/eth0",
        ] {
            assert!(routes.iter().any(|it| it == route), "{route}: {routes:?}");
        }
    }
    Outcome::Passed
}
