//! Each check finds what it is for and nothing else; a healthy host with three engines is clean.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where and stop")]

#[path = "draw/sample.rs"]
#[allow(dead_code, reason = "the drawings use more of it")]
mod sample;

use std::collections::BTreeSet;

use sample::{Host, link, net, workload};
use twinax_core::{
    doctor::{Asked, CHECKS, Report, Severity, examine},
    firewall::{
        Action, Base, Chain, Engine, Family, Hook, LedPort, MapDoes, Match, Rule, Table, What,
    },
    interior::{Conntrack, Flow, Hop, Interior, PolicyRule, Resolver, SeenRoute},
    model::{Link, LinkId, LinkKind, Netns, Route},
    name::{IfName, Mac, Proto},
    sight::{Holder, Listener, PublishedPort, Runtime, SeenNeighbour, Sight, Space},
};

fn con(pid: u32) -> Netns {
    Netns::Container(format!("pid:{pid}").parse().unwrap())
}

fn host(name: &str) -> LinkId {
    link(&Netns::Host, name)
}

fn is(what: What) -> Match {
    Match { not: false, what }
}

fn not(what: What) -> Match {
    Match { not: true, what }
}

fn rule(matches: Vec<Match>, action: Action) -> Rule {
    Rule { matches, action, ..Rule::default() }
}

fn jump(to: &str) -> Rule {
    rule(Vec::new(), Action::Jump(to.to_owned()))
}

fn from(name: &str) -> What {
    What::InInterface(name.to_owned())
}

fn to(name: &str) -> What {
    What::OutInterface(name.to_owned())
}

fn established() -> Match {
    is(What::CtState(vec!["established".to_owned(), "related".to_owned()]))
}

fn base(kind: &str, hook: Hook, drops: bool) -> Option<Base> {
    Some(Base { kind: kind.to_owned(), hook, priority: 0, drops })
}

fn chain(name: &str, base: Option<Base>, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), base, rules }
}

fn table(family: Family, name: &str, chains: Vec<Chain>) -> Table {
    let name = name.to_owned();
    let (engine, owner, dormant, sets) = (Engine::Nft, None, false, Vec::new());
    Table { engine, family, name, owner, dormant, chains, sets }
}

/// As Docker 20.10 leaves it, for these bridges and their subnets.
fn docker_tables(bridges: &[(&str, &str)]) -> Vec<Table> {
    let mut forward = vec![jump("DOCKER-USER"), jump("DOCKER-ISOLATION-STAGE-1")];
    let mut stage1 = Vec::new();
    let mut stage2 = Vec::new();
    let mut post = Vec::new();
    for (bridge, subnet) in bridges {
        let docker = Action::Jump("DOCKER".to_owned());
        forward.push(rule(vec![is(to(bridge)), established()], Action::Accept));
        forward.push(rule(vec![is(to(bridge))], docker));
        forward.push(rule(vec![is(from(bridge)), not(to(bridge))], Action::Accept));
        forward.push(rule(vec![is(from(bridge)), is(to(bridge))], Action::Accept));
        let second = Action::Jump("DOCKER-ISOLATION-STAGE-2".to_owned());
        stage1.push(rule(vec![is(from(bridge)), not(to(bridge))], second));
        stage2.push(rule(vec![is(to(bridge))], Action::Drop));
        post.push(rule(vec![is(What::Source(net(subnet))), not(to(bridge))], Action::Masquerade));
    }
    stage1.push(rule(Vec::new(), Action::Return));
    stage2.push(rule(Vec::new(), Action::Return));
    let docker = vec![
        rule(
            vec![
                is(What::Destination(net("172.17.0.2/32"))),
                not(from("docker0")),
                is(to("docker0")),
                is(What::Protocol(6)),
                is(What::DestinationPort(80, 80)),
            ],
            Action::Accept,
        ),
        rule(
            vec![
                is(What::Destination(net("172.18.0.5/32"))),
                not(from("br1")),
                is(What::Protocol(6)),
            ],
            Action::Accept,
        ),
    ];
    let filter = vec![
        chain("FORWARD", base("filter", Hook::Forward, true), forward),
        chain("DOCKER", None, docker),
        chain("DOCKER-USER", None, vec![rule(Vec::new(), Action::Return)]),
        chain("DOCKER-ISOLATION-STAGE-1", None, stage1),
        chain("DOCKER-ISOLATION-STAGE-2", None, stage2),
    ];
    let nat = vec![chain("POSTROUTING", base("nat", Hook::Postrouting, false), post)];
    vec![table(Family::Ip, "filter", filter), table(Family::Ip, "nat", nat)]
}

/// As Twinax has it: all by sets and maps, of which nobody here knows what is in them.
fn twinax_table() -> Table {
    let by_map = |key: &str, map: &str| Action::ByMap {
        key: key.to_owned(),
        map: map.to_owned(),
        does: MapDoes::Verdict,
    };
    let in_set = |set: &str| What::InSet { key: "iifgroup".to_owned(), set: set.to_owned() };
    let forward = vec![
        rule(vec![is(in_set("same"))], Action::Drop),
        rule(vec![is(What::IpVersion(4))], by_map("iifgroup", "from4")),
    ];
    let post = vec![rule(vec![is(What::IpVersion(4)), is(in_set("nat4"))], Action::Masquerade)];
    let chains = vec![
        chain("forward", base("filter", Hook::Forward, false), forward),
        chain("nat-postrouting", base("nat", Hook::Postrouting, false), post),
    ];
    table(Family::Inet, "twinax", chains)
}

const SWITCHES: [(&str, &str); 12] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv4/conf/all/rp_filter", "2"),
    ("ipv4/conf/all/proxy_arp", "0"),
    ("ipv6/conf/all/proxy_ndp", "0"),
    ("bridge/bridge-nf-call-iptables", "1"),
    ("bridge/bridge-nf-call-ip6tables", "1"),
    ("ipv4/neigh/default/gc_thresh3", "1024"),
    ("ipv6/neigh/default/gc_thresh3", "1024"),
    ("netfilter/nf_conntrack_max", "65536"),
    ("ipv4/conf/all/src_valid_mark", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
];
const OF_LINKS: [(&str, &str); 6] = [
    ("ipv4/conf/{}/rp_filter", "0"),
    ("ipv4/conf/{}/proxy_arp", "0"),
    ("ipv4/conf/{}/forwarding", "1"),
    ("ipv6/conf/{}/forwarding", "1"),
    ("ipv6/conf/{}/accept_ra", "1"),
    ("ipv6/conf/{}/disable_ipv6", "0"),
];

