//! What `map` and `peer` print of a small host.

use expect_test::{Expect, expect};
use twinax::front::{print::Style, tree};
use twinax_core::{
    map::{self, Wanted, shown},
    model::{LinkId, Netns, Route},
    name::Proto,
    peer,
    sight::{
        Counters, Holder, LinkFacts, Listener, PublishedPort, Runtime, Sight, Space, Workload,
    },
};

const PLAIN: Style = Style { width: None, colour: false };

pub(crate) fn netns(name: &str) -> Netns {
    match name {
        "host" => Netns::Host,
        name => Netns::Container(name.parse().expect("well written")),
    }
}

pub(crate) fn link(at: &str) -> LinkId {
    let (place, name) = at.rsplit_once('/').expect("well written");
    LinkId { netns: netns(place), name: name.parse().expect("well written") }
}

fn facts(index: u32, kind: &str, addrs: &[&str]) -> LinkFacts {
    LinkFacts {
        index,
        kind: kind.to_owned(),
        operstate: "up".to_owned(),
        carrier: true,
        addrs: addrs.iter().map(|net| net.parse().expect("well written")).collect(),
        counters: Counters { rx_packets: 12, rx_bytes: 928, ..Counters::default() },
        ..LinkFacts::default()
    }
}

/// Both ends of a cable, on a bridge of the host.
pub(crate) fn cable(
    sight: &mut Sight,
    host: (&str, u32),
    bridge: Option<&str>,
    inside: (&str, u32, &str),
) {
    let (outer, inner) = (link(host.0), link(inside.0));
    let master = bridge.map(link);
    let end = |index, addrs: &[&str], far: &LinkId, master| LinkFacts {
        leads_to: Some(far.clone()),
        proven: true,
        master,
        ..facts(index, "veth", addrs)
    };
    sight.links.insert(outer.clone(), end(host.1, &[], &inner, master));
    sight.links.insert(inner.clone(), end(inside.1, &[inside.2], &outer, None));
    let dst = "0.0.0.0/0".parse().expect("well written");
    let via = Some("172.17.0.1".parse().expect("well written"));
    sight.topology.routes.insert(Route { link: inner, dst, via, src: None });
}

pub(crate) fn container(runtime: Runtime, name: &str, pid: u32) -> Workload {
    Workload {
        runtime,
        id: format!("{pid:064x}"),
        name: name.to_owned(),
        image: Some("nginx:1.27".to_owned()),
        pod: None,
        pid: Some(pid),
        netns_path: None,
        networks: vec!["bridge".to_owned()],
        published: Vec::new(),
        labels: Default::default(),
    }
}

pub(crate) fn space(inode: u64, workloads: Vec<Workload>) -> Space {
    let pid = workloads.first().and_then(|workload| workload.pid);
    let process = pid.map(|pid| Holder::Process { pid, comm: "nginx".to_owned() });
    Space { inode, cookie: Some(inode % 100), holders: process.into_iter().collect(), workloads }
}

