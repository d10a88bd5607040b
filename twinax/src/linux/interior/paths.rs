//! Policy rules, and routes of every table and kind.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use rustix::io::Errno;
use twinax_core::{
    interior::{Hop, PolicyRule, SeenRoute},
    name::IfName,
};

use crate::linux::{
    netlink::{Message, attribute, ip, number, text},
    socket::{BatchError, RouteSocket},
};

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;
/// Bytes of `struct fib_rule_hdr`, and of `struct rtmsg`.
const HEADER: usize = 12;
const FAMILIES: [i32; 2] = [libc::AF_INET, libc::AF_INET6];

// linux/fib_rules.h
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_GOTO: u16 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_L3MDEV: u16 = 19;
const FRA_UID_RANGE: u16 = 20;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const FRA_DPORT_RANGE: u16 = 24;
const FIB_RULE_INVERT: u32 = 2;

// linux/rtnetlink.h
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;
const RTM_F_CLONED: u32 = 0x200;

/// Lists the policy rules of the socket's namespace, IPv4's first.
pub(super) fn rules(socket: &mut RouteSocket) -> Result<Vec<PolicyRule>, Errno> {
    let mut rules = Vec::new();
    for family in FAMILIES {
        let mut header = [0; HEADER];
        header[0] = family as u8;
        let list = socket.dump(|batch| batch.request(RTM_GETRULE, 0).body(&header), rule);
        match list {
            Ok(list) => rules.extend(list),
            // A kernel without policy rules, or without IPv6.
            Err(BatchError { errno: Errno::OPNOTSUPP | Errno::AFNOSUPPORT, .. }) => {}
            Err(error) => return Err(error.errno),
        }
    }
    Ok(rules)
}

fn rule(message: &Message<'_>) -> Option<PolicyRule> {
    let (header, rest) = message.body.split_at_checked(HEADER)?;
    if message.kind != RTM_NEWRULE {
        return None;
    }
    let value = |kind| attribute(rest, kind).and_then(number);
    let table = value(FRA_TABLE).unwrap_or_else(|| header[4].into());
    let action = match header[7] {
        1 if attribute(rest, FRA_L3MDEV).is_some_and(|on| on.first() == Some(&1)) => {
            "lookup of the VRF".to_owned()
        }
        1 => format!("lookup {}", table_name(table)),
        2 => format!("goto {}", value(FRA_GOTO).unwrap_or_default()),
        3 => "nop".to_owned(),
        6 => "blackhole".to_owned(),
        7 => "unreachable".to_owned(),
        8 => "prohibit".to_owned(),
        other => format!("action {other}"),
    };
    Some(PolicyRule {
        ipv6: i32::from(header[0]) == libc::AF_INET6,
        priority: value(FRA_PRIORITY).unwrap_or_default(),
        when: when(header, rest),
        action,
    })
}

/// What a rule asks of packets, in the words of `ip rule`.
fn when(header: &[u8], rest: &[u8]) -> String {
    let value = |kind| attribute(rest, kind).and_then(number);
    let net = |kind, len: u8| attribute(rest, kind).and_then(ip).map(|addr| spelled(addr, len));
    let name = |kind| attribute(rest, kind).and_then(text).map(ToOwned::to_owned);
    let range = |kind| {
        let data = attribute(rest, kind)?.first_chunk::<4>()?;
        let (low, high) =
            (u16::from_ne_bytes([data[0], data[1]]), u16::from_ne_bytes([data[2], data[3]]));
        Some(if low == high { low.to_string() } else { format!("{low}-{high}") })
    };
    let mut words = Vec::new();
    if number(&header[8..]).is_some_and(|flags| flags & FIB_RULE_INVERT > 0) {
        words.push("not".to_owned());
    }
    words.push(format!("from {}", net(FRA_SRC, header[2]).unwrap_or_else(|| "all".to_owned())));
    words.extend(net(FRA_DST, header[1]).map(|to| format!("to {to}")));
    words.extend((header[3] > 0).then(|| format!("tos {:#x}", header[3])));
    if let Some(mark) = value(FRA_FWMARK) {
        match value(FRA_FWMASK) {
            Some(mask) if mask != u32::MAX && (mark, mask) != (0, 0) => {
                words.push(format!("fwmark {mark:#x}/{mask:#x}"));
            }
            _ if mark != 0 => words.push(format!("fwmark {mark:#x}")),
            _ => {}
        }
    }
    words.extend(name(FRA_IIFNAME).map(|name| format!("iif {name}")));
    words.extend(name(FRA_OIFNAME).map(|name| format!("oif {name}")));
    if let Some(range) = attribute(rest, FRA_UID_RANGE).filter(|data| data.len() >= 8) {
        let (low, high) = (number(range), number(&range[4..]));
        words.push(format!("uidrange {}-{}", low.unwrap_or(0), high.unwrap_or(0)));
    }
    let proto = attribute(rest, FRA_IP_PROTO).and_then(|data| data.first());
    words.extend(
        proto.map(|proto| format!("ipproto {}", twinax_core::firewall::words::protocol(*proto))),
    );
    words.extend(range(FRA_SPORT_RANGE).map(|range| format!("sport {range}")));
    words.extend(range(FRA_DPORT_RANGE).map(|range| format!("dport {range}")));
    let suppressed = value(FRA_SUPPRESS_PREFIXLEN).filter(|len| *len != u32::MAX);
    words.extend(suppressed.map(|len| format!("suppress_prefixlength {len}")));
    words.join(" ")
}

