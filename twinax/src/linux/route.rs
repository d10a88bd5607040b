//! Messages about routes of the main table. Sends nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rustix::io::Errno;
use twinax_core::{
    model::{PROTOCOL, Route},
    state::Led,
};

use super::{
    addr::{ANY, INET, INET6, family},
    netlink::{Message, Outgoing, attributes, ip, number},
    socket::{Batch, BatchError, RouteSocket},
};

/// `struct rtmsg` (linux/rtnetlink.h), as far as we fill it in.
#[derive(Clone, Copy, Debug, Default)]
struct Header {
    family: u8,
    dst_len: u8,
    table: u8,
    protocol: u8,
    scope: u8,
    kind: u8,
    flags: u32,
}

impl Header {
    fn bytes(self) -> [u8; 12] {
        let Self { family, dst_len, table, protocol, scope, kind, flags } = self;
        let [a, b, c, d] = flags.to_ne_bytes();
        // The source's length and the type of service are not used.
        [family, dst_len, 0, 0, table, protocol, scope, kind, a, b, c, d]
    }
}

/// Adds a route; refused with `EEXIST` where there is another to the same destination.
pub fn add(batch: &mut Batch, index: u32, route: &Route) {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    put_route(batch.request(libc::RTM_NEWROUTE, flags as u16), index, route);
}

/// Deletes a route.
pub fn delete(batch: &mut Batch, index: u32, route: &Route) {
    put_route(batch.request(libc::RTM_DELROUTE, 0), index, route);
    batch.forgive(&[Errno::SRCH, Errno::NODEV]);
}

fn put_route(out: &mut Outgoing, index: u32, route: &Route) {
    let scope = match route.via {
        None => libc::RT_SCOPE_LINK,
        Some(_) => libc::RT_SCOPE_UNIVERSE,
    };
    let header = Header {
        family: family(route.dst.addr()),
        dst_len: route.dst.prefix_len(),
        table: libc::RT_TABLE_MAIN,
        protocol: PROTOCOL,
        scope,
        kind: libc::RTN_UNICAST,
        flags: 0,
    };
    out.body(&header.bytes());
    if route.dst.prefix_len() > 0 {
        out.ip(libc::RTA_DST, route.dst.network());
    }
    match route.via {
        Some(via) if family(via) == header.family => out.ip(libc::RTA_GATEWAY, via),
        Some(via) => put_via(out, via),
        None => {}
    }
    if let Some(src) = route.src {
        out.ip(libc::RTA_PREFSRC, src);
    }
    out.number(libc::RTA_OIF, index);
}

/// A gateway of the other family (`struct rtvia`: family u16, address).
fn put_via(out: &mut Outgoing, via: IpAddr) {
    let family = u16::from(family(via)).to_ne_bytes();
    match via {
        IpAddr::V4(via) => out.attr(libc::RTA_VIA, &[&family[..], &via.octets()].concat()),
        IpAddr::V6(via) => out.attr(libc::RTA_VIA, &[&family[..], &via.octets()].concat()),
    }
}

/// Asks for our routes that lead out by one link.
pub fn list_ours(batch: &mut Batch, family: u8, index: u32) {
    let table = libc::RT_TABLE_MAIN;
    let header = Header { family, table, protocol: PROTOCOL, ..Header::default() };
    let out = batch.request(libc::RTM_GETROUTE, 0);
    out.body(&header.bytes());
    out.number(libc::RTA_OIF, index);
}

/// Asks for all routes of a table.
pub fn list(batch: &mut Batch, family: u8, table: u8) {
    let header = Header { family, table, ..Header::default() };
    batch.request(libc::RTM_GETROUTE, 0).body(&header.bytes());
}

/// In which families the main table has a default route that is not ours. Both are listed by one
/// question, and only the header of each route is read (`struct rtmsg`: the first byte is the
/// family, the second the length of the prefix, the sixth the protocol).
pub fn leads_out(socket: &mut RouteSocket) -> Result<Led, BatchError> {
    let routes = socket.dump(
        |batch| list(batch, ANY, libc::RT_TABLE_MAIN),
        |message| match message.body {
            [family, 0, _, _, _, protocol, ..] if *protocol != PROTOCOL => Some(*family),
            _ => None,
        },
    )?;
    Ok(Led { v4: routes.contains(&INET), v6: routes.contains(&INET6) })
}

/// Asks which entry of the routing tables (`RTM_F_FIB_MATCH`, since Linux 4.13) serves `addr`.
pub fn find(batch: &mut Batch, addr: IpAddr) {
    let dst_len = if addr.is_ipv4() { 32 } else { 128 };
    let flags = libc::RTM_F_FIB_MATCH;
    let header = Header { family: family(addr), dst_len, flags, ..Header::default() };
    let out = batch.request(libc::RTM_GETROUTE, 0);
    out.body(&header.bytes());
    out.ip(libc::RTA_DST, addr);
}

/// What is read of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFacts {
    /// The device, where it has exactly one.
    pub index: Option<u32>,
    pub dst: IpNet,
    pub via: Option<IpAddr>,
    pub src: Option<IpAddr>,
    /// Smaller is preferred.
    pub metric: u32,
    /// `RTN_*`.
    pub kind: u8,
    pub ours: bool,
}

/// Reads an answer about a route; `None` where it is not of IP.
pub fn facts(message: &Message<'_>) -> Option<RouteFacts> {
    let (header, rest) = message.body.split_at_checked(12)?;
    let nowhere: IpAddr = match header[0] {
        INET => Ipv4Addr::UNSPECIFIED.into(),
        INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut dst = nowhere;
    let mut facts = RouteFacts {
        index: None,
        dst: nowhere.into(),
        via: None,
        src: None,
        metric: 0,
        kind: header[7],
        ours: header[5] == PROTOCOL,
    };
    for (kind, data) in attributes(rest) {
        match kind {
            libc::RTA_DST => dst = ip(data)?,
            libc::RTA_GATEWAY => facts.via = ip(data),
            libc::RTA_VIA => facts.via = data.get(2..).and_then(ip),
            libc::RTA_PREFSRC => facts.src = ip(data),
            libc::RTA_OIF => facts.index = number(data),
            libc::RTA_PRIORITY => facts.metric = number(data)?,
            _ => {}
        }
    }
    facts.dst = IpNet::new(dst, header[1]).ok()?;
    Some(facts)
}

#[cfg(test)]
mod tests {
    use twinax_core::model::LinkId;

    use super::*;

    #[test]
    fn what_is_asked_for_reads_back_as_ours() {
        let link = LinkId::host("txv1".parse().unwrap());
        for (dst, via, src) in [
            ("0.0.0.0/0", Some("10.1.0.1"), None),
            ("10.1.0.2/32", None, Some("10.1.0.1")),
            ("::/0", Some("fd00::1"), None),
            ("fd00::2/128", None, None),
            ("10.2.0.0/16", Some("fd00::1"), None),
        ] {
            let dst: IpNet = dst.parse().unwrap();
            let via = via.map(|via| via.parse().unwrap());
            let src = src.map(|src| src.parse().unwrap());
            let route = Route { link: link.clone(), dst, via, src };
            let mut batch = Batch::default();
            add(&mut batch, 7, &route);
            let read = facts(&batch.messages()[0]).unwrap();
            assert_eq!((read.index, read.dst), (Some(7), dst));
            assert_eq!((read.via, read.src, read.ours), (via, src, true));
        }
    }
}
