//! A host is broken in one way after the other, and `twinax doctor` finds that, and only that.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd},
};

use rustix::net::netlink::NETFILTER;
use serde_json::Value as Json;
use twinax::linux::{
    netlink::{Outgoing, Socket},
    nft::{NftOp, NftSocket},
};
use twinax_core::{
    doctor::CHECKS,
    name::Proto,
    ruleset::{Datum, ElementId, SetName, Value},
};

use crate::{
    harness::Outcome,
    product::{difference, soon, traces},
    sandbox::{Netns, Reach, Sandbox, Talk},
    tables, tests, wire,
};

tests![
    a_healthy_lab_is_clean,
    a_closed_switch_is_found,
    a_chain_that_drops_all_is_found,
    frames_dropped_by_the_firewall_for_ip_are_found,
    without_our_tables_nothing_is_translated_nor_led,
    what_is_there_twice_is_found,
    routes_that_lead_nowhere_are_found,
    what_cuts_a_container_off_its_network_is_found,
    frames_dropped_by_a_firewall_of_the_bridge_are_found,
    steps_in_size_are_found,
    a_cable_that_is_down_is_found,
    a_full_bridge_is_found,
    what_nobody_lives_in_is_found,
    ports_without_a_listener_are_found,
    a_port_of_two_is_found,
    a_flow_to_the_former_container_is_found,
    a_loopback_resolver_is_found,
    handles_checks_and_codes,
    looking_changes_nothing,
];

/// ```text
/// out ══ uplink, host ── tx-web ══ c1 (8080 → 7), c2
///  192.0.2.2    .1    ├─ tx-data ══ c2 (internal)
///                     └─ routed ═══ c3 (8081 → 7)
/// ```
struct Lab<'a> {
    sandbox: &'a Sandbox,
    out: Netns,
}

