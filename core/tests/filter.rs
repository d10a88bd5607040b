//! The filter's language, and the program made from it, held against each other: random expressions
//! on random packets, run by an interpreter of classic BPF that is the test's own.

use proptest::prelude::*;
use twinax_core::{
    filter::{Ether, Filter, Instruction, Ports, Proto, Side, compile, parse},
    pcapng::LinkType,
};

/// Runs a program as the kernel does (linux/filter.h); a load beyond the packet ends it with 0.
fn run(program: &[Instruction], packet: &[u8]) -> u32 {
    let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; 16]);
    let load = |at: u32, length: usize| {
        let bytes = packet.get(at as usize..)?.get(..length)?;
        Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    };
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let size = [4, 2, 1][usize::from(code >> 3 & 3).min(2)];
        match code {
            0x00 => a = k,
            0x60 => a = memory[k as usize],
            0x61 => x = memory[k as usize],
            0x02 => memory[k as usize] = a,
            0x20 | 0x28 | 0x30 => match load(k, size) {
                Some(value) => a = value,
                None => return 0,
            },
            0x40 | 0x48 | 0x50 => match load(x + k, size) {
                Some(value) => a = value,
                None => return 0,
            },
            0x54 => a &= k,
            0x64 => a <<= k,
            0x0c => a += x,
            0x07 => x = a,
            0x05 => at += k as usize,
            0x15 => at += usize::from(if a == k { jt } else { jf }),
            0x45 => at += usize::from(if a & k != 0 { jt } else { jf }),
            0x06 => return k,
            other => panic!("instruction {other:#x} is not known"),
        }
    }
}

fn read(text: &str) -> Filter {
    parse(text).unwrap_or_else(|why| panic!("{text}: {why}")).expect("there are words")
}

/// What both say of a packet.
#[track_caller]
fn takes(filter: &Filter, link: LinkType, packet: &[u8]) -> bool {
    let program = compile(Some(filter), link, 77);
    assert!(program.len() <= 4096);
    let by_program = run(&program, packet);
    let takes = filter.takes(link, packet);
    assert_eq!(by_program, if takes { 77 } else { 0 }, "{filter:?} on {packet:02x?}");
    takes
}

fn ethernet(kind: u16, rest: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &kind.to_be_bytes()[..], rest].concat()
}

/// 10.1.0.2:1234 to 10.1.0.3:80, behind a header of 24 bytes.
fn ipv4(proto: u8, fragment: u16) -> Vec<u8> {
    let mut ip = vec![0x46, 0, 0, 32, 0, 0];
    ip.extend(fragment.to_be_bytes());
    ip.extend([64, proto, 0, 0, 10, 1, 0, 2, 10, 1, 0, 3, 1, 1, 1, 0]);
    ip.extend(1234u16.to_be_bytes());
    ip.extend(80u16.to_be_bytes());
    ip
}

/// fd00::2 port 1234 to fd00::3 port 53.
fn ipv6(proto: u8) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0, 0, 8, proto, 64];
    for last in [2, 3] {
        ip.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    ip.extend(1234u16.to_be_bytes());
    ip.extend(53u16.to_be_bytes());
    ip
}

fn arp() -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 1, 0, 2];
    arp.extend([0, 0, 0, 0, 0, 0, 10, 1, 0, 3]);
    arp
}

