//! The floor: attaches a container with the messages that the engine sends, and does nothing else.
//!
//! One file, of the standard library and libc alone. It decides nothing, remembers nothing and
//! looks at nothing: every number is given to it. So whatever the engine takes beyond it is the
//! price of thinking, storing and proving. Message layouts are those of linux/rtnetlink.h,
//! linux/if_link.h, linux/neighbour.h and linux/netfilter/nf_tables.h.
#![allow(unsafe_code, reason = "system calls without the project's crates")]

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
    time::{Duration, Instant},
};

const RTM_NEWLINK: u16 = 16;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const NFT_NEWSETELEM: u16 = 10 << 8 | 12;
const NFT_DELSETELEM: u16 = 10 << 8 | 14;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const REPLACE: u16 = 0x100;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;

/// Marks what is Twinax's among routes, addresses and neighbours.
const PROTOCOL: u8 = 116;
const LOOPBACK: u32 = 1;
const IFF_UP: u32 = 1;

/// What a container is to get; nothing is looked up.
#[derive(Clone, Debug)]
pub struct Cable {
    pub container: String,
    /// Name and kernel index of the host end.
    pub number: u32,
    pub alias: String,
    pub bridge: u32,
    pub bridge_name: String,
    pub group: u32,
    pub mtu: u32,
    pub mac: [u8; 6],
    pub host_mac: [u8; 6],
    pub addr: [u8; 4],
    pub prefix: u8,
    pub gateway: [u8; 4],
    pub gateway_mac: [u8; 6],
    /// TCP.
    pub host_port: u16,
    pub port: u16,
}

impl Cable {
    pub fn host_end(&self) -> String {
        format!("txv{}", self.number)
    }
}

/// Where the time of one attach went.
pub const STEPS: [&str; 5] = ["firewall", "enter", "host", "container", "ready"];
pub type Steps = [Duration; STEPS.len()];

/// Sockets that are opened once, as a resident engine has them.
pub struct Floor {
    route: Socket,
    nft: Socket,
    home: OwnedFd,
    batch: Batch,
}