impl<'a> Lab<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        let out = sandbox.outside("uplink", &["192.0.2.1/24"], &["192.0.2.2/24"]);
        // It routes, as who is asked to.
        out.run(|| turn("ipv4/ip_forward", "1"));
        wire::add_route("uplink", any(), 0, Some(ip("192.0.2.2"))).unwrap();
        sandbox.done("network create --ipv6 --subnet 10.1.0.0/24 --subnet fd00:1::/64 web");
        sandbox.done("network create --internal --subnet 10.2.0.0/24 data");
        sandbox.done("network create --driver routed --subnet 10.3.0.0/24 edge");
        sandbox.start("c1", "--network web -p 8080:7");
        sandbox.start("c2", "--network web --network data");
        sandbox.start("c3", "--network edge -p 8081:7");
        // With br_netfilter a chain that drops would be found twice.
        for name in ["iptables", "ip6tables"] {
            drop(fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{name}"), "0"));
        }
        Self { sandbox, out }
    }

    fn report(&self, args: &str) -> (Json, Option<i32>) {
        let output = self.sandbox.try_line(&format!("doctor --json {args}"));
        let report = serde_json::from_str(&output.stdout);
        (report.unwrap_or_else(|_| panic!("{args}: {output:?}")), output.code)
    }

    /// What is found beside the namespace that this test itself hides.
    #[track_caller]
    fn finds(&self, checks: &[&str]) -> Json {
        let (report, code) = self.report("--skip hidden-namespace");
        let found = report["findings"].as_array().unwrap().iter();
        let found: BTreeSet<&str> = found.map(|it| it["check"].as_str().unwrap()).collect();
        assert_eq!(found, checks.iter().copied().collect(), "{report:#}");
        let code_of = |worst: &Json| match worst.as_str() {
            Some("problem") => 5,
            Some("warning") => 4,
            _ => 0,
        };
        assert_eq!(code, Some(code_of(&report["worst"])), "{report:#}");
        report
    }

    fn inside<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        self.sandbox.inside(name).netns.run(work)
    }

    fn host_end(&self, name: &str) -> String {
        let row = self.sandbox.row(name);
        row["networks"][0]["host_interface"].as_str().unwrap().to_owned()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn any() -> IpAddr {
    ip("0.0.0.0")
}

/// Turns a switch of the calling thread's namespace.
fn turn(switch: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{switch}"), value)
        .unwrap_or_else(|error| panic!("{switch}: {error}"));
}

/// Turns a switch while something is tried.
fn turned<T>(switch: &str, value: &str, work: impl FnOnce() -> T) -> T {
    let former = fs::read_to_string(format!("/proc/sys/net/{switch}")).unwrap();
    turn(switch, value);
    let outcome = work();
    turn(switch, former.trim_end());
    outcome
}

fn a_healthy_lab_is_clean(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    let report = lab.finds(&[]);
    let checks: BTreeSet<&str> = {
        let unchecked = report["not_checked"].as_array().unwrap().iter();
        unchecked.map(|it| it["check"].as_str().unwrap()).collect()
    };
    // The kernel shows this limit in namespaces of the first user namespace only.
    assert!(checks.is_subset(&BTreeSet::from(["neighbour-table-full"])), "{report:#}");
    Outcome::Passed
}

fn a_closed_switch_is_found(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    turned("ipv4/ip_forward", "0", || lab.finds(&["forwarding-off"]));
    turned("ipv6/conf/all/forwarding", "0", || lab.finds(&["forwarding-off"]));
    lab.inside("c1", || turn("ipv6/conf/eth0/disable_ipv6", "1"));
    // Its IPv6 default route went with the addresses, but its neighbours know the way out.
    let report = lab.finds(&["ipv6-disabled"]);
    assert_eq!(report["findings"][0]["about"][0], "c1 eth0");
    let end = lab.host_end("c1");
    lab.sandbox.done("rm -f c1");
    // The kernel takes the cable away a moment later.
    soon("the cable is gone", || wire::index(&end).is_err());

    let second = lab.sandbox.outside("uplink2", &["198.51.100.1/24"], &["198.51.100.2/24"]);
    second.run(|| turn("ipv4/ip_forward", "1"));
    wire::add_default("uplink2", ip("198.51.100.2"), 50).unwrap();
    turn("ipv4/conf/all/rp_filter", "0");
    turn("ipv4/conf/uplink/rp_filter", "0");
    lab.finds(&[]);
    turned("ipv4/conf/uplink2/rp_filter", "2", || lab.finds(&[]));
    turned("ipv4/conf/uplink2/rp_filter", "1", || lab.finds(&["rp-filter-strict"]));

    // A bridge is nobody's uplink, so one with an address of the internet does not count.
    wire::add_bridge("br6").unwrap();
    wire::add_addr("br6", ip("2001:db8:6::1"), 64).unwrap();
    wire::set_up("br6").unwrap();
    lab.finds(&[]);
    let third = lab.sandbox.namespace();
    wire::add_veth("uplink3", "eth0", third.as_fd().as_raw_fd()).unwrap();
    wire::add_addr("uplink3", ip("2001:db8:7::1"), 64).unwrap();
    wire::set_up("uplink3").unwrap();
    turned("ipv6/conf/uplink3/accept_ra", "1", || lab.finds(&["ipv6-default-route-lost"]));
    turned("ipv6/conf/uplink3/accept_ra", "2", || lab.finds(&[]));
    Outcome::Passed
}

/// Adds table `ip filter` with a chain FORWARD that drops what it does not accept, and it accepts
/// nothing: as Docker leaves it on a host with no bridge of its own.
fn drop_all() {
    drop_by_policy(libc::NFPROTO_IPV4 as u8);
}

/// The same in a family's tables: `NF_BR_FORWARD` has the number of `NF_INET_FORWARD`.
fn drop_by_policy(family: u8) {
    const NEWTABLE: u16 = 10 << 8;
    const NEWCHAIN: u16 = (10 << 8) | 3;
    let mut out = Outgoing::default();
    let edge = |out: &mut Outgoing, kind: i32| {
        out.message(kind as u16, 0, 0);
        out.body(&[0, 0, 0, 10]);
    };
    edge(&mut out, libc::NFNL_MSG_BATCH_BEGIN);
    out.message(NEWTABLE, libc::NLM_F_CREATE as u16, 1);
    out.body(&[family, 0, 0, 0]);
    out.text(1, "filter");
    out.message(NEWCHAIN, libc::NLM_F_CREATE as u16, 2);
    out.body(&[family, 0, 0, 0]);
    out.text(1, "filter");
    out.text(3, "FORWARD");
    out.text(7, "filter");
    let hook = out.open(4);
    out.be32(1, 2); // NF_INET_FORWARD
    out.be32(2, 0);
    out.close(hook);
    out.be32(5, 0); // NF_DROP
    out.ask_for_ack();
    edge(&mut out, libc::NFNL_MSG_BATCH_END);
    let mut socket = Socket::open(Some(NETFILTER)).unwrap();
    socket.send(out.bytes()).unwrap();
    let answer = socket.wait().unwrap();
    let refused = twinax::linux::netlink::messages(answer).find_map(|it| it.refusal());
    assert_eq!(refused, None);
}

fn a_chain_that_drops_all_is_found(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    let target = "192.0.2.2:9".parse().unwrap();
    let (c1, at) = (lab.sandbox.inside("c1").netns, "0.0.0.0:9".parse().unwrap());
    assert!(matches!(c1.reach(Talk::Tcp, &lab.out, at, target), Reach::Reached(_)));
    drop_all();
    // It is not only found, it is so.
    assert_eq!(c1.reach(Talk::Tcp, &lab.out, at, target), Reach::Timeout);
    let report = lab.finds(&["forward-dropped"]);
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 2, "the bridge, and the routed ones: {report:#}");
    let is_of = |it: &&Json| it["about"][0] == "host tx-web";
    let finding = findings.iter().find(is_of).unwrap();
    let drops = "chain FORWARD of table ip filter (policy drop) drops what comes from tx-web, and \
                 what goes there to published ports (8080/tcp)";
    assert_eq!(finding["what"], drops);
    let commands = finding["commands"].as_array().unwrap();
    assert!(commands.contains(&"iptables -I FORWARD -i tx-web -j ACCEPT".into()), "{finding:#}");
    Outcome::Passed
}

