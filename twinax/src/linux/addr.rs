//! Messages about addresses. Sends nothing.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol},
};
use rustix::io::Errno;
use twinax_core::model::PROTOCOL;

use super::socket::Message;

/// Gives an address to a link; once more changes nothing.
///
/// No broadcast address is stored, as `ip address add` does not either: the kernel knows the
/// subnet's last address as a broadcast all the same.
pub fn add(index: u32, net: IpNet) -> Message {
    let mut message = about(index, net);
    if net.addr().is_ipv6() {
        // Twinax gives out addresses itself: waiting a second for a clash would only delay.
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
    Message::new(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Takes an address from a link; one that is not there is no error.
pub fn delete(index: u32, net: IpNet) -> Message {
    Message::new(RouteNetlinkMessage::DelAddress(about(index, net)), 0)
        .forgiving(&[Errno::ADDRNOTAVAIL, Errno::NODEV])
}

fn about(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    message
}

/// Asks for the addresses of one link, or of all links (`None`), of both families.
pub fn list(index: Option<u32>) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = index.unwrap_or(0);
    RouteNetlinkMessage::GetAddress(message)
}

/// What is read of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrFacts {
    pub index: u32,
    pub net: IpNet,
    /// Given by Twinax (`IFA_PROTO`, since Linux 5.18; false on older kernels).
    pub ours: bool,
}

/// Reads an answer about an address; `None` where it is about something else.
pub fn facts(message: &RouteNetlinkMessage) -> Option<AddrFacts> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let mut local = None;
    let mut address = None;
    let mut ours = false;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Address(addr) => address = Some(*addr),
            AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)) => ours = true,
            _ => {}
        }
    }
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(AddrFacts { index: message.header.index, net, ours })
}

/// Whether the kernel makes addresses such as this on its own.
pub fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

pub(super) fn family(addr: IpAddr) -> AddressFamily {
    match addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_reads_back_as_ours() {
        for net in ["10.1.0.2/24", "10.1.0.2/32", "fd00::2/64", "fd00::2/128"] {
            let net: IpNet = net.parse().unwrap();
            let read = facts(&add(7, net).body).unwrap();
            assert_eq!(read, AddrFacts { index: 7, net, ours: true });
        }
    }
}
