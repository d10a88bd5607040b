//! What is decided, as text: each line is a request, `;` parts its changes.
//!
//! Each request sees only the rows that `keys` and `more_keys` name, so that a row not asked for
//! is found by the table's own check; and after each, what must always hold is counted anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use expect_test::{Expect, expect};
use proptest::prelude::*;
use twinax_core::{
    decide::{Refusal, Reply, decide, keys, more_keys, questions},
    engine::World as _,
    fake::FakeWorld,
    model::{HostsView, host_end},
    name::{ContainerName, NetworkName},
    state::{
        AttachSpec, Change, Container, DEFAULT_NETWORK, Driver, GatewayMode, Led, NetworkSpec,
        PortKey, PublishSpec, Published, Request, Row, Run, Sandbox, State, Status, SubnetSpec,
        Way,
    },
};

/// A store, a host to ask, and what holds its ports.
#[derive(Clone)]
struct Bench {
    world: FakeWorld,
    busy: BTreeMap<u16, String>,
    /// Whether the last request needed more than its own rows.
    looked_at_all: bool,
}

impl Bench {
    fn new() -> Self {
        let mut world = FakeWorld::default();
        world.facts.uplink_mtu = 1450;
        world.facts.ephemeral = (40000, 40009);
        world.facts.random = 0x0102_0304_0506_0708;
        world.facts.now = 1_700_000_000;
        Self { world, busy: BTreeMap::new(), looked_at_all: false }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply, Refusal> {
        let mut state = self.world.load(&keys(request)).expect("a world without failures");
        self.looked_at_all = false;
        if let Some(more) = more_keys(&state, request) {
            self.looked_at_all = more.all;
            state = self.world.load(&more).expect("a world without failures");
            assert_eq!(more_keys(&state, request), None, "once is enough");
        }
        let asked = questions(&state, request);
        let mut facts = self.world.survey(&asked, &state).expect("a world without failures");
        for answer in facts.ports.values_mut() {
            answer.free.retain(|port| !self.busy.contains_key(port));
            answer.busy = self.busy.clone();
        }
        let (after, reply) = decide(&state, request, &facts)?;
        for row in after.changes_since(&state) {
            self.world.saved.put(row);
        }
        for switch in self.world.saved.host.sysctls.clone() {
            self.world.kernel.sysctls.insert(switch.0, switch.1);
        }
        Ok(reply)
    }
}

/// Reads a request; what a word means is said by its `key=`.
fn parse(line: &str) -> Request {
    line.split(';')
        .map(|change| parse_change(&change.split_whitespace().collect::<Vec<_>>()))
        .collect()
}

fn parse_change(words: &[&str]) -> Change {
    let name = |n: usize| words[n].parse::<ContainerName>().expect("a container name");
    let network = |n: usize| words[n].parse::<NetworkName>().expect("a network name");
    let ports = || words[2..].iter().map(|word| parse_ports(word)).collect();
    match words[0] {
        "network" => Change::CreateNetwork { name: network(1), spec: parse_network(&words[2..]) },
        "rm-network" => Change::RemoveNetwork { name: network(1) },
        "put" => Change::PutContainer {
            name: name(1),
            container: parse_container(words[1], &words[2..]),
        },
        "rm" => Change::RemoveContainer { name: name(1) },
        "end" => Change::End { name: name(1) },
        "exit" => Change::Exited { name: name(1), code: words[2].parse().ok() },
        "attach" => Change::Attach { container: name(1), spec: parse_attach(&words[2..]) },
        "detach" => Change::Detach { container: name(1), network: network(2) },
        "publish" => Change::Publish { container: name(1), ports: ports() },
        "unpublish" => Change::Unpublish { container: name(1), ports: ports() },
        other => panic!("no change is called {other}"),
    }
}

fn parse_network(words: &[&str]) -> NetworkSpec {
    let mut spec = NetworkSpec::default();
    let mode = |text: &str| match text {
        "routed" => GatewayMode::Routed,
        "isolated" => GatewayMode::Isolated,
        _ => GatewayMode::Nat,
    };
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let last = spec.subnets.len().wrapping_sub(1);
        match key {
            "subnet" => spec.subnets.push(SubnetSpec {
                net: value.parse().expect("a subnet"),
                gateway: None,
                range: None,
                reserved: BTreeMap::new(),
            }),
            "gateway" => spec.subnets[last].gateway = value.parse().ok(),
            "range" => spec.subnets[last].range = value.parse().ok(),
            "reserve" => {
                let addr = value.parse().expect("an address");
                spec.subnets[last].reserved.insert("printer".to_owned(), addr);
            }
            "internal" => spec.internal = true,
            "ipv6" => spec.ipv6 = true,
            "no-ipv4" => spec.no_ipv4 = true,
            "routed" => spec.driver = Driver::Routed,
            "mode4" => spec.mode4 = mode(value),
            "mode6" => spec.mode6 = mode(value),
            "mtu" => spec.mtu = value.parse().ok(),
            "bridge" => spec.bridge = value.parse().ok(),
            other => panic!("no network option is called {other}"),
        }
    }
    spec
}

fn parse_container(name: &str, words: &[&str]) -> Container {
    let start = name.bytes().map(u64::from).sum();
    let way = words.iter().find_map(|word| match word.split_once('=') {
        Some(("of", other)) => Some(Way::Of(other.parse().expect("a container name"))),
        _ => (*word == "host").then_some(Way::Host),
    });
    let run = (!name.contains(':')).then(|| Run {
        command: vec!["sleep".to_owned()],
        remove: words.contains(&"--rm"),
        status: Status::Running { init: (7, start), supervisor: (8, start) },
        created: 0,
        lab: None,
    });
    Container {
        id: name.to_owned(),
        sandbox: Sandbox { way: way.unwrap_or(Way::Pid { pid: 7, start }), cookie: Some(start) },
        hostname: None,
        endpoints: Vec::new(),
        published: Vec::new(),
        view: None,
        dns: Vec::new(),
        run,
        led: Led::default(),
    }
}

