//! The bytes of every request about links, addresses, routes and neighbours, written down.
//!
//! A paragraph a message: type, flags, and the body in words as they lie in memory (of a
//! little-endian machine). The kernel knows more than one way to say most of this; what is written
//! here is what was tried.

use std::{fmt::Write as _, net::IpAddr};

use expect_test::{Expect, expect};
use ipnet::IpNet;
use twinax_core::{
    model::{Link, LinkId, LinkKind, Port, Route},
    name::{IfName, Mac},
    ruleset::Group,
};

use super::{
    addr::{self, INET, INET6},
    link::{self, Cable},
    neighbour, observe, route,
    socket::Batch,
};

fn check(write: impl FnOnce(&mut Batch), expected: &Expect) {
    let mut batch = Batch::default();
    write(&mut batch);
    let mut text = String::new();
    for message in batch.messages() {
        let _ = writeln!(text, "{} {:#x}", message.kind, message.flags);
        for line in message.body.chunks(32) {
            for word in line.chunks(4) {
                let word = word.iter().map(|byte| format!("{byte:02x}"));
                let _ = write!(text, " {}", word.collect::<String>());
            }
            text.push('\n');
        }
    }
    expected.assert_eq(&text);
}

fn name(name: &str) -> IfName {
    name.parse().unwrap()
}

fn net(net: &str) -> IpNet {
    net.parse().unwrap()
}

fn ip(addr: &str) -> IpAddr {
    addr.parse().unwrap()
}

const MAC: Mac = Mac([2, 0x74, 10, 1, 0, 2]);

fn on_bridge() -> Port {
    Port { bridge: name("tx-web"), hairpin: true }
}

fn host_end(port: Option<Port>, mtu: u32) -> Link {
    let kind = LinkKind::VethHost { peer: LinkId::host(name("eth0")), port };
    let (group, alias) = (Some(Group(0x7478_0001)), "twinax: web.one".to_owned());
    Link { kind, up: true, mac: MAC, mtu, group, alias }
}

