//! Forgets connections of UDP ports whose translation has changed.
//!
//! An established entry of the connection table keeps its translation for as long as packets
//! come, whatever the ruleset says by now; for UDP that can be for ever.

use std::net::IpAddr;

use rustix::{io::Errno, net::netlink};
use twinax_core::interior::Flow;

use super::{
    netlink::{Message, Outgoing, attribute, attributes, be32, ip},
    socket::{BatchError, Channel},
};

// linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const IPCTNL_MSG_CT_GET_STATS: u16 = 5;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_STATS_GLOBAL_MAX_ENTRIES: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TIMEOUT: u16 = 7;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_ID: u16 = 12;
const UDP: u8 = 17;

/// `nfgenmsg`: family u8, version u8, resource u16.
const GENERIC_BYTES: usize = 4;

/// A socket to the connection table of the namespace it was opened in.
#[derive(Debug)]
pub struct Conntrack {
    channel: Channel,
}

impl Conntrack {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, Errno> {
        Channel::open(Some(netlink::NETFILTER)).map(|channel| Self { channel })
    }

    /// Deletes the UDP entries that came to `host_port` (on `host`; `None`: on any address) and
    /// either are translated to `target` or are not translated at all. The next packet is
    /// then judged by the ruleset. Returns how many there were.
    pub fn drop_udp(
        &mut self,
        host: Option<IpAddr>,
        host_port: u16,
        target: (IpAddr, u16),
    ) -> Result<usize, BatchError> {
        let family = match target.0 {
            IpAddr::V4(_) => libc::AF_INET as u8,
            IpAddr::V6(_) => libc::AF_INET6 as u8,
        };
        let mut stale: Vec<Key> = Vec::new();
        self.channel.dump(&mut question(family, host_port), &mut |message| match message {
            None => stale.clear(),
            Some(message) => {
                let Some(entry) = Entry::read(message) else {
                    return;
                };
                let here = host.is_none_or(|host| entry.orig.dst == host);
                let at = entry.orig.dst_port == host_port && entry.proto == UDP;
                if at && here && (entry.reply.source() == target || !entry.is_translated()) {
                    stale.push(entry.key);
                }
            }
        })?;
        for key in &stale {
            self.delete(family, key)?;
        }
        Ok(stale.len())
    }

    /// Lists UDP flows of one IP version, at most `most`.
    pub fn udp(&mut self, family: u8, most: usize) -> Result<Vec<Flow>, BatchError> {
        let mut flows = Vec::new();
        self.channel.dump(&mut of_udp(family), &mut |message| match message {
            None => flows.clear(),
            Some(message) if flows.len() < most => flows.extend(flow(message)),
            Some(_) => {}
        })?;
        Ok(flows)
    }

    /// Returns how many entries there are, and how many there may be.
    ///
    /// # Errors
    /// The kernel's: `EPERM` without CAP_NET_ADMIN.
    pub fn fill(&mut self) -> Result<(u64, u64), Errno> {
        let seq = self.channel.take_seq(1);
        self.channel.send(message(IPCTNL_MSG_CT_GET_STATS, seq, 0).bytes())?;
        loop {
            let answer = self.channel.receive(|message| {
                if message.seq != seq {
                    return None;
                }
                if let Some((errno, _)) = message.refusal() {
                    return Some(Err(errno));
                }
                let rest = message.body.get(GENERIC_BYTES..).unwrap_or_default();
                let number = |kind| attribute(rest, kind).and_then(be32).map(u64::from);
                let fill =
                    number(CTA_STATS_GLOBAL_ENTRIES).zip(number(CTA_STATS_GLOBAL_MAX_ENTRIES));
                Some(fill.ok_or(Errno::BADMSG))
            })?;
            if let Some(fill) = answer {
                return fill;
            }
        }
    }