fn parse_attach(words: &[&str]) -> AttachSpec {
    let mut spec = AttachSpec::new(words[0].parse().expect("a network name"));
    for word in &words[1..] {
        match word.split_once('=').expect("an option with a value") {
            ("ip", value) => spec.ip = value.parse().ok(),
            ("ip6", value) => spec.ip6 = value.parse().ok(),
            ("mac", value) => spec.mac = value.parse().ok(),
            ("alias", value) => spec.aliases.push(value.parse().expect("an alias")),
            ("ifname", value) => spec.ifname = value.parse().ok(),
            ("priority", value) => spec.gateway_priority = value.parse().expect("a number"),
            (other, _) => panic!("no attach option is called {other}"),
        }
    }
    spec
}

/// `host@first-last:first-last/proto`, as the shell's own parser is not the core's business.
fn parse_ports(word: &str) -> PublishSpec {
    let (word, proto) = word.split_once('/').unwrap_or((word, "tcp"));
    let (host, word) = match word.split_once('@') {
        Some((host, word)) => (Some(host.parse().expect("an address")), word),
        None => (None, word),
    };
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        (first.parse().expect("a port"), last.parse().expect("a port"))
    };
    let (host_ports, container_ports) = match word.split_once(':') {
        Some((host, container)) => (Some(range(host)), range(container)),
        None => (None, range(word)),
    };
    PublishSpec { proto: proto.parse().expect("a protocol"), host, host_ports, container_ports }
}

/// Everything promised, for people.
fn shown(state: &State) -> String {
    let mut text = String::new();
    for (name, network) in state.networks.all() {
        let _ = write!(
            text,
            "network {name} #{} {} mtu {}",
            network.number, network.bridge, network.mtu
        );
        for subnet in &network.subnets {
            let _ = write!(text, " {} gateway {}", subnet.net, subnet.gateway);
        }
        text.push('\n');
    }
    for (name, container) in state.containers.all() {
        let _ = write!(text, "container {name}");
        if let Some(HostsView(networks)) = &container.view {
            let names: Vec<_> = networks.iter().map(NetworkName::as_str).collect();
            let _ = write!(text, " hosts {}", names.join("+"));
        }
        if let Some(Run { status: Status::Exited { code, .. }, .. }) = &container.run {
            let _ = write!(text, " exited {code:?}");
        }
        if container.ending() {
            text.push_str(" ending");
        }
        text.push('\n');
        for e in &container.endpoints {
            let addrs: Vec<_> = e.addrs.iter().map(IpAddr::to_string).collect();
            let _ = writeln!(
                text,
                "  {} {} {} {} {}",
                host_end(e.number),
                e.ifname,
                e.network,
                e.mac,
                addrs.join(" ")
            );
        }
        for p in &container.published {
            let _ = writeln!(text, "  {}", published(p));
        }
    }
    for (link, addrs) in &state.host.ghosts {
        let addrs: Vec<_> =
            addrs.iter().map(|(network, addr)| format!("{network} {addr}")).collect();
        let _ = writeln!(text, "ghost {link} {}", addrs.join(" "));
    }
    for (switch, turned) in &state.host.sysctls {
        let _ = writeln!(text, "switch {} {} (was {})", switch.0, turned.ours, turned.former);
    }
    text
}

fn published(p: &Published) -> String {
    let host = p.host.map_or_else(|| "*".to_owned(), |host| host.to_string());
    format!("{host} {} -> {} {}", p.host_port, p.container_port, p.proto)
}

/// Runs the lines and compares what was refused, and what stands at the end.
fn check(lines: &str, expected: Expect) {
    check_on(&mut Bench::new(), lines, expected);
}

#[track_caller]
fn check_on(bench: &mut Bench, lines: &str, expected: Expect) {
    let mut text = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let before = bench.world.saved.clone();
        match bench.ask(&parse(line)) {
            Ok(reply) => {
                for name in reply.reaped {
                    let _ = writeln!(text, "reaped {name}");
                }
            }
            Err(refusal) => {
                let _ = writeln!(text, "refused: {refusal}");
                assert!(bench.world.saved == before, "{line}");
            }
        }
        keeps_its_promises(&bench.world.saved, line);
    }
    text.push_str(&shown(&bench.world.saved));
    expected.assert_eq(&text);
}

/// What must hold of a whole state, counted from its containers and networks alone.
fn keeps_its_promises(state: &State, what: &str) {
    let containers = state.containers.all();
    let mut held: BTreeMap<&NetworkName, BTreeSet<IpAddr>> = BTreeMap::new();
    for (name, network) in state.networks.all() {
        let held = held.entry(name).or_default();
        for subnet in &network.subnets {
            assert!(held.insert(subnet.gateway), "{what}");
            assert!(subnet.reserved.values().all(|addr| held.insert(*addr)), "{what}");
        }
    }
    let endpoints = containers.values().flat_map(|c| &c.endpoints);
    let live = endpoints.flat_map(|e| e.addrs.iter().map(|addr| (&e.network, *addr)));
    let ghosts = state.host.ghosts.values().flatten().map(|(network, addr)| (network, *addr));
    for (network, addr) in live.chain(ghosts) {
        assert!(held.get_mut(network).expect(what).insert(addr), "{what}: {addr} is there twice");
    }
    for (name, held) in &held {
        let leases = state.leases.get(name).expect(what);
        assert!(held.iter().all(|addr| leases.holds(*addr)), "{what}: {held:?} {leases:?}");
        assert_eq!(leases.count(), held.len(), "{what}: leases of {name}");
    }
    assert_eq!(state.leases.all().len(), state.networks.all().len(), "{what}");
    assert_eq!(state.host.networks as usize, state.networks.all().len(), "{what}");
    counts_are_exact(state, what);
}

