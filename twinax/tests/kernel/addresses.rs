//! Addresses, names of interfaces and ways out: as asked, else chosen well, and never twice.

use std::{collections::BTreeSet, fs, net::IpAddr};

use serde_json::Value;

use crate::{
    harness::Outcome,
    product::{Inside, difference, links, traces},
    sandbox::{Reach, Sandbox, Talk},
    tests, wire,
};

tests![
    everything_as_asked,
    the_way_out_is_the_one_with_priority,
    no_address_is_given_out_twice,
    ranges_and_reserved_addresses_are_kept,
    several_subnets_of_a_family,
    subnets_on_the_host_are_avoided,
    the_mtu_is_the_uplinks,
    ipv6_alone,
    what_is_refused_changes_nothing,
];

/// The default route's link inside, per `/proc/net/route`; its gateway too.
fn default_route(inside: &Inside) -> Vec<(String, IpAddr)> {
    let table = inside.netns.run(|| fs::read_to_string("/proc/thread-self/net/route")).unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let defaults = rows.filter(|row| row[1] == "00000000" && row[7] == "00000000");
    defaults
        .map(|row| {
            let gateway = u32::from_str_radix(row[2], 16).unwrap();
            (row[0].to_owned(), IpAddr::from(gateway.to_ne_bytes()))
        })
        .collect()
}

