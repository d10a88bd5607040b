//! Messages about routes of the main table. Sends nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
        RouteScope, RouteType, RouteVia,
    },
};
use rustix::io::Errno;
use twinax_core::model::{PROTOCOL, Route};

use super::{
    addr::family,
    socket::{BatchError, Message, RouteSocket},
};

/// Adds a route; refused with `EEXIST` where there is another to the same destination.
pub fn add(index: u32, route: &Route) -> Message {
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    Message::new(RouteNetlinkMessage::NewRoute(about(index, route)), flags)
}

/// Deletes a route.
pub fn delete(index: u32, route: &Route) -> Message {
    Message::new(RouteNetlinkMessage::DelRoute(about(index, route)), 0)
        .forgiving(&[Errno::SRCH, Errno::NODEV])
}

fn about(index: u32, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(route.dst.addr());
    header.destination_prefix_length = route.dst.prefix_len();
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::Other(PROTOCOL);
    header.kind = RouteType::Unicast;
    header.scope = match route.via {
        None => RouteScope::Link,
        Some(_) => RouteScope::Universe,
    };
    let attributes = &mut message.attributes;
    if route.dst.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(route.dst.network().into()));
    }
    if let Some(via) = route.via {
        attributes.push(match via.is_ipv4() == route.dst.addr().is_ipv4() {
            true => RouteAttribute::Gateway(via.into()),
            false => RouteAttribute::Via(via.into()),
        });
    }
    attributes.extend(route.src.map(|src| RouteAttribute::PrefSource(src.into())));
    attributes.push(RouteAttribute::Oif(index));
    message
}

/// Asks for our routes that lead out by one link.
pub fn list_ours(family: AddressFamily, index: u32) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.attributes = vec![RouteAttribute::Oif(index)];
    RouteNetlinkMessage::GetRoute(message)
}

/// Asks for all routes of a table.
pub fn list(family: AddressFamily, table: u8) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = table;
    RouteNetlinkMessage::GetRoute(message)
}

/// Whether the main table has a default route that is not ours. Only the header of each route is
/// read (`struct rtmsg`: the second byte is the length of the prefix, the sixth the protocol).
pub fn leads_out(socket: &mut RouteSocket, family: AddressFamily) -> Result<bool, BatchError> {
    let question = list(family, RouteHeader::RT_TABLE_MAIN);
    let routes = socket.dump_for(&question, |message| match message.body {
        [_, prefix, _, _, _, protocol, ..] => Ok(*prefix == 0 && *protocol != PROTOCOL),
        _ => Err("a route that cannot be read".to_owned()),
    })?;
    Ok(routes.contains(&true))
}

/// Asks which entry of the routing tables (`RTM_F_FIB_MATCH`, since Linux 4.13) serves `addr`.
pub fn find(addr: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(addr);
    message.header.destination_prefix_length = if addr.is_ipv4() { 32 } else { 128 };
    message.header.flags = RouteFlags::FibMatch;
    message.attributes = vec![RouteAttribute::Destination(addr.into())];
    RouteNetlinkMessage::GetRoute(message)
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
    pub kind: RouteType,
    pub ours: bool,
}

/// Reads an answer about a route; `None` where it is about something else.
pub fn facts(message: &RouteNetlinkMessage) -> Option<RouteFacts> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    let nowhere: IpAddr = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut dst = nowhere;
    let mut facts = RouteFacts {
        index: None,
        dst: nowhere.into(),
        via: None,
        src: None,
        metric: 0,
        kind: message.header.kind,
        ours: message.header.protocol == RouteProtocol::Other(PROTOCOL),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(addr) => dst = plain(addr)?,
            RouteAttribute::Gateway(addr) => facts.via = plain(addr),
            RouteAttribute::Via(RouteVia::Inet(addr)) => facts.via = Some((*addr).into()),
            RouteAttribute::Via(RouteVia::Inet6(addr)) => facts.via = Some((*addr).into()),
            RouteAttribute::PrefSource(addr) => facts.src = plain(addr),
            RouteAttribute::Oif(index) => facts.index = Some(*index),
            RouteAttribute::Priority(metric) => facts.metric = *metric,
            _ => {}
        }
    }
    facts.dst = IpNet::new(dst, message.header.destination_prefix_length).ok()?;
    Some(facts)
}

fn plain(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
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
            let read = facts(&add(7, &route).body).unwrap();
            assert_eq!((read.index, read.dst), (Some(7), dst));
            assert_eq!((read.via, read.src, read.ours), (via, src, true));
        }
    }
}