fn counts_are_exact(state: &State, what: &str) {
    let mut views: BTreeMap<HostsView, u32> = BTreeMap::new();
    let mut claims: BTreeSet<(PortKey, Option<IpAddr>, ContainerName)> = BTreeSet::new();
    let mut forwards = 0;
    for (name, container) in state.containers.all() {
        container.view.iter().for_each(|view| *views.entry(view.clone()).or_default() += 1);
        let named = container.endpoints.iter().map(|e| &e.network);
        let named: BTreeSet<_> = named.filter(|n| n.as_str() != DEFAULT_NETWORK).cloned().collect();
        let reads = container.run.is_some() && !named.is_empty();
        assert_eq!(container.view, reads.then_some(HostsView(named)), "{what}: view of {name}");
        for p in &container.published {
            let key = PortKey { proto: p.proto, port: p.host_port };
            assert!(claims.insert((key, p.host, name.clone())), "{what}: {p:?} twice");
            forwards += u32::from(p.host.is_none_or(|a| a.is_loopback() || a.is_unspecified()));
        }
        let ifnames: BTreeSet<_> = container.endpoints.iter().map(|e| &e.ifname).collect();
        assert_eq!(ifnames.len(), container.endpoints.len(), "{what}: interfaces of {name}");
    }
    let rows = state.ports.all().iter();
    let promised: Vec<_> = rows
        .flat_map(|(key, row)| row.iter().map(|c| (*key, c.host, c.container.clone())))
        .collect();
    assert_eq!(promised.len(), claims.len(), "{what}: ports");
    assert_eq!(promised.into_iter().collect::<BTreeSet<_>>(), claims, "{what}: ports");
    assert_eq!(state.host.views, views, "{what}: views");
    assert_eq!(state.host.forwards, forwards, "{what}: forwards");
    let numbers = state.containers.all().values().flat_map(|c| &c.endpoints).map(|e| e.number);
    let numbers: Vec<_> = numbers.collect();
    let distinct: BTreeSet<_> = numbers.iter().collect();
    assert_eq!(distinct.len(), numbers.len(), "{what}: numbers");
    assert!(numbers.iter().all(|n| (1001..=state.host.serial).contains(n)), "{what}: numbers");
    let groups: BTreeSet<_> = state.networks.all().values().map(|n| n.number).collect();
    assert_eq!(groups.len(), state.networks.all().len(), "{what}: network numbers");
    assert!(state.host.sysctls.keys().all(|s| state.host.needed.contains_key(s)), "{what}");
}