fn names(inside: &Inside) -> BTreeSet<String> {
    inside.netns.run(links)
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn everything_as_asked(sandbox: &mut Sandbox) -> Outcome {
    sandbox
        .done("network create --subnet 10.1.0.0/24 --gateway 10.1.0.254 --subnet fd00:1::/64 web");
    let asked = "web,ip=10.1.0.77,ip6=fd00:1::77,mac=02:00:5e:00:53:01,ifname=lan0";
    let inside = sandbox.start("one", &format!("--network {asked}"));
    assert_eq!(names(&inside), set(["lo", "lan0"]));
    assert_eq!(default_route(&inside), [("lan0".to_owned(), "10.1.0.254".parse().unwrap())]);
    let row = sandbox.row("one")["networks"][0].clone();
    assert_eq!(row["mac"], "02:00:5e:00:53:01");
    assert_eq!(row["addresses"], serde_json::json!(["10.1.0.77", "fd00:1::77"]));
    // What is told is what is: the neighbour knows it by these, and it answers.
    let two = sandbox.start("two", "--network web");
    for addr in inside.addrs.clone() {
        let reach = two.netns.ask(Talk::Tcp, (addr, 7).into());
        assert_eq!(reach, Reach::Reached(two.of(addr.is_ipv6()).unwrap()));
    }
    let arp = two.netns.run(|| fs::read_to_string("/proc/thread-self/net/arp")).unwrap();
    assert!(arp.contains("02:00:5e:00:53:01"), "{arp}");
    let host = links();
    let outer = row["host_interface"].as_str().unwrap();
    assert!(host.contains(outer), "{outer} of {host:?}");
    Outcome::Passed
}

fn the_way_out_is_the_one_with_priority(sandbox: &mut Sandbox) -> Outcome {
    for (name, subnet) in [("one", "10.1.0.0/24"), ("two", "10.2.0.0/24"), ("three", "10.3.0.0/24")]
    {
        sandbox.done(&format!("network create --subnet {subnet} {name}"));
    }
    sandbox.done("network create --internal --subnet 10.4.0.0/24 closed");
    let way = |sandbox: &Sandbox| default_route(&sandbox.inside("c"));
    let route = |name: &str, gateway: &str| [(name.to_owned(), gateway.parse::<IpAddr>().unwrap())];
    let inside = sandbox.start("c", "--network closed,priority=9 --network one --network two");
    assert_eq!(names(&inside), set(["lo", "eth0", "eth1", "eth2"]));
    assert_eq!(way(sandbox), route("eth1", "10.1.0.1"), "the first that leads out");
    sandbox.done("network connect --priority 3 three c");
    assert_eq!(way(sandbox), route("eth3", "10.3.0.1"));
    sandbox.done("network disconnect three c");
    assert_eq!(way(sandbox), route("eth1", "10.1.0.1"));
    sandbox.done("network disconnect one c");
    assert_eq!(way(sandbox), route("eth2", "10.2.0.1"));
    sandbox.done("network disconnect two c");
    assert!(way(sandbox).is_empty(), "an internal network leads nowhere");
    sandbox.whole();
    Outcome::Passed
}

fn no_address_is_given_out_twice(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create --subnet 10.1.0.0/28 small");
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for n in 0..13 {
        let inside = sandbox.start(&format!("c{n}"), "--network small");
        assert!(seen.insert(inside.v4()), "{} twice", inside.v4());
        all.push(inside);
    }
    assert!(!seen.contains(&"10.1.0.1".parse().unwrap()), "the gateway's");
    let error = sandbox.refused("run -d --name late --network small -- /bin/sh -c :");
    assert!(error.contains("small"), "{error}");
    let error = sandbox.refused("run -d --network small,ip=10.1.0.5 -- /bin/sh -c :");
    assert!(error.contains("10.1.0.5"), "{error}");
    sandbox.done("rm -f c3");
    let again = sandbox.start("again", "--network small");
    assert_eq!(again.v4(), all[3].v4(), "the only one that is free");
    Outcome::Passed
}

fn ranges_and_reserved_addresses_are_kept(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done(
        "network create --subnet 10.1.0.0/24 --ip-range 10.1.0.128/29 \
         --aux-address printer=10.1.0.129 web",
    );
    let range: ipnet::Ipv4Net = "10.1.0.128/29".parse().unwrap();
    for n in 0..4 {
        let inside = sandbox.start(&format!("c{n}"), "--network web");
        let IpAddr::V4(addr) = inside.v4() else { panic!("an IPv4 address") };
        assert!(range.contains(&addr) && addr.octets()[3] != 129, "{addr}");
    }
    // A fixed address may lie outside the range, as with Docker.
    assert_eq!(sandbox.start("far", "--network web,ip=10.1.0.9").v4().to_string(), "10.1.0.9");
    sandbox.refused("run -d --network web,ip=10.1.0.129 -- /bin/sh -c :");
    Outcome::Passed
}

fn several_subnets_of_a_family(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create --subnet 10.1.0.0/29 --subnet 10.2.0.0/24 wide");
    let all: Vec<_> = (0..7).map(|n| sandbox.start(&format!("c{n}"), "--network wide")).collect();
    let last = &all[6];
    assert!(last.v4().to_string().starts_with("10.2.0."), "{}", last.v4());
    // Across the two subnets, and to each gateway.
    let reach = last.netns.ask(Talk::Tcp, (all[0].v4(), 7).into());
    assert_eq!(reach, Reach::Reached(last.v4()));
    let reach = all[0].netns.ask(Talk::Tcp, (last.v4(), 7).into());
    assert_eq!(reach, Reach::Reached(all[0].v4()));
    let gateways: Vec<IpAddr> = default_route(last).into_iter().map(|(_, via)| via).collect();
    assert_eq!(gateways, ["10.2.0.1".parse::<IpAddr>().unwrap()]);
    Outcome::Passed
}

fn subnets_on_the_host_are_avoided(sandbox: &mut Sandbox) -> Outcome {
    // Learn what would be chosen, then have it on the host.
    sandbox.done("network create --ipv6 probe");
    let chosen = sandbox.network("probe")["subnets"].clone();
    sandbox.done("network rm probe");
    let net = |n: usize| -> ipnet::IpNet { chosen[n]["subnet"].as_str().unwrap().parse().unwrap() };
    let _outside = sandbox.outside("uplink", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    wire::add_route(
        "uplink",
        net(0).addr(),
        net(0).prefix_len(),
        Some("192.0.2.2".parse().unwrap()),
    )
    .unwrap();
    sandbox.done("network create --ipv6 web");
    let web = sandbox.network("web");
    let first: ipnet::IpNet = web["subnets"][0]["subnet"].as_str().unwrap().parse().unwrap();
    assert!(!first.contains(&net(0)) && !net(0).contains(&first), "{first} is on the host");
    let error = sandbox.refused(&format!("network create --subnet {} taken", net(0)));
    assert!(error.contains("overlaps") && error.contains("host"), "{error}");
    let error = sandbox.refused(&format!("network create --subnet {first} taken"));
    assert!(error.contains("web"), "{error}");
    Outcome::Passed
}

fn the_mtu_is_the_uplinks(sandbox: &mut Sandbox) -> Outcome {
    let _outside = sandbox.outside("uplink", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    wire::set_mtu("uplink", 1400).unwrap();
    let any = "0.0.0.0".parse().unwrap();
    wire::add_route("uplink", any, 0, Some("192.0.2.2".parse().unwrap())).unwrap();
    sandbox.done("network create web");
    sandbox.done("network create --mtu 1300 narrow");
    for (network, mtu) in [("web", 1400), ("narrow", 1300)] {
        let row = sandbox.network(network);
        assert_eq!(row["mtu"], mtu);
        let inside = sandbox.start(&format!("in-{network}"), &format!("--network {network}"));
        assert_eq!(inside.netns.run(|| wire::mtu("eth0")).unwrap(), mtu);
        assert_eq!(wire::mtu(row["host_interface"].as_str().unwrap()).unwrap(), mtu);
    }
    Outcome::Passed
}

fn ipv6_alone(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create --no-ipv4 --ipv6 six");
    let (one, two) = (sandbox.start("one", "--network six"), sandbox.start("two", "--network six"));
    assert!(one.of(false).is_none());
    assert_eq!(two.netns.ask(Talk::Tcp, (one.v6(), 7).into()), Reach::Reached(two.v6()));
    let error = sandbox.refused("run -d --network six,ip=10.1.0.5 -- /bin/sh -c :");
    assert!(error.contains("IPv4"), "{error}");
    Outcome::Passed
}

fn what_is_refused_changes_nothing(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create --subnet 10.1.0.0/24 web");
    sandbox.start("one", "--network web,ip=10.1.0.5,ifname=lan0");
    sandbox.start("lone", "--network none");
    let state = |sandbox: &Sandbox| -> (Value, Value, String) {
        (sandbox.json("network inspect web"), sandbox.json("ps --all"), traces())
    };
    let before = state(sandbox);
    for (line, part) in [
        ("network create --subnet 10.1.0.0/25 other", "overlaps"),
        ("network create --subnet 10.1.0.0/24 --internal web", "exists already"),
        ("network create --subnet 10.9.0.0/24 --gateway 10.9.0.0 other", "10.9.0.0"),
        ("network rm web", "in use by"),
        ("network rm default", "default"),
        ("network rm nosuch", "nosuch"),
        ("network connect nosuch lone", "nosuch"),
        ("network connect web nosuch", "nosuch"),
        ("network connect --ip 10.1.0.5 web lone", "10.1.0.5"),
        ("network connect --ip 10.1.0.1 web lone", "gateway"),
        ("network connect --ip 10.1.0.255 web lone", "broadcast"),
        ("network connect --ip 10.2.0.5 web lone", "in no subnet"),
        ("network connect --ip6 fd00::5 web lone", "no IPv6"),
        ("network connect --ip 10.1.0.6 web one", "already"),
        ("network disconnect web lone", "not attached"),
        ("network inspect nosuch", "nosuch"),
        ("run -d --name one --network web -- /bin/sh -c :", "exists already"),
        ("run -d --name two --network web --network nosuch -- /bin/sh -c :", "nosuch"),
        ("exec nosuch -- /bin/sh -c :", "nosuch"),
        ("rm one", "one"),
        ("stop nosuch", "nosuch"),
        ("logs nosuch", "nosuch"),
        ("publish lone 8080:80", "lone"),
    ] {
        let error = sandbox.refused(line);
        assert!(error.contains(part), "{line}: {error}");
        let after = state(sandbox);
        assert_eq!((&before.0, &before.1), (&after.0, &after.1), "{line}");
        assert!(before.2 == after.2, "{line}:\n{}", difference(&before.2, &after.2));
    }
    for line in ["network create --subnet 10.1.0.1/24 x", "run", "publish one 1-3:1-2", "nonsense"]
    {
        assert_eq!(sandbox.try_line(line).code, Some(2), "{line}");
        assert_eq!(before.1, state(sandbox).1);
    }
    Outcome::Passed
}