#[test]
fn each_word_takes_what_it_says() {
    let packets = [
        ("tcp4", ethernet(0x0800, &ipv4(6, 0))),
        ("udp4", ethernet(0x0800, &ipv4(17, 0))),
        ("piece", ethernet(0x0800, &ipv4(17, 100))),
        ("icmp4", ethernet(0x0800, &ipv4(1, 0))),
        ("tcp6", ethernet(0x86dd, &ipv6(6))),
        ("udp6", ethernet(0x86dd, &ipv6(17))),
        ("icmp6", ethernet(0x86dd, &ipv6(58))),
        ("arp", ethernet(0x0806, &arp())),
        ("tagged", ethernet(0x8100, &[&[0, 5, 8, 0], &ipv4(6, 0)[..]].concat())),
        ("other", ethernet(0x88cc, &[0; 60])),
    ];
    let cases = [
        ("ip", "tcp4 udp4 piece icmp4 tagged"),
        ("ip6", "tcp6 udp6 icmp6"),
        ("arp", "arp"),
        ("tcp", "tcp4 tcp6 tagged"),
        ("udp", "udp4 piece udp6"),
        ("icmp", "icmp4"),
        ("icmp6", "icmp6"),
        ("host 10.1.0.3", "tcp4 udp4 piece icmp4 arp tagged"),
        ("src host 10.1.0.3", ""),
        ("src 10.1.0.2", "tcp4 udp4 piece icmp4 arp tagged"),
        ("dst host fd00::3", "tcp6 udp6 icmp6"),
        ("net 10.0.0.0/8", "tcp4 udp4 piece icmp4 arp tagged"),
        ("net 10.2.0.0/16", ""),
        ("src net fd00::/127", ""),
        ("src net fd00::2/127", "tcp6 udp6 icmp6"),
        ("net ::/0", "tcp6 udp6 icmp6"),
        ("port 80", "tcp4 udp4 tagged"),
        ("src port 80", ""),
        ("dst port 53", "tcp6 udp6"),
        ("tcp port 80", "tcp4 tagged"),
        ("udp dst port 53", "udp6"),
        ("tcp src 10.1.0.2", "!"),
        ("not ip and not ip6", "arp other"),
        ("! (tcp or udp) and ip", "icmp4"),
        // From left to right, as tcpdump has it.
        ("udp or tcp and port 80", "tcp4 udp4 tagged"),
        ("arp || tcp && port 80", "tcp4 tagged"),
        ("(port 53 or port 80) and udp", "udp4 udp6"),
    ];
    for (text, names) in cases {
        if names == "!" {
            assert!(parse(text).is_err(), "{text}");
            continue;
        }
        let filter = read(text);
        let taken = packets.iter().filter(|(_, p)| takes(&filter, LinkType::Ethernet, p));
        let taken: Vec<&str> = taken.map(|(name, _)| *name).collect();
        assert_eq!(taken.join(" "), names, "{text}");
    }
    let raw = read("tcp dst port 80 or udp dst port 53");
    assert!(takes(&raw, LinkType::RawIp, &ipv4(6, 0)));
    assert!(takes(&raw, LinkType::RawIp, &ipv6(17)));
    assert!(!takes(&raw, LinkType::RawIp, &ipv6(6)));
}

#[test]
fn what_is_wrong_is_named() {
    for (text, why) in [
        ("tcp udp", "before \"udp\", \"and\" or \"or\" is missing"),
        ("(tcp", "a ) is missing"),
        ("tcp)", "there is no ( for a )"),
        ("not", "it ends where host, net, port or a protocol is expected"),
        ("host web", "\"web\" is not an address; names are not looked up"),
        ("net 10.1.0.1/24", "\"10.1.0.1/24\" is not a network, as 10.1.0.0/24 or fd00::/64"),
        ("port 65536", "\"65536\" is not a port, which is a number up to 65535"),
        ("vlan", "\"vlan\" is none of its words"),
    ] {
        assert_eq!(parse(text).expect_err(text).to_string(), why, "{text}");
    }
    assert_eq!(parse("  "), Ok(None));
    let deep = "not ".repeat(100) + "tcp";
    assert!(parse(&deep).is_err());
    let long = vec!["tcp"; 150].join(" and ");
    assert!(parse(&long).is_err());
}

#[test]
fn the_longest_fits_into_the_kernel() {
    // As many words as are taken, and the primitive that takes most instructions.
    let text = ["host fd00:1:2:3:4:5:6:7"; 67].join(" or ");
    let text = &text[..text.len() - " or host fd00:1:2:3:4:5:6:7".len()];
    let filter = read(text);
    let program = compile(Some(&filter), LinkType::Ethernet, 77);
    assert!(program.len() > 500 && program.len() <= 4096, "{}", program.len());
    assert!(!takes(&filter, LinkType::Ethernet, &ethernet(0x86dd, &ipv6(6))));
    let mut seventh = ipv6(6);
    seventh[8..24].copy_from_slice(&[0xfd, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7]);
    assert!(takes(&filter, LinkType::Ethernet, &ethernet(0x86dd, &seventh)));
    assert_eq!(run(&compile(None, LinkType::Ethernet, 9), &[]), 9);
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Src), Just(Side::Dst), Just(Side::Either)]
}