fn spelled(addr: IpAddr, len: u8) -> String {
    match IpNet::new(addr, len) {
        Ok(net) if len == net.max_prefix_len() => addr.to_string(),
        _ => format!("{addr}/{len}"),
    }
}

/// As iproute2 calls it.
fn table_name(table: u32) -> String {
    match table {
        253 => "default".to_owned(),
        254 => "main".to_owned(),
        255 => "local".to_owned(),
        table => table.to_string(),
    }
}

/// A route with its links as the kernel numbers them.
struct RawRoute {
    route: SeenRoute,
    out: Vec<Option<u32>>,
}

/// Lists the routes of the socket's namespace, without the kernel's own to itself.
pub(super) fn routes(
    socket: &mut RouteSocket,
    links: &BTreeMap<u32, IfName>,
) -> Result<Vec<SeenRoute>, Errno> {
    let mut routes = Vec::new();
    for family in FAMILIES {
        let mut header = [0; HEADER];
        header[0] = family as u8;
        let list = socket.dump(|batch| batch.request(RTM_GETROUTE, 0).body(&header), route);
        match list {
            Ok(list) => routes.extend(list),
            Err(BatchError { errno: Errno::OPNOTSUPP | Errno::AFNOSUPPORT, .. }) => {}
            Err(error) => return Err(error.errno),
        }
    }
    let named = |index: Option<u32>| {
        let index = index?;
        let name = links.get(&index).map(|name| name.as_str().to_owned());
        Some(name.unwrap_or_else(|| format!("if{index}")))
    };
    let mut routes: Vec<SeenRoute> = routes
        .into_iter()
        .map(|RawRoute { mut route, out }| {
            for (hop, index) in route.hops.iter_mut().zip(out) {
                hop.out = named(index);
            }
            route
        })
        .collect();
    routes.sort_by_key(|route| (route.dst.addr().is_ipv6(), route.table, route.dst, route.metric));
    Ok(routes)
}

fn route(message: &Message<'_>) -> Option<RawRoute> {
    let (header, rest) = message.body.split_at_checked(HEADER)?;
    let cloned = number(&header[8..]).is_some_and(|flags| flags & RTM_F_CLONED != 0);
    let kind = kind_of(header[7])?;
    if message.kind != RTM_NEWROUTE || cloned {
        return None;
    }
    let any: IpAddr = match i32::from(header[0]) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let value = |kind| attribute(rest, kind).and_then(number);
    let metrics = attribute(rest, RTA_METRICS).unwrap_or_default();
    let (hops, out) = hops(rest).into_iter().unzip();
    let route = SeenRoute {
        table: value(RTA_TABLE).unwrap_or_else(|| header[4].into()),
        dst: IpNet::new(attribute(rest, RTA_DST).and_then(ip).unwrap_or(any), header[1]).ok()?,
        kind: kind.to_owned(),
        hops,
        src: attribute(rest, RTA_PREFSRC).and_then(ip),
        metric: value(RTA_PRIORITY).unwrap_or_default(),
        protocol: protocol(header[5]),
        mtu: attribute(metrics, RTAX_MTU).and_then(number).filter(|mtu| *mtu > 0),
    };
    Some(RawRoute { route, out })
}