impl Floor {
    /// Opens sockets in the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            route: Socket::open(libc::NETLINK_ROUTE)?,
            nft: Socket::open(libc::NETLINK_NETFILTER)?,
            home: open("/proc/thread-self/ns/net")?,
            batch: Batch::default(),
        })
    }

    /// Attaches the namespace at `netns` by `cable`; on return its first packet is not lost.
    pub fn attach(&mut self, cable: &Cable, netns: &Path) -> io::Result<Steps> {
        let mut at = Instant::now();
        let mut lap = || {
            let took = at.elapsed();
            at += took;
            took
        };
        self.batch.clear();
        self.batch.elements(cable, true);
        self.nft(ACK)?;
        let firewall = lap();

        let netns = File::open(netns)?;
        enter(netns.as_raw_fd())?;
        let inside = Socket::open(libc::NETLINK_ROUTE);
        enter(self.home.as_raw_fd())?;
        let mut inside = inside?;
        let entering = lap();

        // What creates is acknowledged before what builds on it is sent.
        self.batch.clear();
        self.batch.veth(cable, netns.as_raw_fd());
        send(&mut self.batch, &mut self.route)?;
        self.batch.clear();
        self.batch.outside(cable);
        send(&mut self.batch, &mut self.route)?;
        let host = lap();

        self.batch.clear();
        let index = inside.index_of("eth0")?;
        self.batch.clear();
        self.batch.inside(cable, index);
        send(&mut self.batch, &mut inside)?;
        let container = lap();

        // Makes the kernel do what it has put off since the carrier came, inside out.
        inside.settle_carrier("eth0")?;
        self.route.settle_carrier(&cable.host_end())?;
        self.route.settle_carrier(&cable.bridge_name)?;
        Ok([firewall, entering, host, container, lap()])
    }

    /// Takes away what is on the host. The cable goes with its namespace, which the caller drops.
    pub fn detach(&mut self, cable: &Cable) -> io::Result<()> {
        self.batch.clear();
        self.batch.elements(cable, false);
        self.nft(ACK)?;
        self.batch.clear();
        self.batch.no_neighbour(cable.bridge, cable.addr);
        self.batch.setting(cable.number, |_| {}, (0, IFF_UP));
        self.batch.setting(cable.number, |batch| batch.number(10, 0), (0, 0));
        send(&mut self.batch, &mut self.route)
    }

    fn nft(&mut self, ack: u16) -> io::Result<()> {
        let last = self.batch.transaction_end(ack);
        self.nft.send(&self.batch.bytes)?;
        self.nft.wait(last)
    }

    /// Sets `lo` up in the sockets' namespace.
    pub fn loopback_up(&mut self) -> io::Result<()> {
        self.batch.clear();
        self.batch.setting(LOOPBACK, |_| {}, (IFF_UP, IFF_UP));
        send(&mut self.batch, &mut self.route)
    }

    /// Returns the index of a link, as `ip link` shows it.
    pub fn index_of(&self, link: &str) -> io::Result<u32> {
        self.route.index_of(link)
    }

    /// Makes a bridge with an address, where no engine has made one: its index.
    pub fn bridge(
        &mut self,
        name: &str,
        mac: [u8; 6],
        (addr, prefix): ([u8; 4], u8),
    ) -> io::Result<u32> {
        let batch = &mut self.batch;
        batch.clear();
        batch.begin(RTM_NEWLINK, CREATE | EXCL, &link_header(0, (IFF_UP, IFF_UP)));
        batch.text(3, name);
        batch.attr(1, &mac);
        let info = batch.nest(18);
        batch.text(1, "bridge");
        let data = batch.nest(2);
        batch.number(1, 0);
        batch.attr(23, &[0]);
        batch.close(data);
        batch.close(info);
        send(&mut self.batch, &mut self.route)?;
        let index = self.index_of(name)?;
        self.batch.clear();
        self.batch.address(index, &addr, prefix);
        send(&mut self.batch, &mut self.route)?;
        Ok(index)
    }

    /// Makes a namespace and attaches it with the messages, and in the way, of the reference that
    /// the floor is itself measured by: both families, one map element, silent ports.
    pub fn attach_as_reference(&mut self, cable: &Cable, netns: &Path) -> io::Result<()> {
        unshare_network()?;
        let mut inside = Socket::bare(libc::NETLINK_ROUTE)?;
        let own = open("/proc/thread-self/ns/net")?;
        bind(own.as_raw_fd(), netns)?;

        self.batch.clear();
        self.batch.reference_veth(cable, own.as_raw_fd());
        send(&mut self.batch, &mut self.route)?;

        self.batch.clear();
        self.batch.reference_inside(cable);
        send(&mut self.batch, &mut inside)?;

        self.batch.clear();
        self.batch.transaction_begin();
        let list = self.batch.list(NFT_NEWSETELEM, libc::NFPROTO_INET, "any4");
        self.batch.element(&cable.any4(), Some(&cable.target()), None);
        self.batch.close(list);
        self.nft(ACK)
    }
}

/// Returns what an attach sends that changes anything: to the firewall, twice on the host, inside.
pub fn changes(cable: &Cable, netns: RawFd, index: u32) -> [Vec<u8>; 4] {
    let finish = |build: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::default();
        build(&mut batch);
        batch.bytes
    };
    [
        finish(&|batch| {
            batch.elements(cable, true);
            batch.transaction_end(ACK);
        }),
        finish(&|batch| {
            batch.veth(cable, netns);
            batch.ask_for_ack();
        }),
        finish(&|batch| {
            batch.outside(cable);
            batch.ask_for_ack();
        }),
        finish(&|batch| {
            batch.inside(cable, index);
            batch.ask_for_ack();
        }),
    ]
}

impl Cable {
    /// Keys and values as the kernel has them: each part in a register of 4 bytes or more.
    fn any4(&self) -> Vec<u8> {
        [&[libc::IPPROTO_TCP as u8, 0, 0, 0], &self.host_port.to_be_bytes()[..], &[0, 0]].concat()
    }

    fn target(&self) -> Vec<u8> {
        [&self.addr[..], &self.port.to_be_bytes(), &[0, 0]].concat()
    }

    fn open4(&self) -> Vec<u8> {
        let proto = [libc::IPPROTO_TCP as u8, 0, 0, 0];
        [&self.addr[..], &proto, &self.port.to_be_bytes(), &[0, 0]].concat()
    }

    fn port_mac(&self) -> Vec<u8> {
        [&self.end_padded()[..], &self.mac, &[0, 0]].concat()
    }

