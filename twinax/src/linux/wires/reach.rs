//! Reads lists of addresses, routes, neighbours and forwarding entries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rustix::io::Errno;
use twinax_core::name::Mac;

use super::asker::Asker;
use crate::linux::netlink::{Message, attribute, attributes, ip, number};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;

// linux/if_addr.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_TARGET_NETNSID: u16 = 10;

// linux/rtnetlink.h
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
/// The table that routes are in unless somebody says otherwise.
pub(super) const MAIN: u32 = 254;

// linux/neighbour.h
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_MASTER: u8 = 0x4;
const NTF_EXT_LEARNED: u8 = 0x10;

/// A way out by a link.
#[derive(Clone, Debug)]
pub(super) struct RawRoute {
    pub(super) index: u32,
    pub(super) table: u32,
    pub(super) dst: IpNet,
    pub(super) via: Option<IpAddr>,
    pub(super) src: Option<IpAddr>,
}

/// Who is known behind a link.
#[derive(Clone, Debug)]
pub(super) struct RawNeighbour {
    pub(super) index: u32,
    pub(super) addr: Option<IpAddr>,
    pub(super) mac: Option<Mac>,
    pub(super) state: u16,
}

/// Lists the addresses of the namespace that the socket's own calls `target`, or of its own.
pub(super) fn addrs(asker: &mut Asker, target: Option<i32>) -> Result<Vec<(u32, IpNet)>, Errno> {
    asker.list(
        RTM_GETADDR,
        |out| {
            out.body(&[0; 8]); // struct ifaddrmsg
            if let Some(number) = target {
                out.attr(IFA_TARGET_NETNSID, &number.to_ne_bytes());
            }
        },
        |message| {
            let (header, rest) = message.body.split_at_checked(8)?;
            if message.kind != RTM_NEWADDR {
                return None;
            }
            // IFA_ADDRESS is the far end's where the two differ.
            let addr = attribute(rest, IFA_LOCAL).or_else(|| attribute(rest, IFA_ADDRESS))?;
            Some((number(&header[4..])?, IpNet::new(ip(addr)?, header[1]).ok()?))
        },
    )
}

/// Lists the routes of the socket's namespace out by a link, of all tables. Those that lead to
/// itself are left out.
pub(super) fn routes(asker: &mut Asker) -> Result<Vec<RawRoute>, Errno> {
    let mut header = [0; 12]; // struct rtmsg
    header[7] = libc::RTN_UNICAST;
    let lists =
        asker.list(RTM_GETROUTE, |out| out.body(&header), |message| Some(route(message)))?;
    Ok(lists.into_iter().flatten().collect())
}

/// One for each way that it names.
fn route(message: &Message<'_>) -> Vec<RawRoute> {
    let Some((header, rest)) = message.body.split_at_checked(12) else {
        return Vec::new();
    };
    let any: IpAddr = match i32::from(header[0]) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Vec::new(),
    };
    // A kernel that does not filter tells more; RTM_F_CLONED is a cache entry.
    let cloned = number(&header[8..]).is_some_and(|flags| flags & 0x200 != 0);
    if message.kind != RTM_NEWROUTE || header[7] != libc::RTN_UNICAST || cloned {
        return Vec::new();
    }
    let dst = attribute(rest, RTA_DST).and_then(ip).unwrap_or(any);
    let Ok(dst) = IpNet::new(dst, header[1]) else {
        return Vec::new();
    };
    let table = attribute(rest, RTA_TABLE).and_then(number).unwrap_or_else(|| header[4].into());
    let src = attribute(rest, RTA_PREFSRC).and_then(ip);
    let mut routes = Vec::new();
    if let Some(index) = attribute(rest, RTA_OIF).and_then(number) {
        routes.push(RawRoute { index, table, dst, via: gateway(rest), src });
    }
    let mut hops = attribute(rest, RTA_MULTIPATH).unwrap_or_default();
    // struct rtnexthop: length, flags, weight, index; then attributes.
    while let Some(len) = hops.first_chunk().map(|len| usize::from(u16::from_ne_bytes(*len))) {
        let Some(hop) = hops.get(..len).filter(|hop| hop.len() >= 8) else {
            break;
        };
        if let Some(index) = number(&hop[4..]) {
            routes.push(RawRoute { index, table, dst, via: gateway(&hop[8..]), src });
        }
        hops = hops.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    routes
}

fn gateway(attributes: &[u8]) -> Option<IpAddr> {
    // RTA_VIA: the family of the gateway, then its address.
    let via = || ip(attribute(attributes, RTA_VIA)?.get(2..)?);
    attribute(attributes, RTA_GATEWAY).and_then(ip).or_else(via)
}

/// Lists the neighbours of the socket's namespace.
pub(super) fn neighbours(asker: &mut Asker) -> Result<Vec<RawNeighbour>, Errno> {
    asker.list(
        RTM_GETNEIGH,
        |out| out.body(&[0; 12]),
        |message| {
            let (found, _) = neighbour(message)?;
            (found.addr.is_some() && found.state & NUD_NOARP == 0).then_some(found)
        },
    )
}

/// Lists the forwarding entries of the bridges of the socket's namespace.
pub(super) fn forwarding(asker: &mut Asker) -> Result<Vec<RawNeighbour>, Errno> {
    let mut header = [0; 12]; // struct ndmsg
    header[0] = libc::AF_BRIDGE as u8;
    asker.list(
        RTM_GETNEIGH,
        |out| out.body(&header),
        |message| {
            let (mut found, flags) = neighbour(message)?;
            if flags & NTF_EXT_LEARNED != 0 {
                // Told by a program, to stay: only the bridge's own way of keeping it is another.
                found.state |= NUD_NOARP;
            }
            // Without a master they are a device's own list of what it takes in.
            (flags & NTF_MASTER != 0 || attributes(&message.body[12..]).any(|(kind, _)| kind == 9))
                .then_some(RawNeighbour { addr: None, ..found })
        },
    )
}

fn neighbour(message: &Message<'_>) -> Option<(RawNeighbour, u8)> {
    let (header, rest) = message.body.split_at_checked(12)?;
    if message.kind != RTM_NEWNEIGH {
        return None;
    }
    let found = RawNeighbour {
        index: number(&header[4..])?,
        addr: attribute(rest, NDA_DST).and_then(ip),
        mac: attribute(rest, NDA_LLADDR).and_then(|mac| mac.try_into().ok()).map(Mac),
        state: u16::from_ne_bytes([header[8], header[9]]),
    };
    Some((found, header[10]))
}

impl RawNeighbour {
    /// Whether it was put there by hand, to stay.
    pub(super) fn is_kept(&self) -> bool {
        match self.addr {
            Some(_) => self.state & NUD_PERMANENT != 0,
            None => self.state & NUD_NOARP != 0,
        }
    }

    pub(super) fn state(&self) -> &'static str {
        match (self.addr, self.state) {
            (None, state) if state & NUD_PERMANENT != 0 => "own",
            (None, state) if state & NUD_NOARP != 0 => "static",
            (None, _) => "learned",
            (_, state) => match state {
                0x01 => "incomplete",
                0x02 => "reachable",
                0x04 => "stale",
                0x08 => "delay",
                0x10 => "probe",
                0x20 => "failed",
                NUD_PERMANENT => "permanent",
                _ => "none",
            },
        }
    }
}
