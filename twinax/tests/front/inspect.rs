//! What `inspect` prints of a small host, and which handles mean what.

use expect_test::{Expect, expect};
use twinax::front::{json, print::Style, tree};
use twinax_core::{
    firewall::{Action, Base, Chain, Engine, Family, Hook, LedPort, Match, Rule, Table, What},
    handle::{Meaning, choices, meanings, near, spaces, title},
    inspect::{Detail, inspect, needed},
    interior::{Attached, Hop, Interior, PolicyRule, Resolver, SeenRoute},
    map::{self, Wanted},
    model::Netns,
    name::Proto,
    peer,
    published::published,
    sight::{Listener, Runtime, SeenNeighbour, Sight},
};

use crate::map::{self as host_map, cable, host, link, netns, space};

const PLAIN: Style = Style { width: None, colour: false };

fn led(host_port: u16, to: &str, to_port: u16) -> LedPort {
    LedPort {
        proto: Proto::Tcp,
        host: None,
        host_ports: (host_port, host_port),
        to: to.parse().expect("well written"),
        to_port: Some(to_port),
        by: format!("ip nat DOCKER #{host_port}"),
    }
}

fn rule(matches: Vec<What>, action: Action) -> Rule {
    let matches = matches.into_iter().map(|what| Match { not: false, what }).collect();
    Rule { handle: 7, matches, action, counted: Some((3, 180)), ..Rule::default() }
}

/// A firewall of Docker's.
fn docker() -> Interior {
    let docker0 = What::OutInterface("docker0".to_owned());
    let established = What::CtState(vec!["established".to_owned()]);
    let web = What::Destination("172.17.0.2/32".parse().expect("well written"));
    let forward = Chain {
        name: "FORWARD".to_owned(),
        base: Some(Base {
            kind: "filter".to_owned(),
            hook: Hook::Forward,
            priority: 0,
            drops: true,
        }),
        rules: vec![
            rule(vec![docker0, established], Action::Accept),
            rule(vec![web, What::Protocol(6), What::DestinationPort(80, 80)], Action::Accept),
            rule(vec![What::InInterface("eth0".to_owned())], Action::Drop),
        ],
    };
    let table = Table {
        engine: Engine::Nft,
        family: Family::Ip,
        name: "filter".to_owned(),
        owner: None,
        dormant: false,
        chains: vec![forward],
        sets: vec![],
    };
    Interior {
        firewall: vec![table],
        led: vec![
            led(8080, "172.17.0.2", 80),
            led(9090, "172.17.0.3", 90),
            led(1, "172.17.0.9", 1),
        ],
        switches: [("ipv4/ip_forward".to_owned(), "1".to_owned())].into(),
        ..Interior::default()
    }
}

/// A container with a rule and a route of its own.
fn container() -> Interior {
    let route = |dst: &str, kind: &str, table| SeenRoute {
        table,
        dst: dst.parse().expect("well written"),
        kind: kind.to_owned(),
        hops: vec![Hop { out: Some("eth0".to_owned()), via: None }],
        src: None,
        metric: 0,
        protocol: "static".to_owned(),
        mtu: None,
    };
    Interior {
        rules: vec![
            PolicyRule {
                priority: 99,
                when: "from 10.0.0.0/8".to_owned(),
                action: "lookup 100".to_owned(),
                ipv6: false,
            },
            PolicyRule {
                priority: 32_766,
                when: "from all".to_owned(),
                action: "lookup main".to_owned(),
                ipv6: false,
            },
        ],
        routes: vec![
            route("172.17.0.0/16", "unicast", 254),
            route("192.0.2.0/24", "blackhole", 100),
        ],
        resolver: Some(Resolver {
            pid: 1001,
            servers: vec!["127.0.0.11".parse().expect("well written")],
            search: vec!["evil\x1b[2J".to_owned()],
            options: vec![],
        }),
        ..Interior::default()
    }
}

/// The small host with all of it.
fn read() -> Sight {
    let mut sight = host();
    sight.interiors.insert(Netns::Host, docker());
    sight.interiors.insert(netns("pid:1001"), container());
    let attached = Attached {
        qdiscs: vec!["tbf rate 1Mbit".to_owned()],
        programs: vec![("tcx ingress".to_owned(), 12, "count".to_owned())],
        port: vec!["hairpin on".to_owned()],
        macs: vec![],
    };
    sight.attached.insert(link("host/veth1"), attached);
    let known = SeenNeighbour {
        addr: None,
        mac: Some("02:42:ac:11:00:02".parse().expect("well written")),
        state: "learned".to_owned(),
    };
    sight.links.get_mut(&link("host/veth1")).expect("it is there").neighbours.push(known);
    sight
}

