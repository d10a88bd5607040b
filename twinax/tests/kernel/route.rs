//! Links, addresses, routes and neighbours on the real kernel, through the crate's own API.

#![allow(unsafe_code, reason = "a test makes network namespaces with unshare(2)")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use rustix::thread::{UnshareFlags, unshare_unsafe};
use twinax::linux::{
    apply::{LinkError, Links},
    netlink::messages,
    netns::{NetnsError, NetnsHandle, own_cookie},
    socket::RouteSocket,
    survey, tape,
};
use twinax_core::{
    model::{Addr, FdbEntry, Link, LinkId, LinkKind, Neighbour, Netns, Op, Port, Route, Topology},
    name::{ContainerName, IfName, Mac},
    ruleset::{GROUP_BASE, Group},
    state::{Sandbox as Record, Way},
};

use crate::{harness::Outcome, sandbox::Sandbox, tests};

tests![
    every_operation_does_what_the_model_says,
    one_batch_makes_many_and_a_dropped_namespace_takes_them,
    a_cable_too_narrow_for_ipv6_is_made_all_the_same,
    a_failure_names_its_operation_and_strangers_are_told_apart,
    a_namespace_is_known_by_its_cookie,
    subnets_of_others_are_found,
    the_first_packet_is_never_lost,
    a_cable_is_made_and_set_up_without_a_description,
];

const GATEWAY: &str = "10.1.0.1";
const GATEWAY6: &str = "fd00:1::1";

/// The host's side and what the model says of it.
struct World {
    links: Links,
    model: Topology,
    scope: twinax_core::model::Scope,
}

impl World {
    fn new() -> Self {
        let links = Links::open().unwrap();
        Self { links, model: Topology::default(), scope: Topology::default().scope() }
    }

    /// Does the same to the kernel and to the model, and compares.
    fn apply(&mut self, ops: &[Op]) {
        let done = self.links.apply(ops);
        done.unwrap_or_else(|error| panic!("{}: {}", ops[error.index], error.cause));
        for op in ops {
            self.model.apply(op).unwrap_or_else(|error| panic!("{op}: {error}"));
            self.scope = self.scope.clone().union(self.model.scope());
        }
        self.compare(ops);
    }

    fn compare(&mut self, after: &[Op]) {
        let after: Vec<_> = after.iter().map(ToString::to_string).collect();
        let seen = self.links.observe(&self.scope, &BTreeSet::new()).unwrap();
        assert_eq!(seen.topology, self.model, "after {after:#?}");
        assert_eq!((seen.foreign, seen.taken), (Vec::new(), BTreeSet::new()), "{after:#?}");
    }
}

/// Makes a namespace that lives as long as the handle.
fn namespace() -> NetnsHandle {
    let made = std::thread::spawn(|| {
        // SAFETY: only this thread's network namespace changes.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        NetnsHandle::open(&Way::Path("/proc/thread-self/ns/net".to_owned())).unwrap()
    });
    made.join().unwrap()
}

fn container(n: u8) -> ContainerName {
    format!("c{n}").parse().unwrap()
}

fn bridge() -> IfName {
    "tx-web".parse().unwrap()
}

fn host_end(n: u8) -> LinkId {
    LinkId::host(format!("txv{n}").parse().unwrap())
}

fn inner_end(n: u8) -> LinkId {
    LinkId { netns: Netns::Container(container(n)), name: "eth0".parse().unwrap() }
}

fn addrs(n: u8) -> [IpAddr; 2] {
    [format!("10.1.0.{n}").parse().unwrap(), format!("fd00:1::{n:x}").parse().unwrap()]
}

fn addr(link: &LinkId, net: &str) -> Op {
    Op::AddAddr { addr: Addr { link: link.clone(), net: net.parse().unwrap() } }
}

fn route(link: &LinkId, dst: &str, via: Option<&str>, src: Option<&str>) -> Op {
    let (via, src) = (via.map(|x| x.parse().unwrap()), src.map(|x| x.parse().unwrap()));
    Op::AddRoute { route: Route { link: link.clone(), dst: dst.parse().unwrap(), via, src } }
}

fn add_bridge() -> Vec<Op> {
    let id = LinkId::host(bridge());
    let link = Link {
        kind: LinkKind::Bridge,
        up: false,
        mac: Mac::of(GATEWAY.parse().unwrap()),
        mtu: 1400,
        group: Some(Group(GROUP_BASE + 1)),
        alias: "network web".to_owned(),
    };
    vec![
        Op::AddBridge { id: id.clone(), link },
        Op::SetUp { link: id.clone() },
        addr(&id, "10.1.0.1/24"),
        addr(&id, "fd00:1::1/64"),
    ]
}

