//! What is told of two snapshots: each thing that can change, changed alone.

use expect_test::{Expect, expect};
use twinax_core::{
    changes::changes,
    name::Proto,
    sight::{Holder, PublishedPort, Runtime, Workload},
    snapshot::{End, Link, Listener, Namespace, Opener, Route, Snapshot},
};

fn link(index: u32, name: &str, kind: &str) -> Link {
    Link {
        name: name.to_owned(),
        index,
        kind: kind.to_owned(),
        mac: Some("02:00:00:00:00:01".to_owned()),
        mtu: Some(1500),
        state: "up".to_owned(),
        ..Link::default()
    }
}

fn container(id: &str, name: &str) -> Workload {
    Workload {
        runtime: Runtime::Docker,
        id: id.to_owned(),
        name: name.to_owned(),
        image: Some("nginx".to_owned()),
        pod: None,
        pid: Some(7),
        netns_path: None,
        networks: vec!["bridge".to_owned()],
        published: Vec::new(),
        labels: Default::default(),
    }
}

/// A bridge of the host, two containers on it by cables whose inner ends are called alike.
fn host() -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.snapshot.boot = "one".to_owned();
    let mut host =
        Namespace { handle: "host".to_owned(), inode: 1, cookie: Some(1), ..Default::default() };
    host.links.push(link(1, "eth0", ""));
    host.links.push(link(2, "docker0", "bridge"));
    snapshot.namespaces.push(host);
    for n in [1, 2] {
        add(&mut snapshot, n);
    }
    snapshot
}

fn add(snapshot: &mut Snapshot, n: u32) {
    let handle = format!("pid:{n}");
    let inner = Link {
        addresses: vec![format!("172.17.0.{n}/16").parse().expect("a network")],
        leads_to: Some(End { namespace: "host".to_owned(), interface: format!("veth{n}") }),
        ..link(2, "eth0", "veth")
    };
    let outer = Link {
        master: Some("docker0".to_owned()),
        leads_to: Some(End { namespace: handle.clone(), interface: "eth0".to_owned() }),
        ..link(10 + n, &format!("veth{n}"), "veth")
    };
    snapshot.namespaces[0].links.push(outer);
    let route = |to: &str, via: Option<&str>| Route {
        to: to.parse().expect("a network"),
        via: via.map(|via| via.parse().expect("an address")),
        interface: "eth0".to_owned(),
    };
    snapshot.namespaces.push(Namespace {
        handle,
        inode: 100 + u64::from(n),
        cookie: Some(100 + u64::from(n)),
        containers: vec![container(&format!("id{n}"), &format!("con{n}"))],
        holders: vec![Holder::Process { pid: n, comm: "nginx".to_owned() }],
        links: vec![inner],
        routes: vec![route("0.0.0.0/0", Some("172.17.0.254")), route("172.17.0.0/16", None)],
        listeners: Vec::new(),
    });
}

fn told(old: &Snapshot, new: &Snapshot) -> String {
    changes(old, new).iter().map(|change| format!("{change}\n")).collect()
}

/// What is told of one change of the host, and of the way back.
fn check(change: impl Fn(&mut Snapshot), expect: Expect) {
    let old = host();
    let mut new = host();
    change(&mut new);
    let (there, back) = (told(&old, &new), told(&new, &old));
    assert_eq!(there.lines().count(), back.lines().count(), "{there}{back}");
    expect.assert_eq(&there);
}

#[test]
fn nothing_changed() {
    assert_eq!(told(&host(), &host()), "");
    // In whatever order, and whatever runs on the host.
    let mut other = host();
    other.namespaces[1..].reverse();
    other.namespaces[0].links.reverse();
    other.namespaces[0].holders.push(Holder::Process { pid: 9, comm: "ls".to_owned() });
    other.snapshot.taken = 99;
    assert_eq!(told(&host(), &other), "");
}