    fn port_source4(&self) -> Vec<u8> {
        [&self.end_padded()[..], &self.addr].concat()
    }

    fn end_padded(&self) -> [u8; 16] {
        let mut padded = [0; 16];
        let name = self.host_end();
        padded[..name.len()].copy_from_slice(name.as_bytes());
        padded
    }
}

/// Messages one after another, as one send takes them.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    start: usize,
    seq: u32,
}

/// Where an attribute that holds others begins.
struct Open(usize);

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
    }

    fn begin(&mut self, kind: u16, flags: u16, body: &[u8]) {
        self.start = self.bytes.len();
        self.seq = self.seq.wrapping_add(1).max(1);
        self.bytes.extend(16u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(self.seq.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(body);
        self.settle();
    }

    fn settle(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length = (self.bytes.len() - self.start) as u32;
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn ask_for_ack(&mut self) {
        self.bytes[self.start + 6] |= ACK as u8;
    }

    fn attr(&mut self, kind: u16, data: &[u8]) {
        self.bytes.extend((data.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(data);
        self.settle();
    }

    fn number(&mut self, kind: u16, number: u32) {
        self.attr(kind, &number.to_ne_bytes());
    }

    fn text(&mut self, kind: u16, text: &str) {
        self.attr(kind, &[text.as_bytes(), &[0]].concat());
    }

    fn nest(&mut self, kind: u16) -> Open {
        let at = self.bytes.len();
        self.attr(kind, &[]);
        Open(at)
    }

    fn close(&mut self, open: Open) {
        let length = (self.bytes.len() - open.0) as u16;
        self.bytes[open.0..open.0 + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// What follows the cable on the host.
    fn outside(&mut self, cable: &Cable) {
        self.finish(cable);
        self.setting(cable.number, |_| {}, (IFF_UP, IFF_UP));
        self.neighbour(cable.bridge, cable.addr, cable.mac);
        self.fdb(cable);
    }

    /// Both ends: the host's on its bridge, the other born where it belongs.
    fn veth(&mut self, cable: &Cable, netns: RawFd) {
        self.begin(RTM_NEWLINK, CREATE | EXCL, &link_header(cable.number, (0, 0)));
        self.text(3, &cable.host_end());
        self.number(4, cable.mtu);
        self.attr(1, &cable.host_mac);
        self.number(27, cable.group);
        self.one_queue();
        self.number(10, cable.bridge);
        let info = self.nest(18);
        self.text(1, "veth");
        let data = self.nest(2);
        let peer = self.nest(1);
        self.bytes.extend(link_header(0, (0, 0)));
        self.text(3, "eth0");
        self.number(28, netns as u32);
        self.number(4, cable.mtu);
        self.attr(1, &cable.mac);
        self.one_queue();
        self.close(peer);
        self.close(data);
        self.close(info);
    }

    fn one_queue(&mut self) {
        self.number(31, 1);
        self.number(32, 1);
    }

    /// Alias, port options, and no address of the kernel's own making.
    fn finish(&mut self, cable: &Cable) {
        // Hairpin, learning, unicast flood, two kinds of proxy ARP, multicast and broadcast
        // flood, isolated.
        let options = [(4, 1), (8, 0), (9, 0), (10, 0), (12, 1), (27, 1), (30, 1), (33, 0)];
        self.begin(RTM_NEWLINK, 0, &link_header(cable.number, (0, 0)));
        self.text(20, &cable.alias);
        self.port_options(&options);
        self.address_generation_none();
    }

    fn port_options(&mut self, options: &[(u16, u8)]) {
        let info = self.nest(18);
        self.text(4, "bridge");
        let data = self.nest(5);
        for (kind, on) in options {
            self.attr(*kind, &[*on]);
        }
        self.close(data);
        self.close(info);
    }

    fn setting(&mut self, index: u32, attribute: impl FnOnce(&mut Self), flags: (u32, u32)) {
        self.begin(RTM_SETLINK, 0, &link_header(index, flags));
        attribute(self);
    }

    fn no_autoconf(&mut self, index: u32) {
        self.setting(index, Self::address_generation_none, (0, 0));
    }

    fn address_generation_none(&mut self) {
        let spec = self.nest(26);
        let inet6 = self.nest(libc::AF_INET6 as u16);
        self.attr(8, &[1]);
        self.close(inet6);
        self.close(spec);
    }

    /// What happens in the container's namespace.
    fn inside(&mut self, cable: &Cable, index: u32) {
        self.setting(LOOPBACK, |_| {}, (IFF_UP, IFF_UP));
        self.no_autoconf(index);
        self.setting(index, |_| {}, (IFF_UP, IFF_UP));
        self.begin(RTM_NEWADDR, CREATE | REPLACE, &address_header(index, 4, cable.prefix));
        self.attr(2, &cable.addr);
        self.attr(1, &cable.addr);
        self.attr(11, &[PROTOCOL]);
        self.default_route(index, &cable.gateway, PROTOCOL);
        self.neighbour(index, cable.gateway, cable.gateway_mac);
    }

    fn address(&mut self, index: u32, addr: &[u8], prefix: u8) {
        self.begin(RTM_NEWADDR, CREATE | EXCL, &address_header(index, addr.len(), prefix));
        self.attr(2, addr);
        self.attr(1, addr);
        if addr.len() == 16 {
            self.number(8, 2); // IFA_F_NODAD
        }
    }

    fn default_route(&mut self, index: u32, gateway: &[u8], protocol: u8) {
        // Family, two lengths, TOS, table main, protocol, scope universe, unicast, flags.
        let header = [family(gateway.len()), 0, 0, 0, 254, protocol, 0, 1, 0, 0, 0, 0];
        self.begin(RTM_NEWROUTE, CREATE | EXCL, &header);
        self.attr(5, gateway);
        self.number(4, index);
    }

    fn neighbour(&mut self, index: u32, addr: [u8; 4], mac: [u8; 6]) {
        let header = neighbour_header(libc::AF_INET, index, (0x80, 0));
        self.begin(RTM_NEWNEIGH, CREATE | REPLACE, &header);
        self.attr(1, &addr);
        self.attr(2, &mac);
        self.attr(12, &[PROTOCOL]);
    }

    fn no_neighbour(&mut self, index: u32, addr: [u8; 4]) {
        self.begin(RTM_DELNEIGH, 0, &neighbour_header(libc::AF_INET, index, (0, 0)));
        self.attr(1, &addr);
    }

    fn fdb(&mut self, cable: &Cable) {
        // NUD_NOARP; in the table of the port's bridge (NTF_MASTER), as learnt elsewhere
        // (NTF_EXT_LEARNED).
        let header = neighbour_header(libc::AF_BRIDGE, cable.number, (0x40, 0x14));
        self.begin(RTM_NEWNEIGH, CREATE | REPLACE, &header);
        self.attr(2, &cable.mac);
    }

    fn elements(&mut self, cable: &Cable, add: bool) {
        let comment = format!("container {}", cable.container);
        let sets = [
            (libc::NFPROTO_INET, "any4", cable.any4(), Some(cable.target())),
            (libc::NFPROTO_INET, "open4", cable.open4(), None),
            (libc::NFPROTO_BRIDGE, "port-mac", cable.port_mac(), None),
            (libc::NFPROTO_BRIDGE, "port-source4", cable.port_source4(), None),
        ];
        self.transaction_begin();
        for (family, set, key, data) in sets {
            let kind = if add { NFT_NEWSETELEM } else { NFT_DELSETELEM };
            let list = self.list(kind, family, set);
            let (data, comment) =
                if add { (data.as_deref(), Some(&comment[..])) } else { (None, None) };
            self.element(&key, data, comment);
            self.close(list);
        }
    }

    fn transaction_begin(&mut self) {
        self.begin(BATCH_BEGIN, 0, &[0, 0, 0, 10]);
    }

    /// Ends a transaction; returns the number of the message that is acknowledged.
    fn transaction_end(&mut self, ack: u16) -> u32 {
        if ack != 0 {
            self.ask_for_ack();
        }
        let last = self.seq;
        self.begin(BATCH_END, 0, &[0, 0, 0, 10]);
        last
    }

    fn list(&mut self, kind: u16, family: i32, set: &str) -> Open {
        let flags = if kind == NFT_NEWSETELEM { CREATE | EXCL } else { 0 };
        self.begin(kind, flags, &[family as u8, 0, 0, 0]);
        self.text(1, "twinax");
        self.text(2, set);
        self.nest(3 | NESTED)
    }

    fn element(&mut self, key: &[u8], data: Option<&[u8]>, comment: Option<&str>) {
        let element = self.nest(1 | NESTED);
        for (kind, value) in [(1, Some(key)), (2, data)] {
            if let Some(value) = value {
                let nest = self.nest(kind | NESTED);
                self.attr(1, value);
                self.close(nest);
            }
        }
        if let Some(comment) = comment {
            let length = comment.len() as u8 + 1;
            self.attr(6, &[&[0, length], comment.as_bytes(), &[0]].concat());
        }
        self.close(element);
    }

    /// As the reference has it: no index, group, alias; a port to which nothing is flooded.
    fn reference_veth(&mut self, cable: &Cable, netns: RawFd) {
        let name = cable.host_end();
        self.begin(RTM_NEWLINK, CREATE | EXCL, &link_header(0, (IFF_UP, IFF_UP)));
        self.text(3, &name);
        self.attr(1, &cable.host_mac);
        self.number(4, cable.mtu);
        self.one_queue();
        self.number(10, cable.bridge);
        let info = self.nest(18);
        self.text(1, "veth");
        let data = self.nest(2);
        let peer = self.nest(1);
        self.bytes.extend(link_header(2, (0, 0)));
        self.text(3, "eth0");
        self.attr(1, &cable.mac);
        self.number(4, cable.mtu);
        self.one_queue();
        self.number(28, netns as u32);
        self.close(peer);
        self.close(data);
        self.close(info);
        self.begin(RTM_NEWLINK, 0, &link_header(0, (0, 0)));
        self.text(3, &name);
        self.port_options(&[(9, 0), (27, 0), (30, 0), (10, 1)]);
    }

    fn reference_inside(&mut self, cable: &Cable) {
        const BOOT: u8 = 4;
        let six = |last: [u8; 2]| {
            let mut addr = [0; 16];
            addr[..2].copy_from_slice(&[0xfd, 0x77]);
            addr[14..].copy_from_slice(&last);
            addr
        };
        self.setting(LOOPBACK, |_| {}, (IFF_UP, IFF_UP));
        self.setting(2, Self::address_generation_none, (IFF_UP, IFF_UP));
        self.address(2, &six([cable.addr[2], cable.addr[3]]), 64);
        self.default_route(2, &six([0, 1]), BOOT);
        self.address(2, &cable.addr, cable.prefix);
        self.default_route(2, &cable.gateway, BOOT);
    }
}

/// `struct ifinfomsg`.
fn link_header(index: u32, (flags, change): (u32, u32)) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// `struct ifaddrmsg`.
fn address_header(index: u32, bytes: usize, prefix: u8) -> [u8; 8] {
    let mut header = [family(bytes), prefix, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    header
}

/// `struct ndmsg`.
fn neighbour_header(family: i32, index: u32, (state, flags): (u16, u8)) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family as u8;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}

fn family(address_bytes: usize) -> u8 {
    let family = if address_bytes == 4 { libc::AF_INET } else { libc::AF_INET6 };
    family as u8
}

fn send(batch: &mut Batch, socket: &mut Socket) -> io::Result<()> {
    batch.ask_for_ack();
    socket.send(&batch.bytes)?;
    socket.wait(batch.seq)
}

/// A netlink socket; it keeps the namespace that it was opened in.
struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    fn open(protocol: i32) -> io::Result<Self> {
        let socket = Self::bare(protocol)?;
        socket.switch_on(11)?; // NETLINK_EXT_ACK
        if protocol == libc::NETLINK_NETFILTER {
            socket.switch_on(10)?; // NETLINK_CAP_ACK
        }
        Ok(socket)
    }

    fn bare(protocol: i32) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers; the descriptor is owned by nobody else yet.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
        let fd = done(fd)?;
        // SAFETY: `fd` was opened just now and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, buffer: vec![0; 1 << 15] })
    }

    fn switch_on(&self, option: i32) -> io::Result<()> {
        let on: i32 = 1;
        // SAFETY: the value is an int that outlives the call, and its size is told.
        let set = unsafe {
            let value = (&raw const on).cast();
            libc::setsockopt(self.fd.as_raw_fd(), libc::SOL_NETLINK, option, value, 4)
        };
        done(set).map(drop)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the bytes are live for the call and their number is told.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn receive(&mut self) -> io::Result<&[u8]> {
        let (at, room) = (self.buffer.as_mut_ptr().cast(), self.buffer.len());
        // SAFETY: the buffer is live for the call and its size is told.
        let got = unsafe { libc::recv(self.fd.as_raw_fd(), at, room, 0) };
        if got < 0 { Err(io::Error::last_os_error()) } else { Ok(&self.buffer[..got as usize]) }
    }

    /// Waits until message `last` is acknowledged; a refusal of any message is the outcome.
    fn wait(&mut self, last: u32) -> io::Result<()> {
        loop {
            let mut rest = self.receive()?;
            while let Some((kind, seq, body, next)) = take(rest) {
                let code = word(body, 0) as i32;
                match (kind, code) {
                    (2, 0) if seq == last => return Ok(()),
                    (2, 1..) | (2, ..0) => return Err(io::Error::from_raw_os_error(-code)),
                    _ => rest = next,
                }
            }
        }
    }

    /// Returns a link's index (`SIOCGIFINDEX`).
    fn index_of(&self, link: &str) -> io::Result<u32> {
        let mut request = request(link, libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 });
        self.ioctl(libc::SIOCGIFINDEX, &mut request)?;
        // SAFETY: it is what the kernel wrote for this question.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex }.cast_unsigned())
    }

    /// Asks for the carrier of a link (`ETHTOOL_GLINK`).
    fn settle_carrier(&self, link: &str) -> io::Result<()> {
        const SIOCETHTOOL: libc::Ioctl = 0x8946;
        let mut value = [0xa_u32, 0];
        let data = libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() };
        self.ioctl(SIOCETHTOOL, &mut request(link, data))
    }

    fn ioctl(&self, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: the request, and what it points to, outlive the call.
        done(unsafe { libc::ioctl(self.fd.as_raw_fd(), number, request) }).map(drop)
    }
}

fn request(link: &str, content: libc::__c_anonymous_ifr_ifru) -> libc::ifreq {
    let mut name = [0; libc::IFNAMSIZ];
    name.iter_mut().zip(link.bytes()).for_each(|(to, from)| *to = from.cast_signed());
    libc::ifreq { ifr_name: name, ifr_ifru: content }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
}

/// Takes a message apart: kind, number, body, what follows.
fn take(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = word(bytes, 0) as usize;
    let body = bytes.get(16..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((word(bytes, 4) as u16, word(bytes, 8), body, next))
}

fn done(outcome: i32) -> io::Result<i32> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome) }
}

fn open(path: &str) -> io::Result<OwnedFd> {
    Ok(File::open(path)?.into())
}

fn enter(netns: RawFd) -> io::Result<()> {
    // SAFETY: no pointers; only the calling thread's namespace changes.
    done(unsafe { libc::setns(netns, libc::CLONE_NEWNET) }).map(drop)
}

fn unshare_network() -> io::Result<()> {
    // SAFETY: no pointers; only the calling thread's namespace changes.
    done(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

fn bind(netns: RawFd, path: &Path) -> io::Result<()> {
    File::create(path)?;
    let source = CString::new(format!("/proc/self/fd/{netns}"))?;
    let target = CString::new(path.as_os_str().as_encoded_bytes())?;
    let none = std::ptr::null();
    let flags = libc::MS_BIND;
    // SAFETY: both texts are live and end with NUL; a bind mount reads neither type nor data.
    let mounted =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), none, flags, std::ptr::null()) };
    done(mounted).map(drop)
}

/// Makes a network namespace that is kept by a mount on `path`, and comes back.
pub fn make_netns(path: &Path) -> io::Result<()> {
    let home = open("/proc/thread-self/ns/net")?;
    unshare_network()?;
    let own = open("/proc/thread-self/ns/net")?;
    let bound = bind(own.as_raw_fd(), path);
    enter(home.as_raw_fd())?;
    bound
}

/// Lets a namespace go that is kept by a mount on `path`.
pub fn drop_netns(path: &Path) -> io::Result<()> {
    let text = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: the text is live and ends with NUL.
    done(unsafe { libc::umount2(text.as_ptr(), libc::MNT_DETACH) })?;
    std::fs::remove_file(path)
}