fn frames_dropped_by_the_firewall_for_ip_are_found(sandbox: &mut Sandbox) -> Outcome {
    const SWITCH: &str = "bridge/bridge-nf-call-iptables";
    if !fs::exists(format!("/proc/sys/net/{SWITCH}")).unwrap() {
        return Outcome::Skip("br_netfilter is not loaded".to_owned());
    }
    let lab = Lab::new(sandbox);
    turned(SWITCH, "1", || lab.finds(&[]));
    drop_all();
    turned(SWITCH, "1", || lab.finds(&["bridge-netfilter", "forward-dropped"]));
    Outcome::Passed
}

fn without_our_tables_nothing_is_translated_nor_led(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    tables::delete_tables().unwrap();
    lab.finds(&["masquerade-missing", "published-not-led"]);
    let repaired = lab.sandbox.try_line("repair");
    assert_eq!(repaired.code, Some(0), "{repaired:?}");
    lab.finds(&[]);
    Outcome::Passed
}

fn what_is_there_twice_is_found(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    let (c1, c2) = (lab.sandbox.inside("c1"), lab.sandbox.inside("c2"));
    c2.netns.run(|| wire::add_addr("eth0", c1.v4(), 24).unwrap());
    let report = lab.finds(&["duplicate-address"]);
    assert_eq!(report["findings"][0]["about"], serde_json::json!(["c1 eth0", "c2 eth0"]));
    c2.netns.run(|| wire::del_addr("eth0", c1.v4(), 24).unwrap());
    let mac = c1.netns.run(|| wire::mac("eth0").unwrap());
    let own = c2.netns.run(|| wire::mac("eth0").unwrap());
    c2.netns.run(|| wire::set_mac("eth0", mac).unwrap());
    lab.finds(&["duplicate-mac"]);
    c2.netns.run(|| wire::set_mac("eth0", own).unwrap());
    lab.finds(&[]);
    Outcome::Passed
}

/// ```text
/// host ── br0 10.9.0.1 ══ a 10.9.0.2, b 10.9.0.3
/// ```
fn by_hand(sandbox: &Sandbox) -> [Netns; 2] {
    wire::add_bridge("br0").unwrap();
    wire::add_addr("br0", ip("10.9.0.1"), 24).unwrap();
    wire::set_up("br0").unwrap();
    [("a", "10.9.0.2"), ("b", "10.9.0.3")].map(|(name, addr)| {
        let netns = sandbox.namespace();
        wire::add_veth(name, "eth0", netns.as_fd().as_raw_fd()).unwrap();
        wire::set_master(name, "br0").unwrap();
        wire::set_up(name).unwrap();
        netns.run(|| {
            wire::add_addr("eth0", ip(addr), 24).unwrap();
            wire::set_up("eth0").unwrap();
            wire::add_route("eth0", any(), 0, Some(ip("10.9.0.1"))).unwrap();
        });
        netns
    })
}