    fn delete(&mut self, family: u8, key: &Key) -> Result<(), BatchError> {
        let seq = self.channel.take_seq(1);
        let mut out = message(IPCTNL_MSG_CT_DELETE, seq, family);
        out.ask_for_ack();
        let tuple = out.open(CTA_TUPLE_ORIG);
        out.body(&key.tuple);
        out.close(tuple);
        if let Some(id) = &key.id {
            out.attr(CTA_ID, id);
        }
        let io = |errno| BatchError { index: 0, errno, text: "conntrack socket".to_owned() };
        self.channel.send(out.bytes()).map_err(io)?;
        loop {
            let answer = self.channel.receive(|message| {
                let ours = message.seq == seq && message.is_verdict();
                ours.then(|| message.refusal())
            });
            match answer.map_err(io)? {
                None => {}
                // It may have run out, or been replaced, since it was listed.
                Some(None | Some((Errno::NOENT, _))) => return Ok(()),
                Some(Some((errno, text))) => return Err(BatchError { index: 0, errno, text }),
            }
        }
    }
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    src: IpAddr,
    src_port: u16,
    dst: IpAddr,
    dst_port: u16,
}

impl Tuple {
    fn source(&self) -> (IpAddr, u16) {
        (self.src, self.src_port)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    proto: u8,
    orig: Tuple,
    reply: Tuple,
    key: Key,
}

/// The attributes that name one very entry in a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Key {
    tuple: Vec<u8>,
    id: Option<Vec<u8>>,
}

impl Entry {
    fn read(message: Message<'_>) -> Option<Self> {
        let (mut orig, mut reply) = (None, None);
        let mut key = Key::default();
        for (kind, data) in attributes(message.body.get(GENERIC_BYTES..)?) {
            match kind {
                CTA_TUPLE_ORIG => {
                    orig = read_tuple(data);
                    key.tuple = data.to_vec();
                }
                CTA_TUPLE_REPLY => reply = read_tuple(data),
                CTA_ID => key.id = Some(data.to_vec()),
                _ => {}
            }
        }
        // Without a tuple a deletion would empty the table, hence the `?`.
        let ((proto, orig), (_, reply)) = (orig?, reply?);
        Some(Self { proto, orig, reply, key })
    }

    fn is_translated(&self) -> bool {
        (self.reply.src, self.reply.src_port) != (self.orig.dst, self.orig.dst_port)
            || (self.reply.dst, self.reply.dst_port) != (self.orig.src, self.orig.src_port)
    }
}

