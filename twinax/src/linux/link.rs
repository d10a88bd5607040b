//! Messages about links: bridges, both ends of cables, bridge ports. Sends nothing.

use std::os::fd::RawFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge, InfoBridgePort,
        InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkExtentMask,
        LinkFlags, LinkInfo, LinkMessage,
    },
};
use rustix::io::Errno;
use twinax_core::{
    model::{Link, Port},
    name::{IfName, Mac},
};

use super::{
    netlink::{self, attributes, text},
    socket::{BatchError, Message, RouteSocket, only},
};

/// `LOOPBACK_IFINDEX` (net/net_namespace.h): `lo` is made with its namespace and has it always.
pub const LOOPBACK: u32 = 1;

/// `IFALIASZ` (linux/if.h) less one: longer aliases are refused.
const ALIAS_BYTES: usize = 255;

/// `IPV6_MIN_MTU` (linux/ipv6.h): the kernel has no IPv6 on links with less.
const IPV6_LEAST_MTU: u32 = 1280;

/// Asks for one link by name; no statistics, which are half of the answer.
pub fn get_by_name(name: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
    ];
    RouteNetlinkMessage::GetLink(message)
}

/// Asks for all links of a namespace.
fn list() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    RouteNetlinkMessage::GetLink(message)
}

/// Asks for one link by index, likewise.
pub fn get_by_index(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    RouteNetlinkMessage::GetLink(message)
}

/// Makes a bridge that forwards at once, floods multicast and never forms addresses of its own.
/// Its index is the kernel's choice, so the messages name it.
pub fn add_bridge(name: &IfName, link: &Link) -> Vec<Message> {
    // A bridge takes the least MTU of its ports (`br_mtu_auto_adjust`) unless its own was
    // changed once, which setting the same value again is not.
    let born = Link { mtu: link.mtu ^ 1, ..link.clone() };
    let mut message = birth(name, 0, &born);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![
            InfoBridge::ForwardDelay(0),
            InfoBridge::StpState(BridgeStpState::Disabled),
            InfoBridge::MulticastSnooping(false),
        ])),
    ]));
    let mut messages = vec![creating(message)];
    // Up last, so that no link-local address is formed.
    let rest = [mtu(0, link.mtu), alias(0, &link.alias), no_autoconf(0)];
    let rest = rest.into_iter().chain(link.up.then(|| up(0)));
    messages.extend(rest.map(|mut message| {
        if let RouteNetlinkMessage::SetLink(body) = &mut message.body {
            body.attributes.insert(0, LinkAttribute::IfName(name.to_string()));
        }
        message
    }));
    messages
}

/// What the messages for a new cable need to know beside the two links.
#[derive(Clone, Copy, Debug)]
pub struct Cable<'a> {
    pub name: &'a IfName,
    pub index: u32,
    pub host: &'a Link,
    /// The bridge's index, and how the port behaves.
    pub port: Option<(u32, &'a Port)>,
    pub inner_name: &'a IfName,
    pub inner: &'a Link,
    /// The far end's namespace. It is born there: moving it would cost 15 ms.
    pub netns: RawFd,
    /// Whether this kernel has IPv6.
    pub ipv6: bool,
}

/// Makes both ends of a cable, the host end on its bridge. The far end stays down: the kernel
/// cannot raise it before the ends are tied together (`veth_open`: `ENOTCONN`).
///
/// Each change to a link that is up is told to whoever listens, for which the kernel looks for the
/// number of the far end's namespace among all that the host's has (`peernet2id`). So the host
/// end goes up last, and what comes before it is one message.
pub fn add_veth(cable: &Cable<'_>) -> Vec<Message> {
    let mut far = LinkMessage::default();
    far.attributes = vec![
        LinkAttribute::IfName(cable.inner_name.to_string()),
        LinkAttribute::NetNsFd(cable.netns),
    ];
    far.attributes.extend(ethernet(cable.inner));
    far.attributes.extend(one_queue());

    let mut message = birth(cable.name, cable.index, cable.host);
    message.attributes.extend(one_queue());
    if let Some((bridge, _)) = cable.port {
        message.attributes.push(LinkAttribute::Controller(bridge));
    }
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
    ]));
    let mut messages = vec![creating(message)];
    messages.extend(finishing(cable));
    messages.extend(cable.host.up.then(|| up(cable.index)));
    messages
}