fn hops(rest: &[u8]) -> Vec<(Hop, Option<u32>)> {
    let via = |attributes: &[u8]| {
        let other = || ip(attribute(attributes, RTA_VIA)?.get(2..)?);
        attribute(attributes, RTA_GATEWAY).and_then(ip).or_else(other)
    };
    let mut found = Vec::new();
    let out = attribute(rest, RTA_OIF).and_then(number);
    let gateway = via(rest);
    if out.is_some() || gateway.is_some() {
        found.push((Hop { out: None, via: gateway }, out));
    }
    let mut hops = attribute(rest, RTA_MULTIPATH).unwrap_or_default();
    // struct rtnexthop: length, flags, weight, index; then attributes.
    while let Some(len) = hops.first_chunk().map(|len| usize::from(u16::from_ne_bytes(*len))) {
        let Some(hop) = hops.get(..len).filter(|hop| hop.len() >= 8) else { break };
        found.push((Hop { out: None, via: via(&hop[8..]) }, number(&hop[4..])));
        hops = hops.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// `RTN_*`; none for those that the kernel makes for its own addresses.
fn kind_of(kind: u8) -> Option<&'static str> {
    Some(match kind {
        libc::RTN_UNICAST => "unicast",
        libc::RTN_BLACKHOLE => "blackhole",
        libc::RTN_UNREACHABLE => "unreachable",
        libc::RTN_PROHIBIT => "prohibit",
        libc::RTN_THROW => "throw",
        libc::RTN_NAT => "nat",
        _ => return None,
    })
}

/// `RTPROT_*`, as iproute2 calls them; `t` is Twinax's own.
fn protocol(number: u8) -> String {
    let known = match number {
        twinax_core::model::PROTOCOL => "twinax",
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        9 => "ra",
        11 => "zebra",
        12 => "bird",
        16 => "dhcp",
        17 => "mrouted",
        18 => "keepalived",
        42 => "babel",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        _ => return number.to_string(),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::netlink::{Outgoing, messages};

    fn told(kind: u16, header: &[u8; HEADER], attrs: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = Outgoing::default();
        out.message(kind, 0, 0);
        out.body(header);
        attrs.iter().for_each(|(kind, data)| out.attr(*kind, data));
        out.bytes().to_vec()
    }

    fn first<T>(bytes: &[u8], read: fn(&Message<'_>) -> Option<T>) -> T {
        read(&messages(bytes).next().unwrap()).unwrap()
    }

    #[test]
    fn rules_are_told_as_ip_rule_does() {
        let header = [2, 0, 8, 0, 100, 0, 0, 1, 2, 0, 0, 0];
        let attrs: &[(u16, &[u8])] = &[
            (FRA_SRC, &[10, 0, 0, 0]),
            (FRA_PRIORITY, &99u32.to_ne_bytes()),
            (FRA_FWMARK, &1u32.to_ne_bytes()),
            (FRA_FWMASK, &255u32.to_ne_bytes()),
            (FRA_IIFNAME, b"eth0\0"),
            (FRA_IP_PROTO, &[6]),
            (FRA_DPORT_RANGE, &[80, 0, 90, 0]),
        ];
        let rule = first(&told(RTM_NEWRULE, &header, attrs), rule);
        assert_eq!(
            (rule.priority, rule.when.as_str(), rule.action.as_str(), rule.ipv6),
            (
                99,
                "not from 10.0.0.0/8 fwmark 0x1/0xff iif eth0 ipproto tcp dport 80-90",
                "lookup 100",
                false
            )
        );
    }

    #[test]
    fn several_hops_are_told_each() {
        let mut hops = Vec::new();
        for (index, last) in [(7u32, 1u8), (8, 2)] {
            hops.extend([16, 0, 0, 0]);
            hops.extend(index.to_ne_bytes());
            hops.extend([8, 0, 5, 0, 192, 0, 2, last]);
        }
        let header = [2, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        let attrs: &[(u16, &[u8])] = &[(RTA_DST, &[198, 51, 100, 0]), (RTA_MULTIPATH, &hops)];
        let bytes = told(RTM_NEWROUTE, &header, attrs);
        let found = first(&bytes, route);
        assert_eq!(found.out, [Some(7), Some(8)]);
        assert_eq!(found.route.hops[1].via, Some("192.0.2.2".parse().unwrap()));
        assert_eq!((found.route.table, found.route.protocol.as_str()), (254, "boot"));
        for cut in 0..bytes.len() {
            let _ = messages(&bytes[..cut]).next().and_then(|message| route(&message));
        }
    }
}