/// Two containers whose ends bear the same number, a pod, and a namespace nobody is in.
pub(crate) fn host() -> Sight {
    let mut sight = Sight::default();
    sight.spaces.insert(Netns::Host, space(4026531833, vec![]));
    sight.links.insert(link("host/lo"), facts(1, "", &["127.0.0.1/8"]));
    sight.links.insert(link("host/eth0"), facts(2, "", &["192.0.2.2/24"]));
    sight.links.insert(link("host/docker0"), facts(3, "bridge", &["172.17.0.1/16"]));
    for (n, name) in [(1u32, "con1"), (2, "con2")] {
        let handle = format!("pid:{}", 1000 + n);
        let mut workload = container(Runtime::Docker, name, 1000 + n);
        if n == 1 {
            let port = PublishedPort {
                proto: Proto::Tcp,
                host: None,
                host_port: 8080,
                container_port: 80,
            };
            workload.published.push(port);
            sight.listeners.push(Listener {
                netns: netns(&handle),
                proto: Proto::Tcp,
                at: "0.0.0.0:80".parse().expect("well written"),
                dual: false,
                processes: vec![(1001, "nginx".to_owned())],
            });
        }
        sight.spaces.insert(netns(&handle), space(4026532000 + u64::from(n), vec![workload]));
        let (outer, inner) = (format!("host/veth{n}"), format!("{handle}/eth0"));
        let addr = format!("172.17.0.{}/16", n + 1);
        cable(&mut sight, (&outer, 6 + n), Some("host/docker0"), (&inner, 2, &addr));
    }
    let pod = |name: &str, pid| Workload {
        pod: Some("shop/cart-0".to_owned()),
        ..container(Runtime::Cri, name, pid)
    };
    let workloads = vec![pod("pause", 3000), pod("cart", 3001)];
    sight.spaces.insert(netns("pid:3000"), space(4026532010, workloads));
    cable(&mut sight, ("host/cali7", 20), None, ("pid:3000/eth0", 3, "10.4.0.7/32"));
    let holders = vec![Holder::Descriptor { pid: 812, fd: 7, comm: "agent".to_owned() }];
    let hidden = Space { holders, ..space(4026532099, vec![]) };
    sight.spaces.insert(netns("netns:/proc/812/fd/7"), hidden);
    sight.links.insert(link("netns:/proc/812/fd/7/lo"), facts(1, "", &[]));
    sight.links.insert(link("host/veth9"), facts(30, "veth", &[]));
    sight
}

fn check(wanted: &Wanted, expected: Expect) {
    let (root, counts) = map::tree(&host(), wanted);
    expected.assert_eq(&(tree::text(&root, PLAIN) + &tree::counts(&counts)));
}

