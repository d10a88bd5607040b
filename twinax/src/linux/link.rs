//! Messages about links: bridges, both ends of cables, bridge ports. Sends nothing.

use std::os::fd::RawFd;

use rustix::io::Errno;
use twinax_core::{
    model::{Link, Port, number_of},
    name::{IfName, Mac},
};

use super::{
    netlink::{self, Message, Outgoing, attributes, number, text},
    socket::{Batch, BatchError, RouteSocket},
};

/// `LOOPBACK_IFINDEX` (net/net_namespace.h): `lo` is made with its namespace and has it always.
pub const LOOPBACK: u32 = 1;

/// `IFALIASZ` (linux/if.h) less one: longer aliases are refused.
const ALIAS_BYTES: usize = 255;

/// `IPV6_MIN_MTU` (linux/ipv6.h): the kernel has no IPv6 on links with less.
const IPV6_LEAST_MTU: u32 = 1280;

const UP: u32 = libc::IFF_UP as u32;

/// No IPv6 in this kernel or on this link: then there is nothing to keep it from.
const NO_IPV6: &[Errno] = &[Errno::AFNOSUPPORT];

// linux/if_link.h, linux/veth.h.
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

/// `struct ifinfomsg` (linux/rtnetlink.h); `flags` are those to set.
fn header(index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// Asks for one link by name; no statistics, which are half of the answer.
pub fn ask_by_name(batch: &mut Batch, name: &str) {
    let out = batch.request(libc::RTM_GETLINK, 0);
    out.body(&header(0, 0));
    out.text(libc::IFLA_IFNAME, name);
    skip_statistics(out);
}

/// Asks for all links of a namespace.
pub fn list(batch: &mut Batch) {
    ask_by_index(batch, 0);
}

/// Asks for one link by index, likewise.
pub fn ask_by_index(batch: &mut Batch, index: u32) {
    let out = batch.request(libc::RTM_GETLINK, 0);
    out.body(&header(index, 0));
    skip_statistics(out);
}

fn skip_statistics(out: &mut Outgoing) {
    out.number(libc::IFLA_EXT_MASK, libc::RTEXT_FILTER_SKIP_STATS as u32);
}

/// Makes a bridge that forwards at once, floods multicast and never forms addresses of its own.
/// Its index is the kernel's choice, so the messages name it.
pub fn add_bridge(batch: &mut Batch, name: &IfName, link: &Link) {
    // A bridge takes the least MTU of its ports (`br_mtu_auto_adjust`) unless its own was
    // changed once, which setting the same value again is not.
    let out = birth(batch, name, 0, &Link { mtu: link.mtu ^ 1, ..link.clone() });
    let info = out.open_plain(libc::IFLA_LINKINFO);
    out.text(libc::IFLA_INFO_KIND, "bridge");
    let data = out.open_plain(libc::IFLA_INFO_DATA);
    out.number(IFLA_BR_FORWARD_DELAY, 0);
    out.number(IFLA_BR_STP_STATE, 0);
    out.attr(IFLA_BR_MCAST_SNOOPING, &[0]);
    out.close(data);
    out.close(info);

    let set_named = |batch: &mut Batch, flags, put: &dyn Fn(&mut Outgoing)| {
        let out = batch.request(libc::RTM_SETLINK, 0);
        out.body(&header(0, flags));
        out.text(libc::IFLA_IFNAME, name.as_str());
        put(out);
    };
    set_named(batch, 0, &|out| out.number(libc::IFLA_MTU, link.mtu));
    set_named(batch, 0, &|out| put_alias(out, &link.alias));
    set_named(batch, 0, &put_no_autoconf);
    batch.forgive(NO_IPV6);
    // Up last, so that no link-local address is formed.
    if link.up {
        set_named(batch, UP, &|_| {});
    }
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
pub fn add_veth(batch: &mut Batch, cable: &Cable<'_>) {
    let out = birth(batch, cable.name, cable.index, cable.host);
    put_one_queue(out);
    if let Some((bridge, _)) = cable.port {
        out.number(libc::IFLA_MASTER, bridge);
    }
    let info = out.open_plain(libc::IFLA_LINKINFO);
    out.text(libc::IFLA_INFO_KIND, "veth");
    let data = out.open_plain(libc::IFLA_INFO_DATA);
    let peer = out.open_plain(VETH_INFO_PEER);
    out.body(&header(0, 0));
    out.text(libc::IFLA_IFNAME, cable.inner_name.as_str());
    out.number(libc::IFLA_NET_NS_FD, cable.netns.cast_unsigned());
    put_ethernet(out, cable.inner);
    put_one_queue(out);
    out.close(peer);
    out.close(data);
    out.close(info);
    finish(batch, cable);
    if cable.host.up {
        up(batch, cable.index);
    }
}

/// What the creating message ignores: alias, port options, and that no link-local address is to
/// be formed. One message, but where the kernel may not know the link for IPv6: it would refuse
/// the rest with that.
fn finish(batch: &mut Batch, cable: &Cable<'_>) {
    // RTM_SETLINK does not look at port options; RTM_NEWLINK of a link that exists does.
    let out = change(batch, libc::RTM_NEWLINK, cable.index);
    put_alias(out, &cable.host.alias);
    if let Some((_, port)) = cable.port {
        put_port(out, port);
    }
    match cable.ipv6 && cable.host.mtu >= IPV6_LEAST_MTU {
        true => put_no_autoconf(out),
        false => no_autoconf(batch, cable.index),
    }
}

/// Puts a link on a bridge (or leaves it there) and sets the port's options.
pub fn set_port(batch: &mut Batch, index: u32, bridge: u32, port: &Port) {
    change(batch, libc::RTM_SETLINK, index).number(libc::IFLA_MASTER, bridge);
    // As in `finish`.
    put_port(change(batch, libc::RTM_NEWLINK, index), port);
}

/// The options of a port: the bridge answers ARP itself from its neighbour table and learns
/// nothing, as every container's MAC is known beforehand. Other broadcasts and multicasts pass:
/// IPv6 neighbour discovery and mDNS between containers keep working.
///
/// Of the kernel's two ways to answer ARP it is `IFLA_BRPORT_PROXYARP_WIFI`, as a port with
/// `IFLA_BRPORT_PROXYARP` is never flooded to, whatever its flood options say (`br_flood`).
fn put_port(out: &mut Outgoing, port: &Port) {
    use port_option::*;
    let options = [
        (HAIRPIN, port.hairpin),
        (LEARNING, false),
        (UNICAST_FLOOD, false),
        (PROXY_ARP, false),
        (PROXY_ARP_WIFI, true),
        (MULTICAST_FLOOD, true),
        (BROADCAST_FLOOD, true),
        (ISOLATED, false),
    ];
    let info = out.open_plain(libc::IFLA_LINKINFO);
    out.text(libc::IFLA_INFO_SLAVE_KIND, "bridge");
    let data = out.open_plain(libc::IFLA_INFO_SLAVE_DATA);
    for (option, on) in options {
        out.attr(option, &[u8::from(on)]);
    }
    out.close(data);
    out.close(info);
}

/// Sets the MTU, in bytes.
pub fn mtu(batch: &mut Batch, index: u32, mtu: u32) {
    change(batch, libc::RTM_SETLINK, index).number(libc::IFLA_MTU, mtu);
}

/// Sets the MAC address.
pub fn mac(batch: &mut Batch, index: u32, mac: Mac) {
    change(batch, libc::RTM_SETLINK, index).attr(libc::IFLA_ADDRESS, &mac.0);
}

/// Sets the group.
pub fn group(batch: &mut Batch, index: u32, group: u32) {
    change(batch, libc::RTM_SETLINK, index).number(libc::IFLA_GROUP, group);
}

/// Sets the alias, cut to what the kernel takes.
pub fn alias(batch: &mut Batch, index: u32, alias: &str) {
    put_alias(change(batch, libc::RTM_SETLINK, index), alias);
}

fn put_alias(out: &mut Outgoing, alias: &str) {
    let end = alias.floor_char_boundary(ALIAS_BYTES);
    out.text(libc::IFLA_IFALIAS, &alias[..end]);
}

/// Keeps the kernel from giving the link an IPv6 address of its own making; no router
/// solicitations then, no duplicate address detection, and none of their traffic.
pub fn no_autoconf(batch: &mut Batch, index: u32) {
    put_no_autoconf(change(batch, libc::RTM_SETLINK, index));
    batch.forgive(NO_IPV6);
}

fn put_no_autoconf(out: &mut Outgoing) {
    let families = out.open_plain(libc::IFLA_AF_SPEC);
    let inet6 = out.open_plain(libc::AF_INET6 as u16);
    out.attr(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
    out.close(inet6);
    out.close(families);
}

/// Sets a link up.
pub fn up(batch: &mut Batch, index: u32) {
    batch.request(libc::RTM_SETLINK, 0).body(&header(index, UP));
}

/// Deletes a link, and with one end of a cable the other.
pub fn delete(batch: &mut Batch, index: u32) {
    change(batch, libc::RTM_DELLINK, index);
}

/// Begins a message about a link that exists.
fn change(batch: &mut Batch, kind: u16, index: u32) -> &mut Outgoing {
    let out = batch.request(kind, 0);
    out.body(&header(index, 0));
    out
}

/// Begins the message that makes a link. A gate: what follows sets up the new link, and must not
/// reach a stranger with its number or name.
fn birth<'a>(batch: &'a mut Batch, name: &IfName, index: u32, link: &Link) -> &'a mut Outgoing {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let out = batch.gate(libc::RTM_NEWLINK, flags as u16);
    out.body(&header(index, 0));
    out.text(libc::IFLA_IFNAME, name.as_str());
    put_ethernet(out, link);
    if let Some(group) = link.group {
        out.number(libc::IFLA_GROUP, group.0);
    }
    out
}

fn put_ethernet(out: &mut Outgoing, link: &Link) {
    out.number(libc::IFLA_MTU, link.mtu);
    out.attr(libc::IFLA_ADDRESS, &link.mac.0);
}

/// With the default, one queue a CPU, the kernel waits for RCU twice: 0.2 to 1.2 ms.
fn put_one_queue(out: &mut Outgoing) {
    out.number(libc::IFLA_NUM_TX_QUEUES, 1);
    out.number(libc::IFLA_NUM_RX_QUEUES, 1);
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

/// Asks about one link; `None` where there is none of that name.
pub fn by_name(socket: &mut RouteSocket, name: &str) -> Result<Option<LinkFacts>, BatchError> {
    socket.get(|batch| ask_by_name(batch, name), read)
}

/// Asks about one link; `None` where there is none of that number.
pub fn by_index(socket: &mut RouteSocket, index: u32) -> Result<Option<LinkFacts>, BatchError> {
    socket.get(|batch| ask_by_index(batch, index), read)
}

/// Lists the names of all links of the socket's namespace. Never the host's: the kernel's cost for
/// that grows with the square of their number.
pub fn names(socket: &mut RouteSocket) -> Result<Vec<String>, BatchError> {
    socket.dump(list, |message| {
        let attributes = message.body.get(16..)?;
        netlink::attribute(attributes, libc::IFLA_IFNAME).and_then(text).map(str::to_owned)
    })
}

/// Whether the socket's namespace has a link of that name. Of a link of ours the number in its name
/// is its index, and stays so: without a link of that number it is gone, and for that answer the
/// kernel need not describe anything.
pub fn exists(socket: &mut RouteSocket, name: &IfName) -> Result<bool, BatchError> {
    match number_of(name).map(|index| socket.name_at(index)) {
        Some(Ok(found)) if found == name.as_str() => Ok(true),
        Some(Err(Errno::NODEV)) => Ok(false),
        _ => Ok(by_name(socket, name.as_str())?.is_some()),
    }
}

/// Reads an RTM_NEWLINK: of some sixty attributes those that we want.
pub fn read(message: &Message<'_>) -> Option<LinkFacts> {
    let (header, rest) = message.body.split_at_checked(16)?;
    let mut facts = LinkFacts {
        index: number(&header[4..])?,
        up: number(&header[8..])? & UP != 0,
        ..LinkFacts::default()
    };
    for (kind, data) in attributes(rest) {
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

fn read_info(info: &[u8], facts: &mut LinkFacts) {
    for (kind, data) in attributes(info) {
        match kind {
            libc::IFLA_INFO_KIND => facts.kind = text(data).unwrap_or_default().to_owned(),
            // Only bridges tell anything about their ports, as far as we look.
            libc::IFLA_INFO_SLAVE_DATA => facts.port = read_port(data),
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
    use super::*;

    #[test]
    fn a_long_alias_is_cut_between_characters() {
        let mut batch = Batch::default();
        alias(&mut batch, 3, &"é".repeat(200));
        assert_eq!(read(&batch.messages()[0]).unwrap().alias, "é".repeat(127));
    }

    /// Makes a cable with this MTU.
    fn birth_of(batch: &mut Batch, mtu: u32, ipv6: bool) {
        let (name, inner_name) = ("txv9".parse().unwrap(), "eth0".parse().unwrap());
        let peer = twinax_core::model::LinkId::host("eth0".parse().unwrap());
        let port = Port { bridge: "tx-web".parse().unwrap(), hairpin: true };
        let kind = twinax_core::model::LinkKind::VethHost { peer, port: Some(port.clone()) };
        let (mac, alias) = (Mac([2; 6]), "it".to_owned());
        let host = Link { kind, up: true, mac, mtu, group: None, alias };
        let cable = Cable {
            name: &name,
            index: 9,
            host: &host,
            port: Some((4, &port)),
            inner_name: &inner_name,
            inner: &host,
            netns: 0,
            ipv6,
        };
        add_veth(batch, &cable);
    }

    #[test]
    fn a_new_host_end_is_finished_by_one_message_and_set_up_by_the_next() {
        let mut batch = Batch::default();
        birth_of(&mut batch, 1280, true);
        let [born, finish, raise] = &batch.messages()[..] else { panic!() };
        assert!(!read(born).unwrap().up, "is born down");
        assert_eq!(attributes(&finish.body[16..]).count(), 3);
        assert!(read(raise).unwrap().up);
        // Without IPv6 the kernel refuses what is about it, and the rest of that message.
        for (mtu, ipv6) in [(1280, false), (1279, true)] {
            batch.clear();
            birth_of(&mut batch, mtu, ipv6);
            let [_, finish, apart, raise] = &batch.messages()[..] else { panic!() };
            assert_eq!(attributes(&finish.body[16..]).count(), 2);
            assert_eq!(attributes(&apart.body[16..]).count(), 1);
            assert!(read(raise).unwrap().up);
            assert_eq!(batch.forgiven(), [&[], &[], NO_IPV6, &[]]);
        }
    }

    #[test]
    fn what_port_options_write_reads_back_as_set() {
        let mut batch = Batch::default();
        let port = Port { bridge: "tx-web".parse().unwrap(), hairpin: true };
        let out = change(&mut batch, libc::RTM_NEWLINK, 9);
        put_port(out, &port);
        out.number(libc::IFLA_MASTER, 4);
        let read = read(&batch.messages()[0]).unwrap();
        assert_eq!(read.port, PortFacts { hairpin: true, as_set: true });
        assert_eq!((read.index, read.master, read.up), (9, Some(4), false));
    }
}