/// Few values of each kind, so that a random packet has a chance.
fn filter() -> impl Strategy<Value = Filter> {
    let net = prop_oneof![
        (0u8..4, 0u8..=32).prop_map(|(last, length)| format!("10.1.0.{last}/{length}")),
        (0u8..4, 0u8..=128).prop_map(|(last, length)| format!("fd00::{last}/{length}")),
    ];
    let net = net.prop_map(|text| text.parse::<ipnet::IpNet>().expect("a network").trunc());
    let ports = prop_oneof![Just(Ports::Tcp), Just(Ports::Udp), Just(Ports::Any)];
    let proto =
        prop_oneof![Just(Proto::Tcp), Just(Proto::Udp), Just(Proto::Icmp), Just(Proto::Icmp6)];
    let leaf = prop_oneof![
        prop_oneof![Just(Ether::Ip), Just(Ether::Ip6), Just(Ether::Arp)].prop_map(Filter::Ether),
        proto.prop_map(Filter::Proto),
        (side(), net).prop_map(|(side, net)| Filter::Net(side, net)),
        (side(), ports, 0u16..4).prop_map(|(side, ports, port)| Filter::Port(side, ports, port)),
    ];
    leaf.prop_recursive(5, 40, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            pair.clone().prop_map(|(a, b)| Filter::And(Box::new(a), Box::new(b))),
            pair.prop_map(|(a, b)| Filter::Or(Box::new(a), Box::new(b))),
            inner.prop_map(|a| Filter::Not(Box::new(a))),
        ]
    })
}

/// Packets that mostly are what they begin as, cut anywhere.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let addr4 = (0u8..4).prop_map(|last| vec![10, 1, 0, last]);
    let addr6 = (0u8..4).prop_map(|last| [&[0xfd][..], &[0; 14], &[last]].concat());
    let proto = prop_oneof![Just(6u8), Just(17), Just(1), Just(58), Just(132), Just(47)];
    let port = || 0u16..4;
    let v4 = (addr4.clone(), addr4, proto.clone(), port(), port(), 5u8..=15, 0u16..3).prop_map(
        |(src, dst, proto, from, to, words, fragment)| {
            let mut ip = vec![0x40 | words, 0, 0, 0, 0, 0];
            ip.extend((fragment | 0x4000).to_be_bytes());
            ip.extend([64, proto, 0, 0]);
            ip.extend([src, dst].concat());
            ip.resize(usize::from(words) * 4, 9);
            ip.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
            (0x0800u16, ip)
        },
    );
    let v6 =
        (addr6.clone(), addr6, proto, port(), port()).prop_map(|(src, dst, proto, from, to)| {
            let mut ip = vec![0x60, 0, 0, 0, 0, 0, proto, 64];
            ip.extend([src, dst].concat());
            ip.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
            (0x86dd, ip)
        });
    let arp = (0u8..4, 0u8..4).prop_map(|(from, to)| {
        let mut packet = arp();
        (packet[17], packet[27]) = (from, to);
        (0x0806, packet)
    });
    let junk = proptest::collection::vec(any::<u8>(), 0..80).prop_map(|bytes| (0x88cc, bytes));
    let tag = prop_oneof![Just(None), Just(Some(0x8100u16)), Just(Some(0x88a8))];
    (prop_oneof![4 => v4, 4 => v6, 2 => arp, 1 => junk], tag, any::<bool>(), any::<u16>()).prop_map(
        |((kind, rest), tag, is_cut, cut)| {
            let mut whole = match tag {
                Some(tag) => ethernet(tag, &[&[0, 5], &kind.to_be_bytes()[..], &rest].concat()),
                None => ethernet(kind, &rest),
            };
            if is_cut {
                whole.truncate(usize::from(cut) % (whole.len() + 1));
            }
            whole
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_program_says_what_the_expression_says(filter in filter(), packet in packet()) {
        takes(&filter, LinkType::Ethernet, &packet);
        takes(&filter, LinkType::RawIp, packet.get(14..).unwrap_or_default());
    }

    #[test]
    fn no_text_is_too_much(text in "[a-z0-9()! ./:]{0,120}") {
        let _ = parse(&text);
    }
}