/// A host with Docker (two bridges), Podman, LXC's bridge and Twinax, all of it in order.
fn healthy() -> Host {
    let mut sample = Host::docker(4, 1);
    let uplink = host("enp1s0");
    sample.bridge("br1", "172.18.0.1/16");
    sample.bridge("podman1", "10.89.0.1/24");
    sample.bridge("lxcbr0", "10.0.3.1/24");
    sample.bridge("tx-web", "10.1.0.1/24");
    sample.bridge("docker9", "172.29.0.1/16");
    let place = |sample: &mut Host, pid: u32, it: (Runtime, &str, &str), at: (&str, &str, &str)| {
        let (runtime, name, outer) = it;
        let (bridge, addr, via) = at;
        let space = sample.space(&format!("pid:{pid}"), vec![workload(runtime, name, "")]);
        let eth0 = link(&space, "eth0");
        sample.cable(&eth0, outer, Some(bridge), &[addr]);
        sample.default_route(&eth0, via);
        space
    };
    place(
        &mut sample,
        5001,
        (Runtime::Docker, "shop", "vethshop"),
        ("br1", "172.18.0.5/16", "172.18.0.1"),
    );
    place(
        &mut sample,
        5002,
        (Runtime::Docker, "till", "vethtill"),
        ("br1", "172.18.0.6/16", "172.18.0.1"),
    );
    place(
        &mut sample,
        5003,
        (Runtime::Podman, "pod", "veth3"),
        ("podman1", "10.89.0.2/24", "10.89.0.1"),
    );
    place(
        &mut sample,
        5004,
        (Runtime::Lxc, "deb", "vethlxc"),
        ("lxcbr0", "10.0.3.4/24", "10.0.3.1"),
    );
    place(
        &mut sample,
        5005,
        (Runtime::Twinax, "con1", "txv1"),
        ("tx-web", "10.1.0.2/24", "10.1.0.1"),
    );
    let con2 = place(
        &mut sample,
        5006,
        (Runtime::Twinax, "con2", "txv2"),
        ("tx-web", "10.1.0.3/24", "10.1.0.1"),
    );
    // Internal: no way out, and none wanted. And one on two networks, with one way out.
    let closed = sample.space("pid:5007", vec![workload(Runtime::Docker, "closed", "")]);
    sample.cable(&link(&closed, "eth0"), "vethclosed", Some("docker9"), &["172.29.0.2/16"]);
    sample.cable(&link(&con2, "eth1"), "vethtwo", Some("docker9"), &["172.29.0.3/16"]);
    // The same address in namespaces that do not hear each other.
    for pid in [5008, 5009] {
        let apart = sample.space(&format!("pid:{pid}"), vec![workload(Runtime::Lxc, "lab", "")]);
        let inner = link(&apart, "eth0");
        sample.cable(&inner, &format!("lab{pid}"), None, &["10.7.0.2/24"]);
    }
    describe(&mut sample, &uplink, 1500);
    settle(&mut sample.0);
    sample
}

fn describe(sample: &mut Host, id: &LinkId, mtu: u32) {
    let kind = LinkKind::Other("device".to_owned());
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let it = Link { kind, up: true, mac, mtu, group: None, alias: String::new() };
    sample.0.topology.links.insert(id.clone(), it);
}

/// Fills in the inside of all namespaces.
fn settle(sight: &mut Sight) {
    let mut connected = Vec::new();
    for (id, facts) in &sight.links {
        if id.name.as_str() != "lo" {
            let nets = facts.addrs.iter().map(|net| net.trunc());
            connected.extend(nets.map(|dst| Route { link: id.clone(), dst, via: None, src: None }));
        }
    }
    sight.topology.routes.extend(connected);
    for netns in sight.spaces.keys() {
        let mut interior = Interior::default();
        let own = sight.links.keys().filter(|id| id.netns == *netns);
        for (name, value) in SWITCHES {
            interior.switches.insert(name.to_owned(), value.to_owned());
        }
        for (id, (name, value)) in own.flat_map(|id| OF_LINKS.map(|switch| (id, switch))) {
            interior.switches.insert(name.replace("{}", id.name.as_str()), value.to_owned());
        }
        let routes = sight.topology.routes.iter().filter(|route| route.link.netns == *netns);
        interior.routes = routes.map(|route| seen_route(254, route)).collect();
        let resolver = ["127.0.0.11", "192.0.2.53"][usize::from(*netns == Netns::Host)];
        interior.resolver = Some(Resolver {
            pid: 1,
            servers: vec![resolver.parse().unwrap()],
            ..Resolver::default()
        });
        if *netns != Netns::Host {
            // Docker's own resolver, by its rules or by its socket.
            let at = "127.0.0.11:40000".parse().unwrap();
            let listener = Listener {
                netns: netns.clone(),
                proto: Proto::Udp,
                at,
                dual: false,
                processes: Vec::new(),
            };
            sight.listeners.push(listener);
        }
        sight.interiors.insert(netns.clone(), interior);
    }
    let spaces: Vec<(Netns, Space)> =
        sight.spaces.iter().map(|(netns, space)| (netns.clone(), space.clone())).collect();
    for (netns, space) in spaces {
        for port in space.workloads.iter().flat_map(|it| &it.published) {
            listen(sight, &netns, &format!("0.0.0.0:{}", port.container_port));
            let addr = sight.links[&link(&netns, "eth0")].addrs[0].addr();
            let interior = sight.interiors.get_mut(&Netns::Host).unwrap();
            interior.led.push(led(Proto::Tcp, port.host_port, (&addr.to_string(), 80)));
        }
    }
    let interior = sight.interiors.get_mut(&Netns::Host).unwrap();
    interior.firewall = docker_tables(&[("docker0", "172.17.0.0/16"), ("br1", "172.18.0.0/16")]);
    admit(interior);
    interior.firewall.push(twinax_table());
    let udp = vec![flow(8053, "172.17.0.2")];
    interior.conntrack = Some(Conntrack { entries: 100, limit: 65_536, udp });
    interior.led.push(led(Proto::Udp, 8053, ("172.17.0.2", 53)));
}

/// What Podman, LXC, and an administrator for Twinax, add to Docker's chains.
fn admit(interior: &mut Interior) {
    let forward = &mut interior.firewall[0].chains[0].rules;
    let podman = net("10.89.0.0/24");
    forward.push(rule(vec![is(What::Source(podman))], Action::Accept));
    forward.push(rule(vec![is(What::Destination(podman)), established()], Action::Accept));
    for bridge in ["lxcbr0", "tx-web", "docker9"] {
        forward.push(rule(vec![is(from(bridge))], Action::Accept));
        forward.push(rule(vec![is(to(bridge))], Action::Accept));
    }
    let third = rule(
        vec![
            is(What::Destination(net("172.17.0.0/16"))),
            is(What::CtStatus(vec!["dnat".to_owned()])),
        ],
        Action::Accept,
    );
    forward.push(third);
    let post = &mut interior.firewall[1].chains[0].rules;
    for subnet in ["10.89.0.0/24", "10.0.3.0/24"] {
        post.push(rule(vec![is(What::Source(net(subnet)))], Action::Masquerade));
    }
}