#[test]
fn questions_about_links() {
    let ask = |out: &mut Batch| {
        link::ask_by_name(out, "txv1");
        link::ask_by_index(out, 7);
        link::list(out);
        observe::ask_nsid(out, 5);
    };
    check(
        ask,
        &expect![[r#"
            18 0x1
             00000000 00000000 00000000 00000000 09000300 74787631 00000000 08001d00
             08000000
            18 0x1
             00000000 07000000 00000000 00000000 08001d00 08000000
            18 0x1
             00000000 00000000 00000000 00000000 08001d00 08000000
            90 0x1
             00000000 08000300 05000000
        "#]],
    );
}

#[test]
fn changes_of_links() {
    let change = |out: &mut Batch| {
        link::mtu(out, 3, 1400);
        link::mac(out, 3, MAC);
        link::group(out, 3, 0x7478_0001);
        link::alias(out, 3, "web.one");
        link::no_autoconf(out, 3);
        link::up(out, 3);
        link::delete(out, 3);
        link::set_port(out, 3, 4, &on_bridge());
    };
    check(
        change,
        &expect![[r#"
            19 0x1
             00000000 03000000 00000000 00000000 08000400 78050000
            19 0x1
             00000000 03000000 00000000 00000000 0a000100 02740a01 00020000
            19 0x1
             00000000 03000000 00000000 00000000 08001b00 01007874
            19 0x1
             00000000 03000000 00000000 00000000 0c001400 7765622e 6f6e6500
            19 0x1
             00000000 03000000 00000000 00000000 10001a00 0c000a00 05000800 01000000
            19 0x1
             00000000 03000000 01000000 01000000
            17 0x1
             00000000 03000000 00000000 00000000
            19 0x1
             00000000 03000000 00000000 00000000 08000a00 04000000
            16 0x1
             00000000 03000000 00000000 00000000 54001200 0b000400 62726964 67650000
             44000500 05000400 01000000 05000800 00000000 05000900 00000000 05000a00
             00000000 05000c00 01000000 05001b00 01000000 05001e00 01000000 05002100
             00000000
        "#]],
    );
}

#[test]
fn a_bridge() {
    let bridge = Link { kind: LinkKind::Bridge, ..host_end(None, 1500) };
    check(
        |out| link::add_bridge(out, &name("tx-web"), &bridge),
        &expect![[r#"
            16 0x601
             00000000 00000000 00000000 00000000 0b000300 74782d77 65620000 08000400
             dd050000 0a000100 02740a01 00020000 08001b00 01007874 2c001200 0b000100
             62726964 67650000 1c000200 08000100 00000000 08000500 00000000 05001700
             00000000
            19 0x1
             00000000 00000000 00000000 00000000 0b000300 74782d77 65620000 08000400
             dc050000
            19 0x1
             00000000 00000000 00000000 00000000 0b000300 74782d77 65620000 14001400
             7477696e 61783a20 7765622e 6f6e6500
            19 0x1
             00000000 00000000 00000000 00000000 0b000300 74782d77 65620000 10001a00
             0c000a00 05000800 01000000
            19 0x1
             00000000 00000000 01000000 01000000 0b000300 74782d77 65620000
        "#]],
    );
}

#[test]
fn a_cable() {
    let inner = Link { kind: LinkKind::Bridge, group: None, ..host_end(None, 1500) };
    let port = on_bridge();
    let cable = |out: &mut Batch, port: Option<(u32, &Port)>, mtu| {
        let host = host_end(port.map(|(_, port)| port.clone()), mtu);
        let (name, inner_name) = (&name("txv9"), &name("eth0"));
        let (host, inner, ipv6) = (&host, &inner, true);
        link::add_veth(
            out,
            &Cable { name, index: 9, host, port, inner_name, inner, netns: 5, ipv6 },
        );
    };
    check(
        |out| cable(out, Some((4, &port)), 1500),
        &expect![[r#"
            16 0x601
             00000000 09000000 00000000 00000000 09000300 74787639 00000000 08000400
             dc050000 0a000100 02740a01 00020000 08001b00 01007874 08001f00 01000000
             08002000 01000000 08000a00 04000000 60001200 09000100 76657468 00000000
             50000200 4c000100 00000000 00000000 00000000 00000000 09000300 65746830
             00000000 08001c00 05000000 08000400 dc050000 0a000100 02740a01 00020000
             08001f00 01000000 08002000 01000000
            16 0x1
             00000000 09000000 00000000 00000000 14001400 7477696e 61783a20 7765622e
             6f6e6500 54001200 0b000400 62726964 67650000 44000500 05000400 01000000
             05000800 00000000 05000900 00000000 05000a00 00000000 05000c00 01000000
             05001b00 01000000 05001e00 01000000 05002100 00000000 10001a00 0c000a00
             05000800 01000000
            19 0x1
             00000000 09000000 01000000 01000000
        "#]],
    );
    check(
        |out| cable(out, None, 1279),
        &expect![[r#"
            16 0x601
             00000000 09000000 00000000 00000000 09000300 74787639 00000000 08000400
             ff040000 0a000100 02740a01 00020000 08001b00 01007874 08001f00 01000000
             08002000 01000000 60001200 09000100 76657468 00000000 50000200 4c000100
             00000000 00000000 00000000 00000000 09000300 65746830 00000000 08001c00
             05000000 08000400 dc050000 0a000100 02740a01 00020000 08001f00 01000000
             08002000 01000000
            16 0x1
             00000000 09000000 00000000 00000000 14001400 7477696e 61783a20 7765622e
             6f6e6500
            19 0x1
             00000000 09000000 00000000 00000000 10001a00 0c000a00 05000800 01000000
            19 0x1
             00000000 09000000 01000000 01000000
        "#]],
    );
}

#[test]
fn addresses() {
    let write = |out: &mut Batch| {
        addr::add(out, 3, net("10.1.0.2/24"));
        addr::add(out, 3, net("fd00::2/64"));
        addr::delete(out, 3, net("10.1.0.2/32"));
        addr::delete(out, 3, net("fd00::2/128"));
        addr::list(out, Some(3));
        addr::list(out, None);
    };
    check(
        write,
        &expect![[r#"
            20 0x501
             02180000 03000000 08000200 0a010002 08000100 0a010002 05000b00 74000000
            20 0x501
             0a400000 03000000 14000200 fd000000 00000000 00000000 00000002 14000100
             fd000000 00000000 00000000 00000002 08000800 02000000 05000b00 74000000
            21 0x1
             02200000 03000000 08000200 0a010002 08000100 0a010002
            21 0x1
             0a800000 03000000 14000200 fd000000 00000000 00000000 00000002 14000100
             fd000000 00000000 00000000 00000002
            22 0x1
             00000000 03000000
            22 0x1
             00000000 00000000
        "#]],
    );
}

#[test]
fn routes() {
    let link = LinkId::host(name("txv1"));
    let route = |dst, via: Option<&str>, src: Option<&str>| {
        let (link, dst) = (link.clone(), net(dst));
        Route { link, dst, via: via.map(ip), src: src.map(ip) }
    };
    let write = |out: &mut Batch| {
        route::add(out, 3, &route("0.0.0.0/0", Some("10.1.0.1"), None));
        route::add(out, 3, &route("10.1.0.2/32", None, Some("10.1.0.1")));
        route::add(out, 3, &route("10.2.0.0/16", Some("fd00::1"), None));
        route::add(out, 3, &route("::/0", Some("fd00::1"), None));
        route::add(out, 3, &route("fd00::2/128", None, Some("fd00::1")));
        route::delete(out, 3, &route("10.2.0.0/16", Some("10.1.0.1"), None));
        route::list_ours(out, INET, 3);
        route::list_ours(out, INET6, 3);
        route::list(out, INET6, 255);
        route::find(out, ip("10.1.0.2"));
        route::find(out, ip("fd00::2"));
    };
    check(
        write,
        &expect![[r#"
            24 0x601
             02000000 fe740001 00000000 08000500 0a010001 08000400 03000000
            24 0x601
             02200000 fe74fd01 00000000 08000100 0a010002 08000700 0a010001 08000400
             03000000
            24 0x601
             02100000 fe740001 00000000 08000100 0a020000 16001200 0a00fd00 00000000
             00000000 00000000 00010000 08000400 03000000
            24 0x601
             0a000000 fe740001 00000000 14000500 fd000000 00000000 00000000 00000001
             08000400 03000000
            24 0x601
             0a800000 fe74fd01 00000000 14000100 fd000000 00000000 00000000 00000002
             14000700 fd000000 00000000 00000000 00000001 08000400 03000000
            25 0x1
             02100000 fe740001 00000000 08000100 0a020000 08000500 0a010001 08000400
             03000000
            26 0x1
             02000000 fe740000 00000000 08000400 03000000
            26 0x1
             0a000000 fe740000 00000000 08000400 03000000
            26 0x1
             0a000000 ff000000 00000000
            26 0x1
             02200000 00000000 00200000 08000100 0a010002
            26 0x1
             0a800000 00000000 00200000 14000100 fd000000 00000000 00000000 00000002
        "#]],
    );
}

#[test]
fn neighbours() {
    let write = |out: &mut Batch| {
        neighbour::add(out, 3, ip("10.1.0.2"), MAC);
        neighbour::add(out, 3, ip("fd00::2"), MAC);
        neighbour::delete(out, 3, ip("10.1.0.2"));
        neighbour::get(out, 3, ip("fd00::2"));
        neighbour::add_fdb(out, 3, MAC);
        neighbour::delete_fdb(out, 3, MAC);
        neighbour::get_fdb(out, 3, MAC);
    };
    check(
        write,
        &expect![[r#"
            28 0x501
             02000000 03000000 80000000 08000100 0a010002 0a000200 02740a01 00020000
             05000c00 74000000
            28 0x501
             0a000000 03000000 80000000 14000100 fd000000 00000000 00000000 00000002
             0a000200 02740a01 00020000 05000c00 74000000
            29 0x1
             02000000 03000000 00000000 08000100 0a010002
            30 0x1
             0a000000 03000000 00000000 14000100 fd000000 00000000 00000000 00000002
            28 0x501
             07000000 03000000 40001400 0a000200 02740a01 00020000
            29 0x1
             07000000 03000000 00000400 0a000200 02740a01 00020000
            30 0x1
             07000000 03000000 00000400 0a000200 02740a01 00020000
        "#]],
    );
}