#[test]
fn everything_hangs_where_it_is_plugged_in() {
    check(
        &Wanted::default(),
        expect![[r#"
            host  net:[4026531833]
            ├─ bridge docker0  172.17.0.1/16  ● up
            │  ├─ veth1 ⇄ eth0  con1  172.17.0.2/16  gw 172.17.0.1  ● up  docker nginx:1.27
            │  └─ veth2 ⇄ eth0  con2  172.17.0.3/16  gw 172.17.0.1  ● up  docker nginx:1.27
            ├─ cali7 ⇄ eth0  pod shop/cart-0  10.4.0.7/32  gw 172.17.0.1  ● up  cri nginx:1.27
            ├─ device eth0  192.0.2.2/24  ● up
            ├─ veth9  orphan: its other end was not found  ● up
            ├─ published *:8080/tcp  → con1:80  listener ✓ nginx(1001)
            └─ other namespaces
               └─ netns:/proc/812/fd/7  net:[4026532099]  held by descriptor 7 of process 812 (agent)  lo only
            4 containers, 5 namespaces, 1 bridge, 3 cables, 1 orphan
        "#]],
    );
}

#[test]
fn only_what_was_asked_for() {
    let only = |handle: &str| Wanted { only: vec![handle.to_owned()], ..Wanted::default() };
    check(
        &only("con2"),
        expect![[r#"
        host  net:[4026531833]
        └─ bridge docker0  172.17.0.1/16  ● up
           └─ veth2 ⇄ eth0  con2  172.17.0.3/16  gw 172.17.0.1  ● up  docker nginx:1.27
        4 containers, 5 namespaces, 1 bridge, 3 cables, 1 orphan, 1 not shown (-a)
    "#]],
    );
    check(
        &only("172.17.0.3"),
        expect![[r#"
        host  net:[4026531833]
        └─ bridge docker0  172.17.0.1/16  ● up
           └─ veth2 ⇄ eth0  con2  172.17.0.3/16  gw 172.17.0.1  ● up  docker nginx:1.27
        4 containers, 5 namespaces, 1 bridge, 3 cables, 1 orphan, 1 not shown (-a)
    "#]],
    );
    check(
        &Wanted { runtime: Some(Runtime::Cri), ..Wanted::default() },
        expect![[r#"
        host  net:[4026531833]
        └─ cali7 ⇄ eth0  pod shop/cart-0  10.4.0.7/32  gw 172.17.0.1  ● up  cri nginx:1.27
        4 containers, 5 namespaces, 1 bridge, 3 cables, 1 orphan, 1 not shown (-a)
    "#]],
    );
    check(
        &Wanted { network: Some("docker0".to_owned()), ..Wanted::default() },
        expect![[r#"
            host  net:[4026531833]
            ├─ bridge docker0  172.17.0.1/16  ● up
            │  ├─ veth1 ⇄ eth0  con1  172.17.0.2/16  gw 172.17.0.1  ● up  docker nginx:1.27
            │  └─ veth2 ⇄ eth0  con2  172.17.0.3/16  gw 172.17.0.1  ● up  docker nginx:1.27
            └─ published *:8080/tcp  → con1:80  listener ✓ nginx(1001)
            4 containers, 5 namespaces, 1 bridge, 3 cables, 1 orphan, 1 not shown (-a)
        "#]],
    );
    check(
        &Wanted { all: true, only: vec!["netns:/proc/812/fd/7".to_owned()], ..Wanted::default() },
        expect![[r#"
        host  net:[4026531833]
        └─ other namespaces
           └─ netns:/proc/812/fd/7  net:[4026532099]  held by descriptor 7 of process 812 (agent)  lo only
        4 containers, 5 namespaces, 1 bridge, 3 cables, 1 orphan
    "#]],
    );
}

#[test]
fn any_handle_finds_the_cable() {
    let sight = host();
    let id = format!("{:064x}", 1002);
    for handle in ["veth2", "veth2@if2", "con2", &id, "172.17.0.3", "1002", "8@host", "2@con2"] {
        let found = peer::find(&sight, handle);
        let told =
            found.iter().map(|cable| (cable.near.to_string(), cable.far.map(ToString::to_string)));
        let told: Vec<_> = told.collect();
        assert_eq!(told, [("veth2".to_owned(), Some("pid:1002/eth0".to_owned()))], "{handle}");
    }
    // Every container's end is number 2 and called eth0: the number after @if tells nothing.
    assert_eq!(peer::find(&sight, "eth0").len(), 3);
    assert_eq!(peer::find(&sight, "shop/cart-0").len(), 1);
    assert_eq!(peer::find(&sight, "veth9")[0].far, None);
    assert_eq!(peer::find(&sight, "veth2@if5"), []);
    assert_eq!(peer::find(&sight, "nobody"), []);
}

#[test]
fn both_ends_are_told() {
    let sight = host();
    let about = |handle: &str| {
        let cables = peer::find(&sight, handle);
        tree::rows(&peer::about(&sight, &cables[0], handle), PLAIN)
    };
    expect![[r#"
          veth1        host         ifindex 7  on docker0  up
            ⇅          each end names the other: 7 in host ⇄ 2 in con1
        ▸ eth0         con1         ifindex 2  172.17.0.2/16  default via 172.17.0.1  up
            container  con1  id 000000000000  image nginx:1.27  docker  pid 1001
            namespace  net:[4026532001], cookie 1
          traffic      in 12 packets 928 bytes, out 0 packets 0 bytes, dropped 0
    "#]]
    .assert_eq(&about("con1"));
    expect![[r#"
        ▸ veth9    host         ifindex 30  up
                   its other end was not found: in a namespace that is hidden, or gone
          traffic  in 12 packets 928 bytes, out 0 packets 0 bytes, dropped 0
    "#]]
    .assert_eq(&about("veth9"));
}

#[test]
fn names_of_others_cannot_act_on_a_terminal() {
    assert_eq!(shown("a\x1b[2Jb\u{202e}c\nd"), "a\\u{1b}[2Jb\\u{202e}c\\u{a}d");
    let mut sight = host();
    let space = sight.spaces.get_mut(&netns("pid:1002")).expect("it is there");
    space.workloads[0].name = "evil\x1b]0;owned\x07".to_owned();
    let (root, _) = map::tree(&sight, &Wanted::default());
    assert!(!tree::text(&root, PLAIN).contains('\x1b'));
}