fn read_tuple(bytes: &[u8]) -> Option<(u8, Tuple)> {
    let mut proto = None;
    let (mut src, mut dst, mut src_port, mut dst_port) = (None, None, 0, 0);
    for (kind, part) in attributes(bytes) {
        match kind {
            CTA_TUPLE_IP => {
                // CTA_IP_V4_SRC, V4_DST, V6_SRC and V6_DST are 1 to 4.
                for (kind, data) in attributes(part) {
                    match kind {
                        1 | 3 => src = ip(data),
                        2 | 4 => dst = ip(data),
                        _ => {}
                    }
                }
            }
            CTA_TUPLE_PROTO => {
                for (kind, data) in attributes(part) {
                    let port = data.first_chunk().map(|port| u16::from_be_bytes(*port));
                    match kind {
                        CTA_PROTO_NUM => proto = data.first().copied(),
                        CTA_PROTO_SRC_PORT => src_port = port?,
                        CTA_PROTO_DST_PORT => dst_port = port?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some((proto?, Tuple { src: src?, src_port, dst: dst?, dst_port }))
}

/// Lets the kernel leave out what is not UDP to this port (since Linux 5.8; older kernels list
/// everything, and all that is listed is looked at here once more).
fn question(family: u8, port: u16) -> Outgoing {
    // CTA_FILTER_FLAG_CTA_PROTO_NUM and CTA_FILTER_FLAG_CTA_PROTO_DST_PORT: bits 3 and 5
    // of net/netfilter/nf_conntrack_netlink.c (IP_SRC, IP_DST, ZONE, NUM, SRC_PORT, DST_PORT).
    let orig_flags: u32 = 1 << 3 | 1 << 5;
    let mut out = message(IPCTNL_MSG_CT_GET, 0, family);
    let tuple = out.open(CTA_TUPLE_ORIG);
    let proto = out.open(CTA_TUPLE_PROTO);
    out.attr(CTA_PROTO_NUM, &[UDP]);
    out.attr(CTA_PROTO_DST_PORT, &port.to_be_bytes());
    out.close(proto);
    out.close(tuple);
    let filter = out.open(CTA_FILTER);
    out.attr(CTA_FILTER_ORIG_FLAGS, &orig_flags.to_ne_bytes());
    out.attr(CTA_FILTER_REPLY_FLAGS, &0u32.to_ne_bytes());
    out.close(filter);
    out
}

/// All of UDP.
fn of_udp(family: u8) -> Outgoing {
    let mut out = message(IPCTNL_MSG_CT_GET, 0, family);
    let tuple = out.open(CTA_TUPLE_ORIG);
    let proto = out.open(CTA_TUPLE_PROTO);
    out.attr(CTA_PROTO_NUM, &[UDP]);
    out.close(proto);
    out.close(tuple);
    let filter = out.open(CTA_FILTER);
    out.attr(CTA_FILTER_ORIG_FLAGS, &(1u32 << 3).to_ne_bytes());
    out.attr(CTA_FILTER_REPLY_FLAGS, &0u32.to_ne_bytes());
    out.close(filter);
    out
}

fn flow(message: Message<'_>) -> Option<Flow> {
    let entry = Entry::read(message)?;
    let timeout = attributes(message.body.get(GENERIC_BYTES..)?)
        .find(|(kind, _)| *kind == CTA_TIMEOUT)
        .and_then(|(_, data)| be32(data));
    (entry.proto == UDP).then(|| Flow {
        protocol: UDP,
        from: (entry.orig.src, entry.orig.src_port),
        to: (entry.orig.dst, entry.orig.dst_port),
        reply_from: (entry.reply.src, entry.reply.src_port),
        reply_to: (entry.reply.dst, entry.reply.dst_port),
        timeout: timeout.unwrap_or_default(),
    })
}

fn message(kind: u16, seq: u32, family: u8) -> Outgoing {
    let mut out = Outgoing::default();
    out.message(NFNL_SUBSYS_CTNETLINK << 8 | kind, 0, seq);
    out.body(&[family, 0, 0, 0]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::netlink::messages;

    fn tuple(out: &mut Outgoing, kind: u16, src: &str, dst: &str) {
        let (src, dst): (std::net::SocketAddrV4, std::net::SocketAddrV4) =
            (src.parse().unwrap(), dst.parse().unwrap());
        let tuple = out.open(kind);
        let ip = out.open(CTA_TUPLE_IP);
        out.attr(1, &src.ip().octets());
        out.attr(2, &dst.ip().octets());
        out.close(ip);
        let proto = out.open(CTA_TUPLE_PROTO);
        out.attr(CTA_PROTO_NUM, &[UDP]);
        out.attr(CTA_PROTO_SRC_PORT, &src.port().to_be_bytes());
        out.attr(CTA_PROTO_DST_PORT, &dst.port().to_be_bytes());
        out.close(proto);
        out.close(tuple);
    }

    /// One attribute after another: an original direction, a reply from there, an id.
    fn entry(orig: bool, reply_from: &str, id: bool) -> Vec<u8> {
        let mut out = message(0, 0, 2);
        if orig {
            tuple(&mut out, CTA_TUPLE_ORIG, "192.0.2.9:5000", "192.0.2.1:53");
        }
        if !reply_from.is_empty() {
            tuple(&mut out, CTA_TUPLE_REPLY, reply_from, "192.0.2.9:5000");
        }
        if id {
            out.attr(CTA_ID, &[1, 2, 3, 4]);
        }
        messages(out.bytes()).next().unwrap().body.to_vec()
    }

    fn read(body: &[u8]) -> Option<Entry> {
        Entry::read(Message { kind: 0, flags: 0, seq: 0, body })
    }

    #[test]
    fn an_entry_names_itself_and_its_translation() {
        let moved = read(&entry(true, "10.1.0.2:5353", true)).unwrap();
        assert_eq!(moved.reply.source(), ("10.1.0.2".parse().unwrap(), 5353));
        assert!(moved.is_translated());
        assert_eq!(read_tuple(&moved.key.tuple), Some((UDP, moved.orig)));
        assert_eq!(moved.key.id.as_deref(), Some(&[1, 2, 3, 4][..]));
        assert!(!read(&entry(true, "192.0.2.1:53", false)).unwrap().is_translated());
        assert_eq!(read(&entry(false, "192.0.2.1:53", true)), None, "no key, no deletion");
        let whole = entry(true, "10.1.0.2:5353", true);
        for n in 0..whole.len() {
            let _ = read(&whole[..n]);
        }
    }
}
