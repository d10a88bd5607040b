//! Reads those switches alone that checks judge, of many namespaces: most by netlink.
//!
//! The files under `/proc/sys/net` have the same names in every namespace, and the kernel finds one by
//! a walk over those of all: with a thousand namespaces each file costs some 80 µs.

use std::collections::BTreeMap;

use rustix::io::Errno;
use twinax_core::{interior::Conntrack, name::IfName};

use super::switches;
use crate::linux::{
    conntrack, module,
    netlink::{Message, attribute, number},
    socket::{Batch, BatchError, RouteSocket},
};

// linux/netconf.h
const RTM_NEWNETCONF: u16 = 80;
const RTM_GETNETCONF: u16 = 82;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;
const NETCONFA_PROXY_NEIGH: u16 = 5;
const NETCONFA_IFINDEX_ALL: i32 = -1;
const NETCONFA_IFINDEX_DEFAULT: i32 = -2;
/// Bytes of `struct netconfmsg`, padded.
const NETCONF_HEADER: usize = 4;

// linux/if_link.h, linux/ipv6.h
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const LINK_HEADER: usize = 16;
const IFLA_PROTINFO: u16 = 12;
const IFLA_INET6_CONF: u16 = 2;
/// Places in the list of numbers that is `IFLA_INET6_CONF` (`DEVCONF_*`).
const OF_IPV6: [(usize, &str); 2] = [(3, "accept_ra"), (26, "disable_ipv6")];

/// What else is judged, of the host's own namespace.
const OF_HOST: [&str; 2] = ["ipv4/neigh/default/gc_thresh3", "ipv6/neigh/default/gc_thresh3"];
/// What else is judged where there is a bridge.
const OF_BRIDGES: [&str; 2] = ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"];

/// What there is in a namespace whose switches are not for all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) is_host: bool,
    pub(super) has_bridge: bool,
}

/// Reads the switches of the calling thread's namespace.
pub(super) fn read(links: &BTreeMap<u32, IfName>, place: Place) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut files: Vec<&str> = Vec::new();
    files.extend(place.is_host.then_some(OF_HOST).into_iter().flatten());
    files.extend(place.has_bridge.then_some(OF_BRIDGES).into_iter().flatten());
    match by_netlink(links) {
        Ok(told) => found.extend(told),
        // It is old, or was built without.
        Err(_) => return switches::read(links.values()),
    }
    // It makes a difference only to what the filter by the way back takes for one.
    if found.iter().any(|(name, value)| name.ends_with("/rp_filter") && value != "0") {
        files.push("ipv4/conf/all/src_valid_mark");
    }
    found.extend(files.into_iter().filter_map(|name| switches::one(name.to_owned())));
    found
}

/// How full connection tracking is; by a file where it does not tell.
pub(super) fn conntrack(told: &BTreeMap<String, String>) -> Option<Conntrack> {
    let by_file = || {
        let number = |name: &str| switches::one(name.to_owned())?.1.parse().ok();
        let entries = number("netfilter/nf_conntrack_count")?;
        Some((entries, number("netfilter/nf_conntrack_max")?))
    };
    let known = |name: &str| told.get(name)?.parse().ok();
    let known = known("netfilter/nf_conntrack_count").zip(known("netfilter/nf_conntrack_max"));
    let by_netlink = || {
        let is_there = module::are_there(&["nfnetlink", "nf_conntrack_netlink"]);
        is_there.then(|| conntrack::Conntrack::open().ok()?.fill().ok()).flatten()
    };
    let (entries, limit) = known.or_else(by_netlink).or_else(by_file)?;
    Some(Conntrack { entries, limit, udp: Vec::new() })
}

fn by_netlink(links: &BTreeMap<u32, IfName>) -> Result<BTreeMap<String, String>, Errno> {
    let mut socket = RouteSocket::open()?;
    let mut found = BTreeMap::new();
    for (family, word) in [(libc::AF_INET, "ipv4"), (libc::AF_INET6, "ipv6")] {
        let ask = |batch: &mut Batch| {
            let mut header = [0; NETCONF_HEADER];
            header[0] = family as u8;
            batch.request(RTM_GETNETCONF, 0).body(&header);
        };
        let told = match socket.dump(ask, conf) {
            Err(error) if family == libc::AF_INET6 && is_absent(&error) => return Ok(found),
            told => told.map_err(|error| error.errno)?,
        };
        for (index, values) in told {
            let Some(of) = owner(index, links) else { continue };
            let named = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
            for (name, value) in named {
                let name = match (name, family) {
                    ("proxy", libc::AF_INET6) => "proxy_ndp",
                    ("proxy", _) => "proxy_arp",
                    (name, _) => name,
                };
                found.insert(format!("{word}/conf/{of}/{name}"), value.to_string());
            }
        }
    }
    // The same number by another name.
    if let Some(forwarding) = found.get("ipv4/conf/all/forwarding").cloned() {
        found.insert("ipv4/ip_forward".to_owned(), forwarding);
    }
    let ask = |batch: &mut Batch| {
        let mut header = [0; LINK_HEADER];
        header[0] = libc::AF_INET6 as u8;
        batch.request(RTM_GETLINK, 0).body(&header);
    };
    for (index, values) in socket.dump(ask, ipv6).map_err(|error| error.errno)? {
        let Some(of) = owner(index, links) else { continue };
        for ((_, name), value) in OF_IPV6.iter().zip(values) {
            found.extend(value.map(|value| (format!("ipv6/conf/{of}/{name}"), value.to_string())));
        }
    }
    Ok(found)
}

/// Whether the kernel has no IPv6.
fn is_absent(error: &BatchError) -> bool {
    matches!(error.errno, Errno::OPNOTSUPP | Errno::AFNOSUPPORT)
}

/// What a number stands for in the names of switches.
fn owner(index: i32, links: &BTreeMap<u32, IfName>) -> Option<&str> {
    match index {
        NETCONFA_IFINDEX_ALL => Some("all"),
        NETCONFA_IFINDEX_DEFAULT => Some("default"),
        index => Some(links.get(&u32::try_from(index).ok()?)?.as_str()),
    }
}

/// Whose they are, and the switches; those of the other IP version are not told.
type Conf = (i32, [(&'static str, Option<i32>); 3]);

fn conf(message: &Message<'_>) -> Option<Conf> {
    let rest = message.body.get(NETCONF_HEADER..)?;
    if message.kind != RTM_NEWNETCONF {
        return None;
    }
    let value = |kind| attribute(rest, kind).and_then(number).map(u32::cast_signed);
    let values = [
        ("forwarding", value(NETCONFA_FORWARDING)),
        ("rp_filter", value(NETCONFA_RP_FILTER)),
        ("proxy", value(NETCONFA_PROXY_NEIGH)),
    ];
    Some((value(NETCONFA_IFINDEX)?, values))
}

/// A link's number and its values of `OF_IPV6`.
fn ipv6(message: &Message<'_>) -> Option<(i32, [Option<i32>; 2])> {
    let (header, rest) = message.body.split_at_checked(LINK_HEADER)?;
    if message.kind != RTM_NEWLINK {
        return None;
    }
    let list = attribute(attribute(rest, IFLA_PROTINFO)?, IFLA_INET6_CONF)?;
    let value = |at: usize| list.get(at * 4..).and_then(number).map(u32::cast_signed);
    Some((number(&header[4..])?.cast_signed(), OF_IPV6.map(|(at, _)| value(at))))
}