/// What the creating message ignores: alias, port options, and that no link-local address is to
/// be formed. One message, but where the kernel may not know the link for IPv6: it would refuse
/// the rest with that.
fn finishing(cable: &Cable<'_>) -> Vec<Message> {
    let mut message = LinkMessage::default();
    message.header.index = cable.index;
    message.attributes = vec![alias_attribute(&cable.host.alias)];
    message.attributes.extend(cable.port.map(|(_, port)| port_attribute(port)));
    let together = cable.ipv6 && cable.host.mtu >= IPV6_LEAST_MTU;
    if together {
        message.attributes.push(autoconf_attribute());
    }
    // RTM_SETLINK does not look at port options; RTM_NEWLINK of a link that exists does.
    let finish = Message::new(RouteNetlinkMessage::NewLink(message), 0);
    match together {
        true => vec![finish],
        false => vec![finish, no_autoconf(cable.index)],
    }
}

/// Puts a link on a bridge (or leaves it there) and sets the port's options.
pub fn set_port(index: u32, bridge: u32, port: &Port) -> Vec<Message> {
    vec![setting(index, LinkAttribute::Controller(bridge)), port_options(index, port)]
}

/// The options of a port: the bridge answers ARP itself from its neighbour table and learns
/// nothing, as every container's MAC is known beforehand. Other broadcasts and multicasts pass:
/// IPv6 neighbour discovery and mDNS between containers keep working.
///
/// Of the kernel's two ways to answer ARP it is `IFLA_BRPORT_PROXYARP_WIFI`, as a port with
/// `IFLA_BRPORT_PROXYARP` is never flooded to, whatever its flood options say (`br_flood`).
fn port_options(index: u32, port: &Port) -> Message {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![port_attribute(port)];
    // RTM_SETLINK does not look at port options; RTM_NEWLINK of a link that exists does.
    Message::new(RouteNetlinkMessage::NewLink(message), 0)
}

fn port_attribute(port: &Port) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![
            InfoBridgePort::HairpinMode(port.hairpin),
            InfoBridgePort::Learning(false),
            InfoBridgePort::UnicastFlood(false),
            InfoBridgePort::ProxyARP(false),
            InfoBridgePort::ProxyARPWifi(true),
            InfoBridgePort::MulticastFlood(true),
            InfoBridgePort::BroadcastFlood(true),
            InfoBridgePort::Isolated(false),
        ])),
    ])
}

/// Sets the MTU, in bytes.
pub fn mtu(index: u32, mtu: u32) -> Message {
    setting(index, LinkAttribute::Mtu(mtu))
}

/// Sets the MAC address.
pub fn mac(index: u32, mac: Mac) -> Message {
    setting(index, LinkAttribute::Address(mac.0.to_vec()))
}

/// Sets the group.
pub fn group(index: u32, group: u32) -> Message {
    setting(index, LinkAttribute::Group(group))
}

/// Sets the alias, cut to what the kernel takes.
pub fn alias(index: u32, alias: &str) -> Message {
    setting(index, alias_attribute(alias))
}

fn alias_attribute(alias: &str) -> LinkAttribute {
    let end = alias.floor_char_boundary(ALIAS_BYTES);
    LinkAttribute::IfAlias(alias[..end].to_owned())
}

/// Keeps the kernel from giving the link an IPv6 address of its own making; no router
/// solicitations then, no duplicate address detection, and none of their traffic.
pub fn no_autoconf(index: u32) -> Message {
    // No IPv6 in this kernel or on this link: nothing to prevent.
    setting(index, autoconf_attribute()).forgiving(&[Errno::AFNOSUPPORT])
}

fn autoconf_attribute() -> LinkAttribute {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])
}

/// Sets a link up.
pub fn up(index: u32) -> Message {
    flags(index, LinkFlags::Up)
}

/// Deletes a link, and with one end of a cable the other.
pub fn delete(index: u32) -> Message {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Message::new(RouteNetlinkMessage::DelLink(message), 0)
}

fn flags(index: u32, flags: LinkFlags) -> Message {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message.header.change_mask = LinkFlags::Up;
    Message::new(RouteNetlinkMessage::SetLink(message), 0)
}

fn setting(index: u32, attribute: LinkAttribute) -> Message {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![attribute];
    Message::new(RouteNetlinkMessage::SetLink(message), 0)
}

/// A gate: what follows sets up the new link, and must not reach a stranger with its number
/// or name.
fn creating(message: LinkMessage) -> Message {
    Message::new(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).first()
}

fn birth(name: &IfName, index: u32, link: &Link) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::IfName(name.to_string())];
    message.attributes.extend(ethernet(link));
    message.attributes.extend(link.group.map(|group| LinkAttribute::Group(group.0)));
    message
}

