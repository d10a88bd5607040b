//! The few netlink messages with which tests build the world around the product; its own code is not used.

use std::{
    io,
    net::{IpAddr, SocketAddrV4},
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice};

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/veth.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
const NLM_F_CREATE_EXCL: u16 = 0x400 | 0x200;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

/// Sets `lo` of the calling thread's namespace up.
pub fn loopback_up() -> io::Result<()> {
    set_up("lo")
}

/// Sets a link of the calling thread's namespace up.
pub fn set_up(name: &str) -> io::Result<()> {
    request(RTM_NEWLINK, 0, &link_header(index(name)?, libc::IFF_UP as u32))
}

/// Waits until the kernel has noticed the carrier of a link just set up; packets sent before are
/// dropped. To ask for a link is to have it looked at (`linkwatch_sync_dev`).
pub fn settle(name: &str) -> io::Result<()> {
    request(RTM_GETLINK, 0, &link_header(index(name)?, 0))
}

/// Adds a cable from here to another namespace; the ends are down.
pub fn add_veth(name: &str, peer: &str, peer_netns: RawFd) -> io::Result<()> {
    let mut far = link_header(0, 0);
    attribute(&mut far, IFLA_IFNAME, &text(peer));
    attribute(&mut far, IFLA_NET_NS_FD, &peer_netns.to_ne_bytes());
    let mut data = Vec::new();
    attribute(&mut data, VETH_INFO_PEER, &far);
    add_link(name, "veth", Some(&data))
}

/// Adds a bridge, as another tool might.
pub fn add_bridge(name: &str) -> io::Result<()> {
    add_link(name, "bridge", None)
}

fn add_link(name: &str, kind: &str, data: Option<&[u8]>) -> io::Result<()> {
    let mut info = Vec::new();
    attribute(&mut info, IFLA_INFO_KIND, &text(kind));
    if let Some(data) = data {
        attribute(&mut info, IFLA_INFO_DATA, data);
    }
    let mut body = link_header(0, 0);
    attribute(&mut body, IFLA_IFNAME, &text(name));
    attribute(&mut body, IFLA_LINKINFO, &info);
    request(RTM_NEWLINK, NLM_F_CREATE_EXCL, &body)
}

/// Adds a cable whose ends have these names and indices (0: as the kernel likes), the far end in
/// another namespace.
pub fn add_cable(
    (near, index): (&[u8], u32),
    (far, far_index, netns): (&[u8], u32, RawFd),
) -> io::Result<()> {
    let mut end = link_header(far_index, 0);
    attribute(&mut end, IFLA_IFNAME, &[far, b"\0"].concat());
    attribute(&mut end, IFLA_NET_NS_FD, &netns.to_ne_bytes());
    let mut data = Vec::new();
    attribute(&mut data, VETH_INFO_PEER, &end);
    let mut info = Vec::new();
    attribute(&mut info, IFLA_INFO_KIND, &text("veth"));
    attribute(&mut info, IFLA_INFO_DATA, &data);
    let mut body = link_header(index, 0);
    attribute(&mut body, IFLA_IFNAME, &[near, b"\0"].concat());
    attribute(&mut body, IFLA_LINKINFO, &info);
    request(RTM_NEWLINK, NLM_F_CREATE_EXCL, &body)
}

/// Adds a link of that kind, on another if it is one that lies on others; `options` are numbered
/// as in its `IFLA_INFO_DATA`.
pub fn add_kind(
    name: &str,
    kind: &str,
    on: Option<&str>,
    options: &[(u16, &[u8])],
) -> io::Result<()> {
    let mut data = Vec::new();
    for (option, value) in options {
        attribute(&mut data, *option, value);
    }
    let mut info = Vec::new();
    attribute(&mut info, IFLA_INFO_KIND, &text(kind));
    attribute(&mut info, IFLA_INFO_DATA, &data);
    let mut body = link_header(0, 0);
    attribute(&mut body, IFLA_IFNAME, &text(name));
    if let Some(on) = on {
        attribute(&mut body, IFLA_LINK, &index(on)?.to_ne_bytes());
    }
    attribute(&mut body, IFLA_LINKINFO, &info);
    request(RTM_NEWLINK, NLM_F_CREATE_EXCL, &body)
}

/// Makes a link a member of another.
pub fn set_master(name: &str, master: &str) -> io::Result<()> {
    let mut body = link_header(index(name)?, 0);
    attribute(&mut body, IFLA_MASTER, &index(master)?.to_ne_bytes());
    request(RTM_NEWLINK, 0, &body)
}

/// Sets what is one byte of a bridge's port: `IFLA_BRPORT_STATE`, `IFLA_BRPORT_ISOLATED`, …
pub fn set_port(name: &str, setting: u16, value: u8) -> io::Result<()> {
    const RTM_SETLINK: u16 = 19;
    const IFLA_PROTINFO: u16 = 12 | 0x8000; // NLA_F_NESTED
    let mut data = Vec::new();
    attribute(&mut data, setting, &[value]);
    let mut body = link_header(index(name)?, 0);
    // Asked as of any link the kernel chooses the state itself again.
    body[0] = libc::AF_BRIDGE as u8;
    attribute(&mut body, IFLA_PROTINFO, &data);
    request(RTM_SETLINK, 0, &body)
}