fn seen_route(table: u32, route: &Route) -> SeenRoute {
    let hops = vec![Hop { out: Some(route.link.name.to_string()), via: route.via }];
    SeenRoute {
        table,
        dst: route.dst,
        kind: "unicast".to_owned(),
        hops,
        src: None,
        metric: 0,
        protocol: "static".to_owned(),
        mtu: None,
    }
}

fn listen(sight: &mut Sight, netns: &Netns, at: &str) {
    let (at, processes) = (at.parse().unwrap(), vec![(77, "httpd".to_owned())]);
    let netns = netns.clone();
    sight.listeners.push(Listener { netns, proto: Proto::Tcp, at, dual: false, processes });
}

fn led(proto: Proto, port: u16, (addr, to_port): (&str, u16)) -> LedPort {
    LedPort {
        proto,
        host: None,
        host_ports: (port, port),
        to: addr.parse().unwrap(),
        to_port: Some(to_port),
        by: "ip nat DOCKER #1".to_owned(),
    }
}

fn flow(port: u16, goes_to: &str) -> Flow {
    Flow {
        protocol: 17,
        from: ("192.0.2.99".parse().unwrap(), 4000),
        to: ("192.0.2.17".parse().unwrap(), port),
        reply_from: (goes_to.parse().unwrap(), 53),
        reply_to: ("192.0.2.99".parse().unwrap(), 4000),
        timeout: 100,
    }
}

fn examined(sight: &Sight) -> Report {
    examine(sight, &Asked::default()).unwrap()
}

fn ids(report: &Report) -> Vec<&'static str> {
    report.findings.iter().map(|finding| finding.check).collect()
}

fn inside<'a>(host: &'a mut Host, netns: &Netns) -> &'a mut Interior {
    host.0.interiors.get_mut(netns).unwrap()
}

fn switch(host: &mut Host, netns: &Netns, name: &str, value: &str) {
    inside(host, netns).switches.insert(name.to_owned(), value.to_owned());
}

fn links_of<'a>(host: &'a mut Host, id: &LinkId) -> &'a mut Link {
    host.0.topology.links.get_mut(id).unwrap()
}

#[test]
fn a_healthy_host_is_clean() {
    let report = examined(&healthy().0);
    assert_eq!(report.findings, []);
    assert_eq!(report.unchecked, []);
    assert_eq!(report.checks, CHECKS.len());
}