fn ethernet(link: &Link) -> [LinkAttribute; 2] {
    [LinkAttribute::Mtu(link.mtu), LinkAttribute::Address(link.mac.0.to_vec())]
}

/// With the default, one queue a CPU, the kernel waits for RCU twice: 0.2 to 1.2 ms.
fn one_queue() -> [LinkAttribute; 2] {
    [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)]
}

/// What is read of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    pub index: u32,
    pub name: String,
    /// `veth`, `bridge`, …; empty for physical devices and `lo`.
    pub kind: String,
    pub up: bool,
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub group: u32,
    pub alias: String,
    /// The far end's index in its own namespace.
    pub peer: Option<u32>,
    /// The far end's namespace, as this namespace numbers it; `None`: the same namespace.
    pub peer_netns: Option<i32>,
    /// The index of the bridge (or other master) it is on.
    pub master: Option<u32>,
    pub port: PortFacts,
}

/// The options of a bridge port that Twinax sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortFacts {
    pub hairpin: bool,
    /// All others are as [`set_port`] sets them.
    pub as_set: bool,
}

/// Asks about several links at once, each with one answer or one refusal.
pub fn ask(
    socket: &mut RouteSocket,
    questions: &[RouteNetlinkMessage],
) -> Result<Vec<Result<LinkFacts, Errno>>, BatchError> {
    socket.ask_for(questions, answer)
}

/// Asks about one link; `None` where there is no such link.
pub fn get(
    socket: &mut RouteSocket,
    question: RouteNetlinkMessage,
) -> Result<Option<LinkFacts>, BatchError> {
    only(ask(socket, std::slice::from_ref(&question))?)
}

/// Lists the names of all links of the socket's namespace. Never the host's: the kernel's cost for
/// that grows with the square of their number.
pub fn names(socket: &mut RouteSocket) -> Result<Vec<String>, BatchError> {
    socket.dump_for(&list(), |message| {
        let attributes = message.body.get(16..).unwrap_or_default();
        let name = netlink::attribute(attributes, libc::IFLA_IFNAME).and_then(text);
        name.map(str::to_owned).ok_or_else(|| "a link without a name".to_owned())
    })
}

/// Whether the socket's namespace has a link of that name. A link of ours is looked for by its
/// number first: for that the kernel need not describe it.
pub fn exists(socket: &mut RouteSocket, name: &IfName) -> Result<bool, BatchError> {
    let number = name.as_str().strip_prefix("txv").and_then(|number| number.parse().ok());
    let found = number.and_then(|index| socket.name_at(index).ok());
    Ok(found.is_some_and(|found| found == name.as_str())
        || get(socket, get_by_name(name.as_str()))?.is_some())
}

fn answer(message: &netlink::Message<'_>) -> Result<LinkFacts, String> {
    read(message.body).ok_or_else(|| "a link that cannot be read".to_owned())
}

/// Reads the body of an RTM_NEWLINK. Not by the types that write: a link comes with some sixty
/// attributes, and to decode them all cost more than the kernel's answer did.
pub fn read(body: &[u8]) -> Option<LinkFacts> {
    let number = |data: &[u8]| data.first_chunk().copied().map(u32::from_ne_bytes);
    let header: &[u8; 16] = body.first_chunk()?;
    let mut facts = LinkFacts {
        index: number(&header[4..])?,
        up: number(&header[8..])? & libc::IFF_UP as u32 != 0,
        ..LinkFacts::default()
    };
    for (kind, data) in attributes(&body[16..]) {
        match kind {
            libc::IFLA_ADDRESS => facts.mac = data.try_into().ok().map(Mac),
            libc::IFLA_IFNAME => facts.name = text(data)?.to_owned(),
            libc::IFLA_MTU => facts.mtu = number(data)?,
            libc::IFLA_LINK => facts.peer = number(data),
            libc::IFLA_MASTER => facts.master = number(data),
            libc::IFLA_LINKINFO => read_info(data, &mut facts),
            libc::IFLA_IFALIAS => facts.alias = text(data)?.to_owned(),
            libc::IFLA_GROUP => facts.group = number(data)?,
            libc::IFLA_LINK_NETNSID => facts.peer_netns = number(data).map(u32::cast_signed),
            _ => {}
        }
    }
    Some(facts)
}

/// Within `IFLA_LINKINFO` (linux/if_link.h).
const INFO_KIND: u16 = 1;
const INFO_SLAVE_DATA: u16 = 5;