/// Adds or deletes a route that leads nowhere, of kind blackhole.
pub fn blackhole(dst: IpAddr, prefix: u8, add: bool) -> io::Result<()> {
    const RTM_DELROUTE: u16 = 25;
    let mut body = vec![family(dst), prefix, 0, 0, 254, 4, 0, libc::RTN_BLACKHOLE, 0, 0, 0, 0];
    attribute(&mut body, RTA_DST, &octets(dst));
    match add {
        true => request(RTM_NEWROUTE, NLM_F_CREATE_EXCL, &body),
        false => request(RTM_DELROUTE, 0, &body),
    }
}

/// Adds or deletes a policy rule that prohibits what comes from a subnet.
pub fn prohibit(from: IpAddr, prefix: u8, add: bool) -> io::Result<()> {
    const RTM_NEWRULE: u16 = 32;
    const RTM_DELRULE: u16 = 33;
    const FRA_SRC: u16 = 2;
    const FRA_PRIORITY: u16 = 6;
    const FR_ACT_PROHIBIT: u8 = 8;
    let mut body = vec![family(from), 0, prefix, 0, 0, 0, 0, FR_ACT_PROHIBIT, 0, 0, 0, 0];
    attribute(&mut body, FRA_SRC, &octets(from));
    attribute(&mut body, FRA_PRIORITY, &100u32.to_ne_bytes());
    match add {
        true => request(RTM_NEWRULE, NLM_F_CREATE_EXCL, &body),
        false => request(RTM_DELRULE, 0, &body),
    }
}

