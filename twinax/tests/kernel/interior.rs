//! What namespaces have inside, planted by raw messages and read by the crate's own API; and
//! `inspect` and `peer` as a user types them.

use std::{
    fs,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
};

use rustix::net::netlink::NETFILTER;
use twinax::linux::{
    interior::{self, Switches, Wanted},
    netlink::{Outgoing, Socket},
    nft::{NftOp, NftSocket},
    wires,
};
use twinax_core::{
    firewall::{Action, Engine, Hook, MapDoes, What},
    interior::Interior,
    model::{LinkId, Netns},
    name::Proto,
    ruleset::{Datum, ElementId, SetName, Value, tables},
    sight::{Holder, Sight, Space},
};

use crate::{
    harness::Outcome,
    sandbox::{self, Sandbox},
    tests, wire,
};

tests![
    rules_and_routes_of_every_kind_are_read,
    a_planted_rule_is_understood,
    our_own_tables_are_understood,
    what_hangs_on_a_wire_is_read,
    of_few_links_is_told_what_is_told_of_many,
    switches_are_judged_as_their_files_have_them,
    a_namespace_without_anything_has_nothing,
    looking_inside_changes_nothing,
    inspect_tells_of_a_container,
    peer_tells_what_has_no_cable,
];

fn read(netns: &sandbox::Netns, wanted: Wanted) -> (Interior, Sight) {
    let mut sight = Sight::default();
    let holders = vec![Holder::Process { pid: std::process::id(), comm: String::new() }];
    sight.spaces.insert(Netns::Host, Space { holders, ..Space::default() });
    let given = [(Netns::Host, netns.as_fd())];
    wires::read(&given, &wires::Wanted::default(), &mut sight);
    interior::read(&given, wanted, &mut sight);
    let inside = sight.interiors.remove(&Netns::Host).unwrap();
    assert_eq!(inside.unseen, Vec::<String>::new());
    (inside, sight)
}