fn veth(n: u8, port: Option<Port>) -> Op {
    let (id, peer) = (host_end(n), inner_end(n));
    let link = Link {
        kind: LinkKind::VethHost { peer: peer.clone(), port },
        up: true,
        mac: Mac([0x06, 0x74, 0, 0, 0, n]),
        mtu: 1400,
        group: Some(Group(GROUP_BASE + 1)),
        alias: format!("eth0 of c{n} on web"),
    };
    let inner = Link {
        kind: LinkKind::VethContainer { peer: id.clone() },
        up: false,
        mac: Mac::of(addrs(n)[0]),
        mtu: 1400,
        group: None,
        alias: String::new(),
    };
    Op::AddVeth { id, index: 1_000_000 + u32::from(n), link, peer, inner }
}

fn attach(n: u8) -> Vec<Op> {
    let inner = inner_end(n);
    let port = Port { bridge: bridge(), hairpin: true };
    let mut ops = vec![
        veth(n, Some(port)),
        Op::SetUp { link: inner.clone() },
        addr(&inner, &format!("10.1.0.{n}/24")),
        addr(&inner, &format!("fd00:1::{n:x}/64")),
        route(&inner, "0.0.0.0/0", Some(GATEWAY), None),
        route(&inner, "::/0", Some(GATEWAY6), None),
    ];
    let mac = Mac::of(addrs(n)[0]);
    for addr in addrs(n) {
        let link = LinkId::host(bridge());
        ops.push(Op::AddNeighbour { neighbour: Neighbour { link, addr, mac } });
    }
    for gateway in [GATEWAY, GATEWAY6] {
        let addr = gateway.parse().unwrap();
        let mac = Mac::of(GATEWAY.parse().unwrap());
        let link = inner.clone();
        ops.push(Op::AddNeighbour { neighbour: Neighbour { link, addr, mac } });
    }
    ops.push(Op::AddFdb { entry: FdbEntry { port: host_end(n), mac } });
    ops
}

/// `c2/eth0 ─ txv2 ─ tx-web` up and down again, by every kind of operation.
fn every_operation_does_what_the_model_says(_: &mut Sandbox) -> Outcome {
    let mut world = World::new();
    world.links.enter(container(2), namespace()).unwrap();
    world.apply(&add_bridge());
    for op in attach(2) {
        world.apply(&[op]);
    }
    let (host, inner) = (host_end(2), inner_end(2));
    let port = Port { bridge: bridge(), hairpin: false };
    for op in [
        Op::SetPort { link: host.clone(), port },
        Op::SetMtu { link: inner.clone(), mtu: 1300 },
        Op::SetMac { link: inner.clone(), mac: Mac([2, 0, 0, 0, 0, 9]) },
        Op::SetGroup { link: host.clone(), group: Group(GROUP_BASE + 7) },
        Op::SetAlias { link: host.clone(), alias: "new".to_owned() },
    ] {
        world.apply(&[op]);
    }
    // Those of the container's end went with its MAC.
    let again = attach(2).into_iter().filter(|op| match op {
        Op::AddNeighbour { neighbour } => neighbour.link == inner,
        _ => false,
    });
    world.apply(&again.collect::<Vec<_>>());
    let undo: Vec<Op> = attach(2).iter().rev().filter_map(undone).collect();
    assert_eq!(undo.len(), 9);
    for op in undo {
        world.apply(std::slice::from_ref(&op));
        world.links.apply(&[op]).expect("what is gone needs no deleting");
    }
    world.apply(&[Op::DelLink { link: host.clone() }]);
    world.links.apply(&[Op::DelLink { link: host }]).expect("what is gone needs no deleting");
    world.apply(&[Op::DelLink { link: LinkId::host(bridge()) }]);
    assert_eq!(world.model, Topology::default());
    Outcome::Passed
}

fn undone(op: &Op) -> Option<Op> {
    Some(match op.clone() {
        Op::AddAddr { addr } => Op::DelAddr { addr },
        Op::AddRoute { route } => Op::DelRoute { route },
        Op::AddNeighbour { neighbour } => Op::DelNeighbour { neighbour },
        Op::AddFdb { entry } => Op::DelFdb { entry },
        _ => return None,
    })
}