/// The numbers that the calling thread's namespace has for others.
pub fn numbers_of_namespaces() -> io::Result<Vec<i32>> {
    const RTM_GETNSID: u16 = 90;
    const NLM_F_DUMP: u16 = 0x300;
    let mut message = 20u32.to_ne_bytes().to_vec();
    message.extend(RTM_GETNSID.to_ne_bytes());
    message.extend((0x1 | NLM_F_DUMP).to_ne_bytes());
    message.extend([0; 12]);
    let socket = netlink()?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut numbers = Vec::new();
    let mut reply = vec![0; 1 << 16];
    loop {
        let (_, length) = rustix::net::recv(&socket, reply.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = &reply[..length];
        while rest.len() >= 20 {
            if u16::from_ne_bytes([rest[4], rest[5]]) != 88 {
                return Ok(numbers); // The end, or an error.
            }
            // struct rtgenmsg, padded; NETNSA_NSID comes first.
            numbers.push(i32::from_ne_bytes([rest[24], rest[25], rest[26], rest[27]]));
            rest = &rest[length_of(rest).next_multiple_of(4).min(rest.len())..];
        }
    }
}

/// Deletes a link of the calling thread's namespace.
pub fn del_link(name: &str) -> io::Result<()> {
    request(RTM_DELLINK, 0, &link_header(index(name)?, 0))
}

/// Gives a link another MAC.
pub fn set_mac(name: &str, mac: [u8; 6]) -> io::Result<()> {
    let mut body = link_header(index(name)?, 0);
    attribute(&mut body, IFLA_ADDRESS, &mac);
    request(RTM_NEWLINK, 0, &body)
}

/// Adds an address, usable at once (no duplicate address detection).
pub fn add_addr(name: &str, addr: IpAddr, prefix: u8) -> io::Result<()> {
    let mut body = vec![family(addr), prefix, IFA_F_NODAD, 0];
    body.extend(index(name)?.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &octets(addr));
    attribute(&mut body, IFA_ADDRESS, &octets(addr));
    request(RTM_NEWADDR, NLM_F_CREATE_EXCL, &body)
}

/// Takes an address away.
pub fn del_addr(name: &str, addr: IpAddr, prefix: u8) -> io::Result<()> {
    let mut body = vec![family(addr), prefix, 0, 0];
    body.extend(index(name)?.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &octets(addr));
    request(RTM_DELADDR, 0, &body)
}

/// Sets a link of the calling thread's namespace down.
pub fn set_down(name: &str) -> io::Result<()> {
    let mut body = link_header(index(name)?, 0);
    body[12..16].copy_from_slice(&(libc::IFF_UP as u32).to_ne_bytes());
    request(RTM_NEWLINK, 0, &body)
}

/// Sets the MTU of a link, in bytes.
pub fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    let mut body = link_header(index(name)?, 0);
    attribute(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
    request(RTM_NEWLINK, 0, &body)
}

/// The MTU of a link, in bytes.
pub fn mtu(name: &str) -> io::Result<u32> {
    let value = link_attribute(name, IFLA_MTU)?;
    Ok(u32::from_ne_bytes(value.try_into().expect("an MTU has 4 bytes")))
}

/// The Ethernet address of a link.
pub fn mac(name: &str) -> io::Result<[u8; 6]> {
    let value = link_attribute(name, IFLA_ADDRESS)?;
    Ok(value.try_into().expect("an Ethernet address has 6 bytes"))
}

/// Adds a route to `dst/prefix` (prefix 0: the default route) by a gateway, or on the link.
pub fn add_route(name: &str, dst: IpAddr, prefix: u8, via: Option<IpAddr>) -> io::Result<()> {
    // rtm_table MAIN, rtm_protocol STATIC, rtm_scope UNIVERSE or LINK, rtm_type UNICAST
    let scope = if via.is_some() { 0 } else { 253 };
    let mut body = vec![family(dst), prefix, 0, 0, 254, 4, scope, 1, 0, 0, 0, 0];
    if prefix > 0 {
        attribute(&mut body, RTA_DST, &octets(dst));
    }
    if let Some(via) = via {
        attribute(&mut body, RTA_GATEWAY, &octets(via));
    }
    attribute(&mut body, RTA_OIF, &index(name)?.to_ne_bytes());
    request(RTM_NEWROUTE, NLM_F_CREATE_EXCL, &body)
}

/// Adds a default route with a metric, beside those that are there.
pub fn add_default(name: &str, via: IpAddr, metric: u32) -> io::Result<()> {
    const RTA_PRIORITY: u16 = 6;
    let mut body = vec![family(via), 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
    attribute(&mut body, RTA_GATEWAY, &octets(via));
    attribute(&mut body, RTA_OIF, &index(name)?.to_ne_bytes());
    attribute(&mut body, RTA_PRIORITY, &metric.to_ne_bytes());
    request(RTM_NEWROUTE, NLM_F_CREATE_EXCL, &body)
}

/// Removes the default route by a gateway.
pub fn del_default(name: &str, via: IpAddr) -> io::Result<()> {
    const RTM_DELROUTE: u16 = 25;
    let mut body = vec![family(via), 0, 0, 0, 254, 0, 0, 0, 0, 0, 0, 0];
    attribute(&mut body, RTA_GATEWAY, &octets(via));
    attribute(&mut body, RTA_OIF, &index(name)?.to_ne_bytes());
    request(RTM_DELROUTE, 0, &body)
}

/// The index of a link of the calling thread's namespace.
pub fn index(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    netdevice::name_to_index(&socket, name)
        .map_err(|error| io::Error::new(error.kind(), format!("link {name}: {error}")))
}

fn link_attribute(name: &str, wanted: u16) -> io::Result<Vec<u8>> {
    let reply = exchange(RTM_GETLINK, 0, &link_header(index(name)?, 0))?;
    // struct ifinfomsg has 16 bytes, as has the header.
    let mut rest = &reply[32..length_of(&reply)];
    while let [a, b, c, d, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        if u16::from_ne_bytes([c, d]) == wanted {
            return Ok(rest[4..length].to_vec());
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Err(io::Error::other(format!("link {name} has no attribute {wanted}")))
}

/// A message begins with its length.
fn length_of(message: &[u8]) -> usize {
    u32::from_ne_bytes([message[0], message[1], message[2], message[3]]) as usize
}

pub fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    exchange(kind, flags, body).map(drop)
}

fn exchange(kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut message = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST_ACK | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    let socket = netlink()?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut reply = vec![0; 4096];
    rustix::net::recv(&socket, reply.as_mut_slice(), RecvFlags::empty())?;
    if u16::from_ne_bytes([reply[4], reply[5]]) != NLMSG_ERROR {
        return Ok(reply); // What was asked for.
    }
    // struct nlmsgerr: the error follows the 16 bytes of the header.
    match i32::from_ne_bytes([reply[16], reply[17], reply[18], reply[19]]) {
        0 => Ok(reply),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

fn netlink() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn link_header(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body
}

pub fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((4 + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn text(value: &str) -> Vec<u8> {
    [value.as_bytes(), b"\0"].concat()
}

fn family(addr: IpAddr) -> u8 {
    (if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// Sends one Ethernet frame, whatever it says, out of a link of the calling thread's namespace.
#[allow(unsafe_code, reason = "rustix has no address type for packet sockets")]
pub fn send_frame(name: &str, frame: &[u8]) -> io::Result<()> {
    let index = index(name)? as i32;
    let socket = rustix::net::socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: every field of sockaddr_ll may be zero.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = index;
    // SAFETY: both pointers are to live values of the sizes given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as u32,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An Ethernet frame with an IPv4 UDP datagram: `from` and `to` are MAC and socket address.
pub fn udp_frame(
    from: ([u8; 6], SocketAddrV4),
    to: ([u8; 6], SocketAddrV4),
    payload: &[u8],
) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + length).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend(from.1.ip().octets());
    ip.extend(to.1.ip().octets());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut udp = from.1.port().to_be_bytes().to_vec();
    udp.extend(to.1.port().to_be_bytes());
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0]); // No checksum, which IPv4 allows.
    [&to.0, &from.0, &[8, 0][..], &ip, &udp, payload].concat()
}