/// What is done to a healthy host, in words.
type Change = (&'static str, fn(&mut Host));

type Break = (&'static str, Severity, fn(&mut Host));

use Severity::{Note, Problem, Warning};

/// Gives a container of Podman's network an address, and no route but what follows from it.
fn prefix(host: &mut Host, addr: &str) {
    let eth0 = link(&con(5003), "eth0");
    host.facts(&eth0).addrs = vec![net(addr)];
    host.0.topology.routes.retain(|it| it.link != eth0 || it.via.is_some());
}

/// Adds a route of the host that leads nowhere.
fn sink(host: &mut Host, dst: &str, metric: u32) {
    let route = Route { link: self::host("lo"), dst: net(dst), via: None, src: None };
    let (kind, hops) = ("blackhole".to_owned(), Vec::new());
    let route = SeenRoute { kind, hops, metric, ..seen_route(254, &route) };
    inside(host, &Netns::Host).routes.push(route);
}

/// Adds a rule of the host before those that every kernel begins with.
fn policy(host: &mut Host, when: &str, action: &str) {
    let rule = |priority, when: &str, action: &str| PolicyRule {
        ipv6: false,
        priority,
        when: when.to_owned(),
        action: action.to_owned(),
    };
    inside(host, &Netns::Host).rules = vec![
        rule(0, "from all", "lookup local"),
        rule(100, when, action),
        rule(32_766, "from all", "lookup main"),
        rule(32_767, "from all", "lookup default"),
    ];
}

/// Adds a firewall for frames whose policy is to drop; it accepts all but those of one bridge.
fn frames(host: &mut Host, rules: Vec<Rule>) {
    let passes = |it: &LinkId| !["vethshop", "vethtill"].contains(&it.name.as_str());
    let links: Vec<LinkId> = host.0.links.keys().filter(|it| passes(it)).cloned().collect();
    let others = links.iter().map(|it| rule(vec![is(from(it.name.as_str()))], Action::Accept));
    let rules = rules.into_iter().chain(others).collect();
    let forward = chain("forward", base("filter", Hook::Forward, true), rules);
    inside(host, &Netns::Host).firewall.push(table(Family::Bridge, "guard", vec![forward]));
}

/// Says how a bridge's port is set.
fn port(host: &mut Host, name: &str, details: &[&str]) {
    host.facts(&self::host(name)).details = details.iter().map(|it| (*it).to_owned()).collect();
}

/// How a healthy host is broken, what must be found then, and that nothing else is.
const BREAKS: &[Break] = &[
    ("forwarding-off", Problem, |h| {
        switch(h, &Netns::Host, "ipv4/ip_forward", "0");
        for name in ["docker0", "br1", "podman1", "lxcbr0", "tx-web"] {
            switch(h, &Netns::Host, &format!("ipv4/conf/{name}/forwarding"), "0");
        }
    }),
    ("forwarding-off", Problem, |h| switch(h, &Netns::Host, "ipv4/conf/br1/forwarding", "0")),
    ("rp-filter-strict", Warning, |h| {
        second_uplink(h, 254);
        switch(h, &Netns::Host, "ipv4/conf/all/rp_filter", "0");
        switch(h, &Netns::Host, "ipv4/conf/enp2s0/rp_filter", "1");
    }),
    ("rp-filter-strict", Warning, |h| {
        second_uplink(h, 51_820);
        switch(h, &Netns::Host, "ipv4/conf/all/rp_filter", "0");
        switch(h, &Netns::Host, "ipv4/conf/enp1s0/rp_filter", "1");
        let when = "not from all fwmark 0xca6c".to_owned();
        inside(h, &Netns::Host).rules.push(PolicyRule { when, ..PolicyRule::default() });
    }),
    ("ipv6-default-route-lost", Warning, |h| {
        h.facts(&host("enp1s0")).addrs.push(net("2001:db8::17/64"));
    }),
    ("ipv6-disabled", Warning, |h| {
        h.facts(&host("br1")).addrs.push(net("fd00:18::1/64"));
        switch(h, &con(5001), "ipv6/conf/eth0/disable_ipv6", "1");
    }),
    ("forward-dropped", Problem, |h| {
        let forward = &mut inside(h, &Netns::Host).firewall[0].chains[0].rules;
        forward.retain(|rule| rule.matches != [is(from("lxcbr0"))]);
    }),
    // A rule for all at the end is as good as a policy; iptables-legacy counts as well.
    ("forward-dropped", Problem, |h| {
        let tables = &mut inside(h, &Netns::Host).firewall;
        tables[0].chains[0].rules.retain(|rule| rule.matches != [is(from("lxcbr0"))]);
        tables[0].chains[0].base.as_mut().unwrap().drops = false;
        tables[0].chains[0].rules.push(rule(Vec::new(), Action::Reject));
    }),
    // Connections get out, and nothing that is answered comes in.
    ("forward-dropped", Problem, |h| {
        let forward = &mut inside(h, &Netns::Host).firewall[0].chains[0].rules;
        forward.retain(|rule| rule.matches != [is(to("lxcbr0"))]);
    }),
    // A published port whose container the chain does not know.
    ("forward-dropped", Problem, |h| {
        inside(h, &Netns::Host).led.push(led(Proto::Tcp, 8888, ("10.89.0.2", 80)));
    }),
    ("bridge-netfilter", Problem, |h| {
        let forward = &mut inside(h, &Netns::Host).firewall[0].chains[0].rules;
        for rule in forward.iter_mut().filter(|rule| rule.matches == [is(from("tx-web"))]) {
            rule.matches.push(not(to("tx-web")));
        }
        for rule in forward.iter_mut().filter(|rule| rule.matches == [is(to("tx-web"))]) {
            rule.matches.push(established());
        }
    }),
    ("bridge-dropped", Problem, |h| frames(h, Vec::new())),
    ("bridge-dropped", Problem, |h| {
        frames(h, vec![rule(vec![is(from("nobody"))], Action::Accept)]);
    }),
    ("masquerade-missing", Note, |h| {
        h.0.interiors.get_mut(&Netns::Host).unwrap().firewall.pop();
        let post = &mut inside(h, &Netns::Host).firewall[1].chains[0].rules;
        post.push(rule(vec![is(What::Source(net("10.1.0.0/24")))], Action::Masquerade));
        post.retain(|rule| rule.matches != [is(What::Source(net("10.0.3.0/24")))]);
    }),
    ("legacy-beside-nft", Warning, |h| {
        let mut old = table(Family::Ip, "filter", vec![chain("INPUT", None, vec![jump("X")])]);
        old.engine = Engine::Legacy;
        inside(h, &Netns::Host).firewall.push(old);
    }),
    ("duplicate-address", Problem, |h| {
        h.facts(&link(&con(5002), "eth0")).addrs.push(net("172.18.0.5/16"));
    }),
    ("duplicate-mac", Problem, |h| {
        let mac = links_of(h, &link(&con(5001), "eth0")).mac;
        links_of(h, &link(&con(5002), "eth0")).mac = mac;
    }),
    // The bridge keeps what is sent to an address of its own port.
    ("duplicate-mac", Problem, |h| {
        let mac = links_of(h, &link(&con(5001), "eth0")).mac;
        links_of(h, &host("vethshop")).mac = mac;
    }),
    ("gateway-unreachable", Problem, |h| {
        let eth0 = link(&con(5001), "eth0");
        h.0.topology.routes.retain(|it| it.link != eth0 || it.dst.prefix_len() > 0);
        h.default_route(&eth0, "172.18.0.254");
    }),
    // An entry that was put by hand, with an address that no link has.
    ("gateway-unreachable", Problem, |h| {
        entry(h, &link(&con(5001), "eth0"), ("172.18.0.1", Mac([2, 0, 0, 0, 0xde, 0xad])));
    }),
    ("default-route-missing", Warning, |h| {
        let eth0 = link(&con(5001), "eth0");
        h.0.topology.routes.retain(|it| it.link != eth0 || it.dst.prefix_len() > 0);
    }),
    // Alone on its network; that its address would be translated tells that it should.
    ("default-route-missing", Warning, |h| {
        let eth0 = link(&con(5004), "eth0");
        h.0.topology.routes.retain(|it| it.link != eth0 || it.dst.prefix_len() > 0);
    }),
    ("subnet-overlap", Problem, |h| route(h, "172.18.4.0/24")),
    ("subnet-overlap", Warning, |h| route(h, "172.16.0.0/14")),
    ("prefix-mismatch", Warning, |h| prefix(h, "10.89.0.2/30")),
    ("prefix-mismatch", Warning, |h| prefix(h, "10.89.0.2/16")),
    ("prefix-mismatch", Problem, |h| {
        h.facts(&link(&con(5007), "eth0")).addrs = vec![net("172.29.0.2/24")];
        h.0.topology.routes.retain(|it| it.link != link(&con(5007), "eth0"));
    }),
    ("route-blackholed", Problem, |h| sink(h, "10.89.0.0/25", 0)),
    ("route-blackholed", Problem, |h| sink(h, "172.29.0.2/32", 1024)),
    ("route-blackholed", Problem, |h| policy(h, "from 10.89.0.0/24", "prohibit")),
    ("route-blackholed", Problem, |h| policy(h, "from all to 172.29.0.2", "blackhole")),
    ("route-blackholed", Problem, |h| policy(h, "from all iif podman1", "unreachable")),
    ("neighbour-table-full", Warning, |h| neighbours(h, 900)),
    ("neighbour-table-full", Problem, |h| neighbours(h, 1000)),
    ("neighbour-table-full", Warning, |h| {
        switch(h, &Netns::Host, "ipv4/neigh/default/gc_thresh3", "3");
    }),
    ("mtu-step", Problem, |h| links_of(h, &link(&con(5003), "eth0")).mtu = 1300),
    ("mtu-step", Problem, |h| {
        for id in [link(&con(5001), "eth0"), host("vethshop")] {
            links_of(h, &id).mtu = 1400;
        }
    }),
    ("mtu-step", Warning, |h| links_of(h, &host("br1")).mtu = 1400),
    ("mtu-tunnel", Problem, |h| {
        let vxlan = host("vxlan42");
        h.lies_on(&vxlan, "vxlan", &host("enp1s0"), &[]);
        describe(h, &vxlan, 1460);
    }),
    ("mtu-uplink", Warning, |h| {
        links_of(h, &host("enp1s0")).mtu = 1450;
        for name in ["docker0", "podman1", "lxcbr0", "tx-web"] {
            shrink(h, name);
        }
    }),
    ("port-down", Problem, |h| {
        links_of(h, &host("vethshop")).up = false;
        h.facts(&link(&con(5001), "eth0")).operstate = "lowerlayerdown".to_owned();
    }),
    ("port-down", Problem, |h| links_of(h, &host("br1")).up = false),
    ("bridge-port-blocked", Problem, |h| port(h, "vethshop", &["port 1 blocking"])),
    ("bridge-port-blocked", Problem, |h| port(h, "vethshop", &["port 1 disabled", "hairpin"])),
    ("bridge-port-blocked", Warning, |h| {
        for name in ["vethshop", "vethtill"] {
            port(h, name, &["port 1 forwarding", "isolated"]);
        }
        let third = h.space("pid:5010", vec![workload(Runtime::Docker, "third", "")]);
        h.cable(&link(&third, "eth0"), "veththird", Some("br1"), &[]);
    }),
    ("bridge-port-blocked", Note, |h| {
        for name in ["vethshop", "vethtill"] {
            port(h, name, &["port 1 forwarding", "isolated"]);
        }
    }),
    ("bridge-ports", Warning, |h| {
        for n in 0..918 {
            let port = host(&format!("tap{n}"));
            h.link(&port, "tun", &[]);
            h.facts(&port).master = Some(host("br1"));
        }
    }),
    ("orphan-veth", Warning, |h| h.link(&host("vethdead"), "veth", &[])),
    ("orphan-namespace", Note, |h| {
        let left = h.space("netns:/run/netns/left", vec![workload(Runtime::IpNetns, "left", "")]);
        let mount = Holder::Mount { path: "/run/netns/left".to_owned(), seen_by: 1 };
        h.0.spaces.get_mut(&left).unwrap().holders = vec![mount];
    }),
    ("hidden-namespace", Note, |h| {
        let held = h.space("netns:/proc/812/fd/7", vec![]);
        h.link(&link(&held, "tun0"), "tun", &[]);
        let holder = Holder::Descriptor { pid: 812, fd: 7, comm: "agent".to_owned() };
        h.0.spaces.get_mut(&held).unwrap().holders = vec![holder];
    }),
    ("published-not-led", Problem, |h| {
        inside(h, &Netns::Host).led.retain(|led| led.host_ports != (8000, 8000));
    }),
    ("published-no-listener", Warning, |h| {
        h.0.listeners.retain(|it| it.netns != con(4000) || it.proto != Proto::Tcp);
    }),
    ("published-loopback-listener", Problem, |h| {
        h.0.listeners.retain(|it| it.netns != con(4000) || it.proto != Proto::Tcp);
        listen(&mut h.0, &con(4000), "127.0.0.1:80");
    }),
    ("published-conflict", Problem, |h| {
        let port =
            PublishedPort { proto: Proto::Tcp, host: None, host_port: 8000, container_port: 80 };
        h.0.spaces.get_mut(&con(5001)).unwrap().workloads[0].published.push(port);
        listen(&mut h.0, &con(5001), "0.0.0.0:80");
    }),
    ("conntrack-full", Warning, |h| tracked(h, 60_000)),
    ("conntrack-full", Problem, |h| tracked(h, 65_000)),
    ("conntrack-stale", Problem, |h| {
        let table = inside(h, &Netns::Host).conntrack.as_mut().unwrap();
        table.udp.push(flow(8053, "172.17.0.9"));
    }),
    ("resolver-loopback", Problem, |h| resolver(h, &["127.0.0.53"])),
    ("resolver-loopback", Warning, |h| resolver(h, &["::1", "192.0.2.53"])),
];

fn second_uplink(h: &mut Host, table: u32) {
    let second = host("enp2s0");
    h.link(&second, "", &["198.51.100.7/24"]);
    let via = Some("198.51.100.1".parse().unwrap());
    let route = Route { link: second, dst: net("0.0.0.0/0"), via, src: None };
    let seen = seen_route(table, &route);
    inside(h, &Netns::Host).routes.push(seen);
}

fn route(h: &mut Host, dst: &str) {
    let (link, via) = (host("enp1s0"), Some("192.0.2.9".parse().unwrap()));
    h.0.topology.routes.insert(Route { link, dst: net(dst), via, src: None });
}

/// A neighbour that was put down by hand.
fn entry(h: &mut Host, id: &LinkId, (addr, mac): (&str, Mac)) {
    let (addr, mac) = (Some(addr.parse().unwrap()), Some(mac));
    let entry = SeenNeighbour { addr, mac, state: "permanent".to_owned() };
    h.facts(id).neighbours.push(entry);
}

fn neighbours(h: &mut Host, n: u16) {
    let entry = |n: u16| SeenNeighbour {
        addr: Some(std::net::Ipv4Addr::from(0x0a09_0000 + u32::from(n)).into()),
        mac: None,
        state: "stale".to_owned(),
    };
    h.facts(&host("enp1s0")).neighbours = (0..n).map(entry).collect();
}

/// Makes a network's links small, as if it had been made for a small uplink.
fn shrink(h: &mut Host, bridge: &str) {
    let ports: Vec<LinkId> = {
        let all = h.0.links.iter();
        all.filter(|(_, it)| it.master == Some(host(bridge))).map(|(id, _)| id.clone()).collect()
    };
    for port in ports {
        let far = h.0.links[&port].leads_to.clone().unwrap();
        links_of(h, &port).mtu = 1450;
        links_of(h, &far).mtu = 1450;
    }
    links_of(h, &host(bridge)).mtu = 1450;
}

fn tracked(h: &mut Host, entries: u64) {
    inside(h, &Netns::Host).conntrack.as_mut().unwrap().entries = entries;
}

fn resolver(h: &mut Host, servers: &[&str]) {
    let servers = servers.iter().map(|it| it.parse().unwrap()).collect();
    inside(h, &con(5001)).resolver = Some(Resolver { pid: 5001, servers, ..Resolver::default() });
}

#[test]
fn each_check_finds_what_it_is_for_and_no_other_does() {
    for (n, (id, severity, broken)) in BREAKS.iter().enumerate() {
        let mut host = healthy();
        broken(&mut host);
        let report = examined(&host.0);
        let found: BTreeSet<&str> = ids(&report).into_iter().collect();
        assert_eq!(found, BTreeSet::from([*id]), "case {n}: {:#?}", report.findings);
        assert_eq!(report.worst(), Some(*severity), "case {n}: {:#?}", report.findings);
        assert_eq!(report.unchecked, [], "case {n}");
        for finding in &report.findings {
            assert!(!finding.of.is_empty() && !finding.todo.is_empty(), "{finding:?}");
            assert!(finding.why.ends_with('.') && !finding.what.ends_with('.'), "{finding:?}");
        }
    }
}

#[test]
fn every_check_is_tried() {
    let tried: BTreeSet<&str> = BREAKS.iter().map(|(id, ..)| *id).collect();
    for check in CHECKS {
        assert!(tried.contains(check.id), "{} is not tried", check.id);
        let worst = BREAKS.iter().filter(|(id, ..)| *id == check.id).map(|(_, it, _)| *it).max();
        // Of these the worst takes more to show than a case.
        if !["masquerade-missing", "bridge-ports"].contains(&check.id) {
            assert_eq!(worst, Some(check.severity), "{}", check.id);
        }
    }
}

/// What is not known is said, and is neither healthy nor broken.
#[test]
fn what_cannot_be_read_is_not_judged() {
    let mut bare = healthy();
    bare.0.interiors.clear();
    let report = examined(&bare.0);
    assert_eq!(report.findings, []);
    let unchecked: BTreeSet<&str> = report.unchecked.iter().map(|it| it.check).collect();
    let expected = [
        "forwarding-off",
        "forward-dropped",
        "bridge-netfilter",
        "bridge-dropped",
        "masquerade-missing",
        "neighbour-table-full",
        "published-not-led",
        "route-blackholed",
        "published-no-listener",
        "published-loopback-listener",
    ];
    assert_eq!(unchecked, BTreeSet::from(expected));

    let cases: [Change; 5] = [
        ("the firewall", |h| {
            let interior = inside(h, &Netns::Host);
            interior.firewall.clear();
            interior.led.clear();
            interior.unseen.push("nftables of host: operation not permitted".to_owned());
        }),
        ("legacy tables", |h| {
            let line = "iptables-legacy of host: operation not permitted".to_owned();
            inside(h, &Netns::Host).unseen.push(line);
        }),
        ("connections", |h| {
            let interior = inside(h, &Netns::Host);
            interior.conntrack = None;
            interior.unseen.push("connection tracking of host: operation not permitted".to_owned());
        }),
        ("a namespace's links", |h| {
            h.link(&host("vethdead"), "veth", &[]);
            let space = Space { inode: 9, ..Space::default() };
            h.0.spaces.insert(con(9999), space);
        }),
        ("sockets", |h| {
            h.0.listeners.retain(|it| it.netns != con(4000));
            h.0.unseen.push("routes of pid:4000: no such process".to_owned());
        }),
    ];
    for (what, broken) in cases {
        let mut host = healthy();
        broken(&mut host);
        let report = examined(&host.0);
        assert_eq!(report.findings, [], "{what}");
        assert!(!report.unchecked.is_empty(), "{what}");
    }
}

/// What is as it should be, or meant, though it looks like something that is not.
const MEANT: &[Change] = &[
    ("a rule that keeps containers apart, as Docker's for icc=false", |h| {
        let forward = &mut inside(h, &Netns::Host).firewall[0].chains[0].rules;
        let apart = rule(vec![is(from("br1")), is(to("br1"))], Action::Drop);
        forward.insert(0, apart);
    }),
    ("a single address, and a route that says that the rest is near", |h| {
        h.facts(&link(&con(5001), "eth0")).addrs.push(net("172.18.9.9/32"));
        h.facts(&link(&con(5003), "eth0")).addrs = vec![net("10.89.0.2/30")];
    }),
    ("a bridge that answers for what is beyond it", |h| {
        prefix(h, "10.89.0.2/16");
        switch(h, &Netns::Host, "ipv4/conf/podman1/proxy_arp", "1");
    }),
    ("one isolated port keeps nobody from nobody", |h| {
        port(h, "vethshop", &["port 1 forwarding", "isolated"]);
    }),
    ("the spanning tree protocol waits", |h| {
        port(h, "vethshop", &["port 1 listening"]);
        port(h, "br1", &["spanning tree"]);
    }),
    ("routes that lead nowhere behind those that lead on", |h| {
        sink(h, "10.0.0.0/8", 0);
        sink(h, "10.89.0.0/24", 4096);
        sink(h, "0.0.0.0/0", 4096);
    }),
    ("a firewall for frames that lets some pass", |h| {
        frames(h, vec![rule(vec![is(from("vethshop"))], Action::Accept)]);
    }),
    ("a firewall for frames with a rule that nobody understands", |h| {
        frames(h, vec![rule(vec![is(What::Other("vlan".to_owned()))], Action::Accept)]);
    }),
    ("rules that concern others", |h| policy(h, "from 10.77.0.0/16", "prohibit")),
    ("rules of which nobody knows whom they concern", |h| {
        policy(h, "from 10.89.0.0/24 fwmark 0x1", "prohibit");
    }),
    ("a rule that leads elsewhere before one that leads nowhere", |h| {
        policy(h, "from 10.89.0.0/24", "prohibit");
        let rules = &mut inside(h, &Netns::Host).rules;
        let action = "lookup 100".to_owned();
        rules.insert(1, PolicyRule { action, priority: 99, ..rules[1].clone() });
        let dst = net("0.0.0.0/0");
        let via = Some("192.0.2.1".parse().unwrap());
        let route = Route { link: host("enp1s0"), dst, via, src: None };
        inside(h, &Netns::Host).routes.push(seen_route(100, &route));
    }),
    ("a rule that closes a network by name", |h| {
        let forward = &mut inside(h, &Netns::Host).firewall[0].chains[0].rules;
        forward.insert(0, rule(vec![is(from("br1"))], Action::Drop));
    }),
    ("a rule that nobody understands may accept", |h| {
        let forward = &mut inside(h, &Netns::Host).firewall[0].chains[0].rules;
        forward.retain(|rule| rule.matches != [is(from("lxcbr0"))]);
        forward.push(rule(vec![is(What::Other("bpf".to_owned()))], Action::Accept));
    }),
    ("a router outside that knows the way back", |h| {
        let post = &mut inside(h, &Netns::Host).firewall[1].chains[0].rules;
        post.retain(|rule| rule.matches != [is(What::Source(net("10.0.3.0/24")))]);
        h.0.interiors.get_mut(&Netns::Host).unwrap().firewall.pop();
        let post = &mut inside(h, &Netns::Host).firewall[1].chains[0].rules;
        post.push(rule(vec![is(What::Source(net("10.1.0.0/24")))], Action::Masquerade));
        let out = h.space("netns:/run/netns/out", vec![workload(Runtime::IpNetns, "out", "")]);
        let eth0 = link(&out, "eth0");
        h.link(&eth0, "veth", &["192.0.2.1/24"]);
        h.facts(&eth0).leads_to = Some(host("enp1s0"));
        h.facts(&host("enp1s0")).kind = "veth".to_owned();
        h.facts(&host("enp1s0")).leads_to = Some(eth0.clone());
        let via = Some("192.0.2.17".parse().unwrap());
        let dst = net("10.0.3.0/24");
        h.0.topology.routes.insert(Route { link: eth0, dst, via, src: None });
        let mut interior = Interior::default();
        for (name, value) in SWITCHES {
            interior.switches.insert(name.to_owned(), value.to_owned());
        }
        h.0.interiors.insert(out, interior);
    }),
    ("loose reverse paths with two uplinks", |h| {
        second_uplink(h, 254);
        switch(h, &Netns::Host, "ipv4/conf/enp2s0/rp_filter", "2");
    }),
    ("strict reverse paths with one uplink", |h| {
        switch(h, &Netns::Host, "ipv4/conf/all/rp_filter", "1");
    }),
    ("a table for each source address", |h| {
        second_uplink(h, 100);
        switch(h, &Netns::Host, "ipv4/conf/all/rp_filter", "1");
        let when = "from 198.51.100.7".to_owned();
        inside(h, &Netns::Host).rules.push(PolicyRule { when, ..PolicyRule::default() });
    }),
    ("router advertisements that are taken, and a default route by hand", |h| {
        h.facts(&host("enp1s0")).addrs.push(net("2001:db8::17/64"));
        switch(h, &Netns::Host, "ipv6/conf/enp1s0/accept_ra", "2");
    }),
    ("a bridge with its first port's address", |h| {
        let mac = links_of(h, &host("vethshop")).mac;
        links_of(h, &host("br1")).mac = mac;
    }),
    ("an address of the loopback, and a gateway that a proxy answers for", |h| {
        let eth0 = link(&con(5008), "eth0");
        h.default_route(&eth0, "169.254.1.1");
        switch(h, &Netns::Host, "ipv4/conf/lab5008/proxy_arp", "1");
    }),
    ("a gateway that was put down as what it is, as Twinax does", |h| {
        let mac = links_of(h, &host("br1")).mac;
        entry(h, &link(&con(5001), "eth0"), ("172.18.0.1", mac));
    }),
    ("answers that a rule for what stands lets in, whoever asked", |h| {
        let forward = &mut inside(h, &Netns::Host).firewall[0].chains[0].rules;
        forward.retain(|rule| rule.matches != [is(to("lxcbr0"))]);
        forward.insert(0, rule(vec![established()], Action::Accept));
    }),
    ("a resolver of one's own", |h| {
        resolver(h, &["127.0.0.1"]);
        let at = "127.0.0.1:53".parse().unwrap();
        let (netns, processes) = (con(5001), Vec::new());
        let proto = Proto::Udp;
        h.0.listeners.push(Listener { netns, proto, at, dual: false, processes });
    }),
    ("a bridge without members that is down, and default routes in halves", |h| {
        h.bridge("br9", "172.30.0.1/16");
        links_of(h, &host("br9")).up = false;
        h.facts(&host("br9")).operstate = "down".to_owned();
        route(h, "0.0.0.0/1");
        route(h, "128.0.0.0/1");
    }),
    ("a relay on the host instead of a rule", |h| {
        inside(h, &Netns::Host).led.retain(|led| led.host_ports != (8000, 8000));
        listen(&mut h.0, &Netns::Host, "[::]:8000");
    }),
];

#[test]
fn what_is_meant_is_not_found() {
    for (what, change) in MEANT {
        let mut host = healthy();
        change(&mut host);
        let report = examined(&host.0);
        assert_eq!(report.findings, [], "{what}");
    }
}

#[test]
fn a_handle_leaves_away_what_does_not_concern_it() {
    let mut sick = healthy();
    sick.0.listeners.retain(|it| it.netns != con(4000) || it.proto != Proto::Tcp);
    links_of(&mut sick, &link(&con(5003), "eth0")).mtu = 1300;
    let found = |of: &[&str], only: &[&str], skip: &[&str]| {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let asked = Asked { of: list(of), only: list(only), skip: list(skip) };
        examine(&sick.0, &asked).map(|report| ids(&report))
    };
    assert_eq!(found(&[], &[], &[]).unwrap(), ["mtu-step", "published-no-listener"]);
    for of in ["pod", "pid:5003", "10.89.0.2", "podman1", "veth3", "pid:5003/eth0"] {
        assert_eq!(found(&[of], &[], &[]).unwrap(), ["mtu-step"], "{of}");
    }
    assert_eq!(found(&["web-1"], &[], &[]).unwrap(), ["published-no-listener"]);
    assert_eq!(found(&["net0"], &[], &[]).unwrap(), ["published-no-listener"]);
    assert_eq!(found(&["con1"], &[], &[]).unwrap(), [""; 0]);
    assert_eq!(found(&[], &["mtu-step"], &[]).unwrap(), ["mtu-step"]);
    assert_eq!(found(&[], &[], &["mtu-step"]).unwrap(), ["published-no-listener"]);
    assert_eq!(found(&["con1", "nobody"], &[], &[]), Err("nobody".to_owned()));
}

/// Whatever others are called, nothing of it acts on a terminal or ends a word of a command.
#[test]
fn hostile_names_stay_text() {
    let mut sick = healthy();
    let evil = "\x1b[2J'; reboot #\u{202e}";
    sick.0.listeners.retain(|it| it.netns != con(4000) || it.proto != Proto::Tcp);
    sick.0.spaces.get_mut(&con(4000)).unwrap().workloads[0].name = evil.to_owned();
    let cut = LinkId::host(twinax_core::name::IfName::spelled(b"a'b;\x1b[m"));
    sick.link(&cut, "veth", &[]);
    let mount = Holder::Mount { path: format!("/run/netns/{evil}"), seen_by: 1 };
    let left = sick.space("netns:/run/netns/left", vec![]);
    sick.0.spaces.get_mut(&left).unwrap().holders = vec![mount];
    let tables = &mut inside(&mut sick, &Netns::Host).firewall;
    tables[0].chains[0].name = evil.to_owned();
    tables[0].chains[0].rules.clear();
    let report = examined(&sick.0);
    let found: BTreeSet<&str> = ids(&report).into_iter().collect();
    for id in ["published-no-listener", "orphan-veth", "orphan-namespace", "forward-dropped"] {
        assert!(found.contains(id), "{id}: {found:?}");
    }
    for finding in &report.findings {
        let texts = finding.of.iter().chain(&finding.todo).chain([&finding.what, &finding.why]);
        for text in texts {
            let acts = |c: char| c.is_control() || c == '\u{202e}';
            assert!(!text.contains(acts), "{text:?}");
        }
        for command in finding.todo.iter().filter(|line| !line.starts_with('#')) {
            // A quote within is written as `'\\''`: what is left is in quotes or outside.
            let command = command.replace(r"'\''", "");
            let outside: String = command.split('\'').step_by(2).collect();
            assert!(!outside.contains("reboot"), "{command}");
        }
    }
}

/// What is not told by characters that a terminal obeys still is what the command means.
#[test]
fn a_command_means_the_name_that_it_is_about() {
    let mut sick = healthy();
    for (pid, bridge, eth0) in
        [(6001, "fwd", b"e'\x1b[m".as_slice()), (6002, "a@$b*", b"eth0".as_slice())]
    {
        let space = sick.space(&format!("pid:{pid}"), vec![workload(Runtime::Lxc, "odd", "")]);
        let eth0 = LinkId { name: IfName::spelled(eth0), netns: space };
        sick.bridge(bridge, &format!("10.50.{}.1/24", pid - 6000));
        let own = format!("10.50.{}.2/24", pid - 6000);
        sick.cable(&eth0, &format!("odd{pid}"), Some(bridge), &[&own]);
        sick.default_route(&eth0, &format!("10.50.{}.1", pid - 6000));
    }
    links_of(&mut sick, &link(&con(6001), r"e'\x1b[m")).mtu = 1300;
    let left = sick.space("netns:/run/netns/left", vec![]);
    let mount = Holder::Mount { path: "/run/netns/l\\\x1bq'".to_owned(), seen_by: 1 };
    sick.0.spaces.get_mut(&left).unwrap().holders = vec![mount];
    let tables = &mut inside(&mut sick, &Netns::Host).firewall;
    tables.clear();
    tables.push(table(
        Family::Inet,
        "f",
        vec![chain("c", base("filter", Hook::Forward, true), vec![])],
    ));
    let report = examined(&sick.0);
    let commands: Vec<&str> =
        report.findings.iter().flat_map(|it| &it.todo).map(String::as_str).collect();
    for expected in [
        r"nsenter -t 4000 -n ip link set dev $'e\x27\x1b[m' mtu 1500",
        r"ip netns delete $'l\x5c\x1bq\x27'",
        r#"nft insert rule inet f c iifname '"fwd"' accept"#,
        r#"nft insert rule inet f c iifname '"a@$b\*"' accept"#,
        "nft insert rule inet f c iifname docker0 accept",
    ] {
        assert!(commands.contains(&expected), "{expected}: {commands:#?}");
    }
}

/// What nft would read as the end of a name is in no command for it.
#[test]
fn nft_is_not_told_what_it_would_read_otherwise() {
    for (bridge, name) in [("x\";flush", "c"), ("br9", "c; flush ruleset"), ("br9", "\"")] {
        let mut sick = healthy();
        let space = sick.space("pid:6001", vec![workload(Runtime::Lxc, "odd", "")]);
        let eth0 = link(&space, "eth0");
        sick.bridge(bridge, "10.50.1.1/24");
        sick.cable(&eth0, "odd6001", Some(bridge), &["10.50.1.2/24"]);
        sick.default_route(&eth0, "10.50.1.1");
        let forward = chain(name, base("filter", Hook::Forward, true), vec![]);
        inside(&mut sick, &Netns::Host).firewall = vec![table(Family::Inet, "f", vec![forward])];
        let report = examined(&sick.0);
        assert!(ids(&report).contains(&"forward-dropped"));
        let commands = report.findings.iter().flat_map(|it| &it.todo);
        for command in commands.filter(|it| it.contains("nft insert")) {
            assert!(!command.contains(';') && !command.contains("'\"'"), "{command}");
        }
        let by_hand = report.findings.iter().filter(|it| it.todo[0].starts_with("# accept it"));
        assert!(by_hand.count() > 0, "{bridge} {name}");
    }
}

/// Of what nobody could look into nothing is said, and least of all that it is healthy.
#[test]
fn what_was_asked_for_and_could_not_be_read_is_told() {
    let mut host = healthy();
    let hidden = workload(Runtime::IpNetns, "hidden", "");
    host.0.spaces.insert(con(9999), Space { workloads: vec![hidden], ..Space::default() });
    let unread = |of: &[&str]| {
        let of = of.iter().map(|it| (*it).to_owned()).collect();
        examine(&host.0, &Asked { of, ..Asked::default() }).unwrap().unread
    };
    assert_eq!(unread(&["hidden", "con1"]), ["hidden"]);
    assert_eq!(unread(&["con1"]), [""; 0]);
    assert_eq!(unread(&[]), [""; 0], "the lines of what was not seen tell it");
}

/// Who may be held by a process that cannot be seen from here is not hidden by anybody.
#[test]
fn what_lives_in_another_pid_namespace_is_not_hidden() {
    let mut host = healthy();
    let out = host.space("netns:/nsfs/7", vec![]);
    host.link(&link(&out, "eth0"), "device", &["192.0.2.2/24"]);
    host.0.spaces.get_mut(&out).unwrap().holders = vec![Holder::Outside];
    let asked = Asked { only: vec!["hidden-namespace".to_owned()], ..Asked::default() };
    assert_eq!(ids(&examine(&host.0, &asked).unwrap()), ["hidden-namespace"]);
    let line = "processes of other pid namespaces, or hidden by the options of /proc, are not seen";
    host.0.unseen.push(line.to_owned());
    let report = examine(&host.0, &asked).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.unchecked.len(), 1);
}

#[test]
fn an_ordinary_users_commands_lead_inside() {
    let mut sick = healthy();
    switch(&mut sick, &Netns::Host, "ipv4/conf/br1/forwarding", "0");
    links_of(&mut sick, &link(&con(5003), "eth0")).mtu = 1300;
    links_of(&mut sick, &host("veth3")).mtu = 1300;
    let mut report = examined(&sick.0);
    report.lead_through(77);
    let commands: Vec<&str> =
        report.findings.iter().flat_map(|it| &it.todo).map(String::as_str).collect();
    let through = "nsenter -t 77 -U --preserve-credentials -n";
    let expected = [
        format!("{through} sysctl -w net/ipv4/conf/br1/forwarding=1"),
        format!("{through} ip link set dev podman1 mtu 1300"),
    ];
    assert_eq!(commands, expected);
    links_of(&mut sick, &host("veth3")).mtu = 1500;
    links_of(&mut sick, &host("podman1")).mtu = 1500;
    links_of(&mut sick, &link(&con(5003), "eth0")).mtu = 1600;
    let asked = Asked { only: vec!["mtu-step".to_owned()], ..Asked::default() };
    let mut report = examine(&sick.0, &asked).unwrap();
    report.lead_through(77);
    let inside = "nsenter -t 4000 -U --preserve-credentials -n ip link set dev eth0 mtu 1500";
    assert_eq!(report.findings[0].todo, [inside]);
}

#[test]
fn the_end_that_differs_from_its_network_is_to_be_changed() {
    for mtu in [1300, 9000] {
        let mut sick = healthy();
        links_of(&mut sick, &link(&con(5003), "eth0")).mtu = mtu;
        let asked = Asked { only: vec!["mtu-step".to_owned()], ..Asked::default() };
        let report = examine(&sick.0, &asked).unwrap();
        let todo: Vec<&String> = report.findings.iter().flat_map(|it| &it.todo).collect();
        assert_eq!(todo, ["nsenter -t 4000 -n ip link set dev eth0 mtu 1500"], "{mtu}");
    }
}