fn check(handle: &str, expected: Expect) {
    let sight = read();
    let found = meanings(&sight, handle);
    assert_eq!(found.len(), 1, "{handle}: {found:?}");
    let mut text = format!("{}\n", title(&sight, &found[0]));
    for section in inspect(&sight, &found[0], Detail::default()) {
        text += &tree::text(&section, PLAIN);
    }
    assert!(!text.contains('\x1b'), "{text:?}");
    expected.assert_eq(&text);
}

#[test]
fn a_container_is_told_with_all_it_has() {
    check(
        "con1",
        expect![[r#"
            container con1 (docker)
            identity
            ├─ container  con1  id 000000000000  image nginx:1.27  docker  pid 1001
            ├─ id         00000000000000000000000000000000000000000000000000000000000003e9
            ├─ networks   bridge
            ├─ namespace  pid:1001  net:[4026532001], cookie 1
            └─ held by    process 1001 (nginx)
            links
            └─ 2 eth0  ⇄ veth1 host  172.17.0.2/16  ● up
            listening
            └─ tcp  0.0.0.0:80  nginx(1001)
            published
            └─ *:8080/tcp  → con1:80 (172.17.0.2)  DNAT ip nat DOCKER #8080  listener ✓ nginx(1001)
            routes
            ├─ 172.17.0.0/16  dev eth0   static
            └─ 192.0.2.0/24   blackhole  static  table 100
            policy rules
            └─ IPv4  99:  from 10.0.0.0/8  lookup 100
            resolver
            ├─ servers  127.0.0.11
            ├─ search   evil\x1b[2J
            └─ as of    process 1001
        "#]],
    );
}

#[test]
fn a_bridge_is_told_with_its_members_and_rules() {
    check(
        "docker0",
        expect![[r#"
        bridge docker0 of host
        ends
        └─ 3 docker0  bridge  172.17.0.1/16  ● up
        traffic
        ├─ in   12 packets  928 bytes  dropped 0
        └─ out  0 packets  0 bytes  dropped 0
        members
        ├─ 7 veth1  ⇄ eth0 con1  on docker0  ● up
        └─ 8 veth2  ⇄ eth0 con2  on docker0  ● up
        forwarding database
        └─ 02:42:ac:11:00:02  behind veth1  learned
        firewall rules that name it
        ├─ ip filter FORWARD  #7  oifname "docker0" ct state established accept  3 packets 180 bytes
        └─ ip filter FORWARD  #7  ip daddr 172.17.0.2 tcp dport 80 accept  3 packets 180 bytes
        published
        ├─ *:8080/tcp  → con1:80 (172.17.0.2)  DNAT ip nat DOCKER #8080  listener ✓ nginx(1001)
        └─ *:9090/tcp  → con2:90 (172.17.0.3)  DNAT ip nat DOCKER #9090 (on no runtime's record)  listener ✗ nobody
    "#]],
    );
}

#[test]
fn an_end_of_a_cable_is_told_with_the_other() {
    check(
        "veth1",
        expect![[r#"
        veth veth1 of host
        ends
        ├─ 7 veth1  ⇄ eth0 con1                  on docker0  ● up
        ├─ 2 eth0   ⇄ veth1 host  172.17.0.2/16              ● up
        └─ container  con1  id 000000000000  image nginx:1.27  docker  pid 1001
        on the wire
        └─ veth1  qdisc tbf rate 1Mbit  tcx ingress program 12 count  hairpin on
        traffic
        ├─ in   12 packets  928 bytes  dropped 0
        └─ out  0 packets  0 bytes  dropped 0
        forwarding database
        └─ 02:42:ac:11:00:02  behind veth1  learned
    "#]],
    );
}

#[test]
fn every_handle_means_what_people_mean_by_it() {
    let sight = read();
    let id = format!("{:064x}", 1002);
    let con1 = format!("container:{:064x}", 1001);
    let con2 = format!("container:{id}");
    for (handle, exact) in [
        ("host", vec!["host"]),
        ("con2", vec![&con2]),
        (&id, vec![&con2]),
        (&con2, vec![&con2]),
        ("pid:1002", vec!["pid:1002"]),
        ("1002", vec!["pid:1002"]),
        ("net:[4026532002]", vec!["pid:1002"]),
        ("4026532002", vec!["pid:1002"]),
        ("netns:/proc/812/fd/7", vec!["netns:/proc/812/fd/7"]),
        ("shop/cart-0", vec!["pid:3000"]),
        ("veth2", vec!["veth2@host"]),
        ("veth2@if2", vec!["veth2@host"]),
        ("veth2@host", vec!["veth2@host"]),
        ("8@host", vec!["veth2@host"]),
        ("eth0@con1", vec!["pid:1001/eth0"]),
        ("con1/eth0", vec!["pid:1001/eth0"]),
        ("pid:1001/eth0", vec!["pid:1001/eth0"]),
        ("eth0@shop/cart-0", vec!["pid:3000/eth0"]),
        ("172.17.0.1", vec!["docker0@host"]),
        ("172.17.0.2", vec!["pid:1001/eth0"]),
        ("eth0", vec!["eth0@host", "pid:1001/eth0", "pid:1002/eth0", "pid:3000/eth0"]),
        ("network:bridge", vec!["network:bridge", "network:bridge"]),
        ("veth2@if5", vec![]),
        ("con", vec![]),
        ("@", vec![]),
        ("/", vec![]),
        ("", vec![]),
        ("container:", vec![]),
    ] {
        let found: Vec<String> =
            meanings(&sight, handle).iter().map(|one| one.exact(&sight)).collect();
        assert_eq!(found, exact, "{handle}");
    }
    // A link of a container's that is called as one of the host's, and has such a peer as well.
    let mut more = read();
    let twin = more.links[&link("host/veth2")].clone();
    more.links.insert(link("pid:3000/veth2"), twin);
    assert_eq!(meanings(&more, "veth2").len(), 2);
    assert_eq!(meanings(&more, "veth2@if2"), [Meaning::Link(&link("host/veth2"))]);
    // What means one thing only comes back as itself.
    for exact in ["veth2@host", "pid:1001/eth0", &con1, "host"] {
        assert_eq!(meanings(&sight, exact)[0].exact(&sight), exact);
    }
    assert_eq!(near(&sight, "con3"), ["con1", "con2"]);
    assert_eq!(near(&sight, "veht1"), ["veth1"]);
    assert_eq!(near(&sight, "zzzzzz"), [""; 0]);
}

#[test]
fn a_link_without_a_cable_says_so() {
    let sight = read();
    assert_eq!(peer::find(&sight, "172.17.0.1"), []);
    let others = peer::without_cable(&sight, "172.17.0.1");
    assert_eq!(others, [&link("host/docker0")]);
    let text = tree::rows(&peer::uncabled(&sight, others[0]), PLAIN);
    assert!(text.contains("no cable  bridge: with members veth1 veth2\n"), "{text}");
    let mut sight = sight;
    let mut macvlan = sight.links[&link("host/eth0")].clone();
    (macvlan.kind, macvlan.leads_to) = ("macvlan".to_owned(), Some(link("host/eth0")));
    sight.links.insert(link("pid:1002/mv0"), macvlan);
    let text = tree::rows(&peer::uncabled(&sight, &link("pid:1002/mv0")), PLAIN);
    assert!(text.contains("macvlan: it lies on eth0 of host\n"), "{text}");
    let cables = peer::find(&sight, "veth1");
    let text = tree::rows(&peer::about(&sight, &cables[0], "veth1"), PLAIN);
    assert!(
        text.contains("qdisc tbf rate 1Mbit  tcx ingress program 12 count  hairpin on\n"),
        "{text}"
    );
    assert!(text.contains("▸ veth1") && !text.contains("▸ eth0"), "{text}");
}

/// Of each side: the runtime's record, the firewall, whoever listens.
#[test]
fn published_ports_are_told_from_all_sides() {
    let mut sight = read();
    let wanted = Wanted::default();
    let rows = |sight: &Sight| {
        let (root, _) = map::tree(sight, &wanted);
        let all = tree::text(&root, PLAIN);
        let rows = all.lines().filter(|line| line.contains("published")).map(|line| {
            line.trim_start_matches(['├', '└', '─', ' '])
                .split("  ")
                .filter(|w| !w.is_empty())
                .map(str::trim)
                .collect::<Vec<_>>()
                .join("  ")
        });
        rows.collect::<Vec<_>>().join("\n")
    };
    expect![[r#"
        published *:1/tcp  → nobody:1 (172.17.0.9)  DNAT ip nat DOCKER #1 (on no runtime's record)
        published *:8080/tcp  → con1:80 (172.17.0.2)  DNAT ip nat DOCKER #8080  listener ✓ nginx(1001)
        published *:9090/tcp  → con2:90 (172.17.0.3)  DNAT ip nat DOCKER #9090 (on no runtime's record)  listener ✗ nobody"#]].assert_eq(&rows(&sight));
    // A service of a cluster has an address that the host has not; one that it has is its own.
    let seen = rows(&sight).lines().count();
    for (at, more) in [("10.96.0.1", 0), ("192.0.2.2", 1)] {
        let led = LedPort { host: at.parse().ok(), ..led(443, "172.17.0.3", 6443) };
        sight.interiors.get_mut(&Netns::Host).expect("it is there").led.push(led);
        assert_eq!(rows(&sight).lines().count(), seen + more, "{at}");
    }
    // Nobody leads there any more; then a process of the engine's does.
    sight.interiors.get_mut(&Netns::Host).expect("it is there").led.clear();
    assert!(rows(&sight).contains("no rule leads there"), "{}", rows(&sight));
    let relay = Listener {
        netns: Netns::Host,
        proto: Proto::Tcp,
        at: "0.0.0.0:8080".parse().expect("well written"),
        dual: false,
        processes: vec![(5, "docker-proxy".to_owned())],
    };
    sight.listeners.push(relay);
    assert!(rows(&sight).contains("by docker-proxy(5) only"), "{}", rows(&sight));
    sight.listeners[0].at = "127.0.0.1:80".parse().expect("well written");
    assert!(rows(&sight).contains("✗ nginx(1001) is on 127.0.0.1 only"), "{}", rows(&sight));
    // Where rules could not be read nothing is said of their lack.
    sight.listeners.pop();
    sight.interiors.clear();
    assert!(!rows(&sight).contains("no rule"), "{}", rows(&sight));
    assert_eq!(published(&sight).len(), 1);
}

#[test]
fn what_has_to_be_read_is_what_is_meant_and_where_it_leads() {
    let sight = host();
    let needed = |handle: &str| {
        let all = needed(&sight, &meanings(&sight, handle));
        all.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(needed("con1"), ["host", "pid:1001"]);
    assert_eq!(needed("docker0"), ["host"]);
    assert_eq!(needed("network:bridge"), ["host"]);
    assert_eq!(needed("host"), ["host"]);
}

#[test]
fn json_has_it_all() {
    let sight = read();
    let text =
        json::text(json::inspected(&sight, &meanings(&sight, "con1"))).expect("it can be written");
    let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let found = &value["found"][0];
    assert_eq!(found["kind"], "container");
    assert_eq!(found["namespace"]["containers"][0]["name"], "con1");
    assert_eq!(found["interior"]["rules"][0]["action"], "lookup 100");
    assert_eq!(found["published"][0]["rules"][0], "ip nat DOCKER #8080");
    assert_eq!(found["published"][0]["listener"][0], 1001);
    let text =
        json::text(json::inspected(&sight, &meanings(&sight, "veth1"))).expect("it can be written");
    let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(value["found"][0]["attached"][0]["qdiscs"][0], "tbf rate 1Mbit");
    assert_eq!(value["found"][0]["far"]["name"], "eth0");
    let text = json::text(json::sight(&sight)).expect("it can be written");
    let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let ports = value["published"].as_array().expect("it is a list");
    let recorded = ports.iter().filter(|port| port["recorded"] == true);
    assert_eq!((ports.len(), recorded.count()), (3, 1));
}

/// An engine in a container gives its own containers the addresses that the host's have.
#[test]
fn a_port_of_an_engine_inside_is_its_own() {
    let mut sight = read();
    let inner = host_map::container(Runtime::Docker, "inner", 4000);
    sight.spaces.insert(netns("pid:4000"), space(4_026_532_200, vec![inner]));
    let ends = (("pid:3000/veth1", 5), ("pid:4000/eth0", 2, "172.17.0.2/16"));
    cable(&mut sight, ends.0, None, ends.1);
    let inside = Interior { led: vec![led(8080, "172.17.0.2", 80)], ..Interior::default() };
    sight.interiors.insert(netns("pid:3000"), inside);
    let ports = published(&sight);
    let told = |host: &str| -> Vec<_> {
        let of_host = ports.iter().filter(|port| port.host.to_string() == host);
        let with_port = of_host.filter(|port| port.ports.0 == 8080);
        with_port.map(|port| (port.netns.map(ToString::to_string), port.rules.len())).collect()
    };
    assert_eq!(told("host"), [(Some("pid:1001".to_owned()), 1)]);
    assert_eq!(told("pid:3000"), [(Some("pid:4000".to_owned()), 1)]);
    let (root, _) = map::tree(&sight, &Wanted::default());
    let text = tree::text(&root, PLAIN);
    assert!(text.contains("published *:8080/tcp of pod shop/cart-0  → inner:80"), "{text}");
}

/// What `exec` enters and `map --only` shows.
#[test]
fn a_handle_leads_to_namespaces() {
    let mut sight = host();
    for (n, handle) in ["pid:1001", "pid:1002"].into_iter().enumerate() {
        let space = sight.spaces.get_mut(&netns(handle)).expect("it is there");
        space.workloads[0].networks = vec!["apps".to_owned(), format!("own{n}")];
    }
    // A bridge that is called as a container is.
    let facts = sight.links[&link("host/docker0")].clone();
    sight.links.insert(link("host/con2"), facts);
    for (handle, expected) in [
        ("con1", "pid:1001"),
        ("container:con2", "pid:1002"),
        ("con2", "pid:1002"),
        ("con2@host", "host"),
        ("veth2", "pid:1002"),
        ("8@host", "pid:1002"),
        ("172.17.0.3", "pid:1002"),
        ("shop/cart-0", "pid:3000"),
        ("docker0", "host"),
        ("apps", "pid:1001 pid:1002"),
        ("network:own1", "pid:1002"),
        ("eth0@con1", "pid:1001"),
        ("nobody", ""),
    ] {
        let spaces = spaces(&sight, handle);
        let told: Vec<String> = spaces.keys().map(ToString::to_string).collect();
        assert_eq!(told.join(" "), expected, "{handle}");
    }
    let many = vec![Meaning::Namespace(&Netns::Host); 45];
    let lines = choices(&sight, "peer", &many);
    assert_eq!(lines.lines().count(), 41);
    assert!(lines.ends_with("  … and 5 more\n"), "{lines}");
    let several = spaces(&sight, "apps");
    let expected =
        "  namespace con1  (twinax exec pid:1001)\n  namespace con2  (twinax exec pid:1002)\n";
    assert_eq!(choices(&sight, "exec", several.values()), expected);
}

/// Where not every table was read, as in a live view.
#[test]
fn routes_of_the_main_table_need_no_look_inside() {
    let mut sight = host();
    let routes = |sight: &Sight| {
        let there = netns("pid:1002");
        let sections = inspect(sight, &Meaning::Container(&there, 0), Detail::default());
        let routes = sections.iter().find(|section| section.cells[0].text == "routes");
        routes.map(|section| tree::text(section, PLAIN)).unwrap_or_default()
    };
    let expected = "routes\n└─ default  via 172.17.0.1 dev eth0\n";
    assert_eq!(routes(&sight), expected);
    sight.interiors.insert(netns("pid:1002"), Interior::default());
    assert_eq!(routes(&sight), expected, "its firewall was read, and no routes");
}

/// What could not be looked into is not said to have nothing.
#[test]
fn links_that_cannot_be_seen_are_not_said_to_be_missing() {
    let mut sight = read();
    let hidden = netns("netns:/run/netns/hidden");
    let mut space = sight.spaces[&netns("pid:1002")].clone();
    space.workloads.truncate(1);
    space.workloads[0].name = "hidden".to_owned();
    sight.spaces.insert(hidden, space);
    assert_eq!(peer::unread(&sight, "hidden").as_deref(), Some("it could not be entered"));
    sight.unseen.push("links of netns:/run/netns/hidden: Operation not permitted".to_owned());
    assert_eq!(peer::unread(&sight, "hidden").as_deref(), Some("Operation not permitted"));
    for known in ["host", "pid:1002", "veth1", "nobody"] {
        assert_eq!(peer::unread(&sight, known), None, "{known}");
    }
}