#[test]
fn a_container_comes_with_its_cable() {
    check(
        |new| add(new, 3),
        expect![[r#"
        + container con3: docker, nginx, id id3
        + cable veth3 ⇄ con3/eth0: on docker0, 172.17.0.3/16
    "#]],
    );
    let mut published = host();
    let port = PublishedPort { proto: Proto::Tcp, host: None, host_port: 8080, container_port: 80 };
    published.namespaces[1].containers[0].published.push(port);
    expect![[r#"
        + published port of con1: *:8080/tcp → 80
    "#]]
    .assert_eq(&told(&host(), &published));
    published.namespaces[1].containers[0].id = "other".to_owned();
    expect![[r#"
        + container con1: docker, nginx, id other, published *:8080/tcp → 80
        - container con1: docker, nginx, id id1
    "#]]
    .assert_eq(&told(&host(), &published));
}

#[test]
fn a_cable_is_told_once() {
    let connect = |new: &mut Snapshot| {
        let far = |namespace: &str, interface: &str| {
            Some(End { namespace: namespace.to_owned(), interface: interface.to_owned() })
        };
        let outer = Link { leads_to: far("pid:1", "eth1"), ..link(20, "veth20", "veth") };
        let inner = Link {
            leads_to: far("host", "veth20"),
            addresses: vec!["10.2.0.2/24".parse().expect("a network")],
            ..link(3, "eth1", "veth")
        };
        new.namespaces[0].links.push(Link { master: Some("br1".to_owned()), ..outer });
        let space = &mut new.namespaces[1];
        space.links.push(inner);
        space.routes.push(Route {
            to: "10.2.0.0/24".parse().expect("a network"),
            via: None,
            interface: "eth1".to_owned(),
        });
        space.containers[0].networks.push("back".to_owned());
    };
    check(
        connect,
        expect![[r#"
        + cable veth20 ⇄ con1/eth1: on br1, 10.2.0.2/24
        + network of con1: back
    "#]],
    );
}

#[test]
fn a_property_of_a_link_is_told_alone() {
    check(
        |new| new.namespaces[0].links[1].mtu = Some(1400),
        expect![[r#"
        ~ mtu of docker0 on the host: 1500 → 1400
    "#]],
    );
    check(
        |new| new.namespaces[0].links[1].state = "down".to_owned(),
        expect![[r#"
        ~ state of docker0 on the host: up → down
    "#]],
    );
    check(
        |new| new.namespaces[0].links[0].mac = None,
        expect![[r#"
        - mac of eth0 on the host: 02:00:00:00:00:01
    "#]],
    );
    check(
        |new| new.namespaces[0].links[0].alias = "up\x1b[2J".to_owned(),
        expect![[r#"
            + alias of eth0 on the host: up\x1b[2J
        "#]],
    );
    check(
        |new| new.namespaces[0].links[2].master = None,
        expect![[r#"
        - bridge or other master of veth1 on the host: docker0
    "#]],
    );
    check(
        |new| new.namespaces[1].links[0].addresses.push("10.9.0.1/24".parse().expect("one")),
        expect![[r#"
            + address of eth0 in con1: 10.9.0.1/24
        "#]],
    );
    check(
        |new| new.namespaces[0].links.push(link(30, "vx0", "vxlan")),
        expect![[r#"
        + link vx0 on the host: vxlan
    "#]],
    );
    // The same name with another number is another link.
    check(
        |new| new.namespaces[0].links[0].index = 40,
        expect![[r#"
        + link eth0 on the host
        - link eth0 on the host
    "#]],
    );
}

#[test]
fn a_rename_is_told_as_one() {
    let rename = |new: &mut Snapshot| {
        new.namespaces[0].links[1].name = "br0".to_owned();
        for at in [2, 3] {
            new.namespaces[0].links[at].master = Some("br0".to_owned());
        }
        let space = &mut new.namespaces[1];
        space.links[0].name = "lan0".to_owned();
        for route in &mut space.routes {
            route.interface = "lan0".to_owned();
        }
        let outer = new.namespaces[0].links[2].leads_to.as_mut().expect("a cable");
        outer.interface = "lan0".to_owned();
    };
    check(
        rename,
        expect![[r#"
        ~ name of lan0 in con1: eth0 → lan0
        ~ name of br0 on the host: docker0 → br0
    "#]],
    );
    check(
        |new| new.namespaces[1].containers[0].name = "web".to_owned(),
        expect![[r#"
        ~ name of container web: con1 → web
    "#]],
    );
    // A handle is only a way to the namespace.
    let old = host();
    let mut new = host();
    new.namespaces[1].handle = "netns:/run/netns/x".to_owned();
    let far = new.namespaces[0].links[2].leads_to.as_mut().expect("a cable");
    far.namespace = "netns:/run/netns/x".to_owned();
    assert_eq!(told(&old, &new), "");
}

#[test]
fn routes_and_listeners_and_holders_are_told() {
    let via = |via: &str| Some(via.parse().expect("an address"));
    check(
        |new| new.namespaces[1].routes[0].via = via("172.17.0.253"),
        expect![[r#"
        ~ gateway of con1: 172.17.0.254 by eth0 → 172.17.0.253 by eth0
    "#]],
    );
    check(
        |new| drop(new.namespaces[1].routes.remove(0)),
        expect![[r#"
        - gateway of con1: 172.17.0.254 by eth0
    "#]],
    );
    let route = |new: &mut Snapshot| {
        new.namespaces[1].routes.push(Route {
            to: "10.7.0.0/24".parse().expect("a network"),
            via: via("172.17.0.9"),
            interface: "eth0".to_owned(),
        });
    };
    check(
        route,
        expect![[r#"
        + route of con1: 10.7.0.0/24 via 172.17.0.9 by eth0
    "#]],
    );
    let listener = |new: &mut Snapshot| {
        new.namespaces[1].listeners.push(Listener {
            protocol: Proto::Tcp,
            address: "0.0.0.0:80".parse().expect("an address"),
            processes: vec![Opener { pid: 7, comm: "nginx".to_owned() }],
        });
    };
    check(
        listener,
        expect![[r#"
        + listener of con1: 0.0.0.0:80/tcp nginx
    "#]],
    );
    let holder = Holder::Mount { path: "/run/netns/x".to_owned(), seen_by: 1 };
    check(
        |new| new.namespaces[1].holders.push(holder.clone()),
        expect![[r#"
        + holder of con1: mount /run/netns/x
    "#]],
    );
    let bare = |new: &mut Snapshot| {
        let holders = vec![holder.clone()];
        let handle = "netns:/run/netns/x".to_owned();
        new.namespaces.push(Namespace { handle, inode: 9, holders, ..Default::default() });
    };
    check(
        bare,
        expect![[r#"
        + namespace netns:/run/netns/x: held by mount /run/netns/x
    "#]],
    );
}

#[test]
fn another_boot_is_said_and_containers_are_known_again() {
    let reboot = |new: &mut Snapshot| {
        new.snapshot.boot = "two".to_owned();
        for space in &mut new.namespaces {
            space.cookie = space.cookie.map(|cookie| cookie + 1);
            space.links.iter_mut().for_each(|link| link.index += 5);
        }
        new.namespaces[2].links[0].mtu = Some(9000);
    };
    check(
        reboot,
        expect![[r#"
        ~ boot: one → two
        ~ mtu of eth0 in con2: 1500 → 9000
    "#]],
    );
    // In one boot, a container in another namespace has been started anew.
    let restart = |new: &mut Snapshot| {
        new.namespaces[1].cookie = Some(555);
        new.namespaces[1].containers[0].pid = Some(8);
    };
    check(
        restart,
        expect![[r#"
        ~ namespace con1: cookie 101 → cookie 555
        ~ first process of con1: 7 → 8
    "#]],
    );
}