fn routes_that_lead_nowhere_are_found(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    let [_a, b] = by_hand(lab.sandbox);
    // Nobody translates for these; but others are translated, so that it may be meant.
    lab.finds(&["masquerade-missing"]);
    lab.out.run(|| {
        wire::add_route("eth0", ip("10.9.0.0"), 24, Some(ip("192.0.2.1"))).unwrap();
    });
    lab.finds(&[]);
    b.run(|| wire::del_default("eth0", ip("10.9.0.1")).unwrap());
    lab.finds(&["default-route-missing"]);
    b.run(|| wire::add_route("eth0", any(), 0, Some(ip("10.9.0.254"))).unwrap());
    lab.finds(&["gateway-unreachable"]);
    b.run(|| {
        wire::del_default("eth0", ip("10.9.0.254")).unwrap();
        wire::add_route("eth0", any(), 0, Some(ip("10.9.0.1"))).unwrap();
    });
    wire::add_route("uplink", ip("10.9.0.128"), 25, Some(ip("192.0.2.2"))).unwrap();
    lab.finds(&["subnet-overlap"]);
    Outcome::Passed
}

fn what_cuts_a_container_off_its_network_is_found(sandbox: &mut Sandbox) -> Outcome {
    const STATE: u16 = 1;
    const ISOLATED: u16 = 33;
    // Without the spanning tree protocol the kernel turns any other state into forwarding at once.
    const DISABLED: u8 = 0;
    const FORWARDING: u8 = 3;
    let lab = Lab::new(sandbox);
    lab.sandbox.done("network create --no-icc --subnet 10.4.0.0/24 alone");
    lab.sandbox.start("c4", "--network alone");
    lab.sandbox.start("c5", "--network alone");
    let [a, b] = by_hand(lab.sandbox);
    lab.out.run(|| {
        wire::add_route("eth0", ip("10.9.0.0"), 24, Some(ip("192.0.2.1"))).unwrap();
    });
    lab.finds(&[]);
    let (at, to_b) = ("0.0.0.0:9".parse().unwrap(), "10.9.0.3:9".parse().unwrap());
    let reaches = || matches!(a.reach(Talk::Tcp, &b, at, to_b), Reach::Reached(_));
    assert!(reaches());

    wire::set_port("a", STATE, DISABLED).unwrap();
    assert!(!reaches());
    let report = lab.finds(&["bridge-port-blocked"]);
    assert_eq!(report["findings"][0]["severity"], "problem");
    wire::set_port("a", STATE, FORWARDING).unwrap();
    wire::set_port("a", ISOLATED, 1).unwrap();
    lab.finds(&[]);
    wire::set_port("b", ISOLATED, 1).unwrap();
    assert!(!reaches());
    let report = lab.finds(&["bridge-port-blocked"]);
    assert_eq!(report["findings"][0]["severity"], "note");
    wire::set_port("a", ISOLATED, 0).unwrap();
    lab.finds(&[]);

    wire::blackhole(ip("10.9.0.2"), 32, true).unwrap();
    lab.finds(&["route-blackholed"]);
    wire::blackhole(ip("10.9.0.2"), 32, false).unwrap();
    let out = "192.0.2.2:9".parse().unwrap();
    let gets_out = || matches!(a.reach(Talk::Tcp, &lab.out, at, out), Reach::Reached(_));
    assert!(gets_out());
    wire::prohibit(ip("10.9.0.0"), 24, true).unwrap();
    assert!(!gets_out());
    lab.finds(&["route-blackholed"]);
    wire::prohibit(ip("10.9.0.0"), 24, false).unwrap();
    lab.finds(&[]);

    a.run(|| {
        wire::del_addr("eth0", ip("10.9.0.2"), 24).unwrap();
        wire::add_addr("eth0", ip("10.9.0.2"), 30).unwrap();
        wire::add_route("eth0", any(), 0, Some(ip("10.9.0.1"))).unwrap();
    });
    let report = lab.finds(&["prefix-mismatch"]);
    assert_eq!(report["findings"][0]["severity"], "warning");
    Outcome::Passed
}

fn frames_dropped_by_a_firewall_of_the_bridge_are_found(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    let (c1, c2) = (lab.sandbox.inside("c1"), lab.sandbox.inside("c2"));
    let (at, to) = ("0.0.0.0:9".parse().unwrap(), SocketAddr::new(c2.v4(), 9));
    assert!(matches!(c1.netns.reach(Talk::Tcp, &c2.netns, at, to), Reach::Reached(_)));
    drop_by_policy(libc::NFPROTO_BRIDGE as u8);
    assert_eq!(c1.netns.reach(Talk::Tcp, &c2.netns, at, to), Reach::Timeout);
    let report = lab.finds(&["bridge-dropped"]);
    let drops = "chain FORWARD of table bridge filter (policy drop) drops frames between ports of \
                 tx-web";
    assert_eq!(report["findings"][0]["what"], drops);
    Outcome::Passed
}