fn read_info(info: &[u8], facts: &mut LinkFacts) {
    for (kind, data) in attributes(info) {
        match kind {
            INFO_KIND => facts.kind = text(data).unwrap_or_default().to_owned(),
            // Only bridges tell anything about their ports, as far as we look.
            INFO_SLAVE_DATA => facts.port = read_port(data),
            _ => {}
        }
    }
}

/// `IFLA_BRPORT_*` (linux/if_link.h), each a byte.
mod port_option {
    pub(super) const HAIRPIN: u16 = 4;
    pub(super) const LEARNING: u16 = 8;
    pub(super) const UNICAST_FLOOD: u16 = 9;
    pub(super) const PROXY_ARP: u16 = 10;
    pub(super) const PROXY_ARP_WIFI: u16 = 12;
    pub(super) const MULTICAST_FLOOD: u16 = 27;
    pub(super) const BROADCAST_FLOOD: u16 = 30;
    pub(super) const ISOLATED: u16 = 33;
}

fn read_port(options: &[u8]) -> PortFacts {
    use port_option::*;
    let mut port = PortFacts { as_set: true, ..PortFacts::default() };
    for (kind, data) in attributes(options) {
        let on = data.first().is_some_and(|byte| *byte != 0);
        match kind {
            HAIRPIN => port.hairpin = on,
            LEARNING | UNICAST_FLOOD | PROXY_ARP | ISOLATED => port.as_set &= !on,
            PROXY_ARP_WIFI | MULTICAST_FLOOD | BROADCAST_FLOOD => port.as_set &= on,
            _ => {}
        }
    }
    port
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    #[test]
    fn a_long_alias_is_cut_between_characters() {
        let long = "é".repeat(200);
        let RouteNetlinkMessage::SetLink(message) = alias(3, &long).body else { panic!() };
        assert_eq!(message.attributes, [LinkAttribute::IfAlias("é".repeat(127))]);
    }

    /// What follows the message that makes a cable with this MTU.
    fn after_birth(mtu: u32, ipv6: bool) -> Vec<Message> {
        let (name, inner_name) = ("txv9".parse().unwrap(), "eth0".parse().unwrap());
        let peer = twinax_core::model::LinkId::host("eth0".parse().unwrap());
        let port = Port { bridge: "tx-web".parse().unwrap(), hairpin: true };
        let kind = twinax_core::model::LinkKind::VethHost { peer, port: Some(port.clone()) };
        let (mac, alias) = (Mac([2; 6]), "it".to_owned());
        let host = Link { kind, up: true, mac, mtu, group: None, alias };
        let messages = add_veth(&Cable {
            name: &name,
            index: 9,
            host: &host,
            port: Some((4, &port)),
            inner_name: &inner_name,
            inner: &host,
            netns: 0,
            ipv6,
        });
        let RouteNetlinkMessage::NewLink(born) = &messages[0].body else { panic!() };
        assert!(messages[0].gate && born.header.flags.is_empty(), "is born down");
        messages[1..].to_vec()
    }

    #[test]
    fn a_new_host_end_is_finished_by_one_message_and_set_up_by_the_next() {
        let [finish, raise] = &after_birth(1280, true)[..] else { panic!() };
        let RouteNetlinkMessage::NewLink(finish) = &finish.body else { panic!() };
        assert_eq!((finish.header.index, finish.attributes.len()), (9, 3));
        assert_eq!(raise.body, up(9).body);
        // Without IPv6 the kernel refuses what is about it, and the rest of that message.
        for (mtu, ipv6) in [(1280, false), (1279, true)] {
            let [finish, apart, raise] = &after_birth(mtu, ipv6)[..] else { panic!() };
            let RouteNetlinkMessage::NewLink(finish) = &finish.body else { panic!() };
            assert_eq!(finish.attributes.len(), 2);
            assert_eq!(
                (&apart.body, apart.forgiven),
                (&no_autoconf(9).body, &[Errno::AFNOSUPPORT][..])
            );
            assert_eq!(raise.body, up(9).body);
        }
    }

    #[test]
    fn what_port_options_write_reads_back_as_set() {
        let bridge = "tx-web".parse().unwrap();
        let port = Port { bridge, hairpin: true };
        let RouteNetlinkMessage::NewLink(mut message) = port_options(9, &port).body else {
            panic!()
        };
        message.attributes.push(LinkAttribute::Controller(4));
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        let read = read(&bytes).unwrap();
        assert_eq!(read.port, PortFacts { hairpin: true, as_set: true });
        assert_eq!((read.index, read.master, read.up), (9, Some(4), false));
    }
}