/// `c2 ─ tx-web ─ c3`, and `c4 ─ txv4` with host routes and no bridge, in one call.
fn one_batch_makes_many_and_a_dropped_namespace_takes_them(_: &mut Sandbox) -> Outcome {
    let mut world = World::new();
    for n in [2, 3, 4] {
        world.links.enter(container(n), namespace()).unwrap();
    }
    let mut ops = add_bridge();
    ops.extend(attach(2));
    ops.extend(attach(3));
    let (host, inner) = (host_end(4), inner_end(4));
    ops.extend([
        veth(4, None),
        addr(&host, "10.9.0.1/32"),
        Op::SetUp { link: inner.clone() },
        addr(&inner, "10.9.0.4/32"),
        addr(&inner, "fd00:9::4/128"),
        route(&inner, "10.9.0.1/32", None, Some("10.9.0.4")),
        route(&inner, "0.0.0.0/0", Some("10.9.0.1"), Some("10.9.0.4")),
        route(&host, "10.9.0.4/32", None, Some("10.9.0.1")),
        addr(&host, "fd00:9::1/128"),
        route(&host, "fd00:9::4/128", None, None),
        Op::AddNeighbour {
            neighbour: Neighbour { link: host.clone(), addr: addrs(4)[1], mac: Mac([2; 6]) },
        },
    ]);
    world.apply(&ops);
    world.apply(&[Op::DelLink { link: host }]);

    // Dropping the namespace takes the cable; it is gone from the host a little later.
    world.links.leave(&container(3));
    let mut socket = RouteSocket::open().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while survey::link_exists(&mut socket, "txv3").unwrap() {
        assert!(Instant::now() < deadline, "txv3 outlives its far end");
        std::thread::sleep(Duration::from_millis(5));
    }
    world.links.apply(&[Op::DelLink { link: inner_end(3) }]).expect("its namespace is gone");
    Outcome::Passed
}

/// With less than 1280 bytes the kernel has no IPv6 on a link and refuses settings for it.
fn a_cable_too_narrow_for_ipv6_is_made_all_the_same(_: &mut Sandbox) -> Outcome {
    let mut world = World::new();
    world.links.enter(container(2), namespace()).unwrap();
    let mut narrow = veth(2, Some(Port { bridge: bridge(), hairpin: true }));
    if let Op::AddVeth { link, inner, .. } = &mut narrow {
        (link.mtu, inner.mtu, inner.up) = (1200, 1200, true);
    }
    let mut ops = add_bridge();
    ops.extend([narrow, addr(&inner_end(2), "10.1.0.2/24")]);
    world.apply(&ops);
    Outcome::Passed
}

fn a_failure_names_its_operation_and_strangers_are_told_apart(_: &mut Sandbox) -> Outcome {
    let mut world = World::new();
    world.links.enter(container(2), namespace()).unwrap();
    world.apply(&add_bridge());
    world.apply(&attach(2));
    // The same number and name again; then a link that is not there; then a lost namespace.
    let port = Some(Port { bridge: bridge(), hairpin: false });
    let taken = world.links.apply(&[Op::SetUp { link: host_end(2) }, veth(2, port)]).unwrap_err();
    assert!(matches!((taken.index, &taken.cause), (1, LinkError::EndTaken(..))), "{taken:?}");
    let missing = world.links.apply(&[Op::SetUp { link: host_end(9) }]).unwrap_err();
    assert!(matches!(missing.cause, LinkError::NoLink(_)), "{missing:?}");
    let lost = world.links.apply(&[Op::SetUp { link: inner_end(9) }]).unwrap_err();
    assert!(matches!(lost.cause, LinkError::NoNetns(_)), "{lost:?}");
    // A refusal by the kernel, past one that counts as done.
    let gone = Addr { link: inner_end(2), net: "10.8.0.1/24".parse().unwrap() };
    let ops =
        [Op::DelAddr { addr: gone }, route(&inner_end(2), "10.7.0.0/16", Some("10.77.0.1"), None)];
    let refused = world.links.apply(&ops).unwrap_err();
    assert_eq!(refused.index, 1);
    let said = refused.cause.to_string();
    assert!(said.contains("gateway") || said.contains("unreachable"), "{said}");
    world.compare(&[]);

    // `lo` is there, but is no cable; the scope asks for its name.
    let lo = LinkId { name: "lo".parse().unwrap(), ..inner_end(2) };
    let mut scope = world.scope.clone();
    scope.links.insert(lo.clone());
    let seen = world.links.observe(&scope, &BTreeSet::new()).unwrap();
    assert_eq!((seen.topology, seen.taken), (world.model.clone(), BTreeSet::from([lo])));
    Outcome::Passed
}

fn a_namespace_is_known_by_its_cookie(_: &mut Sandbox) -> Outcome {
    let path = format!("/proc/{}/ns/net", std::process::id());
    let way = Way::Path(path);
    let cookie = own_cookie().unwrap();
    let sandbox = |cookie| Record { way: way.clone(), cookie };
    assert_eq!(NetnsHandle::of(&sandbox(Some(cookie))).unwrap().cookie().unwrap(), cookie);
    for other in [Some(cookie + 1), None] {
        let gone = NetnsHandle::of(&sandbox(other));
        assert!(matches!(gone, Err(NetnsError::Gone { .. })), "{gone:?}");
    }
    let elsewhere = namespace();
    assert_ne!(elsewhere.cookie().unwrap(), cookie);
    assert_eq!(own_cookie().unwrap(), cookie, "the thread came back");
    let no_namespace = NetnsHandle::open(&Way::Path("/proc/self/stat".to_owned()));
    let no_namespace = no_namespace.and_then(|handle| handle.cookie());
    assert!(matches!(no_namespace, Err(NetnsError::NotOne { .. })), "{no_namespace:?}");
    Outcome::Passed
}