fn rules_and_routes_of_every_kind_are_read(sandbox: &mut Sandbox) -> Outcome {
    const RTM_NEWROUTE: u16 = 24;
    const RTM_NEWRULE: u16 = 32;
    const NEW: u16 = 0x400 | 0x200;
    let far = sandbox.namespace();
    let host = sandbox.host();
    let (inside, _) = host.run(|| {
        wire::add_veth("out", "in", std::os::fd::AsRawFd::as_raw_fd(&far.as_fd())).unwrap();
        far.run(|| wire::set_up("in").unwrap());
        wire::set_up("out").unwrap();
        wire::add_addr("out", "192.0.2.1".parse().unwrap(), 24).unwrap();
        let out = wire::index("out").unwrap();
        // from 10.0.0.0/8 fwmark 0x1/0xff lookup 100
        let mut rule = vec![2, 0, 8, 0, 100, 0, 0, 1, 0, 0, 0, 0];
        wire::attribute(&mut rule, 2, &[10, 0, 0, 0]);
        wire::attribute(&mut rule, 6, &99u32.to_ne_bytes());
        wire::attribute(&mut rule, 10, &1u32.to_ne_bytes());
        wire::attribute(&mut rule, 16, &255u32.to_ne_bytes());
        wire::request(RTM_NEWRULE, NEW, &rule).unwrap();
        // blackhole 198.51.100.0/24 in table 100; RTN_BLACKHOLE is 6.
        let mut route = vec![2, 24, 0, 0, 100, 4, 0, 6, 0, 0, 0, 0];
        wire::attribute(&mut route, 1, &[198, 51, 100, 0]);
        wire::request(RTM_NEWROUTE, NEW, &route).unwrap();
        // 203.0.113.0/24 by two gateways
        let mut hops = Vec::new();
        for last in [2u8, 3] {
            hops.extend([16, 0, 0, 0]);
            hops.extend(out.to_ne_bytes());
            hops.extend([8, 0, 5, 0, 192, 0, 2, last]);
        }
        let mut route = vec![2, 24, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        wire::attribute(&mut route, 1, &[203, 0, 113, 0]);
        wire::attribute(&mut route, 9, &hops);
        wire::request(RTM_NEWROUTE, NEW, &route).unwrap();
        read(host, Wanted { paths: true, ..Wanted::default() })
    });
    let rules: Vec<String> =
        inside.rules.iter().map(|r| format!("{}: {} {}", r.priority, r.when, r.action)).collect();
    assert!(
        rules.contains(&"99: from 10.0.0.0/8 fwmark 0x1/0xff lookup 100".to_owned()),
        "{rules:?}"
    );
    assert!(rules.contains(&"32766: from all lookup main".to_owned()), "{rules:?}");
    let route = |dst: &str| {
        let found = inside.routes.iter().find(|route| route.dst.to_string() == dst);
        found.unwrap_or_else(|| panic!("no route to {dst}: {:?}", inside.routes))
    };
    let black = route("198.51.100.0/24");
    assert_eq!((black.kind.as_str(), black.table, black.hops.len()), ("blackhole", 100, 0));
    let many = route("203.0.113.0/24");
    let via: Vec<_> = many.hops.iter().map(|hop| (hop.out.as_deref(), hop.via)).collect();
    let gateway = |last| Some(IpAddr::from([192, 0, 2, last]));
    assert_eq!(via, [(Some("out"), gateway(2)), (Some("out"), gateway(3))]);
    let own = route("192.0.2.0/24");
    assert_eq!((own.protocol.as_str(), own.src), ("kernel", gateway(1)));
    // The kernel's own ways to itself are left out.
    assert!(inside.routes.iter().all(|route| route.table != 255), "{:?}", inside.routes);
    Outcome::Passed
}

/// One expression, `NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA { numbers, value } }`.
fn step(out: &mut Outgoing, name: &str, numbers: &[(u16, u32)], value: Option<(u16, &[u8])>) {
    let element = out.open(1);
    out.text(1, name);
    let data = out.open(2);
    numbers.iter().for_each(|(kind, number)| out.be32(*kind, *number));
    if let Some((kind, bytes)) = value {
        let inner = out.open(kind);
        out.attr(1, bytes);
        out.close(inner);
    }
    out.close(data);
    out.close(element);
}

/// Plants `table ip planted`, whose chain leads tcp port 8080 to 10.1.0.2:80.
fn plant() {
    const NEW: u16 = 0x400;
    let mut socket = Socket::open(Some(NETFILTER)).unwrap();
    let mut out = Outgoing::default();
    let begin = |out: &mut Outgoing, kind: u16, seq| {
        out.message(kind, if kind > 255 { NEW | 0x4 } else { 0 }, seq);
        // nfgenmsg: NFPROTO_IPV4, version, and for the batch the subsystem's number.
        out.body(if kind > 255 { &[2, 0, 0, 0] } else { &[0, 0, 0, 10] });
    };
    begin(&mut out, 16, 1); // NFNL_MSG_BATCH_BEGIN
    begin(&mut out, 0xa00, 2); // NFT_MSG_NEWTABLE
    out.text(1, "planted");
    begin(&mut out, 0xa03, 3); // NFT_MSG_NEWCHAIN
    out.text(1, "planted");
    out.text(3, "in");
    let hook = out.open(4);
    out.be32(1, 0);
    out.be32(2, (-100i32).cast_unsigned());
    out.close(hook);
    out.text(7, "nat");
    begin(&mut out, 0xa06, 4); // NFT_MSG_NEWRULE
    out.text(1, "planted");
    out.text(2, "in");
    let steps = out.open(4);
    step(&mut out, "meta", &[(1, 1), (2, 16)], None);
    step(&mut out, "cmp", &[(1, 1), (2, 0)], Some((3, &[6])));
    step(&mut out, "payload", &[(1, 1), (2, 2), (3, 2), (4, 2)], None);
    step(&mut out, "cmp", &[(1, 1), (2, 0)], Some((3, &8080u16.to_be_bytes())));
    step(&mut out, "immediate", &[(1, 1)], Some((2, &[10, 1, 0, 2])));
    step(&mut out, "immediate", &[(1, 2)], Some((2, &80u16.to_be_bytes())));
    step(&mut out, "nat", &[(1, 1), (2, 2), (3, 1), (5, 2)], None);
    out.close(steps);
    begin(&mut out, 17, 5); // NFNL_MSG_BATCH_END
    socket.send(out.bytes()).unwrap();
    // Three acknowledgements, each of no error.
    for _ in 0..3 {
        let bytes = socket.wait().unwrap().to_vec();
        for message in twinax::linux::netlink::messages(&bytes) {
            assert_eq!(message.refusal(), None, "message {}", message.seq);
        }
    }
}

fn a_planted_rule_is_understood(sandbox: &mut Sandbox) -> Outcome {
    let host = sandbox.host();
    host.run(plant);
    let (inside, _) = read(host, Wanted { firewall: true, ..Wanted::default() });
    let [table] = inside.firewall.as_slice() else { panic!("{:?}", inside.firewall) };
    assert_eq!((table.engine, table.name.as_str()), (Engine::Nft, "planted"));
    let base = table.chains[0].base.as_ref().unwrap();
    assert_eq!(
        (base.kind.as_str(), base.hook, base.priority, base.drops),
        ("nat", Hook::Prerouting, -100, false)
    );
    let [rule] = table.chains[0].rules.as_slice() else { panic!("{:?}", table.chains) };
    let asked: Vec<&What> = rule.matches.iter().map(|one| &one.what).collect();
    assert_eq!(asked, [&What::Protocol(6), &What::DestinationPort(8080, 8080)]);
    let to: IpAddr = "10.1.0.2".parse().unwrap();
    assert_eq!(rule.action, Action::Dnat { addr: Some((to, to)), ports: Some((80, 80)) });
    assert_eq!(rule.to_string(), "tcp dport 8080 dnat to 10.1.0.2:80");
    let [led] = inside.led.as_slice() else { panic!("{:?}", inside.led) };
    assert_eq!((led.proto, led.host, led.host_ports), (Proto::Tcp, None, (8080, 8080)));
    assert_eq!((led.to, led.to_port), (to, Some(80)));
    assert_eq!(led.by, format!("ip planted in #{}", rule.handle));
    Outcome::Passed
}

fn our_own_tables_are_understood(sandbox: &mut Sandbox) -> Outcome {
    let host = sandbox.host();
    host.run(|| {
        let mut socket = NftSocket::open().unwrap();
        let key = vec![Datum::Proto(Proto::Udp), Datum::Port(5353)];
        let id = ElementId { set: SetName::Any4, key };
        let value = Value::Concat(vec![Datum::V4([10, 1, 0, 9].into()), Datum::Port(53)]);
        let add = NftOp::Add { id: &id, value: &value, comment: "x" };
        socket.transact(&[NftOp::PutTables, add]).unwrap();
    });
    let (inside, _) = read(host, Wanted { firewall: true, ..Wanted::default() });
    for wanted in tables() {
        let found = inside.firewall.iter().find(|table| {
            table.name == "twinax" && table.family.to_string() == wanted.name.family()
        });
        let found = found.unwrap_or_else(|| panic!("no table {}", wanted.name.family()));
        let count = found.chains.iter().map(|chain| chain.rules.len()).sum::<usize>();
        assert_eq!(count, wanted.chains.iter().map(|chain| chain.rules.len()).sum::<usize>());
        assert_eq!(found.chains.len(), wanted.chains.len());
    }
    let all = inside.firewall.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
    let by_map = |rule: &&twinax_core::firewall::Rule| matches!(&rule.action, Action::ByMap { map, does: MapDoes::Dnat, .. } if map == "any4");
    assert_eq!(all.filter(by_map).count(), 1);
    let [led] = inside.led.as_slice() else { panic!("{:?}", inside.led) };
    assert_eq!(
        (led.proto, led.host_ports, led.by.as_str()),
        (Proto::Udp, (5353, 5353), "inet twinax any4")
    );
    assert_eq!((led.to.to_string().as_str(), led.to_port), ("10.1.0.9", Some(53)));
    Outcome::Passed
}

fn what_hangs_on_a_wire_is_read(sandbox: &mut Sandbox) -> Outcome {
    const RTM_SETLINK: u16 = 19;
    const RTM_NEWQDISC: u16 = 36;
    let far = sandbox.namespace();
    let host = sandbox.host();
    let (_, sight) = host.run(|| {
        wire::add_veth("out", "in", std::os::fd::AsRawFd::as_raw_fd(&far.as_fd())).unwrap();
        wire::add_bridge("br").unwrap();
        wire::set_master("out", "br").unwrap();
        let index = wire::index("out").unwrap();
        // IFLA_PROTINFO { IFLA_BRPORT_MODE on, IFLA_BRPORT_LEARNING off } of AF_BRIDGE
        let mut port = vec![7, 0, 0, 0];
        port.extend(index.to_ne_bytes());
        port.extend([0; 8]);
        let mut settings = Vec::new();
        wire::attribute(&mut settings, 4, &[1]);
        wire::attribute(&mut settings, 8, &[0]);
        wire::attribute(&mut port, 12 | 0x8000, &settings);
        wire::request(RTM_SETLINK, 0, &port).unwrap();
        // struct tcmsg of a clsact qdisc: handle ffff:, parent TC_H_CLSACT.
        let mut qdisc = vec![0; 4];
        qdisc.extend(index.to_ne_bytes());
        qdisc.extend(0xffff_0000u32.to_ne_bytes());
        qdisc.extend(0xffff_fff1u32.to_ne_bytes());
        qdisc.extend([0; 4]);
        wire::attribute(&mut qdisc, 1, b"clsact\0");
        wire::request(RTM_NEWQDISC, 0x400 | 0x200, &qdisc).unwrap();
        read(host, Wanted { attached: true, ..Wanted::default() })
    });
    let out = &sight.attached[&LinkId::host("out".parse().unwrap())];
    assert_eq!(out.port, ["hairpin on", "learning off"]);
    assert!(out.qdiscs.contains(&"clsact".to_owned()), "{out:?}");
    assert_eq!(out.programs, []);
    Outcome::Passed
}

fn of_few_links_is_told_what_is_told_of_many(sandbox: &mut Sandbox) -> Outcome {
    const MANY: usize = 20;
    let (near, far) = (sandbox.namespace(), sandbox.namespace());
    near.run(|| wire::add_veth("out", "in", far.as_fd().as_raw_fd()).unwrap());
    let wanted = Wanted { attached: true, ..Wanted::default() };
    let tell = || {
        let (_, sight) = far.run(|| read(&far, wanted));
        let all = sight.attached.into_iter();
        all.filter(|(id, _)| !id.name.as_str().starts_with("br-")).collect::<Vec<_>>()
    };
    // Nothing of `in` was told since it has another end: whoever asks in there has it numbered.
    assert_eq!(far.run(wire::numbers_of_namespaces).unwrap(), Vec::<i32>::new());
    let never_up = tell();
    assert_eq!(never_up[0].1.qdiscs, Vec::<String>::new(), "{never_up:?}");
    assert_eq!(far.run(wire::numbers_of_namespaces).unwrap(), Vec::<i32>::new());
    near.run(|| wire::set_up("out").unwrap());
    far.run(|| wire::set_up("in").unwrap());
    let few = tell();
    let qdiscs: Vec<_> = few.iter().map(|(id, told)| (id.name.as_str(), &told.qdiscs)).collect();
    assert_eq!(qdiscs, [("in", &vec!["noqueue".to_owned()]), ("lo", &vec!["noqueue".to_owned()])]);
    far.run(|| (0..MANY).for_each(|n| wire::add_bridge(&format!("br-{n}")).unwrap()));
    assert_eq!(tell(), few);
    Outcome::Passed
}

fn switches_are_judged_as_their_files_have_them(sandbox: &mut Sandbox) -> Outcome {
    let host = sandbox.host();
    let far = sandbox.namespace();
    let (all, judged) = host.run(|| {
        wire::add_veth("out", "in", far.as_fd().as_raw_fd()).unwrap();
        wire::add_bridge("br").unwrap();
        for (name, value) in [
            ("ipv4/conf/out/rp_filter", "2"),
            ("ipv4/conf/all/src_valid_mark", "1"),
            ("ipv4/conf/out/forwarding", "1"),
            ("ipv4/conf/br/proxy_arp", "1"),
            ("ipv4/conf/all/proxy_arp", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/out/accept_ra", "2"),
            ("ipv6/conf/br/disable_ipv6", "1"),
            ("ipv6/conf/br/proxy_ndp", "1"),
            ("ipv6/conf/all/proxy_ndp", "1"),
        ] {
            fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
        }
        [Switches::All, Switches::Judged]
            .map(|switches| read(host, Wanted { switches: Some(switches), ..Wanted::default() }).0)
            .into()
    });
    let differ: Vec<_> = judged
        .switches
        .iter()
        .filter(|(name, value)| all.switches.get(*name) != Some(*value))
        .collect();
    assert_eq!(differ, [], "of {}", judged.switches.len());
    // All that checks ask for.
    let of_links = [
        "ipv4/conf/{}/rp_filter",
        "ipv4/conf/{}/forwarding",
        "ipv4/conf/{}/proxy_arp",
        "ipv6/conf/{}/forwarding",
        "ipv6/conf/{}/accept_ra",
        "ipv6/conf/{}/disable_ipv6",
        "ipv6/conf/{}/proxy_ndp",
    ];
    let of_links =
        of_links.iter().flat_map(|name| ["out", "br", "lo"].map(|link| name.replace("{}", link)));
    let others = [
        "ipv4/ip_forward",
        "ipv4/conf/all/rp_filter",
        "ipv4/conf/all/src_valid_mark",
        "ipv4/conf/all/proxy_arp",
        "ipv4/neigh/default/gc_thresh3",
        "ipv6/conf/all/forwarding",
        "ipv6/conf/all/proxy_ndp",
        "ipv6/neigh/default/gc_thresh3",
        "bridge/bridge-nf-call-iptables",
        "bridge/bridge-nf-call-ip6tables",
    ];
    let names = of_links.chain(others.map(ToOwned::to_owned));
    let missing: Vec<String> = names
        .filter(|name| all.switches.contains_key(name) && !judged.switches.contains_key(name))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
    let limit = |inside: &Interior| inside.conntrack.as_ref().map(|it| it.limit);
    assert_eq!(limit(&judged), limit(&all));
    Outcome::Passed
}

fn a_namespace_without_anything_has_nothing(sandbox: &mut Sandbox) -> Outcome {
    let empty = sandbox.namespace();
    let (inside, sight) = read(&empty, Wanted::ALL);
    assert_eq!((inside.firewall, inside.led, inside.routes), (vec![], vec![], vec![]));
    assert_eq!(inside.switches["ipv4/ip_unprivileged_port_start"], "1024");
    assert_eq!(sight.attached.len(), 1);
    let lines = fs::read_to_string("/etc/resolv.conf").unwrap();
    let servers = lines.lines().filter(|line| line.starts_with("nameserver")).count();
    assert_eq!(inside.resolver.map(|resolver| resolver.servers.len()), Some(servers));
    Outcome::Passed
}

fn looking_inside_changes_nothing(sandbox: &mut Sandbox) -> Outcome {
    let host = sandbox.host();
    host.run(plant);
    let modules = || {
        let names = fs::read_to_string("/proc/modules").unwrap_or_default();
        names
            .lines()
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let tables = || {
        let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).ok();
        host.run(|| {
            (
                read("ip_tables_names"),
                read("ip6_tables_names"),
                wire::numbers_of_namespaces().unwrap(),
            )
        })
    };
    let before = (modules(), tables());
    let (first, _) = read(host, Wanted::ALL);
    assert_eq!((modules(), tables()), before);
    // The ruleset's generation would move; handles and counters would, too.
    assert_eq!(read(host, Wanted::ALL).0.firewall, first.firewall);
    Outcome::Passed
}

fn inspect_tells_of_a_container(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    let one = sandbox.start("one", "--network web --dns 192.0.2.53 -p 8080:7");
    let found = sandbox.json("inspect one")["found"][0].clone();
    assert_eq!(
        (found["kind"].as_str(), found["title"].as_str()),
        (Some("container"), Some("container one (twinax)"))
    );
    assert_eq!(found["interior"]["resolver"]["servers"][0], "192.0.2.53");
    let ports = found["published"].as_array().unwrap();
    let [port] = ports.as_slice() else { panic!("{ports:?}") };
    assert_eq!(
        (port["host_ports"][0].as_u64(), port["container_port"].as_u64()),
        (Some(8080), Some(7))
    );
    assert_eq!((port["recorded"].as_bool(), port["listens"].as_str()), (Some(true), Some("yes")));
    assert_eq!(port["rules"][0], "inet twinax any4");
    assert_eq!(port["container_address"], one.v4().to_string());
    let text = sandbox.done("inspect one");
    for line in ["resolver\n", "routes\n", "listening\n", "  192.0.2.53\n", "listener ✓"] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    let bridge = sandbox.done("inspect tx-web");
    assert!(bridge.contains("members\n") && bridge.contains("⇄ eth0 one"), "{bridge}");
    assert!(sandbox.done("inspect network:web").contains("bridge tx-web\n"));
    assert!(sandbox.done(&format!("inspect {}", one.pid)).starts_with("namespace one\n"));
    let map = sandbox.done("map");
    let row = map.lines().find(|line| line.contains("published *:8080/tcp")).unwrap_or(&map);
    assert!(
        row.contains("→ one:7") && row.contains("DNAT inet twinax any4") && row.contains("✓"),
        "{row}"
    );
    let refused = sandbox.refused("inspect onne");
    assert!(
        refused.contains("nothing on this host is called onne")
            && refused.contains("did you mean one"),
        "{refused}"
    );
    sandbox.done("rm -f one");
    Outcome::Passed
}

fn peer_tells_what_has_no_cable(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    let one = sandbox.start("one", "--network web");
    let gateway = sandbox.gateways("web")[0];
    let told = sandbox.done(&format!("peer {gateway}"));
    assert!(told.contains("tx-web") && told.contains("bridge: with members txv"), "{told}");
    let json = sandbox.json(&format!("peer {gateway}"));
    assert_eq!(
        (json["cables"].as_array().map(Vec::len), &json["without_cable"][0]["name"]),
        (Some(0), &"tx-web".into())
    );
    for handle in
        ["one", "eth0@one", "one/eth0", &format!("pid:{}", one.pid), &one.v4().to_string()]
    {
        let json = sandbox.json(&format!("peer {handle}"));
        assert_eq!(json["cables"][0]["far"]["name"], "eth0", "{handle}: {json}");
        assert_eq!(json["cables"][0]["far"]["attached"]["qdiscs"][0], "noqueue", "{handle}");
        let text = sandbox.done(&format!("peer {handle}"));
        assert!(text.contains("▸ eth0") && text.contains("no BPF"), "{text}");
    }
    sandbox.done("rm -f one");
    Outcome::Passed
}
