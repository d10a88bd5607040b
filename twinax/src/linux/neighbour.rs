//! Messages about permanent neighbours and static forwarding entries. Sends nothing.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
    route::RouteProtocol,
};
use rustix::io::Errno;
use twinax_core::{model::PROTOCOL, name::Mac};

use super::{addr::family, socket::Message};

/// Ties an IP address to a MAC on a link for good, whatever was known before.
pub fn add(index: u32, addr: IpAddr, mac: Mac) -> Message {
    let mut message = about(index, addr);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
    Message::new(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Deletes a neighbour.
pub fn delete(index: u32, addr: IpAddr) -> Message {
    Message::new(RouteNetlinkMessage::DelNeighbour(about(index, addr)), 0).forgiving(&[
        Errno::NOENT,
        Errno::NODEV,
        Errno::NXIO,
    ])
}

/// Asks for one neighbour.
pub fn get(index: u32, addr: IpAddr) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetNeighbour(about(index, addr))
}

fn about(index: u32, addr: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(addr);
    message.header.ifindex = index;
    message.header.state = NeighbourState::None;
    message.attributes = vec![NeighbourAttribute::Destination(addr.into())];
    message
}

/// Tells a bridge that a MAC is behind one of its ports, wherever it was thought to be.
pub fn add_fdb(port: u32, mac: Mac) -> Message {
    let mut message = about_fdb(port, mac);
    // Static in the bridge's terms; NUD_PERMANENT would mean an address of the bridge itself.
    message.header.state = NeighbourState::Noarp;
    Message::new(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Deletes an entry of a bridge's forwarding table.
pub fn delete_fdb(port: u32, mac: Mac) -> Message {
    // EINVAL: the port is off its bridge, and its entries went with it.
    Message::new(RouteNetlinkMessage::DelNeighbour(about_fdb(port, mac)), 0).forgiving(&[
        Errno::NOENT,
        Errno::NODEV,
        Errno::INVAL,
        Errno::OPNOTSUPP,
    ])
}

/// Asks a port's bridge where a MAC is.
pub fn get_fdb(port: u32, mac: Mac) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetNeighbour(about_fdb(port, mac))
}

fn about_fdb(port: u32, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.state = NeighbourState::None;
    // NTF_MASTER: the table of the port's bridge, not the port's own.
    message.header.flags = NeighbourFlags::Controller;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    message
}

/// What is read of a neighbour or a forwarding entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourFacts {
    /// The link; for a forwarding entry, the port.
    pub index: u32,
    /// `None` for forwarding entries.
    pub addr: Option<IpAddr>,
    pub mac: Option<Mac>,
    /// As Twinax writes it: permanent and marked, or a static forwarding entry.
    pub ours: bool,
}

/// Reads an answer about a neighbour; `None` where it is about something else.
pub fn facts(message: &RouteNetlinkMessage) -> Option<NeighbourFacts> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    let mut facts =
        NeighbourFacts { index: message.header.ifindex, addr: None, mac: None, ours: false };
    let mut marked = false;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)) => {
                facts.addr = Some((*addr).into());
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(addr)) => {
                facts.addr = Some((*addr).into());
            }
            NeighbourAttribute::LinkLayerAddress(mac) => {
                facts.mac = mac.as_slice().try_into().ok().map(Mac);
            }
            NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)) => marked = true,
            _ => {}
        }
    }
    facts.ours = match message.header.family {
        AddressFamily::Bridge => message.header.state == NeighbourState::Noarp,
        _ => marked && message.header.state == NeighbourState::Permanent,
    };
    Some(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_reads_back_as_ours() {
        let mac = Mac([2, 0x74, 10, 1, 0, 2]);
        for addr in ["10.1.0.2", "fd00::2"] {
            let addr: IpAddr = addr.parse().unwrap();
            let read = facts(&add(7, addr, mac).body).unwrap();
            let expected =
                NeighbourFacts { index: 7, addr: Some(addr), mac: Some(mac), ours: true };
            assert_eq!(read, expected);
        }
        let read = facts(&add_fdb(7, mac).body).unwrap();
        assert_eq!(read, NeighbourFacts { index: 7, addr: None, mac: Some(mac), ours: true });
    }
}
