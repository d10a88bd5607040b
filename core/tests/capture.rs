//! Captured packets: the bytes of the file, the lines for people, and where to capture.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use twinax_core::{
    capture::{Tap, Untapped, taps},
    model::{LinkId, Netns},
    packet::summary,
    pcapng::{
        Direction, Interface, LinkType, Packet, Statistics, interface, packet, section, statistics,
    },
    sight::{Holder, LinkFacts, Runtime, Sight, Space, Workload},
};

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for row in bytes.chunks(16) {
        for word in row.chunks(4) {
            let _ =
                write!(text, "{} ", word.iter().map(|b| format!("{b:02x}")).collect::<String>());
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn check(bytes: &[u8], expect: Expect) {
    let length = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"));
    assert_eq!(length as usize, bytes.len());
    assert_eq!(bytes[4..8], bytes[bytes.len() - 4..]);
    assert_eq!(bytes.len() % 4, 0);
    expect.assert_eq(&hex(bytes));
}

#[test]
fn blocks_are_as_the_draft_has_them() {
    let bytes = section();
    assert_eq!(bytes[..12], [0x0a, 0x0d, 0x0d, 0x0a, 48, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a]);
    assert_eq!(bytes[12..24], [1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    let described = Interface {
        name: "con1/eth0".to_owned(),
        description: "con1".to_owned(),
        comment: "pid:7".to_owned(),
        link_type: LinkType::Ethernet,
        snap_length: 256,
        filter: "tcp".to_owned(),
    };
    check(
        &interface(&described),
        expect![[r#"
        01000000 4c000000 01000000 00010000
        02000900 636f6e31 2f657468 30000000
        03000400 636f6e31 01000500 7069643a
        37000000 09000100 09000000 0b000400
        00746370 00000000 4c000000
    "#]],
    );
    let one = Packet {
        interface: 1,
        time_ns: 0x0123_4567_89ab_cdef,
        direction: Direction::Out,
        length: 60,
        bytes: &[1, 2, 3, 4, 5],
    };
    check(
        &packet(&one),
        expect![[r#"
        06000000 34000000 01000000 67452301
        efcdab89 05000000 3c000000 01020304
        05000000 02000400 02000000 00000000
        34000000
    "#]],
    );
    let counted = Statistics {
        start_ns: 1 << 32,
        end_ns: 2 << 32 | 5,
        accepted: 7,
        dropped: 2,
        written: 5,
        all: true,
    };
    check(
        &statistics(1, &counted),
        expect![[r#"
        05000000 64000000 01000000 02000000
        05000000 02000800 01000000 00000000
        03000800 02000000 05000000 04000800
        07000000 00000000 06000800 07000000
        00000000 07000800 02000000 00000000
        08000800 05000000 00000000 00000000
        64000000
    "#]],
    );
    let filtered = statistics(1, &Statistics { all: false, ..counted });
    assert_eq!(filtered.len(), statistics(1, &counted).len() - 12);
}

#[test]
fn a_text_of_any_length_is_an_option() {
    let long = Interface {
        name: "é".repeat(40_000),
        description: String::new(),
        comment: String::new(),
        link_type: LinkType::RawIp,
        snap_length: 0,
        filter: String::new(),
    };
    let bytes = interface(&long);
    assert!(bytes.len() < 5000, "{}", bytes.len());
    let length = usize::from(u16::from_le_bytes([bytes[18], bytes[19]]));
    assert!(std::str::from_utf8(&bytes[20..20 + length]).is_ok());
}

fn ethernet(kind: u16, rest: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &kind.to_be_bytes()[..], rest].concat()
}

fn v4(proto: u8, fragment: u16, rest: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend((20 + rest.len() as u16).to_be_bytes());
    ip.extend([0, 0]);
    ip.extend(fragment.to_be_bytes());
    ip.extend([64, proto, 0, 0, 10, 1, 0, 2, 10, 1, 0, 3]);
    ethernet(0x0800, &[&ip, rest].concat())
}

fn v6(proto: u8, rest: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend((rest.len() as u16).to_be_bytes());
    ip.extend([proto, 64]);
    for last in [2, 3] {
        ip.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    ethernet(0x86dd, &[&ip, rest].concat())
}

fn tcp(flags: u8, data: usize) -> Vec<u8> {
    let mut tcp = vec![0x30, 0x39, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0];
    tcp.resize(20 + data, 0);
    tcp
}

fn dns(flags: u16, answers: u8, label: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 9];
    message.extend(flags.to_be_bytes());
    message.extend([0, 1, 0, answers, 0, 0, 0, 0, label.len() as u8]);
    message.extend(label);
    message.extend([3, b'c', b'o', b'm', 0, 0, 28, 0, 1]);
    let mut udp = vec![0x30, 0x39, 0, 53];
    udp.extend((8 + message.len() as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(message);
    udp
}

#[test]
fn packets_are_told_in_a_line() {
    let arp = |operation: u8, to: u8| {
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 2, 10, 1, 0, 2];
        arp.extend([0, 0, 0, 0, 0, 0, 10, 1, 0, to]);
        ethernet(0x0806, &arp)
    };
    let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0, 0xfd][..], &[0; 14], &[7]].concat();
    let packets = [
        v4(6, 0, &tcp(0x02, 0)),
        v4(6, 0, &tcp(0x18, 5)),
        v6(6, &tcp(0x14, 0)),
        v4(17, 0, &[0x30, 0x39, 0, 7, 0, 10, 0, 0, 1, 2]),
        v6(17, &dns(0x0100, 0, b"a")),
        v4(17, 0, &dns(0x8180, 2, b"\x1b[2Jx")),
        v4(17, 0, &dns(0x8183, 0, b"a")),
        v4(1, 0, &[8, 0, 0, 0, 0, 3, 0, 1]),
        v4(1, 0, &[3, 4, 0, 0, 0, 0, 5, 0x78]),
        v4(1, 0, &[3, 3, 0, 0]),
        v6(58, &solicitation),
        v6(58, &[2, 0, 0, 0, 0, 0, 5, 0]),
        v4(17, 0x2010, &[0; 8]),
        v4(47, 0, &[0; 8]),
        arp(1, 3),
        arp(1, 2),
        arp(2, 3),
        ethernet(0x8100, &[&[0x60, 5][..], &v4(6, 0, &tcp(0x11, 0))[12..]].concat()),
        ethernet(0x88cc, &[0; 9]),
        ethernet(0x0026, &[0; 9]),
        v4(6, 0, &tcp(0x02, 0))[..40].to_vec(),
        vec![1, 2, 3],
    ];
    let lines =
        packets.map(|packet| summary(LinkType::Ethernet, &packet, packet.len() as u32) + "\n");
    expect![[r#"
        10.1.0.2:12345 > 10.1.0.3:80 TCP SYN, 54 bytes
        10.1.0.2:12345 > 10.1.0.3:80 TCP PSH ACK with 5, 59 bytes
        [fd00::2]:12345 > [fd00::3]:80 TCP RST ACK, 74 bytes
        10.1.0.2:12345 > 10.1.0.3:7 UDP with 2, 44 bytes
        [fd00::2]:12345 > [fd00::3]:53 DNS AAAA? a.com., 85 bytes
        10.1.0.2:12345 > 10.1.0.3:53 DNS AAAA \x1b[2Jx.com. 2 answers, 69 bytes
        10.1.0.2:12345 > 10.1.0.3:53 DNS AAAA a.com. no such name, 65 bytes
        10.1.0.2 > 10.1.0.3 ICMP echo request id 3 seq 1, 42 bytes
        10.1.0.2 > 10.1.0.3 ICMP fragmentation needed, mtu 1400, 42 bytes
        10.1.0.2 > 10.1.0.3 ICMP port unreachable, 38 bytes
        fd00::2 > fd00::3 ICMPv6 who has fd00::7?, 78 bytes
        fd00::2 > fd00::3 ICMPv6 packet too big, mtu 1280, 62 bytes
        10.1.0.2 > 10.1.0.3 IPv4 fragment from byte 128 on, 42 bytes
        10.1.0.2 > 10.1.0.3 GRE, 42 bytes
        ARP who has 10.1.0.3? tell 10.1.0.2, 42 bytes
        ARP 10.1.0.2 is announced, 42 bytes
        ARP 10.1.0.2 is at 02:00:00:00:00:02, 42 bytes
        vlan 5 10.1.0.2:12345 > 10.1.0.3:80 TCP FIN ACK, 58 bytes
        ethertype 0x88cc 02:00:00:00:00:02 > 02:00:00:00:00:01, 23 bytes
        LLC 02:00:00:00:00:02 > 02:00:00:00:00:01, 23 bytes
        10.1.0.2:12345 > 10.1.0.3:80 (cut short), 40 bytes
        (cut short), 3 bytes
    "#]]
    .assert_eq(&lines.concat());
    let raw = v4(6, 0, &tcp(0x02, 0)).split_off(14);
    assert_eq!(
        summary(LinkType::RawIp, &raw, 40),
        "10.1.0.2:12345 > 10.1.0.3:80 TCP SYN, 40 bytes"
    );
}

proptest! {
    /// Whatever is sent: a line, and nothing in it that a terminal would obey.
    #[test]
    fn no_packet_is_too_much(
        kind in prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x0806), Just(0x8100), any::<u16>()],
        rest in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let told = summary(LinkType::Ethernet, &ethernet(kind, &rest), 1);
        prop_assert!(!told.chars().any(char::is_control), "{told:?}");
        let _ = summary(LinkType::RawIp, &rest, 1);
    }
}

fn netns(name: &str) -> Netns {
    match name {
        "host" => Netns::Host,
        name => Netns::Container(name.parse().expect("well written")),
    }
}

fn link(at: &str) -> LinkId {
    let (place, name) = at.rsplit_once('/').expect("well written");
    LinkId { netns: netns(place), name: name.parse().expect("well written") }
}

fn put(sight: &mut Sight, at: &str, index: u32, kind: &str) {
    let facts = LinkFacts { index, kind: kind.to_owned(), ..LinkFacts::default() };
    sight.links.insert(link(at), facts);
}

fn cable(sight: &mut Sight, outer: &str, inner: &str, index: u32, addr: &str) {
    put(sight, outer, index, "veth");
    put(sight, inner, 2, "veth");
    for (near, far) in [(outer, inner), (inner, outer)] {
        sight.links.get_mut(&link(near)).expect("there").leads_to = Some(link(far));
    }
    sight.links.get_mut(&link(outer)).expect("there").master = Some(link("host/docker0"));
    let addr = addr.parse().expect("well written");
    sight.links.get_mut(&link(inner)).expect("there").addrs.push(addr);
}

fn container(sight: &mut Sight, handle: &str, name: &str, runtime: Runtime) {
    let pid = handle.strip_prefix("pid:").and_then(|pid| pid.parse().ok());
    let workload = Workload {
        runtime,
        id: format!("{name}0123456789ab"),
        name: name.to_owned(),
        image: None,
        pod: None,
        pid,
        netns_path: None,
        networks: Vec::new(),
        published: Vec::new(),
        labels: Default::default(),
    };
    let holders = vec![Holder::Process { pid: pid.unwrap_or(1), comm: "x".to_owned() }];
    let space = Space {
        inode: 1000 + u64::from(pid.unwrap_or(0)),
        cookie: None,
        holders,
        workloads: vec![workload],
    };
    sight.spaces.insert(netns(handle), space);
}

fn host() -> Sight {
    let mut sight = Sight::default();
    sight.spaces.insert(Netns::Host, Space::default());
    put(&mut sight, "host/eth0", 2, "");
    put(&mut sight, "host/docker0", 3, "bridge");
    put(&mut sight, "host/br-empty", 4, "bridge");
    container(&mut sight, "pid:11", "con1", Runtime::Docker);
    container(&mut sight, "pid:12", "con2", Runtime::Docker);
    container(&mut sight, "pid:13", "twice", Runtime::Docker);
    container(&mut sight, "pid:14", "twice", Runtime::Podman);
    container(&mut sight, "pid:15", "blind", Runtime::Podman);
    let mut change = |handle: &str, id: &str, network: &str| {
        let space = sight.spaces.get_mut(&netns(handle)).expect("there");
        space.workloads[0].networks.push(network.to_owned());
        if !id.is_empty() {
            space.workloads[0].id = id.to_owned();
        }
    };
    change("pid:11", "", "apps");
    change("pid:13", "twice-of-docker", "macs");
    change("pid:14", "twice-of-podman", "");
    cable(&mut sight, "host/veth1", "pid:11/eth0", 7, "172.17.0.2/16");
    cable(&mut sight, "host/veth2", "pid:12/eth0", 8, "172.17.0.3/16");
    cable(&mut sight, "host/veth3", "pid:12/eth1", 9, "172.18.0.3/16");
    put(&mut sight, "pid:11/lo", 1, "");
    put(&mut sight, "pid:13/mv0", 5, "macvlan");
    put(&mut sight, "pid:14/lo", 1, "");
    // One that has more than its cable.
    container(&mut sight, "pid:16", "vpn", Runtime::Docker);
    cable(&mut sight, "host/veth4", "pid:16/eth0", 10, "172.19.0.2/16");
    put(&mut sight, "pid:16/lo", 1, "");
    put(&mut sight, "pid:16/wg0", 6, "wireguard");
    sight
}

fn names(handle: &str, both: bool) -> String {
    let sight = host();
    match taps(&sight, handle, both) {
        Ok(taps) => taps.iter().map(|tap| tap.name.as_str()).collect::<Vec<_>>().join(" "),
        Err(why) => format!("{why:?}"),
    }
}

#[test]
fn a_handle_means_its_own_end() {
    for (handle, expected) in [
        ("con1", "con1/eth0"),
        ("con1/eth0", "con1/eth0"),
        ("con1/lo", "con1/lo"),
        ("pid:11/eth0", "con1/eth0"),
        ("con10123", "con1/eth0"),
        ("172.17.0.3", "con2/eth0"),
        ("con2", "con2/eth0 con2/eth1"),
        ("veth1", "veth1"),
        ("veth1@if2", "veth1"),
        ("2@con1", "con1/eth0"),
        ("eth0", "eth0"),
        ("host/eth0", "eth0"),
        ("docker0", "veth1 veth2 veth3 veth4"),
        ("pid:13", "twice/mv0"),
        ("vpn", "vpn/eth0 vpn/wg0"),
        ("container:vpn", "vpn/eth0 vpn/wg0"),
        ("host", "br-empty docker0 eth0 veth1 veth2 veth3 veth4"),
        ("pid:14", "twice/lo"),
        ("br-empty", "NoMembers"),
        ("nobody", "Unknown"),
        ("nobody/eth0", "Unknown"),
        ("blind", "Unseen(\"blind\")"),
        ("container:con1", "con1/eth0"),
        ("net:[1011]", "con1/eth0"),
        // A network: its bridge's members, or the interfaces of those on it.
        ("network:apps", "veth1 veth2 veth3 veth4"),
        ("macs", "twice/mv0"),
    ] {
        assert_eq!(names(handle, false), expected, "{handle}");
    }
    assert_eq!(names("con1", true), "con1/eth0 veth1");
    assert_eq!(
        names("docker0", true),
        "veth1 veth2 veth3 veth4 con1/eth0 con2/eth0 con2/eth1 vpn/eth0"
    );
}

#[test]
fn those_called_alike_are_listed() {
    let sight = host();
    let Err(Untapped::Ambiguous(2, lines)) = taps(&sight, "twice", false) else {
        panic!("there are two")
    };
    expect![[r#"
        container twice (docker)  (twinax capture container:twice-of-docker)
        container twice (podman)  (twinax capture container:twice-of-podman)
    "#]]
    .assert_eq(&lines.replace("\n  ", "\n").replacen("  ", "", 1));
    let exact = taps(&sight, "container:twice-of-podman", false).expect("it is one");
    assert_eq!(exact[0].link, link("pid:14/lo"));
}

#[test]
fn the_file_says_whose_an_interface_is() {
    let sight = host();
    let taps = taps(&sight, "con1", true).expect("it is there");
    let Tap { index, description, comment, processes, .. } = &taps[0];
    assert_eq!((*index, description.as_str()), (2, "con1, leads to veth1"));
    assert_eq!(comment, "namespace pid:11; net:[1011]; con1  id con101234567  docker  pid 11");
    assert_eq!(processes, &[11]);
    assert_eq!(taps[1].description, "host, leads to con1/eth0");
    assert_eq!(
        taps[1].comment,
        "namespace host; net:[0]; con1  id con101234567  docker  pid 11; on docker0"
    );
    assert!(taps[1].processes.is_empty());
}