/// The host's subnets are those that are not ours.
fn subnets_of_others_are_found(_: &mut Sandbox) -> Outcome {
    let mut world = World::new();
    world.links.enter(container(2), namespace()).unwrap();
    world.apply(&add_bridge());
    world.apply(&attach(2));
    let socket = world.links.host();
    assert_eq!(survey::foreign_subnets(socket).unwrap(), BTreeSet::new());
    assert_eq!(survey::uplink_mtu(socket).unwrap(), 1500);

    let mut inner = namespace().within(RouteSocket::open).unwrap().unwrap();
    assert!(!survey::link_exists(&mut inner, "tx-web").unwrap());
    assert!(survey::link_exists(&mut inner, "lo").unwrap());
    // Seen from within the container, all of it is the container's own.
    let mut socket = RouteSocket::open().unwrap();
    assert!(survey::link_exists(&mut socket, "tx-web").unwrap());
    Outcome::Passed
}

/// The first packet after `apply` arrives, in every direction: 120 attaches, each to a bridge
/// with a peer attached just before, every third one to a bridge made just before.
fn the_first_packet_is_never_lost(sandbox: &mut Sandbox) -> Outcome {
    let mut lost = Vec::new();
    for round in 0..40 {
        // A host of its own each time: it ends whole, which is faster than taking it down.
        let missed = sandbox.namespace().run(first_packets);
        lost.extend(missed.into_iter().map(|what| format!("round {round}: {what}")));
    }
    assert!(lost.is_empty(), "{} lost: {lost:#?}", lost.len());
    Outcome::Passed
}

/// To describe a link the kernel searches for the number of its far end's namespace.
fn a_cable_is_made_and_set_up_without_a_description(_: &mut Sandbox) -> Outcome {
    let mut world = World::new();
    world.links.enter(container(2), namespace()).unwrap();
    world.apply(&add_bridge());
    let mut ops = attach(2);
    // An IPv6 address is waited for by asking.
    ops.retain(|op| !matches!(op, Op::AddAddr { addr } if addr.net.addr().is_ipv6()));
    ops.retain(|op| !matches!(op, Op::AddRoute { route } if route.dst.addr().is_ipv6()));
    tape::start();
    world.links.apply(&ops).unwrap();
    let sent = tape::stop();
    let kinds = sent.iter().flat_map(|bytes| messages(bytes)).map(|message| message.kind);
    assert_eq!(kinds.filter(|kind| *kind == RTM_GETLINK).count(), 0);
    Outcome::Passed
}

const RTM_GETLINK: u16 = 18;

/// Makes a bridge, attaches three, and returns whose first packets did not arrive.
fn first_packets() -> Vec<String> {
    let mut lost = Vec::new();
    let mut links = Links::open().unwrap();
    links.apply(&add_bridge()).unwrap();
    let host = [GATEWAY, GATEWAY6]
        .map(|addr| UdpSocket::bind(SocketAddr::new(addr.parse().unwrap(), 0)).unwrap());
    let mut peer: Option<[UdpSocket; 2]> = None;
    for n in 2..5 {
        let netns = namespace();
        let bound = netns.within(|| ["0.0.0.0:0", "[::]:0"].map(|a| UdpSocket::bind(a).unwrap()));
        links.enter(container(n), netns).unwrap();
        links.apply(&attach(n)).unwrap();
        let bound = bound.unwrap();
        // Sends first, in each direction; only then is listened.
        let mut wait: Vec<(String, &UdpSocket)> = Vec::new();
        for (family, fresh) in addrs(n).into_iter().enumerate() {
            let at = |addr, socket: &UdpSocket| {
                SocketAddr::new(addr, socket.local_addr().unwrap().port())
            };
            host[family].send_to(b"x", at(fresh, &bound[family])).unwrap();
            wait.push((format!("host to {fresh}"), &bound[family]));
            let to = host[family].local_addr().unwrap();
            bound[family].send_to(b"x", to).unwrap();
            wait.push((format!("{fresh} to {to}"), &host[family]));
            if let Some(peer) = &peer {
                let to = at(addrs(n - 1)[family], &peer[family]);
                bound[family].send_to(b"x", to).unwrap();
                wait.push((format!("{fresh} to {to}"), &peer[family]));
            }
        }
        for (what, socket) in wait {
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            if socket.recv(&mut [0; 8]).is_err() {
                lost.push(what);
            }
        }
        peer = Some(bound);
    }
    lost
}