#[test]
fn the_default_network_is_there_when_it_is_needed() {
    check(
        "put c1 ; attach c1 default
         put c2 ; attach c2 default
         attach c2 default
         attach c2 default ip=10.224.0.9
         detach c2 default ; attach c2 default ip=10.224.0.9 alias=db
         rm-network default",
        expect![[r#"
            refused: container c2 is on network default already, with another IPv4 address
            refused: alias db is refused: network default is the default one, which has no names
            refused: network default is in use by containers c1, c2
            network default #1 tx-default mtu 1450 10.224.0.0/22 gateway 10.224.0.1
            container c1
              txv1001 eth0 default 02:74:0a:e0:00:02 10.224.0.2
            container c2
              txv1002 eth0 default 02:74:0a:e0:00:03 10.224.0.3
            switch ipv4/ip_forward 1 (was 0)
        "#]],
    );
}

#[test]
fn the_default_network_goes_when_unused_and_comes_back() {
    check(
        "put c1 ; attach c1 default
         rm-network default
         detach c1 default ; rm-network default
         attach c1 default
         detach c1 default ; rm-network default ; attach c1 default",
        expect![[r#"
            refused: network default is in use by container c1
            network default #1 tx-default mtu 1450 10.224.0.0/22 gateway 10.224.0.1
            container c1
              txv1003 eth0 default 02:74:0a:e0:00:02 10.224.0.2
        "#]],
    );
}

#[test]
fn a_user_may_shape_the_default_network_first() {
    check(
        "network default subnet=10.9.0.0/24 ipv6
         put c1 ; attach c1 default
         put c2 ; attach c2 default ; publish c2 8080:80",
        expect![[r#"
            network default #1 tx-default mtu 1450 10.9.0.0/24 gateway 10.9.0.1 fd04:506:708:1::/64 gateway fd04:506:708:1::1
            container c1
              txv1001 eth0 default 02:74:0a:09:00:02 10.9.0.2 fd04:506:708:1::2
            container c2
              txv1002 eth0 default 02:74:0a:09:00:03 10.9.0.3 fd04:506:708:1::3
              * 8080 -> 80 tcp
            switch ipv4/ip_forward 1 (was 0)
            switch ipv6/conf/all/forwarding 1 (was 0)
        "#]],
    );
}

#[test]
fn networks_get_subnets_and_names() {
    check(
        "network web
         network web
         network web internal
         network web subnet=10.5.0.0/24
         network v6 ipv6 no-ipv4
         network a-very-long-name mtu=9000
         network abcdefghijkl
         network two subnet=10.1.0.0/24 subnet=10.2.0.0/24 range=10.2.0.128/25 reserve=10.2.0.9
         network mine bridge=tx-own
         network web-2 bridge=tx-own
         network web-2 bridge=br0
         rm-network v6
         network next ipv6",
        expect![[r#"
            refused: network web exists already, with another choice of internal
            refused: network web exists already, with another subnet
            refused: network web-2 cannot have bridge tx-own: another network has it
            refused: network web-2 cannot have bridge br0: the names of Twinax's bridges start with tx-, as in tx-web
            network a-very-long-name #3 tx-a-very-3 mtu 9000 10.224.4.0/22 gateway 10.224.4.1
            network abcdefghijkl #4 tx-abcdefghijkl mtu 1450 10.224.8.0/22 gateway 10.224.8.1
            network mine #6 tx-own mtu 1450 10.224.12.0/22 gateway 10.224.12.1
            network next #2 tx-next mtu 1450 10.224.16.0/22 gateway 10.224.16.1 fd04:506:708:2::/64 gateway fd04:506:708:2::1
            network two #5 tx-two mtu 1450 10.1.0.0/24 gateway 10.1.0.1 10.2.0.0/24 gateway 10.2.0.1
            network web #1 tx-web mtu 1450 10.224.0.0/22 gateway 10.224.0.1
            switch ipv4/ip_forward 1 (was 0)
        "#]],
    );
}

#[test]
fn bad_networks_are_refused_with_a_reason() {
    let mut bench = Bench::new();
    bench.world.facts.subnets = ["192.168.1.0/24", "0.0.0.0/0", "128.0.0.0/1"]
        .map(|net| net.parse().expect("a subnet"))
        .to_vec();
    check_on(
        &mut bench,
        "network old subnet=10.1.0.0/16
         network n subnet=10.1.2.0/24
         network n subnet=192.168.0.0/16
         network n subnet=10.3.0.5/24
         network n subnet=10.3.0.0/31
         network n subnet=fd00::/127
         network n subnet=127.1.0.0/16
         network n subnet=fe80::/64
         network n subnet=10.3.0.0/24 subnet=10.3.0.0/25
         network n subnet=10.3.0.0/24 range=10.4.0.0/25
         network n subnet=10.3.0.0/24 gateway=10.3.0.255
         network n subnet=10.3.0.0/24 gateway=10.4.0.1
         network n subnet=10.3.0.0/24 reserve=10.3.0.1
         network n no-ipv4
         network n no-ipv4 ipv6 subnet=10.3.0.0/24
         network n mtu=67
         network n ipv6 mtu=1279
         network n mtu=65536
         network n routed bridge=tx-n
         rm-network n",
        expect![[r#"
            refused: subnet 10.1.2.0/24 of network n overlaps 10.1.0.0/16 of network old
            refused: subnet 192.168.0.0/16 of network n overlaps 192.168.1.0/24, which this host has or routes to
            refused: network n cannot have subnet 10.3.0.5/24: that is an address in it; the subnet is 10.3.0.0/24
            refused: network n cannot have subnet 10.3.0.0/31: its prefix length goes from 8 to 30
            refused: network n cannot have subnet fd00::/127: its prefix length goes from 16 to 126
            refused: network n cannot have subnet 127.1.0.0/16: it is loopback, link-local, multicast or reserved
            refused: network n cannot have subnet fe80::/64: it is loopback, link-local, multicast or reserved
            refused: network n cannot have subnet 10.3.0.0/25: it overlaps 10.3.0.0/24
            refused: network n cannot have subnet 10.3.0.0/24: its range 10.4.0.0/25 is not within
            refused: network n cannot have subnet 10.3.0.0/24: its gateway address 10.3.0.255 is the broadcast address
            refused: network n cannot have subnet 10.3.0.0/24: its gateway address 10.4.0.1 is not within
            refused: network n cannot have subnet 10.3.0.0/24: its printer address 10.3.0.1 is its gateway address too
            refused: network n cannot have no IPv4: without IPv6 either, its containers would have no address
            refused: network n cannot have an IPv4 subnet: it was asked to have no IPv4
            refused: network n cannot have an MTU of 67: it goes from 68 to 65535 bytes
            refused: network n cannot have an MTU of 1279: it goes from 1280 to 65535 bytes
            refused: network n cannot have an MTU of 65536: it goes from 68 to 65535 bytes
            refused: network n cannot have bridge tx-n: the routed driver uses none
            refused: no network named n
            network old #1 tx-old mtu 1450 10.1.0.0/16 gateway 10.1.0.1
            switch ipv4/ip_forward 1 (was 0)
        "#]],
    );
}

#[test]
fn addresses_are_fixed_or_chosen() {
    check(
        "network web subnet=10.1.0.0/29 subnet=fd01::/64 reserve=fd01::9
         put c1 ; attach c1 web ip=10.1.0.4 ip6=fd01::ffff:0:1
         put c2 ; attach c2 web ip=10.1.0.4
         put c2 ; attach c2 web ip=10.1.0.1
         put c2 ; attach c2 web ip=10.1.0.7
         put c2 ; attach c2 web ip=10.1.0.0
         put c2 ; attach c2 web ip=10.2.0.1
         put c2 ; attach c2 web ip6=fd01::9
         put c2 ; attach c2 web
         put c3 ; attach c3 web
         put c4 ; attach c4 web
         put c5 ; attach c5 web
         put c6 ; attach c6 web
         rm c1
         put c6 ; attach c6 web ip=10.1.0.4
         network four
         attach c5 four ip6=fd01::77",
        expect![[r#"
            refused: 10.1.0.4 cannot be given out on network web: it is another container's
            refused: 10.1.0.1 cannot be given out on network web: it is the gateway's
            refused: 10.1.0.7 cannot be given out on network web: it is the broadcast address
            refused: 10.1.0.0 cannot be given out on network web: it is the address of the subnet itself
            refused: 10.2.0.1 is in no subnet of network web, which has 10.1.0.0/29
            refused: fd01::9 cannot be given out on network web: it is reserved for printer
            refused: no IPv4 address is left on network web, which has 10.1.0.0/29
            refused: network four has no IPv6, so c5 cannot have fd01::77 there
            network four #2 tx-four mtu 1450 10.224.0.0/22 gateway 10.224.0.1
            network web #1 tx-web mtu 1450 10.1.0.0/29 gateway 10.1.0.1 fd01::/64 gateway fd01::1
            container c2 hosts web
              txv1002 eth0 web 02:74:0a:01:00:02 10.1.0.2 fd01::2
            container c3 hosts web
              txv1003 eth0 web 02:74:0a:01:00:03 10.1.0.3 fd01::3
            container c4 hosts web
              txv1004 eth0 web 02:74:0a:01:00:05 10.1.0.5 fd01::4
            container c5 hosts web
              txv1005 eth0 web 02:74:0a:01:00:06 10.1.0.6 fd01::5
            container c6 hosts web
              txv1006 eth0 web 02:74:0a:01:00:04 10.1.0.4 fd01::6
            switch ipv4/ip_forward 1 (was 0)
            switch ipv6/conf/all/forwarding 1 (was 0)
        "#]],
    );
}

#[test]
fn macs_and_interface_names() {
    check(
        "network web subnet=10.1.0.0/24
         network db subnet=10.2.0.0/24
         put c1 ; attach c1 web mac=02:00:00:00:00:01 ifname=lan0
         put c2 ; attach c2 web mac=02:74:0a:01:00:01
         put c2 ; attach c2 web mac=02:74:0a:01:00:40
         put c2 ; attach c2 web ip=10.1.0.64 mac=02:74:0a:01:00:40
         attach c2 db
         attach c1 db ifname=lan0
         attach c1 db ifname=lo
         attach c1 db
         attach c1 db ifname=eth7
         attach c1 web priority=5
         attach c1 web ifname=lan0 mac=02:00:00:00:00:01",
        expect![[r#"
            refused: MAC 02:74:0a:01:00:01 on network web is the gateway's
            refused: MAC 02:74:0a:01:00:40 on network web is kept for whoever has 10.1.0.64
            refused: container c1 cannot have another interface lan0
            refused: container c1 cannot have another interface lo
            refused: container c1 is on network db already, with another interface name
            refused: container c1 is on network web already, with another gateway priority
            network db #2 tx-db mtu 1450 10.2.0.0/24 gateway 10.2.0.1
            network web #1 tx-web mtu 1450 10.1.0.0/24 gateway 10.1.0.1
            container c1 hosts db+web
              txv1001 lan0 web 02:00:00:00:00:01 10.1.0.2
              txv1004 eth0 db 02:74:0a:02:00:03 10.2.0.3
            container c2 hosts db+web
              txv1002 eth0 web 02:74:0a:01:00:40 10.1.0.64
              txv1003 eth1 db 02:74:0a:02:00:02 10.2.0.2
            switch ipv4/ip_forward 1 (was 0)
        "#]],
    );
}

#[test]
fn only_a_namespace_of_its_own_can_be_attached() {
    check(
        "network web
         put h host
         attach h web
         put c1 ; attach c1 web
         put c2 of=c1
         attach c2 web
         publish c2 80:80
         put c3 of=c9
         attach c9 web
         attach c1 nowhere
         detach c1 nowhere
         detach c9 web
         rm c9
         exit c9 0",
        expect![[r#"
            refused: container h cannot be attached: it uses the network of the host
            refused: container c2 cannot be attached: it uses the network of container c1
            refused: container c2 cannot publish ports: it uses the network of container c1
            refused: no container named c9
            refused: no container named c9
            refused: no network named nowhere
            refused: container c1 is not attached to network nowhere
            refused: no container named c9
            refused: no container named c9
            network web #1 tx-web mtu 1450 10.224.0.0/22 gateway 10.224.0.1
            container c1 hosts web
              txv1001 eth0 web 02:74:0a:e0:00:02 10.224.0.2
            container c2
            container h
            switch ipv4/ip_forward 1 (was 0)
        "#]],
    );
}

#[test]
fn ports_are_promised_once() {
    let mut bench = Bench::new();
    bench.busy.insert(81, "nginx (pid 812)".to_owned());
    check_on(
        &mut bench,
        "network web subnet=10.1.0.0/24
         put c1 ; attach c1 web ; publish c1 8080:80 127.0.0.1@90:90 53:53/udp
         publish c1 8080:80
         publish c1 8080:81
         put c2 ; attach c2 web ; publish c2 8080:80
         put c2 ; attach c2 web ; publish c2 127.0.0.1@8080:80
         put c2 ; attach c2 web ; publish c2 90:90
         put c2 ; attach c2 web ; publish c2 192.0.2.1@90:90 8080:80/udp
         put c3 ; attach c3 web ; publish c3 0.0.0.0@90:90
         put c3 ; attach c3 web ; publish c3 81:80
         put c3 ; attach c3 web ; publish c3 80-82:80 7000-7002:7000-7002 80 90
         publish c3 80 80-82:80
         publish c3 80-82:81
         publish c3 7000-7001:7000-7002
         publish c3 0:80
         publish c3 224.0.0.1@99:99
         publish c3 fd00::1@99:99
         unpublish c3 7000-7001:7000-7001 0
         unpublish c3 7000:7000",
        expect![[r#"
            refused: host port 8080/tcp is taken by container c1
            refused: host port 8080/tcp is taken by container c1
            refused: host port 127.0.0.1:8080/tcp is taken by container c1
            refused: host port 90/tcp is taken by container c1
            refused: host port 0.0.0.0:90/tcp is taken by container c1
            refused: host port 81/tcp is taken by nginx (pid 812)
            refused: 2 host ports cannot lead to 3 container ports
            refused: ports 0-0 are not a range of ports from 1 to 65535
            refused: host address 224.0.0.1 cannot be listened on
            refused: nothing can be published from container c3: network web has no IPv6
            refused: container c3 does not publish 7000:7000/tcp; it publishes nothing
            network web #1 tx-web mtu 1450 10.1.0.0/24 gateway 10.1.0.1
            container c1 hosts web
              txv1001 eth0 web 02:74:0a:01:00:02 10.1.0.2
              * 8080 -> 80 tcp
              127.0.0.1 90 -> 90 tcp
              * 53 -> 53 udp
            container c2 hosts web
              txv1002 eth0 web 02:74:0a:01:00:03 10.1.0.3
              192.0.2.1 90 -> 90 tcp
              * 8080 -> 80 udp
            container c3 hosts web
              txv1003 eth0 web 02:74:0a:01:00:04 10.1.0.4
            switch ipv4/ip_forward 1 (was 0)
        "#]],
    );
}

#[test]
fn an_automatic_port_goes_on_from_the_last() {
    check(
        "put c1 ; attach c1 default ; publish c1 80 81 82 ; publish c1 127.0.0.1@83
         put c2 ; attach c2 default ; publish c2 80-86
         put c2 ; attach c2 default ; publish c2 80-85
         unpublish c1 80-81
         publish c1 70-71/udp
         publish c1 72",
        expect![[r#"
            refused: no tcp port is free in the ephemeral range of the host
            network default #1 tx-default mtu 1450 10.224.0.0/22 gateway 10.224.0.1
            container c1
              txv1001 eth0 default 02:74:0a:e0:00:02 10.224.0.2
              * 40002 -> 82 tcp
              127.0.0.1 40003 -> 83 tcp
              * 40000 -> 70 udp
              * 40001 -> 71 udp
              * 40000 -> 72 tcp
            container c2
              txv1002 eth0 default 02:74:0a:e0:00:03 10.224.0.3
              * 40004 -> 80 tcp
              * 40005 -> 81 tcp
              * 40006 -> 82 tcp
              * 40007 -> 83 tcp
              * 40008 -> 84 tcp
              * 40009 -> 85 tcp
            switch ipv4/ip_forward 1 (was 0)
        "#]],
    );
}

#[test]
fn ports_need_a_network_that_leads_out() {
    check(
        "network in internal
         network iso mode4=isolated
         network web
         put c1
         publish c1 80:80
         attach c1 in
         publish c1 80:80
         attach c1 iso
         publish c1 80:80
         attach c1 web
         publish c1 80:80
         publish c1 fd00::1@81:81 ::1@82:82
         publish c1 ::1@82:82
         detach c1 iso
         detach c1 web
         attach c1 default
         detach c1 web
         exit c1 3",
        expect![[r#"
            refused: nothing can be published from container c1: it is on no network
            refused: nothing can be published from container c1: network in is internal
            refused: nothing can be published from container c1: network in is internal, the gateway of network iso is isolated in IPv4
            refused: nothing can be published from container c1: network in is internal, network iso has no IPv6, network web has no IPv6
            refused: container c1 cannot leave network web, which carries 80->80/tcp, [::1]:82->82/tcp
            network default #4 tx-default mtu 1450 10.224.12.0/22 gateway 10.224.12.1
            network in #1 tx-in mtu 1450 10.224.0.0/22 gateway 10.224.0.1
            network iso #2 tx-iso mtu 1450 10.224.4.0/22 gateway 10.224.4.1
            network web #3 tx-web mtu 1450 10.224.8.0/22 gateway 10.224.8.1
            container c1 exited Some(3)
            ghost txv1001 in 10.224.0.2
            ghost txv1003 web 10.224.8.2
            ghost txv1004 default 10.224.12.2
            switch ipv4/ip_forward 1 (was 0)
        "#]],
    );
}

#[test]
fn the_dead_are_buried() {
    let mut bench = Bench::new();
    let lines = "network web subnet=10.1.0.0/24
         put c1 ; attach c1 web ; publish c1 80:80
         put c2 --rm ; attach c2 web
         put pid:7 ; attach pid:7 web
         put c3 ; attach c3 web";
    check_on(
        &mut bench,
        lines,
        expect![[r#"
        network web #1 tx-web mtu 1450 10.1.0.0/24 gateway 10.1.0.1
        container c1 hosts web
          txv1001 eth0 web 02:74:0a:01:00:02 10.1.0.2
          * 80 -> 80 tcp
        container c2 hosts web
          txv1002 eth0 web 02:74:0a:01:00:03 10.1.0.3
        container c3 hosts web
          txv1004 eth0 web 02:74:0a:01:00:05 10.1.0.5
        container pid:7
          txv1003 eth0 web 02:74:0a:01:00:04 10.1.0.4
        switch ipv4/ip_forward 1 (was 0)
    "#]],
    );
    bench.world.dead = ["c1", "c2", "pid:7"].map(|name| name.parse().expect("a name")).into();
    bench.world.lingering = [host_end(1001)].into();
    check_on(
        &mut bench,
        "attach c1 default
         publish pid:7 99:99
         rm c2
         detach pid:7 web
         exit c1 3
         put c4 ; attach c4 web ip=10.1.0.2
         put c4 ; attach c4 web ip=10.1.0.3
         rm-network web",
        expect![[r#"
            refused: container c1 is gone: its network namespace no longer exists
            refused: container pid:7 is gone: its network namespace no longer exists
            reaped pid:7
            refused: 10.1.0.2 cannot be given out on network web: it is held until link txv1001, cut before, is gone
            refused: network web is in use by containers c3, c4
            network web #1 tx-web mtu 1450 10.1.0.0/24 gateway 10.1.0.1
            container c1 exited Some(3)
            container c3 hosts web
              txv1004 eth0 web 02:74:0a:01:00:05 10.1.0.5
            container c4 hosts web
              txv1005 eth0 web 02:74:0a:01:00:03 10.1.0.3
            ghost txv1001 web 10.1.0.2
            switch ipv4/ip_forward 1 (was 0)
        "#]],
    );
}

#[test]
fn what_is_to_be_ended_lets_go_of_all_but_its_name() {
    let mut bench = Bench::new();
    check_on(
        &mut bench,
        "network web subnet=10.1.0.0/24
         put c1 ; attach c1 web ; publish c1 80:80
         put c2 --rm ; attach c2 web
         end c1 ; end c2
         end nobody
         put c1
         attach c1 web
         publish c1 80
         put c3 ; attach c3 web ip=10.1.0.2
         put c3 ; attach c3 web ; publish c3 80:80
         rm c3 ; rm-network web",
        expect![[r#"
            refused: container c1 exists already
            refused: container c1 is being ended
            refused: container c1 is being ended
            container c1 ending
            container c2 ending
        "#]],
    );
    check_on(
        &mut bench,
        "exit c1 137\nexit c2 137\nend c1",
        expect![[r#"
        container c1 exited Some(137)
    "#]],
    );
    check_on(
        &mut bench,
        "put c4\nend c4",
        expect![[r#"
        container c1 exited Some(137)
        container c4 ending
    "#]],
    );
    bench.world.dead = ["c4".parse().expect("a name")].into();
    assert_eq!(bench.ask(&Request::new()).map(|reply| reply.reaped.len()), Ok(1));
    check_on(
        &mut bench,
        "rm c1",
        expect![[r#"
        container c4 exited None
    "#]],
    );
}

#[test]
fn a_network_in_use_stays() {
    check(
        "network web
         put c1 ; attach c1 web
         put pid:7 ; attach pid:7 web
         rm-network web
         detach c1 web
         rm-network web
         detach pid:7 web ; rm-network web
         network web
         rm-network web",
        expect![[r#"
            refused: network web is in use by containers c1, pid:7
            refused: network web is in use by container pid:7
            container c1
        "#]],
    );
}

#[test]
fn the_first_on_a_network_and_the_next_look_at_their_own_rows_only() {
    let mut bench = Bench::new();
    let mut cost = |line: &str| {
        bench.ask(&parse(line)).unwrap_or_else(|refusal| panic!("{line}: {refusal}"));
        bench.looked_at_all
    };
    let lines = [
        ("network web", false),
        ("network db", false),
        ("put c1 ; attach c1 web", false),
        ("put c2 ; attach c2 web", false),
        ("put c3 ; attach c3 db ; attach c3 web", true),
        ("put c4 ; attach c4 db ; attach c4 web", false),
        ("put pid:7 ; attach pid:7 db", false),
        ("detach c3 db", false),
        ("rm c4 ; rm c3", false),
        ("put c5 ; attach c5 db", true),
        ("rm-network db ; network x", true),
    ];
    for (line, expected) in &lines[..10] {
        assert_eq!(cost(line), *expected, "{line}");
    }
    let refusal = bench.ask(&parse(lines[10].0)).expect_err("it is in use");
    assert_eq!(refusal.to_string(), "network db is in use by containers c5, pid:7");
}

#[test]
fn forwarding_is_turned_for_those_who_need_it() {
    let mut bench = Bench::new();
    check_on(
        &mut bench,
        "network in internal\nnetwork iso mode4=isolated",
        expect![[r#"
        network in #1 tx-in mtu 1450 10.224.0.0/22 gateway 10.224.0.1
        network iso #2 tx-iso mtu 1450 10.224.4.0/22 gateway 10.224.4.1
    "#]],
    );
    check_on(
        &mut bench,
        "network web\nnetwork six ipv6",
        expect![[r#"
        network in #1 tx-in mtu 1450 10.224.0.0/22 gateway 10.224.0.1
        network iso #2 tx-iso mtu 1450 10.224.4.0/22 gateway 10.224.4.1
        network six #4 tx-six mtu 1450 10.224.12.0/22 gateway 10.224.12.1 fd04:506:708:4::/64 gateway fd04:506:708:4::1
        network web #3 tx-web mtu 1450 10.224.8.0/22 gateway 10.224.8.1
        switch ipv4/ip_forward 1 (was 0)
        switch ipv6/conf/all/forwarding 1 (was 0)
    "#]],
    );
    check_on(
        &mut bench,
        "rm-network web ; rm-network six ; network again\nrm-network again",
        expect![[r#"
            network in #1 tx-in mtu 1450 10.224.0.0/22 gateway 10.224.0.1
            network iso #2 tx-iso mtu 1450 10.224.4.0/22 gateway 10.224.4.1
        "#]],
    );
}

fn word(options: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(options)
}

fn line() -> impl Strategy<Value = String> {
    let network = || word(&["default", "web", "db", "six"]);
    let container = || word(&["c1", "c2", "c3", "c4", "pid:7", "pid:8"]);
    let spec =
        word(&["", "internal", "ipv6", "ipv6 no-ipv4", "mode4=isolated", "subnet=10.1.0.0/29"]);
    let ports =
        word(&["80:80", "127.0.0.1@80:80", "80", "80-82:80", "81-82:81-82/udp", "::1@80:1"]);
    let ip = word(&["", "", "", "ip=10.1.0.3", "ifname=eth1", "alias=db", "priority=3"]);
    prop_oneof![
        2 => (network(), spec).prop_map(|(n, spec)| format!("network {n} {spec}")),
        1 => network().prop_map(|n| format!("rm-network {n}")),
        4 => (container(), network(), ip)
            .prop_map(|(c, n, ip)| format!("put {c} ; attach {c} {n} {ip}")),
        2 => (container(), network()).prop_map(|(c, n)| format!("attach {c} {n}")),
        2 => (container(), network()).prop_map(|(c, n)| format!("detach {c} {n}")),
        3 => (container(), ports).prop_map(|(c, ports)| format!("publish {c} {ports}")),
        1 => container().prop_map(|c| format!("unpublish {c} 80")),
        1 => container().prop_map(|c| format!("exit {c} 0")),
        1 => container().prop_map(|c| format!("end {c}")),
        1 => container().prop_map(|c| format!("rm {c}")),
        1 => container().prop_map(|c| format!("put {c} --rm")),
        1 => container().prop_map(|c| format!("die {c}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever is asked, promises are kept; and asking twice changes nothing.
    #[test]
    fn random_requests_keep_every_promise(
        requests in prop::collection::vec(prop::collection::vec(line(), 1..4), 1..40),
        lingering in prop::collection::btree_set(1001u32..1030, 0..10),
    ) {
        let mut bench = Bench::new();
        bench.world.lingering = lingering.into_iter().map(host_end).collect();
        for lines in requests {
            let (deaths, lines): (Vec<_>, Vec<_>) =
                lines.into_iter().partition(|line| line.starts_with("die "));
            bench.world.dead = deaths.iter().filter_map(|line| line[4..].parse().ok()).collect();
            let line = lines.join(" ; ");
            let request = if lines.is_empty() { Request::new() } else { parse(&line) };
            let before = bench.world.saved.clone();
            match bench.ask(&request) {
                Ok(_) => keeps_its_promises(&bench.world.saved, &line),
                Err(refusal) => {
                    prop_assert!(bench.world.saved == before, "{line}");
                    prop_assert!(!refusal.to_string().is_empty());
                }
            }
            prop_assert!(bench.world.saved.host.serial >= before.host.serial);
            bench.world.dead.clear();
            asked_twice(bench.clone(), &lines)?;
        }
    }
}

/// Asks each change alone, twice: the second time changes nothing but the ghosts laid to rest.
fn asked_twice(mut bench: Bench, lines: &[String]) -> Result<(), TestCaseError> {
    for line in lines {
        let request = parse(line);
        if bench.ask(&request).is_err() {
            continue;
        }
        keeps_its_promises(&bench.world.saved, line);
        // Looks after every cable that was cut, so that the next request finds none.
        bench.ask(&Request::new()).map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
        let once = bench.world.saved.clone();
        if bench.ask(&request).is_ok() {
            prop_assert_eq!(shown(&bench.world.saved), shown(&once), "{} again", line);
            prop_assert!(bench.world.saved == once, "{line} again");
        }
    }
    Ok(())
}

#[test]
fn an_address_moves_with_its_cable_in_one_request() {
    let mut bench = Bench::new();
    let lines = "network web subnet=10.1.0.0/24
         put c1 ; attach c1 web
         put c2 ; attach c2 web
         detach c1 web ; attach c1 web ip=10.1.0.2 ifname=lan0
         rm c1 ; attach c2 web ; put c3 ; attach c3 web ip=10.1.0.2";
    check_on(
        &mut bench,
        lines,
        expect![[r#"
        network web #1 tx-web mtu 1450 10.1.0.0/24 gateway 10.1.0.1
        container c2 hosts web
          txv1002 eth0 web 02:74:0a:01:00:03 10.1.0.3
        container c3 hosts web
          txv1004 eth0 web 02:74:0a:01:00:02 10.1.0.2
        switch ipv4/ip_forward 1 (was 0)
    "#]],
    );
}

#[test]
fn who_saw_an_exit_knows_how() {
    let mut bench = Bench::new();
    let lines = "network web mtu=65535\nput c1 ; attach c1 web ; publish c1 80";
    check_on(
        &mut bench,
        lines,
        expect![[r#"
        network web #1 tx-web mtu 65535 10.224.0.0/22 gateway 10.224.0.1
        container c1 hosts web
          txv1001 eth0 web 02:74:0a:e0:00:02 10.224.0.2
          * 40000 -> 80 tcp
        switch ipv4/ip_forward 1 (was 0)
    "#]],
    );
    bench.world.dead = ["c1".parse().expect("a name")].into();
    check_on(
        &mut bench,
        "detach c1 web ; exit c1 4\nunpublish c1 80 ; exit c1 4\nexit c1 5",
        expect![[r#"
            refused: container c1 cannot leave network web, which carries 40000->80/tcp
            network web #1 tx-web mtu 65535 10.224.0.0/22 gateway 10.224.0.1
            container c1 exited Some(4)
            ghost txv1001 web 10.224.0.2
            switch ipv4/ip_forward 1 (was 0)
        "#]],
    );
}

#[test]
fn a_port_given_back_is_not_given_out_at_once() {
    check(
        "put c1 ; attach c1 default ; publish c1 80
         unpublish c1 80
         publish c1 80
         put c1 ; attach c1 default
         publish c1 80",
        expect![[r#"
            network default #1 tx-default mtu 1450 10.224.0.0/22 gateway 10.224.0.1
            container c1
              txv1001 eth0 default 02:74:0a:e0:00:02 10.224.0.2
              * 40001 -> 80 tcp
            switch ipv4/ip_forward 1 (was 0)
        "#]],
    );
}

#[test]
fn refusals_say_what_to_do() {
    let mut bench = Bench::new();
    let mut hint = |line: &str| {
        let refusal = bench.ask(&parse(line)).expect_err(line);
        refusal.hint().unwrap_or_else(|| panic!("{refusal}: no hint"))
    };
    assert_eq!(hint("put c1 ; attach c1 web"), "twinax network create web");
    assert_eq!(
        hint("put c1 ; publish c1 80:80"),
        "attach it to a network that leads out and publish then"
    );
}

#[test]
fn a_thousand_containers_cost_the_next_nothing() {
    let mut bench = Bench::new();
    for n in 0..=1022 {
        let line = format!("put c{n} ; attach c{n} web");
        let line = if n == 0 { format!("network web subnet=10.1.0.0/16 ; {line}") } else { line };
        bench.ask(&parse(&line)).unwrap_or_else(|refusal| panic!("{line}: {refusal}"));
        assert!(!bench.looked_at_all, "{line}");
    }
    let refusal = bench.ask(&parse("put x ; attach x web")).expect_err("a bridge has 1,023 ports");
    assert_eq!(refusal.to_string(), "network web is full: a bridge has 1,023 ports");
    keeps_its_promises(&bench.world.saved, "1,023 containers");
}

#[test]
fn what_is_promised_can_be_stored() {
    let mut bench = Bench::new();
    let line = "network web ipv6 ; put c1 ; attach c1 web alias=db ; publish c1 80:80";
    bench.ask(&parse(line)).expect("it is granted");
    for row in bench.world.saved.changes_since(&State::default()) {
        let text = serde_json::to_string(&row).unwrap_or_else(|e| panic!("{row:?}: {e}"));
        let read: Row = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(read, row);
    }
}