fn steps_in_size_are_found(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    lab.inside("c1", || wire::set_mtu("eth0", 1400).unwrap());
    lab.finds(&["mtu-step"]);
    lab.inside("c1", || wire::set_mtu("eth0", 1500).unwrap());
    wire::add_kind("vx0", "vxlan", None, &vxlan()).unwrap();
    lab.finds(&[]);
    // The kernel looks at a tunnel's size when that is set, not when the carrier's is.
    wire::set_mtu("uplink", 1490).unwrap();
    lab.out.run(|| wire::set_mtu("eth0", 1490).unwrap());
    lab.finds(&["mtu-tunnel", "mtu-uplink"]);
    wire::set_mtu("vx0", 1440).unwrap();
    lab.finds(&["mtu-uplink"]);
    Outcome::Passed
}

/// Its id, the link that carries it, and the port, by what linux/if_link.h numbers them.
fn vxlan() -> [(u16, &'static [u8]); 4] {
    let under = wire::index("uplink").unwrap().to_ne_bytes();
    let under: &'static [u8] = Box::leak(Box::new(under));
    [(1, &[42, 0, 0, 0]), (2, &[192, 0, 2, 9]), (3, under), (15, &[0x12, 0xb5])]
}

fn a_cable_that_is_down_is_found(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    for name in ["c1", "c3"] {
        let end = lab.host_end(name);
        wire::set_down(&end).unwrap();
        let (report, code) = lab.report("--only port-down");
        assert_eq!(code, Some(5), "{report:#}");
        assert_eq!(report["findings"].as_array().unwrap().len(), 1, "{report:#}");
        wire::set_up(&end).unwrap();
    }
    wire::set_down("tx-web").unwrap();
    let (report, _) = lab.report("--only port-down");
    assert_eq!(report["findings"][0]["about"][0], "host tx-web", "{report:#}");
    Outcome::Passed
}

fn a_full_bridge_is_found(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    wire::add_bridge("full").unwrap();
    let here = lab.sandbox.host().as_fd().as_raw_fd();
    for n in 0..460 {
        wire::add_veth(&format!("x{n}"), &format!("y{n}"), here).unwrap();
        wire::set_master(&format!("x{n}"), "full").unwrap();
        wire::set_master(&format!("y{n}"), "full").unwrap();
    }
    lab.finds(&["bridge-ports"]);
    wire::del_link("x0").unwrap();
    lab.finds(&[]);
    Outcome::Passed
}

fn what_nobody_lives_in_is_found(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    let (report, code) = lab.report("--only hidden-namespace");
    let what = report["findings"][0]["what"].as_str().unwrap();
    let own = format!("kept by descriptors of process {}", std::process::id());
    assert!(what.contains(&own) && what.contains("(eth0)"), "{what}");
    assert_eq!(code, Some(0), "a note is no failure");
    fs::create_dir_all("/run/netns").unwrap();
    fs::write("/run/netns/left", "").unwrap();
    let left = lab.sandbox.namespace();
    left.run(|| rustix::mount::mount_bind("/proc/thread-self/ns/net", "/run/netns/left").unwrap());
    drop(left);
    let report = lab.finds(&["orphan-namespace"]);
    assert_eq!(report["findings"][0]["commands"][0], "ip netns delete left");
    Outcome::Passed
}

fn ports_without_a_listener_are_found(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    lab.sandbox.done("publish c2 8090:90");
    lab.finds(&["published-no-listener"]);
    let only = lab.inside("c2", || TcpListener::bind("127.0.0.1:90").unwrap());
    lab.finds(&["published-loopback-listener"]);
    let _all = lab.inside("c2", || {
        drop(only);
        TcpListener::bind("0.0.0.0:90").unwrap()
    });
    lab.finds(&[]);
    Outcome::Passed
}

/// Twinax refuses that; so the record of one container is forged.
fn a_port_of_two_is_found(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    let runs = fs::read_dir("/run/twinax").unwrap().flatten().map(|entry| entry.path());
    let run = runs.into_iter().find(|path| path.join("containers/c1").is_dir()).unwrap();
    let path = |name: &str| run.join("containers").join(name).join("record.json");
    let record =
        |name: &str| -> Json { serde_json::from_slice(&fs::read(path(name)).unwrap()).unwrap() };
    let mut forged = record("c2");
    let container = forged.as_array_mut().unwrap().iter_mut().find(|it| it.is_object()).unwrap();
    let own = record("c1");
    let own = own.as_array().unwrap().iter().find(|it| it.is_object()).unwrap();
    container["published"] = own["published"].clone();
    fs::write(path("c2"), forged.to_string()).unwrap();
    lab.finds(&["published-conflict"]);
    Outcome::Passed
}

fn a_flow_to_the_former_container_is_found(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    lab.sandbox.done("publish c1 5353:53/udp");
    let (c1, c2) = (lab.sandbox.inside("c1"), lab.sandbox.inside("c2"));
    let at = "0.0.0.0:53".parse().unwrap();
    let reach = lab.out.reach(Talk::Udp, &c1.netns, at, "192.0.2.1:5353".parse().unwrap());
    assert!(matches!(reach, Reach::Reached(_)), "{reach:?}");
    let only = "--only conntrack-stale";
    assert_eq!(lab.report(only).1, Some(0));
    // Twinax would forget the flow; somebody who changes the map alone does not.
    let IpAddr::V4(c2) = c2.v4() else { panic!("an IPv4 address") };
    let key = vec![Datum::Proto(Proto::Udp), Datum::Port(5353)];
    let id = ElementId { set: SetName::Any4, key };
    let value = Value::Concat(vec![Datum::V4(c2), Datum::Port(53)]);
    let ops = [NftOp::Del { id: &id }, NftOp::Add { id: &id, value: &value, comment: "" }];
    NftSocket::open().unwrap().transact(&ops).unwrap();
    let (report, code) = lab.report(only);
    assert_eq!(code, Some(5), "{report:#}");
    let what = report["findings"][0]["what"].as_str().unwrap();
    assert!(what.contains("(c1), and the port leads to") && what.ends_with("(c2)"), "{what}");
    Outcome::Passed
}

fn a_loopback_resolver_is_found(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    lab.sandbox.start("c4", "--network web --dns 127.0.0.53");
    lab.finds(&["resolver-loopback"]);
    let c4 = lab.sandbox.inside("c4");
    let _answers = c4.netns.run(|| std::net::UdpSocket::bind("127.0.0.53:53").unwrap());
    lab.finds(&[]);
    Outcome::Passed
}

fn handles_checks_and_codes(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    lab.sandbox.done("publish c2 8090:90");
    let code = |args: &str| lab.sandbox.try_line(&format!("doctor {args}")).code;
    assert_eq!(code("c2"), Some(4));
    assert_eq!(code("tx-data"), Some(4), "c2 is on it");
    assert_eq!(code("c1"), Some(0));
    assert_eq!(code("edge"), Some(0));
    assert_eq!(code("--skip published-no-listener"), Some(0));
    assert_eq!(code("--only mtu-step --only mtu-tunnel"), Some(0));
    assert_eq!(code("--only no-such-check"), Some(2));
    assert_eq!(code("--list"), Some(0));
    let nobody = lab.sandbox.refused("doctor nobody");
    assert!(nobody.contains("nothing on this host is called nobody"), "{nobody}");
    let text = lab.sandbox.try_line("doctor").stdout;
    let first = text.lines().next().unwrap();
    assert_eq!(first, "warning published-no-listener: c2 *:8090/tcp", "{text}");
    assert!(text.contains("nobody in the container listens on 90/tcp; somebody does on 7"));
    let last = text.lines().last().unwrap();
    assert!(last.contains("0 problems, 1 warning, 1 note;"), "{text}");
    let list = lab.sandbox.try_line("doctor --list").stdout;
    assert!(CHECKS.iter().all(|check| list.contains(check.id)), "{list}");
    Outcome::Passed
}

fn looking_changes_nothing(sandbox: &mut Sandbox) -> Outcome {
    let lab = Lab::new(sandbox);
    drop_all();
    // What passes between them is counted: neighbours, flows. What there is stays.
    let (before, modules) = (traces(), fs::read_to_string("/proc/modules").ok());
    for _ in 0..3 {
        lab.finds(&["forward-dropped"]);
    }
    let after = traces();
    assert_eq!(difference(&before, &after), "", "something was changed");
    assert_eq!(fs::read_to_string("/proc/modules").ok(), modules);
    Outcome::Passed
}
